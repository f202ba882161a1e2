//! Continuous counters on PostgreSQL: the authority that the nodes of [`store::counters`](crate::store::counters) ask.
//!
//! # Invariants
//!
//! 1. A step of a counter is one transaction, under the lock of its row, in which the functions of
//!    [`Authority`](crate::store::protocol::counter::Authority) run as they are. So a step happens whole or not at all, and one whose
//!    COMMIT was not answered is found out by sending it again.
//! 2. A database that may have forgotten something is not believed: see `marker.rs`.
//! 3. An idempotency key draws once, under whatever counter or mode: see `records.rs`.
//! 4. The row of a counter stays small, however many holes and records it has.
//!
//! Order of reading: `migrations/0003_counters.sql` (the tables), `step.rs` (one transaction), `marker.rs`, `state.rs`, `holes.rs` and
//! `records.rs` (its parts), `calls.rs` (each step), `list.rs` (which counters a prefix key has), `link.rs` (as a node sees it all).

mod calls;
mod holes;
mod link;
mod list;
mod marker;
mod records;
mod state;
mod step;

pub use link::PostgresLink;
pub(super) use step::read;

/// What nodes tell each other: a counter whose segment is in the way.
const SWAP: &str = "swap";
