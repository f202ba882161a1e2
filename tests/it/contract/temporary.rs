//! Temporary numbers in a store that nodes share.

use std::sync::Arc;

use numgen::{
    config::NodeName,
    store::{
        Action, Decision, Fate, Making, RowSwap, Stamp, Status, TemporaryNumber, TemporaryQuery,
        TemporaryRow, TemporaryStore, Verdict,
    },
};

use super::{Bench, NOON, key};

pub(super) fn row(prefix: &str, stamp: u64) -> TemporaryRow {
    let node = NodeName::parse("node-1").expect("a name");
    TemporaryRow {
        number: TemporaryNumber::new(&key(prefix), &node, Stamp(stamp), Making::new(99)),
        created_at: NOON,
        subject: "shop \"ö\" \\ 1".into(),
        date: "2026-11-22".parse().ok(),
        fate: Fate::Open,
        revision: 0,
    }
}

pub(super) fn decided(row: &TemporaryRow, action: Action) -> TemporaryRow {
    let decision =
        Decision { actor: "ada".to_owned(), at_ms: NOON.0, reason: Some("why \"not\"".to_owned()) };
    becomes(row.decide(action, &decision))
}

fn becomes(verdict: Verdict) -> TemporaryRow {
    let Verdict::Becomes(row) = verdict else { panic!("changes nothing: {verdict:?}") };
    *row
}

pub(super) fn page(limit: u32) -> TemporaryQuery {
    TemporaryQuery { limit, ..TemporaryQuery::default() }
}

pub(super) fn of(status: Status) -> TemporaryQuery {
    TemporaryQuery { status: Some(status), ..page(100) }
}

pub(super) async fn names(store: &Arc<impl TemporaryStore>, query: TemporaryQuery) -> Vec<String> {
    let rows = store.list(query).await.expect("listed");
    rows.iter().map(|row| format!("{} {}", row.number.key(), row.number.stamp().0)).collect()
}

pub(super) async fn the_first_row_of_a_number_stands(bench: impl Bench<Store: TemporaryStore>) {
    let store = bench.store();
    let first = store.upload(vec![row("A", 1)]).await.expect("kept");
    let other = TemporaryRow { subject: "somebody else".into(), ..row("A", 1) };
    assert_eq!(store.upload(vec![other, row("A", 2)]).await.expect("kept"), first, "one instance");
    assert_eq!(store.upload(vec![]).await.expect("answered"), first);
    let kept = store.list(page(9)).await.expect("listed");
    assert_eq!(kept, [row("A", 1), row("A", 2)]);
    assert_eq!(store.find(row("A", 2).number).await.expect("found"), Some(row("A", 2)));
    assert_eq!(store.find(row("A", 3).number).await.expect("looked for"), None);
    assert_eq!(store.count_open().await.expect("counted"), 2);
}

pub(super) async fn a_row_that_has_come_further_stands(bench: impl Bench<Store: TemporaryStore>) {
    let store = bench.store();
    let assigning = decided(&row("A", 1), Action::Assign);
    let assigned = becomes(assigning.complete("A-0001"));
    store.upload(vec![assigned.clone()]).await.expect("kept");
    store.upload(vec![row("A", 1), assigning.clone()]).await.expect("passed over");
    assert_eq!(store.list(page(9)).await.expect("listed"), std::slice::from_ref(&assigned));
    // And the other way round.
    store.upload(vec![row("B", 1)]).await.expect("kept");
    store.upload(vec![decided(&row("B", 1), Action::Void)]).await.expect("taken over");
    assert_eq!(names(&store, of(Status::Assigned)).await, ["A 1"]);
    assert_eq!(names(&store, of(Status::Void)).await, ["B 1"]);
    assert_eq!(store.count_open().await.expect("counted"), 0);
}

pub(super) async fn a_row_changes_only_as_it_was_seen(bench: impl Bench<Store: TemporaryStore>) {
    let store = bench.store();
    store.upload(vec![row("A", 1)]).await.expect("kept");
    let assigning = decided(&row("A", 1), Action::Assign);
    let void = decided(&row("A", 1), Action::Void);
    assert_eq!(store.swap(assigning.clone()).await.expect("answered"), RowSwap::Done);
    assert_eq!(store.swap(void).await.expect("answered"), RowSwap::Changed(Some(assigning.clone())));
    assert_eq!(store.count_open().await.expect("counted"), 1, "what is being assigned is open");
    let assigned = becomes(assigning.complete("A/0001"));
    assert_eq!(store.swap(assigned.clone()).await.expect("answered"), RowSwap::Done);
    assert_eq!(
        store.swap(assigned.clone()).await.expect("answered"),
        RowSwap::Changed(Some(assigned.clone()))
    );
    assert_eq!(store.list(of(Status::Assigned)).await.expect("listed"), [assigned]);
    assert!(store.list(of(Status::Open)).await.expect("listed").is_empty());
    let unknown = decided(&row("A", 2), Action::Void);
    assert_eq!(store.swap(unknown).await.expect("answered"), RowSwap::Changed(None));
}

pub(super) async fn of_many_decisions_one_is_taken(bench: impl Bench<Store: TemporaryStore>) {
    let store = bench.store();
    store.upload(vec![row("A", 1)]).await.expect("kept");
    let swaps = (0..40).map(|turn| {
        let action = if turn % 2 == 0 { Action::Assign } else { Action::Void };
        store.swap(decided(&row("A", 1), action))
    });
    let outcomes = futures_util::future::join_all(swaps).await;
    let done = outcomes.into_iter().filter(|outcome| matches!(outcome, Ok(RowSwap::Done))).count();
    assert_eq!(done, 1);
}

pub(super) async fn rows_come_in_pages_by_key_and_status(bench: impl Bench<Store: TemporaryStore>) {
    let store = bench.store();
    let rows =
        ["A", "A.B", "A-B", "AB"].into_iter().flat_map(|prefix| (1..=3).map(move |at| row(prefix, at)));
    store.upload(rows.collect()).await.expect("kept");
    store.swap(decided(&row("A", 2), Action::Void)).await.expect("void");
    let everything = names(&store, page(100)).await;
    let in_order =
        ["A-B 1", "A-B 2", "A-B 3", "A.B 1", "A.B 2", "A.B 3", "AB 1", "AB 2", "AB 3", "A 1", "A 2", "A 3"];
    assert_eq!(everything, in_order);
    let of_a = |query| TemporaryQuery { key: Some(key("A")), ..query };
    assert_eq!(names(&store, of_a(page(100))).await, ["A 1", "A 2", "A 3"]);
    assert_eq!(names(&store, of_a(of(Status::Open))).await, ["A 1", "A 3"]);
    let after = |at: &TemporaryRow, query| TemporaryQuery { after: Some(at.number.to_string()), ..query };
    assert_eq!(names(&store, after(&row("A.B", 3), page(4))).await, ["AB 1", "AB 2", "AB 3", "A 1"]);
    assert_eq!(names(&store, after(&row("A", 1), of_a(page(9)))).await, ["A 2", "A 3"]);
    assert_eq!(names(&store, after(&row("A.B", 3), of_a(page(1)))).await, ["A 1"]);
    assert!(names(&store, after(&row("A", 3), page(9))).await.is_empty());
    let behind_all = TemporaryQuery { after: Some("Z".to_owned()), ..page(9) };
    assert!(names(&store, behind_all).await.is_empty());
}

pub(super) async fn a_page_of_a_thousand_is_one_call(bench: impl Bench<Store: TemporaryStore>) {
    let store = bench.store();
    for batch in 0..4 {
        store.upload((0..500).map(|at| row("A", batch * 500 + at)).collect()).await.expect("kept");
    }
    assert_eq!(store.list(page(1_001)).await.expect("listed").len(), 1_001);
    assert_eq!(store.count_open().await.expect("counted"), 2_000);
}
