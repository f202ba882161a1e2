//! The strict ledger: what its rows say and how they are chained comes from `store/ledger.rs`, what is drawn from `store/draw.rs`;
//! this folder writes and reads them.
//!
//! # Invariants
//!
//! 1. **One row lock orders a counter.** Whatever changes a counter, its rows or its events holds the lock of its row in
//!    `numgen_ledger_counters` (a *sheet*) until it commits. So sheet, rows and both chains grow by one batch at a time.
//! 2. **A guess writes nothing unless it is right.** Each process keeps the sheets that it knows. A batch worked out from one is
//!    written by a single statement, on condition that the sheet still has the *version* and the last batch that were known; every change of what a
//!    guess rests on raises the version. A wrong guess costs a round trip, and then the lock decides.
//! 3. **The unique index on keys decides** who draws under an idempotency key, also between counters, periods and modes. A guess
//!    looks no key up: the statement refuses a batch if any of its keys has a record. Under the lock the records are read. Either way a
//!    key that another transaction is just recording makes the insertion wait, and fail when that one commits; the whole batch is
//!    then worked out anew and finds the record. An expired record is deleted only as expired, in the transaction that replaces it.
//! 4. **A lost answer is found out.** A sheet carries the *signature* of the last batch: process and number. Of the batches that other
//!    processes have written over, the last of each process is kept beside. Batches of a process
//!    stand on each other in *lines* (`sheet.rs`), and a new line begins when nothing of the old one is in doubt (`issue.rs`): so the row
//!    lock and these two places tell for certain whether a batch was committed, on a new connection, within the same deadline;
//!    requests without a key get their numbers too. The row lock cannot be had while the lost transaction still runs, and a statement
//!    that arrives after that finds another version. If the deadline passes first the caller gets `Timeout`: what may have been
//!    drawn stands in the ledger, and a retry with the same key is answered with it.
//! 5. **A server that may have forgotten draws nothing.** `marker.rs` says which server is believed; a guess is written on that
//!    condition too.
//! 6. **A retired scheme draws nothing.** Every sheet shows what was retired, and is made under a lock that retiring takes too.
//!
//! 7. **Nobody is told what a crash may take back**, although others draw on it before it is durable: `../barrier.rs`.
//!
//! The hot path is one round trip and one commit for a whole batch (`press.rs`); for many counters at once, still one.
//!
//! Order of reading: `sheet.rs`, `entry.rs`, `statement.rs`, `../barrier.rs`, `tempo.rs`, `press.rs`, `issue.rs`; `marker.rs`, `witness.rs`;
//! then `changes.rs` (confirm, void, expire), `reading.rs` (pages, certificates, verification), `counters.rs` (the same sheets outside the ledger).

mod changes;
mod counters;
mod entry;
mod issue;
mod marker;
mod press;
mod reading;
mod resume;
mod sheet;
mod statement;
mod tempo;
mod witness;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use foldhash::fast::RandomState;
use tokio::{
    sync::RwLock,
    time::{Instant, timeout_at},
};

use self::{
    entry::Order,
    press::Press,
    sheet::{Batch, Sheet, Signature},
    witness::Witness,
};
use super::{PostgresStore, failure::unknown};
use crate::{
    clock::UnixMillis,
    counter::Counter,
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    store::{
        Bounds, Certificate, Drawn, IssueRequest, LedgerQuery, LedgerRow, LedgerStep, LedgerStore,
        RenderNumber, Reservations, StoreError, StoreFuture, Stray, Taken, Transitioned, Verification,
    },
};

/// The name of drawing in errors and metrics.
const OPERATION: &str = "issue";

/// How many counters are known at most; daily counters of many keys would else add up over the years.
const KNOWN_LIMIT: usize = 10_000;

/// How many batches go straight to the lock after guesses were wrong time and again: another node is drawing on the same counter.
const LONGEST_MISTRUST: u32 = 31;

/// How long an audit may take that reads a whole ledger.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) use marker::MARKED_SINCE;
pub use resume::{LedgerReport, Lost, Resumed};
pub(super) use resume::{look, resume};
pub(super) use witness::keep;

/// What this process knows of the ledgers.
pub(super) struct Books {
    /// Names this process, not the host that it runs on.
    writer: [u8; 16],
    /// Names it where it writes outside the turns of a page: what it writes there must not pass for one of its batches.
    passer: [u8; 16],
    lines: AtomicI64,
    pages: Mutex<HashMap<Counter, Arc<tokio::sync::Mutex<Page>>, RandomState>>,
    press: Press,
    pub(super) witness: Witness,
    lifecycle: Lifecycle,
}

/// What this process knows of one counter.
#[derive(Default)]
struct Page {
    /// The sheet as it was last seen; a guess.
    sheet: Option<Sheet>,
    /// The batch that was last sent on a guess: the next one stands on it.
    line: Option<Batch>,
    /// Shared by batches of which nobody knows yet whether they are durable. A new line begins when there is none.
    doubt: Arc<RwLock<()>>,
    /// How many batches go without a guess.
    mistrust: u32,
    /// How many the next wrong guess costs.
    penalty: u32,
}

/// What came of knowing a sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guess {
    /// It was another.
    Wrong,
    /// None was known, or none was tried.
    None,
}

impl Books {
    /// Knows nothing yet. Tasks end with `lifecycle`.
    pub(super) fn new(node: Option<String>, lifecycle: Lifecycle) -> Result<Self, getrandom::Error> {
        let (mut writer, mut passer) = ([0; 16], [0; 16]);
        getrandom::fill(&mut writer)?;
        getrandom::fill(&mut passer)?;
        Ok(Self {
            writer,
            passer,
            lines: AtomicI64::new(0),
            pages: Mutex::default(),
            press: Press::default(),
            witness: Witness::new(writer, node),
            lifecycle,
        })
    }

    fn line(&self) -> Batch {
        Batch::first(self.lines.fetch_add(1, Ordering::Relaxed))
    }

    fn sign_passage(&self) -> Signature {
        Signature { writer: self.passer, batch: self.line() }
    }

    fn page(&self, counter: &Counter) -> Arc<tokio::sync::Mutex<Page>> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = pages.get(counter) {
            return Arc::clone(page);
        }
        if pages.len() >= KNOWN_LIMIT {
            // Those that are in use stay: two calls of one counter must meet.
            pages.retain(|_, page| Arc::strong_count(page) > 1);
        }
        Arc::clone(pages.entry(counter.clone()).or_default())
    }
}

impl Page {
    /// The sheet to guess with, if that is worth while.
    fn guess(&mut self) -> Option<Sheet> {
        let sheet = self.sheet.take();
        if self.mistrust == 0 {
            return sheet;
        }
        self.mistrust -= 1;
        None
    }

    fn was_wrong(&mut self, guess: Guess) {
        if guess == Guess::Wrong {
            self.mistrust = self.penalty;
            self.penalty = (self.penalty * 2 + 1).min(LONGEST_MISTRUST);
        }
    }

    /// What was paid for wrong guesses is forgotten while others prove right: most come of a retry or of a step, and not of another node.
    fn was_right(&mut self) {
        self.penalty /= 2;
    }

    /// The name of a batch that is sent on a guess. `None`: the line is full.
    fn next_of_line(&mut self, books: &Books) -> Option<Batch> {
        self.line = match self.line {
            Some(last) => last.next(),
            None => Some(books.line()),
        };
        self.line
    }

    fn know(&mut self, sheet: Sheet) {
        self.sheet = Some(sheet);
    }
}

impl PostgresStore {
    fn books(&self) -> &Books {
        &self.shared.books
    }

    /// Rows of a prefix key that no counter leads to, and those of which nobody can say whose they are: no other look shows them.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub async fn strays(&self, key: &PrefixKey) -> Result<Vec<Stray>, StoreError> {
        self.transact_within(AUDIT_TIMEOUT, "strays", key, reading::strays).await
    }

    async fn draw_in_turn(&self, order: Order) -> Result<Drawn, StoreError> {
        let until = Instant::now() + self.shared.timeout;
        let order = Arc::new(order);
        let page = self.books().page(&order.counter);
        let mut turn = timeout_at(until, page.lock()).await.map_err(|_elapsed| unknown(OPERATION))?;
        loop {
            let covered = self.may_draw(until).await?;
            match issue::issue(self, &order, &page, &mut turn, covered).await {
                // The server was exchanged this moment.
                Err(StoreError::Suspended { .. }) if Instant::now() < until => self.must_look_again(),
                other => return other,
            }
        }
    }
}

impl LedgerStore for PostgresStore {
    fn issue(
        &self,
        counter: Counter,
        bounds: Bounds,
        requests: Vec<IssueRequest>,
        render: RenderNumber,
    ) -> StoreFuture<'_, Vec<Taken>> {
        let order = Order { counter, bounds, requests, render };
        Box::pin(async move {
            match self.draw_in_turn(order).await? {
                Drawn::Kept(taken) => Ok(taken),
                Drawn::Pending(rest) => rest.await,
            }
        })
    }

    fn draw(
        &self,
        counter: Counter,
        bounds: Bounds,
        requests: Vec<IssueRequest>,
        render: RenderNumber,
    ) -> StoreFuture<'_, Drawn> {
        Box::pin(self.draw_in_turn(Order { counter, bounds, requests, render }))
    }

    fn transition(&self, key: PrefixKey, steps: Vec<LedgerStep>) -> StoreFuture<'_, Vec<Transitioned>> {
        Box::pin(async move { self.transact_ahead("transition", &(key, steps), changes::transition).await })
    }

    fn expire_reservations(&self, now: UnixMillis) -> StoreFuture<'_, u64> {
        Box::pin(changes::expire_reservations(self, now))
    }

    fn reservations(&self) -> StoreFuture<'_, Reservations> {
        Box::pin(self.open_reservations())
    }

    fn rows(&self, key: PrefixKey, query: LedgerQuery) -> StoreFuture<'_, Vec<LedgerRow>> {
        Box::pin(async move { self.transact("rows", &(key, query), reading::rows).await })
    }

    fn certificate(&self, counter: Counter) -> StoreFuture<'_, Option<Certificate>> {
        Box::pin(async move {
            self.transact_within(AUDIT_TIMEOUT, "certificate", &counter, reading::certificate).await
        })
    }

    fn verify(&self, counter: Counter) -> StoreFuture<'_, Verification> {
        Box::pin(
            async move { self.transact_within(AUDIT_TIMEOUT, "verify", &counter, reading::verify).await },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many batches go without a guess once one was wrong.
    fn price(page: &mut Page) -> u32 {
        page.was_wrong(Guess::Wrong);
        page.mistrust
    }

    #[test]
    fn wrong_guesses_cost_more_and_more_until_others_prove_right() {
        let mut page = Page::default();
        let prices: Vec<u32> = (0..7).map(|_| price(&mut page)).collect();
        assert_eq!(prices, [0, 1, 3, 7, 15, 31, 31]);
        page.was_wrong(Guess::None);
        page.was_right();
        assert_eq!(price(&mut page), 15);
        for _ in 0..5 {
            page.was_right();
        }
        assert_eq!(price(&mut page), 0, "a retry now and then is no other node");
    }
}
