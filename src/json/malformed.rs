//! Bodies that are not JSON objects at all.

use std::fmt;

use serde_json::error::Category;

use crate::language::{Language, Localized};

/// Why a body cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Nothing but white space.
    #[error("the body is empty: send a JSON object such as {{}}")]
    Empty,
    /// Not JSON.
    #[error("the body is not valid JSON: {problem} at line {line}, column {column}")]
    Syntax {
        /// What the parser stumbled over: one of a fixed set of texts, never part of the body.
        problem: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes; 0 at the very start of a line.
        column: usize,
    },
    /// JSON, but a number, a text, an array ...
    #[error("the body must be a JSON object, as in {{\"format\": \"ORD-{{SEQ:6}}\"}}, not {0}")]
    NotAnObject(Kind),
}

impl Localized for Malformed {
    fn localized(&self, language: Language) -> String {
        match (language, self) {
            (Language::English, _) => self.to_string(),
            (Language::Chinese, Self::Empty) => "请求体为空：请发送 JSON 对象，例如 {}".into(),
            (Language::Chinese, Self::Syntax { problem, line, column }) => {
                format!("请求体不是有效的 JSON：第 {line} 行第 {column} 列（{problem}）")
            }
            (Language::Chinese, Self::NotAnObject(kind)) => {
                format!(
                    "请求体须为 JSON 对象，例如 {{\"format\": \"ORD-{{SEQ:6}}\"}}，而不是{}",
                    kind.chinese()
                )
            }
        }
    }
}

/// What a JSON value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// `1`, `-1.5e3`
    Number,
    /// `"..."`
    Text,
    /// `[...]`
    Array,
    /// `{...}`
    Object,
}

impl Kind {
    /// By the first byte of a value that is known to be valid JSON.
    pub(super) fn of(json: &str) -> Self {
        match json.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'"') => Self::Text,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            Some(_) | None => Self::Number,
        }
    }

    pub(super) const fn chinese(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "布尔值",
            Self::Number => "数字",
            Self::Text => "字符串",
            Self::Array => "数组",
            Self::Object => "对象",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

/// Why `bytes` could not be read, without quoting them.
pub(super) fn malformed(bytes: &[u8], error: &serde_json::Error) -> Malformed {
    let start = bytes.trim_ascii_start();
    if start.is_empty() {
        return Malformed::Empty;
    }
    match error.classify() {
        // Its text would quote the value; the kind is enough.
        Category::Data => Malformed::NotAnObject(Kind::of(std::str::from_utf8(&start[..1]).unwrap_or("0"))),
        Category::Syntax | Category::Eof | Category::Io => {
            let text = error.to_string();
            let problem = text.split(" at line ").next().unwrap_or_default().to_owned();
            Malformed::Syntax { problem, line: error.line(), column: error.column() }
        }
    }
}
