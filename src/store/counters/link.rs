//! How a node reaches the authority of its counters, whatever store has it.

use std::time::Duration;

use tokio::sync::{broadcast, watch};

use super::PinOutcome;
use crate::{
    calendar::Period,
    counter::{Counter, Ranges, SequenceValue, ValueRange},
    prefix_key::PrefixKey,
    store::{
        Claim, Reachable, StoreFuture, Taken,
        protocol::{
            counter::{Abandon, Abandoned, Advance, Authority, Fenced, Generation, Reply, Stride, Take},
            grant::{Draw, Drawn, Granted, Need, Raised},
        },
    },
};

/// A counter as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its period.
    pub period: Period,
    /// When it was looked at, by the clock of the store, in ms: what [`Member::is_alive`](crate::store::protocol::counter::Member::is_alive)
    /// is to be asked with.
    pub now_ms: u64,
    /// What is kept of it, but for its idempotency records.
    pub counter: Authority,
}

/// Outcome of [`AuthorityLink::close`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// These counters of the key were ever enlisted.
    Listed(Vec<Counter>),
    /// Closed, but the store has forgotten something: the list is whole in so many ms at the earliest.
    Settling {
        /// How long, in ms.
        wait_ms: u64,
    },
}

/// The calls of an authority. After `StoreError::Unavailable` nothing happened; after `StoreError::Timeout` nobody knows.
pub trait AuthorityLink: Send + Sync + 'static {
    /// The name of the store in errors.
    fn store(&self) -> &'static str;

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

    /// Moves a counter up. Whose segment is in the way hears of it, as from a draw.
    fn advance<'a>(
        &'a self,
        counter: &'a Counter,
        to: SequenceValue,
        stride: Stride,
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

    /// The name of the marker that tells the same of the list of a prefix key.
    fn list_marker(&self, key: &PrefixKey) -> String;

    /// Where a counter stands, as far as the store knows it; reports may be under way.
    fn cursor<'a>(
        &'a self,
        counter: &'a Counter,
        deadline: Duration,
    ) -> StoreFuture<'a, Option<SequenceValue>>;

    /// The generation under a marker; a store that has forgotten begins another one, as with any other call.
    fn look<'a>(&'a self, marker: &'a str, deadline: Duration) -> StoreFuture<'a, Generation>;

    /// Whether it can be asked.
    fn reachable(&self) -> watch::Receiver<Reachable>;

    /// Names of counters in whose way a segment lies that its node should swap.
    fn swaps(&self) -> broadcast::Receiver<String>;
}

/// A counter as the one who grants its values sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lot {
    /// Its period.
    pub period: Period,
    /// Granted to other data centres and passed by them.
    pub elsewhere: Vec<ValueRange>,
    /// Granted to other data centres, which draw from it: (the data centre, which values).
    pub held: Vec<(u32, ValueRange)>,
    /// Granted to this data centre and left by a generation that was followed, and since when, in ms.
    pub left: Vec<(ValueRange, u64)>,
    /// Drawn for once, by whichever node.
    pub drawn: Vec<ValueRange>,
    /// Drawn for once and handed back, and since when, in ms.
    pub returned: Vec<(ValueRange, u64)>,
}

/// The calls of whoever grants values to this node's authority, and to this node while that is away. Every one may be made again.
pub trait GrantLink: Send + Sync + 'static {
    /// Asks for the next grant; `marker` names the memory whose generation it is for.
    fn fetch<'a>(
        &'a self,
        counter: &'a Counter,
        marker: &'a str,
        need: &'a Need,
        deadline: Duration,
    ) -> StoreFuture<'a, Granted>;

    /// Draws for once; `None`: what the authority has issued of this counter is not known here.
    fn draw<'a>(
        &'a self,
        counter: &'a Counter,
        draw: &'a Draw,
        deadline: Duration,
    ) -> StoreFuture<'a, Option<Drawn>>;

    /// Takes back what was drawn for once and will not be issued.
    fn give_back<'a>(
        &'a self,
        counter: &'a Counter,
        values: &'a [ValueRange],
        deadline: Duration,
    ) -> StoreFuture<'a, ()>;

    /// Grants nothing to schemes below from now on; answers the highest value that was granted of any counter of the key.
    fn retire<'a>(
        &'a self,
        key: &'a PrefixKey,
        scheme: u64,
        deadline: Duration,
    ) -> StoreFuture<'a, SequenceValue>;

    /// Grants only above `to` from now on.
    fn raise<'a>(
        &'a self,
        counter: &'a Counter,
        to: SequenceValue,
        deadline: Duration,
    ) -> StoreFuture<'a, Raised>;

    /// Records what a key was given, unless it was given something before: then that is the answer.
    fn remember(&self, claim: Claim, values: Ranges) -> StoreFuture<'_, Taken>;

    /// What a key was given; `None`, if it was given nothing or its record has expired when the claim is made.
    fn recall(&self, claim: Claim) -> StoreFuture<'_, Option<Taken>>;

    /// The counters of a prefix key.
    fn lots<'a>(&'a self, key: &'a PrefixKey, deadline: Duration) -> StoreFuture<'a, Vec<Lot>>;

    /// Whether it can be asked.
    fn reachable(&self) -> watch::Receiver<Reachable>;
}
