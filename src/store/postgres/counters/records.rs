//! What requests with an idempotency key have drawn. The same table serves every mode and every counter, so a key needs no pin: the
//! transaction that draws for it finds, under whatever counter or mode, that it was used; and of two that draw for one key at once,
//! the later one fails and begins again.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::super::{
    failure::Failure,
    values::{moment, ranges},
};
use crate::{
    clock::UnixMillis,
    counter::{Ranges, ValueRange},
    store::protocol::counter::{ClaimAsk, Entry, Record},
};

/// What is on record, by key.
pub(super) type Records = BTreeMap<String, Entry>;

/// What is on record for these claims.
pub(super) async fn fetch(connection: &mut PgConnection, claims: &[ClaimAsk]) -> Result<Records, Failure> {
    if claims.is_empty() {
        return Ok(Records::new());
    }
    let rows = sqlx::query(
        "SELECT encode(key, 'hex') AS key, encode(fingerprint, 'hex') AS fingerprint, stamp, value_ranges, expires_at_ms
         FROM numgen_idempotency
         WHERE key = ANY(SELECT decode(asked, 'hex') FROM unnest($1::text[]) AS asked)",
    )
    .bind(claims.iter().map(|claim| claim.key.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &PgRow) -> Result<(String, Entry), Failure> {
    let record = Record {
        fingerprint: row.try_get("fingerprint")?,
        stamp: row.try_get("stamp")?,
        values: ranges(row, "value_ranges")?.iter().collect(),
        expires_at: moment(row, "expires_at_ms")?,
    };
    Ok((row.try_get("key")?, Entry::Drawn(record)))
}

/// Puts on record what was drawn. In the order of the keys, so that two transactions do not wait for each other.
///
/// # Errors
///
/// [`Failure::Overtaken`] where another transaction has drawn for one of the keys since `before` was read.
pub(super) async fn write(
    connection: &mut PgConnection,
    before: &Records,
    after: &Records,
) -> Result<(), Failure> {
    let drawn = |entry: &Entry| match entry {
        Entry::Drawn(record) => Some(record.clone()),
        Entry::Void { .. } => None,
    };
    let changed = after.iter().filter(|(key, entry)| before.get(*key) != Some(*entry));
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for (key, entry) in changed {
        let Some(record) = drawn(entry) else { continue };
        match before.get(key).and_then(drawn) {
            None => first.push((key, record)),
            Some(expired) => again.push((key, record, expired.expires_at)),
        }
    }
    insert(connection, &first).await?;
    for (key, record, expired_at) in again {
        replace(connection, key, &record, expired_at).await?;
    }
    Ok(())
}

async fn insert(connection: &mut PgConnection, records: &[(&String, Record)]) -> Result<(), Failure> {
    if records.is_empty() {
        return Ok(());
    }
    let texts =
        |text: fn(&Record) -> String| records.iter().map(|(_, record)| text(record)).collect::<Vec<_>>();
    let done = sqlx::query(
        "INSERT INTO numgen_idempotency (key, fingerprint, stamp, value_ranges, expires_at_ms)
         SELECT decode(key, 'hex'), decode(fingerprint, 'hex'), stamp, value_ranges, expires_at_ms
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
             AS drawn (key, fingerprint, stamp, value_ranges, expires_at_ms)
         ORDER BY key
         ON CONFLICT (key) DO NOTHING",
    )
    .bind(records.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>())
    .bind(texts(|record| record.fingerprint.clone()))
    .bind(texts(|record| record.stamp.clone()))
    .bind(texts(|record| text_of(&record.values)))
    .bind(records.iter().map(|(_, record)| record.expires_at.0).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    if done.rows_affected() == records.len() as u64 { Ok(()) } else { Err(Failure::Overtaken) }
}

/// In the place of a record that had expired when the claim was made.
async fn replace(
    connection: &mut PgConnection,
    key: &str,
    record: &Record,
    expired_at: UnixMillis,
) -> Result<(), Failure> {
    let done = sqlx::query(
        "INSERT INTO numgen_idempotency AS known (key, fingerprint, stamp, value_ranges, expires_at_ms)
         VALUES (decode($1, 'hex'), decode($2, 'hex'), $3, $4, $5)
         ON CONFLICT (key) DO UPDATE
         SET fingerprint = excluded.fingerprint, stamp = excluded.stamp, value_ranges = excluded.value_ranges,
             expires_at_ms = excluded.expires_at_ms
         WHERE known.expires_at_ms = $6",
    )
    .bind(key)
    .bind(&record.fingerprint)
    .bind(&record.stamp)
    .bind(text_of(&record.values))
    .bind(record.expires_at.0)
    .bind(expired_at.0)
    .execute(connection)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Failure::Overtaken) }
}

fn text_of(values: &[ValueRange]) -> String {
    let mut ranges = Ranges::new();
    values.iter().for_each(|range| ranges.push(*range));
    ranges.to_string()
}
