//! The holder's side: what a worker makes of an answer.

use super::{Acquired, Generation, Guard, Holding, Nonce, Renewed, Terms};

/// How many memories that were left are remembered.
const KEPT: usize = 8;

/// What a worker knows about its window.
///
/// Invariant: a nonce is given up exactly when its holding is lost or released, and never used again; so an answer that was sent
/// for another one is known by it.
///
/// While it holds something it does not go back to a memory that it has left: two servers answer where one was cut off and another promoted, and
/// the mark that the earlier one writes is not known to the other, which may hand the slot out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    nonce: Nonce,
    held: Option<Holding>,
    /// The memories that this holding has left, the latest last.
    left: Vec<Generation>,
}

/// What a worker is to do about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Next {
    /// Issue from this holding, up to its mark.
    Issue(Holding),
    /// Stop issuing, and acquire again.
    Stop,
    /// Nothing: the answer comes too late or says nothing new.
    Ignore,
}

impl Holder {
    /// A worker that holds nothing, and will ask under `nonce`.
    pub const fn new(nonce: Nonce) -> Self {
        Self { nonce, held: None, left: Vec::new() }
    }

    /// The name under which to ask for a slot.
    pub fn nonce(&self) -> Nonce {
        self.nonce
    }

    /// What is held.
    pub fn held(&self) -> Option<Holding> {
        self.held
    }

    /// An answer to the ACQUIRE that was sent under `asked`, `age_ms` ago.
    pub fn acquired(&mut self, terms: &Terms, asked: Nonce, answer: Acquired, age_ms: u64) -> Next {
        let Acquired::Held(holding) = answer else { return Next::Ignore };
        // An old answer may stand for a holding that has been forgotten meanwhile; asked again, the nonce still names it.
        if is_old(terms, age_ms) || asked != self.nonce || self.held.is_some() {
            return Next::Ignore;
        }
        self.held = Some(holding);
        Next::Issue(holding)
    }

    /// An answer to the RENEW of `asked`, sent `age_ms` ago; a lost holding is followed by one of the name `next`.
    pub fn renewed(
        &mut self,
        terms: &Terms,
        asked: &Holding,
        answer: Renewed,
        age_ms: u64,
        next: Nonce,
    ) -> Next {
        let Some(held) = self.held.filter(|held| held.nonce == asked.nonce) else { return Next::Ignore };
        match answer {
            // After an outage a renewal may move a mark by more than the margin allows for.
            Renewed::Extended { .. } if is_old(terms, age_ms) => Next::Ignore,
            Renewed::Extended { now, generation, .. }
                if self.left.contains(&generation) && terms.keeps(Guard::LeftForGood) =>
            {
                // Nobody else answers, and there is nothing left to issue: begins anew there, as any process would.
                if held.mark <= now {
                    *self = Self::new(next);
                    return Next::Stop;
                }
                Next::Ignore
            }
            Renewed::Extended { mark, now, generation } => {
                if generation != held.generation {
                    self.left.push(held.generation);
                    self.left.drain(..self.left.len().saturating_sub(KEPT));
                }
                let holding = Holding { mark: held.mark.max(mark), generation, ..held };
                self.held = Some(holding);
                Next::Issue(Holding { now, ..holding })
            }
            Renewed::Lost => {
                *self = Self::new(next);
                Next::Stop
            }
        }
    }

    /// Gives up what is held, if anything; whoever calls has stopped issuing.
    pub fn give_up(&mut self, next: Nonce) -> Option<Holding> {
        let held = self.held;
        *self = Self::new(next);
        held
    }
}

fn is_old(terms: &Terms, age_ms: u64) -> bool {
    age_ms > terms.stale_ms && terms.keeps(Guard::FreshReplies)
}
