//! What a verified token says about its bearer.

use std::{sync::Arc, time::Duration};

use super::{
    glob::Prefixes,
    scope::{Scope, Scopes},
};
use crate::{
    clock::UnixMillis,
    language::{Language, Localized},
};

/// How far the clocks of issuer and service may be apart.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// The bearer of a verified token. Handlers ask [`Claims::require`] and [`Claims::may_touch`] before anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who it is (`sub`).
    pub subject: Arc<str>,
    /// What it may do (`scope`).
    pub scopes: Scopes,
    /// Which prefix keys it may touch (`prefixes`); `None`: all.
    pub prefixes: Option<Prefixes>,
    /// When the token expires (`exp`).
    pub expires_at: UnixMillis,
    /// From when on it counts (`nbf`); `None`: from ever.
    pub not_before: Option<UnixMillis>,
}

/// A known caller asks for more than its token grants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// The token lacks a scope.
    #[error("this needs the scope {0}, which the token does not grant")]
    Scope(Scope),
    /// The token's `prefixes` claim does not cover this prefix key.
    #[error("the token does not cover the prefix {0:?}")]
    Prefix(Box<str>),
}

impl Claims {
    /// Whether the token grants `scope`.
    ///
    /// # Errors
    ///
    /// `Forbidden::Scope` names the one that is missing.
    pub fn require(&self, scope: Scope) -> Result<(), Forbidden> {
        if self.scopes.contains(scope) { Ok(()) } else { Err(Forbidden::Scope(scope)) }
    }

    /// Whether the token covers `prefix`; lists leave out those that it does not.
    ///
    /// # Errors
    ///
    /// `Forbidden::Prefix` names it.
    pub fn may_touch(&self, prefix: &str) -> Result<(), Forbidden> {
        match &self.prefixes {
            Some(prefixes) if !prefixes.matches(prefix) => Err(Forbidden::Prefix(prefix.into())),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether an earlier verification still stands at `now`. The leeway counts for `nbf` alone: in the 30 s after `exp`
    /// every request is verified anew.
    pub fn holds_at(&self, now: UnixMillis) -> bool {
        now < self.expires_at && self.not_before.is_none_or(|start| now.plus(LEEWAY) >= start)
    }
}

impl Forbidden {
    /// One word for metrics and logs.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Scope(_) => "missing_scope",
            Self::Prefix(_) => "foreign_prefix",
        }
    }
}

impl Localized for Forbidden {
    fn localized(&self, language: Language) -> String {
        match (language, self) {
            (Language::English, _) => self.to_string(),
            (Language::Chinese, Self::Scope(scope)) => format!("此操作需要权限范围 {scope}，令牌未授予"),
            (Language::Chinese, Self::Prefix(prefix)) => format!("令牌不包含前缀 {prefix:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(prefixes: Option<Prefixes>) -> Claims {
        Claims {
            subject: "erp".into(),
            scopes: Scopes::from_claim("numbers:issue"),
            prefixes,
            expires_at: UnixMillis(100_000),
            not_before: Some(UnixMillis(50_000)),
        }
    }

    #[test]
    fn names_the_missing_scope_and_the_foreign_prefix() {
        let claims = claims(Some(Prefixes::parse("ACME-*")));
        assert_eq!(claims.require(Scope::NumbersIssue), Ok(()));
        let error = claims.require(Scope::LedgerRead).unwrap_err();
        assert_eq!(error.to_string(), "this needs the scope ledger:read, which the token does not grant");
        assert!(error.localized(Language::Chinese).contains("ledger:read"));

        assert_eq!(claims.may_touch("ACME-ORDERS"), Ok(()));
        let error = claims.may_touch("OTHER").unwrap_err();
        assert_eq!(error, Forbidden::Prefix("OTHER".into()));
        assert!(error.localized(Language::Chinese).contains("OTHER"));
    }

    #[test]
    fn without_the_claim_every_prefix_is_covered() {
        assert_eq!(claims(None).may_touch("ANY"), Ok(()));
        assert!(claims(Some(Prefixes::default())).may_touch("ANY").is_err());
    }

    #[test]
    fn holds_from_nbf_less_the_leeway_until_exp_sharp() {
        let claims = claims(None);
        for (now, expected) in [(19_999, false), (20_000, true), (99_999, true), (100_000, false)] {
            assert_eq!(claims.holds_at(UnixMillis(now)), expected, "{now}");
        }
    }
}
