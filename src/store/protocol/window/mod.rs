//! Worker windows (`docs/protocols.md`): who may issue which ID timestamps.
//!
//! A lease that ends by time cannot stop a process that was paused, and clocks disagree. So what is leased is a span of
//! ID timestamps. Each slot (worker ID) has a *mark*, the highest timestamp that anybody was ever allowed to use there; to hold
//! the slot is to have raised it. Invariants:
//!
//! 1. **Windows of a slot are disjoint.** A window is `start < ts <= mark`; a new holding starts at the mark that was found.
//! 2. **A mark falls only by its holder's RELEASE**, and never below a timestamp that was issued.
//! 3. **Only the present holding moves a slot**: RENEW and RELEASE match nonce, fence and generation. A nonce names one holding, a
//!    fence orders the holdings of a slot; so nothing that arrives late or twice changes what has passed on.
//! 4. **A store that may have forgotten says so.** Its memory has a *generation*: a random name, written where there is none, adopted
//!    where there is one, replaced where the server's own ID has changed (it restarted, or another one was promoted). For some
//!    seconds after that (*settling*) nobody acquires and nothing is extended, while holders put back what they hold.
//! 5. **A forgotten mark is allowed for**: a slot last written in another generation, or only put back in this one, is entered a
//!    *margin* above its mark.
//! 6. **Two servers that answer at once** hand out different slots: an ACQUIRE counts when a follower has it, too (the store that
//!    implements this sees to it), and a server that its followers have just left hands out nothing. A holder that has gone over to another
//!    memory does not heed the earlier one again.
//! 7. **An answer that is older than a fraction of the settling is dropped**: the store may have forgotten it, and settled.
//! 8. **A wild clock does no lasting harm**: a renewal moves the mark no further than the holder's own idea of the time, plus a little.
//! 9. **No lease follows a fixed holder** ([`Tenure`]) that has not given the slot up: its mark here says nothing of what it issues. Its word to give
//!    it up is a RENEW as a lease, so that a RELEASE by which a slot is only handed back leaves it reserved.
//!
//! [`Guard`] names the rules that carry these; `tests/models/windows.rs` takes each away and finds the duplicate.
//!
//! Which clock the store has does not matter for 1 to 3: it decides only how soon a slot passes on. Where the store's clock is
//! behind the holder's (set back by hours), a renewal follows the holder's, so that issuing goes on.

mod claim;
mod holder;
mod message;
mod terms;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, ops::Range, time::Duration};

pub use claim::{Claim, Claimed, Mark};
pub use holder::{Holder, Next};
pub use message::{AcquireRequest, Acquired, Generation, Holding, IdMillis, Nonce, Renewed, Tenure};
pub use terms::{Company, Contact, Guard, Rest, ServerId, Terms};

/// The highest mark: what a signed 64-bit column holds, 292 million years.
const MAX_MARK: IdMillis = i64::MAX.unsigned_abs();

/// What is kept of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Whose it is.
    pub owner: Option<Nonce>,
    /// Rises with every change of holder.
    pub fence: u64,
    /// Where the present window begins.
    pub start: IdMillis,
    /// The highest timestamp that anybody was ever allowed to use here.
    pub mark: IdMillis,
    /// Until when its holder counts as alive ([`Contact::presence_ms`]).
    pub expires_ms: u64,
    /// The memory in which it was last written.
    pub generation: Generation,
    /// How the store came to know of it.
    pub word: Word,
    /// The terms of the last holding, which outlive it.
    pub tenure: Tenure,
}

/// How a store came to know of a holding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Word {
    /// It gave it, or heard from its holder since it was put back.
    #[default]
    Own,
    /// It was put back, perhaps by a request that was late: its holder may believe in a higher mark.
    Hearsay,
}

/// How a store notices that it may have forgotten something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Marker {
    /// The name of the memory.
    pub generation: Generation,
    /// The server whose memory it is.
    pub server: ServerId,
    /// When it was written, or the clock was set back since.
    pub since: IdMillis,
    /// Whether settling is over for good, whatever the clock does.
    pub phase: Phase,
}

/// Where a memory stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Holders come forward.
    Settling,
    /// Everybody has had the time.
    Settled,
}

/// What a call finds of the memory.
#[derive(Clone, Copy)]
struct Memory {
    generation: Generation,
    /// What is left of the settling.
    settling: Option<Duration>,
    /// How much longer another server may hand out what this one does.
    deserted: Option<Duration>,
}

/// All that a store keeps about windows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slots {
    /// Its memory, if it has one yet.
    pub marker: Option<Marker>,
    /// Slots that were ever held.
    pub slots: BTreeMap<u32, Slot>,
    /// In which memory other servers followed this one last, and when.
    pub followed: Option<(Generation, IdMillis)>,
}

/// How a RENEW wants the window to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extension {
    /// The holder's own idea of the store's clock.
    pub carried: IdMillis,
    /// How far the mark is to lie ahead of the clock, in ms.
    pub window_ms: u64,
    /// How long until a holder that does not renew may be looked at as dead, in ms.
    pub ttl_ms: u64,
    /// On what terms the slot is held from now on.
    pub tenure: Tenure,
}

impl Slots {
    /// How many of these slots an ACQUIRE could lease now; 0 while the memory settles, or is not known.
    pub fn free(&self, terms: &Terms, slots: Range<u32>, at: &Contact) -> usize {
        let Some(marker) = self.marker.filter(|marker| marker.phase == Phase::Settled) else { return 0 };
        let slot = |id: u32| self.slots.get(&id).copied().unwrap_or_default();
        slots.filter(|&id| slot(id).is_free(terms, marker.generation, at, Tenure::Lease)).count()
    }

    /// ACQUIRE: hands a free slot to a new holding; the same nonce again gets the same answer. A fixed holder gets another fence: its nonce is that
    /// of its data directory, and what the process before it said to give the slot up may arrive late.
    pub fn acquire(&mut self, terms: &Terms, request: &AcquireRequest, at: &Contact) -> Acquired {
        if !terms.keeps(Guard::AdoptGeneration) {
            self.marker = self.marker.filter(|marker| marker.phase == Phase::Settled);
        }
        let memory = self.observe(terms, at);
        if let Some(wait) = memory.settling.filter(|_| terms.keeps(Guard::Settling)) {
            return Acquired::Wait(wait);
        }
        if let Some(wait) = memory.deserted.filter(|_| terms.keeps(Guard::Deserted)) {
            return Acquired::Wait(wait);
        }
        let is_its_own = |slot: &Slot| match slot.owner {
            Some(owner) => owner == request.nonce || !terms.keeps(Guard::Nonce),
            None => false,
        };
        if let Some((&id, slot)) = self.slots.iter_mut().find(|(_, slot)| is_its_own(slot)) {
            if request.tenure == Tenure::Fixed {
                slot.fence += 1;
            }
            return Acquired::Held(slot.holding(id, request.nonce, memory.generation, at.now));
        }
        let slot = |id: &u32| self.slots.get(id).copied().unwrap_or_default();
        let is_free = |id: &u32| slot(id).is_free(terms, memory.generation, at, request.tenure);
        let Some(id) = request.slots.clone().find(is_free) else { return Acquired::NoSlot };
        let slot = self.slots.entry(id).or_default();
        slot.hand_to(terms, request, memory.generation, at);
        Acquired::Held(slot.holding(id, request.nonce, memory.generation, at.now))
    }

    /// RENEW: moves the mark of the present holding on. A holding of another generation is put back first (REASSERT).
    pub fn renew(
        &mut self,
        terms: &Terms,
        holding: &Holding,
        extension: &Extension,
        at: &Contact,
    ) -> Renewed {
        let memory = self.observe(terms, at);
        // A holder that knows the generation was answered in it, and everything that it believes went with that request.
        let word = if memory.generation == holding.generation { Word::Own } else { Word::Hearsay };
        if word == Word::Hearsay && !self.reassert(terms, holding, memory.generation, at) {
            return Renewed::Lost;
        }
        let Some(slot) = self.slots.get_mut(&holding.slot) else { return Renewed::Lost };
        if !slot.is_held_by(terms, holding) {
            return Renewed::Lost;
        }
        slot.tenure = extension.tenure;
        if slot.mark <= at.now {
            // The holder is told to stop, so nobody is left to use the slot: the next need not wait for it to lapse.
            slot.vacate();
            return Renewed::Lost;
        }
        if memory.settling.is_none() {
            slot.extend(terms, extension, at);
        }
        slot.expires_ms = at.presence_ms.saturating_add(extension.ttl_ms);
        (slot.generation, slot.word) = (memory.generation, word);
        Renewed::Extended { mark: slot.mark, now: at.now, generation: memory.generation }
    }

    /// REASSERT: puts back a holding that the store may have forgotten; answers whether it stands.
    ///
    /// Only while its mark lies ahead: behind that, the slot may rightly have passed on, and been forgotten again.
    fn reassert(&mut self, terms: &Terms, holding: &Holding, generation: Generation, at: &Contact) -> bool {
        if holding.mark <= at.now {
            return false;
        }
        let slot = self.slots.entry(holding.slot).or_default();
        if !slot.is_held_by(terms, holding) {
            let is_newer = slot.fence < holding.fence || !terms.keeps(Guard::Fence);
            // Somebody was given timestamps in this memory that this holder may have, too: it came too late.
            let is_overtaken = slot.generation == generation && slot.mark > holding.mark;
            if !is_newer || is_overtaken {
                return false;
            }
        }
        slot.owner = Some(holding.nonce);
        slot.fence = holding.fence;
        slot.start = holding.start;
        slot.mark = slot.mark.max(holding.mark);
        true
    }

    /// RELEASE: the holder has stopped and issued nothing above `last`; the slot is free at once.
    pub fn release(&mut self, terms: &Terms, holding: &Holding, last: IdMillis, at: &Contact) {
        let memory = self.observe(terms, at);
        let Some(slot) = self.slots.get_mut(&holding.slot) else { return };
        let matches = slot.is_held_by(terms, holding) && memory.generation == holding.generation;
        if matches || !terms.keeps(Guard::ReleaseMatches) {
            slot.mark = slot.start.max(last).min(MAX_MARK);
            slot.vacate();
        }
    }

    /// The memory as it stands: adopted, or begun where there is none or where the server is another.
    fn observe(&mut self, terms: &Terms, at: &Contact) -> Memory {
        let known = self.marker.filter(|marker| marker.server == at.server);
        let mut marker = known.unwrap_or(Marker {
            generation: at.fresh,
            server: at.server,
            since: at.now,
            phase: Phase::Settling,
        });
        // A clock that was set back begins the settling anew, rather than drawing it out for hours.
        marker.since = marker.since.min(at.now);
        let left_ms = terms.settling_ms.saturating_sub(at.now - marker.since);
        if left_ms == 0 {
            marker.phase = Phase::Settled;
        }
        self.marker = Some(marker);
        let settling = match marker.phase {
            Phase::Settling => Some(Duration::from_millis(left_ms)),
            Phase::Settled => None,
        };
        Memory {
            generation: marker.generation,
            settling,
            deserted: self.deserted(terms, marker.generation, at),
        }
    }

    /// How long this server, which nobody follows, is still in doubt: whoever has left it may follow another one, or be it.
    fn deserted(&mut self, terms: &Terms, generation: Generation, at: &Contact) -> Option<Duration> {
        if at.company == Company::Followed {
            self.followed = Some((generation, at.now));
        }
        let (_, since) = self.followed.filter(|(memory, _)| *memory == generation)?;
        // A clock that was set back by hours does not draw it out for as long.
        let left_ms = terms.deserted_ms.saturating_sub(at.now.abs_diff(since));
        (at.company == Company::Alone && left_ms > 0).then(|| Duration::from_millis(left_ms))
    }
}

impl Slot {
    /// How far above the mark a new holding begins.
    fn margin_ms(&self, terms: &Terms, generation: Generation) -> u64 {
        let is_in_doubt = self.generation != generation || self.word == Word::Hearsay;
        if is_in_doubt && *self != Self::default() && terms.keeps(Guard::Margin) {
            terms.margin_ms
        } else {
            0
        }
    }

    fn is_free(&self, terms: &Terms, generation: Generation, at: &Contact, wanted: Tenure) -> bool {
        // Another fixed holder is the same operator's word.
        let is_reserved = self.tenure == Tenure::Fixed && wanted == Tenure::Lease;
        let lapsed = self.owner.is_none() || self.expires_ms <= at.presence_ms;
        !is_reserved
            && lapsed
            && match terms.rest {
                Rest::UntilMarkHasPassed => {
                    self.mark.saturating_add(self.margin_ms(terms, generation)) <= at.now
                }
                Rest::None => true,
            }
    }

    fn hand_to(&mut self, terms: &Terms, request: &AcquireRequest, generation: Generation, at: &Contact) {
        let found = self.mark.saturating_add(self.margin_ms(terms, generation));
        self.start = if terms.keeps(Guard::StartAtMark) { found } else { 0 };
        self.mark = found.max(at.now).saturating_add(request.window_ms).min(MAX_MARK);
        self.owner = Some(request.nonce);
        self.fence += 1;
        self.expires_ms = at.presence_ms.saturating_add(request.ttl_ms);
        (self.generation, self.word, self.tenure) = (generation, Word::Own, request.tenure);
    }

    fn extend(&mut self, terms: &Terms, extension: &Extension, at: &Contact) {
        let carried = extension.carried;
        let furthest = match terms.keeps(Guard::RenewBound) {
            true => carried.saturating_add(terms.carry_limit_ms),
            false => u64::MAX,
        };
        let believed = at.now.clamp(carried, furthest);
        self.mark = self.mark.max(believed.saturating_add(extension.window_ms)).min(MAX_MARK);
    }

    fn vacate(&mut self) {
        self.owner = None;
        self.expires_ms = 0;
    }

    /// The holding as its holder sees it.
    fn holding(&self, slot: u32, nonce: Nonce, generation: Generation, now: IdMillis) -> Holding {
        Holding { slot, nonce, fence: self.fence, start: self.start, mark: self.mark, now, generation }
    }

    /// Whether `holding` is the present one.
    fn is_held_by(&self, terms: &Terms, holding: &Holding) -> bool {
        let nonce = self.owner == Some(holding.nonce) || !terms.keeps(Guard::Nonce);
        let fence = self.fence == holding.fence || !terms.keeps(Guard::Fence);
        nonce && fence
    }
}
