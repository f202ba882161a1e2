//! The audit trail: entries go in with the change that they tell of.
//!
//! Invariant: entries become visible in the order of their positions, since whoever writes one holds a lock to the commit. It is the
//! last thing that a transaction takes, so nobody waits for it in a circle. Some entries are committed ahead of the disk: whoever
//! reads passes a barrier (`barrier.rs`).

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    PostgresStore,
    barrier::barrier,
    failure::Failure,
    values::{moment, prefix_key, signed, unsigned, word},
};
use crate::store::{
    AuditAction, AuditDetails, AuditEntry, AuditQuery, AuditRecord, AuditStore, Author, Note, StoreFuture,
};

/// Positions are drawn under the lock.
const APPEND: &str = "
    WITH alone AS MATERIALIZED (SELECT numgen_audit_lock())
    INSERT INTO numgen_audit (at_ms, prefix_key, action, subject, address, request_id, details)
    SELECT e.at_ms, e.prefix_key, e.action, e.subject, e.address, e.request_id, e.details
    FROM alone, unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) WITH ORDINALITY
        AS e (at_ms, prefix_key, action, subject, address, request_id, details, place)
    ORDER BY e.place";
const PAGE: &str = "
    SELECT position, at_ms, prefix_key, action, subject, address, request_id, details FROM numgen_audit
    WHERE position > $1 AND at_ms BETWEEN $2 AND $3 ORDER BY position LIMIT $4";
const PAGE_OF_KEY: &str = "
    SELECT position, at_ms, prefix_key, action, subject, address, request_id, details FROM numgen_audit
    WHERE prefix_key = $5 AND position > $1 AND at_ms BETWEEN $2 AND $3 ORDER BY position LIMIT $4";

impl AuditStore for PostgresStore {
    fn append(&self, entry: AuditEntry) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.transact("append_audit", &entry, |connection, entry| {
                Box::pin(async move { append(connection, &[entry]).await })
            })
            .await
        })
    }

    fn page(&self, query: AuditQuery) -> StoreFuture<'_, Vec<AuditRecord>> {
        Box::pin(async move { self.transact("page_audit", &query, page).await })
    }
}

/// Writes the entries of changes in the transaction of the changes: after everything else.
pub(super) async fn enter(
    connection: &mut PgConnection,
    notes: impl IntoIterator<Item = &Note>,
) -> Result<(), Failure> {
    let entries: Vec<_> = notes.into_iter().map(Note::entry).collect();
    if entries.is_empty() { Ok(()) } else { append(connection, &entries).await }
}

/// Writes entries, in their order.
pub(super) async fn append(connection: &mut PgConnection, entries: &[&AuditEntry]) -> Result<(), Failure> {
    let authors = || entries.iter().map(|entry| &entry.author);
    sqlx::query(APPEND)
        .bind(entries.iter().map(|entry| entry.at.0).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>())
        .bind(authors().map(|author| &*author.subject).collect::<Vec<_>>())
        .bind(authors().map(|author| author.address.map(|address| address.to_string())).collect::<Vec<_>>())
        .bind(authors().map(|author| author.request_id.as_deref()).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.details.to_json()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

fn page<'c>(
    connection: &'c mut PgConnection,
    query: &'c AuditQuery,
) -> BoxFuture<'c, Result<Vec<AuditRecord>, Failure>> {
    Box::pin(async move {
        let statement = if query.key.is_some() { PAGE_OF_KEY } else { PAGE };
        let mut page = sqlx::query(statement)
            .bind(query.after.map_or(0, signed))
            .bind(query.from.map_or(i64::MIN, |at| at.0))
            .bind(query.to.map_or(i64::MAX, |at| at.0))
            .bind(i64::from(query.limit));
        if let Some(key) = &query.key {
            page = page.bind(key.as_str());
        }
        let rows = page.fetch_all(&mut *connection).await?;
        barrier(connection).await?;
        rows.iter().map(record).collect()
    })
}

fn record(row: &PgRow) -> Result<AuditRecord, Failure> {
    let address: Option<&str> = row.try_get("address")?;
    let address = address.map(str::parse).transpose();
    let author = Author {
        subject: row.try_get::<&str, _>("subject")?.into(),
        address: address.map_err(|_| Failure::corrupt("an address that is none"))?,
        request_id: row.try_get("request_id")?,
    };
    let entry = AuditEntry {
        at: moment(row, "at_ms")?,
        author,
        action: word(row, "action", AuditAction::parse)?,
        key: prefix_key(row)?,
        details: word(row, "details", AuditDetails::from_json)?,
    };
    Ok(AuditRecord { position: unsigned(row, "position")?, entry })
}
