//! POST, PUT, entity tags, modes and `initial_seq` that stay, formats that must not come back, warnings.

use std::time::Duration;

use super::*;
use crate::rules::{Reappearance, Warning};

#[tokio::test]
async fn post_registers_once() {
    let desk = Desk::new();
    let json = r#"{"format":"TEST-{SEQ:4}"}"#;
    assert_eq!(outcome(desk.post("TEST", json).await), "registered");
    assert_eq!(outcome(desk.post("TEST", json).await), "PrefixAlreadyExists");
    assert_eq!(outcome(desk.post("TEST", r#"{"format":"oops"}"#).await), "Missing {SEQ} tag");
    for expected in ["TEST-0001", "TEST-0002", "TEST-0003"] {
        assert_eq!(desk.issue("TEST").await, expected);
    }
}

#[tokio::test]
async fn initial_seq_is_below_the_first_value() {
    let desk = Desk::new();
    desk.post("A", r#"{"format":"A-{SEQ:4}","initial_seq":1000}"#).await.expect("saved");
    assert_eq!(desk.issue("A").await, "A-1001");
    desk.post("B", r#"{"format":"B-{SEQ:4}","initial_seq":1}"#).await.expect("saved");
    assert_eq!(
        [desk.issue("B").await, desk.issue("B").await, desk.issue("B").await],
        ["B-0002", "B-0003", "B-0004"]
    );
    desk.post("C", r#"{"format":"C-{SEQ:4}","initial_seq":"18446744073709551614"}"#).await.expect("saved");
    assert_eq!(desk.issue("C").await, "C-18446744073709551615");
}

#[tokio::test]
async fn put_says_what_it_did_and_changes_the_tag_only_then() {
    let desk = Desk::new();
    let four = r#"{"format":"T-{year}-{SEQ:4}"}"#;
    assert_eq!(outcome(desk.put("T", four).await), "registered");
    let first = desk.rule("T").etag();
    assert_eq!(outcome(desk.put("T", four).await), "unchanged");
    // A first number, and a number of a later date, are noted in the record; the tag is not about that.
    desk.issue("T").await;
    desk.issue_on("T", "2027-03-01").await;
    assert_eq!(outcome(desk.put("T", four).await), "unchanged");
    assert_eq!(desk.rule("T").etag(), first);
    assert_eq!(outcome(desk.put("T", r#"{"format":"T-{year}-{SEQ:5}"}"#).await), "updated");
    assert_ne!(desk.rule("T").etag(), first);
    assert_eq!(desk.issue("T").await, "T-2026-00003");
}

#[tokio::test]
async fn what_is_answered_can_be_sent_back() {
    for json in [
        r#"{"format":"A-{SEQ:19}"}"#,
        r#"{"format":"A-{SEQ:4}","mode":"snowflake"}"#,
        r#"{"format":"A-{SEQ}","seq_length":4,"initial_seq":7}"#,
        r#"{"format":"A-{fy}-{SEQ:4}","reset":"fiscal","fiscal_year_start":"04-01","timezone":"Europe/Berlin"}"#,
        r#"{"format":"A-{SEQ:4}","mode":"strict","overflow":"reject","max_seq":99}"#,
    ] {
        let desk = Desk::new();
        let saved = desk.put("A", json).await.expect(json);
        let answer = saved.rule.rule().to_json();
        assert_eq!(outcome(desk.put("A", &answer).await), "unchanged", "{answer}");
        desk.issue("A").await;
        assert_eq!(outcome(desk.put("A", &answer).await), "unchanged", "{answer}");
        let restarted = desk.another().await.get("A").expect("still there");
        assert_eq!(restarted.rule(), saved.rule.rule());
        assert_eq!(restarted.etag(), desk.rule("A").etag());
    }
}

#[tokio::test]
async fn if_match_guards_against_lost_updates() {
    let desk = Desk::new();
    assert_eq!(outcome(desk.put_if("A", r#"{"format":"A-{SEQ:4}"}"#, "*").await), "PreconditionFailed");
    desk.put("A", r#"{"format":"A-{SEQ:4}"}"#).await.expect("saved");
    let seen = desk.rule("A").etag();
    assert_eq!(outcome(desk.put_if("A", r#"{"format":"A-{SEQ:5}"}"#, &seen).await), "updated");
    assert_eq!(outcome(desk.put_if("A", r#"{"format":"A-{SEQ:6}"}"#, &seen).await), "PreconditionFailed");
    assert_eq!(outcome(desk.put_if("A", r#"{"format":"A-{SEQ:6}"}"#, "*").await), "updated");
    // Another process decides by the store, not by its cache.
    let elsewhere = desk.another().await;
    let seen = desk.rule("A").etag();
    desk.put("A", r#"{"format":"A-{SEQ:7}"}"#).await.expect("saved");
    let stale = IfMatch::parse(&seen);
    let late = elsewhere
        .put(&key("A"), &draft(r#"{"format":"A-{SEQ:8}"}"#), Some(&stale), &|_| true, &Author::program())
        .await;
    assert_eq!(outcome(late), "PreconditionFailed");
    let deleted = desk.registry.delete(&key("A"), Some(&stale), &Author::program()).await.expect_err("stale");
    assert_eq!(code(&deleted), "PreconditionFailed");
}

#[tokio::test]
async fn a_mode_stays_as_long_as_it_suits() {
    for (before, after, expected) in [
        // Continuous by its narrow format: stays.
        (r#"{"format":"A-{SEQ:4}"}"#, r#"{"format":"A-{SEQ:19}"}"#, Mode::Continuous),
        (r#"{"format":"A-{SEQ:4}","mode":"strict"}"#, r#"{"format":"A-{SEQ:19}"}"#, Mode::Strict),
        // A snowflake whose format becomes too narrow, or that is told where to start or when to reset, counts.
        (r#"{"format":"A-{SEQ:19}"}"#, r#"{"format":"A-{SEQ:4}"}"#, Mode::Continuous),
        (r#"{"format":"A-{SEQ:19}"}"#, r#"{"format":"A-{SEQ:19}","initial_seq":5}"#, Mode::Continuous),
        (
            r#"{"format":"A-{SEQ:19}"}"#,
            r#"{"format":"A-{year}-{SEQ:19}","reset":"yearly"}"#,
            Mode::Continuous,
        ),
        // A narrow snowflake was asked for.
        (r#"{"format":"A-{SEQ:4}","mode":"snowflake"}"#, r#"{"format":"A-{SEQ:5}"}"#, Mode::Snowflake),
        (r#"{"format":"A-{SEQ:19}"}"#, r#"{"format":"B-{SEQ:19}"}"#, Mode::Snowflake),
        (r#"{"format":"A-{SEQ:4}"}"#, r#"{"format":"A-{SEQ:4}","mode":"snowflake"}"#, Mode::Snowflake),
    ] {
        let desk = Desk::new();
        desk.put("A", before).await.expect(before);
        let saved = desk.put("A", after).await.expect(after);
        assert_eq!(saved.rule.rule().mode, expected, "{before} then {after}");
    }
}

#[tokio::test]
async fn initial_seq_stays_and_changes_only_before_the_first_number() {
    let desk = Desk::new();
    desk.put("A", r#"{"format":"A-{SEQ:4}","initial_seq":10}"#).await.expect("saved");
    desk.put("A", r#"{"format":"A-{SEQ:4}","initial_seq":5}"#).await.expect("down");
    desk.put("A", r#"{"format":"A-{SEQ:4}","initial_seq":20}"#).await.expect("up");
    assert_eq!(outcome(desk.put("A", r#"{"format":"A-{SEQ:5}"}"#).await), "updated");
    assert_eq!(desk.issue("A").await, "A-00021", "absent, it stayed");
    let error = desk.put("A", r#"{"format":"A-{SEQ:5}","initial_seq":30}"#).await.expect_err("late");
    assert_eq!(code(&error), "StateConflict");
    assert!(error.to_string().contains("/sequences/A/advance"), "{error}");
    assert_eq!(outcome(desk.put("A", r#"{"format":"A-{SEQ:5}","initial_seq":20}"#).await), "unchanged");
    // Not by way of another format, another mode or a deletion either.
    desk.put("A", r#"{"format":"B-{SEQ:19}","mode":"snowflake"}"#).await.expect("apart");
    desk.issue("A").await;
    assert_eq!(
        outcome(desk.put("A", r#"{"format":"C-{SEQ:4}","mode":"strict","initial_seq":30}"#).await),
        "StateConflict"
    );
    desk.delete("A").await.expect("deleted");
    assert_eq!(outcome(desk.post("A", r#"{"format":"A-{SEQ:5}","initial_seq":30}"#).await), "StateConflict");
    desk.post("A", r#"{"format":"A-{SEQ:5}"}"#).await.expect("as it was");
    assert_eq!(desk.issue("A").await, "A-00022");
}

#[tokio::test]
async fn an_advanced_counter_has_begun() {
    let desk = Desk::new();
    desk.put("A", r#"{"format":"A-{SEQ:4}"}"#).await.expect("saved");
    let counter = desk.rule("A").counter(date("2026-11-22"));
    let to = SequenceValue(500);
    desk.store.advance(counter, SequenceValue(0), to, "op".into(), desk.clock.now()).await.expect("advanced");
    assert_eq!(outcome(desk.put("A", r#"{"format":"A-{SEQ:4}","initial_seq":30}"#).await), "StateConflict");
    assert_eq!(desk.issue("A").await, "A-0501");
}

#[tokio::test]
async fn formats_that_can_bring_a_text_back_are_refused() {
    for (before, after, expected) in [
        // The same pieces: only the zero-fill differs.
        (r#"{"format":"A-{SEQ:4}"}"#, r#"{"format":"A-{SEQ:6}"}"#, "updated"),
        (r#"{"format":"A-{SEQ:6}"}"#, r#"{"format":"A-{SEQ:4}"}"#, "updated"),
        // Fixed text that differs.
        (r#"{"format":"A-{SEQ:4}"}"#, r#"{"format":"B-{SEQ:4}"}"#, "updated"),
        (r#"{"format":"A-{SEQ:4}"}"#, r#"{"format":"A-{SEQ:4}-X"}"#, "updated"),
        // 2026 and 0001 could have been counted as 20260001.
        (r#"{"format":"A-{SEQ:4}"}"#, r#"{"format":"A-{year}{SEQ:4}"}"#, "FormatConflict"),
        (r#"{"format":"A-{year}{SEQ:4}"}"#, r#"{"format":"A-{SEQ:8}"}"#, "FormatConflict"),
        (r#"{"format":"A-{SEQ:4}"}"#, r#"{"format":"A-{SEQ:4:hex}"}"#, "FormatConflict"),
        (r#"{"format":"{year}-{SEQ:4}"}"#, r#"{"format":"{isoyear}-{SEQ:4}"}"#, "FormatConflict"),
        // {prefix} is fixed text.
        (r#"{"format":"{prefix}-{SEQ:4}"}"#, r#"{"format":"A-{SEQ:4:hex}"}"#, "FormatConflict"),
        // Values of another kind under the same texts.
        (r#"{"format":"A-{SEQ:19}"}"#, r#"{"format":"A-{SEQ:19}","mode":"continuous"}"#, "FormatConflict"),
        (r#"{"format":"A-{SEQ:4}"}"#, r#"{"format":"A-{SEQ:4}","mode":"snowflake"}"#, "FormatConflict"),
        (r#"{"format":"A-{SEQ:4}"}"#, r#"{"format":"B-{SEQ:4}","mode":"snowflake"}"#, "updated"),
        // The counter goes on.
        (r#"{"format":"A-{SEQ:4}"}"#, r#"{"format":"A-{SEQ:4}","mode":"strict"}"#, "updated"),
        (r#"{"format":"A-{SEQ:19}"}"#, r#"{"format":"A-{SEQ:20}"}"#, "updated"),
    ] {
        let desk = Desk::new();
        desk.put("A", before).await.expect(before);
        assert_ne!(
            outcome(desk.put("A", after).await),
            "FormatConflict",
            "{before} then {after}: nothing issued"
        );
        let desk = Desk::new();
        desk.put("A", before).await.expect(before);
        desk.issue("A").await;
        let preview = desk.registry.preview(&with_key(after), &|_| true).await;
        assert_eq!(preview.is_ok(), expected == "updated", "{before} then {after}: previewed");
        assert_eq!(outcome(desk.put("A", after).await), expected, "{before} then {after}");
    }
}

fn with_key(json: &str) -> RuleDraft {
    RuleDraft { prefix_key: Some(key("A")), ..draft(json) }
}

#[tokio::test]
async fn a_conflict_gives_an_example_and_a_reason() {
    let desk = Desk::new();
    desk.put("A", r#"{"format":"A-{SEQ:4}"}"#).await.expect("saved");
    desk.issue("A").await;
    match desk.put("A", r#"{"format":"A-{year}{SEQ:4}"}"#).await {
        Err(SaveError::FormatConflict { earlier, example, reason: Reappearance::Text }) => {
            assert_eq!(earlier, "A-{SEQ:4}");
            assert!(example.starts_with("A-") && example.len() == "A-20260001".len(), "{example}");
        }
        other => panic!("{other:?}"),
    }
    match desk.put("A", r#"{"format":"A-{SEQ:4}","mode":"snowflake"}"#).await {
        Err(SaveError::FormatConflict { reason: Reappearance::Values, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(desk.issue("A").await, "A-0002", "the old rule stayed in force");
}

#[tokio::test]
async fn every_earlier_format_counts_not_only_the_last() {
    let desk = Desk::new();
    for format in ["A-{SEQ:4}", "B-{SEQ:4}", "C-{SEQ:4}"] {
        desk.put("K", &format!(r#"{{"format":"{format}"}}"#)).await.expect(format);
        desk.issue("K").await;
    }
    assert_eq!(outcome(desk.put("K", r#"{"format":"A-{year}{SEQ:4}"}"#).await), "FormatConflict");
    assert_eq!(outcome(desk.put("K", r#"{"format":"A-{SEQ:5}"}"#).await), "updated");
    assert_eq!(desk.issue("K").await, "A-00004");
}

#[tokio::test]
async fn rules_that_can_meet_are_warned_about() {
    let desk = Desk::new();
    desk.put("A", r#"{"format":"ORD-{SEQ:4}"}"#).await.expect("saved");
    desk.put("B", r#"{"format":"INV-{SEQ:4}"}"#).await.expect("saved");
    desk.put("C", r#"{"format":"{SEQ:4}"}"#).await.expect("saved");
    desk.put("D", r#"{"format":"{prefix}RD-{SEQ:4}"}"#).await.expect("saved");
    let saved = desk.put("O", r#"{"format":"{prefix}RD-{year}{SEQ:4}"}"#).await.expect("saved");
    match saved.warnings.as_slice() {
        [Warning::SharedText { other: Some(other), example }] => {
            assert_eq!(other.as_str(), "A");
            assert!(example.starts_with("ORD-20"), "{example}");
        }
        other => panic!("{other:?}"),
    }
    // The caller learns that there is one, not which.
    let body = draft(r#"{"format":"INV-{SEQ:6}"}"#);
    let saved = desk
        .registry
        .put(&key("E"), &body, None, &|other| other.as_str() != "B", &Author::program())
        .await
        .expect("saved");
    match saved.warnings.as_slice() {
        [warning @ Warning::SharedText { other: None, .. }] => {
            assert!(!warning.localized(Language::Chinese).contains('B'));
        }
        other => panic!("{other:?}"),
    }
    // A rule does not collide with itself.
    let saved = desk.put("C", r#"{"format":"{SEQ:5}"}"#).await.expect("saved");
    assert_eq!(saved.warnings, []);
}

#[tokio::test]
async fn a_rule_that_can_never_issue_is_warned_about() {
    let desk = Desk::new();
    for json in [
        r#"{"format":"A-{SEQ:4}","overflow":"reject","initial_seq":9999}"#,
        r#"{"format":"B-{SEQ:4}","overflow":"reject","mode":"snowflake"}"#,
        r#"{"format":"B-{SEQ:6}","max_seq":100,"mode":"snowflake"}"#,
        r#"{"format":"B-{SEQ:19}","max_seq":100,"overflow":"reject"}"#,
    ] {
        assert_eq!(desk.put("A", json).await.expect(json).warnings, [Warning::NothingFits]);
    }
}

#[tokio::test]
async fn a_snowflake_that_fits_for_now_is_not_said_to_be_refused() {
    let desk = Desk::new();
    // 10^18 - 1 has the timestamp 238,418,579,101 ms, after the epoch.
    let until = Warning::FitsUntil(EPOCH.plus(Duration::from_millis(238_418_579_101)));
    assert!(until.localized(Language::English).contains(" 2031-07-22T"), "{until:?}");
    for (format, warnings) in
        [("A-{SEQ:18}", vec![until]), ("A-{SEQ:19}", vec![]), ("A-{SEQ:16:hex}", vec![])]
    {
        let json = format!(r#"{{"format":"{format}","overflow":"reject","mode":"snowflake"}}"#);
        assert_eq!(desk.put("A", &json).await.expect("saved").warnings, warnings, "{format}");
    }
    // A limit of the rule is one just as well.
    let until = Warning::FitsUntil(EPOCH.plus(Duration::from_millis(238_418_579_101)));
    let json = r#"{"format":"A-{SEQ:19}","max_seq":999999999999999999}"#;
    assert_eq!(desk.put("A", json).await.expect("saved").warnings, [until]);
    // The same in a time when that is over.
    let later =
        ManualClock::at("2031-08-01T00:00:00Z".parse::<DateTime<chrono::Utc>>().expect("a moment").into());
    let register = registry(&desk.store, &Arc::new(later), SETTINGS);
    let draft = draft(r#"{"format":"B-{SEQ:18}","overflow":"reject","mode":"snowflake"}"#);
    let saved = register.put(&key("B"), &draft, None, &|_| true, &Author::program()).await.expect("saved");
    assert_eq!(saved.warnings, [Warning::NothingFits]);
}

#[tokio::test]
async fn a_preview_stores_nothing() {
    let desk = Desk::new();
    desk.put("A", r#"{"format":"ORD-{SEQ:4}"}"#).await.expect("saved");
    let preview =
        desk.registry.preview(&draft(r#"{"format":"ORD-{SEQ:6}"}"#), &|_| true).await.expect("fine");
    assert_eq!(preview.rule.rule().mode, Mode::Continuous);
    assert_eq!(preview.warnings.len(), 1);
    let error =
        desk.registry.preview(&draft(r#"{"format":"INV-2024"}"#), &|_| true).await.expect_err("wrong");
    assert_eq!(code(&error), "Missing {SEQ} tag");
    assert_eq!(desk.registry.list(None, 10, |_| true).rules.len(), 1);
}

#[tokio::test]
async fn only_a_rule_in_use_is_usable_at_once() {
    let desk = Desk::new();
    desk.put("A", r#"{"format":"A-{year}-{SEQ:4}"}"#).await.expect("saved");
    let rule = desk.rule("A");
    assert!(desk.registry.use_at_once(&rule, desk.now()).is_none(), "not marked as used");
    desk.issue("A").await;
    let rule = desk.rule("A");
    assert!(desk.registry.use_at_once(&rule, desk.now()).is_some());
    let later = Moment::Document(date("2026-11-23"));
    assert!(desk.registry.use_at_once(&rule, later).is_none(), "a later date is not noted");
    desk.put("A", r#"{"format":"A-{year}-{SEQ:5}"}"#).await.expect("saved");
    assert!(desk.registry.use_at_once(&rule, desk.now()).is_none(), "replaced");
}
