//! What this node knows without asking anybody, put into gauges whenever somebody looks.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::{
    api::Readiness,
    clock::UnixMillis,
    lifecycle::Lifecycle,
    rules::Registry,
    server::OpenConnections,
    store::{
        Reachable,
        counters::{Cause, Figures, SharedCounters},
        postgres::PostgresStore,
    },
    telemetry::{
        Metrics, catalog,
        traces::{SpanCounts, SpanOutcome},
    },
    worker::{Standing, Worker},
};

const SECONDS_PER_DAY: f64 = 86_400.0;
const MS_PER_SECOND: f64 = 1_000.0;

/// Every status of `/readyz`.
const STATUSES: [&str; 4] = ["ready", "degraded", "unready", "draining"];

/// Where to look.
pub(super) struct Gauges {
    pub(super) metrics: Metrics,
    pub(super) worker: Worker,
    /// Where ID timestamps begin.
    pub(super) epoch: UnixMillis,
    pub(super) rules: Arc<Registry>,
    pub(super) connections: OpenConnections,
    /// Where nodes share their counters.
    pub(super) shared_counters: Option<SharedCounters>,
    /// Whether grants are asked for.
    pub(super) is_granted: Granting,
    /// The stores elsewhere, by name; the one that leases worker IDs first.
    pub(super) stores: Vec<(&'static str, watch::Receiver<Reachable>)>,
    pub(super) postgres: Option<Arc<PostgresStore>>,
    /// Components that were shown before: one that is gone is no longer ok.
    pub(super) shown: Mutex<Vec<&'static str>>,
    pub(super) spans: SpanCounts,
}

/// Whether counters are drawn under grants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Granting {
    Granted,
    Own,
}

impl Gauges {
    /// Sets all of them.
    pub(super) fn measure(&self, readiness: &Readiness) {
        let gauges = self.metrics.gauges();
        let ids = self.worker.ids();
        gauges.connections.set(self.connections.count() as f64);
        gauges.connections_limit.set(self.connections.limit() as f64);
        gauges.worker_held.set(f64::from(u8::from(self.worker.standing() == Standing::Held)));
        gauges.worker_id.set(f64::from(ids.worker()));
        gauges.worker_window_seconds.set(ids.window_left().as_secs_f64());
        gauges.snowflake_days_left.set(ids.time_left().as_secs_f64() / SECONDS_PER_DAY);
        for outcome in SpanOutcome::ALL {
            let counter = self.metrics.counter(&catalog::TRACE_SPANS, &[("outcome", outcome.as_str())]);
            counter.absolute(self.spans.get(outcome));
        }
        self.readiness(readiness);
        self.rules();
        self.stores(readiness);
        if let Some(counters) = &self.shared_counters {
            self.counters(counters);
        }
    }

    fn readiness(&self, readiness: &Readiness) {
        for status in STATUSES {
            let is_present = readiness.status == status;
            self.metrics
                .gauge(&catalog::READINESS, &[("status", status)])
                .set(f64::from(u8::from(is_present)));
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for component in &readiness.components {
            if !shown.contains(&component.name) {
                shown.push(component.name);
            }
        }
        for &name in shown.iter() {
            // One that is no longer named has nothing amiss.
            let is_ok = readiness
                .components
                .iter()
                .all(|component| component.name != name || component.state == "ok");
            self.metrics
                .gauge(&catalog::COMPONENT_OK, &[("component", name)])
                .set(f64::from(u8::from(is_ok)));
        }
    }

    fn rules(&self) {
        let set =
            |state, count: usize| self.metrics.gauge(&catalog::RULES, &[("state", state)]).set(count as f64);
        set("in_force", self.rules.count());
        set("refused", self.rules.refusals().len());
    }

    fn stores(&self, readiness: &Readiness) {
        let reachable = |store, is_there: bool| {
            self.metrics
                .gauge(&catalog::STORE_REACHABLE, &[("store", store)])
                .set(f64::from(u8::from(is_there)));
        };
        for (store, state) in &self.stores {
            reachable(store, *state.borrow() == Reachable::Yes);
        }
        if self.stores.is_empty() {
            let is_away = readiness.components.iter().any(|part| part.name == "store" && part.state != "ok");
            reachable("sqlite", !is_away);
        }
        if let Some((store, _)) = self.stores.first()
            && let Some((there, here)) = self.worker.clocks()
        {
            let there_ms = self.epoch.0.saturating_add_unsigned(there);
            let offset_s = (there_ms - here.0) as f64 / MS_PER_SECOND;
            self.metrics.gauge(&catalog::CLOCK_OFFSET, &[("store", store)]).set(offset_s);
        }
        if let Some(postgres) = &self.postgres {
            let connections = postgres.connections();
            for (state, count) in [("idle", connections.idle), ("busy", connections.busy)] {
                let labels = [("store", "postgres"), ("state", state)];
                self.metrics.gauge(&catalog::STORE_CONNECTIONS, &labels).set(f64::from(count));
            }
        }
    }

    fn counters(&self, counters: &SharedCounters) {
        let Figures { segment_remaining, segments, away, grant_remaining } = counters.figures();
        self.metrics.gauges().segment_remaining.set(segment_remaining.unwrap_or(0) as f64);
        self.metrics.gauge(&catalog::SEGMENTS_HELD, &[]).set(segments as f64);
        self.metrics.gauge(&catalog::COUNTERS_AWAY, &[]).set(away as f64);
        if self.is_granted == Granting::Own {
            return;
        }
        self.metrics.gauge(&catalog::GRANT_REMAINING, &[]).set(grant_remaining.unwrap_or(0) as f64);
        for cause in Cause::ALL {
            let (granted, refused) = counters.grant_fetches(cause);
            for (outcome, count) in [("ok", granted), ("failed", refused)] {
                let labels = [("cause", cause.as_str()), ("outcome", outcome)];
                self.metrics.counter(&catalog::GRANT_FETCHES, &labels).absolute(count);
            }
        }
    }

    /// Counts how often stores go away, until the drain.
    pub(super) fn watch_outages(&self, lifecycle: &Lifecycle) {
        for (store, state) in &self.stores {
            let outages = self.metrics.counter(&catalog::STORE_OUTAGES, &[("store", store)]);
            let (mut state, until) = (state.clone(), lifecycle.clone());
            lifecycle.spawn(async move {
                let mut was_there = false;
                loop {
                    let is_there = *state.borrow_and_update() == Reachable::Yes;
                    if was_there && !is_there {
                        outages.increment(1);
                    }
                    was_there = is_there;
                    tokio::select! {
                        () = until.draining() => return,
                        changed = state.changed() => if changed.is_err() { return },
                    }
                }
            });
        }
    }
}
