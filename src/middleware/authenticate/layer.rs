//! The layer.

use std::sync::Arc;

use tower::Layer;

use super::Authenticate;
use crate::auth::Verifier;

/// Puts [`Authenticate`] around a service.
#[derive(Clone, Debug)]
pub struct AuthenticateLayer {
    verifier: Arc<Verifier>,
}

impl AuthenticateLayer {
    /// Lets in what `verifier` accepts, and everybody to open routes ([`Context`](crate::middleware::context::Context)).
    pub fn new(verifier: Arc<Verifier>) -> Self {
        Self { verifier }
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authenticate::new(inner, Arc::clone(&self.verifier))
    }
}
