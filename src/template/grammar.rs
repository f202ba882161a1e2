//! From text to pieces, in one pass from left to right.
//!
//! ```text
//! template = *( literal / "{{" / "}}" / "{" name *( ":" argument ) "}" )
//! ```

use unicode_normalization::UnicodeNormalization;

use super::{
    FormatError, SeqHint, Template,
    alphabet::{is_literal, is_mark},
    encoding::{Encoding, Sequence},
    variable::{self, NoVariable, Piece, SEQ, Variable, whole_number},
};

/// Parses a format; `Template::parse` says in which order errors come.
pub(super) fn parse(text: &str, seq_length: Option<u8>) -> Result<Template, FormatError> {
    require_seq(text)?;
    if text.len() > Template::MAX_LEN {
        return Err(FormatError::TooLong { bytes: text.len() });
    }
    if seq_length.is_some_and(|length| !(1..=Template::MAX_SEQ_WIDTH).contains(&length)) {
        return Err(FormatError::SeqLength);
    }
    let mut builder = Builder::new(text, seq_length);
    for (at, token) in Tokens::of(text) {
        builder.add(at, token)?;
    }
    builder.finish()
}

/// Refuses a text in which nobody tried to write `{SEQ}`.
pub(super) fn require_seq(text: &str) -> Result<(), FormatError> {
    if mentions_seq(text) { Ok(()) } else { Err(FormatError::MissingSeq { hint: seq_hint(text) }) }
}

/// What the text falls into, before names mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A character of fixed text, allowed or not.
    Character(char),
    /// `{{` or `}}`.
    Brace(char),
    /// What stands between `{` and `}`.
    Variable(&'a str),
    /// `{` without `}` before the next `{` or the end, and what follows it until there.
    Unclosed(&'a str),
    /// `}` without `{`.
    Unopened,
}

/// The tokens of a text, each with its offset in bytes.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (usize, Token<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (start, rest) = (self.at, &self.text[self.at..]);
        let first = rest.chars().next()?;
        let (token, len) = if rest.starts_with("{{") || rest.starts_with("}}") {
            (Token::Brace(first), 2)
        } else if first == '{' {
            let inside = &rest[1..];
            let end = inside.find(['{', '}']).unwrap_or(inside.len());
            if inside[end..].starts_with('}') {
                (Token::Variable(&inside[..end]), end + 2)
            } else {
                (Token::Unclosed(&inside[..end]), end + 1)
            }
        } else if first == '}' {
            (Token::Unopened, 1)
        } else {
            (Token::Character(first), first.len_utf8())
        };
        self.at += len;
        Some((start, token))
    }
}

/// Whether somebody tried to write `{SEQ}`, well or badly: `{SEQ:4`, `SEQ:4}` and `{ SEQ }` count. Only where nobody did,
/// the tag is missing; elsewhere its own fault is reported.
fn mentions_seq(text: &str) -> bool {
    let is_seq = |inside: &str| {
        let name = inside.trim_start().split(|c: char| !c.is_alphanumeric()).next();
        name.is_some_and(|name| name.eq_ignore_ascii_case(SEQ))
    };
    let mut literal_start = 0;
    Tokens::of(text).any(|(at, token)| match token {
        Token::Character(_) => false,
        Token::Brace(_) => {
            literal_start = at;
            false
        }
        Token::Variable(inside) => {
            literal_start = at + inside.len() + 2;
            is_seq(inside)
        }
        Token::Unclosed(inside) => is_seq(inside),
        Token::Unopened => {
            let before = text[literal_start..at].to_ascii_lowercase();
            before.contains("seq:") || before.ends_with("seq")
        }
    })
}

fn seq_hint(text: &str) -> Option<SeqHint> {
    Tokens::of(text).find_map(|(at, token)| match token {
        Token::Variable(inside) => {
            let name = inside.split(':').next()?;
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
            (plain && variable::nearest(name) == Some(SEQ))
                .then(|| SeqHint::Misspelt { name: name.to_owned(), position: position(text, at) })
        }
        Token::Brace('{') => text[at..]
            .to_ascii_lowercase()
            .starts_with("{{seq")
            .then(|| SeqHint::Escaped { position: position(text, at) }),
        Token::Brace(_) | Token::Character(_) | Token::Unclosed(_) | Token::Unopened => None,
    })
}

/// The pieces so far. Offsets are in bytes; they become positions only in errors.
struct Builder<'a> {
    text: &'a str,
    seq_length: Option<u8>,
    head: Vec<Piece>,
    /// With the offset of its `{`.
    sequence: Option<(usize, Sequence)>,
    tail: Vec<Piece>,
    /// The fixed text since the last variable, unescaped.
    literal: String,
    literal_start: usize,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, seq_length: Option<u8>) -> Self {
        let (head, tail) = (Vec::new(), Vec::new());
        Self { text, seq_length, head, sequence: None, tail, literal: String::new(), literal_start: 0 }
    }

    fn position(&self, at: usize) -> usize {
        position(self.text, at)
    }

    fn add(&mut self, at: usize, token: Token<'_>) -> Result<(), FormatError> {
        match token {
            Token::Brace(brace) => self.literal.push(brace),
            Token::Character(character) => {
                self.check_character(at, character)?;
                if self.literal.is_empty() && is_mark(character) {
                    // It would join the last character that a variable writes, and the number would not be in NFC.
                    return Err(FormatError::DanglingMark { character, position: self.position(at) });
                }
                self.literal.push(character);
            }
            Token::Variable(inside) => {
                self.end_literal(at)?;
                self.add_variable(at, inside)?;
                self.literal_start = at + inside.len() + 2;
            }
            Token::Unclosed(_) => {
                self.end_literal(at)?;
                return Err(FormatError::Unclosed { position: self.position(at) });
            }
            Token::Unopened => {
                self.end_literal(at)?;
                return Err(FormatError::Unopened { position: self.position(at) });
            }
        }
        Ok(())
    }

    fn check_character(&self, at: usize, character: char) -> Result<(), FormatError> {
        if is_literal(character) {
            return Ok(());
        }
        Err(FormatError::Character { character, position: self.position(at) })
    }

    fn push(&mut self, piece: Piece) {
        if self.sequence.is_none() { self.head.push(piece) } else { self.tail.push(piece) }
    }

    /// Ends the fixed text that stands before offset `end`.
    fn end_literal(&mut self, end: usize) -> Result<(), FormatError> {
        let written = &self.text[self.literal_start..end];
        let different = written.char_indices().zip(written.nfc()).find(|((_, own), normal)| own != normal);
        if let Some(((index, character), composed)) = different {
            let position = self.position(self.literal_start + index);
            return Err(FormatError::NotNormalized { character, composed, position });
        }
        if !self.literal.is_empty() {
            let literal = std::mem::take(&mut self.literal);
            self.push(Piece::Literal(literal.into()));
        }
        Ok(())
    }

    fn add_variable(&mut self, at: usize, inside: &str) -> Result<(), FormatError> {
        let (name, arguments) =
            inside.split_once(':').map_or((inside, None), |(name, rest)| (name, Some(rest)));
        if name.eq_ignore_ascii_case(SEQ) {
            return self.add_sequence(at, inside, arguments);
        }
        self.check_inside(at, inside)?;
        let arguments: Vec<&str> = arguments.map(|rest| rest.split(':').collect()).unwrap_or_default();
        let position = self.position(at);
        let variable = Variable::parse(name, &arguments).map_err(|error| match error {
            NoVariable::Name => FormatError::UnknownVariable {
                name: name.to_owned(),
                position,
                nearest: variable::nearest(name),
            },
            NoVariable::Arguments => {
                let forms = variable::forms(name);
                FormatError::Arguments { written: inside.to_owned(), position, forms }
            }
        })?;
        self.push(Piece::Variable(variable));
        Ok(())
    }

    fn add_sequence(&mut self, at: usize, inside: &str, arguments: Option<&str>) -> Result<(), FormatError> {
        let position = self.position(at);
        if let Some((first, _)) = self.sequence {
            return Err(FormatError::SecondSeq { first: self.position(first), position });
        }
        let (length, encoding) = match arguments.map(|rest| rest.split_once(':').unwrap_or((rest, "dec"))) {
            Some((length, encoding)) => (Some(length), encoding),
            None => (None, "dec"),
        };
        let width = match length {
            Some(length) => {
                whole_number(length, Template::MAX_SEQ_WIDTH).ok_or_else(|| FormatError::Length {
                    given: length.chars().take(24).collect(),
                    position: position + "{SEQ:".len(),
                })?
            }
            None => self.seq_length.ok_or(FormatError::LengthMissing { position })?,
        };
        self.check_inside(at, inside)?;
        let encoding = Encoding::parse(encoding).ok_or_else(|| FormatError::Arguments {
            written: inside.to_owned(),
            position,
            forms: variable::forms(SEQ),
        })?;
        self.sequence = Some((at, Sequence { width, encoding }));
        Ok(())
    }

    /// What an error repeats is shown only if fixed text could have it too.
    fn check_inside(&self, at: usize, inside: &str) -> Result<(), FormatError> {
        let start = at + "{".len();
        inside
            .char_indices()
            .try_for_each(|(index, character)| self.check_character(start + index, character))
    }

    fn finish(mut self) -> Result<Template, FormatError> {
        self.end_literal(self.text.len())?;
        let Some((at, sequence)) = self.sequence else {
            // Something was like `{SEQ}`, but then an error has been returned; this is for the type alone.
            return Err(FormatError::MissingSeq { hint: seq_hint(self.text) });
        };
        if let Some(seq_length) = self.seq_length.filter(|length| *length != sequence.width) {
            let position = self.position(at);
            return Err(FormatError::LengthDisagrees { seq_length, width: sequence.width, position });
        }
        Ok(Template { text: self.text.into(), head: self.head.into(), sequence, tail: self.tail.into() })
    }
}

/// The character at byte offset `at`, counted from 1.
pub(super) fn position(text: &str, at: usize) -> usize {
    text[..at].chars().count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        language::{Language, Localized},
        template::FormatErrorKind::{self, InvalidFormat, InvalidLength, MissingSeq, Validation},
    };

    fn refusal(text: &str, seq_length: Option<u8>) -> FormatError {
        match parse(text, seq_length) {
            Err(error) => error,
            Ok(template) => panic!("{text:?} was accepted: {template:?}"),
        }
    }

    #[test]
    fn every_row_of_the_table_of_errors() {
        let too_long = format!("{}{{SEQ:4}}", "x".repeat(122));
        let rows: [(&str, Option<u8>, FormatErrorKind, Option<usize>); 27] = [
            ("INV-2024", None, MissingSeq, None),
            ("INVALID", None, MissingSeq, None),
            ("'; DROP TABLE users;--", None, MissingSeq, None),
            ("", None, MissingSeq, None),
            ("INV-{year}", Some(4), MissingSeq, None),
            ("INV-{SQE:4}", None, MissingSeq, Some(5)),
            ("{{SEQ:4}}", None, MissingSeq, Some(1)),
            ("X-{SEQ}", None, InvalidFormat, Some(3)),
            ("X-{SEQ:0}", None, InvalidLength, Some(8)),
            ("{SEQ:21}", None, InvalidLength, Some(6)),
            ("{SEQ:-1}", None, InvalidLength, Some(6)),
            ("{SEQ:+4}", None, InvalidLength, Some(6)),
            ("{SEQ:abc}", None, InvalidLength, Some(6)),
            ("{SEQ:}", None, InvalidLength, Some(6)),
            ("{SEQ:99999999999999999999}", None, InvalidLength, Some(6)),
            ("{SEQ:\u{202E}<script>}", None, InvalidLength, Some(6)),
            ("X-{SEQ}", Some(0), InvalidLength, None),
            ("X-{SEQ}", Some(21), InvalidLength, None),
            ("{SEQ:4}{SEQ:4}", None, InvalidFormat, Some(8)),
            ("{yaer}-{SEQ:4}", None, InvalidFormat, Some(1)),
            ("{SEQ:4", None, InvalidFormat, Some(1)),
            ("SEQ:4}", None, InvalidFormat, Some(6)),
            ("<script>{SEQ:4}", None, InvalidFormat, Some(1)),
            ("{SEQ:4:base7}", None, InvalidFormat, Some(1)),
            ("{year:3}-{SEQ:4}", None, InvalidFormat, Some(1)),
            (&too_long, None, InvalidFormat, None),
            ("ü{SEQ:6}", Some(7), Validation, Some(2)),
        ];
        for (text, seq_length, kind, position) in rows {
            let error = refusal(text, seq_length);
            assert_eq!((error.kind(), error.position()), (kind, position), "{text:?}: {error}");
            for language in [Language::English, Language::Chinese] {
                let message = error.localized(language);
                let named = position.is_none_or(|position| message.contains(&position.to_string()));
                assert!(named, "{message:?} lacks the position");
                assert!(!message.contains('\u{202E}'), "{message:?} misleads its reader");
            }
        }
    }

    #[test]
    fn other_faults() {
        for (text, position) in [
            ("{}{SEQ:4}", 1),
            ("A{ year}{SEQ:4}", 2),
            ("{SEQ 4}", 1),
            ("{ SEQ:4}", 1),
            ("{SEQ:4:dec:dec}", 1),
            ("{SEQ:4:}", 1),
            ("{rand}{SEQ:4}", 1),
            ("{rand:33}{SEQ:4}", 1),
            ("{check:mod11}{SEQ:4}", 1),
            ("{ye<ar}{SEQ:4}", 4),
            ("{SEQ:4:<b>}", 8),
            ("é~{SEQ:4}", 2),
            ("{SEQ:4}}", 8),
            ("{SEQ:4}-{year", 9),
            ("{{SEQ:4}", 8),
            ("{SEQ:4}\n", 8),
            ("A\u{200B}{SEQ:4}", 2),
            ("A\u{202E}{SEQ:4}", 2),
            ("A\u{3164}{SEQ:4}", 2),
            ("A\u{FE0F}{SEQ:4}", 2),
            ("A\u{3000}{SEQ:4}", 2),
            ("€{SEQ:4}", 1),
            ("Ⅷ{SEQ:4}", 1),
            ("-e\u{301}{SEQ:4}", 2),
            ("{{}}e\u{301}{SEQ:4}", 5),
            ("\u{212B}{SEQ:4}", 1),
            ("{SEQ:4:base36}\u{301}", 15),
            ("\u{301}{SEQ:4}", 1),
        ] {
            let error = refusal(text, None);
            assert_eq!(
                (error.kind(), error.position()),
                (InvalidFormat, Some(position)),
                "{text:?}: {error}"
            );
            assert_eq!(error.field(), "format");
        }
    }

    #[test]
    fn messages_say_what_would_be_right() {
        for (text, seq_length, message) in [
            ("INV", None, "the format has no {SEQ} tag: add one, such as {SEQ:6}"),
            (
                "{SQE:4}",
                None,
                "the format has no {SEQ} tag: add one, such as {SEQ:6}, perhaps instead of {SQE} at position 1",
            ),
            (
                "{{SEQ:4}}",
                None,
                "the format has no {SEQ} tag: add one, such as {SEQ:6} (the double braces at position 1 make it fixed \
                 text)",
            ),
            ("{yaer}-{SEQ:4}", None, "unknown variable {yaer} at position 1: did you mean {year}?"),
            (
                "{foobar}-{SEQ:4}",
                None,
                "unknown variable {foobar} at position 1: there are SEQ, prefix, year, month, day, hour, minute, second, \
                 quarter, doy, isoyear, week, fy, datacenter, worker, rand, check",
            ),
            ("{year:3}-{SEQ:4}", None, "{year:3} at position 1 is not understood: write {year} or {year:2}"),
            (
                "<script>{SEQ:4}",
                None,
                "character '<' at position 1 is not allowed in a format: use letters and digits of any script, space and \
                 - _ . / : # + @ ( )",
            ),
            ("X-{SEQ:abc}", None, "length \"abc\" at position 8 is not a whole number from 1 to 20"),
            ("X-{SEQ}", Some(21), "seq_length must be a whole number from 1 to 20"),
            (
                "X-{SEQ:6}",
                Some(7),
                "seq_length 7 disagrees with {SEQ:6} at position 3: give one of them, or the same number in both",
            ),
            (
                "e\u{301}{SEQ:6}",
                None,
                "character 'e' at position 1 is not in Unicode normalization form C: 'é' (U+00E9) is expected there",
            ),
        ] {
            assert_eq!(refusal(text, seq_length).to_string(), message);
        }
    }

    #[test]
    fn the_length_comes_from_either_place() {
        for (text, seq_length, width) in [
            ("{SEQ:6}", None, 6),
            ("{seq:06}", Some(6), 6),
            ("{SEQ}", Some(20), 20),
            ("{Seq:1:HEX}", None, 1),
        ] {
            assert_eq!(parse(text, seq_length).expect(text).seq_width(), width);
        }
        assert_eq!(refusal("{SEQ:6}", Some(7)).field(), "seq_length");
        assert_eq!(refusal("{SEQ}", Some(0)).field(), "seq_length");
    }

    #[test]
    fn fixed_text_of_any_script() {
        for literal in ["发票-", "Ñandú ", "счёт/", "١٢٣.", "हिन्दी_", "한국:", "#+@()", "ab12"]
        {
            let text = format!("{literal}{{SEQ:4}}");
            let template = parse(&text, None).expect(&text);
            assert_eq!(*template.head, [Piece::Literal(literal.into())]);
            assert_eq!(template.text(), text);
        }
        let template = parse("{{a}}{SEQ:4}{{{year}}}", None).expect("braces");
        assert_eq!(*template.head, [Piece::Literal("{a}".into())]);
        assert_eq!(template.tail.len(), 3);
    }
}
