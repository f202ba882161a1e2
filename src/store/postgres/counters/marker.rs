//! How it is noticed that the database is not what it was: a standby that was promoted without the last transactions, a restored
//! backup, a copy.
//!
//! Two things tell. `numgen_server()` names the present server, its timeline and the tables; the marker was written under one, and
//! another means a promotion, a recovery to a point in time, or a dump that was loaded. And the write-ahead log only grows: a process
//! that has seen it further on under the same marker sees that a copy of the files was put back.
//!
//! How much may be lacking then: each look of a node is noted in the marker, and the log is one line, so that whatever was committed
//! before the note is there wherever the note is. A batch that was under way may be committed after it; so a look is dated back by as
//! long as a call lasts. The note says for which generation it is: a program that knows nothing of it begins others without.

use std::sync::{Mutex, PoisonError};

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::super::{failure::Failure, values::Whole};
use crate::store::protocol::counter::{Generation, Instance, Marker};

/// Columns that say which server this is and where it stands: `present`, `wal`, `now_ms`. Of the log, what is on disk: the rest may go
/// with a crash, and nothing was acknowledged of it.
macro_rules! server {
    () => {
        "numgen_server() AS present, pg_current_wal_flush_lsn() - '0/0'::pg_lsn AS wal,
         floor(extract(epoch FROM clock_timestamp()) * 1000)::numeric AS now_ms"
    };
}
pub(super) use server;

/// The server, as a statement found it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    /// Which it is.
    pub(super) instance: u64,
    /// How many bytes of its log were on disk.
    wal: u64,
    /// Its clock.
    pub(super) now_ms: u64,
}

impl Server {
    /// Reads the columns of [`server!`].
    pub(super) fn read(row: &PgRow) -> Result<Self, Failure> {
        Ok(Self {
            instance: row.try_get::<i64, _>("present")?.cast_unsigned(),
            wal: row.try_get::<Whole, _>("wal")?.0,
            now_ms: row.try_get::<Whole, _>("now_ms")?.0,
        })
    }
}

/// How far the log was seen under a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    generation: Generation,
    wal: u64,
}

impl Sighting {
    /// Whether the log lies behind of where it was seen before, under the same marker.
    pub(super) fn is_behind(marker: Option<Marker>, server: &Server, before: Option<Self>) -> bool {
        matches!((marker, before), (Some(marker), Some(before))
            if marker.generation == before.generation && server.wal < before.wal)
    }
}

/// Ends the generation of a marker under which the log was seen further on.
pub(super) fn doubt(marker: &mut Option<Marker>, server: &Server, seen: Option<Sighting>, fresh: Generation) {
    if Sighting::is_behind(*marker, server, seen) {
        Instance::distrust(marker, server.instance, server.now_ms, fresh);
    }
}

/// The furthest that this process has seen. It is asked before a transaction begins: what that sees then lies at or beyond.
#[derive(Debug, Default)]
pub(super) struct Witness(Mutex<Option<Sighting>>);

impl Witness {
    pub(super) fn furthest(&self) -> Option<Sighting> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, generation: Generation, server: &Server) {
        let mut furthest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wal = match *furthest {
            Some(before) if before.generation == generation => before.wal.max(server.wal),
            Some(_) | None => server.wal,
        };
        *furthest = Some(Sighting { generation, wal });
    }
}

/// The columns of the marker.
macro_rules! columns {
    () => {
        "generation, server, since_ms, settled, looked_for, looked_ms, lacks_ms"
    };
}
pub(super) use columns;

/// Reads [`columns!`]; all are NULL where there is no marker.
pub(super) fn read(row: &PgRow) -> Result<Option<Marker>, Failure> {
    let Some(generation) = row.try_get::<Option<Whole>, _>("generation")? else { return Ok(None) };
    let since = row.try_get::<Whole, _>("since_ms")?.0;
    let is_noted = row.try_get::<Option<Whole>, _>("looked_for")? == Some(generation);
    // Without a note any time may be lacking.
    let (alive, lacks_ms) = if is_noted {
        (row.try_get::<Whole, _>("looked_ms")?.0, row.try_get::<Whole, _>("lacks_ms")?.0)
    } else {
        (since, u64::MAX)
    };
    Ok(Some(Marker {
        generation: Generation(generation.0),
        replid: row.try_get::<i64, _>("server")?.cast_unsigned(),
        since,
        settled: row.try_get("settled")?,
        alive,
        lacks_ms,
    }))
}

/// The marker as it is now.
pub(super) async fn look(connection: &mut PgConnection) -> Result<(Option<Marker>, Server), Failure> {
    let row = sqlx::query(concat!(
        "SELECT ",
        columns!(),
        ", ",
        server!(),
        " FROM (SELECT 1) AS one LEFT JOIN numgen_counter_marker AS m ON m.singleton"
    ))
    .fetch_one(connection)
    .await?;
    Ok((read(&row)?, Server::read(&row)?))
}

/// The marker, until the end of the transaction nobody else's to change. Where there is none there is one now: unsettled.
pub(super) async fn lock(
    connection: &mut PgConnection,
    server: &Server,
    fresh: Generation,
) -> Result<Marker, Failure> {
    let row = sqlx::query(concat!(
        "INSERT INTO numgen_counter_marker (generation, server, since_ms, settled, looked_for, looked_ms, lacks_ms)
         VALUES ($1, $2, $3, false, $1, $3, 0) ON CONFLICT (singleton) DO UPDATE SET singleton = true RETURNING ",
        columns!()
    ))
    .bind(Whole(fresh.0))
    .bind(server.instance.cast_signed())
    .bind(Whole(server.now_ms))
    .fetch_one(connection)
    .await?;
    read(&row)?.ok_or_else(|| Failure::corrupt("a marker without a generation"))
}

/// Writes the marker, which is locked.
pub(super) async fn write(connection: &mut PgConnection, marker: &Marker) -> Result<(), Failure> {
    sqlx::query(
        "UPDATE numgen_counter_marker SET generation = $1, server = $2, since_ms = $3, settled = $4,
             looked_for = $1, looked_ms = $5, lacks_ms = $6",
    )
    .bind(Whole(marker.generation.0))
    .bind(marker.replid.cast_signed())
    .bind(Whole(marker.since))
    .bind(marker.settled)
    .bind(Whole(marker.alive))
    .bind(Whole(marker.lacks_ms))
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_falls_under_one_marker_was_put_back() {
        let marker = |generation| {
            Some(Marker { generation, replid: 7, since: 0, settled: true, alive: 0, lacks_ms: 0 })
        };
        let server = |wal| Server { instance: 7, wal, now_ms: 0 };
        let (first, second) = (Generation(1), Generation(2));
        let witness = Witness::default();
        assert!(!Sighting::is_behind(marker(first), &server(10), witness.furthest()));
        witness.note(first, &server(10));
        witness.note(first, &server(8)); // of a transaction that began earlier
        assert!(Sighting::is_behind(marker(first), &server(9), witness.furthest()));
        assert!(!Sighting::is_behind(marker(first), &server(10), witness.furthest()));
        // It was noticed, by whomever: the log of the new generation begins where it begins.
        assert!(!Sighting::is_behind(marker(second), &server(3), witness.furthest()));
        witness.note(second, &server(3));
        assert!(!Sighting::is_behind(marker(second), &server(3), witness.furthest()));
    }
}
