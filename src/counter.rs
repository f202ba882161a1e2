//! Counters, the integers that they give, and arithmetic on ranges of them.
//!
//! Invariant of [`Ranges`]: ascending, disjoint, none empty; so counting and iterating need no checks.

use std::fmt;

use crate::{calendar::Period, prefix_key::PrefixKey};

/// The integer that fills `{SEQ}`: all of `u64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceValue(pub u64);

impl SequenceValue {
    /// The highest value.
    pub const MAX: Self = Self(u64::MAX);
}

impl fmt::Display for SequenceValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The sequence of one prefix key in one reset period.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Counter {
    /// Whose.
    pub key: PrefixKey,
    /// In which period.
    pub period: Period,
}

/// `ORDERS`, or `ORDERS:2026-11`.
impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.period.as_str() {
            "" => write!(f, "{}", self.key),
            period => write!(f, "{}:{period}", self.key),
        }
    }
}

/// A run of consecutive values, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ValueRange {
    /// First value.
    pub from: SequenceValue,
    /// Last value, at least `from`.
    pub to: SequenceValue,
}

impl ValueRange {
    /// The `count` values that follow `cursor`; `None` if there are not that many at or below `max`, or `count` is 0.
    pub fn after(cursor: SequenceValue, count: u64, max: SequenceValue) -> Option<Self> {
        let to = cursor.0.checked_add(count)?;
        (count > 0 && to <= max.0).then(|| Self { from: SequenceValue(cursor.0 + 1), to: SequenceValue(to) })
    }

    /// How many values; saturates for the one range that has 2^64.
    pub fn count(self) -> u64 {
        (self.to.0 - self.from.0).saturating_add(1)
    }

    /// The first `count` values, at least 1, and what is left.
    pub fn split(self, count: u64) -> (Self, Option<Self>) {
        match self.from.0.checked_add(count).filter(|next| *next <= self.to.0) {
            Some(next) => {
                let head = Self { from: self.from, to: SequenceValue(next - 1) };
                (head, Some(Self { from: SequenceValue(next), to: self.to }))
            }
            None => (self, None),
        }
    }
}

/// Values in ascending order, as few ranges as they came in. A single range, the usual case, needs no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    first: Option<ValueRange>,
    /// Above `first`; empty where there is none.
    rest: Vec<ValueRange>,
}

impl Ranges {
    /// No values.
    pub const fn new() -> Self {
        Self { first: None, rest: Vec::new() }
    }

    /// Adds a range above all that are here; merges it where it touches the last one.
    ///
    /// # Panics
    ///
    /// In debug builds, when the range does not lie above: that is a bug of the caller.
    pub fn push(&mut self, range: ValueRange) {
        debug_assert!(range.from <= range.to);
        match self.rest.last_mut().or(self.first.as_mut()) {
            None => self.first = Some(range),
            Some(last) if last.to.0.checked_add(1) == Some(range.from.0) => last.to = range.to,
            Some(last) => {
                debug_assert!(last.to < range.from, "ranges must ascend");
                self.rest.push(range);
            }
        }
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.iter().map(ValueRange::count).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = ValueRange> + '_ {
        self.first.into_iter().chain(self.rest.iter().copied())
    }

    /// Each value, ascending.
    pub fn values(&self) -> impl Iterator<Item = SequenceValue> + '_ {
        self.iter().flat_map(|range| (range.from.0..=range.to.0).map(SequenceValue))
    }

    /// The highest value.
    pub fn last(&self) -> Option<SequenceValue> {
        self.rest.last().copied().or(self.first).map(|range| range.to)
    }
}

impl From<ValueRange> for Ranges {
    fn from(range: ValueRange) -> Self {
        Self { first: Some(range), rest: Vec::new() }
    }
}

/// `1-3,7,9-12`: the form in which a store keeps ranges.
impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if range.from == range.to {
                write!(f, "{comma}{}", range.from)?;
            } else {
                write!(f, "{comma}{}-{}", range.from, range.to)?;
            }
        }
        Ok(())
    }
}

/// A text that is not a list of ascending, disjoint ranges.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a list of ascending ranges")]
pub struct InvalidRanges;

impl std::str::FromStr for Ranges {
    type Err = InvalidRanges;

    fn from_str(text: &str) -> Result<Self, InvalidRanges> {
        let mut ranges = Self::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let value = |digits: &str| digits.parse().map(SequenceValue).map_err(|_| InvalidRanges);
            let range = ValueRange { from: value(from)?, to: value(to)? };
            if range.from > range.to || ranges.last().is_some_and(|last| last >= range.from) {
                return Err(InvalidRanges);
            }
            ranges.push(range);
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_value_is_u64_max_and_then_there_is_none() {
        let max = SequenceValue::MAX;
        let last = ValueRange::after(SequenceValue(u64::MAX - 1), 1, max).expect("one is left");
        assert_eq!((last.from, last.to), (max, max));
        assert_eq!(ValueRange::after(max, 1, max), None);
        assert_eq!(ValueRange::after(SequenceValue(u64::MAX - 1), 2, max), None);
        assert_eq!(ValueRange::after(SequenceValue(5), 0, max), None);
        assert_eq!(ValueRange::after(SequenceValue(5), 3, SequenceValue(7)), None);
    }

    #[test]
    fn counters_are_named_with_their_period() {
        let key = PrefixKey::parse("ORDERS").expect("valid");
        assert_eq!(Counter { key: key.clone(), period: Period::none() }.to_string(), "ORDERS");
        assert_eq!(Counter { key, period: Period::new("2026-11") }.to_string(), "ORDERS:2026-11");
    }

    #[test]
    fn refuses_ranges_that_fall_or_overlap() {
        for text in ["3-1", "1-3,3", "5,4", "a", "1-", "-1", "18446744073709551616"] {
            assert_eq!(text.parse::<Ranges>(), Err(InvalidRanges), "{text}");
        }
    }

    proptest! {
        #[test]
        fn ranges_survive_their_text(steps in prop::collection::vec((1_u64..1000, 0_u64..1000), 0..20)) {
            let (mut ranges, mut cursor, mut expected) = (Ranges::new(), 0, Vec::new());
            for (gap, extent) in steps {
                let range = ValueRange { from: SequenceValue(cursor + gap), to: SequenceValue(cursor + gap + extent) };
                expected.extend((range.from.0..=range.to.0).map(SequenceValue));
                cursor = range.to.0;
                ranges.push(range);
            }
            prop_assert_eq!(ranges.values().collect::<Vec<_>>(), expected);
            prop_assert_eq!(ranges.count(), ranges.values().count() as u64);
            prop_assert_eq!(ranges.to_string().parse::<Ranges>(), Ok(ranges.clone()));
            let parts: Vec<_> = ranges.iter().collect();
            prop_assert!(parts.windows(2).all(|pair| pair[0].to.0 + 1 < pair[1].from.0), "merged and disjoint");
        }
    }
}
