//! One statement that writes whole batches: the sheets of their counters, their rows, their idempotency records.
//!
//! Invariants: a batch is written if and only if its sheet still has the version that the batch was worked out from, its scheme is not
//! retired, and no key of it has a record; sheet, rows and records of one batch are written together or not at all. A key that
//! somebody else is just recording makes the statement wait, and then fail as a whole: the unique index decides.

use std::{collections::HashMap, iter::repeat_n};

use sqlx::{PgConnection, Postgres, Row, postgres::PgArguments, query::Query};

use super::{
    super::{
        failure::Failure,
        idempotency::{key_of, record},
        values::{Whole, signed},
    },
    sheet::{Batch, Sheet, Signature},
};
use crate::{
    clock::UnixMillis,
    counter::{Counter, ValueRange},
    store::{
        Bounds, IssueRequest, LedgerRow, LedgerState, RenderNumber, Taken,
        draw::{Ask, Movement, Record, Standing},
        ledger::{self, Account, Entries},
    },
};

/// SHA-256 of a key in its scope.
type Key = [u8; 32];

/// A statement with what it needs.
type Statement<'q> = Query<'q, Postgres, PgArguments>;

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

/// What the commit of a batch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commit {
    /// It returns when the batch is durable.
    Waits,
    /// It returns at once, and lets go of the sheets; a barrier has to follow before anybody is answered.
    Ahead,
}

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
    ) -> Self {
        let Order { counter, bounds, requests, render } = order;
        let (account, cursor) = (sheet.account.clone(), sheet.standing.map(|standing| standing.last));
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

    pub(super) fn records(&self) -> &[Remembered] {
        &self.records
    }

    /// Whether others are likely to wait for this one: then its commit does not make them wait for the disk.
    pub(super) fn commit(&self) -> Commit {
        if self.asked >= MANY { Commit::Ahead } else { Commit::Waits }
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
    ($and_no_key:literal, $records:literal) => {
        concat!(
            "WITH job AS (
                SELECT * FROM unnest($3::bigint[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bigint[], $8::numeric[], $9::numeric[],
                    $10::numeric[], $11::numeric[], $12::text[], $13::bigint[])
                AS job (counter, version, past_writer, past_batch, scheme, base, last, run_first, run_last, head, batch)
            ), locked AS (
                SELECT c.id, c.prefix, job.*
                FROM job JOIN numgen_ledger_counters c ON c.id = job.counter
                WHERE c.version = job.version AND c.writer IS NOT DISTINCT FROM job.past_writer
                    AND c.batch IS NOT DISTINCT FROM job.past_batch AND c.scheme <= job.scheme",
            $and_no_key,
            "   ORDER BY c.id FOR UPDATE OF c SKIP LOCKED
            ), moved AS (
                UPDATE numgen_ledger_counters c
                SET version = c.version + 1, base = locked.base, last = locked.last, run_first = locked.run_first,
                    run_last = locked.run_last, head = locked.head, writer = $1, batch = locked.batch
                FROM locked WHERE c.id = locked.id
                RETURNING c.id, c.prefix, locked.past_writer, locked.past_batch
            ), displaced AS (
                INSERT INTO numgen_ledger_writers (counter, writer, batch)
                SELECT id, past_writer, past_batch FROM moved WHERE past_writer <> $1
                ON CONFLICT (counter, writer) DO UPDATE SET batch = excluded.batch, noted_at = now()
            ), entered AS (
                INSERT INTO numgen_ledger (counter, prefix, sequence, number, state, reason, subject, reserved_until_ms, issued_at_ms,
                    idempotency_key, hash)
                SELECT moved.id, moved.prefix, r.sequence, r.number,
                    CASE WHEN r.state IS NULL THEN 'issued' ELSE r.state::numgen_ledger_state END, r.reason, r.subject,
                    r.reserved_until_ms, r.issued_at_ms, r.idempotency_key, decode(r.hash, 'hex')
                FROM unnest($14::bigint[], $15::numeric[], $16::text[], $17::text[], $18::text[], $19::text[], $20::bigint[],
                    $21::bigint[], $22::text[], $23::text[])
                AS r (counter, sequence, number, state, reason, subject, reserved_until_ms, issued_at_ms, idempotency_key, hash)
                JOIN moved ON moved.id = r.counter
            )",
            $records,
            " SELECT id, CASE WHEN $2 THEN set_config('synchronous_commit', 'off', true) END FROM moved"
        )
    };
}

const WRITE: &str = write_statement!(" ", "");
const WRITE_WITH_KEYS: &str = write_statement!(
    " AND job.counter NOT IN (
        SELECT k.counter FROM unnest($24::bigint[], $25::bytea[]) AS k (counter, key) JOIN numgen_idempotency i ON i.key = k.key)",
    ", recorded AS (
        INSERT INTO numgen_idempotency (key, fingerprint, stamp, value_ranges, expires_at_ms)
        SELECT k.key, k.fingerprint, k.stamp, k.value_ranges, k.expires_at_ms
        FROM unnest($24::bigint[], $25::bytea[], $26::bytea[], $27::text[], $28::text[], $29::bigint[])
            AS k (counter, key, fingerprint, stamp, value_ranges, expires_at_ms)
        JOIN moved ON moved.id = k.counter
    )"
);

/// Writes batches of different counters; answers the numbers of the counters whose batch was written.
pub(super) async fn write(
    connection: &mut PgConnection,
    writer: &[u8; 16],
    commit: Commit,
    entries: &[&Entry],
) -> Result<Vec<i64>, sqlx::Error> {
    let keyed = entries.iter().any(|entry| !entry.records.is_empty());
    let query = sqlx::query(if keyed { WRITE_WITH_KEYS } else { WRITE })
        .bind(&writer[..])
        .bind(commit == Commit::Ahead);
    let query = bind_rows(bind_sheets(query, entries), entries);
    let query = if keyed { bind_records(query, entries) } else { query };
    // Every answer is read to the end: the commit comes after the rows.
    query.fetch_all(connection).await?.iter().map(|row| row.try_get("id")).collect()
}

fn bind_sheets<'q>(query: Statement<'q>, entries: &[&'q Entry]) -> Statement<'q> {
    let each = || entries.iter();
    let run = |end: fn(ValueRange) -> Whole| {
        each().map(move |entry| entry.account.run.map(end)).collect::<Vec<_>>()
    };
    let past = || each().map(|entry| entry.before.signature.as_ref());
    query
        .bind(each().map(|entry| entry.before.id).collect::<Vec<_>>())
        .bind(each().map(|entry| entry.before.version).collect::<Vec<_>>())
        .bind(past().map(|past| past.map(|past| &past.writer[..])).collect::<Vec<_>>())
        .bind(past().map(|past| past.map(|past| past.batch.0)).collect::<Vec<_>>())
        .bind(each().map(|entry| signed(entry.scheme)).collect::<Vec<_>>())
        .bind(each().map(|entry| Whole::from(entry.standing.base)).collect::<Vec<_>>())
        .bind(each().map(|entry| Whole::from(entry.standing.last)).collect::<Vec<_>>())
        .bind(run(|run| run.from.into()))
        .bind(run(|run| run.to.into()))
        .bind(each().map(|entry| entry.account.head.as_str()).collect::<Vec<_>>())
        .bind(each().map(|entry| entry.batch.0).collect::<Vec<_>>())
}

fn bind_rows<'q>(query: Statement<'q>, entries: &[&'q Entry]) -> Statement<'q> {
    let each = || entries.iter();
    let rows = || each().flat_map(|entry| entry.rows.iter());
    let state = |row: &'q LedgerRow| Some(row.state).filter(|state| *state != LedgerState::Issued);
    query
        .bind(each().flat_map(|entry| repeat_n(entry.before.id, entry.rows.len())).collect::<Vec<_>>())
        .bind(rows().map(|row| Whole::from(row.sequence)).collect::<Vec<_>>())
        .bind(rows().map(|row| row.number.as_str()).collect::<Vec<_>>())
        .bind(sparse(rows().map(|row| state(row).map(LedgerState::as_str))))
        .bind(sparse(rows().map(|row| row.reason.as_deref())))
        .bind(rows().map(|row| row.subject.as_str()).collect::<Vec<_>>())
        .bind(sparse(rows().map(|row| row.reserved_until.map(|moment| moment.0))))
        .bind(rows().map(|row| row.issued_at.0).collect::<Vec<_>>())
        .bind(sparse(rows().map(|row| row.idempotency_key.as_deref())))
        .bind(rows().map(|row| row.hash.as_str()).collect::<Vec<_>>())
}

/// A column that is mostly NULL ends with its last value: what is not there is NULL to the statement.
fn sparse<T: Clone>(column: impl Iterator<Item = Option<T>>) -> Vec<Option<T>> {
    let mut values = Vec::new();
    for (index, value) in column.enumerate() {
        if value.is_some() {
            values.resize(index, None);
            values.push(value);
        }
    }
    values
}

fn bind_records<'q>(query: Statement<'q>, entries: &[&'q Entry]) -> Statement<'q> {
    let records = || {
        let of =
            |entry: &'q Entry| entry.records.iter().map(|(key, _, record)| (entry.before.id, key, record));
        entries.iter().copied().flat_map(of)
    };
    query
        .bind(records().map(|(counter, ..)| counter).collect::<Vec<_>>())
        .bind(records().map(|(_, key, _)| &key[..]).collect::<Vec<_>>())
        .bind(records().map(|(.., record)| &record.fingerprint[..]).collect::<Vec<_>>())
        .bind(records().map(|(.., record)| &*record.recorded.stamp).collect::<Vec<_>>())
        .bind(records().map(|(.., record)| record.recorded.values.to_string()).collect::<Vec<_>>())
        .bind(records().map(|(.., record)| record.expires_at.0).collect::<Vec<_>>())
}

/// Writes one batch whose sheet is locked.
pub(super) async fn write_one(
    connection: &mut PgConnection,
    writer: &[u8; 16],
    entry: &Entry,
) -> Result<(), Failure> {
    let written = write(connection, writer, Commit::Waits, &[entry]).await.map_err(raced)?;
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
