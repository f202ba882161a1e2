//! The arithmetic of a batch, apart from any database: which request of a combined batch gets which values.
//!
//! Invariants: values of one batch lie directly above the cursor, in the order of the requests; a request that cannot
//! be served whole draws nothing; a key that was used before draws nothing; a batch that draws nothing changes nothing,
//! not even a floor.

use std::{collections::HashMap, convert::Infallible};

use super::{Bounds, Claim, IssueRequest, Recorded, TakeRequest, Taken};
use crate::{
    clock::UnixMillis,
    counter::{Ranges, SequenceValue, ValueRange},
};

/// Where a counter that exists stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Where it began.
    pub(super) base: SequenceValue,
    /// The cursor.
    pub(super) last: SequenceValue,
}

/// What is remembered under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) fingerprint: [u8; 32],
    pub(super) recorded: Recorded,
    pub(super) expires_at: UnixMillis,
}

impl Record {
    pub(super) fn of(claim: &Claim, values: Ranges) -> Self {
        Self {
            fingerprint: claim.fingerprint,
            recorded: Recorded { stamp: claim.stamp.clone(), values },
            expires_at: claim.expires_at,
        }
    }

    /// What a later claim of the same key is answered; `None` when this record has expired by then.
    pub(super) fn answer(&self, claim: &Claim) -> Option<Taken> {
        if self.expires_at <= claim.claimed_at {
            None
        } else if self.fingerprint == claim.fingerprint {
            Some(Taken::Replayed(self.recorded.clone()))
        } else {
            Some(Taken::Mismatch)
        }
    }
}

/// What every kind of request has: how many values, and perhaps a key.
pub(super) trait Ask {
    fn count(&self) -> u32;
    fn claim(&self) -> Option<&Claim>;
}

impl Ask for TakeRequest {
    fn count(&self) -> u32 {
        self.count
    }
    fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }
}

impl Ask for IssueRequest {
    fn count(&self) -> u32 {
        self.count
    }
    fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }
}

/// How a counter moves when a batch is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Movement {
    /// Where the counter begins, possibly raised while nothing was issued.
    pub(super) base: SequenceValue,
    /// What a floor passed over, below the first value drawn.
    pub(super) skipped: Option<ValueRange>,
    /// The cursor before the first value drawn.
    pub(super) start: SequenceValue,
    /// The cursor afterwards.
    pub(super) last: SequenceValue,
}

/// A batch worked out, nothing written yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// One answer for each request.
    pub(super) taken: Vec<Taken>,
    /// `None`: nothing is drawn, nothing is to be written.
    pub(super) movement: Option<Movement>,
}

/// Works out a batch. `recall` finds what is stored under a key; keys of the batch itself are seen to here.
pub(super) fn plan<A: Ask, E>(
    standing: Option<Standing>,
    bounds: Bounds,
    asks: &[A],
    mut recall: impl FnMut(&Claim) -> Result<Option<Record>, E>,
) -> Result<Plan, E> {
    let (base, skipped, start) = starting_point(standing, bounds);
    let mut cursor = start;
    let mut taken = Vec::with_capacity(asks.len());
    let mut claimed: HashMap<&str, Record> = HashMap::new();
    for ask in asks {
        let remembered = match ask.claim() {
            None => None,
            Some(claim) => match claimed.get(&*claim.scoped_key) {
                Some(earlier) => earlier.answer(claim),
                None => recall(claim)?.and_then(|record| record.answer(claim)),
            },
        };
        let answer = remembered.unwrap_or_else(|| {
            let Some(range) = ValueRange::after(cursor, u64::from(ask.count()), bounds.max) else {
                return Taken::Overflow;
            };
            cursor = range.to;
            if let Some(claim) = ask.claim() {
                claimed.insert(&claim.scoped_key, Record::of(claim, range.into()));
            }
            Taken::Fresh(range.into())
        });
        taken.push(answer);
    }
    let movement = (cursor > start).then_some(Movement { base, skipped, start, last: cursor });
    Ok(Plan { taken, movement })
}

/// The same for a store whose look-up cannot fail.
pub(super) fn plan_infallibly<A: Ask>(
    standing: Option<Standing>,
    bounds: Bounds,
    asks: &[A],
    mut recall: impl FnMut(&Claim) -> Option<Record>,
) -> Plan {
    let Ok(plan) = plan(standing, bounds, asks, |claim| Ok::<_, Infallible>(recall(claim)));
    plan
}

/// (base, what is passed over, cursor before the first value). A counter from which nothing was issued begins at the highest
/// of what it was told so far; one that was used is moved over the floor, and what is passed is accounted for.
fn starting_point(
    standing: Option<Standing>,
    bounds: Bounds,
) -> (SequenceValue, Option<ValueRange>, SequenceValue) {
    match standing {
        Some(Standing { base, last }) if last > base => match passed(last, bounds.floor) {
            Some(range) => (base, Some(range), bounds.floor),
            None => (base, None, last),
        },
        unused => {
            let told = unused.map_or(SequenceValue(0), |standing| standing.last);
            let base = told.max(bounds.base).max(bounds.floor);
            (base, None, base)
        }
    }
}

/// What lies above `cursor` up to `to`.
pub(super) fn passed(cursor: SequenceValue, to: SequenceValue) -> Option<ValueRange> {
    (to > cursor).then(|| ValueRange { from: SequenceValue(cursor.0 + 1), to })
}

/// What is left of `range` without `covered`, which may overlap and come in any order.
pub(super) fn remainder(range: ValueRange, mut covered: Vec<ValueRange>) -> Vec<ValueRange> {
    covered.sort_unstable_by_key(|part| part.from);
    let mut left = Vec::new();
    let mut from = range.from.0;
    for part in covered {
        if part.from.0 > range.to.0 {
            break;
        }
        if part.from.0 > from {
            left.push(ValueRange { from: SequenceValue(from), to: SequenceValue(part.from.0 - 1) });
        }
        if part.to.0 >= range.to.0 {
            return left;
        }
        from = from.max(part.to.0 + 1);
    }
    left.push(ValueRange { from: SequenceValue(from), to: range.to });
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FREE: Bounds = Bounds {
        base: SequenceValue(0),
        floor: SequenceValue(0),
        max: SequenceValue::MAX,
        scheme: 0,
        on_outage: crate::rule::OnOutage::Segment,
    };

    fn range(from: u64, to: u64) -> ValueRange {
        ValueRange { from: SequenceValue(from), to: SequenceValue(to) }
    }

    fn asks(counts: &[u32]) -> Vec<TakeRequest> {
        counts.iter().map(|&count| TakeRequest { count, claim: None }).collect()
    }

    fn fresh(from: u64, to: u64) -> Taken {
        Taken::Fresh(range(from, to).into())
    }

    fn standing(base: u64, last: u64) -> Option<Standing> {
        Some(Standing { base: SequenceValue(base), last: SequenceValue(last) })
    }

    #[test]
    fn a_request_that_does_not_fit_leaves_its_values_to_the_next() {
        let bounds = Bounds { max: SequenceValue(10), ..FREE };
        let plan = plan_infallibly(standing(0, 7), bounds, &asks(&[2, 5, 1, 1]), |_| None);
        assert_eq!(plan.taken, [fresh(8, 9), Taken::Overflow, fresh(10, 10), Taken::Overflow]);
        assert_eq!(plan.movement.map(|movement| movement.last), Some(SequenceValue(10)));
    }

    #[test]
    fn a_floor_moves_a_used_counter_and_raises_the_base_of_an_unused_one() {
        let bounds = Bounds { base: SequenceValue(100), floor: SequenceValue(50), ..FREE };
        let used = plan_infallibly(standing(0, 7), bounds, &asks(&[1]), |_| None).movement.expect("drawn");
        assert_eq!(
            (used.base, used.skipped, used.last),
            (SequenceValue(0), Some(range(8, 50)), SequenceValue(51))
        );
        for (unused, first) in [(None, 101), (standing(30, 30), 101), (standing(300, 300), 301)] {
            let plan = plan_infallibly(unused, bounds, &asks(&[1]), |_| None);
            assert_eq!(plan.taken, [fresh(first, first)]);
            assert_eq!(plan.movement.expect("drawn").base, SequenceValue(first - 1));
        }
    }

    #[test]
    fn nothing_drawn_moves_nothing() {
        let bounds = Bounds { floor: SequenceValue(50), max: SequenceValue(50), ..FREE };
        let plan = plan_infallibly(standing(0, 7), bounds, &asks(&[1, 3]), |_| None);
        assert_eq!(plan, Plan { taken: vec![Taken::Overflow, Taken::Overflow], movement: None });
    }

    proptest! {
        #[test]
        fn what_is_left_and_what_is_covered_make_the_whole(
            from in 0_u64..40, extent in 0_u64..40,
            covered in prop::collection::vec((0_u64..90, 0_u64..20), 0..8),
        ) {
            let whole = range(from, from + extent);
            let covered: Vec<_> = covered.into_iter().map(|(from, extent)| range(from, from + extent)).collect();
            let left = remainder(whole, covered.clone());
            let within = |ranges: &[ValueRange], value| {
                ranges.iter().any(|part| part.from.0 <= value && value <= part.to.0)
            };
            for value in 0..100 {
                let expected = within(&[whole], value) && !within(&covered, value);
                prop_assert_eq!(within(&left, value), expected, "value {}", value);
            }
        }
    }
}
