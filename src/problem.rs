//! Problem documents (RFC 9457): the body of every answer that is not a success.
//!
//! A [`Code`] never changes and is what programs look at; `title` and `detail` are for people, in their language. Which error
//! becomes which problem is decided in one place, `stack/rescue.rs`.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::language::Language;

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The format does not follow the grammar.
    InvalidFormat,
    /// A zero-fill length outside 1 to 20.
    InvalidLength,
    /// A field, parameter or header that does not fit.
    Validation,
    /// A text that the rule's format could not have made.
    NotDecodable,
    /// No rule under this prefix key.
    PrefixNotRegistered,
    /// No token, or one that does not hold.
    Unauthorized,
    /// The token lacks a scope, or may not touch this prefix.
    Forbidden,
    /// No such route or thing.
    NotFound,
    /// The route exists, the method does not.
    MethodNotAllowed,
    /// The client was too slow with its body.
    RequestTimeout,
    /// The body is over the limit.
    PayloadTooLarge,
    /// The URL is over the limit.
    UriTooLong,
    /// The header block is over the limit.
    HeadersTooLarge,
    /// The body is not JSON.
    UnsupportedMediaType,
    /// POST on a prefix key that has a rule.
    PrefixAlreadyExists,
    /// A format under which an issued text could come back.
    FormatConflict,
    /// The counter or the digits have run out.
    SequenceOverflow,
    /// `advance` below the cursor.
    BelowHighWater,
    /// Late or contrary to what has been decided.
    StateConflict,
    /// The first request with this key is still at work.
    IdempotencyInFlight,
    /// `If-Match` does not hold.
    PreconditionFailed,
    /// The key was used for another request.
    IdempotencyMismatch,
    /// Too many requests.
    RateLimited,
    /// The store did not answer in time.
    StorageTimeout,
    /// The store is away.
    StorageUnavailable,
    /// Too much at once.
    Overloaded,
    /// No worker window to issue from.
    NoWorkerId,
    /// A bug or a broken store; the cause is in the log.
    Internal,
}

impl Code {
    /// Every code: for the OpenAPI document and its test.
    pub const ALL: [Self; 28] = [
        Self::InvalidFormat,
        Self::InvalidLength,
        Self::Validation,
        Self::NotDecodable,
        Self::PrefixNotRegistered,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::PayloadTooLarge,
        Self::UriTooLong,
        Self::HeadersTooLarge,
        Self::UnsupportedMediaType,
        Self::PrefixAlreadyExists,
        Self::FormatConflict,
        Self::SequenceOverflow,
        Self::BelowHighWater,
        Self::StateConflict,
        Self::IdempotencyInFlight,
        Self::PreconditionFailed,
        Self::IdempotencyMismatch,
        Self::RateLimited,
        Self::StorageTimeout,
        Self::StorageUnavailable,
        Self::Overloaded,
        Self::NoWorkerId,
        Self::Internal,
    ];

    /// The word for it in `code`, and its usual status and titles.
    const fn row(self) -> (&'static str, u16, &'static str, &'static str) {
        match self {
            Self::InvalidFormat => ("InvalidFormat", 400, "Invalid format", "格式无效"),
            Self::InvalidLength => ("InvalidLength", 400, "Invalid sequence length", "序列长度无效"),
            Self::Validation => ("Validation", 400, "Validation failed", "参数校验失败"),
            Self::NotDecodable => ("NotDecodable", 400, "Not decodable", "无法解析该号码"),
            Self::PrefixNotRegistered => ("PrefixNotRegistered", 404, "Prefix not registered", "前缀未注册"),
            Self::Unauthorized => ("Unauthorized", 401, "Unauthorized", "未授权"),
            Self::Forbidden => ("Forbidden", 403, "Forbidden", "禁止访问"),
            Self::NotFound => ("NotFound", 404, "Not found", "未找到"),
            Self::MethodNotAllowed => ("MethodNotAllowed", 405, "Method not allowed", "不允许的请求方法"),
            Self::RequestTimeout => ("RequestTimeout", 408, "Request timeout", "请求超时"),
            Self::PayloadTooLarge => ("PayloadTooLarge", 413, "Payload too large", "请求体过大"),
            Self::UriTooLong => ("UriTooLong", 414, "URI too long", "URL 过长"),
            Self::HeadersTooLarge => ("HeadersTooLarge", 431, "Header fields too large", "请求头过大"),
            Self::UnsupportedMediaType => {
                ("UnsupportedMediaType", 415, "Unsupported media type", "不支持的媒体类型")
            }
            Self::PrefixAlreadyExists => ("PrefixAlreadyExists", 409, "Prefix already exists", "前缀已存在"),
            Self::FormatConflict => ("FormatConflict", 409, "Format conflict", "格式冲突"),
            Self::SequenceOverflow => ("SequenceOverflow", 409, "Sequence overflow", "序列溢出"),
            Self::BelowHighWater => ("BelowHighWater", 409, "Below high water", "低于当前最高值"),
            Self::StateConflict => ("StateConflict", 409, "State conflict", "状态冲突"),
            Self::IdempotencyInFlight => {
                ("IdempotencyInFlight", 409, "Idempotency key in flight", "幂等键正在处理中")
            }
            Self::PreconditionFailed => ("PreconditionFailed", 412, "Precondition failed", "前置条件不满足"),
            Self::IdempotencyMismatch => {
                ("IdempotencyMismatch", 422, "Idempotency key mismatch", "幂等键与请求不符")
            }
            Self::RateLimited => ("RateLimited", 429, "Rate limited", "请求过于频繁"),
            Self::StorageTimeout => ("StorageTimeout", 503, "Storage timeout", "存储超时"),
            Self::StorageUnavailable => ("StorageUnavailable", 503, "Storage unavailable", "存储不可用"),
            Self::Overloaded => ("Overloaded", 503, "Overloaded", "服务过载"),
            Self::NoWorkerId => ("NoWorkerId", 503, "No worker ID", "没有可用的工作节点编号"),
            Self::Internal => ("Internal", 500, "Internal error", "内部错误"),
        }
    }

    /// The word in the body's `code`.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The status, unless the problem says otherwise (`PrefixNotRegistered` is 400 where numbers are issued).
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The title in `language`.
    pub const fn title(self, language: Language) -> &'static str {
        match language {
            Language::English => self.row().2,
            Language::Chinese => self.row().3,
        }
    }

    /// Whether the caller may simply try again: the answer carries `Retry-After`.
    pub const fn is_retryable(self) -> bool {
        matches!(self.row().1, 429 | 503)
    }
}

/// One problem, ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// For programs.
    pub code: Code,
    /// The status, usually the code's own.
    pub status: StatusCode,
    /// For people, where it is more exact than the code's own title.
    pub title: Option<&'static str>,
    /// What was wrong, where, and what would be right.
    pub detail: String,
    /// The fields at fault, for `Validation`: name and message.
    pub fields: Vec<(String, String)>,
    /// Seconds after which a retry makes sense.
    pub retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem with the code's own status and title.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            title: None,
            detail: detail.into(),
            fields: Vec::new(),
            retry_after_s: code.is_retryable().then_some(1),
        }
    }

    /// The document. `instance` is the path of the request, never its query.
    pub fn to_json(&self, language: Language, instance: &str, request_id: &str) -> Value {
        let mut document = Map::new();
        document.insert("type".into(), json!(format!("urn:numgen:problem:{}", self.code.as_str())));
        document.insert("title".into(), json!(self.title.unwrap_or(self.code.title(language))));
        document.insert("status".into(), json!(self.status.as_u16()));
        document.insert("detail".into(), json!(self.detail));
        document.insert("instance".into(), json!(instance));
        document.insert("code".into(), json!(self.code.as_str()));
        document.insert("request_id".into(), json!(request_id));
        if !self.fields.is_empty() {
            let field = |(field, message): &(String, String)| json!({"field": field, "message": message});
            document.insert("errors".into(), self.fields.iter().map(field).collect());
        }
        Value::Object(document)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_titled_in_both_languages() {
        let words: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.status().is_client_error() || code.status().is_server_error());
            assert_ne!(code.title(Language::English), code.title(Language::Chinese));
        }
    }

    #[test]
    fn a_document_has_the_members_of_rfc_9457_and_ours() {
        let mut problem = Problem::new(Code::Validation, "one field is wrong");
        problem.fields.push(("count".into(), "1 to 10000".into()));
        let document = problem.to_json(Language::English, "/numbers/A", "r-1");
        assert_eq!(
            document,
            json!({"type": "urn:numgen:problem:Validation", "title": "Validation failed", "status": 400, "detail": "one field is wrong",
                   "instance": "/numbers/A", "code": "Validation", "request_id": "r-1", "errors": [{"field": "count", "message": "1 to 10000"}]})
        );
    }
}
