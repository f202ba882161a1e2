//! The integration tests: one binary, so that the crate is linked once.
//!
//! Everything here sees the service from outside: its sources as text, or the built binary as a process that is
//! spoken to over real sockets, killed and started again.

mod contract;
mod layering;
