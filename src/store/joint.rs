//! A counter that is kept in two books, as one: what an operator sees of a rule that changes between `continuous` and `strict`.
//!
//! Each book goes on above the other and lists what it passes as holes: it cannot know what of that the other has issued. Either
//! account is exact, and no value is issued in both; so the two together say of each value whether anybody has it, by what is read for a
//! page anyway. Nothing is written for it: neither at the change, nor by nodes that know nothing of this.
//!
//! Invariants: a value that one of the books has issued is in no hole; every other hole of either stays, with the reason of whoever
//! knows more of it; and above `base`, up to the higher of the two cursors, each value is issued, granted elsewhere, or in a hole.

use std::collections::BTreeMap;

use super::{
    CounterState, Hole, HoleReason, NodeSegment, SegmentState,
    draw::{passed, remainder},
};
use crate::{
    calendar::Period,
    counter::{SequenceValue, ValueRange},
};

/// The counters of a key in both books, as one list in period order.
pub(super) fn join_all(continuous: Vec<CounterState>, ledger: Vec<CounterState>) -> Vec<CounterState> {
    let mut joint: BTreeMap<Period, CounterState> = BTreeMap::new();
    for state in ledger {
        joint.insert(state.period.clone(), state);
    }
    for state in continuous {
        let state = match joint.remove(&state.period) {
            Some(ledger) => join(state, ledger),
            None => state,
        };
        joint.insert(state.period.clone(), state);
    }
    joint.into_values().collect()
}

fn join(continuous: CounterState, ledger: CounterState) -> CounterState {
    let (base, between) = beginning(&continuous, &ledger);
    let last = continuous.last.max(ledger.last);
    let mut told = Told::default();
    let elsewhere = &continuous.elsewhere;
    let granted = elsewhere.grants.iter().map(|grant| grant.range).chain(elsewhere.passed.iter().copied());
    for range in issued(&continuous).into_iter().chain(issued(&ledger)).chain(granted) {
        told.tell(range);
    }
    let mut listed: Vec<Hole> = continuous.holes.into_iter().chain(ledger.holes).chain(between).collect();
    // That a value was passed is the least that can be said of it. Of two who say so, the first has passed it.
    listed.sort_by_key(|hole| (hole.reason == HoleReason::Skipped, hole.since, hole.from));
    let mut holes = Vec::with_capacity(listed.len());
    for hole in listed {
        let parts = told.tell(ValueRange { from: hole.from, to: hole.to });
        holes.extend(parts.into_iter().map(|part| Hole { from: part.from, to: part.to, ..hole }));
    }
    holes.sort_by_key(|hole| hole.from);
    let ahead = |segment: NodeSegment| {
        let ahead = passed(last, segment.to)?;
        Some(NodeSegment { from: segment.from.max(ahead.from), ..segment })
    };
    CounterState {
        period: continuous.period,
        base,
        last,
        segments: continuous.segments.into_iter().filter_map(ahead).collect(),
        holes,
        elsewhere: continuous.elsewhere,
        begun_at: ledger.begun_at,
    }
}

/// Where the two began, and what lies between them if they do not meet.
///
/// A ledger begins above all that could still be drawn in the other book: what that one had not issued by then is nobody's. A continuous
/// counter that begins above the end of a ledger may have been drawn from before, in a memory that is lost: as without a ledger, the
/// account begins there.
fn beginning(continuous: &CounterState, ledger: &CounterState) -> (SequenceValue, Option<Hole>) {
    let (lower, upper) =
        if continuous.base <= ledger.base { (continuous, ledger) } else { (ledger, continuous) };
    let Some(range) = passed(lower.last, upper.base) else { return (lower.base, None) };
    match ledger.begun_at.filter(|_| lower.base == continuous.base) {
        Some(since) => {
            let hole = Hole { from: range.from, to: range.to, reason: HoleReason::Skipped, since };
            (lower.base, Some(hole))
        }
        None => (upper.base, None),
    }
}

/// What was issued in one book, ascending but for what was used ahead of its cursor.
fn issued(state: &CounterState) -> Vec<ValueRange> {
    let mut holes: Vec<&Hole> = state.holes.iter().collect();
    holes.sort_unstable_by_key(|hole| hole.from);
    let (mut at, mut issued) = (state.base, Vec::with_capacity(holes.len() + 1));
    for hole in holes {
        issued.extend(hole.from.0.checked_sub(1).and_then(|before| passed(at, SequenceValue(before))));
        at = at.max(hole.to);
    }
    issued.extend(passed(at, state.last));
    let used = state.segments.iter().filter(|segment| segment.state == SegmentState::Used);
    issued.extend(used.map(|segment| ValueRange { from: segment.from, to: segment.to }));
    issued
}

/// Values that something was said of: disjoint ranges, the last value of each by the first. A tree, since a counter may have a hundred thousand
/// holes; the `RangeSet` of the protocol is for the few that a message speaks of.
#[derive(Default)]
struct Told(BTreeMap<SequenceValue, SequenceValue>);

impl Told {
    /// Takes a range in; answers what of it is new.
    fn tell(&mut self, range: ValueRange) -> Vec<ValueRange> {
        let of = |(from, to): (&SequenceValue, &SequenceValue)| ValueRange { from: *from, to: *to };
        let below = self.0.range(..range.from).next_back().map(of);
        let known = below.into_iter().chain(self.0.range(range.from..=range.to).map(of));
        let known = known.filter(|known| known.to >= range.from).collect();
        let new = remainder(range, known);
        self.0.extend(new.iter().map(|part| (part.from, part.to)));
        new
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock::UnixMillis,
        store::{Elsewhere, Grant},
    };

    fn range(from: u64, to: u64) -> ValueRange {
        ValueRange { from: SequenceValue(from), to: SequenceValue(to) }
    }

    fn hole(from: u64, to: u64, reason: HoleReason, since: i64) -> Hole {
        Hole { from: SequenceValue(from), to: SequenceValue(to), reason, since: UnixMillis(since) }
    }

    fn skipped(from: u64, to: u64, since: i64) -> Hole {
        hole(from, to, HoleReason::Skipped, since)
    }

    fn book(base: u64, last: u64, holes: &[Hole]) -> CounterState {
        CounterState {
            period: Period::none(),
            base: SequenceValue(base),
            last: SequenceValue(last),
            segments: Vec::new(),
            holes: holes.to_vec(),
            elsewhere: Elsewhere::default(),
            begun_at: None,
        }
    }

    fn ledger(base: u64, last: u64, holes: &[Hole]) -> CounterState {
        CounterState { begun_at: Some(UnixMillis(3)), ..book(base, last, holes) }
    }

    fn one(continuous: CounterState, ledger: CounterState) -> CounterState {
        join_all(vec![continuous], vec![ledger]).remove(0)
    }

    fn segment(from: u64, to: u64, state: SegmentState) -> NodeSegment {
        NodeSegment { node: "n".into(), from: SequenceValue(from), to: SequenceValue(to), state }
    }

    #[test]
    fn what_the_other_book_has_issued_is_no_hole_and_the_rest_is() {
        let returned = hole(6, 20, HoleReason::Returned, 5);
        let continuous = book(0, 34, &[returned.clone(), skipped(21, 33, 5)]);
        let joint = one(continuous, ledger(30, 40, &[skipped(34, 38, 7)]));
        assert_eq!((joint.base.0, joint.last.0), (0, 40));
        assert_eq!(joint.holes, [returned, skipped(21, 30, 5), skipped(35, 38, 7)]);
    }

    #[test]
    fn what_a_ledger_begins_above_is_a_hole_but_for_what_nodes_had_used_and_others_were_granted() {
        let mut continuous = book(0, 5, &[]);
        continuous.segments =
            vec![segment(11, 12, SegmentState::Used), segment(13, 15, SegmentState::Pending)];
        continuous.elsewhere.grants = vec![Grant { holder: "data centre 2".into(), range: range(21, 30) }];
        let joint = one(continuous, ledger(40, 41, &[]));
        assert_eq!(joint.holes, [skipped(6, 10, 3), skipped(13, 20, 3), skipped(31, 40, 3)]);
        assert_eq!(joint.segments, [], "all below the cursor");
        assert_eq!(joint.elsewhere.count_between(joint.base, joint.last), 10);
    }

    #[test]
    fn a_continuous_counter_that_has_lost_its_memory_is_accounted_for_from_where_it_began_anew() {
        let joint = one(book(100, 120, &[]), ledger(5, 9, &[]));
        assert_eq!((joint.base.0, joint.last.0, joint.holes), (100, 120, vec![]));
        let joint = one(book(9, 20, &[]), ledger(5, 9, &[]));
        assert_eq!((joint.base.0, joint.last.0, joint.holes), (5, 20, vec![]), "nothing lies between");
    }

    #[test]
    fn a_counter_of_one_book_is_shown_as_it_is() {
        let of = |period, state| CounterState { period: Period::new(period), ..state };
        let (october, november) = (of("2026-10", book(0, 7, &[])), of("2026-11", ledger(7, 9, &[])));
        let joint = join_all(vec![october.clone()], vec![november.clone()]);
        assert_eq!(joint, [october, november]);
    }

    /// Both books of a rule whose mode changes, and who has what.
    struct Rule {
        books: [CounterState; 2],
        floor: u64,
        issued: std::collections::BTreeSet<u64>,
    }

    impl Rule {
        /// As `draw.rs` and the authority draw.
        fn draw(&mut self, mode: usize, count: u64) {
            let book = &mut self.books[mode];
            if book.last == book.base {
                (book.base, book.last) = (SequenceValue(self.floor), SequenceValue(self.floor));
            } else if let Some(range) = passed(book.last, SequenceValue(self.floor)) {
                let used = book.segments.drain(..).map(|used| ValueRange { from: used.from, to: used.to });
                let left = remainder(range, used.collect());
                book.holes.extend(left.iter().map(|range| skipped(range.from.0, range.to.0, 1)));
                book.last = range.to;
            }
            self.issued.extend(book.last.0 + 1..=book.last.0 + count);
            book.last.0 += count;
        }

        /// Nodes leave a segment behind, and may have used of it.
        fn leave(&mut self, mode: usize, size: u64, used: u64) {
            let last = self.books[mode].last.0.max(self.floor);
            self.floor = last;
            if mode == 0 && self.books[0].last > self.books[0].base && size > 0 {
                self.floor = last + size;
                let used = used.min(size);
                if used > 0 {
                    self.books[0].segments.push(segment(last + 1, last + used, SegmentState::Used));
                    self.issued.extend(last + 1..=last + used);
                }
            }
        }

        fn check(&self) -> Result<(), TestCaseError> {
            let [continuous, ledger] = self.books.clone();
            let joint = one(continuous, ledger);
            let listed: Vec<u64> = joint.holes.iter().flat_map(|hole| hole.from.0..=hole.to.0).collect();
            let nobodys = (joint.base.0 + 1..=joint.last.0).filter(|value| !self.issued.contains(value));
            prop_assert_eq!(listed, nobodys.collect::<Vec<_>>(), "{:?}", self.books);
            let below = self.issued.iter().filter(|value| **value <= joint.base.0).count();
            prop_assert_eq!(below, 0, "the account begins where numbers do");
            Ok(())
        }
    }

    proptest! {
        /// However often the mode changes, and whatever nodes leave behind: each value is somebody's or listed, never both.
        #[test]
        fn every_value_is_issued_or_listed(
            begins in 0_usize..2,
            steps in prop::collection::vec((0_u64..4, 0_u64..9, 0_u64..9), 1..12),
        ) {
            let unused = || ledger(0, 0, &[]);
            let mut rule = Rule { books: [unused(), unused()], floor: 0, issued: Default::default() };
            for (turn, (count, size, used)) in steps.into_iter().enumerate() {
                let mode = (begins + turn) % 2;
                if count > 0 {
                    rule.draw(mode, count);
                    rule.check()?;
                }
                rule.leave(mode, size, used);
                rule.check()?;
            }
        }
    }
}
