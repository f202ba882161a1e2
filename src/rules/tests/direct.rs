//! What operators write past the program, and a register that is shared, lost and followed.

use std::time::Duration;

use super::*;
use crate::{
    rules::{Follower, Footing},
    store::{CopiedRules, RuleCopies, RuleStore, memory::Away},
};

/// Another process: its own register and copy over the desk's store.
struct Node {
    registry: Arc<Registry>,
    copy: Arc<MemoryStore>,
    follower: Follower,
}

impl Node {
    async fn start(desk: &Desk) -> Self {
        let copy = Arc::new(MemoryStore::new(desk.clock.clone(), UnixMillis(0)));
        Self::start_with(desk, copy).await
    }

    async fn start_with(desk: &Desk, copy: Arc<MemoryStore>) -> Self {
        let rules = Arc::new(CopiedRules::new(desk.store.clone(), copy.clone()));
        let registry = Registry::new(rules, desk.store.clone(), desk.clock.clone(), SETTINGS);
        let registry = Arc::new(registry);
        let follower =
            Follower::start(registry.clone(), desk.store.clone(), copy.clone(), desk.clock.clone()).await;
        Self { registry, copy, follower: follower.expect("started") }
    }

    async fn catch_up(&mut self) {
        self.follower.catch_up().await.expect("caught up");
    }

    fn format(&self, prefix: &str) -> Option<String> {
        Some(self.registry.get(prefix)?.rule().format.clone())
    }

    fn refused(&self) -> Vec<String> {
        self.registry.refusals().into_iter().map(|(name, _)| name).collect()
    }
}

#[tokio::test]
async fn a_direct_write_is_adopted_by_one_and_followed_by_all() {
    let desk = Desk::new();
    let (mut one, mut two) = (Node::start(&desk).await, Node::start(&desk).await);
    desk.store.write_directly(&key("A"), Some(r#"{"format":"A-{SEQ:4}","initial_seq":41}"#));
    let (first, second) = tokio::join!(one.follower.catch_up(), two.follower.catch_up());
    first.and(second).expect("caught up");
    one.catch_up().await;
    two.catch_up().await;
    let record = desk.store.rule(&key("A")).await.expect("read").expect("adopted");
    assert_eq!((record.revision, one.registry.get("A").expect("there").revision()), (1, 1), "adopted once");
    assert_eq!(two.format("A").as_deref(), Some("A-{SEQ:4}"));
    desk.registry.load().await.expect("loads");
    assert_eq!(desk.issue("A").await, "A-0042");
}

#[tokio::test]
async fn a_direct_write_closes_the_era_before_it() {
    let desk = Desk::new();
    let mut node = Node::start(&desk).await;
    desk.put("A", r#"{"format":"A-{SEQ:4}"}"#).await.expect("saved");
    desk.issue("A").await;
    desk.store.write_directly(&key("A"), Some(r#"{"format":"A2-{SEQ:4}"}"#));
    node.catch_up().await;
    assert_eq!(node.format("A").as_deref(), Some("A2-{SEQ:4}"));
    let back = node
        .registry
        .put(&key("A"), &draft(r#"{"format":"A-0{SEQ:3}"}"#), None, &|_| true, &Author::program())
        .await;
    assert_eq!(outcome(back), "FormatConflict", "what was issued before the direct write is remembered");
}

#[tokio::test]
async fn what_is_no_rule_is_refused_without_failing_others() {
    let desk = Desk::with(Settings { strict: Some("NUMGEN_DATABASE_URL"), ..SETTINGS });
    desk.put("A", r#"{"format":"A-{SEQ:4}","initial_seq":7}"#).await.expect("saved");
    desk.issue("A").await;
    for (wrong, reason) in [
        ("{not json", "not valid JSON"),
        (r#"{"format":"A-{SEQ:4}","colour":"red"}"#, "colour"),
        (r#"{"format":"A-0{SEQ:3}"}"#, "could come back"),
        (r#"{"format":"A-{SEQ:4}","initial_seq":9}"#, "initial_seq can no longer change"),
        (r#"{"format":"A-{SEQ:4}","mode":"strict"}"#, "NUMGEN_DATABASE_URL"),
        (r#"{"format":"A-{SEQ:4}","prefix_key":"B"}"#, "does not match"),
    ] {
        desk.store.write_directly(&key("A"), Some(wrong));
        desk.store.write_directly(&key("B"), Some(r#"{"format":"B-{SEQ:4}"}"#));
        let copy = Arc::new(MemoryStore::new(desk.clock.clone(), UnixMillis(0)));
        let follower =
            Follower::start(desk.registry.clone(), desk.store.clone(), copy, desk.clock.clone()).await;
        follower.expect("started").catch_up().await.expect("caught up");
        let refusals = desk.registry.refusals();
        let [(name, why)] = &refusals[..] else { panic!("{wrong}: {refusals:?}") };
        assert!(name == "A" && why.contains(reason) && !why.contains('9'), "{wrong}: {why}");
        assert_eq!(desk.rule("A").rule().format, "A-{SEQ:4}", "{wrong}");
        assert!(desk.registry.get("B").is_some(), "others are not held up");
    }
    // The API still works on the key, and puts an end to it.
    desk.put("A", r#"{"format":"A-{SEQ:5}"}"#).await.expect("saved");
    assert_eq!(desk.store.direct_write(&key("A")).await.expect("read"), None);
    assert_eq!(desk.issue("A").await, "A-00009");
}

#[tokio::test]
async fn a_refused_write_that_is_taken_back_is_forgotten() {
    let desk = Desk::new();
    let mut node = Node::start(&desk).await;
    desk.store.write_directly(&key("A"), Some("nonsense"));
    node.catch_up().await;
    assert_eq!(node.refused(), ["A"]);
    desk.store.write_directly(&key("A"), Some(r#"{"format":"A-{SEQ:4}"}"#));
    node.catch_up().await;
    assert_eq!(node.refused(), [""; 0]);
}

#[tokio::test]
async fn the_api_takes_a_direct_write_into_account_before_anybody_followed_it() {
    let desk = Desk::new();
    desk.store.write_directly(&key("A"), Some(r#"{"format":"A-{SEQ:4}"}"#));
    let late = desk.post("A", r#"{"format":"B-{SEQ:4}"}"#).await;
    assert_eq!(outcome(late), "PrefixAlreadyExists");
    desk.issue("A").await;
    desk.store.write_directly(&key("A"), None);
    let gone = desk.delete("A").await.expect_err("the operator was faster");
    assert_eq!(code(&gone), "PrefixNotRegistered");
    assert_eq!(
        outcome(desk.post("A", r#"{"format":"A-0{SEQ:3}"}"#).await),
        "FormatConflict",
        "its era stays"
    );
}

#[tokio::test]
async fn a_first_use_passes_what_waits_beside_the_rule() {
    let desk = Desk::new();
    let mut node = Node::start(&desk).await;
    desk.put("A", &daily("A")).await.expect("saved");
    desk.issue("A").await;
    // Another scheme: its first use has a floor to settle.
    desk.put("A", &daily("A").replace("daily", "monthly")).await.expect("saved");
    node.catch_up().await;
    let later = daily("B");
    for (write, day) in
        [(Some("nonsense"), "2026-11-22"), (Some(later.as_str()), "2026-11-23"), (None, "2026-11-24")]
    {
        desk.store.write_directly(&key("A"), write);
        let rule = node.registry.get("A").expect("in force");
        let usable = node.registry.ensure_used(rule, Moment::Document(date(day))).await.expect(day);
        drop(usable);
        let record = desk.store.rule(&key("A")).await.expect("read").expect("there");
        assert!(record.used && record.history.contains(day), "{day}: {}", record.history);
        let copy = node.copy.load_copy().await.expect("read").expect("there");
        assert_eq!(copy.records, [record], "{day}: a loss of the store must not lose it");
        let waiting = desk.store.direct_write(&key("A")).await.expect("read").expect("it waits");
        assert_eq!(waiting.text.as_deref(), write);
        node.catch_up().await;
    }
    assert_eq!((node.format("A"), node.refused()), (None, vec![]), "adopted, and taken out");
    for era in ["A", "B"] {
        let back = desk.post("A", &daily(era).replace("{SEQ:4}", "0{SEQ:3}")).await;
        assert_eq!(outcome(back), "FormatConflict", "what was issued under {era} meanwhile is remembered");
    }
}

fn daily(prefix: &str) -> String {
    format!(r#"{{"format":"{prefix}-{{year}}{{month}}{{day}}-{{SEQ:4}}","reset":"daily"}}"#)
}

#[tokio::test]
async fn another_spelling_of_the_same_rule_keeps_it_used() {
    let desk = Desk::new();
    let mut node = Node::start(&desk).await;
    desk.put("A", r#"{"format":"A-{SEQ:4}"}"#).await.expect("saved");
    desk.issue("A").await;
    let tag = desk.rule("A").etag();
    desk.store.write_directly(&key("A"), Some(r#"{ "format": "A-{SEQ:4}" }"#));
    node.catch_up().await;
    let record = desk.store.rule(&key("A")).await.expect("read").expect("there");
    assert!(record.used && node.registry.get("A").expect("there").etag() == tag);
}

#[tokio::test]
async fn a_new_node_follows_from_the_beginning_and_then_only_what_is_new() {
    let desk = Desk::new();
    for number in 0..10 {
        desk.put(&format!("A{number}"), r#"{"format":"A-{SEQ:4}"}"#).await.expect("saved");
    }
    let mut node = Node::start(&desk).await;
    assert_eq!(node.follower.following().footing(), Footing::Nothing);
    node.catch_up().await;
    assert_eq!(node.follower.following().footing(), Footing::Register);
    assert_eq!(node.registry.list(None, 100, |_| true).rules.len(), 10);
    desk.delete("A3").await.expect("deleted");
    node.catch_up().await;
    assert!(node.registry.get("A3").is_none());
    assert_eq!(node.copy.load_copy().await.expect("read").expect("there").records.len(), 10);
}

#[tokio::test]
async fn a_node_starts_from_its_copy_while_the_register_is_away_and_catches_up() {
    let desk = Desk::new();
    desk.put("A", r#"{"format":"A-{SEQ:4}"}"#).await.expect("saved");
    let mut node = Node::start(&desk).await;
    node.catch_up().await;
    let saved_at = desk.clock.now();
    desk.clock.advance(Duration::from_secs(60));
    desk.store.set_away(Away::Yes);
    let mut again = Node::start_with(&desk, node.copy.clone()).await;
    again.follower.catch_up().await.expect_err("away");
    assert_eq!(again.follower.following().footing(), Footing::Copy(saved_at));
    assert_eq!(again.format("A").as_deref(), Some("A-{SEQ:4}"));
    desk.store.set_away(Away::No);
    desk.put("A", r#"{"format":"A2-{SEQ:4}"}"#).await.expect("saved");
    again.catch_up().await;
    assert_eq!(again.follower.following().footing(), Footing::Register);
    assert_eq!(again.format("A").as_deref(), Some("A2-{SEQ:4}"));
}

#[tokio::test]
async fn an_emptied_register_gets_its_rules_back_with_their_past() {
    let desk = Desk::new();
    for number in 0..5 {
        let format = format!(r#"{{"format":"A{number}-{{SEQ:4}}"}}"#);
        desk.put(&format!("A{number}"), &format).await.expect("saved");
    }
    desk.issue("A0").await;
    desk.put("A0", r#"{"format":"B-{SEQ:4}"}"#).await.expect("changed");
    desk.delete("A1").await.expect("deleted");
    let (mut one, mut two) = (Node::start(&desk).await, Node::start(&desk).await);
    one.catch_up().await;
    two.catch_up().await;
    // One has not heard of the last change.
    desk.put("A2", r#"{"format":"C-{SEQ:4}"}"#).await.expect("changed");
    two.catch_up().await;
    let before = desk.store.load_rules().await.expect("read");

    desk.store.forget_rules();
    one.catch_up().await;
    two.catch_up().await;
    one.catch_up().await;
    assert_eq!(desk.store.load_rules().await.expect("read"), before, "the latest that anybody knew");
    assert_eq!((one.format("A2").as_deref(), one.format("A1")), (Some("C-{SEQ:4}"), None));
    let back = one
        .registry
        .put(&key("A0"), &draft(r#"{"format":"A0-0{SEQ:3}"}"#), None, &|_| true, &Author::program())
        .await;
    assert_eq!(outcome(back), "FormatConflict", "eras came back too");
}

#[tokio::test]
async fn what_a_node_changed_survives_a_loss_before_it_was_followed() {
    let desk = Desk::new();
    let mut node = Node::start(&desk).await;
    node.catch_up().await;
    let saved = node
        .registry
        .put(&key("A"), &draft(r#"{"format":"A-{SEQ:4}"}"#), None, &|_| true, &Author::program())
        .await;
    let rule = saved.expect("saved").rule;
    drop(node.registry.ensure_used(rule, desk.now()).await.expect("usable"));
    let before = desk.store.rule(&key("A")).await.expect("read");
    desk.store.forget_rules();
    node.catch_up().await;
    assert_eq!(desk.store.rule(&key("A")).await.expect("read"), before);
    assert!(before.is_some_and(|record| record.used));
}

#[tokio::test]
async fn a_rule_that_another_process_uses_can_be_used_while_the_store_is_away() {
    let desk = Desk::new();
    desk.post("A", r#"{"format":"A-{SEQ:19}"}"#).await.expect("saved");
    let mut other = Node::start(&desk).await;
    other.catch_up().await;
    desk.issue("A").await;
    other.catch_up().await;
    desk.store.set_away(Away::Yes);
    let rule = other.registry.get("A").expect("there");
    other.registry.ensure_used(rule, desk.now()).await.expect("nobody need be asked");
}
