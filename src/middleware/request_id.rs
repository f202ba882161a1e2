//! Gives each request an ID: the caller's `X-Request-Id` if it is fit to be logged, else one of ours. It stands in the answer, in
//! the problem document, in spans and in logs.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

/// The header, in requests and in answers.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest ID that is taken over from a caller.
const MAX_LEN: usize = 64;

/// How many hexadecimal digits one of ours has.
const DIGITS: usize = 16;

/// A request's ID, in its extensions: bytes in place, so that passing it on allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl RequestId {
    /// The ID as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    /// Takes over what a caller sent, if it is fit to be logged.
    fn given(value: &HeaderValue) -> Option<Self> {
        let fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        let given = value.as_bytes();
        if !(1..=MAX_LEN).contains(&given.len()) || !given.iter().all(fit) {
            return None;
        }
        let mut bytes = [0; MAX_LEN];
        bytes[..given.len()].copy_from_slice(given);
        Some(Self { bytes, len: given.len() })
    }

    fn to_header(self) -> HeaderValue {
        HeaderValue::from_str(self.as_str()).unwrap_or(HeaderValue::from_static(""))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Puts [`RequestId`] into requests and its header into answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestIdLayer;

impl<S> Layer<S> for RequestIdLayer {
    type Service = RequestIds<S>;

    fn layer(&self, inner: S) -> RequestIds<S> {
        RequestIds { inner, sequence: Sequence::new() }
    }
}

/// Service of [`RequestIdLayer`].
#[derive(Clone, Debug)]
pub struct RequestIds<S> {
    inner: S,
    sequence: Sequence,
}

impl<S, B, R> Service<Request<B>> for RequestIds<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let given = request.headers().get(X_REQUEST_ID).and_then(RequestId::given);
        let id = given.unwrap_or_else(|| self.sequence.next());
        request.extensions_mut().insert(id);
        ResponseFuture { future: self.inner.call(request), id: Some(id) }
    }
}

pin_project! {
    /// Future of [`RequestIds`].
    pub struct ResponseFuture<F> {
        #[pin]
        future: F,
        id: Option<RequestId>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        if let Some(id) = this.id.take() {
            response.headers_mut().insert(X_REQUEST_ID, id.to_header());
        }
        Poll::Ready(Ok(response))
    }
}

/// IDs that do not repeat: a random start for each connection, mixed so that they do not look alike (Steele, Lea and
/// Flood, "Fast splittable pseudorandom number generators", 2014). They identify, they protect nothing.
#[derive(Clone, Debug)]
struct Sequence {
    state: u64,
}

impl Sequence {
    fn new() -> Self {
        let mut bytes = [0; 8];
        // Without random bytes IDs still differ within the connection, which is all that a log needs.
        let _unseeded = getrandom::fill(&mut bytes);
        Self { state: u64::from_ne_bytes(bytes) }
    }

    fn next(&mut self) -> RequestId {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        let mut bytes = [0; MAX_LEN];
        for (index, digit) in bytes[..DIGITS].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(mixed >> (60 - 4 * index)) as usize & 15];
        }
        RequestId { bytes, len: DIGITS }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, convert::Infallible};

    use tower::{ServiceBuilder, ServiceExt, service_fn};

    use super::*;

    async fn echoed(header: Option<&str>) -> String {
        let service =
            ServiceBuilder::new().layer(RequestIdLayer).service(service_fn(async |request: Request<()>| {
                let id = request.extensions().get::<RequestId>().copied().expect("set");
                Ok::<_, Infallible>(Response::new(id.as_str().to_owned()))
            }));
        let mut request = Request::new(());
        if let Some(header) = header {
            request.headers_mut().insert(X_REQUEST_ID, HeaderValue::from_str(header).expect("valid"));
        }
        let response = service.oneshot(request).await.expect("infallible");
        assert_eq!(response.headers()[X_REQUEST_ID], response.body().as_str());
        response.into_body()
    }

    #[tokio::test]
    async fn takes_over_an_id_that_is_fit_to_be_logged() {
        assert_eq!(echoed(Some("abc-123")).await, "abc-123");
        for unfit in ["a b", "<script>", &"x".repeat(65), ""] {
            assert_ne!(echoed(Some(unfit)).await, unfit);
        }
        assert_eq!(echoed(None).await.len(), 16);
    }

    #[test]
    fn ids_do_not_repeat() {
        let mut sequence = Sequence::new();
        let ids: HashSet<_> = (0..10_000).map(|_| sequence.next().as_str().to_owned()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
