//! The OpenAPI document and a page that renders it. `tests/it/openapi.rs` keeps it true.

use http::{HeaderValue, Response, StatusCode, header};

use crate::body::{self, Body};

const DOCUMENT: &str = include_str!("openapi.json");
const PAGE: &str = include_str!("docs.html");

/// What the page may do: its own style and script, and fetch the document beside it. Nothing leaves the host.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn document() -> Response<Body> {
    public(body::json(StatusCode::OK, DOCUMENT))
}

pub(super) fn page() -> Response<Body> {
    let mut response = public(body::full(StatusCode::OK, "text/html; charset=utf-8", PAGE));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The same for everybody, until the next version.
fn public(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
