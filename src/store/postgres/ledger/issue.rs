//! Drawing: the guess first, then the row lock; and what became of a batch whose answer was lost.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Row};
use tokio::time::{Instant, sleep};

use super::{
    super::{
        PostgresStore, STORE, StrictLocking,
        failure::{Failure, unknown},
        idempotency::key_of,
        transaction::jittered,
    },
    OPERATION, Page,
    entry::{self, Entry, Order},
    marker,
    press::{Pressed, press},
    sheet::{self, Sheet, Signature},
    witness::Witness,
};
use crate::{
    clock::UnixMillis,
    store::{HoleReason, StoreError, Suspension, Taken, draw::plan_infallibly},
};

/// How often the optimistic strategy reads and tries before it takes the row lock.
const OPTIMISTIC_ATTEMPTS: u32 = 4;

/// How long to wait before trying again, at first and at most.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A batch worked out: its answers, and the sheet afterwards.
#[derive(Clone)]
struct Proposal {
    taken: Vec<Taken>,
    after: Sheet,
}

/// One attempt to write a batch. Its number is its own, so that no other is taken for it.
struct Attempt<'a> {
    order: &'a Order,
    witness: &'a Witness,
    signature: Signature,
    /// What is about to be committed.
    proposal: Mutex<Option<Proposal>>,
}

impl<'a> Attempt<'a> {
    fn of(store: &'a PostgresStore, order: &'a Order) -> Self {
        let books = store.books();
        Self { order, witness: &books.witness, signature: books.sign(), proposal: Mutex::default() }
    }

    fn propose(&self, proposal: &Proposal) {
        *self.proposal.lock().unwrap_or_else(PoisonError::into_inner) = Some(proposal.clone());
    }

    fn proposal(&self) -> Option<Proposal> {
        self.proposal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What became of an attempt.
enum Outcome {
    /// Committed.
    Written(Proposal),
    /// Nothing was written, nothing will be.
    Refused,
}

/// Draws a batch. `page` is what this process knows of the counter, and belongs to this call until it ends.
pub(super) async fn issue(
    store: &PostgresStore,
    order: &Order,
    page: &mut Page,
    until: Instant,
) -> Result<Vec<Taken>, StoreError> {
    // Taken out first: a call that is dropped half-way leaves no guess behind.
    let guess = page.guess();
    let guessed = guess.is_some();
    let mut outcome = match guess {
        Some(sheet) => on_guess(store, order, sheet, until).await?,
        None => Outcome::Refused,
    };
    if store.locking() == StrictLocking::Optimistic && matches!(outcome, Outcome::Refused) {
        outcome = optimistically(store, order, until).await?;
    }
    let proposal = match outcome {
        Outcome::Written(proposal) => proposal,
        Outcome::Refused => {
            page.was_wrong(guessed);
            under_lock(store, order, until).await?
        }
    };
    store.books().witness.saw(&order.counter, &proposal.after);
    page.know(proposal.after);
    Ok(proposal.taken)
}

// ------------------------------------------------------------------------------------------ the guess

/// Works a batch out from a sheet that may be old, and has it written if it is not.
async fn on_guess(
    store: &PostgresStore,
    order: &Order,
    sheet: Sheet,
    until: Instant,
) -> Result<Outcome, StoreError> {
    // No key is looked up: one that has a record makes the statement refuse the batch.
    let plan = plan_infallibly(sheet.standing, order.bounds, &order.requests, |_| None);
    let Some(movement) = plan.movement else { return Ok(Outcome::Refused) };
    let attempt = Attempt::of(store, order);
    let entry = Entry::of_batch(sheet, order, attempt.signature.batch, movement, &plan.taken);
    if entry.hole.is_some() {
        return Ok(Outcome::Refused);
    }
    let proposal = Proposal { taken: plan.taken, after: entry.after(attempt.signature.writer) };
    match press(store, entry, until).await {
        Pressed::Written => Ok(Outcome::Written(proposal)),
        Pressed::Refused => Ok(Outcome::Refused),
        Pressed::Unknown => {
            attempt.propose(&proposal);
            find_out(store, &attempt, until).await
        }
    }
}

/// Reads, and writes if nobody else has written meanwhile; a few times.
async fn optimistically(store: &PostgresStore, order: &Order, until: Instant) -> Result<Outcome, StoreError> {
    let mut pause = PAUSE;
    for attempt in 0..OPTIMISTIC_ATTEMPTS {
        if attempt > 0 {
            rest(&mut pause, until, unknown(OPERATION)).await?;
        }
        let sheet = match store.transact_within(left(until)?, "read", order, read).await {
            Ok(Some(sheet)) => sheet,
            // Keys that have a record are answered under the lock, which also waits for a database that is away.
            Ok(None) | Err(StoreError::Timeout { .. } | StoreError::Unavailable { .. }) => break,
            Err(error) => return Err(error),
        };
        if let written @ Outcome::Written(_) = on_guess(store, order, sheet, until).await? {
            return Ok(written);
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
async fn under_lock(store: &PostgresStore, order: &Order, until: Instant) -> Result<Proposal, StoreError> {
    let mut pause = PAUSE;
    loop {
        let attempt = Attempt::of(store, order);
        match store.transact_within(left(until)?, OPERATION, &attempt, draw).await {
            // Either it is known already, or there is time left to ask.
            Err(StoreError::Timeout { .. }) => {
                if let Outcome::Written(proposal) = find_out(store, &attempt, until).await? {
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
    attempt: &'c Attempt<'_>,
) -> BoxFuture<'c, Result<Proposal, Failure>> {
    Box::pin(async move {
        let Attempt { order, witness, signature: Signature { writer, batch }, .. } = attempt;
        let Order { counter, bounds, requests, .. } = order;
        marker::require_believed(connection, writer, witness.beat()).await?;
        let sheet = sheet::open(connection, counter).await?;
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
            return Ok(Proposal { taken: plan.taken, after: sheet });
        };
        let entry = Entry::of_batch(sheet, order, *batch, movement, &plan.taken);
        if !known.is_empty() {
            entry::forget_expired(connection, entry.records()).await?;
        }
        if let Some(hole) = entry.hole {
            let since = requests.first().map_or(UnixMillis(0), |request| request.issued_at);
            sheet::list(connection, entry.sheet(), hole, HoleReason::Skipped, since).await?;
        }
        let proposal = Proposal { taken: plan.taken, after: entry.after(*writer) };
        entry::write_one(connection, writer, &entry).await?;
        attempt.propose(&proposal);
        Ok(proposal)
    })
}

// -------------------------------------------------------------------------------------- lost answers

/// Asks the database what became of an attempt whose answer was lost. The row lock waits for a transaction that is still under way;
/// one that has not begun finds another version, or none.
async fn find_out(
    store: &PostgresStore,
    attempt: &Attempt<'_>,
    until: Instant,
) -> Result<Outcome, StoreError> {
    let Some(proposal) = attempt.proposal() else { return Ok(Outcome::Refused) };
    let mut pause = PAUSE;
    loop {
        match store.transact_within(left(until)?, "find_out", attempt, was_written).await {
            Ok(true) => return Ok(Outcome::Written(proposal)),
            Ok(false) => return Ok(Outcome::Refused),
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
    attempt: &'c Attempt<'_>,
) -> BoxFuture<'c, Result<bool, Failure>> {
    const DISPLACED: &str = "SELECT batch FROM numgen_ledger_writers WHERE counter = $1 AND writer = $2";
    Box::pin(async move {
        let Some(sheet) = sheet::lock(connection, &attempt.order.counter).await? else { return Ok(false) };
        if sheet.signature == Some(attempt.signature) {
            return Ok(true);
        }
        let Signature { writer, batch } = attempt.signature;
        let query = sqlx::query(DISPLACED).bind(sheet.id).bind(&writer[..]);
        let displaced = query.fetch_optional(connection).await?;
        let last: Option<i64> = displaced.map(|row| row.try_get("batch")).transpose()?;
        Ok(last == Some(batch))
    })
}

/// Waits, longer each time; `error` is the answer where there is no time for it.
async fn rest(pause: &mut Duration, until: Instant, error: StoreError) -> Result<(), StoreError> {
    let nap = jittered(*pause);
    *pause = (*pause * 2).min(LONGEST_PAUSE);
    if Instant::now() + nap >= until {
        return Err(error);
    }
    sleep(nap).await;
    Ok(())
}

/// What is left of the time, if anything is.
fn left(until: Instant) -> Result<Duration, StoreError> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(unknown(OPERATION)) } else { Ok(left) }
}
