//! Existing numbers, read by the format of a rule: which fit, which came before, how far each period went.
//!
//! Memory: of each number 12 bytes of its SHA-256 and its line are kept, to find duplicates: 20 to 50 bytes, depending on how far the
//! table has grown. Two different numbers are taken for one with a probability of 1 in 10^11 for a thousand million numbers.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    fmt,
};

use aws_lc_rs::digest::{SHA256, digest};

use super::lines::Line;
use crate::{
    calendar::{Period, Reset, YEARS},
    counter::SequenceValue,
    language::{Language, Localized},
    rule::{Overflow, RuleDraft},
    template::{Check, Origin, Template},
};

/// How numbers of a rule read.
pub(super) struct Reader {
    pub(super) prefix: String,
    pub(super) template: Template,
    pub(super) origin: Origin,
    pub(super) rule: RuleDraft,
}

impl Reader {
    /// The highest value that the rule allows.
    fn max(&self) -> SequenceValue {
        let max = self.rule.max_seq.unwrap_or(SequenceValue::MAX);
        match self.rule.overflow {
            Some(Overflow::Reject) => max.min(self.template.highest_within_width()),
            Some(Overflow::Grow) | None => max,
        }
    }

    fn read(&self, line: Line<'_>) -> Result<(Period, SequenceValue), Misfit> {
        let whole = |reason: &str| Misfit { column: None, reason: reason.to_owned() };
        let text = match line {
            Line::Text(text) => text,
            Line::Broken { column } => {
                return Err(Misfit { column: Some(column), reason: "this is not UTF-8".to_owned() });
            }
            Line::TooLong => return Err(whole("this is longer than any number")),
        };
        let decoded = self.template.decode(&self.prefix, self.origin, text).map_err(|error| Misfit {
            column: Some(error.position),
            reason: error.expected.localized(Language::English),
        })?;
        if decoded.check == Check::Invalid {
            return Err(whole("its check digits are wrong"));
        }
        let max = self.max();
        if decoded.sequence > max {
            return Err(whole(&format!("its value {} is above {max}, the rule's limit", decoded.sequence)));
        }
        let reset = self.rule.reset.unwrap_or_default();
        let fiscal_year_start = self.rule.fiscal_year_start.unwrap_or_default();
        let period = decoded
            .period(reset, fiscal_year_start)
            .ok_or_else(|| whole("its period cannot be read off it"))?;
        // The service would refuse to move such a counter, when others have been moved already.
        let is_movable =
            reset == Reset::Never || reset.day_of(period.as_str(), fiscal_year_start, None).is_some();
        if !is_movable {
            let (first, last) = (YEARS.start(), YEARS.end());
            let reason = format!("its period {period} does not lie in {first} to {last}");
            return Err(Misfit { column: decoded.year_position, reason });
        }
        Ok((period, decoded.sequence))
    }
}

/// What does not fit, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    /// The character, counted from 1; `None`: all of it.
    pub(super) column: Option<usize>,
    pub(super) reason: String,
}

/// Something that is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It does not fit.
    Misfit { line: u64, misfit: Misfit },
    /// The same number stood on an earlier line.
    Duplicate { line: u64, earlier: u64 },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misfit { line, misfit: Misfit { column: Some(column), reason } } => {
                write!(f, "line {line}, column {column}: {reason}")
            }
            Self::Misfit { line, misfit: Misfit { column: None, reason } } => {
                write!(f, "line {line}: {reason}")
            }
            Self::Duplicate { line, earlier } => {
                write!(f, "line {line}: the same number as on line {earlier}")
            }
        }
    }
}

/// How far a period went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    /// How many numbers.
    pub(super) count: u64,
    /// The highest value.
    pub(super) highest: SequenceValue,
}

/// All numbers that were read so far.
#[derive(Default)]
pub(super) struct Numbers {
    seen: HashMap<[u8; 12], u32>,
    pub(super) tallies: BTreeMap<Period, Tally>,
    /// The number with the highest value of all.
    pub(super) latest: Option<(SequenceValue, String)>,
    pub(super) misfits: u64,
    pub(super) duplicates: u64,
}

impl Numbers {
    /// Takes a line in, or says what is wrong with it.
    pub(super) fn take(&mut self, reader: &Reader, line: u64, content: Line<'_>) -> Result<(), Problem> {
        let (period, value) = reader.read(content).map_err(|misfit| {
            self.misfits += 1;
            Problem::Misfit { line, misfit }
        })?;
        // What fits is text.
        let Line::Text(text) = content else { return Ok(()) };
        let mut key = [0; 12];
        key.copy_from_slice(&digest(&SHA256, text.as_bytes()).as_ref()[..12]);
        match self.seen.entry(key) {
            Entry::Occupied(earlier) => {
                self.duplicates += 1;
                return Err(Problem::Duplicate { line, earlier: u64::from(*earlier.get()) });
            }
            Entry::Vacant(place) => {
                place.insert(u32::try_from(line).unwrap_or(u32::MAX));
            }
        }
        if self.latest.as_ref().is_none_or(|(highest, _)| *highest < value) {
            self.latest = Some((value, text.to_owned()));
        }
        let tally = self.tallies.entry(period).or_insert(Tally { count: 0, highest: value });
        tally.count += 1;
        tally.highest = tally.highest.max(value);
        Ok(())
    }

    /// How many were taken in.
    pub(super) fn count(&self) -> u64 {
        self.tallies.values().map(|tally| tally.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Object;

    fn reader(rule: &str) -> Reader {
        let mut object = Object::parse(rule.as_bytes()).expect("an object");
        let rule = RuleDraft::from_json(&mut object);
        object.finish().expect("valid");
        let template = Template::parse(rule.format.as_deref().expect("a format"), None).expect("a format");
        let origin = Origin { datacenter: 0, worker: 0, max_datacenter: 99, max_worker: 99 };
        Reader { prefix: "ORD".to_owned(), template, origin, rule }
    }

    fn read(rule: &str, lines: &[&str]) -> (Numbers, Vec<String>) {
        let (reader, mut numbers) = (reader(rule), Numbers::default());
        let mut problems = Vec::new();
        for (line, text) in (1..).zip(lines) {
            if let Err(problem) = numbers.take(&reader, line, Line::Text(text)) {
                problems.push(problem.to_string());
            }
        }
        (numbers, problems)
    }

    #[test]
    fn numbers_are_counted_by_period() {
        let rule = r#"{"format":"{prefix}-{year}{month}-{SEQ:3}","reset":"monthly"}"#;
        let lines = ["ORD-202611-007", "ORD-202612-001", "ORD-202611-1234", "ORD-202611-002"];
        let (numbers, problems) = read(rule, &lines);
        assert_eq!(problems, [""; 0]);
        let tallies: Vec<_> = numbers
            .tallies
            .iter()
            .map(|(period, tally)| (period.as_str(), tally.count, tally.highest.0))
            .collect();
        assert_eq!(tallies, [("2026-11", 3, 1234), ("2026-12", 1, 1)]);
        assert_eq!(reader(rule).rule.reset, Some(Reset::Monthly));
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        let rule = r#"{"format":"A-{SEQ:3}{check:damm}","max_seq":9000}"#;
        let lines = ["A-5724", "A-5725", "B-5724", "A-5724 ", "A-57", "A-5724", "A-90016", ""];
        let (numbers, problems) = read(rule, &lines);
        assert_eq!((numbers.count(), numbers.misfits, numbers.duplicates), (1, 6, 1));
        assert_eq!(problems[0], "line 2: its check digits are wrong");
        assert_eq!(problems[1], "line 3, column 1: expected \"A-\"");
        assert!(problems[2].starts_with("line 4, column 7: "), "{}", problems[2]);
        assert!(problems[3].starts_with("line 5, column 5: "), "{}", problems[3]);
        assert_eq!(problems[4], "line 6: the same number as on line 1");
        assert!(problems[5].starts_with("line 7: its "), "{}", problems[5]);
    }

    #[test]
    fn a_period_that_no_counter_can_have_does_not_fit() {
        let first = "its period 1998 does not lie in 2000 to 2099";
        for (rule, fits, misfit, said) in [
            (
                r#"{"format":"OLD-{year}-{SEQ:4}","reset":"yearly"}"#,
                ["OLD-2000-0500", "OLD-2099-0500"],
                "OLD-1998-0300",
                format!("line 3, column 5: {first}"),
            ),
            (
                r#"{"format":"{SEQ:4}号{year}{month}","reset":"monthly"}"#,
                ["0500号200001", "0500号209912"],
                "0300号210001",
                "line 3, column 6: its period 2100-01 does not lie in 2000 to 2099".to_owned(),
            ),
            // The week of New Year 2000 and the fiscal year before it begin in 1999.
            (
                r#"{"format":"{isoyear}{week}-{SEQ:4}","reset":"weekly"}"#,
                ["199952-0500", "209953-0500"],
                "199951-0300",
                "line 3, column 1: its period 1999-W51 does not lie in 2000 to 2099".to_owned(),
            ),
            (
                r#"{"format":"{fy}-{SEQ:4}","reset":"fiscal","fiscal_year_start":"04-01"}"#,
                ["1999-0500", "2099-0500"],
                "1998-0300",
                "line 3, column 1: its period FY1998 does not lie in 2000 to 2099".to_owned(),
            ),
        ] {
            let [one, other] = fits;
            let (numbers, problems) = read(rule, &[one, other, misfit]);
            assert_eq!((numbers.count(), problems), (2, vec![said]), "{rule}");
        }
        let (numbers, _) = read(r#"{"format":"OLD-{year}-{SEQ:4}"}"#, &["OLD-1998-0300"]);
        assert_eq!(numbers.count(), 1, "the counter of all years");
    }

    #[test]
    fn a_value_beyond_the_limit_of_the_rule_does_not_fit() {
        for (rule, above) in [
            (r#"{"format":"A-{SEQ:3}","max_seq":"1000"}"#, "A-1001"),
            (r#"{"format":"A-{SEQ:3}","overflow":"reject"}"#, "A-1000"),
        ] {
            let (numbers, problems) = read(rule, &["A-999", above]);
            assert_eq!((numbers.count(), problems.len()), (1, 1));
            assert!(problems[0].contains("the rule's limit"), "{problems:?}");
        }
    }
}
