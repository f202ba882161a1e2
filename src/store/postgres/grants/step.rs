//! One step of a line: its row is locked and read, the protocol runs, what became of it is written. One transaction.
//!
//! Order of locks: the row of the prefix key, shared; the row of the counter; the turn of those who hear of a new generation of a Redis.

use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{
    super::{
        counters,
        failure::Failure,
        values::{Whole, sequence, unsigned},
    },
    Site,
};
use crate::{
    counter::{Counter, SequenceValue, ValueRange},
    store::protocol::{
        counter::Generation,
        grant::{Draw, Drawn, Grant, GrantId, Granted, Line, Need, Raised, Recipient, Row, Standing, State},
    },
};

/// So long after the first grant for a prefix key, no Redis has issued values of a counter of it that was never granted any: longer than
/// clocks of nodes may differ in what period it is.
const ESTABLISHED_MS: i64 = 48 * 3_600_000;

const NOW: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms";
const BEGIN_KEY: &str = "
    INSERT INTO numgen_line_keys (prefix_key, scheme, since_ms) VALUES ($1, 0, $2) ON CONFLICT DO NOTHING";
const KEY: &str = "SELECT scheme, since_ms FROM numgen_line_keys WHERE prefix_key = $1 FOR SHARE";
const BEGIN: &str = "INSERT INTO numgen_lines (prefix_key, period) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const LOCK: &str = "
    SELECT granted_to, grants FROM numgen_lines WHERE prefix_key = $1 AND period = $2 FOR UPDATE";
const WRITE: &str = "
    UPDATE numgen_lines SET granted_to = $3, grants = $4 WHERE prefix_key = $1 AND period = $2";
const OPEN: &str = "
    SELECT id, datacenter, generation, follows, first, last FROM numgen_grants
    WHERE prefix_key = $1 AND period = $2 AND state = 'open' ORDER BY id";
const LATEST: &str = "
    SELECT max(id) AS id FROM numgen_grants
    WHERE prefix_key = $1 AND period = $2 AND datacenter = $3 AND generation = $4";
const ADD: &str = "
    INSERT INTO numgen_grants (prefix_key, period, id, datacenter, generation, follows, first, last, state, since_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'open', $9)";
const END: &str = "
    UPDATE numgen_grants SET state = $4, remainder_from = $5 WHERE prefix_key = $1 AND period = $2 AND id = $3";
const HEARD: &str = "
    SELECT is_over FROM numgen_redis_generations WHERE datacenter = $1 AND marker = $2 AND generation = $3";
/// Fetches of other counters, and of nodes that have heard of another generation, hold other rows.
const TURN: &str =
    "SELECT pg_advisory_xact_lock(hashtextextended('numgen_redis_generations ' || $2, $1::bigint))";
/// Never itself: a node of an earlier version takes no turn, and may have heard of it just now.
const FOLLOW: &str = "
    UPDATE numgen_redis_generations SET is_over = true
    WHERE datacenter = $1 AND marker = $2 AND generation <> $3 AND NOT is_over";
const HEAR: &str = "
    INSERT INTO numgen_redis_generations (datacenter, marker, generation, is_over, since_ms)
    VALUES ($1, $2, $3, false, $4) ON CONFLICT DO NOTHING";
const DRAWN: &str = "SELECT first, last FROM numgen_draws WHERE request = $1";
const DRAW: &str = "
    INSERT INTO numgen_draws (request, prefix_key, period, first, last, since_ms) VALUES ($1, $2, $3, $4, $5, $6)";
const BEFORE: &str = "
    SELECT origin, base, last, horizon, returned::text AS returned, state::text AS state FROM numgen_counters
    WHERE prefix_key = $1 AND period = $2";

/// A line that is locked.
struct Held {
    line: Line,
    now_ms: i64,
    /// Whether nobody has issued anything of this counter elsewhere.
    is_known: bool,
}

impl Held {
    /// How far this database has come by itself, in profile *postgres*, before there were grants.
    async fn issued_here(
        &self,
        connection: &mut PgConnection,
        counter: &Counter,
    ) -> Result<SequenceValue, Failure> {
        if self.line.grants > 0 {
            return Ok(SequenceValue::default());
        }
        let query = sqlx::query(BEFORE).bind(counter.key.as_str()).bind(counter.period.as_str());
        let row = query.fetch_optional(connection).await?;
        let known = row.as_ref().map(counters::read).transpose()?.flatten();
        Ok(known.map(|counter| counter.highest()).unwrap_or_default())
    }
}

/// Grants the next range, or says again what was granted.
pub(super) async fn fetch(
    connection: &mut PgConnection,
    &(site, counter, marker, need): &(Site, &Counter, &str, &Need),
) -> Result<Granted, Failure> {
    let mut held = lock(connection, counter).await?;
    let to = Recipient { datacenter: site.datacenter, generation: need.generation };
    let standing = hear(connection, to, marker, held.now_ms).await?;
    let latest = latest(connection, counter, to).await?;
    let seen = need.seen.max(held.issued_here(connection, counter).await?);
    let before = held.line.clone();
    let granted = held.line.fetch(to, standing, latest, site.datacenters, &Need { seen, ..*need });
    write(connection, counter, &before, &held).await?;
    Ok(granted)
}

/// Draws for once.
pub(super) async fn draw(
    connection: &mut PgConnection,
    &(counter, draw): &(&Counter, &Draw),
) -> Result<Option<Drawn>, Failure> {
    let mut held = lock(connection, counter).await?;
    let request = draw.request.to_be_bytes();
    let known = sqlx::query(DRAWN).bind(&request[..]).fetch_optional(&mut *connection).await?;
    if let Some(row) = known {
        held.line.drawn.push((draw.request, range(&row)?));
    } else if !held.is_known {
        return Ok(None);
    }
    let seen = draw.seen.max(held.issued_here(connection, counter).await?);
    let before = held.line.clone();
    let drawn = held.line.draw(&Draw { seen, ..*draw });
    if let (Drawn::Values(values), true) = (drawn, held.line != before) {
        sqlx::query(DRAW)
            .bind(&request[..])
            .bind(counter.key.as_str())
            .bind(counter.period.as_str())
            .bind(Whole::from(values.from))
            .bind(Whole::from(values.to))
            .bind(held.now_ms)
            .execute(&mut *connection)
            .await?;
    }
    write(connection, counter, &before, &held).await?;
    Ok(Some(drawn))
}

/// Moves a line up.
pub(super) async fn raise(
    connection: &mut PgConnection,
    &(site, counter, to): &(Site, &Counter, SequenceValue),
) -> Result<Raised, Failure> {
    let mut held = lock(connection, counter).await?;
    let before = held.line.clone();
    // A line from which nothing was granted begins where its Redis says, above this.
    let raised = held.line.raise(site.datacenter, to);
    write(connection, counter, &before, &held).await?;
    Ok(raised)
}

/// Reads a line and what is open of it; the row is locked until the end of the transaction.
async fn lock(connection: &mut PgConnection, counter: &Counter) -> Result<Held, Failure> {
    let (key, period) = (counter.key.as_str(), counter.period.as_str());
    let asked_ms: i64 = sqlx::query(NOW).fetch_one(&mut *connection).await?.try_get("now_ms")?;
    sqlx::query(BEGIN_KEY).bind(key).bind(asked_ms).execute(&mut *connection).await?;
    let of_key = sqlx::query(KEY).bind(key).fetch_one(&mut *connection).await?;
    sqlx::query(BEGIN).bind(key).bind(period).execute(&mut *connection).await?;
    let row = sqlx::query(LOCK).bind(key).bind(period).fetch_one(&mut *connection).await?;
    let open = sqlx::query(OPEN).bind(key).bind(period).fetch_all(&mut *connection).await?;
    let now_ms: i64 = sqlx::query(NOW).fetch_one(&mut *connection).await?.try_get("now_ms")?;
    let granted_to = row.try_get::<Option<Whole>, _>("granted_to")?.map(SequenceValue::from);
    let since_ms: i64 = of_key.try_get("since_ms")?;
    let line = Line {
        granted_to,
        grants: unsigned(&row, "grants")?,
        scheme: of_key.try_get::<Whole, _>("scheme")?.0,
        rows: open.iter().map(open_row).collect::<Result<_, _>>()?,
        drawn: Vec::new(),
    };
    let is_known = line.grants > 0 || now_ms.saturating_sub(since_ms) >= ESTABLISHED_MS;
    Ok(Held { line, now_ms, is_known })
}

async fn write(
    connection: &mut PgConnection,
    counter: &Counter,
    before: &Line,
    held: &Held,
) -> Result<(), Failure> {
    let (key, period, line) = (counter.key.as_str(), counter.period.as_str(), &held.line);
    if (line.granted_to, line.grants) != (before.granted_to, before.grants) {
        sqlx::query(WRITE)
            .bind(key)
            .bind(period)
            .bind(line.granted_to.map(Whole::from))
            .bind(id(line.grants)?)
            .execute(&mut *connection)
            .await?;
    }
    for row in line.rows.iter().filter(|row| !before.rows.contains(row)) {
        let (state, remainder) = match row.state {
            State::Open => {
                sqlx::query(ADD)
                    .bind(key)
                    .bind(period)
                    .bind(id(row.grant.id.0)?)
                    .bind(datacenter(row.to.datacenter))
                    .bind(Whole(row.to.generation.0))
                    .bind(id(row.follows.map_or(0, |follows| follows.0))?)
                    .bind(Whole::from(row.grant.range.from))
                    .bind(Whole::from(row.grant.range.to))
                    .bind(held.now_ms)
                    .execute(&mut *connection)
                    .await?;
                continue;
            }
            State::Used => ("used", None),
            State::Closed { remainder } => ("closed", remainder),
        };
        sqlx::query(END)
            .bind(key)
            .bind(period)
            .bind(id(row.grant.id.0)?)
            .bind(state)
            .bind(remainder.map(|range| Whole::from(range.from)))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Hears of a generation: one that is new follows the present one.
async fn hear(
    connection: &mut PgConnection,
    to: Recipient,
    marker: &str,
    now_ms: i64,
) -> Result<Standing, Failure> {
    if let Some(standing) = heard(connection, to, marker).await? {
        return Ok(standing);
    }
    let (datacenter, generation) = (datacenter(to.datacenter), Whole(to.generation.0));
    sqlx::query(TURN).bind(datacenter).bind(marker).execute(&mut *connection).await?;
    // Whoever had the turn before may have spoken of the same one.
    if let Some(standing) = heard(connection, to, marker).await? {
        return Ok(standing);
    }
    sqlx::query(FOLLOW).bind(datacenter).bind(marker).bind(generation).execute(&mut *connection).await?;
    sqlx::query(HEAR).bind(datacenter).bind(marker).bind(generation).bind(now_ms).execute(connection).await?;
    Ok(Standing::Present)
}

/// How a generation stands; `None`: it is new.
async fn heard(
    connection: &mut PgConnection,
    to: Recipient,
    marker: &str,
) -> Result<Option<Standing>, Failure> {
    let row = sqlx::query(HEARD)
        .bind(datacenter(to.datacenter))
        .bind(marker)
        .bind(Whole(to.generation.0))
        .fetch_optional(connection)
        .await?;
    let is_over = row.map(|row| row.try_get("is_over")).transpose()?;
    Ok(is_over.map(|is_over: bool| if is_over { Standing::Over } else { Standing::Present }))
}

async fn latest(
    connection: &mut PgConnection,
    counter: &Counter,
    to: Recipient,
) -> Result<Option<GrantId>, Failure> {
    let row = sqlx::query(LATEST)
        .bind(counter.key.as_str())
        .bind(counter.period.as_str())
        .bind(datacenter(to.datacenter))
        .bind(Whole(to.generation.0))
        .fetch_one(connection)
        .await?;
    let id: Option<i64> = row.try_get("id")?;
    Ok(id.map(|id| GrantId(id.unsigned_abs())))
}

fn open_row(row: &PgRow) -> Result<Row, Failure> {
    let follows = unsigned(row, "follows")?;
    let datacenter = u32::try_from(row.try_get::<i32, _>("datacenter")?);
    let datacenter = datacenter.map_err(|_| Failure::corrupt("a negative data centre"))?;
    Ok(Row {
        grant: Grant { id: GrantId(unsigned(row, "id")?), range: range(row)? },
        to: Recipient { datacenter, generation: Generation(row.try_get::<Whole, _>("generation")?.0) },
        follows: (follows > 0).then_some(GrantId(follows)),
        state: State::Open,
    })
}

/// Reads `first, last`.
pub(super) fn range(row: &PgRow) -> Result<ValueRange, Failure> {
    let range = ValueRange { from: sequence(row, "first")?, to: sequence(row, "last")? };
    if range.from <= range.to { Ok(range) } else { Err(Failure::corrupt("a range that falls")) }
}

pub(in crate::store::postgres) fn datacenter(datacenter: u32) -> i32 {
    i32::try_from(datacenter).unwrap_or(i32::MAX)
}

fn id(id: u64) -> Result<i64, Failure> {
    i64::try_from(id).map_err(|_| Failure::corrupt("more grants than can be counted"))
}
