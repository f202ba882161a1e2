//! Temporary numbers on disk: the journal of this node, and a store of what it knows.

use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::{
    STORE, SqliteStore,
    audit::enter,
    failure::Failure,
    values::{self, signed, unsigned},
    workspace::{Workspace, collect, find},
};
use crate::store::{
    Instance, Journal, Note, Pending, RowSwap, Stamp, Status, StoreFuture, TemporaryNumber, TemporaryQuery,
    TemporaryRow, TemporaryStore,
};

const ONE: &str = "SELECT content FROM temporary_numbers WHERE number = ?1";
const APPEND: &str = "INSERT INTO temporary_numbers (number, revision, status, content, stamp)
    VALUES (?1, ?2, ?3, ?4, ?5)";
const KEEP: &str = "INSERT INTO temporary_numbers (number, revision, status, content) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT DO UPDATE SET revision = excluded.revision, status = excluded.status,
        content = excluded.content, acknowledged = NULL, acknowledged_at_ms = NULL
    WHERE excluded.revision > revision";
const SWAP: &str =
    "UPDATE temporary_numbers SET revision = ?2, status = ?3, content = ?4, acknowledged = NULL,
        acknowledged_at_ms = NULL
    WHERE number = ?1 AND revision = ?2 - 1";
const ACKNOWLEDGE: &str =
    "UPDATE temporary_numbers SET acknowledged = ?3, acknowledged_at_ms = coalesce(acknowledged_at_ms, ?4)
    WHERE number = ?1 AND revision = ?2";
/// Never the row of the highest stamp: the next process goes on above it.
const PRUNE: &str = "DELETE FROM temporary_numbers WHERE number IN (
    SELECT number FROM temporary_numbers
    WHERE status <> 'open' AND acknowledged_at_ms < ?2 AND acknowledged = ?1
        AND (stamp IS NULL OR stamp < (SELECT max(stamp) FROM temporary_numbers))
    LIMIT ?3)";
const LIST: &str =
    "SELECT content FROM temporary_numbers WHERE number > ?1 AND number < ?2 ORDER BY number LIMIT ?3";
const LIST_OF_STATUS: &str = "SELECT content FROM temporary_numbers
    WHERE status = ?4 AND number > ?1 AND number < ?2 ORDER BY number LIMIT ?3";
/// Three ranges of one index instead of a walk over all rows; `IS NOT` would be that.
const PENDING: &str = "SELECT content FROM temporary_numbers
    WHERE (acknowledged IS NULL OR acknowledged < ?1 OR acknowledged > ?1) AND revision >= ?3 LIMIT ?2";
const OPEN: &str = "SELECT count(*) AS rows FROM temporary_numbers WHERE status = 'open'";
const UNSENT: &str =
    "SELECT count(*) AS rows FROM temporary_numbers WHERE acknowledged IS NULL AND status = 'open'";
const LAST: &str = "SELECT max(stamp) FROM temporary_numbers";

fn row(row: &Row<'_>) -> Result<TemporaryRow, Failure> {
    let json = row.get_ref("content")?.as_str().map_err(rusqlite::Error::from)?;
    TemporaryRow::from_json(json)
        .ok_or_else(|| Failure::Corrupt("a temporary number that cannot be read".to_owned()))
}

fn count(connection: &Connection, sql: &str) -> Result<u64, Failure> {
    Ok(find(connection, sql, [], |row| unsigned(row, "rows"))?.unwrap_or(0))
}

fn keep(workspace: &Workspace, row: &TemporaryRow) -> Result<(), Failure> {
    let (number, status) = (row.number.as_str(), row.status().as_str());
    workspace.execute(KEEP, params![number, signed(row.revision), status, row.to_json()])?;
    Ok(())
}

fn swap(workspace: &Workspace, new: &TemporaryRow, note: Option<&Note>) -> Result<RowSwap, Failure> {
    let (number, status) = (new.number.as_str(), new.status().as_str());
    let changed = workspace.execute(SWAP, params![number, signed(new.revision), status, new.to_json()])?;
    if changed != 1 {
        return Ok(RowSwap::Changed(workspace.find(ONE, [number], row)?));
    }
    enter(workspace, note)?;
    Ok(RowSwap::Done)
}

impl TemporaryStore for SqliteStore {
    fn upload(&self, rows: Vec<TemporaryRow>) -> StoreFuture<'_, Instance> {
        self.write("upload_temporary", move |workspace| {
            rows.iter().try_for_each(|row| keep(workspace, row))?;
            Ok(Instance(STORE.into()))
        })
    }

    fn find(&self, number: TemporaryNumber) -> StoreFuture<'_, Option<TemporaryRow>> {
        self.read("find_temporary", move |connection| find(connection, ONE, [number.as_str()], row))
    }

    fn swap(&self, new: TemporaryRow) -> StoreFuture<'_, RowSwap> {
        self.write("swap_temporary", move |workspace| swap(workspace, &new, None))
    }

    fn swap_noted(&self, new: TemporaryRow, note: Note) -> StoreFuture<'_, RowSwap> {
        self.write("swap_temporary", move |workspace| swap(workspace, &new, Some(&note)))
    }

    fn list(&self, query: TemporaryQuery) -> StoreFuture<'_, Vec<TemporaryRow>> {
        self.read("list_temporary", move |connection| {
            let (first, end) = query.between();
            match query.status.map(Status::as_str) {
                Some(status) => {
                    collect(connection, LIST_OF_STATUS, params![first, end, query.limit, status], row)
                }
                None => collect(connection, LIST, params![first, end, query.limit], row),
            }
        })
    }

    fn count_open(&self) -> StoreFuture<'_, u64> {
        self.read("count_temporary", |connection| count(connection, OPEN))
    }
}

impl Journal for SqliteStore {
    fn last_stamp(&self) -> StoreFuture<'_, Option<Stamp>> {
        self.read("last_stamp", |connection| {
            let last = find(connection, LAST, [], |row| Ok(row.get::<_, Option<i64>>(0)?))?.flatten();
            let last = last.map(u64::try_from).transpose();
            last.map(|last| last.map(Stamp)).map_err(|_| Failure::Corrupt("a negative stamp".to_owned()))
        })
    }

    fn append(&self, rows: Vec<TemporaryRow>) -> StoreFuture<'_, ()> {
        self.write("append_temporary", move |workspace| {
            for row in &rows {
                let (number, status) = (row.number.as_str(), row.status().as_str());
                let stamp = signed(row.number.stamp().0);
                workspace
                    .execute(APPEND, params![number, signed(row.revision), status, row.to_json(), stamp])?;
            }
            Ok(())
        })
    }

    fn pending(&self, instance: Instance, part: Pending, limit: u32) -> StoreFuture<'_, Vec<TemporaryRow>> {
        self.read("pending_temporary", move |connection| {
            let lowest = signed(part.lowest_revision());
            collect(connection, PENDING, params![&*instance.0, limit, lowest], row)
        })
    }

    fn acknowledged(&self, rows: Vec<TemporaryRow>, instance: Instance) -> StoreFuture<'_, ()> {
        self.write("acknowledge_temporary", move |workspace| {
            let now = workspace.clock.now().0;
            for row in &rows {
                workspace.execute(
                    ACKNOWLEDGE,
                    params![row.number.as_str(), signed(row.revision), &*instance.0, now],
                )?;
            }
            Ok(())
        })
    }

    fn prune(&self, instance: Instance, kept_for: Duration, limit: u32) -> StoreFuture<'_, u64> {
        self.write("prune_temporary", move |workspace| {
            let before = values::before(workspace.clock.now(), kept_for);
            let pruned = workspace.execute(PRUNE, params![&*instance.0, before, limit])?;
            Ok(u64::try_from(pruned).unwrap_or(u64::MAX))
        })
    }

    fn unsent(&self) -> StoreFuture<'_, u64> {
        self.read("unsent_temporary", |connection| count(connection, UNSENT))
    }
}
