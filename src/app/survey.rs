//! What only a store can tell, looked up now and then and kept in gauges: a scrape asks no store.
//!
//! Invariants: the last answer stays while a store is away; one key is looked up at a time, and a round over all of them takes at
//! least one interval; no more keys are looked up than have a label of their own; where a counter begins (`initial_seq`) is not shown;
//! what a key that is no longer counted had last is withdrawn within a round, so that no alert outlives its rule.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    clock::Clock,
    counter::SequenceValue,
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    rule::Mode,
    rules::{CompiledRule, Registry},
    store::{CounterState, CountersByMode, HoleReason, LedgerStore, StoreError},
    telemetry::{Metrics, catalog},
    worker::Worker,
};

/// How soon the first rule is noticed.
const NO_RULES_YET: Duration = Duration::from_secs(1);

const MS_PER_SECOND: f64 = 1_000.0;

/// Where to look.
#[derive(Clone)]
pub(super) struct Survey {
    pub(super) metrics: Metrics,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rules: Arc<Registry>,
    pub(super) counters: CountersByMode,
    /// Where there are ledgers.
    pub(super) ledgers: Option<Arc<dyn LedgerStore>>,
    pub(super) worker: Worker,
    /// How long one round takes.
    pub(super) every: Duration,
    /// How many prefix keys have a label of their own.
    pub(super) prefixes: usize,
}

impl Survey {
    /// Looks until the drain.
    pub(super) fn start(self, lifecycle: &Lifecycle) {
        let (sequences, until) = (self.clone(), lifecycle.clone());
        lifecycle.spawn(async move {
            tokio::select! {
                () = until.draining() => {}
                () = sequences.follow_sequences() => {}
            }
        });
        let until = lifecycle.clone();
        lifecycle.spawn(async move {
            tokio::select! {
                () = until.draining() => {}
                () = self.follow_totals() => {}
            }
        });
    }

    async fn follow_totals(self) {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            note("worker IDs", self.count_slots().await);
            note("reservations", self.count_reservations().await);
        }
    }

    async fn count_slots(&self) -> Result<(), StoreError> {
        if let Some(free) = self.worker.free_slots().await? {
            self.metrics.gauge(&catalog::WORKER_SLOTS_FREE, &[]).set(f64::from(free));
        }
        Ok(())
    }

    async fn count_reservations(&self) -> Result<(), StoreError> {
        let Some(ledgers) = &self.ledgers else { return Ok(()) };
        let found = ledgers.reservations().await?;
        let age_ms = found.oldest.map_or(0, |oldest| self.clock.now().0.saturating_sub(oldest.0).max(0));
        self.metrics.gauge(&catalog::RESERVATIONS_OPEN, &[]).set(found.open as f64);
        self.metrics.gauge(&catalog::RESERVATION_OLDEST, &[]).set(age_ms as f64 / MS_PER_SECOND);
        Ok(())
    }

    async fn follow_sequences(self) {
        let mut shown = HashMap::new();
        loop {
            let keys = self.counted_keys();
            shown.retain(|key, mode| {
                let is_counted = keys.binary_search(key).is_ok();
                if !is_counted {
                    self.withdraw_all(key, *mode);
                }
                is_counted
            });
            if keys.is_empty() {
                sleep(NO_RULES_YET).await;
            }
            let pause = self.every.div_f64(keys.len().max(1) as f64);
            for key in keys {
                note("last values", self.look_at(key, &mut shown).await);
                sleep(pause).await;
            }
        }
    }

    /// The keys that are counted and have a label of their own, in key order.
    fn counted_keys(&self) -> Vec<PrefixKey> {
        let page = self.rules.list(None, usize::MAX, |_| true);
        let counted = page.rules.iter().filter(|rule| rule.rule().mode.counts());
        let keys = counted.map(|rule| rule.rule().prefix_key.clone());
        keys.filter(|key| self.metrics.prefix(key.as_str()) == key.as_str()).take(self.prefixes).collect()
    }

    async fn look_at(&self, key: PrefixKey, shown: &mut HashMap<PrefixKey, Mode>) -> Result<(), StoreError> {
        let Some(rule) = self.rules.get(key.as_str()) else { return Ok(()) };
        let mode = rule.rule().mode;
        let counters = self.counters.shown(&key, mode, rule.past()).await?;
        self.show(&rule, mode, &counters);
        if let Some(before) = shown.insert(key.clone(), mode).filter(|before| *before != mode) {
            self.withdraw(&key, before);
        }
        Ok(())
    }

    fn show(&self, rule: &CompiledRule, mode: Mode, counters: &[CounterState]) {
        let period = rule.period_of(rule.local(self.clock.now()).date());
        let present = counters.iter().find(|counter| counter.period == period);
        let begun = present.filter(|counter| counter.last > counter.base);
        let last = begun.map_or(SequenceValue(0), |counter| counter.last);
        let prefix = rule.rule().prefix_key.as_str();
        let labels = [("mode", mode.as_str()), ("prefix", prefix)];
        let value = |value: SequenceValue| value.0 as f64;
        self.metrics.gauge(&catalog::SEQUENCE_LAST, &labels).set(value(last));
        self.metrics.gauge(&catalog::SEQUENCE_MAX, &labels).set(value(rule.max()));
        for reason in HoleReason::ALL {
            let holes = counters.iter().flat_map(|counter| &counter.holes);
            let of_reason = holes.filter(|hole| hole.reason == reason);
            let values: u128 = of_reason.map(|hole| u128::from(hole.to.0 - hole.from.0) + 1).sum();
            let labels = [("prefix", prefix), ("reason", reason.as_str())];
            self.metrics.gauge(&catalog::HOLE_VALUES, &labels).set(values as f64);
        }
    }

    /// A series can't be taken back; of one that is no number, no alert and no panel makes anything.
    fn withdraw(&self, key: &PrefixKey, mode: Mode) {
        let labels = [("mode", mode.as_str()), ("prefix", key.as_str())];
        for family in [&catalog::SEQUENCE_LAST, &catalog::SEQUENCE_MAX] {
            self.metrics.gauge(family, &labels).set(f64::NAN);
        }
    }

    /// Of a key that is no longer counted.
    fn withdraw_all(&self, key: &PrefixKey, mode: Mode) {
        self.withdraw(key, mode);
        for reason in HoleReason::ALL {
            let labels = [("prefix", key.as_str()), ("reason", reason.as_str())];
            self.metrics.gauge(&catalog::HOLE_VALUES, &labels).set(f64::NAN);
        }
    }
}

fn note(what: &str, outcome: Result<(), StoreError>) {
    if let Err(error) = outcome {
        // The store's own state is logged where it changes.
        tracing::debug!(error = &error as &dyn std::error::Error, "{what} not looked up");
    }
}
