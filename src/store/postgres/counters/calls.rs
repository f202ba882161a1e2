//! The steps of a counter: each is the function of the same name of [`Authority`].

use super::{
    holes,
    step::{Ground, Step},
};
use crate::{
    counter::{SequenceValue, ValueRange},
    store::protocol::counter::{
        Abandon, Abandoned, Advance, Authority, ClaimAsk, Fenced, Outcome, Reply, Stride, Take,
    },
};

/// [`Authority::serve`].
pub(super) struct Serve<'a>(pub(super) &'a Take);

impl Step for Serve<'_> {
    type Answer = Reply;

    fn claims(&self) -> &[ClaimAsk] {
        &self.0.claims
    }

    fn spoken_of(&self, counter: &Authority, now: u64) -> Vec<ValueRange> {
        holes::spoken_of(counter, self.0, now)
    }

    fn run(&self, on: Ground<'_>) -> Reply {
        Authority::serve(on.slot, on.marker, on.instance, on.now, on.fresh, self.0)
    }

    fn is_blocked(reply: &Reply) -> bool {
        matches!(reply, Reply::Taken { outcome: Outcome::Blocked { .. }, .. })
    }
}

/// [`Authority::fence`].
pub(super) struct Fence {
    pub(super) scheme: u64,
}

impl Step for Fence {
    type Answer = Fenced;

    fn run(&self, on: Ground<'_>) -> Fenced {
        Authority::fence(on.slot, on.marker, on.instance, on.now, on.fresh, self.scheme)
    }
}

/// [`Authority::advance`].
pub(super) struct MoveUp {
    pub(super) to: SequenceValue,
    pub(super) stride: Stride,
}

impl Step for MoveUp {
    type Answer = Advance;

    fn run(&self, on: Ground<'_>) -> Advance {
        let counter = Authority::in_force(on.slot, on.marker, on.instance, on.now, on.fresh);
        counter.map_or(Advance::Unknown, |counter| counter.advance(self.to, self.stride, on.now))
    }

    fn is_blocked(answer: &Advance) -> bool {
        matches!(answer, Advance::Held { alive: true, .. })
    }
}

/// [`Authority::abandon`].
pub(super) struct GiveUp<'a>(pub(super) &'a Abandon);

impl Step for GiveUp<'_> {
    type Answer = Abandoned;

    fn run(&self, on: Ground<'_>) -> Abandoned {
        let counter = Authority::in_force(on.slot, on.marker, on.instance, on.now, on.fresh);
        counter.map_or(Abandoned::Unknown, |counter| counter.abandon(self.0, on.now))
    }
}
