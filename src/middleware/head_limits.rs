//! Refuses heads that are too large with a problem document, below the size at which hyper closes the connection by itself.

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::Request;
use tower::{BoxError, Layer, Service};

use crate::language::{Language, Localized};

/// The longest URL, in bytes.
pub const MAX_URL_BYTES: usize = 8 * 1024;

/// The largest header block, in bytes: names, values and four for each field's punctuation.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// A head over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadTooLarge {
    /// The URL.
    #[error("the URL is longer than {} KiB", MAX_URL_BYTES / 1024)]
    Url,
    /// The header fields.
    #[error("the header fields are larger than {} KiB", MAX_HEADER_BYTES / 1024)]
    Headers,
}

impl Localized for HeadTooLarge {
    fn localized(&self, language: Language) -> String {
        match (language, self) {
            (Language::English, _) => self.to_string(),
            (Language::Chinese, Self::Url) => format!("URL 超过 {} KiB", MAX_URL_BYTES / 1024),
            (Language::Chinese, Self::Headers) => format!("请求头超过 {} KiB", MAX_HEADER_BYTES / 1024),
        }
    }
}

/// Bounds the head of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadLimitsLayer;

impl<S> Layer<S> for HeadLimitsLayer {
    type Service = HeadLimits<S>;

    fn layer(&self, inner: S) -> HeadLimits<S> {
        HeadLimits { inner }
    }
}

/// Service of [`HeadLimitsLayer`].
#[derive(Clone, Debug)]
pub struct HeadLimits<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for HeadLimits<S>
where
    S: Service<Request<B>, Error = BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Either<S::Future, Ready<Result<S::Response, BoxError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match check(&request) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(error) => Either::Right(ready(Err(error.into()))),
        }
    }
}

fn check<B>(request: &Request<B>) -> Result<(), HeadTooLarge> {
    let uri = request.uri();
    let url_bytes = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    if url_bytes > MAX_URL_BYTES {
        return Err(HeadTooLarge::Url);
    }
    let field =
        |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + 4;
    if request.headers().iter().map(field).sum::<usize>() > MAX_HEADER_BYTES {
        return Err(HeadTooLarge::Headers);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_url_and_headers_apart() {
        let request = |url: usize, header: usize| {
            Request::get(format!("/{}?q=1", "x".repeat(url)))
                .header("a", "y".repeat(header))
                .body(())
                .expect("valid")
        };
        assert_eq!(check(&request(MAX_URL_BYTES - 5, MAX_HEADER_BYTES - 5)), Ok(()));
        assert_eq!(check(&request(MAX_URL_BYTES - 4, 1)), Err(HeadTooLarge::Url));
        assert_eq!(check(&request(1, MAX_HEADER_BYTES - 4)), Err(HeadTooLarge::Headers));
    }
}
