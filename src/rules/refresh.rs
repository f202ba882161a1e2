//! Follows a register that other processes and operators write to: what is new comes into force here, and into the local copy.
//!
//! Invariants: nothing newer is replaced by something older (revisions only rise); a register that was emptied or set back is told what
//! this process remembers before its emptiness is believed; a process that cannot reach the register goes on with what it knows.
//!
//! Order: [`Follower::start`] puts the local copy in force; [`Follower::run`] follows, once a second and whenever somebody calls.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{reconcile::reconciled, registry::Registry};
use crate::{
    clock::{Clock, UnixMillis},
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    store::{
        DirectWrite, Lineage, More, RuleCopies, RuleMark, RuleNews, RuleRecord, SharedRules, StoreError, Swap,
    },
};

/// How often the register is asked what is new: well below the 5 s in which every node must know.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// The same while it looks for what operators wrote.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Records written back in one call.
const RESTORE_BATCH: usize = 200;

/// Answers in a row that hold no record and still announce more: that is a round through 100,000 rules. Whatever the register says, it
/// is not asked on without a pause.
const PATIENCE: u32 = 400;

/// Records written to the copy in one transaction.
const SAVE_BATCH: usize = 1_000;

/// How many direct writes are adopted at once.
const ADOPTED_AT_A_TIME: usize = 64;

/// How often the copy is told that it is still true, where nothing changes.
const CONFIRM_EVERY: Duration = Duration::from_secs(60);

/// What the rules in force here rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Footing {
    /// Nothing yet: neither the register nor a copy of it was read.
    Nothing,
    /// The copy that was true at this time.
    Copy(UnixMillis),
    /// The register.
    Register,
}

/// How following goes, for whoever reports it.
#[derive(Debug)]
pub struct Following(Mutex<Footing>);

impl Following {
    /// What the rules rest on.
    pub fn footing(&self) -> Footing {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no rules were ever heard of: that a key has none means nothing then.
    pub fn is_blank(&self) -> bool {
        self.footing() == Footing::Nothing
    }

    fn set(&self, footing: Footing) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = footing;
    }
}

/// Keeps a register up to date.
pub struct Follower {
    registry: Arc<Registry>,
    shared: Arc<dyn SharedRules>,
    copies: Arc<dyn RuleCopies>,
    clock: Arc<dyn Clock>,
    following: Arc<Following>,
    mark: RuleMark,
    /// While the register is read from its beginning: what it has.
    theirs: Option<HashMap<PrefixKey, RuleRecord>>,
    /// What the copy does not have yet.
    unsaved: Vec<RuleRecord>,
    /// When, on the monotonic clock, the copy was last brought up to date.
    saved_at: Option<Duration>,
    /// When to ask next, unless somebody calls.
    pause: Duration,
}

impl Follower {
    /// Puts the local copy in force, if there is one.
    ///
    /// # Errors
    ///
    /// `StoreError` if the copy cannot be read.
    pub async fn start(
        registry: Arc<Registry>,
        shared: Arc<dyn SharedRules>,
        copies: Arc<dyn RuleCopies>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let (mut mark, mut footing) = (RuleMark::default(), Footing::Nothing);
        if let Some(copy) = copies.load_copy().await? {
            registry.take_in(&copy.records);
            (mark, footing) = (copy.mark, Footing::Copy(copy.saved_at));
        }
        let following = Arc::new(Following(Mutex::new(footing)));
        Ok(Self {
            registry,
            shared,
            copies,
            clock,
            following,
            mark,
            theirs: None,
            unsaved: Vec::new(),
            saved_at: None,
            pause: POLL_EVERY,
        })
    }

    /// How it goes.
    pub fn following(&self) -> &Arc<Following> {
        &self.following
    }

    /// Follows until the drain.
    pub async fn run(mut self, lifecycle: Lifecycle) {
        let mut failing = Failing::No;
        loop {
            failing = match (self.catch_up().await, failing) {
                (Ok(()), Failing::No) => Failing::No,
                (Ok(()), Failing::Yes) => {
                    tracing::info!("rules are up to date again");
                    Failing::No
                }
                (Err(error), before) => {
                    if before == Failing::No {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "the register of rules cannot be followed, trying again");
                    }
                    Failing::Yes
                }
            };
            tokio::select! {
                () = lifecycle.draining() => return,
                () = tokio::time::sleep(self.pause) => {}
                () = self.shared.called() => {}
            }
        }
    }

    /// Takes in everything that is new.
    ///
    /// # Errors
    ///
    /// `StoreError` if the register does not answer; what was taken in until then is in force.
    pub async fn catch_up(&mut self) -> Result<(), StoreError> {
        let mut empty = 0;
        self.pause = POLL_EVERY;
        loop {
            let news = self.shared.follow(self.mark.clone()).await?;
            self.take_in(&news);
            empty = if news.records.is_empty() { empty + 1 } else { 0 };
            if news.more == More::Records {
                continue;
            }
            if self.theirs.is_some() && !self.write_back().await? {
                continue;
            }
            self.following.set(Footing::Register);
            if news.more == More::Writes && empty < PATIENCE {
                continue;
            }
            let progress = self.judge(&news).await?;
            self.save().await;
            // What was adopted comes with the next news, and so does what an operator wrote beside it.
            if progress == Progress::None || empty >= PATIENCE {
                self.pause = if news.more == More::Later { LOOK_EVERY } else { POLL_EVERY };
                return Ok(());
            }
        }
    }

    fn take_in(&mut self, news: &RuleNews) {
        if news.lineage == Lineage::New {
            if !self.mark.generation.is_empty() {
                tracing::info!(
                    "the register of rules restarted, failed over or was emptied: comparing it with the local copy"
                );
            }
            self.theirs = Some(HashMap::new());
        }
        self.registry.take_in(&news.records);
        if let Some(theirs) = &mut self.theirs {
            theirs.extend(news.records.iter().map(|record| (record.key.clone(), record.clone())));
        }
        self.unsaved.extend_from_slice(&news.records);
        self.mark = news.mark.clone();
    }

    /// Tells the register what this process remembers beyond it; answers whether that was all. If not, somebody else did so at the
    /// same time: what they wrote comes with the next news.
    async fn write_back(&mut self) -> Result<bool, StoreError> {
        let today = self.clock.now().to_utc().date_naive();
        let ours = self.copies.load_copy().await?.map(|copy| copy.records).unwrap_or_default();
        let mut lost = Vec::new();
        for record in &ours {
            let present = self.theirs.as_ref().and_then(|theirs| theirs.get(&record.key));
            match reconciled(record, present, today) {
                Ok(Some(next)) => lost.push((present.cloned(), next)),
                Ok(None) => {}
                Err(error) => self.registry.misunderstood(record, &error),
            }
        }
        let mut all_done = true;
        for batch in lost.chunks(RESTORE_BATCH) {
            let swaps = self.shared.restore(batch.to_vec()).await?;
            all_done &= swaps.iter().all(|swap| *swap == Swap::Done);
            let written = batch.iter().zip(&swaps).filter(|(_, swap)| **swap == Swap::Done);
            let written: Vec<_> = written.map(|((_, record), _)| record.clone()).collect();
            self.registry.take_in(&written);
            self.unsaved.extend(written);
        }
        if all_done {
            self.theirs = None;
            if !lost.is_empty() {
                tracing::warn!(rules = lost.len(), "rules that the register had lost were written back");
            }
        }
        Ok(all_done)
    }

    /// Adopts or refuses what operators wrote.
    async fn judge(&self, news: &RuleNews) -> Result<Progress, StoreError> {
        // Many at a time, since each takes several turns to the register; a load of thousands is written in one go.
        let adopting: Vec<_> = news.direct.iter().map(|write| self.adopt(write)).collect();
        let adopted: Vec<Progress> =
            stream::iter(adopting).buffer_unordered(ADOPTED_AT_A_TIME).try_collect().await?;
        let progress = adopted.into_iter().fold(Progress::None, Progress::or);
        for name in &news.misnamed {
            self.registry.refuse(name, Some(""), 0, &format!("not a prefix key: {}", PrefixKey::SHAPE));
        }
        let direct = news.direct.iter().map(|write| write.key.as_str());
        let names: HashSet<_> = direct.chain(news.misnamed.iter().map(String::as_str)).collect();
        self.registry.keep_refusals(&names);
        Ok(progress)
    }

    async fn adopt(&self, write: &DirectWrite) -> Result<Progress, StoreError> {
        let before = self.registry.revision(&write.key);
        self.registry.adopt(write).await?;
        let is_adopted = self.registry.revision(&write.key) != before;
        Ok(if is_adopted { Progress::Some } else { Progress::None })
    }

    /// Brings the copy up to date. It is for a start without the register: that it cannot be written now must not stop anything.
    async fn save(&mut self) {
        let now = self.clock.monotonic();
        let fresh = self.saved_at.is_some_and(|saved_at| now < saved_at + CONFIRM_EVERY);
        if self.unsaved.is_empty() && fresh {
            return;
        }
        let mut saved = Ok(());
        for batch in self.unsaved.chunks(SAVE_BATCH) {
            saved = saved.and(self.copies.save_copy(batch.to_vec(), None).await);
        }
        // The mark last: everything up to it is in the copy then.
        if saved.is_ok() {
            saved = self.copies.save_copy(Vec::new(), Some(self.mark.clone())).await;
        }
        match saved {
            Ok(()) => {
                self.unsaved.clear();
                self.saved_at = Some(now);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the local copy of rules was not written");
            }
        }
    }
}

/// Whether anything was adopted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Some,
    None,
}

impl Progress {
    fn or(self, other: Self) -> Self {
        if self == Self::None { other } else { self }
    }
}

/// Whether the last attempt failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failing {
    Yes,
    No,
}

impl Registry {
    /// Puts records in force, and reports those that are not understood.
    fn take_in(&self, records: &[RuleRecord]) {
        for record in records {
            match self.publish(record) {
                Ok(_) => self.understood(&record.key),
                Err(error) => self.misunderstood(record, &error),
            }
        }
    }
}
