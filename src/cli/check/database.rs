//! The local database, read without changing it: everything of profile embedded, copy and journal beside another store.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::report::Report;
use crate::{clock::UnixMillis, config::Config};

/// The database in the data directory.
pub(super) const DATABASE_FILE: &str = "numgen.db";

const SUBJECT: &str = "database";

/// How long a write of the running service is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the database says that other checks need.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Layout, epoch and data centre that it was first used with.
    pub(super) pinned_layout: Option<String>,
    /// The highest ID timestamp that anybody was ever allowed to use, in ms since the epoch.
    pub(super) highest_mark: Option<u64>,
    /// The copy of rules that are kept elsewhere: how many, and when it was last true.
    pub(super) copy: Option<(u64, UnixMillis)>,
}

pub(super) fn look(config: &Config, report: &mut Report) -> Facts {
    report.ok("sqlite", format!("version {}, every commit synced (synchronous=FULL)", rusqlite::version()));
    let path = config.storage.data_dir.join(DATABASE_FILE);
    if !path.exists() {
        report.ok(SUBJECT, "made at the first start");
        return Facts::default();
    }
    match read(&path, config) {
        Ok((finding, facts)) => {
            report.ok(SUBJECT, finding);
            facts
        }
        Err(error) => {
            report.fail(SUBJECT, format!("{}: {error}", path.display()));
            Facts::default()
        }
    }
}

fn read(path: &Path, config: &Config) -> rusqlite::Result<(String, Facts)> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(PATIENCE)?;
    let journal: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if !has_table(&connection, "schema_versions")? {
        return Ok((format!("empty (journal {journal})"), Facts::default()));
    }
    let schema: u32 =
        connection
            .query_row("SELECT coalesce(max(version), 0) FROM schema_versions", [], |row| row.get(0))?;
    let rules: i64 =
        connection.query_row("SELECT count(*) FROM rules WHERE rule IS NOT NULL", [], |row| row.get(0))?;
    let pinned_layout = connection
        .query_row("SELECT value FROM meta WHERE name = 'layout'", [], |row| row.get(0))
        .optional()?;
    let mark: Option<i64> =
        connection.query_row("SELECT max(mark_ms) FROM worker_slots", [], |row| row.get(0))?;
    let highest_mark = mark.and_then(|mark| u64::try_from(mark).ok());
    // The rules of profile embedded, which another one leaves alone.
    let rules = match (config.storage.redis_url.is_some(), rules) {
        (false, rules) => format!(", {rules} rules"),
        (true, 0) => String::new(),
        (true, rules) => format!(", {rules} rules of profile embedded that are not used on Redis"),
    };
    let finding = format!("schema {schema}, journal {journal}{rules}");
    Ok((finding, Facts { pinned_layout, highest_mark, copy: copy(&connection)? }))
}

/// An older database has none.
fn copy(connection: &Connection) -> rusqlite::Result<Option<(u64, UnixMillis)>> {
    if !has_table(connection, "rule_copy_mark")? {
        return Ok(None);
    }
    let saved_at = connection
        .query_row("SELECT saved_at_ms FROM rule_copy_mark", [], |row| row.get(0).map(UnixMillis))
        .optional()?;
    let rules: i64 =
        connection
            .query_row("SELECT count(*) FROM rule_copy WHERE rule IS NOT NULL", [], |row| row.get(0))?;
    Ok(saved_at.map(|saved_at| (u64::try_from(rules).unwrap_or(0), saved_at)))
}

fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) > 0 FROM sqlite_schema WHERE name = ?1", [name], |row| row.get(0))
}
