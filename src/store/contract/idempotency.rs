//! What a request with an idempotency key was given.

use std::sync::Arc;

use super::StoreFuture;
use crate::{clock::UnixMillis, counter::Ranges};

/// What an `Idempotency-Key` is claimed with, before anything is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The key in its scope: subject, prefix key and the caller's key, unambiguously joined. Opaque here.
    pub scoped_key: Arc<str>,
    /// Digest of what was asked for; the same key with another digest is a mismatch.
    pub fingerprint: [u8; 32],
    /// Everything but the values that is needed to write the same answer again. Opaque here.
    pub stamp: Arc<str>,
    /// When the record was made; a record past `expires_at` counts as absent.
    pub claimed_at: UnixMillis,
    /// When it may be forgotten.
    pub expires_at: UnixMillis,
}

/// What the first request with a key was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The stamp of the first claim.
    pub stamp: Arc<str>,
    /// The values that it was given.
    pub values: Ranges,
}

/// Outcome of one request of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// These values are the caller's, ascending; their number is the count that was asked for.
    Fresh(Ranges),
    /// The same, while the store is away: from the segment of this node.
    Segment(Ranges),
    /// The key was used before for the same request: nothing was drawn.
    Replayed(Recorded),
    /// The key was used before for another request: nothing was drawn.
    Mismatch,
    /// The counter cannot give that many values up to its limit: nothing was drawn. Smaller requests behind it may succeed.
    Overflow,
    /// The store is away and nothing of this node may stand in: nothing was drawn, or what the same key is given later.
    Away,
}

/// Remembers the answers of modes that draw their values elsewhere (snowflake).
pub trait IdempotencyStore: Send + Sync + 'static {
    /// Records `values` under the claim, unless the key is taken: then `Replayed` or `Mismatch`, and `values` are dropped.
    fn remember(&self, claim: Claim, values: Ranges) -> StoreFuture<'_, Taken>;

    /// Deletes records that expired before `now`, a bounded number at a time; answers how many.
    fn forget_expired(&self, now: UnixMillis) -> StoreFuture<'_, u64>;
}
