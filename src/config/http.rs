//! Browsers and proxies in front of the service.

use super::{
    cidr::Cidr,
    parse::{Parser, list},
    section::{Default, section},
};

/// From which web origins browsers may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// From none: no CORS header is sent.
    None,
    /// From any.
    Any,
    /// From these, each as browsers send it: `https://example.org:8443`.
    Only(Vec<String>),
}

section! {
    /// Browsers and proxies.
    Http, "Browsers and proxies";
    /// Web origins that browsers may call from, or * for any; empty: none.
    cors_origins: Origins = "NUMGEN_CORS_ORIGINS", Default(""), origins();
    /// Proxies whose forwarded-for headers count; empty: none.
    trusted_proxies: Vec<Cidr> = "NUMGEN_TRUSTED_PROXIES", Default(""), list(cidr());
}

fn cidr() -> Parser<Cidr> {
    Parser::new("addresses or address blocks such as 10.0.0.0/8", |text| text.parse().ok())
}

fn origins() -> Parser<Origins> {
    let some = list(Parser::new("web origins such as https://example.org, without a path", web_origin));
    Parser::explaining(format!("* or {}", some.expects), move |text| {
        if text.trim() == "*" {
            return Ok(Origins::Any);
        }
        some.parse(text).map(|list| if list.is_empty() { Origins::None } else { Origins::Only(list) })
    })
}

/// An origin as browsers serialize it (RFC 6454, section 6.2): lower case, no path, no user.
fn web_origin(text: &str) -> Option<String> {
    let (scheme, host) = text.split_once("://")?;
    let of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let of_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let whole =
        !scheme.is_empty() && !host.is_empty() && scheme.chars().all(of_scheme) && host.chars().all(of_host);
    whole.then(|| text.to_ascii_lowercase())
}
