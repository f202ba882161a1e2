//! Calendar arithmetic that formats and counters share: resets, periods, fiscal years, quarters.
//!
//! Invariant: a period is a pure function of (reset, local date, fiscal year start). The printed date and the
//! counter come from the same moment, so they can never disagree.

use std::{fmt, ops::RangeInclusive, sync::Arc};

use chrono::{Datelike, NaiveDate};

/// The years in which the dates of numbers lie: those that two digits tell apart.
pub const YEARS: RangeInclusive<i32> = 2000..=2099;

/// When a counter starts afresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reset {
    /// One counter for ever.
    #[default]
    Never,
    /// Every local midnight.
    Daily,
    /// Every ISO 8601 week (Monday).
    Weekly,
    /// The first of each month.
    Monthly,
    /// The first of January, April, July and October.
    Quarterly,
    /// The first of January.
    Yearly,
    /// The rule's fiscal year start.
    Fiscal,
}

impl Reset {
    /// Every variant, in the order of the documentation.
    pub const ALL: [Self; 7] =
        [Self::Never, Self::Daily, Self::Weekly, Self::Monthly, Self::Quarterly, Self::Yearly, Self::Fiscal];

    /// The word for it in a rule.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Quarterly => "quarterly",
            Self::Yearly => "yearly",
            Self::Fiscal => "fiscal",
        }
    }

    /// The period in which `date` lies: `2026`, `2026-Q4`, `2026-11`, `2026-W47`, `2026-11-22`, `FY2026`, or the empty one.
    pub fn period_of(self, date: NaiveDate, fiscal_year_start: FiscalYearStart) -> Period {
        match self {
            Self::Never => Period::none(),
            Self::Daily => Period::new(date.format("%Y-%m-%d")),
            Self::Weekly => {
                let week = date.iso_week();
                Period::new(format_args!("{:04}-W{:02}", week.year(), week.week()))
            }
            Self::Monthly => Period::new(format_args!("{:04}-{:02}", date.year(), date.month())),
            Self::Quarterly => Period::new(format_args!("{:04}-Q{}", date.year(), quarter(date))),
            Self::Yearly => Period::new(format_args!("{:04}", date.year())),
            Self::Fiscal => Period::new(format_args!("FY{:04}", fiscal_year_start.fiscal_year(date))),
        }
    }

    /// The first day of the period with this text, as [`Reset::period_of`] writes it; `None` where it is no period of this reset.
    pub fn first_day_of(self, text: &str, fiscal_year_start: FiscalYearStart) -> Option<NaiveDate> {
        let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u32>().ok();
        let year = |range| number(range).and_then(|year| i32::try_from(year).ok());
        let date = match self {
            Self::Never => None,
            Self::Daily => text.parse().ok(),
            Self::Weekly => NaiveDate::from_isoywd_opt(year(0..4)?, number(6..8)?, chrono::Weekday::Mon),
            Self::Monthly => NaiveDate::from_ymd_opt(year(0..4)?, number(5..7)?, 1),
            Self::Quarterly => {
                NaiveDate::from_ymd_opt(year(0..4)?, number(6..7)?.checked_mul(3)?.checked_sub(2)?, 1)
            }
            Self::Yearly => NaiveDate::from_ymd_opt(year(0..4)?, 1, 1),
            Self::Fiscal => fiscal_year_start.in_year(year(2..6)?),
        };
        // Whatever was not looked at must be as it is written.
        date.filter(|date| self.period_of(*date, fiscal_year_start).as_str() == text)
    }

    /// A day of the period with this text on which numbers can be issued: the first from `since` on, or from the first of [`YEARS`];
    /// `None` where there is none.
    pub fn day_of(
        self,
        text: &str,
        fiscal_year_start: FiscalYearStart,
        since: Option<NaiveDate>,
    ) -> Option<NaiveDate> {
        let earliest = since.or(NaiveDate::from_ymd_opt(*YEARS.start(), 1, 1));
        let first = self.first_day_of(text, fiscal_year_start)?;
        // A period that ends in 2000 may have begun in 1999.
        let day = earliest.map_or(first, |day| day.max(first));
        let is_of_it = self.period_of(day, fiscal_year_start).as_str() == text;
        (YEARS.contains(&day.year()) && is_of_it).then_some(day)
    }

    /// The first day of the period in which `date` lies; `None` for `never`, which has no beginning.
    pub fn period_start(self, date: NaiveDate, fiscal_year_start: FiscalYearStart) -> Option<NaiveDate> {
        match self {
            Self::Never => None,
            Self::Daily => Some(date),
            Self::Weekly => Some(date.week(chrono::Weekday::Mon).first_day()),
            Self::Monthly => date.with_day(1),
            Self::Quarterly => NaiveDate::from_ymd_opt(date.year(), quarter(date) * 3 - 2, 1),
            Self::Yearly => NaiveDate::from_ymd_opt(date.year(), 1, 1),
            Self::Fiscal => fiscal_year_start.in_year(fiscal_year_start.fiscal_year(date)),
        }
    }
}

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The quarter of the calendar year, 1 to 4.
pub fn quarter(date: NaiveDate) -> u32 {
    date.month0() / 3 + 1
}

/// The name of a counter's reset period, e.g. `2026-11`; empty where the counter is never reset. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(Option<Arc<str>>);

impl Period {
    /// The period of a counter that is never reset.
    pub const fn none() -> Self {
        Self(None)
    }

    /// A period by its text; the empty text is `Period::none()`.
    pub fn new(text: impl fmt::Display) -> Self {
        let text = text.to_string();
        Self((!text.is_empty()).then(|| text.into()))
    }

    /// The period as text, possibly empty.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The day on which a fiscal year begins; never 29 February, which most years lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiscalYearStart {
    month: u32,
    day: u32,
}

impl FiscalYearStart {
    /// The first of January: the fiscal year is the calendar year.
    pub const JANUARY_FIRST: Self = Self { month: 1, day: 1 };

    /// Reads `MM-DD`. `None` unless it is a day of every year.
    pub fn parse(text: &str) -> Option<Self> {
        let (month, day) = text.split_once('-')?;
        if text.len() != 5
            || month.len() != 2
            || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
        {
            return None;
        }
        let (month, day) = (month.parse().ok()?, day.parse().ok()?);
        // 2001 is not a leap year: 02-29 is refused.
        NaiveDate::from_ymd_opt(2001, month, day)?;
        Some(Self { month, day })
    }

    /// The first day of the fiscal year of this name; `None` for a year beyond all calendars.
    pub fn in_year(self, year: i32) -> Option<NaiveDate> {
        NaiveDate::from_ymd_opt(year, self.month, self.day)
    }

    /// The fiscal year in which `date` lies, named after the calendar year in which it starts.
    pub fn fiscal_year(self, date: NaiveDate) -> i32 {
        let before_start = (date.month(), date.day()) < (self.month, self.day);
        date.year() - i32::from(before_start)
    }
}

impl Default for FiscalYearStart {
    fn default() -> Self {
        Self::JANUARY_FIRST
    }
}

impl fmt::Display for FiscalYearStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}-{:02}", self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().expect("a date")
    }

    #[test]
    fn names_every_period() {
        let april = FiscalYearStart::parse("04-01").expect("valid");
        let named = |reset: Reset, day| reset.period_of(date(day), april).to_string();
        assert_eq!(named(Reset::Never, "2026-11-22"), "");
        assert_eq!(named(Reset::Daily, "2026-11-22"), "2026-11-22");
        assert_eq!(named(Reset::Weekly, "2026-11-22"), "2026-W47");
        assert_eq!(named(Reset::Monthly, "2026-11-22"), "2026-11");
        assert_eq!(named(Reset::Quarterly, "2026-11-22"), "2026-Q4");
        assert_eq!(named(Reset::Yearly, "2026-11-22"), "2026");
        assert_eq!(named(Reset::Fiscal, "2026-11-22"), "FY2026");
        assert_eq!(named(Reset::Fiscal, "2026-03-31"), "FY2025");
        assert_eq!(named(Reset::Fiscal, "2026-04-01"), "FY2026");
    }

    #[test]
    fn iso_weeks_belong_to_the_year_of_their_thursday() {
        let named = |day| Reset::Weekly.period_of(date(day), FiscalYearStart::default()).to_string();
        assert_eq!(named("2027-01-03"), "2026-W53");
        assert_eq!(named("2027-01-04"), "2027-W01");
        assert_eq!(named("2024-12-30"), "2025-W01");
    }

    #[test]
    fn a_period_starts_in_itself() {
        let july = FiscalYearStart::parse("07-15").expect("valid");
        for reset in Reset::ALL.into_iter().filter(|reset| *reset != Reset::Never) {
            for offset in 0..800 {
                let day = date("2025-12-20") + chrono::Days::new(offset);
                let start = reset.period_start(day, july).expect("a start");
                assert!(start <= day);
                assert_eq!(reset.period_of(start, july), reset.period_of(day, july));
                let before = start.pred_opt().expect("a day before");
                assert_ne!(reset.period_of(before, july), reset.period_of(day, july));
            }
        }
    }

    #[test]
    fn a_period_is_found_by_its_text_and_by_no_other() {
        let july = FiscalYearStart::parse("07-15").expect("valid");
        for reset in Reset::ALL {
            let day = date("2026-11-22");
            let text = reset.period_of(day, july);
            assert_eq!(reset.first_day_of(text.as_str(), july), reset.period_start(day, july), "{reset}");
            for wrong in [
                "",
                "2026-",
                "2026-13",
                "2026-Q5",
                "2026-Q0",
                "2026-W54",
                "2026-11-31",
                "26",
                "FY26",
                "2026x11",
                "２０２６",
            ] {
                assert_eq!(reset.first_day_of(wrong, july), None, "{reset} {wrong}");
            }
        }
    }

    #[test]
    fn refuses_days_that_some_years_lack() {
        for text in ["02-29", "02-30", "13-01", "00-10", "4-1", "04-1", "04/01", "+4-01", ""] {
            assert_eq!(FiscalYearStart::parse(text), None, "{text}");
        }
        assert_eq!(FiscalYearStart::parse("02-28").map(|start| start.to_string()), Some("02-28".into()));
    }
}
