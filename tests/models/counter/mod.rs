//! The continuous counter: two nodes, a store that forgets or comes apart, messages that are slow, lost or doubled, processes
//! that die or leave, and as many heartbeats and as much waiting as there is room for.
//!
//! What is bounded in a run is how many values are asked for and how many faults happen; heartbeats and time are not. States are
//! equal when nothing that is still to come could tell them apart: calls are counted from the one that a node is at, time from
//! now, and the clock knows three ages (present, late, lapsed). So the search ends by itself.
//!
//! What the model takes for granted is what profile *redis* cannot do without (`docs/protocols.md`):
//! - nobody draws while a process that remembers something is silent **and** unknown to everybody who speaks
//!   ([`World::leaves_somebody_behind`]). A registry can be lost with its store; who was on no other list cannot be waited for;
//! - no two skips end close to each other ([`LOT`]): in truth by chance;
//! - when a store comes apart, each part draws less than is skipped before it is given up (`min-replicas-to-write`), and a process
//!   that dies meanwhile does not come back to the part that it had left: it no longer knows.

mod faults;
mod model;
mod mutants;
mod same;
mod search;

use std::collections::BTreeSet;

use self::mutants::Guard;
use numgen::{
    counter::{SequenceValue, ValueRange},
    store::protocol::counter::{
        Ask, Authority, Generation, Generations, Heard, Incarnation, Limits, Marker, Node, NodeState,
        Outcome, RangeSet, Reply, SETTLING_MS, Segment, Take, Wants,
    },
};

const NODES: usize = 2;
const LIMITS: Limits =
    Limits { base: SequenceValue(0), floor: SequenceValue(0), max: SequenceValue::MAX, scheme: 0 };
const BEAT_MS: u64 = 1_000;

/// How far apart the ends of two skips lie at least: names of generations are drawn by lot.
const LOT: u64 = 1_117;

/// How much is skipped, at least, where somebody is silent; names that differ by so much are one lot.
const LEAST_SKIP: u64 = 10_000;

/// When it is: always, since the past moves.
const NOW: u64 = 1_000_000_000;
/// How old a beat is whose node is waited for, is passed, is forgotten.
const PRESENT_MS: u64 = 0;
const LATE_MS: u64 = SETTLING_MS;
const LAPSED_MS: u64 = 61_000;

/// One bounded world.
#[derive(Clone)]
struct Counter {
    /// Values of a segment.
    size: u64,
    /// How many values are asked for, of the store or from segments.
    values: u8,
    /// How many faults happen.
    faults: u8,
    /// Which kinds of faults.
    kinds: &'static [Fault],
    /// Whether time passes: without it, and without faults, all is well.
    time: Time,
    /// What is looked at.
    question: Question,
    /// What happens before the search begins.
    opening: &'static [Action],
    /// The protocol without one of its guards.
    without: Option<Guard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// Whether a value is issued twice. The list of holes has no part in that, and is left out.
    Twice,
    /// That, and whether everything is listed.
    Everything,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    Stands,
    /// So far that who is silent is late, and a store settles.
    Settles,
    /// So far that who holds nothing is forgotten.
    Lapses,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    /// A message is slow: it is sent, executed and answered later, each or never.
    Slow,
    /// The same, of a heartbeat.
    SlowBeat,
    /// A message arrives again later.
    Doubled,
    /// A process dies; another one starts on its disk.
    Crash,
    /// A process leaves, and another one starts on its disk.
    Leave,
    /// It leaves, and nobody hears of it.
    LeaveUnheard,
    /// A node draws from its segment for somebody who has gone: sooner or later the value is handed back.
    Unanswered,
    /// The store is emptied under way.
    Flush,
    /// The store restarts with all that it had, without anything, or with what was saved.
    Restart,
    Empty,
    Rollback,
    /// A node that was turned away for long asks for the end of the generation that it has left.
    Insist,
    /// A replica with all that the store had, or with what was saved, becomes a store of its own.
    Split,
    SplitLagging,
}

#[derive(Clone, Debug, PartialEq)]
struct World {
    /// The store, and what it came apart into.
    stores: Vec<Store>,
    /// Which of them a node talks to.
    links: [usize; NODES],
    saved: Option<Store>,
    processes: [Process; NODES],
    flights: Vec<Flight>,
    issued: BTreeSet<u64>,
    /// Names that were given to generations and to servers.
    generations: u64,
    servers: u64,
    values: u8,
    faults: u8,
    /// A store has forgotten something.
    has_lost: bool,
    /// Somebody got values after a segment had been in the way.
    got_past: bool,
    issued_twice: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Store {
    counter: Option<Authority>,
    marker: Option<Marker>,
    replid: u64,
}

/// A process with a disk.
#[derive(Clone, Debug, PartialEq)]
struct Process {
    node: Node,
    disk: NodeState,
    /// To be written and adopted before the next message.
    offer: Option<Option<Segment>>,
    ancestors: Vec<Incarnation>,
    /// Somebody still waits for the call that is under way.
    awaited: bool,
    /// A segment was in the way of the last call.
    blocked: bool,
    /// Drawn from the segment for somebody who has gone.
    unanswered: RangeSet,
    /// The last process on this disk to which a store has given anything.
    involved: Option<Incarnation>,
    /// As the node has them, which it does not show.
    untold: RangeSet,
    handed_back: RangeSet,
    /// For [`Guard::CallNumber`]: how many more calls were made than the node knows.
    extra_calls: u64,
}

/// A message under way.
#[derive(Clone, Debug, PartialEq)]
struct Flight {
    node: usize,
    store: usize,
    take: Take,
    reply: Option<Reply>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    /// Asks, is served, hears: all in one step.
    Ask(usize, u64),
    /// Issues from the segment.
    Local(usize),
    /// Writes an offered segment down before it has anything to say.
    Write(usize),
    /// Hands back what nobody has waited for.
    HandBack(usize),
    /// A message of another counter comes first.
    Look(usize),
    /// A node turns to the other store.
    GoOver(usize),
    /// The old store is given up, or the new one.
    Reunite,
    FallBack,
    Save,
    Execute(usize),
    Deliver(usize),
    WaitSettled,
    WaitLapsed,
    AskBadly(Fault, usize, u64),
    Fail(Fault, usize),
}

fn generation(number: u64) -> Generation {
    Generation(number * LOT)
}

fn name(node: usize, start: usize) -> Incarnation {
    Incarnation((node as u128 + 1) * 100 + start as u128)
}

/// What was issued from segments, according to a disk.
fn all_used(disk: &NodeState) -> RangeSet {
    let issued = disk.segment.filter(|_| disk.issued > 0).map(|segment| {
        let to = SequenceValue(segment.0.from.0 + disk.issued - 1);
        ValueRange { from: segment.0.from, to }
    });
    disk.used.iter().chain(issued).collect()
}

impl Process {
    fn starting(node: usize, disk: NodeState, ancestors: Vec<Incarnation>) -> Self {
        let name = name(node, ancestors.len());
        Self {
            node: Node::new(name, "n".into(), Generations::default(), disk.clone(), ancestors.clone()),
            untold: all_used(&disk),
            handed_back: RangeSet::new(),
            disk,
            offer: None,
            ancestors,
            awaited: false,
            blocked: false,
            unanswered: RangeSet::new(),
            involved: None,
            extra_calls: 0,
        }
    }

    fn restart(&mut self, node: usize) {
        let mut ancestors = self.ancestors.clone();
        ancestors.push(self.node.incarnation());
        let involved = self.involved;
        *self = Self { involved, ..Self::starting(node, self.disk.clone(), ancestors) };
    }

    fn write(&mut self) {
        if let Some(segment) = self.offer.take() {
            self.disk = self.node.with_segment(segment).unwrap_or_else(|| self.node.state().clone());
            self.node.adopt(self.disk.clone());
        }
    }

    fn hand_back(&mut self) {
        self.node.hand_back(std::mem::take(&mut self.unanswered).iter());
    }

    fn ask(&mut self, count: u64, size: u64, leaves: bool, insists: bool) -> Take {
        if !self.node.has_pending_call() {
            self.awaited = count > 0;
        }
        self.node.ask(Ask {
            count,
            claims: Vec::new(),
            limits: LIMITS,
            wants: (!leaves).then_some(Wants { size }),
            next_beat_ms: BEAT_MS,
            leaves,
            insists,
        })
    }

    /// The number of its last call.
    fn call(&self) -> u64 {
        let mut clone = self.clone();
        let is_new = !clone.node.has_pending_call();
        clone.ask(0, 1, false, false).call - u64::from(is_new)
    }
}

impl World {
    fn new(values: u8, faults: u8) -> Self {
        let marker = Marker {
            generation: generation(1),
            replid: 1,
            since: NOW - SETTLING_MS,
            settled: true,
            alive: NOW - SETTLING_MS,
            lacks_ms: 0,
        };
        let process = |node| Process::starting(node, NodeState::default(), Vec::new());
        Self {
            stores: vec![Store { counter: None, marker: Some(marker), replid: 1 }],
            links: [0; NODES],
            saved: None,
            processes: [process(0), process(1)],
            flights: Vec::new(),
            issued: BTreeSet::new(),
            generations: 1,
            servers: 1,
            values,
            faults,
            has_lost: false,
            got_past: false,
            issued_twice: false,
        }
    }

    // --------------------------------------------------------------------------------------- the store

    /// One message, executed. `None`: a world that is left out, see [`Self::leaves_somebody_behind`].
    fn serve(&mut self, model: &Counter, at: usize, take: &Take) -> Option<Reply> {
        let before = self.stores[at].clone();
        let fresh = self.fresh(model, at);
        let store = &mut self.stores[at];
        let mut take = take.clone();
        model.distort(&mut take, store);
        let reply = Authority::serve(&mut store.counter, &mut store.marker, store.replid, NOW, fresh, &take);
        model.undo(store, &before, &take);
        if store.marker.is_some_and(|marker| marker.generation == fresh) {
            self.generations += 1;
        }
        // Without settling nobody was given the time to speak.
        let may_wait = model.without != Some(Guard::Settling);
        if may_wait && self.leaves_somebody_behind(&before, at, &take) {
            return None;
        }
        if let Reply::Taken { .. } = reply {
            let process = self.processes.iter_mut().find(|one| one.node.incarnation() == take.incarnation);
            if let Some(process) = process {
                process.involved = Some(take.incarnation);
            }
        }
        Some(reply)
    }

    fn fresh(&self, model: &Counter, at: usize) -> Generation {
        let known = self.stores[at].marker.map_or(0, |marker| marker.generation.0 / LOT);
        let next = if model.without == Some(Guard::RandomGeneration) { known } else { self.generations };
        if model.without == Some(Guard::SkipByLot) {
            return Generation((next + 1) * LEAST_SKIP);
        }
        generation(next + 1)
    }

    /// Whether a store began to draw again, though somebody to whom any store has given something did not speak, and is known to
    /// nobody who did.
    fn leaves_somebody_behind(&self, before: &Store, at: usize, take: &Take) -> bool {
        let store = &self.stores[at];
        let Some(counter) = &store.counter else { return false };
        let in_force = store.marker.map(|marker| marker.generation);
        let was = before.counter.as_ref().and_then(|counter| counter.generation);
        if counter.generation != in_force || was == in_force {
            return false;
        }
        let mut known: BTreeSet<Incarnation> = [take.incarnation].into();
        if let Some(before) = &before.counter {
            known.extend(before.members.keys());
            if let Some(recovery) = before.recovery.as_ref().filter(|one| Some(one.generation) == in_force) {
                known.extend(recovery.known.union(&recovery.reported));
            }
            known.extend(take.peers.iter().chain(&take.retires).chain(&take.covers));
        }
        self.processes
            .iter()
            .any(|process| process.involved.is_some_and(|involved| !known.contains(&involved)))
    }

    // --------------------------------------------------------------------------------------- the nodes

    fn send(&mut self, model: &Counter, node: usize, count: u64, leaves: bool, insists: bool) -> Take {
        let process = &mut self.processes[node];
        if model.without != Some(Guard::WrittenBeforeAdopted) {
            process.write();
        }
        let is_repeat = process.node.has_pending_call();
        let mut take = process.ask(count, model.size, leaves, insists);
        if model.without == Some(Guard::CallNumber) {
            process.extra_calls += u64::from(is_repeat);
            take.call += process.extra_calls;
        }
        take
    }

    fn exchange(&mut self, model: &Counter, node: usize, count: u64, leaves: bool) -> Option<Take> {
        self.converse(model, node, count, leaves, false)
    }

    fn converse(
        &mut self,
        model: &Counter,
        node: usize,
        count: u64,
        leaves: bool,
        insists: bool,
    ) -> Option<Take> {
        let take = self.send(model, node, count, leaves, insists);
        let reply = self.serve(model, self.links[node], &take)?;
        self.hear(model, node, take.clone(), reply);
        Some(take)
    }

    fn hear(&mut self, model: &Counter, node: usize, mut take: Take, mut reply: Reply) {
        let process = &mut self.processes[node];
        if take.incarnation != process.node.incarnation() {
            return;
        }
        model.doctor(process, &mut take, &mut reply);
        let Heard::Served { outcome, write, .. } = process.node.hear(&take, reply) else { return };
        take.used.iter().for_each(|range| process.untold.remove(*range));
        let mut told: RangeSet = take.surplus.iter().copied().collect();
        take.used.iter().for_each(|range| told.remove(*range));
        told.iter().for_each(|range| process.handed_back.insert(range));
        process.offer = write.as_ref().map(|state| state.segment);
        if let Some(state) = write.filter(|_| model.without == Some(Guard::WrittenBeforeAdopted)) {
            process.node.adopt(state);
        }
        match outcome {
            Outcome::Drawn(values) if process.awaited => {
                self.got_past |= process.blocked && !values.is_empty();
                process.blocked = false;
                values.into_iter().for_each(|range| self.issue(range));
            }
            Outcome::Drawn(values)
                if model.without != Some(Guard::SurplusListed) && model.question == Question::Everything =>
            {
                process.node.hand_back(values);
            }
            Outcome::Drawn(_) => {}
            // Nothing was drawn: it may be asked for again.
            Outcome::Blocked { .. } => {
                process.blocked = model.faults == 0;
                self.values += u8::try_from(take.count).expect("few");
            }
            Outcome::Overflow { .. } | Outcome::Superseded => {}
        }
    }

    fn issue(&mut self, range: ValueRange) {
        for value in range.from.0..=range.to.0 {
            self.issued_twice |= !self.issued.insert(value);
        }
    }

    /// Draws from the segment; on disk before anybody is answered.
    fn draw_locally(&mut self, node: usize) -> Option<ValueRange> {
        let process = &mut self.processes[node];
        let range = process.node.issue_locally(1, LIMITS.max)?;
        process.disk = process.node.state().clone();
        process.untold.insert(range);
        Some(range)
    }

    /// Issues from the segment. Requests that wait for a call are served like this too.
    fn issue_locally(&mut self, node: usize) -> Option<()> {
        let range = self.draw_locally(node)?;
        self.processes[node].awaited = false;
        self.issue(range);
        Some(())
    }
}
