//! Counters that nodes share: a store that is their authority, and a node with its own disk.

use std::{sync::Arc, time::Duration};

use numgen::{
    clock::{ManualClock, UnixMillis},
    config::StrictLocking,
    counter::Counter,
    lifecycle::Lifecycle,
    secret::Secret,
    store::{
        Bounds, CounterStore, StoreError, Taken,
        counters::{AuthorityLink, Closed, Settings, SharedCounters},
        postgres::{self, PostgresStore, counters::PostgresLink},
        redis::{
            client::{Client, Options},
            counters::RedisLink,
        },
        sqlite::SqliteStore,
    },
    telemetry::Metrics,
};

use super::{
    Bench, FREE, NOON, Sqlite, counter, key, plain,
    redis::{MARKERS, SLOTS, before, wait_for_markers},
};
use crate::harness::{Database, Hands, Postgres, Redis, RedisCluster, SharedCluster, wait_reachable};

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What counters are kept on.
pub(super) trait Ground {
    /// Empty, a while before noon.
    fn lay() -> Self;
    /// The way of a new node.
    async fn link(&self, clock: &Arc<ManualClock>, lifecycle: &Lifecycle) -> Arc<dyn AuthorityLink>;
    /// Waits until the store has noticed that it is new, and everybody has had the time to say what they know.
    async fn settle(&self);
    /// Sets the clock of the store, where the counters go by it.
    fn turn(&self, hands: Hands);
}

async fn redis_link(url: String, clock: &Arc<ManualClock>, lifecycle: &Lifecycle) -> Arc<dyn AuthorityLink> {
    let options = Options { ca_file: None, timeout: TIMEOUT, clock: clock.clone(), metrics: Metrics::new() };
    let client = Client::connect(&Secret::new(url), options, lifecycle).await.expect("a good URL");
    Arc::new(RedisLink::new(client))
}

impl Ground for Redis {
    fn lay() -> Self {
        Self::start_with_clock(Hands::Standing(before(NOON)))
    }
    async fn link(&self, clock: &Arc<ManualClock>, lifecycle: &Lifecycle) -> Arc<dyn AuthorityLink> {
        redis_link(self.url(), clock, lifecycle).await
    }
    async fn settle(&self) {
        let marker = format!("{MARKERS}{{numgen}}");
        wait_for_markers(1, || self.cli(&["EXISTS", &marker]).parse().expect("a number")).await;
        self.set_clock(Hands::Standing(NOON));
    }
    fn turn(&self, hands: Hands) {
        self.set_clock(hands);
    }
}

impl Ground for SharedCluster {
    fn lay() -> Self {
        let cluster = RedisCluster::shared(before(NOON));
        cluster.clear_except(MARKERS);
        cluster
    }
    async fn link(&self, clock: &Arc<ManualClock>, lifecycle: &Lifecycle) -> Arc<dyn AuthorityLink> {
        redis_link(RedisCluster::url(self), clock, lifecycle).await
    }
    async fn settle(&self) {
        let keys =
            || self.masters().map(|master| master.cli(&["DBSIZE"]).parse::<u32>().expect("a number")).sum();
        wait_for_markers(SLOTS, keys).await;
        self.set_clock(Hands::Standing(NOON));
    }
    fn turn(&self, hands: Hands) {
        self.set_clock(hands);
    }
}

impl Ground for Database {
    fn lay() -> Self {
        Postgres::create_database().with_clock(before(NOON))
    }
    async fn link(&self, clock: &Arc<ManualClock>, lifecycle: &Lifecycle) -> Arc<dyn AuthorityLink> {
        let settings = postgres::Settings {
            clock: clock.clone(),
            timeout: TIMEOUT,
            locking: StrictLocking::Row,
            pool_size: 4,
            node: None,
            ca_file: None,
        };
        let store = PostgresStore::connect(&Secret::new(self.url()), settings, &Metrics::new(), lifecycle);
        Arc::new(PostgresLink::new(store.expect("a good URL"), lifecycle))
    }
    async fn settle(&self) {
        let lifecycle = Lifecycle::new();
        let link = self.link(&Arc::new(ManualClock::at(NOON)), &lifecycle).await;
        let first = link.close(&key("ANY"), 0, TIMEOUT).await.expect("answered");
        assert!(matches!(first, Closed::Settling { .. }), "{first:?}");
        self.set_clock(NOON);
        let listed = link.close(&key("ANY"), 0, TIMEOUT).await.expect("answered");
        assert_eq!(listed, Closed::Listed(Vec::new()));
        lifecycle.drain();
    }
    fn turn(&self, hands: Hands) {
        let Hands::Standing(at) = hands else { panic!("its clock stands: {hands:?}") };
        self.set_clock(at);
    }
}

pub(super) type CountersOnRedis = OneNode<Redis>;
pub(super) type CountersOnCluster = OneNode<SharedCluster>;
pub(super) type CountersOnPostgres = OneNode<Database>;

/// One node. The store keeps the time of the counters; the node's own clock stands.
pub(super) struct OneNode<G> {
    node: Node,
    disk: tempfile::TempDir,
    ground: G,
}

struct Node {
    counters: Arc<SharedCounters>,
    disk: Arc<SqliteStore>,
    lifecycle: Lifecycle,
}

impl Node {
    async fn start(ground: &impl Ground, disk: &std::path::Path) -> Self {
        let (lifecycle, clock) = (Lifecycle::new(), Arc::new(ManualClock::at(NOON)));
        let link = ground.link(&clock, &lifecycle).await;
        // What is asked before then is answered by what stands in for a store that is away.
        wait_reachable(link.reachable(), true).await;
        let disk = Sqlite::open(disk, &clock);
        let settings = Settings { node: "n1".to_owned(), segment_size: 1_000, timeout: TIMEOUT };
        let counters =
            SharedCounters::start(link, disk.clone(), settings, &lifecycle).await.expect("started");
        Self { counters: Arc::new(counters), disk, lifecycle }
    }

    async fn stop(&self) {
        self.counters.leave(Duration::from_secs(5)).await;
        self.lifecycle.drain();
        self.lifecycle.finished(Duration::from_secs(5)).await;
        self.disk.close().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.lifecycle.drain();
    }
}

impl<G: Ground> Bench for OneNode<G> {
    type Store = SharedCounters;

    async fn new() -> Self {
        let (ground, disk) = (G::lay(), tempfile::tempdir().expect("a directory"));
        let node = Node::start(&ground, disk.path()).await;
        ground.settle().await;
        Self { node, disk, ground }
    }
    fn store(&self) -> Arc<SharedCounters> {
        self.node.counters.clone()
    }
    fn now(&self) -> UnixMillis {
        NOON
    }
    fn advance(&self, duration: Duration) {
        self.ground.turn(Hands::Standing(NOON.plus(duration)));
    }
    fn step_to(&self, now: UnixMillis) {
        self.ground.turn(Hands::Standing(now));
    }
    async fn reopen(&mut self) {
        self.node.stop().await;
        self.node = Node::start(&self.ground, self.disk.path()).await;
    }
}

/// Two nodes, of which one has not heard of a change of the rule.
async fn a_scheme_that_is_retired_on_one_node_draws_nothing_on_another<G: Ground>() {
    let mut bench = OneNode::<G>::new().await;
    let (a, disk) = (&bench.node, tempfile::tempdir().expect("a directory"));
    let b = Node::start(&bench.ground, disk.path()).await;
    let new = |floor| Bounds { scheme: 1, floor, ..FREE };
    let draw = async |node: &Node, on: &Counter, bounds| match node
        .counters
        .take(on.clone(), bounds, vec![plain(1)])
        .await
    {
        Ok(taken) => {
            let [Taken::Fresh(values)] = &taken[..] else { panic!("{taken:?}") };
            Some(values.last().expect("a value"))
        }
        Err(StoreError::Superseded { .. }) => None,
        Err(other) => panic!("{other:?}"),
    };
    let months = ["202611", "202612", "202701"].map(|month| counter("RETIRED", month));
    let mut highest = draw(a, &months[0], FREE).await.expect("in force");
    for _ in 0..5 {
        highest = draw(&b, &months[1], FREE).await.expect("in force");
    }
    // It has seen the counter of this month, and never draws from it.
    let floor = a.counters.retire(&months[0].key, 1).await.expect("retired");
    assert!(floor >= highest, "{floor} is below what was issued");
    for month in &months {
        assert_eq!(draw(&b, month, FREE).await, None, "{month}");
        assert_eq!(draw(a, month, FREE).await, None, "{month}");
    }
    let shown = b.counters.counters(&months[0].key).await.expect("read");
    for state in shown {
        let ends = state.segments.iter().map(|segment| segment.to).chain([state.last]);
        assert!(ends.max() <= Some(floor), "above the floor: {state:?}");
    }
    // It learns the new rule, and draws again.
    let all = counter("RETIRED", "");
    assert_eq!(draw(&b, &all, new(floor)).await.map(|value| value.0), Some(floor.0 + 1));
    assert_eq!(draw(a, &months[0], new(floor)).await.map(|value| value.0), Some(floor.0 + 1));
    assert_eq!(draw(&b, &months[0], FREE).await, None);
    b.stop().await;
    // Nor does the next process, which comes with what is on disk.
    bench.reopen().await;
    assert_eq!(draw(&bench.node, &months[1], FREE).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_a_scheme_that_is_retired_on_one_node_draws_nothing_on_another() {
    a_scheme_that_is_retired_on_one_node_draws_nothing_on_another::<Redis>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_a_scheme_that_is_retired_on_one_node_draws_nothing_on_another() {
    a_scheme_that_is_retired_on_one_node_draws_nothing_on_another::<SharedCluster>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_scheme_that_is_retired_on_one_node_draws_nothing_on_another() {
    a_scheme_that_is_retired_on_one_node_draws_nothing_on_another::<Database>().await;
}
