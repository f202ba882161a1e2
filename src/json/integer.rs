//! Integers by their digits: nothing passes through a float.

use super::Message;

/// What a text is as an unsigned integer.
pub(super) enum Integer {
    Whole(u64),
    Flawed(Flaw),
}

#[derive(Clone, Copy)]
pub(super) enum Flaw {
    Negative,
    Fractional,
    TooLarge,
    NotANumber,
}

impl Integer {
    /// Reads digits; whatever else it is, is a flaw.
    pub(super) fn read(text: &str) -> Self {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let numeric = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_digit())
                && text.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte))
        };
        Self::Flawed(match text.strip_prefix('-') {
            Some(rest) if digits(rest) => Flaw::Negative,
            Some(rest) if numeric(rest) => Flaw::Fractional,
            None if digits(text) => match text.parse() {
                Ok(number) => return Self::Whole(number),
                Err(_) => Flaw::TooLarge,
            },
            None if numeric(text) => Flaw::Fractional,
            Some(_) | None => Flaw::NotANumber,
        })
    }
}

impl Flaw {
    /// The flaw, and then what would be `right`.
    pub(super) fn explain(self, right: &Message) -> Message {
        let (english, chinese) = match self {
            Self::Negative => ("is negative: it ", "为负数："),
            Self::Fractional => ("has a fraction or an exponent: it ", "带有小数或指数："),
            Self::TooLarge => ("is too large: it ", "超出范围："),
            Self::NotANumber => ("", ""),
        };
        Message::new(format!("{english}{}", right.english), format!("{chinese}{}", right.chinese))
    }
}

/// The message for a number outside `range`, and for what is no number.
pub(super) fn within(range: &std::ops::RangeInclusive<i64>) -> Message {
    let (from, to) = (range.start(), range.end());
    Message::new(format!("must be a whole number from {from} to {to}"), format!("须为 {from} 至 {to} 的整数"))
}
