//! A durable register of rules, and a mirror of it that operators write into: PostgreSQL and the Redis hash.
//!
//! Invariants:
//! - a rule is what the durable register says; whatever is in force was there first;
//! - the mirror follows: what changes in the register is written to it, and all of it where the mirror has forgotten;
//! - what an operator writes into the mirror is adopted by writing it to the register, and only then taken off the mirror's list;
//! - a mirror that is away keeps nobody from anything.

use std::{fmt, pin::Pin, sync::Arc};

use tokio::sync::Mutex;

use super::{
    DirectWrite, Lineage, More, Note, RuleMark, RuleNews, RuleRecord, RuleStore, SharedRules, StoreError,
    StoreFuture, Swap,
};
use crate::prefix_key::PrefixKey;

/// Records written to the mirror in one call.
const BATCH: usize = 200;

/// Answers of the mirror that are read in one go.
const ROUNDS: usize = 20;

/// See the module.
pub struct MirroredRules {
    durable: Arc<dyn SharedRules>,
    mirror: Arc<dyn SharedRules>,
    /// What is known of the mirror; held while it is brought up to date.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    mark: RuleMark,
    direct: Vec<DirectWrite>,
    misnamed: Vec<String>,
    /// Everything is to be written to the mirror.
    is_behind: bool,
}

impl MirroredRules {
    /// The register `durable`, mirrored to `mirror`.
    pub fn new(durable: Arc<dyn SharedRules>, mirror: Arc<dyn SharedRules>) -> Self {
        let state = State { is_behind: true, ..State::default() };
        Self { durable, mirror, state: Mutex::new(state) }
    }

    /// Writes records to the mirror where it has earlier ones.
    async fn push(&self, records: &[RuleRecord]) -> Result<(), StoreError> {
        for part in records.chunks(BATCH) {
            let mut later = Vec::new();
            for record in part {
                let present = self.mirror.rule(&record.key).await?;
                if present.as_ref().is_none_or(|present| present.revision < record.revision) {
                    later.push((present, record.clone()));
                }
            }
            if !later.is_empty() {
                self.mirror.restore(later).await?;
            }
        }
        Ok(())
    }

    /// Brings the mirror up to date, and looks at what operators wrote there.
    async fn reflect(&self, state: &mut State, news: &[RuleRecord]) -> Result<(), StoreError> {
        for _ in 0..ROUNDS {
            let seen = self.mirror.follow(state.mark.clone()).await?;
            state.is_behind |= seen.lineage == Lineage::New;
            (state.mark, state.direct, state.misnamed) = (seen.mark, seen.direct, seen.misnamed);
            if matches!(seen.more, More::Nothing | More::Later) {
                break;
            }
        }
        if state.is_behind {
            self.push(&self.durable.load_rules().await?).await?;
            state.is_behind = false;
        } else if let Err(error) = self.push(news).await {
            state.is_behind = true;
            return Err(error);
        }
        Ok(())
    }

    async fn push_later(&self, record: RuleRecord) {
        if let Err(error) = self.push(&[record]).await {
            // The mirror follows by itself when it is back.
            self.state.lock().await.is_behind = true;
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "the mirror of the rules is behind");
        }
    }
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
                self.push_later(new).await;
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
                self.push_later(new).await;
            }
            Ok(swap)
        })
    }

    fn mark_used<'a>(&'a self, key: &'a PrefixKey, revision: u64) -> StoreFuture<'a, bool> {
        self.durable.mark_used(key, revision)
    }

    fn direct_write<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<DirectWrite>> {
        Box::pin(async move {
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
            if let Some(known) = expected.as_ref().filter(|known| known.rule == new.rule) {
                // Adopted before, and still on the list: the mirror is all that is behind.
                let present = self.mirror.rule(&new.key).await?;
                self.mirror.swap_over(write, present, known.clone()).await?;
                return Ok(Swap::Changed(expected));
            }
            let swap = self.durable.swap_rule(expected, new.clone()).await?;
            if !matches!(swap, Swap::Done) {
                return Ok(swap);
            }
            let adopted = async {
                let present = self.mirror.rule(&new.key).await?;
                self.mirror.swap_over(write, present, new).await
            };
            if let Err(error) = adopted.await {
                // It is found again, and equals what is in force then.
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "what an operator wrote is adopted, and still on the list");
            }
            Ok(swap)
        })
    }
}

impl SharedRules for MirroredRules {
    fn follow(&self, since: RuleMark) -> StoreFuture<'_, RuleNews> {
        Box::pin(async move {
            let news = self.durable.follow(since).await?;
            let mut state = self.state.lock().await;
            if let Err(error) = self.reflect(&mut state, &news.records).await {
                state.is_behind = true;
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "the mirror of the rules is not followed for now");
            }
            Ok(RuleNews { direct: state.direct.clone(), misnamed: state.misnamed.clone(), ..news })
        })
    }

    fn called(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            tokio::select! {
                () = self.durable.called() => {}
                () = self.mirror.called() => {}
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
