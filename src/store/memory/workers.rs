//! Worker slots: the protocol itself, behind the mutex.

use std::sync::{Arc, PoisonError};

use super::{MemoryStore, State};
use crate::{
    clock::{Clock, UnixMillis},
    store::{
        AcquireRequest, Acquired, Extension, Generation, Holding, IdMillis, Renewed, StoreFuture,
        WorkerStore,
        protocol::window::{Company, Contact, Rest, ServerId, Slots, Terms},
    },
};

#[derive(Default)]
pub(super) struct Workers {
    slots: Slots,
    server: ServerId,
    memories: u64,
    layout: Option<String>,
}

impl MemoryStore {
    /// An empty store that leases worker slots as one does that several processes use and that may forget.
    pub fn shared(clock: Arc<dyn Clock>, epoch: UnixMillis) -> Self {
        Self { terms: Terms::SHARED, ..Self::new(clock, epoch) }
    }

    /// Forgets every worker slot, as a server does that starts again empty.
    pub fn forget_workers(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.workers.slots = Slots::default();
        state.workers.layout = None;
        state.workers.server.0 += 1;
    }

    /// Starts again with everything that it had.
    pub fn restart(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).workers.server.0 += 1;
    }

    /// What this store contributes to a call about worker slots.
    fn contact(&self, carried: IdMillis) -> impl Fn(&mut State) -> Contact + use<> {
        // As in SQLite: the clock of an exclusive store is its holder's own, and may have been set back.
        let now = match self.terms.rest {
            Rest::None => self.id_now().max(carried),
            Rest::UntilMarkHasPassed => self.id_now(),
        };
        let presence_ms = match self.terms.rest {
            Rest::None => u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX),
            Rest::UntilMarkHasPassed => now,
        };
        move |state| {
            state.workers.memories += 1;
            Contact {
                now,
                presence_ms,
                server: state.workers.server,
                company: Company::Alone,
                fresh: Generation(state.workers.memories),
            }
        }
    }
}

impl WorkerStore for MemoryStore {
    fn pin_layout<'a>(&'a self, layout: &'a str) -> StoreFuture<'a, String> {
        self.with(move |state| Ok(state.workers.layout.get_or_insert_with(|| layout.to_owned()).clone()))
    }

    fn acquire(&self, request: AcquireRequest) -> StoreFuture<'_, Acquired> {
        let contact = self.contact(0);
        self.with(move |state| {
            let contact = contact(state);
            Ok(state.workers.slots.acquire(&self.terms, &request, &contact))
        })
    }

    fn renew(&self, holding: Holding, extension: Extension) -> StoreFuture<'_, Renewed> {
        let contact = self.contact(extension.carried);
        self.with(move |state| {
            let contact = contact(state);
            Ok(state.workers.slots.renew(&self.terms, &holding, &extension, &contact))
        })
    }

    fn release(&self, holding: Holding, last: IdMillis) -> StoreFuture<'_, ()> {
        let contact = self.contact(0);
        self.with(move |state| {
            let contact = contact(state);
            state.workers.slots.release(&self.terms, &holding, last, &contact);
            Ok(())
        })
    }
}
