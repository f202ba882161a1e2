//! Whether a ledger is what was written: both hash chains recomputed, every state compared with its events.
//!
//! Invariant: no edit of a row, an event or the account of the counter goes unnoticed as long as one of the three is left alone;
//! a head of the chain that was kept elsewhere (in a certificate) shows even an edit of all three.

use std::{collections::HashMap, fmt};

use super::{
    LedgerRow, LedgerState,
    ledger::{Account, Change, Event, event_hash, row_hash},
};
use crate::{
    counter::{Counter, SequenceValue},
    prefix_key::PrefixKey,
};

/// What is wrong with a ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerFault {
    /// A row does not carry the hash of its content and of the row before: one of the two was edited or is gone.
    #[error("row {0} does not carry the hash of its content and of the row before it")]
    RowHash(SequenceValue),
    /// Integers of the present run without a row.
    #[error("no row for {0} to {1}")]
    Missing(SequenceValue, SequenceValue),
    /// The last row is not the one that the counter remembers.
    #[error("the last row is not the one that the counter remembers")]
    Head,
    /// An event does not carry the hash of its content and of the event before.
    #[error("event {0} does not carry the hash of its content and of the event before it")]
    EventHash(u64),
    /// The last event is not the one that the counter remembers.
    #[error("the last event is not the one that the counter remembers")]
    EventHead,
    /// The state of a row does not follow from its birth and its events.
    #[error("the state of row {0} does not follow from its birth and its events")]
    State(SequenceValue),
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// How many rows were read.
    pub rows: u64,
    /// How many events were read.
    pub events: u64,
    /// The first faults; none for a ledger that nobody touched.
    pub faults: Vec<LedgerFault>,
}

/// Rows that no counter leads to: theirs is gone, or its prefix key is. No period shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Of which prefix key they are; `None`: that is gone, too.
    pub key: Option<PrefixKey>,
    /// The first one.
    pub first: SequenceValue,
    /// The last one.
    pub last: SequenceValue,
    /// What the first one says; empty where no text was ever made.
    pub number: String,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, first, last, number } = self;
        write!(f, "rows {first} to {last}")?;
        if !number.is_empty() {
            write!(f, ", the first of them {number},")?;
        }
        f.write_str(if key.is_some() { " have lost their counter" } else { " have lost their prefix key" })
    }
}

/// How many faults are worth listing: after the first, a chain tells little.
const FAULT_LIMIT: usize = 100;

/// Recomputes both chains of a counter: first every event, then every row, then [`Auditor::finish`].
pub(super) struct Auditor<'a> {
    counter: &'a Counter,
    account: &'a Account,
    result: Verification,
    head: String,
    events_head: String,
    /// The next integer of the present run.
    expected: Option<u64>,
    changes: HashMap<SequenceValue, Vec<(Change, Option<String>)>>,
}

impl<'a> Auditor<'a> {
    pub(super) fn new(counter: &'a Counter, account: &'a Account) -> Self {
        Self {
            counter,
            account,
            result: Verification::default(),
            head: String::new(),
            events_head: String::new(),
            expected: account.run.map(|run| run.from.0),
            changes: HashMap::new(),
        }
    }

    fn report(&mut self, fault: LedgerFault) {
        if self.result.faults.len() < FAULT_LIMIT {
            self.result.faults.push(fault);
        }
    }

    /// Reads the next event in order of positions.
    pub(super) fn event(&mut self, event: Event) {
        self.result.events += 1;
        let follows = event.position == self.result.events;
        if !follows || event.hash != event_hash(self.counter, &event, &self.events_head) {
            self.report(LedgerFault::EventHash(event.position));
        }
        self.events_head = event.hash;
        self.changes.entry(event.sequence).or_default().push((event.change, event.reason));
    }

    /// Reads the next row in ascending order.
    pub(super) fn row(&mut self, row: &LedgerRow) {
        self.result.rows += 1;
        let changes = self.changes.remove(&row.sequence).unwrap_or_default();
        // Only a row without a later change shows its birth in its state; the hash says whether it is the true one.
        let birth = match (row.reserved_until, changes.is_empty()) {
            (Some(_), _) => (LedgerState::Reserved, None),
            (None, true) => (row.state, row.reason.as_deref()),
            (None, false) => (LedgerState::Issued, None),
        };
        if row.hash != row_hash(self.counter, row, birth, &self.head) {
            self.report(LedgerFault::RowHash(row.sequence));
        }
        let (mut state, mut reason) = (Some(birth.0), birth.1);
        for (change, said) in &changes {
            (state, reason) = (state.and_then(|state| change.applied_to(state)), said.as_deref());
        }
        if state != Some(row.state) || reason != row.reason.as_deref() {
            self.report(LedgerFault::State(row.sequence));
        }
        self.head.clone_from(&row.hash);
        self.look_for_gap(row.sequence.0);
    }

    fn look_for_gap(&mut self, sequence: u64) {
        let Some(expected) = self.expected.filter(|&expected| expected <= sequence) else { return };
        if expected < sequence {
            self.report(LedgerFault::Missing(SequenceValue(expected), SequenceValue(sequence - 1)));
        }
        self.expected = sequence.checked_add(1);
    }

    /// Compares with what the counter remembers.
    pub(super) fn finish(mut self) -> Verification {
        if let (Some(expected), Some(run)) = (self.expected, self.account.run)
            && expected <= run.to.0
        {
            self.report(LedgerFault::Missing(SequenceValue(expected), run.to));
        }
        if self.head != self.account.head {
            self.report(LedgerFault::Head);
        }
        if self.events_head != self.account.events_head || self.result.events != self.account.events {
            self.report(LedgerFault::EventHead);
        }
        let mut orphans: Vec<_> = self.changes.keys().copied().collect();
        orphans.sort_unstable();
        orphans.into_iter().for_each(|sequence| self.report(LedgerFault::State(sequence)));
        self.result
    }
}
