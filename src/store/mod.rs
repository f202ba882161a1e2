//! What must survive the process: rules, counters, ledgers, idempotency records and worker marks.
//!
//! Small traits, each with its contract in its docs (`contract`); one suite (`tests/it/contract.rs`) holds every
//! implementation to it. A store never sees a token, a format or a clock of a client: it keeps opaque documents
//! and hands out integers.
//!
//! Order: `contract` says what a store promises; `protocol`, `draw`, `ledger`, `temporary` and `audit` are what stores have in common, without any
//! database; `counters` is a node's part in counters that are shared; `memory`, `sqlite`, `redis` and `postgres` are the stores.

mod audit;
mod by_mode;
mod calls;
mod contract;
mod copied;
pub mod counters;
mod draw;
mod home;
mod joint;
mod ledger;
pub mod memory;
mod mirrored;
mod patience;
pub mod postgres;
pub mod protocol;
mod reachable;
pub mod redis;
mod segments;
mod shared;
pub mod sqlite;
mod suspension;
mod temporary;
mod verification;

pub use audit::{AuditAction, AuditDetails, AuditEntry, AuditQuery, AuditRecord, Author, Note};
pub use by_mode::{Books, CountersByMode, Past};
pub use contract::{
    ADVANCE_LIMIT, Advanced, AuditStore, Bounds, Certificate, Claim, CounterState, CounterStore, Drawn,
    Elsewhere, Grant, Hole, HoleReason, IdempotencyStore, IssueRequest, LedgerQuery, LedgerRow, LedgerState,
    LedgerStep, LedgerStore, MarkStore, NodeSegment, Recorded, Refused, RenderNumber, Reservations,
    RuleRecord, RuleStore, SegmentState, StoreError, StoreFuture, Swap, TakeRequest, Taken, Transition,
    Transitioned, WorkerStore,
};
pub use copied::CopiedRules;
pub use home::{Foreign, Home, Housekeeper, remembered_name};
pub use mirrored::MirroredRules;
pub use protocol::counter::{Abandon, Abandoned};
pub use protocol::window::{
    AcquireRequest, Acquired, Claim as MarkClaim, Claimed as MarkClaimed, Extension, Generation, Holding,
    IdMillis, Nonce, Renewed, Tenure,
};
pub use reachable::Reachable;
pub use shared::{DirectWrite, Lineage, More, RuleCopies, RuleCopy, RuleMark, RuleNews, SharedRules};
pub use suspension::Suspension;
pub use temporary::{
    Action, Decision, Fate, Instance, Journal, Making, Pending, RowSwap, Stamp, Status, TemporaryNumber,
    TemporaryQuery, TemporaryRow, TemporaryStore, Verdict,
};
pub use verification::{LedgerFault, Stray, Verification};
