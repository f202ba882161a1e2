//! Says whether the database can be asked, brings it to the schema when it comes, and hears what the nodes tell each other.

use std::{sync::Arc, time::Duration};

use sqlx::{
    Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{
    sync::{broadcast, oneshot, watch},
    time::{sleep, timeout},
};

use super::{
    Message,
    durability::{ServerReport, Unfit},
    failure::said,
    schema::{self, SchemaError},
};
use crate::{clock::Clock, lifecycle::Lifecycle, store::Reachable};

/// What nodes tell each other goes through this channel of the database; the first word says whom it concerns.
const CHANNEL: &str = "numgen";

/// How long a connection may take, and a database may take to be brought to the schema.
const CONNECT: Duration = Duration::from_secs(5);
const PREPARE: Duration = Duration::from_secs(60);

/// How often a silent connection is asked whether it lives, and how long it has to answer.
const PULSE: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(2);

/// How long to wait before trying again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why the database is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("not connected yet")]
    New,
    #[error("PostgreSQL at {0} cannot be reached: {1}")]
    Unreachable(String, String),
    #[error("PostgreSQL at {0} does not answer")]
    Silent(String),
    #[error("PostgreSQL at {0} must not be used: {1}")]
    Unfit(String, Unfit),
    #[error("PostgreSQL at {0} cannot be used: {1}")]
    Schema(String, SchemaError),
}

impl Refusal {
    /// Whether only a person can change it.
    fn needs_a_person(&self) -> bool {
        match self {
            Self::New | Self::Unreachable(..) | Self::Silent(_) => false,
            Self::Unfit(_, unfit) => *unfit != Unfit::ReadOnly,
            Self::Schema(_, error) => error.needs_a_person(),
        }
    }
}

/// What the watchman has seen so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    None,
    /// The database is there and fit, or away: time will tell.
    Bearable,
    /// It must not be used, and why.
    Refused(Arc<str>),
}

/// What is so before anything was tried.
pub(super) fn nobody_yet(clock: &dyn Clock) -> Reachable {
    Reachable::No { since: clock.monotonic(), reason: Refusal::New.to_string().into() }
}

/// The watchman's own things.
pub(super) struct Post {
    pub(super) options: PgConnectOptions,
    /// Host, port and database, for people.
    pub(super) name: String,
    pub(super) state: watch::Sender<Reachable>,
    pub(super) verdict: watch::Sender<Verdict>,
    pub(super) messages: broadcast::Sender<Message>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Post {
    /// Watches until `lifecycle` is drained or nobody is left who asks; then the pool is closed.
    pub(super) async fn keep(self, pool: PgPool, lifecycle: Lifecycle, spoken: oneshot::Receiver<()>) {
        tokio::select! {
            () = self.watch() => {}
            () = self.state.closed() => {}
            () = lifecycle.draining() => {}
        }
        // Nothing is sent: it is dropped when the process has said that it leaves.
        let _ = timeout(ANSWER, spoken).await;
        // Connections of calls that are still running are not waited for.
        let _ = timeout(ANSWER, pool.close()).await;
    }

    async fn watch(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let refusal = match self.connect().await {
                Ok(listener) => {
                    pause = FIRST_PAUSE;
                    self.say(None);
                    self.listen(listener).await
                }
                Err(refusal) => refusal,
            };
            self.say(Some(&refusal));
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Connects, looks at the server, brings it to the schema, and begins to listen.
    async fn connect(&self) -> Result<PgListener, Refusal> {
        let connecting = timeout(CONNECT, PgConnection::connect_with(&self.options));
        let mut connection = self.answered(connecting.await)?;
        let report = self.answered(timeout(ANSWER, ServerReport::of(&mut connection)).await)?;
        report.judge().map_err(|unfit| Refusal::Unfit(self.name.clone(), unfit))?;
        if let Some(doubt) = report.doubt() {
            tracing::warn!(database = self.name, "{doubt}");
        }
        match timeout(PREPARE, schema::migrate(&mut connection)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Refusal::Schema(self.name.clone(), error)),
            Err(_elapsed) => return Err(Refusal::Silent(self.name.clone())),
        }
        drop(connection.close().await);
        let version = report.version;
        let alone = PgPoolOptions::new().max_connections(1).connect_lazy_with(self.options.clone());
        let listening = timeout(CONNECT, async {
            let mut listener = PgListener::connect_with(&alone).await?;
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(listener)
        });
        let listener = self.answered(listening.await)?;
        tracing::info!(database = self.name, version, "connected to PostgreSQL");
        Ok(listener)
    }

    /// Hears messages, and feels the pulse where there are none; ends with the connection.
    async fn listen(&self, mut listener: PgListener) -> Refusal {
        // Whatever was said before, nobody here has heard it.
        self.pass_on("");
        loop {
            match timeout(PULSE, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => self.pass_on(notification.payload()),
                Ok(Ok(None)) => {
                    return Refusal::Unreachable(self.name.clone(), "the connection broke".to_owned());
                }
                Ok(Err(error)) => return Refusal::Unreachable(self.name.clone(), said(&error)),
                Err(_elapsed) => {
                    let pulse = timeout(ANSWER, sqlx::query("SELECT 1").execute(&mut listener));
                    if let Err(refusal) = self.answered(pulse.await) {
                        return refusal;
                    }
                }
            }
        }
    }

    fn pass_on(&self, payload: &str) {
        let (channel, word) = payload.split_once(' ').unwrap_or((payload, ""));
        // Nobody listens: nothing to do.
        let _ = self.messages.send(Message { channel: channel.to_owned(), word: word.to_owned() });
    }

    fn answered<T>(
        &self,
        outcome: Result<Result<T, sqlx::Error>, tokio::time::error::Elapsed>,
    ) -> Result<T, Refusal> {
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Refusal::Unreachable(self.name.clone(), said(&error))),
            Err(_elapsed) => Err(Refusal::Silent(self.name.clone())),
        }
    }

    /// Says it once: the log of an outage is two lines, not thousands.
    fn log(&self, refusal: Option<&Refusal>) {
        let Some(refusal) = refusal else { return };
        let is_said = match &*self.state.borrow() {
            Reachable::No { reason, .. } => **reason == *refusal.to_string(),
            Reachable::Yes => false,
        };
        if !is_said && refusal.needs_a_person() {
            tracing::error!(error = %refusal, "PostgreSQL is not used");
        } else if !is_said {
            tracing::warn!(error = %refusal, "PostgreSQL is away");
        }
    }

    fn say(&self, refusal: Option<&Refusal>) {
        self.log(refusal);
        self.state.send_if_modified(|before| {
            let now = match (refusal, &*before) {
                (None, _) => Reachable::Yes,
                (Some(refusal), Reachable::No { since, .. }) => {
                    Reachable::No { since: *since, reason: refusal.to_string().into() }
                }
                (Some(refusal), Reachable::Yes) => {
                    Reachable::No { since: self.clock.monotonic(), reason: refusal.to_string().into() }
                }
            };
            let changed = now != *before;
            *before = now;
            changed
        });
        // Last: whoever waited for it finds the state that goes with it.
        self.verdict.send_replace(match refusal.filter(|refusal| refusal.needs_a_person()) {
            Some(refusal) => Verdict::Refused(refusal.to_string().into()),
            None => Verdict::Bearable,
        });
    }
}
