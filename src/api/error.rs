//! Why a request was not served.

use std::time::Duration;

use crate::{
    auth::Forbidden,
    body::ReadError,
    counter::SequenceValue,
    generate::{IssueError, temporary::ResolveError},
    json::{Invalid, Malformed, Message},
    language::{Language, Localized},
    middleware::rate_limit::Exceeded,
    prefix_key::{InvalidPrefixKey, PrefixKey},
    rules::{SaveError, UseError},
    store::{LedgerState, StoreError},
    template::NotDecodable,
};

/// Everything that a handler may fail with; `stack/rescue.rs` turns it into a problem document.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token does not grant this.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The body could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The body is not declared as JSON.
    #[error("the body must be application/json")]
    MediaType,
    /// The body is not a JSON object.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A field, parameter or header does not fit.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The path names something that cannot be a prefix key.
    #[error(transparent)]
    Key(#[from] InvalidPrefixKey),
    /// No such route.
    #[error("there is no such route")]
    NotFound,
    /// No such thing under an existing route.
    #[error("{0}")]
    Missing(Message),
    /// The route exists, the method does not.
    #[error("this route has other methods: {allow}")]
    MethodNotAllowed {
        /// Those that it has.
        allow: &'static str,
    },
    /// Numbers were asked of a prefix key without a rule.
    #[error("prefix {0} is not registered")]
    IssueUnregistered(PrefixKey),
    /// A prefix key without a rule, elsewhere.
    #[error("prefix {0} is not registered")]
    NotRegistered(PrefixKey),
    /// A rule was not saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// A rule cannot be used.
    #[error(transparent)]
    Use(#[from] UseError),
    /// The caller has used up its allowance of numbers.
    #[error(transparent)]
    RateLimited(#[from] Exceeded),
    /// No number was issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A text that the format could not have made.
    #[error(transparent)]
    Decode(#[from] NotDecodable),
    /// `advance` below the cursor.
    #[error("{}", match .last {
        Some(last) => format!("the counter stands at {last} already: `to` must not be below it"),
        None => "`to` lies below where the counter begins".to_owned(),
    })]
    BelowHighWater {
        /// Where it stands; `None` where it has not moved: where a counter begins is told to nobody.
        last: Option<SequenceValue>,
    },
    /// `advance` of a strict counter over more integers than one call may void.
    #[error(
        "a strict counter moves at most {limit} a call, since each integer passed becomes a void row of its ledger"
    )]
    AdvanceTooFar {
        /// How many.
        limit: u64,
    },
    /// A ledger row that does not allow the step.
    #[error("the number is {}{}", .state.as_str(), .reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default())]
    RowConflict {
        /// How it stands.
        state: LedgerState,
        /// Why, where it is void.
        reason: Option<String>,
    },
    /// A temporary number was not resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A temporary number, where a final one is needed.
    #[error(
        "this is a temporary number, which stops fitting its format at position {position}: it says nothing until a final one is \
         assigned to it (/temporary-numbers)"
    )]
    Temporary {
        /// The first character that does not fit, counted from 1.
        position: usize,
    },
    /// Something else stands against it.
    #[error("{0}")]
    StateConflict(Message),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was not done in time.
    #[error("the request was not done within {} s; try again", .0.as_secs_f64())]
    TooLong(Duration),
    /// A bug.
    #[error("{0}")]
    Internal(&'static str),
}

impl Error {
    /// A thing that is not there.
    pub(super) fn missing(english: impl Into<String>, chinese: impl Into<String>) -> Self {
        Self::Missing(Message::new(english, chinese))
    }

    /// Whether the rule that was drawn under was replaced elsewhere: nothing happened, and the new one serves.
    pub(super) fn is_superseded(&self) -> bool {
        if let Self::Issue(IssueError::Store(error)) = self {
            return matches!(**error, StoreError::Superseded { .. });
        }
        matches!(self, Self::Use(UseError::Store(StoreError::Superseded { .. })))
    }
}

impl Localized for Error {
    fn localized(&self, language: Language) -> String {
        match (language, self) {
            (_, Self::Forbidden(error)) => error.localized(language),
            (_, Self::Read(error)) => error.localized(language),
            (_, Self::Malformed(error)) => error.localized(language),
            (_, Self::Invalid(error)) => error.localized(language),
            (_, Self::Key(error)) => error.localized(language),
            (_, Self::Save(error)) => error.localized(language),
            (_, Self::Use(error)) => error.localized(language),
            (_, Self::Issue(error)) => error.localized(language),
            (_, Self::RateLimited(error)) => error.localized(language),
            (_, Self::Decode(error)) => error.localized(language),
            (_, Self::Resolve(error)) => error.localized(language),
            (_, Self::Missing(message) | Self::StateConflict(message)) => message.localized(language),
            (Language::English, _) => self.to_string(),
            (Language::Chinese, Self::MediaType) => "请求体须为 application/json".into(),
            (Language::Chinese, Self::NotFound) => "没有这样的路由".into(),
            (Language::Chinese, Self::MethodNotAllowed { allow }) => format!("该路由支持的方法：{allow}"),
            (Language::Chinese, Self::IssueUnregistered(key) | Self::NotRegistered(key)) => {
                format!("前缀 {key} 未注册")
            }
            (Language::Chinese, Self::Temporary { position }) => {
                format!(
                    "这是临时号码，从第 {position} 位起不符合格式，转正（/temporary-numbers）之前不含任何信息"
                )
            }
            (Language::Chinese, Self::BelowHighWater { last: Some(last) }) => {
                format!("计数器已到 {last}，`to` 不得低于该值")
            }
            (Language::Chinese, Self::BelowHighWater { last: None }) => "`to` 低于计数器的起点".to_owned(),
            (Language::Chinese, Self::AdvanceTooFar { limit }) => {
                format!("strict 计数器每次最多前移 {limit}，因为跳过的每个整数都会成为台账中的作废行")
            }
            (Language::Chinese, Self::RowConflict { state, reason }) => {
                let reason = reason.as_deref().map(|reason| format!("（{reason}）")).unwrap_or_default();
                format!("该号码的状态为 {}{reason}", state.as_str())
            }
            (Language::Chinese, Self::TooLong(limit)) => {
                format!("请求未能在 {} 秒内完成，请重试", limit.as_secs_f64())
            }
            (Language::Chinese, Self::Store(_)) => "存储出错".into(),
            (Language::Chinese, Self::Internal(_)) => "内部错误".into(),
        }
    }
}
