//! What a process keeps on its own disk for a counter that it shares with others.

use std::time::Duration;

use crate::{
    counter::{Counter, SequenceValue},
    prefix_key::PrefixKey,
    store::{
        StoreFuture,
        protocol::counter::{Incarnation, Limits, NodeState},
    },
};

/// One counter of this node, as it outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Kept {
    /// Which.
    pub(in crate::store) counter: Counter,
    /// As whom the process is known to the counter's authority.
    pub(in crate::store) incarnation: Incarnation,
    /// As whom processes before it were, the latest last.
    pub(in crate::store) ancestors: Vec<Incarnation>,
    /// Within what the counter moved when it was used last.
    pub(in crate::store) limits: Limits,
    /// The segment, what was issued from it and others, and the highest cursor that was heard of.
    pub(in crate::store) state: NodeState,
}

/// Keeps segments. One process at a time; whoever finds a row may issue from its segment, since its writer is gone.
pub(in crate::store) trait SegmentStore: Send + Sync + 'static {
    /// Every row with a segment.
    fn held(&self) -> StoreFuture<'_, Vec<Kept>>;

    /// One row.
    fn kept<'a>(&'a self, counter: &'a Counter) -> StoreFuture<'a, Option<Kept>>;

    /// Writes rows, all or none, in place of those of the same counters. Writes take effect in the order of the calls, also
    /// where nobody waits for the answer of the first any more.
    fn keep(&self, rows: Vec<Kept>) -> StoreFuture<'_, ()>;

    /// The counters of rows without a segment, those that were written last first.
    fn resting(&self) -> StoreFuture<'_, Vec<Counter>>;

    /// The highest value of any counter of a key that is known here to be drawn, held or issued.
    fn highest<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, SequenceValue>;

    /// Writes of rows without a segment who speaks for them now, and what is known; not that they were used. Rows that somebody
    /// else has written since, or whose counters hold a segment, stay as they are.
    fn pass_on(&self, rows: Vec<Kept>) -> StoreFuture<'_, ()>;

    /// Notes that the authorities have confirmed that these processes hold nothing of these counters any more. A row that holds a
    /// segment, or that somebody else has written since, stays as it is.
    fn left(&self, gone: Vec<(Counter, Incarnation)>) -> StoreFuture<'_, ()>;

    /// Forgets up to `limit` counters of periods that were left at least `kept_for` ago and not used since; answers how many. What
    /// is forgotten here is no help any more where the authority forgets it too.
    fn prune(&self, kept_for: Duration, limit: u32) -> StoreFuture<'_, u64>;
}
