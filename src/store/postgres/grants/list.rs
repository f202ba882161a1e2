//! What concerns all counters of a prefix key, and what was drawn for once.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    super::{
        failure::Failure,
        values::{Whole, unsigned},
    },
    Site,
    step::{datacenter, range},
};
use crate::{
    calendar::Period,
    counter::{Counter, SequenceValue, ValueRange},
    prefix_key::PrefixKey,
    store::counters::Lot,
};

/// Whoever grants something holds this row, shared: they are waited for, and what they grant is seen afterwards.
const RETIRE: &str = "
    INSERT INTO numgen_line_keys AS known (prefix_key, scheme, since_ms)
    VALUES ($1, $2, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
    ON CONFLICT (prefix_key) DO UPDATE SET scheme = greatest(known.scheme, excluded.scheme)";
const HIGHEST: &str = "SELECT max(granted_to) AS highest FROM numgen_lines WHERE prefix_key = $1";
const GRANTED: &str = "
    SELECT period, datacenter, state, first, coalesce(remainder_from - 1, last) AS last FROM numgen_grants
    WHERE prefix_key = $1 AND datacenter <> $2 AND (remainder_from IS NULL OR remainder_from > first)";
/// What generations of this data centre had left when another followed: then that one was granted something. Its first grant is the next
/// one in the order of IDs: the primary key leads there, and nothing behind it is read.
const LEFT: &str = "
    SELECT own.period, own.remainder_from AS first, own.last, coalesce((
        SELECT next.since_ms FROM numgen_grants AS next
        WHERE (next.prefix_key, next.period, next.datacenter) = (own.prefix_key, own.period, own.datacenter)
          AND next.id > own.id AND next.generation <> own.generation
        ORDER BY next.id LIMIT 1
    ), own.since_ms) AS since_ms
    FROM numgen_grants AS own WHERE own.prefix_key = $1 AND own.datacenter = $2 AND own.remainder_from IS NOT NULL";
/// Each draw has a row; an outage is a few runs of them.
const DRAWN: &str = "
    SELECT period, min(first) AS first, max(last) AS last
    FROM (SELECT period, first, last,
            count(*) FILTER (WHERE before IS DISTINCT FROM first - 1) OVER (PARTITION BY period ORDER BY first) AS run
        FROM (SELECT period, first, last, lag(last) OVER (PARTITION BY period ORDER BY first) AS before
            FROM numgen_draws WHERE prefix_key = $1) AS draws) AS runs
    GROUP BY period, run";
const RETURNED: &str =
    "SELECT period, first, last, since_ms FROM numgen_draws_returned WHERE prefix_key = $1";
const RETURN: &str = "
    INSERT INTO numgen_draws_returned (prefix_key, period, first, last, since_ms)
    VALUES ($1, $2, $3, $4, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) ON CONFLICT DO NOTHING";

/// Grants nothing to lower schemes any more; answers how far grants have come.
pub(super) async fn retire(
    connection: &mut PgConnection,
    &(key, scheme): &(&PrefixKey, u64),
) -> Result<SequenceValue, Failure> {
    sqlx::query(RETIRE).bind(key.as_str()).bind(Whole(scheme)).execute(&mut *connection).await?;
    let row = sqlx::query(HIGHEST).bind(key.as_str()).fetch_one(connection).await?;
    Ok(row.try_get::<Option<Whole>, _>("highest")?.map(SequenceValue::from).unwrap_or_default())
}

/// What was granted elsewhere, what was left here, and what came back.
pub(super) async fn lots(
    connection: &mut PgConnection,
    &(site, key): &(Site, &PrefixKey),
) -> Result<Vec<Lot>, Failure> {
    // One moment for all.
    sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *connection).await?;
    let granted = sqlx::query(GRANTED)
        .bind(key.as_str())
        .bind(datacenter(site.datacenter))
        .fetch_all(&mut *connection)
        .await?;
    let left = sqlx::query(LEFT)
        .bind(key.as_str())
        .bind(datacenter(site.datacenter))
        .fetch_all(&mut *connection)
        .await?;
    let drawn = sqlx::query(DRAWN).bind(key.as_str()).fetch_all(&mut *connection).await?;
    let returned = sqlx::query(RETURNED).bind(key.as_str()).fetch_all(connection).await?;
    let mut lots: BTreeMap<String, Lot> = BTreeMap::new();
    for row in &granted {
        let (lot, range) = (lot(&mut lots, row)?, range(row)?);
        match row.try_get("state")? {
            "open" => lot.held.push((row.try_get::<i32, _>("datacenter")?.unsigned_abs(), range)),
            _ => lot.elsewhere.push(range),
        }
    }
    for row in &left {
        let since = unsigned(row, "since_ms")?;
        lot(&mut lots, row)?.left.push((range(row)?, since));
    }
    for row in &drawn {
        lot(&mut lots, row)?.drawn.push(range(row)?);
    }
    for row in &returned {
        let since = unsigned(row, "since_ms")?;
        lot(&mut lots, row)?.returned.push((range(row)?, since));
    }
    Ok(lots.into_values().collect())
}

fn lot<'a>(lots: &'a mut BTreeMap<String, Lot>, row: &PgRow) -> Result<&'a mut Lot, Failure> {
    let period: &str = row.try_get("period")?;
    let begin = || Lot {
        period: Period::new(period),
        elsewhere: Vec::new(),
        held: Vec::new(),
        left: Vec::new(),
        drawn: Vec::new(),
        returned: Vec::new(),
    };
    Ok(lots.entry(period.to_owned()).or_insert_with(begin))
}

/// Lists what was drawn for once and is nobody's.
pub(super) async fn give_back(
    connection: &mut PgConnection,
    &(counter, values): &(&Counter, &[ValueRange]),
) -> Result<(), Failure> {
    for range in values {
        sqlx::query(RETURN)
            .bind(counter.key.as_str())
            .bind(counter.period.as_str())
            .bind(Whole::from(range.from))
            .bind(Whole::from(range.to))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
