//! Lets in who bears a valid token.
//!
//! - Reads `Authorization: Bearer` (RFC 6750, section 2.1; the scheme in any case), exactly one field of it.
//! - Puts the [`Claims`](crate::auth::Claims) of the bearer, in an `Arc`, into the [`Context`](crate::middleware::context::Context) of the request.
//! - Takes the field off the request, also on open paths: nothing behind this layer can log a token.
//! - Refuses with [`Unauthenticated`], and logs that once: reason, address and route, never the token nor the query.
//!
//! Give each connection one clone and call that one for each of its requests: it remembers the field of the last request, so
//! that the usual case is one comparison of bytes and one look at the clock. A clone for each request works as well, with the
//! verifier's shared cache behind it.
//!
//! A token whose key is unknown waits for new keys if they are being fetched; see
//! [`Verifier::reconsider`](crate::auth::Verifier::reconsider).

mod error;
mod future;
mod layer;
mod service;

pub use self::{
    error::Unauthenticated, future::ResponseFuture, layer::AuthenticateLayer, service::Authenticate,
};

#[cfg(test)]
mod tests;
