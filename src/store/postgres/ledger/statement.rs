//! The statement that writes whole batches: the sheets of their counters, their rows, their idempotency records.
//!
//! Invariants:
//! - a guess is written only on a server that is believed (`marker.rs`);
//! - a batch is written if and only if its sheet still has the version *and the last batch* that it was worked out from, its scheme is
//!   not retired, and no key of it has a record. A version alone would do if no commit could be lost: after a crash the same version may
//!   be reached again by another way;
//! - sheet, rows and records of one batch are written together or not at all;
//! - sheets are locked in the order of their numbers, and one that somebody else has locked is not waited for: his batch makes the guess
//!   wrong anyway, and those of other counters must not wait with it. A key that somebody else is just recording makes the statement
//!   wait, and then fail as a whole: the unique index decides.

use std::iter::repeat_n;

use sqlx::{PgConnection, Postgres, Row, postgres::PgArguments, query::Query};

use super::{
    super::{
        failure::Failure,
        values::{Whole, signed},
    },
    entry::{Entry, raced},
    marker::{Beat, Place},
};
use crate::{
    clock::UnixMillis,
    counter::ValueRange,
    store::{LedgerRow, LedgerState},
};

/// What the commit of a batch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commit {
    /// It returns when the batch is durable.
    Waits,
    /// It returns at once, and lets go of the sheets; a barrier has to follow before anybody is answered (`barrier.rs`).
    Ahead,
}

/// What a batch was worked out from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Basis<'a> {
    /// What was known a while ago: that the server, which is reached here, is believed and has this sign of life is a condition.
    Guess(Beat, &'a Place),
    /// What was read in this transaction, with the counter locked.
    Lock,
}

/// The server is believed, and has the last sign of life of this process.
macro_rules! believed {
    () => {
        "EXISTS (SELECT FROM numgen_ledger_processes p WHERE p.process = $1 AND p.beat >= $3)
            AND EXISTS (SELECT FROM numgen_ledger_marker m WHERE m.singleton AND m.era = $4 AND m.forgotten_of IS NULL AND m.timeline = $5
                AND m.home = concat_ws('/', $6::text, 'numgen_ledger_counters'::regclass::oid))"
    };
}

/// Nothing: all of that was looked at behind the lock.
macro_rules! bound {
    () => {
        "($3::bigint, $4::bigint, $5::text, $6::text) IS NOT NULL"
    };
}

macro_rules! sheet_is_as_known {
    ($of:literal) => {
        concat!(
            "c.version = ",
            $of,
            "version AND c.writer IS NOT DISTINCT FROM ",
            $of,
            "past_writer
                AND c.batch IS NOT DISTINCT FROM ",
            $of,
            "past_batch AND c.scheme <= ",
            $of,
            "scheme"
        )
    };
}

/// What stands in a row of the ledger, from `r`.
macro_rules! enter {
    ($source:literal) => {
        concat!(
            ", entered AS (
                INSERT INTO numgen_ledger (counter, prefix, sequence, number, state, reason, subject, reserved_until_ms, issued_at_ms,
                    idempotency_key, hash)
                SELECT moved.id, moved.prefix, r.sequence, r.number,
                    CASE WHEN r.state IS NULL THEN 'issued' ELSE r.state::numgen_ledger_state END, r.reason, coalesce(r.subject, $7),
                    r.reserved_until_ms, coalesce(r.issued_at_ms, $8), r.idempotency_key, r.hash
                FROM ",
            $source,
            ")"
        )
    };
}

/// What stands in a record, from `k`.
macro_rules! record {
    ($source:literal) => {
        concat!(
            ", recorded AS (
                INSERT INTO numgen_idempotency (key, fingerprint, stamp, value_ranges, expires_at_ms)
                SELECT k.key, k.fingerprint, k.stamp, k.value_ranges, k.expires_at_ms FROM ",
            $source,
            ")"
        )
    };
}

/// The counters whose batch was written. The setting is that of the transaction alone.
macro_rules! answer {
    () => {
        " SELECT id, CASE WHEN $2 THEN set_config('synchronous_commit', 'off', true) END FROM moved"
    };
}

/// Batches of different counters.
macro_rules! several {
    ($condition:expr, $and_no_key:literal, $records:expr) => {
        concat!(
            "WITH job AS (
                SELECT * FROM unnest($9::bigint[], $10::bigint[], $11::bytea[], $12::bigint[], $13::bigint[], $14::numeric[], $15::numeric[],
                    $16::numeric[], $17::numeric[], $18::text[], $19::bigint[])
                AS job (counter, version, past_writer, past_batch, scheme, base, last, run_first, run_last, head, batch)
            ), locked AS (
                SELECT c.ctid AS place, job.* FROM job JOIN numgen_ledger_counters c ON c.id = job.counter WHERE ",
            sheet_is_as_known!("job."), " AND ", $condition, $and_no_key,
            "   ORDER BY c.id FOR UPDATE OF c SKIP LOCKED
            ), moved AS (
                UPDATE numgen_ledger_counters c
                SET version = c.version + 1, base = locked.base, last = locked.last, run_first = locked.run_first,
                    run_last = locked.run_last, head = locked.head, writer = $1, batch = locked.batch
                FROM locked WHERE c.ctid = locked.place
                RETURNING c.id, c.prefix, locked.past_writer, locked.past_batch
            ), displaced AS (
                INSERT INTO numgen_ledger_writers (counter, writer, batch)
                SELECT id, past_writer, past_batch FROM moved WHERE past_writer <> $1
                ON CONFLICT (counter, writer) DO UPDATE SET batch = excluded.batch, noted_at = now()
            )",
            enter!(
                "unnest($20::numeric[], $21::text[], $22::text[], $23::text[], $24::text[], $25::bigint[], $26::bigint[], $27::text[],
                    $28::bytea[], $29::bigint[])
                AS r (sequence, number, state, reason, subject, reserved_until_ms, issued_at_ms, idempotency_key, hash, counter)
                JOIN moved ON moved.id = r.counter"
            ),
            $records,
            answer!()
        )
    };
}

/// The batch of one counter that no other process has written to since: the same with as little as it takes.
macro_rules! sole {
    ($and_no_key:literal, $records:expr) => {
        concat!(
            "WITH moved AS (
                UPDATE numgen_ledger_counters c
                SET version = c.version + 1, base = $14, last = $15, run_first = $16, run_last = $17, head = $18, writer = $1, batch = $19
                WHERE c.id = $9 AND c.version = $10 AND c.writer = $11 AND c.batch = $12 AND c.scheme <= $13 AND ",
            believed!(), $and_no_key,
            "   RETURNING c.id, c.prefix
            )",
            enter!(
                "moved, unnest($20::numeric[], $21::text[], $22::text[], $23::text[], $24::text[], $25::bigint[], $26::bigint[],
                    $27::text[], $28::bytea[])
                AS r (sequence, number, state, reason, subject, reserved_until_ms, issued_at_ms, idempotency_key, hash)"
            ),
            $records,
            answer!()
        )
    };
}

macro_rules! several_with_keys {
    ($condition:expr) => {
        several!(
            $condition,
            " AND job.counter NOT IN (
                SELECT k.counter FROM unnest($30::bytea[], $35::bigint[]) AS k (key, counter) JOIN numgen_idempotency i ON i.key = k.key)",
            record!(
                "unnest($30::bytea[], $31::bytea[], $32::text[], $33::text[], $34::bigint[], $35::bigint[])
                    AS k (key, fingerprint, stamp, value_ranges, expires_at_ms, counter)
                JOIN moved ON moved.id = k.counter"
            )
        )
    };
}

const LOCKED: &str = several!(bound!(), " ", "");
const LOCKED_WITH_KEYS: &str = several_with_keys!(bound!());
const SEVERAL: &str = several!(believed!(), " ", "");
const SEVERAL_WITH_KEYS: &str = several_with_keys!(believed!());
const SOLE: &str = sole!(" ", "");
const SOLE_WITH_KEYS: &str = sole!(
    " AND NOT EXISTS (SELECT FROM unnest($29::bytea[]) AS k (key) JOIN numgen_idempotency i ON i.key = k.key)",
    record!(
        "moved, unnest($29::bytea[], $30::bytea[], $31::text[], $32::text[], $33::bigint[])
            AS k (key, fingerprint, stamp, value_ranges, expires_at_ms)"
    )
);

/// A statement with what it needs.
type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Writes batches of different counters; answers the numbers of the counters whose batch was written.
pub(super) async fn write(
    connection: &mut PgConnection,
    writer: &[u8; 16],
    basis: Basis<'_>,
    commit: Commit,
    entries: &[&Entry],
) -> Result<Vec<i64>, sqlx::Error> {
    let keyed = entries.iter().any(|entry| !entry.records().is_empty());
    let sole = match (basis, entries) {
        (Basis::Guess(..), [entry]) => Some(*entry).filter(|entry| entry.was_written_by(writer)),
        (Basis::Guess(..) | Basis::Lock, _) => None,
    };
    let sql = match (basis, sole, keyed) {
        (Basis::Lock, _, true) => LOCKED_WITH_KEYS,
        (Basis::Lock, _, false) => LOCKED,
        (Basis::Guess(..), None, true) => SEVERAL_WITH_KEYS,
        (Basis::Guess(..), None, false) => SEVERAL,
        (Basis::Guess(..), Some(_), true) => SOLE_WITH_KEYS,
        (Basis::Guess(..), Some(_), false) => SOLE,
    };
    let query = sqlx::query(sql).bind(&writer[..]).bind(commit == Commit::Ahead);
    let (beat, place) = match basis {
        Basis::Guess(beat, place) => (beat, Some(place)),
        Basis::Lock => (Beat::default(), None),
    };
    let query = query.bind(beat.beat).bind(beat.era);
    let query =
        query.bind(place.map_or("", |place| &place.timeline)).bind(place.map_or("", |place| &place.home));
    let usual = Usual::of(entries);
    let query = query.bind(usual.subject).bind(usual.issued_at.0);
    let query = match sole {
        Some(entry) => bind_rows(bind_sheet(query, entry), entries, usual),
        None => {
            let of_rows = entries.iter().flat_map(|entry| repeat_n(entry.counter(), entry.rows().len()));
            bind_rows(bind_sheets(query, entries), entries, usual).bind(of_rows.collect::<Vec<_>>())
        }
    };
    let query = match (keyed, sole) {
        (false, _) => query,
        (true, Some(_)) => bind_records(query, entries),
        (true, None) => {
            let of_keys = entries.iter().flat_map(|entry| repeat_n(entry.counter(), entry.records().len()));
            bind_records(query, entries).bind(of_keys.collect::<Vec<_>>())
        }
    };
    // Every answer is read to the end: the commit comes after the rows.
    query.fetch_all(connection).await?.iter().map(|row| row.try_get("id")).collect()
}

/// Writes one batch whose sheet is locked.
pub(super) async fn write_one(
    connection: &mut PgConnection,
    writer: &[u8; 16],
    entry: &Entry,
) -> Result<(), Failure> {
    let written = write(connection, writer, Basis::Lock, Commit::Waits, &[entry]).await.map_err(raced)?;
    // The version is that of the lock; a key may have been recorded since the records were read.
    if written.is_empty() { Err(Failure::Overtaken) } else { Ok(()) }
}

fn bind_sheet<'q>(query: Statement<'q>, entry: &'q Entry) -> Statement<'q> {
    let (before, standing, account) = (entry.sheet(), entry.standing(), entry.account());
    let run = |end: fn(ValueRange) -> Whole| account.run.map(end);
    query
        .bind(before.id)
        .bind(before.version)
        .bind(before.signature.as_ref().map(|past| &past.writer[..]))
        .bind(before.signature.map(|past| past.batch.0))
        .bind(signed(entry.scheme()))
        .bind(Whole::from(standing.base))
        .bind(Whole::from(standing.last))
        .bind(run(|run| run.from.into()))
        .bind(run(|run| run.to.into()))
        .bind(account.head.as_str())
        .bind(entry.batch().0)
}

fn bind_sheets<'q>(query: Statement<'q>, entries: &[&'q Entry]) -> Statement<'q> {
    let each = || entries.iter();
    let run = |end: fn(ValueRange) -> Whole| {
        each().map(move |entry| entry.account().run.map(end)).collect::<Vec<_>>()
    };
    let past = || each().map(|entry| entry.sheet().signature.as_ref());
    query
        .bind(each().map(|entry| entry.counter()).collect::<Vec<_>>())
        .bind(each().map(|entry| entry.sheet().version).collect::<Vec<_>>())
        .bind(past().map(|past| past.map(|past| &past.writer[..])).collect::<Vec<_>>())
        .bind(past().map(|past| past.map(|past| past.batch.0)).collect::<Vec<_>>())
        .bind(each().map(|entry| signed(entry.scheme())).collect::<Vec<_>>())
        .bind(each().map(|entry| Whole::from(entry.standing().base)).collect::<Vec<_>>())
        .bind(each().map(|entry| Whole::from(entry.standing().last)).collect::<Vec<_>>())
        .bind(run(|run| run.from.into()))
        .bind(run(|run| run.to.into()))
        .bind(each().map(|entry| entry.account().head.as_str()).collect::<Vec<_>>())
        .bind(each().map(|entry| entry.batch().0).collect::<Vec<_>>())
}

fn bind_rows<'q>(query: Statement<'q>, entries: &[&'q Entry], usual: Usual<'q>) -> Statement<'q> {
    let rows = || entries.iter().flat_map(|entry| entry.rows());
    let state = |row: &LedgerRow| Some(row.state).filter(|state| *state != LedgerState::Issued);
    query
        .bind(rows().map(|row| Whole::from(row.sequence)).collect::<Vec<_>>())
        .bind(rows().map(|row| row.number.as_str()).collect::<Vec<_>>())
        .bind(sparse(rows().map(|row| state(row).map(LedgerState::as_str))))
        .bind(sparse(rows().map(|row| row.reason.as_deref())))
        .bind(sparse(
            rows().map(|row| Some(row.subject.as_str()).filter(|subject| *subject != usual.subject)),
        ))
        .bind(sparse(rows().map(|row| row.reserved_until.map(|moment| moment.0))))
        .bind(sparse(rows().map(|row| Some(row.issued_at.0).filter(|at| *at != usual.issued_at.0))))
        .bind(sparse(rows().map(|row| row.idempotency_key.as_deref())))
        .bind(rows().map(|row| bytes_of(&row.hash)).collect::<Vec<_>>())
}

/// What most rows of a statement have in common: said once.
#[derive(Clone, Copy)]
struct Usual<'q> {
    subject: &'q str,
    issued_at: UnixMillis,
}

impl<'q> Usual<'q> {
    /// As the last row has it: those before it are told apart by columns that end where they begin to agree.
    fn of(entries: &[&'q Entry]) -> Self {
        let last = entries.last().and_then(|entry| entry.rows().last());
        Self {
            subject: last.map_or("", |row| &row.subject),
            issued_at: last.map_or(UnixMillis(0), |row| row.issued_at),
        }
    }
}

/// The bytes of a hash; `None`, which no row may have, if it is none.
fn bytes_of(hash: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; 32];
    let (pairs, rest) = hash.as_bytes().as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
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
    let records = || entries.iter().flat_map(|entry| entry.records());
    query
        .bind(records().map(|(key, ..)| &key[..]).collect::<Vec<_>>())
        .bind(records().map(|(.., record)| &record.fingerprint[..]).collect::<Vec<_>>())
        .bind(records().map(|(.., record)| &*record.recorded.stamp).collect::<Vec<_>>())
        .bind(records().map(|(.., record)| record.recorded.values.to_string()).collect::<Vec<_>>())
        .bind(records().map(|(.., record)| record.expires_at.0).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_was_written() {
        let hash = format!("00ff{}", "a1".repeat(30));
        let bytes = bytes_of(&hash).expect("a hash");
        assert_eq!(bytes[..3], [0, 255, 0xa1]);
        for wrong in ["", "00", &hash[1..], &format!("{hash}00"), &hash.replace('f', "g")] {
            assert_eq!(bytes_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_column_ends_with_its_last_value() {
        assert_eq!(sparse([None::<u8>, None].into_iter()), []);
        assert_eq!(sparse([None, Some(1), None, Some(2), None].into_iter()), [None, Some(1), None, Some(2)]);
    }
}
