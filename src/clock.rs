//! Time as a dependency: production reads the system, tests turn the hands.
//!
//! Nothing else in the crate calls `SystemTime::now` or `Instant::now` (`clippy.toml` sees to it). Wall time
//! is for dates, expiry and logs; uniqueness never rests on it. Durations are measured on the monotonic clock.

use std::{
    fmt,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use chrono::{DateTime, Utc};
use rustix::time::{ClockId, clock_gettime};

/// A moment of wall-clock time: milliseconds since 1970-01-01T00:00:00Z, negative before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// The same moment as a calendar time; clamped to the years that chrono can express.
    pub fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or(if self.0 < 0 {
            DateTime::<Utc>::MIN_UTC
        } else {
            DateTime::<Utc>::MAX_UTC
        })
    }

    /// The moment `duration` later, saturating.
    pub fn plus(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// RFC 3339 with milliseconds and `Z`: `2026-11-22T02:10:27.123Z`.
    pub fn to_rfc3339(self) -> String {
        self.to_utc().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
    }
}

impl From<DateTime<Utc>> for UnixMillis {
    fn from(moment: DateTime<Utc>) -> Self {
        Self(moment.timestamp_millis())
    }
}

/// Where the time comes from.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall clock, which may step either way.
    fn now(&self) -> UnixMillis;

    /// Time since an arbitrary fixed moment; never falls.
    fn monotonic(&self) -> Duration;

    /// The wall clock as of the kernel's last tick, at most 10 ms ago: enough for expiry, and a fraction of the cost of
    /// [`Clock::now`], which counts where every request asks.
    fn coarse_now(&self) -> UnixMillis {
        self.now()
    }

    /// [`Clock::monotonic`] as of the kernel's last tick, at most 10 ms ago; on a scale of its own.
    fn coarse_monotonic(&self) -> Duration {
        self.monotonic()
    }
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic reading begins at zero now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clocks")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clocks")]
    fn now(&self) -> UnixMillis {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        UnixMillis(match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => millis(after),
            Err(before) => -millis(before.duration()),
        })
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn coarse_now(&self) -> UnixMillis {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        UnixMillis(now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000))
    }

    fn coarse_monotonic(&self) -> Duration {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        // Both parts of a monotonic reading are positive.
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }
}

/// A clock that moves only when a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: UnixMillis) -> Self {
        Self { wall_ms: AtomicI64::new(now.0), monotonic_ms: AtomicU64::new(0) }
    }

    /// Lets time pass: both clocks advance.
    pub fn advance(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.monotonic_ms.fetch_add(millis, Ordering::SeqCst);
        self.wall_ms.fetch_add(i64::try_from(millis).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Steps the wall clock alone, as an administrator or NTP does; the monotonic clock stands still.
    pub fn step_to(&self, now: UnixMillis) {
        self.wall_ms.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.wall_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stepping_the_wall_clock_leaves_the_monotonic_clock_alone() {
        let clock = ManualClock::at(UnixMillis(10_000));
        clock.advance(Duration::from_millis(500));
        clock.step_to(UnixMillis(1_000));
        assert_eq!(clock.now(), UnixMillis(1_000));
        assert_eq!(clock.monotonic(), Duration::from_millis(500));
    }

    #[test]
    fn prints_rfc_3339() {
        assert_eq!(UnixMillis(0).to_rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_eq!(UnixMillis(-1).to_rfc3339(), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn the_system_clock_runs() {
        let clock = SystemClock::new();
        assert!(clock.now() > UnixMillis(1_577_836_800_000), "the machine's clock stands before 2020");
        assert!(clock.monotonic() <= clock.monotonic());
        assert!(clock.coarse_monotonic() <= clock.coarse_monotonic());
        let behind = clock.now().0 - clock.coarse_now().0;
        assert!(behind.abs() < 1_000, "the coarse clock is {behind} ms behind");
    }
}
