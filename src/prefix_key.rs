//! The name of a rule.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use crate::language::{Language, Localized};

/// A prefix key such as `ORDERS`: 1 to 64 of `A-Z a-z 0-9 _ . -`, but not `.`, `..` or `decode`, which would be
/// ambiguous in a path. Case matters. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixKey(Arc<str>);

/// Why a text is not a prefix key; the message says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrefixKey {
    /// Empty or longer than 64 characters.
    #[error("a prefix key has 1 to 64 characters, this one has {0}")]
    Length(usize),
    /// A character outside the alphabet.
    #[error(
        "character {character:?} at position {position} is not allowed in a prefix key: use A-Z a-z 0-9 _ . -"
    )]
    Character {
        /// The offending character.
        character: char,
        /// Where it stands, counted from 1.
        position: usize,
    },
    /// One of the names that paths need.
    #[error("{0:?} is reserved and cannot be a prefix key")]
    Reserved(String),
}

impl PrefixKey {
    /// The longest key, in characters.
    pub const MAX_LEN: usize = 64;

    /// What a prefix key is, in words.
    pub const SHAPE: &str = "1 to 64 of A-Z a-z 0-9 _ . -, other than . and .. and decode";

    /// Names that paths need.
    const RESERVED: [&str; 3] = [".", "..", "decode"];

    /// Checks `text`.
    ///
    /// # Errors
    ///
    /// `InvalidPrefixKey` with the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidPrefixKey> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if let Some((at, character)) = text.chars().enumerate().find(|&(_, c)| !allowed(c)) {
            return Err(InvalidPrefixKey::Character { character, position: at + 1 });
        }
        if text.is_empty() || text.len() > Self::MAX_LEN {
            return Err(InvalidPrefixKey::Length(text.len()));
        }
        if Self::RESERVED.contains(&text) {
            return Err(InvalidPrefixKey::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Localized for InvalidPrefixKey {
    fn localized(&self, language: Language) -> String {
        match (language, self) {
            (Language::English, _) => self.to_string(),
            (Language::Chinese, Self::Length(length)) => {
                format!("前缀键须为 1 至 64 个字符，此处为 {length} 个")
            }
            (Language::Chinese, Self::Character { character, position }) => {
                format!("前缀键第 {position} 位的字符 {character:?} 不允许，只能使用 A-Z a-z 0-9 _ . -")
            }
            (Language::Chinese, Self::Reserved(text)) => format!("{text:?} 为保留名称，不能用作前缀键"),
        }
    }
}

impl FromStr for PrefixKey {
    type Err = InvalidPrefixKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

// Lets a map keyed by `PrefixKey` be searched with the text of a request, without an allocation.
impl Borrow<str> for PrefixKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrefixKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for PrefixKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_alphabet_up_to_64() {
        for text in ["A", "ORDERS", "a.b-c_9", "...", &"x".repeat(64)] {
            assert_eq!(PrefixKey::parse(text).map(|key| key.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(PrefixKey::parse(""), Err(InvalidPrefixKey::Length(0)));
        assert_eq!(PrefixKey::parse(&"x".repeat(65)), Err(InvalidPrefixKey::Length(65)));
        let (_, others) = PrefixKey::SHAPE.split_once("other than ").expect("some are not");
        for reserved in [".", "..", "decode"] {
            assert!(others.split(' ').any(|word| word == reserved), "{others}");
            assert_eq!(PrefixKey::parse(reserved), Err(InvalidPrefixKey::Reserved(reserved.into())));
        }
        let error = PrefixKey::parse("A/B").expect_err("a slash");
        assert_eq!(
            error.to_string(),
            "character '/' at position 2 is not allowed in a prefix key: use A-Z a-z 0-9 _ . -"
        );
    }
}
