//! Temporary numbers: kept by a shared store, and by the journal of a node.

use std::{sync::Arc, time::Duration};

use numgen::{
    clock::{Clock, SystemClock},
    config::NodeName,
    generate::temporary::{Handover, Resolver},
    lifecycle::Lifecycle,
    secret::Secret,
    store::{
        Action, Decision, Fate, Journal, Making, RowSwap, Stamp, Status, StoreError, TemporaryNumber,
        TemporaryQuery, TemporaryRow, TemporaryStore, Verdict,
        redis::{
            RedisStore, Settings,
            client::{Client, Options},
        },
    },
    telemetry::Metrics,
};

use super::{
    EPOCH, NOON,
    bench::{Bench, Memory, Sqlite},
    key,
};
use crate::harness::{Data, Redis};

/// A store of temporary numbers under test.
trait Shared: Send {
    /// An empty store.
    async fn empty() -> Self;
    fn shared(&self) -> Arc<dyn TemporaryStore>;
}

/// A journal under test.
trait Diary: Bench {
    fn journal(&self) -> Arc<dyn Journal>;
}

impl Shared for Memory {
    async fn empty() -> Self {
        <Self as Bench>::new().await
    }
    fn shared(&self) -> Arc<dyn TemporaryStore> {
        self.store()
    }
}

impl Shared for Sqlite {
    async fn empty() -> Self {
        <Self as Bench>::new().await
    }
    fn shared(&self) -> Arc<dyn TemporaryStore> {
        self.store()
    }
}

impl Diary for Sqlite {
    fn journal(&self) -> Arc<dyn Journal> {
        self.store()
    }
}

impl Diary for Memory {
    fn journal(&self) -> Arc<dyn Journal> {
        self.store()
    }
}

/// A server of its own.
struct OnRedis {
    store: RedisStore,
    server: Redis,
    lifecycle: Lifecycle,
}

impl Shared for OnRedis {
    async fn empty() -> Self {
        let (server, lifecycle) = (Redis::start_with(&["--save", ""]), Lifecycle::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let timeout = Duration::from_secs(20);
        let options = Options { ca_file: None, timeout, clock: Arc::clone(&clock), metrics: Metrics::new() };
        let url = Secret::new(server.url());
        let client = Client::connect(&url, options, &lifecycle).await.expect("a good URL");
        let store = RedisStore::new(client, Settings { clock, epoch: EPOCH, timeout });
        Self { store, server, lifecycle }
    }
    fn shared(&self) -> Arc<dyn TemporaryStore> {
        Arc::new(self.store.clone())
    }
}

impl Drop for OnRedis {
    fn drop(&mut self) {
        self.lifecycle.drain();
    }
}

/// Runs every promise on one store.
macro_rules! promises {
    ($module:ident: $store:ident.$make:ident; $($promise:ident),+ $(,)?) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise(promises!(@$make super::$store)).await;
            })+
        }
    };
    (@empty $store:path) => { <$store as super::Shared>::empty().await };
    (@new $store:path) => { <$store as super::super::bench::Bench>::new().await };
    (shared $module:ident: $store:ident) => {
        promises!($module: $store.empty; the_first_row_of_a_number_stands, a_row_that_has_come_further_stands,
            a_row_changes_only_as_it_was_seen, of_many_decisions_one_is_taken, rows_come_in_pages_by_key_and_status,
            a_page_of_a_thousand_is_one_call);
    };
    (journal $module:ident: $store:ident) => {
        promises!($module: $store.new; what_is_appended_stays, rows_are_pending_until_the_instance_that_asks_has_them);
    };
}

promises!(shared on_memory: Memory);
promises!(shared on_sqlite: Sqlite);
promises!(shared on_redis: OnRedis);
promises!(journal journal_on_memory: Memory);
promises!(journal journal_on_sqlite: Sqlite);

/// An emptied Redis, and one that somebody wiped, are other instances: every journal is handed over again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_has_forgotten_is_another_instance() {
    let mut bench = OnRedis::empty().await;
    let (store, journal) = (bench.shared(), Memory::new().await.journal());
    let first = store.upload(vec![]).await.expect("answered");
    journal.append(vec![row("A", 1), row("A", 2)]).await.expect("new");
    let handover =
        Handover::new(store.clone(), journal.clone(), Metrics::new().gauges().temporary_numbers_open);
    assert_eq!(handover.round().await.expect("handed over"), 2);
    let resolver = Resolver::new(store.clone(), Some(journal.clone()));
    let decision = Decision { actor: "ada".to_owned(), at_ms: 0, reason: None };
    resolver.decide(&row("A", 2).number, Action::Void, &decision).await.expect("void");

    bench.server.kill();
    bench.server.start_again(Data::Empty);
    assert_eq!(handover.round().await.expect("handed over again"), 1);
    let second = store.upload(vec![]).await.expect("answered");
    assert_ne!(second, first);
    assert_eq!(names(&store, of(Status::Void)).await, ["A 2"]);

    let flush = redis::cmd("FLUSHALL");
    let _ok: String = bench.store.client().query("flush", &flush).await.expect("wiped");
    assert_eq!(handover.round().await.expect("handed over again"), 1);
    assert_ne!(store.upload(vec![]).await.expect("answered"), second);
}

fn row(prefix: &str, stamp: u64) -> TemporaryRow {
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

fn decided(row: &TemporaryRow, action: Action) -> TemporaryRow {
    let decision =
        Decision { actor: "ada".to_owned(), at_ms: NOON.0, reason: Some("why \"not\"".to_owned()) };
    becomes(row.decide(action, &decision))
}

fn becomes(verdict: Verdict) -> TemporaryRow {
    let Verdict::Becomes(row) = verdict else { panic!("changes nothing: {verdict:?}") };
    *row
}

fn page(limit: u32) -> TemporaryQuery {
    TemporaryQuery { limit, ..TemporaryQuery::default() }
}

fn of(status: Status) -> TemporaryQuery {
    TemporaryQuery { status: Some(status), ..page(100) }
}

async fn names(store: &Arc<dyn TemporaryStore>, query: TemporaryQuery) -> Vec<String> {
    let rows = store.list(query).await.expect("listed");
    rows.iter().map(|row| format!("{} {}", row.number.key(), row.number.stamp().0)).collect()
}

async fn the_first_row_of_a_number_stands(bench: impl Shared) {
    let store = bench.shared();
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

async fn a_row_that_has_come_further_stands(bench: impl Shared) {
    let store = bench.shared();
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

async fn a_row_changes_only_as_it_was_seen(bench: impl Shared) {
    let store = bench.shared();
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

async fn of_many_decisions_one_is_taken(bench: impl Shared) {
    let store = bench.shared();
    store.upload(vec![row("A", 1)]).await.expect("kept");
    let swaps = (0..40).map(|turn| {
        let action = if turn % 2 == 0 { Action::Assign } else { Action::Void };
        store.swap(decided(&row("A", 1), action))
    });
    let outcomes = futures_util::future::join_all(swaps).await;
    let done = outcomes.into_iter().filter(|outcome| matches!(outcome, Ok(RowSwap::Done))).count();
    assert_eq!(done, 1);
}

async fn rows_come_in_pages_by_key_and_status(bench: impl Shared) {
    let store = bench.shared();
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

async fn a_page_of_a_thousand_is_one_call(bench: impl Shared) {
    let store = bench.shared();
    for batch in 0..4 {
        store.upload((0..500).map(|at| row("A", batch * 500 + at)).collect()).await.expect("kept");
    }
    assert_eq!(store.list(page(1_001)).await.expect("listed").len(), 1_001);
    assert_eq!(store.count_open().await.expect("counted"), 2_000);
}

// ---------------------------------------------------------------------------------------------- journal

async fn what_is_appended_stays(mut bench: impl Diary) {
    let journal = bench.journal();
    assert_eq!(journal.last_stamp().await.expect("read"), None);
    journal.append(vec![row("A", 7), row("B", 5)]).await.expect("new");
    drop(journal);
    bench.reopen().await;
    let journal = bench.journal();
    assert_eq!(journal.last_stamp().await.expect("read"), Some(Stamp(7)));
    let again = journal.append(vec![row("C", 9), row("A", 7)]).await;
    assert!(matches!(again, Err(StoreError::Corrupt { .. })), "{again:?}");
    assert_eq!(journal.list(page(9)).await.expect("listed"), [row("A", 7), row("B", 5)], "all or none");
    // A row of another node, kept for a decision that was taken here, says nothing of this node's stamps.
    journal.upload(vec![decided(&row("D", 1 << 60), Action::Void)]).await.expect("kept");
    assert_eq!(journal.last_stamp().await.expect("read"), Some(Stamp(7)));
}

async fn rows_are_pending_until_the_instance_that_asks_has_them(mut bench: impl Diary) {
    let instance = |name: &str| numgen::store::Instance(name.into());
    let journal = bench.journal();
    journal.append(vec![row("A", 1), row("A", 2), row("A", 3)]).await.expect("new");
    assert_eq!(journal.unsent().await.expect("counted"), 3);
    assert_eq!(journal.pending(instance("x"), 2).await.expect("read").len(), 2);
    journal.acknowledged(vec![row("A", 1), row("A", 2)], instance("x")).await.expect("noted");
    drop(journal);
    bench.reopen().await;
    let journal = bench.journal();
    assert_eq!(journal.pending(instance("x"), 9).await.expect("read"), [row("A", 3)]);
    assert_eq!(journal.pending(instance("w"), 9).await.expect("read").len(), 3, "another instance has none");
    assert_eq!(journal.pending(instance("y"), 9).await.expect("read").len(), 3);
    assert_eq!(journal.unsent().await.expect("counted"), 1);
    // A row that changes while it is handed over is pending again.
    let void = decided(&row("A", 3), Action::Void);
    journal.upload(vec![void.clone()]).await.expect("kept");
    journal.acknowledged(vec![row("A", 3)], instance("x")).await.expect("noted");
    assert_eq!(journal.pending(instance("x"), 9).await.expect("read"), [void]);
    assert_eq!(journal.unsent().await.expect("counted"), 0, "it is not open any more");
}
