//! Temporary numbers: made with the local clock while the store is away, kept until a person has resolved each of them.
//!
//! Invariants:
//!
//! 1. A temporary number is on the disk of the node that made it before it is answered ([`Journal::append`]).
//! 2. No two are alike ([`TemporaryNumber`]), none is like a final number: no format can contain `~`.
//! 3. A node hands its journal over to the shared store until that has acknowledged it ([`Journal::pending`],
//!    [`TemporaryStore::upload`]), and once more whenever the store shows by another [`Instance`] that it may have forgotten.
//! 4. A number is resolved once: what becomes of a row is decided here ([`TemporaryRow`], pure), and a store replaces a row only if it is
//!    still the one that was judged ([`TemporaryStore::swap`]). One that may have forgotten decisions shows no row to be judged, and
//!    replaces none, until nodes have had 5 s to tell of theirs.
//!
//! Order: `number`, `row`, then the two traits. A journal is a store of its own rows: while the shared one is away, a node lists
//! what it knows, decisions of its own callers on other nodes' numbers included.

mod number;
mod row;

use std::{sync::Arc, time::Duration};

pub use number::{Making, Stamp, TemporaryNumber};
pub use row::{Action, Decision, Fate, Status, TemporaryRow, Verdict};

use super::{Note, StoreFuture};
use crate::prefix_key::PrefixKey;

/// Names what a shared store remembers: it changes whenever the store may have forgotten something (restarted empty or from an
/// old dump, failed over).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance(pub Arc<str>);

/// Which rows to list.
#[derive(Clone, Debug, Default)]
pub struct TemporaryQuery {
    /// One status, or all.
    pub status: Option<Status>,
    /// One prefix key, or all.
    pub key: Option<PrefixKey>,
    /// Rows above this position of the order of numbers.
    pub after: Option<String>,
    /// At most so many rows.
    pub limit: u32,
}

impl TemporaryQuery {
    /// The numbers that are meant lie strictly between the two, in byte order.
    pub(super) fn between(&self) -> (String, String) {
        let (first, end) = match &self.key {
            Some(key) => (number::below(key), number::above(key)),
            None => (String::new(), "TMP~~".to_owned()),
        };
        (self.after.clone().map_or(first.clone(), |after| after.max(first)), end)
    }
}

/// Which rows [`Journal::pending`] is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Those on which a decision was taken.
    Decided,
    /// All.
    Any,
}

impl Pending {
    /// The lowest revision that is meant.
    pub(super) const fn lowest_revision(self) -> u64 {
        match self {
            Self::Decided => 1,
            Self::Any => 0,
        }
    }
}

/// Outcome of [`TemporaryStore::swap`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowSwap {
    /// The new row stands.
    Done,
    /// Somebody else was faster: this is what stands (`None`: nothing).
    Changed(Option<TemporaryRow>),
}

/// The temporary numbers of every node, as far as they have been handed over.
pub trait TemporaryStore: Send + Sync + 'static {
    /// Keeps rows; of two rows of one number the one with the higher revision stands, and of equals the first. Idempotent, and
    /// answers under which instance they are kept; without rows it only answers that.
    fn upload(&self, rows: Vec<TemporaryRow>) -> StoreFuture<'_, Instance>;

    /// One row. `Unavailable` while a store that may have forgotten settles, as for [`Self::swap`].
    fn find(&self, number: TemporaryNumber) -> StoreFuture<'_, Option<TemporaryRow>>;

    /// Replaces the row of `new.number` if its revision is the one before `new.revision`, else changes nothing.
    fn swap(&self, new: TemporaryRow) -> StoreFuture<'_, RowSwap>;

    /// As [`Self::swap`]; once the new row stands, the note is on the audit trail.
    fn swap_noted(&self, new: TemporaryRow, note: Note) -> StoreFuture<'_, RowSwap> {
        Box::pin(async move {
            let swap = self.swap(new).await?;
            if swap == RowSwap::Done {
                note.write().await;
            }
            Ok(swap)
        })
    }

    /// A page of rows in the order of their numbers.
    fn list(&self, query: TemporaryQuery) -> StoreFuture<'_, Vec<TemporaryRow>>;

    /// How many are open.
    fn count_open(&self) -> StoreFuture<'_, u64>;
}

/// What one node made, and what it knows to have become of it. Forgets a row that was appended only by [`Journal::prune`].
pub trait Journal: TemporaryStore {
    /// The stamp of the highest number that was ever appended.
    fn last_stamp(&self) -> StoreFuture<'_, Option<Stamp>>;

    /// Keeps new rows, all or none; a number that is there already is an error (`Corrupt`), and nothing is kept.
    fn append(&self, rows: Vec<TemporaryRow>) -> StoreFuture<'_, ()>;

    /// Rows that the instance has not acknowledged as they stand here, in no order.
    fn pending(&self, instance: Instance, part: Pending, limit: u32) -> StoreFuture<'_, Vec<TemporaryRow>>;

    /// Notes that the instance keeps these rows; a row that has changed meanwhile stays pending.
    fn acknowledged(&self, rows: Vec<TemporaryRow>, instance: Instance) -> StoreFuture<'_, ()>;

    /// Forgets up to `limit` rows that are resolved, and that the instance has acknowledged so at least `kept_for` ago; not the one
    /// with the highest stamp. Answers how many.
    fn prune(&self, instance: Instance, kept_for: Duration, limit: u32) -> StoreFuture<'_, u64>;

    /// How many open rows no store has ever acknowledged.
    fn unsent(&self) -> StoreFuture<'_, u64>;
}
