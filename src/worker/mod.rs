//! Holds a worker window: acquires it, renews it, publishes the sequencer that issues from it, gives it back.
//!
//! Invariants (`docs/protocols.md`, worker windows):
//!
//! 1. What is published was granted: a [`Sequencer`] never reaches beyond a mark that the store has answered.
//! 2. A holding that was lost or released is closed before another is asked for, under a new nonce; a late reply finds it
//!    closed and changes nothing.
//! 3. The time in IDs never falls: it starts at the store's clock or at the mark that was found, whichever is later, and
//!    runs on the monotonic clock.
//!
//! So a restart after the clock was set back issues at once, above everything that was issued before.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    clock::Clock,
    lifecycle::Lifecycle,
    snowflake::{Ids, Layout, Sequencer},
    store::{AcquireRequest, Acquired, Holding, Nonce, Renewed, StoreError, WorkerStore},
};

/// A store's clock is followed forward by at most this much a renewal; also the bound on how far a renewal may move a mark.
const FOLLOW: Duration = Duration::from_secs(5);

/// How a worker holds its window.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How IDs are divided.
    pub layout: Layout,
    /// The data centre ID.
    pub datacenter: u32,
    /// The worker IDs that it may take.
    pub slots: Range<u32>,
    /// How far a window reaches ahead of the store's clock.
    pub window: Duration,
    /// How often it is renewed; well below `window`.
    pub renew_every: Duration,
    /// How long until a worker that does not renew may be looked at as dead.
    pub ttl: Duration,
    /// How far a burst may run ahead of the clock.
    pub max_ahead: Duration,
}

/// Why there is no window.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// Somebody else holds every slot.
    #[error("every worker ID from {} to {} is taken", .0.start, .0.end.saturating_sub(1))]
    NoSlot(Range<u32>),
    /// The operating system gave no random bytes for the nonce.
    #[error("no random bytes from the operating system")]
    Random(#[source] getrandom::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A process's claim to a worker ID: keeps a window alive, publishes it in [`Ids`].
#[derive(Clone)]
pub struct Worker {
    settings: Settings,
    store: Arc<dyn WorkerStore>,
    ids: Arc<Ids>,
    holding: Arc<Mutex<Option<Holding>>>,
}

impl Worker {
    /// Acquires a window; call [`Worker::keep`] to keep it.
    ///
    /// # Errors
    ///
    /// [`AcquireError`] when there is no window to be had now.
    pub async fn start(
        store: Arc<dyn WorkerStore>,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AcquireError> {
        let holding = acquire(&*store, &settings).await?;
        let ids = Arc::new(Ids::new(settings.layout, holding.now.max(holding.start), clock));
        let worker = Self { settings, store, ids, holding: Arc::default() };
        worker.publish(holding);
        Ok(worker)
    }

    /// Where the engine draws from.
    pub fn ids(&self) -> &Arc<Ids> {
        &self.ids
    }

    /// Renews until the drain begins; then call [`Worker::release`]. A store that fails is asked again; the window bridges
    /// the time.
    pub async fn keep(self, lifecycle: Lifecycle) {
        let mut ticks = tokio::time::interval(self.settings.renew_every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = lifecycle.draining() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.renew_or_acquire().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "worker window not renewed");
            }
        }
    }

    /// One round: extends the window, or takes another where it is lost.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]; what is held stays held up to its mark.
    pub async fn renew_or_acquire(&self) -> Result<(), AcquireError> {
        if let Some(holding) = self.held() {
            match self.renew(holding).await? {
                Renewed::Extended { .. } => return Ok(()),
                Renewed::Lost => {
                    tracing::warn!(worker = holding.slot, "worker window lost, taking another");
                    self.ids.close();
                    self.hold(None);
                }
            }
        }
        let holding = acquire(&*self.store, &self.settings).await?;
        self.ids.learn(holding.now.max(holding.start), Duration::MAX);
        self.publish(holding);
        Ok(())
    }

    /// Stops issuing and gives the window back, so that the slot is free at once. Call after the last request was served.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the slot then rests until real time has passed its mark; no harm is done.
    pub async fn release(&self) -> Result<(), StoreError> {
        let last = self.ids.close();
        let Some(holding) = self.held() else { return Ok(()) };
        self.hold(None);
        self.store.release(holding, last.unwrap_or(holding.start)).await
    }

    async fn renew(&self, holding: Holding) -> Result<Renewed, StoreError> {
        let Settings { window, ttl, .. } = self.settings;
        let renewed = self.store.renew(holding, self.ids.now(), millis(window), millis(ttl)).await?;
        if let Renewed::Extended { mark, now } = renewed {
            if let Some(sequencer) = &*self.ids.sequencer() {
                sequencer.extend(mark);
            }
            self.ids.learn(now, FOLLOW);
            self.hold(Some(Holding { mark, ..holding }));
        }
        Ok(renewed)
    }

    fn publish(&self, holding: Holding) {
        let Settings { layout, datacenter, max_ahead, .. } = self.settings;
        let Holding { slot, start, mark, .. } = holding;
        self.hold(Some(holding));
        self.ids.publish(Sequencer::new(layout, datacenter, slot, start, mark, max_ahead));
    }

    fn held(&self) -> Option<Holding> {
        *self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, holding: Option<Holding>) {
        *self.holding.lock().unwrap_or_else(PoisonError::into_inner) = holding;
    }
}

async fn acquire(store: &dyn WorkerStore, settings: &Settings) -> Result<Holding, AcquireError> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(AcquireError::Random)?;
    let request = AcquireRequest {
        nonce: Nonce(nonce),
        slots: settings.slots.clone(),
        window_ms: millis(settings.window),
        ttl_ms: millis(settings.ttl),
    };
    match store.acquire(request).await? {
        Acquired::Held(holding) => Ok(holding),
        Acquired::NoSlot => Err(AcquireError::NoSlot(settings.slots.clone())),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
