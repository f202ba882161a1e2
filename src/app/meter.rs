//! Counts issued numbers by rule, with a handle kept for each.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use foldhash::fast::RandomState;

use crate::{
    api::Meter,
    generate::Source,
    prefix_key::PrefixKey,
    rule::{Mode, Rule},
    telemetry::{Counter, Metrics},
};

/// Counters by prefix key, then by mode and source. A key has one entry, whatever becomes of its rule.
pub(super) struct Issued {
    metrics: Metrics,
    counters: RwLock<HashMap<PrefixKey, Handles, RandomState>>,
}

/// The counters of one prefix key: one for each mode and source that it has had, so a handful.
type Handles = Vec<(Mode, Source, Counter)>;

impl Issued {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics, counters: RwLock::default() }
    }
}

impl Meter for Issued {
    fn counter(&self, rule: &Rule, source: Source) -> Counter {
        let find = |known: &Handles| {
            known
                .iter()
                .find(|(mode, from, _)| (*mode, *from) == (rule.mode, source))
                .map(|known| known.2.clone())
        };
        let counters = self.counters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = counters.get(&rule.prefix_key).and_then(find) {
            return counter;
        }
        drop(counters);
        let counter =
            self.metrics.numbers_issued(rule.mode.as_str(), source.as_str(), rule.prefix_key.as_str());
        let mut counters = self.counters.write().unwrap_or_else(PoisonError::into_inner);
        let known = counters.entry(rule.prefix_key.clone()).or_default();
        if find(known).is_none() {
            known.push((rule.mode, source, counter.clone()));
        }
        counter
    }
}
