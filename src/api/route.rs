//! Routes: which there are, how a path is recognised, which methods they have.
//!
//! A path is split before it is decoded, so that `%2F` in a number is part of the number. Every route answers with and
//! without `/api`.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    PrefixConfigs,
    PrefixConfig { key: Cow<'a, str> },
    FormatPreview,
    Numbers,
    Decode,
    NumbersOf { key: Cow<'a, str> },
    Confirm { key: Cow<'a, str>, number: Cow<'a, str> },
    Void { key: Cow<'a, str>, number: Cow<'a, str> },
    Sequence { key: Cow<'a, str> },
    Advance { key: Cow<'a, str> },
    Abandon { key: Cow<'a, str> },
    Ledger { key: Cow<'a, str> },
    Certificate { key: Cow<'a, str> },
    TemporaryNumbers,
    ResolveTemporary { number: Cow<'a, str> },
    OpenApi,
    Docs,
}

/// The label of a path that is no route.
pub(super) const UNKNOWN: &str = "unknown";

impl<'a> Route<'a> {
    /// The route of a path, `None` where there is none or its escapes are not UTF-8.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_prefix("api/").unwrap_or(path);
        let mut segments = path.split('/');
        let mut next = || segments.next();
        let parts = [next(), next(), next(), next(), next()];
        let text =
            |segment: &'a str| percent_decode_str(segment).decode_utf8().ok().filter(|text| !text.is_empty());
        Some(match parts {
            [Some("prefix-configs"), None, ..] => Self::PrefixConfigs,
            [Some("prefix-configs"), Some(key), None, ..] => Self::PrefixConfig { key: text(key)? },
            [Some("formats"), Some("preview"), None, ..] => Self::FormatPreview,
            [Some("numbers"), None, ..] => Self::Numbers,
            [Some("numbers"), Some("decode"), None, ..] => Self::Decode,
            [Some("numbers"), Some(key), None, ..] => Self::NumbersOf { key: text(key)? },
            [Some("numbers"), Some(key), Some(number), Some("confirm"), None] => {
                Self::Confirm { key: text(key)?, number: text(number)? }
            }
            [Some("numbers"), Some(key), Some(number), Some("void"), None] => {
                Self::Void { key: text(key)?, number: text(number)? }
            }
            [Some("sequences"), Some(key), None, ..] => Self::Sequence { key: text(key)? },
            [Some("sequences"), Some(key), Some("advance"), None, ..] => Self::Advance { key: text(key)? },
            [Some("sequences"), Some(key), Some("abandon"), None, ..] => Self::Abandon { key: text(key)? },
            [Some("ledger"), Some(key), None, ..] => Self::Ledger { key: text(key)? },
            [Some("ledger"), Some(key), Some("certificate"), None, ..] => {
                Self::Certificate { key: text(key)? }
            }
            [Some("temporary-numbers"), None, ..] => Self::TemporaryNumbers,
            [Some("temporary-numbers"), Some(number), Some("resolve"), None, ..] => {
                Self::ResolveTemporary { number: text(number)? }
            }
            [Some("openapi.json"), None, ..] => Self::OpenApi,
            [Some("docs"), None, ..] => Self::Docs,
            _ => return None,
        })
    }

    /// The pattern, for metrics, spans and the OpenAPI document.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::PrefixConfigs => "/prefix-configs",
            Self::PrefixConfig { .. } => "/prefix-configs/{prefixKey}",
            Self::FormatPreview => "/formats/preview",
            Self::Numbers => "/numbers",
            Self::Decode => "/numbers/decode",
            Self::NumbersOf { .. } => "/numbers/{prefixKey}",
            Self::Confirm { .. } => "/numbers/{prefixKey}/{number}/confirm",
            Self::Void { .. } => "/numbers/{prefixKey}/{number}/void",
            Self::Sequence { .. } => "/sequences/{prefixKey}",
            Self::Advance { .. } => "/sequences/{prefixKey}/advance",
            Self::Abandon { .. } => "/sequences/{prefixKey}/abandon",
            Self::Ledger { .. } => "/ledger/{prefixKey}",
            Self::Certificate { .. } => "/ledger/{prefixKey}/certificate",
            Self::TemporaryNumbers => "/temporary-numbers",
            Self::ResolveTemporary { .. } => "/temporary-numbers/{number}/resolve",
            Self::OpenApi => "/openapi.json",
            Self::Docs => "/docs",
        }
    }

    /// The methods that it has, as `Allow` lists them. `HEAD` goes with a `GET` that consumes nothing.
    pub(super) const fn allow(&self) -> &'static str {
        match self {
            Self::PrefixConfigs => "GET, HEAD, OPTIONS, POST",
            Self::PrefixConfig { .. } => "DELETE, GET, HEAD, OPTIONS, POST, PUT",
            Self::Numbers => "GET, OPTIONS, POST",
            Self::NumbersOf { .. } => "GET, OPTIONS",
            Self::FormatPreview
            | Self::Confirm { .. }
            | Self::Void { .. }
            | Self::Advance { .. }
            | Self::Abandon { .. }
            | Self::ResolveTemporary { .. } => "OPTIONS, POST",
            Self::Decode
            | Self::Sequence { .. }
            | Self::Ledger { .. }
            | Self::Certificate { .. }
            | Self::TemporaryNumbers
            | Self::OpenApi
            | Self::Docs => "GET, HEAD, OPTIONS",
        }
    }

    /// Whether it has the method.
    pub(super) fn allows(&self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }

    /// Whether it needs a token.
    pub(super) const fn is_public(&self) -> bool {
        matches!(self, Self::OpenApi | Self::Docs)
    }

    /// Whether it issues numbers: the class of its rate limit.
    pub(super) const fn issues(&self) -> bool {
        matches!(self, Self::Numbers | Self::NumbersOf { .. })
    }
}

/// Every label, the one for unknown paths last.
pub const LABELS: [&str; 18] = [
    "/prefix-configs",
    "/prefix-configs/{prefixKey}",
    "/formats/preview",
    "/numbers",
    "/numbers/decode",
    "/numbers/{prefixKey}",
    "/numbers/{prefixKey}/{number}/confirm",
    "/numbers/{prefixKey}/{number}/void",
    "/sequences/{prefixKey}",
    "/sequences/{prefixKey}/advance",
    "/sequences/{prefixKey}/abandon",
    "/ledger/{prefixKey}",
    "/ledger/{prefixKey}/certificate",
    "/temporary-numbers",
    "/temporary-numbers/{number}/resolve",
    "/openapi.json",
    "/docs",
    UNKNOWN,
];

/// The label of a path, and its position in [`LABELS`].
pub fn label(path: &str) -> (usize, &'static str) {
    let label = Route::of(path).map_or(UNKNOWN, |route| route.label());
    // Labels are the same statics: the first that has the same address, and they are few.
    let index = LABELS.iter().position(|known| std::ptr::eq(*known, label) || *known == label);
    (index.unwrap_or(LABELS.len() - 1), label)
}

/// Whether a request is answered without a token: the documentation, which methods a route has, and that a path is no route.
pub fn is_public(method: &Method, path: &str) -> bool {
    method == Method::OPTIONS || Route::of(path).is_none_or(|route| route.is_public())
}

/// Whether a path is one of those that issue numbers.
pub fn issues_numbers(path: &str) -> bool {
    Route::of(path).is_some_and(|route| route.issues())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_answers_with_and_without_api() {
        for label in &LABELS[..17] {
            let path = label.replace("{prefixKey}", "A").replace("{number}", "A-1");
            let route = Route::of(&path).expect("a route");
            assert_eq!(route.label(), *label);
            assert_eq!(Route::of(&format!("/api{path}")), Some(route));
        }
    }

    #[test]
    fn what_is_no_route_is_unknown() {
        for path in [
            "",
            "/",
            "/api",
            "/api/api/numbers",
            "/numbers/",
            "/numbers/A/B",
            "/numbers/A/1/confirm/x",
            "/docs/x",
            "/numbers/%FF",
        ] {
            assert_eq!(label(path).1, UNKNOWN, "{path}");
        }
    }

    #[test]
    fn a_path_is_split_before_it_is_decoded() {
        assert_eq!(
            Route::of("/numbers/A/2026%2F0001%20x/void"),
            Some(Route::Void { key: "A".into(), number: "2026/0001 x".into() })
        );
    }

    #[test]
    fn consuming_routes_have_no_head() {
        for path in ["/numbers", "/numbers/A"] {
            assert!(!Route::of(path).expect("a route").allows(&Method::HEAD));
        }
        assert!(Route::of("/prefix-configs/A").expect("a route").allows(&Method::HEAD));
    }
}
