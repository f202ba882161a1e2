//! A shared register whose changes are in the local copy before their caller hears of them.
//!
//! Without it, what a node changed would be forgotten with a store that is emptied before the node has followed its own change: a
//! second at most, and long enough to lose that a rule was used.

use std::{fmt, sync::Arc};

use super::{DirectWrite, Note, RuleCopies, RuleRecord, RuleStore, StoreError, StoreFuture, Swap};
use crate::prefix_key::PrefixKey;

/// See the module.
pub struct CopiedRules {
    shared: Arc<dyn RuleStore>,
    copies: Arc<dyn RuleCopies>,
}

impl CopiedRules {
    /// The register `shared`, copied to `copies`.
    pub fn new(shared: Arc<dyn RuleStore>, copies: Arc<dyn RuleCopies>) -> Self {
        Self { shared, copies }
    }

    /// The register has the change already: a copy that cannot be written is no reason to deny it.
    async fn keep(&self, record: RuleRecord) {
        if let Err(error) = self.copies.save_copy(vec![record], None).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the local copy of rules was not written"
            );
        }
    }

    async fn kept(&self, outcome: Result<Swap, StoreError>, new: RuleRecord) -> Result<Swap, StoreError> {
        if let Ok(Swap::Done) = outcome {
            self.keep(new).await;
        }
        outcome
    }
}

impl fmt::Debug for CopiedRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopiedRules").finish_non_exhaustive()
    }
}

impl RuleStore for CopiedRules {
    fn load_rules(&self) -> StoreFuture<'_, Vec<RuleRecord>> {
        self.shared.load_rules()
    }

    fn rule<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<RuleRecord>> {
        self.shared.rule(key)
    }

    fn swap_rule(&self, expected: Option<RuleRecord>, new: RuleRecord) -> StoreFuture<'_, Swap> {
        Box::pin(async move { self.kept(self.shared.swap_rule(expected, new.clone()).await, new).await })
    }

    fn swap_rule_noted(
        &self,
        expected: Option<RuleRecord>,
        new: RuleRecord,
        note: Note,
    ) -> StoreFuture<'_, Swap> {
        Box::pin(async move {
            let outcome = self.shared.swap_rule_noted(expected, new.clone(), note).await;
            self.kept(outcome, new).await
        })
    }

    fn mark_used<'a>(&'a self, key: &'a PrefixKey, revision: u64) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let marked = self.shared.mark_used(key, revision).await?;
            if let (true, Ok(Some(record))) = (marked, self.shared.rule(key).await) {
                self.keep(record).await;
            }
            Ok(marked)
        })
    }

    fn note_use(&self, expected: RuleRecord, new: RuleRecord) -> StoreFuture<'_, Swap> {
        Box::pin(async move { self.kept(self.shared.note_use(expected, new.clone()).await, new).await })
    }

    fn direct_write<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<DirectWrite>> {
        self.shared.direct_write(key)
    }

    fn swap_over(
        &self,
        write: DirectWrite,
        expected: Option<RuleRecord>,
        new: RuleRecord,
    ) -> StoreFuture<'_, Swap> {
        Box::pin(
            async move { self.kept(self.shared.swap_over(write, expected, new.clone()).await, new).await },
        )
    }
}
