//! Models: every interleaving of a few nodes, a store and their faults, searched for a number that is issued twice.
//!
//! The transition functions are those of the service (`numgen::store::protocol`). Each guard of a protocol has a mutant: the
//! model without it, which must find the duplicate; so a guard that is lost is noticed, and one that carries nothing, too.

mod counter;
mod grant;
mod marks;
mod windows;
