//! The date that a decoded number tells, as far as it tells it.

use std::ops::RangeInclusive;

use chrono::{Datelike, NaiveDate, Weekday};

use super::variable::{Variable, YearDigits};
use crate::calendar::{self, FiscalYearStart, Period, Reset};

/// The date parts of a number; `None` for those that its format lacks. Years have four digits even where the format
/// writes two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodedDate {
    /// `{year}`.
    pub year: Option<i32>,
    /// `{month}`, 1 to 12.
    pub month: Option<u32>,
    /// `{day}`, 1 to 31.
    pub day: Option<u32>,
    /// `{hour}`, 0 to 23.
    pub hour: Option<u32>,
    /// `{minute}`, 0 to 59.
    pub minute: Option<u32>,
    /// `{second}`, 0 to 59.
    pub second: Option<u32>,
    /// `{quarter}`, 1 to 4.
    pub quarter: Option<u32>,
    /// `{doy}`, 1 to 366.
    pub day_of_year: Option<u32>,
    /// `{isoyear}`.
    pub iso_year: Option<i32>,
    /// `{week}`, 1 to 53.
    pub week: Option<u32>,
    /// `{fy}`, named after the year in which it starts.
    pub fiscal_year: Option<i32>,
}

impl DecodedDate {
    /// The day, where the number tells it: from year, month and day, or from year and day of the year.
    pub fn date(&self) -> Option<NaiveDate> {
        let year = self.year?;
        let from_ordinal = self.day_of_year.and_then(|ordinal| NaiveDate::from_yo_opt(year, ordinal));
        from_ordinal.or_else(|| NaiveDate::from_ymd_opt(year, self.month?, self.day?))
    }

    /// The period of `reset` in which the number was issued, where the number tells it. `fiscal_year_start` matters only
    /// where the format has the whole date and no `{fy}`.
    pub fn period(&self, reset: Reset, fiscal_year_start: FiscalYearStart) -> Option<Period> {
        let first_of_month = |month| NaiveDate::from_ymd_opt(self.year?, month, 1);
        // Any day of the period will do.
        let day = match reset {
            Reset::Never => return Some(Period::none()),
            Reset::Daily => self.date(),
            Reset::Weekly => self
                .iso_year
                .zip(self.week)
                .and_then(|(year, week)| NaiveDate::from_isoywd_opt(year, week, Weekday::Mon)),
            Reset::Monthly => self.month.and_then(first_of_month),
            Reset::Quarterly => {
                let month = self.quarter.map(|quarter| quarter * 3).or(self.month);
                month.and_then(first_of_month)
            }
            Reset::Yearly => first_of_month(1),
            Reset::Fiscal => {
                let first = self.fiscal_year.and_then(|year| NaiveDate::from_ymd_opt(year, 1, 1));
                if let Some(first) = first {
                    // The year was named when the number was issued; where it starts now does not matter.
                    return Some(reset.period_of(first, FiscalYearStart::JANUARY_FIRST));
                }
                None
            }
        };
        day.or_else(|| self.date()).map(|day| reset.period_of(day, fiscal_year_start))
    }
}

/// The date parts of a number as they come in. Together they always fit at least one day.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DateParts {
    /// Years as far as they have four digits.
    date: DecodedDate,
    /// `{year:2}`.
    short_year: Option<i32>,
    /// `{fy:2}`.
    short_fiscal_year: Option<i32>,
}

impl DateParts {
    /// Takes in what a variable says, nothing if it says nothing about the date. Returns whether there is a day that all
    /// parts fit, with some start of the fiscal year.
    #[must_use]
    pub(super) fn add(&mut self, variable: Variable, number: u32) -> bool {
        let date = &mut self.date;
        let same = match variable {
            Variable::Year(YearDigits::Four) => agree(&mut date.year, number as i32),
            Variable::Year(YearDigits::Two) => agree(&mut self.short_year, number as i32),
            Variable::Month => agree(&mut date.month, number),
            Variable::Day => agree(&mut date.day, number),
            Variable::Quarter => agree(&mut date.quarter, number),
            Variable::DayOfYear => agree(&mut date.day_of_year, number),
            Variable::IsoYear => agree(&mut date.iso_year, number as i32),
            Variable::Week => agree(&mut date.week, number),
            Variable::FiscalYear(YearDigits::Four) => agree(&mut date.fiscal_year, number as i32),
            Variable::FiscalYear(YearDigits::Two) => agree(&mut self.short_fiscal_year, number as i32),
            Variable::Hour => return agree(&mut date.hour, number),
            Variable::Minute => return agree(&mut date.minute, number),
            Variable::Second => return agree(&mut date.second, number),
            Variable::Prefix
            | Variable::Datacenter
            | Variable::Worker
            | Variable::Random(_)
            | Variable::Check(_) => return true,
        };
        let mut years = self.years().filter(|&year| self.fits_fiscal_year(year - 1..=year));
        same && years.any(|year| self.days_of(year).any(|day| self.fits(day)))
    }

    /// What they say.
    pub(super) fn finish(self) -> DecodedDate {
        let mut date = self.date;
        date.year = date.year.or(self.short_year.map(|short| 2000 + short));
        date.fiscal_year = date.fiscal_year.or_else(|| {
            let short = self.short_fiscal_year?;
            // The fiscal year of early 2000 began in 1999.
            let near =
                date.year.and_then(|year| [year, year - 1].into_iter().find(|year| year % 100 == short));
            near.or(Some(2000 + short))
        });
        date
    }

    /// The calendar years in which the day can lie.
    fn years(&self) -> RangeInclusive<i32> {
        if let Some(year) = self.date.year {
            year..=year
        } else if let Some(short) = self.short_year {
            2000 + short..=2000 + short
        } else if let Some(iso_year) = self.date.iso_year {
            iso_year - 1..=iso_year + 1
        } else if let Some(fiscal_year) = self.date.fiscal_year {
            fiscal_year..=fiscal_year + 1
        } else if self.short_fiscal_year.is_some() {
            2000..=2099
        } else {
            // Leap years and weekdays repeat after 28 years.
            2000..=2027
        }
    }

    /// The days of a year that month, day and day of the year leave over.
    fn days_of(&self, year: i32) -> impl Iterator<Item = NaiveDate> + use<> {
        let DecodedDate { month, day, day_of_year, .. } = self.date;
        let (first, at_most) = match (day_of_year, month) {
            (Some(ordinal), _) => (NaiveDate::from_yo_opt(year, ordinal), 1),
            (None, Some(month)) => (NaiveDate::from_ymd_opt(year, month, 1), 31),
            (None, None) => (NaiveDate::from_ymd_opt(year, 1, 1), 366),
        };
        let days = first.into_iter().flat_map(|date| date.iter_days()).take(at_most);
        days.take_while(move |date| date.year() == year).filter(move |date| {
            month.is_none_or(|month| month == date.month()) && day.is_none_or(|day| day == date.day())
        })
    }

    fn fits(&self, day: NaiveDate) -> bool {
        let date = &self.date;
        let week = day.iso_week();
        // Only by its last day has every fiscal year begun that is named after this year.
        let earliest = day.year() - i32::from((day.month(), day.day()) != (12, 31));
        date.quarter.is_none_or(|quarter| quarter == calendar::quarter(day))
            && date.iso_year.is_none_or(|iso_year| iso_year == week.year())
            && date.week.is_none_or(|number| number == week.week())
            && self.short_year.is_none_or(|short| short == day.year().rem_euclid(100))
            && self.fits_fiscal_year(earliest..=day.year())
    }

    /// Whether what was read can be one of these fiscal years.
    fn fits_fiscal_year(&self, mut years: RangeInclusive<i32>) -> bool {
        years.any(|year| {
            self.date.fiscal_year.is_none_or(|own| own == year)
                && self.short_fiscal_year.is_none_or(|short| short == year.rem_euclid(100))
        })
    }
}

/// Fills a part that was unknown; returns whether it has this value now.
fn agree<T: PartialEq + Copy>(part: &mut Option<T>, value: T) -> bool {
    *part.get_or_insert(value) == value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(parts: &[(Variable, u32)]) -> Option<DecodedDate> {
        let mut read = DateParts::default();
        parts.iter().all(|(variable, number)| read.add(*variable, *number)).then(|| read.finish())
    }

    #[test]
    fn impossible_dates_are_noticed() {
        use Variable::{Day, DayOfYear, IsoYear, Month, Quarter, Week};
        let year = Variable::Year(YearDigits::Four);
        let short_year = Variable::Year(YearDigits::Two);
        let fiscal_year = Variable::FiscalYear(YearDigits::Four);
        let short_fiscal_year = Variable::FiscalYear(YearDigits::Two);
        for (read, possible) in [
            (&[(year, 2024), (Month, 2), (Day, 29)][..], true),
            (&[(year, 2026), (Month, 2), (Day, 29)], false),
            (&[(Month, 2), (Day, 29)], true),
            (&[(Month, 2), (Day, 30)], false),
            (&[(year, 2024), (DayOfYear, 366)], true),
            (&[(year, 2026), (DayOfYear, 366)], false),
            (&[(Month, 12), (DayOfYear, 366)], true),
            (&[(Month, 11), (DayOfYear, 366)], false),
            (&[(Quarter, 4), (Month, 10)], true),
            (&[(Quarter, 4), (Month, 9)], false),
            (&[(IsoYear, 2026), (Week, 53)], true),
            (&[(IsoYear, 2025), (Week, 53)], false),
            (&[(IsoYear, 2026), (year, 2027), (Month, 1), (Day, 3)], true),
            (&[(IsoYear, 2026), (year, 2027), (Month, 1), (Day, 4)], false),
            (&[(Week, 53), (Month, 1)], true),
            (&[(Week, 53), (Month, 2)], false),
            (&[(year, 2026), (short_year, 26)], true),
            (&[(year, 2026), (short_year, 27)], false),
            (&[(short_year, 27), (year, 2026)], false),
            (&[(year, 2026), (fiscal_year, 2025)], true),
            (&[(year, 2026), (fiscal_year, 2027)], false),
            (&[(year, 2026), (Month, 12), (Day, 31), (fiscal_year, 2025)], false),
            (&[(year, 2026), (Month, 12), (Day, 30), (fiscal_year, 2025)], true),
            (&[(year, 2000), (short_fiscal_year, 99)], true),
            (&[(fiscal_year, 1999), (short_fiscal_year, 99)], true),
            (&[(fiscal_year, 1999), (short_fiscal_year, 0)], false),
            (&[(short_fiscal_year, 99), (short_year, 50)], false),
        ] {
            assert_eq!(parts(read).is_some(), possible, "{read:?}");
        }
    }

    #[test]
    fn every_day_of_the_century_fits_its_own_parts() {
        use Variable::{Day, DayOfYear, IsoYear, Month, Quarter, Week};
        let fiscal_year = Variable::FiscalYear(YearDigits::Four);
        let short_fiscal_year = Variable::FiscalYear(YearDigits::Two);
        let starts = ["01-01", "04-01", "12-31"].map(|start| FiscalYearStart::parse(start).expect("valid"));
        let first = NaiveDate::from_ymd_opt(2000, 1, 1).expect("a date");
        let turn_of_year =
            |day: &NaiveDate| day.ordinal() < 5 || day.ordinal() > 361 || day.ordinal().is_multiple_of(37);
        for day in first.iter_days().take_while(|day| day.year() < 2100).filter(turn_of_year) {
            let week = (Week, day.iso_week().week());
            let (month, number) = ((Month, day.month()), (Day, day.day()));
            let without_year =
                [month, number, (DayOfYear, day.ordinal()), week, (Quarter, calendar::quarter(day))];
            assert!(parts(&without_year).is_some(), "{day}");
            let by_week = [(IsoYear, day.iso_week().year() as u32), week, month, number];
            assert!(parts(&by_week).is_some(), "{day}");
            for start in starts {
                let year = start.fiscal_year(day) as u32;
                for fiscal in [(fiscal_year, year), (short_fiscal_year, year % 100)] {
                    assert!(parts(&[fiscal, month, number, week]).is_some(), "{day} {start}");
                }
            }
        }
    }

    #[test]
    fn short_years_lie_in_this_century() {
        let short = |year, number| {
            parts(&[
                (Variable::Year(YearDigits::Four), year),
                (Variable::FiscalYear(YearDigits::Two), number),
            ])
        };
        assert_eq!(short(2026, 25).and_then(|date| date.fiscal_year), Some(2025));
        assert_eq!(short(2000, 99).and_then(|date| date.fiscal_year), Some(1999));
        let alone = parts(&[(Variable::Year(YearDigits::Two), 0)]);
        assert_eq!(alone.and_then(|date| date.year), Some(2000));
    }

    #[test]
    fn periods_need_their_parts() {
        let (year, month) = (Some(2026), Some(11));
        let named = |date: DecodedDate, reset: Reset| {
            date.period(reset, FiscalYearStart::parse("12-01").expect("valid"))
                .map(|period| period.to_string())
        };
        let monthly = DecodedDate { year, month, ..DecodedDate::default() };
        assert_eq!(named(monthly, Reset::Never).as_deref(), Some(""));
        assert_eq!(named(monthly, Reset::Yearly).as_deref(), Some("2026"));
        assert_eq!(named(monthly, Reset::Quarterly).as_deref(), Some("2026-Q4"));
        assert_eq!(named(monthly, Reset::Monthly).as_deref(), Some("2026-11"));
        for reset in [Reset::Weekly, Reset::Daily, Reset::Fiscal] {
            assert_eq!(named(monthly, reset), None, "{reset}");
        }
        let daily = DecodedDate { day: Some(22), ..monthly };
        assert_eq!(named(daily, Reset::Daily).as_deref(), Some("2026-11-22"));
        assert_eq!(named(daily, Reset::Fiscal).as_deref(), Some("FY2025"));
        let fiscal = DecodedDate { fiscal_year: Some(2026), ..daily };
        assert_eq!(named(fiscal, Reset::Fiscal).as_deref(), Some("FY2026"), "as printed");
        let weekly = DecodedDate { iso_year: Some(2026), week: Some(53), ..DecodedDate::default() };
        assert_eq!(named(weekly, Reset::Weekly).as_deref(), Some("2026-W53"));
        assert_eq!(named(weekly, Reset::Yearly), None);
    }
}
