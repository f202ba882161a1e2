//! A rough picture of a rule's numbers, small enough to compare a hundred thousand of them on every save.
//!
//! An outline says what the first and the last bytes of every number can be. Outlines that cannot meet prove that no text is
//! common; those that can are only a reason to look closer, with [`Template::common_text`].

use std::collections::HashMap;

use chrono::NaiveDateTime;

use crate::{
    calendar::FiscalYearStart,
    counter::SequenceValue,
    prefix_key::PrefixKey,
    template::{Encoding, Origin, RenderContext, Template},
};

/// How many bytes of each end are looked at.
const REACH: usize = 16;

/// The ends of every number of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    start: [Spot; REACH],
    /// From the last byte backwards.
    end: [Spot; REACH],
}

impl Outline {
    /// Whether a number of one may also be one of the other.
    pub(super) fn may_meet(&self, other: &Self) -> bool {
        let meet = |(one, other): (&Spot, &Spot)| one.may_be(*other);
        self.start.iter().zip(&other.start).all(meet) && self.end.iter().zip(&other.end).all(meet)
    }
}

/// What one byte can be: a byte of fixed text, or one of the constants, which are no bytes of any text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot(u8);

impl Spot {
    /// Anything: too far from the end.
    const UNKNOWN: Self = Self(0);
    /// A letter or digit of ASCII: all that variables write.
    const VARIABLE: Self = Self(1);
    /// A decimal digit.
    const DIGIT: Self = Self(2);

    fn may_be(self, other: Self) -> bool {
        match (self, other) {
            (one, other) if one == other => true,
            (Self::UNKNOWN, _) | (_, Self::UNKNOWN) => true,
            (Self::VARIABLE, Self::DIGIT) | (Self::DIGIT, Self::VARIABLE) => true,
            (Self::VARIABLE, Self(byte)) | (Self(byte), Self::VARIABLE) => byte.is_ascii_alphanumeric(),
            (Self::DIGIT, Self(byte)) | (Self(byte), Self::DIGIT) => byte.is_ascii_digit(),
            (_, _) => false,
        }
    }
}

/// Draws outlines; remembers how wide variables are.
#[derive(Default)]
pub(super) struct Draughtsman {
    /// By what stands in braces. There are about as many as lines in the table of variables.
    widths: HashMap<Box<str>, usize>,
}

impl Draughtsman {
    /// The outline of the rule `key` with this format.
    pub(super) fn draw(&mut self, template: &Template, key: &PrefixKey, origin: Origin) -> Outline {
        let (mut before, mut after, mut seen) = (Vec::new(), Vec::new(), false);
        let digits = match template.encoding() {
            Encoding::Decimal => Spot::DIGIT,
            Encoding::Hexadecimal | Encoding::Base32 | Encoding::Base36 | Encoding::Base62 => Spot::VARIABLE,
        };
        let sequence = vec![digits; template.seq_width().into()];
        for piece in pieces(template.text()) {
            let side = if seen { &mut after } else { &mut before };
            match piece {
                Piece::Text(text) => side.extend(text.bytes().map(Spot)),
                Piece::Prefix => side.extend(key.as_str().bytes().map(Spot)),
                Piece::Sequence => {
                    // There are at least so many digits, whether they are counted from the left or from the right.
                    before.extend(&sequence);
                    after.extend(&sequence);
                    seen = true;
                }
                Piece::Variable(inside) => {
                    let width = self.width(inside, origin);
                    side.extend(std::iter::repeat_n(Spot::VARIABLE, width));
                }
            }
        }
        Outline { start: first(before.into_iter()), end: first(after.into_iter().rev()) }
    }

    /// The width of a variable, as it is printed.
    fn width(&mut self, inside: &str, origin: Origin) -> usize {
        if let Some(width) = self.widths.get(inside) {
            return *width;
        }
        let context = RenderContext {
            prefix: "",
            local: NaiveDateTime::default(),
            fiscal_year_start: FiscalYearStart::default(),
            origin,
            seed: [0; 32],
        };
        let mut text = String::new();
        if let Ok(alone) = Template::parse(&format!("{{{inside}}}{{SEQ:1}}"), None) {
            alone.render(&context, SequenceValue(0), &mut text);
        }
        let width = text.len().saturating_sub(1);
        self.widths.insert(inside.into(), width);
        width
    }
}

fn first(spots: impl Iterator<Item = Spot>) -> [Spot; REACH] {
    let mut row = [Spot::UNKNOWN; REACH];
    row.iter_mut().zip(spots).for_each(|(place, spot)| *place = spot);
    row
}

enum Piece<'a> {
    Text(&'a str),
    Prefix,
    Sequence,
    Variable(&'a str),
}

/// Takes a format apart that is known to be valid.
fn pieces(format: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = format;
    std::iter::from_fn(move || {
        let next = rest.chars().next()?;
        if let Some(brace @ ("{{" | "}}")) = rest.get(..2) {
            rest = &rest[2..];
            return Some(Piece::Text(&brace[..1]));
        }
        let Some((inside, after)) = rest.strip_prefix('{').and_then(|inside| inside.split_once('}')) else {
            let (text, after) = rest.split_at(next.len_utf8());
            rest = after;
            return Some(Piece::Text(text));
        };
        rest = after;
        let name = inside.split(':').next().unwrap_or_default();
        Some(if name.eq_ignore_ascii_case("seq") {
            Piece::Sequence
        } else if name.eq_ignore_ascii_case("prefix") {
            Piece::Prefix
        } else {
            Piece::Variable(inside)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin { datacenter: 0, worker: 0, max_datacenter: 31, max_worker: 1023 };

    /// Bytes as they are, `?` unknown, `x` variable, `9` digit.
    fn drawn(format: &str) -> (String, String) {
        let template = Template::parse(format, None).expect(format);
        let key = PrefixKey::parse("KEY").expect("valid");
        let outline = Draughtsman::default().draw(&template, &key, ORIGIN);
        let shown = |spot: &Spot| match *spot {
            Spot::UNKNOWN => '?',
            Spot::VARIABLE => 'x',
            Spot::DIGIT => '9',
            Spot(byte) => char::from(byte),
        };
        let start: String = outline.start.iter().map(shown).collect();
        let end: String = outline.end.iter().rev().map(shown).collect();
        (start.trim_end_matches('?').into(), end.trim_start_matches('?').into())
    }

    #[test]
    fn draws_both_ends() {
        for (format, start, end) in [
            ("ORD-{year}-{SEQ:4}", "ORD-xxxx-9999", "9999"),
            ("{prefix}{SEQ:2}/{fy:2}", "KEY99", "99/xx"),
            ("{{{PREFIX}}}{seq:3:hex}", "{KEY}xxx", "xxx"),
            ("{worker}{SEQ:1}{check:mod97}", "xxxx9", "9xx"),
            ("{SEQ:20}", "9999999999999999", "9999999999999999"),
            ("A{SEQ:1}B-CDEFGHIJKLMNOPQ", "A9", "-CDEFGHIJKLMNOPQ"),
        ] {
            assert_eq!(drawn(format), (start.to_owned(), end.to_owned()), "{format}");
        }
    }

    #[test]
    fn spots_meet_as_their_characters_do() {
        let a = Spot(b'a');
        assert!(a.may_be(a) && a.may_be(Spot::VARIABLE) && Spot::UNKNOWN.may_be(a));
        assert!(!a.may_be(Spot(b'b')) && !a.may_be(Spot::DIGIT) && !Spot::VARIABLE.may_be(Spot(b'-')));
        assert!(Spot(b'7').may_be(Spot::DIGIT) && Spot::DIGIT.may_be(Spot::VARIABLE));
        assert!(!Spot(0xE5).may_be(Spot::VARIABLE), "part of a letter that is not ASCII");
    }
}
