//! The connection to Redis.
//!
//! Invariants:
//! - nothing here ever waits at the start: a Redis that is away is connected to in the background, for as long as it takes;
//! - every call ends at its deadline, reconnection included;
//! - nothing is sent twice. A call that was sent and not answered is `StoreError::Timeout`; `StoreError::Unavailable` was not
//!   executed. Only what the server itself answers with "not here" or "not now" is sent again;
//! - what a marker guards is asked of the owner of its slot only, not of a node to which the slot is on its way (`ASK`): the
//!   marker would begin to settle there, and be done with it before all nodes can reach what they have to report on;
//! - connections live on the runtime that made the client, and one more on each runtime from which calls come.
//!
//! Order of reading: `link.rs` (one server), `nearby.rs` (its other connections), `line.rs` (keeps a link), `place.rs` (where it
//! leads), `script.rs`, `slots.rs`, `failure.rs`.

mod cluster;
mod ears;
mod failure;
mod glance;
mod info;
mod inspect;
mod line;
mod link;
mod listen;
mod markers;
mod nearby;
mod patience;
mod place;
mod route;
mod script;
mod sentinel;
mod slots;
mod tls;
mod vigil;
mod watchman;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use redis::{Arg as Word, Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, timeout_at},
};

use self::{
    link::Access,
    route::{Manner, Route, Way},
};
use super::STORE;
use crate::{
    clock::Clock,
    config::{RedisUrl, Topology},
    lifecycle::Lifecycle,
    secret::Secret,
    store::{StoreError, calls::Calls},
    telemetry::Metrics,
};

pub use self::{
    failure::ConnectError,
    glance::Glance,
    inspect::{Durability, InspectError, ServerReport, inspect},
    script::{Arg, Script},
    vigil::Vigil,
};
pub use crate::store::Reachable;

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

/// A handle to Redis. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    topology: Topology,
    access: Access,
    route: Route,
    reachable: watch::Receiver<Reachable>,
    calls: Calls,
    clock: Arc<dyn Clock>,
    timeout: Duration,
}

impl Client {
    /// Makes a client, and begins to connect. The connections live on this runtime, until `lifecycle` is drained: that comes
    /// after everything that calls has ended.
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
        let access = Access::new(&url, options.ca_file.as_deref(), lifecycle)?;
        let mut calls = Calls::default();
        calls.measure(&options.metrics);
        let (sender, reachable) = watch::channel(watchman::nobody_yet(&*options.clock));
        let route = Route::start(&url.topology, access.clone());
        let Options { timeout, clock, .. } = options;
        let shared =
            Arc::new(Shared { topology: url.topology, access, route, reachable, calls, clock, timeout });
        watchman::post(&shared, sender);
        Ok(Self { shared })
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
        self.run_witnessed(script, keys, args, deadline).await.map(|(reply, _witness)| reply)
    }

    /// The same, and who answered: to ask whether its replicas have what was written.
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    pub async fn run_witnessed<T: FromRedisValue>(
        &self,
        script: &'static Script,
        keys: &[String],
        args: &[Arg<'_>],
        deadline: Duration,
    ) -> Result<(T, Witness<'_>), StoreError> {
        let request = Request {
            operation: script.name,
            key: keys.first().map(String::as_bytes).unwrap_or_default(),
            keys,
            command: &script.by_digest(keys, args),
            by_source: Some(&|| script.by_source(keys, args)),
        };
        let (reply, way) = self.finish(script.name, self.ask(&request, deadline)).await?;
        Ok((reply, Witness { client: self, way }))
    }

    /// Sends one command, within [`Options::timeout`]. In a cluster its second word is the key that decides where to: not for
    /// commands that have no key there.
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    pub async fn query<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        let key = match command.args_iter().nth(1) {
            Some(Word::Simple(key)) => key,
            Some(_) | None => b"",
        };
        let request = Request { operation, key, keys: &[], command, by_source: None };
        let answer = self.ask(&request, self.shared.timeout);
        self.finish(operation, answer).await.map(|(reply, _way)| reply)
    }

    /// Messages of a channel from now on, across reconnections. Those that are sent while there is no connection are lost.
    pub fn subscribe(&self, channel: &'static str) -> broadcast::Receiver<String> {
        self.shared.access.ears.listen(channel)
    }

    /// Whether Redis can be asked, now and later.
    pub fn reachable(&self) -> watch::Receiver<Reachable> {
        self.shared.reachable.clone()
    }

    /// Whether the server of this key is connected: in a cluster one part may be away, and the others not.
    pub fn reaches(&self, key: &str) -> bool {
        self.shared.route.why_not(key.as_bytes()).is_none()
    }

    /// The key of the marker that guards `key`.
    pub fn marker_key(&self, key: &str) -> String {
        self.shared.route.marker_key(key.as_bytes())
    }

    /// Looks at every server that holds data, over connections of its own, fit or not.
    ///
    /// # Errors
    ///
    /// `Unavailable` names the first that cannot be looked at.
    pub async fn inspect(&self) -> Result<Vec<ServerReport>, StoreError> {
        let Shared { topology, access, clock, .. } = &*self.shared;
        inspect::all(topology, access, &**clock)
            .await
            .map_err(|refusal| failure::unavailable("inspect", &refusal.to_string()))
    }

    /// Waits for the answer to a call, counts it, and turns the reply into what the caller wants.
    async fn finish<T: FromRedisValue, W>(
        &self,
        operation: &'static str,
        answer: impl Future<Output = Result<(Value, W), StoreError>>,
    ) -> Result<(T, W), StoreError> {
        let typed = async {
            let (reply, way) = answer.await?;
            let typed = redis::from_redis_value(reply).map_err(|_mismatch| failure::unexpected(operation))?;
            Ok((typed, way))
        };
        self.shared.calls.timed(STORE, operation, typed).await
    }

    /// The reply to a call, and the way that it took.
    async fn ask(&self, request: &Request<'_>, deadline: Duration) -> Result<(Value, Way), StoreError> {
        let (route, until) = (&self.shared.route, Instant::now() + deadline);
        let mut detour = None;
        loop {
            let way = async {
                match &detour {
                    None => route.ready(request.key).await,
                    Some(detour) => route::Detour::ready(detour).await,
                }
            };
            let Ok(way) = timeout_at(until, way).await else {
                let reason = route.why_not(request.key).map(|refusal| refusal.to_string());
                return Err(failure::unavailable(
                    request.operation,
                    reason.as_deref().unwrap_or("no connection"),
                ));
            };
            let error = match timeout_at(until, request.send(&way)).await {
                Ok(Ok(reply)) => return Ok((reply, way)),
                Ok(Err(error)) => error,
                Err(_elapsed) => return Err(failure::unknown(request.operation)),
            };
            if !failure::is_reply(&error) {
                return Err(failure::unknown(request.operation));
            }
            let was_detour = detour.is_some();
            detour = route.redirected(&error, &way.link);
            let is_under_way =
                detour.take_if(|detour| detour.is_for_once() && request.is_guarded()).is_some();
            if detour.is_none() && !is_under_way && !failure::is_for_now(&error) {
                return Err(failure::of_reply(request.operation, &error));
            }
            // A server that sends away what another one sent to it, or that cannot answer now, is given time.
            if (was_detour || detour.is_none())
                && timeout_at(until, tokio::time::sleep(ASK_AGAIN)).await.is_err()
            {
                return Err(failure::of_reply(request.operation, &error));
            }
        }
    }
}

/// The server that executed a call, on the connection over which it was asked.
pub struct Witness<'a> {
    client: &'a Client,
    way: Way,
}

impl Witness<'_> {
    /// Waits until so many replicas have what was written over this connection so far, or `limit` has passed; how many have it.
    /// Other calls over the connection wait behind it. `WAIT` has no key and speaks of its own connection only, so it goes where the
    /// call went, and nowhere else.
    ///
    /// # Errors
    ///
    /// The connection broke, or the server refuses: nobody knows who has it.
    pub async fn replicated(
        &self,
        operation: &'static str,
        replicas: u32,
        limit: Duration,
    ) -> Result<u64, StoreError> {
        let mut wait = redis::cmd("WAIT");
        // 0 would mean without end.
        wait.arg(replicas).arg(limit.as_millis().max(1) as u64);
        // The server keeps to its limit; the way there and back may take as long again.
        let answer = async {
            let mut connection = self.way.connection.clone();
            match tokio::time::timeout(limit * 2, connection.send_packed_command(&wait)).await {
                Ok(reply) => reply
                    .and_then(Value::extract_error)
                    .map(|reply| (reply, ()))
                    .map_err(|error| failure::of_reply(operation, &error)),
                Err(_elapsed) => Err(failure::unknown(operation)),
            }
        };
        self.client.finish(operation, answer).await.map(|(count, ())| count)
    }
}

/// One call.
struct Request<'a> {
    operation: &'static str,
    /// Decides where it goes.
    key: &'a [u8],
    /// Those of a script.
    keys: &'a [String],
    command: &'a Cmd,
    /// The same for a server that does not know the script.
    by_source: Option<&'a (dyn Fn() -> Cmd + Sync)>,
}

impl Request<'_> {
    fn is_guarded(&self) -> bool {
        self.keys.iter().any(|key| markers::is_key(key))
    }

    async fn send(&self, way: &Way) -> Result<Value, RedisError> {
        match (way.send(self.command).await, self.by_source) {
            (Err(error), Some(by_source)) if is_unknown_script(&error) => way.send(&by_source()).await,
            (outcome, _) => outcome,
        }
    }
}

impl Way {
    async fn send(&self, command: &Cmd) -> Result<Value, RedisError> {
        let mut connection = self.connection.clone();
        match self.manner {
            Manner::Plain => connection.send_packed_command(command).await?.extract_error(),
            Manner::Asking => {
                let mut together = redis::pipe();
                together.cmd("ASKING").add_command(command.clone());
                let replies = connection.send_packed_commands(&together, 0, together.len()).await?;
                replies.into_iter().last().unwrap_or(Value::Nil).extract_error()
            }
        }
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("reachable", &*self.shared.reachable.borrow()).finish_non_exhaustive()
    }
}
