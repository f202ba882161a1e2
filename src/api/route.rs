//! Routes: which there are, how a path is recognised, which methods they have.
//!
//! Recognising a path is splitting it and comparing words: several layers ask for each request. What stands in the places of
//! key and number is decoded only by the handler, after the split, so that `%2F` in a number is part of the number.
//! Every route answers with and without `/api`.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

/// Which route it is. The discriminant is its place in [`LABELS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    PrefixConfigs,
    PrefixConfig,
    FormatPreview,
    Numbers,
    Decode,
    NumbersOf,
    Confirm,
    Void,
    Sequence,
    Advance,
    Abandon,
    Ledger,
    Certificate,
    TemporaryNumbers,
    ResolveTemporary,
    OpenApi,
    Docs,
}

/// A path that is a route, still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route<'a> {
    pub(super) kind: Kind,
    key: &'a str,
    number: &'a str,
}

/// Every label, in the order of [`Kind`], the one for unknown paths last.
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
    "unknown",
];

impl<'a> Route<'a> {
    /// The route of a path, `None` where there is none.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_prefix("api/").unwrap_or(path);
        let mut segments = path.split('/');
        let mut next = || segments.next();
        let (first, second, third, fourth, fifth) = (next()?, next(), next(), next(), next());
        let plain = |kind| (kind, "", "");
        let (kind, key, number) = match (first, second, third, fourth, fifth) {
            ("numbers", None, ..) => plain(Kind::Numbers),
            ("numbers", Some("decode"), None, ..) => plain(Kind::Decode),
            ("numbers", Some(key), None, ..) => (Kind::NumbersOf, key, ""),
            ("numbers", Some(key), Some(number), Some("confirm"), None) => (Kind::Confirm, key, number),
            ("numbers", Some(key), Some(number), Some("void"), None) => (Kind::Void, key, number),
            ("prefix-configs", None, ..) => plain(Kind::PrefixConfigs),
            ("prefix-configs", Some(key), None, ..) => (Kind::PrefixConfig, key, ""),
            ("formats", Some("preview"), None, ..) => plain(Kind::FormatPreview),
            ("sequences", Some(key), None, ..) => (Kind::Sequence, key, ""),
            ("sequences", Some(key), Some("advance"), None, ..) => (Kind::Advance, key, ""),
            ("sequences", Some(key), Some("abandon"), None, ..) => (Kind::Abandon, key, ""),
            ("ledger", Some(key), None, ..) => (Kind::Ledger, key, ""),
            ("ledger", Some(key), Some("certificate"), None, ..) => (Kind::Certificate, key, ""),
            ("temporary-numbers", None, ..) => plain(Kind::TemporaryNumbers),
            ("temporary-numbers", Some(number), Some("resolve"), None, ..) => {
                (Kind::ResolveTemporary, "", number)
            }
            ("openapi.json", None, ..) => plain(Kind::OpenApi),
            ("docs", None, ..) => plain(Kind::Docs),
            _ => return None,
        };
        // An empty place names nothing.
        (second != Some("") && third != Some("")).then_some(Self { kind, key, number })
    }

    /// The prefix key; `None` where its escapes are not UTF-8.
    pub(super) fn key(&self) -> Option<Cow<'a, str>> {
        percent_decode_str(self.key).decode_utf8().ok()
    }

    /// The number; `None` where its escapes are not UTF-8.
    pub(super) fn number(&self) -> Option<Cow<'a, str>> {
        percent_decode_str(self.number).decode_utf8().ok()
    }
}

impl Kind {
    /// The methods that it has, as `Allow` lists them. `HEAD` goes with a `GET` that consumes nothing.
    pub(super) const fn allow(self) -> &'static str {
        match self {
            Self::PrefixConfigs => "GET, HEAD, OPTIONS, POST",
            Self::PrefixConfig => "DELETE, GET, HEAD, OPTIONS, POST, PUT",
            Self::Numbers => "GET, OPTIONS, POST",
            Self::NumbersOf => "GET, OPTIONS",
            Self::FormatPreview
            | Self::Confirm
            | Self::Void
            | Self::Advance
            | Self::Abandon
            | Self::ResolveTemporary => "OPTIONS, POST",
            Self::Decode
            | Self::Sequence
            | Self::Ledger
            | Self::Certificate
            | Self::TemporaryNumbers
            | Self::OpenApi
            | Self::Docs => "GET, HEAD, OPTIONS",
        }
    }

    /// Whether it has the method.
    pub(super) fn allows(self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// The label of a path, and its position in [`LABELS`].
pub fn label(path: &str) -> (usize, &'static str) {
    let index = Route::of(path).map_or(LABELS.len() - 1, |route| route.kind as usize);
    (index, LABELS[index])
}

/// Whether a request is answered without a token: the documentation, which methods a route has, and that a path is no route.
pub fn is_public(method: &Method, path: &str) -> bool {
    let documents = |route: Route<'_>| matches!(route.kind, Kind::OpenApi | Kind::Docs);
    method == Method::OPTIONS || Route::of(path).is_none_or(documents)
}

/// Whether a path is one of those that issue numbers: the class of its rate limit.
pub fn issues_numbers(path: &str) -> bool {
    Route::of(path).is_some_and(|route| matches!(route.kind, Kind::Numbers | Kind::NumbersOf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_answers_with_and_without_api_and_has_its_label() {
        for expected in &LABELS[..17] {
            let path = expected.replace("{prefixKey}", "A").replace("{number}", "A-1");
            assert_eq!(label(&path).1, *expected);
            assert_eq!(label(&format!("/api{path}")).1, *expected);
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
            "/numbers/A//void",
            "/numbers//1/void",
            "/temporary-numbers//resolve",
            "/sequences//advance",
        ] {
            assert_eq!(label(path).1, "unknown", "{path}");
        }
    }

    #[test]
    fn a_path_is_split_before_it_is_decoded() {
        let route = Route::of("/numbers/A%2DB/2026%2F0001%20x/void").expect("a route");
        assert_eq!(route.kind, Kind::Void);
        assert_eq!((route.key().as_deref(), route.number().as_deref()), (Some("A-B"), Some("2026/0001 x")));
        assert_eq!(Route::of("/numbers/%FF").expect("a route").key(), None);
    }

    #[test]
    fn consuming_routes_have_no_head() {
        assert!(!Kind::Numbers.allows(&Method::HEAD) && !Kind::NumbersOf.allows(&Method::HEAD));
        assert!(Kind::PrefixConfig.allows(&Method::HEAD));
    }
}
