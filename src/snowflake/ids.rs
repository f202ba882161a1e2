//! The published side of a worker window: where the engine draws from, whoever keeps the window alive.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwapOption, Guard};

use super::{IdClock, Layout, Sequencer};
use crate::clock::{Clock, UnixMillis};

/// The IDs of this process: the sequencer of the window that is held now, if one is, and the time that goes into IDs.
#[derive(Debug)]
pub struct Ids {
    layout: Layout,
    clock: Arc<dyn Clock>,
    id_clock: IdClock,
    current: ArcSwapOption<Sequencer>,
    /// The worker ID held last: what `{worker}` shows in numbers that are not snowflakes.
    worker: AtomicU32,
}

impl Ids {
    /// No window yet; the time is `now` (milliseconds since the epoch).
    pub fn new(layout: Layout, now: u64, clock: Arc<dyn Clock>) -> Self {
        let id_clock = IdClock::new(now, clock.monotonic());
        Self { layout, clock, id_clock, current: ArcSwapOption::empty(), worker: AtomicU32::new(0) }
    }

    /// The sequencer to draw from, `None` while no window is held. No lock, no reference count.
    pub fn sequencer(&self) -> Guard<Option<Arc<Sequencer>>> {
        self.current.load()
    }

    /// The worker ID that is held, or was held last.
    pub fn worker(&self) -> u32 {
        self.worker.load(Ordering::Relaxed)
    }

    /// The time that goes into IDs, in milliseconds since the epoch.
    pub fn now(&self) -> u64 {
        self.id_clock.now(&*self.clock)
    }

    /// The same as a moment, where IDs begin at `epoch`: the clock of the store, which all nodes share. `None`: it is not known yet.
    pub fn moment(&self, epoch: UnixMillis) -> Option<UnixMillis> {
        self.id_clock.is_set().then(|| UnixMillis(epoch.0.saturating_add_unsigned(self.now())))
    }

    /// How long issuing could go on without another renewal.
    pub fn window_left(&self) -> Duration {
        let mark = self.current.load().as_ref().map_or(0, |sequencer| sequencer.mark());
        Duration::from_millis(mark.saturating_sub(self.now()))
    }

    /// How long until the time bits of the layout run out.
    pub fn time_left(&self) -> Duration {
        Duration::from_millis(self.layout.max_timestamp().saturating_sub(self.now()))
    }

    /// Moves the time forward to `seen`, by at most `limit`.
    pub fn learn(&self, seen: u64, limit: Duration) {
        self.id_clock.learn(seen, limit, &*self.clock);
    }

    /// Issues from this window from now on; the one before was closed.
    pub fn publish(&self, sequencer: Sequencer) {
        self.worker.store(sequencer.worker(), Ordering::Relaxed);
        self.current.store(Some(Arc::new(sequencer)));
    }

    /// Issues nothing from now on; answers the highest timestamp that was issued from the window, if one was held.
    pub fn close(&self) -> Option<u64> {
        self.current.swap(None).map(|sequencer| sequencer.close())
    }
}
