//! The continuous counter that many nodes share (`docs/protocols.md`, continuous counters): pure, no I/O.
//!
//! An [`Authority`] (one for each counter, at the store) owns the cursor; a [`Node`] (one for each counter and process) asks it by one
//! kind of message, [`Take`], and keeps a segment for the time in which it does not answer. The store's script does what
//! [`Authority`] does, and a differential test holds the two together; the service runs [`Node`] as it is; the model checker runs both.
//!
//! # Invariants
//!
//! 1. **Nothing is issued twice.** A value is issued by the node whose TAKE drew it, or by the node whose segment it lies in. A TAKE draws only
//!    above the cursor and outside every segment and every value known to be used; the cursor then stands at or above what was
//!    drawn, and never falls. A segment is reserved from before its node hears of it until the node has said that it holds another, or none.
//! 2. **Exactly once.** A call carries a number that rises; asked again it gets the recorded answer, asked late it gets [`Reply::Stale`].
//! 3. **What was forgotten is noticed.** The marker of the store ([`Instance`]) says under which generation a counter was blessed; after a
//!    restart, a failover or a loss there is a new random generation. A node that has heard of it throws away replies of the
//!    earlier one, does not go back to it, and reports before it draws. The cursor goes on above everything that was reported, and above more than
//!    could have been lost where somebody is silent.
//! 4. **No silent hole.** Every value above the base and at or below the cursor was issued, or is listed with its reason.
//! 5. **A retired scheme draws nothing.** When a prefix key counts in other periods than before, its rule comes to begin above
//!    everything that was issued; so nothing may be issued under the old rule once that was read. A counter keeps the highest
//!    scheme that it has heard of, and a message of a lower one only reports and gives back. Retiring closes first the list of the
//!    key's counters to lower schemes (a counter is on it, and allowed, before its first message), then *fences* every counter on it, those that
//!    do not exist yet included, and answers the highest value that was issued or lies in a segment: nodes that are away may issue that.
//! 6. **No needless hole.** While all nodes beat, the cursor does not pass a segment: it lies ahead and is swapped for one further ahead in time.
//!
//! # When a store comes apart
//!
//! Two masters at once, after a failover that the earlier one has not heard of: invariant 3 gives the later one another generation and sends it above what
//! the earlier one is believed to draw meanwhile. That holds only as long as nobody carries the one's numbers to the other. So:
//!
//! - A node never follows a generation that it has left ([`Generations`]). It draws nothing there, takes nothing in, and goes on as if the store
//!   was away ([`Heard::Left`]) until it meets the right one again; its unanswered call is repeated there.
//! - A store heeds what a node has `seen` only if the node speaks under its generation, so that a node that strays in does not lift the
//!   cursor of the one to where the other draws.
//! - No node is stuck for ever. Where a left generation stays in force for long, the other store is gone for good, or data were put back under a
//!   living server. Then the node asks for its end ([`Take::distrusts`]): compared and swapped, so that of many who ask one is heard;
//!   what begins is a recovery as after any loss, with settling, reports, and a skip for who is silent.
//!
//! # Order
//!
//! `message` is what is said; `authority` is the store's side; `node` is the other, with the `generations` that it follows; `range_set` the arithmetic.

mod authority;
mod generations;
mod message;
mod node;
mod range_set;
#[cfg(test)]
mod tests;

pub use authority::{
    Abandon, Abandoned, Advance, Ahead, Authority, Entry, Fenced, Hole, Member, Rate, Record, Recovery,
    Settled, Stride,
};
pub use generations::{Followed, Generations};
pub use message::{
    ClaimAnswer, ClaimAsk, Generation, Incarnation, Instance, Limits, Marker, Outcome, Reply, SETTLING_MS,
    Segment, Take, Wants,
};
pub use node::{Ask, Heard, Node, NodeState, STRANDED_MS};
pub use range_set::RangeSet;
