//! What a crash leaves in doubt.
//!
//! A value that was drawn within the last one or two seconds before the process was killed may have been answered, or not:
//! nobody can know. It is never given out again; the next start lists it as an `unconfirmed` hole, so that every value at
//! or below a cursor is issued or listed. Values with an idempotency record or a ledger row are certain and not listed.

use rusqlite::Connection;

use super::{
    failure::Failure,
    values,
    workspace::{Workspace, collect},
};
use crate::{
    counter::{Counter, SequenceValue, ValueRange},
    store::{
        HoleReason,
        draw::{passed, remainder},
    },
};

const SETTLE_ALL: &str = "UPDATE counters SET unsettled_from = NULL, unsettled_record = NULL
    WHERE unsettled_from IS NOT NULL";

/// Declares everything settled: at a clean end, when every answer has been given.
pub(super) fn settle_all(connection: &Connection) -> Result<(), Failure> {
    connection.execute(SETTLE_ALL, [])?;
    Ok(())
}

/// Lists what the previous process left in doubt; answers how many counters were affected.
pub(super) fn list_unconfirmed(workspace: &Workspace) -> Result<usize, Failure> {
    let doubts = doubts(&workspace.connection)?;
    if doubts.is_empty() {
        return Ok(0);
    }
    workspace.execute("BEGIN IMMEDIATE", [])?;
    for doubt in &doubts {
        let covered = certain(&workspace.connection, doubt)?;
        for range in remainder(doubt.range, covered) {
            workspace.list(&doubt.counter, range, HoleReason::Unconfirmed)?;
        }
    }
    settle_all(&workspace.connection)?;
    workspace.execute("COMMIT", [])?;
    Ok(doubts.len())
}

/// A range of a counter that was being served when the process died.
struct Doubt {
    counter: Counter,
    range: ValueRange,
    /// Idempotency records up to here are older.
    record: i64,
}

fn doubts(connection: &Connection) -> Result<Vec<Doubt>, Failure> {
    const DOUBTS: &str = "SELECT prefix_key, period, last, unsettled_from, unsettled_record FROM counters
        WHERE unsettled_from IS NOT NULL AND unsettled_from < last";
    collect(connection, DOUBTS, [], |row| {
        let from = values::sequence(row, "unsettled_from")?;
        let to = values::sequence(row, "last")?;
        // The condition of the query: there is a value above `unsettled_from`.
        let range = passed(from, to).unwrap_or(ValueRange { from: to, to });
        Ok(Doubt { counter: values::counter(row)?, range, record: row.get("unsettled_record")? })
    })
}

/// Values of the range that are accounted for otherwise.
fn certain(connection: &Connection, doubt: &Doubt) -> Result<Vec<ValueRange>, Failure> {
    const RECORDS: &str =
        "SELECT value_ranges FROM idempotency WHERE id > ?3 AND prefix_key = ?1 AND period = ?2";
    const HOLES: &str = "SELECT from_value, to_value FROM holes
        WHERE prefix_key = ?1 AND period = ?2 AND to_value >= ?3";
    const ROWS: &str = "SELECT sequence FROM ledger WHERE prefix_key = ?1 AND period = ?2 AND sequence >= ?3";
    let (key, period) = (doubt.counter.key.as_str(), doubt.counter.period.as_str());
    let from = values::Digits(doubt.range.from);
    let records = collect(connection, RECORDS, (key, period, doubt.record), values::ranges)?;
    let mut covered: Vec<ValueRange> = records.iter().flat_map(|ranges| ranges.iter()).collect();
    covered.extend(collect(connection, HOLES, (key, period, &from), |row| {
        Ok(ValueRange { from: values::sequence(row, "from_value")?, to: values::sequence(row, "to_value")? })
    })?);
    let rows: Vec<SequenceValue> =
        collect(connection, ROWS, (key, period, &from), |row| values::sequence(row, "sequence"))?;
    covered.extend(rows.into_iter().map(|value| ValueRange { from: value, to: value }));
    Ok(covered)
}
