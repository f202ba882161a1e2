//! The store that many nodes share and that forgets nothing: PostgreSQL.
//!
//! Invariants:
//! - nothing here ever waits at the start: a database that is away is connected to in the background, for as long as it takes;
//! - nothing is answered before the schema is as this program needs it and the server was seen to keep what it acknowledges;
//! - every call is one transaction with one deadline; what is not answered is unknown, and every call may be made again with the
//!   same arguments by whoever wants to know.
//!
//! Order of reading: `transaction.rs` (one call), `failure.rs` (what its failure means), `watchman.rs` (whether there is a database),
//! `schema.rs` and `durability.rs` (what it asks first), `memory.rs` (whether it may have forgotten), `values.rs` (columns), then one file for each trait.

mod audit;
mod barrier;
pub mod counters;
mod durability;
mod failure;
mod figures;
pub mod grants;
mod idempotency;
mod inspect;
mod layouts;
mod ledger;
pub mod marks;
mod memory;
mod resume;
mod rules;
mod schema;
mod temporary;
mod transaction;
mod url;
mod values;
mod watchman;
pub mod workers;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{
    runtime::Handle,
    sync::{broadcast, oneshot, watch},
};

use self::watchman::Verdict;
use super::{Reachable, calls::Calls};
use crate::{clock::Clock, config::DatabaseUrl, lifecycle::Lifecycle, secret::Secret, telemetry::Metrics};

pub use crate::config::StrictLocking;
pub use durability::{Role, ServerReport, Unfit};
pub use figures::Connections;
pub use inspect::{Held, InspectError, Inspection, inspect};
pub use ledger::LedgerReport;
pub use resume::{Lost, Resumed, resume};
pub use schema::{SchemaError, SchemaState};
pub use url::ConnectError;

/// The name of this store in errors and metrics.
const STORE: &str = "postgres";

/// A pool that has no connection left is waited for by the deadline of a call; the driver's own limit lies behind every one.
const POOL_PATIENCE: Duration = Duration::from_secs(600);

/// Messages that a listener may be behind before it loses some.
const BACKLOG: usize = 256;

/// What the store has to know beside the URL.
#[derive(Clone)]
pub struct Settings {
    /// Tells since when the database is away.
    pub clock: Arc<dyn Clock>,
    /// The deadline of calls that have none of their own.
    pub timeout: Duration,
    /// How strict counters are taken.
    pub locking: StrictLocking,
    /// Connections at most, but for one that listens.
    pub pool_size: u32,
    /// What this process is called by others; `None`: it only reads, and gives no sign of life.
    pub node: Option<String>,
    /// Certificates (PEM) that vouch for the server, beside the list of Mozilla.
    pub ca_file: Option<PathBuf>,
}

/// A database that must not be used: the reason names the setting to change.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(Arc<str>);

/// The handle: cheap to clone. The connections end with the last clone.
#[derive(Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    pool: PgPool,
    reachable: watch::Receiver<Reachable>,
    verdict: watch::Receiver<Verdict>,
    messages: broadcast::Sender<Message>,
    calls: Calls,
    timeout: Duration,
    locking: StrictLocking,
    books: ledger::Books,
    /// Where connections live.
    home: Handle,
    lifecycle: Lifecycle,
}

/// A message of one node to all: a channel and a word.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    channel: String,
    word: String,
}

impl PostgresStore {
    /// Makes a store, and begins to connect. The connections live on this runtime, until `lifecycle` is drained: that comes after everything that calls has ended.
    ///
    /// # Errors
    ///
    /// A configuration that can never work. A database that is away is none.
    pub fn connect(
        url: &Secret<String>,
        settings: Settings,
        metrics: &Metrics,
        lifecycle: &Lifecycle,
    ) -> Result<Self, ConnectError> {
        let url = DatabaseUrl::parse(url.reveal())?;
        let options = url::options(&url, settings.ca_file.as_deref())?;
        let mut calls = Calls::default();
        calls.measure(metrics);
        let pool = PgPoolOptions::new()
            .max_connections(settings.pool_size)
            .acquire_timeout(POOL_PATIENCE)
            // A dead connection fails at BEGIN, and the call goes on with another: no round trip beforehand.
            .test_before_acquire(false)
            .connect_lazy_with(options.clone());
        let (state, reachable) = watch::channel(watchman::nobody_yet(&*settings.clock));
        let (sent, verdict) = watch::channel(Verdict::None);
        let messages = broadcast::Sender::new(BACKLOG);
        let Settings { clock, timeout, locking, node, .. } = settings;
        let (name, heard, watch) = (url.to_string(), messages.clone(), Arc::clone(&clock));
        let post = watchman::Post { options, name, state, verdict: sent, messages: heard, clock: watch };
        // Dropped at its end, when the last word has been spoken.
        let (speaking, spoken) = oneshot::channel::<()>();
        lifecycle.spawn(post.keep(pool.clone(), lifecycle.clone(), spoken));
        let books = ledger::Books::new(node.clone(), lifecycle.clone())?;
        let (home, lifecycle) = (Handle::current(), lifecycle.clone());
        let shared = Shared {
            clock,
            pool,
            reachable,
            verdict,
            messages,
            calls,
            timeout,
            locking,
            books,
            home,
            lifecycle,
        };
        let shared = Arc::new(shared);
        if node.is_some() {
            let keeping = ledger::keep(Arc::downgrade(&shared), shared.lifecycle.clone());
            shared.lifecycle.spawn(async move {
                keeping.await;
                drop(speaking);
            });
        }
        Ok(Self { shared })
    }

    /// Whether the database can be asked, now and later.
    pub fn reachable(&self) -> watch::Receiver<Reachable> {
        self.shared.reachable.clone()
    }

    /// Waits for the first look at the database, at most for `patience`: a database that is away is no reason not to start.
    ///
    /// # Errors
    ///
    /// It was looked at, and must not be used.
    pub async fn first_look(&self, patience: Duration) -> Result<(), Refused> {
        let mut verdict = self.shared.verdict.clone();
        let look = verdict.wait_for(|verdict| *verdict != Verdict::None);
        // Neither a silent database nor the end of the watchman is a refusal.
        let _ = tokio::time::timeout(patience, look).await;
        match &*self.shared.verdict.borrow() {
            Verdict::Refused(reason) => Err(Refused(Arc::clone(reason))),
            Verdict::None | Verdict::Bearable => Ok(()),
        }
    }

    /// How strict counters are taken.
    pub fn locking(&self) -> StrictLocking {
        self.shared.locking
    }

    /// Resolves with the next message of a channel; what comes while there is no connection is lost. Sent by
    /// `SELECT pg_notify('numgen', 'channel word')`.
    pub(super) fn subscribe(&self, channel: &'static str) -> Messages {
        Messages { channel, receiver: self.shared.messages.subscribe() }
    }
}

/// The messages of one channel.
pub(super) struct Messages {
    channel: &'static str,
    receiver: broadcast::Receiver<Message>,
}

impl Messages {
    /// The next word. Empty: some were lost, or a connection was made anew, so that anything may have been said.
    pub(super) async fn next(&mut self) -> String {
        loop {
            match self.receiver.recv().await {
                Ok(message) if message.channel == self.channel => return message.word,
                Ok(message) if message.channel.is_empty() => return String::new(),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return String::new(),
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("reachable", &*self.shared.reachable.borrow())
            .finish_non_exhaustive()
    }
}
