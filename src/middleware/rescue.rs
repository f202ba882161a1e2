//! Turns errors into answers. Above this layer nothing fails: trace and metrics see every status.
//!
//! What an error becomes is not decided here but by the function that the layer is given (`stack/rescue.rs`); this keeps what
//! that function needs of the request until the answer is known. That is a copy: what refers to the request refers to the buffer
//! that it was read into, and as long as anything does, the connection has to read into another one.

use std::{
    convert::Infallible,
    future::Future,
    net::IpAddr,
    pin::Pin,
    task::{Context as TaskContext, Poll, ready},
};

use http::{Method, Request, Response};
use pin_project_lite::pin_project;
use tower::{BoxError, Layer, Service};

use super::{context::Context, request_id::RequestId};
use crate::{language::Language, telemetry::traces::TraceContext};

/// What is kept of a request to write its problem document.
#[derive(Clone, Debug)]
pub struct Head {
    method: Method,
    path: Box<str>,
    language: Language,
    id: Option<RequestId>,
    trace: Option<TraceContext>,
    sender: Option<IpAddr>,
}

impl Head {
    fn of<B>(request: &Request<B>) -> Self {
        let context = Context::of(request);
        Self {
            method: request.method().clone(),
            path: request.uri().path().into(),
            language: Language::of(request.headers()),
            id: context.map(|context| context.id),
            trace: context.and_then(|context| context.trace),
            sender: context.map(|context| context.sender),
        }
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path, never the query: a query may hold what must not be repeated.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The ID under which the cause is logged.
    pub fn request_id(&self) -> &str {
        self.id.as_ref().map_or("", RequestId::as_str)
    }

    /// The trace that the request belongs to.
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    /// Where the request came from.
    pub fn sender(&self) -> Option<IpAddr> {
        self.sender
    }

    /// The language that the caller reads.
    pub fn language(&self) -> Language {
        self.language
    }
}

/// Rescues errors by a function.
#[derive(Clone, Debug)]
pub struct RescueLayer<W> {
    write: W,
}

impl<W> RescueLayer<W> {
    /// A layer that answers errors with what `write` makes of them.
    pub fn new(write: W) -> Self {
        Self { write }
    }
}

impl<S, W: Clone> Layer<S> for RescueLayer<W> {
    type Service = Rescue<S, W>;

    fn layer(&self, inner: S) -> Rescue<S, W> {
        Rescue { inner, write: self.write.clone() }
    }
}

/// Service of [`RescueLayer`].
#[derive(Clone, Debug)]
pub struct Rescue<S, W> {
    inner: S,
    write: W,
}

impl<S, W, B, R> Service<Request<B>> for Rescue<S, W>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    W: Fn(BoxError, &Head) -> Response<R> + Clone,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future, W>;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        // Inner services are always ready; one that is not would be asked again by its own call.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let head = Head::of(&request);
        ResponseFuture { future: self.inner.call(request), head, write: self.write.clone() }
    }
}

pin_project! {
    /// Future of [`Rescue`].
    pub struct ResponseFuture<F, W> {
        #[pin]
        future: F,
        head: Head,
        write: W,
    }
}

impl<F, W, R, E> Future for ResponseFuture<F, W>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    W: Fn(BoxError, &Head) -> Response<R>,
{
    type Output = Result<Response<R>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outcome = ready!(this.future.poll(cx));
        Poll::Ready(Ok(outcome.unwrap_or_else(|error| (this.write)(error.into(), this.head))))
    }
}

#[cfg(test)]
mod tests {
    use tower::{ServiceBuilder, ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn an_error_becomes_an_answer_in_the_callers_language() {
        let write = |error: BoxError, head: &Head| {
            Response::new(format!("{error} {} {:?}", head.path(), head.language()))
        };
        let service = ServiceBuilder::new().layer(RescueLayer::new(write)).service(service_fn(
            async |_: Request<()>| Err::<Response<String>, BoxError>("gone wrong".into()),
        ));
        let request =
            Request::get("/numbers/A?secret=1").header("accept-language", "zh").body(()).expect("valid");
        let response = service.oneshot(request).await.expect("infallible");
        assert_eq!(response.body(), "gone wrong /numbers/A Chinese");
    }

    /// A field may come in several lines (RFC 9110, section 5.3).
    #[tokio::test]
    async fn the_language_is_that_of_all_lines() {
        let request = Request::get("/")
            .header("accept-language", "de")
            .header("accept-language", "en;q=0.5")
            .header("accept-language", "zh")
            .body(())
            .expect("valid");
        assert_eq!(Head::of(&request).language(), Language::Chinese);
    }
}
