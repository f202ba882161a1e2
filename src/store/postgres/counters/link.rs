//! PostgreSQL as the authority of the counters of a node.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::{broadcast, watch};

use super::{
    SWAP,
    calls::{Fence, GiveUp, MoveUp, Serve},
    list::{self, Blessed, Close, Look},
    marker::Witness,
    step::{self, Call, Step},
};
use crate::{
    counter::{Counter, SequenceValue},
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    store::{
        Claim, Reachable, StoreError, StoreFuture,
        counters::{AuthorityLink, Closed, PinOutcome, Shown},
        postgres::{PostgresStore, STORE, failure::unavailable},
        protocol::counter::{Abandon, Abandoned, Advance, Fenced, Generation, Reply, Stride, Take},
    },
};

/// Swaps asked for that a node may be behind; one that is lost is made up for by a beat.
const BACKLOG: usize = 1_024;

/// How long it may take to look at the marker of a database that has just come.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// The one marker of a database.
const MARKER: &str = "numgen_counter_marker";

/// A key draws under this turn, always: see `records.rs`.
const TURN: u64 = 1;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct PostgresLink {
    store: PostgresStore,
    witness: Arc<Witness>,
    swaps: broadcast::Sender<String>,
}

impl PostgresLink {
    /// The way that a store gives; hears what other nodes want swapped until `lifecycle` is drained. Sees to it that a database that is
    /// new, or another, is noticed when it comes, rather than with the first request.
    pub fn new(store: PostgresStore, lifecycle: &Lifecycle) -> Self {
        let link = Self { store, witness: Arc::default(), swaps: broadcast::Sender::new(BACKLOG) };
        lifecycle.spawn(link.clone().listen(lifecycle.clone()));
        link
    }

    async fn listen(self, lifecycle: Lifecycle) {
        let mut messages = self.store.subscribe(SWAP);
        let mut reachable = self.store.reachable();
        loop {
            tokio::select! {
                () = lifecycle.draining() => return,
                word = messages.next() => {
                    // Nobody listens before the first counter. What was lost is made up for by a beat.
                    let _nobody = if word.is_empty() { Ok(0) } else { self.swaps.send(word) };
                }
                changed = reachable.changed() => match changed {
                    Ok(()) => if *reachable.borrow_and_update() == Reachable::Yes {
                        self.bless().await;
                    },
                    Err(_closed) => return,
                }
            }
        }
    }

    /// Looks at the marker of a database that has just come.
    async fn bless(&self) {
        if let Err(error) = self.observe(LOOK_PATIENCE).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "the marker of counters was not looked at; the first message will");
        }
    }

    fn ask_marker(&self) -> Result<Look, StoreError> {
        Ok(Look { fresh: fresh()?, seen: self.witness.furthest(), call_ms: self.store.longest_call_ms() })
    }

    /// The generation that is in force; another one where the database may have forgotten.
    async fn observe(&self, deadline: Duration) -> Result<Generation, StoreError> {
        let look = self.ask_marker()?;
        let blessed = self.store.transact_within(deadline, "bless", &look, |connection, look| {
            Box::pin(list::bless(connection, look))
        });
        let Blessed { instance, server } = blessed.await?;
        self.witness.note(instance.generation, &server);
        Ok(instance.generation)
    }

    async fn step<S: Step + Send>(
        &self,
        operation: &'static str,
        counter: &Counter,
        step: S,
        deadline: Duration,
    ) -> Result<S::Answer, StoreError> {
        let call = Call { counter, step, fresh: fresh()?, seen: self.witness.furthest() };
        let done = self
            .store
            .transact_within(deadline, operation, &call, |connection, call| {
                Box::pin(step::run(connection, call))
            })
            .await?;
        if let Some(generation) = done.generation {
            self.witness.note(generation, &done.server);
        }
        Ok(done.answer)
    }
}

impl AuthorityLink for PostgresLink {
    fn store(&self) -> &'static str {
        STORE
    }

    fn take<'a>(
        &'a self,
        counter: &'a Counter,
        take: &'a Take,
        deadline: Duration,
    ) -> StoreFuture<'a, Reply> {
        Box::pin(self.step("take", counter, Serve(take), deadline))
    }

    fn pin<'a>(
        &'a self,
        _counter: &'a Counter,
        _claim: &'a Claim,
        _moved: Option<u64>,
        _deadline: Duration,
    ) -> StoreFuture<'a, PinOutcome> {
        Box::pin(std::future::ready(Ok(PinOutcome::Draw { turn: TURN })))
    }

    fn enlist<'a>(&'a self, counter: &'a Counter, scheme: u64, deadline: Duration) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.store
                .transact_within(deadline, "enlist", &(counter, scheme), |connection, ask| {
                    Box::pin(list::enlist(connection, ask))
                })
                .await
        })
    }

    fn close<'a>(&'a self, key: &'a PrefixKey, scheme: u64, deadline: Duration) -> StoreFuture<'a, Closed> {
        Box::pin(async move {
            let ask = Close { key, scheme, look: self.ask_marker()? };
            self.store
                .transact_within(deadline, "close", &ask, |connection, ask| {
                    Box::pin(list::close(connection, ask))
                })
                .await
        })
    }

    fn fence<'a>(&'a self, counter: &'a Counter, scheme: u64, deadline: Duration) -> StoreFuture<'a, Fenced> {
        Box::pin(self.step("fence", counter, Fence { scheme }, deadline))
    }

    fn show<'a>(&'a self, key: &'a PrefixKey, deadline: Duration) -> StoreFuture<'a, Vec<Shown>> {
        Box::pin(async move {
            self.store
                .transact_within(deadline, "show", &key, |connection, key| {
                    Box::pin(list::show(connection, key))
                })
                .await
        })
    }

    fn advance<'a>(
        &'a self,
        counter: &'a Counter,
        to: SequenceValue,
        stride: Stride,
        deadline: Duration,
    ) -> StoreFuture<'a, Advance> {
        Box::pin(self.step("advance", counter, MoveUp { to, stride }, deadline))
    }

    fn abandon<'a>(
        &'a self,
        counter: &'a Counter,
        what: &'a Abandon,
        deadline: Duration,
    ) -> StoreFuture<'a, Abandoned> {
        Box::pin(self.step("abandon", counter, GiveUp(what), deadline))
    }

    fn marker(&self, _counter: &Counter) -> String {
        MARKER.to_owned()
    }

    fn list_marker(&self, _key: &PrefixKey) -> String {
        MARKER.to_owned()
    }

    fn cursor<'a>(
        &'a self,
        counter: &'a Counter,
        deadline: Duration,
    ) -> StoreFuture<'a, Option<SequenceValue>> {
        Box::pin(async move {
            self.store
                .transact_within(deadline, "cursor", &counter, |connection, counter| {
                    Box::pin(list::cursor(connection, counter))
                })
                .await
        })
    }

    fn look<'a>(&'a self, _marker: &'a str, deadline: Duration) -> StoreFuture<'a, Generation> {
        Box::pin(self.observe(deadline))
    }

    fn reachable(&self) -> watch::Receiver<Reachable> {
        self.store.reachable()
    }

    fn swaps(&self) -> broadcast::Receiver<String> {
        self.swaps.subscribe()
    }
}

impl fmt::Debug for PostgresLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLink").field("store", &self.store).finish_non_exhaustive()
    }
}

/// The name of a generation, should one have to begin.
fn fresh() -> Result<Generation, StoreError> {
    getrandom::u64().map(Generation).map_err(|error| unavailable("random", &error.to_string()))
}
