//! The layer that counts by subject.

use std::sync::Arc;

use http::{Method, Uri};
use tower::Layer;

use super::{Class, Limits, RateLimit};

/// Puts [`RateLimit`] around a service.
#[derive(Clone, Debug)]
pub struct RateLimitLayer {
    limits: Arc<Limits>,
    classify: fn(&Method, &Uri) -> Class,
}

impl RateLimitLayer {
    /// Counts each request in the class that `classify` puts it in.
    pub fn new(limits: Arc<Limits>, classify: fn(&Method, &Uri) -> Class) -> Self {
        Self { limits, classify }
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit::new(inner, Arc::clone(&self.limits), self.classify)
    }
}
