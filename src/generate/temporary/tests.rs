//! Issuing, handing over and resolving over the reference store; the shared store that goes away is a switch.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use proptest::prelude::*;

use super::*;
use crate::{
    clock::ManualClock,
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    store::{
        Action, Decision, Instance, RowSwap, Status, StoreFuture, TemporaryQuery, TemporaryStore,
        memory::MemoryStore,
    },
    telemetry::Metrics,
};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Arc::new(ManualClock::at(NOW)), UnixMillis(0)))
}

fn node(name: &str) -> NodeName {
    NodeName::parse(name).expect("a node name")
}

fn row(key: &str, stamp: u64) -> TemporaryRow {
    let key = PrefixKey::parse(key).expect("a key");
    TemporaryRow {
        number: TemporaryNumber::new(&key, &node("n1"), Stamp(stamp), Making::new(7)),
        created_at: NOW,
        subject: "shop".into(),
        date: None,
        fate: Fate::Open,
        revision: 0,
    }
}

fn decision(reason: &str) -> Decision {
    Decision { actor: "ada".to_owned(), at_ms: NOW.0, reason: Some(reason.to_owned()) }
}

fn all(limit: u32) -> TemporaryQuery {
    TemporaryQuery { limit, ..TemporaryQuery::default() }
}

/// A shared store that can be away, and forget once.
struct Distant {
    /// Before and after.
    memories: [Arc<MemoryStore>; 2],
    forgot: AtomicBool,
    away: AtomicBool,
    /// The numbers that were handed over, in that order.
    heard: Mutex<Vec<TemporaryNumber>>,
    /// Open numbers of other nodes.
    others: AtomicU64,
    /// How often the open ones were counted.
    counted: AtomicU64,
}

impl Distant {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            memories: [memory(), memory()],
            forgot: AtomicBool::new(false),
            away: AtomicBool::new(false),
            heard: Mutex::default(),
            others: AtomicU64::new(0),
            counted: AtomicU64::new(0),
        })
    }

    fn go_away(&self) {
        self.away.store(true, Ordering::SeqCst);
    }

    fn come_back(&self) {
        self.away.store(false, Ordering::SeqCst);
    }

    fn forget(&self) {
        self.forgot.store(true, Ordering::SeqCst);
    }

    fn store(&self) -> &MemoryStore {
        &self.memories[usize::from(self.forgot.load(Ordering::SeqCst))]
    }

    fn reached<'a, T: Send + 'a>(&'a self, call: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        if self.away.load(Ordering::SeqCst) {
            let source = "connection refused".into();
            let away = StoreError::Unavailable { store: "distant", operation: "any", source };
            return Box::pin(std::future::ready(Err(away)));
        }
        call
    }
}

impl TemporaryStore for Distant {
    fn upload(&self, rows: Vec<TemporaryRow>) -> StoreFuture<'_, Instance> {
        self.heard.lock().expect("sound").extend(rows.iter().map(|row| row.number.clone()));
        self.reached(self.store().upload(rows))
    }
    fn find(&self, number: TemporaryNumber) -> StoreFuture<'_, Option<TemporaryRow>> {
        self.reached(self.store().find(number))
    }
    fn swap(&self, new: TemporaryRow) -> StoreFuture<'_, RowSwap> {
        self.reached(self.store().swap(new))
    }
    fn list(&self, query: TemporaryQuery) -> StoreFuture<'_, Vec<TemporaryRow>> {
        self.reached(self.store().list(query))
    }
    fn count_open(&self) -> StoreFuture<'_, u64> {
        self.counted.fetch_add(1, Ordering::SeqCst);
        self.reached(Box::pin(async move {
            Ok(self.store().count_open().await? + self.others.load(Ordering::SeqCst))
        }))
    }
}

proptest! {
    /// Over restarts, whatever the clock says, and even if each start drew the same random bits.
    #[test]
    fn stamps_are_used_once(lives in proptest::collection::vec(proptest::collection::vec((any::<i64>(), 1_u32..5), 0..6), 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (journal, mut stamps) = (memory(), HashSet::new());
        for life in lives {
            let issuer = runtime.block_on(Issuer::start(journal.clone(), node("n1"))).expect("started");
            for (now, count) in life {
                let first = issuer.stamps(UnixMillis(now), count);
                let rows: Vec<_> = (first.0..first.0 + u64::from(count)).map(|stamp| row("K", stamp)).collect();
                for row in &rows {
                    prop_assert!(stamps.insert(row.number.stamp()), "{:?}", row.number);
                }
                runtime.block_on(journal.append(rows)).expect("each is new");
            }
        }
    }
}

#[tokio::test]
async fn the_journal_refuses_a_second_number_of_one_text() {
    let journal = memory();
    journal.append(vec![row("K", 1), row("K", 2)]).await.expect("new");
    let refused = journal.append(vec![row("K", 3), row("K", 2)]).await;
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })));
    assert_eq!(journal.last_stamp().await.expect("read"), Some(Stamp(2)), "all or none");
}

#[tokio::test]
async fn what_is_journaled_reaches_the_store_once_it_is_back_and_again_when_it_has_forgotten() {
    let (distant, journal, metrics) = (Distant::new(), memory(), Metrics::new());
    let open = metrics.gauges().temporary_numbers_open;
    let handover = Handover::new(distant.clone(), journal.clone(), open.clone());
    distant.go_away();
    journal.append((1..=1_201).map(|stamp| row("K", stamp)).collect()).await.expect("new");
    handover.round().await.expect_err("away");
    assert_eq!(journal.unsent().await.expect("counted"), 1_201);

    distant.come_back();
    assert_eq!(handover.round().await.expect("handed over"), 1_201);
    assert_eq!(journal.unsent().await.expect("counted"), 0);
    let resolver = Resolver::new(distant.clone(), Some(journal.clone()));
    let number = row("K", 5).number;
    resolver.decide(&number, Action::Void, &decision("test"), None).await.expect("void");
    assert_eq!(handover.round().await.expect("nothing new"), 1_200);

    // An emptied store is another one. It learns of the numbers, and of what became of them.
    let emptied = Distant::new();
    let handover = Handover::new(emptied.clone(), journal.clone(), open);
    assert_eq!(handover.round().await.expect("handed over again"), 1_200);
    let kept = emptied.find(number.clone()).await.expect("found").expect("there");
    assert_eq!((kept.status(), kept.reason()), (Status::Void, Some("test")));
    assert_eq!(emptied.heard.lock().expect("sound")[0], number, "decisions come first");
}

/// A store that may have forgotten lets nobody decide for 5 s: each node has to have told it everything by then, journal and all.
#[tokio::test(start_paused = true)]
async fn a_store_that_has_forgotten_is_told_everything_within_moments() {
    let (distant, journal, lifecycle) = (Distant::new(), memory(), Lifecycle::new());
    journal.append(vec![row("K", 1), row("K", 2)]).await.expect("new");
    let open = Metrics::new().gauges().temporary_numbers_open;
    lifecycle.spawn(Handover::new(distant.clone(), journal, open).run(lifecycle.clone()));
    // Wherever between two looks it happens.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(distant.count_open().await.expect("counted"), 2);
    distant.forget();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(distant.count_open().await.expect("counted"), 2);
    lifecycle.drain();
    assert_eq!(lifecycle.finished(Duration::from_secs(1)).await, 0);
}

#[tokio::test]
async fn what_another_node_has_resolved_is_learnt_and_forgotten_in_the_end() {
    let clock = Arc::new(ManualClock::at(NOW));
    let journal = Arc::new(MemoryStore::new(clock.clone(), UnixMillis(0)));
    let (distant, metrics) = (Distant::new(), Metrics::new());
    let handover =
        Handover::new(distant.clone(), journal.clone(), metrics.gauges().temporary_numbers_open.clone());
    journal.append(vec![row("K", 1), row("K", 2), row("K", 3)]).await.expect("new");
    handover.round().await.expect("handed over");
    // On another node, whose journal is another one.
    let elsewhere = Resolver::new(distant.clone(), Some(memory()));
    let number = row("K", 2).number;
    elsewhere.decide(&number, Action::Void, &decision("test"), None).await.expect("void");
    handover.tidy().await.expect("looked");
    let here = journal.find(number.clone()).await.expect("read").expect("still there");
    assert_eq!(here.status(), Status::Void);
    handover.round().await.expect("acknowledged");
    clock.advance(Duration::from_secs(89 * 86_400));
    handover.tidy().await.expect("looked");
    assert!(journal.find(number.clone()).await.expect("read").is_some(), "90 days");
    clock.advance(Duration::from_secs(2 * 86_400));
    distant.go_away();
    handover.tidy().await.expect_err("nothing is forgotten without the store");
    distant.come_back();
    handover.tidy().await.expect("looked");
    assert_eq!(journal.find(number.clone()).await.expect("read"), None);
    assert_eq!(journal.list(all(9)).await.expect("listed").len(), 2, "open ones stay");
    assert!(distant.find(number).await.expect("read").is_some(), "the shared store keeps it");
}

#[tokio::test(start_paused = true)]
async fn the_gauge_counts_what_waits_here_while_the_store_is_away() {
    let (distant, journal, metrics) = (Distant::new(), memory(), Metrics::new());
    let open = metrics.gauges().temporary_numbers_open;
    let handover = Handover::new(distant.clone(), journal.clone(), open);
    let lifecycle = Lifecycle::new();
    lifecycle.spawn(handover.run(lifecycle.clone()));
    let shows = |count: u32| metrics.render().contains(&format!("numgen_temporary_numbers_open {count}\n"));
    journal.append(vec![row("K", 1), row("K", 2)]).await.expect("new");
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(shows(2), "handed over and open: {}", metrics.render());
    distant.go_away();
    journal.append(vec![row("K", 3)]).await.expect("new");
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(shows(3), "known to be open, and one that nobody else knows: {}", metrics.render());
    distant.come_back();
    lifecycle.drain();
    assert_eq!(lifecycle.finished(Duration::from_secs(1)).await, 0);
    assert_eq!(distant.count_open().await.expect("counted"), 3, "the last look is at the end");
}

#[tokio::test(start_paused = true)]
async fn many_open_numbers_are_counted_about_once_a_minute() {
    let (distant, journal, metrics) = (Distant::new(), memory(), Metrics::new());
    distant.others.store(1_000_000, Ordering::SeqCst);
    let open = metrics.gauges().temporary_numbers_open;
    let lifecycle = Lifecycle::new();
    lifecycle.spawn(Handover::new(distant.clone(), journal.clone(), open).run(lifecycle.clone()));
    let shows = |count: u32| metrics.render().contains(&format!("numgen_temporary_numbers_open {count}\n"));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(distant.counted.load(Ordering::SeqCst), 1);
    journal.append(vec![row("K", 1)]).await.expect("new");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(journal.unsent().await.expect("counted"), 0, "handed over at once all the same");
    assert!(shows(1_000_000), "{}", metrics.render());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(shows(1_000_001), "{}", metrics.render());
    // Few are counted in each round.
    distant.others.store(9_000, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(75)).await;
    let before = distant.counted.load(Ordering::SeqCst);
    distant.others.store(5_000, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(shows(5_001) && distant.counted.load(Ordering::SeqCst) > before, "{}", metrics.render());
    lifecycle.drain();
    assert_eq!(lifecycle.finished(Duration::from_secs(1)).await, 0);
}

#[tokio::test]
async fn the_first_decision_stands() {
    let store = memory();
    store.upload(vec![row("K", 1), row("K", 2)]).await.expect("kept");
    let resolver = Resolver::new(store, None);
    let (one, two) = (row("K", 1).number, row("K", 2).number);

    let void = resolver.decide(&one, Action::Void, &decision("first"), None).await.expect("void");
    let again =
        resolver.decide(&one, Action::Void, &decision("second"), None).await.expect("the first result");
    assert_eq!((again.reason(), &again), (Some("first"), &void));
    let late = resolver.decide(&one, Action::Assign, &decision("late"), None).await.expect_err("void");
    assert!(late.to_string().ends_with("is void and cannot be assigned"), "{late}");

    resolver.decide(&two, Action::Assign, &decision("first"), None).await.expect("to be assigned");
    let meanwhile =
        resolver.decide(&two, Action::Void, &decision("late"), None).await.expect_err("under way");
    assert!(meanwhile.to_string().contains("is being assigned"), "{meanwhile}");
    resolver.complete(&two, "K-1", None).await.expect("assigned");
    let twice = resolver.complete(&two, "K-2", None).await.expect("the first result");
    assert_eq!(twice.final_number(), Some("K-1"));
    let late = resolver.decide(&two, Action::Void, &decision("late"), None).await.expect_err("assigned");
    assert!(late.to_string().contains("assigned to K-1"), "{late}");

    let nobody = resolver.decide(&row("K", 9).number, Action::Void, &decision(""), None).await;
    assert!(matches!(nobody, Err(ResolveError::Unknown(_))));
}

#[tokio::test]
async fn an_assignment_that_drew_nothing_can_be_taken_back() {
    let store = memory();
    store.upload(vec![row("K", 1)]).await.expect("kept");
    let (resolver, number) = (Resolver::new(store, None), row("K", 1).number);
    resolver.decide(&number, Action::Assign, &decision("first"), None).await.expect("to be assigned");
    assert_eq!(resolver.withdraw(&number).await.expect("withdrawn").status(), Status::Open);
    resolver.decide(&number, Action::Void, &decision("then"), None).await.expect("void");
}

#[tokio::test]
async fn a_number_that_only_this_node_has_is_handed_over_to_be_resolved() {
    let (shared, journal) = (memory(), memory());
    journal.append(vec![row("K", 1)]).await.expect("new");
    let resolver = Resolver::new(shared.clone(), Some(journal.clone()));
    resolver.decide(&row("K", 1).number, Action::Void, &decision("x"), None).await.expect("void");
    assert_eq!(shared.list(all(9)).await.expect("listed")[0].status(), Status::Void);
    assert_eq!(journal.list(all(9)).await.expect("listed")[0].status(), Status::Void, "kept here, too");
}

#[tokio::test]
async fn while_the_store_is_away_a_node_lists_what_it_knows_and_resolves_nothing() {
    let (distant, journal) = (Distant::new(), memory());
    let resolver = Resolver::new(distant.clone(), Some(journal.clone()));
    distant.upload(vec![row("OTHER", 1)]).await.expect("kept");
    journal.append(vec![row("K", 1)]).await.expect("new");
    let everything = resolver.list(&all(9), |_| true).await.expect("listed");
    assert_eq!((everything.rows.len(), everything.complete), (1, true));
    distant.go_away();
    let known = resolver.list(&all(9), |_| true).await.expect("listed");
    assert_eq!((&known.rows[..], known.complete), (&[row("K", 1)][..], false));
    let refused = resolver.decide(&row("K", 1).number, Action::Void, &decision("x"), None).await;
    assert!(matches!(refused, Err(ResolveError::Store(StoreError::Unavailable { .. }))));
}

#[tokio::test]
async fn pages_are_full_of_what_may_be_seen() {
    let store = memory();
    let keys = ["A", "A.B", "A-B", "B", "C"];
    let rows = keys.into_iter().flat_map(|key| (1..=7).map(move |stamp| row(key, stamp)));
    store.upload(rows.collect()).await.expect("kept");
    let resolver = Resolver::new(store, None);
    let may_see = |number: &TemporaryNumber| matches!(number.key().as_str(), "A" | "C");
    let mut seen = Vec::new();
    let mut query = all(3);
    loop {
        let page = resolver.list(&query, may_see).await.expect("listed").rows;
        seen.extend(page.iter().map(|row| (row.number.key().to_string(), row.number.stamp().0)));
        if page.len() < 3 {
            break;
        }
        query.after = page.last().map(|row| row.number.to_string());
    }
    let expected = ["A", "C"].into_iter().flat_map(|key| (1..=7).map(move |stamp| (key.to_owned(), stamp)));
    assert_eq!(seen, expected.collect::<Vec<_>>());
    let of_b = TemporaryQuery { key: Some(PrefixKey::parse("A-B").expect("a key")), ..all(100) };
    assert_eq!(resolver.list(&of_b, |_| true).await.expect("listed").rows.len(), 7);
    assert!(resolver.list(&of_b, may_see).await.expect("listed").rows.is_empty());
}
