//! Grants: how one PostgreSQL lets several Redis issue values of one counter (`docs/protocols.md`, grants): pure, no I/O.
//!
//! A [`Line`] (one for each counter, in PostgreSQL) owns the number line. It grants ranges: to a Redis, that is to one data centre in
//! one generation of its memory, or, for once, to a node that cannot reach its Redis. A [`Book`] (one for each counter and process) knows
//! which grants the Redis of this node has; every message to that Redis carries the limits of one ([`Book::limits`]). So a Redis issues
//! inside a grant and knows nothing of grants.
//!
//! # Invariants
//!
//! 1. **No value is granted twice.** A grant begins above everything that was ever granted, moved past, or is known to have been issued
//!    before there were grants.
//! 2. **A grant is for one generation.** A message draws, or places a segment, only inside grants of the generation that it speaks of,
//!    and an authority serves it only in that generation. The memory of a Redis has one history within a generation: what was
//!    rolled back, emptied or promoted is in another. So two Redis that come apart draw from different grants, however long
//!    they stay apart, and what a Redis has forgotten lies in a grant that nobody draws from any more.
//! 3. **A generation that was followed by another is over**: it goes on inside the grants that it has, and gets no further ones. What is
//!    left of them is listed once, when the next generation is first granted something.
//! 4. **Asking again grants nothing again.** The grants of a Redis are a chain: whoever asks for the one after a grant gets what follows
//!    it already, if anything does. What is drawn for once is drawn under the name of a request.
//! 5. **No needless hole.** Grants of one Redis that touch are one run. Where another data centre took what lies between, the present run
//!    is used up first; the next is asked for in the background when a fifth of the last grant is left.
//!
//! From 1 and 2 follows that nothing is issued twice, whatever the authorities remember; recovery only keeps the order.
//!
//! # Order
//!
//! `line` is the side of PostgreSQL, `book` that of the node.

mod book;
mod line;
#[cfg(test)]
mod tests;

pub use book::{Book, grant_size};
pub use line::{Line, Row, Rows, Standing, State};

use super::counter::{Generation, Limits};
use crate::counter::{SequenceValue, ValueRange};

/// The least that a grant holds, unless that is too much of what is left.
pub const LEAST: u64 = 10_000;

/// What is left of a bounded line is granted in parts no larger than this fraction of it: whatever happens to a grant costs no more.
const PART: u64 = 8;

/// How long a grant lasts at least, at the recent peak rate, in seconds.
pub const LASTS_S: u64 = 60;

/// To whom a grant was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recipient {
    /// The data centre of a Redis.
    pub datacenter: u32,
    /// The generation of its memory.
    pub generation: Generation,
}

/// Names a grant among those of its counter: they count up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(pub u64);

/// Values that one recipient may issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Its name.
    pub id: GrantId,
    /// Which values.
    pub range: ValueRange,
}

/// What a node asks for on behalf of its Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Need {
    /// The generation in which its Redis is.
    pub generation: Generation,
    /// The last grant that it knows of; `None`: none.
    pub after: Option<GrantId>,
    /// The cursor of its Redis.
    pub cursor: SequenceValue,
    /// The highest value that its Redis knows to be issued or held.
    pub known: SequenceValue,
    /// The same, and the highest that the node knows to be granted.
    pub seen: SequenceValue,
    /// The limits of the rule.
    pub limits: Limits,
    /// How many values it would like.
    pub size: u64,
    /// How many it needs at once.
    pub count: u64,
}

/// What it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// These, ascending, at least one; all of them follow the one that was named.
    Grants(Vec<Grant>),
    /// Nothing is left up to the limit.
    Exhausted,
    /// The scheme was retired.
    Superseded,
    /// Another generation has followed.
    Over,
}

/// A draw for once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Draw {
    /// Names it; random.
    pub request: u128,
    /// The highest value that the node knows to be issued, held or granted.
    pub seen: SequenceValue,
    /// The limits of the rule.
    pub limits: Limits,
    /// How many values.
    pub count: u64,
}

/// What it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn {
    /// These values, to be issued by whoever asked.
    Values(ValueRange),
    /// So many are left up to the limit, too few.
    Overflow {
        /// How many.
        left: u64,
    },
    /// The scheme was retired.
    Superseded,
}

/// What became of moving a line up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// What is granted from now on lies above.
    Done,
    /// Another data centre has a grant there.
    Held {
        /// Which.
        datacenter: u32,
    },
}
