//! What is wrong with a format: where, and what would be right.

use super::{Template, alphabet::named, variable};
use crate::language::{Language, Localized};

/// Which answer a [`FormatError`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatErrorKind {
    /// `InvalidFormat` with the title `Missing {SEQ} tag`.
    MissingSeq,
    /// `InvalidFormat`.
    InvalidFormat,
    /// `InvalidLength`.
    InvalidLength,
    /// `Validation` of [`FormatError::field`].
    Validation,
}

/// Why a format was refused. Positions count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// No `{SEQ}`.
    #[error("the format has no {{SEQ}} tag: add one, such as {{SEQ:6}}{}", hint_text(.hint, Language::English))]
    MissingSeq {
        /// What was perhaps meant to be one.
        hint: Option<SeqHint>,
    },
    /// Too long.
    #[error("the format has {bytes} bytes, and at most {} are allowed", Template::MAX_LEN)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A character that fixed text cannot have.
    #[error(
        "character {} at position {position} is not allowed in a format: use letters and digits of any script, \
         space and - _ . / : # + @ ( )", named(*.character)
    )]
    Character {
        /// The first such character.
        character: char,
        /// Where it stands.
        position: usize,
    },
    /// Fixed text that is not in NFC.
    #[error(
        "character {} at position {position} is not in Unicode normalization form C: {} is expected there",
        named(*.character), named(*.composed)
    )]
    NotNormalized {
        /// The first character that differs from the normal form.
        character: char,
        /// What the normal form has there.
        composed: char,
        /// Where it stands.
        position: usize,
    },
    /// A combining mark that would join a variable, or nothing.
    #[error("combining mark {} at position {position} has no letter before it", named(*.character))]
    DanglingMark {
        /// The mark.
        character: char,
        /// Where it stands.
        position: usize,
    },
    /// `{` without `}`.
    #[error("the {{ at position {position} is never closed: add }}, or write {{{{ for a brace in the text")]
    Unclosed {
        /// Where `{` stands.
        position: usize,
    },
    /// `}` without `{`.
    #[error("the }} at position {position} closes nothing: write }}}} for a brace in the text")]
    Unopened {
        /// Where `}` stands.
        position: usize,
    },
    /// A name that is none.
    #[error("unknown variable {{{name}}} at position {position}: {}", meant(*.nearest, Language::English))]
    UnknownVariable {
        /// The name as written, of characters that fixed text may have.
        name: String,
        /// Where its `{` stands.
        position: usize,
        /// The name that was probably meant.
        nearest: Option<&'static str>,
    },
    /// Arguments that do not fit the name.
    #[error("{{{written}}} at position {position} is not understood: write {}", .forms.join(" or "))]
    Arguments {
        /// What stands between the braces, of characters that fixed text may have.
        written: String,
        /// Where its `{` stands.
        position: usize,
        /// What the variable can look like.
        forms: &'static [&'static str],
    },
    /// More than one `{SEQ}`.
    #[error(
        "a second {{SEQ}} at position {position}: a format has exactly one, and the first is at position {first}"
    )]
    SecondSeq {
        /// Where the first stands.
        first: usize,
        /// Where the second stands.
        position: usize,
    },
    /// `{SEQ}` without N, and no `seq_length`.
    #[error("{{SEQ}} at position {position} has no length: write {{SEQ:6}}, or give seq_length")]
    LengthMissing {
        /// Where its `{` stands.
        position: usize,
    },
    /// `{SEQ:N}` where N is not 1 to 20.
    #[error(
        "length {given:?} at position {position} is not a whole number from 1 to {}",
        Template::MAX_SEQ_WIDTH
    )]
    Length {
        /// N as written, cut to a few characters.
        given: String,
        /// Where it stands.
        position: usize,
    },
    /// A `seq_length` that is not 1 to 20.
    #[error("seq_length must be a whole number from 1 to {}", Template::MAX_SEQ_WIDTH)]
    SeqLength,
    /// `{SEQ:N}` and another `seq_length`.
    #[error(
        "seq_length {seq_length} disagrees with {{SEQ:{width}}} at position {position}: give one of them, or the same \
         number in both"
    )]
    LengthDisagrees {
        /// The `seq_length`.
        seq_length: u8,
        /// N.
        width: u8,
        /// Where the `{` of `{SEQ:N}` stands.
        position: usize,
    },
}

/// Something in a format that was perhaps meant to be its `{SEQ}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeqHint {
    /// Another name.
    Misspelt {
        /// The name, of ASCII letters and digits.
        name: String,
        /// Where its `{` stands.
        position: usize,
    },
    /// `{{SEQ:6}}`, which is fixed text.
    Escaped {
        /// Where the first `{` stands.
        position: usize,
    },
}

impl FormatError {
    /// Which answer it asks for.
    pub const fn kind(&self) -> FormatErrorKind {
        match self {
            Self::MissingSeq { .. } => FormatErrorKind::MissingSeq,
            Self::Length { .. } | Self::SeqLength => FormatErrorKind::InvalidLength,
            Self::LengthDisagrees { .. } => FormatErrorKind::Validation,
            Self::TooLong { .. }
            | Self::Character { .. }
            | Self::NotNormalized { .. }
            | Self::DanglingMark { .. }
            | Self::Unclosed { .. }
            | Self::Unopened { .. }
            | Self::UnknownVariable { .. }
            | Self::Arguments { .. }
            | Self::SecondSeq { .. }
            | Self::LengthMissing { .. } => FormatErrorKind::InvalidFormat,
        }
    }

    /// Where in the format, in characters from 1, if it is at one place.
    pub const fn position(&self) -> Option<usize> {
        match self {
            Self::TooLong { .. } | Self::SeqLength | Self::MissingSeq { hint: None } => None,
            Self::MissingSeq {
                hint: Some(SeqHint::Misspelt { position, .. } | SeqHint::Escaped { position }),
            }
            | Self::Character { position, .. }
            | Self::NotNormalized { position, .. }
            | Self::DanglingMark { position, .. }
            | Self::Unclosed { position }
            | Self::Unopened { position }
            | Self::UnknownVariable { position, .. }
            | Self::Arguments { position, .. }
            | Self::SecondSeq { position, .. }
            | Self::LengthMissing { position }
            | Self::Length { position, .. }
            | Self::LengthDisagrees { position, .. } => Some(*position),
        }
    }

    /// The field of the rule that is wrong: `format` or `seq_length`.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::SeqLength | Self::LengthDisagrees { .. } => "seq_length",
            Self::MissingSeq { .. }
            | Self::TooLong { .. }
            | Self::Character { .. }
            | Self::NotNormalized { .. }
            | Self::DanglingMark { .. }
            | Self::Unclosed { .. }
            | Self::Unopened { .. }
            | Self::UnknownVariable { .. }
            | Self::Arguments { .. }
            | Self::SecondSeq { .. }
            | Self::LengthMissing { .. }
            | Self::Length { .. } => "format",
        }
    }

    fn chinese(&self) -> String {
        match self {
            Self::MissingSeq { hint } => {
                let hint = hint_text(hint, Language::Chinese);
                format!("格式缺少 {{SEQ}} 标签，请添加，例如 {{SEQ:6}}{hint}")
            }
            Self::TooLong { bytes } => {
                format!("格式长 {bytes} 字节，最多允许 {} 字节", Template::MAX_LEN)
            }
            Self::Character { character, position } => format!(
                "格式第 {position} 位不允许使用字符 {}，只能使用各种文字的字母和数字、空格以及 - _ . / : # + @ ( )",
                named(*character)
            ),
            Self::NotNormalized { character, composed, position } => format!(
                "格式第 {position} 位的字符 {} 不符合 Unicode 规范化形式 C，该处应为 {}",
                named(*character),
                named(*composed)
            ),
            Self::DanglingMark { character, position } => {
                format!("格式第 {position} 位的组合符号 {} 之前没有字母", named(*character))
            }
            Self::Unclosed { position } => {
                format!("格式第 {position} 位的 {{ 没有闭合，请补上 }}；若要表示花括号本身，请写 {{{{")
            }
            Self::Unopened { position } => {
                format!("格式第 {position} 位的 }} 没有对应的 {{；若要表示花括号本身，请写 }}}}")
            }
            Self::UnknownVariable { name, position, nearest } => format!(
                "格式第 {position} 位的变量 {{{name}}} 不存在，{}",
                meant(*nearest, Language::Chinese)
            ),
            Self::Arguments { written, position, forms } => {
                format!("格式第 {position} 位的 {{{written}}} 无法识别，应写作 {}", forms.join(" 或 "))
            }
            Self::SecondSeq { first, position } => {
                format!("格式第 {position} 位出现第二个 {{SEQ}}，只能有一个，第一个在第 {first} 位")
            }
            Self::LengthMissing { position } => {
                format!("格式第 {position} 位的 {{SEQ}} 没有长度，请写 {{SEQ:6}} 或提供 seq_length")
            }
            Self::Length { given, position } => {
                format!("格式第 {position} 位的长度 {given:?} 不是 1 至 {} 的整数", Template::MAX_SEQ_WIDTH)
            }
            Self::SeqLength => format!("seq_length 须为 1 至 {} 的整数", Template::MAX_SEQ_WIDTH),
            Self::LengthDisagrees { seq_length, width, position } => format!(
                "seq_length {seq_length} 与格式第 {position} 位的 {{SEQ:{width}}} 不一致，请只写一个，或使两者相同"
            ),
        }
    }
}

impl Localized for FormatError {
    fn localized(&self, language: Language) -> String {
        match language {
            Language::English => self.to_string(),
            Language::Chinese => self.chinese(),
        }
    }
}

fn hint_text(hint: &Option<SeqHint>, language: Language) -> String {
    match (language, hint) {
        (_, None) => String::new(),
        (Language::English, Some(SeqHint::Misspelt { name, position })) => {
            format!(", perhaps instead of {{{name}}} at position {position}")
        }
        (Language::Chinese, Some(SeqHint::Misspelt { name, position })) => {
            format!("，或许应替换第 {position} 位的 {{{name}}}")
        }
        (Language::English, Some(SeqHint::Escaped { position })) => {
            format!(" (the double braces at position {position} make it fixed text)")
        }
        (Language::Chinese, Some(SeqHint::Escaped { position })) => {
            format!("（第 {position} 位的双花括号使其成为固定文本）")
        }
    }
}

fn meant(nearest: Option<&str>, language: Language) -> String {
    match (language, nearest) {
        (Language::English, Some(nearest)) => format!("did you mean {{{nearest}}}?"),
        (Language::Chinese, Some(nearest)) => format!("是否要写 {{{nearest}}}？"),
        (Language::English, None) => format!("there are {}", all_names(", ")),
        (Language::Chinese, None) => format!("可用的变量有 {}", all_names("、")),
    }
}

fn all_names(separator: &str) -> String {
    variable::names().collect::<Vec<_>>().join(separator)
}
