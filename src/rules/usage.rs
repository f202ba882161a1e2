//! From a rule that is in force to one that numbers may be drawn under: marked as used, its floor settled, its dates noted.
//!
//! Steady state is one count up and two loads. The store is asked once after each change of a rule, and once for each later
//! date that a counted format prints.

use std::{sync::Arc, time::Duration};

use chrono::NaiveDate;

use super::{
    compiled::{CompiledRule, Moment, Refusal, Usable},
    error::UseError,
    history::History,
    registry::Registry,
};
use crate::{
    prefix_key::PrefixKey,
    store::{RuleRecord, StoreError, Swap},
};

/// How often a lost race is run again.
pub(super) const ATTEMPTS: usize = 32;
/// Longer than a request may take, so that whoever draws under the old rule has ended, one way or the other.
const REST_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at what others are about to finish.
const POLL: Duration = Duration::from_millis(1);

impl Registry {
    /// As [`Registry::ensure_used`], where that needs no store: the usual case.
    pub fn use_at_once(&self, rule: &Arc<CompiledRule>, moment: impl Into<Moment>) -> Option<Usable> {
        rule.enter(moment.into()).ok()
    }

    /// Makes sure that numbers of that moment may be drawn under `rule`, or under the rule that has taken its place. The answer
    /// tells which, and holds off changes that must wait until the draw is over.
    ///
    /// # Errors
    ///
    /// `UseError::NotRegistered` if the rule was deleted meanwhile; `Untold` where a number of that moment would look as one of
    /// another period; `Store` if the store must be told first and does not
    /// answer.
    pub async fn ensure_used(
        &self,
        rule: Arc<CompiledRule>,
        moment: impl Into<Moment>,
    ) -> Result<Usable, UseError> {
        let moment = moment.into();
        let mut rule = rule;
        for _ in 0..ATTEMPTS {
            rule = match rule.enter(moment) {
                Ok(usable) => return Ok(usable),
                Err(Refusal::Retired) => {
                    let key = &rule.rule().prefix_key;
                    self.get(key.as_str()).ok_or_else(|| UseError::NotRegistered(key.clone()))?
                }
                Err(Refusal::Untold(since)) => return Err(UseError::Untold { since }),
                Err(Refusal::Unprepared) => self.prepare(&rule.rule().prefix_key, moment).await?,
            };
        }
        Err(contended("mark_used").into())
    }

    /// The rule as the store has it: for whoever was told that the one it drew under was replaced elsewhere.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn reread(&self, key: &PrefixKey) -> Result<Option<Arc<CompiledRule>>, StoreError> {
        match self.rules.rule(key).await? {
            Some(record) => self.publish(&record),
            None => Ok(self.get(key.as_str())),
        }
    }

    /// Tells the store what it must know before a number of that moment is drawn.
    async fn prepare(&self, key: &PrefixKey, moment: Moment) -> Result<Arc<CompiledRule>, UseError> {
        let _turn = self.turn(key).await;
        let known = self.get(key.as_str());
        if let Some(rule) = known.filter(|rule| rule.enter(moment).is_ok()) {
            return Ok(rule);
        }
        for _ in 0..ATTEMPTS {
            if let Some(rule) = self.try_to_prepare(key, moment).await? {
                return Ok(rule);
            }
            // Others write too, or the store was set back and is being told: give them time.
            tokio::time::sleep(POLL).await;
        }
        Err(contended("mark_used").into())
    }

    /// The same, once; `None` if the store has another record than this process, or has by then.
    async fn try_to_prepare(
        &self,
        key: &PrefixKey,
        moment: Moment,
    ) -> Result<Option<Arc<CompiledRule>>, UseError> {
        let not_registered = || UseError::NotRegistered(key.clone());
        let record = self.rules.rule(key).await?.ok_or_else(not_registered)?;
        let rule = self.publish(&record)?.ok_or_else(not_registered)?;
        if rule.revision() != record.revision {
            return Ok(None);
        }
        if !rule.unsettled && !rule.notes_dates() {
            let is_used = self.rules.mark_used(key, record.revision).await?;
            return Ok(is_used.then(|| {
                rule.allow_until(None);
                rule
            }));
        }
        let next = self.first_use(&rule, &record, rule.local(moment).date()).await?;
        match self.rules.note_use(record, next.clone()).await? {
            Swap::Done => self.publish(&next)?.ok_or_else(not_registered).map(Some),
            Swap::Changed(_) => Ok(None),
        }
    }

    /// The record once the rule is used for `date`.
    async fn first_use(
        &self,
        rule: &CompiledRule,
        record: &RuleRecord,
        date: NaiveDate,
    ) -> Result<RuleRecord, StoreError> {
        let mut history = History::read(record)?;
        if rule.unsettled {
            self.at_rest(rule).await?;
            history.settle(self.counters.retire(&record.key, history.scheme_number).await?);
        }
        if rule.notes_dates() {
            history.note_date(date);
        }
        Ok(RuleRecord {
            revision: record.revision + 1,
            history: history.to_json(),
            used: true,
            ..record.clone()
        })
    }

    /// Waits until nobody draws any more from the counters of an earlier scheme: the highest value must not rise once it was read.
    async fn at_rest(&self, rule: &CompiledRule) -> Result<(), StoreError> {
        let rest = async {
            while self.still_drawing(rule) {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(REST_LIMIT, rest).await.map_err(|_| contended("settle"))
    }
}

/// Somebody else was faster too many times, or took too long; nothing happened.
pub(super) fn contended(operation: &'static str) -> StoreError {
    StoreError::Timeout { store: "rules", operation }
}
