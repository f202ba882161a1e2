//! What can happen next, and what has to hold.

use numgen::store::protocol::window::{Company, Slots};
use stateright::{Model, Property};

use super::{
    Action, BEGIN, Breach, Call, DESERTED, Fault, JUMP, NODES, Node, Place, Request, SETTLED, Windows, World,
};

impl Windows {
    fn faults_of(&self, world: &World, actions: &mut Vec<Action>) {
        let has_lost = world.losses > 0;
        for &fault in self.kinds {
            match fault {
                Fault::Slow => actions.extend(
                    (0..NODES)
                        .filter(|&node| world.nodes[node].call.is_none())
                        .flat_map(|node| world.places().map(move |place| Action::Fault(fault, node, place))),
                ),
                Fault::Crash | Fault::LateRelease => actions.extend(
                    (0..NODES)
                        .filter(|&node| world.nodes[node].holder.held().is_some())
                        .map(|node| Action::Fault(fault, node, Place::Here)),
                ),
                Fault::Doubled => {
                    actions.extend((0..NODES).map(|node| Action::Fault(fault, node, Place::Here)));
                }
                Fault::Flush if !world.set_back && world.store.marker.is_some() => {
                    actions.push(Action::Fault(fault, 0, Place::Here));
                }
                Fault::Rollback if !world.set_back && world.dump.is_some() => {
                    actions.push(Action::Fault(fault, 0, Place::Here));
                }
                Fault::Restart => actions.push(Action::Fault(fault, 0, Place::Here)),
                Fault::Ahead if world.offset == 0 && !world.is_settling() => {
                    actions.push(Action::Fault(fault, 0, Place::Here));
                }
                Fault::Back if !has_lost => actions.push(Action::Fault(fault, 0, Place::Here)),
                Fault::Split | Fault::SplitOpenly if !world.set_back && world.can_come_apart() => {
                    actions.push(Action::Fault(fault, 0, Place::Here));
                }
                Fault::SplitLagging if !world.set_back && world.can_come_apart() && world.dump.is_some() => {
                    actions.push(Action::Fault(fault, 0, Place::Here));
                }
                Fault::Flush
                | Fault::Rollback
                | Fault::Ahead
                | Fault::Back
                | Fault::Split
                | Fault::SplitOpenly
                | Fault::SplitLagging => {}
            }
        }
    }

    fn fail(&self, world: &mut World, fault: Fault, node: usize, place: Place) {
        world.faults -= 1;
        match fault {
            Fault::Slow => {
                let request = world.question(node);
                world.nodes[node].call = Some((world.time, place, Call::Sent(request)));
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
                world.restarts();
                world.losses += 1;
            }
            Fault::Rollback => {
                world.store = world.dump.take().unwrap_or_default();
                world.restarts();
                world.losses += 1;
            }
            Fault::Split => world.split(world.store.clone(), Company::Followed),
            Fault::SplitOpenly => world.split(world.store.clone(), Company::Alone),
            Fault::SplitLagging => {
                let promoted = world.dump.take().unwrap_or_default();
                world.split(promoted, Company::Followed);
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
            servers: 1,
            memories: 1,
            losses: 0,
            dump: None,
            behind: None,
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
        let is_short = world.behind.as_ref().is_none_or(|master| world.time + 1 - master.since < DESERTED);
        if world.time < self.end && is_short && !world.leaves_somebody_behind(world.now() + 1) {
            actions.push(Action::Tick);
        }
        for node in 0..NODES {
            let me = &world.nodes[node];
            match &me.call {
                // The nodes are alike: which of them begins makes no difference.
                None if node == 0 || !world.store.slots.is_empty() || world.losses > 0 => {
                    actions.extend(world.places().map(|place| Action::Ask(node, place)));
                }
                None => {}
                Some((_, _, Call::Sent(_))) => actions.extend([Action::Execute(node), Action::GiveUp(node)]),
                Some((_, _, Call::Executed(..))) => {
                    actions.extend([Action::Receive(node), Action::GiveUp(node)]);
                }
            }
            if me.holder.held().is_some() && me.names < self.names {
                actions.extend(world.places().map(|place| Action::Stop(node, place)));
            }
        }
        for at in 0..world.astray.len() {
            actions.extend(world.places().map(|place| Action::ExecuteAstray(at, place)));
        }
        if world.behind.is_some() {
            actions.extend([Action::Reunite, Action::FallBack]);
        }
        if world.dump.is_none()
            && world.faults > 0
            && self.kinds.iter().any(|fault| matches!(fault, Fault::Rollback | Fault::SplitLagging))
        {
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
            Action::Ask(node, place) => {
                let request = world.question(node);
                let answer = world.execute(self, &request, place)?;
                world.receive(&self.terms, node, &request, answer, 0);
            }
            Action::Stop(node, place) => {
                let (held, last) = (world.nodes[node].holder.held()?, world.nodes[node].last);
                world.restart(node);
                world.execute(self, &Request::Release(held, last), place)?;
            }
            Action::Fault(fault, node, place) => self.fail(&mut world, fault, node, place),
            Action::Execute(node) => {
                let (sent, place, Call::Sent(request)) = world.nodes[node].call.take()? else { return None };
                let answer = world.execute(self, &request, place)?;
                world.nodes[node].call = Some((sent, place, Call::Executed(request, answer)));
            }
            Action::ExecuteAstray(at, place) => {
                let request = world.astray.remove(at);
                world.execute(self, &request, place)?;
            }
            Action::Receive(node) => {
                let (sent, _, Call::Executed(request, answer)) = world.nodes[node].call.take()? else {
                    return None;
                };
                let age = world.time - sent;
                world.receive(&self.terms, node, &request, answer, age);
            }
            Action::GiveUp(node) => {
                if let Some((_, Place::Here, Call::Sent(request))) = world.nodes[node].call.take() {
                    world.send_astray(request);
                }
            }
            Action::Reunite => world.reunite(),
            Action::FallBack => world.fall_back(),
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
