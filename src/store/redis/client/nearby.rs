//! More connections of a link, each on a runtime that calls.
//!
//! A call that another thread has to send costs two wake-ups and two turns of the scheduler, twice what Redis needs for it. So a
//! runtime that calls gets a connection of its own; until that is there, and where there can be none, calls go over the link's.
//!
//! Invariants: nobody waits for one to be opened; all lead to the same process of the server, whoever else answers
//! at that address; they share the fate of their link: when one breaks, all of them are broken.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{AsyncConnectionConfig, ProtocolVersion, aio::MultiplexedConnection};
use tokio::{
    runtime::{Handle, Id},
    time::{sleep, timeout},
};

use super::{
    info::Info,
    link::{Access, CONNECT_TIMEOUT, Fate, drive, look},
};
use crate::config::Address;

/// After how long a runtime tries again for which there was no connection.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// The connections of one link, but for its own.
pub(super) struct Nearby {
    access: Access,
    address: Address,
    protocol: ProtocolVersion,
    /// Which process of the server the link leads to.
    run_id: Option<String>,
    fate: Arc<Fate>,
    /// One for each runtime that has called; none while it is being opened.
    connections: Mutex<Vec<(Id, Option<MultiplexedConnection>)>>,
}

impl Nearby {
    pub(super) fn new(
        access: Access,
        address: Address,
        protocol: ProtocolVersion,
        info: &Info,
        fate: &Arc<Fate>,
    ) -> Arc<Self> {
        let run_id = info.get("run_id").map(str::to_owned);
        let (fate, connections) = (Arc::clone(fate), Mutex::default());
        Arc::new(Self { access, address, protocol, run_id, fate, connections })
    }

    /// The connection on the runtime of the caller; the first call begins to open it.
    pub(super) fn here(self: &Arc<Self>) -> Option<MultiplexedConnection> {
        let runtime = Handle::try_current().ok()?;
        if runtime.id() == self.access.runtime.id() {
            return None;
        }
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, connection)) = connections.iter().find(|(id, _)| *id == runtime.id()) {
            return connection.clone();
        }
        connections.push((runtime.id(), None));
        self.access.lifecycle.spawn_on(&runtime, Arc::clone(self).open(runtime.clone()));
        None
    }

    async fn open(self: Arc<Self>, runtime: Handle) {
        let opened = timeout(CONNECT_TIMEOUT, self.connect(&runtime)).await.ok().flatten();
        let found = opened.is_some();
        self.note(runtime.id(), opened);
        if !found && !self.fate.is_sealed() {
            sleep(TRY_AGAIN).await;
            let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            connections.retain(|(id, _)| *id != runtime.id());
        }
    }

    /// None where another server answers than the one that the link leads to.
    async fn connect(&self, runtime: &Handle) -> Option<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new();
        let (mut connection, mut driver) =
            self.access.log_in(&self.address, self.protocol, config).await.ok()?;
        let info = tokio::select! {
            () = &mut driver => return None,
            info = look(&mut connection) => info.ok()?,
        };
        if info.get("run_id") != self.run_id.as_deref() {
            return None;
        }
        // From here on the link depends on it.
        let moving =
            drive(driver, connection.clone(), self.address.clone(), &self.fate, &self.access.lifecycle);
        self.access.lifecycle.spawn_on(runtime, moving);
        Some(connection)
    }

    fn note(&self, runtime: Id, opened: Option<MultiplexedConnection>) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, connection)) = connections.iter_mut().find(|(id, _)| *id == runtime) {
            *connection = opened;
        }
    }
}
