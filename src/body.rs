//! Response bodies, and reading request bodies within their limits.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};

use crate::language::{Language, Localized};

/// What every answer is made of: one buffer.
pub type Body = Full<Bytes>;

/// The longest request body, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// Why a request body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Over the limit.
    #[error("the body is longer than {} KiB", MAX_BODY_BYTES / 1024)]
    TooLarge,
    /// It did not arrive in time.
    #[error("the body did not arrive within {} s", .0.as_secs_f64())]
    TooSlow(Duration),
    /// The connection broke, or the framing is wrong.
    #[error("the body could not be read")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Localized for ReadError {
    fn localized(&self, language: Language) -> String {
        match (language, self) {
            (Language::English, _) => self.to_string(),
            (Language::Chinese, Self::TooLarge) => format!("请求体超过 {} KiB", MAX_BODY_BYTES / 1024),
            (Language::Chinese, Self::TooSlow(limit)) => {
                format!("请求体未能在 {} 秒内到达", limit.as_secs_f64())
            }
            (Language::Chinese, Self::Broken(_)) => "无法读取请求体".to_owned(),
        }
    }
}

/// Reads a whole request body, at most [`MAX_BODY_BYTES`] and at most for `limit`.
///
/// # Errors
///
/// [`ReadError`]; a declared length over the limit is refused before a byte is read.
pub async fn read<B>(body: B, limit: Duration) -> Result<Bytes, ReadError>
where
    B: hyper::body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(ReadError::TooLarge);
    }
    match tokio::time::timeout(limit, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ReadError::TooLarge),
        Ok(Err(error)) => Err(ReadError::Broken(error)),
        Err(_elapsed) => Err(ReadError::TooSlow(limit)),
    }
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}

/// An answer with a body of the given media type. Nobody may keep it, since most answers consume something or are for their caller alone;
/// and no browser may take it for anything else than it says.
pub fn full(status: StatusCode, media_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(bytes.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A JSON answer.
pub fn json(status: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    full(status, "application/json", bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn reads_up_to_the_limit() {
        let body = Body::new(Bytes::from(vec![b'x'; MAX_BODY_BYTES]));
        assert_eq!(read(body, LIMIT).await.expect("fits").len(), MAX_BODY_BYTES);
        let body = Body::new(Bytes::from(vec![b'x'; MAX_BODY_BYTES + 1]));
        assert!(matches!(read(body, LIMIT).await, Err(ReadError::TooLarge)));
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_on_a_slow_body() {
        let never = http_body_util::StreamBody::new(futures_util::stream::pending::<
            Result<hyper::body::Frame<Bytes>, std::io::Error>,
        >());
        assert!(matches!(read(never, LIMIT).await, Err(ReadError::TooSlow(limit)) if limit == LIMIT));
    }
}
