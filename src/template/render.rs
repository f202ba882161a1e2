//! From pieces to text: appends to one buffer and allocates nothing else.

use aws_lc_rs::digest::{Context, SHA256};
use chrono::{Datelike, NaiveDate, Timelike};

use super::{
    Origin, RenderContext, Template,
    encoding::{Encoding, push_number},
    variable::{Piece, Variable, YearDigits, decimal_width},
};
use crate::{
    calendar::{self, FiscalYearStart},
    counter::SequenceValue,
};

pub(super) fn render(
    template: &Template,
    context: &RenderContext<'_>,
    value: SequenceValue,
    out: &mut String,
) {
    let mut rendering = Rendering { context, value, start: out.len(), out };
    for (index, piece) in template.head.iter().enumerate() {
        rendering.push(piece, index);
    }
    template.sequence.write(value.0, rendering.out);
    for (index, piece) in template.tail.iter().enumerate() {
        rendering.push(piece, template.head.len() + index);
    }
}

/// A number as the rule `prefix` could render it on some ordinary day.
pub(super) fn sample(template: &Template, prefix: &str, origin: Origin, value: SequenceValue) -> String {
    let day = NaiveDate::from_ymd_opt(2026, 11, 22).unwrap_or_default();
    let context = RenderContext {
        prefix,
        local: day.into(),
        fiscal_year_start: FiscalYearStart::JANUARY_FIRST,
        origin,
        seed: [0; 32],
    };
    let mut out = String::new();
    render(template, &context, value, &mut out);
    out
}

struct Rendering<'a> {
    context: &'a RenderContext<'a>,
    value: SequenceValue,
    out: &'a mut String,
    /// Where this number begins in `out`.
    start: usize,
}

impl Rendering<'_> {
    /// Appends the piece at `index` of the template.
    fn push(&mut self, piece: &Piece, index: usize) {
        match piece {
            Piece::Literal(text) => self.out.push_str(text),
            Piece::Variable(variable) => self.push_variable(*variable, index),
        }
    }

    fn push_variable(&mut self, variable: Variable, index: usize) {
        let RenderContext { prefix, local, fiscal_year_start, origin, seed: _ } = self.context;
        match variable {
            Variable::Prefix => self.out.push_str(prefix),
            Variable::Year(digits) => self.push_year(local.year(), digits),
            Variable::Month => self.push_two(local.month()),
            Variable::Day => self.push_two(local.day()),
            Variable::Hour => self.push_two(local.hour()),
            Variable::Minute => self.push_two(local.minute()),
            Variable::Second => self.push_two(local.second()),
            Variable::Quarter => push_number(calendar::quarter(local.date()), 1, self.out),
            Variable::DayOfYear => push_number(local.ordinal(), 3, self.out),
            Variable::IsoYear => self.push_year(local.iso_week().year(), YearDigits::Four),
            Variable::Week => self.push_two(local.iso_week().week()),
            Variable::FiscalYear(digits) => {
                self.push_year(fiscal_year_start.fiscal_year(local.date()), digits);
            }
            Variable::Datacenter => {
                debug_assert!(origin.datacenter <= origin.max_datacenter);
                push_number(origin.datacenter, decimal_width(origin.max_datacenter), self.out);
            }
            Variable::Worker => {
                debug_assert!(origin.worker <= origin.max_worker);
                push_number(origin.worker, decimal_width(origin.max_worker), self.out);
            }
            Variable::Random(length) => self.push_random(length, index),
            Variable::Check(algorithm) => {
                let check = algorithm.compute(&self.out[self.start..]);
                push_number(check, algorithm.width(), self.out);
            }
        }
    }

    fn push_two(&mut self, number: u32) {
        push_number(number, 2, self.out);
    }

    fn push_year(&mut self, year: i32, digits: YearDigits) {
        // Dates lie in 2000 to 2099; whatever a clock may say, the width stays.
        match digits {
            YearDigits::Four => push_number(year.rem_euclid(10_000), 4, self.out),
            YearDigits::Two => push_number(year.rem_euclid(100), 2, self.out),
        }
    }

    /// SHA-256 over seed, value and place: as unpredictable as the seed, and different in each number of a batch and in
    /// each `{rand}` of a number.
    fn push_random(&mut self, length: u8, index: usize) {
        let mut digest = Context::new(&SHA256);
        digest.update(&self.context.seed);
        digest.update(&self.value.0.to_be_bytes());
        digest.update(&[index as u8]);
        let (digest, alphabet) = (digest.finish(), Encoding::Base32.alphabet());
        // 32 characters divide the 256 values of a byte evenly: no character is favoured.
        let characters = digest.as_ref().iter().map(|byte| char::from(alphabet[usize::from(byte % 32)]));
        self.out.extend(characters.take(length.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin { datacenter: 3, worker: 7, max_datacenter: 31, max_worker: 1023 };

    fn context(local: &str) -> RenderContext<'static> {
        RenderContext {
            prefix: "ORDERS",
            local: local.parse().expect("a moment"),
            fiscal_year_start: FiscalYearStart::parse("04-01").expect("valid"),
            origin: ORIGIN,
            seed: [42; 32],
        }
    }

    fn rendered(format: &str, local: &str, value: u64) -> String {
        let template = Template::parse(format, None).expect(format);
        let mut out = String::new();
        template.render(&context(local), SequenceValue(value), &mut out);
        out
    }

    #[test]
    fn every_variable() {
        for (format, expected) in [
            ("ORD-{year}-{SEQ:6}", "ORD-2026-000123"),
            ("{prefix}/{SEQ:1}", "ORDERS/123"),
            ("{year:2}{month}{day}{SEQ:4}", "2601050123"),
            ("{hour}:{minute}:{second} {SEQ:4}", "09:08:07 0123"),
            ("Q{quarter} {doy} {SEQ:4}", "Q1 005 0123"),
            ("{isoyear}-W{week}-{SEQ:4}", "2026-W02-0123"),
            ("FY{fy}/{fy:2}-{SEQ:4}", "FY2025/25-0123"),
            ("{datacenter}.{worker}.{SEQ:4}", "03.0007.0123"),
            ("{SEQ:4:hex}", "007B"),
            ("{SEQ:4:base32}", "003V"),
            ("{SEQ:4:base36}", "003F"),
            ("{SEQ:4:base62}", "001z"),
            ("{{{SEQ:4}}}", "{0123}"),
            ("发票{SEQ:4}号", "发票0123号"),
            ("{YEAR}{Seq:4}", "20260123"),
        ] {
            assert_eq!(rendered(format, "2026-01-05T09:08:07", 123), expected, "{format}");
        }
    }

    #[test]
    fn dates_at_their_boundaries() {
        let all = "{year} {month} {day} {quarter} {doy} {isoyear} {week} {fy} {SEQ:1}";
        for (local, expected) in [
            ("2027-01-03T00:00:00", "2027 01 03 1 003 2026 53 2026 1"),
            ("2024-12-30T23:59:59", "2024 12 30 4 365 2025 01 2024 1"),
            ("2024-12-31T00:00:00", "2024 12 31 4 366 2025 01 2024 1"),
            ("2026-03-31T00:00:00", "2026 03 31 1 090 2026 14 2025 1"),
            ("2026-04-01T00:00:00", "2026 04 01 2 091 2026 14 2026 1"),
            ("2000-01-01T00:00:00", "2000 01 01 1 001 1999 52 1999 1"),
            ("2099-12-31T00:00:00", "2099 12 31 4 365 2099 53 2099 1"),
            ("1970-01-01T00:00:00", "1970 01 01 1 001 1970 01 1969 1"),
        ] {
            assert_eq!(rendered(all, local, 1), expected);
        }
    }

    #[test]
    fn what_a_variable_expands_to_is_not_parsed_again() {
        let mut context = context("2026-01-05T00:00:00");
        context.prefix = "{year}{{";
        let template = Template::parse("{prefix}-{SEQ:2}", None).expect("valid");
        let mut out = String::new();
        template.render(&context, SequenceValue(5), &mut out);
        assert_eq!(out, "{year}{{-05");
    }

    #[test]
    fn check_digits_cover_this_number_up_to_them() {
        assert_eq!(rendered("79927{SEQ:5}{check:luhn}", "2026-01-05T00:00:00", 39_871), "79927398713");
        assert_eq!(rendered("{SEQ:3}{check:damm}-{year}", "2026-01-05T00:00:00", 572), "5724-2026");
        assert_eq!(rendered("{SEQ:3}{check:mod97}", "2026-01-05T00:00:00", 794), "79444");
        // 794 44: the mod 97 of the whole is 1, so its own check digits are 97.
        assert_eq!(rendered("{SEQ:3}{check:mod97}{check:mod97}", "2026-01-05T00:00:00", 794), "7944495");
        let template = Template::parse("{SEQ:3}{check:damm}", None).expect("valid");
        let mut out = String::from("12345,");
        template.render(&context("2026-01-05T00:00:00"), SequenceValue(572), &mut out);
        assert_eq!(out, "12345,5724", "not over what stood in the buffer");
    }

    #[test]
    fn random_characters_follow_from_seed_value_and_place() {
        let moment = "2026-01-05T00:00:00";
        let format = "{rand:8}{SEQ:4}{rand:8}";
        let first = rendered(format, moment, 1);
        assert_eq!(first, rendered(format, moment, 1));
        assert_ne!(first[..8], first[first.len() - 8..], "two places");
        assert_ne!(first[..8], rendered(format, moment, 2)[..8], "two values");
        let mut other = context(moment);
        other.seed = [43; 32];
        let mut out = String::new();
        Template::parse(format, None).expect("valid").render(&other, SequenceValue(1), &mut out);
        assert_ne!(out[..8], first[..8], "two seeds");
        let long = rendered("{rand:32}{SEQ:1}", moment, 1);
        assert_eq!(long.len(), 33);
        assert!(long.bytes().all(|byte| Encoding::Base32.characters().contains(byte)));
    }
}
