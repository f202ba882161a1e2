//! Time as the tests measure it, also on a machine that others use.

use std::{
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use numgen::clock::{Clock, SystemClock};

/// Runs from its start on.
pub(crate) struct Stopwatch {
    clock: SystemClock,
    stood_still: Duration,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { clock: SystemClock::new(), stood_still: Doze::so_far() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.monotonic()
    }

    /// What of it this machine was awake, which is what a limit is for: while a hypervisor gives the processors to others, nobody
    /// can be in time, and nothing is learnt from it. On a machine of one's own this is what elapsed.
    pub(crate) fn awake(&self) -> Duration {
        let elapsed = self.elapsed();
        elapsed.saturating_sub(Doze::by_now().saturating_sub(self.stood_still))
    }

    /// Fails the test if more time has passed.
    #[track_caller]
    pub(crate) fn assert_within(&self, limit: Duration, what: &str) {
        let elapsed = self.elapsed();
        if elapsed >= limit {
            let awake = self.awake();
            assert!(
                awake < limit,
                "{what}: took {elapsed:?}, {awake:?} of it awake, and not less than {limit:?}"
            );
        }
    }

    /// Asks `done` until it says yes; fails the test after `limit`.
    #[track_caller]
    pub(crate) fn wait_until(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
        let watch = Self::start();
        while !done() {
            watch.assert_within(limit, what);
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A thread that does nothing but sleep, and how much later than it wanted to it was woken, in all: so long nobody was run.
struct Doze;

/// Naps that it has had, and what it overslept, in microseconds.
static NAPS: AtomicU64 = AtomicU64::new(0);
static OVERSLEPT_US: AtomicU64 = AtomicU64::new(0);

impl Doze {
    const NAP: Duration = Duration::from_millis(2);
    /// Less is what timers and the tests' own work cost on a machine left alone.
    const NOTICED: Duration = Duration::from_millis(5);

    fn so_far() -> Duration {
        static ASLEEP: Once = Once::new();
        ASLEEP.call_once(|| drop(thread::spawn(Self::sleep)));
        Duration::from_micros(OVERSLEPT_US.load(Ordering::Acquire))
    }

    /// The same with what it oversleeps just now.
    fn by_now() -> Duration {
        let naps = NAPS.load(Ordering::Acquire);
        while NAPS.load(Ordering::Acquire) == naps {
            thread::sleep(Duration::from_millis(1));
        }
        Self::so_far()
    }

    fn sleep() {
        loop {
            let nap = SystemClock::new();
            thread::sleep(Self::NAP);
            let late = nap.monotonic().saturating_sub(Self::NAP);
            if late >= Self::NOTICED {
                let late_us = u64::try_from(late.as_micros()).expect("below ages");
                OVERSLEPT_US.fetch_add(late_us, Ordering::Release);
            }
            NAPS.fetch_add(1, Ordering::Release);
        }
    }
}
