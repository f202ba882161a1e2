//! What goes wrong, and a while in which nothing does.

use numgen::store::protocol::counter::SETTLING_MS;

use super::{Counter, Fault, NODES, Store, World};

impl World {
    pub(super) fn pass_time(&mut self, ms: u64) {
        for store in self.stores.iter_mut().chain(&mut self.saved) {
            if let Some(marker) = &mut store.marker {
                marker.since -= ms;
            }
            for member in store.counter.iter_mut().flat_map(|counter| counter.members.values_mut()) {
                member.beat -= ms;
            }
        }
    }

    /// The store is another server from now on.
    fn replace(&mut self, store: Store) {
        self.servers += 1;
        self.stores[0] = Store { replid: self.servers, ..store };
    }

    fn split(&mut self, store: Store) {
        self.servers += 1;
        self.stores.push(Store { replid: self.servers, ..store });
    }

    /// One of the stores is given up.
    pub(super) fn reunite(&mut self, kept: usize) {
        if self.stores.len() > 1 {
            self.stores.remove(1 - kept);
            self.links = [0; NODES];
            // What was on its way to the other one has nowhere to go.
            self.flights.retain(|flight| flight.store == kept || flight.reply.is_some());
            self.flights.iter_mut().for_each(|flight| flight.store = 0);
        }
    }

    pub(super) fn fail(&mut self, model: &Counter, fault: Fault, node: usize) -> Option<()> {
        self.faults -= 1;
        let whole = self.stores[0].clone();
        let nothing = Store { counter: None, marker: None, replid: whole.replid };
        match fault {
            Fault::Slow | Fault::SlowBeat | Fault::Doubled => {}
            Fault::Insist => drop(self.converse(model, node, 0, false, true)?),
            Fault::Crash => self.processes[node].restart(node),
            Fault::Leave | Fault::LeaveUnheard => {
                let process = &mut self.processes[node];
                process.hand_back();
                process.write();
                let state = process.node.give_up();
                process.disk = state.clone();
                process.node.adopt(state);
                if fault == Fault::Leave {
                    self.exchange(model, node, 0, true)?;
                }
                self.processes[node].restart(node);
            }
            Fault::Unanswered => {
                let range = self.draw_locally(node)?;
                self.processes[node].unanswered.insert(range);
            }
            Fault::Flush => self.stores[0] = nothing,
            Fault::Restart => self.replace(whole),
            Fault::Empty => self.replace(nothing),
            Fault::Rollback => {
                let saved = self.saved.clone()?;
                self.replace(saved);
            }
            Fault::Split => self.split(whole),
            Fault::SplitLagging => {
                let saved = self.saved.clone()?;
                self.split(saved);
            }
        }
        self.has_lost |= !matches!(
            fault,
            Fault::Slow
                | Fault::SlowBeat
                | Fault::Doubled
                | Fault::Crash
                | Fault::Insist
                | Fault::Leave
                | Fault::LeaveUnheard
                | Fault::Unanswered
        );
        Some(())
    }

    /// All is well for a while. `None`: a world that is left out.
    pub(super) fn heal(&mut self, model: &Counter) -> Option<()> {
        self.reunite(1);
        self.flights.clear();
        self.processes.iter_mut().for_each(super::Process::hand_back);
        for _ in 0..4 {
            for turn in 0..2 * NODES {
                self.converse(model, turn % NODES, 0, false, true)?;
            }
            self.pass_time(SETTLING_MS);
            self.normalise(model.question);
        }
        // What was handed back of a segment is listed once it has been passed.
        if model.kinds.contains(&Fault::Unanswered) {
            (0..3 * NODES).try_for_each(|turn| self.exchange(model, turn % NODES, 1, false).map(drop))?;
        }
        (0..NODES).try_for_each(|node| self.exchange(model, node, 0, false).map(drop))
    }
}
