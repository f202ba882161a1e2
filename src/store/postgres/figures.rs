//! What operators see of the database in figures: looked up now and then, without a lock.

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Row};

use super::{PostgresStore, failure::Failure};
use crate::{
    clock::UnixMillis,
    store::{Reservations, StoreError},
};

/// Connections of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Open, and used by nobody.
    pub idle: u32,
    /// In use.
    pub busy: u32,
}

impl PostgresStore {
    /// The connections of the pool; the one that listens is none of them.
    pub fn connections(&self) -> Connections {
        let open = self.shared.pool.size();
        let idle = u32::try_from(self.shared.pool.num_idle()).unwrap_or(u32::MAX).min(open);
        Connections { idle, busy: open - idle }
    }

    /// See [`crate::store::LedgerStore::reservations`].
    pub(super) async fn open_reservations(&self) -> Result<Reservations, StoreError> {
        self.transact("reservations", &(), reservations).await
    }
}

fn reservations<'c>(
    connection: &'c mut PgConnection,
    (): &'c (),
) -> BoxFuture<'c, Result<Reservations, Failure>> {
    // The condition lets the index of reservations serve it.
    const OPEN: &str =
        "SELECT count(*) AS open, min(issued_at_ms) AS oldest FROM numgen_ledger WHERE state = 'reserved'";
    Box::pin(async move {
        let row = sqlx::query(OPEN).fetch_one(connection).await?;
        let oldest: Option<i64> = row.try_get("oldest")?;
        Ok(Reservations {
            open: row.try_get::<i64, _>("open")?.unsigned_abs(),
            oldest: oldest.map(UnixMillis),
        })
    })
}
