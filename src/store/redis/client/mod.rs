//! The connection to Redis.
//!
//! Invariants:
//! - nothing here ever waits at the start: a Redis that is away is connected to in the background, for as long as it takes;
//! - every call ends at its deadline, reconnection included;
//! - nothing is sent twice. A call that was sent and not answered is `StoreError::Timeout`; `StoreError::Unavailable` was not
//!   executed. Only what the server itself answers with "not here" or "not now" is sent again;
//! - connections live on the runtime that made the client; calls come from any.
//!
//! Order of reading: `link.rs` (one connection), `line.rs` (keeps one), `place.rs` (where it leads), `script.rs`, `slots.rs`,
//! `failure.rs`.

mod ears;
mod failure;
mod info;
mod line;
mod link;
mod place;
mod script;
mod slots;
mod tls;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use redis::{Cmd, ErrorKind, FromRedisValue, ServerErrorKind, Value};
use tokio::{
    runtime::Handle,
    sync::{broadcast, watch},
    time::{Instant, timeout_at},
};

use self::{
    ears::Ears,
    line::{Line, State},
    link::Access,
    place::Place,
};
use super::STORE;
use crate::{
    clock::Clock,
    config::{RedisUrl, Topology, Transport},
    lifecycle::Lifecycle,
    secret::Secret,
    store::{StoreError, calls::Calls},
    telemetry::Metrics,
};

pub use self::failure::ConnectError;
pub use self::script::{Arg, Script};

/// The tag of the one marker where there are no slots.
const MARKER_TAG: &str = "numgen";

/// How a server that says "not now" is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What a client needs beside the URL.
#[derive(Clone)]
pub struct Options {
    /// Certificates (PEM) that vouch for the servers; those of the system unless given.
    pub ca_file: Option<PathBuf>,
    /// The deadline of calls without one of their own.
    pub timeout: Duration,
    /// Tells since when Redis is away.
    pub clock: Arc<dyn Clock>,
    /// Where calls are counted.
    pub metrics: Metrics,
}

/// Whether Redis can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reachable {
    /// Every server that is needed is connected.
    Yes,
    /// A server is away, or must not be used.
    No {
        /// Since when, on [`Clock::monotonic`].
        since: Duration,
        /// Which, and why: one sentence for a person.
        reason: Arc<str>,
    },
}

/// A handle to Redis. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    line: Line,
    ears: Arc<Ears>,
    reachable: watch::Receiver<Reachable>,
    calls: Calls,
    timeout: Duration,
}

impl Client {
    /// Makes a client, and begins to connect. The connections live on this runtime, until `lifecycle` is drained: it has to
    /// be drained after everything that calls.
    ///
    /// # Errors
    ///
    /// A configuration that can never work. A Redis that is away is none.
    pub async fn connect(
        url: &Secret<String>,
        options: Options,
        lifecycle: &Lifecycle,
    ) -> Result<Self, ConnectError> {
        let url = RedisUrl::parse(url.reveal())?;
        let ears = Arc::new(Ears::default());
        let access = Arc::new(Access {
            user: url.user,
            password: url.password,
            database: url.database,
            tls: match url.transport {
                Transport::Plain => None,
                Transport::Tls => Some(tls::connector(options.ca_file.as_deref())?),
            },
            ears: Arc::clone(&ears),
            runtime: Handle::current(),
            lifecycle: lifecycle.clone(),
        });
        let place = match url.topology {
            Topology::Single(address) => Place::Alone(address),
            Topology::Sentinel { .. } | Topology::Cluster(_) => return Err(ConnectError::Topology),
        };
        let line = Line::start(access, place);
        let reachable = follow(line.watch(), &options.clock, lifecycle);
        let mut calls = Calls::default();
        calls.measure(&options.metrics);
        Ok(Self { shared: Arc::new(Shared { line, ears, reachable, calls, timeout: options.timeout }) })
    }

    /// Runs a script, within `deadline`. In a cluster all keys share the slot of the first.
    ///
    /// # Errors
    ///
    /// `Unavailable`: not executed, or refused by the server. `Timeout`: nobody knows. `Corrupt`: the script answered an error
    /// that begins with `CORRUPT`, or a reply of another kind than `T`.
    pub async fn run<T: FromRedisValue>(
        &self,
        script: &'static Script,
        keys: &[String],
        args: &[Arg<'_>],
        deadline: Duration,
    ) -> Result<T, StoreError> {
        let command = script.by_digest(keys, args);
        let by_source = || script.by_source(keys, args);
        let outcome = self.ask(script.name, &command, Some(&by_source), deadline).await;
        self.finish(script.name, outcome)
    }

    /// Sends one command, within [`Options::timeout`]. In a cluster its second word is the key that decides where to.
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    pub async fn query<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        let outcome = self.ask(operation, command, None, self.shared.timeout).await;
        self.finish(operation, outcome)
    }

    /// Messages of a channel from now on, across reconnections. Those that are sent while there is no connection are lost.
    pub fn subscribe(&self, channel: &'static str) -> broadcast::Receiver<String> {
        self.shared.ears.listen(channel)
    }

    /// Whether Redis can be asked, now and later.
    pub fn reachable(&self) -> watch::Receiver<Reachable> {
        self.shared.reachable.clone()
    }

    /// The key of the marker that guards `key`.
    pub fn marker_key(&self, _key: &str) -> String {
        format!("numgen:generation:{{{MARKER_TAG}}}")
    }

    /// Counts the call, and turns its reply into what the caller wants.
    fn finish<T: FromRedisValue>(
        &self,
        operation: &'static str,
        outcome: Result<Value, StoreError>,
    ) -> Result<T, StoreError> {
        let typed = outcome.and_then(|reply| {
            redis::from_redis_value(reply).map_err(|_mismatch| failure::unexpected(operation))
        });
        self.shared.calls.counted(STORE, operation, typed)
    }

    async fn ask(
        &self,
        operation: &'static str,
        command: &Cmd,
        by_source: Option<&(dyn Fn() -> Cmd + Sync)>,
        deadline: Duration,
    ) -> Result<Value, StoreError> {
        let until = Instant::now() + deadline;
        loop {
            let line = &self.shared.line;
            let Ok(link) = timeout_at(until, line.ready()).await else {
                let reason = line.link().err().map_or_else(String::new, |refusal| refusal.to_string());
                return Err(failure::unavailable(operation, &reason));
            };
            let sent = async {
                match (link.send(command).await, by_source) {
                    (Err(error), Some(by_source)) if is_unknown_script(&error) => {
                        link.send(&by_source()).await
                    }
                    (outcome, _) => outcome,
                }
            };
            match timeout_at(until, sent).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) if failure::is_for_now(&error) && Instant::now() + ASK_AGAIN < until => {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                Ok(Err(error)) => return Err(failure::of_reply(operation, &error)),
                Err(_elapsed) => return Err(failure::unknown(operation)),
            }
        }
    }
}

fn is_unknown_script(error: &redis::RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Translates the state of a line.
fn follow(
    mut line: watch::Receiver<State>,
    clock: &Arc<dyn Clock>,
    lifecycle: &Lifecycle,
) -> watch::Receiver<Reachable> {
    let clock = Arc::clone(clock);
    let no =
        |clock: &dyn Clock, reason: String| Reachable::No { since: clock.monotonic(), reason: reason.into() };
    let (sender, receiver) = watch::channel(no(&*clock, failure::Refusal::New.to_string()));
    lifecycle.spawn(async move {
        loop {
            let now = line.borrow_and_update().clone();
            sender.send_if_modified(|before| {
                let new = match (&now, &*before) {
                    (State::Up(_), _) => Reachable::Yes,
                    (State::Down(why), Reachable::No { since, .. }) => {
                        Reachable::No { since: *since, reason: why.to_string().into() }
                    }
                    (State::Down(why), Reachable::Yes) => no(&*clock, why.to_string()),
                };
                let changed = new != *before;
                *before = new;
                changed
            });
            drop(now);
            if line.changed().await.is_err() {
                return;
            }
        }
    });
    receiver
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("reachable", &*self.shared.reachable.borrow()).finish_non_exhaustive()
    }
}
