//! Worker slots of one process. The lock on the directory proves that the holders of earlier processes are gone, so their slots
//! are free at the start; within the process, a holder that stopped renewing is told by the monotonic clock, so that a step
//! of the wall clock never locks a slot.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{
    SqliteStore,
    failure::Failure,
    values::{signed, unsigned},
    workspace::{Workspace, collect},
};
use crate::store::{
    AcquireRequest, Acquired, Extension, Generation, Holding, IdMillis, Nonce, Renewed, StoreFuture,
    WorkerStore,
    protocol::window::{Company, Contact, ServerId, Slot, Slots, Terms},
};

const LAYOUT: &str = "layout";

const TERMS: Terms = Terms::EXCLUSIVE;

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
        self.write("acquire", move |workspace| {
            let now = workspace.id_now();
            change(workspace, now, |slots, contact| slots.acquire(&TERMS, &request, contact))
        })
    }

    fn renew(&self, holding: Holding, extension: Extension) -> StoreFuture<'_, Renewed> {
        self.write("renew", move |workspace| {
            // This store's clock is its holder's own, and may have been set back by hours: the time that the holder has carried on
            // its monotonic clock is later then. Otherwise the window would not move until the clock has caught up.
            let now = workspace.id_now().max(extension.carried);
            change(workspace, now, |slots, contact| slots.renew(&TERMS, &holding, &extension, contact))
        })
    }

    fn release(&self, holding: Holding, last: IdMillis) -> StoreFuture<'_, ()> {
        self.write("release", move |workspace| {
            let now = workspace.id_now();
            change(workspace, now, |slots, contact| slots.release(&TERMS, &holding, last, contact))
        })
    }
}

/// Runs one step of the protocol on the slots as they are, and writes down what it changed.
fn change<T>(
    workspace: &mut Workspace,
    now: IdMillis,
    step: impl FnOnce(&mut Slots, &Contact) -> T,
) -> Result<T, Failure> {
    let before = slots(workspace)?;
    let mut after = Slots { marker: None, slots: before.clone(), followed: None };
    let presence_ms = u64::try_from(workspace.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
    let contact = Contact {
        now,
        presence_ms,
        server: ServerId::default(),
        company: Company::Alone,
        fresh: Generation::default(),
    };
    let answer = step(&mut after, &contact);
    for (&id, slot) in &after.slots {
        workspace.lapses.insert(id, slot.expires_ms);
        let known = before.get(&id).map(|known| Slot { expires_ms: slot.expires_ms, ..*known });
        // Whether its holder is alive is nothing that outlives the process.
        if known != Some(*slot) {
            write(workspace, id, slot)?;
        }
    }
    Ok(answer)
}

/// Every slot that was ever held: a handful. Holders of earlier processes are gone.
fn slots(workspace: &Workspace) -> Result<BTreeMap<u32, Slot>, Failure> {
    const SLOTS: &str = "SELECT slot, nonce, fence, start_ms, mark_ms FROM worker_slots ORDER BY slot";
    let rows = collect(&workspace.connection, SLOTS, [], |row| {
        let id = row.get("slot")?;
        let slot = Slot {
            owner: row.get::<_, Option<[u8; 16]>>("nonce")?.map(Nonce),
            fence: unsigned(row, "fence")?,
            start: unsigned(row, "start_ms")?,
            mark: unsigned(row, "mark_ms")?,
            expires_ms: workspace.lapses.get(&id).copied().unwrap_or(0),
            ..Slot::default()
        };
        Ok((id, slot))
    })?;
    Ok(rows.into_iter().collect())
}

fn write(workspace: &Workspace, id: u32, slot: &Slot) -> Result<(), Failure> {
    const WRITE: &str = "INSERT OR REPLACE INTO worker_slots (slot, nonce, fence, start_ms, mark_ms)
        VALUES (?1, ?2, ?3, ?4, ?5)";
    let owner = slot.owner.map(|nonce| nonce.0);
    workspace
        .execute(WRITE, params![id, owner, signed(slot.fence), signed(slot.start), signed(slot.mark)])?;
    Ok(())
}
