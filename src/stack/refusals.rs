//! Counts those who were turned away, by reason.

use std::{error::Error as StdError, sync::Arc};

use crate::{
    api,
    auth::Rejection,
    generate::IssueError,
    middleware::{authenticate::Unauthenticated, overload::Overloaded, rate_limit::Policy},
    telemetry::{Counter, Metrics, catalog},
};

/// One counter for each reason, there from the start: a rate is only known of what was once 0. Cheap to clone.
#[derive(Clone)]
pub(super) struct Refusals {
    counters: Arc<Counters>,
}

struct Counters {
    tokens: Vec<(&'static str, Counter)>,
    quotas: Vec<(Policy, Counter)>,
    in_flight: Counter,
    generator: Counter,
}

impl Refusals {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let token = |reason| (reason, metrics.counter(&catalog::TOKENS_REJECTED, &[("reason", reason)]));
        let quota = |policy: Policy| {
            (policy, metrics.counter(&catalog::RATE_LIMITED, &[("policy", policy.as_str())]))
        };
        let overload = |reason| metrics.counter(&catalog::OVERLOAD_REFUSALS, &[("reason", reason)]);
        let counters = Counters {
            tokens: Rejection::REASONS.into_iter().map(token).collect(),
            quotas: Policy::ALL.into_iter().map(quota).collect(),
            in_flight: overload("in_flight"),
            generator: overload("generator"),
        };
        Self { counters: Arc::new(counters) }
    }

    /// Counts an error, if it is a refusal.
    pub(super) fn count(&self, error: &(dyn StdError + Send + Sync + 'static)) {
        let Counters { tokens, quotas, in_flight, generator } = &*self.counters;
        let counter = if let Some(Unauthenticated(rejection)) = error.downcast_ref() {
            let reason = rejection.reason();
            tokens.iter().find(|(known, _)| *known == reason).map(|(_, counter)| counter)
        } else if let Some(exceeded) = super::rescue::exceeded(error) {
            quotas.iter().find(|(policy, _)| *policy == exceeded.policy).map(|(_, counter)| counter)
        } else if error.is::<Overloaded>() {
            Some(in_flight)
        } else if let Some(api::Error::Issue(IssueError::Busy(_))) = error.downcast_ref() {
            Some(generator)
        } else {
            None
        };
        if let Some(counter) = counter {
            counter.increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::middleware::rate_limit::Exceeded;

    #[test]
    fn each_refusal_is_counted_under_its_reason() {
        let metrics = Metrics::new();
        let refusals = Refusals::new(&metrics);
        let second = Duration::from_secs(1);
        let exceeded = Exceeded {
            policy: Policy::Issued,
            limit: 1,
            remaining: 0,
            asked: 1,
            reset: second,
            retry_after: second,
        };
        refusals.count(&Unauthenticated(Rejection::MissingClaim("exp")));
        refusals.count(&exceeded);
        refusals.count(&api::Error::RateLimited(exceeded));
        refusals.count(&Overloaded { limit: 1 });
        refusals.count(&api::Error::Issue(IssueError::Busy(7)));
        refusals.count(&api::Error::NotFound);
        let text = metrics.render();
        for line in [
            r#"numgen_tokens_rejected_total{reason="missing_claim"} 1"#,
            r#"numgen_tokens_rejected_total{reason="expired"} 0"#,
            r#"numgen_rate_limited_total{policy="issued"} 2"#,
            r#"numgen_rate_limited_total{policy="address"} 0"#,
            r#"numgen_overload_refusals_total{reason="in_flight"} 1"#,
            r#"numgen_overload_refusals_total{reason="generator"} 1"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
    }
}
