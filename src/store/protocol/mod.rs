//! The rules by which numbers stay unique, as pure state machines: no I/O, no clock, no randomness of their own.
//!
//! Each function takes what is kept, a message and the circumstances, changes what is kept and says what to answer. So the same
//! code serves the stores that run in this process, the models in `tests/models/` that search every interleaving for a
//! duplicate, and the tests that hold the Lua scripts of Redis to it, call by call.

pub mod counter;
pub mod window;
