//! What is wrong with a body, in every language.

use std::fmt;

use crate::language::{Language, Localized};

/// A message in every language, written where the error is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub(super) english: String,
    pub(super) chinese: String,
}

impl Message {
    /// A message by its texts: one sentence each, no final full stop.
    pub fn new(english: impl Into<String>, chinese: impl Into<String>) -> Self {
        Self { english: english.into(), chinese: chinese.into() }
    }

    /// The message of something that speaks both languages.
    pub fn of(message: &(impl Localized + ?Sized)) -> Self {
        Self::new(message.localized(Language::English), message.localized(Language::Chinese))
    }
}

impl Localized for Message {
    fn localized(&self, language: Language) -> String {
        match language {
            Language::English => self.english.clone(),
            Language::Chinese => self.chinese.clone(),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.english)
    }
}

/// One field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The name, as the caller wrote it if it is unknown.
    pub field: String,
    /// What would be right; never the value.
    pub message: Message,
}

/// Everything that is wrong with the fields of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// In the order in which the fields were read, then unknown and repeated ones; never empty.
    pub errors: Vec<FieldError>,
}

impl Invalid {
    /// One field that is wrong.
    pub fn of(field: impl Into<String>, message: Message) -> Self {
        Self { errors: vec![FieldError { field: field.into(), message }] }
    }
}

impl Localized for Invalid {
    fn localized(&self, language: Language) -> String {
        let (colon, semicolon) = match language {
            Language::English => (": ", "; "),
            Language::Chinese => ("：", "；"),
        };
        let one = |error: &FieldError| format!("{}{colon}{}", error.field, error.message.localized(language));
        self.errors.iter().map(one).collect::<Vec<_>>().join(semicolon)
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.localized(Language::English))
    }
}

impl std::error::Error for Invalid {}
