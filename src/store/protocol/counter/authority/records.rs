//! What is remembered under idempotency keys: a key draws once, wherever its request goes.

use std::collections::BTreeMap;

use super::Authority;
use crate::{
    clock::UnixMillis,
    counter::ValueRange,
    store::protocol::counter::message::{ClaimAnswer, ClaimAsk},
};

/// What stands under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A draw.
    Drawn(Record),
    /// The key went on to another counter: no turn up to this one may draw here any more.
    Void {
        /// The last that may not.
        turn: u64,
    },
}

/// What was drawn under an idempotency key. A record past its end counts as absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Digest of what was asked for.
    pub fingerprint: String,
    /// What is needed to write the answer again.
    pub stamp: String,
    /// What was drawn.
    pub values: Vec<ValueRange>,
    /// Its end, by the clock of the node that asked.
    pub expires_at: UnixMillis,
}

/// Outcome of [`Authority::settle`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// This was drawn under the key.
    Drawn(Record),
    /// Nothing was, and nothing will be.
    Void,
}

impl Record {
    pub(super) fn of(claim: &ClaimAsk, values: Vec<ValueRange>) -> Self {
        Self {
            fingerprint: claim.fingerprint.clone(),
            stamp: claim.stamp.clone(),
            values,
            expires_at: claim.expires_at,
        }
    }
}

impl Authority {
    /// What a claim is answered without drawing; `None`: it draws.
    pub(super) fn recall(&self, claim: &ClaimAsk) -> Option<ClaimAnswer> {
        let record = match self.records.get(&claim.key)? {
            Entry::Void { turn } => return (claim.turn <= *turn).then_some(ClaimAnswer::Moved),
            Entry::Drawn(record) if record.expires_at <= claim.claimed_at => return None,
            Entry::Drawn(record) => record,
        };
        Some(if record.fingerprint == claim.fingerprint {
            ClaimAnswer::Replayed { stamp: record.stamp.clone(), values: record.values.clone() }
        } else {
            ClaimAnswer::Mismatch
        })
    }

    /// Says what was drawn under a key; where nothing was, nothing will be up to that turn: the key may go on to another counter.
    pub fn settle(
        records: &mut BTreeMap<String, Entry>,
        key: &str,
        turn: u64,
        claimed_at: UnixMillis,
    ) -> Settled {
        let entry = records.entry(key.to_owned()).or_insert(Entry::Void { turn });
        match entry {
            Entry::Drawn(record) if record.expires_at > claimed_at => return Settled::Drawn(record.clone()),
            Entry::Drawn(_) => *entry = Entry::Void { turn },
            Entry::Void { turn: voided } => *voided = turn.max(*voided),
        }
        Settled::Void
    }
}
