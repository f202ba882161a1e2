//! The audit trail: entries go in with the change that they tell of.

use rusqlite::{Row, params};

use super::{
    SqliteStore,
    failure::Failure,
    values::{self, signed, unsigned},
    workspace::{Workspace, collect},
};
use crate::{
    clock::UnixMillis,
    store::{
        AuditAction, AuditDetails, AuditEntry, AuditQuery, AuditRecord, AuditStore, Author, Note, StoreFuture,
    },
};

const APPEND: &str = "INSERT INTO audit (at_ms, prefix_key, action, subject, address, request_id, details)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const PAGE: &str =
    "SELECT position, at_ms, prefix_key, action, subject, address, request_id, details FROM audit
    WHERE position > ?1 AND at_ms BETWEEN ?2 AND ?3 ORDER BY position LIMIT ?4";
const PAGE_OF_KEY: &str =
    "SELECT position, at_ms, prefix_key, action, subject, address, request_id, details FROM audit
    WHERE prefix_key = ?5 AND position > ?1 AND at_ms BETWEEN ?2 AND ?3 ORDER BY position LIMIT ?4";

impl AuditStore for SqliteStore {
    fn append(&self, entry: AuditEntry) -> StoreFuture<'_, ()> {
        self.write("append_audit", move |workspace| append(workspace, &entry))
    }

    fn page(&self, query: AuditQuery) -> StoreFuture<'_, Vec<AuditRecord>> {
        self.read("page_audit", move |connection| {
            let (from, to) = (query.from.map_or(i64::MIN, |at| at.0), query.to.map_or(i64::MAX, |at| at.0));
            let after = query.after.map_or(0, signed);
            match &query.key {
                Some(key) => {
                    let parameters = params![after, from, to, query.limit, key.as_str()];
                    collect(connection, PAGE_OF_KEY, parameters, record)
                }
                None => collect(connection, PAGE, params![after, from, to, query.limit], record),
            }
        })
    }
}

/// Writes the entry of a change in the transaction of the change.
pub(super) fn enter(workspace: &Workspace, note: Option<&Note>) -> Result<(), Failure> {
    note.map_or(Ok(()), |note| append(workspace, note.entry()))
}

fn append(workspace: &Workspace, entry: &AuditEntry) -> Result<(), Failure> {
    let AuditEntry { at, author, action, key, details } = entry;
    workspace.execute(
        APPEND,
        params![
            at.0,
            key.as_str(),
            action.as_str(),
            &*author.subject,
            author.address.map(|address| address.to_string()),
            author.request_id,
            details.to_json(),
        ],
    )?;
    Ok(())
}

fn record(row: &Row<'_>) -> Result<AuditRecord, Failure> {
    let details = row.get_ref("details")?.as_str().map_err(rusqlite::Error::from)?;
    let details = AuditDetails::from_json(details)
        .ok_or_else(|| Failure::Corrupt("details of an audit entry that cannot be read".to_owned()))?;
    let author = Author {
        subject: row.get::<_, String>("subject")?.into(),
        address: values::address(row)?,
        request_id: row.get("request_id")?,
    };
    let entry = AuditEntry {
        at: UnixMillis(row.get("at_ms")?),
        author,
        action: values::word(row, "action", AuditAction::parse)?,
        key: values::prefix_key(row)?,
        details,
    };
    Ok(AuditRecord { position: unsigned(row, "position")?, entry })
}
