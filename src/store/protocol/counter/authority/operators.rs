//! What people ask of a counter, and of all counters of a key: to begin higher, to give up what nobody will issue, to end a scheme.

use super::{Ahead, Authority, Hole, Member};
use crate::{
    counter::{SequenceValue, ValueRange},
    store::{
        HoleReason,
        protocol::counter::{
            message::{Generation, Incarnation, Instance, Marker, Segment},
            range_set::{RangeSet, overlap},
        },
    },
};

/// Outcome of [`Authority::fence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// This is the highest value that was issued under lower schemes, or still may be, from a segment.
    At(SequenceValue),
    /// The store has forgotten something: it is known in so many ms at the earliest.
    Settling {
        /// How long, in ms.
        wait_ms: u64,
    },
    /// As [`Advance::Unknown`].
    Unknown,
}

/// How far one call of [`Authority::advance`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stride {
    /// Only to have segments swapped out of the way: the cursor stays, and `Done` says that the way is free.
    Clear,
    /// All the way.
    Move,
    /// Back: the operator was refused, and nobody is to make way any more.
    Desist,
}

/// Outcome of [`Authority::advance`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advance {
    /// The cursor stands at `to`, unless another [`Stride`] was asked for.
    Done,
    /// `to` is below the cursor, which stands here.
    Below(SequenceValue),
    /// A segment of this node lies at or below `to`: ask again once it has swapped it, or give it up.
    Held {
        /// Whose.
        node: String,
        /// Whether it will swap.
        alive: bool,
    },
    /// The counter does not exist, or nobody knows yet where it stands: a heartbeat makes it known.
    Unknown,
}

/// What an operator gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Abandon {
    /// Everything that a node holds.
    Node(String),
    /// What is pending in a range.
    Range(ValueRange),
}

/// Outcome of [`Authority::abandon`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Abandoned {
    /// These values were given up.
    Done(Vec<ValueRange>),
    /// Nothing of the kind is pending.
    Nothing,
    /// The node is there: it will swap by itself.
    Alive(String),
    /// As [`Advance::Unknown`].
    Unknown,
}

impl Authority {
    /// The counter, if it is known where it stands: what an operator asks for needs that.
    pub fn in_force<'a>(
        slot: &'a mut Option<Self>,
        marker: &mut Option<Marker>,
        replid: u64,
        now: u64,
        fresh: Generation,
    ) -> Option<&'a mut Self> {
        let instance = Instance::look(marker, replid, now, fresh);
        slot.as_mut().filter(|counter| counter.generation == Some(instance.generation))
    }

    /// Closes the counter to schemes below `scheme`, whether or not it exists, and says how far they have come.
    pub fn fence(
        slot: &mut Option<Self>,
        marker: &mut Option<Marker>,
        replid: u64,
        now: u64,
        fresh: Generation,
        scheme: u64,
    ) -> Fenced {
        let instance = Instance::look(marker, replid, now, fresh);
        let counter = slot.get_or_insert_with(|| Self::unknown(SequenceValue(0)));
        counter.scheme = counter.scheme.max(scheme);
        if counter.generation == Some(instance.generation) {
            Fenced::At(counter.highest())
        } else if !instance.is_settled() {
            Fenced::Settling { wait_ms: instance.settling_ms }
        } else if counter.is_blank() {
            Fenced::At(counter.highest())
        } else {
            Fenced::Unknown
        }
    }

    /// The highest value that was issued, or can be.
    pub fn highest(&self) -> SequenceValue {
        let ahead = self.ahead.iter().map(|ahead| ahead.range.to);
        let segments = self.members.values().flat_map(Member::segments).map(|segment| segment.0.to);
        ahead.chain(segments).fold(self.cursor, SequenceValue::max)
    }

    /// Moves the cursor up to `to`, once no segment lies at or below it.
    pub fn advance(&mut self, to: SequenceValue, stride: Stride, now: u64) -> Advance {
        if stride == Stride::Desist {
            self.target = SequenceValue(0);
            return Advance::Done;
        }
        if to < self.cursor {
            return Advance::Below(self.cursor);
        }
        let holds = |member: &&Member| member.segments().any(|segment| segment.0.from <= to);
        let mut holders = self.members.values().filter(holds);
        // Who is gone swaps nothing: then nobody else is to swap for nothing.
        let gone = holders.clone().find(|member| !member.is_alive(now));
        if let Some(member) = gone.or_else(|| holders.next()) {
            let held = Advance::Held { node: member.node.clone(), alive: gone.is_none() };
            if gone.is_none() {
                self.target = self.target.max(to);
            }
            return held;
        }
        if stride == Stride::Clear {
            return Advance::Done;
        }
        self.target = self.target.min(to);
        self.begin_above(to);
        self.pass_to(to, &RangeSet::new(), HoleReason::Advanced, now);
        Advance::Done
    }

    /// Gives up what nodes hold that do not answer, for good: each segment as a whole. A name can be that of a process that answers and of
    /// one that is gone with its disk; then it means the latter.
    pub fn abandon(&mut self, what: &Abandon, now: u64) -> Abandoned {
        let concerns = |member: &Member| match what {
            Abandon::Node(node) => member.node == *node && member.segments().next().is_some(),
            Abandon::Range(range) => member.segments().any(|segment| overlap(segment.0, *range).is_some()),
        };
        let concerned = self.members.iter().filter(|(_, member)| concerns(member));
        let (alive, gone): (Vec<_>, Vec<_>) = concerned.partition(|(_, member)| member.is_alive(now));
        let is_refused = gone.is_empty() || matches!(what, Abandon::Range(_));
        if let Some((_, alive)) = alive.first().filter(|_| is_refused) {
            return Abandoned::Alive(alive.node.clone());
        }
        let ids: Vec<_> = gone.into_iter().map(|(id, _)| *id).collect();
        let mut given_up = RangeSet::new();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else { continue };
            let node = member.node.clone();
            let segments: Vec<_> = member.segments().collect();
            (member.held, member.offered) = (None, None);
            for Segment(range) in segments {
                self.give_up(range, id, &node, &mut given_up);
            }
        }
        if given_up.is_empty() { Abandoned::Nothing } else { Abandoned::Done(given_up.iter().collect()) }
    }

    fn give_up(&mut self, range: ValueRange, holder: Incarnation, node: &str, given_up: &mut RangeSet) {
        let pending = |hole: &&mut Hole| hole.holder == Some(holder) && overlap(hole.range, range).is_some();
        for hole in self.holes.iter_mut().filter(pending) {
            (hole.reason, hole.holder) = (HoleReason::Abandoned, None);
            given_up.insert(hole.range);
        }
        let above = self
            .cursor
            .0
            .checked_add(1)
            .map(|from| ValueRange { from: SequenceValue(from), to: SequenceValue::MAX });
        let Some(above) = above.and_then(|above| overlap(range, above)) else { return };
        let known: RangeSet = self.ahead.iter().map(|ahead| ahead.range).collect();
        for range in known.missing(above).iter() {
            given_up.insert(range);
            self.ahead.push(Ahead { range, node: node.to_owned(), abandoned: true });
        }
        self.ahead.sort_by_key(|ahead| ahead.range.from);
    }
}
