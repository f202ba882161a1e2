//! Consecutive counters: how far one has come, what it has left out, what nodes hold of it.

use std::sync::Arc;

use super::{Claim, StoreFuture, Taken};
use crate::{
    calendar::Period,
    clock::UnixMillis,
    counter::{Counter, Ranges, SequenceValue, ValueRange},
    prefix_key::PrefixKey,
    rule::OnOutage,
    store::{
        Note,
        protocol::counter::{Abandon, Abandoned},
    },
};

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
    /// What other data centres were granted.
    pub elsewhere: Elsewhere,
    /// When the first value above `base` was drawn or passed, where the store can tell: a ledger can.
    pub begun_at: Option<UnixMillis>,
}

impl CounterState {
    /// How many values above `base` are in holes.
    pub fn holes_above_base(&self) -> u64 {
        let above = |hole: &Hole| hole.to.0.saturating_sub(self.base.0.max(hole.from.0.saturating_sub(1)));
        self.holes.iter().map(above).sum()
    }
}

/// What other data centres were granted of a counter: not issued here, and no holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// Grants that they draw from, ascending.
    pub grants: Vec<Grant>,
    /// What they have passed.
    pub passed: Vec<ValueRange>,
}

impl Elsewhere {
    /// How many of these values lie above `base` and at or below `last`.
    pub fn count_between(&self, base: SequenceValue, last: SequenceValue) -> u64 {
        let ranges = self.grants.iter().map(|grant| grant.range).chain(self.passed.iter().copied());
        ranges
            .map(|range| range.to.min(last).0.saturating_sub(base.0.max(range.from.0.saturating_sub(1))))
            .sum()
    }
}

/// Values that one holder draws from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub holder: String,
    /// Which, both ends included.
    pub range: ValueRange,
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
    /// Another data centre was granted values at or below `to`, and goes on inside them: nothing changed.
    Granted {
        /// Which.
        datacenter: u32,
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

    /// The same, and those that only others have drawn from, as far as this store knows what they were granted.
    fn accounts<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Vec<CounterState>> {
        self.counters(key)
    }

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

    /// As [`Self::advance`], by the author and at the time of the note; once the cursor stands at `to`, the note is on the audit trail.
    fn advance_noted(
        &self,
        counter: Counter,
        base: SequenceValue,
        to: SequenceValue,
        note: Note,
    ) -> StoreFuture<'_, Advanced> {
        Box::pin(async move {
            let (actor, at) = (Arc::clone(&note.entry().author.subject), note.entry().at);
            let outcome = self.advance(counter, base, to, actor, at).await?;
            if outcome == Advanced::Done {
                note.write().await;
            }
            Ok(outcome)
        })
    }

    /// Gives up for good what is held by nodes that do not answer: it is never issued, and listed as an `abandoned` hole once the
    /// cursor has passed it. A store that one process draws from holds nothing of the kind.
    fn abandon(&self, _counter: Counter, _what: Abandon) -> StoreFuture<'_, Abandoned> {
        Box::pin(std::future::ready(Ok(Abandoned::Nothing)))
    }

    /// As [`Self::abandon`]; once something is given up, the note is on the audit trail.
    fn abandon_noted(&self, counter: Counter, what: Abandon, note: Note) -> StoreFuture<'_, Abandoned> {
        Box::pin(async move {
            let outcome = self.abandon(counter, what).await?;
            if matches!(outcome, Abandoned::Done(_)) {
                note.write().await;
            }
            Ok(outcome)
        })
    }
}

/// How many integers one `advance` of a strict counter may pass: each becomes a row of the ledger.
pub const ADVANCE_LIMIT: u64 = 100_000;
