//! Windows that one store hands out and another confirms (profile *full*): Redis and PostgreSQL.
//!
//! Invariant: a holder is never told of a mark that was not confirmed. While the second store is away nobody gets a new window, and
//! those that are held reach up to the mark that was confirmed last. Nor does anybody whose layout the second store has not agreed to:
//! it knows those of other data centres.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;

use crate::store::{
    AcquireRequest, Acquired, Extension, Holding, IdMillis, MarkClaim, MarkClaimed, MarkStore, Renewed,
    StoreError, StoreFuture, WorkerStore,
};

/// How long a renewal waits to be confirmed: an answer that is a second old is dropped.
const PATIENCE: Duration = Duration::from_millis(400);

/// Slots that are tried in one round, where one after the other is refused.
const TRIES: usize = 8;

/// See the module.
pub struct Confirmed {
    leases: Arc<dyn WorkerStore>,
    marks: Arc<dyn MarkStore>,
    /// The layout of this process stands in `marks`; it stays there, whatever `leases` forgets.
    is_pinned: AtomicBool,
}

impl Confirmed {
    /// What `leases` hands out and `marks` confirms.
    pub fn new(leases: Arc<dyn WorkerStore>, marks: Arc<dyn MarkStore>) -> Self {
        Self { leases, marks, is_pinned: AtomicBool::new(false) }
    }
}

impl WorkerStore for Confirmed {
    fn pin_layout<'a>(&'a self, layout: &'a str) -> StoreFuture<'a, String> {
        Box::pin(async move {
            if self.is_pinned.load(Ordering::Relaxed) {
                return self.leases.pin_layout(layout).await;
            }
            // Whoever is refused by one store leaves nothing behind in the other: it would bind those who come with the right layout.
            if let Some(other) = self.marks.layout(layout).await?.filter(|recorded| recorded != layout) {
                return Ok(other);
            }
            let recorded = self.leases.pin_layout(layout).await?;
            if recorded != layout {
                return Ok(recorded);
            }
            let recorded = self.marks.pin_layout(layout).await?;
            self.is_pinned.store(recorded == layout, Ordering::Relaxed);
            Ok(recorded)
        })
    }

    fn acquire(&self, request: AcquireRequest) -> StoreFuture<'_, Acquired> {
        Box::pin(async move {
            for _ in 0..TRIES {
                let answer = self.leases.acquire(request.clone()).await?;
                let Acquired::Held(holding) = answer else { return Ok(answer) };
                let claim = MarkClaim {
                    slot: holding.slot,
                    nonce: holding.nonce,
                    start: holding.start,
                    mark: holding.mark,
                    window_ms: request.window_ms,
                };
                match self.marks.claim(claim).await? {
                    MarkClaimed::Confirmed { start, mark } => {
                        return Ok(Acquired::Held(Holding { start, mark, ..holding }));
                    }
                    // Another Redis, or this one before it forgot, has given the slot to somebody who may still issue.
                    MarkClaimed::Refused { mark } => self.leases.release(holding, mark).await?,
                }
            }
            Ok(Acquired::NoSlot)
        })
    }

    fn renew(&self, holding: Holding, extension: Extension) -> StoreFuture<'_, Renewed> {
        Box::pin(async move {
            let renewed = self.leases.renew(holding, extension).await?;
            let Renewed::Extended { mark, now, generation } = renewed else { return Ok(renewed) };
            let unconfirmed = Renewed::Extended { mark: holding.mark, now, generation };
            if !self.marks.is_reachable() {
                return Ok(unconfirmed);
            }
            let claim = MarkClaim {
                slot: holding.slot,
                nonce: holding.nonce,
                start: holding.start,
                mark,
                window_ms: extension.window_ms,
            };
            match timeout(PATIENCE, self.marks.claim(claim)).await {
                Ok(Ok(MarkClaimed::Confirmed { start, mark })) if start == holding.start => {
                    Ok(Renewed::Extended { mark, now, generation })
                }
                // Somebody had the slot in between: what this holding issued last may lie in their window.
                Ok(Ok(MarkClaimed::Confirmed { start, .. })) => {
                    self.marks.give_up(holding.slot, holding.nonce, start).await?;
                    self.leases.release(Holding { generation, ..holding }, start).await?;
                    Ok(Renewed::Lost)
                }
                Ok(Ok(MarkClaimed::Refused { mark })) => {
                    self.leases.release(Holding { generation, ..holding }, mark).await?;
                    Ok(Renewed::Lost)
                }
                Err(_elapsed) => Ok(unconfirmed),
                Ok(Err(StoreError::Unavailable { .. } | StoreError::Timeout { .. })) => Ok(unconfirmed),
                Ok(Err(error)) => Err(error),
            }
        })
    }

    fn free_slots(&self, slots: Range<u32>) -> StoreFuture<'_, Option<u32>> {
        self.leases.free_slots(slots)
    }

    fn release(&self, holding: Holding, last: IdMillis) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            // Either alone leaves the slot to rest until its mark has passed: that does no harm.
            let given_up = self.marks.give_up(holding.slot, holding.nonce, last).await;
            self.leases.release(holding, last).await?;
            given_up
        })
    }
}
