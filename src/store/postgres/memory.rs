//! Whether the database may have forgotten something.
//!
//! PostgreSQL forgets nothing by itself; but a standby is promoted that lacked the last moments, or a backup is restored. Then
//! `numgen_server()` differs from what it was when the generation was written, and another generation begins.

use std::time::Duration;

use sqlx::{PgConnection, Row};

use super::{failure::Failure, values::Whole};
use crate::store::{Generation, StoreError};

/// How long nodes have to write back what a database may have forgotten, before its emptiness is believed.
const SETTLING_MS: i64 = 5_000;

const PRESENT: &str = "
    SELECT generation, server = numgen_server() AS same,
           floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint - since_ms AS age_ms
    FROM numgen_memory";

/// Somebody else may begin the same generation at the same moment: then theirs is the one, which the next look finds.
const BEGIN: &str = "
    INSERT INTO numgen_memory AS known (generation, server, since_ms)
    VALUES ($1, numgen_server(), floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
    ON CONFLICT (singleton) DO UPDATE
    SET generation = excluded.generation, server = excluded.server, since_ms = excluded.since_ms
    WHERE known.server <> excluded.server";

/// What a call finds of the memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Its name.
    pub(super) generation: Generation,
    /// What is left of the settling.
    pub(super) settling: Option<Duration>,
}

/// The memory as it stands: begun where there is none, or where the server is another.
pub(super) async fn observe(connection: &mut PgConnection) -> Result<Memory, Failure> {
    loop {
        if let Some(row) = sqlx::query(PRESENT).fetch_optional(&mut *connection).await?
            && row.try_get("same")?
        {
            let generation = row.try_get::<Whole, _>("generation")?;
            // A clock that was set back says nothing: whatever settles has had its time on the other side.
            let left_ms = SETTLING_MS - row.try_get::<i64, _>("age_ms")?;
            let settling =
                u64::try_from(left_ms).ok().filter(|ms| (1..=SETTLING_MS.unsigned_abs()).contains(ms));
            return Ok(Memory {
                generation: Generation(generation.0),
                settling: settling.map(Duration::from_millis),
            });
        }
        sqlx::query(BEGIN).bind(Whole(fresh()?.0)).execute(&mut *connection).await?;
    }
}

/// A random name.
pub(super) fn fresh() -> Result<Generation, StoreError> {
    let mut bits = [0; 8];
    getrandom::fill(&mut bits).map_err(|source| StoreError::Unavailable {
        store: super::STORE,
        operation: "name_a_generation",
        source: Box::new(source),
    })?;
    Ok(Generation(u64::from_ne_bytes(bits)))
}
