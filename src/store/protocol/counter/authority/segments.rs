//! Segments: where they lie, whose they are, and how they change hands (reserved before the node is told, free once it has said that
//! it holds another).

use super::{Authority, Hole};
use crate::{
    counter::{SequenceValue, ValueRange},
    store::{
        HoleReason,
        protocol::counter::{
            message::{Incarnation, Segment, Take},
            range_set::overlap,
        },
    },
};

/// What lies ahead in the way of the cursor.
pub(super) enum Obstacle {
    Spoken(ValueRange),
    Segment(ValueRange, Incarnation),
}

impl Obstacle {
    pub(super) fn range(&self) -> ValueRange {
        match self {
            Self::Spoken(range) | Self::Segment(range, _) => *range,
        }
    }
}

impl Authority {
    /// The first thing that is in the way at or above a value.
    pub(super) fn obstacle_from(&self, value: SequenceValue) -> Option<Obstacle> {
        let spoken = self.ahead.iter().map(|ahead| ahead.range).chain(self.returned.iter());
        let segments = self
            .members
            .iter()
            .flat_map(|(id, member)| member.segments().map(|segment| Obstacle::Segment(segment.0, *id)));
        // What was used of a segment lies ahead too, and is seen first.
        spoken
            .map(Obstacle::Spoken)
            .chain(segments)
            .filter(|obstacle| obstacle.range().to >= value)
            .min_by_key(|obstacle| obstacle.range().from.max(value))
    }

    /// Reserves these segments for a member, and no others.
    pub(super) fn reserve(
        &mut self,
        id: Incarnation,
        held: Option<Segment>,
        offered: Option<(Segment, u64)>,
    ) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let before: Vec<_> = member.segments().collect();
        (member.held, member.offered) = (held, offered);
        let after: Vec<_> = member.segments().collect();
        self.horizon =
            after.iter().map(|segment| segment.0.to).max().max(Some(self.horizon)).unwrap_or_default();
        let reason = if self.recovery.is_some() { HoleReason::Unconfirmed } else { member.leftover() };
        for segment in before.iter().filter(|segment| !after.contains(segment)) {
            self.give_back(*segment, id, reason);
        }
        for segment in after.iter().filter(|segment| !before.contains(segment)) {
            self.adopt(*segment, id);
        }
    }

    /// What was passed of a segment that nobody holds any more is nobody's.
    pub(super) fn give_back(&mut self, segment: Segment, holder: Incarnation, reason: HoleReason) {
        for hole in &mut self.holes {
            if hole.holder == Some(holder) && overlap(hole.range, segment.0).is_some() {
                (hole.reason, hole.holder) = (reason, None);
            }
        }
    }

    /// A segment that this store had forgotten, or that another process has left behind: what was passed of it is pending. Not
    /// what may have been issued: a message of a process that is gone, arriving late, must not have it listed as returned.
    fn adopt(&mut self, segment: Segment, holder: Incarnation) {
        let forgotten = |hole: &Hole| matches!(hole.reason, HoleReason::Skipped | HoleReason::Returned);
        let parts: Vec<_> = self
            .holes
            .iter()
            .filter(|hole| forgotten(hole))
            .filter_map(|hole| Some((overlap(hole.range, segment.0)?, hole.since)))
            .collect();
        for (range, since) in parts {
            self.unlist(range);
            self.list(Hole { range, reason: HoleReason::Pending, since, holder: Some(holder) });
        }
    }

    /// How far ahead segments lie: a node that beats swaps long before the cursor has come.
    pub(super) fn distance(&self, size: u64, count: u64) -> u64 {
        size.saturating_mul(2).max(self.rate.peak().saturating_mul(3)).max(count.saturating_mul(2))
    }

    /// The segment that the node is to hold from now on; reserved before it is told.
    pub(super) fn place(&mut self, take: &Take) -> Option<Segment> {
        let wants = take.wants.filter(|_| take.limits.scheme == self.scheme)?;
        let distance = self.distance(wants.size, take.count);
        // A cursor below the floor is about to jump there: what lies in between is not this store's to give.
        let at = self.cursor.max(take.limits.floor).0;
        let near = at.saturating_add(distance / 2).max(self.target.0);
        let (held, offered) =
            self.members.get(&take.incarnation).map(|member| (member.held, member.offered))?;
        let suits = |segment: &Segment| {
            let untouched = !self.ahead.iter().any(|ahead| overlap(ahead.range, segment.0).is_some());
            untouched && segment.0.from.0 > near && segment.0.to <= take.limits.max
        };
        // What was offered is reserved until the node has answered, even if it does not suit any more.
        if let Some((segment, _)) = offered {
            return Some(segment);
        }
        if let Some(segment) = held.filter(suits) {
            return Some(segment);
        }
        let from = at.saturating_add(distance).max(self.target.0).checked_add(1)?;
        let segment = self.room_from(SequenceValue(from), wants.size, take.limits.max)?;
        self.horizon = self.horizon.max(segment.0.to);
        let member = self.members.get_mut(&take.incarnation)?;
        member.offered = Some((segment, take.call));
        Some(segment)
    }

    /// The first free range of that size; a smaller one where the limit leaves no more.
    fn room_from(&self, from: SequenceValue, size: u64, max: SequenceValue) -> Option<Segment> {
        let mut from = from;
        loop {
            if from > max {
                return None;
            }
            let to = SequenceValue(from.0.saturating_add(size - 1).min(max.0));
            match self.obstacle_from(from) {
                Some(obstacle) if obstacle.range().from <= to => {
                    from = SequenceValue(obstacle.range().to.0.checked_add(1)?);
                }
                Some(_) | None => return Some(Segment(ValueRange { from, to })),
            }
        }
    }
}
