//! The layer.

use std::sync::Arc;

use http::Method;
use tower::Layer;

use super::Authenticate;
use crate::auth::Verifier;

/// Puts [`Authenticate`] around a service.
#[derive(Clone, Debug)]
pub struct AuthenticateLayer {
    verifier: Arc<Verifier>,
    is_open: fn(&Method, &str) -> bool,
}

impl AuthenticateLayer {
    /// Lets in what `verifier` accepts, and everybody to paths for which `is_open` says yes.
    pub fn new(verifier: Arc<Verifier>, is_open: fn(&Method, &str) -> bool) -> Self {
        Self { verifier, is_open }
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authenticate::new(inner, Arc::clone(&self.verifier), self.is_open)
    }
}
