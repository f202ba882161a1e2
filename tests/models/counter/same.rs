//! Which states are one: those that nothing can tell apart that is still to come.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
};

use numgen::store::protocol::counter::{Incarnation, Member, Rate, Reply, SETTLING_MS, Take};

use super::{Flight, LAPSED_MS, LATE_MS, NOW, PRESENT_MS, Process, World};

impl World {
    /// Leaves out what makes no difference: how long ago something was, beyond three ages, and how fast values were drawn.
    pub(super) fn normalise(&mut self) {
        for store in self.stores.iter_mut().chain(&mut self.saved) {
            if let Some(marker) = &mut store.marker {
                let is_old = marker.settled || NOW - marker.since >= SETTLING_MS;
                marker.since = if is_old { NOW - SETTLING_MS } else { NOW };
            }
            let Some(counter) = &mut store.counter else { continue };
            for member in counter.members.values_mut() {
                member.beat = NOW
                    - match NOW.abs_diff(member.beat) {
                        0..SETTLING_MS => PRESENT_MS,
                        SETTLING_MS..LAPSED_MS => LATE_MS,
                        _ => LAPSED_MS,
                    };
            }
            // It places segments further ahead, and skips more.
            counter.rate = Rate { second: NOW / 1_000, drawn: 0, peak: 0 };
            counter.holes.iter_mut().for_each(|hole| hole.since = 0);
        }
        self.flights.sort_by_cached_key(|flight| {
            (flight.node, flight.store, flight.take.incarnation, flight.take.call, format!("{flight:?}"))
        });
    }
}

/// Calls are counted from the one that the node is at.
impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let calls: BTreeMap<Incarnation, u64> = self
            .processes
            .iter()
            .map(|process| (process.node.incarnation(), process.call() + process.extra_calls))
            .collect();
        let ago = |who: &Incarnation, call: u64| calls.get(who).copied().unwrap_or(0).wrapping_sub(call);
        for store in self.stores.iter().chain(&self.saved) {
            (store.marker, store.replid).hash(hasher);
            let Some(counter) = &store.counter else { continue };
            (counter.base, counter.cursor, counter.generation, &counter.recovery).hash(hasher);
            (&counter.ahead, &counter.holes, counter.target).hash(hasher);
            for (id, member) in &counter.members {
                let Member { node: _, call, drawn, held, offered, beat, next_beat_ms: _ } = member;
                let offered = offered.map(|(segment, call)| (segment, ago(id, call)));
                (id, ago(id, *call), drawn, held, offered, beat).hash(hasher);
            }
        }
        for process in &self.processes {
            let Process { node, disk, offer, awaited, blocked, involved, untold, handed_back, .. } = process;
            let next = Take { call: 0, ..process.clone().ask(0, 1, false) };
            (next, node.has_pending_call(), node.state() == disk, disk, offer).hash(hasher);
            (awaited, blocked, involved, untold, handed_back).hash(hasher);
        }
        for Flight { node, store, take, reply } in &self.flights {
            // Of calls that are over one is as old as the other.
            let ago = ago(&take.incarnation, take.call).min(2);
            let reply = reply.clone().map(|mut reply| {
                if let Reply::Taken { call, .. } = &mut reply {
                    *call = 0;
                }
                reply
            });
            (node, store, ago, Take { call: 0, ..take.clone() }, reply).hash(hasher);
        }
        (self.stores.len(), self.links, self.saved.is_some(), &self.issued).hash(hasher);
        (self.generations, self.servers, self.values, self.faults).hash(hasher);
        (self.has_lost, self.got_past, self.issued_twice).hash(hasher);
    }
}
