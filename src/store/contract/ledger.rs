//! The strict ledger: one row for each integer of a counter.

use std::{fmt, sync::Arc};

use super::{Bounds, Claim, StoreFuture, Taken};
use crate::{
    calendar::Period,
    clock::UnixMillis,
    counter::{Counter, SequenceValue},
    prefix_key::PrefixKey,
    store::{Note, Verification},
};

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

/// A step that a caller asks for, with all that is written of it.
#[derive(Clone, Debug)]
pub struct LedgerStep {
    /// Of which number.
    pub number: String,
    /// What is to become of it.
    pub transition: Transition,
    /// Who asks.
    pub actor: Arc<str>,
    /// When.
    pub at: UnixMillis,
    /// For the audit trail, if the step changes the row.
    pub note: Option<Note>,
}

/// What became of a [`LedgerStep`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transitioned {
    /// The row as it now stands; also when the same step had been taken before.
    Done(LedgerRow),
    /// The row stands otherwise (late or contrary): nothing changed.
    Conflict(LedgerRow),
    /// No such number under this key.
    Unknown,
}

/// A batch that has its place: whatever is asked for from now on comes after it.
pub enum Drawn {
    /// It is durable; these are the answers.
    Kept(Vec<Taken>),
    /// It is not durable yet. Nobody may be answered before this resolves, with the answers, or with what went wrong.
    Pending(StoreFuture<'static, Vec<Taken>>),
}

impl fmt::Debug for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept(taken) => f.debug_tuple("Kept").field(taken).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}

/// Reservations that nobody has confirmed or voided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reservations {
    /// How many.
    pub open: u64,
    /// When the oldest of them was made.
    pub oldest: Option<UnixMillis>,
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

    /// As [`Self::issue`] in two steps: the next batch of the counter may be sent as soon as this one has its place, while its answers
    /// still wait for the disk. A store that cannot tell the two apart does both at once.
    fn draw(
        &self,
        counter: Counter,
        bounds: Bounds,
        requests: Vec<IssueRequest>,
        render: RenderNumber,
    ) -> StoreFuture<'_, Drawn> {
        Box::pin(async move { self.issue(counter, bounds, requests, render).await.map(Drawn::Kept) })
    }

    /// Confirms or voids numbers of one prefix key in the order of the steps, in one transaction; an outcome for each. A reservation that
    /// has expired by the time of a step is void (`expired`) before the step is looked at; a store that nodes share does not believe them
    /// that it is later than its own clock shows. Whatever fails, fails for all of them.
    fn transition(&self, key: PrefixKey, steps: Vec<LedgerStep>) -> StoreFuture<'_, Vec<Transitioned>>;

    /// Voids reservations that expired by `now`, a bounded number at a time; answers how many. Of `now` a store that nodes share believes
    /// no more than its own clock shows. A counter that fails stands in nobody's way: the others are served, and then it is the error.
    fn expire_reservations(&self, now: UnixMillis) -> StoreFuture<'_, u64>;

    /// The reservations that are open, of every counter.
    fn reservations(&self) -> StoreFuture<'_, Reservations>;

    /// A page of rows in (period, sequence) order.
    fn rows(&self, key: PrefixKey, query: LedgerQuery) -> StoreFuture<'_, Vec<LedgerRow>>;

    /// The certificate of one counter: it speaks of the latest run of rows, which begins anew when values were drawn outside the
    /// ledger in between. `None` when there is no row.
    fn certificate(&self, counter: Counter) -> StoreFuture<'_, Option<Certificate>>;

    /// Recomputes both hash chains of one counter and compares every state with its events. Reads everything: for an
    /// auditor, not for a request.
    fn verify(&self, counter: Counter) -> StoreFuture<'_, Verification>;
}
