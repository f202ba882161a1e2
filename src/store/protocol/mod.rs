//! The protocols by which nodes share a store, as pure state machines: no I/O, no clock, no randomness of their own.
//!
//! Each function takes what is kept, a message and the circumstances, changes what is kept and says what to answer. So the same
//! code serves the stores that run in this process, the models in `tests/models/` that search every interleaving for a
//! duplicate, and the differential tests that hold the store's scripts to it, call by call.

pub mod counter;
pub mod grant;
pub mod window;
