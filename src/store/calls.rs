//! Counts, times and traces the calls of a store by operation, wherever the store answers.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
};

use tokio::time::Instant;
use tracing::{Instrument, Level, Span, field::Empty, level_filters::LevelFilter};

use super::StoreError;
use crate::telemetry::{Metrics, StoreMetrics, StoreOutcome};

/// More operations than a store has.
const OPERATIONS: usize = 128;

/// The calls of one store. Until [`Calls::measure`] nothing is counted. Operations are few, and each is registered at its first call; from
/// then on a call finds its counters without a lock.
#[derive(Clone, Default)]
pub(super) struct Calls {
    measured: Option<Arc<Measured>>,
}

struct Measured {
    metrics: Metrics,
    /// Filled from the front.
    known: [OnceLock<(&'static str, StoreMetrics)>; OPERATIONS],
}

impl Calls {
    /// Counts in `metrics` from now on.
    pub(super) fn measure(&mut self, metrics: &Metrics) {
        let known = std::array::from_fn(|_| OnceLock::new());
        self.measured = Some(Arc::new(Measured { metrics: metrics.clone(), known }));
    }

    /// Makes one call, and passes its result on.
    pub(super) async fn timed<T>(
        &self,
        store: &'static str,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let span = span(store, operation);
        let started = Instant::now();
        let result = call.instrument(span.clone()).await;
        let outcome = outcome(&result);
        span.record("outcome", outcome.as_str());
        if outcome != StoreOutcome::Ok {
            span.record("otel.status_code", "ERROR");
        }
        if let Some(counters) = self.measured.as_ref().and_then(|measured| measured.of(store, operation)) {
            counters.count(outcome, started.elapsed());
        }
        result
    }
}

/// The span of a call that a request asked for; what this process asks for by itself, all the time, has none.
fn span(store: &'static str, operation: &'static str) -> Span {
    if LevelFilter::current() < Level::DEBUG || Span::current().is_none() {
        return Span::none();
    }
    tracing::debug_span!(
        target: "numgen::store",
        "store",
        otel.name = %format_args!("{store} {operation}"),
        otel.kind = "client",
        otel.status_code = Empty,
        db.system.name = store,
        db.operation.name = operation,
        outcome = Empty,
    )
}

fn outcome<T>(result: &Result<T, StoreError>) -> StoreOutcome {
    match result {
        Ok(_) | Err(StoreError::Superseded { .. }) => StoreOutcome::Ok,
        Err(StoreError::Timeout { .. }) => StoreOutcome::Timeout,
        Err(StoreError::Unavailable { .. } | StoreError::Suspended { .. }) => StoreOutcome::Unavailable,
        Err(StoreError::Corrupt { .. }) => StoreOutcome::Corrupt,
    }
}

impl Measured {
    fn of(&self, store: &'static str, operation: &'static str) -> Option<&StoreMetrics> {
        self.known.iter().find_map(|slot| {
            let (name, counters) =
                slot.get_or_init(|| (operation, self.metrics.store_calls(store, operation)));
            (*name == operation).then_some(counters)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{future::ready, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn counts_and_times_by_operation_and_outcome() {
        let (metrics, mut calls) = (Metrics::new(), Calls::default());
        calls.timed("sqlite", "take", ready(Ok(()))).await.expect("passed on");
        calls.measure(&metrics);
        for operation in ["take", "rows", "take"] {
            let call = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(())
            };
            calls.timed("sqlite", operation, call).await.expect("passed on");
        }
        let late = StoreError::Timeout { store: "sqlite", operation: "take" };
        calls.timed::<()>("sqlite", "take", ready(Err(late))).await.expect_err("passed on");
        let text = metrics.render();
        for line in [
            r#"numgen_store_calls_total{store="sqlite",operation="take",outcome="ok"} 2"#,
            r#"numgen_store_calls_total{store="sqlite",operation="take",outcome="timeout"} 1"#,
            r#"numgen_store_calls_total{store="sqlite",operation="rows",outcome="ok"} 1"#,
            r#"numgen_store_call_duration_seconds_count{store="sqlite",operation="take"} 3"#,
            r#"numgen_store_call_duration_seconds_bucket{store="sqlite",operation="take",le="0.01"} 1"#,
            r#"numgen_store_call_duration_seconds_bucket{store="sqlite",operation="take",le="0.025"} 3"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
