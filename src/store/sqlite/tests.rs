//! Failures of the embedded store, simulated.
