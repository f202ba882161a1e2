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
    redis::{MARKERS, before, wait_for_markers},
};
use crate::harness::{Hands, Redis};

/// One node. Redis keeps the time of the counters; the node's own clock stands.
pub(super) struct SharedCounters {
    server: Redis,
    disk: tempfile::TempDir,
    node: Node,
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

impl Bench for SharedCounters {
    type Store = RedisCounters;

    async fn new() -> Self {
        let server = Redis::start_with_clock(Hands::Standing(before(NOON)));
        let disk = tempfile::tempdir().expect("a directory");
        let node = Node::start(server.url(), disk.path()).await;
        let marker = format!("{MARKERS}{{numgen}}");
        wait_for_markers(1, || server.cli(&["EXISTS", &marker]).parse().expect("a number")).await;
        server.set_clock(Hands::Standing(NOON));
        Self { server, disk, node }
    }
    fn store(&self) -> Arc<RedisCounters> {
        self.node.counters.clone()
    }
    fn now(&self) -> UnixMillis {
        NOON
    }
    fn advance(&self, duration: Duration) {
        self.server.set_clock(Hands::Standing(NOON.plus(duration)));
    }
    fn step_to(&self, now: UnixMillis) {
        self.server.set_clock(Hands::Standing(now));
    }
    async fn reopen(&mut self) {
        self.node.stop().await;
        self.node = Node::start(self.server.url(), self.disk.path()).await;
    }
}
