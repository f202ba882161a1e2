//! What a store promises: small traits, one for each thing that must survive the process.
//!
//! Contract of every call: it is *atomic* (all of it happened, or nothing), *durable before it is answered*
//! (a power cut after the answer does not undo it), and bounded in time (`StoreError::Timeout`; the outcome of a
//! call that timed out is unknown to the caller). One suite (`tests/it/contract.rs`) holds every implementation to it.
//!
//! Order: `idempotency` first, since counters and ledgers take claims; `counters` before `ledger`, which shares its limits. `rules`,
//! `workers` and `audit` stand alone. What a person changes comes with a [`Note`](super::Note) for the audit trail: those methods end in
//! `_noted`, and by default write it after the change; a store that keeps the trail itself writes both in one transaction.

mod audit;
mod counters;
mod idempotency;
mod ledger;
mod rules;
mod workers;

use std::{future::Future, pin::Pin};

pub use audit::AuditStore;
pub use counters::{
    ADVANCE_LIMIT, Advanced, Bounds, CounterState, CounterStore, Elsewhere, Grant, Hole, HoleReason,
    NodeSegment, SegmentState, TakeRequest,
};
pub use idempotency::{Claim, IdempotencyStore, Recorded, Taken};
pub use ledger::{
    Certificate, Drawn, IssueRequest, LedgerQuery, LedgerRow, LedgerState, LedgerStep, LedgerStore,
    RenderNumber, Reservations, Transition, Transitioned,
};
pub use rules::{RuleRecord, RuleStore, Swap};
pub use workers::{MarkStore, WorkerStore};

use super::Suspension;

/// What every store method returns: one allocation per store call, none per request of a combined batch.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What a store answered instead of a result: it is there, and does not do what it is asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Why a store could not answer. The message names the store and the operation, never its content or its URL.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer within the deadline; whether it happened is unknown.
    #[error("{store} did not answer {operation} in time")]
    Timeout {
        /// Which store.
        store: &'static str,
        /// Which call.
        operation: &'static str,
    },
    /// The store cannot be reached or refuses to work; nothing happened.
    #[error("{store} is unavailable during {operation}")]
    Unavailable {
        /// Which store.
        store: &'static str,
        /// Which call.
        operation: &'static str,
        /// What the driver said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The rule that was drawn under was replaced by another process; nothing happened.
    #[error("{store} refused {operation}: the rule was replaced meanwhile")]
    Superseded {
        /// Which store.
        store: &'static str,
        /// Which call.
        operation: &'static str,
    },
    /// The store may have forgotten strict numbers that it had acknowledged; nothing happened.
    #[error("{why}")]
    Suspended {
        /// Why, and what is to be done.
        why: Suspension,
    },
    /// Something stored does not make sense; a person must look.
    #[error("{store} holds something that is not understood: {what}")]
    Corrupt {
        /// Which store.
        store: &'static str,
        /// What was found, without secrets.
        what: String,
    },
}

impl StoreError {
    /// The same, where it was met in the ledger of one counter among many: `counter` names it.
    pub(super) fn in_ledger_of(self, counter: &str) -> Self {
        match self {
            Self::Corrupt { store, what } => {
                Self::Corrupt { store, what: format!("{what}, in the ledger of {counter}") }
            }
            Self::Unavailable { store, operation, source } => {
                let source = format!("{source}, in the ledger of {counter}").into();
                Self::Unavailable { store, operation, source }
            }
            Self::Timeout { .. } | Self::Superseded { .. } | Self::Suspended { .. } => self,
        }
    }

    /// What the store said, where it answered and did not do what it was asked.
    pub fn refusal(&self) -> Option<&Refused> {
        match self {
            Self::Unavailable { source, .. } => source.downcast_ref(),
            Self::Timeout { .. }
            | Self::Superseded { .. }
            | Self::Suspended { .. }
            | Self::Corrupt { .. } => None,
        }
    }
}
