//! The press: batches of different counters that wait at the same time are written by one statement, in one commit.
//!
//! Invariants:
//! - at most [`HANDS`] statements are under way; a batch is in exactly one of them;
//! - `Refused` means that nothing of a batch was written and nothing will be; a connection that does not answer makes `Unknown`;
//! - a connection that failed, or was left in the middle of an answer, is never used again.
//!
//! The statement is a transaction of its own, so it takes one round trip. Whoever finds a free hand writes at once, on its own task;
//! those who come meanwhile share the next statement.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sqlx::PgConnection;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    super::{PostgresStore, failure::rolled_back},
    OPERATION,
    entry::{self, Basis, Entry},
};
use crate::store::StoreError;

/// While one statement waits for the disk, another is worked out.
const HANDS: usize = 2;

/// How many rows one statement writes, but for the last batch that goes in.
const FULL: usize = 2_000;

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Pressed {
    /// It is written.
    Written,
    /// It is not: the counter had moved, a key was used before, the statement failed, or there was no connection to send it by.
    Refused,
    /// There was no answer.
    Unknown,
}

struct Job {
    entry: Entry,
    until: Instant,
    answer: oneshot::Sender<Pressed>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Job>,
    /// Statements under way.
    busy: usize,
    idle: Vec<PgConnection>,
}

#[derive(Default)]
pub(super) struct Press {
    state: Mutex<State>,
}

impl Press {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a batch by `until`.
pub(super) async fn press(store: &PostgresStore, entry: Entry, until: Instant) -> Pressed {
    let (answer, answered) = oneshot::channel();
    let job = Job { entry, until, answer };
    let hand = {
        let mut state = store.books().press.state();
        if state.busy < HANDS {
            state.busy += 1;
            Some((Hand { store: store.clone() }, job))
        } else {
            state.waiting.push(job);
            None
        }
    };
    if let Some((hand, job)) = hand {
        hand.write(vec![job]).await;
    }
    match timeout_at(until, answered).await {
        Ok(Ok(pressed)) => pressed,
        // Nobody has the job any more, or nobody has time for it: it may have been sent.
        Ok(Err(_)) | Err(_) => Pressed::Unknown,
    }
}

/// The right to have a statement under way.
struct Hand {
    store: PostgresStore,
}

impl Hand {
    /// Writes what waits until nothing does.
    async fn work(self) {
        loop {
            // Whoever is ready to join does so.
            tokio::task::yield_now().await;
            let jobs = self.next();
            if jobs.is_empty() {
                return;
            }
            self.write(jobs).await;
        }
    }

    fn next(&self) -> Vec<Job> {
        let mut state = self.store.books().press.state();
        let mut rows = 0;
        let fitting = state.waiting.iter().take_while(|job| {
            let fits = rows < FULL;
            rows += job.entry.row_count();
            fits
        });
        let count = fitting.count();
        if count == state.waiting.len() {
            mem::take(&mut state.waiting)
        } else {
            state.waiting.drain(..count).collect()
        }
    }

    async fn write(&self, mut jobs: Vec<Job>) {
        // One order for everybody who locks several counters, and one batch for each: a second one is there only because somebody
        // has left the first.
        jobs.retain(|job| !job.answer.is_closed());
        jobs.sort_by_key(|job| job.entry.counter());
        jobs.dedup_by_key(|job| job.entry.counter());
        let Some(until) = jobs.iter().map(|job| job.until).max() else { return };
        let Ok(mut connection) = self.connection(until).await else {
            for job in jobs {
                let _gone = job.answer.send(Pressed::Refused);
            }
            return;
        };
        let entries: Vec<&Entry> = jobs.iter().map(|job| &job.entry).collect();
        let writer = &self.store.books().writer;
        let basis = Basis::Guess(self.store.books().witness.beat());
        let written = timeout_at(until, entry::write(&mut connection, writer, &entries, basis)).await;
        let outcome: Box<dyn Fn(i64) -> Pressed + Send> = match written {
            Ok(Ok(written)) => {
                self.store.books().press.state().idle.push(connection);
                Box::new(
                    move |counter| {
                        if written.contains(&counter) { Pressed::Written } else { Pressed::Refused }
                    },
                )
            }
            Ok(Err(error)) if rolled_back(&error) => {
                self.store.books().press.state().idle.push(connection);
                Box::new(|_| Pressed::Refused)
            }
            Ok(Err(_)) | Err(_) => {
                // The others were most likely cut with it.
                self.store.books().press.state().idle.clear();
                Box::new(|_| Pressed::Unknown)
            }
        };
        for job in jobs {
            let _gone = job.answer.send(outcome(job.entry.counter()));
        }
    }

    async fn connection(&self, until: Instant) -> Result<PgConnection, StoreError> {
        let idle = self.store.books().press.state().idle.pop();
        match idle {
            Some(connection) => Ok(connection),
            None => self.store.connection_of_own(OPERATION, until).await,
        }
    }
}

impl Drop for Hand {
    /// Passes the right on where somebody waits.
    fn drop(&mut self) {
        let books = self.store.books();
        let mut state = books.press.state();
        if state.waiting.is_empty() {
            state.busy -= 1;
        } else {
            drop(state);
            books.lifecycle.spawn(Self { store: self.store.clone() }.work());
        }
    }
}
