//! The published side of a worker window: where the engine draws from, whoever keeps the window alive.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwapOption, Guard};

use super::{IdClock, Layout, Sequencer, generator::millis};
use crate::clock::{Clock, UnixMillis};

/// The IDs of this process: the sequencer of the window that is held now, if one is, and the time that goes into IDs.
#[derive(Debug)]
pub struct Ids {
    layout: Layout,
    clock: Arc<dyn Clock>,
    id_clock: IdClock,
    /// Milliseconds to add to the monotonic clock for the store's clock as it was last heard of; 0: it was not. Unlike the time of IDs
    /// it is never ahead, and may fall.
    store_offset_ms: AtomicU64,
    current: ArcSwapOption<Sequencer>,
    /// The worker ID held last: what `{worker}` shows in numbers that are not snowflakes.
    worker: AtomicU32,
}

impl Ids {
    /// No window yet; the time is `now` (milliseconds since the epoch).
    pub fn new(layout: Layout, now: u64, clock: Arc<dyn Clock>) -> Self {
        let id_clock = IdClock::new(now, clock.monotonic());
        Self {
            layout,
            clock,
            id_clock,
            store_offset_ms: AtomicU64::new(0),
            current: ArcSwapOption::empty(),
            worker: AtomicU32::new(0),
        }
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

    /// The store's clock, which all nodes share, carried forward; `epoch` is that of IDs. `None`: it was not heard of yet.
    pub fn store_time(&self, epoch: UnixMillis) -> Option<UnixMillis> {
        let offset_ms = self.store_offset_ms.load(Ordering::Relaxed);
        let now = offset_ms.saturating_add(millis(self.clock.monotonic()));
        (offset_ms > 0).then(|| UnixMillis(epoch.0.saturating_add_unsigned(now)))
    }

    /// Notes what the clock of the store shows, in milliseconds since the epoch.
    pub fn hear(&self, store_now: u64) {
        let offset_ms = store_now.saturating_sub(millis(self.clock.monotonic()));
        self.store_offset_ms.store(offset_ms, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn the_time_of_the_store_is_never_ahead_of_it() {
        let epoch = UnixMillis(1_700_000_000_000);
        let clock = Arc::new(ManualClock::at(epoch));
        let ids = Ids::new(Layout::DEFAULT, 0, clock.clone());
        // A window that begins where the one before it would have ended.
        ids.learn(600_000, Duration::MAX);
        assert_eq!(ids.store_time(epoch), None);
        ids.hear(10_000);
        clock.advance(Duration::from_millis(500));
        assert_eq!(ids.store_time(epoch), Some(UnixMillis(epoch.0 + 10_500)));
        ids.hear(9_000);
        assert_eq!(ids.store_time(epoch), Some(UnixMillis(epoch.0 + 9_000)), "it follows the store back");
        assert_eq!(ids.now(), 600_500);
    }
}
