//! Adopts what an operator wrote into the store past this program, by the same checks as a `PUT`; or refuses it, and says so.
//!
//! A write that is refused changes nothing: the rule that was in force stays so, here and on every other node. It is reported
//! until it is corrected, taken back, or replaced through the API.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
};

use super::{
    error::SaveError,
    registry::Registry,
    save::Standing,
    usage::{ATTEMPTS, contended},
};
use crate::{
    json::{Malformed, Object},
    prefix_key::PrefixKey,
    rule::RuleDraft,
    store::{Author, DirectWrite, RuleRecord, StoreError, Swap},
};

/// Why a direct write is no rule. No message shows a value.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("{0}")]
    Fields(#[from] crate::json::Invalid),
    #[error("{0}")]
    Save(#[from] SaveError),
}

/// What became of a direct write that stood beside a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There was none, or it was refused: the record is what counts.
    Stands,
    /// Something has changed: look again.
    Changed,
}

/// What is refused, by the name under which it was written.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<BTreeMap<String, Entry>>);

#[derive(Debug)]
struct Entry {
    /// Which write, beside which revision: either may change the verdict. `None`: the record itself is not understood.
    token: Option<String>,
    revision: u64,
    why: String,
}

impl Refused {
    fn knows(&self, write: &DirectWrite, revision: u64) -> bool {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(write.key.as_str());
        entry.is_some_and(|entry| entry.token.as_deref() == Some(&write.token) && entry.revision == revision)
    }

    /// Notes a refusal; answers whether it is news.
    fn note(&self, name: &str, token: Option<&str>, revision: u64, why: &str) -> bool {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry { token: token.map(str::to_owned), revision, why: why.to_owned() };
        let before = entries.insert(name.to_owned(), entry);
        before.is_none_or(|before| before.token.as_deref() != token || before.why != why)
    }

    fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

impl Registry {
    /// Adopts a direct write as the rule of its key, or refuses it: then the rule that is in force stays so, an error is logged, and
    /// [`Self::refusals`] tells of it.
    ///
    /// # Errors
    ///
    /// `StoreError` if the store does not answer; to be tried again.
    pub async fn adopt(&self, write: &DirectWrite) -> Result<(), StoreError> {
        let key = &write.key;
        if self.refused.knows(write, self.revision(key)) {
            return Ok(());
        }
        let _turn = self.turn(key).await;
        for _ in 0..ATTEMPTS {
            let standing = self.standing(key).await?;
            match self.judge(key, &standing).await? {
                Verdict::Stands => return Ok(()),
                Verdict::Changed => {}
            }
        }
        Err(contended("swap_over"))
    }

    /// Adopts or refuses the direct write that stands beside a record, if one does. The caller has the key's turn.
    pub(super) async fn judge(&self, key: &PrefixKey, standing: &Standing) -> Result<Verdict, StoreError> {
        let Some(write) = &standing.direct else { return Ok(Verdict::Stands) };
        match self.adopted(write, standing).await {
            Ok(next) => {
                let edition = next.revision;
                if self.write(standing, next, &Author::direct()).await? == Swap::Done {
                    self.refused.forget(key.as_str());
                    tracing::info!(
                        prefix_key = key.as_str(),
                        revision = edition,
                        "rule written directly: adopted"
                    );
                }
                Ok(Verdict::Changed)
            }
            Err(Refusal::Save(SaveError::Store(error))) => Err(error),
            Err(refusal) => {
                let revision = standing.record.as_ref().map_or(0, |record| record.revision);
                self.refuse(key.as_str(), Some(&write.token), revision, &refusal.to_string());
                Ok(Verdict::Stands)
            }
        }
    }

    /// The record that adopts a write.
    async fn adopted(&self, write: &DirectWrite, standing: &Standing) -> Result<RuleRecord, Refusal> {
        let key = &write.key;
        let Some(text) = &write.text else { return Ok(standing.without_rule(key)) };
        let mut object = Object::parse(text.as_bytes())?;
        let draft = RuleDraft::from_json(&mut object);
        object.finish()?;
        let change = self.change(key, &draft, standing).await?;
        Ok(standing.with(key, &change))
    }

    /// Reports something in the store that is no rule, once.
    pub(super) fn refuse(&self, name: &str, token: Option<&str>, revision: u64, why: &str) {
        if self.refused.note(name, token, revision, why) {
            tracing::error!(
                prefix_key = name,
                reason = why,
                "rule in the store refused, the one before stays in force"
            );
        }
    }

    /// Reports a record that is not understood.
    pub(super) fn misunderstood(&self, record: &RuleRecord, error: &StoreError) {
        self.refuse(record.key.as_str(), None, record.revision, &error.to_string());
    }

    /// Takes that back.
    pub(super) fn understood(&self, key: &PrefixKey) {
        let mut entries = self.refused.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.get(key.as_str()).is_some_and(|entry| entry.token.is_none()) {
            entries.remove(key.as_str());
        }
    }

    /// Forgets refusals of direct writes other than those under these names.
    pub(super) fn keep_refusals(&self, names: &HashSet<&str>) {
        let mut entries = self.refused.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|name, entry| entry.token.is_none() || names.contains(name.as_str()));
    }

    /// What stands in the store and is refused: name and reason, in the order of names.
    pub fn refusals(&self) -> Vec<(String, String)> {
        let entries = self.refused.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|(name, entry)| (name.clone(), entry.why.clone())).collect()
    }
}
