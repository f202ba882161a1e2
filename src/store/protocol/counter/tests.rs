//! Nodes and an authority under random faults: what is issued is issued once, what is not issued is listed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    counter::{SequenceValue, ValueRange},
    store::HoleReason,
};

const LIMITS: Limits =
    Limits { base: SequenceValue(0), floor: SequenceValue(0), max: SequenceValue::MAX, scheme: 0 };
const SIZE: u64 = 10;
const BEAT_MS: u64 = 1_000;

/// A process with a disk.
struct Process {
    node: Node,
    disk: NodeState,
    ancestors: Vec<Incarnation>,
    /// Whether somebody still waits for the call that is under way.
    awaited: bool,
}

/// A message that may arrive again, or late.
#[derive(Clone)]
struct Envelope {
    to: usize,
    take: Take,
    reply: Reply,
}

struct World {
    counter: Option<Authority>,
    marker: Option<Marker>,
    replid: u64,
    now: u64,
    randomness: u64,
    saved: (Option<Authority>, Option<Marker>),
    processes: Vec<Process>,
    network: Vec<Envelope>,
    issued: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    /// A node asks for values (or repeats its call); the reply may be lost.
    Ask { node: usize, count: u64, reply_arrives: bool },
    /// The request behind the call that is under way gives up.
    GiveUp { node: usize },
    /// A message that was sent before arrives once more.
    Repeat { index: usize },
    /// A reply that was sent before arrives.
    Late { index: usize },
    /// A node issues from its segment.
    Local { node: usize, count: u64 },
    /// Time passes.
    Wait { ms: u64 },
    /// A process dies, and another takes its place on the same disk.
    Crash { node: usize },
    /// The store is saved.
    Save,
    /// The store comes back as it was saved, on another server.
    Rollback,
    /// The store comes back empty.
    Empty,
}

/// A sign of life that wants nothing.
fn beat() -> Ask {
    Ask {
        count: 0,
        claims: Vec::new(),
        limits: LIMITS,
        wants: None,
        next_beat_ms: BEAT_MS,
        leaves: false,
        insists: false,
    }
}

/// A store that the nodes are not connected to.
struct Store {
    counter: Option<Authority>,
    marker: Option<Marker>,
    replid: u64,
}

impl World {
    fn new(nodes: usize) -> Self {
        let mut world = Self {
            counter: None,
            marker: None,
            replid: 1,
            now: 1_000_000,
            randomness: 1,
            saved: (None, None),
            processes: Vec::new(),
            network: Vec::new(),
            issued: BTreeSet::new(),
        };
        for _ in 0..nodes {
            let fresh = world.random();
            let node = Node::new(
                Incarnation(fresh.into()),
                "n".into(),
                Generations::default(),
                NodeState::default(),
                Vec::new(),
            );
            world.processes.push(Process {
                node,
                disk: NodeState::default(),
                ancestors: Vec::new(),
                awaited: false,
            });
        }
        // Everybody has been heard of before the first fault: who is unknown to all cannot be waited for.
        for _ in 0..3 {
            (0..nodes).for_each(|node| world.ask(node, 0, true));
            world.now += SETTLING_MS;
        }
        world.saved = (world.counter.clone(), world.marker);
        world
    }

    fn random(&mut self) -> u64 {
        self.randomness += 1;
        self.randomness
    }

    fn serve(&mut self, take: &Take) -> Reply {
        let fresh = Generation(self.random().wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Authority::serve(&mut self.counter, &mut self.marker, self.replid, self.now, fresh, take)
    }

    fn ask(&mut self, node: usize, count: u64, reply_arrives: bool) {
        self.say(node, count, reply_arrives, false);
    }

    fn say(&mut self, node: usize, count: u64, reply_arrives: bool, insists: bool) {
        let process = &mut self.processes[node];
        if !process.node.has_pending_call() {
            process.awaited = count > 0;
        }
        let take = process.node.ask(Ask { count, wants: Some(Wants { size: SIZE }), insists, ..beat() });
        let reply = self.serve(&take);
        let envelope = Envelope { to: node, take, reply };
        if reply_arrives {
            self.deliver(envelope.clone());
        }
        self.network.push(envelope);
    }

    fn deliver(&mut self, Envelope { to, take, reply }: Envelope) {
        let process = &mut self.processes[to];
        if take.incarnation != process.node.incarnation() {
            return;
        }
        if let Heard::Served { outcome, write, .. } = process.node.hear(&take, reply) {
            if let Some(state) = write {
                process.disk = state.clone();
                process.node.adopt(state);
            }
            if let Outcome::Drawn(values) = outcome {
                if process.awaited {
                    values.into_iter().for_each(|range| self.issue(range));
                } else {
                    process.node.hand_back(values);
                }
            }
        }
    }

    fn issue(&mut self, range: ValueRange) {
        for value in range.from.0..=range.to.0 {
            assert!(self.issued.insert(value), "{value} was issued twice");
        }
    }

    fn step(&mut self, step: Step) {
        let count = self.processes.len();
        match step {
            Step::Ask { node, count: values, reply_arrives } => self.ask(node % count, values, reply_arrives),
            Step::GiveUp { node } => self.processes[node % count].awaited = false,
            Step::Repeat { index } if !self.network.is_empty() => {
                let index = index % self.network.len();
                let Envelope { to, take, .. } = self.network[index].clone();
                let reply = self.serve(&take);
                self.network.push(Envelope { to, take, reply });
            }
            Step::Late { index } if !self.network.is_empty() => {
                let index = index % self.network.len();
                self.deliver(self.network[index].clone());
            }
            Step::Repeat { .. } | Step::Late { .. } => {}
            Step::Local { node, count: values } => {
                let process = &mut self.processes[node % count];
                let drawn = process.node.issue_locally(values, LIMITS.max);
                process.disk = process.node.state().clone();
                if let Some(range) = drawn {
                    self.issue(range);
                }
            }
            Step::Wait { ms } => self.now += ms,
            Step::Crash { node } => {
                let fresh = self.random();
                let process = &mut self.processes[node % count];
                process.ancestors.push(process.node.incarnation());
                let (left, ancestors) = (process.disk.clone(), process.ancestors.clone());
                process.node =
                    Node::new(Incarnation(fresh.into()), "n".into(), Generations::default(), left, ancestors);
                process.awaited = false;
            }
            Step::Save => self.saved = (self.counter.clone(), self.marker),
            Step::Rollback => {
                (self.counter, self.marker) = self.saved.clone();
                self.replid += 1;
                self.everybody_reports();
            }
            Step::Empty => {
                (self.counter, self.marker) = (None, None);
                self.replid += 1;
                self.everybody_reports();
            }
        }
    }

    /// In profile *redis* who is unknown to everybody and silent cannot be waited for: after a loss all speak within the time.
    fn everybody_reports(&mut self) {
        for _ in 0..2 {
            (0..self.processes.len()).for_each(|node| self.ask(node, 0, true));
        }
    }

    /// Everybody is connected to another store from now on; answers with the one before.
    fn turn_to(&mut self, store: Store) -> Store {
        Store {
            counter: std::mem::replace(&mut self.counter, store.counter),
            marker: std::mem::replace(&mut self.marker, store.marker),
            replid: std::mem::replace(&mut self.replid, store.replid),
        }
    }

    /// All is well for a while.
    fn heal(&mut self) {
        for _ in 0..8 {
            (0..self.processes.len()).for_each(|node| self.ask(node, 0, true));
            self.now += SETTLING_MS;
            (0..self.processes.len()).for_each(|node| self.ask(node, 0, true));
        }
    }

    fn holes(&self) -> BTreeMap<u64, HoleReason> {
        let holes = self.counter.iter().flat_map(|counter| &counter.holes);
        holes
            .flat_map(|hole| (hole.range.from.0..=hole.range.to.0).map(|value| (value, hole.reason)))
            .collect()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = 0_usize..3;
    let step = prop_oneof![
        8 => (node.clone(), 0_u64..25, prop::bool::weighted(0.7))
            .prop_map(|(node, count, reply_arrives)| Step::Ask { node, count, reply_arrives }),
        2 => node.clone().prop_map(|node| Step::GiveUp { node }),
        2 => (0_usize..1_000).prop_map(|index| Step::Repeat { index }),
        3 => (0_usize..1_000).prop_map(|index| Step::Late { index }),
        3 => (node.clone(), 1_u64..6).prop_map(|(node, count)| Step::Local { node, count }),
        2 => prop_oneof![1_u64..500, 1_000_u64..8_000].prop_map(|ms| Step::Wait { ms }),
        1 => node.prop_map(|node| Step::Crash { node }),
        1 => Just(Step::Save),
        1 => Just(Step::Rollback),
        1 => Just(Step::Empty),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_issued_twice_and_what_is_missing_is_listed(steps in steps()) {
        let forgets = steps.iter().any(|step| matches!(step, Step::Rollback | Step::Empty));
        let mut world = World::new(3);
        for step in steps {
            world.step(step);
        }
        world.heal();
        let counter = world.counter.as_ref().expect("a counter");
        let holes = world.holes();
        let held = |value| {
            counter.members.values().flat_map(Member::segments).any(|Segment(range)| {
                (range.from.0..=range.to.0).contains(&value)
            })
        };
        for value in counter.base.0 + 1..=counter.cursor.0.min(counter.base.0 + 30_000) {
            prop_assert!(world.issued.contains(&value) || holes.contains_key(&value) || held(value), "{} is missing", value);
        }
        for (value, reason) in &holes {
            // A store that has forgotten lists what it cannot know about, and does not say that nobody has it.
            if world.issued.contains(value) {
                prop_assert!(
                    *reason == HoleReason::Unconfirmed || forgets && *reason != HoleReason::Returned,
                    "{} was issued, and is listed as {:?}", value, reason
                );
            }
        }
    }

    #[test]
    fn a_healthy_run_has_no_hole(asks in prop::collection::vec((0_usize..3, 0_u64..30), 1..80)) {
        let mut world = World::new(3);
        for (node, count) in asks {
            world.ask(node, count, true);
            (0..3).for_each(|node| world.ask(node, 0, true));
            world.now += 100;
        }
        prop_assert_eq!(world.holes().len(), 0);
        let counter = world.counter.as_ref().expect("a counter");
        prop_assert_eq!(world.issued.len() as u64, counter.cursor.0 - counter.base.0);
    }
}

#[test]
fn a_late_message_of_the_dead_does_not_hide_what_may_have_been_issued() {
    let mut world = World::new(2);
    // Its segment lies at 21 to 30: it is swapped as the cursor comes near, and drawn from.
    world.ask(0, 5, true);
    let first = world.network.len() - 1;
    world.ask(0, 12, true);
    world.ask(0, 4, true);
    let late = world.network[first].take.clone();
    assert_eq!(late.holds, Some(Segment(ValueRange { from: SequenceValue(21), to: SequenceValue(30) })));
    assert_eq!(world.counter.as_ref().expect("a counter").cursor, SequenceValue(21));
    // Nobody can tell whether its last answer was passed on: 21 was.
    world.step(Step::Crash { node: 0 });
    world.ask(0, 0, true);
    world.ask(0, 0, true);
    assert_eq!(world.holes().get(&21), Some(&HoleReason::Unconfirmed));
    world.serve(&late);
    world.heal();
    assert_eq!(world.holes().get(&21), Some(&HoleReason::Unconfirmed));
}

#[test]
fn what_was_issued_while_a_reply_was_under_way_is_told() {
    let mut world = World::new(2);
    // Node 0 is slow: its segment, 21 to 30, is passed meanwhile, and what it issues of it then is not above what it has seen.
    world.now += 10_000;
    [15, 0, 10].into_iter().for_each(|count| world.ask(1, count, true));
    world.ask(0, 0, false);
    let reply = world.network.last().expect("a message").clone();
    world.step(Step::Local { node: 0, count: 2 });
    let issued: Vec<u64> = world.issued.iter().copied().filter(|value| [21, 22].contains(value)).collect();
    world.deliver(reply);
    assert_eq!(world.processes[0].node.seen(), Some(SequenceValue(35)));
    // Not even a crash hides it.
    world.step(Step::Crash { node: 0 });
    world.heal();
    let holes = world.holes();
    assert!(issued.iter().all(|value| !holes.contains_key(value)), "{issued:?} in {holes:?}");
}

#[test]
fn a_store_that_was_stood_in_for_does_not_answer_calls_again() {
    let mut world = World::new(2);
    // Node 0 is drawn ten values that it does not hear of; that much is saved.
    world.ask(0, 10, false);
    world.step(Step::Save);
    // Another store stands in, which begins where nobody knows better, and gives them to node 1.
    world.step(Step::Empty);
    world.now += SETTLING_MS;
    // The first only repeats its report.
    (0..2).for_each(|_| world.ask(1, 10, true));
    assert!(world.issued.contains(&1));
    // The first comes back, with the answer to a call that is still open.
    world.step(Step::Rollback);
    world.now += SETTLING_MS;
    world.ask(0, 0, true);
    world.heal();
}

#[test]
fn what_was_handed_back_is_told_to_a_store_that_has_forgotten_it() {
    let mut world = World::new(2);
    // What the last call was answered is listed after a loss anyway.
    (0..2).for_each(|_| world.ask(0, 1, true));
    world.step(Step::Save);
    world.processes[0].node.hand_back([ValueRange { from: SequenceValue(1), to: SequenceValue(1) }]);
    world.ask(0, 0, true);
    assert_eq!(world.holes().get(&1), Some(&HoleReason::Returned));
    world.step(Step::Rollback);
    world.heal();
    assert_eq!(world.holes().get(&1), Some(&HoleReason::Returned));
}

#[test]
fn who_has_swapped_a_segment_in_the_time_that_was_lost_may_have_issued_of_it() {
    let mut world = World::new(3);
    // The cursor comes to the segment of node 2, 41 to 50, which does not beat, and goes on behind it.
    world.now += 10_000;
    [9, 16, 6].into_iter().for_each(|count| world.ask(0, count, true));
    assert_eq!(world.holes().get(&41), Some(&HoleReason::Pending));
    world.step(Step::Save);
    world.step(Step::Local { node: 2, count: 1 });
    assert!(world.issued.contains(&41));
    // It tells, is answered, and holds another one: of this one it tells nobody any more.
    world.ask(2, 0, true);
    world.step(Step::Rollback);
    world.heal();
    assert_eq!(world.holes().get(&41), Some(&HoleReason::Unconfirmed));
}

#[test]
fn a_segment_that_was_swapped_in_the_time_that_was_lost_was_drawn_from() {
    let mut world = World::new(2);
    world.ask(0, 1, true);
    world.step(Step::Save);
    // Node 0 holds 21 to 30 there. The cursor goes past: both beat, and swap.
    for _ in 0..12 {
        (0..2).for_each(|node| world.ask(node, 5, true));
    }
    assert!((21..=30).all(|value| world.issued.contains(&value)));
    let late = world.processes[0].disk.clone();
    assert_ne!(late.segment, Some(Segment(ValueRange { from: SequenceValue(21), to: SequenceValue(30) })));
    world.step(Step::Crash { node: 0 });
    world.step(Step::Rollback);
    world.heal();
    let holes = world.holes();
    assert!((21..=30).all(|value| holes.get(&value) == Some(&HoleReason::Unconfirmed)), "{holes:?}");
}

/// A message of a node that is new to the counter, under a scheme.
fn under(scheme: u64, node: &mut Node, count: u64, wants: Option<Wants>) -> Take {
    let limits = Limits { scheme, ..LIMITS };
    node.ask(Ask {
        count,
        claims: Vec::new(),
        limits,
        wants,
        next_beat_ms: BEAT_MS,
        leaves: false,
        insists: false,
    })
}

/// A store that has been there for a while.
struct Settled {
    counter: Option<Authority>,
    marker: Option<Marker>,
}

impl Settled {
    const GENERATION: Generation = Generation(7);

    fn new() -> Self {
        let marker = Marker {
            generation: Self::GENERATION,
            replid: 1,
            since: 0,
            settled: true,
            alive: 0,
            lacks_ms: 0,
        };
        Self { counter: None, marker: Some(marker) }
    }

    fn node(name: u128) -> Node {
        Node::new(Incarnation(name), "n".into(), Self::GENERATION.into(), NodeState::default(), Vec::new())
    }

    fn serve(&mut self, take: &Take) -> Reply {
        Authority::serve(&mut self.counter, &mut self.marker, 1, 1_000, Generation(9), take)
    }

    fn draw(&mut self, scheme: u64, node: &mut Node, count: u64) -> (Outcome, Option<Segment>) {
        let take = under(scheme, node, count, Some(Wants { size: SIZE }));
        let reply = self.serve(&take);
        let Reply::Taken { outcome, segment, .. } = &reply else { panic!("{reply:?}") };
        let answer = (outcome.clone(), *segment);
        if let Heard::Served { write: Some(state), .. } = node.hear(&take, reply) {
            node.adopt(state);
        }
        answer
    }

    fn fence(&mut self, scheme: u64) -> Fenced {
        Authority::fence(&mut self.counter, &mut self.marker, 1, 1_000, Generation(9), scheme)
    }
}

fn drawn(from: u64, to: u64) -> Outcome {
    Outcome::Drawn(vec![ValueRange { from: SequenceValue(from), to: SequenceValue(to) }])
}

#[test]
fn a_retired_scheme_draws_nothing_and_gives_its_segment_back() {
    let (mut store, mut old, mut new) = (Settled::new(), Settled::node(1), Settled::node(2));
    let (outcome, segment) = store.draw(0, &mut old, 3);
    assert_eq!(outcome, drawn(1, 3));
    let Some(Segment(held)) = segment else { panic!("no segment") };
    let lost = under(0, &mut old, 2, None);
    store.serve(&lost);
    assert_eq!(store.fence(1), Fenced::At(held.to), "what lies in a segment may be issued");
    // Repeated after the fence: what was drawn before it is answered, and lies below the floor.
    let Reply::Taken { outcome, .. } = store.serve(&lost) else { panic!("not served") };
    assert_eq!(outcome, drawn(4, 5));
    old.withdraw();
    assert_eq!(store.draw(0, &mut old, 1), (Outcome::Superseded, None));
    assert_eq!(old.state().segment, None);
    assert_eq!(store.draw(0, &mut old, 0), (Outcome::Drawn(Vec::new()), None), "a sign of life is welcome");
    let counter = store.counter.as_ref().expect("a counter");
    assert!(counter.members.values().all(|member| member.segments().next().is_none()), "given back");
    assert_eq!(counter.cursor, SequenceValue(5));
    assert_eq!(store.draw(1, &mut new, 1).0, drawn(6, 6));
    assert_eq!(store.draw(0, &mut old, 1).0, Outcome::Superseded);
}

#[test]
fn a_later_scheme_closes_the_counter_by_itself() {
    let (mut store, mut old, mut new) = (Settled::new(), Settled::node(1), Settled::node(2));
    store.draw(0, &mut old, 1);
    store.draw(2, &mut new, 0);
    assert_eq!(store.draw(1, &mut old, 1).0, Outcome::Superseded);
    assert_eq!(store.fence(1), store.fence(2), "it is never lowered");
    assert_eq!(store.draw(1, &mut old, 1).0, Outcome::Superseded);
}

#[test]
fn what_does_not_exist_is_fenced_and_begins_where_its_first_caller_says() {
    let (mut store, mut old, mut new) = (Settled::new(), Settled::node(1), Settled::node(2));
    assert_eq!(store.fence(1), Fenced::At(SequenceValue(0)));
    assert_eq!(store.draw(0, &mut old, 1).0, Outcome::Superseded);
    store.counter = None;
    store.fence(1);
    let limits = Limits { base: SequenceValue(1_000), floor: SequenceValue(2_000), scheme: 1, ..LIMITS };
    let take = Take { limits, ..under(1, &mut new, 1, None) };
    let Reply::Taken { outcome, .. } = store.serve(&take) else { panic!("not served") };
    assert_eq!(outcome, drawn(2_001, 2_001));
    let counter = store.counter.as_ref().expect("a counter");
    assert_eq!((counter.origin, counter.base), (SequenceValue(1_000), SequenceValue(2_000)));
    assert_eq!(store.draw(0, &mut old, 1).0, Outcome::Superseded);
}

#[test]
fn a_store_that_has_forgotten_does_not_say_how_far_a_scheme_has_come() {
    let (mut store, mut old) = (Settled::new(), Settled::node(1));
    store.draw(0, &mut old, 40);
    store.marker = None;
    assert_eq!(store.fence(1), Fenced::Settling { wait_ms: SETTLING_MS });
    store.marker =
        Some(Marker { generation: Generation(8), replid: 1, since: 0, settled: true, alive: 0, lacks_ms: 0 });
    assert_eq!(store.fence(1), Fenced::Unknown, "nobody has reported");
    store.counter = None;
    store.marker = None;
    assert_eq!(store.fence(1), Fenced::Settling { wait_ms: SETTLING_MS }, "it may have been lost");
}

#[test]
fn who_speaks_too_late_and_of_another_generation_is_skipped_for() {
    let mut world = World::new(2);
    world.ask(0, 5, true);
    // Everything is lost, and node 1, which happens to know of nobody, is the only one to report in time.
    (world.counter, world.marker) = (None, None);
    world.replid += 1;
    for _ in 0..2 {
        let process = &mut world.processes[1];
        let take = Take { peers: Vec::new(), ..process.node.ask(beat()) };
        let reply = world.serve(&take);
        world.deliver(Envelope { to: 1, take, reply });
    }
    world.now += SETTLING_MS;
    // The message that ends the settling is not a report, and yet it tells of somebody.
    world.ask(0, 0, false);
    let cursor = world.counter.as_ref().expect("a counter").cursor;
    assert!(cursor > SequenceValue(5), "{cursor:?}");
}

#[test]
fn a_store_that_forgets_again_is_told_again_what_was_issued() {
    let mut world = World::new(1);
    world.ask(0, 1, true);
    let node = &mut world.processes[0].node;
    let segment = node.state().segment;
    let issued = node.issue_locally(2, LIMITS.max).expect("a segment");
    let told = node.ask(beat());
    assert_eq!(told.used, [issued]);
    // The cursor passes the segment, which it goes on to hold.
    let served = Reply::Taken {
        generation: told.generation.expect("heard of"),
        call: told.call,
        outcome: Outcome::Drawn(Vec::new()),
        claims: Vec::new(),
        cursor: SequenceValue(1_000_000),
        segment,
        peers: Vec::new(),
        horizon: SequenceValue(0),
        peak: 0,
    };
    node.hear(&told, served);
    let quiet = node.ask(beat());
    assert_eq!(quiet.used, []);
    node.hear(&quiet, Reply::Recover { generation: Generation(99), wait_ms: 0 });
    assert_eq!(node.ask(beat()).used, [issued]);
}

#[test]
fn a_skip_ends_at_nobodys_limit() {
    // A limit of 0 is that of a node under grants, which bound what was lost.
    for (max, is_skipped) in [(3, true), (0, false)] {
        let mut world = World::new(2);
        world.ask(0, 5, true);
        world.ask(1, 0, true);
        (world.counter, world.marker) = (None, None);
        world.replid += 1;
        for wait in [0, 0, SETTLING_MS] {
            world.now += wait;
            let take = world.processes[1]
                .node
                .ask(Ask { limits: Limits { max: SequenceValue(max), ..LIMITS }, ..beat() });
            let reply = world.serve(&take);
            world.deliver(Envelope { to: 1, take, reply });
        }
        let cursor = world.counter.as_ref().expect("a counter").cursor;
        assert_eq!(cursor > SequenceValue(10_000), is_skipped, "{max}: {cursor:?}");
    }
}

#[test]
fn who_has_reported_and_gone_over_to_another_store_does_not_lift_this_one() {
    let mut world = World::new(2);
    world.ask(0, 5, true);
    world.replid += 1;
    for node in 0..2 {
        // Hears of the new generation, and reports under it.
        (0..2).for_each(|_| world.ask(node, 0, true));
    }
    let Process { node, .. } = &mut world.processes[0];
    let take = node.ask(beat());
    let elsewhere =
        Take { generation: Some(Generation(77)), seen: Some(SequenceValue(1_000_000)), ..take.clone() };
    world.serve(&elsewhere);
    world.now += SETTLING_MS;
    world.ask(0, 1, true);
    let cursor = world.counter.as_ref().expect("a counter").cursor;
    assert!(cursor < SequenceValue(100), "lifted to where the other one draws: {cursor:?}");
}

/// The store comes apart: node 0 goes over to the new one, node 1 stays and draws from the old one, which is answered.
fn come_apart(world: &mut World) -> Store {
    let old = Store { counter: world.counter.clone(), marker: world.marker, replid: world.replid };
    world.replid += 1;
    (0..2).for_each(|_| world.ask(0, 0, true));
    world.now += SETTLING_MS;
    [0, 1].into_iter().for_each(|count| world.ask(0, count, true));
    let new = world.turn_to(old);
    world.ask(1, 1, true);
    new
}

#[test]
fn who_has_gone_over_to_a_new_store_does_not_go_back() {
    let mut world = World::new(2);
    let mut other = come_apart(&mut world);
    let (counter, marker) = (world.counter.clone(), world.marker);
    for _ in 0..8 {
        world.ask(0, 3, true);
        world.now += 1_000;
    }
    assert_eq!(world.processes[0].node.refused(), marker.map(|marker| marker.generation));
    assert_eq!((&world.counter, world.marker), (&counter, marker), "it goes on as it did");
    world.ask(1, 2, true);
    let issued = world.issued.len();
    other = world.turn_to(other);
    world.ask(0, 0, true);
    assert_eq!(world.issued.len(), issued + 3, "the call is answered where it belongs");
    assert_eq!(world.processes[0].node.refused(), None);
    world.turn_to(other);
    world.ask(1, 2, true);
}

#[test]
fn who_is_stranded_has_the_store_begin_another_generation() {
    let mut world = World::new(2);
    come_apart(&mut world);
    world.ask(0, 3, true);
    let left = world.processes[0].node.refused().expect("a generation that was left");
    world.say(0, 0, true, true);
    let begun = world.marker.expect("a marker").generation;
    assert_ne!(begun, left);
    // Once: who asks late finds that it has happened.
    world.say(0, 0, true, true);
    assert_eq!(world.marker.expect("a marker").generation, begun);
    world.heal();
    let seen = world.processes[0].node.seen();
    assert!(world.counter.as_ref().is_some_and(|counter| Some(counter.cursor) >= seen));
    (0..2).for_each(|node| world.ask(node, 2, true));
    assert_eq!(world.processes[0].node.refused(), None);
    assert_eq!(world.issued.len(), 9, "all that was asked for");
}

#[test]
fn two_losses_with_others_silent_each_time_do_not_end_at_one_value() {
    let mut world = World::new(2);
    world.step(Step::Save);
    for speaker in [0, 1] {
        (world.counter, world.marker) = world.saved.clone();
        world.replid += 1;
        (0..2).for_each(|_| world.ask(speaker, 0, true));
        world.now += SETTLING_MS;
        [0, 20].into_iter().for_each(|count| world.ask(speaker, count, true));
    }
    assert_eq!(world.issued.len(), 40, "nothing twice, each of them drew");
}

#[test]
fn what_was_used_right_before_a_segment_does_not_end_drawing() {
    let mut world = World::new(2);
    for node in 0..2 {
        (0..3).for_each(|_| world.ask(node, 0, true));
    }
    // Both use up what they hold; their next segments lie directly above that.
    for node in 0..2 {
        world.step(Step::Local { node, count: SIZE });
    }
    for _ in 0..60 {
        (0..2).for_each(|node| world.ask(node, 0, true));
        world.ask(0, 1, true);
        world.now += 1_000;
    }
    let cursor = world.counter.as_ref().expect("a counter").cursor;
    assert!(cursor.0 > 70, "stuck at {cursor}, before a segment whose node sees no reason to swap it");
}
