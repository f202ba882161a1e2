//! Which counter an idempotency key draws from: what a node asks before it draws under a key.

use aws_lc_rs::digest::{SHA256, digest};

use crate::store::{Claim, Recorded, protocol::counter::ClaimAsk};

/// What a key that is about to be drawn for is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinOutcome {
    /// Send a TAKE with this claim ([`claim_ask`]) to the counter. It may find that the key was used.
    Draw {
        /// Under this turn.
        turn: u64,
    },
    /// The key was used before, elsewhere: for the same request, which got this.
    Recorded(Recorded),
    /// The key was used before, elsewhere, for another request.
    Mismatch,
}

/// The claim as a TAKE carries it.
pub fn claim_ask(claim: &Claim, count: u64, turn: u64) -> ClaimAsk {
    ClaimAsk {
        key: key_of(claim),
        fingerprint: hex(&claim.fingerprint),
        stamp: claim.stamp.to_string(),
        count,
        turn,
        claimed_at: claim.claimed_at,
        expires_at: claim.expires_at,
    }
}

/// SHA-256 of the scoped key, as hex.
pub(in crate::store) fn key_of(claim: &Claim) -> String {
    hex(digest(&SHA256, claim.scoped_key.as_bytes()).as_ref())
}

pub(in crate::store) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
