//! The service that counts by subject.

use std::{
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use http::Request;
use tower::{BoxError, Service};

use super::{Exceeded, IssuedQuota, Limits, ResponseFuture, bucket::Bucket};
use crate::middleware::context::{Class, Context};

/// Counts requests by the subject that authentication found; who needed none is not counted here. See the
/// [module](super).
#[derive(Clone, Debug)]
pub struct RateLimit<S> {
    inner: S,
    limits: Arc<Limits>,
    numbers: Option<Memo>,
    management: Option<Memo>,
}

/// The buckets of the last subject of a class.
#[derive(Clone, Debug)]
struct Memo {
    generation: u64,
    subject: Arc<str>,
    requests: Option<Arc<Bucket>>,
    issued: Option<IssuedQuota>,
}

impl Memo {
    fn look_up(limits: &Limits, generation: u64, class: Class, subject: &Arc<str>) -> Self {
        let (requests, issued) = match class {
            Class::Numbers => (limits.numbers(subject), limits.issued(subject)),
            Class::Management => (limits.management(subject), None),
        };
        let issued = issued.map(IssuedQuota::new);
        Self { generation, subject: Arc::clone(subject), requests, issued }
    }

    fn is_of(&self, subject: &Arc<str>, generation: u64) -> bool {
        self.generation == generation && (Arc::ptr_eq(&self.subject, subject) || self.subject == *subject)
    }
}

impl<S> RateLimit<S> {
    pub(super) fn new(inner: S, limits: Arc<Limits>) -> Self {
        Self { inner, limits, numbers: None, management: None }
    }

    /// Takes one request off the caller's allowance.
    fn count<B>(&mut self, request: &mut Request<B>) -> Result<(), Exceeded> {
        let Some(context) = Context::of(request) else { return Ok(()) };
        let Some(claims) = &context.caller else { return Ok(()) };
        let class = context.route.class;
        let generation = self.limits.generation();
        let slot = match class {
            Class::Numbers => &mut self.numbers,
            Class::Management => &mut self.management,
        };
        let memo = match slot.take().filter(|memo| memo.is_of(&claims.subject, generation)) {
            Some(memo) => slot.insert(memo),
            None => slot.insert(Memo::look_up(&self.limits, generation, class, &claims.subject)),
        };
        if let Some(bucket) = &memo.requests {
            bucket.take()?;
        }
        if let Some(quota) = &memo.issued {
            request.extensions_mut().insert(quota.clone());
        }
        Ok(())
    }
}

impl<S, B> Service<Request<B>> for RateLimit<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.count(&mut request) {
            Ok(()) => ResponseFuture::calling(self.inner.call(request)),
            Err(exceeded) => ResponseFuture::refused(exceeded),
        }
    }
}
