//! What is allowed, and to whom it has been given.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::{Policy, bucket::Bucket, registry::Registry};
use crate::{clock::Clock, config::RateLimits};

/// How many subjects, addresses or prefix keys are counted at a time.
pub(super) const CAPACITY: usize = 100_000;

/// Allowances per second; `None`: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Requests for numbers, for each subject (`NUMGEN_RATE_LIMIT_NUMBERS`).
    pub numbers: Option<NonZeroU32>,
    /// Numbers, for each subject (`NUMGEN_RATE_LIMIT_ISSUED`).
    pub issued: Option<NonZeroU32>,
    /// Other requests, for each subject (`NUMGEN_RATE_LIMIT_MANAGEMENT`).
    pub management: Option<NonZeroU32>,
    /// Unauthenticated or refused requests, for each address (`NUMGEN_RATE_LIMIT_ADDRESS`).
    pub address: Option<NonZeroU32>,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            numbers: NonZeroU32::new(1_000_000),
            issued: None,
            management: NonZeroU32::new(100),
            address: NonZeroU32::new(20_000),
        }
    }
}

impl From<&RateLimits> for Rates {
    fn from(configured: &RateLimits) -> Self {
        let RateLimits { numbers, issued, management, address } = *configured;
        Self { numbers, issued, management, address }
    }
}

/// The limits in force and every bucket under them; both layers share one.
#[derive(Debug)]
pub struct Limits {
    rates: ArcSwap<Rates>,
    /// Grows with each change of `rates`: what connections remember then counts no longer.
    generation: AtomicU64,
    numbers: Registry<Arc<str>>,
    issued: Registry<Arc<str>>,
    management: Registry<Arc<str>>,
    addresses: Registry<IpAddr>,
    clock: Arc<dyn Clock>,
}

impl Limits {
    /// Limits in which nobody has taken anything yet.
    pub fn new(rates: Rates, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            rates: ArcSwap::from_pointee(rates),
            generation: AtomicU64::new(0),
            numbers: Registry::new(CAPACITY),
            issued: Registry::new(CAPACITY),
            management: Registry::new(CAPACITY),
            addresses: Registry::new(CAPACITY),
            clock,
        })
    }

    /// Puts other limits in force; an allowance that changes begins anew, the rest goes on.
    pub fn replace(&self, rates: Rates) {
        self.rates.store(Arc::new(rates));
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Requests for numbers of a subject.
    pub(super) fn numbers(&self, subject: &Arc<str>) -> Option<Arc<Bucket>> {
        self.bucket(Policy::Numbers, self.rates.load().numbers, &self.numbers, subject)
    }

    /// Numbers of a subject.
    pub(super) fn issued(&self, subject: &Arc<str>) -> Option<Arc<Bucket>> {
        self.bucket(Policy::Issued, self.rates.load().issued, &self.issued, subject)
    }

    /// Other requests of a subject.
    pub(super) fn management(&self, subject: &Arc<str>) -> Option<Arc<Bucket>> {
        self.bucket(Policy::Management, self.rates.load().management, &self.management, subject)
    }

    /// Refused requests of an address.
    pub(super) fn address(&self, address: IpAddr) -> Option<Arc<Bucket>> {
        self.bucket(Policy::Address, self.rates.load().address, &self.addresses, &network(address))
    }

    fn bucket<K: std::hash::Hash + Eq + Clone>(
        &self,
        policy: Policy,
        per_second: Option<NonZeroU32>,
        registry: &Registry<K>,
        key: &K,
    ) -> Option<Arc<Bucket>> {
        let per_second = per_second?;
        let fits = |bucket: &Bucket| bucket.per_second() == per_second;
        let make = || Bucket::new(policy, per_second, Arc::clone(&self.clock));
        Some(registry.get(key, self.clock.monotonic(), fits, make))
    }
}

/// What counts as one address: an IPv4 address, or the /64 that an IPv6 host commands as a whole.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_host_is_its_64_and_a_mapped_address_its_ipv4() {
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            let expected: IpAddr = expected.parse().unwrap();
            assert_eq!(network(address.parse().unwrap()), expected, "{address}");
        }
    }
}
