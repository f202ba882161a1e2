//! One allowance.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter, clock,
    middleware::StateInformationMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};

use super::{Exceeded, Policy};
use crate::clock::Clock;

/// The crate's clock, as governor reads it.
#[derive(Clone, Debug)]
struct Monotonic(Arc<dyn Clock>);

impl clock::Clock for Monotonic {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(nanos(self.0.coarse_monotonic()))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An allowance of `per_second`, of which at most one second's worth is saved up.
#[derive(Debug)]
pub(super) struct Bucket {
    policy: Policy,
    per_second: NonZeroU32,
    limiter: RateLimiter<NotKeyed, InMemoryState, Monotonic, StateInformationMiddleware>,
    clock: Arc<dyn Clock>,
    /// Monotonic nanoseconds; 0 while nothing has been refused, so that looking costs one load.
    empty_until: AtomicU64,
}

impl Bucket {
    pub(super) fn new(policy: Policy, per_second: NonZeroU32, clock: Arc<dyn Clock>) -> Self {
        let quota = Quota::per_second(per_second);
        let limiter = RateLimiter::direct_with_clock(quota, Monotonic(Arc::clone(&clock))).with_middleware();
        Self { policy, per_second, limiter, clock, empty_until: AtomicU64::new(0) }
    }

    pub(super) fn per_second(&self) -> NonZeroU32 {
        self.per_second
    }

    /// Takes one.
    pub(super) fn take(&self) -> Result<(), Exceeded> {
        self.limiter.check().map(drop).map_err(|refusal| {
            let wait = refusal.wait_time_from(Nanos::new(nanos(self.clock.coarse_monotonic())));
            self.exceeded(1, wait)
        })
    }

    /// Takes `asked` at once, or nothing.
    pub(super) fn take_many(&self, asked: NonZeroU32) -> Result<(), Exceeded> {
        match self.limiter.check_n(asked) {
            Ok(Ok(_left)) => Ok(()),
            Ok(Err(refusal)) => {
                let wait = refusal.wait_time_from(Nanos::new(nanos(self.clock.coarse_monotonic())));
                Err(self.exceeded(asked.get(), wait))
            }
            Err(_never) => Err(self.exceeded(asked.get(), Duration::from_secs(1))),
        }
    }

    /// Takes one after the fact; once there is none left, [`Bucket::ensure_left`] refuses until there is.
    pub(super) fn charge(&self) {
        let now = self.clock.coarse_monotonic();
        let wait = match self.limiter.check() {
            Ok(left) if left.remaining_burst_capacity() > 0 => return,
            Ok(left) => left.quota().replenish_interval(),
            Err(refusal) => refusal.wait_time_from(Nanos::new(nanos(now))),
        };
        self.empty_until.store(nanos(now + wait), Ordering::Relaxed);
    }

    /// Refuses while the allowance is known to be used up; takes nothing.
    pub(super) fn ensure_left(&self) -> Result<(), Exceeded> {
        let until = self.empty_until.load(Ordering::Relaxed);
        if until == 0 {
            return Ok(());
        }
        let now = nanos(self.clock.coarse_monotonic());
        if now < until {
            return Err(self.exceeded(1, Duration::from_nanos(until - now)));
        }
        // Lost against a newer refusal: then the next request finds that one.
        let _ = self.empty_until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
        Ok(())
    }

    fn exceeded(&self, asked: u32, retry_after: Duration) -> Exceeded {
        let limit = self.per_second.get();
        // What was asked for is there after `retry_after`, and one comes back with each interval.
        let interval = u64::from(1_000_000_000 / limit.min(1_000_000_000));
        let missing = nanos(retry_after).div_ceil(interval.max(1));
        let remaining = u64::from(asked.min(limit)).saturating_sub(missing.max(1));
        let remaining = u32::try_from(remaining).unwrap_or(limit);
        let reset = Duration::from_nanos(interval * u64::from(limit - remaining));
        Exceeded { policy: self.policy, limit, remaining, asked, reset, retry_after }
    }
}

/// How many numbers may still be drawn: by the caller, in the extensions of a request for numbers where
/// `NUMGEN_RATE_LIMIT_ISSUED` is set; or under a rule ([`RuleLimits`](super::RuleLimits)).
#[derive(Clone, Debug)]
pub struct IssuedQuota(Arc<Bucket>);

impl IssuedQuota {
    pub(super) fn new(bucket: Arc<Bucket>) -> Self {
        Self(bucket)
    }

    /// Takes a batch of `count` numbers off the allowance, all of it or nothing. Call it before anything is drawn.
    ///
    /// # Errors
    ///
    /// `Exceeded` if the allowance does not cover `count` now.
    pub fn check(&self, count: u32) -> Result<(), Exceeded> {
        NonZeroU32::new(count).map_or(Ok(()), |asked| self.0.take_many(asked))
    }
}
