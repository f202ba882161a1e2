//! Temporary numbers in a map.

use std::{collections::BTreeMap, ops::Bound::Excluded, time::Duration};

use super::{MemoryStore, STORE, State};
use crate::{
    clock::UnixMillis,
    store::{
        Instance, Journal, Note, Pending, RowSwap, Stamp, Status, StoreError, StoreFuture, TemporaryNumber,
        TemporaryQuery, TemporaryRow, TemporaryStore,
    },
};

/// Rows by number.
pub(super) type Rows = BTreeMap<String, Kept>;

/// A row with what the journal notes of it.
pub(super) struct Kept {
    row: TemporaryRow,
    made_here: bool,
    acknowledged: Option<Instance>,
    /// When the row was first acknowledged as it stands.
    acknowledged_at: Option<UnixMillis>,
}

fn keep(rows: &mut Rows, row: TemporaryRow) {
    let text = row.number.to_string();
    if rows.get(&text).is_none_or(|kept| kept.row.revision < row.revision) {
        let made_here = rows.get(&text).is_some_and(|kept| kept.made_here);
        rows.insert(text, Kept { row, made_here, acknowledged: None, acknowledged_at: None });
    }
}

fn swap(state: &mut State, new: TemporaryRow, note: Option<&Note>) -> RowSwap {
    let Some(kept) = state.temporary.get_mut(new.number.as_str()) else { return RowSwap::Changed(None) };
    if kept.row.revision + 1 != new.revision {
        return RowSwap::Changed(Some(kept.row.clone()));
    }
    kept.row = new;
    (kept.acknowledged, kept.acknowledged_at) = (None, None);
    state.note(note);
    RowSwap::Done
}

impl TemporaryStore for MemoryStore {
    fn upload(&self, rows: Vec<TemporaryRow>) -> StoreFuture<'_, Instance> {
        self.with(|state| {
            rows.into_iter().for_each(|row| keep(&mut state.temporary, row));
            Ok(self.instance.clone())
        })
    }

    fn find(&self, number: TemporaryNumber) -> StoreFuture<'_, Option<TemporaryRow>> {
        self.with(move |state| Ok(state.temporary.get(number.as_str()).map(|kept| kept.row.clone())))
    }

    fn swap(&self, new: TemporaryRow) -> StoreFuture<'_, RowSwap> {
        self.with(move |state| Ok(swap(state, new, None)))
    }

    fn swap_noted(&self, new: TemporaryRow, note: Note) -> StoreFuture<'_, RowSwap> {
        self.with(move |state| Ok(swap(state, new, Some(&note))))
    }

    fn list(&self, query: TemporaryQuery) -> StoreFuture<'_, Vec<TemporaryRow>> {
        self.with(move |state| {
            let (first, end) = query.between();
            if first >= end {
                return Ok(Vec::new());
            }
            let rows = state.temporary.range::<str, _>((Excluded(&*first), Excluded(&*end)));
            let wanted = rows
                .map(|(_, kept)| &kept.row)
                .filter(|row| query.status.is_none_or(|status| status == row.status()));
            Ok(wanted.take(usize::try_from(query.limit).unwrap_or(usize::MAX)).cloned().collect())
        })
    }

    fn count_open(&self) -> StoreFuture<'_, u64> {
        self.with(|state| {
            Ok(state.temporary.values().filter(|kept| kept.row.status() == Status::Open).count() as u64)
        })
    }
}

impl Journal for MemoryStore {
    fn last_stamp(&self) -> StoreFuture<'_, Option<Stamp>> {
        self.with(|state| {
            let own = state.temporary.values().filter(|kept| kept.made_here);
            Ok(own.map(|kept| kept.row.number.stamp()).max())
        })
    }

    fn append(&self, rows: Vec<TemporaryRow>) -> StoreFuture<'_, ()> {
        self.with(|state| {
            if let Some(row) = rows.iter().find(|row| state.temporary.contains_key(row.number.as_str())) {
                let what = format!("{} for a second time", row.number);
                return Err(StoreError::Corrupt { store: STORE, what });
            }
            let kept = |row: TemporaryRow| {
                (
                    row.number.to_string(),
                    Kept { row, made_here: true, acknowledged: None, acknowledged_at: None },
                )
            };
            state.temporary.extend(rows.into_iter().map(kept));
            Ok(())
        })
    }

    fn pending(&self, instance: Instance, part: Pending, limit: u32) -> StoreFuture<'_, Vec<TemporaryRow>> {
        self.with(move |state| {
            let pending =
                state.temporary.values().filter(|kept| kept.acknowledged.as_ref() != Some(&instance));
            Ok(pending
                .filter(|kept| kept.row.revision >= part.lowest_revision())
                .take(usize::try_from(limit).unwrap_or(usize::MAX))
                .map(|kept| kept.row.clone())
                .collect())
        })
    }

    fn acknowledged(&self, rows: Vec<TemporaryRow>, instance: Instance) -> StoreFuture<'_, ()> {
        let now = self.clock.now();
        self.with(move |state| {
            for row in rows {
                let kept = state.temporary.get_mut(row.number.as_str());
                let kept = kept.filter(|kept| kept.row.revision == row.revision);
                if let Some(kept) = kept {
                    kept.acknowledged = Some(instance.clone());
                    kept.acknowledged_at.get_or_insert(now);
                }
            }
            Ok(())
        })
    }

    fn prune(&self, instance: Instance, kept_for: Duration, limit: u32) -> StoreFuture<'_, u64> {
        let now = self.clock.now();
        self.with(move |state| {
            let own = state.temporary.values().filter(|kept| kept.made_here);
            let last = own.map(|kept| kept.row.number.stamp()).max();
            let is_old = |at: UnixMillis| at.plus(kept_for) < now;
            let done = |kept: &Kept| {
                kept.row.status() != Status::Open
                    && kept.acknowledged.as_ref() == Some(&instance)
                    && kept.acknowledged_at.is_some_and(is_old)
                    && !(kept.made_here && Some(kept.row.number.stamp()) == last)
            };
            let numbers = state.temporary.iter().filter(|(_, kept)| done(kept)).map(|(number, _)| number);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let numbers: Vec<String> = numbers.take(limit).cloned().collect();
            numbers.iter().for_each(|number| drop(state.temporary.remove(number)));
            Ok(numbers.len() as u64)
        })
    }

    fn unsent(&self) -> StoreFuture<'_, u64> {
        self.with(|state| {
            Ok(state
                .temporary
                .values()
                .filter(|kept| kept.acknowledged.is_none() && kept.row.status() == Status::Open)
                .count() as u64)
        })
    }
}
