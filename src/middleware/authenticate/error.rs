//! The refusal.

use http::Request;

use crate::{
    auth::Rejection,
    language::{Language, Localized},
    middleware::context::Context,
};

/// The request bears no valid token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unauthenticated(pub Rejection);

impl Unauthenticated {
    /// Makes a security event of it. Nothing further on logs it again.
    pub(super) fn logged<B>(rejection: Rejection, request: &Request<B>) -> Self {
        let context = Context::of(request);
        tracing::warn!(
            request_id = context.map(|context| context.id.as_str()),
            trace_id = context.and_then(|context| context.trace).map(|trace| display(trace.trace_id())),
            reason = rejection.reason(),
            address = context.map(|context| display(context.sender)),
            route = request.uri().path(),
            status = 401,
            "request not authenticated"
        );
        Self(rejection)
    }
}

impl Localized for Unauthenticated {
    fn localized(&self, language: Language) -> String {
        self.0.localized(language)
    }
}
