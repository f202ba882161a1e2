//! One step of a counter: its row is locked and read, the protocol runs, what became of it is written. One transaction.
//!
//! Order of locks: the list of a prefix key, then a counter, then the marker, then idempotency records. Whoever holds a counter waits for
//! nobody who waits for a counter.
//!
//! The marker is read with the counter, and locked only where it has to change. That is enough: a marker that another transaction
//! replaces meanwhile counts as replaced after this step. But what was read with the counter may be older than the counter, whose
//! lock was waited for; where anything about the two is unusual it is read again, behind the lock.

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::super::{
    failure::Failure,
    values::{Whole, sequence},
};
use super::{
    holes::{self, Archive},
    marker::{self, Server, Sighting, server},
    records,
    state::{self, Marks, Misread},
};
use crate::{
    counter::{Counter, SequenceValue, ValueRange},
    store::protocol::counter::{Authority, ClaimAsk, Generation, Marker},
};

/// What a step does to a counter: one of the functions of [`Authority`].
pub(super) trait Step: Sync {
    /// What it answers.
    type Answer: Send;

    /// Requests with a key that it draws for.
    fn claims(&self) -> &[ClaimAsk] {
        &[]
    }

    /// Ranges at or below the cursor that it may list or take off the list of holes, but for those of a holder.
    fn spoken_of(&self, _counter: &Authority, _now: u64) -> Vec<ValueRange> {
        Vec::new()
    }

    /// Does it.
    fn run(&self, on: Ground<'_>) -> Self::Answer;

    /// Whether the holders of segments are to hear that one is in the way.
    fn is_blocked(_answer: &Self::Answer) -> bool {
        false
    }
}

/// What the functions of [`Authority`] are given.
pub(super) struct Ground<'a> {
    pub(super) slot: &'a mut Option<Authority>,
    pub(super) marker: &'a mut Option<Marker>,
    pub(super) instance: u64,
    pub(super) now: u64,
    pub(super) fresh: Generation,
}

/// A step of a counter.
pub(super) struct Call<'a, S> {
    pub(super) counter: &'a Counter,
    pub(super) step: S,
    /// The name of a generation, should one have to begin.
    pub(super) fresh: Generation,
    /// How far the log of the server was seen before.
    pub(super) seen: Option<Sighting>,
}

/// What came of it.
pub(super) struct Done<T> {
    pub(super) answer: T,
    /// Under which generation, and where.
    pub(super) generation: Option<Generation>,
    pub(super) server: Server,
}

/// A counter as its row has it.
struct Found {
    slot: Option<Authority>,
    archive: Archive,
    marker: Option<Marker>,
    server: Server,
}

/// Runs a step, inside a transaction.
pub(super) async fn run<S: Step>(
    connection: &mut PgConnection,
    call: &Call<'_, S>,
) -> Result<Done<S::Answer>, Failure> {
    let mut found = find(connection, call.counter).await?;
    let is_usual = found.is_usual();
    if !is_usual {
        (found.marker, found.server) = marker::look(connection).await?;
    }
    if let Some(counter) = &mut found.slot {
        let mut ranges = call.step.spoken_of(counter, found.server.now_ms);
        ranges.extend(counter.returned.iter());
        if !is_usual {
            // A counter that goes on after a loss lists what the last calls were answered.
            ranges.extend(counter.members.values().flat_map(|member| member.drawn.iter().copied()));
        }
        holes::fetch(connection, call.counter, ranges, &mut found.archive, counter).await?;
    }
    let records = records::fetch(connection, call.step.claims()).await?;
    if !records.is_empty() {
        // A key that was used elsewhere is known to a counter that does not exist yet.
        found.slot.get_or_insert_with(state::blank).records = records;
    }
    let (mut answer, mut slot, mut marker) = found.try_out(call, found.marker);
    if marker != found.marker {
        let locked = marker::lock(connection, &found.server, call.fresh).await?;
        (answer, slot, marker) = found.try_out(call, Some(locked));
        if let Some(marker) = marker.as_ref().filter(|marker| **marker != locked) {
            marker::write(connection, marker).await?;
        }
    }
    if let Some(counter) = &slot {
        let before = found.slot.map(|counter| counter.records).unwrap_or_default();
        write(connection, call.counter, counter, &found.archive).await?;
        records::write(connection, &before, &counter.records).await?;
    }
    if S::is_blocked(&answer) {
        say_swap(connection, call.counter).await?;
    }
    Ok(Done { answer, generation: marker.map(|marker| marker.generation), server: found.server })
}

impl Found {
    /// Nothing about the counter and the marker asks for another look.
    fn is_usual(&self) -> bool {
        let (Some(counter), Some(marker)) = (&self.slot, self.marker) else { return false };
        marker.settled
            && marker.replid == self.server.instance
            && counter.generation == Some(marker.generation)
            && counter.recovery.is_none()
    }

    /// What the step would do under this marker.
    fn try_out<S: Step>(
        &self,
        call: &Call<'_, S>,
        mut marker: Option<Marker>,
    ) -> (S::Answer, Option<Authority>, Option<Marker>) {
        marker::doubt(&mut marker, &self.server, call.seen, call.fresh);
        let mut slot = self.slot.clone();
        let ground = Ground {
            slot: &mut slot,
            marker: &mut marker,
            instance: self.server.instance,
            now: self.server.now_ms,
            fresh: call.fresh,
        };
        let answer = call.step.run(ground);
        (answer, slot, marker)
    }
}

/// Locks the row of a counter and reads it; a counter that nobody has asked for gets one.
async fn find(connection: &mut PgConnection, counter: &Counter) -> Result<Found, Failure> {
    const FIND: &str = concat!(
        "SELECT origin, base, last, horizon, returned::text AS returned, archived_to, state::text AS state, ",
        marker::columns!(),
        ", ",
        server!(),
        " FROM numgen_counters AS c LEFT JOIN numgen_counter_marker AS m ON m.singleton
         WHERE prefix_key = $1 AND period = $2 FOR UPDATE OF c"
    );
    loop {
        let query = sqlx::query(FIND).bind(counter.key.as_str()).bind(counter.period.as_str());
        if let Some(row) = query.fetch_optional(&mut *connection).await? {
            let archived_to = row.try_get::<Option<Whole>, _>("archived_to")?.map(SequenceValue::from);
            return Ok(Found {
                slot: read(&row)?,
                archive: Archive::up_to(archived_to),
                marker: marker::read(&row)?,
                server: Server::read(&row)?,
            });
        }
        sqlx::query(
            "INSERT INTO numgen_counters (prefix_key, period) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        )
        .bind(counter.key.as_str())
        .bind(counter.period.as_str())
        .execute(&mut *connection)
        .await?;
    }
}

/// Reads `origin, base, last, horizon, returned, state`; `None` for a counter of which nothing is known.
pub(in crate::store::postgres) fn read(row: &PgRow) -> Result<Option<Authority>, Failure> {
    let Some(text) = row.try_get::<Option<&str>, _>("state")? else { return Ok(None) };
    let corrupt = |misread: Misread| Failure::corrupt(misread.to_string());
    let marks = Marks {
        origin: sequence(row, "origin")?,
        base: sequence(row, "base")?,
        last: sequence(row, "last")?,
        horizon: row.try_get::<Option<Whole>, _>("horizon")?.map(SequenceValue::from).unwrap_or_default(),
        returned: state::read_returned(row.try_get("returned")?).map_err(corrupt)?,
    };
    state::read(text, marks).map(Some).map_err(corrupt)
}

async fn write(
    connection: &mut PgConnection,
    of: &Counter,
    counter: &Authority,
    archive: &Archive,
) -> Result<(), Failure> {
    let changes = archive.changes(counter);
    let corrupt = |misread: Misread| Failure::corrupt(misread.to_string());
    let state = state::write(counter, &changes.in_state).map_err(corrupt)?;
    let returned = state::write_returned(counter).map_err(corrupt)?;
    sqlx::query(
        "UPDATE numgen_counters SET origin = $3, base = $4, last = $5, horizon = $6, returned = $7::json,
             archived_to = $8, state = $9::json
         WHERE prefix_key = $1 AND period = $2",
    )
    .bind(of.key.as_str())
    .bind(of.period.as_str())
    .bind(Whole::from(counter.origin))
    .bind(Whole::from(counter.base))
    .bind(Whole::from(counter.cursor))
    .bind(Whole::from(counter.horizon))
    .bind(returned)
    .bind(changes.archived_to.map(Whole::from))
    .bind(state)
    .execute(&mut *connection)
    .await?;
    holes::write(connection, of, &changes).await
}

/// Asks the holder of the segment in the way to swap it. Sent with the commit.
async fn say_swap(connection: &mut PgConnection, counter: &Counter) -> Result<(), Failure> {
    sqlx::query("SELECT pg_notify('numgen', $1)")
        .bind(format!("{} {counter}", super::SWAP))
        .execute(connection)
        .await?;
    Ok(())
}
