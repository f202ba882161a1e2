//! What a counter says of itself, against what callers saw.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Story;

/// A counter as `GET /sequences` shows it.
#[derive(Debug)]
struct Account {
    last: u64,
    issued: u64,
    segments: Vec<Stretch>,
    holes: Vec<Stretch>,
}

/// A range, both ends included, and what is said of it.
#[derive(Debug)]
struct Stretch {
    from: u64,
    to: u64,
    word: String,
}

impl Account {
    #[track_caller]
    fn of(sequences: &Value) -> Self {
        let counter = &sequences["counters"][0];
        let stretches = |list: &str, word: &str| -> Vec<Stretch> {
            let rows = counter[list].as_array().unwrap_or_else(|| panic!("no {list} in {counter}"));
            let stretch = |row: &Value| Stretch {
                from: whole(&row["from"]),
                to: whole(&row["to"]),
                word: row[word].as_str().unwrap_or_else(|| panic!("no {word} in {row}")).to_owned(),
            };
            rows.iter().map(stretch).collect()
        };
        Self {
            last: whole(&counter["last_value"]),
            issued: counter["issued"].as_u64().unwrap_or_else(|| panic!("no issued in {counter}")),
            segments: stretches("segments", "state"),
            holes: stretches("holes", "reason"),
        }
    }
}

fn whole(text: &Value) -> u64 {
    text.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no value: {text}"))
}

/// Every value at or below the counter was seen by a caller, is held, or is listed; what is missing was asked for by somebody whose
/// answer never came. The counter begins at 1.
#[track_caller]
pub(super) fn assert_accounted(story: &Story, sequences: &Value) {
    if let Err(complaint) = check(&Account::of(sequences), &values(story), story.unknown) {
        panic!("{complaint}\n{sequences}");
    }
}

/// As [`assert_accounted`] where nothing ever went wrong: no gap at all.
#[track_caller]
pub(super) fn assert_no_gap(story: &Story, sequences: &Value) {
    let (account, seen) = (Account::of(sequences), values(story));
    assert_eq!(story.unknown, 0, "every request was answered");
    assert!(account.holes.is_empty(), "{sequences}");
    assert_eq!(seen.len() as u64, account.last, "each value up to the counter: {sequences}");
    assert_eq!((seen.first(), seen.last()), (Some(&1), Some(&account.last)));
    assert_eq!(account.issued, account.last, "{sequences}");
}

fn values(story: &Story) -> BTreeSet<u64> {
    story.observations().into_iter().map(|observation| observation.value).collect()
}

fn check(account: &Account, seen: &BTreeSet<u64>, unknown: usize) -> Result<(), String> {
    let listed = |stretches: &[Stretch], value: u64| {
        stretches.iter().any(|stretch| (stretch.from..=stretch.to).contains(&value))
    };
    for stretch in &account.holes {
        if stretch.to > account.last {
            return Err(format!("a hole above the counter: {stretch:?}"));
        }
        // What was lost with a node or by Redis may have been answered; what was given back or passed over by hand may not.
        if ["returned", "advanced"].contains(&&*stretch.word)
            && let Some(issued) = seen.range(stretch.from..=stretch.to).next()
        {
            return Err(format!("{issued} was answered and is listed as {stretch:?}"));
        }
    }
    if let Some(above) = seen.range(account.last + 1..).find(|value| !listed(&account.segments, **value)) {
        return Err(format!("{above} was answered, stands above the counter and in no segment"));
    }
    let unexplained: Vec<u64> = (1..=account.last)
        .filter(|value| {
            !seen.contains(value) && !listed(&account.holes, *value) && !listed(&account.segments, *value)
        })
        .collect();
    if unexplained.len() > unknown {
        let some = &unexplained[..unexplained.len().min(10)];
        return Err(format!("{} values are unexplained, {unknown} may be: {some:?} ...", unexplained.len()));
    }
    // The counter's own count of what was issued: all at or below it that is neither listed nor still held, and what was used
    // of segments above it.
    let width = |from: u64, to: u64| (to + 1).saturating_sub(from);
    let below = |stretches: &[Stretch]| -> u64 {
        stretches.iter().map(|stretch| width(stretch.from, stretch.to.min(account.last))).sum()
    };
    let used = account.segments.iter().filter(|segment| segment.word == "used");
    let ahead: u64 = used.map(|segment| width(segment.from.max(account.last + 1), segment.to)).sum();
    let (held, most) = (below(&account.segments), account.last - below(&account.holes) + ahead);
    if account.issued > most || account.issued + held < most {
        return Err(format!(
            "it says that {} were issued; {most} less at most {held} are not listed",
            account.issued
        ));
    }
    Ok(())
}

/// A checker that finds nothing is worth nothing.
#[test]
fn the_accounts_are_checked() {
    let stretch = |from, to, word: &str| Stretch { from, to, word: word.to_owned() };
    let account = || Account {
        last: 10,
        issued: 18,
        segments: vec![stretch(21, 30, "used")],
        holes: vec![stretch(4, 5, "returned")],
    };
    let seen: BTreeSet<u64> = [1, 2, 3, 6, 7, 8, 9, 10, 21].into();
    assert_eq!(check(&account(), &seen, 0), Ok(()));

    let without =
        |value: u64| seen.iter().copied().filter(|other| *other != value).collect::<BTreeSet<u64>>();
    let with = |value: u64| seen.iter().copied().chain([value]).collect::<BTreeSet<u64>>();
    assert!(check(&account(), &without(7), 0).is_err(), "7 is nowhere");
    assert_eq!(check(&account(), &without(7), 1), Ok(()), "or somebody did not hear of it");
    assert!(check(&account(), &with(4), 9).is_err(), "4 was answered and given back");
    assert!(check(&account(), &with(11), 9).is_err(), "11 lies above the counter");
    assert!(check(&Account { issued: 19, ..account() }, &seen, 9).is_err(), "it counts wrongly");
    assert!(check(&Account { issued: 17, ..account() }, &seen, 9).is_err(), "it counts wrongly");
    let above = Account { holes: vec![stretch(4, 5, "returned"), stretch(11, 12, "skipped")], ..account() };
    assert!(check(&above, &seen, 9).is_err(), "a hole of the future");
    // The segment of a dead node: part of it may have been answered.
    let pending = Account { issued: 15, holes: vec![stretch(4, 8, "pending")], ..account() };
    assert_eq!(check(&pending, &seen, 0), Ok(()));
}
