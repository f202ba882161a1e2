//! Whatever sequence of rules is accepted, no text of a key comes back.

use std::{collections::HashSet, ops::Range, time::Duration};

use proptest::prelude::*;

use super::*;

/// What an operator and callers do.
#[derive(Clone, Debug)]
enum Step {
    Put(String),
    Delete,
    /// So many numbers of now.
    Issue(u8),
    /// One number of a day so many days from the start.
    IssueOn(u16),
    /// The wall clock moves, either way.
    Clock(i16),
    /// The process starts again.
    Restart,
}

/// Formats that are close to each other on purpose.
const FORMATS: [&str; 14] = [
    "{SEQ:1}",
    "{SEQ:4}",
    "{SEQ:19}",
    "{SEQ:4:hex}",
    "{year}{SEQ:4}",
    "{year}{month}{SEQ:4}",
    "{year}{month}{SEQ:6}",
    "{year}{month}{day}{SEQ:2}",
    "{year}{month}{day}{SEQ:3}",
    "{year}{month}{day}-{SEQ:2}",
    "{year}{doy}{SEQ:3}",
    "{fy}-{SEQ:2}",
    "{isoyear}{week}{SEQ:4}",
    "A{year}-{quarter}-{SEQ:3}{check:luhn}",
];

/// From the start; the first rule is of the 325th day.
const SOME_DAYS: Range<u16> = 300..420;
const SOME_YEARS: Range<u16> = 300..1_500;

fn body() -> impl Strategy<Value = String> {
    let reset = prop::sample::select(crate::calendar::Reset::ALL.to_vec());
    let mode = prop::sample::select(vec!["null", "\"snowflake\"", "\"continuous\"", "\"strict\""]);
    let zone = prop::sample::select(vec!["UTC", "Pacific/Kiritimati", "America/New_York"]);
    let start = prop::sample::select(vec!["01-01", "04-01", "12-01"]);
    let initial = prop::sample::select(vec!["null", "null", "null", "null", "0", "3"]);
    // One family has it all: every period can be read off it, so that it goes through every change of reset.
    let format = prop_oneof![
        2 => prop::sample::select(FORMATS.to_vec()),
        1 => Just("{year}{month}{day}-{SEQ:2}"),
        1 => Just("{year}{month}{day}-{SEQ:3}"),
    ];
    (format, reset, mode, zone, start, initial).prop_map(
        |(format, reset, mode, zone, start, initial)| {
            // A snowflake with a reset is always refused; rather none than that.
            let reset = if mode == "\"snowflake\"" { "never".to_owned() } else { reset.to_string() };
            format!(
                r#"{{"format":"{format}","reset":"{reset}","mode":{mode},"timezone":"{zone}","fiscal_year_start":"{start}","initial_seq":{initial}}}"#
            )
        },
    )
}

/// Fiscal years that are told by their names, which is the only thing printed that depends on the rule.
fn fiscal_body() -> impl Strategy<Value = String> {
    let format = prop::sample::select(vec!["{fy}-{SEQ:2}", "{fy}-{SEQ:3}"]);
    let reset = prop::sample::select(vec!["never", "fiscal"]);
    let start = prop::sample::select(vec!["01-01", "04-01", "11-20", "12-01", "12-31"]);
    (format, reset, start).prop_map(|(format, reset, start)| {
        format!(
            r#"{{"format":"{format}","reset":"{reset}","mode":"continuous","fiscal_year_start":"{start}"}}"#
        )
    })
}

fn step(body: impl Strategy<Value = String>, days: Range<u16>) -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => body.prop_map(Step::Put),
        1 => Just(Step::Delete),
        4 => (1_u8..4).prop_map(Step::Issue),
        4 => days.prop_map(Step::IssueOn),
        2 => (-90_i16..90).prop_map(Step::Clock),
        1 => Just(Step::Restart),
    ]
}

/// Takes the steps; answers the texts in their order and how many rules were accepted.
async fn play(steps: Vec<Step>) -> (Vec<String>, usize) {
    let mut desk = Desk::new();
    let (mut texts, mut accepted) = (Vec::new(), 0);
    for step in steps {
        let registered = desk.registry.get("K").is_some();
        match step {
            Step::Put(json) => match desk.put("K", &json).await {
                Ok(_) => accepted += 1,
                Err(SaveError::Store(error)) => panic!("{error}"),
                Err(_) => {}
            },
            Step::Delete if registered => desk.delete("K").await.expect("deleted"),
            Step::Issue(count) if registered => {
                for _ in 0..count {
                    texts.push(desk.issue("K").await);
                }
            }
            Step::IssueOn(day) if registered => {
                let day = date("2026-01-01") + chrono::Days::new(day.into());
                texts.push(desk.issue_at("K", Moment::Document(day)).await);
            }
            Step::Clock(days) => {
                let millis = i64::from(days) * 86_400_000;
                let now = desk.clock.now();
                desk.clock.step_to(UnixMillis(now.0 + millis));
            }
            Step::Restart => desk.registry = desk.another().await,
            Step::Delete | Step::Issue(_) | Step::IssueOn(_) => {}
        }
    }
    (texts, accepted)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(future)
}

fn is_unique(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (texts, _) = block_on(play(steps));
    let mut seen = HashSet::new();
    for (at, text) in texts.iter().enumerate() {
        prop_assert!(seen.insert(text), "number {} of {:?} came before", at + 1, texts);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_comes_back(steps in prop::collection::vec(step(body(), SOME_DAYS), 5..80)) {
        is_unique(steps)?;
    }
}

proptest! {
    // The latest date soon covers everything: short stories, and many.
    #![proptest_config(ProptestConfig { cases: 8_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_fiscal_year_comes_back(steps in prop::collection::vec(step(fiscal_body(), SOME_YEARS), 4..10)) {
        is_unique(steps)?;
    }
}

#[test]
fn the_property_is_not_empty() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut issued, mut accepted) = (0, 0);
    for _ in 0..50 {
        let steps = prop::collection::vec(step(body(), SOME_DAYS), 40)
            .new_tree(&mut runner)
            .expect("a tree")
            .current();
        let (texts, rules) = block_on(play(steps));
        issued += texts.len();
        accepted += rules;
    }
    assert!(issued > 500 && accepted > 150, "{issued} numbers under {accepted} rules");
}

#[tokio::test(start_paused = true)]
async fn waits_do_not_depend_on_real_time() {
    let started = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(started.elapsed() >= Duration::from_secs(60));
}
