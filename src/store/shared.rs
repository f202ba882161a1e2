//! A register of rules that several processes share and that operators may write into, and the copy of it that each process keeps.
//!
//! Invariants: a record's revision only rises, through the loss of the store too, since whoever knows a later one writes it back; what
//! an operator writes is not a rule until a process has adopted it by [`RuleStore::swap_over`].

use std::{fmt, pin::Pin};

use super::{RuleRecord, RuleStore, StoreFuture, Swap};
use crate::{clock::UnixMillis, prefix_key::PrefixKey};

/// What an operator wrote into the store past this program, as it was seen.
#[derive(Clone, PartialEq, Eq)]
pub struct DirectWrite {
    /// For which prefix key.
    pub key: PrefixKey,
    /// The text; `None`: the operator took the rule out.
    pub text: Option<String>,
    /// Tells this write from any other. Opaque.
    pub token: String,
}

/// Leaves out the text: it may hold an `initial_seq`.
impl fmt::Debug for DirectWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectWrite")
            .field("key", &self.key)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// How far a process has followed a register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleMark {
    /// Names the register as long as it remembers what it was told; empty before the first answer.
    pub generation: String,
    /// Counts its changes.
    pub change: u64,
}

/// Whether a register is the one that was followed so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lineage {
    /// It is, and remembers everything up to the mark.
    Same,
    /// It is another one, or has forgotten something.
    New,
}

/// What a register has left to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// More records that changed.
    Records,
    /// Perhaps more that operators wrote: it is still looking.
    Writes,
    /// The same, but not at once: it looks at its leisure.
    Later,
    /// Nothing.
    Nothing,
}

/// What is new in a register.
#[derive(Debug)]
pub struct RuleNews {
    /// Where to go on from.
    pub mark: RuleMark,
    /// Whether `records` continue what was known; after [`Lineage::New`] they begin again with the first.
    pub lineage: Lineage,
    /// Records that changed, each as it stands now.
    pub records: Vec<RuleRecord>,
    /// What there is to ask for at once.
    pub more: More,
    /// What operators wrote and nobody has adopted: as much of it as is known, whether it is new or not.
    pub direct: Vec<DirectWrite>,
    /// Names under which operators wrote and that are no prefix keys.
    pub misnamed: Vec<String>,
}

/// A register that several processes share.
pub trait SharedRules: RuleStore {
    /// What is new since `since`, a bounded part of it at a time. Cheap where nothing is.
    fn follow(&self, since: RuleMark) -> StoreFuture<'_, RuleNews>;

    /// Resolves when somebody says that something is new, to be asked for at once. May never resolve; what is said may be lost.
    fn called(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    /// As [`RuleStore::swap_rule`] for each pair, whatever revision the new record has, and leaving alone what an operator wrote. Answers
    /// in the same order.
    fn restore(&self, records: Vec<(Option<RuleRecord>, RuleRecord)>) -> StoreFuture<'_, Vec<Swap>>;
}

/// The register as a process last knew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCopy {
    /// How far it goes.
    pub mark: RuleMark,
    /// When it was true.
    pub saved_at: UnixMillis,
    /// Every record, deleted ones included.
    pub records: Vec<RuleRecord>,
}

/// Where a process keeps its copy.
pub trait RuleCopies: Send + Sync + 'static {
    /// The copy, if there ever was one.
    fn load_copy(&self) -> StoreFuture<'_, Option<RuleCopy>>;

    /// Adds records to the copy; one that is there with a higher revision stays. With a mark, everything up to it is in the copy now.
    fn save_copy(&self, records: Vec<RuleRecord>, mark: Option<RuleMark>) -> StoreFuture<'_, ()>;
}
