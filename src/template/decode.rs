//! From a number back to its parts: exactly what `render` can have written, nothing else.
//!
//! All pieces but `{SEQ}` have a fixed width, so the length of the text tells how many digits `{SEQ}` has, and there is
//! nothing to guess. Only to say where a wrong text goes wrong, every length is tried: the position reported is the
//! first at which no number of this format could go on as the text does.

use super::{
    Encoding, Origin, Template,
    encoding::Sequence,
    grammar::position,
    moment::{DateParts, DecodedDate},
    shape::{AsciiSet, Shape},
    variable::{Piece, Source, Variable},
};
use crate::{
    calendar::{FiscalYearStart, Period, Reset},
    counter::SequenceValue,
    language::{Language, Localized},
};

/// What a number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The integer that fills `{SEQ}`.
    pub sequence: SequenceValue,
    /// Whether its check digits are right.
    pub check: Check,
    /// When it was issued, as far as it says.
    pub date: DecodedDate,
    /// Where the first of its years stands, of whatever kind: the character, counted from 1.
    pub year_position: Option<usize>,
    /// `{datacenter}`.
    pub datacenter: Option<u32>,
    /// `{worker}`.
    pub worker: Option<u32>,
}

/// The state of the check digits of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// All are right.
    Valid,
    /// Some are wrong.
    Invalid,
    /// The format has none.
    #[default]
    None,
}

/// A text that a format cannot have rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the number stops fitting its format at position {position}: {}", .expected.localized(Language::English))]
pub struct NotDecodable {
    /// The first character that does not fit, counted from 1; one past the end where the text is too short.
    pub position: usize,
    /// What would fit.
    pub expected: Expected,
}

/// What a format wants at some place of a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Fixed text or the prefix key.
    Text(String),
    /// A zero-filled decimal number.
    Number {
        /// The name of the variable.
        variable: &'static str,
        /// How many digits.
        width: u8,
        /// The lowest.
        min: u32,
        /// The highest.
        max: u32,
    },
    /// Characters of Crockford's base 32.
    Random {
        /// How many.
        length: u8,
    },
    /// Check digits.
    CheckDigits {
        /// How many.
        width: u8,
    },
    /// The sequence value, up to `u64::MAX`.
    Sequence {
        /// Its digits.
        encoding: Encoding,
        /// At least so many; more only without a zero in front.
        at_least: u8,
    },
    /// A part that agrees with the parts before it: together they must be a date, or repeat each other.
    Agreement {
        /// The name of the variable.
        variable: &'static str,
    },
    /// Nothing more.
    End,
}

impl Decoded {
    /// The period of `reset` in which it was issued, where the number tells it. `fiscal_year_start` matters only where the
    /// format has the whole date and no `{fy}`.
    pub fn period(&self, reset: Reset, fiscal_year_start: FiscalYearStart) -> Option<Period> {
        self.date.period(reset, fiscal_year_start)
    }
}

impl Localized for NotDecodable {
    fn localized(&self, language: Language) -> String {
        match language {
            Language::English => self.to_string(),
            Language::Chinese => {
                format!("编号从第 {} 位起不符合格式：{}", self.position, self.expected.localized(language))
            }
        }
    }
}

impl Localized for Expected {
    fn localized(&self, language: Language) -> String {
        match language {
            Language::English => self.english(),
            Language::Chinese => self.chinese(),
        }
    }
}

impl Expected {
    fn english(&self) -> String {
        match self {
            Self::Text(text) => format!("expected {text:?}"),
            Self::Number { variable, width, min, max } => {
                let digits = if *width == 1 { "digit" } else { "digits" };
                format!("expected {width} {digits} for {{{variable}}}, from {min} to {max}")
            }
            Self::Random { length } => {
                format!("expected {length} of 0-9 A-Z without I L O U for {{rand}}")
            }
            Self::CheckDigits { width: 1 } => "expected a check digit".into(),
            Self::CheckDigits { width } => format!("expected {width} check digits"),
            Self::Sequence { encoding, at_least } => {
                format!("expected at least {at_least} {} digits for {{SEQ}}", encoding.as_str())
            }
            Self::Agreement { variable } => {
                format!("{{{variable}}} contradicts what stands before it")
            }
            Self::End => "expected nothing more".into(),
        }
    }

    fn chinese(&self) -> String {
        match self {
            Self::Text(text) => format!("应为 {text:?}"),
            Self::Number { variable, width, min, max } => {
                format!("应为 {{{variable}}} 的 {width} 位数字，范围 {min} 至 {max}")
            }
            Self::Random { length } => {
                format!("应为 {{rand}} 的 {length} 个字符，取自 0-9 A-Z（不含 I L O U）")
            }
            Self::CheckDigits { width } => format!("应为 {width} 位校验码"),
            Self::Sequence { encoding, at_least } => {
                format!("应为 {{SEQ}} 的至少 {at_least} 位 {} 数字", encoding.as_str())
            }
            Self::Agreement { variable } => format!("{{{variable}}} 与前面的内容矛盾"),
            Self::End => "此后不应再有内容".into(),
        }
    }
}

pub(super) fn decode(
    template: &Template,
    prefix: &str,
    origin: Origin,
    text: &str,
) -> Result<Decoded, NotDecodable> {
    let reader = Reader { prefix, origin, text };
    reader.number(template).map_err(|mismatch| {
        let at = text.floor_char_boundary(mismatch.at);
        NotDecodable { position: position(text, at), expected: mismatch.expected }
    })
}

/// Where, in bytes, a text stops fitting, and what would have fitted.
struct Mismatch {
    at: usize,
    expected: Expected,
}

/// What has been read besides the sequence value.
#[derive(Clone, Copy, Default)]
struct Reading {
    check: Check,
    date: DateParts,
    year_position: Option<usize>,
    datacenter: Option<u32>,
    worker: Option<u32>,
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    prefix: &'a str,
    origin: Origin,
    text: &'a str,
}

impl Reader<'_> {
    fn number(self, template: &Template) -> Result<Decoded, Mismatch> {
        let mut reading = Reading::default();
        let start = self.pieces(&template.head, 0, &mut reading)?;
        let (sequence, rest) = (template.sequence, &self.text.as_bytes()[start..]);
        let longest = sequence.longest(rest);
        let possible = usize::from(sequence.width)..=longest;
        if possible.is_empty() {
            return Err(Mismatch { at: start + longest, expected: digits_of(sequence) });
        }
        // With `digits` taken for the sequence, the tail and then the end must follow.
        let attempt = |digits: usize| {
            let mut reading = reading;
            let end = self.pieces(&template.tail, start + digits, &mut reading)?;
            if end < self.text.len() {
                return Err(Mismatch { at: end, expected: Expected::End });
            }
            Ok((digits, reading))
        };
        let tail_width: usize =
            template.tail.iter().map(|piece| piece.shape(self.prefix, self.origin).width()).sum();
        let aligned = rest.len().checked_sub(tail_width).filter(|digits| possible.contains(digits));
        if let Some(Ok((digits, reading))) = aligned.map(attempt)
            && let Some(value) = sequence.read(&rest[..digits])
        {
            return Ok(reading.finish(SequenceValue(value)));
        }
        let mismatches = possible.filter_map(|digits| attempt(digits).err());
        let furthest = mismatches.max_by_key(|mismatch| mismatch.at);
        Err(furthest.unwrap_or(Mismatch { at: start + longest, expected: digits_of(sequence) }))
    }

    /// Reads `pieces` from the byte `at` on and returns where they end.
    fn pieces(self, pieces: &[Piece], mut at: usize, reading: &mut Reading) -> Result<usize, Mismatch> {
        for piece in pieces {
            let shape = piece.shape(self.prefix, self.origin);
            let number = read(shape, &self.text.as_bytes()[at..])
                .map_err(|index| Mismatch { at: at + index, expected: expected(piece, shape) })?;
            let end = at + shape.width();
            if let Piece::Variable(variable) = piece {
                let (left, own) = self.text[..end].split_at(at);
                if !reading.add(*variable, number, own, left) {
                    return Err(Mismatch { at, expected: Expected::Agreement { variable: variable.name() } });
                }
            }
            at = end;
        }
        Ok(at)
    }
}

impl Reading {
    /// Takes in what a variable says: its text and, if it is one, its number. Returns whether that agrees with the rest.
    #[must_use]
    fn add(&mut self, variable: Variable, number: u32, own: &str, left: &str) -> bool {
        match variable.source() {
            Source::Rule | Source::Seed => return true,
            Source::Moment => {
                if matches!(variable, Variable::Year(_) | Variable::IsoYear | Variable::FiscalYear(_)) {
                    self.year_position.get_or_insert_with(|| position(left, left.len()));
                }
                return self.date.add(variable, number);
            }
            Source::Origin | Source::Text => {}
        }
        if let Variable::Check(algorithm) = variable {
            let right = own.parse() == Ok(algorithm.compute(left));
            self.check = if right && self.check != Check::Invalid { Check::Valid } else { Check::Invalid };
            return true;
        }
        let part = if variable == Variable::Datacenter { &mut self.datacenter } else { &mut self.worker };
        *part.get_or_insert(number) == number
    }

    fn finish(self, sequence: SequenceValue) -> Decoded {
        let Self { check, date, year_position, datacenter, worker } = self;
        Decoded { sequence, check, date: date.finish(), year_position, datacenter, worker }
    }
}

/// Reads a piece off the start of `bytes`: gives its number, 0 if it is none, or the index of the first byte that no text
/// of this shape has after the bytes before it.
fn read(shape: Shape<'_>, bytes: &[u8]) -> Result<u32, usize> {
    match shape {
        Shape::Text(text) => {
            let same = text.bytes().zip(bytes).take_while(|(own, byte)| own == *byte).count();
            if same == text.len() { Ok(0) } else { Err(same) }
        }
        Shape::Number { width, min, max } => {
            let mut number = 0;
            for index in 0..usize::from(width) {
                let digit = bytes.get(index).filter(|byte| byte.is_ascii_digit()).ok_or(index)?;
                number = number * 10 + u64::from(digit - b'0');
                // The digits to come span a power of ten.
                let scale = 10_u64.pow(u32::from(width) - 1 - index as u32);
                if number * scale > max.into() || (number + 1) * scale <= min.into() {
                    return Err(index);
                }
            }
            Ok(number as u32)
        }
        Shape::Characters { width, set } => {
            let same = bytes.iter().take(width.into()).take_while(|byte| set.contains(**byte)).count();
            if same == usize::from(width) { Ok(0) } else { Err(same) }
        }
    }
}

fn expected(piece: &Piece, shape: Shape<'_>) -> Expected {
    let variable = match piece {
        Piece::Literal(_) => "",
        Piece::Variable(variable) => variable.name(),
    };
    match shape {
        Shape::Text(text) => Expected::Text(text.to_owned()),
        Shape::Number { width, min, max } => Expected::Number { variable, width, min, max },
        Shape::Characters { width, set: AsciiSet::DIGITS } => Expected::CheckDigits { width },
        Shape::Characters { width, set: _ } => Expected::Random { length: width },
    }
}

fn digits_of(sequence: Sequence) -> Expected {
    Expected::Sequence { encoding: sequence.encoding, at_least: sequence.width }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::check::Algorithm;

    const ORIGIN: Origin = Origin { datacenter: 0, worker: 0, max_datacenter: 31, max_worker: 700 };

    fn decoded(format: &str, text: &str) -> Result<Decoded, NotDecodable> {
        Template::parse(format, None).expect(format).decode("ORDERS", ORIGIN, text)
    }

    #[test]
    fn reads_every_part() {
        let format = "{prefix}-{year:2}{doy}-{SEQ:4:hex}-{datacenter}{worker}{rand:2}";
        let number = decoded(format, "ORDERS-26326-00FF-31070ZZ").expect("fits");
        assert_eq!(number.sequence, SequenceValue(255));
        assert_eq!((number.datacenter, number.worker), (Some(31), Some(70)));
        assert_eq!(number.year_position, Some(8));
        let date = DecodedDate { year: Some(2026), day_of_year: Some(326), ..DecodedDate::default() };
        assert_eq!(number.date, date);
        let period =
            |reset| number.period(reset, FiscalYearStart::default()).map(|period| period.to_string());
        assert_eq!(period(Reset::Daily).as_deref(), Some("2026-11-22"));
        assert_eq!(period(Reset::Quarterly).as_deref(), Some("2026-Q4"));
        assert_eq!(period(Reset::Weekly).as_deref(), Some("2026-W47"));
    }

    #[test]
    fn says_where_a_text_stops_fitting() {
        for (format, text, position, expected) in [
            ("ORD-{SEQ:4}-X", "", 1, "expected \"ORD-\""),
            ("ORD-{SEQ:4}-X", "ORE-0001-X", 3, "expected \"ORD-\""),
            ("ORD-{SEQ:4}-X", "ORD-00a1-X", 7, "expected at least 4 dec digits for {SEQ}"),
            ("ORD-{SEQ:4}-X", "ORD-001", 8, "expected at least 4 dec digits for {SEQ}"),
            ("ORD-{SEQ:4}-X", "ORD-0001", 9, "expected \"-X\""),
            ("ORD-{SEQ:4}-X", "ORD-0001-Y", 10, "expected \"-X\""),
            ("ORD-{SEQ:4}-X", "ORD-00012-X", 9, "expected \"-X\""),
            ("ORD-{SEQ:4}-X", "ORD-12345Y", 10, "expected \"-X\""),
            ("ORD-{SEQ:4}-X", "ORD-0001-XX", 11, "expected nothing more"),
            ("{SEQ:4}", "18446744073709551616", 20, "expected nothing more"),
            ("{SEQ:4:hex}", "00ff", 3, "expected at least 4 hex digits for {SEQ}"),
            ("发票{SEQ:4}号", "发票0001好", 7, "expected \"号\""),
            ("发票{SEQ:4}号", "发ü0001号", 2, "expected \"发票\""),
            ("{month}-{SEQ:4}", "13-0001", 2, "expected 2 digits for {month}, from 1 to 12"),
            ("{month}-{SEQ:4}", "00-0001", 2, "expected 2 digits for {month}, from 1 to 12"),
            ("{month}-{SEQ:4}", "2", 1, "expected 2 digits for {month}, from 1 to 12"),
            ("{quarter}-{SEQ:4}", "5-0001", 1, "expected 1 digit for {quarter}, from 1 to 4"),
            ("{worker}-{SEQ:4}", "701-0001", 3, "expected 3 digits for {worker}, from 0 to 700"),
            ("{rand:2}-{SEQ:4}", "AI-0001", 2, "expected 2 of 0-9 A-Z without I L O U for {rand}"),
            ("{SEQ:4}{check:luhn}", "0001é", 5, "expected a check digit"),
            ("{SEQ:4}-{check:mod97}", "0001-1", 7, "expected 2 check digits"),
            ("{year}-{month}-{day} {SEQ:4}", "2026-02-29 0001", 9, "{day} contradicts what stands before it"),
            ("{year}-{SEQ:4}-{year}", "2026-0001-2027", 11, "{year} contradicts what stands before it"),
            ("{quarter}{month} {SEQ:4}", "104 0001", 2, "{month} contradicts what stands before it"),
            ("{worker} {worker} {SEQ:4}", "001 002 0001", 5, "{worker} contradicts what stands before it"),
        ] {
            let error = decoded(format, text).expect_err(text);
            assert_eq!(
                (error.position, error.expected.english().as_str()),
                (position, expected),
                "{format}: {text}"
            );
            let message = error.localized(Language::Chinese);
            assert!(
                message.contains(&format!("第 {position} 位")) && !message.contains("expected"),
                "{message}"
            );
        }
        let error = decoded("A{SEQ:4}", "B0001").expect_err("another letter");
        assert_eq!(error.to_string(), "the number stops fitting its format at position 1: expected \"A\"");
    }

    #[test]
    fn wrong_check_digits_are_told_not_refused() {
        for (format, text, check) in [
            ("{SEQ:4}", "0001", Check::None),
            ("{SEQ:3}{check:damm}", "5724", Check::Valid),
            ("{SEQ:3}{check:damm}", "5725", Check::Invalid),
            ("{SEQ:3}{check:mod97}", "79444", Check::Valid),
            ("{SEQ:3}{check:mod97}", "79400", Check::Invalid),
            ("{year}{check:luhn}-{SEQ:3}{check:damm}", "20269-0017", Check::Invalid),
        ] {
            assert_eq!(decoded(format, text).map(|number| number.check), Ok(check), "{format}: {text}");
        }
    }

    #[test]
    fn an_earlier_wrong_check_digit_is_not_forgotten() {
        let format = "{year}{check:luhn}-{SEQ:3}{check:damm}";
        for first in 0..10 {
            for second in 0..10 {
                let number = decoded(format, &format!("2026{first}-001{second}")).expect("fits");
                let left = format!("2026{first}-001");
                let right =
                    first == Algorithm::Luhn.compute("2026") && second == Algorithm::Damm.compute(&left);
                assert_eq!(number.check == Check::Valid, right, "{left}{second}");
            }
        }
    }

    #[test]
    fn the_length_decides_between_readings() {
        // The same digits could be split in many ways, but only one leaves four for the year.
        let number = decoded("{SEQ:2}{year}", "1232026").expect("fits");
        assert_eq!((number.sequence, number.date.year), (SequenceValue(123), Some(2026)));
        assert!(decoded("{SEQ:2}{year}", "0232026").is_err(), "render would write 23");
        let widest = decoded("{SEQ:20:base62}", "000000000LygHa16AHYF").expect("fits");
        assert_eq!(widest.sequence, SequenceValue::MAX);
    }
}
