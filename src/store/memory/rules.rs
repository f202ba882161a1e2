//! The register of rules of the reference implementation; for tests, also what operators and accidents do to a shared one.

use std::collections::BTreeMap;

use super::{MemoryStore, STORE, State};
use crate::{
    prefix_key::PrefixKey,
    store::{
        DirectWrite, Lineage, More, Note, RuleCopies, RuleCopy, RuleMark, RuleNews, RuleRecord, RuleStore,
        SharedRules, StoreError, StoreFuture, Swap,
    },
};

/// So small that tests see more than one part.
const PART: usize = 3;

/// What is kept beside the records.
#[derive(Default)]
pub(super) struct Shared {
    generation: u64,
    change: u64,
    changes: BTreeMap<PrefixKey, u64>,
    direct: BTreeMap<PrefixKey, DirectWrite>,
    writes: u64,
    copy: Option<RuleCopy>,
    away: bool,
}

impl MemoryStore {
    /// Writes a rule past the program, or takes one out, as an operator does.
    pub fn write_directly(&self, key: &PrefixKey, text: Option<&str>) {
        self.at_once(|state| {
            state.shared.writes += 1;
            let token = state.shared.writes.to_string();
            let write = DirectWrite { key: key.clone(), text: text.map(str::to_owned), token };
            state.shared.direct.insert(key.clone(), write);
        });
    }

    /// Loses every rule, as a store does that was emptied.
    pub fn forget_rules(&self) {
        self.at_once(|state| {
            state.rules.clear();
            state.shared = Shared { generation: state.shared.generation + 1, ..Shared::default() };
        });
    }

    /// From now on every call for rules fails, or none any more.
    pub fn set_away(&self, away: Away) {
        self.at_once(|state| state.shared.away = away == Away::Yes);
    }

    fn at_once(&self, work: impl FnOnce(&mut State)) {
        work(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    fn with_rules<'a, T: Send + 'a>(
        &'a self,
        operation: &'static str,
        work: impl FnOnce(&mut State) -> T + Send + 'a,
    ) -> StoreFuture<'a, T> {
        self.with(move |state| {
            if state.shared.away {
                return Err(StoreError::Unavailable { store: STORE, operation, source: "away".into() });
            }
            Ok(work(state))
        })
    }
}

/// Whether a store can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// It cannot.
    Yes,
    /// It can.
    No,
}

impl State {
    fn put(&mut self, record: RuleRecord) {
        self.shared.change += 1;
        self.shared.changes.insert(record.key.clone(), self.shared.change);
        self.rules.insert(record.key.clone(), record);
    }

    /// Writes `new` if the record is as expected.
    fn swap(&mut self, expected: Option<&RuleRecord>, new: RuleRecord) -> Swap {
        let present = self.rules.get(&new.key);
        let stands = |record: &RuleRecord| (record.revision, record.used);
        if present.map(stands) != expected.map(stands) {
            return Swap::Changed(present.cloned());
        }
        self.put(new);
        Swap::Done
    }

    /// The same, unless an operator wrote something that nobody has adopted.
    fn swap_guarded(&mut self, expected: Option<&RuleRecord>, new: RuleRecord, note: Option<&Note>) -> Swap {
        if self.shared.direct.contains_key(&new.key) {
            return Swap::Changed(self.rules.get(&new.key).cloned());
        }
        let swap = self.swap(expected, next(expected, new));
        if swap == Swap::Done {
            self.note(note);
        }
        swap
    }
}

fn next(expected: Option<&RuleRecord>, new: RuleRecord) -> RuleRecord {
    RuleRecord { revision: expected.map_or(1, |record| record.revision + 1), ..new }
}

impl RuleStore for MemoryStore {
    fn load_rules(&self) -> StoreFuture<'_, Vec<RuleRecord>> {
        self.with_rules("load_rules", |state| state.rules.values().cloned().collect())
    }

    fn rule<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<RuleRecord>> {
        self.with_rules("rule", |state| state.rules.get(key).cloned())
    }

    fn swap_rule(&self, expected: Option<RuleRecord>, new: RuleRecord) -> StoreFuture<'_, Swap> {
        self.with_rules("swap_rule", move |state| state.swap_guarded(expected.as_ref(), new, None))
    }

    fn swap_rule_noted(
        &self,
        expected: Option<RuleRecord>,
        new: RuleRecord,
        note: Note,
    ) -> StoreFuture<'_, Swap> {
        self.with_rules("swap_rule", move |state| state.swap_guarded(expected.as_ref(), new, Some(&note)))
    }

    fn mark_used<'a>(&'a self, key: &'a PrefixKey, revision: u64) -> StoreFuture<'a, bool> {
        self.with_rules("mark_used", move |state| {
            let present = state.rules.get(key);
            let present =
                present.filter(|record| record.revision == revision && record.rule.is_some()).cloned();
            let stands = present.is_some();
            if let Some(record) = present.filter(|record| !record.used) {
                state.put(RuleRecord { used: true, ..record });
            }
            stands
        })
    }

    fn note_use(&self, expected: RuleRecord, new: RuleRecord) -> StoreFuture<'_, Swap> {
        self.with_rules("note_use", move |state| state.swap(Some(&expected), next(Some(&expected), new)))
    }

    fn direct_write<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<DirectWrite>> {
        self.with_rules("direct_write", |state| state.shared.direct.get(key).cloned())
    }

    fn swap_over(
        &self,
        write: DirectWrite,
        expected: Option<RuleRecord>,
        new: RuleRecord,
    ) -> StoreFuture<'_, Swap> {
        self.with_rules("swap_over", move |state| {
            if state.shared.direct.get(&new.key) != Some(&write) {
                return Swap::Changed(state.rules.get(&new.key).cloned());
            }
            let swap = state.swap(expected.as_ref(), next(expected.as_ref(), new));
            if swap == Swap::Done {
                state.shared.direct.remove(&write.key);
            }
            swap
        })
    }
}

impl SharedRules for MemoryStore {
    fn follow(&self, since: RuleMark) -> StoreFuture<'_, RuleNews> {
        self.with_rules("follow", move |state| {
            let shared = &state.shared;
            let generation = shared.generation.to_string();
            let lineage = if since.generation == generation { Lineage::Same } else { Lineage::New };
            let from = if lineage == Lineage::Same { since.change } else { 0 };
            let mut changed: Vec<_> = shared.changes.iter().filter(|(_, change)| **change > from).collect();
            changed.sort_by_key(|(_, change)| **change);
            let more = changed.len() > PART;
            changed.truncate(PART);
            let change = changed.last().map_or(from, |(_, change)| **change);
            RuleNews {
                mark: RuleMark { generation, change },
                lineage,
                records: changed.iter().filter_map(|(key, _)| state.rules.get(*key).cloned()).collect(),
                more: if more { More::Records } else { More::Nothing },
                direct: shared.direct.values().cloned().collect(),
                misnamed: Vec::new(),
            }
        })
    }

    fn restore(&self, records: Vec<(Option<RuleRecord>, RuleRecord)>) -> StoreFuture<'_, Vec<Swap>> {
        self.with_rules("restore", |state| {
            records.into_iter().map(|(expected, new)| state.swap(expected.as_ref(), new)).collect()
        })
    }
}

impl RuleCopies for MemoryStore {
    fn load_copy(&self) -> StoreFuture<'_, Option<RuleCopy>> {
        self.with(|state| Ok(state.shared.copy.clone()))
    }

    fn save_copy(&self, records: Vec<RuleRecord>, mark: Option<RuleMark>) -> StoreFuture<'_, ()> {
        let now = self.clock.now();
        self.with(move |state| {
            let copy = state.shared.copy.get_or_insert_with(|| RuleCopy {
                mark: RuleMark::default(),
                saved_at: now,
                records: Vec::new(),
            });
            for record in records {
                let later =
                    |known: &RuleRecord| (known.revision, known.used) >= (record.revision, record.used);
                if copy.records.iter().any(|known| known.key == record.key && later(known)) {
                    continue;
                }
                copy.records.retain(|known| known.key != record.key);
                copy.records.push(record);
            }
            if let Some(mark) = mark {
                (copy.mark, copy.saved_at) = (mark, now);
            }
            Ok(())
        })
    }
}
