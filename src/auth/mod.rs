//! Who calls, and what that caller may do: JWT bearer tokens, held to RFC 8725.
//!
//! Invariants:
//!
//! - A key verifies by exactly one algorithm, which the key decides and never the token (`keys`). `none` is no algorithm.
//! - Nothing in a token is believed before its signature is verified; `kid` only picks among configured keys, and
//!   `jku`, `jwk`, `x5u` are not even read (`token`).
//! - A verification is remembered (`cache`) only until `exp`, and only under the keys that it was made with.
//! - No error, log line or `Debug` holds a token or a secret.
//!
//! Order: `scope`, `glob` and `claims` say what a caller may do; `token` takes one apart; `keys` verifies it; `jwks`
//! fetches keys; `verifier` puts them together; `mint` makes tokens.

mod cache;
mod claims;
#[cfg(test)]
pub(crate) mod forge;
mod glob;
mod jwks;
mod keys;
mod mint;
mod rejection;
mod scope;
#[cfg(test)]
mod tests;
mod token;
mod verifier;

pub use self::{
    claims::{Claims, Forbidden, LEEWAY},
    glob::Prefixes,
    jwks::{
        FetchError, HttpKeys, JwksStatus, KeySource, REFRESH_EVERY, UNKNOWN_KEY_PATIENCE, UNKNOWN_KEY_SPACING,
    },
    keys::{MIN_SECRET_BYTES, UnfitKey},
    mint::{Grant, MintError, mint},
    rejection::Rejection,
    scope::{Scope, Scopes, UnknownScope},
    verifier::{ConfiguredKeys, Reconsideration, Settings, SetupError, Verifier},
};

/// The longest token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
