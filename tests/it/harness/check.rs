//! What must hold of numbers that many callers drew at once, whatever happened to the server meanwhile.

use std::time::Duration;

/// One value, and between which moments it must have been drawn (on one clock).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) value: u64,
    pub(crate) asked: Duration,
    pub(crate) answered: Duration,
}

/// The digits at the end of a number.
#[track_caller]
pub(crate) fn value_of(number: &str) -> u64 {
    let digits = number.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("{number} ends without a value"))
}

/// Uniqueness, by sorting.
#[track_caller]
pub(crate) fn assert_no_value_twice(observations: &[Observation]) {
    let mut sorted: Vec<_> = observations.to_vec();
    sorted.sort_by_key(|observation| observation.value);
    for pair in sorted.windows(2) {
        assert_ne!(pair[0].value, pair[1].value, "issued twice: {pair:?}");
    }
}

/// Real-time order: no a < b where b was answered before a was asked for.
#[track_caller]
pub(crate) fn assert_real_time_order(observations: &[Observation]) {
    if let Some((a, b)) = out_of_order(observations) {
        panic!("{} was asked for after {} had been answered: {a:?} {b:?}", a.value, b.value);
    }
}

/// Going down from the highest value: the earliest answer among those above must not precede the question for this one.
fn out_of_order(observations: &[Observation]) -> Option<(Observation, Observation)> {
    let mut sorted: Vec<_> = observations.to_vec();
    sorted.sort_by_key(|observation| std::cmp::Reverse(observation.value));
    let mut earliest: Option<Observation> = None;
    for a in sorted {
        match earliest {
            Some(b) if b.answered < a.asked => return Some((a, b)),
            Some(b) if b.answered <= a.answered => {}
            _ => earliest = Some(a),
        }
    }
    None
}

/// A checker that finds nothing is worth nothing.
#[test]
fn the_checkers_find_what_is_wrong() {
    let at = |value, asked, answered| Observation {
        value,
        asked: Duration::from_millis(asked),
        answered: Duration::from_millis(answered),
    };
    let fine = [at(1, 0, 5), at(2, 1, 9), at(4, 6, 8), at(3, 2, 7)];
    assert_no_value_twice(&fine);
    assert_eq!(out_of_order(&fine), None);
    // 3 was answered at 4; only then, at 5, somebody asked and was given 2.
    assert!(out_of_order(&[at(3, 1, 4), at(2, 5, 6)]).is_some());
    assert!(out_of_order(&[at(1, 20, 21), at(2, 1, 30), at(3, 2, 10)]).is_some());
    assert!(std::panic::catch_unwind(|| assert_no_value_twice(&[at(7, 0, 1), at(7, 2, 3)])).is_err());
    assert_eq!(value_of("INV-2026/000123"), 123);
}
