//! Which states are one: those that nothing can tell apart that is still to come.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
};

use numgen::store::protocol::counter::{Generation, Incarnation, Member, Rate, Reply, SETTLING_MS, Take};

use super::{Flight, LAPSED_MS, LATE_MS, NOW, PRESENT_MS, Process, Question, World};

impl World {
    /// Leaves out what makes no difference: how long ago something was, beyond three ages, and how fast values were drawn; what
    /// was saved, where nothing comes back any more; what a call has drawn that is not asked again.
    pub(super) fn normalise(&mut self, question: Question) {
        self.saved = self.saved.take().filter(|_| self.faults > 0);
        if let Some(saved) = &mut self.saved {
            // It comes back on another server, which begins another generation.
            if let Some(marker) = &mut saved.marker {
                (marker.since, marker.settled) = (NOW - SETTLING_MS, true);
            }
            saved.counter.iter_mut().for_each(|counter| counter.recovery = None);
        }
        let open = self.open_calls();
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
            if question == Question::Twice {
                counter.holes.clear();
                for (id, member) in &mut counter.members {
                    if !open.contains(&(*id, member.call)) {
                        member.drawn.clear();
                    }
                }
            }
        }
        self.flights.sort_by_cached_key(|flight| {
            (flight.node, flight.store, flight.take.incarnation, flight.take.call, format!("{flight:?}"))
        });
    }
}

impl World {
    /// Calls that a store may still be asked.
    fn open_calls(&self) -> BTreeSet<(Incarnation, u64)> {
        let pending = self.processes.iter().filter(|process| process.node.has_pending_call());
        let flights = self.flights.iter().filter(|flight| flight.reply.is_none());
        pending
            .map(|process| (process.node.incarnation(), process.call() + process.extra_calls))
            .chain(flights.map(|flight| (flight.take.incarnation, flight.take.call)))
            .collect()
    }

    /// Every call that can be told from others, the latest last.
    fn calls(&self) -> BTreeMap<Incarnation, BTreeSet<u64>> {
        let counters = self.stores.iter().chain(&self.saved).filter_map(|store| store.counter.as_ref());
        let known = counters.flat_map(|counter| &counter.members).flat_map(|(id, member)| {
            let offered = member.offered.map(|(_, call)| (*id, call));
            offered.into_iter().chain([(*id, member.call)])
        });
        let present = self
            .processes
            .iter()
            .map(|process| (process.node.incarnation(), process.call() + process.extra_calls));
        let flights = self.flights.iter().map(|flight| (flight.take.incarnation, flight.take.call));
        let mut calls: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        known.chain(present).chain(flights).for_each(|(id, call)| {
            calls.entry(id).or_default().insert(call);
        });
        calls
    }

    /// Those that a store is in, or can come back to.
    fn generations_in_sight(&self) -> BTreeSet<Generation> {
        let markers = self.stores.iter().chain(&self.saved).filter_map(|store| store.marker);
        let replies = self.flights.iter().filter_map(|flight| match &flight.reply {
            Some(Reply::Taken { generation, .. } | Reply::Recover { generation, .. }) => Some(*generation),
            Some(Reply::Stale) | None => None,
        });
        markers.map(|marker| marker.generation).chain(replies).collect()
    }
}

/// Of calls it counts which is earlier.
impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let calls = self.calls();
        let ago =
            |who: &Incarnation, call: u64| calls.get(who).map_or(0, |calls| calls.range(call..).count());
        for store in self.stores.iter().chain(&self.saved) {
            (store.marker, store.replid).hash(hasher);
            let Some(counter) = &store.counter else { continue };
            (counter.base, counter.cursor, counter.generation, &counter.recovery).hash(hasher);
            (&counter.ahead, &counter.returned, &counter.holes, counter.target).hash(hasher);
            for (id, member) in &counter.members {
                let Member { node: _, call, drawn, held, offered, beat, next_beat_ms: _ } = member;
                let offered = offered.map(|(segment, call)| (segment, ago(id, call)));
                (id, ago(id, *call), drawn, held, offered, beat).hash(hasher);
            }
        }
        let in_sight = self.generations_in_sight();
        for process in &self.processes {
            let Process {
                node,
                disk,
                offer,
                awaited,
                blocked,
                unanswered,
                involved,
                untold,
                handed_back,
                ..
            } = process;
            // Of what was left only that counts which can be met again.
            let left = node.generations().left().iter().filter(|left| in_sight.contains(left));
            left.for_each(|left| left.hash(hasher));
            let next = Take { call: 0, ..process.clone().ask(0, 1, false, true) };
            ago(&node.incarnation(), process.call() + process.extra_calls).hash(hasher);
            (next, node.has_pending_call(), node.state() == disk, disk, offer).hash(hasher);
            (awaited, blocked, unanswered, involved, untold, handed_back).hash(hasher);
        }
        for Flight { node, store, take, reply } in &self.flights {
            let ago = ago(&take.incarnation, take.call);
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
