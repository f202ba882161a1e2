//! Sheds load: beyond so many requests in flight a request is answered at once that it is too much, before queues grow.
//!
//! A connection of HTTP/1.1 has one request in flight, and connections are bounded already: only requests that share a
//! connection (HTTP/2) are counted. So the usual request touches no counter that other threads write.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http::{Request, Version};
use pin_project_lite::pin_project;
use tower::{BoxError, Layer, Service};

use crate::language::{Language, Localized};

/// More requests in flight than are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit} requests are being served already")]
pub struct Overloaded {
    /// How many are allowed.
    pub limit: usize,
}

impl Localized for Overloaded {
    fn localized(&self, language: Language) -> String {
        match language {
            Language::English => self.to_string(),
            Language::Chinese => format!("已有 {} 个请求正在处理", self.limit),
        }
    }
}

/// Bounds requests in flight over all connections.
#[derive(Clone, Debug)]
pub struct OverloadLayer {
    in_flight: Arc<AtomicUsize>,
    limit: usize,
}

impl OverloadLayer {
    /// Allows `limit` requests in flight.
    pub fn new(limit: usize) -> Self {
        Self { in_flight: Arc::default(), limit }
    }
}

impl<S> Layer<S> for OverloadLayer {
    type Service = Overload<S>;

    fn layer(&self, inner: S) -> Overload<S> {
        Overload { inner, in_flight: Arc::clone(&self.in_flight), limit: self.limit }
    }
}

/// Service of [`OverloadLayer`].
#[derive(Clone, Debug)]
pub struct Overload<S> {
    inner: S,
    in_flight: Arc<AtomicUsize>,
    limit: usize,
}

impl<S, B> Service<Request<B>> for Overload<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shares = request.version() == Version::HTTP_2;
        let permit = shares.then(|| Permit::take(&self.in_flight, self.limit));
        let (admitted, permit) = match permit {
            None => (true, None),
            Some(permit) => (permit.is_some(), permit),
        };
        let future = admitted.then(|| self.inner.call(request));
        ResponseFuture { future, permit, limit: self.limit }
    }
}

/// One request in flight.
struct Permit(Arc<AtomicUsize>);

impl Permit {
    fn take(in_flight: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let before = in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = Self(Arc::clone(in_flight));
        (before < limit).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project! {
    /// Future of [`Overload`].
    pub struct ResponseFuture<F> {
        #[pin]
        future: Option<F>,
        permit: Option<Permit>,
        limit: usize,
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.future.as_pin_mut() {
            Some(future) => future.poll(cx).map_err(Into::into),
            None => Poll::Ready(Err(Overloaded { limit: *this.limit }.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::sync::Semaphore;
    use tower::{ServiceBuilder, service_fn};

    use super::*;

    #[tokio::test]
    async fn the_request_too_many_is_refused_and_the_next_is_not() {
        let gate = Arc::new(Semaphore::new(0));
        let inner = Arc::clone(&gate);
        let mut service =
            ServiceBuilder::new().layer(OverloadLayer::new(1)).service(service_fn(move |_: Request<()>| {
                let gate = Arc::clone(&inner);
                async move {
                    gate.acquire().await.expect("open").forget();
                    Ok::<_, Infallible>(())
                }
            }));
        let request = |version| {
            let mut request = Request::new(());
            *request.version_mut() = version;
            request
        };
        let first = service.call(request(Version::HTTP_2));
        let second = service.call(request(Version::HTTP_2)).await.expect_err("one is in flight");
        assert_eq!(second.downcast_ref(), Some(&Overloaded { limit: 1 }));
        gate.add_permits(3);
        service.call(request(Version::HTTP_11)).await.expect("bounded by its connection");
        first.await.expect("served");
        service.call(request(Version::HTTP_2)).await.expect("served");
    }
}
