//! PostgreSQL held to the contract: a database for each test, whose clock stands until the test moves it.

use std::{
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use numgen::{
    clock::{ManualClock, UnixMillis},
    config::StrictLocking,
    lifecycle::Lifecycle,
    secret::Secret,
    store::{
        AcquireRequest, Nonce, TemporaryStore, Tenure, WorkerStore,
        postgres::{PostgresStore, Settings, workers::Workers},
    },
    telemetry::Metrics,
};

use super::{Bench, EPOCH, NOON};
use crate::harness::{self, Database, wait_reachable};

/// Databases begin so long before noon: whatever has to settle has settled by then.
const EARLIER_MS: i64 = 60_000;

/// A part of the store that has traits of its own.
pub(super) trait Part: Send + Sync + Sized + 'static {
    fn of(store: PostgresStore) -> Self;
    /// The first contact, from which a memory settles.
    async fn begin(&self);
}

impl Part for PostgresStore {
    fn of(store: PostgresStore) -> Self {
        store
    }
    async fn begin(&self) {
        self.upload(Vec::new()).await.expect("a database");
    }
}

impl Part for Workers {
    fn of(store: PostgresStore) -> Self {
        store.workers(0, EPOCH)
    }
    async fn begin(&self) {
        let request = AcquireRequest {
            nonce: Nonce([0; 16]),
            slots: 0..0,
            window_ms: 1,
            ttl_ms: 1,
            tenure: Tenure::Lease,
        };
        self.acquire(request).await.expect("a database");
    }
}

/// How strict counters are taken.
pub(super) trait Manner: Send + Sync + 'static {
    const LOCKING: StrictLocking;
}

/// By the lock of their row.
pub(super) struct ByRow;

/// By their version.
pub(super) struct ByVersion;

impl Manner for ByRow {
    const LOCKING: StrictLocking = StrictLocking::Row;
}

impl Manner for ByVersion {
    const LOCKING: StrictLocking = StrictLocking::Optimistic;
}

pub(super) type Postgres = OnePostgres<PostgresStore>;
pub(super) type Optimistic = OnePostgres<PostgresStore, ByVersion>;
pub(super) type PostgresWorkers = OnePostgres<Workers>;

/// A database for one test, and a node on it.
pub(super) struct OnePostgres<P, M = ByRow> {
    database: Database,
    store: Option<Arc<P>>,
    clock: Arc<ManualClock>,
    lifecycle: Lifecycle,
    now: AtomicI64,
    manner: PhantomData<M>,
}

impl<P: Part, M: Manner> OnePostgres<P, M> {
    async fn connect(&mut self) {
        self.lifecycle = Lifecycle::new();
        let settings = Settings {
            clock: self.clock.clone(),
            timeout: Duration::from_secs(20),
            locking: M::LOCKING,
            pool_size: 8,
            node: None,
            ca_file: None,
        };
        let url = Secret::new(self.database.url());
        let store = PostgresStore::connect(&url, settings, &Metrics::new(), &self.lifecycle);
        let store = store.expect("a good URL");
        // The deadline of a worker's call is far shorter than what the tests of a loaded machine may take to connect.
        wait_reachable(store.reachable(), true).await;
        self.store = Some(Arc::new(P::of(store)));
    }

    fn turn(&self) {
        self.database.set_clock(self.now());
    }
}

impl<P: Part, M: Manner> Bench for OnePostgres<P, M> {
    type Store = P;

    async fn new() -> Self {
        let database = harness::Postgres::create_database().with_clock(UnixMillis(NOON.0 - EARLIER_MS));
        let mut bench = Self {
            database,
            store: None,
            clock: Arc::new(ManualClock::at(NOON)),
            lifecycle: Lifecycle::new(),
            now: AtomicI64::new(NOON.0),
            manner: PhantomData,
        };
        bench.connect().await;
        bench.store().begin().await;
        bench.turn();
        bench
    }
    fn store(&self) -> Arc<P> {
        self.store.clone().expect("connected")
    }
    fn now(&self) -> UnixMillis {
        UnixMillis(self.now.load(Ordering::SeqCst))
    }
    fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
        self.now.store(self.now().plus(duration).0, Ordering::SeqCst);
        self.turn();
    }
    fn step_to(&self, now: UnixMillis) {
        self.clock.step_to(now);
        self.now.store(now.0, Ordering::SeqCst);
        self.turn();
    }
    async fn reopen(&mut self) {
        self.lifecycle.drain();
        self.lifecycle.finished(Duration::from_secs(5)).await;
        self.connect().await;
    }
}

impl<P, M> Drop for OnePostgres<P, M> {
    fn drop(&mut self) {
        self.lifecycle.drain();
    }
}
