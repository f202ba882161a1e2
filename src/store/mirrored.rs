//! A durable register of rules, and a mirror of it that operators write into: PostgreSQL and the Redis hash.
//!
//! Invariants:
//! - a rule is what the durable register says; whatever is in force was there first;
//! - nobody who asks the register what is new waits for the mirror: neither one that is away nor one that is being refilled;
//! - the mirror follows, by one task of its own ([`MirroredRules::keep`]): what changed is owed to it until it has it, and everything is
//!   where it has forgotten. What it has is never replaced by an earlier revision, so the order in which it is told does not matter;
//! - what an operator writes into the mirror is adopted by writing it to the register, and only then taken off the mirror's list. The
//!   list that [`SharedRules::follow`] answers is the one that the task saw last: adopting looks at the mirror itself;
//! - a mirror that is not known to be this data centre's own is neither written nor listened to: its rules may be in force elsewhere.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use super::{
    DirectWrite, Home, Lineage, More, Note, RuleMark, RuleNews, RuleRecord, RuleStore, SharedRules,
    StoreError, StoreFuture, Swap,
};
use crate::{lifecycle::Lifecycle, prefix_key::PrefixKey};

#[cfg(test)]
mod tests;

/// Records written to the mirror in one call.
const BATCH: usize = 200;

/// Answers of the mirror that are read in one go: a look at 100,000 rules.
const ROUNDS: usize = 400;

/// How often the same records are offered while others write them, before the rest of the work has its turn.
const ATTEMPTS: usize = 5;

/// More records than that are not owed one by one: what the mirror has is compared with everything, which reads both in large parts.
const OWED_MOST: usize = 1_000;

/// How often the mirror is looked at, unless somebody calls.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// The same while it looks for what operators wrote.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// See the module.
pub struct MirroredRules {
    durable: Arc<dyn SharedRules>,
    mirror: Arc<dyn SharedRules>,
    /// Whose the mirror is.
    home: watch::Receiver<Home>,
    /// Never held while anything is waited for.
    desk: Mutex<Desk>,
    /// There is something to do at the mirror.
    work: Notify,
    /// The mirror has something to say.
    said: Notify,
}

/// Between those who change and follow rules, and the task that keeps the mirror.
struct Desk {
    owed: Owed,
    direct: Vec<DirectWrite>,
    misnamed: Vec<String>,
}

/// What the mirror may not have yet.
enum Owed {
    Everything,
    Records(HashMap<PrefixKey, RuleRecord>),
}

impl Owed {
    fn nothing() -> Self {
        Self::Records(HashMap::new())
    }

    /// Adds records; of the same key the later one counts.
    fn add(&mut self, records: impl IntoIterator<Item = RuleRecord>) {
        let Self::Records(owed) = self else { return };
        for record in records {
            match owed.entry(record.key.clone()) {
                Entry::Occupied(known) if known.get().revision >= record.revision => {}
                Entry::Occupied(mut known) => drop(known.insert(record)),
                Entry::Vacant(place) => drop(place.insert(record)),
            }
        }
        if owed.len() > OWED_MOST {
            *self = Self::Everything;
        }
    }

    /// Takes back what was not delivered.
    fn give_back(&mut self, undelivered: Self) {
        match undelivered {
            Self::Everything => *self = Self::Everything,
            Self::Records(records) => self.add(records.into_values()),
        }
    }
}

/// What the mirror is believed to have, and what it should have.
type Pair = (Option<RuleRecord>, RuleRecord);

impl MirroredRules {
    /// The register `durable`, mirrored to `mirror` as long as [`Self::keep`] runs and `home` says that it is this data centre's own.
    pub fn new(
        durable: Arc<dyn SharedRules>,
        mirror: Arc<dyn SharedRules>,
        home: watch::Receiver<Home>,
    ) -> Self {
        let desk = Desk { owed: Owed::Everything, direct: Vec::new(), misnamed: Vec::new() };
        Self { durable, mirror, home, desk: Mutex::new(desk), work: Notify::new(), said: Notify::new() }
    }

    /// Keeps the mirror up to date, and looks at what operators wrote there, until the drain.
    pub async fn keep(self: Arc<Self>, lifecycle: Lifecycle) {
        let mut mark = RuleMark::default();
        let mut home = self.home.clone();
        loop {
            let reflected = tokio::select! {
                () = lifecycle.draining() => return,
                reflected = self.reflect(&mut mark) => reflected,
            };
            let pause = reflected.unwrap_or_else(|error| {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "the mirror of the rules is behind");
                POLL_EVERY
            });
            tokio::select! {
                () = lifecycle.draining() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.work.notified() => {}
                () = self.mirror.called() => {}
                Ok(()) = home.changed() => {}
            }
        }
    }

    /// Whether the mirror may be written.
    fn check(&self, operation: &'static str) -> Result<(), StoreError> {
        self.home.borrow().check(operation)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what there is to do at the mirror; answers when to look again.
    async fn reflect(&self, mark: &mut RuleMark) -> Result<Duration, StoreError> {
        if let Err(foreign) = self.check("follow") {
            // What was written there is meant for others.
            let mut desk = self.desk();
            (desk.direct, desk.misnamed) = (Vec::new(), Vec::new());
            return Err(foreign);
        }
        let pause = self.look(mark).await?;
        // Taken before the register is read: what changes after that is owed anew.
        let owed = mem::replace(&mut self.desk().owed, Owed::nothing());
        let delivered = match &owed {
            Owed::Everything => self.push_all().await,
            Owed::Records(records) => {
                self.push(records.values().map(|record| (None, record.clone())).collect()).await
            }
        };
        if delivered.is_err() {
            self.desk().owed.give_back(owed);
        }
        delivered.map(|()| pause)
    }

    /// Hears what the mirror has to say; answers when to look again.
    async fn look(&self, mark: &mut RuleMark) -> Result<Duration, StoreError> {
        for _ in 0..ROUNDS {
            let mut seen = self.mirror.follow(mark.clone()).await?;
            *mark = seen.mark;
            // It shows some of many, in any order.
            seen.direct.sort_by(|one, other| one.key.cmp(&other.key));
            seen.misnamed.sort();
            let mut desk = self.desk();
            if seen.lineage == Lineage::New {
                desk.owed = Owed::Everything;
            }
            if (&desk.direct, &desk.misnamed) != (&seen.direct, &seen.misnamed) {
                (desk.direct, desk.misnamed) = (seen.direct, seen.misnamed);
                self.said.notify_one();
            }
            drop(desk);
            match seen.more {
                More::Nothing => return Ok(POLL_EVERY),
                More::Later => break,
                More::Records | More::Writes => {}
            }
        }
        Ok(LOOK_EVERY)
    }

    /// Writes every record to the mirror that it does not have.
    async fn push_all(&self) -> Result<(), StoreError> {
        let theirs = self.mirror.load_rules().await?;
        let mut theirs: HashMap<_, _> =
            theirs.into_iter().map(|record| (record.key.clone(), record)).collect();
        let ours = self.durable.load_rules().await?;
        let pairs = ours.into_iter().map(|record| (theirs.remove(&record.key), record));
        self.push(pairs.filter(is_behind).collect()).await
    }

    /// Writes records to the mirror where it has earlier ones. It says itself what it has where that was not known: a batch takes two
    /// calls at most, unless others write the same.
    async fn push(&self, mut pairs: Vec<Pair>) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS {
            let mut again = Vec::new();
            for part in pairs.chunks(BATCH) {
                self.check("restore")?;
                let swaps = self.mirror.restore(part.to_vec()).await?;
                for ((_, record), swap) in part.iter().zip(swaps) {
                    if let Swap::Changed(present) = swap {
                        again.push((present, record.clone()));
                    }
                }
            }
            pairs = again.into_iter().filter(is_behind).collect();
            if pairs.is_empty() {
                return Ok(());
            }
        }
        self.owe(pairs.into_iter().map(|(_, record)| record));
        Ok(())
    }

    fn owe(&self, records: impl IntoIterator<Item = RuleRecord>) {
        self.desk().owed.add(records);
        self.work.notify_one();
    }

    /// Writes to the mirror at once what its caller has just changed: who reads it there after the answer finds it.
    async fn show(&self, record: RuleRecord) {
        if let Err(error) = self.push(vec![(None, record.clone())]).await {
            self.desk().owed.add([record]);
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "the mirror of the rules is behind");
        }
    }

    /// Takes a write off the list: it is adopted. There may be more than the list shows.
    fn settled(&self, write: &DirectWrite) {
        self.desk().direct.retain(|listed| listed != write);
        self.work.notify_one();
    }
}

fn is_behind((present, record): &Pair) -> bool {
    present.as_ref().is_none_or(|present| present.revision < record.revision)
}

impl RuleStore for MirroredRules {
    fn load_rules(&self) -> StoreFuture<'_, Vec<RuleRecord>> {
        self.durable.load_rules()
    }

    fn rule<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<RuleRecord>> {
        self.durable.rule(key)
    }

    fn swap_rule(&self, expected: Option<RuleRecord>, new: RuleRecord) -> StoreFuture<'_, Swap> {
        Box::pin(async move {
            let swap = self.durable.swap_rule(expected, new.clone()).await?;
            if let Swap::Done = swap {
                self.show(new).await;
            }
            Ok(swap)
        })
    }

    fn swap_rule_noted(
        &self,
        expected: Option<RuleRecord>,
        new: RuleRecord,
        note: Note,
    ) -> StoreFuture<'_, Swap> {
        Box::pin(async move {
            let swap = self.durable.swap_rule_noted(expected, new.clone(), note).await?;
            if let Swap::Done = swap {
                self.show(new).await;
            }
            Ok(swap)
        })
    }

    fn mark_used<'a>(&'a self, key: &'a PrefixKey, revision: u64) -> StoreFuture<'a, bool> {
        self.durable.mark_used(key, revision)
    }

    fn direct_write<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<DirectWrite>> {
        Box::pin(async move {
            if self.check("direct_write").is_err() {
                return Ok(None);
            }
            match self.mirror.direct_write(key).await {
                Ok(write) => Ok(write),
                // Nobody can write into what is away.
                Err(StoreError::Unavailable { .. } | StoreError::Timeout { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn swap_over(
        &self,
        write: DirectWrite,
        expected: Option<RuleRecord>,
        new: RuleRecord,
    ) -> StoreFuture<'_, Swap> {
        Box::pin(async move {
            self.check("swap_over")?;
            if let Some(known) = expected.as_ref().filter(|known| known.rule == new.rule) {
                // Adopted before, and still on the list: the mirror is all that is behind.
                let present = self.mirror.rule(&new.key).await?;
                self.mirror.swap_over(write.clone(), present, known.clone()).await?;
                self.settled(&write);
                return Ok(Swap::Changed(expected));
            }
            let swap = self.durable.swap_rule(expected, new.clone()).await?;
            if !matches!(swap, Swap::Done) {
                return Ok(swap);
            }
            let adopted = async {
                let present = self.mirror.rule(&new.key).await?;
                self.mirror.swap_over(write.clone(), present, new).await
            };
            match adopted.await {
                Ok(_) => self.settled(&write),
                Err(error) => {
                    // It is found again, and equals what is in force then.
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "what an operator wrote is adopted, and still on the list");
                }
            }
            Ok(swap)
        })
    }
}

impl SharedRules for MirroredRules {
    fn follow(&self, since: RuleMark) -> StoreFuture<'_, RuleNews> {
        Box::pin(async move {
            let news = self.durable.follow(since).await?;
            if !news.records.is_empty() {
                self.owe(news.records.iter().cloned());
            }
            let desk = self.desk();
            Ok(RuleNews { direct: desk.direct.clone(), misnamed: desk.misnamed.clone(), ..news })
        })
    }

    fn called(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            tokio::select! {
                () = self.durable.called() => {}
                () = self.said.notified() => {}
            }
        })
    }

    fn restore(&self, records: Vec<(Option<RuleRecord>, RuleRecord)>) -> StoreFuture<'_, Vec<Swap>> {
        self.durable.restore(records)
    }
}

impl fmt::Debug for MirroredRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MirroredRules").finish_non_exhaustive()
    }
}
