//! The allowance of a prefix key, whoever asks: the `rate_limit` of its rule.

use std::sync::Arc;

use super::{IssuedQuota, Policy, bucket::Bucket, limits::CAPACITY, registry::Registry};
use crate::{clock::Clock, prefix_key::PrefixKey, rule::Rule};

/// What was taken under each rule that has a limit. Every node counts for itself.
#[derive(Debug)]
pub struct RuleLimits {
    buckets: Registry<PrefixKey>,
    clock: Arc<dyn Clock>,
}

impl RuleLimits {
    /// Limits under which nothing has been taken yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { buckets: Registry::new(CAPACITY), clock }
    }

    /// What may still be drawn under a rule; `None`: it has no limit. A rule that is saved anew goes on with what is left, unless
    /// its limit has changed.
    pub fn quota(&self, rule: &Rule) -> Option<IssuedQuota> {
        let per_second = rule.rate_limit?;
        let fits = |bucket: &Bucket| bucket.per_second() == per_second;
        let make = || Bucket::new(Policy::Rule, per_second, Arc::clone(&self.clock));
        Some(IssuedQuota::new(self.buckets.get(&rule.prefix_key, self.clock.monotonic(), fits, make)))
    }
}
