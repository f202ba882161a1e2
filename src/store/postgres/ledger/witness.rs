//! What this process remembers of what the server acknowledged, and its signs of life there.
//!
//! Invariants:
//! - no batch is begun by a process whose last acknowledged sign of life is older than [`LEASE`], and none is answered once it is older
//!   than [`TERM`], however long a call may take: a process that a promoted server knows as silent for long drew nothing in that time;
//! - what was acknowledged is remembered before it is answered, and for as long as the process lives;
//! - a process that ends in order takes its sign of life back after its last batch: a server that has forgotten the batch has forgotten
//!   that too.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use foldhash::fast::RandomState;
use futures_util::future::BoxFuture;
use sqlx::PgConnection;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    super::{PostgresStore, Shared, failure::Failure, transaction::rest},
    KNOWN_LIMIT,
    marker::{self, Beat, Finding, LAPSED_MS},
    sheet::Sheet,
};
use crate::{
    counter::{Counter, SequenceValue},
    lifecycle::Lifecycle,
    store::{StoreError, Suspension},
};

/// How old the last sign of life may be of a process that begins a batch.
const LEASE: Duration = Duration::from_secs(30);

/// How old it may be when the batch is answered. Far below what others take for silence ([`LAPSED_MS`]): clocks may differ in pace.
const TERM: Duration = Duration::from_secs(45);
const _: () = assert!(LEASE.as_millis() < TERM.as_millis() && TERM.as_millis() * 4 <= LAPSED_MS as u128 * 3);

/// How often one is given, and how often a suspended ledger is looked at.
const EVERY: Duration = Duration::from_secs(1);
const EVERY_WHILE_SUSPENDED: Duration = Duration::from_millis(250);

/// How long to wait before one that was not acknowledged is given again, at first.
const PAUSE: Duration = Duration::from_millis(2);

/// A sign of life that was acknowledged less than this ago is not deleted for its age by anybody.
const YOUNG: Duration = Duration::from_secs(24 * 3_600);

/// How long the last word may take.
const LAST_WORD: Duration = Duration::from_millis(500);

/// The end of a ledger, as it was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) last: SequenceValue,
    pub(super) hash: String,
}

/// What a process can say.
#[derive(Clone, Debug)]
pub(super) struct Testimony {
    pub(super) process: [u8; 16],
    pub(super) node: String,
    /// The last sign of life.
    pub(super) beat: Option<Beat>,
    /// Whether that was not long ago.
    is_young: bool,
    is_in_doubt: bool,
    pub(super) seen: Vec<(Counter, Seen)>,
}

impl Testimony {
    /// Whether a server that knows this sign of life of the process has forgotten one.
    pub(super) fn is_ahead_of(&self, known: Option<i64>) -> bool {
        match (known, self.beat) {
            (_, None) => false,
            (Some(known), Some(last)) => known < last.beat,
            (None, Some(_)) => self.is_young,
        }
    }
}

#[derive(Default)]
struct Memory {
    beat: Option<Beat>,
    beaten: Option<Instant>,
    is_open: bool,
    /// Something did not agree: a sign of life alone does not settle it.
    is_in_doubt: bool,
    seen: HashMap<Counter, Seen, RandomState>,
}

/// See the module.
pub(in crate::store::postgres) struct Witness {
    process: [u8; 16],
    node: String,
    memory: Mutex<Memory>,
    standing: watch::Sender<Option<Suspension>>,
    /// One sign of life at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Witness {
    pub(super) fn new(process: [u8; 16], node: Option<String>) -> Self {
        Self {
            process,
            node: node.unwrap_or_else(|| "without a name".to_owned()),
            memory: Mutex::default(),
            standing: watch::Sender::new(None),
            turn: tokio::sync::Mutex::default(),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a ledger as it is about to be answered.
    pub(super) fn saw(&self, counter: &Counter, sheet: &Sheet) {
        let Some(run) = sheet.account.run else { return };
        let hash = &sheet.account.head;
        let mut memory = self.memory();
        if let Some(seen) = memory.seen.get_mut(counter) {
            if seen.last < run.to {
                seen.last = run.to;
                seen.hash.clone_from(hash);
            }
            return;
        }
        if memory.seen.len() >= KNOWN_LIMIT {
            // A sign of life stands for what was acknowledged before it; this is for the operator.
            memory.seen.clear();
        }
        memory.seen.insert(counter.clone(), Seen { last: run.to, hash: hash.clone() });
    }

    /// The last sign of life; what was never given is nowhere.
    pub(super) fn beat(&self) -> Beat {
        self.memory().beat.unwrap_or(Beat { beat: i64::MAX, era: i64::MIN })
    }

    /// Whether a counter that stands here may be drawn on: it has not gone back.
    pub(super) fn agrees(&self, counter: &Counter, sheet: &Sheet) -> bool {
        let memory = self.memory();
        let last = sheet.standing.map(|standing| standing.last);
        memory.seen.get(counter).is_none_or(|seen| last.is_some_and(|last| seen.last <= last))
    }

    /// By when a batch that is begun now has to be answered, `until` at the latest; `None`: none may be begun.
    fn may_draw(&self, until: Instant) -> Option<Instant> {
        let memory = self.memory();
        let beaten = memory.beaten.filter(|beaten| memory.is_open && beaten.elapsed() < LEASE)?;
        Some(until.min(beaten + TERM))
    }

    fn testimony(&self) -> Testimony {
        let memory = self.memory();
        Testimony {
            process: self.process,
            node: self.node.clone(),
            beat: memory.beat,
            is_young: memory.beaten.is_some_and(|beaten| beaten.elapsed() < YOUNG),
            is_in_doubt: memory.is_in_doubt,
            seen: memory.seen.iter().map(|(counter, seen)| (counter.clone(), seen.clone())).collect(),
        }
    }

    fn heard(&self, asked: Instant, finding: &Finding) {
        let why = match finding {
            Finding::Open(beat) => {
                let mut memory = self.memory();
                if memory.beat.replace(*beat).is_some_and(|before| before.era != beat.era) {
                    // A person has said that what was before is settled.
                    memory.seen.clear();
                }
                memory.beaten = Some(asked);
                memory.is_open = true;
                memory.is_in_doubt = false;
                None
            }
            Finding::Suspended(why) => {
                self.memory().is_open = false;
                Some(why.clone())
            }
        };
        self.standing.send_if_modified(|before| {
            let changed = *before != why;
            match &why {
                Some(why) if changed => tracing::error!("{why}"),
                None if changed => tracing::info!("strict numbers are issued again"),
                Some(_) | None => {}
            }
            *before = why;
            changed
        });
    }
}

impl PostgresStore {
    /// Why strict numbers are not issued although the database answers, now and later.
    pub fn suspension(&self) -> watch::Receiver<Option<Suspension>> {
        self.shared.books.witness.standing.subscribe()
    }

    /// Waits until this process may draw; answers by when it has to be done, `until` at the latest.
    pub(super) async fn may_draw(&self, until: Instant) -> Result<Instant, StoreError> {
        let witness = &self.shared.books.witness;
        let mut pause = PAUSE;
        loop {
            if let Some(until) = witness.may_draw(until) {
                return Ok(until);
            }
            match Box::pin(self.attend(until.saturating_duration_since(Instant::now()))).await {
                Ok(None) => {}
                Ok(Some(Suspension::Settling)) if Instant::now() + EVERY_WHILE_SUSPENDED < until => {
                    sleep(EVERY_WHILE_SUSPENDED).await;
                }
                Ok(Some(why)) => return Err(StoreError::Suspended { why }),
                // A server that is known to be away was waited for as long as is worth it.
                Err(error @ StoreError::Unavailable { .. }) if self.is_away() => return Err(error),
                // It can be given again, whether it arrived or not.
                Err(error @ (StoreError::Timeout { .. } | StoreError::Unavailable { .. })) => {
                    rest(&mut pause, until, error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What was drawn under cannot be drawn under any more.
    pub(super) fn must_look_again(&self) {
        let mut memory = self.shared.books.witness.memory();
        memory.is_open = false;
        memory.is_in_doubt = true;
    }

    /// Gives a sign of life, and looks closely where it cannot be given.
    async fn attend(&self, patience: Duration) -> Result<Option<Suspension>, StoreError> {
        let witness = &self.shared.books.witness;
        let _turn = witness.turn.lock().await;
        let asked = Instant::now();
        let testimony = witness.testimony();
        let finding = self.transact_within(patience, "attend", &testimony, attend).await?;
        witness.heard(asked, &finding);
        Ok(match finding {
            Finding::Open { .. } => None,
            Finding::Suspended(why) => Some(why),
        })
    }
}

fn attend<'c>(
    connection: &'c mut PgConnection,
    testimony: &'c Testimony,
) -> BoxFuture<'c, Result<Finding, Failure>> {
    Box::pin(async move {
        if !testimony.is_in_doubt
            && let Some(finding) = marker::beat(connection, testimony).await?
        {
            return Ok(finding);
        }
        marker::examine(connection, testimony).await
    })
}

/// Gives signs of life until the drain, and takes them back then.
pub(in crate::store::postgres) async fn keep(shared: Weak<Shared>, lifecycle: Lifecycle) {
    loop {
        let Some(store) = shared.upgrade().map(|shared| PostgresStore { shared }) else { return };
        // A database that is away is not waited for.
        let away = store.is_away();
        let pause = tokio::select! {
            () = lifecycle.draining() => return leave(&store).await,
            pause = async {
                match if away { Ok(None) } else { store.attend(store.shared.timeout).await } {
                    Ok(Some(_)) => EVERY_WHILE_SUSPENDED,
                    Ok(None) if away => EVERY_WHILE_SUSPENDED,
                    Ok(None) | Err(_) => EVERY,
                }
            } => pause,
        };
        drop(store);
        tokio::select! {
            () = lifecycle.draining() => {}
            () = sleep(pause) => {}
        }
    }
}

/// After the last batch.
async fn leave(store: &PostgresStore) {
    const LEAVE: &str = concat!(
        "DELETE FROM numgen_ledger_processes p USING numgen_ledger_marker m
            WHERE p.process = $1 AND p.beat >= $2 AND m.era = $3 AND ",
        marker::open!()
    );
    if store.is_away() {
        return;
    }
    let testimony = store.shared.books.witness.testimony();
    let leaving = store.transact("leave", &testimony, |connection, testimony| {
        Box::pin(async move {
            if let Some(Beat { beat, era }) = testimony.beat {
                let query = sqlx::query(LEAVE).bind(&testimony.process[..]).bind(beat);
                query.bind(era).execute(connection).await?;
            }
            Ok(())
        })
    });
    // Who leaves without a word counts as silent.
    let _ = timeout(LAST_WORD, leaving).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_batch_outlives_what_the_last_sign_of_life_covers() {
        let witness = Witness::new([1; 16], None);
        let (now, hour) = (Instant::now(), Duration::from_secs(3_600));
        assert_eq!(witness.may_draw(now + hour), None, "none was given yet");
        witness.heard(now, &Finding::Open(Beat { beat: 1, era: 1 }));
        let soon = now + Duration::from_secs(5);
        assert_eq!(witness.may_draw(soon), Some(soon), "a call that takes no longer is left alone");
        assert_eq!(witness.may_draw(now + hour), Some(now + TERM));
        tokio::time::advance(LEASE - Duration::from_millis(1)).await;
        assert_eq!(witness.may_draw(now + hour), Some(now + TERM), "its age counts");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(witness.may_draw(now + hour), None);
        witness.heard(Instant::now(), &Finding::Open(Beat { beat: 2, era: 1 }));
        assert_eq!(witness.may_draw(now + hour), Some(Instant::now() + TERM));
    }
}
