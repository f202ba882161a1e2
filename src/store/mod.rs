//! What must survive the process: rules, counters, ledgers, idempotency records and worker marks.
//!
//! Small traits, each with its contract in its docs; one suite (`tests/it/contract.rs`) holds every
//! implementation to it. A store never sees a token, a format or a clock of a client: it keeps opaque documents
//! and hands out integers.
//!
//! Contract of every call: it is *atomic* (all of it happened, or nothing), *durable before it is answered*
//! (a power cut after the answer does not undo it), and bounded in time (`StoreError::Timeout`; the outcome of a
//! call that timed out is unknown to the caller).

mod calls;
mod copied;
mod draw;
mod ledger;
pub mod memory;
pub mod protocol;
pub mod redis;
mod segments;
mod shared;
pub mod sqlite;
mod temporary;
mod verification;

use std::{fmt, future::Future, pin::Pin, sync::Arc};

pub use copied::CopiedRules;
pub use protocol::counter::{Abandon, Abandoned};
pub use protocol::window::{
    AcquireRequest, Acquired, Extension, Generation, Holding, IdMillis, Nonce, Renewed,
};
pub use shared::{DirectWrite, Lineage, RuleCopies, RuleCopy, RuleMark, RuleNews, SharedRules};
pub use temporary::{
    Action, Decision, Fate, Instance, Journal, Making, RowSwap, Stamp, Status, TemporaryNumber,
    TemporaryQuery, TemporaryRow, TemporaryStore, Verdict,
};
pub use verification::{LedgerFault, Verification};

use crate::{
    calendar::Period,
    clock::UnixMillis,
    counter::{Counter, Ranges, SequenceValue},
    prefix_key::PrefixKey,
    rule::OnOutage,
};

/// What every store method returns: one allocation per store call, none per request of a combined batch.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

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
    /// Something stored does not make sense; a person must look.
    #[error("{store} holds something that is not understood: {what}")]
    Corrupt {
        /// Which store.
        store: &'static str,
        /// What was found, without secrets.
        what: String,
    },
}

// ---------------------------------------------------------------------------------------------- rules

/// Everything that is remembered of one prefix key. A deleted rule leaves its record behind (`rule: None`), so that
/// a later registration goes on above what was issued.
#[derive(Clone, PartialEq, Eq)]
pub struct RuleRecord {
    /// The prefix key.
    pub key: PrefixKey,
    /// Counts the changes of this record from 1; also the rule's `ETag`.
    pub revision: u64,
    /// The rule as JSON, `None` while it is deleted. Opaque here.
    pub rule: Option<String>,
    /// Formats and resets that were in force before, as JSON. Opaque here; survives deletion.
    pub history: String,
    /// Whether a number may have been issued under the present rule.
    pub used: bool,
}

/// Leaves out the rule: it holds `initial_seq`, which no log may show.
impl fmt::Debug for RuleRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleRecord")
            .field("key", &self.key)
            .field("revision", &self.revision)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

/// Outcome of [`RuleStore::swap_rule`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The new record is in force.
    Done,
    /// Somebody else was faster; this is what is in force (`None`: no record at all).
    Changed(Option<RuleRecord>),
}

/// The register of rules. One conditional write carries every kind of change, so that two writers never lose an update.
pub trait RuleStore: Send + Sync + 'static {
    /// Every record, deleted ones included, in key order.
    fn load_rules(&self) -> StoreFuture<'_, Vec<RuleRecord>>;

    /// One record.
    fn rule<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<RuleRecord>>;

    /// Replaces the record if it is exactly as `expected` (revision and `used`; `None`: there is none), else changes nothing.
    /// `new.revision` is `expected.revision + 1`, or 1.
    fn swap_rule(&self, expected: Option<RuleRecord>, new: RuleRecord) -> StoreFuture<'_, Swap>;

    /// Sets `used` if the record still has `revision` and a rule; answers whether it does. Idempotent, keeps the revision.
    /// Called once before the first number of a rule is answered.
    fn mark_used<'a>(&'a self, key: &'a PrefixKey, revision: u64) -> StoreFuture<'a, bool>;

    /// What an operator wrote past this program, and nobody has adopted yet. Only a store that lets operators in has any.
    fn direct_write<'a>(&'a self, _key: &'a PrefixKey) -> StoreFuture<'a, Option<DirectWrite>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// As [`Self::swap_rule`], if what the operator wrote still stands as it was seen; the new record then takes its place.
    /// [`Self::swap_rule`] itself is refused (`Changed`) while there is such a write.
    fn swap_over(
        &self,
        _write: DirectWrite,
        expected: Option<RuleRecord>,
        new: RuleRecord,
    ) -> StoreFuture<'_, Swap> {
        self.swap_rule(expected, new)
    }
}

// ---------------------------------------------------------------------------------- idempotency records

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

// --------------------------------------------------------------------------------- continuous counters

/// The limits within which a counter moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// A counter that does not exist yet begins here: the first value is `base + 1`.
    pub base: SequenceValue,
    /// Nothing at or below this is issued, even by a counter that exists (after a change of reset); an existing counter
    /// below it is moved up, and what was passed is listed as a `skipped` hole.
    pub floor: SequenceValue,
    /// The highest value that may be issued (`max_seq`, or what fits N digits under `overflow: reject`).
    pub max: SequenceValue,
    /// Which of the key's schemes of counters this is, counted from 0: after [`CounterStore::retire`] lower ones draw nothing.
    pub scheme: u64,
    /// Whether a node may keep values for the time in which the store is away.
    pub on_outage: OnOutage,
}

/// One request of a combined batch.
#[derive(Clone, Debug)]
pub struct TakeRequest {
    /// How many values; at least 1.
    pub count: u32,
    /// The idempotency claim, if the caller sent a key.
    pub claim: Option<Claim>,
}

/// Why a range at or below the cursor was not issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoleReason {
    /// Held by a node that does not answer.
    Pending,
    /// Handed back after the cursor had passed.
    Returned,
    /// Passed over by a recovery or a floor.
    Skipped,
    /// Drawn by a batch that a crash interrupted: it may have been answered, or not.
    Unconfirmed,
    /// Given up by an operator.
    Abandoned,
    /// Passed over by `advance`.
    Advanced,
}

impl HoleReason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Returned, Self::Skipped, Self::Unconfirmed, Self::Abandoned, Self::Advanced];

    /// The reason that a word names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// The word for it in the API and in a store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Returned => "returned",
            Self::Skipped => "skipped",
            Self::Unconfirmed => "unconfirmed",
            Self::Abandoned => "abandoned",
            Self::Advanced => "advanced",
        }
    }
}

/// A range at or below the cursor that was not issued, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// First value.
    pub from: SequenceValue,
    /// Last value.
    pub to: SequenceValue,
    /// Why.
    pub reason: HoleReason,
    /// Since when.
    pub since: UnixMillis,
}

/// What became of a part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentState {
    /// Its node is there and may issue it while the store is away.
    Held,
    /// Issued, and the cursor has not passed it yet.
    Used,
    /// Its node does not answer: it may have been issued, or not.
    Pending,
}

impl SegmentState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Held, Self::Used, Self::Pending];

    /// The state that a word names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The word for it in the API and in a store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Used => "used",
            Self::Pending => "pending",
        }
    }
}

/// A range ahead of the cursor that belongs to one node, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSegment {
    /// The name of the node.
    pub node: String,
    /// First value.
    pub from: SequenceValue,
    /// Last value.
    pub to: SequenceValue,
    /// What became of it.
    pub state: SegmentState,
}

/// A counter as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterState {
    /// Its period; empty for a rule without a reset.
    pub period: Period,
    /// Where it began: the first value was `base + 1`.
    pub base: SequenceValue,
    /// The cursor: everything above `base` and at or below it is issued or listed in `holes`.
    pub last: SequenceValue,
    /// What nodes hold or have issued ahead of the cursor, ascending.
    pub segments: Vec<NodeSegment>,
    /// Holes in ascending order.
    pub holes: Vec<Hole>,
}

/// Outcome of [`CounterStore::advance`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advanced {
    /// The cursor stands at `to`.
    Done,
    /// `to` is below the cursor, which stands here: nothing changed.
    Below(SequenceValue),
    /// A strict counter would have to void more rows than one call may.
    TooFar {
        /// How many integers one call may pass.
        limit: u64,
    },
    /// A node holds a segment at or below `to` and does not let go of it: nothing changed.
    Held {
        /// The name of the node.
        node: String,
    },
}

/// Consecutive counters. Invariants: no value is handed out twice; the values of one call lie directly above those of the
/// call before; a value at or below the cursor is never handed out again.
pub trait CounterStore: Send + Sync + 'static {
    /// Serves the requests of one counter: those without a key in their order, those with one in theirs. They came at the same
    /// time as far as anybody can tell, so the kinds may be served one after the other. The answers stand in the order of the requests.
    /// `StoreError::Superseded` once the scheme of `bounds` is retired, also for counters that did not exist then.
    fn take(
        &self,
        counter: Counter,
        bounds: Bounds,
        requests: Vec<TakeRequest>,
    ) -> StoreFuture<'_, Vec<Taken>>;

    /// Takes values back that were drawn and will not be issued (their caller had gone): nobody gets them again, they are listed
    /// as `returned` holes. Values above the cursor are ignored.
    fn hand_back(&self, counter: Counter, values: Ranges) -> StoreFuture<'_, ()>;

    /// Every counter of a prefix key, in period order.
    fn counters<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Vec<CounterState>>;

    /// Retires the schemes of `key` below `scheme`, for every process and for good, and then answers the highest value over all its
    /// counters: nothing above it was drawn or can still be drawn (from a segment, say) under a retired scheme. Idempotent.
    ///
    /// A store that one process draws from may leave the first half to that process, which waits for its own draws.
    fn retire<'a>(&'a self, key: &'a PrefixKey, _scheme: u64) -> StoreFuture<'a, SequenceValue> {
        Box::pin(async move {
            let counters = self.counters(key).await?;
            Ok(counters.iter().map(|counter| counter.last).max().unwrap_or_default())
        })
    }

    /// Moves a counter up to `to`; what lies between is listed as an `advanced` hole (a counter from which nothing was
    /// issued simply begins at `to`). `to` equal to the cursor is `Done` and changes nothing. A counter with ledger rows
    /// gets a `void` row with reason `advanced` for each integer instead, up to [`ADVANCE_LIMIT`].
    fn advance(
        &self,
        counter: Counter,
        base: SequenceValue,
        to: SequenceValue,
        actor: Arc<str>,
        now: UnixMillis,
    ) -> StoreFuture<'_, Advanced>;

    /// Gives up for good what is held by nodes that do not answer: it is never issued, and listed as an `abandoned` hole once the
    /// cursor has passed it. A store that one process draws from holds nothing of the kind.
    fn abandon(&self, _counter: Counter, _what: Abandon) -> StoreFuture<'_, Abandoned> {
        Box::pin(std::future::ready(Ok(Abandoned::Nothing)))
    }
}

/// How many integers one `advance` of a strict counter may pass: each becomes a row of the ledger.
pub const ADVANCE_LIMIT: u64 = 100_000;

// -------------------------------------------------------------------------------------- strict ledger

/// What became of an integer of a strict counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LedgerState {
    /// Held for a caller until `reserved_until`.
    Reserved,
    /// Issued for good.
    Issued,
    /// Void, never to be given to anybody else.
    Void,
}

impl LedgerState {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 3] = [Self::Reserved, Self::Issued, Self::Void];

    /// The state that a word names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The word for it in the API and in a store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Issued => "issued",
            Self::Void => "void",
        }
    }
}

/// One request of a combined strict batch.
#[derive(Clone, Debug)]
pub struct IssueRequest {
    /// How many integers; at least 1.
    pub count: u32,
    /// The idempotency claim, if the caller sent a key.
    pub claim: Option<Claim>,
    /// The caller's own idempotency key, shown in the ledger row.
    pub idempotency_key: Option<Arc<str>>,
    /// Who asked.
    pub subject: Arc<str>,
    /// When.
    pub issued_at: UnixMillis,
    /// `Some`: reserve until then instead of issuing.
    pub reserved_until: Option<UnixMillis>,
}

/// Writes the number of the `index`-th request of a batch for a value; called inside the transaction, so it must be quick and pure.
pub type RenderNumber = Arc<dyn Fn(usize, SequenceValue) -> String + Send + Sync>;

/// One row of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// The period of its counter.
    pub period: Period,
    /// The integer.
    pub sequence: SequenceValue,
    /// The finished text.
    pub number: String,
    /// What became of it.
    pub state: LedgerState,
    /// Why it is void.
    pub reason: Option<String>,
    /// Who asked for it.
    pub subject: String,
    /// Until when it is reserved.
    pub reserved_until: Option<UnixMillis>,
    /// When it was drawn.
    pub issued_at: UnixMillis,
    /// The caller's idempotency key.
    pub idempotency_key: Option<String>,
    /// SHA-256 over what never changes in the row and the hash of the row before, as lower-case hex.
    pub hash: String,
}

/// Which rows to read.
#[derive(Clone, Debug)]
pub struct LedgerQuery {
    /// One period, or all.
    pub period: Option<Period>,
    /// First integer.
    pub from: Option<SequenceValue>,
    /// Last integer.
    pub to: Option<SequenceValue>,
    /// One state, or all.
    pub state: Option<LedgerState>,
    /// Rows above this position of the (period, sequence) order.
    pub after: Option<(Period, SequenceValue)>,
    /// At most so many rows.
    pub limit: u32,
}

/// What stands behind a ledger's claim to be gapless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The period it speaks of.
    pub period: Period,
    /// First integer, `None` for an empty ledger.
    pub first: Option<SequenceValue>,
    /// Last integer.
    pub last: Option<SequenceValue>,
    /// How many rows: `last - first + 1`, counted, not computed.
    pub count: u64,
    /// Rows issued.
    pub issued: u64,
    /// Rows reserved.
    pub reserved: u64,
    /// Rows void.
    pub void: u64,
    /// Integers from first to last without a row: always none, and looked for all the same.
    pub holes: Vec<(SequenceValue, SequenceValue)>,
    /// Hash of the last row, empty for an empty ledger.
    pub head: String,
}

/// A change of state that a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// reserved -> issued.
    Confirm,
    /// reserved or issued -> void.
    Void {
        /// Why, in the caller's words.
        reason: String,
    },
}

/// Outcome of [`LedgerStore::transition`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transitioned {
    /// The row as it now stands; also when the same step had been taken before.
    Done(LedgerRow),
    /// The row stands otherwise (late or contrary): nothing changed.
    Conflict(LedgerRow),
    /// No such number under this key.
    Unknown,
}

/// Gapless counters. Invariant: for each counter there is exactly one row for each integer from the first to the last; a row
/// is never deleted, its integer never given to anybody else; what never changes in it is chained by hashes, and so are
/// the events that change its state.
pub trait LedgerStore: Send + Sync + 'static {
    /// Serves the requests of one counter in their order, in one transaction.
    fn issue(
        &self,
        counter: Counter,
        bounds: Bounds,
        requests: Vec<IssueRequest>,
        render: RenderNumber,
    ) -> StoreFuture<'_, Vec<Taken>>;

    /// Confirms or voids one number. A reservation that has expired by `now` is void (`expired`) before the step is looked at.
    fn transition(
        &self,
        key: PrefixKey,
        number: String,
        step: Transition,
        actor: Arc<str>,
        now: UnixMillis,
    ) -> StoreFuture<'_, Transitioned>;

    /// Voids reservations that expired by `now`, a bounded number at a time; answers how many.
    fn expire_reservations(&self, now: UnixMillis) -> StoreFuture<'_, u64>;

    /// A page of rows in (period, sequence) order.
    fn rows(&self, key: PrefixKey, query: LedgerQuery) -> StoreFuture<'_, Vec<LedgerRow>>;

    /// The certificate of one counter: it speaks of the latest run of rows, which begins anew when values were drawn outside the
    /// ledger in between. `None` when there is no row.
    fn certificate(&self, counter: Counter) -> StoreFuture<'_, Option<Certificate>>;

    /// Recomputes both hash chains of one counter and compares every state with its events. Reads everything: for an
    /// auditor, not for a request.
    fn verify(&self, counter: Counter) -> StoreFuture<'_, Verification>;
}

// ------------------------------------------------------------------------------------- worker windows

/// Keeps the marks of worker slots. Invariant: windows of one slot are disjoint; [`protocol::window`] says how.
pub trait WorkerStore: Send + Sync + 'static {
    /// Records layout, epoch and data centre on first use; answers what is recorded. A worker that disagrees must not issue.
    fn pin_layout<'a>(&'a self, layout: &'a str) -> StoreFuture<'a, String>;

    /// Hands out a free slot: its window begins at the mark that was found. Ask again, under the same nonce, until it is answered.
    fn acquire(&self, request: AcquireRequest) -> StoreFuture<'_, Acquired>;

    /// Moves the mark of the present holding on, and puts the holding back where the store may have forgotten it.
    fn renew(&self, holding: Holding, extension: Extension) -> StoreFuture<'_, Renewed>;

    /// mark = max(start, last), free at once. Only after issuing has stopped; does nothing for another holding.
    fn release(&self, holding: Holding, last: IdMillis) -> StoreFuture<'_, ()>;
}
