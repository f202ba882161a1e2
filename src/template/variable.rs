//! The pieces of a format besides `{SEQ}`.

use super::{
    Origin,
    check::Algorithm,
    encoding::Encoding,
    shape::{AsciiSet, Shape},
};

/// A piece of fixed width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Fixed text, braces unescaped, never empty; no two stand side by side.
    Literal(Box<str>),
    /// What a context fills in.
    Variable(Variable),
}

/// How a year is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum YearDigits {
    /// `2026`.
    Four,
    /// `26`: dates lie in 2000 to 2099.
    Two,
}

/// A variable of fixed width, which all are but `{SEQ}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    /// `{prefix}`.
    Prefix,
    /// `{year}`, `{year:2}`.
    Year(YearDigits),
    /// `{month}`.
    Month,
    /// `{day}`.
    Day,
    /// `{hour}`.
    Hour,
    /// `{minute}`.
    Minute,
    /// `{second}`.
    Second,
    /// `{quarter}`.
    Quarter,
    /// `{doy}`.
    DayOfYear,
    /// `{isoyear}`: the year of `{week}`.
    IsoYear,
    /// `{week}`.
    Week,
    /// `{fy}`, `{fy:2}`.
    FiscalYear(YearDigits),
    /// `{datacenter}`.
    Datacenter,
    /// `{worker}`.
    Worker,
    /// `{rand:N}`: N from 1 to [`Variable::MAX_RANDOM`].
    Random(u8),
    /// `{check:..}`.
    Check(Algorithm),
}

/// Where the text of a variable comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The rule.
    Rule,
    /// The moment of the request or the document date.
    Moment,
    /// Who issues.
    Origin,
    /// The seed.
    Seed,
    /// The text to the left.
    Text,
}

/// A name with the forms that it may take, for messages.
type Usage = (&'static str, &'static [&'static str]);

/// `{SEQ}` first, then every variable.
const USAGES: [Usage; 17] = [
    ("SEQ", &["{SEQ:N}", "{SEQ:N:dec}", "{SEQ:N:hex}", "{SEQ:N:base32}", "{SEQ:N:base36}", "{SEQ:N:base62}"]),
    ("prefix", &["{prefix}"]),
    ("year", &["{year}", "{year:2}"]),
    ("month", &["{month}"]),
    ("day", &["{day}"]),
    ("hour", &["{hour}"]),
    ("minute", &["{minute}"]),
    ("second", &["{second}"]),
    ("quarter", &["{quarter}"]),
    ("doy", &["{doy}"]),
    ("isoyear", &["{isoyear}"]),
    ("week", &["{week}"]),
    ("fy", &["{fy}", "{fy:2}"]),
    ("datacenter", &["{datacenter}"]),
    ("worker", &["{worker}"]),
    ("rand", &["{rand:N} (N = 1..32)"]),
    ("check", &["{check:luhn}", "{check:damm}", "{check:mod97}"]),
];

/// The name of the sequence, which is no [`Variable`].
pub(super) const SEQ: &str = USAGES[0].0;

/// Why braces hold no variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoVariable {
    /// The name is none.
    Name,
    /// The arguments do not fit the name.
    Arguments,
}

impl Variable {
    /// The longest `{rand:N}`: one SHA-256 digest gives a byte for each character.
    pub(super) const MAX_RANDOM: u8 = 32;

    /// Reads what stands between braces, `{SEQ}` excepted: a name in any case and arguments.
    pub(super) fn parse(name: &str, arguments: &[&str]) -> Result<Self, NoVariable> {
        let digits = |year: fn(YearDigits) -> Self| match arguments {
            [] => Ok(year(YearDigits::Four)),
            ["2"] => Ok(year(YearDigits::Two)),
            _ => Err(NoVariable::Arguments),
        };
        let variable = match name.to_ascii_lowercase().as_str() {
            "year" => return digits(Self::Year),
            "fy" => return digits(Self::FiscalYear),
            "rand" => return Self::random(arguments),
            "check" => return Self::check(arguments),
            "prefix" => Self::Prefix,
            "month" => Self::Month,
            "day" => Self::Day,
            "hour" => Self::Hour,
            "minute" => Self::Minute,
            "second" => Self::Second,
            "quarter" => Self::Quarter,
            "doy" => Self::DayOfYear,
            "isoyear" => Self::IsoYear,
            "week" => Self::Week,
            "datacenter" => Self::Datacenter,
            "worker" => Self::Worker,
            _ => return Err(NoVariable::Name),
        };
        if arguments.is_empty() { Ok(variable) } else { Err(NoVariable::Arguments) }
    }

    fn random(arguments: &[&str]) -> Result<Self, NoVariable> {
        match arguments {
            [length] => whole_number(length, Self::MAX_RANDOM).map(Self::Random).ok_or(NoVariable::Arguments),
            _ => Err(NoVariable::Arguments),
        }
    }

    fn check(arguments: &[&str]) -> Result<Self, NoVariable> {
        match arguments {
            [name] => Algorithm::parse(name).map(Self::Check).ok_or(NoVariable::Arguments),
            _ => Err(NoVariable::Arguments),
        }
    }

    /// Its name, as the documentation spells it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::Year(_) => "year",
            Self::Month => "month",
            Self::Day => "day",
            Self::Hour => "hour",
            Self::Minute => "minute",
            Self::Second => "second",
            Self::Quarter => "quarter",
            Self::DayOfYear => "doy",
            Self::IsoYear => "isoyear",
            Self::Week => "week",
            Self::FiscalYear(_) => "fy",
            Self::Datacenter => "datacenter",
            Self::Worker => "worker",
            Self::Random(_) => "rand",
            Self::Check(_) => "check",
        }
    }

    /// Where its text comes from.
    pub(super) const fn source(self) -> Source {
        match self {
            Self::Prefix => Source::Rule,
            Self::Year(_)
            | Self::Month
            | Self::Day
            | Self::Hour
            | Self::Minute
            | Self::Second
            | Self::Quarter
            | Self::DayOfYear
            | Self::IsoYear
            | Self::Week
            | Self::FiscalYear(_) => Source::Moment,
            Self::Datacenter | Self::Worker => Source::Origin,
            Self::Random(_) => Source::Seed,
            Self::Check(_) => Source::Text,
        }
    }

    fn shape(self, prefix: &str, origin: Origin) -> Shape<'_> {
        let number = |width, min, max| Shape::Number { width, min, max };
        match self {
            Self::Prefix => Shape::Text(prefix),
            Self::Year(YearDigits::Four) | Self::FiscalYear(YearDigits::Four) | Self::IsoYear => {
                number(4, 0, 9999)
            }
            Self::Year(YearDigits::Two) | Self::FiscalYear(YearDigits::Two) => number(2, 0, 99),
            Self::Month => number(2, 1, 12),
            Self::Day => number(2, 1, 31),
            Self::Hour => number(2, 0, 23),
            Self::Minute | Self::Second => number(2, 0, 59),
            Self::Quarter => number(1, 1, 4),
            Self::DayOfYear => number(3, 1, 366),
            Self::Week => number(2, 1, 53),
            Self::Datacenter => number(decimal_width(origin.max_datacenter), 0, origin.max_datacenter),
            Self::Worker => number(decimal_width(origin.max_worker), 0, origin.max_worker),
            Self::Random(width) => Shape::Characters { width, set: Encoding::Base32.characters() },
            // A wrong check digit still reads as one.
            Self::Check(algorithm) => Shape::Characters { width: algorithm.width(), set: AsciiSet::DIGITS },
        }
    }
}

impl Piece {
    /// What it looks like in the numbers of a rule.
    pub(super) fn shape<'a>(&'a self, prefix: &'a str, origin: Origin) -> Shape<'a> {
        match self {
            Self::Literal(text) => Shape::Text(text),
            Self::Variable(variable) => variable.shape(prefix, origin),
        }
    }
}

/// How many decimal digits `number` has.
pub(super) const fn decimal_width(number: u32) -> u8 {
    match number.checked_ilog10() {
        Some(log) => log as u8 + 1,
        None => 1,
    }
}

/// Reads digits alone as a number from 1 to `max`.
pub(super) fn whole_number(digits: &str, max: u8) -> Option<u8> {
    // `parse` would take a sign.
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    (1..=max).contains(&number).then_some(number)
}

/// The forms that the variable `name`, in any case, may take.
pub(super) fn forms(name: &str) -> &'static [&'static str] {
    USAGES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or(&[], |(_, forms)| forms)
}

/// Every name.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    USAGES.iter().map(|(name, _)| *name)
}

/// The name that was probably meant.
pub(super) fn nearest(misspelt: &str) -> Option<&'static str> {
    /// No name is longer; and what is compared stays short.
    const MAX_LEN: usize = 16;

    let misspelt = misspelt.trim().to_ascii_lowercase();
    let length = misspelt.chars().count();
    if !(1..=MAX_LEN).contains(&length) {
        return None;
    }
    let slips = (length / 2).clamp(1, 2);
    names()
        .map(|name| (strsim::osa_distance(&misspelt, &name.to_ascii_lowercase()), name))
        .filter(|(distance, _)| *distance <= slips)
        .min_by_key(|(distance, _)| *distance)
        .or_else(|| {
            // `{sequence}`, `{random}`: too many letters for slips, but the same start.
            names()
                .map(|name| (strsim::jaro_winkler(&misspelt, &name.to_ascii_lowercase()), name))
                .filter(|(similarity, _)| *similarity >= 0.8)
                .max_by(|(a, _), (b, _)| a.total_cmp(b))
                .map(|(_, name)| (0, name))
        })
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_is_understood() {
        for (name, forms) in &USAGES[1..] {
            for form in *forms {
                let inside = form.split(['{', '}']).nth(1).expect("braces").replace('N', "8");
                let (own, arguments) =
                    inside.split_once(':').map_or((&*inside, vec![]), |(n, a)| (n, vec![a]));
                let variable = Variable::parse(&own.to_uppercase(), &arguments).expect(form);
                assert_eq!(variable.name(), *name, "{form}");
            }
        }
    }

    #[test]
    fn arguments_are_strict() {
        for (name, arguments) in [
            ("year", &["3"][..]),
            ("year", &["2", "2"]),
            ("fy", &["4"]),
            ("month", &["2"]),
            ("rand", &[]),
            ("rand", &["0"]),
            ("rand", &["33"]),
            ("rand", &["+8"]),
            ("rand", &["8", "8"]),
            ("check", &[]),
            ("check", &["mod11"]),
            ("prefix", &[""]),
        ] {
            assert_eq!(Variable::parse(name, arguments), Err(NoVariable::Arguments), "{name} {arguments:?}");
        }
        assert_eq!(Variable::parse("rand", &["32"]), Ok(Variable::Random(32)));
        assert_eq!(Variable::parse("yaer", &[]), Err(NoVariable::Name));
    }

    #[test]
    fn the_nearest_name() {
        for (misspelt, expected) in [
            ("yaer", Some("year")),
            ("YEAR ", Some("year")),
            ("mnth", Some("month")),
            ("SQE", Some("SEQ")),
            ("sequence", Some("SEQ")),
            ("SEQ4", Some("SEQ")),
            ("random", Some("rand")),
            ("datacentre", Some("datacenter")),
            ("iso_year", Some("isoyear")),
            ("quater", Some("quarter")),
            ("foobar", None),
            ("", None),
            ("yearyearyearyear-", None),
        ] {
            assert_eq!(nearest(misspelt), expected, "{misspelt}");
        }
    }

    #[test]
    fn widths_follow_the_layout() {
        assert_eq!([0, 9, 10, 31, 1023, u32::MAX].map(decimal_width), [1, 1, 2, 2, 4, 10]);
    }
}
