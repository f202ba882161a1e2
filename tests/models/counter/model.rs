//! What can happen next, and what has to hold.

use numgen::{
    counter::{SequenceValue, ValueRange},
    store::{
        HoleReason,
        protocol::counter::{Hole, Instance, Member, RangeSet, SETTLING_MS},
    },
};
use stateright::{Model, Property};

use super::{
    Action, Counter, Fault, Flight, Guard, LAPSED_MS, NODES, NOW, Process, Question, Store, Time, World,
};

impl Counter {
    fn faults_of(&self, world: &World, actions: &mut Vec<Action>) {
        for &fault in self.kinds {
            let is_whole = world.stores.len() == 1;
            match fault {
                Fault::Slow | Fault::SlowBeat | Fault::Doubled => {
                    for node in 0..NODES {
                        let is_new = !world.processes[node].node.has_pending_call();
                        let is_beat = fault == Fault::SlowBeat || !is_new;
                        let count = if is_beat { 0 } else { u64::from(world.values.min(1)) };
                        actions.push(Action::AskBadly(fault, node, count));
                    }
                }
                Fault::Crash | Fault::Leave | Fault::LeaveUnheard => {
                    let has_begun = |node: &usize| world.processes[*node].involved.is_some();
                    actions.extend((0..NODES).filter(has_begun).map(|node| Action::Fail(fault, node)));
                }
                Fault::Unanswered => {
                    let holds = |node: &usize| world.processes[*node].node.state().remaining() > 0;
                    actions.extend((0..NODES).filter(holds).map(|node| Action::Fail(fault, node)));
                }
                Fault::Insist => {
                    let is_out = |node: &usize| world.processes[*node].node.refused().is_some();
                    actions.extend((0..NODES).filter(is_out).map(|node| Action::Fail(fault, node)));
                }
                Fault::Rollback | Fault::SplitLagging if world.saved.is_none() => {}
                Fault::Flush
                | Fault::Restart
                | Fault::Empty
                | Fault::Rollback
                | Fault::Split
                | Fault::SplitLagging => {
                    if is_whole && world.stores[0].counter.is_some() {
                        actions.push(Action::Fail(fault, 0));
                    }
                }
            }
        }
    }

    fn can_save(&self, world: &World) -> bool {
        world.faults > 0
            && world.saved.is_none()
            && world.stores.len() == 1
            && world.stores[0].counter.is_some()
            && self.kinds.iter().any(|fault| matches!(fault, Fault::Rollback | Fault::SplitLagging))
    }
}

impl Model for Counter {
    type State = World;
    type Action = Action;

    /// Both nodes hold a segment; or, where all is well, nobody has come yet.
    fn init_states(&self) -> Vec<World> {
        let empty = World::new(self.values, self.faults);
        let mut begun = empty.clone();
        let whole = Self { without: None, ..self.clone() };
        for _ in 0..4 {
            (0..NODES).for_each(|node| drop(begun.exchange(&whole, node, 0, false)));
        }
        begun.normalise(self.question);
        // Settling is for those whom nobody knows yet.
        if self.faults == 0 || self.without == Some(Guard::Settling) {
            return vec![empty, begun];
        }
        // What changes nothing, such as to ask where a node is turned away, is left out.
        let play = |world: World, action: &Action| self.next_state(&world, action.clone()).unwrap_or(world);
        vec![self.opening.iter().fold(begun, play)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.issued_twice {
            return;
        }
        for node in 0..NODES {
            let process = &world.processes[node];
            let most = if process.node.has_pending_call() { 0 } else { u64::from(world.values.min(2)) };
            actions.extend((0..=most).map(|count| Action::Ask(node, count)));
            if world.values > 0 && process.node.state().remaining() > 0 {
                actions.push(Action::Local(node));
            }
            if process.offer.is_some() && self.kinds.contains(&Fault::Crash) {
                actions.push(Action::Write(node));
            }
            if !process.unanswered.is_empty() {
                actions.push(Action::HandBack(node));
            }
            if world.stores.len() > 1 {
                actions.push(Action::GoOver(node));
            }
        }
        let differs = |at: &usize| {
            let store = &world.stores[*at];
            store.marker.is_none_or(|marker| marker.replid != store.replid)
        };
        actions.extend((0..world.stores.len()).filter(differs).map(Action::Look));
        if world.stores.len() > 1 {
            actions.extend([Action::Reunite, Action::FallBack]);
        }
        for (index, flight) in world.flights.iter().enumerate() {
            actions.push(if flight.reply.is_some() {
                Action::Deliver(index)
            } else {
                Action::Execute(index)
            });
        }
        if self.time != Time::Stands {
            actions.push(Action::WaitSettled);
        }
        if self.time == Time::Lapses {
            actions.push(Action::WaitLapsed);
        }
        if self.can_save(world) {
            actions.push(Action::Save);
        }
        if world.faults > 0 {
            self.faults_of(world, actions);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Ask(node, count) => {
                world.values -= u8::try_from(count).expect("few");
                world.exchange(self, node, count, false)?;
            }
            Action::Local(node) => {
                world.values -= 1;
                world.issue_locally(node)?;
            }
            Action::Write(node) => world.processes[node].write(),
            Action::HandBack(node) => world.processes[node].hand_back(),
            Action::Look(at) => {
                let fresh = world.fresh(self, at);
                let store = &mut world.stores[at];
                let replid = match store.marker {
                    Some(marker) if self.without == Some(Guard::Replid) => marker.replid,
                    _ => store.replid,
                };
                let found = Instance::look(&mut store.marker, replid, NOW, fresh);
                self.undo(
                    store,
                    &last.stores[at],
                    &Process::clone(&world.processes[0]).ask(0, 1, false, false),
                );
                world.generations += u64::from(found.generation == fresh);
            }
            Action::GoOver(node) => world.links[node] = 1 - world.links[node],
            Action::Reunite => world.reunite(1),
            Action::FallBack => world.reunite(0),
            Action::Save => world.saved = Some(world.stores[0].clone()),
            Action::Execute(index) => {
                let Flight { store, take, .. } = world.flights[index].clone();
                let reply = world.serve(self, store, &take)?;
                let is_heard = world.processes.iter().any(|one| one.node.incarnation() == take.incarnation);
                if is_heard {
                    world.flights[index].reply = Some(reply);
                } else {
                    world.flights.remove(index);
                }
            }
            Action::Deliver(index) => {
                let Flight { node, take, reply, .. } = world.flights.remove(index);
                world.hear(self, node, take, reply?);
            }
            Action::WaitSettled => world.pass_time(SETTLING_MS),
            Action::WaitLapsed => world.pass_time(LAPSED_MS),
            Action::AskBadly(fault, node, count) => {
                world.values -= u8::try_from(count).expect("few");
                let store = world.links[node];
                let take = if fault == Fault::Doubled {
                    world.exchange(self, node, count, false)?
                } else {
                    world.send(self, node, count, false, false)
                };
                world.flights.push(Flight { node, store, take, reply: None });
                world.fail(self, fault, node)?;
            }
            Action::Fail(fault, node) => world.fail(self, fault, node)?,
        }
        world.normalise(self.question);
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(TWICE, |_, world: &World| !world.issued_twice),
            Property::always(LISTED, |model: &Self, world: &World| {
                model.question == Question::Twice || model.is_explained(world)
            }),
            Property::always(NEEDLESS, |model: &Self, world: &World| {
                let goes_well = model.faults == 0 && model.time == Time::Stands;
                let mut counters = world.stores.iter().filter_map(|store| store.counter.as_ref());
                !goes_well || counters.all(|counter| counter.holes.is_empty())
            }),
            Property::sometimes(SWAPPED, |_, world: &World| {
                world.processes.iter().any(|one| one.disk.segment.is_some() && !one.disk.used.is_empty())
            }),
            Property::sometimes(GOT_PAST, |_, world: &World| world.got_past),
            Property::sometimes(RECOVERED, |_, world: &World| {
                let Store { counter, marker, .. } = &world.stores[0];
                let in_force = marker.map(|marker| marker.generation);
                let counter = counter.as_ref().filter(|counter| {
                    counter.generation == in_force && in_force > Some(super::generation(1))
                });
                counter.is_some_and(|counter| counter.cursor.0 > 0 && counter.members.len() == NODES)
            }),
        ]
    }
}

pub(super) const TWICE: &str = "no value is issued twice";
pub(super) const LISTED: &str = "after a quiet while every value was issued, is held, or is listed";
pub(super) const NEEDLESS: &str = "there is no hole where all is well";
pub(super) const SWAPPED: &str = "a node has issued from a segment and holds another";
pub(super) const GOT_PAST: &str = "values are drawn past a segment that was in the way";
pub(super) const RECOVERED: &str = "a store that had forgotten draws again, with both nodes";

impl Counter {
    fn is_explained(&self, world: &World) -> bool {
        // A run that asks for less is one of a smaller model.
        if world.issued_twice || world.values > 0 {
            return true;
        }
        let mut world = world.clone();
        if world.heal(self).is_none() {
            return true;
        }
        let Some(counter) = &world.stores[0].counter else { return world.issued.is_empty() };
        let in_force = world.stores[0].marker.map(|marker| marker.generation);
        if counter.generation != in_force || world.issued_twice {
            return false;
        }
        let issued = |value: u64| ValueRange { from: SequenceValue(value), to: SequenceValue(value) };
        let explained: RangeSet = world
            .issued
            .iter()
            .map(|value| issued(*value))
            .chain(counter.holes.iter().map(|hole| hole.range))
            .chain(counter.members.values().flat_map(Member::segments).map(|segment| segment.0))
            .collect();
        let Some(first) = counter.base.0.checked_add(1).filter(|first| *first <= counter.cursor.0) else {
            return true;
        };
        let passed = ValueRange { from: SequenceValue(first), to: counter.cursor };
        let is_true = |hole: &Hole| {
            // A store that has forgotten lists what it cannot know about.
            world.has_lost
                || hole.reason == HoleReason::Unconfirmed
                || world.issued.range(hole.range.from.0..=hole.range.to.0).next().is_none()
        };
        explained.missing(passed).is_empty() && counter.holes.iter().all(is_true)
    }
}
