//! Redis held to the contract: a server for each test, and one cluster of six nodes, which the tests have one after the other.
//! The `TIME` of the servers stands until a test moves it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use numgen::{
    clock::{ManualClock, UnixMillis},
    generate::temporary::{Handover, ResolveError, Resolver},
    lifecycle::Lifecycle,
    secret::Secret,
    store::{
        Action, Decision, Journal, Status, StoreError, TemporaryStore,
        redis::{
            RedisStore, Settings,
            client::{Client, Options},
            workers::Workers,
        },
    },
    telemetry::Metrics,
};

use super::{
    Bench, EPOCH, Memory, NOON,
    temporary::{decided, names, of, row},
};
use crate::harness::{Data, Hands, Redis, RedisCluster, SharedCluster, Stopwatch};

/// Servers begin so long before noon: whatever has to settle has settled by then.
const EARLIER: Duration = Duration::from_secs(60);
/// What every key of a marker begins with.
pub(super) const MARKERS: &str = "numgen:generation:";
pub(super) const SLOTS: u32 = 16_384;

/// A part of the store that has traits of its own.
pub(super) trait Part: Send + Sync + 'static {
    fn of(store: RedisStore) -> Self;
}

impl Part for RedisStore {
    fn of(store: RedisStore) -> Self {
        store
    }
}

impl Part for Workers {
    fn of(store: RedisStore) -> Self {
        store.workers(0)
    }
}

pub(super) type OneRedisWorkers = OneRedis<Workers>;
pub(super) type SixRedisWorkers = SixRedis<Workers>;

/// What a node has in hand: a store, the clock of its machine, and what runs behind it.
struct Node<P> {
    store: Arc<P>,
    clock: Arc<ManualClock>,
    lifecycle: Lifecycle,
}

impl<P: Part> Node<P> {
    async fn connect(url: String, clock: Arc<ManualClock>) -> Self {
        let (lifecycle, timeout) = (Lifecycle::new(), Duration::from_secs(20));
        let options = Options { ca_file: None, timeout, clock: clock.clone(), metrics: Metrics::new() };
        let client = Client::connect(&Secret::new(url), options, &lifecycle).await.expect("a good URL");
        let settings = Settings { epoch: EPOCH, timeout };
        Self { store: Arc::new(P::of(RedisStore::new(client, settings))), clock, lifecycle }
    }

    async fn reconnect(&mut self, url: String) {
        let next = Self::connect(url, self.clock.clone()).await;
        // The connections of the one before end here.
        *self = next;
    }
}

impl<P> Drop for Node<P> {
    fn drop(&mut self) {
        self.lifecycle.drain();
    }
}

/// A clock of servers and the clock of a node, moved together.
struct Hour(AtomicI64);

impl Hour {
    fn noon() -> Self {
        Self(AtomicI64::new(NOON.0))
    }
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
    fn advance(&self, duration: Duration, node: &Node<impl Part>) -> Hands {
        node.clock.advance(duration);
        let after = self.now().plus(duration);
        self.0.store(after.0, Ordering::SeqCst);
        Hands::Standing(after)
    }
    fn step_to(&self, now: UnixMillis, node: &Node<impl Part>) -> Hands {
        node.clock.step_to(now);
        self.0.store(now.0, Ordering::SeqCst);
        Hands::Standing(now)
    }
}

/// Waits until there is a marker for everything: from then on nothing settles any more. The first node of a cluster writes them
/// all, with a clock that is a file: that takes a busy machine its time.
pub(super) async fn wait_for_markers(expected: u32, count: impl Fn() -> u32) {
    let watch = Stopwatch::start();
    while count() < expected {
        watch.assert_within(Duration::from_secs(60), &format!("waiting for {expected} markers"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One server for one test.
pub(super) struct OneRedis<P = RedisStore> {
    server: Redis,
    node: Node<P>,
    hour: Hour,
}

impl<P: Part> Bench for OneRedis<P> {
    type Store = P;

    async fn new() -> Self {
        let server = Redis::start_with_clock(Hands::Standing(before(NOON)));
        let node = Node::connect(server.url(), Arc::new(ManualClock::at(NOON))).await;
        let marker = format!("{MARKERS}{{numgen}}");
        wait_for_markers(1, || server.cli(&["EXISTS", &marker]).parse().expect("a number")).await;
        server.set_clock(Hands::Standing(NOON));
        Self { server, node, hour: Hour::noon() }
    }
    fn store(&self) -> Arc<P> {
        self.node.store.clone()
    }
    fn now(&self) -> UnixMillis {
        self.hour.now()
    }
    fn advance(&self, duration: Duration) {
        self.server.set_clock(self.hour.advance(duration, &self.node));
    }
    fn step_to(&self, now: UnixMillis) {
        self.server.set_clock(self.hour.step_to(now, &self.node));
    }
    async fn reopen(&mut self) {
        self.node.reconnect(self.server.url()).await;
    }
}

/// The cluster, empty but for its markers.
pub(super) struct SixRedis<P = RedisStore> {
    node: Node<P>,
    hour: Hour,
    cluster: SharedCluster,
}

impl<P: Part> Bench for SixRedis<P> {
    type Store = P;

    async fn new() -> Self {
        let cluster = RedisCluster::shared(before(NOON));
        cluster.clear_except(MARKERS);
        let node = Node::connect(cluster.url(), Arc::new(ManualClock::at(NOON))).await;
        let keys = || {
            cluster.masters().map(|master| master.cli(&["DBSIZE"]).parse::<u32>().expect("a number")).sum()
        };
        wait_for_markers(SLOTS, keys).await;
        cluster.set_clock(Hands::Standing(NOON));
        Self { node, hour: Hour::noon(), cluster }
    }
    fn store(&self) -> Arc<P> {
        self.node.store.clone()
    }
    fn now(&self) -> UnixMillis {
        self.hour.now()
    }
    fn advance(&self, duration: Duration) {
        self.cluster.set_clock(self.hour.advance(duration, &self.node));
    }
    fn step_to(&self, now: UnixMillis) {
        self.cluster.set_clock(self.hour.step_to(now, &self.node));
    }
    async fn reopen(&mut self) {
        self.node.reconnect(self.cluster.url()).await;
    }
}

pub(super) fn before(moment: UnixMillis) -> UnixMillis {
    let earlier_ms = i64::try_from(EARLIER.as_millis()).expect("small");
    UnixMillis(moment.0 - earlier_ms)
}

/// What a round has handed over. A call that goes out on a connection whose end nobody has noticed yet fails, and the next round comes.
async fn handed_over(handover: &Handover) -> u64 {
    let watch = Stopwatch::start();
    loop {
        match handover.round().await {
            Ok(count) => return count,
            Err(error) => watch.assert_within(Duration::from_secs(60), &format!("a round: {error}")),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An emptied Redis, and one that somebody wiped, are other instances: every journal is handed over again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_has_forgotten_is_another_instance() {
    let (mut bench, memory) = (OneRedis::<RedisStore>::new().await, Memory::new().await);
    let (store, journal) = (bench.store(), memory.store());
    let first = store.upload(vec![]).await.expect("answered");
    journal.append(vec![row("A", 1), row("A", 2)]).await.expect("new");
    let handover =
        Handover::new(store.clone(), journal.clone(), Metrics::new().gauges().temporary_numbers_open);
    assert_eq!(handover.round().await.expect("handed over"), 2);
    let resolver = Resolver::new(store.clone(), Some(journal.clone()));
    let decision = Decision { actor: "ada".to_owned(), at_ms: 0, reason: None };
    resolver.decide(&row("A", 2).number, Action::Void, &decision, None).await.expect("void");

    bench.server.kill();
    bench.server.start_again(Data::Empty);
    assert_eq!(handed_over(&handover).await, 1);
    let second = store.upload(vec![]).await.expect("answered");
    assert_ne!(second, first);
    assert_eq!(names(&store, of(Status::Void)).await, ["A 2"]);

    bench.server.cli(&["FLUSHALL"]);
    assert_eq!(handover.round().await.expect("handed over again"), 1);
    assert_ne!(store.upload(vec![]).await.expect("answered"), second);
}

/// What was decided is decided, whoever tells Redis of it first after a loss: nobody decides before all had the time to tell it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_decides_before_redis_that_has_forgotten_was_told_of_decisions() {
    let bench = OneRedis::<RedisStore>::new().await;
    let (store, made_here, decided_here) = (bench.store(), Memory::new().await, Memory::new().await);
    let handover = |journal: &Memory| {
        Handover::new(store.clone(), journal.store(), Metrics::new().gauges().temporary_numbers_open)
    };
    let (maker, decider) = (handover(&made_here), handover(&decided_here));
    let decision = Decision { actor: "ada".to_owned(), at_ms: 0, reason: None };
    let number = row("A", 1).number;
    made_here.store().append(vec![row("A", 1)]).await.expect("new");
    maker.round().await.expect("handed over");
    let resolver = Resolver::new(store.clone(), Some(decided_here.store()));
    resolver.decide(&number, Action::Void, &decision, None).await.expect("void");

    bench.server.cli(&["FLUSHALL"]);
    let elsewhere = Resolver::new(store.clone(), None);
    let refused = |outcome| matches!(outcome, Err(StoreError::Unavailable { .. }));
    assert!(refused(store.find(number.clone()).await.map(drop)), "who comes first notices");
    assert_eq!(maker.round().await.expect("handed over again"), 1, "as an open one");
    let early = elsewhere.decide(&number, Action::Assign, &decision, None).await;
    assert!(matches!(early, Err(ResolveError::Store(StoreError::Unavailable { .. }))), "{early:?}");
    // Nor does a decision count that was under way.
    assert!(refused(store.swap(decided(&row("A", 1), Action::Assign)).await.map(drop)));
    decider.round().await.expect("handed over again");

    bench.advance(Duration::from_secs(5));
    let contrary = elsewhere.decide(&number, Action::Assign, &decision, None).await;
    assert!(matches!(contrary, Err(ResolveError::Conflict(_))), "{contrary:?}");
    elsewhere.decide(&number, Action::Void, &decision, None).await.expect("the first result");
}
