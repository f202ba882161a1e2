//! A counter as an operator sees it.

use super::link::{Lot, Shown};
use crate::{
    clock::UnixMillis,
    counter::{SequenceValue, ValueRange},
    store::{
        CounterState, Hole, HoleReason, NodeSegment, SegmentState,
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
    })
}

/// Puts right what the authority cannot know: what it was told to pass over was granted elsewhere, and is no hole; what was drawn for
/// once and handed back is one.
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
    let of_others = lot.held.iter().map(|&(datacenter, range)| NodeSegment {
        node: format!("data centre {datacenter}"),
        from: range.from,
        to: range.to,
        state: SegmentState::Held,
    });
    state.segments.extend(of_others);
    let drawn: RangeSet = lot.drawn.iter().filter_map(|range| above(*range, state.last)).collect();
    state.segments.extend(drawn.iter().map(|range| NodeSegment {
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
    state.holes.sort_by_key(|hole| hole.from);
}

/// What lies ahead of the cursor, by node.
fn segments(counter: &Authority, now_ms: u64) -> Vec<NodeSegment> {
    let spoken: RangeSet = counter.ahead.iter().map(|ahead| ahead.range).collect();
    let used = counter.ahead.iter().filter(|ahead| !ahead.abandoned).map(|ahead| NodeSegment {
        node: ahead.node.clone(),
        from: ahead.range.from,
        to: ahead.range.to,
        state: SegmentState::Used,
    });
    let mut segments: Vec<NodeSegment> = used.collect();
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
