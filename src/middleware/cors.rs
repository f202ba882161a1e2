//! Lets browsers call from pages of other origins (Fetch standard, section "HTTP-CORS protocol").
//!
//! tower-http writes the fields. But it takes every `OPTIONS` request for a preflight, and answers it itself; a preflight is one that
//! names an origin and the method that is to follow. So the others pass it under another method, and reach the API as they came.

use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, Method, Request, Response, header};
use tower::{Layer, Service};
use tower_http::cors::{self, AllowOrigin};

/// The methods of all routes.
const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS];

/// The fields that are read of a request. By name, since `*` covers every field but `Authorization`.
const REQUEST_FIELDS: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::ACCEPT_LANGUAGE,
    header::IF_MATCH,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// The fields of an answer that scripts may read besides those that they always may.
const RESPONSE_FIELDS: [HeaderName; 8] = [
    header::ALLOW,
    header::ETAG,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
];

/// Answers preflights, and says in every other answer who may read it.
#[derive(Clone, Debug)]
pub struct CorsLayer {
    fields: cors::CorsLayer,
}

impl CorsLayer {
    /// For pages of `origins`.
    pub fn new(origins: impl Into<AllowOrigin>) -> Self {
        let fields = cors::CorsLayer::new()
            .allow_origin(origins)
            .allow_methods(METHODS)
            .allow_headers(REQUEST_FIELDS)
            .expose_headers(RESPONSE_FIELDS);
        Self { fields }
    }
}

impl<S> Layer<S> for CorsLayer {
    type Service = Cors<S>;

    fn layer(&self, inner: S) -> Cors<S> {
        Cors { inner: self.fields.layer(Uncovered { inner }) }
    }
}

/// Service of [`CorsLayer`].
#[derive(Clone, Debug)]
pub struct Cors<S> {
    inner: cors::Cors<Uncovered<S>>,
}

/// An `OPTIONS` request on its way past tower-http.
#[derive(Clone, Copy)]
struct Covered;

impl<S, B, R> Service<Request<B>> for Cors<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = cors::ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if request.method() == Method::OPTIONS && !names_what_follows(request.headers()) {
            request.extensions_mut().insert(Covered);
            *request.method_mut() = Method::GET;
        }
        self.inner.call(request)
    }
}

fn names_what_follows(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Gives a request its method back.
#[derive(Clone, Debug)]
struct Uncovered<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Uncovered<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        if request.extensions_mut().remove::<Covered>().is_some() {
            *request.method_mut() = Method::OPTIONS;
        }
        self.inner.call(request)
    }
}
