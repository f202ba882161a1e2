//! Asks the running service, and shows what it says.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use serde::{Deserialize, de::DeserializeOwned};

use super::{error::CliError, signing};
use crate::{
    auth::Scope,
    client::{Client, Limits},
    clock::Clock,
    config::{ClientConfig, ConfigError, Flags, Mistake, Source, Values},
    scrub::scrub,
};

/// A batch of 10,000 long numbers fits many times; a service that does not answer is given up before a person does.
const LIMITS: Limits = Limits { deadline: Duration::from_secs(30), body_bytes: 16 * 1024 * 1024 };

/// How long a token lasts that is made for one command: an import of many periods takes its time.
const TOKEN_TTL: Duration = Duration::from_secs(600);

/// All but the unreserved characters of a URL (RFC 3986, section 2.3).
pub(super) const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The service at `NUMGEN_URL`, with a token for it.
pub(super) struct Remote {
    client: Client,
    url: String,
    authorization: HeaderValue,
}

impl Remote {
    /// Prepares to ask with `NUMGEN_TOKEN`, or with a token of its own for `scopes`.
    ///
    /// # Errors
    ///
    /// Configuration, or no token can be made.
    pub(super) fn connect(
        flags: &Flags,
        source: &impl Source,
        scopes: &[Scope],
        clock: &dyn Clock,
    ) -> Result<Self, CliError> {
        let values = Values::gather(flags, source)?;
        let config = ClientConfig::read(&values)?;
        let token = match &config.client.token {
            Some(token) => token.clone(),
            None => {
                let grant = signing::grant(signing::SUBJECT, scopes.iter().copied().collect(), TOKEN_TTL);
                signing::sign(&config, grant, clock)?
            }
        };
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", token.reveal().trim())).map_err(|_not_ascii| {
                let problem = "the token holds characters that no token has".to_owned();
                ConfigError::from(Mistake::Unfitting { origin: values.origin("NUMGEN_TOKEN"), problem })
            })?;
        authorization.set_sensitive(true);
        let url = base(&config.client.url).to_owned();
        let client = Client::for_url(&url).map_err(|source| CliError::Client { url: url.clone(), source })?;
        Ok(Self { client, url, authorization })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, CliError> {
        self.ask(Method::POST, path, Bytes::from(body.to_string())).await
    }

    /// What the service answers makes no sense here.
    pub(super) fn not_understood(&self) -> CliError {
        CliError::NotUnderstood { url: self.url.clone(), status: StatusCode::OK.to_string() }
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, CliError> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let url = format!("{}/api{path}", self.url);
        let answer = self.client.send(method, &url, headers, body, LIMITS).await;
        let answer = answer.map_err(|source| CliError::Client { url: self.url.clone(), source })?;
        understand(&self.url, answer.status(), answer.body())
    }
}

/// What `/api` and a path are appended to: the URL, whether it names the service or, as its callers use it, the API.
fn base(url: &str) -> &str {
    let url = url.trim_end_matches('/');
    // `api` may be a host, too.
    let service = url.strip_suffix("/api").filter(|service| service.contains("://"));
    service.map_or(url, |service| service.trim_end_matches('/'))
}

/// The result in `body`, or what the problem document in it says.
fn understand<T: DeserializeOwned>(url: &str, status: StatusCode, body: &[u8]) -> Result<T, CliError> {
    let not_understood = || CliError::NotUnderstood { url: url.to_owned(), status: status.to_string() };
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|_other| not_understood());
    }
    let problem: Problem = serde_json::from_slice(body).map_err(|_other| not_understood())?;
    Err(CliError::Refused { text: problem.for_people(), code: problem.code })
}

/// What is read of a problem document.
#[derive(Deserialize)]
struct Problem {
    title: String,
    #[serde(default)]
    detail: String,
    code: String,
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    errors: Vec<FieldError>,
}

#[derive(Deserialize)]
struct FieldError {
    field: String,
    message: String,
}

impl Problem {
    /// `title: detail (code, request id)`, then a line for each field.
    fn for_people(&self) -> String {
        let mut text = self.title.clone();
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        let request =
            if self.request_id.is_empty() { String::new() } else { format!(", request {}", self.request_id) };
        text.push_str(&format!(" ({}{request})", self.code));
        for FieldError { field, message } in &self.errors {
            text.push_str(&format!("\n  {field}: {message}"));
        }
        scrub(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: StatusCode, body: &str) -> String {
        understand::<serde_json::Value>("http://h:1", status, body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_problem_is_shown_with_what_is_needed_to_report_it() {
        let body = r#"{"type":"about:blank","title":"Prefix not registered","status":400,"detail":"register X first","code":"PrefixNotRegistered","request_id":"r1"}"#;
        assert_eq!(
            refusal(StatusCode::BAD_REQUEST, body),
            "Prefix not registered: register X first (PrefixNotRegistered, request r1)"
        );
        let body = r#"{"title":"Validation","code":"Validation","errors":[{"field":"count","message":"1 to 10000"}]}"#;
        assert_eq!(refusal(StatusCode::BAD_REQUEST, body), "Validation (Validation)\n  count: 1 to 10000");
    }

    #[test]
    fn the_url_may_be_that_of_the_api() {
        for (url, expected) in [
            ("http://h:1", "http://h:1"),
            ("http://h:1/", "http://h:1"),
            ("http://h:1/api", "http://h:1"),
            ("http://h:1/api/", "http://h:1"),
            ("https://gateway/numgen", "https://gateway/numgen"),
            ("https://gateway/numgen/api", "https://gateway/numgen"),
            ("http://api", "http://api"),
            ("http://api/api", "http://api"),
        ] {
            assert_eq!(base(url), expected, "{url}");
        }
    }

    #[test]
    fn an_answer_of_somebody_else_is_said_to_be_one() {
        for (status, body) in [(StatusCode::BAD_GATEWAY, "<html>"), (StatusCode::OK, "hello")] {
            let text = refusal(status, body);
            assert!(text.contains("http://h:1 answered ") && text.contains("NUMGEN_URL"), "{text}");
        }
    }
}
