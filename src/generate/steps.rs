//! Confirming and voiding strict numbers: those who wait for numbers of one prefix key share a transaction.
//!
//! One after the other they would stand in one queue, the lock of their counter, and draws behind them.
//!
//! Invariant: **what becomes of a step does not depend on those beside it.** A store's call fails for all of its steps; where the reason
//! may be that of one of them, each is taken by itself. But they wait together, also for a counter of another period that somebody holds.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::{
    IssueError,
    combine::{Batching, Call, Combiner, Served},
};
use crate::{
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    store::{LedgerStep, LedgerStore, StoreError, Transitioned},
    telemetry::BatchSizes,
};

/// How many share a transaction at most: those who draw wait for it.
const MAX_BATCH: usize = 128;

/// What became of a step, of those that were asked for with others.
type Outcome = Result<Transitioned, Arc<StoreError>>;

pub(super) struct Steps {
    combiner: Arc<Combiner<PrefixKey, LedgerStep, Outcome>>,
}

impl Steps {
    pub(super) fn new(store: Arc<dyn LedgerStore>, patience: Duration, lifecycle: &Lifecycle) -> Self {
        let call: Call<PrefixKey, LedgerStep, Outcome> = Box::new(move |key, steps| {
            let store = Arc::clone(&store);
            Box::pin(async move {
                together(steps, |steps| store.transition(key.clone(), steps)).await.map(Served::Now)
            })
        });
        // The step is taken, whoever hears of it.
        let undelivered = Box::new(|_: &PrefixKey, _: Outcome| {});
        let batching = Batching::of(MAX_BATCH, |_, _| true);
        let (sizes, lifecycle) = (BatchSizes::default(), lifecycle.clone());
        let combiner = Combiner::new(call, undelivered, batching, patience, sizes, lifecycle);
        Self { combiner }
    }

    pub(super) async fn take(&self, key: PrefixKey, step: LedgerStep) -> Result<Transitioned, IssueError> {
        self.combiner.submit(key, step).await?.map_err(IssueError::Store)
    }
}

/// One call for all; an outcome for each.
async fn together<F>(
    steps: Vec<LedgerStep>,
    call: impl Fn(Vec<LedgerStep>) -> F,
) -> Result<Vec<Outcome>, StoreError>
where
    F: Future<Output = Result<Vec<Transitioned>, StoreError>>,
{
    match call(steps.clone()).await {
        Ok(outcomes) => Ok(outcomes.into_iter().map(Ok).collect()),
        Err(error) if steps.len() > 1 && may_be_of_one(&error) => {
            let alone = async |step| {
                let outcome = call(vec![step]).await.map(|outcomes| outcomes.into_iter().next());
                outcome.transpose().unwrap_or_else(|| Err(unanswered())).map_err(Arc::new)
            };
            Ok(join_all(steps.into_iter().map(alone)).await)
        }
        Err(error) => Err(error),
    }
}

fn unanswered() -> StoreError {
    StoreError::Timeout { store: "ledger", operation: "transition" }
}

/// Whether a call that failed like this may succeed without one of its steps.
fn may_be_of_one(error: &StoreError) -> bool {
    match error {
        StoreError::Timeout { .. } | StoreError::Unavailable { .. } => false,
        StoreError::Superseded { .. } | StoreError::Suspended { .. } | StoreError::Corrupt { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{clock::UnixMillis, store::Transition};

    fn step(number: &str) -> LedgerStep {
        LedgerStep {
            number: number.to_owned(),
            transition: Transition::Confirm,
            actor: "bob".into(),
            at: UnixMillis(0),
            note: None,
        }
    }

    /// The numbers of each call, and what became of `asked`; a call with `bad` in it fails with `error`.
    async fn take(asked: &[&str], error: fn() -> StoreError) -> (Vec<Vec<String>>, Vec<bool>) {
        let calls = Mutex::new(Vec::new());
        let outcomes = together(asked.iter().copied().map(step).collect(), async |steps| {
            let numbers: Vec<_> = steps.into_iter().map(|step| step.number).collect();
            calls.lock().expect("no panic").push(numbers.clone());
            if numbers.iter().any(|number| number == "bad") {
                return Err(error());
            }
            Ok(vec![Transitioned::Unknown; numbers.len()])
        })
        .await;
        let served = outcomes
            .map_or(vec![false; asked.len()], |outcomes| outcomes.iter().map(Result::is_ok).collect());
        (calls.into_inner().expect("no panic"), served)
    }

    #[tokio::test]
    async fn a_step_that_cannot_be_taken_stands_in_nobodys_way() {
        let corrupt = || StoreError::Corrupt { store: "fake", what: "a row".to_owned() };
        let timeout = || StoreError::Timeout { store: "fake", operation: "transition" };
        let (calls, served) = take(&["1", "2"], corrupt).await;
        assert_eq!((calls.len(), served), (1, vec![true, true]));
        let (calls, served) = take(&["1", "bad", "2"], corrupt).await;
        assert_eq!(calls, [vec!["1", "bad", "2"], vec!["1"], vec!["bad"], vec!["2"]]);
        assert_eq!(served, [true, false, true]);
        let (calls, served) = take(&["bad"], corrupt).await;
        assert_eq!((calls.len(), served), (1, vec![false]));
        let (calls, served) = take(&["1", "bad"], timeout).await;
        assert_eq!(
            (calls.len(), served),
            (1, vec![false, false]),
            "what may have happened is not done again"
        );
    }
}
