//! A batch worked out: what it adds to a ledger, and the idempotency records that go with it.

use std::collections::HashMap;

use sqlx::{PgConnection, Row};

use super::{
    super::{
        failure::Failure,
        idempotency::{key_of, record},
    },
    sheet::{Batch, Others, Sheet, Signature},
    statement::Commit,
};
use crate::{
    clock::UnixMillis,
    counter::{Counter, ValueRange},
    store::{
        Bounds, IssueRequest, LedgerRow, RenderNumber, Taken,
        draw::{Ask, Movement, Record, Standing},
        ledger::{self, Account, Entries},
    },
};

/// SHA-256 of a key in its scope.
type Key = [u8; 32];

/// The constraint that decides between two batches with one key.
const KEYS: &str = "numgen_idempotency_pkey";

/// As many requests at a time make it likely that more come meanwhile.
const MANY: usize = 4;

/// A batch worked out, to be written.
#[derive(Debug)]
pub(super) struct Entry {
    /// The sheet that it was worked out from.
    before: Sheet,
    /// Schemes of the counter's key up to this one may be retired.
    scheme: u64,
    standing: Standing,
    account: Account,
    batch: Batch,
    /// How many requests it serves.
    asked: usize,
    rows: Vec<LedgerRow>,
    records: Vec<Remembered>,
    /// What a floor passed over and is too long for rows.
    pub(super) hole: Option<ValueRange>,
}

/// A record to be written: under which key, claimed when.
pub(super) type Remembered = (Key, UnixMillis, Record);

/// What was asked for.
pub(super) struct Order {
    pub(super) counter: Counter,
    pub(super) bounds: Bounds,
    pub(super) requests: Vec<IssueRequest>,
    pub(super) render: RenderNumber,
}

/// What each key of a batch was given, in the order of the keys: two batches that meet in several keys meet in the same order.
pub(super) fn records_of<A: Ask>(asks: &[A], taken: &[Taken]) -> Vec<Remembered> {
    let given = asks.iter().zip(taken).filter_map(|(ask, answer)| match (ask.claim(), answer) {
        (Some(claim), Taken::Fresh(values)) => {
            Some((key_of(claim), claim.claimed_at, Record::of(claim, values.clone())))
        }
        (_, _) => None,
    });
    let mut records: Vec<_> = given.collect();
    records.sort_unstable_by_key(|(key, ..)| *key);
    records
}

impl Entry {
    /// What a batch of requests adds, once `plan` has answered them.
    pub(super) fn of_batch(
        sheet: Sheet,
        order: &Order,
        batch: Batch,
        movement: Movement,
        taken: &[Taken],
        others: Others,
    ) -> Self {
        let Order { counter, bounds, requests, render } = order;
        let cursor = match others {
            Others::Stayed => sheet.standing.map(|standing| standing.last),
            Others::Drew => None,
        };
        let account = sheet.account.clone();
        let entries = ledger::enter_batch(counter, account, cursor, movement, taken, requests, render);
        let standing = Standing { base: movement.base, last: movement.last };
        let records = records_of(requests, taken);
        Self {
            scheme: bounds.scheme,
            records,
            asked: requests.len(),
            ..Self::of_rows(sheet, standing, batch, entries)
        }
    }

    /// What rows without a request add.
    pub(super) fn of_rows(sheet: Sheet, standing: Standing, batch: Batch, entries: Entries) -> Self {
        let Entries { rows, account, hole } = entries;
        let scheme = u64::MAX;
        Self { before: sheet, scheme, standing, account, batch, asked: 0, rows, records: Vec::new(), hole }
    }

    /// The number of its counter.
    pub(super) fn counter(&self) -> i64 {
        self.before.id
    }

    /// The sheet before it is written.
    pub(super) fn sheet(&self) -> &Sheet {
        &self.before
    }

    /// Whether the batch before it was of this process.
    pub(super) fn was_written_by(&self, writer: &[u8; 16]) -> bool {
        self.before.signature.is_some_and(|past| past.writer == *writer)
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// Its name.
    pub(super) fn batch(&self) -> Batch {
        self.batch
    }

    /// The highest scheme that may be retired.
    pub(super) fn scheme(&self) -> u64 {
        self.scheme
    }

    pub(super) fn rows(&self) -> &[LedgerRow] {
        &self.rows
    }

    pub(super) fn records(&self) -> &[Remembered] {
        &self.records
    }

    /// Whether others are likely to wait for this one: then its commit does not make them wait for the disk.
    pub(super) fn commit(&self) -> Commit {
        if self.asked >= MANY { Commit::Ahead } else { Commit::Waits }
    }

    /// The sheet once it is written.
    pub(super) fn after(&self, writer: [u8; 16]) -> Sheet {
        Sheet {
            version: self.before.version + 1,
            standing: Some(self.standing),
            account: self.account.clone(),
            signature: Some(Signature { writer, batch: self.batch }),
            ..self.before
        }
    }
}

// -------------------------------------------------------------------------------------- remembered keys

/// What is stored under the keys of a batch.
pub(super) async fn recall<A: Ask>(
    connection: &mut PgConnection,
    asks: &[A],
) -> Result<HashMap<Key, Record>, Failure> {
    const RECALL: &str = "SELECT key, fingerprint, stamp, value_ranges, expires_at_ms FROM numgen_idempotency
        WHERE key = ANY($1::bytea[])";
    let keys: Vec<Key> = asks.iter().filter_map(Ask::claim).map(key_of).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let rows = sqlx::query(RECALL).bind(keys).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get("key")?, record(row)?))).collect()
}

/// Deletes records that have expired by the time of the claims that are to replace them.
pub(super) async fn forget_expired(
    connection: &mut PgConnection,
    records: &[Remembered],
) -> Result<(), Failure> {
    const FORGET: &str =
        "DELETE FROM numgen_idempotency i USING unnest($1::bytea[], $2::bigint[]) AS k (key, claimed_at_ms)
        WHERE i.key = k.key AND i.expires_at_ms <= k.claimed_at_ms";
    let keys: Vec<&[u8]> = records.iter().map(|(key, ..)| &key[..]).collect();
    let claimed: Vec<i64> = records.iter().map(|(_, claimed_at, _)| claimed_at.0).collect();
    sqlx::query(FORGET).bind(keys).bind(claimed).execute(connection).await?;
    Ok(())
}

/// Writes records, outside a ledger. Fails where a key has one.
pub(super) async fn remember(
    connection: &mut PgConnection,
    records: &[Remembered],
) -> Result<(), sqlx::Error> {
    const REMEMBER: &str =
        "INSERT INTO numgen_idempotency (key, fingerprint, stamp, value_ranges, expires_at_ms)
        SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::text[], $5::bigint[])";
    let each = || records.iter();
    sqlx::query(REMEMBER)
        .bind(each().map(|(key, ..)| &key[..]).collect::<Vec<_>>())
        .bind(each().map(|(.., record)| &record.fingerprint[..]).collect::<Vec<_>>())
        .bind(each().map(|(.., record)| &*record.recorded.stamp).collect::<Vec<_>>())
        .bind(each().map(|(.., record)| record.recorded.values.to_string()).collect::<Vec<_>>())
        .bind(each().map(|(.., record)| record.expires_at.0).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// A key that somebody else has recorded meanwhile: the whole transaction is done again, and finds the record.
pub(super) fn raced(error: sqlx::Error) -> Failure {
    let constraint = error.as_database_error().and_then(|error| error.constraint());
    if constraint == Some(KEYS) { Failure::Overtaken } else { error.into() }
}
