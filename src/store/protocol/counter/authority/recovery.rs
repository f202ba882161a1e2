//! How a counter goes on after its store has forgotten something.

use std::collections::BTreeSet;

use super::{Authority, Member};
use crate::{
    counter::SequenceValue,
    store::{
        HoleReason,
        protocol::counter::{
            message::{Generation, Incarnation, Instance, SEGMENT_SIZE, Take},
            range_set::RangeSet,
        },
    },
};

/// The least that is skipped where somebody is silent.
const LEAST_SKIP: u64 = 10_000;

/// Reports of nodes under a generation that is about to begin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recovery {
    /// Which.
    pub generation: Generation,
    /// Who has reported.
    pub reported: BTreeSet<Incarnation>,
    /// Who is known to somebody.
    pub known: BTreeSet<Incarnation>,
    /// The highest cursor that anybody was told.
    pub highest: SequenceValue,
}

impl Authority {
    /// Notes what a node knows. It counts as a report only where the node has adopted the generation (`speaks_of_it`): before
    /// that it might still believe a reply of the earlier one, so that it is one more to be waited for.
    pub(super) fn hear_report(&mut self, generation: Generation, take: &Take, now: u64, speaks_of_it: bool) {
        if self.recovery.as_ref().is_none_or(|recovery| recovery.generation != generation) {
            let known = self.members.keys().copied().collect();
            let highest = self.cursor;
            self.recovery = Some(Recovery { generation, reported: BTreeSet::new(), known, highest });
        }
        self.note_answered(take);
        let Some(recovery) = self.recovery.as_mut() else { return };
        // Who has not heard of any generation was never given anything.
        recovery.known.extend(take.generation.map(|_| take.incarnation));
        recovery.known.extend(take.peers.iter().chain(&take.retires));
        // Who has reported and speaks of another one has gone on to another store, whose numbers are none of this one's.
        if speaks_of_it || !recovery.reported.contains(&take.incarnation) {
            recovery.highest = take.seen.map_or(recovery.highest, |seen| seen.max(recovery.highest));
            self.horizon = self.horizon.max(take.horizon);
        }
        if !speaks_of_it {
            return;
        }
        recovery.reported.insert(take.incarnation);
        recovery.reported.extend(&take.covers);
        let member = self.members.entry(take.incarnation).or_insert_with(|| Member::new(take));
        (member.beat, member.next_beat_ms) = (now, take.next_beat_ms);
        // An offer of the earlier generation is in a reply that the node throws away.
        self.reserve(take.incarnation, take.holds, None);
        self.note_used(&take.used, &take.node);
        self.note_surplus(&take.surplus, now);
    }

    /// A node that follows this store's generation still, and is at a later call, has had the answer to the last one that was served: what
    /// that drew is not in doubt. Who has followed another one meanwhile may have had the answer from there.
    fn note_answered(&mut self, take: &Take) {
        let follows = take.generation.is_some() && take.generation == self.generation;
        if let Some(member) = self.members.get_mut(&take.incarnation)
            && follows
            && take.distrusts.is_none()
            && take.call > member.call
        {
            member.drawn.clear();
        }
    }

    /// Begins the generation: above everything that was reported, and above more than could have been lost where somebody
    /// is silent. That is not cut off at the limit of `take`, which is one caller's: others may have drawn above it, and will again. But
    /// a limit of 0 is that of a node under grants, where what was lost lies in a grant that nobody draws from any more.
    pub(super) fn resume(&mut self, instance: Instance, take: &Take, now: u64) {
        let generation = instance.generation;
        if let Some(recovery) = self.recovery.take() {
            let silent = recovery.known.difference(&recovery.reported).count() as u64;
            let nodes = recovery.known.union(&recovery.reported).count() as u64;
            self.pass_to(recovery.highest.max(self.base), &RangeSet::new(), HoleReason::Unconfirmed, now);
            if silent > 0 && take.limits.max > SequenceValue(0) {
                let size = take.wants.map_or(0, |wants| wants.size).max(SEGMENT_SIZE);
                let skip = self.skip(size, nodes, instance.lacks_ms, now);
                // Where the rate was lost with the counter, the horizon that others were told knows of it.
                let to =
                    self.cursor.0.saturating_add(skip).max(self.horizon.0).saturating_add(lot(generation));
                self.pass_to(SequenceValue(to), &RangeSet::new(), HoleReason::Skipped, now);
            }
        }
        self.distrust_calls(now);
        self.generation = Some(generation);
    }

    /// Forgets what calls were answered. A store that came back after another one had stood in for it would else answer an open
    /// call with what the other has given to somebody else since.
    fn distrust_calls(&mut self, now: u64) {
        for member in self.members.values_mut() {
            member.call = 0;
        }
        let drawn: Vec<_> =
            self.members.values_mut().flat_map(|member| std::mem::take(&mut member.drawn)).collect();
        self.list_unconfirmed(&drawn, now);
    }

    /// More than can be lost at once: what is drawn in the time that was lost, and what lay ahead. That time is not longer than what the
    /// store lacks at all: a counter that was at rest for a day has not lost a day.
    fn skip(&self, size: u64, nodes: u64, lacks_ms: u64, now: u64) -> u64 {
        let since_drawn_s = (now / 1_000).abs_diff(self.rate.second);
        let lost_s = since_drawn_s.min(lacks_ms / 1_000).saturating_add(1);
        let drawn = self.rate.peak().saturating_mul(lost_s);
        let segments = size.saturating_mul(2).saturating_mul(nodes);
        let ahead = self.distance(size, 0).saturating_add(segments);
        drawn.saturating_add(ahead).max(LEAST_SKIP)
    }
}

/// How much further a skip goes, by lot. A store that forgets that it has skipped goes on from the same place, and those who speak then
/// may know nothing of what was drawn in between: the two skips must not end together. Below [`LEAST_SKIP`].
fn lot(generation: Generation) -> u64 {
    // So many bits fit a number of the store's script.
    (generation.0 & ((1 << 52) - 1)) % LEAST_SKIP
}
