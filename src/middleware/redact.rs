//! Marks header values that must not be printed: their `Debug` says `Sensitive` from here on, whoever prints the request.

use std::task::{Context, Poll};

use http::{
    HeaderName, Request,
    header::{AUTHORIZATION, COOKIE, Entry, PROXY_AUTHORIZATION},
};
use tower::{Layer, Service};

/// Fields that hold credentials.
const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// Marks credentials.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedactLayer;

impl<S> Layer<S> for RedactLayer {
    type Service = Redact<S>;

    fn layer(&self, inner: S) -> Redact<S> {
        Redact { inner }
    }
}

/// Service of [`RedactLayer`].
#[derive(Clone, Debug)]
pub struct Redact<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Redact<S>
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
        let headers = request.headers_mut();
        for name in CREDENTIALS {
            // Looking first is what makes the usual request cheap: an entry would hash again and make room.
            if headers.contains_key(&name)
                && let Entry::Occupied(mut entry) = headers.entry(name)
            {
                entry.iter_mut().for_each(|value| value.set_sensitive(true));
            }
        }
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceBuilder, ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn credentials_are_not_printed() {
        let service = ServiceBuilder::new()
            .layer(RedactLayer)
            .service(service_fn(async |request: Request<()>| Ok::<_, Infallible>(format!("{request:?}"))));
        let request = Request::get("/")
            .header("authorization", "Bearer canary")
            .header("cookie", "session=canary")
            .header("proxy-authorization", "Basic canary")
            .header("accept", "shown")
            .body(())
            .expect("valid");
        let printed = service.oneshot(request).await.expect("infallible");
        assert!(!printed.contains("canary") && printed.contains("shown"), "{printed}");
    }
}
