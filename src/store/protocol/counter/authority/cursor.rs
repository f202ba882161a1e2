//! The cursor: it never falls, and everything that it passes is drawn, known to be issued, or listed.

use super::{Authority, Hole};
use crate::{
    counter::{SequenceValue, ValueRange},
    store::{
        HoleReason,
        protocol::counter::range_set::{RangeSet, overlap},
    },
};

impl Authority {
    /// Nobody has had to do with it yet but to fence it.
    pub(super) fn is_blank(&self) -> bool {
        let is_unmoved = self.base == self.origin && self.is_untouched();
        is_unmoved && self.members.is_empty() && self.recovery.is_none()
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.cursor == self.base && self.ahead.is_empty()
    }

    /// A counter from which nothing was issued begins above its floor; nothing is skipped then.
    pub(super) fn begin_above(&mut self, floor: SequenceValue) {
        if self.is_untouched() && floor > self.base {
            (self.base, self.cursor) = (floor, floor);
        }
    }

    /// Moves the cursor, and lists what it passes that is not `drawn`.
    pub(super) fn pass_to(&mut self, to: SequenceValue, drawn: &RangeSet, reason: HoleReason, now: u64) {
        if to <= self.cursor {
            return;
        }
        let passed = ValueRange { from: SequenceValue(self.cursor.0 + 1), to };
        let mut missing = drawn.missing(passed);
        self.returned.iter().for_each(|range| missing.remove(range));
        for part in missing.iter() {
            self.list_passed(part, reason, now);
        }
        self.cursor = to;
        self.ahead.retain_mut(|ahead| {
            ahead.range.from = ahead.range.from.max(SequenceValue(to.0.saturating_add(1)));
            ahead.range.to > to
        });
        self.list_returned(now);
    }

    fn list_passed(&mut self, part: ValueRange, reason: HoleReason, now: u64) {
        let mut rest = RangeSet::from_iter([part]);
        let mut listed = Vec::new();
        for ahead in &self.ahead {
            if let Some(known) = overlap(ahead.range, part) {
                rest.remove(known);
                if ahead.abandoned {
                    listed.push((known, HoleReason::Abandoned, None));
                }
            }
        }
        for (id, member) in &self.members {
            for segment in member.segments() {
                let pending: Vec<_> = rest.within(segment.0).collect();
                for held in pending {
                    rest.remove(held);
                    listed.push((held, HoleReason::Pending, Some(*id)));
                }
            }
        }
        listed.extend(rest.iter().map(|range| (range, reason, None)));
        for (range, reason, holder) in listed {
            self.list(Hole { range, reason, since: now, holder });
        }
    }
}
