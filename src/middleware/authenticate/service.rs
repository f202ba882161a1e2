//! The service.

use std::{
    mem,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use http::{
    HeaderMap, HeaderValue, Request,
    header::{AUTHORIZATION, Entry},
};
use tower::{BoxError, Service};

use super::{ResponseFuture, Unauthenticated};
use crate::{
    auth::{Claims, Reconsideration, Rejection, Verifier},
    middleware::context::{Access, Context},
};

/// Lets in who bears a valid token; see the [module](super).
#[derive(Clone, Debug)]
pub struct Authenticate<S> {
    inner: S,
    verifier: Arc<Verifier>,
    memo: Option<Arc<Memo>>,
}

/// The field of the last request, and what came of it.
struct Memo {
    field: Box<[u8]>,
    epoch: u64,
    /// A copy of this connection's own: a count shared by all connections would travel between the processors.
    claims: Arc<Claims>,
}

/// What is known of a request without waiting.
enum Judgement {
    Accepted(Arc<Claims>),
    Refused(Rejection),
    /// New keys are on their way.
    Open(Reconsideration),
}

impl<S> Authenticate<S> {
    pub(super) fn new(inner: S, verifier: Arc<Verifier>) -> Self {
        Self { inner, verifier, memo: None }
    }

    fn judge(&mut self, field: &HeaderValue) -> Judgement {
        // Read before the verification: if keys change meanwhile, the memo is stale from the start.
        let epoch = self.verifier.epoch();
        if let Some(memo) = &self.memo
            && *memo.field == *field.as_bytes()
            && memo.epoch == epoch
            && memo.claims.holds_at(self.verifier.clock().coarse_now())
        {
            return Judgement::Accepted(Arc::clone(&memo.claims));
        }
        let token = match bearer(field) {
            Ok(token) => token,
            Err(rejection) => return Judgement::Refused(rejection),
        };
        match self.verifier.verify(token) {
            Ok(shared) => {
                let claims = Arc::new(Claims::clone(&shared));
                let memo = Memo { field: field.as_bytes().into(), epoch, claims: Arc::clone(&claims) };
                self.memo = Some(Arc::new(memo));
                Judgement::Accepted(claims)
            }
            Err(rejection) => match self.verifier.reconsider(rejection, token) {
                Some(reconsideration) => Judgement::Open(reconsideration),
                None => Judgement::Refused(rejection),
            },
        }
    }
}

impl<S, B> Service<Request<B>> for Authenticate<S>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let field = take_field(request.headers_mut());
        if Context::of(&request).is_some_and(|context| context.route.access == Access::Open) {
            return ResponseFuture::calling(self.inner.call(request));
        }
        let judgement = match &field {
            Ok(field) => self.judge(field),
            Err(rejection) => Judgement::Refused(*rejection),
        };
        match judgement {
            Judgement::Accepted(claims) => {
                Context::name_caller(&mut request, claims);
                ResponseFuture::calling(self.inner.call(request))
            }
            Judgement::Refused(rejection) => {
                ResponseFuture::refused(Unauthenticated::logged(rejection, &request))
            }
            Judgement::Open(reconsideration) => {
                // The clone takes the place of the service that is ready, which goes with the request.
                let clone = self.inner.clone();
                ResponseFuture::waiting(reconsideration, request, mem::replace(&mut self.inner, clone))
            }
        }
    }
}

/// Takes the one `Authorization` field off the request.
fn take_field(headers: &mut HeaderMap) -> Result<HeaderValue, Rejection> {
    if !headers.contains_key(AUTHORIZATION) {
        return Err(Rejection::Missing);
    }
    let Entry::Occupied(entry) = headers.entry(AUTHORIZATION) else { return Err(Rejection::Missing) };
    let (_, mut values) = entry.remove_entry_mult();
    match (values.next(), values.next()) {
        (Some(only), None) => Ok(only),
        (_, Some(_)) => Err(Rejection::Repeated),
        (None, None) => Err(Rejection::Missing),
    }
}

/// The token behind the scheme (RFC 9110, section 11.4): one space or more between them.
fn bearer(field: &HeaderValue) -> Result<&str, Rejection> {
    // A token is ASCII; a field that is not cannot hold one.
    let text = field.to_str().map_err(|_not_ascii| Rejection::Malformed)?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err(Rejection::Scheme);
    }
    let token = token.trim_start_matches(' ');
    if token.is_empty() { Err(Rejection::Malformed) } else { Ok(token) }
}

/// Shows neither field nor claims.
impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memo").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
