//! Counts the calls of a store by operation and outcome, wherever the store answers.

use std::sync::{PoisonError, RwLock};

use super::StoreError;
use crate::telemetry::{Metrics, StoreMetrics, StoreOutcome};

/// The counters of one store. Operations are few, and each is looked up once; until [`Calls::measure`] nothing is counted.
#[derive(Default)]
pub(super) struct Calls {
    metrics: Option<Metrics>,
    known: RwLock<Vec<(&'static str, StoreMetrics)>>,
}

impl Calls {
    /// Counts in `metrics` from now on.
    pub(super) fn measure(&mut self, metrics: &Metrics) {
        self.metrics = Some(metrics.clone());
    }

    /// Counts one call, and passes its result on.
    pub(super) fn counted<T>(
        &self,
        store: &'static str,
        operation: &'static str,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(metrics) = &self.metrics {
            let outcome = match &result {
                Ok(_) | Err(StoreError::Superseded { .. }) => StoreOutcome::Ok,
                Err(StoreError::Timeout { .. }) => StoreOutcome::Timeout,
                Err(StoreError::Unavailable { .. } | StoreError::Suspended { .. }) => {
                    StoreOutcome::Unavailable
                }
                Err(StoreError::Corrupt { .. }) => StoreOutcome::Corrupt,
            };
            self.of(metrics, store, operation).count(outcome);
        }
        result
    }

    fn of(&self, metrics: &Metrics, store: &'static str, operation: &'static str) -> StoreMetrics {
        let find = |known: &[(&'static str, StoreMetrics)]| {
            known.iter().find(|(name, _)| *name == operation).map(|(_, counters)| counters.clone())
        };
        if let Some(counters) = find(&self.known.read().unwrap_or_else(PoisonError::into_inner)) {
            return counters;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        find(&known).unwrap_or_else(|| {
            let counters = metrics.store_calls(store, operation);
            known.push((operation, counters.clone()));
            counters
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_operation_and_outcome() {
        let (metrics, mut calls) = (Metrics::new(), Calls::default());
        calls.counted("sqlite", "take", Ok(())).expect("passed on");
        calls.measure(&metrics);
        calls.counted("sqlite", "take", Ok(())).expect("passed on");
        let late = StoreError::Timeout { store: "sqlite", operation: "take" };
        calls.counted::<()>("sqlite", "take", Err(late)).expect_err("passed on");
        let text = metrics.render();
        for line in [
            r#"numgen_store_calls_total{store="sqlite",operation="take",outcome="ok"} 1"#,
            r#"numgen_store_calls_total{store="sqlite",operation="take",outcome="timeout"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
