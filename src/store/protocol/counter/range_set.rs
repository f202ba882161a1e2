//! A set of values, as ranges.

use crate::counter::{SequenceValue, ValueRange};

/// Values as ascending, disjoint ranges that do not touch. Small: searched from the front.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RangeSet(Vec<ValueRange>);

impl RangeSet {
    /// No values.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = ValueRange> + '_ {
        self.0.iter().copied()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The highest value.
    pub fn last(&self) -> Option<SequenceValue> {
        self.0.last().map(|range| range.to)
    }

    /// Whether `value` is in the set.
    pub fn contains(&self, value: SequenceValue) -> bool {
        self.0.iter().any(|range| range.from <= value && value <= range.to)
    }

    /// Adds a range; what is there already stays.
    pub fn insert(&mut self, range: ValueRange) {
        let mut merged = range;
        self.0.retain(|other| {
            let apart = other.to.0.checked_add(1).is_some_and(|next| next < merged.from.0)
                || merged.to.0.checked_add(1).is_some_and(|next| next < other.from.0);
            if !apart {
                merged = ValueRange { from: merged.from.min(other.from), to: merged.to.max(other.to) };
            }
            apart
        });
        let place = self.0.partition_point(|other| other.to < merged.from);
        self.0.insert(place, merged);
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: ValueRange) {
        self.0 = self.0.iter().flat_map(|part| minus(*part, range)).flatten().collect();
    }

    /// What of `range` is in the set.
    pub fn within(&self, range: ValueRange) -> impl Iterator<Item = ValueRange> + '_ {
        self.0.iter().filter_map(move |part| overlap(*part, range))
    }

    /// What of `range` is not in the set, ascending.
    pub fn missing(&self, range: ValueRange) -> Self {
        let mut rest = Self(vec![range]);
        for part in self.within(range) {
            rest.remove(part);
        }
        rest
    }

    /// Takes out, and answers, what lies at or below `cursor`.
    pub fn split_off_below(&mut self, cursor: SequenceValue) -> Self {
        let below = ValueRange { from: SequenceValue(0), to: cursor };
        let taken = Self(self.within(below).collect());
        self.remove(below);
        taken
    }
}

impl FromIterator<ValueRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = ValueRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

/// What two ranges share.
pub(super) fn overlap(a: ValueRange, b: ValueRange) -> Option<ValueRange> {
    let shared = ValueRange { from: a.from.max(b.from), to: a.to.min(b.to) };
    (shared.from <= shared.to).then_some(shared)
}

/// What is left of `a`: below and above `b`.
fn minus(a: ValueRange, b: ValueRange) -> [Option<ValueRange>; 2] {
    if overlap(a, b).is_none() {
        return [Some(a), None];
    }
    let below = (a.from < b.from).then(|| ValueRange { from: a.from, to: SequenceValue(b.from.0 - 1) });
    let above = (b.to < a.to).then(|| ValueRange { from: SequenceValue(b.to.0 + 1), to: a.to });
    [below, above]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range(from: u64, extent: u64) -> ValueRange {
        ValueRange { from: SequenceValue(from), to: SequenceValue(from + extent) }
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_values(steps in prop::collection::vec((any::<bool>(), 0_u64..40, 0_u64..12), 0..30)) {
            let (mut set, mut plain) = (RangeSet::new(), BTreeSet::new());
            for (add, from, extent) in steps {
                let part = range(from, extent);
                if add { set.insert(part) } else { set.remove(part) }
                for value in from..=from + extent {
                    if add { plain.insert(value); } else { plain.remove(&value); }
                }
                let whole = range(0, 100);
                for value in 0..=100 {
                    let present = plain.contains(&value);
                    prop_assert_eq!(set.contains(SequenceValue(value)), present);
                    prop_assert_eq!(set.missing(whole).contains(SequenceValue(value)), !present);
                }
                let ranges: Vec<_> = set.iter().collect();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].to.0 + 1 < pair[1].from.0), "{:?}", ranges);
            }
        }
    }

    #[test]
    fn the_ends_of_u64_are_values_like_others() {
        let all = ValueRange { from: SequenceValue(0), to: SequenceValue::MAX };
        let mut set: RangeSet = [range(u64::MAX, 0), range(0, 0)].into_iter().collect();
        assert_eq!(set.missing(all).iter().count(), 1);
        set.insert(all);
        assert_eq!(set.iter().collect::<Vec<_>>(), [all]);
        set.remove(range(u64::MAX, 0));
        assert_eq!(set.last(), Some(SequenceValue(u64::MAX - 1)));
    }
}
