//! The marks of worker slots.

use std::{future::ready, ops::Range};

use super::StoreFuture;
use crate::store::protocol::window::{
    AcquireRequest, Acquired, Claim, Claimed, Extension, Holding, IdMillis, Nonce, Renewed,
};

/// Keeps the marks of worker slots. Invariant: windows of one slot are disjoint; [`crate::store::protocol::window`] says how.
pub trait WorkerStore: Send + Sync + 'static {
    /// Records layout, epoch and data centre on first use; answers what is recorded. A worker that disagrees must not issue.
    fn pin_layout<'a>(&'a self, layout: &'a str) -> StoreFuture<'a, String>;

    /// Hands out a free slot: its window begins at the mark that was found. Ask again, under the same nonce, until it is answered.
    fn acquire(&self, request: AcquireRequest) -> StoreFuture<'_, Acquired>;

    /// Moves the mark of the present holding on, and puts the holding back where the store may have forgotten it.
    fn renew(&self, holding: Holding, extension: Extension) -> StoreFuture<'_, Renewed>;

    /// How many of the slots could be handed out now; `None` where nobody else takes any.
    fn free_slots(&self, _slots: Range<u32>) -> StoreFuture<'_, Option<u32>> {
        Box::pin(ready(Ok(None)))
    }

    /// mark = max(start, last), free at once. Only after issuing has stopped; does nothing for another holding.
    fn release(&self, holding: Holding, last: IdMillis) -> StoreFuture<'_, ()>;
}

/// Confirms the marks of worker slots that another store hands out and may forget: what is not confirmed does not count.
/// [`Mark`](crate::store::protocol::window::Mark) says how.
pub trait MarkStore: Send + Sync + 'static {
    /// The layout, epoch and data centre that are recorded: of a data centre whose IDs could be those of this one, or else of this one.
    fn layout<'a>(&'a self, wanted: &'a str) -> StoreFuture<'a, Option<String>>;

    /// Records them on first use; answers what is recorded then.
    fn pin_layout<'a>(&'a self, wanted: &'a str) -> StoreFuture<'a, String>;

    /// Confirms a window, or the extension of one; the same claim again gets the same answer.
    fn claim(&self, claim: Claim) -> StoreFuture<'_, Claimed>;

    /// The holder has stopped and issued nothing above `last`; does nothing for another holding.
    fn give_up(&self, slot: u32, nonce: Nonce, last: IdMillis) -> StoreFuture<'_, ()>;

    /// Whether it can be asked.
    fn is_reachable(&self) -> bool;
}
