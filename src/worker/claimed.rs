//! A fixed worker ID (`NUMGEN_WORKER_ID`) where nodes share a store.
//!
//! The window is that of the local store: what this data directory has issued, it knows by itself. The shared store keeps a claim
//! to the slot beside it, a window of its own that nobody issues from: so a second claimant is refused, and leases avoid the slot, also
//! after the claim has lapsed, until it is given up: the claimant may be cut off from that store, and issue.
//! Without the shared store the operator's word counts. So nothing here waits for it as long as a call to it may take: an answer that is
//! older than a second is dropped, and a window of the local store lasts no longer than that.
//!
//! Invariants: what is issued lies above what the shared store had given to others when the claim was made; once a claim stands, its
//! holder has the layout that is pinned beside it, or issues no more.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;

use crate::store::{
    AcquireRequest, Acquired, Extension, Generation, Holding, IdMillis, Nonce, Renewed, StoreError,
    StoreFuture, Tenure, WorkerStore,
};

/// How long a claim keeps a second claimant out after its own has crashed, or was cut off.
const CLAIM_MS: u64 = 30_000;

/// How long a process that has its first window behind it waits for the shared store, well below the window: one that hangs must not
/// end it.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long it waits for the first claim: a connection may have to be made first, and a second claimant is better refused before it
/// issues than after. What is left of the second is the local disk's.
const FIRST_PATIENCE: Duration = Duration::from_millis(600);

/// The local store, with the claim in the shared one.
pub struct Claimed {
    local: Arc<dyn WorkerStore>,
    shared: Arc<dyn WorkerStore>,
    /// Names the data directory, so that the process which follows in it takes over the claim.
    identity: Nonce,
    claim: Mutex<Option<Holding>>,
    layout: Mutex<Pinned>,
    /// This process has had a window.
    has_begun: AtomicBool,
}

/// What is known of the layout in the shared store.
#[derive(Clone, Default)]
struct Pinned {
    /// That of this process.
    wanted: Option<String>,
    /// The memory in which it was found, or written.
    found_in: Option<Generation>,
}

/// What became of a claim.
enum Claim {
    /// It stands. Nobody else was given timestamps above this one.
    Stands(IdMillis),
    /// Not now: the answer for whoever asked.
    Refused(Acquired),
}

impl Claimed {
    /// A store for the slot of one data directory.
    pub fn new(local: Arc<dyn WorkerStore>, shared: Arc<dyn WorkerStore>, identity: Nonce) -> Self {
        let (claim, layout) = (Mutex::default(), Mutex::default());
        Self { local, shared, identity, claim, layout, has_begun: AtomicBool::new(false) }
    }

    fn claim(&self) -> Option<Holding> {
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, claim: Option<Holding>) {
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = claim;
    }

    fn layout(&self) -> MutexGuard<'_, Pinned> {
        self.layout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the slot, or takes over the claim of the process before.
    async fn make_claim(&self, request: &AcquireRequest) -> Result<Claim, StoreError> {
        let request = AcquireRequest {
            nonce: self.identity,
            window_ms: CLAIM_MS,
            tenure: Tenure::Fixed,
            ..request.clone()
        };
        // Twice: the claim of the process before may have run out, or be to another slot, which the first round finds and clears.
        for _ in 0..2 {
            let claim = match self.shared.acquire(request.clone()).await? {
                Acquired::Held(claim) => claim,
                refused @ (Acquired::NoSlot | Acquired::Wait(_)) => return Ok(Claim::Refused(refused)),
            };
            if !request.slots.contains(&claim.slot) {
                // The process before had another ID. It is gone, and may have issued above its mark: so that slot stays reserved.
                self.shared.release(claim, claim.mark).await?;
                continue;
            }
            if self.extend(claim, claim.now, request.ttl_ms).await? {
                return Ok(Claim::Stands(claim.start));
            }
        }
        Ok(Claim::Refused(Acquired::NoSlot))
    }

    /// Renews the claim; answers whether it stands.
    async fn extend(&self, claim: Holding, carried: IdMillis, ttl_ms: u64) -> Result<bool, StoreError> {
        let extension = Extension { carried, window_ms: CLAIM_MS, ttl_ms, tenure: Tenure::Fixed };
        let renewed = self.shared.renew(claim, extension).await?;
        self.remember(match renewed {
            Renewed::Extended { mark, generation, .. } => Some(Holding { mark, generation, ..claim }),
            Renewed::Lost => None,
        });
        Ok(self.claim().is_some())
    }

    /// Gives the slot up, for leases too: nobody issues as this worker any more, and nothing above `last` was issued.
    async fn give_up(&self, claim: Holding, last: IdMillis) -> Result<(), StoreError> {
        let farewell = Extension { carried: last, window_ms: 0, ttl_ms: 0, tenure: Tenure::Lease };
        match self.shared.renew(claim, farewell).await? {
            Renewed::Extended { mark, generation, .. } => {
                self.shared.release(Holding { mark, generation, ..claim }, last).await
            }
            Renewed::Lost => Ok(()),
        }
    }

    /// Whether this process may not go on, and why.
    async fn objection(&self, slot: u32, extension: &Extension) -> Option<&'static str> {
        if self.is_contested(slot, extension).await {
            return Some("NUMGEN_WORKER_ID: this worker ID is in use by another node");
        }
        let differs = "NUMGEN_SNOWFLAKE_LAYOUT, NUMGEN_SNOWFLAKE_EPOCH: other nodes have another layout";
        self.is_laid_out_otherwise().await.then_some(differs)
    }

    /// Whether the memory that has the claim has another layout. It could not be asked when this process began, or has forgotten.
    async fn is_laid_out_otherwise(&self) -> bool {
        let Some(claim) = self.claim() else { return false };
        let Pinned { wanted, found_in } = self.layout().clone();
        let Some(wanted) = wanted.filter(|_| found_in != Some(claim.generation)) else { return false };
        let Ok(recorded) = self.shared.pin_layout(&wanted).await else { return false };
        if recorded == wanted {
            self.layout().found_in = Some(claim.generation);
        }
        recorded != wanted
    }

    /// Whether somebody else has the slot. While the shared store is away or settles, nobody is known to.
    async fn is_contested(&self, slot: u32, extension: &Extension) -> bool {
        if let Some(claim) = self.claim() {
            match self.extend(claim, extension.carried, extension.ttl_ms).await {
                Ok(false) => {}
                Ok(true) | Err(_) => return false,
            }
        }
        let request = AcquireRequest {
            nonce: self.identity,
            slots: slots_of(slot),
            window_ms: CLAIM_MS,
            ttl_ms: extension.ttl_ms,
            tenure: Tenure::Fixed,
        };
        matches!(self.make_claim(&request).await, Ok(Claim::Refused(Acquired::NoSlot)))
    }
}

fn slots_of(slot: u32) -> std::ops::Range<u32> {
    slot..slot + 1
}

impl WorkerStore for Claimed {
    fn pin_layout<'a>(&'a self, layout: &'a str) -> StoreFuture<'a, String> {
        Box::pin(async move {
            let recorded = self.local.pin_layout(layout).await?;
            self.layout().wanted = Some(layout.to_owned());
            if recorded != layout {
                return Ok(recorded);
            }
            let pinned = self.shared.pin_layout(layout);
            // Before the first window there is none to run out.
            if !self.has_begun.load(Ordering::Relaxed) {
                return Ok(pinned.await.unwrap_or(recorded));
            }
            Ok(timeout(PATIENCE, pinned).await.unwrap_or(Ok(recorded.clone())).unwrap_or(recorded))
        })
    }

    fn acquire(&self, request: AcquireRequest) -> StoreFuture<'_, Acquired> {
        Box::pin(async move {
            let patience = if self.has_begun.load(Ordering::Relaxed) { PATIENCE } else { FIRST_PATIENCE };
            let floor = match timeout(patience, self.make_claim(&request)).await {
                Ok(Ok(Claim::Stands(floor))) => floor,
                Ok(Ok(Claim::Refused(answer))) => return Ok(answer),
                // The operator's word.
                Ok(Err(_)) | Err(_) => 0,
            };
            let answer = self.local.acquire(request).await?;
            let Acquired::Held(holding) = answer else { return Ok(answer) };
            self.has_begun.store(true, Ordering::Relaxed);
            Ok(Acquired::Held(Holding { start: holding.start.max(floor), ..holding }))
        })
    }

    fn renew(&self, holding: Holding, extension: Extension) -> StoreFuture<'_, Renewed> {
        Box::pin(async move {
            let renewed = self.local.renew(holding, extension).await?;
            if renewed == Renewed::Lost {
                return Ok(Renewed::Lost);
            }
            let objection = timeout(PATIENCE, self.objection(holding.slot, &extension)).await;
            if let Ok(Some(objection)) = objection {
                tracing::error!(worker = holding.slot, "{objection}");
                // The mark stays where it is: what was drawn up to there may still be answered.
                self.local.release(holding, holding.mark).await?;
                return Ok(Renewed::Lost);
            }
            Ok(renewed)
        })
    }

    fn free_slots(&self, slots: Range<u32>) -> StoreFuture<'_, Option<u32>> {
        self.shared.free_slots(slots)
    }

    fn release(&self, holding: Holding, last: IdMillis) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.local.release(holding, last).await?;
            match self.claim() {
                Some(claim) => self.give_up(claim, last).await,
                None => Ok(()),
            }
        })
    }
}
