//! What must happen now and then, whoever asks for numbers.

use std::{sync::Arc, time::Duration};

use super::foundation::Foundation;
use crate::{lifecycle::Lifecycle, store::StoreError};

/// Reservations expire within a second of their time.
const EXPIRE_EVERY: Duration = Duration::from_millis(500);

/// Expired idempotency records are ignored at once; this only gives their space back.
const FORGET_EVERY: Duration = Duration::from_secs(60);

pub(super) fn start(base: &Foundation) {
    let Foundation { stores, clock, worker, config, background: lifecycle, .. } = base;
    let epoch = config.worker.epoch;
    let (ledgers, ids, clock) = (Arc::clone(&stores.ledgers), Arc::clone(worker.ids()), Arc::clone(clock));
    every(lifecycle, EXPIRE_EVERY, "expiring reservations", move || {
        // By its own clock, a node that is an hour ahead would end the reservations of all. Where no other was heard of, the store
        // that nodes share still has one of its own, and reservations must expire on a node without a worker ID, too.
        let now = ids.store_time(epoch).unwrap_or_else(|| clock.now());
        let store = Arc::clone(&ledgers);
        // A bounded number at a time, until none is left: more may expire at once than one call takes.
        async move {
            while store.expire_reservations(now).await? > 0 {}
            Ok(())
        }
    });
    let (records, ids) = (Arc::clone(&stores.idempotency), Arc::clone(worker.ids()));
    every(lifecycle, FORGET_EVERY, "forgetting idempotency keys", move || {
        let (store, now) = (Arc::clone(&records), ids.store_time(epoch));
        async move {
            let Some(now) = now else { return Ok(()) };
            while store.forget_expired(now).await? > 0 {}
            Ok(())
        }
    });
}

/// Does `work` at intervals until the drain; the first failure in a row is logged, and each is tried again at the next.
fn every<W, F>(lifecycle: &Lifecycle, interval: Duration, what: &'static str, work: W)
where
    W: Fn() -> F + Send + 'static,
    F: Future<Output = Result<(), StoreError>> + Send,
{
    let until = lifecycle.clone();
    lifecycle.spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failures = 0_u32;
        loop {
            tokio::select! {
                () = until.draining() => return,
                _ = ticks.tick() => {}
            }
            // However much there is left: the stores undo what they have begun.
            let outcome = tokio::select! {
                () = until.draining() => return,
                outcome = work() => outcome,
            };
            match outcome {
                Ok(()) => failures = 0,
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(error = &error as &dyn std::error::Error, "{what} failed");
                    }
                    failures = failures.saturating_add(1);
                }
            }
        }
    });
}
