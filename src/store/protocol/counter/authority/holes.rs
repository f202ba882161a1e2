//! The list of holes: ascending, without overlaps, alike neighbours merged.

use super::Authority;
use crate::{
    counter::ValueRange,
    store::{
        HoleReason,
        protocol::counter::{message::Incarnation, range_set::RangeSet},
    },
};

/// A range at or below the cursor that was not issued, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hole {
    /// Which.
    pub range: ValueRange,
    /// Why.
    pub reason: HoleReason,
    /// Since when, in ms.
    pub since: u64,
    /// `Pending`: in whose segment it lies.
    pub holder: Option<Incarnation>,
}

impl Authority {
    /// Lists a hole; merges it with those beside it that are alike, as old as the first of them.
    pub(super) fn list(&mut self, hole: Hole) {
        let alike = |one: &Hole, next: &Hole| {
            (one.reason, one.holder) == (next.reason, next.holder)
                && one.range.to.0.checked_add(1) == Some(next.range.from.0)
        };
        let place = self.holes.partition_point(|other| other.range.from < hole.range.from);
        self.holes.insert(place, hole);
        for first in [place.checked_sub(1), Some(place)].into_iter().flatten().rev() {
            if let [one, next, ..] = &self.holes[first..]
                && alike(one, next)
            {
                self.holes[first].range.to = next.range.to;
                self.holes.remove(first + 1);
            }
        }
    }

    /// Takes values off the list: they were issued after all.
    pub(super) fn unlist(&mut self, range: ValueRange) {
        let holes = std::mem::take(&mut self.holes);
        for hole in holes {
            let mut rest = RangeSet::from_iter([hole.range]);
            rest.remove(range);
            self.holes.extend(rest.iter().map(|range| Hole { range, ..hole.clone() }));
        }
    }
}
