//! The protocols by which nodes share a store, as pure state machines: no I/O, no clock, no randomness of their own.
//!
//! The service runs them, the model checker explores them (`tests/models/`), and differential tests hold the store's scripts to
//! them.

pub mod counter;
