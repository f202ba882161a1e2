//! The journal of temporary numbers of one node.

use std::time::Duration;

use numgen::store::{Action, Instance, Journal, Pending, Stamp, StoreError, TemporaryStore};

use super::{
    Bench,
    temporary::{decided, page, row},
};

pub(super) async fn what_is_appended_stays(mut bench: impl Bench<Store: Journal>) {
    let journal = bench.store();
    assert_eq!(journal.last_stamp().await.expect("read"), None);
    journal.append(vec![row("A", 7), row("B", 5)]).await.expect("new");
    drop(journal);
    bench.reopen().await;
    let journal = bench.store();
    assert_eq!(journal.last_stamp().await.expect("read"), Some(Stamp(7)));
    let again = journal.append(vec![row("C", 9), row("A", 7)]).await;
    assert!(matches!(again, Err(StoreError::Corrupt { .. })), "{again:?}");
    assert_eq!(journal.list(page(9)).await.expect("listed"), [row("A", 7), row("B", 5)], "all or none");
    // A row of another node, kept for a decision that was taken here, says nothing of this node's stamps.
    journal.upload(vec![decided(&row("D", 1 << 60), Action::Void)]).await.expect("kept");
    assert_eq!(journal.last_stamp().await.expect("read"), Some(Stamp(7)));
}

pub(super) async fn rows_are_pending_until_the_instance_that_asks_has_them(
    mut bench: impl Bench<Store: Journal>,
) {
    let instance = |name: &str| Instance(name.into());
    let journal = bench.store();
    journal.append(vec![row("A", 1), row("A", 2), row("A", 3)]).await.expect("new");
    assert_eq!(journal.unsent().await.expect("counted"), 3);
    assert_eq!(journal.pending(instance("x"), Pending::Any, 2).await.expect("read").len(), 2);
    journal.acknowledged(vec![row("A", 1), row("A", 2)], instance("x")).await.expect("noted");
    drop(journal);
    bench.reopen().await;
    let journal = bench.store();
    assert_eq!(journal.pending(instance("x"), Pending::Any, 9).await.expect("read"), [row("A", 3)]);
    assert_eq!(
        journal.pending(instance("w"), Pending::Any, 9).await.expect("read").len(),
        3,
        "another instance has none"
    );
    assert_eq!(journal.pending(instance("y"), Pending::Any, 9).await.expect("read").len(), 3);
    assert_eq!(journal.unsent().await.expect("counted"), 1);
    // A row that changes while it is handed over is pending again.
    let void = decided(&row("A", 3), Action::Void);
    journal.upload(vec![void.clone()]).await.expect("kept");
    journal.acknowledged(vec![row("A", 3)], instance("x")).await.expect("noted");
    assert_eq!(
        journal.pending(instance("x"), Pending::Any, 9).await.expect("read"),
        std::slice::from_ref(&void)
    );
    // Decisions, for an instance that knows neither them nor what they decide.
    assert_eq!(journal.pending(instance("w"), Pending::Decided, 9).await.expect("read"), [void]);
    assert_eq!(journal.unsent().await.expect("counted"), 0, "it is not open any more");
}

pub(super) async fn what_was_resolved_long_ago_is_forgotten(mut bench: impl Bench<Store: Journal>) {
    let day = Duration::from_secs(86_400);
    let instance = |name: &str| Instance(name.into());
    let journal = bench.store();
    let rows = [1, 2, 3, 4].map(|stamp| row("A", stamp));
    journal.append(rows.to_vec()).await.expect("new");
    let [done, open, unsent, last] = &rows;
    let void = |row| decided(row, Action::Void);
    journal.upload(vec![void(done), void(unsent), void(last)]).await.expect("kept");
    journal.acknowledged(vec![void(done), open.clone(), void(last)], instance("x")).await.expect("noted");
    bench.advance(day * 5);
    // An instance that remembers the same again changes nothing of when it was first known.
    journal.acknowledged(vec![void(done)], instance("x")).await.expect("noted");
    bench.advance(day * 5);
    assert_eq!(journal.prune(instance("x"), day * 11, 9).await.expect("pruned"), 0, "too early");
    assert_eq!(journal.prune(instance("y"), day * 9, 9).await.expect("pruned"), 0, "another has not got it");
    assert_eq!(journal.prune(instance("x"), day * 9, 9).await.expect("pruned"), 1);
    drop(journal);
    bench.reopen().await;
    let journal = bench.store();
    let left = journal.list(page(9)).await.expect("listed");
    assert_eq!(left, [open.clone(), void(unsent), void(last)]);
    assert_eq!(journal.last_stamp().await.expect("read"), Some(Stamp(4)), "the next goes on above it");
}
