//! What can happen next, and what has to hold.

use numgen::{
    counter::ValueRange,
    store::protocol::counter::{Incarnation, SETTLING_MS},
};
use stateright::{Model, Property};

use super::{Action, Fault, Flight, Grants, NODES, Process, Redis, World};

impl World {
    fn has_settled(&self, server: usize) -> bool {
        let Redis { marker, replid, .. } = &self.servers[server];
        marker.is_some_and(|marker| marker.replid == *replid && marker.settled)
    }

    /// Whether a sign of life of the node can change anything.
    fn has_something_to_say(&self, model: &Grants, node: usize) -> bool {
        let Process { node, joined, server, .. } = &self.processes[node];
        let Redis { marker, replid, .. } = &self.servers[*server];
        let present = marker.filter(|marker| marker.replid == *replid).map(|marker| marker.generation);
        let wants = model.segment > 0 && node.state().segment.is_none();
        node.has_pending_call() || *joined != present || present.is_none() || wants
    }

    fn fail(&mut self, fault: Fault, at: usize) -> Option<()> {
        self.faults -= 1;
        match fault {
            Fault::Crash => {
                self.starts += 1;
                let Process { node, server, .. } = &self.processes[at];
                let (left, ancestors) = (node.refreshed(), vec![node.incarnation()]);
                self.processes[at] = Process::starting(Incarnation(self.starts), *server, left, ancestors);
            }
            Fault::Flush => (self.servers[at].slot, self.servers[at].marker) = (None, None),
            Fault::Empty => {
                self.servers[at] =
                    Redis { slot: None, marker: None, replid: self.next_server(), ..self.servers[at] };
            }
            Fault::Rollback => {
                let replid = self.next_server();
                self.servers[at] = Redis { replid, ..self.saved.clone()? };
            }
            Fault::Split => {
                let replid = self.next_server();
                self.servers.push(Redis { replid, ..self.servers[at].clone() });
            }
            Fault::SplitLagging => {
                let replid = self.next_server();
                self.servers.push(Redis { replid, ..self.saved.clone()? });
            }
            Fault::SlowTake | Fault::LostReply | Fault::SlowGrant | Fault::DoubledNeed | Fault::LostDraw => {}
        }
        Some(())
    }

    fn next_server(&mut self) -> u64 {
        self.replids += 1;
        self.replids
    }

    pub(super) fn fetch(&mut self, model: &Grants, node: usize, fault: Option<Fault>) -> Option<()> {
        let (to, need) = self.need(model, node)?;
        let granted = self.grant(model, to, &need);
        let Process { node: asking, book, .. } = &mut self.processes[node];
        let incarnation = asking.incarnation();
        match fault {
            Some(Fault::SlowGrant) => {
                self.flights.push(Flight::Grants { incarnation, generation: need.generation, granted });
                return Some(());
            }
            Some(Fault::DoubledNeed) => self.flights.push(Flight::Need { to, need }),
            _ => {}
        }
        book.enter(need.generation, &granted);
        Some(())
    }

    fn arrive(&mut self, model: &Grants, flight: Flight) {
        match flight {
            Flight::Take { server, take, is_granted } => {
                let reply = self.serve(model, server, &take);
                for node in 0..NODES {
                    self.hear(node, &take, reply.clone(), is_granted);
                }
            }
            Flight::Grants { incarnation, generation, granted } => {
                let mut all = self.processes.iter_mut();
                if let Some(process) = all.find(|process| process.node.incarnation() == incarnation) {
                    process.book.enter(generation, &granted);
                }
            }
            Flight::Need { to, need } => drop(self.grant(model, to, &need)),
        }
    }
}

impl Grants {
    fn faults_of(&self, world: &World, actions: &mut Vec<Action>) {
        for &fault in self.kinds {
            match fault {
                Fault::SlowTake | Fault::LostReply => {
                    for node in 0..NODES {
                        let is_new = !world.processes[node].node.has_pending_call();
                        let draws = is_new && world.values > 0 && world.terms(self, node).is_some();
                        actions.push(Action::Reply(fault, node, u64::from(draws)));
                    }
                }
                Fault::SlowGrant | Fault::DoubledNeed => {
                    actions.extend((0..NODES).map(|node| Action::Reply(fault, node, 0)));
                }
                Fault::LostDraw if world.values > 0 => {
                    actions.extend((0..NODES).map(|node| Action::Reply(fault, node, 1)));
                }
                Fault::LostDraw => {}
                Fault::Crash => actions.extend((0..NODES).map(|node| Action::Fail(fault, node))),
                Fault::Flush | Fault::Empty | Fault::Split => {
                    let granted = |at: &usize| world.has_grants(*at);
                    actions
                        .extend((0..world.servers.len()).filter(granted).map(|at| Action::Fail(fault, at)));
                }
                Fault::Rollback | Fault::SplitLagging => {
                    let saved = |at: &usize| {
                        world.saved.as_ref().is_some_and(|saved| saved.site == world.servers[*at].site)
                    };
                    actions.extend(
                        (0..world.servers.len())
                            .filter(saved)
                            .filter(|at| world.has_grants(*at))
                            .map(|at| Action::Fail(fault, at)),
                    );
                }
            }
        }
    }
}

impl World {
    /// What a Redis forgets before its first grant, nobody knows.
    fn has_grants(&self, server: usize) -> bool {
        self.rows.iter().any(|row| row.to.datacenter == self.servers[server].site)
    }
}

impl Model for Grants {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.issued_twice {
            return;
        }
        for node in 0..NODES {
            let process = &world.processes[node];
            if world.has_something_to_say(self, node) {
                actions.push(Action::Speak(node, 0));
            }
            if world.values > 0 && !process.node.has_pending_call() && world.terms(self, node).is_some() {
                actions.push(Action::Speak(node, 1));
            }
            if process.node.generation().is_some() && process.joined == process.node.generation() {
                let generation = process.joined;
                let cursor = process.node.seen().unwrap_or_default();
                if process.book.is_low(generation, cursor, RULE) {
                    actions.push(Action::Fetch(node));
                }
            }
            if process.unanswered.is_some() || world.values > 0 && self.draws_for_once() {
                actions.push(Action::Draw(node));
            }
            if world.values > 0 && process.node.state().remaining() > 0 {
                actions.push(Action::Local(node));
            }
            let others = (0..world.servers.len()).filter(|server| {
                *server != process.server && world.servers[*server].site == self.sites[node]
            });
            actions.extend(others.map(|server| Action::GoOver(node, server)));
        }
        for server in 0..world.servers.len() {
            if !world.has_settled(server) && world.servers[server].marker.is_some() {
                actions.push(Action::Settle(server));
            }
            let saves = self.kinds.iter().any(|one| matches!(one, Fault::Rollback | Fault::SplitLagging));
            if saves && world.saved.is_none() && world.faults > 0 && world.servers[server].slot.is_some() {
                actions.push(Action::Save(server));
            }
        }
        actions.extend((0..world.flights.len()).map(Action::Arrive));
        if world.faults > 0 {
            self.faults_of(world, actions);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Speak(node, count) => {
                world.values -= u8::try_from(count).expect("few");
                let (take, is_granted) = world.ask(self, node, count);
                let reply = world.serve(self, world.processes[node].server, &take);
                world.hear(node, &take, reply, is_granted);
            }
            Action::Fetch(node) => world.fetch(self, node, None)?,
            Action::Draw(node) => {
                let is_repeated = world.processes[node].unanswered.is_some();
                world.values -= u8::from(!is_repeated);
                let (draw, range) = world.draw(self, node)?;
                world.processes[node].unanswered = None;
                world.issue(range, Some(draw.request));
            }
            Action::Local(node) => {
                world.values -= 1;
                let range = world.processes[node].node.issue_locally(1, RULE.max)?;
                world.issue(range, None);
            }
            Action::Settle(server) => {
                world.servers[server].marker.as_mut()?.since = super::NOW - SETTLING_MS;
            }
            Action::GoOver(node, server) => world.processes[node].server = server,
            Action::Save(server) => world.saved = Some(world.servers[server].clone()),
            Action::Arrive(index) => {
                let flight = world.flights.remove(index);
                world.arrive(self, flight);
            }
            Action::Fail(fault, at) => world.fail(fault, at)?,
            Action::Reply(fault, node, count) => {
                world.faults -= 1;
                world.values -= u8::try_from(count).expect("few");
                match fault {
                    Fault::LostDraw => {
                        let (draw, _) = world.draw(self, node)?;
                        world.processes[node].unanswered = Some(draw);
                    }
                    Fault::SlowGrant | Fault::DoubledNeed => world.fetch(self, node, Some(fault))?,
                    Fault::SlowTake | Fault::LostReply => {
                        let server = world.processes[node].server;
                        let (take, is_granted) = world.ask(self, node, count);
                        if fault == Fault::SlowTake {
                            world.flights.push(Flight::Take { server, take: Box::new(take), is_granted });
                        } else {
                            world.serve(self, server, &take);
                        }
                    }
                    Fault::Crash
                    | Fault::Flush
                    | Fault::Empty
                    | Fault::Rollback
                    | Fault::Split
                    | Fault::SplitLagging => return None,
                }
            }
        }
        if world.faults == 0 {
            world.saved = None;
        }
        // Two nodes that take turns so slowly that each loss of nothing is met by another one only, forever.
        let most = 3 + u64::from(self.faults);
        let calls = |process: &Process| process.clone().ask(super::RULE, 0, 0).call;
        let is_short = world.processes.iter().all(|process| calls(process) <= super::CALLS);
        (world != *last && world.generations <= most && is_short).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(TWICE, |_, world: &World| !world.issued_twice),
            Property::always(ANSWERED, |_, world: &World| {
                let awaits = |request: &u128| {
                    let mut all = world.processes.iter().filter_map(|process| process.unanswered);
                    all.any(|draw| draw.request == *request)
                };
                let is_known = |(request, range): &(u128, ValueRange)| {
                    awaits(request) || world.issued.contains_key(&range.from.0)
                };
                // A process that died has forgotten its draws.
                world.starts > NODES as u128 || world.line.drawn.iter().all(is_known)
            }),
            Property::always(NEEDLESS, |model: &Self, world: &World| {
                let goes_well = model.faults == 0 && world.servers.len() == 1 && world.requests == 0;
                let mut counters = world.servers.iter().filter_map(|redis| redis.slot.as_ref());
                !goes_well || counters.all(|counter| counter.holes.is_empty())
            }),
            Property::sometimes(BOTH, |_, world: &World| {
                world
                    .processes
                    .iter()
                    .all(|one| one.node.seen().is_some_and(|seen| seen.0 > 0) && one.joined.is_some())
                    && world.values == 0
            }),
        ]
    }
}

impl Grants {
    fn draws_for_once(&self) -> bool {
        self.kinds.contains(&Fault::LostDraw)
    }
}

const RULE: numgen::store::protocol::counter::Limits = super::RULE;

pub(super) const TWICE: &str = "no value is issued twice";
pub(super) const ANSWERED: &str = "what is drawn for once is issued, or asked for again";
pub(super) const NEEDLESS: &str = "there is no hole where all is well";
pub(super) const BOTH: &str = "both nodes were served";
