//! Turns a panic of an inner service into an error, so that it ends one request and not the connection's others.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower::{BoxError, Layer, Service};

/// A request's code panicked. The message is in the log, never in the answer.
#[derive(Debug, thiserror::Error)]
#[error("the request's code panicked")]
pub struct Panicked;

/// Catches panics.
#[derive(Clone, Copy, Debug, Default)]
pub struct CatchPanicLayer;

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic { inner }
    }
}

/// Service of [`CatchPanicLayer`].
#[derive(Clone, Debug)]
pub struct CatchPanic<S> {
    inner: S,
}

impl<S, R> Service<R> for CatchPanic<S>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // What a panic may leave behind half done is behind locks that ignore poison and stores that roll back.
        ResponseFuture { future: catch_unwind(AssertUnwindSafe(|| self.inner.call(request))).ok() }
    }
}

pin_project! {
    /// Future of [`CatchPanic`].
    pub struct ResponseFuture<F> {
        #[pin]
        future: Option<F>,
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = self.project().future.as_pin_mut() else {
            return Poll::Ready(Err(Panicked.into()));
        };
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(polled) => polled.map_err(Into::into),
            Err(_panic) => Poll::Ready(Err(Panicked.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceBuilder, ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_error() {
        let mut service =
            ServiceBuilder::new().layer(CatchPanicLayer).service(service_fn(async |divisor: u32| {
                assert_ne!(divisor, 0, "planted");
                Ok::<_, Infallible>(10 / divisor)
            }));
        let error = service.ready().await.expect("ready").call(0).await.expect_err("it panics");
        assert!(error.is::<Panicked>());
        assert_eq!(service.ready().await.expect("ready").call(5).await.expect("it lives on"), 2);
    }
}
