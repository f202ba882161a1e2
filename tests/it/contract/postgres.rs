//! Stores on a real PostgreSQL, a database for each.

use std::{sync::Arc, time::Duration};

use numgen::{
    clock::{Clock, ManualClock, UnixMillis},
    config::StrictLocking,
    lifecycle::Lifecycle,
    secret::Secret,
    store::postgres::{PostgresStore, Settings},
    telemetry::Metrics,
};

use super::{NOON, bench::Bench};
use crate::harness::{Database, Postgres};

/// A store, and where its memory is.
pub(super) struct Shared {
    store: Option<Arc<PostgresStore>>,
    clock: Arc<ManualClock>,
    database: Database,
    locking: StrictLocking,
    lifecycle: Lifecycle,
}

impl Shared {
    async fn on_a_new_database(locking: StrictLocking) -> Self {
        let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
        let clock = Arc::new(ManualClock::at(NOON));
        let mut shared = Self { store: None, clock, database, locking, lifecycle };
        shared.connect();
        shared
    }

    /// Another node on the same database.
    fn connect(&mut self) {
        let settings = Settings {
            clock: self.clock.clone(),
            timeout: Duration::from_secs(30),
            locking: self.locking,
            pool_size: 4,
            ca_file: None,
        };
        let url = Secret::new(self.database.url());
        let store = PostgresStore::connect(&url, settings, &Metrics::new(), &self.lifecycle);
        self.store = Some(Arc::new(store.expect("a good URL")));
    }

    async fn reopen(&mut self) {
        self.store = None;
        self.lifecycle.drain();
        self.lifecycle.finished(Duration::from_secs(10)).await;
        self.lifecycle = Lifecycle::new();
        self.connect();
    }
}

macro_rules! bench {
    ($(#[$doc:meta])* $name:ident: $locking:expr) => {
        $(#[$doc])*
        pub(super) struct $name(Shared);

        impl Bench for $name {
            type Store = PostgresStore;

            async fn new() -> Self {
                Self(Shared::on_a_new_database($locking).await)
            }
            fn store(&self) -> Arc<PostgresStore> {
                self.0.store.clone().expect("open")
            }
            fn now(&self) -> UnixMillis {
                self.0.clock.now()
            }
            fn advance(&self, duration: Duration) {
                self.0.clock.advance(duration);
            }
            fn step_to(&self, now: UnixMillis) {
                self.0.clock.step_to(now);
            }
            async fn reopen(&mut self) {
                self.0.reopen().await;
            }
        }
    };
}

bench!(
    /// Strict counters by the lock of their row.
    RowLocks: StrictLocking::Row
);
bench!(
    /// The same by versions.
    Optimistic: StrictLocking::Optimistic
);
