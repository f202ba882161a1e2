//! Continuous mode: consecutive values, one call of the store per batch and counter.

use std::{sync::Arc, time::Duration};

use crate::{
    counter::Counter,
    lifecycle::Lifecycle,
    rule::OnOutage,
    store::{Bounds, Claim, CounterStore, StoreError, TakeRequest, Taken},
    telemetry::BatchSizes,
};

use super::{
    Hold, IssueError, Order,
    combine::{Batching, Call, CombineError, Combiner, Served, Undelivered},
};

/// The most requests that one call serves: what arrives during one fsync at 250,000 requests/s.
const MAX_BATCH: usize = 1_024;

pub(super) struct Continuous {
    combiner: Arc<Combiner<Counter, Take, Answer>>,
}

struct Take {
    bounds: Bounds,
    request: TakeRequest,
    hold: Option<Hold>,
}

/// What was drawn. Values that were drawn without an idempotency key are lost to everybody if their caller is gone.
struct Answer {
    taken: Taken,
    keyed: bool,
}

impl Continuous {
    pub(super) fn new(
        store: Arc<dyn CounterStore>,
        patience: Duration,
        sizes: BatchSizes,
        lifecycle: &Lifecycle,
    ) -> Self {
        let (to_return, returns) = (Arc::clone(&store), lifecycle.clone());
        let undelivered: Undelivered<Counter, Answer> = Box::new(move |counter, answer| {
            let Answer { taken: Taken::Fresh(values) | Taken::Segment(values), keyed: false } = answer else {
                return;
            };
            let (store, counter) = (Arc::clone(&to_return), counter.clone());
            returns.spawn(async move {
                if let Err(error) = store.hand_back(counter, values).await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "values nobody received are not listed"
                    );
                }
            });
        });
        let call: Call<Counter, Take, Answer> = Box::new(move |counter, takes| {
            let store = Arc::clone(&store);
            Box::pin(async move {
                let Some(Take { bounds, .. }) = takes.first() else { return Ok(Served::Now(Vec::new())) };
                let bounds = *bounds;
                let (requests, holds): (Vec<_>, Vec<_>) =
                    takes.into_iter().map(|take| (take.request, take.hold)).unzip();
                let keyed: Vec<_> =
                    requests.iter().map(|request: &TakeRequest| request.claim.is_some()).collect();
                let taken = store.take(counter, bounds, requests).await;
                drop(holds);
                let answer = |(taken, keyed)| Answer { taken, keyed };
                Ok(Served::Now(taken?.into_iter().zip(keyed).map(answer).collect()))
            })
        });
        // After a change of the rule, old and new bounds may meet in one lane; they are served by calls of their own.
        let batching = Batching::of(MAX_BATCH, |a: &Take, b: &Take| a.bounds == b.bounds);
        let combiner = Combiner::new(call, undelivered, batching, patience, sizes, lifecycle.clone());
        Self { combiner }
    }

    pub(super) async fn take(&self, order: &Order<'_>, claim: Option<Claim>) -> Result<Taken, IssueError> {
        let take = Take {
            bounds: order.bounds,
            request: TakeRequest { count: order.count, claim },
            hold: order.hold.clone(),
        };
        match self.combiner.submit(order.counter(), take).await?.taken {
            Taken::Away => Err(match order.rule.on_outage {
                OnOutage::Fail => IssueError::Store(Arc::new(away())),
                OnOutage::Segment | OnOutage::Temporary => IssueError::Unbridged { count: order.count },
            }),
            taken @ (Taken::Fresh(_)
            | Taken::Segment(_)
            | Taken::Replayed(_)
            | Taken::Mismatch
            | Taken::Overflow) => Ok(taken),
        }
    }
}

/// What a request is told that its store did not serve while it served others.
pub(super) fn away() -> StoreError {
    StoreError::Unavailable { store: "shared", operation: "take", source: "nothing stands in".into() }
}

impl From<CombineError> for IssueError {
    fn from(error: CombineError) -> Self {
        match error {
            CombineError::Store(error) => Self::Store(error),
            CombineError::TimedOut => Self::Timeout,
            CombineError::Abandoned => Self::Internal("a combined call ended without an answer"),
        }
    }
}
