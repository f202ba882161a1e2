//! Segments of counters that are shared with other nodes.

use std::time::Duration;

use rusqlite::{Row, params};

use super::{
    SqliteStore,
    failure::Failure,
    values::{self, Digits, signed},
    workspace::{Workspace, collect, find},
};
use crate::{
    counter::{Counter, Ranges, SequenceValue},
    prefix_key::PrefixKey,
    store::{
        StoreFuture,
        protocol::counter::{Incarnation, Limits, NodeState, Segment},
        segments::{Kept, SegmentStore},
    },
};

const HELD: &str = "SELECT * FROM segments WHERE from_value IS NOT NULL";
const ONE: &str = "SELECT * FROM segments WHERE prefix_key = ?1 AND period = ?2";
const KEEP: &str =
    "INSERT OR REPLACE INTO segments (prefix_key, period, incarnation, ancestors, base, highest,
        from_value, to_value, issued, used, seen, touched_at_ms, scheme)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";

const RESTING: &str =
    "SELECT prefix_key, period FROM segments WHERE from_value IS NULL ORDER BY touched_at_ms DESC";
const OF_KEY: &str = "SELECT * FROM segments WHERE prefix_key = ?1";
const PASS_ON: &str = "UPDATE segments SET incarnation = ?3, ancestors = ?4, seen = ?5, used = ?6
    WHERE prefix_key = ?1 AND period = ?2 AND incarnation = ?7 AND from_value IS NULL";

/// Since when it is at rest does not change when it only was spoken for: `KEEP` clears it.
const LEFT: &str = "UPDATE segments SET left_at_ms = COALESCE(left_at_ms, ?4)
    WHERE prefix_key = ?1 AND period = ?2 AND incarnation = ?3 AND from_value IS NULL";
/// A counter without a period may be drawn from again at any time, and is the memory of what Redis may have forgotten: there is one
/// for each key. Those of past periods are what adds up.
const PRUNE: &str = "DELETE FROM segments WHERE (prefix_key, period) IN (
    SELECT prefix_key, period FROM segments WHERE left_at_ms < ?1 AND period <> '' LIMIT ?2)";

fn row(row: &Row<'_>) -> Result<Kept, Failure> {
    let seen: Option<Digits> = row.get("seen")?;
    let used: Ranges = values::ranges_of(row, "used")?;
    let ancestors: Vec<u8> = row.get("ancestors")?;
    let (ancestors, _none) = ancestors.as_chunks();
    let state = NodeState {
        segment: values::range(row, "from_value", "to_value")?.map(Segment),
        issued: values::unsigned(row, "issued")?,
        used: used.iter().collect(),
        seen: seen.map(|Digits(seen)| seen),
    };
    if state.segment.is_none_or(|Segment(range)| state.issued > range.count()) && state.issued > 0 {
        return Err(Failure::Corrupt("a segment of which more was issued than it has".to_owned()));
    }
    Ok(Kept {
        counter: values::counter(row)?,
        incarnation: Incarnation(u128::from_be_bytes(row.get("incarnation")?)),
        ancestors: ancestors.iter().map(|id| Incarnation(u128::from_be_bytes(*id))).collect(),
        limits: Limits {
            base: values::sequence(row, "base")?,
            floor: SequenceValue(0),
            max: values::sequence(row, "highest")?,
            scheme: values::unsigned(row, "scheme")?,
        },
        state,
    })
}

fn keep(workspace: &Workspace, kept: &Kept) -> Result<(), Failure> {
    let segment = kept.state.segment.map(|Segment(range)| range);
    workspace.execute(
        KEEP,
        params![
            kept.counter.key.as_str(),
            kept.counter.period.as_str(),
            kept.incarnation.0.to_be_bytes(),
            ancestors(kept),
            Digits(kept.limits.base),
            Digits(kept.limits.max),
            segment.map(|range| Digits(range.from)),
            segment.map(|range| Digits(range.to)),
            signed(kept.state.issued),
            used(kept),
            kept.state.seen.map(Digits),
            workspace.clock.now().0,
            signed(kept.limits.scheme),
        ],
    )?;
    Ok(())
}

fn ancestors(kept: &Kept) -> Vec<u8> {
    kept.ancestors.iter().flat_map(|id| id.0.to_be_bytes()).collect()
}

fn used(kept: &Kept) -> String {
    let mut used = Ranges::new();
    kept.state.used.iter().for_each(|range| used.push(range));
    used.to_string()
}

impl SegmentStore for SqliteStore {
    fn held(&self) -> StoreFuture<'_, Vec<Kept>> {
        self.read("held_segments", |connection| collect(connection, HELD, [], row))
    }

    fn kept<'a>(&'a self, counter: &'a Counter) -> StoreFuture<'a, Option<Kept>> {
        let counter = counter.clone();
        self.read("kept_segment", move |connection| {
            find(connection, ONE, (counter.key.as_str(), counter.period.as_str()), row)
        })
    }

    fn keep(&self, rows: Vec<Kept>) -> StoreFuture<'_, ()> {
        self.write("keep_segments", move |workspace| rows.iter().try_for_each(|kept| keep(workspace, kept)))
    }

    fn resting(&self) -> StoreFuture<'_, Vec<Counter>> {
        self.read("resting_segments", |connection| collect(connection, RESTING, [], values::counter))
    }

    fn highest<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, SequenceValue> {
        let key = key.clone();
        self.read("highest_segment", move |connection| {
            let rows = collect(connection, OF_KEY, [key.as_str()], row)?;
            Ok(rows.iter().map(|kept| kept.state.highest()).max().unwrap_or_default())
        })
    }

    fn pass_on(&self, rows: Vec<Kept>) -> StoreFuture<'_, ()> {
        self.write("pass_on_segments", move |workspace| {
            for kept in &rows {
                let Counter { key, period } = &kept.counter;
                let before = kept.ancestors.last().unwrap_or(&kept.incarnation);
                workspace.execute(
                    PASS_ON,
                    params![
                        key.as_str(),
                        period.as_str(),
                        kept.incarnation.0.to_be_bytes(),
                        ancestors(kept),
                        kept.state.seen.map(Digits),
                        used(kept),
                        before.0.to_be_bytes(),
                    ],
                )?;
            }
            Ok(())
        })
    }

    fn left(&self, gone: Vec<(Counter, Incarnation)>) -> StoreFuture<'_, ()> {
        self.write("left_segments", move |workspace| {
            for (Counter { key, period }, incarnation) in &gone {
                let names = (key.as_str(), period.as_str(), incarnation.0.to_be_bytes());
                workspace.execute(LEFT, params![names.0, names.1, names.2, workspace.clock.now().0])?;
            }
            Ok(())
        })
    }

    fn prune(&self, kept_for: Duration, limit: u32) -> StoreFuture<'_, u64> {
        self.write("prune_segments", move |workspace| {
            let before = values::before(workspace.clock.now(), kept_for);
            let pruned = workspace.execute(PRUNE, params![before, limit])?;
            Ok(u64::try_from(pruned).unwrap_or(u64::MAX))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        calendar::Period,
        clock::{ManualClock, UnixMillis},
        counter::ValueRange,
        prefix_key::PrefixKey,
    };

    fn range(from: u64, to: u64) -> ValueRange {
        ValueRange { from: SequenceValue(from), to: SequenceValue(to) }
    }

    #[tokio::test]
    async fn what_is_kept_outlives_the_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(UnixMillis(1_800_000_000_000)));
        let open = || {
            SqliteStore::open(directory.path(), clock.clone(), UnixMillis(0), Duration::from_secs(30))
                .expect("opened")
        };
        let counter =
            |key| Counter { key: PrefixKey::parse(key).expect("valid"), period: Period::new("2026") };
        let held = Kept {
            counter: counter("A"),
            incarnation: Incarnation(u128::MAX),
            ancestors: vec![Incarnation(1), Incarnation(2)],
            limits: Limits {
                base: SequenceValue(7),
                floor: SequenceValue(0),
                max: SequenceValue::MAX,
                scheme: 3,
            },
            state: NodeState {
                segment: Some(Segment(range(2_001, 3_000))),
                issued: 12,
                used: [range(900, 950), range(1_000, 1_000)].into_iter().collect(),
                seen: Some(SequenceValue(899)),
            },
        };
        let given_up = Kept {
            counter: counter("B"),
            ancestors: Vec::new(),
            state: NodeState::default(),
            ..held.clone()
        };
        let store = open();
        store.keep(vec![held.clone(), given_up.clone()]).await.expect("kept");
        store.close().await;
        drop(store);
        let store = open();
        assert_eq!(store.held().await.expect("read"), std::slice::from_ref(&held));
        assert_eq!(store.kept(&held.counter).await.expect("read"), Some(held.clone()));
        assert_eq!(store.kept(&given_up.counter).await.expect("read"), Some(given_up.clone()));
        assert_eq!(store.kept(&counter("C")).await.expect("read"), None);
        assert_eq!(store.resting().await.expect("read"), std::slice::from_ref(&given_up.counter));
        assert_eq!(store.highest(&held.counter.key).await.expect("read"), SequenceValue(3_000));
        assert_eq!(store.highest(&given_up.counter.key).await.expect("read"), SequenceValue(0));

        // Who speaks for a counter at rest is noted, once; not for one that is held.
        let speaks = |row: &Kept, incarnation| Kept {
            incarnation: Incarnation(incarnation),
            ancestors: vec![row.incarnation],
            state: NodeState { seen: Some(SequenceValue(1_000)), ..NodeState::default() },
            ..row.clone()
        };
        let reporter = speaks(&given_up, 8);
        store.pass_on(vec![speaks(&held, 7), reporter.clone()]).await.expect("written");
        store.pass_on(vec![speaks(&given_up, 9)]).await.expect("written");
        assert_eq!(store.kept(&held.counter).await.expect("read"), Some(held));
        assert_eq!(store.kept(&given_up.counter).await.expect("read"), Some(reporter));
    }

    #[tokio::test]
    async fn only_what_was_left_for_good_and_long_ago_is_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(UnixMillis(1_800_000_000_000)));
        let patience = Duration::from_secs(30);
        let store =
            SqliteStore::open(directory.path(), clock.clone(), UnixMillis(0), patience).expect("opened");
        let kept = |key, period, segment| Kept {
            counter: Counter { key: PrefixKey::parse(key).expect("valid"), period: Period::new(period) },
            incarnation: Incarnation(7),
            ancestors: Vec::new(),
            limits: Limits {
                base: SequenceValue(0),
                floor: SequenceValue(0),
                max: SequenceValue::MAX,
                scheme: 0,
            },
            state: NodeState { segment, seen: Some(SequenceValue(99)), ..NodeState::default() },
        };
        let rows = [
            kept("GONE", "2026", None),
            kept("FOREVER", "", None),
            kept("HELD", "2026", Some(Segment(range(100, 199)))),
            kept("OTHER", "2026", None),
            kept("AGAIN", "2026", None),
            kept("UNCONFIRMED", "2026", None),
        ];
        store.keep(rows.to_vec()).await.expect("kept");
        let gone = |row: &Kept, incarnation| (row.counter.clone(), Incarnation(incarnation));
        let mut left: Vec<_> = [0, 1, 2, 4].map(|index| gone(&rows[index], 7)).into();
        // Another process of this directory has it by now.
        left.push(gone(&rows[3], 6));
        store.left(left).await.expect("noted");
        store.keep(vec![rows[4].clone()]).await.expect("used again");
        let day = Duration::from_secs(86_400);
        clock.advance(day * 10);
        // Spoken for and left again: at rest since then all the same.
        let spoken_for =
            Kept { incarnation: Incarnation(8), ancestors: vec![Incarnation(7)], ..rows[0].clone() };
        store.pass_on(vec![spoken_for]).await.expect("written");
        store.left(vec![gone(&rows[0], 8)]).await.expect("noted");
        assert_eq!(store.prune(day * 11, 9).await.expect("pruned"), 0, "too early");
        assert_eq!(store.prune(day * 9, 9).await.expect("pruned"), 1);
        for (index, row) in rows.iter().enumerate() {
            let found = store.kept(&row.counter).await.expect("read");
            assert_eq!(found.is_none(), index == 0, "{}", row.counter);
        }
    }
}
