//! Keeps one caller from taking the place of the others.
//!
//! Two layers over one [`Limits`]:
//!
//! - [`AddressLimitLayer`] stands before authentication. It counts what an address sends without a token, and what is
//!   refused; an address that has used up its allowance is turned away at once. Requests that are let in cost nothing.
//! - [`RateLimitLayer`] stands behind it and counts by subject: requests for numbers, and all others. A batch is one
//!   request; the numbers in it are counted, where a limit is set, by [`IssuedQuota`] from the extensions.
//!
//! A third count has no layer, since the rule is known only to the handler: [`RuleLimits`], numbers by prefix key.
//!
//! The algorithm is GCRA (governor): an allowance of so much per second, with a burst of one second. Over it a request
//! is refused with [`Exceeded`], which knows what to write into `Retry-After`, `RateLimit` and `RateLimit-Policy`.
//!
//! Invariants: memory is bounded whatever keys arrive (`registry`); a request that is counted costs one compare-and-swap and
//! one look at the clock, because each connection remembers its bucket. Give each connection one clone of the services.
//!
//! New limits take effect with the next request: [`Limits::replace`].

mod address;
mod bucket;
mod error;
mod future;
mod layer;
mod limits;
mod registry;
mod rules;
mod service;

pub use self::{
    address::{AddressLimit, AddressLimitLayer},
    bucket::IssuedQuota,
    error::{Exceeded, Policy},
    future::ResponseFuture,
    layer::RateLimitLayer,
    limits::{Limits, Rates},
    rules::RuleLimits,
    service::RateLimit,
};

#[cfg(test)]
mod tests;
