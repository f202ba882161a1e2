//! One statement that writes whole batches: the sheets of their counters, their rows, their idempotency records.
//!
//! Invariants: a guess is written only on a server that is believed (`marker.rs`). A batch is written if and only if its sheet still has the version that the batch was worked out from, its scheme is not
//! retired, and no key of it has a record; sheet, rows and records of one batch are written together or not at all. A key that
//! somebody else is just recording makes the statement wait, and then fail as a whole: the unique index decides.

use std::collections::HashMap;

use sqlx::{PgConnection, Row};

use super::{
    super::{
        failure::Failure,
        idempotency::{key_of, record},
        values::{Whole, signed},
    },
    marker::{Beat, open},
    sheet::{Sheet, Signature},
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

/// A batch worked out, to be written.
#[derive(Debug)]
pub(super) struct Entry {
    /// The sheet that it was worked out from.
    before: Sheet,
    /// Schemes of the counter's key up to this one may be retired.
    scheme: u64,
    standing: Standing,
    account: Account,
    batch: i64,
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
        batch: i64,
        movement: Movement,
        taken: &[Taken],
    ) -> Self {
        let Order { counter, bounds, requests, render } = order;
        let (account, cursor) = (sheet.account.clone(), sheet.standing.map(|standing| standing.last));
        let entries = ledger::enter_batch(counter, account, cursor, movement, taken, requests, render);
        let standing = Standing { base: movement.base, last: movement.last };
        let records = records_of(requests, taken);
        Self { scheme: bounds.scheme, records, ..Self::of_rows(sheet, standing, batch, entries) }
    }

    /// What rows without a request add.
    pub(super) fn of_rows(sheet: Sheet, standing: Standing, batch: i64, entries: Entries) -> Self {
        let Entries { rows, account, hole } = entries;
        Self { before: sheet, scheme: u64::MAX, standing, account, batch, rows, records: Vec::new(), hole }
    }

    /// The number of its counter.
    pub(super) fn counter(&self) -> i64 {
        self.before.id
    }

    /// The sheet before it is written.
    pub(super) fn sheet(&self) -> &Sheet {
        &self.before
    }

    pub(super) fn records(&self) -> &[Remembered] {
        &self.records
    }

    pub(super) fn row_count(&self) -> usize {
        self.rows.len()
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

// ------------------------------------------------------------------------------------------- statement

macro_rules! write_statement {
    ($condition:expr, $and_no_key:expr, $records:expr) => {
        concat!(
            "WITH job AS (
                SELECT * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::numeric[], $6::numeric[], $7::numeric[],
                    $8::numeric[], $9::text[], $10::bigint[])
                AS job (counter, version, scheme, base, last, run_first, run_last, head, batch)
            ), moved AS (
                UPDATE numgen_ledger_counters c
                SET version = c.version + 1, base = job.base, last = job.last, run_first = job.run_first, run_last = job.run_last,
                    head = job.head, writer = $1, batch = job.batch
                FROM job WHERE c.id = job.counter AND c.version = job.version AND c.scheme <= job.scheme AND ",
            $condition,
            $and_no_key,
            "    RETURNING c.id, c.prefix
            ), displaced AS (
                INSERT INTO numgen_ledger_writers (counter, writer, batch)
                SELECT c.id, c.writer, c.batch FROM moved JOIN numgen_ledger_counters c ON c.id = moved.id
                WHERE c.writer <> $1
                ON CONFLICT (counter, writer) DO UPDATE SET batch = excluded.batch, noted_at = now()
            ), entered AS (
                INSERT INTO numgen_ledger (counter, prefix, sequence, number, state, reason, subject, reserved_until_ms, issued_at_ms,
                    idempotency_key, hash)
                SELECT moved.id, moved.prefix, r.sequence, r.number, r.state::numgen_ledger_state, r.reason, r.subject,
                    r.reserved_until_ms, r.issued_at_ms, r.idempotency_key, decode(r.hash, 'hex')
                FROM unnest($11::bigint[], $12::numeric[], $13::text[], $14::text[], $15::text[], $16::text[], $17::bigint[],
                    $18::bigint[], $19::text[], $20::text[])
                AS r (counter, sequence, number, state, reason, subject, reserved_until_ms, issued_at_ms, idempotency_key, hash)
                JOIN moved ON moved.id = r.counter
            )",
            $records,
            " SELECT id FROM moved"
        )
    };
}

macro_rules! and_no_key {
    () => {
        " AND NOT EXISTS (
            SELECT FROM unnest($23::bigint[], $24::bytea[]) AS k (counter, key) JOIN numgen_idempotency i ON i.key = k.key
            WHERE k.counter = c.id)"
    };
}

macro_rules! records {
    () => {
        ", recorded AS (
            INSERT INTO numgen_idempotency (key, fingerprint, stamp, value_ranges, expires_at_ms)
            SELECT k.key, k.fingerprint, k.stamp, k.value_ranges, k.expires_at_ms
            FROM unnest($23::bigint[], $24::bytea[], $25::bytea[], $26::text[], $27::text[], $28::bigint[])
                AS k (counter, key, fingerprint, stamp, value_ranges, expires_at_ms)
            JOIN moved ON moved.id = k.counter
        )"
    };
}

/// The server is believed, and has the last sign of life of this process.
macro_rules! believed {
    () => {
        concat!(
            "EXISTS (SELECT FROM numgen_ledger_processes p WHERE p.process = $1 AND p.beat >= $21)
                AND EXISTS (SELECT FROM numgen_ledger_marker m WHERE m.era = $22) AND ",
            open!()
        )
    };
}

/// Nothing: both were looked at behind the lock.
macro_rules! bound {
    () => {
        "$21::bigint IS NOT NULL AND $22::bigint IS NOT NULL"
    };
}

const WRITE: &str = write_statement!(bound!(), " ", "");
const WRITE_WITH_KEYS: &str = write_statement!(bound!(), and_no_key!(), records!());
const GUESS: &str = write_statement!(believed!(), " ", "");
const GUESS_WITH_KEYS: &str = write_statement!(believed!(), and_no_key!(), records!());

/// What a batch was worked out from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    /// What was known a while ago: that the server is believed, and has this sign of life, is a condition of the statement.
    Guess(Beat),
    /// What was read in this transaction, with the counter locked.
    Lock,
}

/// Writes batches of different counters; answers the numbers of the counters whose batch was written.
pub(super) async fn write(
    connection: &mut PgConnection,
    writer: &[u8; 16],
    entries: &[&Entry],
    basis: Basis,
) -> Result<Vec<i64>, sqlx::Error> {
    let keyed = entries.iter().any(|entry| !entry.records.is_empty());
    let (each, rows) = (|| entries.iter(), || entries.iter().flat_map(|entry| entry.rows.iter()));
    let rows_of: Vec<i64> =
        each().flat_map(|entry| std::iter::repeat_n(entry.before.id, entry.rows.len())).collect();
    let run = |end: fn(ValueRange) -> Whole| {
        each().map(move |entry| entry.account.run.map(end)).collect::<Vec<_>>()
    };
    let (statement, Beat { beat, era }) = match (basis, keyed) {
        (Basis::Guess(beat), true) => (GUESS_WITH_KEYS, beat),
        (Basis::Guess(beat), false) => (GUESS, beat),
        (Basis::Lock, true) => (WRITE_WITH_KEYS, Beat::default()),
        (Basis::Lock, false) => (WRITE, Beat::default()),
    };
    let mut query = sqlx::query(statement)
        .bind(&writer[..])
        .bind(each().map(|entry| entry.before.id).collect::<Vec<_>>())
        .bind(each().map(|entry| entry.before.version).collect::<Vec<_>>())
        .bind(each().map(|entry| signed(entry.scheme)).collect::<Vec<_>>())
        .bind(each().map(|entry| Whole::from(entry.standing.base)).collect::<Vec<_>>())
        .bind(each().map(|entry| Whole::from(entry.standing.last)).collect::<Vec<_>>())
        .bind(run(|run| run.from.into()))
        .bind(run(|run| run.to.into()))
        .bind(each().map(|entry| entry.account.head.as_str()).collect::<Vec<_>>())
        .bind(each().map(|entry| entry.batch).collect::<Vec<_>>())
        .bind(rows_of)
        .bind(rows().map(|row| Whole::from(row.sequence)).collect::<Vec<_>>())
        .bind(rows().map(|row| row.number.as_str()).collect::<Vec<_>>())
        .bind(rows().map(|row| row.state.as_str()).collect::<Vec<_>>())
        .bind(rows().map(|row| row.reason.as_deref()).collect::<Vec<_>>())
        .bind(rows().map(|row| row.subject.as_str()).collect::<Vec<_>>())
        .bind(rows().map(|row| row.reserved_until.map(|moment| moment.0)).collect::<Vec<_>>())
        .bind(rows().map(|row| row.issued_at.0).collect::<Vec<_>>())
        .bind(rows().map(|row| row.idempotency_key.as_deref()).collect::<Vec<_>>())
        .bind(rows().map(|row| row.hash.as_str()).collect::<Vec<_>>())
        .bind(beat)
        .bind(era);
    if keyed {
        let records = || {
            each()
                .flat_map(|entry| entry.records.iter().map(|(key, _, record)| (entry.before.id, key, record)))
        };
        query = query
            .bind(records().map(|(counter, ..)| counter).collect::<Vec<_>>())
            .bind(records().map(|(_, key, _)| &key[..]).collect::<Vec<_>>())
            .bind(records().map(|(.., record)| &record.fingerprint[..]).collect::<Vec<_>>())
            .bind(records().map(|(.., record)| &*record.recorded.stamp).collect::<Vec<_>>())
            .bind(records().map(|(.., record)| record.recorded.values.to_string()).collect::<Vec<_>>())
            .bind(records().map(|(.., record)| record.expires_at.0).collect::<Vec<_>>());
    }
    // Every answer is read to the end: the commit comes after the rows.
    query.fetch_all(connection).await?.iter().map(|row| row.try_get("id")).collect()
}

/// Writes one batch whose sheet is locked.
pub(super) async fn write_one(
    connection: &mut PgConnection,
    writer: &[u8; 16],
    entry: &Entry,
) -> Result<(), Failure> {
    let written = write(connection, writer, &[entry], Basis::Lock).await.map_err(raced)?;
    // The version is that of the lock; a key may have been recorded since the records were read.
    if written.is_empty() { Err(Failure::Overtaken) } else { Ok(()) }
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
