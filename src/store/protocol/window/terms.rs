//! The figures of the protocol, and what a store contributes to each call.

use super::{Generation, IdMillis};

/// Names a server's memory from its own point of view: Redis' `master_replid`, which changes at a restart and at a promotion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u64);

/// What the store itself contributes to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Contact {
    /// Its clock.
    pub now: IdMillis,
    /// The clock by which holders count as alive, in ms: the same one, unless the store can tell better.
    pub presence_ms: u64,
    /// Which server it is.
    pub server: ServerId,
    /// Whether it can be stood in for.
    pub company: Company,
    /// A random name for the memory, should another one begin.
    pub fresh: Generation,
}

/// Whether other servers follow this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Company {
    /// No.
    #[default]
    Alone,
    /// Yes: one of them may be promoted.
    Followed,
}

/// When a slot whose holder is gone may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rest {
    /// When the clock has passed its mark: the holder may be paused, and go on issuing up to there.
    UntilMarkHasPassed,
    /// At once: something else proves that the holder is gone.
    None,
}

/// A rule that one of the invariants rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Guard {
    /// What is held is matched by its nonce.
    Nonce,
    /// What is held is matched by its fence, and the highest fence wins.
    Fence,
    /// A holding begins above the mark that it found.
    StartAtMark,
    /// A slot of another generation is entered a margin above its mark.
    Margin,
    /// Nobody acquires while the store settles.
    Settling,
    /// A generation that is there is adopted, not replaced by one's own.
    AdoptGeneration,
    /// RELEASE is for the present holding only.
    ReleaseMatches,
    /// A renewal follows the store's clock only so far.
    RenewBound,
    /// An old answer is dropped.
    FreshReplies,
    /// A memory that was left for another one is not heeded.
    LeftForGood,
    /// A server that its followers have just left hands nothing out.
    Deserted,
}

impl Guard {
    /// Every guard.
    pub const ALL: [Self; 11] = [
        Self::Nonce,
        Self::Fence,
        Self::StartAtMark,
        Self::Margin,
        Self::Settling,
        Self::AdoptGeneration,
        Self::ReleaseMatches,
        Self::RenewBound,
        Self::FreshReplies,
        Self::LeftForGood,
        Self::Deserted,
    ];
}

/// The figures by which a store and its workers play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Terms {
    /// How long holders have to come forward after the store may have forgotten them, in ms.
    pub settling_ms: u64,
    /// How much of a mark the store may have forgotten, in ms.
    pub margin_ms: u64,
    /// How far the store's clock may run ahead of what a holder believes before its word is cut off, in ms.
    pub carry_limit_ms: u64,
    /// How old an answer may be, in ms; well below the settling.
    pub stale_ms: u64,
    /// How long a server that nobody follows any more hands nothing out, in ms: they may follow another one, which does.
    pub deserted_ms: u64,
    /// When a slot whose holder is gone may be taken.
    pub rest: Rest,
    /// The guard that a model takes away to see that it is needed; `None` in service.
    pub without: Option<Guard>,
}

impl Terms {
    /// For a store that others use, too, and that may forget.
    pub const SHARED: Self = Self {
        settling_ms: 5_000,
        margin_ms: 60_000,
        carry_limit_ms: 5_000,
        stale_ms: 1_000,
        deserted_ms: 30_000,
        rest: Rest::UntilMarkHasPassed,
        without: None,
    };

    /// For a store that only this process uses and that forgets nothing: what is not held here is not held at all.
    pub const EXCLUSIVE: Self =
        Self { settling_ms: 0, margin_ms: 0, stale_ms: u64::MAX, rest: Rest::None, ..Self::SHARED };

    pub(super) fn keeps(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }
}
