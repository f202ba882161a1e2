//! The list of holes of a counter: the latest in its state, which is read and written with every message, the others in a table.
//!
//! Invariant: a counter is given every hole that a message may take off the list or merge with: those that a holder may still fill,
//! which never leave the state; those beside the cursor, which are the latest; and of the others those that the message speaks of
//! ([`spoken_of`]). So it answers and lists as if it had all of them.

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::super::{
    failure::Failure,
    values::{Whole, sequence, word},
};
use crate::{
    counter::{Counter, SequenceValue, ValueRange},
    store::{
        HoleReason,
        protocol::counter::{Authority, Hole, Take},
    },
};

/// With more holes than the first in the state, some go to the table, until the second is reached.
const MOST_IN_STATE: usize = 16;
const LEFT_IN_STATE: usize = 8;

/// After so long without a beat a node may be forgotten by a message, in ms: less than what the authority waits for.
const MAY_LAPSE_MS: u64 = 30_000;

/// The part of a table of holes that a message works on.
#[derive(Clone, Debug, Default)]
pub(super) struct Archive {
    /// The highest value of any hole in the table.
    pub(super) to: Option<SequenceValue>,
    /// Rows that were read.
    read: Vec<Hole>,
}

/// What is to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Rows of the table that are no more.
    pub(super) gone: Vec<Hole>,
    /// New rows of the table.
    pub(super) added: Vec<Hole>,
    /// What the state has.
    pub(super) in_state: Vec<Hole>,
    /// The highest value of any hole in the table.
    pub(super) archived_to: Option<SequenceValue>,
}

/// The ranges at or below the cursor that a message may have listed or taken off the list.
pub(super) fn spoken_of(counter: &Authority, take: &Take, now: u64) -> Vec<ValueRange> {
    let may_lapse = take.count == 0 && take.claims.is_empty();
    let gone = counter.members.iter().filter(|(id, member)| {
        take.retires.contains(id)
            || take.covers.contains(id)
            || (may_lapse && now.abs_diff(member.beat) > MAY_LAPSE_MS)
    });
    let drawn = gone.flat_map(|(_, member)| member.drawn.iter().copied());
    let held = take.holds.map(|segment| segment.0);
    take.used.iter().chain(&take.surplus).copied().chain(held).chain(drawn).collect()
}

impl Archive {
    pub(super) fn up_to(to: Option<SequenceValue>) -> Self {
        Self { to, read: Vec::new() }
    }

    /// Those of `ranges` in which the table may have something, each with its neighbours.
    fn reachable(&self, ranges: Vec<ValueRange>) -> Vec<ValueRange> {
        let Some(top) = self.to else { return Vec::new() };
        let wide = ranges.into_iter().map(|range| ValueRange {
            from: SequenceValue(range.from.0.saturating_sub(1)),
            to: SequenceValue(range.to.0.saturating_add(1)),
        });
        wide.filter(|range| range.from <= top).collect()
    }

    /// Gives a counter rows of the table.
    fn give(&mut self, mut rows: Vec<Hole>, counter: &mut Authority) {
        rows.sort_by_key(|hole| hole.range.from);
        rows.dedup_by_key(|hole| hole.range.from);
        counter.holes.extend(rows.iter().cloned());
        counter.holes.sort_by_key(|hole| hole.range.from);
        self.read = rows;
    }

    /// What became of the holes that the counter was given.
    pub(super) fn changes(&self, counter: &Authority) -> Changes {
        let (mut in_state, mut unchanged) = (Vec::new(), 0);
        for hole in &counter.holes {
            if self.read.contains(hole) {
                unchanged += 1;
            } else {
                in_state.push(hole.clone());
            }
        }
        let is_gone = |row: &&Hole| !counter.holes.contains(row);
        let gone = if unchanged == self.read.len() {
            Vec::new()
        } else {
            self.read.iter().filter(is_gone).cloned().collect()
        };
        let mut added = Vec::new();
        if in_state.len() > MOST_IN_STATE {
            let mut surplus = in_state.len() - LEFT_IN_STATE;
            in_state.retain(|hole| {
                let stays = surplus == 0 || hole.holder.is_some();
                if !stays {
                    surplus -= 1;
                    added.push(hole.clone());
                }
                stays
            });
        }
        let archived_to = added.iter().map(|hole| hole.range.to).max().max(self.to);
        Changes { gone, added, in_state, archived_to }
    }
}

/// The holes that a message needs beside those of the state.
pub(super) async fn fetch(
    connection: &mut PgConnection,
    of: &Counter,
    ranges: Vec<ValueRange>,
    archive: &mut Archive,
    counter: &mut Authority,
) -> Result<(), Failure> {
    let ranges = archive.reachable(ranges);
    if ranges.is_empty() {
        return Ok(());
    }
    // Holes do not overlap: of those that end beyond a range only the next can reach into it.
    let rows = sqlx::query(
        "SELECT h.first, h.last, h.reason, h.since_ms
         FROM unnest($3::numeric[], $4::numeric[]) AS asked (low, high), LATERAL (
             SELECT first, last, reason, since_ms FROM numgen_counter_holes
             WHERE prefix_key = $1 AND period = $2 AND last BETWEEN low AND high
             UNION ALL
             SELECT * FROM (
                 SELECT first, last, reason, since_ms FROM numgen_counter_holes
                 WHERE prefix_key = $1 AND period = $2 AND last > high ORDER BY last LIMIT 1) AS next
             WHERE next.first <= high) AS h",
    )
    .bind(of.key.as_str())
    .bind(of.period.as_str())
    .bind(ranges.iter().map(|range| Whole(range.from.0)).collect::<Vec<_>>())
    .bind(ranges.iter().map(|range| Whole(range.to.0)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    archive.give(rows.iter().map(read).collect::<Result<_, _>>()?, counter);
    Ok(())
}

/// Reads `first, last, reason, since_ms`.
pub(super) fn read(row: &PgRow) -> Result<Hole, Failure> {
    Ok(Hole {
        range: ValueRange { from: sequence(row, "first")?, to: sequence(row, "last")? },
        reason: word(row, "reason", HoleReason::parse)?,
        since: row.try_get::<Whole, _>("since_ms")?.0,
        holder: None,
    })
}

/// Writes what became of the table.
pub(super) async fn write(
    connection: &mut PgConnection,
    of: &Counter,
    changes: &Changes,
) -> Result<(), Failure> {
    if !changes.gone.is_empty() {
        sqlx::query(
            "DELETE FROM numgen_counter_holes WHERE prefix_key = $1 AND period = $2 AND last = ANY($3)",
        )
        .bind(of.key.as_str())
        .bind(of.period.as_str())
        .bind(changes.gone.iter().map(|hole| Whole(hole.range.to.0)).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    if !changes.added.is_empty() {
        sqlx::query(
            "INSERT INTO numgen_counter_holes (prefix_key, period, first, last, reason, since_ms)
             SELECT $1, $2, * FROM unnest($3::numeric[], $4::numeric[], $5::text[], $6::numeric[])
             ON CONFLICT DO NOTHING",
        )
        .bind(of.key.as_str())
        .bind(of.period.as_str())
        .bind(changes.added.iter().map(|hole| Whole(hole.range.from.0)).collect::<Vec<_>>())
        .bind(changes.added.iter().map(|hole| Whole(hole.range.to.0)).collect::<Vec<_>>())
        .bind(changes.added.iter().map(|hole| hole.reason.as_str()).collect::<Vec<_>>())
        .bind(changes.added.iter().map(|hole| Whole(hole.since)).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::store::{
        postgres::counters::state::{self, Marks},
        protocol::counter::{Generation, Incarnation, Limits, Marker, Reply, Segment, Wants},
    };

    const MARKER: Marker =
        Marker { generation: Generation(1), replid: 1, since: 0, settled: true, alive: 0, lacks_ms: 0 };

    /// A counter as the store keeps it.
    #[derive(Default)]
    struct Kept {
        row: Option<(String, Marks, Option<SequenceValue>)>,
        table: Vec<Hole>,
    }

    impl Kept {
        /// A step as `step.rs` does it, with a table in memory.
        fn serve(&mut self, take: &Take, now: u64) -> Reply {
            let (mut slot, mut archive) = (None, Archive::default());
            if let Some((text, marks, archived_to)) = &self.row {
                let mut counter = state::read(text, marks.clone()).expect("as it was written");
                archive = Archive::up_to(*archived_to);
                let asked = archive.reachable(spoken_of(&counter, take, now));
                let meets = |hole: &&Hole| {
                    asked.iter().any(|range| hole.range.from <= range.to && hole.range.to >= range.from)
                };
                archive.give(self.table.iter().filter(meets).cloned().collect(), &mut counter);
                slot = Some(counter);
            }
            let reply = Authority::serve(&mut slot, &mut Some(MARKER), 1, now, Generation(2), take);
            let counter = slot.expect("served");
            let changes = archive.changes(&counter);
            self.table.retain(|hole| !changes.gone.contains(hole));
            self.table.extend(changes.added.iter().cloned());
            let text = state::write(&counter, &changes.in_state).expect("JSON");
            let Authority { origin, base, cursor: last, horizon, returned, .. } = counter;
            let marks = Marks { origin, base, last, horizon, returned };
            self.row = Some((text, marks, changes.archived_to));
            reply
        }

        fn holes(&self) -> BTreeMap<u64, (HoleReason, Option<Incarnation>)> {
            let (text, marks, _) = self.row.as_ref().expect("served");
            let counter = state::read(text, marks.clone()).expect("as it was written");
            assert!(counter.holes.iter().filter(|hole| hole.holder.is_none()).count() <= MOST_IN_STATE);
            by_value(counter.holes.iter().chain(&self.table))
        }
    }

    fn by_value<'a>(
        holes: impl Iterator<Item = &'a Hole>,
    ) -> BTreeMap<u64, (HoleReason, Option<Incarnation>)> {
        let mut listed = BTreeMap::new();
        for hole in holes {
            for value in hole.range.from.0..=hole.range.to.0 {
                let before = listed.insert(value, (hole.reason, hole.holder));
                assert_eq!(before, None, "{value} is listed twice");
            }
        }
        listed
    }

    fn range((from, extent): (u64, u64)) -> ValueRange {
        ValueRange { from: SequenceValue(from), to: SequenceValue(from + extent) }
    }

    /// What one node says: who, how many values, a gap below which nothing is drawn, and ranges that it speaks of, as far below the cursor.
    type Word = (u128, u64, u64, Vec<(u64, u64)>, Vec<(u64, u64)>, bool, bool);

    fn word() -> impl Strategy<Value = Word> {
        let ranges = || prop::collection::vec((0_u64..300, 0_u64..12), 0..2);
        (1_u128..4, 0_u64..8, 0_u64..4, ranges(), ranges(), any::<bool>(), prop::bool::weighted(0.05))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever nodes say, a counter whose old holes are in a table answers and lists as one that has all of them before it.
        #[test]
        fn old_holes_are_as_good_as_at_hand(words in prop::collection::vec(word(), 1..160)) {
            let (mut whole, mut kept) = (None::<Authority>, Kept::default());
            let mut nodes: BTreeMap<u128, (u64, Option<Segment>)> = BTreeMap::new();
            let mut names: BTreeMap<u128, u128> = BTreeMap::new();
            for (turn, (who, count, gap, used, surplus, wants, dies)) in words.into_iter().enumerate() {
                let now = 1_000 * (turn as u64);
                let cursor = whole.as_ref().map_or(0, |counter| counter.cursor.0);
                let life = *names.entry(who).or_insert(who);
                let (call, holds) = *nodes.entry(life).or_insert((0, None));
                let down = |ranges: Vec<(u64, u64)>| ranges.into_iter()
                    .map(|(below, extent)| range((cursor.saturating_sub(below), extent))).collect::<Vec<_>>();
                let retires = if dies {
                    let next = life + 10;
                    names.insert(who, next);
                    vec![Incarnation(life)]
                } else {
                    vec![]
                };
                let me = names[&who];
                let call = if dies { 1 } else { call + 1 };
                let take = Take {
                    incarnation: Incarnation(me), node: format!("n{who}"), generation: Some(Generation(1)), call,
                    count, claims: vec![],
                    limits: Limits {
                        base: SequenceValue(0), floor: SequenceValue(cursor + gap), max: SequenceValue(u64::MAX), scheme: 0,
                    },
                    seen: None, holds: if dies { None } else { holds }, used: down(used), surplus: down(surplus),
                    wants: wants.then_some(Wants { size: 5 }), retires, covers: vec![], peers: vec![],
                    horizon: SequenceValue(0), distrusts: None,
                    next_beat_ms: 500, leaves: false,
                };
                let expected = Authority::serve(&mut whole, &mut Some(MARKER), 1, now, Generation(2), &take);
                let reply = kept.serve(&take, now);
                prop_assert_eq!(&reply, &expected);
                let segment = match reply {
                    Reply::Taken { segment, .. } => segment,
                    Reply::Recover { .. } | Reply::Stale => None,
                };
                nodes.insert(me, (call, segment));
                let all = by_value(whole.as_ref().expect("served").holes.iter());
                prop_assert_eq!(kept.holes(), all, "after {:?}", take);
            }
        }
    }
}
