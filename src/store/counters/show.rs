//! A counter as an operator sees it.

use super::link::{Lot, Shown};
use crate::{
    clock::UnixMillis,
    counter::{SequenceValue, ValueRange},
    store::{
        CounterState, Elsewhere, Grant, Hole, HoleReason, NodeSegment, SegmentState,
        protocol::counter::{Authority, RangeSet},
    },
};

/// The counter as it stands; `None` for one that was only looked at: nothing was drawn from it, nobody moved it.
pub(super) fn state(shown: Shown) -> Option<CounterState> {
    let Shown { period, now_ms, counter } = shown;
    let is_untouched = counter.cursor == counter.origin && counter.base == counter.origin;
    if is_untouched
        && counter.ahead.is_empty()
        && counter.members.values().all(|member| member.held.is_none())
    {
        return None;
    }
    let holes = counter.holes.iter().map(|hole| Hole {
        from: hole.range.from,
        to: hole.range.to,
        reason: hole.reason,
        since: UnixMillis(i64::try_from(hole.since).unwrap_or(i64::MAX)),
    });
    Some(CounterState {
        period,
        base: counter.base,
        last: counter.cursor,
        holes: holes.collect(),
        segments: segments(&counter, now_ms),
        elsewhere: Elsewhere::default(),
        begun_at: None,
    })
}

/// A counter that the authority does not know, and others draw from.
pub(super) fn elsewhere(lot: &Lot) -> Option<CounterState> {
    let held = lot.held.iter().map(|(_, range)| range);
    let lowest = lot.elsewhere.iter().chain(&lot.drawn).chain(held).map(|range| range.from).min()?;
    let base = SequenceValue(lowest.0.saturating_sub(1));
    let mut state = CounterState {
        period: lot.period.clone(),
        base,
        last: base,
        holes: Vec::new(),
        segments: Vec::new(),
        elsewhere: Elsewhere::default(),
        begun_at: None,
    };
    under_grants(&mut state, std::slice::from_ref(lot));
    Some(state)
}

/// Puts right what the authority cannot know: what it was told to pass over was granted elsewhere, and is no hole; what was drawn for
/// once and handed back is one, and so is what was left by a memory of which the authority knows nothing.
pub(super) fn under_grants(state: &mut CounterState, lots: &[Lot]) {
    let Some(lot) = lots.iter().find(|lot| lot.period == state.period) else { return };
    let held = lot.held.iter().map(|(_, range)| *range);
    let elsewhere: RangeSet = lot.elsewhere.iter().chain(&lot.drawn).copied().chain(held).collect();
    let holes = std::mem::take(&mut state.holes);
    for hole in holes {
        let range = ValueRange { from: hole.from, to: hole.to };
        let kept = elsewhere.missing(range);
        state.holes.extend(kept.iter().map(|part| Hole { from: part.from, to: part.to, ..hole.clone() }));
    }
    let grant = |&(datacenter, range)| Grant { holder: format!("data centre {datacenter}"), range };
    state.elsewhere.grants = lot.held.iter().map(grant).collect();
    state.elsewhere.grants.sort_by_key(|grant| grant.range.from);
    state.elsewhere.passed.clone_from(&lot.elsewhere);
    let returned: RangeSet = lot.returned.iter().map(|(range, _)| *range).collect();
    let ahead = lot.drawn.iter().filter_map(|range| above(*range, state.last));
    let used: RangeSet = ahead.flat_map(|range| returned.missing(range).iter().collect::<Vec<_>>()).collect();
    state.segments.extend(used.iter().map(|range| NodeSegment {
        node: "PostgreSQL".to_owned(),
        from: range.from,
        to: range.to,
        state: SegmentState::Used,
    }));
    state.segments.sort_by_key(|segment| segment.from);
    for &(range, since) in lot.returned.iter().filter(|(range, _)| range.to <= state.last) {
        let since = UnixMillis(i64::try_from(since).unwrap_or(i64::MAX));
        state.holes.push(Hole { from: range.from, to: range.to, reason: HoleReason::Returned, since });
    }
    list_left(state, lot);
    state.holes.sort_by_key(|hole| hole.from);
}

/// The authority accounts for what lies above where it began; it began above what was left and of which nobody told it. What nodes did
/// tell of that is listed or held already.
fn list_left(state: &mut CounterState, lot: &Lot) {
    let listed = state.holes.iter().map(|hole| ValueRange { from: hole.from, to: hole.to });
    let held = state.segments.iter().map(|segment| ValueRange { from: segment.from, to: segment.to });
    let known: RangeSet = listed.chain(held).collect();
    for &(range, since) in lot.left.iter().filter(|(range, _)| range.from <= state.base) {
        let unknown = known.missing(ValueRange { to: range.to.min(state.base), ..range });
        state.holes.extend(unknown.iter().map(|part| Hole {
            from: part.from,
            to: part.to,
            reason: HoleReason::Skipped,
            since: UnixMillis(i64::try_from(since).unwrap_or(i64::MAX)),
        }));
    }
}

/// What lies ahead of the cursor, by node.
fn segments(counter: &Authority, now_ms: u64) -> Vec<NodeSegment> {
    let spoken: RangeSet =
        counter.ahead.iter().map(|ahead| ahead.range).chain(counter.returned.iter()).collect();
    let mut segments = Vec::new();
    for ahead in counter.ahead.iter().filter(|ahead| !ahead.abandoned) {
        segments.extend(counter.returned.missing(ahead.range).iter().map(|range| NodeSegment {
            node: ahead.node.clone(),
            from: range.from,
            to: range.to,
            state: SegmentState::Used,
        }));
    }
    for member in counter.members.values() {
        let state = if member.is_alive(now_ms) { SegmentState::Held } else { SegmentState::Pending };
        for segment in member.segments() {
            let Some(ahead) = above(segment.0, counter.cursor) else { continue };
            segments.extend(spoken.missing(ahead).iter().map(|range| NodeSegment {
                node: member.node.clone(),
                from: range.from,
                to: range.to,
                state,
            }));
        }
    }
    segments.sort_by_key(|segment| segment.from);
    segments.dedup_by(|next, segment| {
        let alike = (&next.node, next.state) == (&segment.node, segment.state);
        let touches = alike && segment.to.0.checked_add(1) == Some(next.from.0);
        if touches {
            segment.to = next.to;
        }
        touches
    });
    segments
}

fn above(range: ValueRange, cursor: SequenceValue) -> Option<ValueRange> {
    let from = range.from.max(SequenceValue(cursor.0.checked_add(1)?));
    (from <= range.to).then_some(ValueRange { from, to: range.to })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::Period;

    fn range(from: u64, to: u64) -> ValueRange {
        ValueRange { from: SequenceValue(from), to: SequenceValue(to) }
    }

    #[test]
    fn what_other_data_centres_were_granted_is_theirs_and_no_hole() {
        let hole = |from, to| Hole {
            from: SequenceValue(from),
            to: SequenceValue(to),
            reason: HoleReason::Skipped,
            since: UnixMillis(7),
        };
        let mut state = CounterState {
            period: Period::new(""),
            base: SequenceValue(0),
            last: SequenceValue(60),
            segments: Vec::new(),
            holes: vec![hole(11, 42)],
            elsewhere: Elsewhere::default(),
            begun_at: None,
        };
        let lot = Lot {
            period: Period::new(""),
            elsewhere: vec![range(11, 20)],
            held: vec![(2, range(61, 80)), (1, range(21, 40))],
            left: Vec::new(),
            drawn: vec![range(41, 41), range(81, 82)],
            returned: vec![(range(82, 82), 9)],
        };
        under_grants(&mut state, &[lot]);
        assert_eq!(state.holes, vec![hole(42, 42)], "what was drawn for once is none either");
        let grants: Vec<_> =
            state.elsewhere.grants.iter().map(|grant| (&*grant.holder, grant.range)).collect();
        assert_eq!(grants, [("data centre 1", range(21, 40)), ("data centre 2", range(61, 80))]);
        let count = |base, last| state.elsewhere.count_between(SequenceValue(base), SequenceValue(last));
        assert_eq!(count(0, 60), 30);
        assert_eq!(count(0, 65), 35, "the part that was reached");
        assert_eq!(count(30, 65), 15, "a counter that began above");
        let ahead: Vec<_> = state.segments.iter().map(|segment| (segment.from.0, segment.to.0)).collect();
        assert_eq!(ahead, [(81, 81)], "what was handed back is not used");
    }

    #[test]
    fn what_a_lost_memory_has_left_is_a_hole_once() {
        let hole = |from, to, reason| Hole {
            from: SequenceValue(from),
            to: SequenceValue(to),
            reason,
            since: UnixMillis(7),
        };
        let told = vec![hole(12, 14, HoleReason::Unconfirmed), hole(42, 43, HoleReason::Returned)];
        let mut state = CounterState {
            period: Period::new(""),
            base: SequenceValue(40),
            last: SequenceValue(60),
            segments: Vec::new(),
            holes: told.clone(),
            elsewhere: Elsewhere::default(),
            begun_at: None,
        };
        let lot = Lot {
            period: Period::new(""),
            elsewhere: Vec::new(),
            held: Vec::new(),
            left: vec![(range(11, 20), 7), (range(35, 45), 7), (range(50, 70), 7)],
            drawn: Vec::new(),
            returned: Vec::new(),
        };
        under_grants(&mut state, &[lot]);
        let skipped = |from, to| hole(from, to, HoleReason::Skipped);
        // The authority itself lists what it has passed above 40, where it began.
        let expected = [skipped(11, 11), told[0].clone(), skipped(15, 20), skipped(35, 40), told[1].clone()];
        assert_eq!(state.holes, expected);
        assert_eq!(state.holes_above_base(), 2, "those below are not part of what it counts");
    }
}
