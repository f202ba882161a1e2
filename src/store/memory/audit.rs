//! The audit trail in a list.

use super::{MemoryStore, State};
use crate::store::{AuditEntry, AuditQuery, AuditRecord, AuditStore, Note, StoreFuture};

impl State {
    /// Adds the entry of a change that is being made.
    pub(super) fn note(&mut self, note: Option<&Note>) {
        self.audit.extend(note.map(|note| note.entry().clone()));
    }
}

impl AuditStore for MemoryStore {
    fn append(&self, entry: AuditEntry) -> StoreFuture<'_, ()> {
        self.with(|state| {
            state.audit.push(entry);
            Ok(())
        })
    }

    fn page(&self, query: AuditQuery) -> StoreFuture<'_, Vec<AuditRecord>> {
        self.with(move |state| {
            let records = (1..).zip(&state.audit);
            let wanted = records
                .filter(|(position, entry)| *position > query.after.unwrap_or(0) && query.wants(entry));
            let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
            let record =
                |(position, entry): (u64, &AuditEntry)| AuditRecord { position, entry: entry.clone() };
            Ok(wanted.take(limit).map(record).collect())
        })
    }
}
