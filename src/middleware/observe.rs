//! Traces and measures requests: one span, one observation and one line of the access log each.
//!
//! The span is at level `debug`, so that it costs nothing unless somebody looks. The access line is at `error` for what we did wrong, at
//! `info` for what the caller did, at `debug` for what went well; of that, a sample is at `info` where the operator wants one. What
//! a quota refused, or was shed, is logged like what went well: a flood is not answered with a flood of lines.
//!
//! A request that bears a `traceparent` stays in its trace, and so does its answer.

use std::{
    cell::Cell,
    convert::Infallible,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::{Span, field::Empty};

use super::{context::Context, request_id::RequestId};
use crate::{
    clock::Clock,
    telemetry::{
        HttpMetrics,
        traces::{self, TraceContext},
    },
};

/// The target of access lines.
const ACCESS: &str = "numgen::access";

/// Observes requests.
#[derive(Clone, Debug)]
pub struct ObserveLayer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    metrics: HttpMetrics,
    clock: Arc<dyn Clock>,
    /// Of requests that went well, one in so many is logged at `info`; 0: none.
    sample: u32,
}

impl ObserveLayer {
    /// Counts and times requests in `metrics`, by route ([`Context`]); logs one in `sample` of those that went well at `info`, none
    /// where that is 0.
    pub fn new(metrics: HttpMetrics, clock: Arc<dyn Clock>, sample: u32) -> Self {
        Self { shared: Arc::new(Shared { metrics, clock, sample }) }
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = Context::of(&request);
        let seen = Seen {
            route: context.map_or((usize::MAX, ""), |context| (context.route.index, context.route.label)),
            id: context.map(|context| context.id),
            sender: context.map(|context| context.sender),
            method: request.method().clone(),
        };
        let span = seen.span(request.uri().path());
        let trace = traces::join(&span, request.headers());
        if let Some(trace) = trace {
            Context::name_trace(&mut request, trace);
        }
        let started = self.shared.clock.monotonic();
        let future = {
            let _entered = span.enter();
            self.inner.call(request)
        };
        ResponseFuture { future, span, trace, seen, started, shared: Arc::clone(&self.shared) }
    }
}

/// Marks an answer as one of a flood: its access line is like that of a request that went well.
#[derive(Clone, Copy, Debug)]
pub struct OneOfMany;

/// What is known of a request before its answer.
struct Seen {
    route: (usize, &'static str),
    id: Option<RequestId>,
    sender: Option<IpAddr>,
    method: Method,
}

impl Seen {
    /// Its span, with the attributes that OpenTelemetry's conventions for HTTP servers ask for.
    fn span(&self, path: &str) -> Span {
        let (method, (_, route)) = (self.method.as_str(), self.route);
        tracing::debug_span!(
            target: "numgen::request",
            "request",
            otel.name = %format_args!("{method} {route}"),
            otel.kind = "server",
            otel.status_code = Empty,
            request_id = self.id.as_ref().map(RequestId::as_str),
            http.request.method = method,
            http.route = route,
            http.response.status_code = Empty,
            url.path = path,
            client.address = self.sender.map(display),
        )
    }

    fn log(&self, status: StatusCode, elapsed: Duration, trace: Option<TraceContext>, volume: Volume) {
        // Each level is a place of its own in the program: one that nobody listens to costs nothing.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: ACCESS,
                    request_id = self.id.as_ref().map(RequestId::as_str),
                    trace_id = trace.map(|trace| display(trace.trace_id())),
                    address = self.sender.map(display),
                    route = self.route.1,
                    method = self.method.as_str(),
                    status = status.as_u16(),
                    elapsed_us = elapsed.as_micros() as u64,
                    "served"
                )
            };
        }
        match volume {
            Volume::Each if status.is_server_error() => line!(error),
            Volume::Each => line!(info),
            Volume::Sample(sample) if is_sampled(sample) => line!(info),
            Volume::Sample(_) => line!(debug),
        }
    }
}

/// Which of such answers are logged where operators look.
#[derive(Clone, Copy)]
enum Volume {
    Each,
    /// One in so many; 0: none.
    Sample(u32),
}

impl Volume {
    fn of<R>(response: &Response<R>, sample: u32) -> Self {
        let status = response.status();
        let is_flood =
            status == StatusCode::TOO_MANY_REQUESTS || response.extensions().get::<OneOfMany>().is_some();
        if (status.is_client_error() || status.is_server_error()) && !is_flood {
            Self::Each
        } else {
            Self::Sample(sample)
        }
    }
}

/// Whether it is this one's turn among those that this thread serves.
fn is_sampled(sample: u32) -> bool {
    thread_local! {
        static SERVED: Cell<u32> = const { Cell::new(0) };
    }
    if sample == 0 {
        return false;
    }
    let served = SERVED.get();
    SERVED.set((served + 1) % sample);
    served.is_multiple_of(sample)
}

pin_project! {
    /// Future of [`Observe`].
    pub struct ResponseFuture<F> {
        #[pin]
        future: F,
        span: Span,
        trace: Option<TraceContext>,
        seen: Seen,
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
        let Ok(mut response) = ready!(this.future.poll(cx));
        let elapsed = this.shared.clock.monotonic().saturating_sub(*this.started);
        let status = response.status();
        this.shared.metrics.record(this.seen.route.0, &this.seen.method, status, elapsed);
        if !this.span.is_disabled() {
            this.span.record("http.response.status_code", status.as_u16());
            if status.is_server_error() {
                this.span.record("otel.status_code", "ERROR");
            }
        }
        if let Some(trace) = this.trace {
            let (name, value) = trace.to_header();
            response.headers_mut().insert(name, value);
        }
        this.seen.log(status, elapsed, *this.trace, Volume::of(&response, this.shared.sample));
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
        let service = ServiceBuilder::new().layer(context).layer(ObserveLayer::new(http, clock, 0)).service(
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
