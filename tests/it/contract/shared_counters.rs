//! Counters on Redis: an authority that nodes share, and a node with its own disk.

use std::{sync::Arc, time::Duration};

use numgen::{
    clock::{ManualClock, UnixMillis},
    counter::Counter,
    lifecycle::Lifecycle,
    secret::Secret,
    store::{
        Bounds, CounterStore, StoreError, Taken,
        counters::{Settings, SharedCounters},
        redis::{
            client::{Client, Options},
            counters::RedisLink,
        },
        sqlite::SqliteStore,
    },
    telemetry::Metrics,
};

use super::{
    Bench, FREE, NOON, Sqlite, counter, plain,
    redis::{MARKERS, SLOTS, before, wait_for_markers},
};
use crate::harness::{Hands, Redis, RedisCluster, SharedCluster};

/// What counters are kept on.
pub(super) trait Ground {
    /// Empty, a while before noon.
    fn lay() -> Self;
    fn url(&self) -> String;
    /// How many markers there are once a node has come, and how many there are now.
    fn markers(&self) -> (u32, u32);
    fn turn(&self, hands: Hands);
}

impl Ground for Redis {
    fn lay() -> Self {
        Self::start_with_clock(Hands::Standing(before(NOON)))
    }
    fn url(&self) -> String {
        self.url()
    }
    fn markers(&self) -> (u32, u32) {
        (1, self.cli(&["EXISTS", &format!("{MARKERS}{{numgen}}")]).parse().expect("a number"))
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
    fn url(&self) -> String {
        RedisCluster::url(self)
    }
    fn markers(&self) -> (u32, u32) {
        let keys = self.masters().map(|master| master.cli(&["DBSIZE"]).parse::<u32>().expect("a number"));
        (SLOTS, keys.sum())
    }
    fn turn(&self, hands: Hands) {
        self.set_clock(hands);
    }
}

pub(super) type CountersOnRedis = OneNode<Redis>;
pub(super) type CountersOnCluster = OneNode<SharedCluster>;

/// One node. Redis keeps the time of the counters; the node's own clock stands.
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
    async fn start(url: String, disk: &std::path::Path) -> Self {
        let (lifecycle, timeout) = (Lifecycle::new(), Duration::from_secs(20));
        let clock = Arc::new(ManualClock::at(NOON));
        let options = Options { ca_file: None, timeout, clock: clock.clone(), metrics: Metrics::new() };
        let client = Client::connect(&Secret::new(url), options, &lifecycle).await.expect("a good URL");
        let disk = Sqlite::open(disk, &clock);
        let settings = Settings { node: "n1".to_owned(), segment_size: 1_000, timeout };
        let counters =
            SharedCounters::start(Arc::new(RedisLink::new(client)), disk.clone(), settings, &lifecycle)
                .await
                .expect("started");
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
        let node = Node::start(ground.url(), disk.path()).await;
        wait_for_markers(ground.markers().0, || ground.markers().1).await;
        ground.turn(Hands::Standing(NOON));
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
        self.node = Node::start(self.ground.url(), self.disk.path()).await;
    }
}

/// Two nodes, of which one has not heard of a change of the rule.
async fn a_scheme_that_is_retired_on_one_node_draws_nothing_on_another<G: Ground>() {
    let mut bench = OneNode::<G>::new().await;
    let (a, disk) = (&bench.node, tempfile::tempdir().expect("a directory"));
    let b = Node::start(bench.ground.url(), disk.path()).await;
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
