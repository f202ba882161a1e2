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
    store::{AcquireRequest, Acquired, Extension, Holding, Nonce, Renewed, StoreError, WorkerStore},
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
    /// The store has just begun, or may have forgotten who holds what.
    #[error("the store waits another {0:?} for workers to come forward")]
    Settling(Duration),
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
        let extension = Extension { carried: self.ids.now(), window_ms: millis(window), ttl_ms: millis(ttl) };
        let renewed = self.store.renew(holding, extension).await?;
        if let Renewed::Extended { mark, now, generation } = renewed {
            if let Some(sequencer) = &*self.ids.sequencer() {
                sequencer.extend(mark);
            }
            self.ids.learn(now, FOLLOW);
            self.hold(Some(Holding { mark, generation, ..holding }));
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
        Acquired::Wait(wait) => Err(AcquireError::Settling(wait)),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{ManualClock, UnixMillis},
        store::memory::MemoryStore,
    };

    const EPOCH: UnixMillis = UnixMillis(1_704_067_200_000);
    const START: UnixMillis = UnixMillis(1_800_000_000_000);

    struct Bench {
        clock: Arc<ManualClock>,
        store: Arc<MemoryStore>,
    }

    impl Bench {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::at(START));
            let store = Arc::new(MemoryStore::new(clock.clone(), EPOCH));
            Self { clock, store }
        }

        async fn worker(&self) -> Result<Worker, AcquireError> {
            let settings = Settings {
                layout: Layout::DEFAULT,
                datacenter: 0,
                slots: 0..1,
                window: Duration::from_secs(1),
                renew_every: Duration::from_millis(500),
                ttl: Duration::from_secs(15),
                max_ahead: Duration::from_millis(50),
            };
            Worker::start(self.store.clone(), settings, self.clock.clone()).await
        }
    }

    /// The timestamp of one ID, or `None` where the window gives none.
    fn issue(worker: &Worker) -> Option<u64> {
        let ids = worker.ids();
        let mut drawn = crate::counter::Ranges::new();
        let sequencer = ids.sequencer();
        let sequencer = sequencer.as_deref()?;
        sequencer.ids(&sequencer.draw(ids.now(), 1).ok()?, &mut drawn);
        Layout::DEFAULT.parts(drawn.last()?.0).map(|parts| parts.timestamp)
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_that_is_renewed_goes_on_and_one_that_is_not_ends() {
        let bench = Bench::new();
        let worker = bench.worker().await.expect("a window");
        for _ in 0..10 {
            bench.clock.advance(Duration::from_millis(500));
            worker.renew_or_acquire().await.expect("renewed");
            assert!(issue(&worker).is_some());
        }
        bench.clock.advance(Duration::from_millis(1_500));
        assert_eq!(issue(&worker), None, "nobody renewed");
        assert_eq!(worker.ids().window_left(), Duration::ZERO);
        worker.renew_or_acquire().await.expect("another window");
        assert!(issue(&worker).is_some(), "a process that was stopped for a while goes on by itself");
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_after_the_clock_was_set_back_issues_at_once_and_above() {
        let bench = Bench::new();
        let before = bench.worker().await.expect("a window");
        let last = issue(&before).expect("issued");
        before.release().await.expect("released");
        assert_eq!(issue(&before), None, "given back");

        bench.clock.step_to(UnixMillis(START.0 - 3_600_000));
        let after = bench.worker().await.expect("a window");
        assert!(issue(&after).expect("at once") > last);
        for _ in 0..10 {
            bench.clock.advance(Duration::from_millis(400));
            after.renew_or_acquire().await.expect("renewed");
            assert!(issue(&after).expect("and on, an hour ahead of the clock") > last);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_slot_has_one_holder() {
        let bench = Bench::new();
        let _holder = bench.worker().await.expect("a window");
        assert!(matches!(bench.worker().await, Err(AcquireError::NoSlot(slots)) if slots == (0..1)));
    }
}
