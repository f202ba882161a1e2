//! Drawing: the next values above the cursor that are nobody's, once for each call and each idempotency key.

use std::collections::BTreeSet;

use super::segments::Obstacle;
use super::{Authority, Entry, Record};
use crate::{
    counter::{SequenceValue, ValueRange},
    store::{
        HoleReason,
        protocol::counter::{
            message::{ClaimAnswer, Incarnation, Limits, Outcome, Take},
            range_set::RangeSet,
        },
    },
};

/// How many values are drawn in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rate {
    /// The second of the last draw.
    pub second: u64,
    /// What was drawn in it.
    pub drawn: u64,
    /// The most in a second, of late.
    pub peak: u64,
}

impl Rate {
    fn count(&mut self, drawn: u64, now: u64) {
        let second = now / 1_000;
        if second != self.second {
            self.peak = self.drawn.max(self.peak - self.peak / 8);
            (self.second, self.drawn) = (second, 0);
        }
        self.drawn = self.drawn.saturating_add(drawn);
    }

    /// The most in a second, of late.
    pub fn peak(&self) -> u64 {
        self.peak.max(self.drawn)
    }
}

impl Authority {
    /// Draws for a new call; answers one that was served before from the record.
    pub(super) fn draw_once(&mut self, take: &Take, now: u64) -> (Outcome, Vec<ClaimAnswer>) {
        let served = self.members.get(&take.incarnation).map_or(0, |member| member.call);
        let repeated = take.call == served;
        let mut claims: Vec<Option<ClaimAnswer>> =
            take.claims.iter().map(|claim| self.recall(claim)).collect();
        // Two claims of one key in one call: the second is answered as if it came after the first.
        let mut first_of = BTreeSet::new();
        let fresh: Vec<bool> = take
            .claims
            .iter()
            .zip(&claims)
            .map(|(claim, known)| known.is_none() && first_of.insert(claim.key.as_str()))
            .collect();
        let keyed: u64 =
            take.claims.iter().zip(&fresh).filter(|(_, fresh)| **fresh).map(|(claim, _)| claim.count).sum();
        let plain = if repeated { 0 } else { take.count };
        let drawn = match self.draw(plain.saturating_add(keyed), take.limits, take.incarnation, now) {
            Ok(drawn) => drawn,
            Err(outcome) => {
                self.record_call(take, Vec::new(), repeated);
                return (outcome, Vec::new());
            }
        };
        let mut rest = drawn.into_iter();
        let mut open: Option<ValueRange> = None;
        let values = hand_out(&mut rest, &mut open, plain);
        for ((claim, answer), fresh) in take.claims.iter().zip(&mut claims).zip(fresh) {
            if fresh {
                let values = hand_out(&mut rest, &mut open, claim.count);
                let record = Record::of(claim, values.clone());
                self.records.insert(claim.key.clone(), Entry::Drawn(record));
                *answer = Some(ClaimAnswer::Fresh(values));
            } else if answer.is_none() {
                *answer = self.recall(claim);
            }
        }
        let values = match self.members.get(&take.incarnation) {
            Some(member) if repeated => member.drawn.clone(),
            _ => values,
        };
        self.record_call(take, values.clone(), repeated);
        (Outcome::Drawn(values), claims.into_iter().flatten().collect())
    }

    fn record_call(&mut self, take: &Take, drawn: Vec<ValueRange>, repeated: bool) {
        if let Some(member) = self.members.get_mut(&take.incarnation)
            && !repeated
        {
            (member.call, member.drawn) = (take.call, drawn);
        }
    }

    /// The next `count` values, all or none.
    fn draw(
        &mut self,
        count: u64,
        limits: Limits,
        me: Incarnation,
        now: u64,
    ) -> Result<Vec<ValueRange>, Outcome> {
        if count == 0 {
            return Ok(Vec::new());
        }
        if limits.scheme < self.scheme {
            return Err(Outcome::Superseded);
        }
        // Where nothing was issued yet, the counter may still be told to begin elsewhere.
        let floor = if self.is_untouched() { limits.floor.max(limits.base) } else { limits.floor };
        let mut at = self.cursor.max(floor).0;
        let (mut left, mut drawn) = (count, Vec::new());
        while left > 0 {
            let Some(next) = at.checked_add(1).filter(|next| *next <= limits.max.0) else {
                return Err(Outcome::Overflow { left: count - left });
            };
            let obstacle = self.obstacle_from(SequenceValue(next));
            let free_until = match &obstacle {
                Some(obstacle) if obstacle.range().from.0 <= next => {
                    if let Obstacle::Segment(_, holder) = *obstacle
                        && (holder == me
                            || self.members.get(&holder).is_some_and(|member| member.is_alive(now)))
                    {
                        // Its node may see no reason to swap it: what lies before it may be used, and be passed in one step.
                        self.target = self.target.max(obstacle.range().to);
                        return Err(Outcome::Blocked { by: holder });
                    }
                    at = obstacle.range().to.0;
                    continue;
                }
                Some(obstacle) => limits.max.0.min(obstacle.range().from.0 - 1),
                None => limits.max.0,
            };
            let taken = left.min(free_until - at);
            drawn.push(ValueRange { from: SequenceValue(next), to: SequenceValue(at + taken) });
            at += taken;
            left -= taken;
        }
        self.begin_above(floor);
        let floored: RangeSet = drawn.iter().copied().collect();
        self.pass_to(SequenceValue(at), &floored, HoleReason::Skipped, now);
        self.rate.count(count, now);
        Ok(drawn)
    }
}

/// Takes `count` values off the front of what was drawn.
fn hand_out(
    rest: &mut impl Iterator<Item = ValueRange>,
    open: &mut Option<ValueRange>,
    count: u64,
) -> Vec<ValueRange> {
    let (mut left, mut values) = (count, Vec::new());
    while left > 0 {
        let Some(range) = open.take().or_else(|| rest.next()) else { break };
        if range.count() > left {
            let to = SequenceValue(range.from.0 + left - 1);
            values.push(ValueRange { from: range.from, to });
            *open = Some(ValueRange { from: SequenceValue(to.0 + 1), to: range.to });
            left = 0;
        } else {
            left -= range.count();
            values.push(range);
        }
    }
    values
}
