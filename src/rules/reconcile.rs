//! What two memories of one key make together: a store that was emptied or set back, and a process that remembers more. Pure.
//!
//! Invariants: an era that either knows of is known afterwards; the revision never falls; the outcome does not depend on
//! whose turn it is. Where one memory is simply the later one, it is taken as it is.

use chrono::NaiveDate;

use super::{
    compiled::CompiledRule,
    history::{Era, History, Scheme},
};
use crate::{
    rule::Rule,
    store::{RuleRecord, StoreError},
};

/// The record to write where the store has `theirs` and this process remembers `ours`; `None`: `theirs` is right as it is.
/// `today` is the day on which it turned out that the two went different ways, if they did.
///
/// # Errors
///
/// `StoreError::Corrupt` if either cannot be read.
pub(super) fn reconciled(
    ours: &RuleRecord,
    theirs: Option<&RuleRecord>,
    today: NaiveDate,
) -> Result<Option<RuleRecord>, StoreError> {
    let Some(theirs) = theirs else { return Ok(Some(ours.clone())) };
    if ours == theirs {
        return Ok(None);
    }
    let age = |record: &RuleRecord| (record.revision, record.used);
    let (newer, older) = if age(ours) > age(theirs) { (ours, theirs) } else { (theirs, ours) };
    let (known, mut united) = (History::read(newer)?, History::read(newer)?);
    united.unite(&History::read(older)?);
    let (rule, earlier) = (CompiledRule::of_record(newer)?, CompiledRule::of_record(older)?);
    let still_in_use = newer.used && newer.rule == older.rule;
    if let Some(earlier) = earlier.filter(|_| older.used && !still_in_use) {
        united.remember_use(earlier.rule());
    }
    if united == known {
        return Ok((newer == ours).then(|| ours.clone()));
    }
    // They went different ways, with numbers under each. All eras count, the present one too, and counters start above everything.
    if let Some(rule) = rule.as_ref().filter(|_| newer.used || older.used) {
        united.remember_use(rule.rule());
    }
    united.edition += 1;
    united.scheme_number += 1;
    if rule.is_some_and(|rule| rule.rule().mode.counts()) {
        united.changed = united.changed.max(Some(today));
    }
    let revision = newer.revision + 1;
    Ok(Some(RuleRecord { revision, history: united.to_json(), used: false, ..newer.clone() }))
}

impl History {
    /// Numbers may have been issued under `rule`.
    fn remember_use(&mut self, rule: &Rule) {
        self.add_era(Era::of(rule));
        self.scheme = self.scheme.or_else(|| Scheme::of(rule));
        if rule.mode.counts() {
            self.initial_seq = self.initial_seq.or(Some(rule.initial_seq.0));
        }
    }

    /// Adds what another memory of the key knows.
    fn unite(&mut self, other: &Self) {
        for era in &other.eras {
            self.add_era(era.clone());
        }
        self.edition = self.edition.max(other.edition);
        self.scheme_number = self.scheme_number.max(other.scheme_number);
        self.scheme = self.scheme.or(other.scheme);
        self.initial_seq = self.initial_seq.or(other.initial_seq);
        self.latest = self.latest.max(other.latest);
        self.floor = match (self.floor, other.floor) {
            (Some(one), Some(two)) => Some(one.or_higher(two)),
            (one, two) => one.or(two),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix_key::PrefixKey;

    const TODAY: &str = "2026-11-22";

    fn record(revision: u64, format: &str, history: &str, used: bool) -> RuleRecord {
        RuleRecord {
            key: PrefixKey::parse("A").expect("valid"),
            revision,
            rule: (!format.is_empty()).then(|| format!(r#"{{"format":"{format}"}}"#)),
            history: history.to_owned(),
            used,
        }
    }

    fn together(ours: &RuleRecord, theirs: Option<&RuleRecord>) -> Option<RuleRecord> {
        reconciled(ours, theirs, TODAY.parse().expect("a date")).expect("readable")
    }

    /// A history after numbers were issued under `A-{SEQ:4}`.
    fn past(edition: u64) -> String {
        let era = r#"{"format":"A-{SEQ:4}","seq_length":4,"values":"counted"}"#;
        format!(r#"{{"edition":{edition},"eras":[{era}],"scheme":"never","initial_seq":0}}"#)
    }

    #[test]
    fn what_the_store_lost_is_written_back_as_it_was() {
        let ours = record(7, "A-{SEQ:4}", r#"{"edition":3}"#, true);
        assert_eq!(together(&ours, None), Some(ours.clone()));
        assert_eq!(together(&ours, Some(&ours)), None);
    }

    #[test]
    fn the_later_memory_counts() {
        let first = record(1, "A-{SEQ:4}", r#"{"edition":1}"#, true);
        let later = record(2, "B-{SEQ:4}", &past(2), true);
        assert_eq!(together(&later, Some(&first)), Some(later.clone()), "the store was set back");
        assert_eq!(together(&first, Some(&later)), None, "this process slept");
        let unused = RuleRecord { used: false, ..later.clone() };
        assert_eq!(together(&later, Some(&unused)), Some(later.clone()), "it had been used");
        let deleted = record(3, "", &past(3), false);
        assert!(together(&first, Some(&deleted)).is_none(), "a deleted rule does not come back");
    }

    #[test]
    fn memories_that_went_different_ways_are_united_whoever_asks() {
        let ours = record(5, "A-{SEQ:4}", r#"{"edition":4,"latest":"2027-01-01"}"#, true);
        let theirs = record(2, "B-{SEQ:4}", r#"{"edition":1,"latest":"2026-01-01"}"#, true);
        let united = together(&ours, Some(&theirs)).expect("neither is right");
        assert_eq!((united.revision, united.used, &united.rule), (6, false, &ours.rule));
        let history = History::read(&united).expect("readable");
        let formats: Vec<_> = history.eras.iter().map(|era| era.format.as_str()).collect();
        assert_eq!(formats, ["B-{SEQ:4}", "A-{SEQ:4}"]);
        assert_eq!(history.changed, TODAY.parse().ok(), "the floor is to be settled anew");
        assert_eq!(history.latest, "2027-01-01".parse().ok());
        assert_eq!(together(&theirs, Some(&ours)), Some(united.clone()));
        assert_eq!(together(&ours, Some(&united)), None, "and that is the end of it");
        assert_eq!(together(&theirs, Some(&united)), None);
    }

    #[test]
    fn a_use_that_a_later_revision_forgot_is_an_era() {
        // Housekeeping of another process, after a rollback that lost the first number.
        let ours = record(1, "A-{SEQ:4}", r#"{"edition":1}"#, true);
        let theirs = record(2, "A-{SEQ:4}", r#"{"edition":1}"#, false);
        let united = together(&ours, Some(&theirs)).expect("something was forgotten");
        assert!(united.revision == 3 && united.history.contains("A-{SEQ:4}"), "{united:?}");
    }
}
