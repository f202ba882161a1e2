//! To which Redis a data centre ID belongs.
//!
//! Two Redis under one ID would not issue a number twice, since their generations differ; but they would end each other's grants
//! without end. So the ID is held for one of them, by its name, and freed some time after the last node behind it is gone.

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{super::failure::Failure, datacenter};

/// How long an ID is held after the last call, in ms.
const HELD_MS: i64 = 30_000;

/// Takes the ID if it is free, or already this one's; leaves it alone otherwise.
const HOLD: &str = "
    INSERT INTO numgen_datacenters AS known (datacenter, redis, name, expires_ms)
    SELECT $1, $2, $3, now_ms + $4 FROM (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms) AS clock
    ON CONFLICT (datacenter) DO UPDATE
    SET redis = excluded.redis, name = excluded.name, expires_ms = excluded.expires_ms
    WHERE known.redis = excluded.redis OR known.expires_ms <= excluded.expires_ms - $4";
const HELD: &str = "
    SELECT redis, name FROM numgen_datacenters
    WHERE datacenter = $1 AND expires_ms > floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
const HOLDER: &str = "SELECT redis, name FROM numgen_datacenters WHERE datacenter = $1";

/// A Redis that stands for a data centre.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// The name that it keeps.
    pub id: String,
    /// Where it is, for people.
    pub place: String,
}

/// The Redis that holds an ID.
pub(in crate::store::postgres) async fn holder(
    connection: &mut PgConnection,
    id: &u32,
) -> Result<Option<Redis>, Failure> {
    let row = sqlx::query(HELD).bind(datacenter(*id)).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &PgRow) -> Result<Redis, Failure> {
    Ok(Redis { id: row.try_get("redis")?, place: row.try_get("name")? })
}

/// Holds an ID for a Redis; answers which one has it.
pub(super) async fn hold(
    connection: &mut PgConnection,
    (id, redis): &(u32, &Redis),
) -> Result<Redis, Failure> {
    sqlx::query(HOLD)
        .bind(datacenter(*id))
        .bind(&redis.id)
        .bind(&redis.place)
        .bind(HELD_MS)
        .execute(&mut *connection)
        .await?;
    let row = sqlx::query(HOLDER).bind(datacenter(*id)).fetch_one(connection).await?;
    read(&row)
}
