//! How the service stands, for `/readyz` and `/metrics`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    api::{Component, Health, Readiness},
    auth::Verifier,
    server::OpenConnections,
    snowflake::Ids,
    telemetry::Metrics,
};

/// Looks at the parts whose state changes while the service runs.
pub(super) struct Status {
    draining: AtomicBool,
    ids: Arc<Ids>,
    verifier: Arc<Verifier>,
    metrics: Metrics,
    connections: OpenConnections,
}

impl Status {
    pub(super) fn new(
        ids: Arc<Ids>,
        verifier: Arc<Verifier>,
        metrics: Metrics,
        connections: OpenConnections,
    ) -> Arc<Self> {
        Arc::new(Self { draining: AtomicBool::new(false), ids, verifier, metrics, connections })
    }

    /// From now on traffic should go elsewhere.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Sets the gauges.
    fn measure(&self) {
        const SECONDS_PER_DAY: f64 = 86_400.0;
        let gauges = self.metrics.gauges();
        gauges.worker_window_seconds.set(self.ids.window_left().as_secs_f64());
        gauges.connections.set(self.connections.count() as f64);
        gauges.snowflake_days_left.set(self.ids.time_left().as_secs_f64() / SECONDS_PER_DAY);
    }
}

impl Health for Status {
    fn readiness(&self) -> Readiness {
        let component = |name, state: &str| Component { name, state: state.to_owned() };
        // The window is renewed through the store twice a second: a window that has run out means that it does not answer.
        let window = !self.ids.window_left().is_zero();
        let mut components = vec![
            component("rules", "ok"),
            component("store", if window { "ok" } else { "does not answer" }),
            component("worker", if window { "ok" } else { "no window" }),
        ];
        let mut degraded = false;
        if let Some(jwks) = self.verifier.jwks_status() {
            let state = match (&jwks.failure, jwks.fetched_at) {
                (Some(failure), _) => failure,
                (None, None) => "not fetched yet",
                (None, Some(_)) => "ok",
            };
            degraded = state != "ok";
            components.push(component("jwks", state));
        }
        let draining = self.draining.load(Ordering::Acquire);
        let status = match (draining, window, degraded) {
            (true, _, _) => "draining",
            (false, false, _) => "unready",
            (false, true, true) => "degraded",
            (false, true, false) => "ready",
        };
        Readiness { ready: window && !draining, status, components }
    }

    fn metrics(&self) -> String {
        self.measure();
        self.metrics.render()
    }
}
