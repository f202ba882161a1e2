//! The embedded store: one SQLite file in the data directory, durable before it is answered.
//!
//! Invariants:
//! - one process has the directory (`directory.rs`: a file lock), one thread writes (`writer.rs`), others only read (`reader.rs`);
//! - every answer follows the COMMIT that carries it (WAL, `synchronous=FULL`: an fsync each), and all work that waits shares
//!   one COMMIT;
//! - every value at or below a cursor is issued or listed (`settlement.rs`: also after a crash).
//!
//! Order of reading: `schema/` and `schema.rs`, `directory.rs`, `writer.rs`, `workspace.rs`, then the traits: `rules.rs`,
//! `counters.rs`, `ledger.rs`, `workers.rs`, `temporary.rs`, `audit.rs`.

mod audit;
mod copies;
mod counters;
mod directory;
mod failure;
mod ledger;
mod ledger_file;
mod reader;
mod rules;
mod schema;
mod segments;
mod settlement;
mod temporary;
#[cfg(test)]
mod tests;
mod values;
mod workers;
mod workspace;
mod writer;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError},
    },
    thread::JoinHandle,
    time::Duration,
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use self::{
    directory::Directory,
    failure::Failure,
    workspace::Workspace,
    writer::{Call, Job, Writer},
};
use super::{StoreError, StoreFuture, calls::Calls};
use crate::{
    clock::{Clock, UnixMillis},
    language::{Language, Localized},
    telemetry::Metrics,
};

pub use ledger_file::LedgerFile;

/// The name of this store in errors and metrics.
const STORE: &str = "sqlite";

/// How long an audit may take that reads a whole ledger.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(120);

/// How often `drop` looks whether a thread has ended.
const POLL: Duration = Duration::from_millis(1);

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the lock.
    #[error(
        "another numgen is running on the data directory {}: stop it, or choose another directory",
        path.display()
    )]
    AlreadyRunning {
        /// The directory.
        path: PathBuf,
    },
    /// The directory or a file in it cannot be made, opened or locked.
    #[error("the data directory {} cannot be used", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The database was written by a later program.
    #[error(
        "the database has schema version {found}, this program knows up to {known}: use the program that wrote it, or a later one"
    )]
    Newer {
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// SQLite cannot work with the file.
    #[error("the database in the data directory cannot be opened")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A thread cannot be started.
    #[error("a thread for the database cannot be started")]
    Thread(#[source] io::Error),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Box::new(error))
    }
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        Self::Database(Box::new(failure))
    }
}

impl Localized for OpenError {
    fn localized(&self, language: Language) -> String {
        match (language, self) {
            (Language::English, _) => self.to_string(),
            (Language::Chinese, Self::AlreadyRunning { path }) => {
                format!("另一个 numgen 进程正在使用数据目录 {}：请先停止它，或改用其他目录", path.display())
            }
            (Language::Chinese, Self::Directory { path, .. }) => {
                format!("无法使用数据目录 {}", path.display())
            }
            (Language::Chinese, Self::Newer { found, known }) => {
                format!("数据库的结构版本为 {found}，本程序只支持到 {known}：请使用写入它的程序或更新的版本")
            }
            (Language::Chinese, Self::Database(_)) => "无法打开数据目录中的数据库".to_owned(),
            (Language::Chinese, Self::Thread(_)) => "无法启动数据库线程".to_owned(),
        }
    }
}

/// The handle; its threads end when it is closed or dropped.
pub struct SqliteStore {
    writer: SyncSender<writer::Message>,
    pages: SyncSender<reader::Message>,
    audits: SyncSender<reader::Message>,
    threads: Vec<JoinHandle<()>>,
    timeout: Duration,
    calls: Calls,
}

impl SqliteStore {
    /// Opens the store in `data_dir`, making both if needed. `epoch` is the zero of ID timestamps, `timeout` the longest that a
    /// call waits for its answer. Blocks for a few milliseconds, longer after a crash.
    ///
    /// # Errors
    ///
    /// `OpenError::AlreadyRunning` when another process uses the directory, the other variants when it cannot be used.
    pub fn open(
        data_dir: &Path,
        clock: Arc<dyn Clock>,
        epoch: UnixMillis,
        timeout: Duration,
    ) -> Result<Self, OpenError> {
        Self::start(prepare(data_dir, clock, epoch, timeout)?, timeout)
    }

    fn start(writer: Writer, timeout: Duration) -> Result<Self, OpenError> {
        let database = writer.directory.database().to_owned();
        let (pages, pages_thread) = reader::start("sqlite-pages", &database, timeout)?;
        let (audits, audits_thread) = reader::start("sqlite-audits", &database, timeout)?;
        let (writer, writer_thread) = writer.start().map_err(OpenError::Thread)?;
        // Readers first: the last connection to close folds the log into the database.
        let threads = vec![pages_thread, audits_thread, writer_thread];
        Ok(Self { writer, pages, audits, threads, timeout, calls: Calls::default() })
    }

    /// The same store, which counts its calls.
    #[must_use]
    pub fn measured(mut self, metrics: &Metrics) -> Self {
        self.calls.measure(metrics);
        self
    }

    /// Finishes what was asked for before, declares every answer given, closes the database and lets go of the directory. Calls
    /// that come later are `Unavailable`. Waits at most for the timeout of calls.
    pub async fn close(&self) {
        for reader in [&self.pages, &self.audits] {
            let (done, closed) = oneshot::channel();
            if reader.try_send(reader::Message::Close(done)).is_ok() {
                self.until(closed).await;
            }
        }
        let (done, closed) = oneshot::channel();
        if self.writer.try_send(writer::Message::Close(done)).is_ok() {
            self.until(closed).await;
        }
    }

    /// Waits until a thread has dropped its end.
    async fn until(&self, closed: oneshot::Receiver<()>) {
        if tokio::time::timeout(self.timeout, closed).await.is_err() {
            tracing::warn!("a thread of the database did not end in time");
        }
    }

    /// Has `work` done by the writer.
    fn write<'a, T: Send + 'static>(
        &'a self,
        operation: &'static str,
        work: impl FnOnce(&mut Workspace) -> Result<T, Failure> + Send + 'static,
    ) -> StoreFuture<'a, T> {
        self.write_or(operation, work, |_result| None)
    }

    /// The same, with a job for the case that the result is durable and the caller gone.
    fn write_or<'a, T: Send + 'static>(
        &'a self,
        operation: &'static str,
        work: impl FnOnce(&mut Workspace) -> Result<T, Failure> + Send + 'static,
        leftover: impl FnOnce(T) -> Option<Box<dyn Job>> + Send + 'static,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let call = Call { operation, work: Some(work), result: None, reply, leftover };
            let answered = async {
                send(&self.writer, writer::Message::Job(Box::new(call)), operation)?;
                await_answer(answer, operation, self.timeout).await
            };
            self.calls.timed(STORE, operation, answered).await
        })
    }

    /// Has `work` done by the reader of pages.
    fn read<'a, T: Send + 'static>(
        &'a self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> StoreFuture<'a, T> {
        let read = read_by(&self.pages, operation, self.timeout, work);
        Box::pin(self.calls.timed(STORE, operation, read))
    }

    /// Has `work` done by the reader of whole ledgers.
    fn audit<'a, T: Send + 'static>(
        &'a self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> StoreFuture<'a, T> {
        let read = read_by(&self.audits, operation, AUDIT_TIMEOUT.max(self.timeout), work);
        Box::pin(self.calls.timed(STORE, operation, read))
    }
}

/// Everything up to the start of the threads.
fn prepare(
    data_dir: &Path,
    clock: Arc<dyn Clock>,
    epoch: UnixMillis,
    timeout: Duration,
) -> Result<Writer, OpenError> {
    let directory = Directory::claim(data_dir)?;
    let mut connection = Connection::open(directory.database())?;
    configure(&connection, timeout)?;
    schema::migrate(&mut connection, clock.now())?;
    // The lock proves that whoever held a slot is gone.
    connection.execute("UPDATE worker_slots SET nonce = NULL WHERE nonce IS NOT NULL", [])?;
    let workspace = Workspace::new(connection, clock, epoch)?;
    let counters = settlement::list_unconfirmed(&workspace)?;
    if counters > 0 {
        tracing::warn!(
            counters,
            "the previous process ended without closing: its last values are listed as unconfirmed"
        );
    }
    Ok(Writer {
        workspace,
        directory,
        backlog: Vec::new(),
        #[cfg(test)]
        fault: None,
    })
}

/// Durability and habits of the connection that writes.
fn configure(connection: &Connection, timeout: Duration) -> Result<(), OpenError> {
    connection.busy_timeout(timeout)?;
    connection.set_prepared_statement_cache_capacity(64);
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Failure::Corrupt(format!("journal mode {mode} instead of wal")).into());
    }
    // FULL: the log is synced at each commit. recursive_triggers: REPLACE cannot get round the triggers of the ledger.
    // journal_size_limit: a log that grew while an audit read an old state shrinks again.
    connection.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA recursive_triggers = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    Ok(())
}

/// Hands a message to a thread without waiting for room.
fn send<M>(queue: &SyncSender<M>, message: M, operation: &'static str) -> Result<(), StoreError> {
    queue.try_send(message).map_err(|error| {
        let failure = match error {
            TrySendError::Full(_) => Failure::Congested,
            TrySendError::Disconnected(_) => Failure::Closed,
        };
        failure.during(operation)
    })
}

/// Waits for the answer, however the thread fares.
async fn await_answer<T>(
    answer: oneshot::Receiver<Result<T, StoreError>>,
    operation: &'static str,
    timeout: Duration,
) -> Result<T, StoreError> {
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(result)) => result,
        Ok(Err(_dropped)) => Err(Failure::Closed.during(operation)),
        Err(_elapsed) => Err(StoreError::Timeout { store: STORE, operation }),
    }
}

fn read_by<'a, T: Send + 'static>(
    queue: &'a SyncSender<reader::Message>,
    operation: &'static str,
    timeout: Duration,
    work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
) -> StoreFuture<'a, T> {
    Box::pin(async move {
        let (reply, answer) = oneshot::channel();
        let read = Box::new(move |connection: &Connection| {
            if !reply.is_closed() {
                // A caller that is gone does not miss what was only read.
                let _gone = reply.send(work(connection).map_err(|failure| failure.during(operation)));
            }
        });
        send(queue, reader::Message::Read(read), operation)?;
        await_answer(answer, operation, timeout).await
    })
}

impl Drop for SqliteStore {
    /// Closes if `close` did not, and waits for the threads as long as for a call: then the directory is free. A thread that
    /// hangs on its disk is left behind, so that the process can end.
    fn drop(&mut self) {
        for reader in [&self.pages, &self.audits] {
            let (done, _closed) = oneshot::channel();
            let _already_closed = reader.try_send(reader::Message::Close(done));
        }
        let (done, _closed) = oneshot::channel();
        let _already_closed = self.writer.try_send(writer::Message::Close(done));
        for thread in self.threads.drain(..) {
            let mut waited = Duration::ZERO;
            while !thread.is_finished() && waited < self.timeout {
                std::thread::sleep(POLL);
                waited += POLL;
            }
            if !thread.is_finished() || thread.join().is_err() {
                tracing::error!("a thread of the database hangs or has panicked");
            }
        }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}
