//! Traces and measures requests: one span, one observation and one line of the access log each.
//!
//! The span is at level `debug`, so that it costs nothing unless somebody looks. The access line is at `debug` for what went
//! well and what the caller did wrong, at `warn` for what we did.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::Span;

use super::request_id::RequestId;
use crate::clock::Clock;

/// Who is told of each request, and how a request is labelled.
pub trait Observer: Send + Sync + 'static {
    /// The label of a path: a route's pattern, never the path itself, which has no bound.
    fn route(&self, path: &str) -> &'static str;

    /// One request is over.
    fn observe(&self, route: &'static str, method: &Method, status: StatusCode, elapsed: Duration);
}

/// Observes requests.
#[derive(Clone)]
pub struct ObserveLayer {
    observer: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
}

impl ObserveLayer {
    /// Tells `observer` of each request.
    pub fn new(observer: Arc<dyn Observer>, clock: Arc<dyn Clock>) -> Self {
        Self { observer, clock }
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { inner, layer: self.clone() }
    }
}

/// Service of [`ObserveLayer`].
#[derive(Clone)]
pub struct Observe<S> {
    inner: S,
    layer: ObserveLayer,
}

impl<S, B, R> Service<Request<B>> for Observe<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let route = self.layer.observer.route(request.uri().path());
        let id = request.extensions().get::<RequestId>().map_or("", RequestId::as_str);
        let span = tracing::debug_span!(
            target: "numgen::request",
            "request",
            request_id = id,
            method = request.method().as_str(),
            route,
        );
        let method = request.method().clone();
        let started = self.layer.clock.monotonic();
        let future = {
            let _entered = span.enter();
            self.inner.call(request)
        };
        ResponseFuture { future, span, route, method, started, layer: self.layer.clone() }
    }
}

pin_project! {
    /// Future of [`Observe`].
    pub struct ResponseFuture<F> {
        #[pin]
        future: F,
        span: Span,
        route: &'static str,
        method: Method,
        started: Duration,
        layer: ObserveLayer,
    }
}

impl<F, R> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        let Ok(response) = ready!(this.future.poll(cx));
        let elapsed = this.layer.clock.monotonic().saturating_sub(*this.started);
        let status = response.status();
        this.layer.observer.observe(this.route, this.method, status, elapsed);
        let elapsed_us = elapsed.as_micros();
        if status.is_server_error() {
            tracing::warn!(target: "numgen::access", route = *this.route, method = %this.method, status = status.as_u16(), elapsed_us, "served");
        } else {
            tracing::debug!(target: "numgen::access", route = *this.route, method = %this.method, status = status.as_u16(), elapsed_us, "served");
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tower::{ServiceBuilder, ServiceExt, service_fn};

    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    #[derive(Default)]
    struct Notes(Mutex<Vec<(String, StatusCode, Duration)>>);

    impl Observer for Notes {
        fn route(&self, path: &str) -> &'static str {
            if path == "/a" { "/a" } else { "other" }
        }

        fn observe(&self, route: &'static str, method: &Method, status: StatusCode, elapsed: Duration) {
            self.0.lock().expect("no panic").push((format!("{method} {route}"), status, elapsed));
        }
    }

    #[tokio::test]
    async fn every_status_is_observed_with_its_time() {
        let (notes, clock) = (Arc::new(Notes::default()), Arc::new(ManualClock::at(UnixMillis(0))));
        let inner = Arc::clone(&clock);
        let service =
            ServiceBuilder::new().layer(ObserveLayer::new(notes.clone(), clock)).service(service_fn(
                move |request: Request<()>| {
                    inner.advance(Duration::from_millis(7));
                    let status = if request.uri().path() == "/a" { StatusCode::OK } else { StatusCode::NOT_FOUND };
                    let mut response = Response::new(());
                    *response.status_mut() = status;
                    std::future::ready(Ok::<_, Infallible>(response))
                },
            ));
        for path in ["/a", "/b"] {
            let request = Request::get(path).body(()).expect("valid");
            service.clone().oneshot(request).await.expect("infallible");
        }
        let seven = Duration::from_millis(7);
        assert_eq!(
            *notes.0.lock().expect("no panic"),
            [("GET /a".into(), StatusCode::OK, seven), ("GET other".into(), StatusCode::NOT_FOUND, seven)]
        );
    }
}
