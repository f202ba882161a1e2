//! The node's side of a counter: asks, keeps a segment, reports.
//!
//! The service drives it: [`Node::ask`], send, [`Node::hear`]; where that says so, it writes [`NodeState`] to disk before
//! [`Node::adopt`]. While the store is away it draws by [`Node::issue_locally`], and writes the state to disk before it answers.

use super::{
    generations::{Followed, Generations},
    message::{
        ClaimAnswer, ClaimAsk, Generation, Incarnation, Limits, Outcome, Reply, SEGMENT_SIZE, Segment, Take,
        Wants,
    },
    range_set::RangeSet,
};
use crate::counter::{SequenceValue, ValueRange};

/// How long a node waits for the right store to come back before it asks for the end of a generation that it has left, in ms:
/// longer than a failover takes to reach everybody.
pub const STRANDED_MS: u64 = 30_000;

/// For how long a node that uses a counter may not hear of it, in seconds: it beats every four at least.
const UNHEARD_S: u64 = 5;

/// How many ranges that were handed back are kept, to tell a store that has forgotten them.
const HANDED_BACK_KEPT: usize = 1_000;

/// What must outlive the process: it is written before it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeState {
    /// The segment that may be issued from.
    pub segment: Option<Segment>,
    /// How many of its values were issued, from its beginning.
    pub issued: u64,
    /// What was issued from earlier segments and was not passed yet by the cursor.
    pub used: RangeSet,
    /// The highest cursor that was heard of when this was written: about a second old at most.
    pub seen: Option<SequenceValue>,
}

impl NodeState {
    /// What was issued of the segment.
    fn issued_range(&self) -> Option<ValueRange> {
        let Segment(range) = self.segment?;
        (self.issued > 0)
            .then(|| ValueRange { from: range.from, to: SequenceValue(range.from.0 + (self.issued - 1)) })
    }

    /// The value that would be issued next.
    pub fn next(&self) -> Option<SequenceValue> {
        let Segment(range) = self.segment?;
        (self.remaining() > 0).then(|| SequenceValue(range.from.0 + self.issued))
    }

    /// The highest value that it knows to be drawn, held or issued.
    pub fn highest(&self) -> SequenceValue {
        let known = [self.seen, self.segment.map(|Segment(range)| range.to), self.used.last()];
        known.into_iter().flatten().max().unwrap_or_default()
    }

    /// How many values the segment has left.
    pub fn remaining(&self) -> u64 {
        self.segment.map_or(0, |Segment(range)| range.count() - self.issued)
    }
}

/// What a node would like to have by one call.
#[derive(Clone, Debug)]
pub struct Ask {
    /// How many values for requests without a key; 0 for a heartbeat.
    pub count: u64,
    /// Requests with a key.
    pub claims: Vec<ClaimAsk>,
    /// The limits.
    pub limits: Limits,
    /// Which segment it would like to hold.
    pub wants: Option<Wants>,
    /// How soon it will beat again, in ms.
    pub next_beat_ms: u64,
    /// It goes for good; [`Node::give_up`] came before.
    pub leaves: bool,
    /// It has met a generation that it has left ([`Heard::Left`]), and nothing else, for [`STRANDED_MS`]: that one is to end.
    pub insists: bool,
}

/// What a reply means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The call was served.
    Served {
        /// What became of it.
        outcome: Outcome,
        /// One answer for each claim.
        claims: Vec<ClaimAnswer>,
        /// Write this to disk, then [`Node::adopt`] it.
        write: Option<NodeState>,
    },
    /// The store has forgotten: ask again after so long.
    Recover {
        /// How long, in ms.
        wait_ms: u64,
    },
    /// This is a store that the node has left for another: nothing was drawn, and nothing is as long as it stays.
    Left,
    /// Late, or of a generation that is over: nothing was learnt.
    Ignored,
}

/// One counter on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    incarnation: Incarnation,
    name: String,
    generations: Generations,
    /// The one that was left and is in force where the node asked last.
    refused: Option<Generation>,
    call: u64,
    /// What the call asked for, while it is not answered.
    pending: Option<u64>,
    seen: Option<SequenceValue>,
    state: NodeState,
    /// What is to be handed back. From a segment it is told as used, too, until the cursor has passed it: nobody is to draw it.
    surplus: RangeSet,
    /// What was handed back, and told: a store that has forgotten is told again.
    handed_back: RangeSet,
    /// What was issued from segments and not told: whether or not the cursor has passed it, the store does not know.
    untold: RangeSet,
    /// Processes before this one on the same disk of which the store has not been told that they are gone.
    retires: Vec<Incarnation>,
    /// Those of which it has: this node has seen a cursor above all that they knew.
    covers: Vec<Incarnation>,
    peers: Vec<Incarnation>,
    /// See [`Take::horizon`].
    horizon: SequenceValue,
}

impl Node {
    /// A counter that this process begins to use. `left` is what earlier processes have left on disk, `ancestors` are they;
    /// `generations` are those that the process has heard of.
    pub fn new(
        incarnation: Incarnation,
        name: String,
        generations: Generations,
        left: NodeState,
        ancestors: Vec<Incarnation>,
    ) -> Self {
        let untold = left.used.iter().chain(left.issued_range()).collect();
        let horizon = left.highest();
        Self {
            incarnation,
            name,
            generations,
            refused: None,
            call: 0,
            pending: None,
            seen: left.seen,
            state: left,
            surplus: RangeSet::new(),
            handed_back: RangeSet::new(),
            untold,
            retires: ancestors,
            covers: Vec::new(),
            peers: Vec::new(),
            horizon,
        }
    }

    /// Who speaks.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The generation that it follows.
    pub fn generation(&self) -> Option<Generation> {
        self.generations.present()
    }

    /// The highest value that it knows to be drawn, held or issued.
    pub fn highest(&self) -> SequenceValue {
        let told = [self.seen, self.untold.last()].into_iter().flatten().max().unwrap_or_default();
        told.max(self.state.highest())
    }

    /// How many other processes use the counter.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Which generations it follows and has left.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// The generation that keeps it out where it asked last: see [`Heard::Left`].
    pub fn refused(&self) -> Option<Generation> {
        self.refused
    }

    /// Whether the last call was not answered yet; the next [`Self::ask`] repeats it.
    pub fn has_pending_call(&self) -> bool {
        self.pending.is_some()
    }

    /// What is to be on disk.
    pub fn state(&self) -> &NodeState {
        &self.state
    }

    /// The state with the cursor as it was heard of last: to be written about once a second, so that a process that takes over
    /// knows where the counter stood even if the store has forgotten.
    pub fn refreshed(&self) -> NodeState {
        NodeState { seen: self.seen, ..self.state.clone() }
    }

    /// The highest cursor that was heard of.
    pub fn seen(&self) -> Option<SequenceValue> {
        self.seen
    }

    /// The next message: a new call, or the one that was not answered, again (same number, same count; its claims are left
    /// out, since records answer those).
    pub fn ask(&mut self, ask: Ask) -> Take {
        let repeats = self.pending;
        if repeats.is_none() {
            self.call += 1;
            self.pending = Some(ask.count);
        }
        let used: RangeSet = self.ahead(&self.used()).iter().chain(self.untold.iter()).collect();
        Take {
            incarnation: self.incarnation,
            node: self.name.clone(),
            generation: self.generations.present(),
            distrusts: self.refused.filter(|_| ask.insists),
            call: self.call,
            count: repeats.unwrap_or(ask.count),
            claims: if repeats.is_some() { Vec::new() } else { ask.claims },
            limits: ask.limits,
            seen: self.seen,
            holds: self.state.segment,
            used: used.iter().collect(),
            surplus: self.surplus.iter().collect(),
            wants: ask.wants,
            retires: self.retires.clone(),
            covers: self.covers.clone(),
            peers: self.peers.clone(),
            horizon: self.horizon,
            next_beat_ms: ask.next_beat_ms,
            leaves: ask.leaves,
        }
    }

    /// Takes a reply in. Only one of the present call and generation counts.
    pub fn hear(&mut self, take: &Take, reply: Reply) -> Heard {
        match reply {
            Reply::Recover { generation, wait_ms } => {
                // An old reply must not take a node back.
                if take.generation != self.generations.present()
                    || self.pending.is_none()
                    || take.call != self.call
                {
                    return Heard::Ignored;
                }
                // Asked at once where it has not spoken under that generation yet: the next message is its report.
                let followed = self.generations.follow(generation);
                self.refused = (followed == Followed::Left).then_some(generation);
                match followed {
                    Followed::Present => Heard::Recover { wait_ms },
                    Followed::Newly => {
                        self.surplus = self.surplus.iter().chain(self.handed_back.iter()).collect();
                        // What lies below the cursor, too: who knows of the segment alone would list all of it.
                        self.untold = self.untold.iter().chain(self.used().iter()).collect();
                        Heard::Recover { wait_ms: 0 }
                    }
                    Followed::Left => Heard::Left,
                }
            }
            Reply::Taken { generation, call, outcome, claims, cursor, segment, peers, horizon, peak }
                if Some(generation) == self.generations.present()
                    && call == self.call
                    && self.pending.is_some() =>
            {
                (self.pending, self.refused) = (None, None);
                self.seen = self.seen.max(Some(cursor));
                self.horizon = self.horizon.max(horizon).max(unheard(take, cursor, peak, &peers));
                self.peers = peers;
                self.covers.append(&mut self.retires);
                // What was told as used is told again: a copy of such a message, arriving late, takes it off the list.
                let mut told: RangeSet = take.surplus.iter().copied().collect();
                take.used.iter().for_each(|range| told.remove(*range));
                for range in told.iter() {
                    self.surplus.remove(range);
                    self.handed_back.insert(range);
                }
                // What was handed back last lies highest, and is what a store forgets.
                while self.handed_back.iter().count() > HANDED_BACK_KEPT {
                    let Some(lowest) = self.handed_back.iter().next() else { break };
                    self.handed_back.remove(lowest);
                }
                for range in &take.used {
                    self.untold.remove(*range);
                }
                let write = self.with_segment(segment);
                Heard::Served { outcome, claims, write }
            }
            Reply::Taken { .. } => Heard::Ignored,
            Reply::Stale => {
                if take.call == self.call {
                    self.pending = None;
                }
                Heard::Ignored
            }
        }
    }

    /// The state with another segment; `None` where nothing changes. To be written and adopted, or never to be used: the next
    /// message says which segment is held, and the other one is free then.
    pub fn with_segment(&self, segment: Option<Segment>) -> Option<NodeState> {
        if segment == self.state.segment {
            return None;
        }
        let mut used: RangeSet = self.ahead(&self.used()).iter().chain(self.untold.iter()).collect();
        // A process after this one knows only what is on disk, and would say that it was issued.
        self.surplus.iter().chain(self.handed_back.iter()).for_each(|range| used.remove(range));
        Some(NodeState { segment, issued: 0, used, seen: self.seen })
    }

    /// What was issued from segments.
    fn used(&self) -> RangeSet {
        self.state.used.iter().chain(self.state.issued_range()).collect()
    }

    /// What lies above the highest cursor that was heard of.
    fn ahead(&self, set: &RangeSet) -> RangeSet {
        let mut ahead = set.clone();
        if let Some(seen) = self.seen {
            ahead.split_off_below(seen);
        }
        ahead
    }

    /// What does not.
    fn passed(&self, set: &RangeSet) -> RangeSet {
        self.seen.map_or_else(RangeSet::new, |seen| set.clone().split_off_below(seen))
    }

    /// What [`Node::hear`] gave to be written has been written.
    pub fn adopt(&mut self, state: NodeState) {
        self.state = state;
    }

    /// The state without a segment: to be written, then adopted, before the node says that it holds none.
    pub fn give_up(&self) -> NodeState {
        self.with_segment(None).unwrap_or_else(|| self.state.clone())
    }

    /// Draws from the segment, all or none. The state must be on disk before the values are shown to anybody.
    pub fn issue_locally(&mut self, count: u64, max: SequenceValue) -> Option<ValueRange> {
        let Segment(range) = self.state.segment?;
        if count == 0 || count > self.state.remaining() {
            return None;
        }
        let from = range.from.0 + self.state.issued;
        let to = from + (count - 1);
        if to > max.0 {
            return None;
        }
        self.state.issued += count;
        let range = ValueRange { from: SequenceValue(from), to: SequenceValue(to) };
        self.untold.insert(range);
        Some(range)
    }

    /// The call that is under way was certainly not served: nothing is drawn for it.
    pub fn withdraw(&mut self) {
        self.pending = None;
    }

    /// Values that were drawn, or issued from a segment, and reach nobody: listed once the cursor has passed them. Others are
    /// ignored.
    pub fn hand_back(&mut self, values: impl IntoIterator<Item = ValueRange>) {
        let used = self.used();
        for range in values {
            let drawn = self.passed(&RangeSet::from_iter([range]));
            for part in drawn.iter().chain(used.within(range)) {
                self.surplus.insert(part);
            }
        }
    }
}

/// Where everything ends that others are given until this node hears again: what they draw at this pace, and the segments that
/// are placed meanwhile.
fn unheard(take: &Take, cursor: SequenceValue, peak: u64, peers: &[Incarnation]) -> SequenceValue {
    let size = take.wants.map_or(0, |wants| wants.size).max(SEGMENT_SIZE);
    let ahead = (2 * size).max(peak.saturating_mul(3));
    let segments = (2 * size).saturating_mul(peers.len() as u64 + 1);
    let drawn = peak.saturating_mul(UNHEARD_S);
    SequenceValue(cursor.0.saturating_add(drawn).saturating_add(ahead).saturating_add(segments))
}
