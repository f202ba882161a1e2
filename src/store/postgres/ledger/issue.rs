//! Drawing: the guess first, then the row lock; and what became of a batch whose answer was lost.
//!
//! Batches of one process on one counter follow each other in its page's turns. One that was committed ahead (`barrier.rs`) gives up its turn
//! at once, and stays *in doubt* until it is durable; the next one may stand on it, for what the one loses in a crash, the other loses too.
//! A batch that stands on anything else (a sheet that was read) begins a new line, and waits until nothing is in doubt: what tells
//! whether a batch was committed must not be written over before it was asked for.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Row};
use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard},
    time::{Instant, timeout_at},
};

use super::{
    super::{
        PostgresStore, STORE, StrictLocking,
        barrier::barrier,
        failure::{Failure, unknown},
        idempotency::key_of,
        transaction::rest,
    },
    Guess, OPERATION, Page,
    entry::{self, Entry, Order},
    marker,
    press::{Pressed, Seal, press},
    sheet::{self, Batch, Others, Sheet, Signature},
    statement,
};
use crate::{
    clock::UnixMillis,
    store::{Drawn, HoleReason, StoreError, Suspension, Taken, draw::plan_infallibly},
};

/// How often the optimistic strategy reads and tries before it takes the row lock.
const OPTIMISTIC_ATTEMPTS: u32 = 4;

/// How long to wait before trying again, at first.
const PAUSE: Duration = Duration::from_millis(1);

/// A batch worked out: its answers, and the sheet afterwards.
#[derive(Clone)]
struct Proposal {
    taken: Vec<Taken>,
    after: Sheet,
}

/// One attempt to write a batch. Its name is its own, so that no other is taken for it.
struct Attempt {
    store: PostgresStore,
    order: Arc<Order>,
    signature: Signature,
    /// What is about to be committed.
    proposal: Mutex<Option<Proposal>>,
}

impl Attempt {
    fn named(store: &PostgresStore, order: &Arc<Order>, batch: Batch) -> Self {
        let signature = Signature { writer: store.books().writer, batch };
        Self { store: store.clone(), order: Arc::clone(order), signature, proposal: Mutex::default() }
    }

    fn propose(&self, proposal: &Proposal) {
        *self.proposal.lock().unwrap_or_else(PoisonError::into_inner) = Some(proposal.clone());
    }

    fn proposal(&self) -> Option<Proposal> {
        self.proposal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A batch that is committed, and perhaps not durable.
struct Committed {
    attempt: Attempt,
    proposal: Proposal,
    seal: Seal,
}

/// What became of an attempt.
enum Outcome {
    /// Committed and durable.
    Written(Proposal),
    /// Committed.
    Ahead(Box<Committed>),
    /// Nothing was written, nothing will be.
    Refused,
}

/// Draws a batch. `page` is what this process knows of the counter (kept at `shelf`), and belongs to this call until it ends.
pub(super) async fn issue(
    store: &PostgresStore,
    order: &Arc<Order>,
    shelf: &Arc<tokio::sync::Mutex<Page>>,
    page: &mut Page,
    until: Instant,
) -> Result<Drawn, StoreError> {
    // Taken out first: a call that is dropped half-way leaves no guess behind.
    let guess = page.guess();
    let guessed = if guess.is_some() { Guess::Wrong } else { Guess::None };
    let mut outcome = match guess.and_then(|sheet| Some((sheet, page.next_of_line(store.books())?))) {
        Some((sheet, batch)) => on_guess(store, Attempt::named(store, order, batch), sheet, until).await?,
        None => Outcome::Refused,
    };
    if matches!(outcome, Outcome::Refused) {
        // What is seldom gone through is kept apart: each call would carry room for it.
        outcome = Box::pin(at_length(store, order, page, guessed, until)).await?;
    } else {
        page.was_right();
    }
    match outcome {
        Outcome::Refused => Err(unknown(OPERATION)),
        Outcome::Written(Proposal { taken, after }) => {
            store.books().witness.saw(&order.counter, &after);
            page.know(after);
            Ok(Drawn::Kept(taken))
        }
        Outcome::Ahead(batch) => {
            page.know(batch.proposal.after.clone());
            let in_doubt = Arc::clone(&page.doubt).read_owned().await;
            Ok(Drawn::Pending(Box::pin(keep(batch, in_doubt, Arc::clone(shelf), until))))
        }
    }
}

/// Draws without a guess.
async fn at_length(
    store: &PostgresStore,
    order: &Arc<Order>,
    page: &mut Page,
    guess: Guess,
    until: Instant,
) -> Result<Outcome, StoreError> {
    page.line = None;
    let _alone = alone(page, until).await?;
    if store.locking() == StrictLocking::Optimistic {
        let outcome = optimistically(store, order, page, until).await?;
        if !matches!(outcome, Outcome::Refused) {
            return Ok(outcome);
        }
    }
    page.was_wrong(guess);
    under_lock(store, order, until).await.map(Outcome::Written)
}

/// Waits until every batch of this process is known to be durable or lost.
async fn alone(page: &Page, until: Instant) -> Result<OwnedRwLockWriteGuard<()>, StoreError> {
    let alone = timeout_at(until, Arc::clone(&page.doubt).write_owned());
    alone.await.map_err(|_elapsed| unknown(OPERATION))
}

/// Waits until a batch is durable. One that a crash has taken back is drawn again, as if it had never been.
async fn keep(
    batch: Box<Committed>,
    in_doubt: OwnedRwLockReadGuard<()>,
    shelf: Arc<tokio::sync::Mutex<Page>>,
    until: Instant,
) -> Result<Vec<Taken>, StoreError> {
    let Committed { attempt, proposal, seal } = *batch;
    let Attempt { store, order, .. } = &attempt;
    let sealed = matches!(timeout_at(until, seal).await, Ok(Ok(())));
    if !sealed {
        attempt.propose(&proposal);
    }
    if sealed || find_out(store, &attempt, until).await?.is_some() {
        store.books().witness.saw(&order.counter, &proposal.after);
        return Ok(proposal.taken);
    }
    drop(in_doubt);
    let mut page = timeout_at(until, shelf.lock()).await.map_err(|_elapsed| unknown(OPERATION))?;
    (page.sheet, page.line) = (None, None);
    let _alone = alone(&page, until).await?;
    let Proposal { taken, after } = under_lock(store, order, until).await?;
    store.books().witness.saw(&order.counter, &after);
    page.know(after);
    Ok(taken)
}

// ------------------------------------------------------------------------------------------ the guess

/// Works a batch out from a sheet that may be old, and has it written if it is not.
async fn on_guess(
    store: &PostgresStore,
    attempt: Attempt,
    sheet: Sheet,
    until: Instant,
) -> Result<Outcome, StoreError> {
    let order = &*attempt.order;
    // No key is looked up: one that has a record makes the statement refuse the batch.
    let plan = plan_infallibly(sheet.standing, order.bounds, &order.requests, |_| None);
    let Some(movement) = plan.movement else { return Ok(Outcome::Refused) };
    // Whether anybody has what a floor passes over is looked up under the lock.
    if movement.skipped.is_some() {
        return Ok(Outcome::Refused);
    }
    // Of one that is to get nothing the statement writes no record, so that it would not notice one.
    let mut answered = order.requests.iter().zip(&plan.taken);
    if answered.any(|(request, taken)| request.claim.is_some() && *taken == Taken::Overflow) {
        return Ok(Outcome::Refused);
    }
    let batch = attempt.signature.batch;
    let entry = Entry::of_batch(sheet, order, batch, movement, &plan.taken, Others::Stayed);
    let proposal = Proposal { taken: plan.taken, after: entry.after(attempt.signature.writer) };
    match press(store, entry, until).await {
        Pressed::Written => Ok(Outcome::Written(proposal)),
        Pressed::Ahead(seal) => Ok(Outcome::Ahead(Box::new(Committed { attempt, proposal, seal }))),
        Pressed::Refused => Ok(Outcome::Refused),
        Pressed::Unknown => {
            attempt.propose(&proposal);
            let found = Box::pin(find_out(store, &attempt, until)).await?;
            Ok(found.map_or(Outcome::Refused, Outcome::Written))
        }
    }
}

/// Reads, and writes if nobody else has written meanwhile; a few times.
async fn optimistically(
    store: &PostgresStore,
    order: &Arc<Order>,
    page: &mut Page,
    until: Instant,
) -> Result<Outcome, StoreError> {
    let mut pause = PAUSE;
    for attempt in 0..OPTIMISTIC_ATTEMPTS {
        if attempt > 0 {
            rest(&mut pause, until, unknown(OPERATION)).await?;
        }
        let sheet = match store.transact_within(left(until)?, "read", &**order, read).await {
            Ok(Some(sheet)) => sheet,
            // Keys that have a record are answered under the lock, which also waits for a database that is away.
            Ok(None) | Err(StoreError::Timeout { .. } | StoreError::Unavailable { .. }) => break,
            Err(error) => return Err(error),
        };
        let batch = store.books().line();
        match on_guess(store, Attempt::named(store, order, batch), sheet, until).await? {
            Outcome::Refused => {}
            written @ (Outcome::Written(_) | Outcome::Ahead(_)) => {
                page.line = Some(batch);
                return Ok(written);
            }
        }
    }
    Ok(Outcome::Refused)
}

fn read<'c>(
    connection: &'c mut PgConnection,
    order: &'c Order,
) -> BoxFuture<'c, Result<Option<Sheet>, Failure>> {
    Box::pin(async move {
        if !entry::recall(connection, &order.requests).await?.is_empty() {
            return Ok(None);
        }
        sheet::find(connection, &order.counter).await
    })
}

// ------------------------------------------------------------------------------------------- the lock

/// Draws with the row locked, as often as it takes to know the outcome.
async fn under_lock(
    store: &PostgresStore,
    order: &Arc<Order>,
    until: Instant,
) -> Result<Proposal, StoreError> {
    let mut pause = PAUSE;
    loop {
        let attempt = Attempt::named(store, order, store.books().line());
        match store.transact_within(left(until)?, OPERATION, &attempt, draw).await {
            // Either it is known already, or there is time left to ask.
            Err(StoreError::Timeout { .. }) => {
                if let Some(proposal) = find_out(store, &attempt, until).await? {
                    return Ok(proposal);
                }
            }
            // A server that is known to be away was waited for as long as is worth it.
            Err(error @ StoreError::Unavailable { .. }) if store.is_away() => return Err(error),
            Err(error @ StoreError::Unavailable { .. }) => rest(&mut pause, until, error).await?,
            other => return other,
        }
    }
}

fn draw<'c>(
    connection: &'c mut PgConnection,
    attempt: &'c Attempt,
) -> BoxFuture<'c, Result<Proposal, Failure>> {
    Box::pin(async move {
        let Attempt { store, order, signature: Signature { writer, batch }, .. } = attempt;
        let witness = &store.books().witness;
        let Order { counter, bounds, requests, .. } = &**order;
        let sheet = sheet::open(connection, counter).await?;
        // Behind the lock: whoever waited for it may find another judgement than when the wait began.
        marker::require_believed(connection, writer, witness.beat()).await?;
        if !witness.agrees(counter, &sheet) {
            return Err(StoreError::Suspended { why: Suspension::Settling }.into());
        }
        if bounds.scheme < sheet.scheme {
            return Err(StoreError::Superseded { store: STORE, operation: OPERATION }.into());
        }
        let known = entry::recall(connection, requests).await?;
        let plan =
            plan_infallibly(sheet.standing, *bounds, requests, |claim| known.get(&key_of(claim)).cloned());
        let Some(movement) = plan.movement else {
            // The records that answer it may be another's, and young.
            barrier(connection).await?;
            return Ok(Proposal { taken: plan.taken, after: sheet });
        };
        let others = match movement.skipped {
            Some(_) => sheet::others(connection, counter, &sheet).await?,
            None => Others::Stayed,
        };
        let entry = Entry::of_batch(sheet, order, *batch, movement, &plan.taken, others);
        if !known.is_empty() {
            entry::forget_expired(connection, entry.records()).await?;
        }
        if let Some(hole) = entry.hole {
            let since = requests.first().map_or(UnixMillis(0), |request| request.issued_at);
            sheet::list(connection, entry.sheet(), hole, HoleReason::Skipped, since).await?;
        }
        let proposal = Proposal { taken: plan.taken, after: entry.after(*writer) };
        statement::write_one(connection, writer, &entry).await?;
        attempt.propose(&proposal);
        Ok(proposal)
    })
}

// -------------------------------------------------------------------------------------- lost answers

/// Asks the database what became of an attempt whose answer was lost. The row lock waits for a transaction that is still under way;
/// one that has not begun finds another version, or none.
async fn find_out(
    store: &PostgresStore,
    attempt: &Attempt,
    until: Instant,
) -> Result<Option<Proposal>, StoreError> {
    let Some(proposal) = attempt.proposal() else { return Ok(None) };
    let mut pause = PAUSE;
    loop {
        match store.transact_within(left(until)?, "find_out", attempt, was_written).await {
            Ok(true) => return Ok(Some(proposal)),
            Ok(false) => return Ok(None),
            // That nothing happened is true of the question alone.
            Err(StoreError::Timeout { .. } | StoreError::Unavailable { .. }) => {
                rest(&mut pause, until, unknown(OPERATION)).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

fn was_written<'c>(
    connection: &'c mut PgConnection,
    attempt: &'c Attempt,
) -> BoxFuture<'c, Result<bool, Failure>> {
    const DISPLACED: &str = "SELECT batch FROM numgen_ledger_writers WHERE counter = $1 AND writer = $2";
    Box::pin(async move {
        let Some(sheet) = sheet::lock(connection, &attempt.order.counter).await? else { return Ok(false) };
        // What is found is about to be answered.
        barrier(connection).await?;
        let Signature { writer, batch } = attempt.signature;
        let proof = |last: Signature| last.writer == writer && last.batch.proves(batch);
        if sheet.signature.is_some_and(proof) {
            return Ok(true);
        }
        let query = sqlx::query(DISPLACED).bind(sheet.id).bind(&writer[..]);
        let displaced = query.fetch_optional(connection).await?;
        let last: Option<i64> = displaced.map(|row| row.try_get("batch")).transpose()?;
        Ok(last.is_some_and(|last| Batch(last).proves(batch)))
    })
}

/// What is left of the time, if anything is.
fn left(until: Instant) -> Result<Duration, StoreError> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(unknown(OPERATION)) } else { Ok(left) }
}
