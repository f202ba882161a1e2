//! A mark that counts only when a second store has it too: Redis hands slots out and may forget them, PostgreSQL confirms them.
//!
//! Invariants, whatever the first store does: windows of a slot that were confirmed for different holdings are disjoint; a
//! confirmed mark falls only when its holder gives it up, and never below what it issued. So nothing that the first store forgets, and no
//! clock that it has, leads to an ID that is issued twice.

use super::{Guard, IdMillis, MAX_MARK, Nonce, Terms};

/// What is asked to be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// The worker ID.
    pub slot: u32,
    /// Names the holding.
    pub nonce: Nonce,
    /// Where its window begins, according to the first store.
    pub start: IdMillis,
    /// Up to where it is to reach.
    pub mark: IdMillis,
    /// How far a mark may lie ahead of the clock, in ms.
    pub window_ms: u64,
}

/// What it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Claimed {
    /// The holding issues above `start` and up to `mark`.
    Confirmed {
        /// Where the window begins.
        start: IdMillis,
        /// Where it ends.
        mark: IdMillis,
    },
    /// Another holding may still issue, up to there.
    Refused {
        /// Its mark.
        mark: IdMillis,
    },
}

/// What is kept of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    /// The present holding; `None`: it was given up.
    pub owner: Option<Nonce>,
    /// Where its window begins.
    pub start: IdMillis,
    /// The highest timestamp that anybody was ever allowed to use here.
    pub mark: IdMillis,
}

impl Mark {
    /// Confirms a claim at this time of the second store's clock; `slot` is `None` where it has not heard of the slot yet.
    pub fn claim(slot: &mut Option<Self>, terms: &Terms, claim: &Claim, now: IdMillis) -> Claimed {
        // A clock of the first store that has run wild locks nothing far ahead.
        let furthest = now.saturating_add(claim.window_ms).saturating_add(terms.carry_limit_ms).min(MAX_MARK);
        let wanted = claim.mark.min(furthest);
        let known = *slot;
        if let Some(Self { owner: Some(owner), start, mark }) = known
            && (owner == claim.nonce || !terms.keeps(Guard::Nonce))
        {
            let mark = mark.max(wanted);
            *slot = Some(Self { owner: Some(owner), start, mark });
            return Claimed::Confirmed { start, mark };
        }
        let found = known.map_or(0, |known| known.mark);
        if known.is_some_and(|known| known.owner.is_some()) && found > now {
            return Claimed::Refused { mark: found };
        }
        // Where the first store's mark was written by a wild clock, the confirmed one is the truth.
        let theirs = if known.is_some() && claim.start > furthest { 0 } else { claim.start };
        let start = if terms.keeps(Guard::StartAtMark) { found.max(theirs) } else { theirs };
        let mark = wanted.max(start);
        *slot = Some(Self { owner: Some(claim.nonce), start, mark });
        Claimed::Confirmed { start, mark }
    }

    /// The holder has stopped and issued nothing above `last`.
    pub fn give_up(&mut self, terms: &Terms, nonce: Nonce, last: IdMillis) {
        if self.owner == Some(nonce) || !terms.keeps(Guard::ReleaseMatches) {
            // Never above what was confirmed: somebody may have it from there on.
            self.mark = self.start.max(last).min(self.mark);
            self.owner = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{
        prelude::*,
        test_runner::{Config, TestCaseError, TestRunner},
    };

    use super::*;

    /// One thing that happens to a slot.
    #[derive(Clone, Debug)]
    enum Event {
        /// A holder claims, with whatever its first store says.
        Claim { holder: usize, start: u64, mark: u64 },
        /// It issues up to some of its window.
        Issue { holder: usize, part: u64 },
        /// It gives up, where it has not stopped before; the message may arrive twice.
        GiveUp { holder: usize },
        /// A new holding of the process.
        Anew { holder: usize },
        /// Time passes.
        Pass(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        let holder = 0_usize..3;
        prop_oneof![
            4 => (holder.clone(), 0_u64..400, 0_u64..400)
                .prop_map(|(holder, start, mark)| Event::Claim { holder, start, mark }),
            4 => (holder.clone(), 0_u64..40).prop_map(|(holder, part)| Event::Issue { holder, part }),
            1 => holder.clone().prop_map(|holder| Event::GiveUp { holder }),
            2 => holder.prop_map(|holder| Event::Anew { holder }),
            2 => (0_u64..60).prop_map(Event::Pass),
        ]
    }

    #[derive(Default)]
    struct Holder {
        life: u8,
        window: Option<(u64, u64)>,
        last: u64,
    }

    /// The smallest timestamp that two holdings issued.
    fn twice(events: &[Event], terms: &Terms) -> Option<u64> {
        let (mut slot, mut now, mut lives) = (None, 100, 3);
        let mut issued = std::collections::BTreeMap::new();
        let mut holders: [Holder; 3] =
            std::array::from_fn(|life| Holder { life: life as u8, ..Holder::default() });
        for event in events {
            match *event {
                Event::Pass(ms) => now += ms,
                Event::Claim { holder, start, mark } => {
                    let holder = &mut holders[holder];
                    let nonce = Nonce([holder.life; 16]);
                    let claim = Claim { slot: 0, nonce, start, mark, window_ms: 50 };
                    if let Claimed::Confirmed { start, mark } = Mark::claim(&mut slot, terms, &claim, now) {
                        holder.last = holder.last.max(start);
                        holder.window = Some((start, mark));
                    }
                }
                Event::Issue { holder, part } => {
                    let holder = &mut holders[holder];
                    let Some((_, mark)) = holder.window else { continue };
                    let to = holder.last.saturating_add(part).min(mark);
                    for timestamp in holder.last + 1..=to {
                        if issued.insert(timestamp, holder.life).is_some() {
                            return Some(timestamp);
                        }
                    }
                    holder.last = holder.last.max(to);
                }
                Event::GiveUp { holder } => {
                    let holder = &mut holders[holder];
                    if holder.window.take().is_some()
                        && let Some(slot) = &mut slot
                    {
                        slot.give_up(terms, Nonce([holder.life; 16]), holder.last);
                        lives += 1;
                        *holder = Holder { life: lives, ..Holder::default() };
                    }
                }
                Event::Anew { holder } => {
                    lives += 1;
                    holders[holder] = Holder { life: lives, ..Holder::default() };
                }
            }
        }
        None
    }

    fn search(terms: Terms) -> Result<(), String> {
        let config =
            Config { cases: 4_000, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(
            config,
            proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
        );
        let outcome =
            runner.run(&prop::collection::vec(event(), 1..60), |events| match twice(&events, &terms) {
                None => Ok(()),
                Some(timestamp) => Err(TestCaseError::fail(format!("{timestamp} twice"))),
            });
        outcome.map_err(|error| error.to_string())
    }

    #[test]
    fn whatever_the_first_store_says_windows_are_disjoint() {
        assert_eq!(search(Terms::SHARED), Ok(()));
    }

    #[test]
    fn every_guard_is_needed() {
        for guard in [Guard::Nonce, Guard::StartAtMark, Guard::ReleaseMatches] {
            let terms = Terms { without: Some(guard), ..Terms::SHARED };
            assert!(search(terms).is_err(), "nothing happens without {guard:?}");
        }
    }

    #[test]
    fn a_wild_clock_is_cut_off_and_the_same_claim_gets_the_same_answer() {
        let mut slot = None;
        let claim = Claim { slot: 0, nonce: Nonce([1; 16]), start: 10, mark: 1 << 50, window_ms: 600_000 };
        let confirmed = Claimed::Confirmed { start: 10, mark: 1_000 + 600_000 + 5_000 };
        assert_eq!(Mark::claim(&mut slot, &Terms::SHARED, &claim, 1_000), confirmed);
        assert_eq!(Mark::claim(&mut slot, &Terms::SHARED, &claim, 1_000), confirmed);
        let other = Claim { nonce: Nonce([2; 16]), ..claim };
        assert_eq!(Mark::claim(&mut slot, &Terms::SHARED, &other, 2_000), Claimed::Refused { mark: 606_000 });
        // The first store's mark was written by the wild clock, and is not the truth.
        let wild = Claim { start: 1 << 50, mark: (1 << 50) + 5, ..other };
        assert_eq!(
            Mark::claim(&mut slot, &Terms::SHARED, &wild, 700_000),
            Claimed::Confirmed { start: 606_000, mark: 1_305_000 }
        );
    }
}
