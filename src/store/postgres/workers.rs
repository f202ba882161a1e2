//! Worker windows on PostgreSQL: the pure `protocol/window`, on rows that a transaction has locked, over PostgreSQL's clock.
//!
//! A renewal in a settled memory touches one slot, and locks that alone: nodes do not wait for each other once a second. Everything
//! else (ACQUIRE, and whatever happens while the memory settles or turns out to be another) locks the marker of the data centre
//! first, and then the slots in order.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    PostgresStore,
    failure::Failure,
    layouts,
    memory::fresh,
    values::{Whole, signed, unsigned},
};
use crate::{
    clock::UnixMillis,
    store::{
        AcquireRequest, Acquired, Extension, Generation, Holding, IdMillis, Nonce, Renewed, StoreError,
        StoreFuture, Tenure, WorkerStore,
        protocol::window::{Company, Contact, Marker, Phase, ServerId, Slot, Slots, Terms, Word},
    },
};

const TERMS: Terms = Terms::SHARED;

/// How long a call may take: its answer is of no use later.
const DEADLINE: Duration = Duration::from_millis(TERMS.stale_ms);

const BEGIN: &str = "INSERT INTO numgen_worker_memory (datacenter) VALUES ($1) ON CONFLICT DO NOTHING";
const MARKER: &str = "
    SELECT generation, server, since, settled, numgen_server() AS here FROM numgen_worker_memory WHERE datacenter = $1";
const LOCK_MARKER: &str = "
    SELECT generation, server, since, settled, numgen_server() AS here FROM numgen_worker_memory WHERE datacenter = $1
    FOR UPDATE";
const WRITE_MARKER: &str = "
    UPDATE numgen_worker_memory SET generation = $2, server = $3, since = $4, settled = $5 WHERE datacenter = $1";
const LOCK_SLOTS: &str = "
    SELECT slot, owner, fence, start, mark, expires, generation, hearsay, fixed FROM numgen_worker_slots
    WHERE datacenter = $1 AND (slot = $2 OR $2 IS NULL) ORDER BY slot FOR UPDATE";
const SLOTS: &str = "
    SELECT slot, owner, fence, start, mark, expires, generation, hearsay, fixed FROM numgen_worker_slots WHERE datacenter = $1";
const WRITE_SLOT: &str = "
    INSERT INTO numgen_worker_slots (datacenter, slot, owner, fence, start, mark, expires, generation, hearsay, fixed)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    ON CONFLICT (datacenter, slot) DO UPDATE
    SET owner = excluded.owner, fence = excluded.fence, start = excluded.start, mark = excluded.mark,
        expires = excluded.expires, generation = excluded.generation, hearsay = excluded.hearsay, fixed = excluded.fixed";
/// Asked once every row is locked: the time that passed while waiting counts.
const NOW: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms";

/// The worker slots of one data centre.
#[derive(Clone, Debug)]
pub struct Workers {
    store: PostgresStore,
    site: Site,
}

/// Whose slots, and where ID timestamps begin.
#[derive(Clone, Copy, Debug)]
struct Site {
    datacenter: i32,
    epoch: UnixMillis,
}

/// What a step needs of the slots.
#[derive(Clone, Copy, Debug)]
enum Scope {
    /// All of them.
    All,
    /// One, by a holding of this generation.
    One(u32, Generation),
}

impl PostgresStore {
    /// The worker slots of a data centre, with ID timestamps since `epoch`.
    pub fn workers(&self, datacenter: u32, epoch: UnixMillis) -> Workers {
        let datacenter = i32::try_from(datacenter).unwrap_or(i32::MAX);
        Workers { store: self.clone(), site: Site { datacenter, epoch } }
    }
}

impl WorkerStore for Workers {
    fn pin_layout<'a>(&'a self, layout: &'a str) -> StoreFuture<'a, String> {
        Box::pin(async move {
            let pin = (self.site.datacenter, layout);
            self.store
                .transact_within(DEADLINE, "pin_layout", &pin, |connection, pin| {
                    Box::pin(layouts::pin(connection, pin))
                })
                .await
        })
    }

    fn acquire(&self, request: AcquireRequest) -> StoreFuture<'_, Acquired> {
        Box::pin(async move {
            let step = move |slots: &mut Slots, at: &Contact| slots.acquire(&TERMS, &request, at);
            self.change("acquire_worker", Scope::All, step).await
        })
    }

    fn renew(&self, holding: Holding, extension: Extension) -> StoreFuture<'_, Renewed> {
        Box::pin(async move {
            let scope = Scope::One(holding.slot, holding.generation);
            let step = move |slots: &mut Slots, at: &Contact| slots.renew(&TERMS, &holding, &extension, at);
            self.change("renew_worker", scope, step).await
        })
    }

    fn free_slots(&self, slots: Range<u32>) -> StoreFuture<'_, Option<u32>> {
        Box::pin(async move {
            let arguments = (self.site, slots);
            let free = self.store.transact_within(
                DEADLINE,
                "free_workers",
                &arguments,
                |connection, (site, slots)| Box::pin(free(connection, *site, slots.clone())),
            );
            free.await.map(Some)
        })
    }

    fn release(&self, holding: Holding, last: IdMillis) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let scope = Scope::One(holding.slot, holding.generation);
            let step = move |slots: &mut Slots, at: &Contact| slots.release(&TERMS, &holding, last, at);
            self.change("release_worker", scope, step).await
        })
    }
}

impl Workers {
    async fn change<T: Send + 'static>(
        &self,
        operation: &'static str,
        scope: Scope,
        step: impl Fn(&mut Slots, &Contact) -> T + Send + Sync,
    ) -> Result<T, StoreError> {
        let arguments = (self.site, scope, step);
        self.store
            .transact_within(DEADLINE, operation, &arguments, |connection, (site, scope, step)| {
                Box::pin(change(connection, *site, *scope, step))
            })
            .await
    }
}

/// Runs one step of the protocol on the slots as they are, and writes down what it changed.
async fn change<T>(
    connection: &mut PgConnection,
    site: Site,
    scope: Scope,
    step: &(impl Fn(&mut Slots, &Contact) -> T + Send + Sync),
) -> Result<T, Failure> {
    let seen = look(connection, site, scope).await?;
    let before = lock_slots(connection, site, scope).await?;
    let now = time(connection, site).await?;
    let contact =
        Contact { now, presence_ms: now, server: seen.here, company: Company::Alone, fresh: fresh()? };
    let mut after = Slots { marker: seen.marker, slots: before.clone(), followed: None };
    let answer = step(&mut after, &contact);
    if let Some(marker) = after.marker.filter(|marker| seen.marker != Some(*marker)) {
        write_marker(connection, site, marker).await?;
    }
    for (&id, slot) in after.slots.iter().filter(|(id, slot)| before.get(id) != Some(slot)) {
        write_slot(connection, site, id, slot).await?;
    }
    Ok(answer)
}

/// Counts free slots as they were a moment ago: nothing is locked.
async fn free(connection: &mut PgConnection, site: Site, slots: Range<u32>) -> Result<u32, Failure> {
    let marker = sqlx::query(MARKER).bind(site.datacenter).fetch_optional(&mut *connection).await?;
    let Some(seen) = marker.as_ref().map(seen).transpose()? else { return Ok(0) };
    let rows = sqlx::query(SLOTS).bind(site.datacenter).fetch_all(&mut *connection).await?;
    let known = rows.iter().map(slot).collect::<Result<_, _>>()?;
    let now = time(connection, site).await?;
    let contact =
        Contact { now, presence_ms: now, server: seen.here, company: Company::Alone, fresh: fresh()? };
    let free = Slots { marker: seen.marker, slots: known, followed: None }.free(&TERMS, slots, &contact);
    Ok(u32::try_from(free).unwrap_or(u32::MAX))
}

/// Who holds a slot as it is now, alive or not yet past its mark: nothing is locked.
pub(super) async fn holder(
    connection: &mut PgConnection,
    datacenter: i32,
    slot: u32,
    epoch: UnixMillis,
) -> Result<Option<Nonce>, Failure> {
    const HOLDER: &str = "SELECT owner FROM numgen_worker_slots WHERE datacenter = $1 AND slot = $2 AND greatest(expires, mark) > $3";
    let now = time(connection, Site { datacenter, epoch }).await?;
    let query = sqlx::query(HOLDER).bind(datacenter).bind(i32::try_from(slot).unwrap_or(-1));
    let row = query.bind(signed(now)).fetch_optional(connection).await?;
    let owner = row.map(|row| row.try_get::<Option<[u8; 16]>, _>("owner")).transpose()?;
    Ok(owner.flatten().map(Nonce))
}

/// The time of the database, since the epoch of IDs.
async fn time(connection: &mut PgConnection, site: Site) -> Result<IdMillis, Failure> {
    let now_ms: i64 = sqlx::query(NOW).fetch_one(connection).await?.try_get("now_ms")?;
    Ok(u64::try_from(now_ms.saturating_sub(site.epoch.0)).unwrap_or(0))
}

/// What was found of the memory, and which server this is.
struct Seen {
    marker: Option<Marker>,
    here: ServerId,
}

/// Reads the marker; locks it, unless the step leaves it alone for certain: a settled memory stays as it is until the server is
/// another one, which ends this transaction too.
async fn look(connection: &mut PgConnection, site: Site, scope: Scope) -> Result<Seen, Failure> {
    if let Scope::One(_, generation) = scope
        && let Some(row) = sqlx::query(MARKER).bind(site.datacenter).fetch_optional(&mut *connection).await?
    {
        let seen = seen(&row)?;
        let is_at_rest = |marker: &Marker| {
            (marker.server, marker.phase, marker.generation) == (seen.here, Phase::Settled, generation)
        };
        if seen.marker.as_ref().is_some_and(is_at_rest) {
            return Ok(seen);
        }
    }
    sqlx::query(BEGIN).bind(site.datacenter).execute(&mut *connection).await?;
    seen(&sqlx::query(LOCK_MARKER).bind(site.datacenter).fetch_one(connection).await?)
}

fn seen(row: &PgRow) -> Result<Seen, Failure> {
    let here = ServerId(row.try_get::<i64, _>("here")?.cast_unsigned());
    let Some(generation) = row.try_get::<Option<Whole>, _>("generation")? else {
        return Ok(Seen { marker: None, here });
    };
    let marker = Marker {
        generation: Generation(generation.0),
        server: ServerId(row.try_get::<i64, _>("server")?.cast_unsigned()),
        since: unsigned(row, "since")?,
        phase: if row.try_get("settled")? { Phase::Settled } else { Phase::Settling },
    };
    Ok(Seen { marker: Some(marker), here })
}

async fn lock_slots(
    connection: &mut PgConnection,
    site: Site,
    scope: Scope,
) -> Result<BTreeMap<u32, Slot>, Failure> {
    let only = match scope {
        Scope::All => None,
        // A slot that no column holds is held by nobody.
        Scope::One(slot, _) => Some(i32::try_from(slot).unwrap_or(-1)),
    };
    let rows = sqlx::query(LOCK_SLOTS).bind(site.datacenter).bind(only).fetch_all(connection).await?;
    rows.iter().map(slot).collect()
}

fn slot(row: &PgRow) -> Result<(u32, Slot), Failure> {
    let id =
        u32::try_from(row.try_get::<i32, _>("slot")?).map_err(|_| Failure::corrupt("a negative slot"))?;
    let slot = Slot {
        owner: row.try_get::<Option<[u8; 16]>, _>("owner")?.map(Nonce),
        fence: unsigned(row, "fence")?,
        start: unsigned(row, "start")?,
        mark: unsigned(row, "mark")?,
        expires_ms: unsigned(row, "expires")?,
        generation: Generation(row.try_get::<Whole, _>("generation")?.0),
        word: if row.try_get("hearsay")? { Word::Hearsay } else { Word::Own },
        tenure: if row.try_get("fixed")? { Tenure::Fixed } else { Tenure::Lease },
    };
    Ok((id, slot))
}

async fn write_marker(connection: &mut PgConnection, site: Site, marker: Marker) -> Result<(), Failure> {
    sqlx::query(WRITE_MARKER)
        .bind(site.datacenter)
        .bind(Whole(marker.generation.0))
        .bind(marker.server.0.cast_signed())
        .bind(signed(marker.since))
        .bind(marker.phase == Phase::Settled)
        .execute(connection)
        .await?;
    Ok(())
}

async fn write_slot(connection: &mut PgConnection, site: Site, id: u32, slot: &Slot) -> Result<(), Failure> {
    sqlx::query(WRITE_SLOT)
        .bind(site.datacenter)
        .bind(i32::try_from(id).map_err(|_| Failure::corrupt("a slot above any layout"))?)
        .bind(slot.owner.map(|nonce| nonce.0))
        .bind(signed(slot.fence))
        .bind(signed(slot.start))
        .bind(signed(slot.mark))
        .bind(signed(slot.expires_ms))
        .bind(Whole(slot.generation.0))
        .bind(slot.word == Word::Hearsay)
        .bind(slot.tenure == Tenure::Fixed)
        .execute(connection)
        .await?;
    Ok(())
}
