//! A small HTTP client, for key sets (JWKS) and for the command line.
//!
//! One request at a time, HTTP/1.1 over plain TCP or TLS with the system's root certificates. Invariants: every call ends by
//! its deadline, no body is read past its limit, redirects are not followed, and no error shows more of a URL than its
//! host, since the rest may carry credentials.

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, uri::Scheme};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

/// How far a call may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long it may take, from connecting to the last byte.
    pub deadline: Duration,
    /// How long the body of the answer may be, in bytes.
    pub body_bytes: usize,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an absolute `http` or `https` URL.
    #[error("not a usable URL: {problem}")]
    Url {
        /// What is wrong, without the URL.
        problem: &'static str,
    },
    /// TLS cannot be set up.
    #[error("no root certificates for https; install ca-certificates or set SSL_CERT_FILE")]
    Roots(#[source] io::Error),
    /// No whole answer by the deadline.
    #[error("{host} did not answer within {deadline_ms} ms")]
    Timeout {
        /// Who was asked.
        host: String,
        /// How long it had.
        deadline_ms: u128,
    },
    /// It cannot be reached, or broke off before it answered.
    #[error("{host} cannot be reached")]
    Unreachable {
        /// Who was asked.
        host: String,
        /// What the connection said.
        #[source]
        source: legacy::Error,
    },
    /// The answer's body is longer than the limit.
    #[error("{host} answered with more than {limit} bytes")]
    TooLarge {
        /// Who was asked.
        host: String,
        /// The limit.
        limit: usize,
    },
    /// The answer broke off.
    #[error("the answer of {host} broke off")]
    Interrupted {
        /// Who was asked.
        host: String,
        /// What the connection said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Sends requests to the kind of URL that it was made for.
#[derive(Clone)]
pub struct Client {
    inner: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// A client for `url` and others of its scheme. Root certificates are read only for `https`.
    ///
    /// # Errors
    ///
    /// `ClientError::Url` or `ClientError::Roots`; nothing is sent.
    pub fn for_url(url: &str) -> Result<Self, ClientError> {
        let secure = parse(url)?.scheme() == Some(&Scheme::HTTPS);
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Roots(io::Error::other(error)))?;
        let tls = if secure {
            tls.with_native_roots().map_err(ClientError::Roots)?
        } else {
            tls.with_root_certificates(RootCertStore::empty())
        };
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth());
        let connector = connector.https_or_http().enable_http1().build();
        // No pool: calls are minutes apart, and an idle connection would outlive the drain.
        let inner = legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { inner })
    }

    /// Reads `url`.
    ///
    /// # Errors
    ///
    /// `ClientError` if no whole answer came within `limits`; any status is an answer.
    pub async fn get(&self, url: &str, limits: Limits) -> Result<Response<Bytes>, ClientError> {
        self.send(Method::GET, url, HeaderMap::new(), Bytes::new(), limits).await
    }

    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    ///
    /// `ClientError` if no whole answer came within `limits`; any status is an answer.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        limits: Limits,
    ) -> Result<Response<Bytes>, ClientError> {
        let uri = parse(url)?;
        let host = uri.host().unwrap_or_default().to_owned();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let deadline_ms = limits.deadline.as_millis();
        match tokio::time::timeout(limits.deadline, self.exchange(&host, request, limits.body_bytes)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(ClientError::Timeout { host, deadline_ms }),
        }
    }

    async fn exchange(
        &self,
        host: &str,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<Response<Bytes>, ClientError> {
        let answer = self.inner.request(request).await;
        let answer = answer.map_err(|source| ClientError::Unreachable { host: host.to_owned(), source })?;
        let (parts, body) = answer.into_parts();
        match Limited::new(body, limit).collect().await {
            Ok(body) => Ok(Response::from_parts(parts, body.to_bytes())),
            Err(source) if source.is::<LengthLimitError>() => {
                Err(ClientError::TooLarge { host: host.to_owned(), limit })
            }
            Err(source) => Err(ClientError::Interrupted { host: host.to_owned(), source }),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// Takes absolute `http` and `https` URLs without a user in them: it would not be sent, so it must not be relied on.
fn parse(url: &str) -> Result<Uri, ClientError> {
    let problem = |problem| ClientError::Url { problem };
    let uri: Uri = url.parse().map_err(|_invalid| problem("it cannot be parsed"))?;
    let scheme = uri.scheme();
    if scheme != Some(&Scheme::HTTP) && scheme != Some(&Scheme::HTTPS) {
        return Err(problem("it must begin with http:// or https://"));
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(problem("it has no host"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(problem("it holds a user or password, which would not be sent"));
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_http_and_https_and_says_what_is_wrong_with_the_rest() {
        for url in ["http://localhost:8080/jwks?x=y", "https://[::1]/", "https://id.example"] {
            assert!(parse(url).is_ok(), "{url}");
        }
        for (url, problem) in [
            ("", "parsed"),
            ("localhost:8080", "begin with http"),
            ("/jwks", "begin with http"),
            ("ftp://localhost/jwks", "begin with http"),
            ("http://user:canary@localhost/", "user or password"),
            ("http:// localhost/", "parsed"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(problem) && !error.contains("canary"), "{url:?}: {error}");
        }
    }
}
