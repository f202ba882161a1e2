//! The store's side of a counter: owns the cursor.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    message::{
        ClaimAnswer, ClaimAsk, Generation, Incarnation, Instance, Limits, Marker, Outcome, Reply, Segment,
        Take,
    },
    range_set::{RangeSet, overlap},
    recovery::Recovery,
};
use crate::{
    clock::UnixMillis,
    counter::{SequenceValue, ValueRange},
    store::HoleReason,
};

/// How long beyond its word a node may stay away before the cursor passes its segment, in ms.
const GRACE_MS: u64 = 2_000;

/// How long after its last beat a node that holds nothing is forgotten, in ms.
const LAPSE_MS: u64 = 60_000;

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
    /// Where an operator wants the cursor: segments are placed above.
    pub target: SequenceValue,
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

/// What stands under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A draw.
    Drawn(Record),
    /// The key went on to another counter: no turn up to this one may draw here any more.
    Void {
        /// The last that may not.
        turn: u64,
    },
}

/// What was drawn under an idempotency key. A record past its end counts as absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Digest of what was asked for.
    pub fingerprint: String,
    /// What is needed to write the answer again.
    pub stamp: String,
    /// What was drawn.
    pub values: Vec<ValueRange>,
    /// Its end, by the clock of the node that asked.
    pub expires_at: UnixMillis,
}

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

/// What lies ahead in the way of the cursor.
enum Obstacle {
    Spoken(ValueRange),
    Segment(ValueRange, Incarnation),
}

impl Obstacle {
    fn range(&self) -> ValueRange {
        match self {
            Self::Spoken(range) | Self::Segment(range, _) => *range,
        }
    }
}

impl Authority {
    /// A counter that is new.
    pub fn begin(limits: Limits, generation: Generation) -> Self {
        let base = limits.base.max(limits.floor);
        Self { base, cursor: base, generation: Some(generation), ..Self::unknown(limits.base) }
    }

    /// A counter of which nothing is known yet.
    pub(super) fn unknown(origin: SequenceValue) -> Self {
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
            target: SequenceValue(0),
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
        let forgotten = match slot {
            // Whoever remembers a counter that is not there remembers one that was lost.
            None => instance.is_settled() && take.remembers(),
            Some(counter) => {
                counter.generation == Some(instance.generation) && take.seen > Some(counter.cursor)
            }
        };
        if forgotten {
            instance = Instance::distrust(marker, replid, now, fresh);
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
        let speaks_of_it = take.generation == Some(instance.generation);
        if counter.generation != Some(instance.generation) {
            counter.hear_report(instance.generation, take, now, speaks_of_it);
            if !instance.is_settled() {
                return Reply::Recover { generation: instance.generation, wait_ms: instance.settling_ms };
            }
            counter.resume(instance.generation, take.limits.max, now);
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
        Reply::Taken { generation, call: take.call, outcome, claims, cursor: self.cursor, segment, peers }
    }

    // ------------------------------------------------------------------------------------- drawing

    /// Draws for a new call; answers one that was served before from the record.
    fn draw_once(&mut self, take: &Take, now: u64) -> (Outcome, Vec<ClaimAnswer>) {
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

    fn recall(&self, claim: &ClaimAsk) -> Option<ClaimAnswer> {
        let record = match self.records.get(&claim.key)? {
            Entry::Void { turn } => return (claim.turn <= *turn).then_some(ClaimAnswer::Moved),
            Entry::Drawn(record) if record.expires_at <= claim.claimed_at => return None,
            Entry::Drawn(record) => record,
        };
        Some(if record.fingerprint == claim.fingerprint {
            ClaimAnswer::Replayed { stamp: record.stamp.clone(), values: record.values.clone() }
        } else {
            ClaimAnswer::Mismatch
        })
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

    /// The first thing that is in the way at or above a value.
    fn obstacle_from(&self, value: SequenceValue) -> Option<Obstacle> {
        let spoken = self.ahead.iter().map(|ahead| Obstacle::Spoken(ahead.range));
        let segments = self
            .members
            .iter()
            .flat_map(|(id, member)| member.segments().map(|segment| Obstacle::Segment(segment.0, *id)));
        // What was used of a segment lies ahead too, and is seen first.
        spoken
            .chain(segments)
            .filter(|obstacle| obstacle.range().to >= value)
            .min_by_key(|obstacle| obstacle.range().from.max(value))
    }

    /// Nobody has had to do with it yet but to fence it.
    fn is_blank(&self) -> bool {
        let is_unmoved = self.base == self.origin && self.is_untouched();
        is_unmoved && self.members.is_empty() && self.recovery.is_none()
    }

    fn is_untouched(&self) -> bool {
        self.cursor == self.base && self.ahead.is_empty()
    }

    /// A counter from which nothing was issued begins above its floor; nothing is skipped then.
    fn begin_above(&mut self, floor: SequenceValue) {
        if self.is_untouched() && floor > self.base {
            (self.base, self.cursor) = (floor, floor);
        }
    }

    /// Moves the cursor, and lists what it passes that is not `drawn`.
    pub(super) fn pass_to(&mut self, to: SequenceValue, drawn: &RangeSet, reason: HoleReason, now: u64) {
        if to <= self.cursor {
            return;
        }
        let passed = ValueRange { from: SequenceValue(self.cursor.0 + 1), to };
        for part in drawn.missing(passed).iter() {
            self.list_passed(part, reason, now);
        }
        self.cursor = to;
        self.ahead.retain_mut(|ahead| {
            ahead.range.from = ahead.range.from.max(SequenceValue(to.0.saturating_add(1)));
            ahead.range.to > to
        });
    }

    fn list_passed(&mut self, part: ValueRange, reason: HoleReason, now: u64) {
        let mut rest = RangeSet::from_iter([part]);
        let mut listed = Vec::new();
        for ahead in &self.ahead {
            if let Some(known) = overlap(ahead.range, part) {
                rest.remove(known);
                if ahead.abandoned {
                    listed.push((known, HoleReason::Abandoned, None));
                }
            }
        }
        for (id, member) in &self.members {
            for segment in member.segments() {
                let pending: Vec<_> = rest.within(segment.0).collect();
                for held in pending {
                    rest.remove(held);
                    listed.push((held, HoleReason::Pending, Some(*id)));
                }
            }
        }
        listed.extend(rest.iter().map(|range| (range, reason, None)));
        for (range, reason, holder) in listed {
            self.list(Hole { range, reason, since: now, holder });
        }
    }

    // ------------------------------------------------------------------------------- what nodes report

    fn note_beat(&mut self, take: &Take, now: u64) {
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
        for segment in before.iter().filter(|segment| !after.contains(segment)) {
            self.give_back(*segment, id);
        }
        for segment in after.iter().filter(|segment| !before.contains(segment)) {
            self.adopt(*segment, id);
        }
    }

    /// What was passed of a segment that nobody holds any more is nobody's.
    fn give_back(&mut self, segment: Segment, holder: Incarnation) {
        for hole in &mut self.holes {
            if hole.holder == Some(holder) && overlap(hole.range, segment.0).is_some() {
                (hole.reason, hole.holder) = (HoleReason::Returned, None);
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

    /// What was drawn and issued to nobody.
    fn note_surplus(&mut self, surplus: &[ValueRange], now: u64) {
        let drawable = ValueRange { from: SequenceValue(0), to: self.cursor };
        for range in surplus.iter().filter_map(|range| overlap(*range, drawable)) {
            let listed: RangeSet = self.holes.iter().map(|hole| hole.range).collect();
            for range in listed.missing(range).iter() {
                self.list(Hole { range, reason: HoleReason::Returned, since: now, holder: None });
            }
        }
    }

    /// Processes that are gone: their segment is the successor's, or free; their last answer may have been passed on, or not.
    fn retire(&mut self, take: &Take, now: u64) {
        for id in take.retires.iter().chain(&take.covers) {
            let Some(member) = self.members.remove(id) else { continue };
            for segment in member.segments() {
                self.give_back(segment, *id);
            }
            self.list_unconfirmed(&member.drawn, now);
        }
    }

    /// Forgets nodes that hold nothing and have not been heard of for long.
    fn forget_lapsed(&mut self, me: Incarnation, now: u64) {
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

    fn list_unconfirmed(&mut self, drawn: &[ValueRange], now: u64) {
        let listed: RangeSet = self.holes.iter().map(|hole| hole.range).collect();
        for range in drawn.iter().flat_map(|range| listed.missing(*range).iter().collect::<Vec<_>>()) {
            self.list(Hole { range, reason: HoleReason::Unconfirmed, since: now, holder: None });
        }
    }

    // ------------------------------------------------------------------------------------ segments

    /// How far ahead segments lie: a node that beats swaps long before the cursor has come.
    pub(super) fn distance(&self, size: u64, count: u64) -> u64 {
        size.saturating_mul(2).max(self.rate.peak().saturating_mul(3)).max(count.saturating_mul(2))
    }

    /// The segment that the node is to hold from now on; reserved before it is told.
    fn place(&mut self, take: &Take) -> Option<Segment> {
        let wants = take.wants.filter(|_| take.limits.scheme == self.scheme)?;
        let distance = self.distance(wants.size, take.count);
        let near = self.cursor.0.saturating_add(distance / 2).max(self.target.0);
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
        let from = self.cursor.0.saturating_add(distance).max(self.target.0).checked_add(1)?;
        let segment = self.room_from(SequenceValue(from), wants.size, take.limits.max)?;
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

    // --------------------------------------------------------------------------------------- holes

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
    fn unlist(&mut self, range: ValueRange) {
        let holes = std::mem::take(&mut self.holes);
        for hole in holes {
            let mut rest = RangeSet::from_iter([hole.range]);
            rest.remove(range);
            self.holes.extend(rest.iter().map(|range| Hole { range, ..hole.clone() }));
        }
    }
}

/// Outcome of [`Authority::settle`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// This was drawn under the key.
    Drawn(Record),
    /// Nothing was, and nothing will be.
    Void,
}

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

/// Outcome of [`Authority::advance`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advance {
    /// The cursor stands at `to`.
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

    /// Says what was drawn under a key; where nothing was, nothing will be up to that turn: the key may go on to another counter.
    pub fn settle(
        records: &mut BTreeMap<String, Entry>,
        key: &str,
        turn: u64,
        claimed_at: UnixMillis,
    ) -> Settled {
        let entry = records.entry(key.to_owned()).or_insert(Entry::Void { turn });
        match entry {
            Entry::Drawn(record) if record.expires_at > claimed_at => return Settled::Drawn(record.clone()),
            Entry::Drawn(_) => *entry = Entry::Void { turn },
            Entry::Void { turn: voided } => *voided = turn.max(*voided),
        }
        Settled::Void
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
    fn highest(&self) -> SequenceValue {
        let ahead = self.ahead.iter().map(|ahead| ahead.range.to);
        let segments = self.members.values().flat_map(Member::segments).map(|segment| segment.0.to);
        ahead.chain(segments).fold(self.cursor, SequenceValue::max)
    }

    /// Moves the cursor up to `to`, once no segment lies at or below it.
    pub fn advance(&mut self, to: SequenceValue, now: u64) -> Advance {
        if to < self.cursor {
            return Advance::Below(self.cursor);
        }
        let holder =
            self.members.values().find(|member| member.segments().any(|segment| segment.0.from <= to));
        if let Some(member) = holder {
            let held = Advance::Held { node: member.node.clone(), alive: member.is_alive(now) };
            self.target = self.target.max(to);
            return held;
        }
        self.target = self.target.min(to);
        self.begin_above(to);
        self.pass_to(to, &RangeSet::new(), HoleReason::Advanced, now);
        Advance::Done
    }

    /// Gives up what nodes hold that do not answer, for good.
    pub fn abandon(&mut self, what: &Abandon, now: u64) -> Abandoned {
        let concerns = |member: &Member| match what {
            Abandon::Node(node) => member.node == *node && member.segments().next().is_some(),
            Abandon::Range(range) => member.segments().any(|segment| overlap(segment.0, *range).is_some()),
        };
        let ids: Vec<_> =
            self.members.iter().filter(|(_, member)| concerns(member)).map(|(id, _)| *id).collect();
        if let Some(alive) =
            ids.iter().filter_map(|id| self.members.get(id)).find(|member| member.is_alive(now))
        {
            return Abandoned::Alive(alive.node.clone());
        }
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

impl Take {
    /// Whether the node has had to do with the counter before.
    fn remembers(&self) -> bool {
        self.seen.is_some() || self.holds.is_some() || !self.used.is_empty()
    }
}

impl Member {
    /// As a message introduces it.
    pub(super) fn new(take: &Take) -> Self {
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

impl Record {
    fn of(claim: &ClaimAsk, values: Vec<ValueRange>) -> Self {
        Self {
            fingerprint: claim.fingerprint.clone(),
            stamp: claim.stamp.clone(),
            values,
            expires_at: claim.expires_at,
        }
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
