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
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwapOption, Guard};

use crate::{
    clock::Clock,
    lifecycle::Lifecycle,
    snowflake::{IdClock, Layout, Sequencer},
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

/// A process's claim to a worker ID.
#[derive(Debug)]
pub struct Worker {
    settings: Settings,
    clock: Arc<dyn Clock>,
    id_clock: IdClock,
    current: ArcSwapOption<Sequencer>,
    /// The worker ID held last: what `{worker}` shows in numbers that are not snowflakes.
    id: AtomicU32,
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

impl Worker {
    /// Acquires a window and keeps renewing it until `lifecycle` drains; then call [`Worker::release`].
    ///
    /// # Errors
    ///
    /// [`AcquireError`] when there is no window to be had now.
    pub async fn start(
        store: Arc<dyn WorkerStore>,
        settings: Settings,
        clock: Arc<dyn Clock>,
        lifecycle: &Lifecycle,
    ) -> Result<(Arc<Self>, Holder), AcquireError> {
        let holding = acquire(&*store, &settings).await?;
        let id_clock = IdClock::new(holding.now.max(holding.start), clock.monotonic());
        let worker = Arc::new(Self { settings, clock, id_clock, current: ArcSwapOption::empty(), id: AtomicU32::new(holding.slot) });
        worker.publish(&holding);
        let holder = Holder { worker: Arc::clone(&worker), store, holding: Arc::new(std::sync::Mutex::new(Some(holding))) };
        lifecycle.spawn(holder.clone().keep(lifecycle.clone()));
        Ok((worker, holder))
    }

    /// The sequencer to draw from, `None` while no window is held. No lock, no reference count.
    pub fn sequencer(&self) -> Guard<Option<Arc<Sequencer>>> {
        self.current.load()
    }

    /// The worker ID that is held, or was held last.
    pub fn id(&self) -> u32 {
        self.id.load(Ordering::Relaxed)
    }

    /// The time that goes into IDs, in milliseconds since the epoch.
    pub fn now(&self) -> u64 {
        self.id_clock.now(&*self.clock)
    }

    /// How long issuing could go on without another renewal.
    pub fn window_left(&self) -> Duration {
        let mark = self.current.load().as_ref().map_or(0, |sequencer| sequencer.mark());
        Duration::from_millis(mark.saturating_sub(self.now()))
    }

    /// How long until the time bits of the layout run out.
    pub fn time_left(&self) -> Duration {
        Duration::from_millis(self.settings.layout.max_timestamp().saturating_sub(self.now()))
    }

    fn publish(&self, holding: &Holding) {
        let Settings { layout, datacenter, max_ahead, .. } = self.settings;
        let sequencer = Sequencer::new(layout, datacenter, holding.slot, holding.start, holding.mark, max_ahead);
        self.id.store(holding.slot, Ordering::Relaxed);
        self.current.store(Some(Arc::new(sequencer)));
    }
}

/// The side of a worker that talks to the store.
#[derive(Clone)]
pub struct Holder {
    worker: Arc<Worker>,
    store: Arc<dyn WorkerStore>,
    holding: Arc<std::sync::Mutex<Option<Holding>>>,
}

impl Holder {
    /// Renews until the drain begins. A store that fails is asked again; the window bridges the time.
    async fn keep(self, lifecycle: Lifecycle) {
        let mut ticks = tokio::time::interval(self.worker.settings.renew_every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = lifecycle.draining() => return,
                _ = ticks.tick() => {
                    if let Err(error) = self.renew_or_acquire().await {
                        tracing::warn!(error = &error as &dyn std::error::Error, "worker window not renewed");
                    }
                }
            }
        }
    }

    /// One round: extends the window, or takes another holding where the old one is lost.
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
                    self.close();
                    self.hold(None);
                }
            }
        }
        let holding = acquire(&*self.store, &self.worker.settings).await?;
        self.worker.id_clock.learn(holding.now.max(holding.start), Duration::MAX, &*self.worker.clock);
        self.worker.publish(&holding);
        self.hold(Some(holding));
        Ok(())
    }

    async fn renew(&self, holding: Holding) -> Result<Renewed, StoreError> {
        let Settings { window, ttl, .. } = self.worker.settings;
        let renewed = self.store.renew(holding, self.worker.now(), millis(window), millis(ttl)).await?;
        if let Renewed::Extended { mark, now } = renewed {
            if let Some(sequencer) = &*self.worker.current.load() {
                sequencer.extend(mark);
            }
            self.worker.id_clock.learn(now, FOLLOW, &*self.worker.clock);
            self.hold(Some(Holding { mark, ..holding }));
        }
        Ok(renewed)
    }

    /// Stops issuing and gives the window back, so that the slot is free at once. Call after the last request was served.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the slot then rests until real time has passed its mark; no harm is done.
    pub async fn release(&self) -> Result<(), StoreError> {
        let last = self.close();
        match self.held() {
            Some(holding) => {
                self.hold(None);
                self.store.release(holding, last.unwrap_or(holding.start)).await
            }
            None => Ok(()),
        }
    }

    /// Closes the sequencer; answers the highest timestamp that was issued from it.
    fn close(&self) -> Option<u64> {
        self.worker.current.swap(None).map(|sequencer| sequencer.close())
    }

    fn held(&self) -> Option<Holding> {
        *self.holding.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn hold(&self, holding: Option<Holding>) {
        *self.holding.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = holding;
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
