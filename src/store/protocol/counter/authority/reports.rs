//! What nodes say of themselves with each message: that they are there, what they issued from segments, what they give back, who
//! is gone.

use super::{Ahead, Authority, Hole, Member};
use crate::{
    counter::{SequenceValue, ValueRange},
    store::{
        HoleReason,
        protocol::counter::{
            message::{Incarnation, Take},
            range_set::{RangeSet, overlap},
        },
    },
};

/// How long after its last beat a node that holds nothing is forgotten, in ms.
const LAPSE_MS: u64 = 60_000;

impl Authority {
    pub(super) fn note_beat(&mut self, take: &Take, now: u64) {
        let member = self.members.entry(take.incarnation).or_insert_with(|| Member::new(take));
        (member.beat, member.next_beat_ms) = (now, take.next_beat_ms);
        member.node.clone_from(&take.node);
        let (held, offered) = match member.offered {
            Some((segment, _)) if take.holds == Some(segment) => (Some(segment), None),
            // The call by which it was offered is over, and the node does not hold it.
            Some((_, call)) if take.call > call => (take.holds, None),
            // Its reply may still be on the way.
            offered => (take.holds, offered),
        };
        self.reserve(take.incarnation, held, offered);
    }

    /// What was issued from segments: no hole below the cursor, an obstacle above.
    pub(super) fn note_used(&mut self, used: &[ValueRange], node: &str) {
        for range in used {
            self.unlist(*range);
            let above =
                ValueRange { from: SequenceValue(self.cursor.0.saturating_add(1)), to: SequenceValue::MAX };
            let Some(above) = overlap(*range, above).filter(|_| self.cursor < SequenceValue::MAX) else {
                continue;
            };
            let known: RangeSet = self.ahead.iter().map(|ahead| ahead.range).collect();
            // An operator may have given up what the node had used all the same.
            for ahead in &mut self.ahead {
                if ahead.abandoned && overlap(ahead.range, above) == Some(ahead.range) {
                    ahead.abandoned = false;
                }
            }
            for range in known.missing(above).iter() {
                self.ahead.push(Ahead { range, node: node.to_owned(), abandoned: false });
            }
        }
        self.ahead.sort_by_key(|ahead| ahead.range.from);
    }

    /// What was drawn, or taken from a segment, and issued to nobody.
    pub(super) fn note_surplus(&mut self, surplus: &[ValueRange], now: u64) {
        self.returned = self.returned.iter().chain(surplus.iter().copied()).collect();
        self.list_returned(now);
    }

    /// Lists what was handed back and has been passed.
    pub(super) fn list_returned(&mut self, now: u64) {
        for range in self.returned.split_off_below(self.cursor).iter() {
            let listed: RangeSet = self.holes.iter().map(|hole| hole.range).collect();
            for range in listed.missing(range).iter() {
                self.list(Hole { range, reason: HoleReason::Returned, since: now, holder: None });
            }
        }
    }

    /// Processes that are gone: their segment is the successor's, or free; their last answer may have been passed on, or not.
    pub(super) fn retire(&mut self, take: &Take, now: u64) {
        for id in take.retires.iter().chain(&take.covers) {
            let Some(member) = self.members.remove(id) else { continue };
            for segment in member.segments() {
                self.give_back(segment, *id, member.leftover());
            }
            self.list_unconfirmed(&member.drawn, now);
        }
    }

    /// Forgets nodes that hold nothing and have not been heard of for long.
    pub(super) fn forget_lapsed(&mut self, me: Incarnation, now: u64) {
        let lapsed: Vec<_> = self
            .members
            .iter()
            .filter(|(id, member)| {
                **id != me && member.segments().next().is_none() && now.abs_diff(member.beat) > LAPSE_MS
            })
            .map(|(id, _)| *id)
            .collect();
        for id in lapsed {
            if let Some(member) = self.members.remove(&id) {
                self.list_unconfirmed(&member.drawn, now);
            }
        }
    }

    /// What may have been issued, or not.
    pub(super) fn list_unconfirmed(&mut self, drawn: &[ValueRange], now: u64) {
        let listed: RangeSet = self.holes.iter().map(|hole| hole.range).collect();
        for range in drawn.iter().flat_map(|range| listed.missing(*range).iter().collect::<Vec<_>>()) {
            self.list(Hole { range, reason: HoleReason::Unconfirmed, since: now, holder: None });
        }
    }
}
