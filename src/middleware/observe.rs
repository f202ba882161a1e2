//! Traces and measures requests: one span, one observation and one line of the access log each.
//!
//! The span is at level `debug`, so that it costs nothing unless somebody looks. The access line is at `debug` for what went
//! well and what the caller did wrong, at `warn` for what we did.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use http::{Method, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::Span;

use super::context::Context;
use crate::{clock::Clock, telemetry::HttpMetrics};

/// Observes requests.
#[derive(Clone, Debug)]
pub struct ObserveLayer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    metrics: HttpMetrics,
    clock: Arc<dyn Clock>,
}

impl ObserveLayer {
    /// Counts and times requests in `metrics`, by route ([`Context`]).
    pub fn new(metrics: HttpMetrics, clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared { metrics, clock }) }
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { inner, shared: Arc::clone(&self.shared) }
    }
}

/// Service of [`ObserveLayer`].
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, B, R> Service<Request<B>> for Observe<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let context = Context::of(&request);
        let route = context.map_or((usize::MAX, ""), |context| (context.route.index, context.route.label));
        let span = tracing::debug_span!(
            target: "numgen::request",
            "request",
            request_id = context.map_or("", |context| context.id.as_str()),
            method = request.method().as_str(),
            route = route.1,
        );
        let method = request.method().clone();
        let started = self.shared.clock.monotonic();
        let future = {
            let _entered = span.enter();
            self.inner.call(request)
        };
        ResponseFuture { future, span, route, method, started, shared: Arc::clone(&self.shared) }
    }
}

pin_project! {
    /// Future of [`Observe`].
    pub struct ResponseFuture<F> {
        #[pin]
        future: F,
        span: Span,
        route: (usize, &'static str),
        method: Method,
        started: Duration,
        shared: Arc<Shared>,
    }
}

impl<F, R> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        let Ok(response) = ready!(this.future.poll(cx));
        let elapsed = this.shared.clock.monotonic().saturating_sub(*this.started);
        let status = response.status();
        this.shared.metrics.record(this.route.0, this.method, status, elapsed);
        let elapsed_us = elapsed.as_micros();
        if status.is_server_error() {
            tracing::warn!(target: "numgen::access", route = this.route.1, method = %this.method, status = status.as_u16(), elapsed_us, "served");
        } else {
            tracing::debug!(target: "numgen::access", route = this.route.1, method = %this.method, status = status.as_u16(), elapsed_us, "served");
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::StatusCode;
    use tower::{ServiceBuilder, ServiceExt, service_fn};

    use super::*;
    use crate::{
        clock::{ManualClock, UnixMillis},
        middleware::context::{ContextLayer, RouteInfo},
        telemetry::Metrics,
    };

    #[tokio::test]
    async fn every_status_is_observed_with_its_time() {
        let (metrics, clock) = (Metrics::new(), Arc::new(ManualClock::at(UnixMillis(0))));
        let route_of = |_: &Method, path: &str| {
            let (index, label) = if path == "/a" { (0, "/a") } else { (1, "unknown") };
            RouteInfo { index, label, ..super::super::context::tests::route_of(&Method::GET, path) }
        };
        let context = ContextLayer::new(Ipv4Addr::LOCALHOST.into(), &Arc::default(), route_of);
        let http = HttpMetrics::new(&metrics, &["/a", "unknown"]);
        let inner = Arc::clone(&clock);
        let service = ServiceBuilder::new().layer(context).layer(ObserveLayer::new(http, clock)).service(
            service_fn(move |request: Request<()>| {
                inner.advance(Duration::from_millis(7));
                let status =
                    if request.uri().path() == "/a" { StatusCode::OK } else { StatusCode::NOT_FOUND };
                let mut response = Response::new(());
                *response.status_mut() = status;
                std::future::ready(Ok::<_, Infallible>(response))
            }),
        );
        for path in ["/a", "/b"] {
            let request = Request::get(path).body(()).expect("valid");
            service.clone().oneshot(request).await.expect("infallible");
        }
        let text = metrics.render();
        for line in [
            r#"numgen_http_requests_total{route="/a",method="GET",status="200"} 1"#,
            r#"numgen_http_requests_total{route="unknown",method="GET",status="404"} 1"#,
            r#"numgen_http_request_duration_seconds_sum{route="/a"} 0.007"#,
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
