//! Marks that a second store confirms (profile *full*): two processes, one slot, and a first store that may say anything at all: it was
//! wiped, it is another one, its clock is wrong. So its own rules are not in here, and every bound of a window is tried.
//!
//! Claims and the giving up of holdings are answered, or their answers are lost, or they arrive again at any time later. What is bounded in
//! a run is time, and how many holdings a process has. The search is exhaustive.

use numgen::store::{
    Nonce,
    protocol::window::{Claim, Claimed, Guard, Mark, Terms},
};
use stateright::{Checker, HasDiscoveries, Model, Property};

const NODES: usize = 2;
const WINDOW: u64 = 1;
const TERMS: Terms = Terms { carry_limit_ms: 0, ..Terms::SHARED };

#[derive(Clone)]
struct Marks {
    terms: Terms,
    /// When a run ends: also the highest bound of a window that the first store names.
    end: u64,
    /// Holdings of a process.
    holdings: u8,
    /// How many messages arrive again.
    doubles: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u64,
    slot: Option<Mark>,
    holders: [Holder; NODES],
    astray: Vec<Message>,
    doubles: u8,
    /// Timestamps that were issued, as bits.
    issued: u64,
    issued_twice: bool,
    ran_ahead: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Holder {
    /// Counts its holdings.
    holding: u8,
    window: Option<(u64, u64)>,
    last: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Message {
    Claim(Claim),
    GiveUp(Nonce, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Heard {
    Yes,
    No,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    /// Whatever the first store has said, and whether the answer is heard.
    Claim(usize, u64, u64, Heard),
    Issue(usize, u64),
    GiveUp(usize),
    /// A process dies, and another one begins.
    Crash(usize),
    /// The last claim of the process, or that it gives up, will arrive again.
    Double(Message),
    Arrive(usize),
}

fn nonce(node: usize, holding: u8) -> Nonce {
    let mut name = [0; 16];
    (name[0], name[1]) = (node as u8 + 1, holding);
    Nonce(name)
}

impl World {
    fn claim(&mut self, terms: &Terms, claim: &Claim) -> Claimed {
        let before = self.slot.map_or(claim.start, |slot| slot.mark);
        let claimed = Mark::claim(&mut self.slot, terms, claim, self.now);
        let furthest = self.now + WINDOW + TERMS.carry_limit_ms;
        self.ran_ahead |= self.slot.is_some_and(|slot| slot.mark > before.max(furthest));
        claimed
    }

    fn begin_anew(&mut self, node: usize) {
        let holding = self.holders[node].holding + 1;
        self.holders[node] = Holder { holding, window: None, last: 0 };
    }

    fn hear(&mut self, terms: &Terms, node: usize, claimed: Claimed) {
        let me = &mut self.holders[node];
        let Claimed::Confirmed { start, mark } = claimed else { return };
        match &mut me.window {
            None => (me.window, me.last) = (Some((start, mark)), start),
            Some((began, reach)) if *began == start => *reach = mark.max(*reach),
            // Somebody had the slot in between.
            Some(_) => {
                if let Some(slot) = &mut self.slot {
                    slot.give_up(terms, nonce(node, me.holding), start);
                }
                self.begin_anew(node);
            }
        }
    }
}

impl Model for Marks {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let holder = Holder { holding: 0, window: None, last: 0 };
        vec![World {
            now: 1,
            slot: None,
            holders: [holder; NODES],
            astray: Vec::new(),
            doubles: self.doubles,
            issued: 0,
            issued_twice: false,
            ran_ahead: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.now < self.end {
            actions.push(Action::Tick);
        }
        // The processes are alike: which of them begins makes no difference.
        let nodes = if world.slot.is_none() && world.doubles == self.doubles { 1 } else { NODES };
        for node in 0..nodes {
            let me = &world.holders[node];
            let name = nonce(node, me.holding);
            for start in 0..=self.end {
                for mark in start..=self.end {
                    let heard = [Heard::Yes, Heard::No].map(|heard| Action::Claim(node, start, mark, heard));
                    actions.extend(heard);
                }
            }
            if world.doubles > 0 {
                let claim = Claim { slot: 0, nonce: name, start: 0, mark: self.end, window_ms: WINDOW };
                actions.push(Action::Double(Message::Claim(claim)));
            }
            if let Some((_, mark)) = me.window {
                actions.extend((me.last + 1..=mark).map(|to| Action::Issue(node, to)));
                if me.holding < self.holdings {
                    actions.push(Action::GiveUp(node));
                }
                if world.doubles > 0 && me.holding < self.holdings {
                    actions.push(Action::Double(Message::GiveUp(name, me.last)));
                }
            }
            if me.holding < self.holdings {
                actions.push(Action::Crash(node));
            }
        }
        actions.extend((0..world.astray.len()).map(Action::Arrive));
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let (mut world, terms) = (last.clone(), &self.terms);
        match action {
            Action::Tick => world.now += 1,
            Action::Claim(node, start, mark, heard) => {
                let name = nonce(node, world.holders[node].holding);
                let claim = Claim { slot: 0, nonce: name, start, mark, window_ms: WINDOW };
                let claimed = world.claim(terms, &claim);
                if heard == Heard::Yes {
                    world.hear(terms, node, claimed);
                }
            }
            Action::Issue(node, to) => {
                let from = std::mem::replace(&mut world.holders[node].last, to) + 1;
                for timestamp in from..=to {
                    world.issued_twice |= world.issued >> timestamp & 1 == 1;
                    world.issued |= 1 << timestamp;
                }
            }
            Action::GiveUp(node) => {
                let Holder { holding, last, .. } = world.holders[node];
                if let Some(slot) = &mut world.slot {
                    slot.give_up(terms, nonce(node, holding), last);
                }
                world.begin_anew(node);
            }
            Action::Crash(node) => world.begin_anew(node),
            Action::Double(message) => {
                world.doubles -= 1;
                if let Message::GiveUp(name, last) = message {
                    // Who gives up has stopped: this is its first arrival, or the one that was lost.
                    let node = (0..NODES).find(|&node| nonce(node, world.holders[node].holding) == name)?;
                    if let Some(slot) = &mut world.slot {
                        slot.give_up(terms, name, last);
                    }
                    world.begin_anew(node);
                }
                world.astray.push(message);
            }
            Action::Arrive(index) => match world.astray.remove(index) {
                Message::Claim(claim) => drop(world.claim(terms, &claim)),
                Message::GiveUp(name, last) => {
                    if let Some(slot) = &mut world.slot {
                        slot.give_up(terms, name, last);
                    }
                }
            },
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(UNIQUE, |_, world: &World| !world.issued_twice),
            Property::always(
                "a mark runs no further ahead than the second clock allows",
                |_, world: &World| !world.ran_ahead,
            ),
            Property::always("a mark covers what is issued", |_, world: &World| {
                let mark = world.slot.map_or(0, |slot| slot.mark);
                world.issued >> 1 >> mark == 0
            }),
            Property::sometimes("both have issued", |_, world: &World| {
                world.holders.iter().all(|holder| holder.window.is_some_and(|(start, _)| holder.last > start))
            }),
        ]
    }
}

const UNIQUE: &str = "no timestamp is issued twice";
const WORLD: Marks = Marks { terms: TERMS, end: 3, holdings: 1, doubles: 0 };

#[test]
fn whatever_the_first_store_says() {
    let checker = WORLD.checker().threads(2).spawn_bfs().join();
    println!("marks: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

/// Minutes: `cargo test --release --test models marks -- --ignored --nocapture`. Last seen to end at 375,472 states.
#[test]
#[ignore = "takes minutes"]
fn whatever_the_first_store_says_and_a_message_arrives_again() {
    Marks { doubles: 1, ..WORLD }.checker().threads(2).spawn_bfs().join().assert_properties();
}

#[test]
fn every_guard_is_needed() {
    for guard in [Guard::Nonce, Guard::StartAtMark, Guard::ReleaseMatches] {
        let mutant = Marks { terms: Terms { without: Some(guard), ..TERMS }, ..WORLD };
        let found = HasDiscoveries::AnyOf([UNIQUE].into());
        let checker = mutant.checker().threads(2).finish_when(found).spawn_bfs().join();
        let path = checker.assert_any_discovery(UNIQUE).into_actions();
        println!("without {guard:?}: {} states, {path:?}", checker.unique_state_count());
    }
}
