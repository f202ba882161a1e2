//! Brings a database to the schema of this program, one numbered step after the other.

use rusqlite::{Connection, TransactionBehavior};

use super::OpenError;
use crate::clock::UnixMillis;

/// Every step, in order; the position counts from 1 and is the version. A step that was released never changes.
const STEPS: [&str; 8] = [
    include_str!("schema/0001_initial.sql"),
    include_str!("schema/0002_temporary.sql"),
    include_str!("schema/0003_rule_copy.sql"),
    include_str!("schema/0004_segments.sql"),
    include_str!("schema/0005_segment_scheme.sql"),
    include_str!("schema/0006_retention.sql"),
    include_str!("schema/0007_audit.sql"),
    include_str!("schema/0008_ledger_pages.sql"),
];

/// Which steps were taken, and when.
const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS schema_versions (
    version       INTEGER PRIMARY KEY,
    applied_at_ms INTEGER NOT NULL
) STRICT";

/// Takes the steps that are missing, all in one transaction.
///
/// # Errors
///
/// `OpenError::Newer` for a database that a later program has written: it is left as it is.
pub(super) fn migrate(connection: &mut Connection, now: UnixMillis) -> Result<(), OpenError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(VERSIONS)?;
    let highest = "SELECT coalesce(max(version), 0) FROM schema_versions";
    let found: u32 = transaction.query_row(highest, [], |row| row.get(0))?;
    let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    for (version, step) in (1..=known).zip(STEPS).filter(|(version, _)| *version > found) {
        transaction.execute_batch(step)?;
        let insert = "INSERT INTO schema_versions (version, applied_at_ms) VALUES (?1, ?2)";
        transaction.execute(insert, (version, now.0))?;
    }
    Ok(transaction.commit()?)
}
