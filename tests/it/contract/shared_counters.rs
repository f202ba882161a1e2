//! Counters on Redis: an authority that nodes share, and a node with its own disk.

use std::{sync::Arc, time::Duration};

use numgen::{
    clock::{ManualClock, UnixMillis},
    lifecycle::Lifecycle,
    secret::Secret,
    store::{
        redis::{
            client::{Client, Options},
            counters::{RedisCounters, Settings},
        },
        sqlite::SqliteStore,
    },
    telemetry::Metrics,
};

use super::{
    Bench, NOON, Sqlite,
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

pub(super) type ClusterCounters = SharedCounters<SharedCluster>;

/// One node. Redis keeps the time of the counters; the node's own clock stands.
pub(super) struct SharedCounters<G = Redis> {
    node: Node,
    disk: tempfile::TempDir,
    ground: G,
}

struct Node {
    counters: Arc<RedisCounters>,
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
            RedisCounters::start(client, disk.clone(), settings, &lifecycle).await.expect("started");
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

impl<G: Ground> Bench for SharedCounters<G> {
    type Store = RedisCounters;

    async fn new() -> Self {
        let (ground, disk) = (G::lay(), tempfile::tempdir().expect("a directory"));
        let node = Node::start(ground.url(), disk.path()).await;
        wait_for_markers(ground.markers().0, || ground.markers().1).await;
        ground.turn(Hands::Standing(NOON));
        Self { node, disk, ground }
    }
    fn store(&self) -> Arc<RedisCounters> {
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
