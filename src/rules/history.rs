//! What a record remembers beside its rule: the eras, the scheme of its counters, the floor.

use std::fmt;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::{
    calendar::{FiscalYearStart, Reset},
    counter::SequenceValue,
    rule::{Mode, Rule},
    store::{Books, RuleRecord, StoreError},
};

/// Kept as JSON in [`RuleRecord::history`]. Unknown fields are refused: a newer process may have written what must not be forgotten.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct History {
    /// Counts the changes of the rule that an operator can see; the `ETag`.
    pub(super) edition: u64,
    /// Counts the changes of the scheme from one rule to the next: what [`CounterStore::retire`](crate::store::CounterStore::retire)
    /// knows it by. Never falls, since a scheme that was retired stays so.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) scheme_number: u64,
    /// Under what numbers may have been issued, the present rule apart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) eras: Vec<Era>,
    /// The scheme of the counters that were drawn from last, the present rule apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scheme: Option<Scheme>,
    /// The `initial_seq` of those counters: secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) initial_seq: Option<u64>,
    /// The present rule has another scheme, since this day, and the floor is not settled yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) changed: Option<NaiveDate>,
    /// What counters of earlier periods start above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) floor: Option<Floor>,
    /// The latest local date that a counted number may show, over all eras.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latest: Option<NaiveDate>,
}

/// A format under which numbers may have been issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Era {
    pub(super) format: String,
    pub(super) seq_length: u8,
    pub(super) values: Values,
}

impl Era {
    pub(super) fn of(rule: &Rule) -> Self {
        Self { format: rule.format.clone(), seq_length: rule.seq_length, values: rule.mode.into() }
    }
}

/// What kind of sequence values a rule has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Values {
    /// By a counter, gapless or not: the same one.
    Counted,
    /// Snowflake IDs.
    Snowflake,
}

impl From<Mode> for Values {
    fn from(mode: Mode) -> Self {
        if mode.counts() { Self::Counted } else { Self::Snowflake }
    }
}

/// Counters of periods that began on or before `until` start above `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Floor {
    pub(super) value: u64,
    pub(super) until: NaiveDate,
}

impl Floor {
    /// The floor of a period whose numbers look as if they were from `start` on; `None`, a counter that is never reset, began before
    /// everything.
    pub(super) fn of(self, start: Option<NaiveDate>) -> SequenceValue {
        let applies = start.is_none_or(|start| start <= self.until);
        SequenceValue(if applies { self.value } else { 0 })
    }

    /// What keeps all off that either of both does.
    pub(super) fn or_higher(self, other: Self) -> Self {
        Self { value: self.value.max(other.value), until: self.until.max(other.until) }
    }
}

/// What determines the counter of a date. Equal schemes give equal counters for equal dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Scheme {
    reset: Reset,
    /// The default, except under a fiscal reset.
    fiscal_year_start: FiscalYearStart,
    /// In which book they are, where there are two.
    book: Book,
}

/// The book that a mode draws on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Book {
    Counters,
    Ledger,
}

/// Before the name of a scheme whose counters are in the ledger.
const LEDGER: &str = "ledger ";

impl Scheme {
    /// `None` for snowflakes, which have no counter.
    pub(super) fn of(rule: &Rule) -> Option<Self> {
        let fiscal_year_start = match rule.reset {
            Reset::Fiscal => rule.fiscal_year_start,
            Reset::Never
            | Reset::Daily
            | Reset::Weekly
            | Reset::Monthly
            | Reset::Quarterly
            | Reset::Yearly => FiscalYearStart::default(),
        };
        let book = match rule.mode {
            Mode::Snowflake => return None,
            Mode::Continuous => Book::Counters,
            Mode::Strict => Book::Ledger,
        };
        Some(Self { reset: rule.reset, fiscal_year_start, book })
    }

    /// Whether both mean the same counters for every date.
    pub(super) fn has_counters_of(self, other: Self, books: Books) -> bool {
        let same_book = self.book == other.book || books == Books::One;
        same_book && (self.reset, self.fiscal_year_start) == (other.reset, other.fiscal_year_start)
    }
}

/// `monthly`, `fiscal 04-01`, `ledger monthly`.
impl From<Scheme> for String {
    fn from(scheme: Scheme) -> Self {
        let book = match scheme.book {
            Book::Counters => "",
            Book::Ledger => LEDGER,
        };
        match scheme.reset {
            Reset::Fiscal => format!("{book}fiscal {}", scheme.fiscal_year_start),
            Reset::Never
            | Reset::Daily
            | Reset::Weekly
            | Reset::Monthly
            | Reset::Quarterly
            | Reset::Yearly => format!("{book}{}", scheme.reset),
        }
    }
}

impl TryFrom<String> for Scheme {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (book, counters) = match text.strip_prefix(LEDGER) {
            Some(counters) => (Book::Ledger, counters),
            None => (Book::Counters, text.as_str()),
        };
        let (word, start) = counters.split_once(' ').unwrap_or((counters, "01-01"));
        let reset = Reset::ALL.into_iter().find(|reset| reset.as_str() == word);
        match (reset, FiscalYearStart::parse(start)) {
            (Some(reset), Some(fiscal_year_start)) => Ok(Self { reset, fiscal_year_start, book }),
            (_, _) => Err(format!("{text:?} is not a reset scheme")),
        }
    }
}

impl History {
    /// Reads the history of a record. An absent one is that of a record that something else than numgen wrote.
    pub(super) fn read(record: &RuleRecord) -> Result<Self, StoreError> {
        if record.history.trim().is_empty() {
            return Ok(Self { edition: record.revision, ..Self::default() });
        }
        // The cause is not passed on: it could quote a value.
        serde_json::from_str(&record.history)
            .map_err(|_| corrupt(format!("the history of {} cannot be read", record.key)))
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The history once `rule` is no longer in force, after numbers may have been issued under it.
    pub(super) fn close_era(&mut self, rule: &Rule) {
        self.add_era(Era::of(rule));
        if let Some(scheme) = Scheme::of(rule) {
            self.scheme = Some(scheme);
            self.initial_seq = Some(rule.initial_seq.0);
        }
    }

    /// Remembers an era.
    pub(super) fn add_era(&mut self, era: Era) {
        if !self.eras.contains(&era) {
            self.eras.push(era);
        }
    }

    /// Counts on where the scheme of the next rule is another than that of the one before.
    pub(super) fn count_scheme(&mut self, before: Option<&Rule>, next: &Rule, books: Books) {
        let stays = match (before.and_then(Scheme::of), Scheme::of(next)) {
            (Some(before), Some(next)) => before.has_counters_of(next, books),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !stays {
            self.scheme_number += 1;
        }
    }

    /// Raises the latest printed date.
    pub(super) fn note_date(&mut self, date: NaiveDate) {
        self.latest = self.latest.max(Some(date));
    }

    /// Settles a change of scheme: `highest` is the highest value over all counters of the key. A store that lost counters answers less
    /// than was issued, so an earlier floor may rise and never falls.
    pub(super) fn settle(&mut self, highest: SequenceValue) {
        if let Some(changed) = self.changed.take() {
            let until = self.latest.map_or(changed, |latest| latest.max(changed));
            let settled = Floor { value: highest.0, until };
            self.floor = Some(self.floor.map_or(settled, |earlier| earlier.or_higher(settled)));
        }
    }
}

/// `initial_seq` is secret.
impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { edition, scheme_number, eras, scheme, initial_seq: _, changed, floor, latest } = self;
        f.debug_struct("History")
            .field("edition", edition)
            .field("scheme_number", scheme_number)
            .field("eras", eras)
            .field("scheme", scheme)
            .field("changed", changed)
            .field("floor", floor)
            .field("latest", latest)
            .finish_non_exhaustive()
    }
}

/// Nothing to write down.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Something in the store of rules that a person must look at.
pub(super) fn corrupt(what: String) -> StoreError {
    StoreError::Corrupt { store: "rules", what }
}
