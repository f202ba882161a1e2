//! Confirming and voiding, many at a time: those who wait for rows of one prefix key share a transaction.
//!
//! One after the other they would stand in one queue, the lock of their counter, and draws behind them.
//!
//! # Invariants
//!
//! - A prefix key has one shared transaction under way in this process.
//! - A step is taken by a transaction that began after it was asked for, in the order of asking.
//! - A step whose caller has gone before that is left out.
//! - What becomes of a step does not depend on those beside it: where a shared transaction fails for a reason that may be that of one
//!   of them, each is taken by itself. But they wait together: also for a counter of another period that somebody holds.

use std::{
    collections::{HashMap, hash_map::Entry},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;
use futures_util::future::join_all;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    super::{
        PostgresStore,
        failure::{unavailable, unknown},
    },
    changes::{self, Step},
};
use crate::{
    prefix_key::PrefixKey,
    store::{StoreError, Transitioned},
};

const OPERATION: &str = "transition";

/// How many share a transaction at most: those who draw wait for it.
const MOST: usize = 128;

/// Who waits for the next transaction of a prefix key. A key stands here as long as one is under way.
#[derive(Default)]
pub(super) struct Queues {
    waiting: Mutex<HashMap<PrefixKey, Vec<Waiting>, RandomState>>,
}

struct Waiting {
    step: Step,
    answer: oneshot::Sender<Result<Transitioned, StoreError>>,
}

/// Whether somebody works for a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Begins,
    UnderWay,
}

impl Queues {
    fn waiting(&self) -> MutexGuard<'_, HashMap<PrefixKey, Vec<Waiting>, RandomState>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, key: &PrefixKey, waiting: Waiting) -> Service {
        match self.waiting().entry(key.clone()) {
            Entry::Occupied(queue) => {
                queue.into_mut().push(waiting);
                Service::UnderWay
            }
            Entry::Vacant(place) => {
                place.insert(vec![waiting]);
                Service::Begins
            }
        }
    }

    /// The next to be served; `None` ends the service.
    fn next(&self, key: &PrefixKey) -> Option<Vec<Waiting>> {
        let mut queues = self.waiting();
        let queue = queues.get_mut(key)?;
        queue.retain(|waiting| !waiting.answer.is_closed());
        let rest = queue.split_off(queue.len().min(MOST));
        let next = mem::replace(queue, rest);
        if next.is_empty() {
            queues.remove(key);
            return None;
        }
        Some(next)
    }
}

/// Takes a step, with those that are asked for meanwhile.
pub(super) async fn take(store: &PostgresStore, step: Step) -> Result<Transitioned, StoreError> {
    let until = Instant::now() + store.shared.timeout;
    let (answer, outcome) = oneshot::channel();
    let key = step.key.clone();
    if store.books().steps.join(&key, Waiting { step, answer }) == Service::Begins {
        let shared = &store.shared;
        // Apart from who asks: he may go, and others wait.
        shared.lifecycle.spawn_on(&shared.home, serve(store.clone(), key));
    }
    match timeout_at(until, outcome).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => Err(unknown(OPERATION)),
    }
}

/// Who works for a queue.
struct Servant<'a> {
    queues: &'a Queues,
    key: &'a PrefixKey,
}

impl Drop for Servant<'_> {
    /// After a bug nobody would ever work for those who wait: they are told that there is no answer, and the next one begins anew.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.queues.waiting().remove(self.key);
        }
    }
}

async fn serve(store: PostgresStore, key: PrefixKey) {
    let servant = Servant { queues: &store.books().steps, key: &key };
    while let Some(next) = servant.queues.next(&key) {
        let (steps, answers): (Vec<_>, Vec<_>) =
            next.into_iter().map(|waiting| (waiting.step, waiting.answer)).unzip();
        for (answer, outcome) in answers.into_iter().zip(together(&store, &steps).await) {
            // Who has gone meanwhile misses nothing: the step is taken.
            let _gone = answer.send(outcome);
        }
    }
}

/// One transaction for all; an answer for each.
async fn together(store: &PostgresStore, steps: &[Step]) -> Vec<Result<Transitioned, StoreError>> {
    let each = |error: &dyn Fn() -> StoreError| steps.iter().map(|_| Err(error())).collect();
    match store.transact_ahead(OPERATION, steps, changes::transition).await {
        Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
        Err(StoreError::Timeout { .. }) => each(&|| unknown(OPERATION)),
        Err(StoreError::Unavailable { source, .. }) => each(&|| unavailable(OPERATION, &source.to_string())),
        Err(
            error @ (StoreError::Superseded { .. }
            | StoreError::Suspended { .. }
            | StoreError::Corrupt { .. }),
        ) => {
            if steps.len() == 1 {
                vec![Err(error)]
            } else {
                apart(store, steps).await
            }
        }
    }
}

async fn apart(store: &PostgresStore, steps: &[Step]) -> Vec<Result<Transitioned, StoreError>> {
    let alone = async |step| {
        let outcomes =
            store.transact_ahead(OPERATION, std::slice::from_ref(step), changes::transition).await?;
        outcomes.into_iter().next().ok_or_else(|| unknown(OPERATION))
    };
    join_all(steps.iter().map(alone)).await
}
