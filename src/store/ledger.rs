//! The strict ledger apart from any database: how rows and events are born, chained, changed and verified.
//!
//! Invariants: rows of one counter are chained in ascending order of their integers, events in order of their positions; a
//! hash covers everything that never changes in its row, how it was born included; the present state follows from the
//! birth and the events, so that no edit of either goes unnoticed.
//!
//! A *run* is a span of integers that all have rows. A new one begins when values were drawn outside the ledger (the rule was
//! `continuous` for a while); rows of earlier runs stay readable and chained.

use aws_lc_rs::digest;

use super::{
    ADVANCE_LIMIT, Advanced, Certificate, IssueRequest, LedgerRow, LedgerState, RenderNumber, Taken,
    Transition,
    draw::{Movement, Standing, passed},
};
use crate::{
    clock::UnixMillis,
    counter::{Counter, SequenceValue, ValueRange},
};

/// Who acts when nobody asked: reservations that expire, integers that a floor passes over.
pub(super) const NOBODY: &str = "numgen";
/// Why a reservation is void that was not confirmed in time.
pub(super) const EXPIRED: &str = "expired";
/// Why an integer is void that `advance` passed over.
pub(super) const ADVANCED: &str = "advanced";
/// Why an integer is void that a floor passed over.
pub(super) const SKIPPED: &str = "skipped";

/// What a counter remembers of its ledger beside the rows themselves: lost rows show against it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// The latest run; `None` while there is no row.
    pub(super) run: Option<ValueRange>,
    /// Hash of the last row, empty while there is none.
    pub(super) head: String,
    /// How many events there are; also the position of the last.
    pub(super) events: u64,
    /// Hash of the last event, empty while there is none.
    pub(super) events_head: String,
}

impl Account {
    /// Whether the ledger speaks of every value up to `cursor`, so that the next row goes on in the same run.
    pub(super) fn is_current(&self, cursor: SequenceValue) -> bool {
        self.run.is_some_and(|run| run.to == cursor)
    }

    /// Takes a row in: directly above the run, or as the first of a new one.
    fn enter(&mut self, row: &LedgerRow) {
        let follows = self.run.filter(|run| run.to.0.checked_add(1) == Some(row.sequence.0));
        self.run = Some(ValueRange { from: follows.map_or(row.sequence, |run| run.from), to: row.sequence });
        self.head.clone_from(&row.hash);
    }
}

// ---------------------------------------------------------------------------------------------- births

/// How a row begins.
enum Birth {
    Issued,
    Reserved(UnixMillis),
    Void(&'static str),
}

/// A row about to be chained.
struct Newborn<'a> {
    sequence: SequenceValue,
    number: String,
    subject: &'a str,
    at: UnixMillis,
    idempotency_key: Option<&'a str>,
    birth: Birth,
}

impl Newborn<'_> {
    fn chain_to(self, counter: &Counter, account: &mut Account) -> LedgerRow {
        let (state, reason, reserved_until) = match self.birth {
            Birth::Issued => (LedgerState::Issued, None, None),
            Birth::Reserved(until) => (LedgerState::Reserved, None, Some(until)),
            Birth::Void(reason) => (LedgerState::Void, Some(reason.to_owned()), None),
        };
        let mut row = LedgerRow {
            period: counter.period.clone(),
            sequence: self.sequence,
            number: self.number,
            state,
            reason,
            subject: self.subject.to_owned(),
            reserved_until,
            issued_at: self.at,
            idempotency_key: self.idempotency_key.map(str::to_owned),
            hash: String::new(),
        };
        row.hash = row_hash(counter, &row, (state, row.reason.as_deref()), &account.head);
        account.enter(&row);
        row
    }
}

/// What a batch adds to a ledger.
#[derive(Debug)]
pub(super) struct Entries {
    /// The rows, ascending.
    pub(super) rows: Vec<LedgerRow>,
    /// The account afterwards.
    pub(super) account: Account,
    /// What a floor passed over and is too long for rows: to be listed as a `skipped` hole; a new run begins above it.
    pub(super) hole: Option<ValueRange>,
}

/// Writes the rows of a batch that was worked out by [`super::draw::plan`]. `cursor` is where the counter stood before; `None` where it
/// was drawn from in another book since: the ledger cannot say of what lies between that nobody has it.
pub(super) fn enter_batch(
    counter: &Counter,
    mut account: Account,
    cursor: Option<SequenceValue>,
    movement: Movement,
    taken: &[Taken],
    requests: &[IssueRequest],
    render: &RenderNumber,
) -> Entries {
    let mut rows = Vec::new();
    let mut hole = movement.skipped;
    if let Some(skipped) = movement.skipped
        && cursor.is_some_and(|cursor| account.is_current(cursor))
        && skipped.count() <= ADVANCE_LIMIT
    {
        let at = requests.first().map_or(UnixMillis(0), |request| request.issued_at);
        enter_voids(counter, &mut account, skipped, SKIPPED, NOBODY, at, &mut rows);
        hole = None;
    }
    for (index, (request, answer)) in requests.iter().zip(taken).enumerate() {
        let Taken::Fresh(values) = answer else { continue };
        for sequence in values.values() {
            let newborn = Newborn {
                sequence,
                number: render(index, sequence),
                subject: &request.subject,
                at: request.issued_at,
                idempotency_key: request.idempotency_key.as_deref(),
                birth: request.reserved_until.map_or(Birth::Issued, Birth::Reserved),
            };
            rows.push(newborn.chain_to(counter, &mut account));
        }
    }
    Entries { rows, account, hole }
}

/// What `advance` means for a counter as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// Nothing changes; this is the answer.
    Settled(Advanced),
    /// Nothing was issued yet: it begins at the target.
    Begin,
    /// The ledger speaks of every value so far: each integer gets a row. Where the counter began stays.
    Void(SequenceValue, ValueRange),
    /// The range becomes a hole. Where the counter began stays.
    List(SequenceValue, ValueRange),
}

/// Works out an `advance`; `base` is where the counter would begin if it began now.
pub(super) fn plan_advance(
    standing: Option<Standing>,
    account: &Account,
    base: SequenceValue,
    to: SequenceValue,
) -> Advance {
    let used = standing.filter(|standing| standing.last > standing.base);
    let told = standing.map_or(base, |standing| standing.last.max(base));
    let cursor = used.map_or(told, |standing| standing.last);
    let Some(range) = passed(cursor, to) else {
        return Advance::Settled(if to == cursor { Advanced::Done } else { Advanced::Below(cursor) });
    };
    match used {
        None => Advance::Begin,
        Some(standing) if !account.is_current(cursor) => Advance::List(standing.base, range),
        Some(_) if range.count() > ADVANCE_LIMIT => {
            Advance::Settled(Advanced::TooFar { limit: ADVANCE_LIMIT })
        }
        Some(standing) => Advance::Void(standing.base, range),
    }
}

/// Writes the rows of integers that `advance` passes over.
pub(super) fn enter_advance(
    counter: &Counter,
    mut account: Account,
    passed: ValueRange,
    actor: &str,
    at: UnixMillis,
) -> Entries {
    let mut rows = Vec::new();
    enter_voids(counter, &mut account, passed, ADVANCED, actor, at, &mut rows);
    Entries { rows, account, hole: None }
}

/// No text was ever made for an integer that is void from birth, so its number is empty.
fn enter_voids(
    counter: &Counter,
    account: &mut Account,
    range: ValueRange,
    reason: &'static str,
    subject: &str,
    at: UnixMillis,
    rows: &mut Vec<LedgerRow>,
) {
    rows.extend((range.from.0..=range.to.0).map(|sequence| {
        let newborn = Newborn {
            sequence: SequenceValue(sequence),
            number: String::new(),
            subject,
            at,
            idempotency_key: None,
            birth: Birth::Void(reason),
        };
        newborn.chain_to(counter, account)
    }));
}

// --------------------------------------------------------------------------------------------- changes

/// What an event did to its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// reserved -> issued.
    Confirmed,
    /// reserved or issued -> void, because somebody said so.
    Voided,
    /// reserved -> void, because nobody confirmed in time.
    Expired,
}

impl Change {
    const ALL: [Self; 3] = [Self::Confirmed, Self::Voided, Self::Expired];

    /// The change that a word names.
    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|change| change.as_str() == word)
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Voided => "voided",
            Self::Expired => "expired",
        }
    }

    /// The state after it; `None` where it cannot happen.
    pub(super) fn applied_to(self, state: LedgerState) -> Option<LedgerState> {
        match (self, state) {
            (Self::Confirmed, LedgerState::Reserved) => Some(LedgerState::Issued),
            (Self::Voided, LedgerState::Reserved | LedgerState::Issued)
            | (Self::Expired, LedgerState::Reserved) => Some(LedgerState::Void),
            (Self::Confirmed, LedgerState::Issued | LedgerState::Void)
            | (Self::Voided, LedgerState::Void)
            | (Self::Expired, LedgerState::Issued | LedgerState::Void) => None,
        }
    }
}

/// A change of state, as it is kept for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Counts the events of a counter from 1.
    pub(super) position: u64,
    /// Whose state changed.
    pub(super) sequence: SequenceValue,
    pub(super) change: Change,
    /// The row's reason afterwards.
    pub(super) reason: Option<String>,
    pub(super) actor: String,
    pub(super) at: UnixMillis,
    pub(super) hash: String,
}

/// What a caller's step means for a row as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stands so already.
    Stands,
    /// It stands otherwise, for good.
    Contrary,
    /// It changes.
    Changes(Change, Option<String>),
}

/// Judges a caller's step; expiry has been looked at before.
pub(super) fn judge(state: LedgerState, step: &Transition) -> Verdict {
    match (step, state) {
        (Transition::Confirm, LedgerState::Reserved) => Verdict::Changes(Change::Confirmed, None),
        (Transition::Void { reason }, LedgerState::Reserved | LedgerState::Issued) => {
            Verdict::Changes(Change::Voided, Some(reason.clone()))
        }
        (Transition::Confirm, LedgerState::Issued) | (Transition::Void { .. }, LedgerState::Void) => {
            Verdict::Stands
        }
        (Transition::Confirm, LedgerState::Void) => Verdict::Contrary,
    }
}

/// Whether a row is a reservation whose time is over.
pub(super) fn has_expired(row: &LedgerRow, now: UnixMillis) -> bool {
    row.state == LedgerState::Reserved && row.reserved_until.is_some_and(|until| until <= now)
}

/// Changes a row and writes the event of it. The change must be possible (see [`judge`]).
pub(super) fn change(
    counter: &Counter,
    account: &mut Account,
    row: &mut LedgerRow,
    change: Change,
    reason: Option<String>,
    actor: &str,
    at: UnixMillis,
) -> Event {
    debug_assert!(change.applied_to(row.state).is_some(), "judged before");
    row.state = change.applied_to(row.state).unwrap_or(row.state);
    row.reason.clone_from(&reason);
    account.events += 1;
    let mut event = Event {
        position: account.events,
        sequence: row.sequence,
        change,
        reason,
        actor: actor.to_owned(),
        at,
        hash: String::new(),
    };
    event.hash = event_hash(counter, &event, &account.events_head);
    account.events_head.clone_from(&event.hash);
    event
}

/// The event of a reservation whose time is over.
pub(super) fn expire(
    counter: &Counter,
    account: &mut Account,
    row: &mut LedgerRow,
    now: UnixMillis,
) -> Event {
    change(counter, account, row, Change::Expired, Some(EXPIRED.to_owned()), NOBODY, now)
}

// ---------------------------------------------------------------------------------------------- hashes

/// SHA-256 over the fields as netstrings (`5:hello,`), which no two lists of fields share; an absent field is empty
/// and its presence follows from another. An auditor can recompute it with any tool.
fn digest_of(fields: &[&str]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for field in fields {
        let mut length = itoa::Buffer::new();
        context.update(length.format(field.len()).as_bytes());
        context.update(b":");
        context.update(field.as_bytes());
        context.update(b",");
    }
    hex(context.finish().as_ref())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Covers what never changes in a row: whose it is, what it says, how it was born, and the row before.
pub(super) fn row_hash(
    counter: &Counter,
    row: &LedgerRow,
    (birth, birth_reason): (LedgerState, Option<&str>),
    previous: &str,
) -> String {
    let (mut sequence, mut issued_at, mut until) =
        (itoa::Buffer::new(), itoa::Buffer::new(), itoa::Buffer::new());
    let (key_given, key) = row.idempotency_key.as_deref().map_or(("0", ""), |key| ("1", key));
    digest_of(&[
        "numgen ledger row 1",
        counter.key.as_str(),
        counter.period.as_str(),
        sequence.format(row.sequence.0),
        &row.number,
        &row.subject,
        issued_at.format(row.issued_at.0),
        birth.as_str(),
        birth_reason.unwrap_or_default(),
        row.reserved_until.map_or("", |moment| until.format(moment.0)),
        key_given,
        key,
        previous,
    ])
}

pub(super) fn event_hash(counter: &Counter, event: &Event, previous: &str) -> String {
    let (mut position, mut sequence, mut at) =
        (itoa::Buffer::new(), itoa::Buffer::new(), itoa::Buffer::new());
    digest_of(&[
        "numgen ledger event 1",
        counter.key.as_str(),
        counter.period.as_str(),
        position.format(event.position),
        sequence.format(event.sequence.0),
        event.change.as_str(),
        event.reason.as_deref().unwrap_or_default(),
        &event.actor,
        at.format(event.at.0),
        previous,
    ])
}

// ----------------------------------------------------------------------------------------- certificate

/// Counts the rows of a run, given in ascending order.
pub(super) fn certify(
    counter: &Counter,
    account: &Account,
    rows: impl Iterator<Item = (SequenceValue, LedgerState)>,
) -> Option<Certificate> {
    let run = account.run?;
    let mut certificate = Certificate {
        period: counter.period.clone(),
        first: Some(run.from),
        last: Some(run.to),
        count: 0,
        issued: 0,
        reserved: 0,
        void: 0,
        holes: Vec::new(),
        head: account.head.clone(),
    };
    let mut expected = Some(run.from.0);
    for (sequence, state) in rows {
        if let Some(expected) = expected.filter(|&expected| expected < sequence.0) {
            certificate.holes.push((SequenceValue(expected), SequenceValue(sequence.0 - 1)));
        }
        expected = sequence.0.checked_add(1);
        certificate.count += 1;
        *match state {
            LedgerState::Issued => &mut certificate.issued,
            LedgerState::Reserved => &mut certificate.reserved,
            LedgerState::Void => &mut certificate.void,
        } += 1;
    }
    if let Some(expected) = expected.filter(|&expected| expected <= run.to.0) {
        certificate.holes.push((SequenceValue(expected), run.to));
    }
    Some(certificate)
}
