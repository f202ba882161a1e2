//! Continuous counters on a PostgreSQL that fails: killed under load, connections cut at any moment, files put back.

mod keys;
mod load;
mod memory;
mod outage;

use std::{path::Path, sync::Arc, time::Duration};

use numgen::{
    calendar::Period,
    clock::SystemClock,
    config::StrictLocking,
    counter::{Counter, SequenceValue},
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    rule::OnOutage,
    secret::Secret,
    store::{
        Bounds, CounterStore, TakeRequest, Taken,
        counters::{Settings, SharedCounters},
        postgres::{self, PostgresStore, counters::PostgresLink},
        sqlite::SqliteStore,
    },
    telemetry::Metrics,
};
use tempfile::TempDir;

const SECOND: Duration = Duration::from_secs(1);

const FREE: Bounds = Bounds {
    base: SequenceValue(0),
    floor: SequenceValue(0),
    max: SequenceValue::MAX,
    scheme: 0,
    on_outage: OnOutage::Segment,
};

fn counter(key: &str, period: &str) -> Counter {
    Counter { key: PrefixKey::parse(key).expect("a prefix key"), period: Period::new(period) }
}

fn connect(url: &str, lifecycle: &Lifecycle) -> PostgresStore {
    let settings = postgres::Settings {
        clock: Arc::new(SystemClock::new()),
        timeout: 10 * SECOND,
        locking: StrictLocking::Row,
        pool_size: 6,
        node: None,
        ca_file: None,
    };
    let url = Secret::new(url.to_owned());
    PostgresStore::connect(&url, settings, &Metrics::new(), lifecycle).expect("a good URL")
}

/// The way of one node to its authority.
fn link(url: &str, lifecycle: &Lifecycle) -> PostgresLink {
    PostgresLink::new(connect(url, lifecycle), lifecycle)
}

/// One node, in this process.
struct Node {
    counters: SharedCounters,
    lifecycle: Lifecycle,
    _disk: TempDir,
}

impl Node {
    async fn start(url: &str, name: &str) -> Self {
        let disk = tempfile::tempdir().expect("a directory");
        let lifecycle = Lifecycle::new();
        let settings = Settings { node: name.to_owned(), segment_size: 1_000, timeout: 2 * SECOND };
        let counters =
            SharedCounters::start(Arc::new(link(url, &lifecycle)), open(disk.path()), settings, &lifecycle);
        Self { counters: counters.await.expect("started"), lifecycle, _disk: disk }
    }

    /// Draws until a value comes from the authority.
    async fn wait_normal(&self, on: &Counter) -> u64 {
        let normal = async {
            loop {
                let request = TakeRequest { count: 1, claim: None };
                let taken = self.counters.take(on.clone(), FREE, vec![request]).await;
                if let Ok([Taken::Fresh(values)]) = taken.as_deref() {
                    return values.last().expect("a value").0;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(30 * SECOND, normal).await.expect("back to normal in 30 s")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.lifecycle.drain();
    }
}

fn open(directory: &Path) -> Arc<SqliteStore> {
    let clock = Arc::new(SystemClock::new());
    let epoch = numgen::clock::UnixMillis(0);
    Arc::new(SqliteStore::open(directory, clock, epoch, 30 * SECOND).expect("an empty directory"))
}
