//! Strict mode: a row of the ledger for each integer, one transaction per batch and counter. While the answers of one batch wait for
//! the disk, the next may be drawn.

use std::{sync::Arc, time::Duration};

use crate::{
    counter::{Counter, SequenceValue},
    lifecycle::Lifecycle,
    store::{Bounds, Claim, Drawn, IssueRequest, LedgerStore, RenderNumber, Taken},
    telemetry::BatchSizes,
};

use super::{
    Hold, IssueError, Order,
    combine::{Batching, Call, Combiner, Served},
    stamp::Stamp,
};

/// The most requests that one transaction serves: the row lock is held for as long.
const MAX_BATCH: usize = 256;

/// No request joins a transaction that writes so many rows: what many ask for together would else take longer than any of them waits.
const FULL_BATCH: u64 = 2_000;

pub(super) struct Strict {
    combiner: Arc<Combiner<Counter, Issue, Taken>>,
}

struct Issue {
    bounds: Bounds,
    request: IssueRequest,
    render: Arc<dyn Fn(SequenceValue) -> String + Send + Sync>,
    hold: Option<Hold>,
}

impl Strict {
    pub(super) fn new(
        store: Arc<dyn LedgerStore>,
        patience: Duration,
        sizes: BatchSizes,
        lifecycle: &Lifecycle,
    ) -> Self {
        let call: Call<Counter, Issue, Taken> = Box::new(move |counter, issues| {
            let store = Arc::clone(&store);
            Box::pin(async move {
                let Some(Issue { bounds, .. }) = issues.first() else { return Ok(Served::Now(Vec::new())) };
                let bounds = *bounds;
                let (requests, rest): (Vec<_>, Vec<_>) =
                    issues.into_iter().map(|issue| (issue.request, (issue.render, issue.hold))).unzip();
                let (renders, holds): (Vec<_>, Vec<_>) = rest.into_iter().unzip();
                let render: RenderNumber = Arc::new(move |index, value| renders[index](value));
                // The holds last until the outcome is known.
                Ok(match store.draw(counter, bounds, requests, render).await? {
                    Drawn::Kept(taken) => Served::Now(taken),
                    Drawn::Pending(rest) => Served::Later(Box::pin(async move {
                        let taken = rest.await;
                        drop(holds);
                        taken
                    })),
                })
            })
        });
        // The ledger has a row for each integer, whoever received it.
        let undelivered = Box::new(|_: &Counter, _: Taken| {});
        let batching = Batching {
            weigh: |issue: &Issue| u64::from(issue.request.count),
            full: FULL_BATCH,
            ..Batching::of(MAX_BATCH, |a: &Issue, b: &Issue| a.bounds == b.bounds)
        };
        let combiner = Combiner::new(call, undelivered, batching, patience, sizes, lifecycle.clone());
        Self { combiner }
    }

    pub(super) async fn issue(
        &self,
        order: &Order<'_>,
        claim: Option<Claim>,
        stamp: &Stamp,
    ) -> Result<Taken, IssueError> {
        let (template, stamp, key) =
            (Arc::clone(order.template), stamp.clone(), order.rule.prefix_key.clone());
        let request = IssueRequest {
            count: order.count,
            claim,
            idempotency_key: order.idempotency_key.clone(),
            subject: Arc::clone(order.subject),
            issued_at: order.now,
            reserved_until: stamp.reserved_until,
        };
        let render = move |value| {
            let mut number = String::with_capacity(32);
            template.render(&stamp.context(key.as_str()), value, &mut number);
            number
        };
        let issue =
            Issue { bounds: order.bounds, request, render: Arc::new(render), hold: order.hold.clone() };
        Ok(self.combiner.submit(order.counter(), issue).await?)
    }
}
