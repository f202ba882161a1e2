//! Worker windows: two nodes, two slots, a store that forgets, calls that are slow, lost or doubled, clocks that jump.
//!
//! One unit of time stands for the second of the service. A call is one step, or, as a fault, several: sent, executed, answered,
//! each at any later time or never. A paused node is one that does nothing for a while, which every node may. Every holder counts
//! as lapsed, since safety must not rest on that. The number of faults in a run is bounded; within that, the search is exhaustive.
//!
//! Exhaustive at two slots and two nodes: two faults out of calls, crashes and a memory that is lost, kept or rolled back; two out of calls, crashes and
//! clocks. At one slot: two faults of any kind (three, where there is time). Not in here: two stores that answer at the same time.
//!
//! What the model takes for granted is what profile *redis* cannot do without (`docs/protocols.md`):
//! - a holder whose grant was forgotten beyond the margin comes forward while the store settles, or stops issuing;
//! - a store that has lost more than the margin allows for is not also set back in time, and its clock does not jump ahead while
//!   it settles.

use numgen::store::{
    AcquireRequest, Acquired, Extension, Generation, Holding, Nonce, Renewed,
    protocol::window::{Contact, Guard, Holder, Marker, Next, Phase, Rest, ServerId, Slots, Terms},
};
use stateright::{Checker, HasDiscoveries, Model, Property};

const NODES: usize = 2;
const SETTLING: u64 = 1;
const MARGIN: u64 = 1;
const WINDOW: u64 = 3;

/// When a run begins: late enough for the store's clock to be set back.
const BEGIN: u64 = 3;

/// How far the store's clock jumps.
const JUMP: u64 = 2;

const TERMS: Terms = Terms {
    settling_ms: SETTLING,
    margin_ms: MARGIN,
    carry_limit_ms: 1,
    stale_ms: 0,
    rest: Rest::UntilMarkHasPassed,
    without: None,
};

/// A run begins with a store that is empty, and has been for long; that it starts empty under way is a fault among others.
const SETTLED: Marker =
    Marker { generation: Generation(1), server: ServerId(1), since: 0, phase: Phase::Settled };

/// One bounded world.
#[derive(Clone)]
struct Windows {
    terms: Terms,
    slots: u32,
    /// When a run ends.
    end: u64,
    /// How many faults it may have.
    faults: u8,
    /// How many processes each node starts cleanly.
    names: u8,
    /// Which kinds of faults.
    kinds: &'static [Fault],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    /// A call is taken apart.
    Slow,
    /// A request is executed, and executed again later.
    Doubled,
    /// A process stops, and its RELEASE is executed later.
    LateRelease,
    /// A process dies, and another one starts in its place.
    Crash,
    /// The store is emptied under way.
    Flush,
    /// The store restarts with all that it had.
    Restart,
    /// The store restarts from what it had earlier, or a replica that lags is promoted.
    Rollback,
    /// The store's clock jumps ahead.
    Ahead,
    /// The store's clock is set back.
    Back,
}

const ALL: &[Fault] = &[
    Fault::Slow,
    Fault::Doubled,
    Fault::LateRelease,
    Fault::Crash,
    Fault::Flush,
    Fault::Restart,
    Fault::Rollback,
    Fault::Ahead,
    Fault::Back,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    time: u64,
    store: Slots,
    /// Its clock is this far from the time.
    offset: i64,
    set_back: bool,
    server: u64,
    /// Names that were given to memories.
    memories: u64,
    /// How often the store had reason to begin another memory.
    losses: u64,
    /// What it had earlier.
    dump: Option<Slots>,
    nodes: [Node; NODES],
    /// Requests whose sender no longer waits for them.
    astray: Vec<Request>,
    /// Timestamps that were issued, by slot, as bits.
    issued: [u64; 2],
    faults: u8,
    broken: Option<Breach>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Breach {
    IssuedTwice,
    RanAhead,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    /// Counts the names that it has used.
    names: u8,
    holder: Holder,
    /// The store's clock, carried forward: so far ahead of the time.
    carried: Option<i64>,
    last: u64,
    call: Option<(u64, Call)>,
}

/// A call that was taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Call {
    Sent(Request),
    Executed(Request, Answer),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Request {
    Acquire(Nonce),
    Renew(Holding, u64),
    Release(Holding, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Acquired(Acquired),
    Renewed(Renewed),
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Tick,
    /// Acquires or renews, all in one step.
    Ask(usize),
    /// Stops cleanly; another process starts in its place.
    Stop(usize),
    Fault(Fault, usize),
    /// The store executes the call of a node, or a request that went astray.
    Execute(usize),
    ExecuteAstray(usize),
    Receive(usize),
    GiveUp(usize),
    SaveDump,
}

impl Node {
    fn starting(node: usize, names: u8) -> Self {
        Self { names, holder: Holder::new(name(node, names)), carried: None, last: 0, call: None }
    }

    fn clock(&self, time: u64) -> u64 {
        time.saturating_add_signed(self.carried.unwrap_or(0))
    }

    fn learn(&mut self, seen: u64, time: u64) {
        let ahead = i64::try_from(seen).expect("small") - i64::try_from(time).expect("small");
        self.carried = Some(self.carried.map_or(ahead, |carried| carried.max(ahead)));
    }
}

fn name(node: usize, count: u8) -> Nonce {
    let mut name = [0; 16];
    (name[0], name[1]) = (node as u8 + 1, count);
    Nonce(name)
}

impl World {
    fn now(&self) -> u64 {
        self.time.saturating_add_signed(self.offset)
    }

    fn execute(&mut self, terms: &Terms, slots: u32, request: &Request) -> Answer {
        self.memories += 1;
        let (now, server) = (self.now(), ServerId(self.server));
        let contact = Contact { now, presence_ms: 0, server, fresh: Generation(self.memories) };
        let before = self.store.marker;
        let answer = match request {
            Request::Acquire(nonce) => {
                let request = AcquireRequest { nonce: *nonce, slots: 0..slots, window_ms: WINDOW, ttl_ms: 0 };
                Answer::Acquired(self.store.acquire(terms, &request, &contact))
            }
            Request::Renew(holding, carried) => {
                let mark = |world: &Self| world.store.slots.get(&holding.slot).map_or(0, |slot| slot.mark);
                let before = mark(self).max(holding.mark);
                let extension = Extension { carried: *carried, window_ms: WINDOW, ttl_ms: 0 };
                let renewed = self.store.renew(terms, holding, &extension, &contact);
                if mark(self) > before.max(carried + TERMS.carry_limit_ms + WINDOW) {
                    self.broken = Some(Breach::RanAhead);
                }
                Answer::Renewed(renewed)
            }
            Request::Release(holding, last) => {
                self.store.release(terms, holding, *last, &contact);
                Answer::Nothing
            }
        };
        if self.store.marker.map(|marker| marker.generation) == before.map(|marker| marker.generation) {
            // The name was not needed: worlds that differ in nothing else are one.
            self.memories -= 1;
        }
        answer
    }

    fn receive(&mut self, terms: &Terms, node: usize, request: &Request, answer: Answer, age: u64) {
        let time = self.time;
        let me = &mut self.nodes[node];
        let next = name(node, me.names + 1);
        let (learned, next) = match (request, answer) {
            (Request::Acquire(nonce), Answer::Acquired(acquired)) => {
                let next = me.holder.acquired(terms, *nonce, acquired, age);
                if let Next::Issue(holding) = next {
                    me.last = 0;
                    me.learn(holding.now.max(holding.start), time);
                }
                (None, next)
            }
            (Request::Renew(holding, _), Answer::Renewed(renewed)) => {
                (Some(()), me.holder.renewed(terms, holding, renewed, age, next))
            }
            _ => (None, Next::Ignore),
        };
        match next {
            Next::Issue(holding) if learned.is_some() => {
                me.learn(holding.now.min(me.clock(time) + TERMS.carry_limit_ms), time);
            }
            Next::Stop => me.names += 1,
            Next::Issue(_) | Next::Ignore => {}
        }
    }

    fn send_astray(&mut self, request: Request) {
        self.astray.push(request);
        self.astray.sort_unstable_by_key(|request| format!("{request:?}"));
    }

    /// What the node would ask for next.
    fn question(&self, node: usize) -> Request {
        let me = &self.nodes[node];
        match me.holder.held() {
            Some(holding) => Request::Renew(holding, me.clock(self.time)),
            None => Request::Acquire(me.holder.nonce()),
        }
    }

    /// The next timestamp that the node may issue.
    fn issuable(&self, node: usize) -> Option<(u32, u64)> {
        let me = &self.nodes[node];
        let held = me.holder.held()?;
        // Never ahead of the clock: what the service allows there (50 ms) is nothing beside the settling.
        let timestamp = me.clock(self.time);
        let is_free = timestamp > me.last.max(held.start) && timestamp <= held.mark;
        is_free.then_some((held.slot, timestamp))
    }

    /// Every node issues whenever it can: nothing is harder on the others.
    fn issue(&mut self) {
        for node in 0..NODES {
            if let Some((slot, timestamp)) = self.issuable(node) {
                let bits = &mut self.issued[slot as usize];
                if *bits >> timestamp & 1 == 1 {
                    self.broken = Some(Breach::IssuedTwice);
                }
                *bits |= 1 << timestamp;
                self.nodes[node].last = timestamp;
            }
        }
    }

    /// Whether the store would be settled at `now`, though somebody whose grant it has forgotten has not come forward.
    fn leaves_somebody_behind(&self, now: u64) -> bool {
        let Some(marker) = self.store.marker else { return false };
        let settles = marker.phase == Phase::Settling && now.saturating_sub(marker.since) >= SETTLING;
        settles
            && self.nodes.iter().filter_map(|node| node.holder.held()).any(|held| {
                let is_known = self.store.slots.get(&held.slot).is_some_and(|slot| {
                    slot.owner == Some(held.nonce)
                        && slot.fence == held.fence
                        && slot.mark + MARGIN >= held.mark
                });
                held.mark >= now && !is_known
            })
    }

    fn is_settling(&self) -> bool {
        let unsettled = |marker: Marker| {
            marker.phase == Phase::Settling && self.now().saturating_sub(marker.since) < SETTLING
        };
        self.store.marker.is_none_or(unsettled)
    }

    fn restart(&mut self, node: usize) {
        if let Some((_, Call::Sent(request))) = self.nodes[node].call.take() {
            self.send_astray(request);
        }
        self.nodes[node] = Node::starting(node, self.nodes[node].names + 1);
    }
}

impl Windows {
    fn faults_of(&self, world: &World, actions: &mut Vec<Action>) {
        let has_lost = world.losses > 0;
        for &fault in self.kinds {
            match fault {
                Fault::Slow => actions.extend(
                    (0..NODES)
                        .filter(|&node| world.nodes[node].call.is_none())
                        .map(|node| Action::Fault(fault, node)),
                ),
                Fault::Crash | Fault::LateRelease => actions.extend(
                    (0..NODES)
                        .filter(|&node| world.nodes[node].holder.held().is_some())
                        .map(|node| Action::Fault(fault, node)),
                ),
                Fault::Doubled => actions.extend((0..NODES).map(|node| Action::Fault(fault, node))),
                Fault::Flush if !world.set_back && world.store.marker.is_some() => {
                    actions.push(Action::Fault(fault, 0));
                }
                Fault::Rollback if !world.set_back && world.dump.is_some() => {
                    actions.push(Action::Fault(fault, 0));
                }
                Fault::Restart => actions.push(Action::Fault(fault, 0)),
                Fault::Ahead if world.offset == 0 && !world.is_settling() => {
                    actions.push(Action::Fault(fault, 0));
                }
                Fault::Back if !has_lost => actions.push(Action::Fault(fault, 0)),
                Fault::Flush | Fault::Rollback | Fault::Ahead | Fault::Back => {}
            }
        }
    }

    fn fail(&self, world: &mut World, fault: Fault, node: usize) {
        world.faults -= 1;
        match fault {
            Fault::Slow => {
                let request = world.question(node);
                world.nodes[node].call = Some((world.time, Call::Sent(request)));
            }
            Fault::Doubled => {
                let request = world.question(node);
                world.send_astray(request);
            }
            Fault::Crash => world.restart(node),
            Fault::LateRelease => {
                let (held, last) = (world.nodes[node].holder.held(), world.nodes[node].last);
                world.restart(node);
                world.astray.extend(held.map(|held| Request::Release(held, last)));
            }
            Fault::Flush => {
                world.store = Slots::default();
                world.losses += 1;
            }
            Fault::Restart => {
                world.server += 1;
                world.losses += 1;
            }
            Fault::Rollback => {
                world.store = world.dump.take().unwrap_or_default();
                world.server += 1;
                world.losses += 1;
            }
            Fault::Ahead => world.offset += JUMP as i64,
            Fault::Back => {
                world.offset -= JUMP as i64;
                world.set_back = true;
            }
        }
    }
}

impl Model for Windows {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            time: BEGIN,
            store: Slots { marker: Some(SETTLED), ..Slots::default() },
            offset: 0,
            set_back: false,
            server: 1,
            memories: 1,
            losses: 0,
            dump: None,
            nodes: [Node::starting(0, 0), Node::starting(1, 0)],
            astray: Vec::new(),
            issued: [0; 2],
            faults: self.faults,
            broken: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_some() {
            return;
        }
        if world.time < self.end && !world.leaves_somebody_behind(world.now() + 1) {
            actions.push(Action::Tick);
        }
        for node in 0..NODES {
            let me = &world.nodes[node];
            match &me.call {
                // The nodes are alike: which of them begins makes no difference.
                None if node == 0 || !world.store.slots.is_empty() || world.losses > 0 => {
                    actions.push(Action::Ask(node))
                }
                None => {}
                Some((_, Call::Sent(_))) => actions.extend([Action::Execute(node), Action::GiveUp(node)]),
                Some((_, Call::Executed(..))) => {
                    actions.extend([Action::Receive(node), Action::GiveUp(node)]);
                }
            }
            if me.holder.held().is_some() && me.names < self.names {
                actions.push(Action::Stop(node));
            }
        }
        actions.extend((0..world.astray.len()).map(Action::ExecuteAstray));
        if world.dump.is_none() && world.faults > 0 && self.kinds.contains(&Fault::Rollback) {
            actions.push(Action::SaveDump);
        }
        if world.faults > 0 {
            self.faults_of(world, actions);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Tick => world.time += 1,
            Action::Ask(node) => {
                let request = world.question(node);
                let answer = world.execute(&self.terms, self.slots, &request);
                world.receive(&self.terms, node, &request, answer, 0);
            }
            Action::Stop(node) => {
                let (held, last) = (world.nodes[node].holder.held()?, world.nodes[node].last);
                world.restart(node);
                world.execute(&self.terms, self.slots, &Request::Release(held, last));
            }
            Action::Fault(fault, node) => self.fail(&mut world, fault, node),
            Action::Execute(node) => {
                let (sent, Call::Sent(request)) = world.nodes[node].call.take()? else { return None };
                let answer = world.execute(&self.terms, self.slots, &request);
                world.nodes[node].call = Some((sent, Call::Executed(request, answer)));
            }
            Action::ExecuteAstray(at) => {
                let request = world.astray.remove(at);
                world.execute(&self.terms, self.slots, &request);
            }
            Action::Receive(node) => {
                let (sent, Call::Executed(request, answer)) = world.nodes[node].call.take()? else {
                    return None;
                };
                let age = world.time - sent;
                world.receive(&self.terms, node, &request, answer, age);
            }
            Action::GiveUp(node) => {
                if let Some((_, Call::Sent(request))) = world.nodes[node].call.take() {
                    world.send_astray(request);
                }
            }
            Action::SaveDump => world.dump = Some(world.store.clone()),
        }
        world.issue();
        if world.faults == 0 {
            world.dump = None;
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no timestamp of a slot is issued twice", |_, world: &World| {
                world.broken != Some(Breach::IssuedTwice)
            }),
            Property::always("a mark runs no further ahead than its holder believes", |_, world: &World| {
                world.broken != Some(Breach::RanAhead)
            }),
            Property::always("a mark covers what was issued", |_, world: &World| {
                world.losses > 0
                    || (0..2).all(|slot: u32| {
                        let mark = world.store.slots.get(&slot).map_or(0, |slot| slot.mark);
                        world.issued[slot as usize] >> 1 >> mark == 0
                    })
            }),
            Property::always("a memory ends only by a loss", |_, world: &World| {
                world.memories <= world.losses + 1
            }),
            Property::sometimes("both nodes hold a slot", |_, world: &World| {
                world.nodes.iter().all(|node| node.holder.held().is_some())
            }),
        ]
    }
}

/// Searches the whole world, and says how large it was.
fn search<W: std::fmt::Debug>(what: W, model: &Windows) -> impl Checker<Windows> + use<W> {
    let checker = model.clone().checker().threads(2).spawn_bfs().join();
    println!("{what:?}: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    checker
}

const WORLD: Windows = Windows { terms: TERMS, slots: 2, end: BEGIN + 4, faults: 2, names: 1, kinds: &[] };

#[test]
fn two_slots_stand_two_faults_of_calls_and_memory() {
    use Fault::{Crash, Flush, LateRelease, Restart, Rollback, Slow};
    let kinds = &[Slow, LateRelease, Crash, Flush, Restart, Rollback];
    search("calls and memory", &Windows { kinds, names: 0, end: BEGIN + 3, ..WORLD }).assert_properties();
}

#[test]
fn two_slots_stand_two_faults_of_calls_and_clocks() {
    use Fault::{Ahead, Back, Crash, Doubled, LateRelease, Slow};
    let kinds = &[Slow, Doubled, LateRelease, Crash, Ahead, Back];
    search("calls and clocks", &Windows { kinds, names: 0, end: BEGIN + 3, ..WORLD }).assert_properties();
}

#[test]
fn one_slot_stands_two_faults_of_any_kind() {
    let model = Windows { slots: 1, kinds: ALL, names: 0, end: BEGIN + 3, ..WORLD };
    search("one slot", &model).assert_no_discovery(UNIQUE);
}

/// Minutes: `cargo test --release --test models -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn one_slot_stands_three_faults_of_any_kind() {
    let model = Windows { slots: 1, kinds: ALL, faults: 3, names: 0, end: BEGIN + 3, ..WORLD };
    search("one slot, three faults", &model).assert_no_discovery(UNIQUE);
}

/// What becomes of the model without a guard.
fn without(guard: Guard, property: &'static str, model: Windows) {
    let whole = search(("with", guard), &model);
    whole.assert_no_discovery(property);
    let mutant = Windows { terms: Terms { without: Some(guard), ..TERMS }, ..model };
    let found = HasDiscoveries::AnyOf([property].into());
    let checker = mutant.checker().threads(2).finish_when(found).spawn_bfs().join();
    let path = checker.discovery(property);
    println!("without {guard:?}: {property:?} fails after {} states", checker.unique_state_count());
    assert!(path.is_some(), "{guard:?} carries nothing that this model sees");
}

const UNIQUE: &str = "no timestamp of a slot is issued twice";

#[test]
fn every_guard_is_needed() {
    for guard in Guard::ALL {
        let one_slot = Windows { slots: 1, faults: 1, ..WORLD };
        match guard {
            Guard::Nonce => without(guard, UNIQUE, Windows { faults: 0, ..WORLD }),
            Guard::StartAtMark => without(guard, UNIQUE, Windows { faults: 0, ..one_slot }),
            Guard::Fence => without(guard, UNIQUE, Windows { kinds: &[Fault::Doubled], ..one_slot }),
            Guard::Margin => without(guard, UNIQUE, Windows { kinds: &[Fault::Rollback], ..one_slot }),
            Guard::Settling => without(guard, UNIQUE, Windows { kinds: &[Fault::Flush], ..one_slot }),
            Guard::AdoptGeneration => {
                let property = "a memory ends only by a loss";
                without(guard, property, Windows { kinds: &[Fault::Flush], ..one_slot });
            }
            Guard::ReleaseMatches => {
                without(guard, UNIQUE, Windows { kinds: &[Fault::LateRelease], ..one_slot });
            }
            Guard::RenewBound => {
                let property = "a mark runs no further ahead than its holder believes";
                without(guard, property, Windows { kinds: &[Fault::Ahead], ..one_slot });
            }
            Guard::FreshReplies => {
                without(
                    guard,
                    UNIQUE,
                    Windows {
                        kinds: &[Fault::Slow, Fault::Flush],
                        faults: 2,
                        names: 0,
                        end: BEGIN + 3,
                        ..one_slot
                    },
                );
            }
        }
    }
}
