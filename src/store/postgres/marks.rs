//! Confirms the marks of worker slots: the pure `protocol/window` claim, on a row that a transaction has locked, over PostgreSQL's clock.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Row};
use tokio::sync::watch;

use super::{
    PostgresStore,
    failure::Failure,
    grants::datacenter,
    layouts,
    values::{signed, unsigned},
};
use crate::{
    clock::UnixMillis,
    store::{
        Home, IdMillis, MarkClaim, MarkClaimed, MarkStore, Nonce, Reachable, StoreFuture,
        protocol::window::{Mark, Terms},
    },
};

/// How long a claim may take: with what comes before, its answer is of no use after a second.
const DEADLINE: Duration = Duration::from_millis(400);

/// A database that has served workers by itself knows their marks.
const BEGIN: &str = "
    INSERT INTO numgen_worker_marks (datacenter, slot, owner, start, mark)
    SELECT datacenter, slot, owner, start, mark FROM numgen_worker_slots WHERE datacenter = $1 AND slot = $2
    ON CONFLICT DO NOTHING";
const LOCK: &str = "
    SELECT owner, start, mark FROM numgen_worker_marks WHERE datacenter = $1 AND slot = $2 FOR UPDATE";
const WRITE: &str = "
    INSERT INTO numgen_worker_marks (datacenter, slot, owner, start, mark) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (datacenter, slot) DO UPDATE
    SET owner = excluded.owner, start = excluded.start, mark = excluded.mark";
/// Two who claim a slot that nobody has claimed before find no row to lock.
const ALONE: &str =
    "SELECT pg_advisory_xact_lock(hashtextextended('numgen_worker_marks', $1::bigint * 65536 + $2))";
const NOW: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms";

/// The marks of one data centre. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Marks {
    store: PostgresStore,
    datacenter: u32,
    epoch: UnixMillis,
    home: watch::Receiver<Home>,
}

impl Marks {
    /// Those of a data centre, with ID timestamps since `epoch`, as long as that is `home` to its Redis.
    pub fn new(
        store: PostgresStore,
        datacenter: u32,
        epoch: UnixMillis,
        home: watch::Receiver<Home>,
    ) -> Self {
        Self { store, datacenter, epoch, home }
    }
}

impl MarkStore for Marks {
    fn layout<'a>(&'a self, wanted: &'a str) -> StoreFuture<'a, Option<String>> {
        Box::pin(async move {
            let pin = (datacenter(self.datacenter), wanted);
            self.store
                .transact_within(DEADLINE, "layout", &pin, |connection, &(datacenter, wanted)| {
                    Box::pin(async move { Ok(layouts::recorded(connection, datacenter, wanted).await?) })
                })
                .await
        })
    }

    fn pin_layout<'a>(&'a self, wanted: &'a str) -> StoreFuture<'a, String> {
        Box::pin(async move {
            let pin = (datacenter(self.datacenter), wanted);
            self.store
                .transact_within(DEADLINE, "pin_layout", &pin, |connection, pin| {
                    Box::pin(layouts::pin(connection, pin))
                })
                .await
        })
    }

    fn claim(&self, claim: MarkClaim) -> StoreFuture<'_, MarkClaimed> {
        let ask = (self.datacenter, self.epoch, claim);
        Box::pin(async move {
            self.home.borrow().check("claim_mark")?;
            self.store.transact_within(DEADLINE, "claim_mark", &ask, confirm).await
        })
    }

    fn give_up(&self, slot: u32, nonce: Nonce, last: IdMillis) -> StoreFuture<'_, ()> {
        let ask = (self.datacenter, slot, nonce, last);
        Box::pin(async move { self.store.transact_within(DEADLINE, "give_up_mark", &ask, give_up).await })
    }

    fn is_reachable(&self) -> bool {
        *self.store.reachable().borrow() == Reachable::Yes
    }
}

fn confirm<'c>(
    connection: &'c mut PgConnection,
    (site, epoch, claim): &'c (u32, UnixMillis, MarkClaim),
) -> BoxFuture<'c, Result<MarkClaimed, Failure>> {
    Box::pin(async move {
        let mut known = lock(connection, *site, claim.slot).await?;
        let before = known;
        let now_ms: i64 = sqlx::query(NOW).fetch_one(&mut *connection).await?.try_get("now_ms")?;
        let now = u64::try_from(now_ms.saturating_sub(epoch.0)).unwrap_or(0);
        let claimed = Mark::claim(&mut known, &Terms::SHARED, claim, now);
        if let Some(mark) = known.filter(|mark| before != Some(*mark)) {
            write(connection, *site, claim.slot, &mark).await?;
        }
        Ok(claimed)
    })
}

fn give_up<'c>(
    connection: &'c mut PgConnection,
    &(site, slot, nonce, last): &'c (u32, u32, Nonce, IdMillis),
) -> BoxFuture<'c, Result<(), Failure>> {
    Box::pin(async move {
        let Some(mut mark) = lock(connection, site, slot).await? else { return Ok(()) };
        mark.give_up(&Terms::SHARED, nonce, last);
        write(connection, site, slot, &mark).await
    })
}

async fn lock(connection: &mut PgConnection, site: u32, slot: u32) -> Result<Option<Mark>, Failure> {
    let (site, slot) = (datacenter(site), number(slot)?);
    sqlx::query(ALONE).bind(site).bind(slot).execute(&mut *connection).await?;
    sqlx::query(BEGIN).bind(site).bind(slot).execute(&mut *connection).await?;
    let row = sqlx::query(LOCK).bind(site).bind(slot).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Mark {
        owner: row.try_get::<Option<[u8; 16]>, _>("owner")?.map(Nonce),
        start: unsigned(&row, "start")?,
        mark: unsigned(&row, "mark")?,
    }))
}

async fn write(connection: &mut PgConnection, site: u32, slot: u32, mark: &Mark) -> Result<(), Failure> {
    sqlx::query(WRITE)
        .bind(datacenter(site))
        .bind(number(slot)?)
        .bind(mark.owner.map(|nonce| nonce.0))
        .bind(signed(mark.start))
        .bind(signed(mark.mark))
        .execute(connection)
        .await?;
    Ok(())
}

fn number(slot: u32) -> Result<i32, Failure> {
    i32::try_from(slot).map_err(|_| Failure::corrupt("a slot above any layout"))
}
