//! What the audit trail says of a change of a rule: which revisions, which fields. Never what is in them: `initial_seq` is secret.

use std::sync::Arc;

use super::{compiled::CompiledRule, history::History, registry::Registry, save::Standing};
use crate::store::{AuditAction, AuditDetails, AuditEntry, Author, Note, RuleRecord, StoreError};

impl Registry {
    /// What the audit trail is to say; `None` where there is no trail, or no rule before and after.
    pub(super) fn note(
        &self,
        standing: &Standing,
        next: &RuleRecord,
        author: &Author,
    ) -> Result<Option<Note>, StoreError> {
        let Some(trail) = &self.trail else { return Ok(None) };
        let after = CompiledRule::of_record(next)?;
        let (action, fields) = match (&standing.rule, &after) {
            (None, None) => return Ok(None),
            (None, Some(_)) => (AuditAction::Registered, Vec::new()),
            (Some(_), None) => (AuditAction::Deleted, Vec::new()),
            (Some(before), Some(after)) => (AuditAction::Changed, before.changed_fields(after.rule())),
        };
        // A direct write that says what is in force already is put in shape, which changes nothing.
        if action == AuditAction::Changed && fields.is_empty() {
            return Ok(None);
        }
        let details = AuditDetails {
            old_revision: standing.rule.is_some().then_some(standing.history.edition),
            new_revision: after.is_some().then_some(History::read(next)?.edition),
            fields: fields.into_iter().map(str::to_owned).collect(),
            ..AuditDetails::default()
        };
        let (at, author, key) = (self.clock.now(), author.clone(), next.key.clone());
        Ok(Some(Note::new(Arc::clone(trail), AuditEntry { at, author, action, key, details })))
    }
}
