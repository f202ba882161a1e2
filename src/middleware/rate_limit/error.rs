//! The refusal.

use std::{fmt, time::Duration};

use crate::language::{Language, Localized};

/// Which limit it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Requests for numbers, by subject.
    Numbers,
    /// Numbers, by subject.
    Issued,
    /// Numbers, by prefix key (`rate_limit` of the rule).
    Rule,
    /// Other requests, by subject.
    Management,
    /// Requests that are unauthenticated or refused, by address.
    Address,
}

impl Policy {
    /// Every limit.
    pub const ALL: [Self; 5] = [Self::Numbers, Self::Issued, Self::Rule, Self::Management, Self::Address];

    /// The word for it in fields, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Numbers => "numbers",
            Self::Issued => "issued",
            Self::Rule => "rule",
            Self::Management => "management",
            Self::Address => "address",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A caller asks for more than its allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Which limit.
    pub policy: Policy,
    /// The allowance for a second.
    pub limit: u32,
    /// What is left of it now; 0 where a batch is above `limit`.
    pub remaining: u32,
    /// How much was asked for: 1, or the numbers of a batch.
    pub asked: u32,
    /// When the whole allowance is back.
    pub reset: Duration,
    /// When the same request may succeed. A batch above `limit` never will.
    pub retry_after: Duration,
}

impl Exceeded {
    /// `Retry-After`, in seconds, rounded up (RFC 9110, section 10.2.3).
    pub fn retry_after_seconds(&self) -> u64 {
        whole_seconds(self.retry_after)
    }

    /// `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10, section 4).
    pub fn rate_limit_field(&self) -> String {
        format!("\"{}\";r={};t={}", self.policy, self.remaining, whole_seconds(self.reset))
    }

    /// `RateLimit-Policy` (same draft, section 3).
    pub fn rate_limit_policy_field(&self) -> String {
        format!("\"{}\";q={};w=1", self.policy, self.limit)
    }
}

/// At least 1: a client that is told 0 comes back at once.
fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, asked, .. } = self;
        match self.policy {
            Policy::Numbers => write!(f, "more than {limit} requests for numbers per second"),
            Policy::Issued | Policy::Rule if asked > limit => {
                write!(f, "a batch of {asked} numbers; {limit} per second are allowed, ask for fewer at once")
            }
            Policy::Issued => write!(f, "more than {limit} numbers per second"),
            Policy::Rule => write!(f, "more than {limit} numbers per second under this prefix key"),
            Policy::Management => write!(f, "more than {limit} management requests per second"),
            Policy::Address => write!(f, "more than {limit} refused requests per second from this address"),
        }
    }
}

impl std::error::Error for Exceeded {}

impl Localized for Exceeded {
    fn localized(&self, language: Language) -> String {
        let Self { limit, asked, .. } = self;
        match (language, self.policy) {
            (Language::English, _) => self.to_string(),
            (Language::Chinese, Policy::Numbers) => format!("取号请求超过每秒 {limit} 次"),
            (Language::Chinese, Policy::Issued | Policy::Rule) if asked > limit => {
                format!("一批 {asked} 个编号超过每秒允许的 {limit} 个，请减少每批数量")
            }
            (Language::Chinese, Policy::Issued) => format!("编号超过每秒 {limit} 个"),
            (Language::Chinese, Policy::Rule) => format!("该前缀的编号超过每秒 {limit} 个"),
            (Language::Chinese, Policy::Management) => format!("管理请求超过每秒 {limit} 次"),
            (Language::Chinese, Policy::Address) => format!("来自该地址的被拒请求超过每秒 {limit} 次"),
        }
    }
}
