//! One call of the store: one transaction, one deadline.
//!
//! Invariants:
//! - a call ends at its deadline, whatever it waits for: a connection, a lock, an answer; where the store is known to be away, soon;
//! - what failed before COMMIT was sent is rolled back for certain, and is done again while time is left, where that may help;
//! - what is not answered after that is `StoreError::Timeout`: it may have happened, and is never sent again from here;
//! - a connection goes back to the pool only after its transaction has ended; any other is closed, and the server rolls back.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, pool::PoolConnection};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{
    PostgresStore, STORE, Shared,
    barrier::barrier,
    failure::{Failure, Meaning, meaning, meaning_of_commit, said, unavailable, unknown},
    watchman::Verdict,
};
use crate::store::{Reachable, StoreError, patience::patience};

/// Two transactions that stood in each other's way wait up to this long before they try again; it doubles with every time.
const CONFLICT_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A transaction whose process says nothing any more is rolled back by the server so long after its deadline: a paused process must
/// not keep others from a row.
const IDLE_GRACE_MS: u128 = 1_000;

/// Cancelled statements: `statement_timeout` ends the wait for a synchronous standby too, and COMMIT then looks as if it had been
/// replicated. Without it the wait ends with the connection, and the outcome is unknown. Fails in a failed transaction, in which
/// COMMIT alone would answer like a success.
const COMMIT: &str = "SET LOCAL statement_timeout = 0; COMMIT";

/// The same, letting go of every lock before the disk has turned.
const COMMIT_AHEAD: &str = "SET LOCAL synchronous_commit = off; SET LOCAL statement_timeout = 0; COMMIT";

/// What is done inside a transaction.
type Work<'w, A, T> =
    &'w (dyn for<'c> Fn(&'c mut PgConnection, &'c A) -> BoxFuture<'c, Result<T, Failure>> + Send + Sync);

/// When a transaction lets go of what it has locked. Either way it is durable by the time that it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// When it is durable.
    Durable,
    /// At once; a barrier follows.
    Ahead,
}

impl PostgresStore {
    /// Runs `work` in a transaction (READ COMMITTED, unless it sets another level first) and commits. `work` may run more than once,
    /// each time in a transaction of its own. It captures nothing: what it needs is in `arguments`.
    ///
    /// # Errors
    ///
    /// `Timeout`: it may have happened. Every other error: it did not.
    pub(super) async fn transact<A, T, W>(
        &self,
        operation: &'static str,
        arguments: &A,
        work: W,
    ) -> Result<T, StoreError>
    where
        A: Sync + ?Sized,
        T: Send,
        W: for<'c> Fn(&'c mut PgConnection, &'c A) -> BoxFuture<'c, Result<T, Failure>> + Send + Sync,
    {
        self.transact_within(self.shared.timeout, operation, arguments, work).await
    }

    /// The same with a deadline of its own.
    pub(super) async fn transact_within<A, T, W>(
        &self,
        timeout: Duration,
        operation: &'static str,
        arguments: &A,
        work: W,
    ) -> Result<T, StoreError>
    where
        A: Sync + ?Sized,
        T: Send,
        W: for<'c> Fn(&'c mut PgConnection, &'c A) -> BoxFuture<'c, Result<T, Failure>> + Send + Sync,
    {
        let until = Instant::now() + timeout;
        let transaction = self.shared.repeat(operation, until, Ending::Durable, arguments, &work);
        self.shared.calls.timed(STORE, operation, transaction).await
    }

    /// The same as [`Self::transact`], for what others wait behind: its locks are not held while the disk turns. Only for tables of
    /// which whoever answers from them passes a barrier (`barrier.rs`): ledgers and the audit trail.
    pub(super) async fn transact_ahead<A, T, W>(
        &self,
        operation: &'static str,
        arguments: &A,
        work: W,
    ) -> Result<T, StoreError>
    where
        A: Sync + ?Sized,
        T: Send,
        W: for<'c> Fn(&'c mut PgConnection, &'c A) -> BoxFuture<'c, Result<T, Failure>> + Send + Sync,
    {
        let until = Instant::now() + self.shared.timeout;
        let transaction = self.shared.repeat(operation, until, Ending::Ahead, arguments, &work);
        self.shared.calls.timed(STORE, operation, transaction).await
    }
}

impl PostgresStore {
    /// How long after it began a call may still be committed, in ms; the server ends it then.
    pub(super) fn longest_call_ms(&self) -> u64 {
        u64::try_from(self.shared.timeout.as_millis() + IDLE_GRACE_MS).unwrap_or(u64::MAX)
    }

    /// Whether the store is known not to be there.
    pub(super) fn is_away(&self) -> bool {
        self.shared.patience() < self.shared.timeout
    }

    /// A connection that never goes back to the pool, for statements that are transactions of their own. The server gives up on each
    /// of them, and on its wait for a lock, after the timeout of this store.
    pub(super) async fn connection_of_own(
        &self,
        operation: &'static str,
        until: Instant,
    ) -> Result<PgConnection, StoreError> {
        let mut session = self.shared.session(operation, until).await.map_err(Meaning::into_error)?;
        let Some(connection) = session.connection.take() else {
            return Err(unavailable(operation, "the connection was given back"));
        };
        let mut connection = connection.detach();
        let limit_ms = self.shared.timeout.as_millis().max(1);
        let limits = format!("SET statement_timeout = {limit_ms}; SET lock_timeout = {limit_ms}");
        match timeout_at(until, execute(&mut connection, limits)).await {
            Ok(Ok(())) => Ok(connection),
            Ok(Err(error)) => Err(unavailable(operation, &said(&error))),
            Err(_elapsed) => Err(unknown(operation)),
        }
    }
}

impl Shared {
    async fn repeat<A, T>(
        &self,
        operation: &'static str,
        until: Instant,
        ending: Ending,
        arguments: &A,
        work: Work<'_, A, T>,
    ) -> Result<T, StoreError>
    where
        A: Sync + ?Sized,
        T: Send,
    {
        let mut pause = CONFLICT_PAUSE;
        loop {
            let error = match self.once(operation, until, ending, arguments, work).await {
                Ok(result) => return Ok(result),
                Err(Meaning::Final(error)) => return Err(error),
                Err(Meaning::Conflict(error) | Meaning::Lost(error)) => error,
            };
            rest(&mut pause, until, error).await?;
        }
    }

    /// One attempt, on a connection that is given back or closed.
    async fn once<A, T>(
        &self,
        operation: &'static str,
        until: Instant,
        ending: Ending,
        arguments: &A,
        work: Work<'_, A, T>,
    ) -> Result<T, Meaning>
    where
        A: Sync + ?Sized,
        T: Send,
    {
        let mut session = self.session(operation, until).await?;
        let outcome = session.run(operation, until, ending, arguments, work).await;
        match &outcome {
            Ok(_) => session.keep(),
            Err(Meaning::Final(_) | Meaning::Conflict(_)) => session.roll_back(until).await,
            Err(Meaning::Lost(_)) => {}
        }
        outcome
    }

    /// A connection of the pool. New ones are opened at home, whatever runtime calls: there the network is served until the end.
    async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        if let Some(idle) = self.pool.try_acquire() {
            return Ok(idle);
        }
        let (mut opened, answer) = oneshot::channel();
        let acquiring = self.pool.acquire();
        self.lifecycle.spawn_on(&self.home, async move {
            let acquired = tokio::select! {
                acquired = acquiring => acquired,
                () = opened.closed() => return,
            };
            // A caller that has gone this very moment: the connection goes back to the pool.
            let _ = opened.send(acquired);
        });
        answer.await.unwrap_or(Err(sqlx::Error::PoolClosed))
    }

    /// How long to wait for a connection. One that was not looked for yet may be there.
    fn patience(&self) -> Duration {
        let is_new = *self.verdict.borrow() == Verdict::None;
        match &*self.reachable.borrow() {
            away @ Reachable::No { .. } if !is_new => patience(away, &*self.clock).min(self.timeout),
            Reachable::Yes | Reachable::No { .. } => self.timeout,
        }
    }

    /// A connection, as soon as the store is ready and one is free. A store that is known to be away is not waited for long.
    async fn session(&self, operation: &'static str, until: Instant) -> Result<Session, Meaning> {
        let mut reachable = self.reachable.clone();
        let until = until.min(Instant::now() + self.patience());
        let ready = async {
            // The sender lives as long as the watchman; without it nothing is ever ready again.
            if reachable.wait_for(|state| *state == Reachable::Yes).await.is_err() {
                std::future::pending::<()>().await;
            }
            self.acquire().await
        };
        match timeout_at(until, ready).await {
            Ok(Ok(connection)) => Ok(Session { connection: Some(connection) }),
            Ok(Err(error @ sqlx::Error::PoolClosed)) => {
                Err(Meaning::Final(unavailable(operation, &said(&error))))
            }
            // Nothing has begun on a connection that was cut while it was opened.
            Ok(Err(error)) => Err(meaning(operation, error.into())),
            Err(_elapsed) => Err(Meaning::Final(match &*self.reachable.borrow() {
                Reachable::Yes => unknown(operation),
                Reachable::No { reason, .. } => unavailable(operation, reason),
            })),
        }
    }
}

/// A connection inside a transaction. Dropped in between it is closed.
struct Session {
    connection: Option<PoolConnection<Postgres>>,
}

impl Session {
    async fn run<A, T>(
        &mut self,
        operation: &'static str,
        until: Instant,
        ending: Ending,
        arguments: &A,
        work: Work<'_, A, T>,
    ) -> Result<T, Meaning>
    where
        A: Sync + ?Sized,
        T: Send,
    {
        let connection = self.connection()?;
        let worked = timeout_at(until, async {
            execute(connection, begin(until)).await?;
            work(connection, arguments).await
        });
        let result = match worked.await {
            Ok(Ok(result)) => result,
            Ok(Err(failure)) => return Err(meaning(operation, failure)),
            Err(_elapsed) => return Err(Meaning::Final(unknown(operation))),
        };
        let commit = match ending {
            Ending::Durable => COMMIT,
            Ending::Ahead => COMMIT_AHEAD,
        };
        match timeout_at(until, execute(connection, commit.to_owned())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(meaning_of_commit(operation, error)),
            Err(_elapsed) => return Err(Meaning::Final(unknown(operation))),
        }
        match ending {
            Ending::Durable => Ok(result),
            Ending::Ahead => match timeout_at(until, barrier(connection)).await {
                Ok(Ok(())) => Ok(result),
                Ok(Err(_)) | Err(_) => Err(Meaning::Final(unknown(operation))),
            },
        }
    }

    fn connection(&mut self) -> Result<&mut PgConnection, Meaning> {
        match &mut self.connection {
            Some(connection) => Ok(&mut **connection),
            None => Err(Meaning::Final(unavailable("begin", "the connection was given back"))),
        }
    }

    /// Gives the connection back to the pool: its transaction has ended.
    fn keep(&mut self) {
        drop(self.connection.take());
    }

    /// Ends the transaction, and keeps the connection where that works; what is not answered is closed.
    async fn roll_back(&mut self, until: Instant) {
        let Some(connection) = &mut self.connection else { return };
        if let Ok(Ok(())) = timeout_at(until, execute(connection, "ROLLBACK".to_owned())).await {
            self.keep();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

/// One message, one round trip: the transaction and its limits.
fn begin(until: Instant) -> String {
    let left_ms = until.saturating_duration_since(Instant::now()).as_millis().max(1);
    format!(
        "BEGIN; SET LOCAL statement_timeout = {left_ms}; SET LOCAL lock_timeout = {left_ms}; \
         SET LOCAL idle_in_transaction_session_timeout = {}",
        left_ms + IDLE_GRACE_MS
    )
}

/// Sends statements of this file, without arguments.
async fn execute(connection: &mut PgConnection, statements: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await.map(drop)
}

/// Waits, longer each time; `error` is the answer where there is no time for it.
pub(super) async fn rest(pause: &mut Duration, until: Instant, error: StoreError) -> Result<(), StoreError> {
    let nap = jittered(*pause);
    *pause = (*pause * 2).min(LONGEST_PAUSE);
    if Instant::now() + nap >= until {
        return Err(error);
    }
    sleep(nap).await;
    Ok(())
}

/// Between half of it and all of it.
fn jittered(pause: Duration) -> Duration {
    let mut bits = [0; 1];
    // Without randomness everybody waits equally long: slower, not wrong.
    let _ = getrandom::fill(&mut bits);
    pause.mul_f64(0.5 + f64::from(bits[0]) / 510.0)
}
