//! From how far existing numbers went, and where counters stand, to which counter is moved how. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::numbers::Tally;
use crate::{
    calendar::Period,
    cli::CliError,
    counter::SequenceValue,
    rule::{Mode, RuleDraft},
};

/// The most integers of a strict counter that an import voids: each is a row for ever.
const MOST_VOIDS: u64 = 10_000_000;

/// Counters as `GET /sequences/{prefixKey}` shows them.
#[derive(Deserialize)]
pub(super) struct Sequences {
    counters: Vec<Counter>,
}

#[derive(Deserialize)]
struct Counter {
    period: String,
    last_value: String,
    issued: u64,
    holes: Vec<serde_json::Value>,
}

/// What becomes of one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) period: Period,
    pub(super) tally: Tally,
    /// Where the counter stands; `None` where it has not begun.
    pub(super) from: Option<SequenceValue>,
    /// Whether it has to be moved.
    pub(super) movement: Movement,
}

/// How a counter is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Movement {
    /// It stands high enough.
    Stays,
    /// It goes up to the highest number.
    Moves,
    /// The same, and each integer passed becomes a void row of its ledger.
    Voids(u64),
}

/// Whether a strict counter that is in use may be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voids {
    /// Its ledger gets a void row for each integer that is passed.
    Allowed,
    /// It may not.
    Refused,
}

/// Works out what becomes of every period.
///
/// # Errors
///
/// A strict counter in use would be moved, and nobody said that it may.
pub(super) fn plan(
    rule: &RuleDraft,
    tallies: &BTreeMap<Period, Tally>,
    sequences: &Sequences,
    voids: Voids,
) -> Result<Vec<Step>, CliError> {
    let steps: Vec<Step> =
        tallies.iter().map(|(period, tally)| step(rule, period, *tally, sequences)).collect();
    let passed = |step: &Step| match step.movement {
        Movement::Voids(passed) => passed,
        Movement::Stays | Movement::Moves => 0,
    };
    let passed_in_all = steps.iter().map(passed).fold(0, u64::saturating_add);
    if passed_in_all > MOST_VOIDS || (passed_in_all > 0 && voids == Voids::Refused) {
        let period = steps.iter().find(|step| passed(step) > 0).map(|step| step.period.clone());
        return Err(CliError::WouldVoid {
            period: period.unwrap_or(Period::none()),
            count: passed_in_all,
            limit: MOST_VOIDS,
        });
    }
    Ok(steps)
}

fn step(rule: &RuleDraft, period: &Period, tally: Tally, sequences: &Sequences) -> Step {
    let counter = sequences.counters.iter().find(|counter| counter.period == period.as_str());
    let from = counter.and_then(|counter| counter.last_value.parse().ok()).map(SequenceValue);
    let stands = from.unwrap_or_else(|| rule.initial_seq.unwrap_or_default());
    let is_used = counter.is_some_and(|counter| counter.issued > 0 || !counter.holes.is_empty());
    let movement = match rule.mode {
        _ if tally.highest <= stands => Movement::Stays,
        Some(Mode::Strict) if is_used => Movement::Voids(tally.highest.0 - stands.0),
        Some(Mode::Strict | Mode::Continuous | Mode::Snowflake) | None => Movement::Moves,
    };
    Step { period: period.clone(), tally, from, movement }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(mode: Mode) -> RuleDraft {
        RuleDraft { mode: Some(mode), initial_seq: Some(SequenceValue(10)), ..RuleDraft::default() }
    }

    fn sequences(last: u64, issued: u64) -> Sequences {
        let counter =
            json!({ "period": "2026", "last_value": last.to_string(), "issued": issued, "holes": [] });
        serde_json::from_value(json!({ "counters": [counter] })).expect("as the API has it")
    }

    fn movement(mode: Mode, period: &str, highest: u64, sequences: &Sequences) -> Result<Movement, CliError> {
        let tally = Tally { count: 1, highest: SequenceValue(highest) };
        let tallies = BTreeMap::from([(Period::new(period), tally)]);
        plan(&rule(mode), &tallies, sequences, Voids::Allowed).map(|steps| steps[0].movement)
    }

    #[test]
    fn a_counter_goes_up_and_never_down() {
        let stands = sequences(50, 7);
        for (period, highest, expected) in [
            ("2026", 49, Movement::Stays),
            ("2026", 50, Movement::Stays),
            ("2026", 51, Movement::Moves),
            ("2027", 10, Movement::Stays),
            ("2027", 11, Movement::Moves),
        ] {
            let movement = movement(Mode::Continuous, period, highest, &stands).expect("planned");
            assert_eq!(movement, expected, "{period} {highest}");
        }
    }

    #[test]
    fn a_strict_counter_in_use_is_moved_only_on_demand_and_not_far() {
        assert_eq!(movement(Mode::Strict, "2026", 90, &sequences(50, 0)).unwrap(), Movement::Moves, "unused");
        let used = sequences(50, 7);
        assert_eq!(movement(Mode::Strict, "2026", 90, &used).unwrap(), Movement::Voids(40));
        assert!(movement(Mode::Strict, "2026", 50 + MOST_VOIDS + 1, &used).is_err());
        let tally = Tally { count: 1, highest: SequenceValue(90) };
        let tallies = BTreeMap::from([(Period::new("2026"), tally)]);
        let refused = plan(&rule(Mode::Strict), &tallies, &used, Voids::Refused).unwrap_err();
        assert!(refused.to_string().contains("--void-passed"), "{refused}");
    }
}
