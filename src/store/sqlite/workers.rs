//! Worker slots of one process. The lock on the directory proves that the holders of earlier processes are gone, so their slots
//! are free at the start; within the process, a holder that stopped renewing is told by the monotonic clock, so that a step
//! of the wall clock never locks a slot.

use std::time::Duration;

use rusqlite::params;

use super::{
    SqliteStore,
    failure::Failure,
    values::{signed, unsigned},
    workspace::{Workspace, collect},
};
use crate::store::{
    AcquireRequest, Acquired, Holding, IdMillis, Nonce, Renewed, StoreFuture, WorkerStore, window::Slot,
};

const LAYOUT: &str = "layout";

impl WorkerStore for SqliteStore {
    fn pin_layout<'a>(&'a self, layout: &'a str) -> StoreFuture<'a, String> {
        const PIN: &str = "INSERT INTO meta (name, value) VALUES (?1, ?2)";
        const PINNED: &str = "SELECT value FROM meta WHERE name = ?1";
        let layout = layout.to_owned();
        self.write("pin_layout", move |workspace| {
            if let Some(pinned) = workspace.find(PINNED, [LAYOUT], |row| Ok(row.get(0)?))? {
                return Ok(pinned);
            }
            workspace.execute(PIN, [LAYOUT, &layout])?;
            Ok(layout)
        })
    }

    fn acquire(&self, request: AcquireRequest) -> StoreFuture<'_, Acquired> {
        self.write("acquire", move |workspace| acquire(workspace, request))
    }

    fn renew(
        &self,
        holding: Holding,
        carried: IdMillis,
        window_ms: u64,
        ttl_ms: u64,
    ) -> StoreFuture<'_, Renewed> {
        self.write("renew", move |workspace| {
            // This store's clock is its holder's own, and may have been set back by hours: the time that the holder has carried on
            // its monotonic clock is later then. Otherwise the window would not move until the clock has caught up.
            let now = workspace.id_now().max(carried);
            let Some((_, mut slot)) = slots(workspace)?.into_iter().find(|(id, _)| *id == holding.slot)
            else {
                return Ok(Renewed::Lost);
            };
            let before = slot;
            let mark = slot.renew(&holding, now, carried, window_ms);
            if slot != before {
                write(workspace, holding.slot, &slot)?;
            }
            Ok(mark.map_or(Renewed::Lost, |mark| {
                hold(workspace, holding.slot, ttl_ms);
                Renewed::Extended { mark, now }
            }))
        })
    }

    fn release(&self, holding: Holding, last: IdMillis) -> StoreFuture<'_, ()> {
        self.write("release", move |workspace| {
            let slots = slots(workspace)?;
            if let Some((id, mut slot)) = slots.into_iter().find(|(id, _)| *id == holding.slot) {
                slot.release(&holding, last);
                write(workspace, id, &slot)?;
            }
            Ok(())
        })
    }
}

fn acquire(workspace: &mut Workspace, request: AcquireRequest) -> Result<Acquired, Failure> {
    let AcquireRequest { nonce, slots: mut wanted, window_ms, ttl_ms } = request;
    let now = workspace.id_now();
    let known = slots(workspace)?;
    // The same holding asked for again: its answer was lost.
    if let Some((id, slot)) = known.iter().find(|(_, slot)| slot.owner == Some(nonce)) {
        return Ok(Acquired::Held(slot.holding(*id, nonce, now)));
    }
    let find = |wanted: u32| known.iter().find(|(id, _)| *id == wanted).map(|(_, slot)| *slot);
    let monotonic = workspace.clock.monotonic();
    let is_gone = |id: &u32| workspace.lapses.get(id).is_none_or(|lapse| *lapse <= monotonic);
    let free = wanted.find(|id| find(*id).is_none_or(|slot| slot.owner.is_none() || is_gone(id)));
    let Some(id) = free else { return Ok(Acquired::NoSlot) };
    let mut slot = find(id).unwrap_or_default();
    slot.hand_to(nonce, now, window_ms);
    write(workspace, id, &slot)?;
    hold(workspace, id, ttl_ms);
    Ok(Acquired::Held(slot.holding(id, nonce, now)))
}

/// Counts the holder as present for `ttl_ms` from now.
fn hold(workspace: &mut Workspace, slot: u32, ttl_ms: u64) {
    let lapse = workspace.clock.monotonic().saturating_add(Duration::from_millis(ttl_ms));
    workspace.lapses.insert(slot, lapse);
}

/// Every slot that was ever held: a handful.
fn slots(workspace: &Workspace) -> Result<Vec<(u32, Slot)>, Failure> {
    const SLOTS: &str = "SELECT slot, nonce, fence, start_ms, mark_ms FROM worker_slots ORDER BY slot";
    collect(&workspace.connection, SLOTS, [], |row| {
        let slot = Slot {
            owner: row.get::<_, Option<[u8; 16]>>("nonce")?.map(Nonce),
            fence: unsigned(row, "fence")?,
            start: unsigned(row, "start_ms")?,
            mark: unsigned(row, "mark_ms")?,
        };
        Ok((row.get("slot")?, slot))
    })
}

fn write(workspace: &Workspace, id: u32, slot: &Slot) -> Result<(), Failure> {
    const WRITE: &str = "INSERT OR REPLACE INTO worker_slots (slot, nonce, fence, start_ms, mark_ms)
        VALUES (?1, ?2, ?3, ?4, ?5)";
    let owner = slot.owner.map(|nonce| nonce.0);
    workspace
        .execute(WRITE, params![id, owner, signed(slot.fence), signed(slot.start), signed(slot.mark)])?;
    Ok(())
}
