//! Formats such as `ORD-{year}-{SEQ:6}`: parsed once per rule, rendered into one buffer, read back by decode.
//!
//! Pure code: no clock, no store, no randomness but the seed in [`RenderContext`].
//!
//! Invariants:
//! - Exactly one `{SEQ}`; every other piece has a fixed width under a given prefix key and [`Origin`]. So a text can be
//!   taken apart in one way only: the pieces before `{SEQ}` from the left, those after it from the right.
//! - What a piece can look like is said once, by `Shape`. Rendering writes such a text, decoding accepts nothing else,
//!   and the search for collisions knows no other source.
//! - Literals are in NFC, and no combining mark follows a variable, so equal bytes mean equal texts.
//!
//! Order: `grammar` turns text (of an `alphabet`) into pieces (`variable`, `encoding`, `check`) or an `error`; `render` writes them;
//! `shape` describes them to `decode` (with `moment`, the date that was read) and to `collide`.
//! A new variable is a variant of `Variable`; the exhaustive matches point to the rest.

mod alphabet;
mod check;
mod collide;
mod decode;
mod encoding;
mod error;
mod grammar;
mod moment;
#[cfg(test)]
mod properties;
mod render;
mod shape;
mod variable;

use chrono::NaiveDateTime;

pub use self::{
    decode::{Check, Decoded, Expected, NotDecodable},
    encoding::Encoding,
    error::{FormatError, FormatErrorKind, SeqHint},
    moment::DecodedDate,
};
use self::{
    encoding::Sequence,
    variable::{Piece, Source, Variable, YearDigits},
};
use crate::{
    calendar::{FiscalYearStart, Reset},
    counter::SequenceValue,
};

/// A parsed format.
#[derive(Clone, Debug)]
pub struct Template {
    text: Box<str>,
    /// The pieces before `{SEQ}`.
    head: Box<[Piece]>,
    sequence: Sequence,
    /// The pieces after `{SEQ}`.
    tail: Box<[Piece]>,
}

/// Everything but the sequence value that a number depends on. Pure data: the same context and value always give the same
/// text, `{rand}` included, which is expanded from the seed.
#[derive(Clone, Copy, Debug)]
pub struct RenderContext<'a> {
    /// The prefix key.
    pub prefix: &'a str,
    /// The moment of the request, or the document date at 00:00:00, in the rule's time zone.
    pub local: NaiveDateTime,
    /// For `{fy}`.
    pub fiscal_year_start: FiscalYearStart,
    /// Who issues.
    pub origin: Origin,
    /// Drawn from the operating system once per request, all zero where [`Template::needs_seed`] is false.
    pub seed: [u8; 32],
}

/// Who issued a number, and how wide that is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Data centre ID, at most `max_datacenter`.
    pub datacenter: u32,
    /// Worker ID, at most `max_worker`.
    pub worker: u32,
    /// The highest data centre ID that the layout allows; `{datacenter}` is zero-filled to its width.
    pub max_datacenter: u32,
    /// The highest worker ID that the layout allows; `{worker}` is zero-filled to its width.
    pub max_worker: u32,
}

impl Template {
    /// The longest format, in bytes.
    pub const MAX_LEN: usize = 128;
    /// The largest zero-fill length of `{SEQ:N}`; the smallest is 1.
    pub const MAX_SEQ_WIDTH: u8 = 20;

    /// Parses a format. `seq_length` stands in for N where the format says `{SEQ}` alone.
    ///
    /// # Errors
    ///
    /// `FormatError` with the first thing that is wrong from left to right, except that a missing `{SEQ}` comes before all
    /// others, then a text that is too long, then a `seq_length` that is not 1 to 20.
    pub fn parse(text: &str, seq_length: Option<u8>) -> Result<Self, FormatError> {
        grammar::parse(text, seq_length)
    }

    /// Refuses a format without `{SEQ}`, as [`Self::parse`] does before it looks at anything else.
    ///
    /// # Errors
    ///
    /// `FormatError::MissingSeq`.
    pub fn require_seq(text: &str) -> Result<(), FormatError> {
        grammar::require_seq(text)
    }

    /// The format as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The zero-fill length N, in digits: 1 to 20.
    pub fn seq_width(&self) -> u8 {
        self.sequence.width
    }

    /// The digits in which the sequence value is written.
    pub fn encoding(&self) -> Encoding {
        self.sequence.encoding
    }

    /// The largest value that needs at most N digits.
    pub fn highest_within_width(&self) -> SequenceValue {
        SequenceValue(self.sequence.highest_within_width())
    }

    /// Whether `value` needs at most N digits.
    pub fn fits_width(&self, value: SequenceValue) -> bool {
        value <= self.highest_within_width()
    }

    /// Whether every 63-bit snowflake ID needs at most N digits (19 decimal, 16 hex, 13 base32 or base36, 11 base62).
    pub fn holds_snowflake(&self) -> bool {
        self.highest_within_width().0 >= u64::MAX >> 1
    }

    /// Whether the text depends on the moment of the request, the time of day included.
    pub fn needs_date(&self) -> bool {
        self.variables().any(|variable| variable.source() == Source::Moment)
    }

    /// Whether the text has `{rand}`, so that [`RenderContext::seed`] must be drawn.
    pub fn needs_seed(&self) -> bool {
        self.variables().any(|variable| variable.source() == Source::Seed)
    }

    /// Whether numbers of different data centres differ by `{datacenter}`.
    pub fn uses_datacenter(&self) -> bool {
        self.variables().any(|variable| variable == Variable::Datacenter)
    }

    /// Whether the period of `reset` can be read off every rendered number. Two-digit years count, since dates lie in
    /// 2000 to 2099.
    pub fn reveals_period(&self, reset: Reset) -> bool {
        // Tries it, so that it cannot disagree with what decoding will say.
        let origin = Origin { datacenter: 0, worker: 0, max_datacenter: 0, max_worker: 0 };
        let number = render::sample(self, "", origin, SequenceValue(1));
        let decoded = self.decode("", origin, &number);
        decoded.is_ok_and(|decoded| decoded.period(reset, FiscalYearStart::JANUARY_FIRST).is_some())
    }

    /// Whether numbers of this format tell the fiscal year by its name alone: by `{fy}` or `{fy:2}`, and not by their date.
    pub fn names_fiscal_year(&self) -> bool {
        let has_name = self.variables().any(|variable| matches!(variable, Variable::FiscalYear(_)));
        has_name && !self.reveals_period(Reset::Daily)
    }

    /// Whether the fiscal years 1999, which ends in 2000, and 2099 look alike: both are `99` where no other year is shown.
    pub fn confuses_fiscal_years(&self) -> bool {
        let has = |wanted: fn(Variable) -> bool| self.variables().any(wanted);
        has(|variable| variable == Variable::FiscalYear(YearDigits::Two))
            && !has(|variable| matches!(variable, Variable::Year(_) | Variable::FiscalYear(YearDigits::Four)))
    }

    /// Appends the number of `value` to `out`. The value is never cut: one with more than N digits makes the number grow.
    pub fn render(&self, context: &RenderContext<'_>, value: SequenceValue, out: &mut String) {
        render::render(self, context, value, out);
    }

    /// Takes a number apart that this format may have rendered for the rule `prefix`. Of `origin` only the maxima matter.
    ///
    /// # Errors
    ///
    /// `NotDecodable` where `text` is not what [`Self::render`] writes for any context and value. A wrong check digit is
    /// no error but [`Check::Invalid`].
    pub fn decode(&self, prefix: &str, origin: Origin, text: &str) -> Result<Decoded, NotDecodable> {
        decode::decode(self, prefix, origin, text)
    }

    /// Whether both formats are made of the same pieces, their zero-fill lengths aside. Then a text that both can yield
    /// has the same value in both.
    pub fn same_pieces(&self, other: &Self) -> bool {
        self.sequence.encoding == other.sequence.encoding
            && self.head == other.head
            && self.tail == other.tail
    }

    /// A text that this format, for the rule `prefix`, and `other`, for `other_prefix`, can both yield at some dates and
    /// values. `None` proves that there is none. The other way round it is an estimate: check digits count as any digits,
    /// and date parts are not compared with each other, so that the example itself may be out of reach.
    pub fn common_text(
        &self,
        prefix: &str,
        other: &Self,
        other_prefix: &str,
        origin: Origin,
    ) -> Option<String> {
        collide::common_text((self, prefix), (other, other_prefix), origin)
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.head.iter().chain(&self.tail)
    }

    fn variables(&self) -> impl Iterator<Item = Variable> {
        self.pieces().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Variable(variable) => Some(*variable),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(format: &str) -> Template {
        Template::parse(format, None).expect(format)
    }

    #[test]
    fn the_table_of_widths_that_hold_a_snowflake() {
        for (encoding, width) in [("dec", 19), ("base32", 13), ("base36", 13), ("base62", 11), ("hex", 16)] {
            assert!(parsed(&format!("EVT-{{SEQ:{width}:{encoding}}}")).holds_snowflake(), "{encoding}");
            assert!(
                !parsed(&format!("EVT-{{SEQ:{}:{encoding}}}", width - 1)).holds_snowflake(),
                "{encoding}"
            );
        }
    }

    #[test]
    fn values_fit_up_to_the_highest() {
        let template = parsed("T{SEQ:4}");
        assert!(template.fits_width(SequenceValue(9_999)) && !template.fits_width(SequenceValue(10_000)));
        assert!(parsed("T{SEQ:20}").fits_width(SequenceValue::MAX));
        assert_eq!((template.seq_width(), template.encoding()), (4, Encoding::Decimal));
    }

    #[test]
    fn what_a_format_needs() {
        for (format, date, seed, datacenter) in [
            ("{prefix}-{SEQ:4}{worker}{check:luhn}", false, false, false),
            ("{second}{SEQ:4}", true, false, false),
            ("{SEQ:4}{fy:2}", true, false, false),
            ("{SEQ:4}{rand:4}", false, true, false),
            ("{datacenter}{SEQ:4}", false, false, true),
        ] {
            let template = parsed(format);
            let needs = (template.needs_date(), template.needs_seed(), template.uses_datacenter());
            assert_eq!(needs, (date, seed, datacenter), "{format}");
        }
    }

    #[test]
    fn which_periods_can_be_read_off() {
        use Reset::{Fiscal, Monthly, Never, Quarterly, Weekly, Yearly};
        for (format, revealed) in [
            ("{SEQ:4}", &[Never][..]),
            ("{year}{SEQ:4}", &[Never, Yearly]),
            ("{year:2}{SEQ:4}", &[Never, Yearly]),
            ("{month}{SEQ:4}", &[Never]),
            ("{year}{month}{SEQ:4}", &[Never, Monthly, Quarterly, Yearly]),
            ("{year:2}{quarter}{SEQ:4}", &[Never, Quarterly, Yearly]),
            ("{year}{month}{day}{SEQ:4}", &Reset::ALL),
            ("{year:2}{SEQ:4}{doy}", &Reset::ALL),
            ("{year}{week}{SEQ:4}", &[Never, Yearly]),
            ("{isoyear}{week}{SEQ:4}", &[Never, Weekly]),
            ("{isoyear}{SEQ:4}", &[Never]),
            ("{fy}{SEQ:4}", &[Never, Fiscal]),
            ("{fy:2}{SEQ:4}", &[Never, Fiscal]),
            ("{month}{day}{doy}{hour}{SEQ:4}", &[Never]),
        ] {
            let template = parsed(format);
            for reset in Reset::ALL {
                assert_eq!(template.reveals_period(reset), revealed.contains(&reset), "{format} {reset}");
            }
        }
    }

    #[test]
    fn the_same_pieces_but_for_the_zero_fill() {
        for (one, other, same) in [
            ("A-{year}-{SEQ:4}", "A-{YEAR}-{seq:6:dec}", true),
            ("A-{year}-{SEQ:4}", "A-{year:2}-{SEQ:4}", false),
            ("A-{SEQ:4}", "B-{SEQ:4}", false),
            ("A-{SEQ:4}", "A-{SEQ:4:hex}", false),
            ("A-{SEQ:4}", "A-{SEQ:4}-", false),
            ("{SEQ:4}-", "-{SEQ:4}", false),
        ] {
            assert_eq!(parsed(one).same_pieces(&parsed(other)), same, "{one} {other}");
        }
    }
}
