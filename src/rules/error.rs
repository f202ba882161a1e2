//! Why a rule cannot be saved or used, and what is worth a warning. No message shows an `initial_seq`.

use chrono::NaiveDate;

use crate::{
    clock::UnixMillis,
    json::Invalid,
    language::{Language, Localized},
    prefix_key::PrefixKey,
    store::StoreError,
    template::FormatError,
};

/// Why an earlier text could come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reappearance {
    /// The formats differ and have texts in common.
    Text,
    /// Values were counted before and are to be snowflakes now, or the other way round.
    Values,
}

/// Why a rule was not saved or deleted; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The format is wrong.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Fields are wrong, or do not fit together.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// `POST` to a key that has a rule.
    #[error("prefix {0} already has a rule; replace it with PUT")]
    AlreadyExists(PrefixKey),
    /// There is no rule to delete.
    #[error("prefix {0} is not registered")]
    NotRegistered(PrefixKey),
    /// A text that was already issued could come back.
    #[error("{}", english_conflict(.earlier, .example, *.reason))]
    FormatConflict {
        /// The format under which numbers may have been issued.
        earlier: String,
        /// A text that both can yield.
        example: String,
        /// Why.
        reason: Reappearance,
    },
    /// `initial_seq` was to change after a counter had begun.
    #[error(
        "initial_seq can no longer change, since counters of {0} have begun; \
         POST /sequences/{0}/advance moves a counter up"
    )]
    StateConflict(PrefixKey),
    /// The rule is not the one that the caller has seen.
    #[error("the rule of {0} is not the one that If-Match names; read it again")]
    PreconditionFailed(PrefixKey),
    /// Strict rules need a store that is not configured.
    #[error("mode strict is not available in this deployment: set {setting}")]
    StrictUnavailable {
        /// The name of the missing setting.
        setting: &'static str,
    },
    /// The store did not play along.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn english_conflict(earlier: &str, example: &str, reason: Reappearance) -> String {
    match reason {
        Reappearance::Text => format!(
            "a number that was issued under the earlier format {earlier} could come back, for example {example}: \
             change the fixed text, or only the zero-fill length"
        ),
        Reappearance::Values => format!(
            "numbers were issued under {earlier} with values of another kind (snowflake or counted), so that one of them could \
             come back, for example {example}: keep the mode, or change the fixed text"
        ),
    }
}

impl Localized for SaveError {
    fn localized(&self, language: Language) -> String {
        if language == Language::English {
            return self.to_string();
        }
        match self {
            Self::Format(error) => error.localized(language),
            Self::Invalid(error) => error.localized(language),
            Self::AlreadyExists(key) => format!("前缀 {key} 已有规则；如需替换请使用 PUT"),
            Self::NotRegistered(key) => format!("前缀 {key} 未注册"),
            Self::FormatConflict { earlier, example, reason: Reappearance::Text } => {
                format!(
                    "按先前格式 {earlier} 已发出的号码可能再次出现，例如 {example}：请更改固定文本，或只更改补零长度"
                )
            }
            Self::FormatConflict { earlier, example, reason: Reappearance::Values } => {
                format!(
                    "先前按 {earlier} 发出的号码使用另一类序列值（雪花或计数），可能再次出现，例如 {example}：请保持 mode，或更改固定文本"
                )
            }
            Self::StateConflict(key) => {
                format!(
                    "{key} 的计数器已开始，initial_seq 不能再更改；可用 POST /sequences/{key}/advance 将计数器上移"
                )
            }
            Self::PreconditionFailed(key) => format!("{key} 的规则与 If-Match 所指的不一致，请重新读取"),
            Self::StrictUnavailable { setting } => format!("此部署不支持 strict 模式：请设置 {setting}"),
            Self::Store(error) => chinese(error),
        }
    }
}

/// Why a rule cannot be used; nothing was drawn.
#[derive(Debug, thiserror::Error)]
pub enum UseError {
    /// It was deleted meanwhile.
    #[error("prefix {0} is not registered")]
    NotRegistered(PrefixKey),
    /// A number of that date would look as one of another period.
    #[error("must be {since} or later: {{fy:2}} writes the fiscal years 1999 and 2099 alike")]
    Untold {
        /// The first date of which numbers may be drawn.
        since: NaiveDate,
    },
    /// The store did not play along.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Localized for UseError {
    fn localized(&self, language: Language) -> String {
        match (language, self) {
            (Language::English, _) => self.to_string(),
            (Language::Chinese, Self::NotRegistered(key)) => format!("前缀 {key} 未注册"),
            (Language::Chinese, Self::Untold { since }) => {
                format!("不得早于 {since}：{{fy:2}} 无法区分 1999 与 2099 财年")
            }
            (Language::Chinese, Self::Store(error)) => chinese(error),
        }
    }
}

fn chinese(error: &StoreError) -> String {
    match error {
        StoreError::Timeout { .. } => "存储未在限时内响应".into(),
        StoreError::Unavailable { .. } => "存储暂不可用".into(),
        StoreError::Superseded { .. } => "规则刚被替换，请重试".into(),
        StoreError::Suspended { why } => why.localized(Language::Chinese),
        StoreError::Corrupt { .. } => "存储中有无法识别的内容，需要人工检查".into(),
    }
}

/// Something that is accepted, but that the operator should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warning {
    /// Another rule can yield the same text.
    SharedText {
        /// Whose rule; `None` if the caller may not see it.
        other: Option<PrefixKey>,
        /// Such a text.
        example: String,
    },
    /// Not a single value fits the width or the limit, so that every request will be refused.
    NothingFits,
    /// Snowflakes fit the width or the limit only for some time.
    FitsUntil(UnixMillis),
}

impl Localized for Warning {
    fn localized(&self, language: Language) -> String {
        match (language, self) {
            (Language::English, Self::SharedText { other: Some(other), example }) => {
                format!("prefix {other} can yield the same text, for example {example}")
            }
            (Language::English, Self::SharedText { other: None, example }) => {
                format!("another prefix can yield the same text, for example {example}")
            }
            (Language::English, Self::NothingFits) => {
                "no value fits max_seq, or the length under overflow: reject, so every request will be refused".into()
            }
            (Language::English, Self::FitsUntil(end)) => format!(
                "snowflake IDs outgrow max_seq, or the length under overflow: reject, at {}: from then on, every request will be refused",
                end.to_rfc3339()
            ),
            (Language::Chinese, Self::SharedText { other: Some(other), example }) => {
                format!("前缀 {other} 可能产生相同的文本，例如 {example}")
            }
            (Language::Chinese, Self::SharedText { other: None, example }) => {
                format!("另一个前缀可能产生相同的文本，例如 {example}")
            }
            (Language::Chinese, Self::NothingFits) => {
                "没有任何值符合 max_seq 或 overflow: reject 下的长度，所有请求都会被拒绝".into()
            }
            (Language::Chinese, Self::FitsUntil(end)) => format!(
                "雪花 ID 将于 {} 超出 max_seq 或 overflow: reject 下的长度，此后所有请求都会被拒绝",
                end.to_rfc3339()
            ),
        }
    }
}
