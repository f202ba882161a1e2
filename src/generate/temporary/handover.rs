//! Hands the journal over to the store that all nodes share.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    lifecycle::Lifecycle,
    store::{Journal, Pending, Status, StoreError, TemporaryQuery, TemporaryStore},
    telemetry::Gauge,
};

/// Rows of one call.
const BATCH: u32 = 500;

/// How often to look, on average: a store that may have forgotten lets nobody decide for 5 s, and has heard of all decisions before.
const EVERY: Duration = Duration::from_secs(1);

/// How often the journal is rid of what is resolved, in rounds: about a minute.
const TIDY_EVERY: u32 = 60;

/// More open numbers than this are counted only as often as that. PostgreSQL goes through all of them, a tenth of a second for a million,
/// and every node asks.
const COUNTED_EACH_ROUND: u64 = 10_000;

/// How long a resolved number stays in the journal after the shared store has acknowledged what became of it: a dump of that store
/// which is older than this may not be brought back.
const KEPT_FOR: Duration = Duration::from_secs(90 * 86_400);

/// How long the last look may take at the end of the process: what is left stays in the journal.
const FAREWELL: Duration = Duration::from_millis(500);

/// The background task of one node.
pub struct Handover {
    shared: Arc<dyn TemporaryStore>,
    journal: Arc<dyn Journal>,
    open: Gauge,
    /// The open number that [`Self::tidy`] looked at last.
    looked_at: Mutex<Option<String>>,
}

impl Handover {
    /// From `journal` to `shared`; `open` shows how many temporary numbers wait for a person.
    pub fn new(shared: Arc<dyn TemporaryStore>, journal: Arc<dyn Journal>, open: Gauge) -> Self {
        Self { shared, journal, open, looked_at: Mutex::default() }
    }

    /// Hands over until the drain, and once more then.
    pub async fn run(self, lifecycle: Lifecycle) {
        let (mut known_open, mut away, mut rounds) = (0, false, 0_u32);
        while !lifecycle.is_draining() {
            let is_counted = away || known_open <= COUNTED_EACH_ROUND || rounds.is_multiple_of(TIDY_EVERY);
            let round = async {
                if is_counted { self.round().await } else { self.hand_over().await.map(|()| known_open) }
            };
            match round.await {
                Ok(open) => {
                    (known_open, away) = (open, false);
                    self.open.set(open as f64);
                    if rounds.is_multiple_of(TIDY_EVERY)
                        && let Err(error) = self.tidy().await
                    {
                        let error = &error as &dyn std::error::Error;
                        tracing::debug!(error, "resolved temporary numbers stay in the journal for now");
                    }
                    rounds = rounds.wrapping_add(1);
                }
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "temporary numbers cannot be handed over for now");
                    }
                    let unsent = self.journal.unsent().await.unwrap_or(0);
                    self.open.set((known_open + unsent) as f64);
                }
            }
            tokio::select! {
                () = lifecycle.draining() => {}
                () = tokio::time::sleep(pause()) => {}
            }
        }
        if !matches!(tokio::time::timeout(FAREWELL, self.hand_over()).await, Ok(Ok(()))) {
            tracing::debug!("the journal of temporary numbers is handed over after the next start");
        }
    }

    /// Hands over what the store does not have; answers how many are open there.
    ///
    /// # Errors
    ///
    /// A store fails; what it has acknowledged is not handed over again.
    pub async fn round(&self) -> Result<u64, StoreError> {
        self.hand_over().await?;
        self.shared.count_open().await
    }

    async fn hand_over(&self) -> Result<(), StoreError> {
        let (mut instance, mut handed_over) = (self.shared.upload(Vec::new()).await?, 0);
        // Decisions first, since others wait for them: however long the journal is, they are known before anybody decides anew.
        for part in [Pending::Decided, Pending::Any] {
            loop {
                let rows = self.journal.pending(instance.clone(), part, BATCH).await?;
                if rows.is_empty() {
                    break;
                }
                handed_over += rows.len();
                // Under another instance than a moment ago, what was acknowledged before is pending again.
                instance = self.shared.upload(rows.clone()).await?;
                self.journal.acknowledged(rows, instance.clone()).await?;
            }
        }
        if handed_over > 0 {
            tracing::info!(rows = handed_over, "temporary numbers handed over");
        }
        Ok(())
    }

    /// Learns what others have made of the next few open numbers of this journal, and forgets those that were resolved long ago.
    ///
    /// # Errors
    ///
    /// A store fails; nothing is lost.
    pub async fn tidy(&self) -> Result<(), StoreError> {
        let after = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let query =
            TemporaryQuery { status: Some(Status::Open), after, limit: BATCH, ..TemporaryQuery::default() };
        let open = self.journal.list(query).await?;
        for row in &open {
            // Resolved on another node: the row here is replaced, and handed over as any other that has changed.
            let known = self.shared.find(row.number.clone()).await?;
            if let Some(known) = known.filter(|known| known.revision > row.revision) {
                self.journal.upload(vec![known]).await?;
            }
        }
        let is_page = u32::try_from(open.len()).is_ok_and(|count| count == BATCH);
        let last = open.last().filter(|_| is_page).map(|row| row.number.to_string());
        *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner) = last;
        let instance = self.shared.upload(Vec::new()).await?;
        while self.journal.prune(instance.clone(), KEPT_FOR, BATCH).await? == u64::from(BATCH) {}
        Ok(())
    }
}

/// Between 0.8 and 1.2 of the interval, so that nodes do not come all at once.
fn pause() -> Duration {
    let mut byte = [128];
    // Without random bits they do come at once.
    let _even = getrandom::fill(&mut byte);
    EVERY.mul_f64(0.8 + 0.4 * f64::from(byte[0]) / 255.0)
}
