//! The store's side of a counter: owns the cursor. What the store's script does in one atomic step.
//!
//! Order: [`Authority::serve`] looks whether the store has forgotten; then `recovery` hears reports, or `answer` takes in what
//! the node says (`reports`), draws (`draw`, `records`), and places its segment (`segments`). All of them move the `cursor`, which
//! lists `holes`. `operators` is what people ask.

mod cursor;
mod draw;
mod holes;
mod operators;
mod records;
mod recovery;
mod reports;
mod segments;

use std::collections::BTreeMap;

use super::{
    message::{Generation, Incarnation, Instance, Limits, Marker, Reply, Segment, Take},
    range_set::RangeSet,
};
use crate::{
    counter::{SequenceValue, ValueRange},
    store::HoleReason,
};

pub use draw::Rate;
pub use holes::Hole;
pub use operators::{Abandon, Abandoned, Advance, Fenced, Stride};
pub use records::{Entry, Record, Settled};
pub use recovery::Recovery;

/// How long beyond its word a node may stay away before the cursor passes its segment, in ms.
const GRACE_MS: u64 = 2_000;

/// A counter at the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// `initial_seq` when the counter was made: the plain key holds the cursor less this.
    pub origin: SequenceValue,
    /// Where it began: the first value was `base + 1`.
    pub base: SequenceValue,
    /// Nothing at or below it is drawn again.
    pub cursor: SequenceValue,
    /// The highest scheme that was heard of: lower ones draw nothing.
    pub scheme: u64,
    /// Under which it was blessed; `None`: nobody knows where it stood.
    pub generation: Option<Generation>,
    /// Reports under a generation that has not begun yet.
    pub recovery: Option<Recovery>,
    /// How fast it is drawn from.
    pub rate: Rate,
    /// The registry of nodes.
    pub members: BTreeMap<Incarnation, Member>,
    /// What is issued or given up ahead of the cursor.
    pub ahead: Vec<Ahead>,
    /// What was handed back ahead of the cursor: issued to nobody, and listed once the cursor has passed it.
    pub returned: RangeSet,
    /// Where an operator wants the cursor: segments are placed above.
    pub target: SequenceValue,
    /// No segment that was ever placed ends above it, nor anything that a node could tell of after a loss.
    pub horizon: SequenceValue,
    /// What was not issued at or below the cursor, ascending.
    pub holes: Vec<Hole>,
    /// What is remembered under idempotency keys.
    pub records: BTreeMap<String, Entry>,
}

/// A node on the registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its name, for people.
    pub node: String,
    /// The last call that was served.
    pub call: u64,
    /// What that call has drawn for requests without a key.
    pub drawn: Vec<ValueRange>,
    /// The segment that it issues from.
    pub held: Option<Segment>,
    /// The segment that it was told to hold, and by which call; reserved as the other is.
    pub offered: Option<(Segment, u64)>,
    /// When it was last heard of, in ms.
    pub beat: u64,
    /// How soon it was going to beat again, in ms.
    pub next_beat_ms: u64,
}

impl Member {
    /// What is reserved for it.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        self.held.into_iter().chain(self.offered.map(|(segment, _)| segment))
    }

    /// Whether it is to be waited for.
    pub fn is_alive(&self, now: u64) -> bool {
        now.abs_diff(self.beat) <= self.next_beat_ms.saturating_add(GRACE_MS)
    }

    /// What becomes of that which was passed of its segment and is given back: issued to nobody. Unless it was not served since the
    /// store has forgotten: the segment is one that it may have swapped in the time that was lost, so that the values were issued.
    fn leftover(&self) -> HoleReason {
        if self.call == 0 { HoleReason::Unconfirmed } else { HoleReason::Returned }
    }

    /// As a message introduces it.
    fn new(take: &Take) -> Self {
        Self {
            node: take.node.clone(),
            call: 0,
            drawn: Vec::new(),
            held: None,
            offered: None,
            beat: 0,
            next_beat_ms: 0,
        }
    }
}

/// A range ahead of the cursor that will not be drawn.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ahead {
    /// Which.
    pub range: ValueRange,
    /// The name of the node whose segment it lay in.
    pub node: String,
    /// Given up by an operator rather than issued.
    pub abandoned: bool,
}

impl Authority {
    /// A counter that is new.
    pub fn begin(limits: Limits, generation: Generation) -> Self {
        let base = limits.base.max(limits.floor);
        Self { base, cursor: base, generation: Some(generation), ..Self::unknown(limits.base) }
    }

    /// A counter of which nothing is known yet.
    fn unknown(origin: SequenceValue) -> Self {
        Self {
            origin,
            base: origin,
            cursor: origin,
            scheme: 0,
            generation: None,
            recovery: None,
            rate: Rate::default(),
            members: BTreeMap::new(),
            ahead: Vec::new(),
            returned: RangeSet::new(),
            target: SequenceValue(0),
            horizon: SequenceValue(0),
            holes: Vec::new(),
            records: BTreeMap::new(),
        }
    }

    /// Serves one message: what the store's script does, in one atomic step. `fresh` names a new generation, should one be needed.
    pub fn serve(
        slot: &mut Option<Self>,
        marker: &mut Option<Marker>,
        replid: u64,
        now: u64,
        fresh: Generation,
        take: &Take,
    ) -> Reply {
        let mut instance = Instance::look(marker, replid, now, fresh);
        // What was only fenced begins where whoever asks first says.
        let blank = slot.take_if(|counter| counter.is_blank());
        // What a node remembers of another generation is no sign: it may come from a store that took over from this one.
        let forgotten = take.generation == Some(instance.generation)
            && match slot {
                // Whoever remembers a counter that is not there remembers one that was lost.
                None => instance.is_settled() && take.remembers(),
                Some(counter) => {
                    counter.generation == Some(instance.generation) && take.seen > Some(counter.cursor)
                }
            };
        if forgotten || take.distrusts == Some(instance.generation) {
            instance = Instance::distrust(marker, replid, now, fresh);
        }
        let speaks_of_it = take.generation == Some(instance.generation);
        if slot.is_none() && instance.is_settled() && !speaks_of_it {
            *slot = blank;
            return Reply::Recover { generation: instance.generation, wait_ms: 0 };
        }
        let counter = slot.get_or_insert_with(|| {
            if instance.is_settled() {
                Self::begin(take.limits, instance.generation)
            } else {
                Self::unknown(take.limits.base)
            }
        });
        if let Some(blank) = blank {
            (counter.scheme, counter.records) = (blank.scheme, blank.records);
        }
        counter.scheme = counter.scheme.max(take.limits.scheme);
        if counter.generation != Some(instance.generation) {
            counter.hear_report(instance.generation, take, now, speaks_of_it);
            if !instance.is_settled() {
                return Reply::Recover { generation: instance.generation, wait_ms: instance.settling_ms };
            }
            counter.resume(instance, take, now);
        }
        if !speaks_of_it {
            return Reply::Recover { generation: instance.generation, wait_ms: 0 };
        }
        counter.answer(take, now)
    }

    /// Answers a node that has adopted the generation in force.
    fn answer(&mut self, take: &Take, now: u64) -> Reply {
        let me = take.incarnation;
        if self.members.get(&me).is_some_and(|member| take.call < member.call) {
            return Reply::Stale;
        }
        self.retire(take, now);
        self.note_used(&take.used, &take.node);
        self.note_surplus(&take.surplus, now);
        self.note_beat(take, now);
        if take.leaves {
            // The registration stays until it lapses, so that a late repetition is known.
            self.reserve(me, None, None);
        }
        let (outcome, claims) = self.draw_once(take, now);
        let segment = if take.leaves { None } else { self.place(take) };
        if take.count == 0 && take.claims.is_empty() {
            self.forget_lapsed(me, now);
        }
        let generation = take.generation.unwrap_or(Generation(0));
        let peers = self.members.keys().copied().filter(|member| *member != me).collect();
        Reply::Taken {
            generation,
            call: take.call,
            outcome,
            claims,
            cursor: self.cursor,
            segment,
            peers,
            horizon: self.horizon,
            peak: self.rate.peak(),
        }
    }
}

impl Take {
    /// Whether the node has had to do with the counter before.
    fn remembers(&self) -> bool {
        self.seen.is_some() || self.holds.is_some() || !self.used.is_empty()
    }
}
