//! Lets browsers call from pages of other origins (Fetch standard, section "HTTP-CORS protocol").
//!
//! tower-http writes the fields. But it takes every `OPTIONS` request for a preflight, and answers it itself; a preflight is one that
//! names an origin and the method that is to follow. So the others pass it under another method, and reach the API as they came.
//! To a caller a preflight is one like any other, too: where tower-http answers 200, it is answered by 204 and `Allow`.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use pin_project_lite::pin_project;
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
    allow: Allow,
}

/// The methods of the route of a path, `None` where there is no route.
type Allow = fn(&str) -> Option<&'static str>;

impl CorsLayer {
    /// For pages of `origins`; `allow` knows the methods of each path.
    pub fn new(origins: impl Into<AllowOrigin>, allow: Allow) -> Self {
        let fields = cors::CorsLayer::new()
            .allow_origin(origins)
            .allow_methods(METHODS)
            .allow_headers(REQUEST_FIELDS)
            .expose_headers(RESPONSE_FIELDS);
        Self { fields, allow }
    }
}

impl<S> Layer<S> for CorsLayer {
    type Service = Cors<S>;

    fn layer(&self, inner: S) -> Cors<S> {
        Cors { inner: self.fields.layer(Uncovered { inner }), allow: self.allow }
    }
}

/// Service of [`CorsLayer`].
#[derive(Clone, Debug)]
pub struct Cors<S> {
    inner: cors::Cors<Uncovered<S>>,
    allow: Allow,
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
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut asked = Asked::Other;
        if request.method() == Method::OPTIONS {
            if names_what_follows(request.headers()) {
                asked = Asked::Preflight { allow: (self.allow)(request.uri().path()) };
            } else {
                request.extensions_mut().insert(Covered);
                *request.method_mut() = Method::GET;
            }
        }
        ResponseFuture { future: self.inner.call(request), asked }
    }
}

/// What was asked.
enum Asked {
    /// Whether a request may follow; the route, if it is one, has these methods.
    Preflight { allow: Option<&'static str> },
    /// Anything else: those below have answered.
    Other,
}

pin_project! {
    /// Future of [`Cors`].
    pub struct ResponseFuture<F> {
        #[pin]
        future: cors::ResponseFuture<F>,
        asked: Asked,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Default,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.future.poll(cx));
        if let (Asked::Preflight { allow }, Ok(response)) = (this.asked, &mut answer) {
            *response.status_mut() = StatusCode::NO_CONTENT;
            // Without a route, too, there is nothing to refuse: the 404 that follows is for the page to read.
            if let Some(allow) = allow {
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
            }
        }
        Poll::Ready(answer)
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt, service_fn};

    use super::*;

    const APP: &str = "https://app.example";

    async fn ask(path: &str, headers: &[(&str, &str)]) -> Response<String> {
        let allow: Allow = |path| (path == "/numbers/X").then_some("GET, OPTIONS");
        let inner = service_fn(|request: Request<()>| async move {
            let mut response = Response::new(request.method().to_string());
            *response.status_mut() = StatusCode::IM_A_TEAPOT;
            Ok::<_, Infallible>(response)
        });
        let origin = AllowOrigin::exact(HeaderValue::from_static(APP));
        let mut request = Request::options(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        CorsLayer::new(origin, allow).layer(inner).oneshot(request.body(()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_preflight_is_answered_as_options_are() {
        let preflight = [("origin", APP), ("access-control-request-method", "GET")];
        let answer = ask("/numbers/X", &preflight).await;
        assert_eq!((answer.status(), answer.body().as_str()), (StatusCode::NO_CONTENT, ""));
        assert_eq!(answer.headers()[header::ALLOW], "GET, OPTIONS");
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], APP);
        assert!(answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_METHODS));
        // The request that follows is answered 404, which the page may read.
        let answer = ask("/pot-of-tea", &preflight).await;
        assert_eq!((answer.status(), answer.headers().get(header::ALLOW)), (StatusCode::NO_CONTENT, None));
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], APP);
    }

    #[tokio::test]
    async fn other_options_are_for_those_below() {
        for headers in [&[][..], &[("origin", APP)], &[("access-control-request-method", "GET")]] {
            let answer = ask("/numbers/X", headers).await;
            assert_eq!((answer.status(), answer.body().as_str()), (StatusCode::IM_A_TEAPOT, "OPTIONS"));
        }
    }
}
