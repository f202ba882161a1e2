//! The register of rules.

use std::sync::Arc;

use numgen::store::{RuleRecord, RuleStore, Swap};

use super::{Bench, key};

fn record(name: &str, revision: u64, rule: Option<&str>) -> RuleRecord {
    RuleRecord {
        key: key(name),
        revision,
        rule: rule.map(str::to_owned),
        history: "[]".to_owned(),
        used: false,
    }
}

async fn swap(store: &Arc<impl RuleStore>, expected: Option<&RuleRecord>, new: &RuleRecord) -> Swap {
    store.swap_rule(expected.cloned(), new.clone()).await.expect("swapped")
}

pub(super) async fn the_register_keeps_every_kind_of_record(mut bench: impl Bench<Store: RuleStore>) {
    let store = bench.store();
    let (b, a) = (record("B", 1, Some("{\"format\":\"b\"}")), record("A", 1, Some("{}")));
    assert_eq!(swap(&store, None, &b).await, Swap::Done);
    assert_eq!(swap(&store, None, &a).await, Swap::Done);
    let deleted = RuleRecord { revision: 2, rule: None, history: "[\"b\"]".to_owned(), ..b.clone() };
    assert_eq!(swap(&store, Some(&b), &deleted).await, Swap::Done);
    drop(store);
    bench.reopen().await;
    let store = bench.store();
    assert_eq!(store.load_rules().await.expect("loaded"), [a, deleted.clone()], "in key order");
    assert_eq!(store.rule(&key("B")).await.expect("read"), Some(deleted));
    assert_eq!(store.rule(&key("b")).await.expect("read"), None, "case matters");
}

pub(super) async fn a_swap_needs_the_record_as_it_is(bench: impl Bench<Store: RuleStore>) {
    let store = bench.store();
    let first = record("A", 1, Some("{}"));
    assert_eq!(swap(&store, Some(&first), &first).await, Swap::Changed(None));
    assert_eq!(swap(&store, None, &first).await, Swap::Done);
    assert_eq!(swap(&store, None, &first).await, Swap::Changed(Some(first.clone())));
    assert!(store.mark_used(&key("A"), 1).await.expect("marked"));
    let used = RuleRecord { used: true, ..first.clone() };
    let second = RuleRecord { revision: 2, ..first.clone() };
    assert_eq!(swap(&store, Some(&first), &second).await, Swap::Changed(Some(used.clone())), "used since");
    assert_eq!(swap(&store, Some(&used), &RuleRecord { revision: 2, ..used.clone() }).await, Swap::Done);
}

pub(super) async fn of_many_writers_one_wins_each_round(bench: impl Bench<Store: RuleStore>) {
    let mut expected = None;
    for revision in 1..=5 {
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let (store, expected) = (bench.store(), expected.clone());
            let new = record("A", revision, Some(&format!("{{\"by\":{writer}}}")));
            tasks.spawn(async move {
                let swap = swap(&store, expected.as_ref(), &new).await;
                (swap, new)
            });
        }
        let outcomes = tasks.join_all().await;
        let won: Vec<_> = outcomes.into_iter().filter(|(swap, _)| *swap == Swap::Done).collect();
        let [(_, winner)] = &won[..] else { panic!("{} winners", won.len()) };
        assert_eq!(bench.store().rule(&key("A")).await.expect("read").as_ref(), Some(winner));
        expected = Some(winner.clone());
    }
}

pub(super) async fn use_is_marked_on_the_revision_it_was_seen_on(bench: impl Bench<Store: RuleStore>) {
    let store = bench.store();
    assert!(!store.mark_used(&key("A"), 1).await.expect("answered"), "no such rule");
    let first = record("A", 1, Some("{}"));
    swap(&store, None, &first).await;
    assert!(!store.mark_used(&key("A"), 2).await.expect("answered"), "another revision");
    for _ in 0..2 {
        assert!(store.mark_used(&key("A"), 1).await.expect("answered"), "idempotent");
    }
    let present = store.rule(&key("A")).await.expect("read").expect("there");
    assert_eq!((present.revision, present.used), (1, true));
    swap(&store, Some(&present), &RuleRecord { revision: 2, rule: None, ..present.clone() }).await;
    assert!(!store.mark_used(&key("A"), 2).await.expect("answered"), "deleted");
}

pub(super) async fn use_is_noted_on_the_record_as_it_is(bench: impl Bench<Store: RuleStore>) {
    let store = bench.store();
    let note = |expected: &RuleRecord, new: &RuleRecord| store.note_use(expected.clone(), new.clone());
    let first = record("A", 1, Some("{}"));
    let used = RuleRecord { revision: 2, history: "[\"today\"]".to_owned(), used: true, ..first.clone() };
    assert_eq!(note(&first, &used).await.expect("answered"), Swap::Changed(None), "no such rule");
    swap(&store, None, &first).await;
    assert_eq!(note(&first, &used).await.expect("answered"), Swap::Done);
    assert_eq!(
        note(&first, &used).await.expect("answered"),
        Swap::Changed(Some(used.clone())),
        "noted since"
    );
    assert_eq!(store.rule(&key("A")).await.expect("read"), Some(used));
}
