//! The register of rules.

use std::fmt;

use super::StoreFuture;
use crate::{
    prefix_key::PrefixKey,
    store::{DirectWrite, Note},
};

/// Everything that is remembered of one prefix key. A deleted rule leaves its record behind (`rule: None`), so that
/// a later registration goes on above what was issued.
#[derive(Clone, PartialEq, Eq)]
pub struct RuleRecord {
    /// The prefix key.
    pub key: PrefixKey,
    /// Counts the changes of this record from 1; also the rule's `ETag`.
    pub revision: u64,
    /// The rule as JSON, `None` while it is deleted. Opaque here.
    pub rule: Option<String>,
    /// Formats and resets that were in force before, as JSON. Opaque here; survives deletion.
    pub history: String,
    /// Whether a number may have been issued under the present rule.
    pub used: bool,
}

/// Leaves out the rule: it holds `initial_seq`, which no log may show.
impl fmt::Debug for RuleRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleRecord")
            .field("key", &self.key)
            .field("revision", &self.revision)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

/// Outcome of [`RuleStore::swap_rule`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The new record is in force.
    Done,
    /// Somebody else was faster; this is what is in force (`None`: no record at all).
    Changed(Option<RuleRecord>),
}

/// The register of rules. One conditional write carries every kind of change, so that two writers never lose an update.
pub trait RuleStore: Send + Sync + 'static {
    /// Every record, deleted ones included, in key order.
    fn load_rules(&self) -> StoreFuture<'_, Vec<RuleRecord>>;

    /// One record.
    fn rule<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<RuleRecord>>;

    /// Replaces the record if it is exactly as `expected` (revision and `used`; `None`: there is none), else changes nothing.
    /// `new.revision` is `expected.revision + 1`, or 1.
    fn swap_rule(&self, expected: Option<RuleRecord>, new: RuleRecord) -> StoreFuture<'_, Swap>;

    /// As [`Self::swap_rule`]; once the new record is in force, the note is on the audit trail.
    fn swap_rule_noted(
        &self,
        expected: Option<RuleRecord>,
        new: RuleRecord,
        note: Note,
    ) -> StoreFuture<'_, Swap> {
        Box::pin(async move {
            let swap = self.swap_rule(expected, new).await?;
            if swap == Swap::Done {
                note.write().await;
            }
            Ok(swap)
        })
    }

    /// Sets `used` if the record still has `revision` and a rule; answers whether it does. Idempotent, keeps the revision.
    /// Called once before the first number of a rule is answered.
    fn mark_used<'a>(&'a self, key: &'a PrefixKey, revision: u64) -> StoreFuture<'a, bool>;

    /// As [`Self::swap_rule`], where `new` says no more than that the rule of `expected` is used. What an operator wrote waits beside
    /// it, as it does beside what [`Self::mark_used`] writes: the rule that is in force stays so until something else is adopted.
    fn note_use(&self, expected: RuleRecord, new: RuleRecord) -> StoreFuture<'_, Swap> {
        self.swap_rule(Some(expected), new)
    }

    /// What an operator wrote past this program, and nobody has adopted yet. Only a store that lets operators in has any.
    fn direct_write<'a>(&'a self, _key: &'a PrefixKey) -> StoreFuture<'a, Option<DirectWrite>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// As [`Self::swap_rule`], if what the operator wrote still stands as it was seen; the new record then takes its place.
    /// [`Self::swap_rule`] itself is refused (`Changed`) while there is such a write.
    fn swap_over(
        &self,
        _write: DirectWrite,
        expected: Option<RuleRecord>,
        new: RuleRecord,
    ) -> StoreFuture<'_, Swap> {
        self.swap_rule(expected, new)
    }
}
