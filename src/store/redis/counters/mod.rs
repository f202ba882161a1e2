//! Continuous counters on Redis: the authority that the nodes of [`store::counters`](crate::store::counters) ask.
//!
//! # Invariants
//!
//! The scripts do what [`Authority`](crate::store::protocol::counter::Authority) does, each in one step, and a
//! differential test holds them to it (`tests/it/counter_script.rs`). Every key of a counter carries the tag
//! `{sequence:<counter>}`, so that one slot of a cluster has them all; the plain key `sequence:<counter>` is written by every
//! script that moves the cursor.
//!
//! Order of reading: `wire.rs` (what is sent and answered), `authority.rs` (the calls), `link.rs` (as a node sees them), then the
//! scripts: `values.lua` (numbers up to `u64::MAX`), `healthy.lua` (the path of a counter that is well), `authority.lua`
//! (everything else), and an end for each call.

mod authority;
mod link;
mod wire;

pub use authority::RedisAuthority;
pub use link::RedisLink;
