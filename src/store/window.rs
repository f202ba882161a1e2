//! The arithmetic of a worker slot (`docs/protocols.md`, worker windows), apart from any database.
//!
//! Invariant: windows of one slot are disjoint. A window is `start < ts <= mark`; every new holding starts at the mark that
//! it found, and the mark falls only when its holder gives back what it did not use. No clock is needed for that;
//! clocks decide only how soon somebody else may try.

use super::{Holding, IdMillis, Nonce};

/// How far a store's clock may run ahead of what a holder believes, in ms, before its word is cut off: a wild clock must not
/// push marks years ahead.
const CARRY_LIMIT_MS: u64 = 5_000;

/// What is kept of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slot {
    /// Whose it is; `None`: free at once.
    pub(super) owner: Option<Nonce>,
    /// Rises with every change of holder.
    pub(super) fence: u64,
    /// Where the present window begins.
    pub(super) start: IdMillis,
    /// The highest timestamp that anybody was ever allowed to use here.
    pub(super) mark: IdMillis,
}

impl Slot {
    /// Hands the slot to a new holder.
    pub(super) fn hand_to(&mut self, nonce: Nonce, now: IdMillis, window_ms: u64) {
        self.owner = Some(nonce);
        self.fence += 1;
        self.start = self.mark;
        self.mark = self.start.max(now).saturating_add(window_ms).min(MAX_MARK);
    }

    /// The holding as its holder sees it.
    pub(super) fn holding(&self, slot: u32, nonce: Nonce, now: IdMillis) -> Holding {
        Holding { slot, nonce, fence: self.fence, start: self.start, mark: self.mark, now }
    }

    /// Whether `holding` is the present one.
    pub(super) fn is_held_by(&self, holding: &Holding) -> bool {
        self.owner == Some(holding.nonce) && self.fence == holding.fence
    }

    /// Moves the mark on; `None` when the holding is lost.
    pub(super) fn renew(
        &mut self,
        holding: &Holding,
        now: IdMillis,
        carried: IdMillis,
        window_ms: u64,
    ) -> Option<IdMillis> {
        if !self.is_held_by(holding) {
            return None;
        }
        if self.mark <= now {
            // The holder is told to stop, so nobody is left to use the slot: the next may have it at once.
            self.owner = None;
            return None;
        }
        let believed = now.min(carried.saturating_add(CARRY_LIMIT_MS));
        self.mark = self.mark.max(believed.saturating_add(window_ms)).min(MAX_MARK);
        Some(self.mark)
    }

    /// Gives back what lies above `last`.
    pub(super) fn release(&mut self, holding: &Holding, last: IdMillis) {
        if self.is_held_by(holding) {
            self.mark = self.start.max(last).min(MAX_MARK);
            self.owner = None;
        }
    }
}

/// The highest mark: what a signed 64-bit column holds, 292 million years.
const MAX_MARK: IdMillis = i64::MAX.unsigned_abs();

#[cfg(test)]
mod tests {
    use super::*;

    const A: Nonce = Nonce([1; 16]);
    const B: Nonce = Nonce([2; 16]);

    #[test]
    fn the_next_window_starts_where_the_last_one_ends() {
        let mut slot = Slot::default();
        slot.hand_to(A, 1_000, 500);
        let first = slot.holding(3, A, 1_000);
        assert_eq!((first.start, first.mark, first.fence), (0, 1_500, 1));
        slot.hand_to(B, 200, 500);
        let second = slot.holding(3, B, 200);
        assert_eq!(
            (second.start, second.mark, second.fence),
            (1_500, 2_000, 2),
            "even on a clock that stepped back"
        );
        assert_eq!(slot.renew(&first, 1_200, 1_200, 500), None, "lost to B");
    }

    #[test]
    fn a_wild_clock_moves_the_mark_only_as_far_as_the_holder_believes() {
        let mut slot = Slot::default();
        slot.hand_to(A, 1_000, 500);
        let holding = slot.holding(0, A, 1_000);
        slot.mark = 2_000_000;
        assert_eq!(slot.renew(&holding, 1_999_999, 2_000_000, 500), Some(2_000_499));
        assert_eq!(slot.renew(&holding, 1_000_000, 3_000, 500), Some(2_000_499), "never falls");
        slot.mark = u64::MAX >> 2;
        assert_eq!(slot.renew(&holding, u64::MAX >> 3, 3_000, 500), Some(u64::MAX >> 2));
    }

    #[test]
    fn a_mark_that_has_passed_frees_the_slot() {
        let mut slot = Slot::default();
        slot.hand_to(A, 1_000, 500);
        let holding = slot.holding(0, A, 1_000);
        assert_eq!(slot.renew(&holding, 1_500, 1_500, 500), None);
        assert_eq!(slot.owner, None);
        assert_eq!(slot.mark, 1_500, "what was allowed stays allowed once");
    }

    #[test]
    fn release_gives_back_what_was_not_used() {
        let mut slot = Slot::default();
        slot.hand_to(A, 1_000, 500);
        let holding = slot.holding(0, A, 1_000);
        slot.release(&Holding { nonce: B, ..holding }, 1_100);
        assert_eq!(slot.mark, 1_500, "not B's to release");
        slot.release(&holding, 1_100);
        assert_eq!((slot.owner, slot.mark), (None, 1_100));
        slot.hand_to(B, 900, 500);
        slot.release(&slot.holding(0, B, 900), 7);
        assert_eq!(slot.mark, 1_100, "never below the start");
    }
}
