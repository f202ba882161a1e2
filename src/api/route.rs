//! Routes: which there are, how a path is recognised, which methods they have.
//!
//! Recognising a path is splitting it and comparing words: several layers ask for each request. What stands in the places of
//! key and number is decoded only by the handler, after the split, so that `%2F` in a number is part of the number.
//! Every route answers with and without `/api`.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::middleware::context::{Access, Class, RouteInfo};

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
    Audit,
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

/// Every label, in the order of the routes, the one for unknown paths last.
pub const LABELS: [&str; 19] = [
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
    "/audit",
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
            ("audit", None, ..) => plain(Kind::Audit),
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
            | Self::Audit
            | Self::TemporaryNumbers
            | Self::OpenApi
            | Self::Docs => "GET, HEAD, OPTIONS",
        }
    }

    /// Whether what it does is on the audit trail.
    pub(super) fn leaves_note(self, method: &Method) -> bool {
        match self {
            Self::PrefixConfigs | Self::PrefixConfig => !matches!(*method, Method::GET | Method::HEAD),
            Self::Void | Self::Advance | Self::Abandon | Self::ResolveTemporary => true,
            Self::FormatPreview
            | Self::Numbers
            | Self::NumbersOf
            | Self::Confirm
            | Self::Decode
            | Self::Sequence
            | Self::Ledger
            | Self::Certificate
            | Self::Audit
            | Self::TemporaryNumbers
            | Self::OpenApi
            | Self::Docs => false,
        }
    }

    /// Whether it has the method.
    pub(super) fn allows(self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// What layers know of a request by its method and path. Without a token are answered: the documentation, which methods a route
/// has, and that a path is no route.
pub fn info(method: &Method, path: &str) -> RouteInfo {
    let kind = Route::of(path).map(|route| route.kind);
    let index = kind.map_or(LABELS.len() - 1, |kind| kind as usize);
    let open = method == Method::OPTIONS || matches!(kind, None | Some(Kind::OpenApi | Kind::Docs));
    let issues = matches!(kind, Some(Kind::Numbers | Kind::NumbersOf));
    RouteInfo {
        index,
        label: LABELS[index],
        access: if open { Access::Open } else { Access::Token },
        class: if issues { Class::Numbers } else { Class::Management },
    }
}

/// The methods of the route of a path, as `Allow` lists them; `None` where there is no route.
pub fn allow(path: &str) -> Option<&'static str> {
    Route::of(path).map(|route| route.kind.allow())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(path: &str) -> &'static str {
        info(&Method::GET, path).label
    }

    #[test]
    fn every_route_answers_with_and_without_api_and_has_its_label() {
        for expected in &LABELS[..18] {
            let path = expected.replace("{prefixKey}", "A").replace("{number}", "A-1");
            assert_eq!(label(&path), *expected);
            assert_eq!(label(&format!("/api{path}")), *expected);
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
            assert_eq!(label(path), "unknown", "{path}");
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
    fn only_what_tells_nothing_needs_no_token() {
        let access = |method, path| info(&method, path).access;
        for path in ["/docs", "/api/openapi.json", "/nowhere"] {
            assert_eq!(access(Method::GET, path), Access::Open, "{path}");
        }
        assert_eq!(access(Method::OPTIONS, "/numbers"), Access::Open);
        for path in &LABELS[..16] {
            assert_eq!(access(Method::GET, path), Access::Token, "{path}");
        }
    }

    #[test]
    fn changes_are_noted_and_questions_are_not() {
        let noted = |path, method| Route::of(path).expect("a route").kind.leaves_note(&method);
        assert!(noted("/prefix-configs", Method::POST) && !noted("/prefix-configs", Method::GET));
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            assert!(noted("/prefix-configs/A", method.clone()), "{method}");
        }
        for path in ["/numbers/A/1/void", "/sequences/A/advance", "/sequences/A/abandon"] {
            assert!(noted(path, Method::POST), "{path}");
        }
        assert!(noted("/temporary-numbers/1/resolve", Method::POST));
        assert!(!noted("/numbers/A/1/confirm", Method::POST) && !noted("/numbers", Method::POST));
    }

    #[test]
    fn consuming_routes_have_no_head() {
        assert!(!Kind::Numbers.allows(&Method::HEAD) && !Kind::NumbersOf.allows(&Method::HEAD));
        assert!(Kind::PrefixConfig.allows(&Method::HEAD));
    }
}
