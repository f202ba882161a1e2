//! Drawing IDs from a window, without a lock.
//!
//! The state of a holding is one integer, its *position*: timestamp and sequence side by side. The next ID is the next
//! position; `n` IDs are `n` positions; a full millisecond carries into the timestamp by itself. So one compare-and-swap
//! draws any number of IDs, and invariant 2 is the order of the integers.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    clock::Clock,
    counter::{Ranges, SequenceValue, ValueRange},
};

use super::layout::{IdParts, Layout};

/// The time that goes into IDs: the store's clock as it was last seen, carried forward by the monotonic clock.
///
/// It never falls, so a wall clock that steps back changes nothing; and it is moved forward only by [`IdClock::learn`],
/// which bounds how far.
#[derive(Debug)]
pub struct IdClock {
    /// Milliseconds to add to the monotonic clock. Rises only.
    offset_ms: AtomicU64,
}

impl IdClock {
    /// A clock that shows `now` (milliseconds since the epoch) at the monotonic reading `monotonic`.
    pub fn new(now: u64, monotonic: Duration) -> Self {
        Self { offset_ms: AtomicU64::new(now.saturating_sub(millis(monotonic))) }
    }

    /// The time, in milliseconds since the epoch.
    pub fn now(&self, clock: &dyn Clock) -> u64 {
        self.offset_ms.load(Ordering::Acquire).saturating_add(millis(clock.monotonic()))
    }

    /// Moves forward to `seen` where that is ahead, by at most `limit`: a wild clock of the store is followed slowly.
    pub fn learn(&self, seen: u64, limit: Duration, clock: &dyn Clock) {
        let now = self.now(clock);
        let ahead = seen.saturating_sub(now).min(millis(limit));
        self.offset_ms.fetch_add(ahead, Ordering::AcqRel);
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Issues the IDs of one holding of a worker slot. Shared between threads; drawing never blocks.
#[derive(Debug)]
pub struct Sequencer {
    layout: Layout,
    datacenter: u32,
    worker: u32,
    max_ahead_ms: u64,
    /// Highest timestamp that may be issued. Rises only, except that closing sets it to 0.
    mark: AtomicU64,
    /// The position drawn last; begins at the last position of `start`.
    position: AtomicU64,
}

/// IDs that are the caller's: ascending, at least one, perhaps fewer than asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    first: u64,
    last: u64,
}

impl Drawn {
    /// How many IDs.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// Why no ID could be drawn. Nothing was consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrawError {
    /// The clock has to catch up first.
    #[error("the sequence is full for another {0:?}")]
    Wait(Duration),
    /// The next timestamp lies beyond the window.
    #[error("the worker window is used up or was given back")]
    BeyondMark,
    /// The time bits of the layout have run out: choose a later epoch or a wider layout.
    #[error("the time bits of the snowflake layout have run out")]
    TimeExhausted,
}

impl Sequencer {
    /// A sequencer over the window `start < ts <= mark`, at most `max_ahead` ahead of the clock.
    pub fn new(
        layout: Layout,
        datacenter: u32,
        worker: u32,
        start: u64,
        mark: u64,
        max_ahead: Duration,
    ) -> Self {
        let sequence = layout.sequence_bits();
        // A start beyond what the bits can hold has no successor; the first draw then says so.
        let start = start.min(layout.max_timestamp());
        Self {
            layout,
            datacenter,
            worker,
            max_ahead_ms: millis(max_ahead),
            mark: AtomicU64::new(mark),
            position: AtomicU64::new(((start + 1) << sequence) - 1),
        }
    }

    /// Draws up to `count` IDs at the time `now` (of the [`IdClock`]).
    ///
    /// A clock that stands behind the last timestamp is no error: the sequence counts on, into the timestamps ahead, as far as
    /// `max_ahead` allows.
    ///
    /// # Errors
    ///
    /// [`DrawError`]; `Wait` says how long until at least one more can be drawn.
    pub fn draw(&self, now: u64, count: u64) -> Result<Drawn, DrawError> {
        let bits = self.layout.sequence_bits();
        let last_of = |timestamp: u64| (timestamp << bits) | (self.layout.ids_per_timestamp() - 1);
        let floor = now.min(self.layout.max_timestamp()) << bits;
        let newest = now.saturating_add(self.max_ahead_ms);

        let mut position = self.position.load(Ordering::Acquire);
        loop {
            let first = floor.max(position + 1);
            let timestamp = first >> bits;
            // The mark is read anew in each round: a window that was closed meanwhile gives nothing more.
            let mark = self.mark.load(Ordering::Acquire);
            if timestamp > mark {
                return Err(DrawError::BeyondMark);
            }
            if timestamp > self.layout.max_timestamp() || now > self.layout.max_timestamp() {
                return Err(DrawError::TimeExhausted);
            }
            if timestamp > newest {
                return Err(DrawError::Wait(Duration::from_millis(timestamp - newest)));
            }
            let limit = last_of(newest.min(mark).min(self.layout.max_timestamp()));
            let last = limit.min(first.saturating_add(count - 1));
            match self.position.compare_exchange_weak(position, last, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(Drawn { first, last }),
                Err(changed) => position = changed,
            }
        }
    }

    /// Appends the IDs that were drawn to `ids`, which they all lie above.
    pub fn ids(&self, drawn: &Drawn, ids: &mut Ranges) {
        let bits = self.layout.sequence_bits();
        let mut first = drawn.first;
        while first <= drawn.last {
            let last = (first | (self.layout.ids_per_timestamp() - 1)).min(drawn.last);
            ids.push(ValueRange { from: self.id(first), to: self.id(last) });
            first = (last >> bits << bits) + self.layout.ids_per_timestamp();
            if last == drawn.last {
                break;
            }
        }
    }

    fn id(&self, position: u64) -> SequenceValue {
        let bits = self.layout.sequence_bits();
        SequenceValue(self.layout.compose(IdParts {
            timestamp: position >> bits,
            datacenter: self.datacenter,
            worker: self.worker,
            sequence: u32::try_from(position & (self.layout.ids_per_timestamp() - 1)).unwrap_or(u32::MAX),
        }))
    }

    /// Whether everything that is still to be drawn lies above `id`.
    pub fn draws_above(&self, id: SequenceValue) -> bool {
        let next = self.position.load(Ordering::Acquire).saturating_add(1);
        next >> self.layout.sequence_bits() <= self.layout.max_timestamp() && self.id(next) > id
    }

    /// Who it issues for.
    pub fn worker(&self) -> u32 {
        self.worker
    }

    /// The highest timestamp that may be issued.
    pub fn mark(&self) -> u64 {
        self.mark.load(Ordering::Acquire)
    }

    /// Lets the window reach up to `mark`, unless it was closed meanwhile: a late reply never revives a holding.
    pub fn extend(&self, mark: u64) {
        let raise = |old: u64| (old != 0).then_some(old.max(mark));
        // An `Err` means that it was closed, which is what must stay.
        let _closed = self.mark.fetch_update(Ordering::AcqRel, Ordering::Acquire, raise);
    }

    /// Stops issuing for good and answers the highest timestamp that was, or may still be being, issued.
    ///
    /// The position is moved past every timestamp that the window allowed, so that a draw which read the mark before loses its
    /// compare-and-swap.
    pub fn close(&self) -> u64 {
        self.mark.store(0, Ordering::Release);
        let beyond = (self.layout.max_timestamp() + 1) << self.layout.sequence_bits();
        let last = self.position.swap(beyond, Ordering::AcqRel);
        last.min(beyond - 1) >> self.layout.sequence_bits()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    const AHEAD: Duration = Duration::from_millis(50);

    fn sequencer(start: u64, mark: u64) -> Sequencer {
        Sequencer::new(Layout::DEFAULT, 3, 7, start, mark, AHEAD)
    }

    fn ids(sequencer: &Sequencer, drawn: &Drawn) -> Vec<u64> {
        let mut ranges = Ranges::new();
        sequencer.ids(drawn, &mut ranges);
        ranges.values().map(|value| value.0).collect()
    }

    fn one(sequencer: &Sequencer, now: u64) -> Result<IdParts, DrawError> {
        let drawn = sequencer.draw(now, 1)?;
        Ok(Layout::DEFAULT.parts(ids(sequencer, &drawn)[0]).expect("63 bits"))
    }

    #[test]
    fn issues_the_time_and_counts_within_it() {
        let sequencer = sequencer(100, 10_000);
        for sequence in 0..3 {
            let expected = IdParts { timestamp: 500, datacenter: 3, worker: 7, sequence };
            assert_eq!(one(&sequencer, 500), Ok(expected));
        }
        assert_eq!(one(&sequencer, 501).map(|parts| (parts.timestamp, parts.sequence)), Ok((501, 0)));
    }

    #[test]
    fn never_issues_at_or_below_its_start() {
        let sequencer = sequencer(1_000, 10_000);
        assert_eq!(one(&sequencer, 990).map(|parts| (parts.timestamp, parts.sequence)), Ok((1_001, 0)));
    }

    #[test]
    fn a_clock_that_steps_back_is_no_error() {
        let sequencer = sequencer(0, 10_000);
        assert_eq!(one(&sequencer, 5_000).map(|parts| (parts.timestamp, parts.sequence)), Ok((5_000, 0)));
        assert_eq!(one(&sequencer, 4_990).map(|parts| (parts.timestamp, parts.sequence)), Ok((5_000, 1)));
    }

    #[test]
    fn a_full_millisecond_moves_on_at_most_max_ahead_and_then_waits() {
        let sequencer = sequencer(0, 10_000);
        let drawn = sequencer.draw(500, 1_000_000).expect("51 milliseconds' worth");
        assert_eq!(drawn.count(), 51 * 4096);
        let drawn = ids(&sequencer, &drawn);
        let parts = |id: &u64| Layout::DEFAULT.parts(*id).expect("63 bits");
        assert_eq!(drawn.first().map(parts).map(|id| (id.timestamp, id.sequence)), Some((500, 0)));
        assert_eq!(drawn.last().map(parts).map(|id| (id.timestamp, id.sequence)), Some((550, 4095)));
        assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(one(&sequencer, 500), Err(DrawError::Wait(Duration::from_millis(1))));
        assert_eq!(one(&sequencer, 501).map(|parts| parts.timestamp), Ok(551));
    }

    #[test]
    fn the_mark_is_the_end() {
        let sequencer = sequencer(0, 520);
        assert_eq!(one(&sequencer, 520).map(|parts| parts.timestamp), Ok(520));
        assert_eq!(one(&sequencer, 521), Err(DrawError::BeyondMark));
        sequencer.extend(530);
        assert_eq!(one(&sequencer, 521).map(|parts| parts.timestamp), Ok(521));
        assert_eq!(sequencer.draw(525, 1_000_000).map(|drawn| drawn.count()), Ok(6 * 4096), "525 to 530");
        sequencer.extend(10);
        assert_eq!(sequencer.mark(), 530, "a late reply does not shorten the window");
    }

    #[test]
    fn the_end_of_the_time_bits_is_an_error_and_not_a_wrap() {
        let last = Layout::DEFAULT.max_timestamp();
        let sequencer = sequencer(last - 2, u64::MAX);
        assert_eq!(one(&sequencer, last).map(|parts| parts.timestamp), Ok(last));
        assert_eq!(sequencer.draw(last, 10_000).map(|drawn| drawn.count()), Ok(4095));
        assert_eq!(one(&sequencer, last), Err(DrawError::TimeExhausted));
        assert_eq!(one(&sequencer, last + 1), Err(DrawError::TimeExhausted));
        let nothing_left = Sequencer::new(Layout::DEFAULT, 0, 0, u64::MAX, u64::MAX, AHEAD);
        assert_eq!(one(&nothing_left, 5), Err(DrawError::TimeExhausted));
    }

    #[test]
    fn a_closed_window_gives_nothing_and_cannot_be_extended() {
        let sequencer = sequencer(0, 10_000);
        let drawn = sequencer.draw(500, 5_000).expect("two milliseconds");
        assert_eq!(drawn.count(), 5_000);
        assert_eq!(sequencer.close(), 501);
        sequencer.extend(20_000);
        assert_eq!(one(&sequencer, 9_000), Err(DrawError::BeyondMark));
        assert_eq!(self::sequencer(77, 100).close(), 77, "nothing issued: the start");
    }

    #[test]
    fn two_nodes_at_once_share_no_id() {
        let nodes = [1, 2].map(|worker| Sequencer::new(Layout::DEFAULT, 0, worker, 0, 10_000, AHEAD));
        let mut all: Vec<u64> =
            nodes.iter().flat_map(|node| ids(node, &node.draw(500, 10_000).expect("within 50 ms"))).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 20_000);
    }

    #[test]
    fn threads_that_draw_at_once_share_no_id() {
        let sequencer = Arc::new(sequencer(0, 10_000));
        let threads: Vec<_> = (0..4_u64)
            .map(|seed| {
                let sequencer = Arc::clone(&sequencer);
                std::thread::spawn(move || {
                    let mut mine = Vec::new();
                    for step in 0..2_000 {
                        // Each thread's clock runs at its own pace, backwards at times.
                        let now = 1_000 + (step * 17 * (seed + 1)) % 40;
                        if let Ok(drawn) = sequencer.draw(now, 1 + step % 5) {
                            mine.extend(ids(&sequencer, &drawn));
                        }
                    }
                    assert!(mine.windows(2).all(|pair| pair[0] < pair[1]));
                    mine
                })
            })
            .collect();
        let mut all: Vec<u64> =
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
        let drawn = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), drawn);
        assert!(drawn > 10_000);
    }

    #[test]
    fn the_id_clock_never_falls_and_follows_a_wild_clock_slowly() {
        let clock = ManualClock::at(UnixMillis(0));
        let ids = IdClock::new(1_000, clock.monotonic());
        clock.advance(Duration::from_millis(10));
        assert_eq!(ids.now(&clock), 1_010);
        clock.step_to(UnixMillis(-50_000));
        assert_eq!(ids.now(&clock), 1_010);
        ids.learn(900, Duration::from_secs(5), &clock);
        assert_eq!(ids.now(&clock), 1_010, "the store's clock fell back");
        ids.learn(3_600_000, Duration::from_secs(5), &clock);
        assert_eq!(ids.now(&clock), 6_010);
    }

    proptest! {
        /// Whatever the clock does, IDs of one holding rise, lie in the window, and stay near the clock.
        #[test]
        fn unique_and_increasing_under_any_clock(
            start in 0_u64..5_000,
            window in 1_u64..2_000,
            draws in prop::collection::vec((0_u64..8_000, 1_u64..9_000), 1..50),
        ) {
            let sequencer = sequencer(start, start + window);
            let mut previous = None;
            for (now, count) in draws {
                let Ok(drawn) = sequencer.draw(now, count) else { continue };
                prop_assert!(drawn.count() <= count);
                for id in ids(&sequencer, &drawn) {
                    prop_assert!(previous < Some(id));
                    previous = Some(id);
                    let timestamp = Layout::DEFAULT.parts(id).expect("63 bits").timestamp;
                    prop_assert!(start < timestamp && timestamp <= start + window);
                    prop_assert!(timestamp <= now + 50);
                }
            }
        }

        /// Any two holdings with disjoint windows give disjoint IDs on one slot.
        #[test]
        fn disjoint_windows_give_disjoint_ids(cut in 100_u64..1_000, clocks in prop::collection::vec(0_u64..2_000, 1..40)) {
            let (before, after) = (sequencer(0, cut), sequencer(cut, 2_000));
            let mut seen = std::collections::HashSet::new();
            for (turn, now) in clocks.into_iter().enumerate() {
                let holding = if turn % 2 == 0 { &before } else { &after };
                for id in holding.draw(now, 3).map(|drawn| ids(holding, &drawn)).unwrap_or_default() {
                    prop_assert!(seen.insert(id));
                }
            }
        }
    }
}
