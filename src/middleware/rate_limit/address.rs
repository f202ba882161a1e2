//! Counting what an address sends without being let in.

use std::{
    net::IpAddr,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use http::{Request, header::AUTHORIZATION};
use tower::{BoxError, Layer, Service};

use super::{Exceeded, Limits, ResponseFuture, bucket::Bucket};
use crate::middleware::context::Context;

/// Puts [`AddressLimit`] around a service.
#[derive(Clone, Debug)]
pub struct AddressLimitLayer {
    limits: Arc<Limits>,
    is_refusal: fn(&BoxError) -> bool,
}

impl AddressLimitLayer {
    /// Counts requests without a token, and those with one that end in an error for which `is_refusal` says yes.
    pub fn new(limits: Arc<Limits>, is_refusal: fn(&BoxError) -> bool) -> Self {
        Self { limits, is_refusal }
    }
}

impl<S> Layer<S> for AddressLimitLayer {
    type Service = AddressLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AddressLimit { inner, limits: Arc::clone(&self.limits), is_refusal: self.is_refusal, memo: None }
    }
}

/// Turns away addresses that have used up their allowance of refusals. A request whose address is not known
/// ([`Context`]) is not counted. See the [module](super).
#[derive(Clone, Debug)]
pub struct AddressLimit<S> {
    inner: S,
    limits: Arc<Limits>,
    is_refusal: fn(&BoxError) -> bool,
    memo: Option<Memo>,
}

#[derive(Clone, Debug)]
struct Memo {
    generation: u64,
    address: IpAddr,
    /// `None`: no limit. Counted per connection, so that requests do not fight over the count of the bucket's owners.
    charge: Option<Arc<Charge>>,
}

/// Whom to charge, and for what.
#[derive(Debug)]
pub(super) struct Charge {
    bucket: Arc<Bucket>,
    is_refusal: fn(&BoxError) -> bool,
}

impl Charge {
    /// Charges the address if the request was refused.
    pub(super) fn settle(&self, error: &BoxError) {
        if (self.is_refusal)(error) {
            self.bucket.charge();
        }
    }
}

impl<S> AddressLimit<S> {
    fn charge_for<B>(&mut self, request: &Request<B>) -> Option<&Arc<Charge>> {
        let address = Context::of(request)?.sender;
        let generation = self.limits.generation();
        let known = self.memo.take().filter(|memo| memo.generation == generation && memo.address == address);
        let memo = known.unwrap_or_else(|| {
            let charge = |bucket| Arc::new(Charge { bucket, is_refusal: self.is_refusal });
            Memo { generation, address, charge: self.limits.address(address).map(charge) }
        });
        self.memo.insert(memo).charge.as_ref()
    }

    /// Whom to charge if the request is refused; `None`: nobody, or it has been charged already.
    fn admit<B>(&mut self, request: &Request<B>) -> Result<Option<Arc<Charge>>, Exceeded> {
        let has_token = request.headers().contains_key(AUTHORIZATION);
        let Some(charge) = self.charge_for(request) else { return Ok(None) };
        if has_token {
            charge.bucket.ensure_left()?;
            Ok(Some(Arc::clone(charge)))
        } else {
            // Without a token it can only be unauthenticated.
            charge.bucket.take()?;
            Ok(None)
        }
    }
}

impl<S, B> Service<Request<B>> for AddressLimit<S>
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.admit(&request) {
            Ok(Some(charge)) => ResponseFuture::charging(self.inner.call(request), charge),
            Ok(None) => ResponseFuture::calling(self.inner.call(request)),
            Err(exceeded) => ResponseFuture::refused(exceeded),
        }
    }
}
