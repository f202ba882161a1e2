//! Snowflake IDs: 63 bits of time, data centre, worker and sequence. Pure arithmetic over an injected time.
//!
//! Invariants (worker windows, `docs/protocols.md`):
//!
//! 1. A [`Sequencer`] belongs to one holding of a worker slot and issues only timestamps `start < ts <= mark`. Windows of
//!    a slot are disjoint, hence so are the IDs of any two holdings, whatever their clocks say.
//! 2. Within a holding (timestamp, sequence) rises strictly: it is one integer, and drawing adds to it.
//! 3. No bit of one field ever spills into another: a field that is full is an error, not a wrap.
//!
//! Reading order: `layout` (the bits), `generator` (drawing), `ids` (what is drawn from at the moment).

mod generator;
mod ids;
mod layout;

pub use generator::{DrawError, Drawn, IdClock, Sequencer};
pub use ids::Ids;
pub use layout::{IdParts, InvalidLayout, Layout};
