//! How a node reaches the authority of its counters: Redis in production, the authority itself in tests.

use std::time::Duration;

use tokio::sync::{broadcast, watch};

use super::authority::{Closed, RedisAuthority, Shown, periods_key};
use crate::{
    counter::{Counter, SequenceValue},
    prefix_key::PrefixKey,
    store::{
        Claim, StoreFuture,
        protocol::counter::{Abandon, Abandoned, Advance, Fenced, Reply, Take},
        redis::{
            client::{Client, Reachable},
            idempotency::PinOutcome,
        },
    },
};

/// The calls of an authority. After `StoreError::Unavailable` nothing happened; after `StoreError::Timeout` nobody knows.
pub(super) trait AuthorityLink: Send + Sync + 'static {
    /// Sends one message; may be sent again.
    fn take<'a>(&'a self, counter: &'a Counter, take: &'a Take, deadline: Duration)
    -> StoreFuture<'a, Reply>;

    /// Pins a key to a counter before it is drawn for there; `moved` is a turn that is void there by now.
    fn pin<'a>(
        &'a self,
        counter: &'a Counter,
        claim: &'a Claim,
        moved: Option<u64>,
        deadline: Duration,
    ) -> StoreFuture<'a, PinOutcome>;

    /// Puts a counter on the list of its prefix key; `StoreError::Superseded` where the scheme was retired.
    fn enlist<'a>(&'a self, counter: &'a Counter, scheme: u64, deadline: Duration) -> StoreFuture<'a, ()>;

    /// Closes the list of a prefix key to lower schemes; answers who is on it.
    fn close<'a>(&'a self, key: &'a PrefixKey, scheme: u64, deadline: Duration) -> StoreFuture<'a, Closed>;

    /// Closes a counter to lower schemes.
    fn fence<'a>(&'a self, counter: &'a Counter, scheme: u64, deadline: Duration) -> StoreFuture<'a, Fenced>;

    /// The counters of a prefix key, in period order.
    fn show<'a>(&'a self, key: &'a PrefixKey, deadline: Duration) -> StoreFuture<'a, Vec<Shown>>;

    /// Moves a counter up.
    fn advance<'a>(
        &'a self,
        counter: &'a Counter,
        to: SequenceValue,
        deadline: Duration,
    ) -> StoreFuture<'a, Advance>;

    /// Gives up what nodes hold that do not answer.
    fn abandon<'a>(
        &'a self,
        counter: &'a Counter,
        what: &'a Abandon,
        deadline: Duration,
    ) -> StoreFuture<'a, Abandoned>;

    /// The name of the marker that tells whether what is known of a counter was forgotten.
    fn marker(&self, counter: &Counter) -> String;

    /// Whether it can be asked.
    fn reachable(&self) -> watch::Receiver<Reachable>;

    /// Names of counters in whose way a segment lies that its node should swap.
    fn swaps(&self) -> broadcast::Receiver<String>;
}

/// Redis.
pub(super) struct RedisLink {
    pub(super) client: Client,
    pub(super) authority: RedisAuthority,
}

/// Calls for people rather than for numbers say at once that Redis is away: nothing stands in for it.
impl AuthorityLink for RedisLink {
    fn take<'a>(
        &'a self,
        counter: &'a Counter,
        take: &'a Take,
        deadline: Duration,
    ) -> StoreFuture<'a, Reply> {
        Box::pin(self.authority.take(counter, take, deadline))
    }

    fn pin<'a>(
        &'a self,
        counter: &'a Counter,
        claim: &'a Claim,
        moved: Option<u64>,
        deadline: Duration,
    ) -> StoreFuture<'a, PinOutcome> {
        Box::pin(self.authority.resolve_pin(claim, counter, moved, deadline))
    }

    fn enlist<'a>(&'a self, counter: &'a Counter, scheme: u64, deadline: Duration) -> StoreFuture<'a, ()> {
        Box::pin(self.authority.enlist(counter, scheme, deadline))
    }

    fn close<'a>(&'a self, key: &'a PrefixKey, scheme: u64, deadline: Duration) -> StoreFuture<'a, Closed> {
        Box::pin(async move {
            self.client.at_hand("close", &periods_key(key)).await?;
            self.authority.close(key, scheme, deadline).await
        })
    }

    fn fence<'a>(&'a self, counter: &'a Counter, scheme: u64, deadline: Duration) -> StoreFuture<'a, Fenced> {
        Box::pin(self.authority.fence(counter, scheme, deadline))
    }

    fn show<'a>(&'a self, key: &'a PrefixKey, deadline: Duration) -> StoreFuture<'a, Vec<Shown>> {
        Box::pin(async move {
            self.client.at_hand("show", &periods_key(key)).await?;
            self.authority.show(key, deadline).await
        })
    }

    fn advance<'a>(
        &'a self,
        counter: &'a Counter,
        to: SequenceValue,
        deadline: Duration,
    ) -> StoreFuture<'a, Advance> {
        Box::pin(async move {
            self.client.at_hand("advance", &cursor_key(counter)).await?;
            self.authority.advance(counter, to, deadline).await
        })
    }

    fn abandon<'a>(
        &'a self,
        counter: &'a Counter,
        what: &'a Abandon,
        deadline: Duration,
    ) -> StoreFuture<'a, Abandoned> {
        Box::pin(async move {
            self.client.at_hand("abandon", &cursor_key(counter)).await?;
            self.authority.abandon(counter, what, deadline).await
        })
    }

    fn marker(&self, counter: &Counter) -> String {
        self.client.marker_key(&cursor_key(counter))
    }

    fn reachable(&self) -> watch::Receiver<Reachable> {
        self.client.reachable()
    }

    fn swaps(&self) -> broadcast::Receiver<String> {
        self.client.subscribe(RedisAuthority::SWAP_CHANNEL)
    }
}

fn cursor_key(counter: &Counter) -> String {
    format!("sequence:{counter}")
}
