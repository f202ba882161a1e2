//! The press: batches of different counters that wait at the same time are written by one statement, in one commit.
//!
//! Invariants:
//! - one statement is under way at a time, and at most two that were committed ahead wait for the disk (`tempo.rs`); a batch is in one of them;
//! - `Refused` means that nothing of a batch was written and nothing will be; a connection that does not answer makes `Unknown`;
//! - a batch that was committed ahead is followed by a barrier on the same connection; its seal is broken if that is not answered;
//! - a connection that failed, or was left in the middle of an answer, is never used again.
//!
//! The statement is a transaction of its own, so it takes one round trip. Whoever finds a free hand writes at once, on its own task;
//! those who come meanwhile share the next statement. On a slow disk that is committed ahead, and the hand works beside those who wait
//! for the disk; on a fast one the commit of several counters waits.

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
    super::{
        PostgresStore,
        barrier::barrier,
        failure::{rolled_back, said, unavailable, unknown},
    },
    OPERATION,
    entry::Entry,
    marker::{self, Place},
    statement::{self, Basis, Commit},
    tempo::Tempo,
};
use crate::store::StoreError;

/// How many rows one statement writes, but for the last batch that goes in.
const FULL: usize = 2_000;

/// One plan for good, by index: planning anew for each batch takes as long as the batch, and a plan made while tables were small
/// would read all of them later. What is ruled out counts as dear, and what is dear would be compiled first.
///
/// All counters share the press, so it waits for nobody: what is held by others for longer than this is refused, and drawn alone.
const SETTINGS: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off; SET lock_timeout = 50";

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Pressed {
    /// It is written and durable.
    Written,
    /// It is written, and durable as soon as this resolves with `Ok`.
    Ahead(Seal),
    /// It is not: the counter had moved, a key was used before, the statement failed, or there was no connection to send it by.
    Refused,
    /// There was no answer.
    Unknown,
}

/// Resolves when a batch is durable; with an error when nobody knows.
pub(super) type Seal = oneshot::Receiver<()>;

/// A connection, and where it leads for as long as it lasts.
struct Line {
    connection: PgConnection,
    place: Place,
}

struct Job {
    entry: Entry,
    until: Instant,
    answer: oneshot::Sender<Pressed>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Job>,
    is_busy: bool,
    /// How many statements wait for the disk.
    sealing: usize,
    tempo: Tempo,
    idle: Vec<Line>,
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
        if !state.is_busy {
            state.is_busy = true;
            Some((Hand { store: store.clone() }, job))
        } else {
            state.waiting.push(job);
            None
        }
    };
    if let Some((hand, job)) = hand {
        match job.entry.commit() {
            Commit::Waits => hand.work(vec![job], Commit::Waits).await,
            Commit::Ahead => {
                let task = hand.work(vec![job], Commit::Ahead);
                store.books().lifecycle.spawn_on(&store.shared.home, task);
            }
        }
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
    /// Writes `jobs`. If they were committed ahead, passes the right on before they are sealed, where others may wait for the disk, too.
    async fn work(self, jobs: Vec<Job>, commit: Commit) {
        let begun = Instant::now();
        let Some(ahead) = self.write(jobs, commit).await else { return };
        let written = Instant::now();
        let store = self.store.clone();
        let is_full = {
            let mut state = store.books().press.state();
            state.sealing += 1;
            state.sealing >= state.tempo.seals()
        };
        let kept = is_full.then_some(self);
        ahead.seal(&store).await;
        {
            let mut state = store.books().press.state();
            state.sealing -= 1;
            state.tempo.note(written - begun, written.elapsed());
        }
        drop(kept);
    }

    /// Writes those who wait.
    async fn go_on(self) {
        // Whoever is ready to join does so.
        tokio::task::yield_now().await;
        let jobs = self.next();
        let commit = match jobs.len() {
            // While a counter alone waits for the disk, its next batch is worked out.
            ..=1 => Commit::Ahead,
            _ => self.store.books().press.state().tempo.commit(),
        };
        self.work(jobs, commit).await;
    }

    fn next(&self) -> Vec<Job> {
        let mut state = self.store.books().press.state();
        let mut rows = 0;
        let fitting = state.waiting.iter().take_while(|job| {
            let fits = rows < FULL;
            rows += job.entry.rows().len();
            fits
        });
        let count = fitting.count();
        if count == state.waiting.len() {
            mem::take(&mut state.waiting)
        } else {
            state.waiting.drain(..count).collect()
        }
    }

    async fn write(&self, mut jobs: Vec<Job>, commit: Commit) -> Option<Ahead> {
        // One order for everybody who locks several counters, and one batch for each: a second one is there only because somebody
        // has left the first.
        jobs.retain(|job| !job.answer.is_closed());
        jobs.sort_by_key(|job| job.entry.counter());
        jobs.dedup_by_key(|job| job.entry.counter());
        let until = jobs.iter().map(|job| job.until).max()?;
        let Ok(mut line) = self.line(until).await else {
            tell_all(jobs, || Pressed::Refused);
            return None;
        };
        let entries: Vec<&Entry> = jobs.iter().map(|job| &job.entry).collect();
        let books = self.store.books();
        let (writer, basis) = (&books.writer, Basis::Guess(books.witness.beat(), &line.place));
        let written =
            timeout_at(until, statement::write(&mut line.connection, writer, basis, commit, &entries)).await;
        match written {
            Ok(Ok(written)) => {
                let seals = tell(jobs, commit, &written);
                if commit == Commit::Ahead {
                    return Some(Ahead { line, seals, until });
                }
                put_by(&self.store, line);
            }
            Ok(Err(error)) if rolled_back(&error) => {
                put_by(&self.store, line);
                tell_all(jobs, || Pressed::Refused);
            }
            Ok(Err(_)) | Err(_) => {
                put_away_all(&self.store);
                tell_all(jobs, || Pressed::Unknown);
            }
        }
        None
    }

    async fn line(&self, until: Instant) -> Result<Line, StoreError> {
        let idle = self.store.books().press.state().idle.pop();
        if let Some(line) = idle {
            return Ok(line);
        }
        let mut connection = self.store.connection_of_own(OPERATION, until).await?;
        let prepared = timeout_at(until, async {
            sqlx::raw_sql(SETTINGS).execute(&mut connection).await?;
            marker::place(&mut connection).await
        });
        match prepared.await {
            Ok(Ok(place)) => Ok(Line { connection, place }),
            Ok(Err(error)) => Err(unavailable(OPERATION, &said(&error))),
            Err(_elapsed) => Err(unknown(OPERATION)),
        }
    }
}

/// A statement that was committed ahead.
struct Ahead {
    line: Line,
    seals: Vec<oneshot::Sender<()>>,
    until: Instant,
}

impl Ahead {
    /// Makes it durable, on its own connection.
    async fn seal(self, store: &PostgresStore) {
        let Self { mut line, seals, until } = self;
        if let Ok(Ok(())) = timeout_at(until, barrier(&mut line.connection)).await {
            for seal in seals {
                let _gone = seal.send(());
            }
            put_by(store, line);
        } else {
            put_away_all(store);
        }
    }
}

fn put_by(store: &PostgresStore, line: Line) {
    store.books().press.state().idle.push(line);
}

/// A connection has failed: the others were most likely cut with it.
fn put_away_all(store: &PostgresStore) {
    store.books().press.state().idle.clear();
}

/// Tells everybody the same.
fn tell_all(jobs: Vec<Job>, pressed: impl Fn() -> Pressed) {
    for job in jobs {
        let _gone = job.answer.send(pressed());
    }
}

/// Tells everybody whether his batch was written; answers the seals of those that were committed ahead.
fn tell(jobs: Vec<Job>, commit: Commit, written: &[i64]) -> Vec<oneshot::Sender<()>> {
    let mut seals = Vec::new();
    for job in jobs {
        let pressed = match commit {
            _ if !written.contains(&job.entry.counter()) => Pressed::Refused,
            Commit::Waits => Pressed::Written,
            Commit::Ahead => {
                let (seal, sealed) = oneshot::channel();
                seals.push(seal);
                Pressed::Ahead(sealed)
            }
        };
        let _gone = job.answer.send(pressed);
    }
    seals
}

impl Drop for Hand {
    /// Passes the right on where somebody waits.
    fn drop(&mut self) {
        let books = self.store.books();
        let mut state = books.press.state();
        if state.waiting.is_empty() {
            state.is_busy = false;
        } else {
            drop(state);
            let heir = Heir(Some(Self { store: self.store.clone() }));
            books.lifecycle.spawn_on(&self.store.shared.home, heir.go_on());
        }
    }
}

/// The right on its way to a task of its own. If there are no tasks any more, because the runtime ends, it ends as well.
struct Heir(Option<Hand>);

impl Heir {
    async fn go_on(mut self) {
        if let Some(hand) = self.0.take() {
            hand.go_on().await;
        }
    }
}

impl Drop for Heir {
    /// Nobody is left to write for those who wait, and nothing of theirs was sent.
    fn drop(&mut self) {
        if let Some(hand) = &self.0 {
            let jobs = mem::take(&mut hand.store.books().press.state().waiting);
            tell_all(jobs, || Pressed::Refused);
        }
    }
}
