//! Redis as the authority of the counters of a node.

use std::time::Duration;

use tokio::sync::{broadcast, watch};

use super::authority::{RedisAuthority, periods_key};
use crate::{
    counter::{Counter, SequenceValue},
    prefix_key::PrefixKey,
    store::{
        Claim, Reachable, StoreFuture,
        counters::{AuthorityLink, Closed, PinOutcome, Shown},
        protocol::counter::{Abandon, Abandoned, Advance, Fenced, Generation, Reply, Stride, Take},
        redis::{STORE, client::Client},
    },
};

/// See the module.
#[derive(Clone, Debug)]
pub struct RedisLink {
    client: Client,
    authority: RedisAuthority,
}

impl RedisLink {
    /// The way that a connection gives.
    pub fn new(client: Client) -> Self {
        let authority = RedisAuthority::new(client.clone());
        Self { client, authority }
    }
}

/// Calls for people rather than for numbers say at once that Redis is away: nothing stands in for it.
impl AuthorityLink for RedisLink {
    fn store(&self) -> &'static str {
        STORE
    }

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
        stride: Stride,
        deadline: Duration,
    ) -> StoreFuture<'a, Advance> {
        Box::pin(async move {
            self.client.at_hand("advance", &cursor_key(counter)).await?;
            self.authority.advance(counter, to, stride, deadline).await
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

    fn list_marker(&self, key: &PrefixKey) -> String {
        self.client.marker_key(&periods_key(key))
    }

    fn cursor<'a>(
        &'a self,
        counter: &'a Counter,
        deadline: Duration,
    ) -> StoreFuture<'a, Option<SequenceValue>> {
        Box::pin(self.authority.cursor(counter, deadline))
    }

    fn look<'a>(&'a self, marker: &'a str, deadline: Duration) -> StoreFuture<'a, Generation> {
        Box::pin(self.authority.look(marker, deadline))
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
