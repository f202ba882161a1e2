//! The protocol without one of its guards: what the store is shown, what it remembers, or what a node believes is falsified on
//! the way. The functions of the service are left as they are.

use numgen::store::protocol::counter::{Generation, Reply, SETTLING_MS, Take};

use super::{Counter, LOT, NOW, Process, Store, generation, name};

/// What a mutant of the protocol does without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    CallNumber,
    GenerationOfReply,
    WrittenBeforeAdopted,
    TwoStepSwap,
    ReservedOffer,
    Holds,
    Used,
    SurplusListed,
    SurplusAhead,
    Replid,
    RandomGeneration,
    Settling,
    SegmentSkip,
    Seen,
    RetiredAreDead,
    ReportUnderGeneration,
    SkipForSilent,
    SkipByLot,
    LeftForGood,
    SeenUnderGeneration,
    ReportedElsewhere,
}

impl Counter {
    /// Makes the store miss what a guard would show it.
    pub(super) fn distort(&self, take: &mut Take, store: &mut Store) {
        let Some(guard) = self.without else { return };
        match guard {
            Guard::Seen => take.seen = None,
            Guard::Holds => take.holds = None,
            Guard::Used => take.used.clear(),
            Guard::SurplusAhead => take.surplus.retain(|range| take.seen >= Some(range.to)),
            Guard::RetiredAreDead => take.retires.push(name(usize::from(take.incarnation.0 < 200), 0)),
            Guard::Replid => {
                if let Some(marker) = &mut store.marker {
                    marker.replid = store.replid;
                }
            }
            Guard::ReportUnderGeneration => {
                let settles = store.marker.filter(|marker| NOW - marker.since < SETTLING_MS);
                let looks = settles.filter(|marker| marker.replid == store.replid);
                take.generation = looks.map(|marker| marker.generation).or(take.generation);
            }
            Guard::SkipForSilent => {
                take.peers.clear();
                take.retires.clear();
                if let Some(recovery) = store.counter.as_mut().and_then(|counter| counter.recovery.as_mut()) {
                    recovery.known.clear();
                }
            }
            Guard::LeftForGood => take.generation = take.generation.map(plain),
            Guard::SeenUnderGeneration => {
                let in_force = store.marker.map(|marker| marker.generation);
                let cursor = store.counter.as_ref().map(|counter| counter.cursor);
                if take.generation.is_some() && take.generation != in_force && take.seen > cursor {
                    store.marker = None;
                }
            }
            Guard::ReportedElsewhere => {
                let in_force = store.marker.map(|marker| marker.generation);
                let recovery = store.counter.as_mut().and_then(|counter| counter.recovery.as_mut());
                if let Some(recovery) = recovery.filter(|_| take.generation != in_force)
                    && recovery.reported.contains(&take.incarnation)
                {
                    recovery.highest = recovery.highest.max(take.seen.unwrap_or_default());
                }
            }
            Guard::SegmentSkip => {
                for member in store.counter.iter_mut().flat_map(|counter| counter.members.values_mut()) {
                    (member.held, member.offered) = (None, None);
                }
            }
            Guard::CallNumber
            | Guard::GenerationOfReply
            | Guard::WrittenBeforeAdopted
            | Guard::TwoStepSwap
            | Guard::ReservedOffer
            | Guard::SurplusListed
            | Guard::RandomGeneration
            | Guard::SkipByLot
            | Guard::Settling => {}
        }
    }

    /// Makes the store forget, or puts back what [`Self::distort`] took.
    pub(super) fn undo(&self, store: &mut Store, before: &Store, take: &Take) {
        if self.without == Some(Guard::Settling)
            && let Some(marker) = &mut store.marker
        {
            (marker.since, marker.settled) = (NOW - SETTLING_MS, true);
        }
        let Some(counter) = &mut store.counter else { return };
        match self.without {
            Some(Guard::TwoStepSwap) => {
                for member in counter.members.values_mut() {
                    member.held = member.offered.map(|(segment, _)| segment).or(member.held);
                    member.offered = None;
                }
            }
            Some(Guard::ReservedOffer) => {
                counter.members.values_mut().for_each(|member| member.offered = None);
            }
            Some(Guard::SkipForSilent) => {
                counter.recovery.iter_mut().for_each(|recovery| recovery.known.clear());
            }
            Some(Guard::SegmentSkip) => {
                for (id, old) in before.counter.iter().flat_map(|before| &before.members) {
                    if let Some(member) = counter.members.get_mut(id)
                        && *id != take.incarnation
                    {
                        (member.held, member.offered) = (old.held, old.offered);
                    }
                }
            }
            _ => {}
        }
    }

    /// Makes the node believe what a guard would have it throw away.
    pub(super) fn doctor(&self, process: &Process, take: &mut Take, reply: &mut Reply) {
        let present = process.clone().ask(0, self.size, false, false);
        if self.without == Some(Guard::CallNumber) {
            take.call = take.call.min(present.call);
            if let Reply::Taken { call, .. } = reply {
                *call = (*call).min(present.call);
            }
        }
        if self.without == Some(Guard::GenerationOfReply)
            && let (Reply::Taken { generation, .. }, Some(present)) = (&mut *reply, present.generation)
        {
            *generation = present;
        }
        if self.without == Some(Guard::LeftForGood) {
            let generations = process.node.generations();
            match reply {
                // It comes under a name that the node has not heard of.
                Reply::Recover { generation, .. } => {
                    while generations.left().contains(generation) {
                        generation.0 += 1;
                    }
                }
                Reply::Taken { generation, .. } => {
                    let present = generations.present().filter(|present| plain(*present) == *generation);
                    *generation = present.unwrap_or(*generation);
                }
                Reply::Stale => {}
            }
        }
    }
}

/// The name of which another one was made for [`Guard::LeftForGood`].
fn plain(name: Generation) -> Generation {
    generation(name.0 / LOT)
}
