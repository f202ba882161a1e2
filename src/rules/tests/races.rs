//! Several writers, and requests that are under way while a rule changes.

use std::{collections::HashSet, time::Duration};

use tokio::task::JoinSet;

use super::*;
use crate::store::{RuleStore, SharedRules, Swap};

const MONTHLY: &str = r#"{"format":"{year}{month}{day}-{SEQ:4}","reset":"monthly"}"#;
const NEVER: &str = r#"{"format":"{year}{month}{day}-{SEQ:4}","reset":"never"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_registrations_wins() {
    let desk = Desk::new();
    let mut tasks = JoinSet::new();
    for number in 0..16 {
        // Half of them in another process.
        let registry = if number % 2 == 0 { desk.registry.clone() } else { desk.another().await };
        let body = draft(&format!(r#"{{"format":"A{number}-{{SEQ:4}}"}}"#));
        tasks.spawn(async move {
            outcome(registry.register(&key("A"), &body, &|_| true, &Author::program()).await)
        });
    }
    let mut outcomes = tasks.join_all().await;
    outcomes.sort_unstable();
    let (registered, refused): (Vec<&str>, Vec<&str>) =
        outcomes.iter().copied().partition(|one| *one == "registered");
    assert_eq!(registered.len(), 1, "{outcomes:?}");
    assert!(refused.iter().all(|one| *one == "PrefixAlreadyExists"), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guarded_updates_are_never_lost() {
    let desk = Desk::new();
    desk.put("A", r#"{"format":"A-{SEQ:4}","max_seq":1000}"#).await.expect("saved");
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let registry = if number % 2 == 0 { desk.registry.clone() } else { desk.another().await };
        tasks.spawn(async move {
            // Each adds one to the limit, ten times: read, modify, write if nobody was faster.
            for _ in 0..10 {
                loop {
                    registry.load().await.expect("loads");
                    let seen = registry.get("A").expect("there");
                    let raised = seen.rule().max_seq.0 + 1;
                    let body = draft(&format!(r#"{{"format":"A-{{SEQ:4}}","max_seq":{raised}}}"#));
                    let guard = IfMatch::parse(&seen.etag());
                    match registry.put(&key("A"), &body, Some(&guard), &|_| true, &Author::program()).await {
                        Ok(_) => break,
                        Err(SaveError::PreconditionFailed(_)) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(desk.another().await.get("A").expect("there").rule().max_seq.0, 1080);
}

#[tokio::test]
async fn a_number_under_way_moves_the_request_to_the_new_rule() {
    let desk = Desk::new();
    desk.put("A", r#"{"format":"A-{SEQ:4}"}"#).await.expect("saved");
    let seen = desk.rule("A");
    // Nothing was issued yet, so the format is free to change.
    desk.put("A", r#"{"format":"A-{year}{SEQ:4}"}"#).await.expect("changed");
    let usable = desk.registry.ensure_used(seen, desk.now()).await.expect("usable");
    assert_eq!(desk.draw(&usable).await, "A-20260001");
}

#[tokio::test]
async fn a_rule_that_another_process_replaced_is_not_used_first() {
    let desk = Desk::new();
    desk.put("A", r#"{"format":"A-{SEQ:4}"}"#).await.expect("saved");
    let elsewhere = desk.another().await;
    elsewhere
        .put(&key("A"), &draft(r#"{"format":"A-{year}{SEQ:4}"}"#), None, &|_| true, &Author::program())
        .await
        .expect("changed");
    assert_eq!(desk.issue("A").await, "A-20260001", "this process had not heard of it");
    let again = elsewhere
        .put(&key("A"), &draft(r#"{"format":"A-{SEQ:4}"}"#), None, &|_| true, &Author::program())
        .await;
    assert_eq!(outcome(again), "FormatConflict");
}

#[tokio::test(start_paused = true)]
async fn a_first_use_waits_for_a_store_that_is_told_what_it_forgot() {
    let desk = Desk::new();
    desk.put("A", MONTHLY).await.expect("saved");
    let forgetful = desk.store.load_rules().await.expect("read");
    desk.issue("A").await;
    let known = desk.store.load_rules().await.expect("read");
    desk.store.forget_rules();
    desk.store
        .restore(forgetful.iter().map(|record| (None, record.clone())).collect())
        .await
        .expect("set back");
    let told = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let pairs = forgetful.iter().cloned().map(Some).zip(known).collect();
        assert_eq!(desk.store.restore(pairs).await.expect("told"), [Swap::Done]);
    };
    let (number, ()) = tokio::join!(desk.issue_on("A", "2026-11-23"), told);
    assert_eq!(number, "20261123-0002");
}

#[tokio::test(start_paused = true)]
async fn the_floor_waits_for_numbers_under_way() {
    let desk = Desk::new();
    desk.put("A", MONTHLY).await.expect("saved");
    let under_way = desk.enter("A", desk.now()).await.expect("usable");
    desk.put("A", NEVER).await.expect("changed");
    let waiting = desk.issue("A");
    tokio::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_secs(3), &mut waiting).await;
    assert!(early.is_err(), "the floor is not known yet");
    assert_eq!(desk.draw(&under_way).await, "20261122-0001");
    drop(under_way);
    assert_eq!(waiting.await, "20261122-0002");
}

#[tokio::test(start_paused = true)]
async fn a_number_that_is_under_way_for_ever_does_not_hold_up_the_answer() {
    let desk = Desk::new();
    desk.put("A", MONTHLY).await.expect("saved");
    let stuck = desk.enter("A", desk.now()).await.expect("usable");
    desk.put("A", NEVER).await.expect("changed");
    match desk.enter("A", desk.now()).await {
        Err(UseError::Store(crate::store::StoreError::Timeout { .. })) => {}
        other => panic!("{other:?}"),
    }
    drop(stuck);
    assert_eq!(desk.issue("A").await, "20261122-0001");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_its_turn_does_not_block_the_floor() {
    let desk = Desk::new();
    desk.put("A", NEVER).await.expect("saved");
    desk.issue("A").await;
    let old = desk.rule("A");
    desk.put("A", MONTHLY).await.expect("changed");
    // Both hold the old rule; neither has entered it.
    let later = Moment::Document(date("2027-01-01"));
    let (one, other) = tokio::join!(
        desk.registry.ensure_used(old.clone(), later),
        desk.registry.ensure_used(old, desk.now()),
    );
    assert_eq!(desk.draw(&one.expect("usable")).await, "20270101-0001");
    assert_eq!(desk.draw(&other.expect("usable")).await, "20261122-0002");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_number_repeats_while_the_reset_changes_under_load() {
    let desk = Arc::new(Desk::new());
    desk.put("A", MONTHLY).await.expect("saved");
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let desk = desk.clone();
        tasks.spawn(async move {
            let mut texts = Vec::new();
            for _ in 0..1500 {
                texts.push(desk.issue("A").await);
                tokio::task::yield_now().await;
            }
            texts
        });
    }
    for turn in 0..40 {
        desk.put("A", if turn % 2 == 0 { NEVER } else { MONTHLY }).await.expect("changed");
        tokio::task::yield_now().await;
    }
    let texts: Vec<_> = tasks.join_all().await.concat();
    let distinct: HashSet<_> = texts.iter().collect();
    assert_eq!(distinct.len(), 6000, "{} texts came twice", texts.len() - distinct.len());
}

#[tokio::test]
async fn a_process_that_has_not_heard_of_a_change_draws_nothing_from_retired_counters() {
    let desk = Desk::new();
    desk.put("A", MONTHLY).await.expect("saved");
    assert_eq!(desk.issue("A").await, "20261122-0001");
    // A later date is on record, though no number of it was drawn: its counter does not exist.
    let late = desk.enter("A", Moment::Document(date("2027-01-05"))).await.expect("usable");
    drop(late);
    let elsewhere = desk.another().await;
    let enter = |day| elsewhere.ensure_used(elsewhere.get("A").expect("there"), Moment::Document(date(day)));
    let (begun, unborn) =
        (enter("2026-11-22").await.expect("usable"), enter("2026-12-24").await.expect("usable"));

    desk.put("A", NEVER).await.expect("changed");
    assert_eq!(desk.issue("A").await, "20261122-0002", "above everything");
    // Paused since before the change, and sent now.
    for usable in [begun, unborn] {
        let one = vec![TakeRequest { count: 1, claim: None }];
        match desk.store.take(usable.counter(), usable.bounds(), one).await {
            Err(crate::store::StoreError::Superseded { .. }) => {}
            other => panic!("{}: {other:?}", usable.counter()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_number_repeats_while_the_reset_changes_in_another_process() {
    let desk = Arc::new(Desk::new());
    desk.put("A", MONTHLY).await.expect("saved");
    let (drawn, turns) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let (desk, registry) = (desk.clone(), desk.another().await);
        let (drawn, turns) = (drawn.clone(), turns.clone());
        tasks.spawn(async move {
            let mut texts = Vec::new();
            while turns.load(Ordering::SeqCst) < 20 {
                let rule = registry.get("A").expect("there");
                let usable = registry.ensure_used(rule, desk.now()).await.expect("usable");
                match desk.try_draw(&usable).await {
                    Ok(text) => texts.push(text),
                    // As its refresh will, some time later.
                    Err(_superseded) => drop(registry.load().await),
                }
                drawn.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
            texts
        });
    }
    let mut texts = Vec::new();
    for turn in 1..=20 {
        desk.put("A", if turn % 2 == 1 { NEVER } else { MONTHLY }).await.expect("changed");
        texts.push(desk.issue("A").await);
        while drawn.load(Ordering::SeqCst) < turn * 30 {
            tokio::task::yield_now().await;
        }
        turns.store(turn, Ordering::SeqCst);
    }
    texts.extend(tasks.join_all().await.concat());
    let distinct: HashSet<_> = texts.iter().collect();
    assert_eq!(distinct.len(), texts.len(), "{} texts came twice", texts.len() - distinct.len());
}
