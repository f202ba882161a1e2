//! Which counters a prefix key has, and which of its schemes may still draw.

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::super::{
    STORE,
    failure::Failure,
    values::{Whole, sequence},
};
use super::{
    holes,
    marker::{self, Server, Sighting, server},
    step,
};
use crate::{
    calendar::Period,
    counter::{Counter, SequenceValue},
    prefix_key::PrefixKey,
    store::{
        StoreError,
        counters::{Closed, Shown},
        protocol::counter::{Generation, Hole, Instance},
    },
};

/// Puts a counter on the list.
pub(super) async fn enlist(
    connection: &mut PgConnection,
    (counter, scheme): &(&Counter, u64),
) -> Result<(), Failure> {
    // The row of the key is locked until the commit: who closes the list sees the counter, or has refused it.
    let row = sqlx::query(
        "WITH open AS (
             INSERT INTO numgen_counter_keys AS known (prefix_key, scheme) VALUES ($1, $3)
             ON CONFLICT (prefix_key) DO UPDATE SET scheme = greatest(known.scheme, excluded.scheme)
             RETURNING scheme),
         listed AS (INSERT INTO numgen_counters (prefix_key, period) VALUES ($1, $2) ON CONFLICT DO NOTHING)
         SELECT scheme FROM open",
    )
    .bind(counter.key.as_str())
    .bind(counter.period.as_str())
    .bind(Whole(*scheme))
    .fetch_one(connection)
    .await?;
    let Whole(lowest) = row.try_get("scheme")?;
    if lowest <= *scheme {
        Ok(())
    } else {
        Err(StoreError::Superseded { store: STORE, operation: "enlist" }.into())
    }
}

/// What is asked of a list.
pub(super) struct Close<'a> {
    pub(super) key: &'a PrefixKey,
    pub(super) scheme: u64,
    pub(super) look: Look,
}

/// Closes the list to lower schemes; answers who is on it.
pub(super) async fn close(connection: &mut PgConnection, ask: &Close<'_>) -> Result<Closed, Failure> {
    sqlx::query(
        "INSERT INTO numgen_counter_keys AS known (prefix_key, scheme) VALUES ($1, $2)
         ON CONFLICT (prefix_key) DO UPDATE SET scheme = greatest(known.scheme, excluded.scheme)",
    )
    .bind(ask.key.as_str())
    .bind(Whole(ask.scheme))
    .execute(&mut *connection)
    .await?;
    let Blessed { instance, .. } = bless(connection, &ask.look).await?;
    if !instance.is_settled() {
        return Ok(Closed::Settling { wait_ms: instance.settling_ms });
    }
    let rows = sqlx::query("SELECT period FROM numgen_counters WHERE prefix_key = $1 ORDER BY period")
        .bind(ask.key.as_str())
        .fetch_all(connection)
        .await?;
    let counter = |row: &PgRow| Ok(Counter { key: ask.key.clone(), period: period(row)? });
    Ok(Closed::Listed(rows.iter().map(counter).collect::<Result<_, Failure>>()?))
}

/// A look at the marker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// The name of a generation, should one have to begin.
    pub(super) fresh: Generation,
    /// How far the log of the server was seen before.
    pub(super) seen: Option<Sighting>,
    /// How long a batch can be under way, in ms: what was drawn that long ago is committed.
    pub(super) call_ms: u64,
}

/// The marker that is in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blessed {
    pub(super) instance: Instance,
    /// Where the server stood.
    pub(super) server: Server,
}

/// Makes sure that there is a marker of this server, and that it tells of looks.
pub(super) async fn bless(
    connection: &mut PgConnection,
    &Look { fresh, seen, call_ms }: &Look,
) -> Result<Blessed, Failure> {
    let (found, server) = marker::look(connection).await?;
    let judge = |found| {
        let mut marker = found;
        marker::doubt(&mut marker, &server, seen, fresh);
        let instance = Instance::look(&mut marker, server.instance, server.now_ms, fresh);
        if let Some(marker) = &mut marker {
            marker.note_look(server.now_ms.saturating_sub(call_ms));
        }
        (instance, marker)
    };
    let (mut instance, mut marker) = judge(found);
    if marker != found {
        let locked = marker::lock(connection, &server, fresh).await?;
        (instance, marker) = judge(Some(locked));
        if let Some(marker) = marker.as_ref().filter(|marker| **marker != locked) {
            marker::write(connection, marker).await?;
        }
    }
    Ok(Blessed { instance, server })
}

/// Where a counter stands; `None` where nothing was drawn from it yet.
pub(super) async fn cursor(
    connection: &mut PgConnection,
    counter: &&Counter,
) -> Result<Option<SequenceValue>, Failure> {
    let row = sqlx::query(
        "SELECT last FROM numgen_counters WHERE prefix_key = $1 AND period = $2 AND state IS NOT NULL",
    )
    .bind(counter.key.as_str())
    .bind(counter.period.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(|row| sequence(&row, "last")).transpose()
}

/// Every counter of which something is known, in period order.
pub(super) async fn show(connection: &mut PgConnection, key: &&PrefixKey) -> Result<Vec<Shown>, Failure> {
    // One moment for both tables.
    sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *connection).await?;
    let rows = sqlx::query(concat!(
        "SELECT period, origin, base, last, horizon, returned::text AS returned, state::text AS state, ",
        server!(),
        " FROM numgen_counters WHERE prefix_key = $1 AND state IS NOT NULL ORDER BY period"
    ))
    .bind(key.as_str())
    .fetch_all(&mut *connection)
    .await?;
    let archived = sqlx::query(
        "SELECT period, first, last, reason, since_ms FROM numgen_counter_holes WHERE prefix_key = $1",
    )
    .bind(key.as_str())
    .fetch_all(connection)
    .await?;
    let archived = archived.iter().map(|row| Ok((period(row)?, holes::read(row)?)));
    let mut archived = archived.collect::<Result<Vec<(Period, Hole)>, Failure>>()?;
    let mut shown = Vec::with_capacity(rows.len());
    for row in &rows {
        let Some(mut counter) = step::read(row)? else { continue };
        let period = period(row)?;
        let of_this = archived.extract_if(.., |(of, _)| *of == period).map(|(_, hole)| hole);
        counter.holes.extend(of_this);
        counter.holes.sort_by_key(|hole| hole.range.from);
        shown.push(Shown { period, now_ms: Server::read(row)?.now_ms, counter });
    }
    Ok(shown)
}

fn period(row: &PgRow) -> Result<Period, Failure> {
    Ok(Period::new(row.try_get::<&str, _>("period")?))
}
