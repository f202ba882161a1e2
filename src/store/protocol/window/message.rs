//! What workers and stores say to each other about windows.

use std::{fmt, ops::Range, time::Duration};

/// A moment in the domain of ID timestamps: milliseconds since the snowflake epoch.
pub type IdMillis = u64;

/// Names one holding of a worker slot; drawn anew for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nonce(pub [u8; 16]);

/// Names one stretch of a store's memory: another one begins whenever the store may have forgotten something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// As it is written in Redis: 16 hexadecimal digits.
impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A held slot: its holder issues timestamps `start < ts <= mark`, nobody else ever does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holding {
    /// The worker ID.
    pub slot: u32,
    /// Whose it is.
    pub nonce: Nonce,
    /// Rises with every change of holder.
    pub fence: u64,
    /// The mark that was found.
    pub start: IdMillis,
    /// The mark that was written.
    pub mark: IdMillis,
    /// The store's clock when it answered.
    pub now: IdMillis,
    /// The memory in which the store last confirmed it.
    pub generation: Generation,
}

/// On what terms a slot is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tenure {
    /// Until the holder no longer renews, and the mark has passed.
    #[default]
    Lease,
    /// By an operator's word. The holder has a mark elsewhere and goes on for as long as the store is away, so that no time is long enough for
    /// a lease to follow it.
    Fixed,
}

/// What a worker asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AcquireRequest {
    /// The name of the new holding; the same nonce asked again gets the same holding.
    pub nonce: Nonce,
    /// Slots that it may pick from, in this order of preference.
    pub slots: Range<u32>,
    /// How far the mark is to lie ahead of the store's clock, in ms.
    pub window_ms: u64,
    /// How long until a holder that does not renew may be looked at as dead, in ms.
    pub ttl_ms: u64,
    /// On what terms.
    pub tenure: Tenure,
}

/// Outcome of an ACQUIRE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Acquired {
    /// The slot is held.
    Held(Holding),
    /// Every slot is held or rests; ask again.
    NoSlot,
    /// The store may have forgotten holdings, and gives their holders this much longer to come forward; or its followers have left it, or do
    /// not answer, so that another may stand in for it. Ask again.
    Wait(Duration),
}

/// Outcome of a RENEW.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Renewed {
    /// The window reaches to `mark`; `now` is the store's clock.
    Extended {
        /// The new mark, never below the old one.
        mark: IdMillis,
        /// The store's clock.
        now: IdMillis,
        /// The memory that holds it now; goes into the holding.
        generation: Generation,
    },
    /// The slot has another holder, or the mark has passed: stop issuing from this holding.
    Lost,
}
