//! The audit trail, which is only ever added to.

use super::StoreFuture;
use crate::store::{AuditEntry, AuditQuery, AuditRecord};

/// Where the trail is kept. What is on it stays as it is: no call changes or removes an entry.
pub trait AuditStore: Send + Sync + 'static {
    /// Adds an entry at the end.
    fn append(&self, entry: AuditEntry) -> StoreFuture<'_, ()>;

    /// A page of entries in the order in which they were added.
    fn page(&self, query: AuditQuery) -> StoreFuture<'_, Vec<AuditRecord>>;
}
