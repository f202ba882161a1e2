//! What a deletion leaves behind, and what an operator wrote by hand.

use super::*;
use crate::store::{RuleRecord, RuleStore};

#[tokio::test]
async fn counters_outlive_their_rule() {
    let desk = Desk::new();
    let json = r#"{"format":"A-{SEQ:4}"}"#;
    desk.post("A", json).await.expect("saved");
    desk.issue("A").await;
    let held = desk.rule("A");
    desk.delete("A").await.expect("deleted");
    assert!(desk.registry.get("A").is_none());
    assert!(desk.another().await.get("A").is_none());
    assert_eq!(code(&desk.delete("A").await.expect_err("gone")), "PrefixNotRegistered");
    match desk.registry.ensure_used(held, desk.now()).await {
        Err(UseError::NotRegistered(gone)) => assert_eq!(gone, key("A")),
        other => panic!("{other:?}"),
    }
    assert_eq!(outcome(desk.post("A", json).await), "registered");
    assert_eq!(desk.issue("A").await, "A-0002");
}

#[tokio::test]
async fn eras_outlive_their_rule() {
    let desk = Desk::new();
    desk.post("A", r#"{"format":"A-{SEQ:4}"}"#).await.expect("saved");
    desk.issue("A").await;
    desk.delete("A").await.expect("deleted");
    assert_eq!(outcome(desk.post("A", r#"{"format":"A-{year}{SEQ:4}"}"#).await), "FormatConflict");
    assert_eq!(
        outcome(desk.post("A", r#"{"format":"A-{SEQ:4}","mode":"snowflake"}"#).await),
        "FormatConflict"
    );
    // Nothing was issued under this one, so it leaves nothing.
    desk.post("A", r#"{"format":"B-{SEQ:4}"}"#).await.expect("saved");
    desk.delete("A").await.expect("deleted");
    assert_eq!(outcome(desk.post("A", r#"{"format":"B-{year}{SEQ:4}"}"#).await), "registered");
}

#[tokio::test]
async fn the_tag_of_a_new_registration_is_new() {
    let desk = Desk::new();
    let json = r#"{"format":"A-{SEQ:4}"}"#;
    desk.post("A", json).await.expect("saved");
    let before = desk.rule("A").etag();
    desk.delete("A").await.expect("deleted");
    desk.post("A", json).await.expect("saved");
    assert_ne!(desk.rule("A").etag(), before);
}

fn written(prefix: &str, rule: &str) -> RuleRecord {
    RuleRecord { key: key(prefix), revision: 1, rule: Some(rule.into()), history: String::new(), used: false }
}

#[tokio::test]
async fn documents_written_by_hand_are_drafts_and_bad_ones_harm_nobody() {
    let desk = Desk::new();
    for (prefix, rule) in [
        ("GOOD", r#"{"format":"G-{SEQ}","seqLength":4}"#),
        ("JSON", r#"{"format":"#),
        ("FIELD", r#"{"fromat":"F-{SEQ:4}","format":"F-{SEQ:4}"}"#),
        ("FORMAT", r#"{"format":"INV-2024"}"#),
        ("VALUE", r#"{"format":"V-{SEQ:4}","initial_seq":-777}"#),
    ] {
        desk.store.swap_rule(None, written(prefix, rule)).await.expect("written");
    }
    let loaded = desk.registry.load().await.expect("loads");
    assert_eq!(loaded.rules, 1);
    let refused: Vec<_> = loaded.refused.iter().map(|refused| refused.key.as_str()).collect();
    assert_eq!(refused, ["FIELD", "FORMAT", "JSON", "VALUE"]);
    for refused in &loaded.refused {
        let text = refused.error.to_string();
        assert!(text.contains(refused.key.as_str()) && !text.contains("777"), "{text}");
    }
    assert_eq!(desk.issue("GOOD").await, "G-0001");
}

#[tokio::test]
async fn a_bad_change_leaves_the_old_rule_in_force() {
    let desk = Desk::new();
    desk.post("A", r#"{"format":"A-{SEQ:4}"}"#).await.expect("saved");
    let record = desk.store.rule(&key("A")).await.expect("read").expect("there");
    let bad = RuleRecord { revision: 2, rule: Some("{}".into()), ..record.clone() };
    desk.store.swap_rule(Some(record), bad).await.expect("written");
    assert_eq!(desk.registry.load().await.expect("loads").refused.len(), 1);
    assert_eq!(desk.rule("A").rule().format, "A-{SEQ:4}");
}

#[tokio::test]
async fn a_history_from_the_future_is_not_ignored() {
    let desk = Desk::new();
    let record = RuleRecord {
        history: r#"{"edition":1,"wisdom":2}"#.into(),
        ..written("A", r#"{"format":"A-{SEQ:4}"}"#)
    };
    desk.store.swap_rule(None, record).await.expect("written");
    assert_eq!(desk.registry.load().await.expect("loads").refused.len(), 1);
    assert_eq!(outcome(desk.put("A", r#"{"format":"A-{SEQ:4}"}"#).await), "Store");
}
