//! Stores to hold to the contract, each with its clock.

use std::{path::Path, sync::Arc, thread, time::Duration};

use numgen::{
    clock::{Clock, ManualClock, UnixMillis},
    store::{
        memory::MemoryStore,
        sqlite::{OpenError, SqliteStore},
    },
};

use super::{EPOCH, NOON};

/// A store under test, with a clock that stands until a test moves it.
pub(super) trait Bench {
    /// What is tested; the suites ask for the traits that they need.
    type Store: Send + Sync + 'static;

    /// An empty store, at [`NOON`].
    async fn new() -> Self;
    fn store(&self) -> Arc<Self::Store>;
    /// What the clock of the store shows: the process's own, or that of its server.
    fn now(&self) -> UnixMillis;
    /// Lets time pass.
    fn advance(&self, duration: Duration);
    /// Steps the wall clock alone.
    fn step_to(&self, now: UnixMillis);
    /// Ends the store cleanly and opens it again, where it outlives its process.
    async fn reopen(&mut self);
}

pub(super) struct Memory {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
}

impl Bench for Memory {
    type Store = MemoryStore;

    async fn new() -> Self {
        let clock = Arc::new(ManualClock::at(NOON));
        Self { store: Arc::new(MemoryStore::new(clock.clone(), EPOCH)), clock }
    }
    fn store(&self) -> Arc<MemoryStore> {
        self.store.clone()
    }
    fn now(&self) -> UnixMillis {
        self.clock.now()
    }
    fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
    }
    fn step_to(&self, now: UnixMillis) {
        self.clock.step_to(now);
    }
    async fn reopen(&mut self) {}
}

pub(super) struct Sqlite {
    store: Option<Arc<SqliteStore>>,
    clock: Arc<ManualClock>,
    directory: tempfile::TempDir,
}

impl Sqlite {
    pub(super) fn open(directory: &Path, clock: &Arc<ManualClock>) -> Arc<SqliteStore> {
        Arc::new(Self::try_open(directory, clock).expect("a store in an empty or closed directory"))
    }

    /// A process that another test is just starting holds copies of our locks until it has become another program: a directory that
    /// was closed a moment ago may seem in use.
    pub(super) fn try_open(directory: &Path, clock: &Arc<ManualClock>) -> Result<SqliteStore, OpenError> {
        let open = || SqliteStore::open(directory, clock.clone(), EPOCH, Duration::from_secs(30));
        for _ in 0..50 {
            match open() {
                Err(OpenError::AlreadyRunning { .. }) => thread::sleep(Duration::from_millis(10)),
                other => return other,
            }
        }
        open()
    }
}

impl Bench for Sqlite {
    type Store = SqliteStore;

    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(NOON));
        Self { store: Some(Self::open(directory.path(), &clock)), clock, directory }
    }
    fn store(&self) -> Arc<SqliteStore> {
        self.store.clone().expect("open")
    }
    fn now(&self) -> UnixMillis {
        self.clock.now()
    }
    fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
    }
    fn step_to(&self, now: UnixMillis) {
        self.clock.step_to(now);
    }
    async fn reopen(&mut self) {
        let store = self.store.take().expect("open");
        store.close().await;
        drop(store);
        self.store = Some(Self::open(self.directory.path(), &self.clock));
    }
}
