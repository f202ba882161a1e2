//! Counting from many threads without fighting over a cache line.
//!
//! A shared atomic that two threads add to travels between their processors with every addition, which costs more than the rest of
//! counting a request. Here each thread adds to a cell of its own, and only who reads the metrics adds the cells up.

use std::{
    array,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use metrics::CounterFn;

/// Threads beyond so many share cells, which costs speed and nothing else.
const CELLS: usize = 16;

/// A cell on cache lines of its own: processors fetch lines in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// The cell of the present thread.
fn cell() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static CELL: usize = NEXT.fetch_add(1, Ordering::Relaxed) % CELLS;
    }
    CELL.with(|cell| *cell)
}

/// A counter.
#[derive(Default)]
pub(super) struct ShardedCounter {
    cells: [Padded<AtomicU64>; CELLS],
}

impl ShardedCounter {
    /// What was counted so far.
    pub(super) fn sum(&self) -> u64 {
        self.cells.iter().map(|Padded(cell)| cell.load(Ordering::Relaxed)).sum()
    }
}

impl CounterFn for ShardedCounter {
    fn increment(&self, value: u64) {
        self.cells[cell()].0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.increment(value.saturating_sub(self.sum()));
    }
}

/// A histogram of durations with `N` bounds, in nanoseconds.
pub(super) struct ShardedHistogram<const N: usize> {
    bounds_ns: [u64; N],
    cells: Box<[Padded<Cell<N>>]>,
}

struct Cell<const N: usize> {
    /// At or below each bound, but above the one before.
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    sum_ns: AtomicU64,
}

/// What a histogram holds.
pub(super) struct Snapshot<const N: usize> {
    /// How many lie at or below each bound.
    pub(super) cumulative: [u64; N],
    /// How many there are.
    pub(super) count: u64,
    /// Their sum, in seconds.
    pub(super) sum_s: f64,
}

impl<const N: usize> ShardedHistogram<N> {
    /// An empty histogram with these upper bounds, ascending, in seconds.
    pub(super) fn new(bounds_s: &[f64; N]) -> Self {
        let empty = || Cell {
            counts: array::from_fn(|_| AtomicU64::new(0)),
            beyond: AtomicU64::new(0),
            sum_ns: AtomicU64::new(0),
        };
        Self {
            bounds_ns: bounds_s.map(|bound| Duration::from_secs_f64(bound).as_nanos() as u64),
            cells: (0..CELLS).map(|_| Padded(empty())).collect(),
        }
    }

    /// Adds one.
    pub(super) fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let Padded(cell) = &self.cells[cell()];
        let bucket = self.bounds_ns.iter().position(|bound| nanos <= *bound);
        bucket.map_or(&cell.beyond, |bucket| &cell.counts[bucket]).fetch_add(1, Ordering::Relaxed);
        cell.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was recorded so far.
    pub(super) fn snapshot(&self) -> Snapshot<N> {
        let total = |pick: &dyn Fn(&Cell<N>) -> &AtomicU64| -> u64 {
            self.cells.iter().map(|Padded(cell)| pick(cell).load(Ordering::Relaxed)).sum()
        };
        let mut cumulative = [0; N];
        let mut count = 0;
        for (bucket, sum) in cumulative.iter_mut().enumerate() {
            count += total(&|cell| &cell.counts[bucket]);
            *sum = count;
        }
        count += total(&|cell| &cell.beyond);
        let sum_s = Duration::from_nanos(total(&|cell| &cell.sum_ns)).as_secs_f64();
        Snapshot { cumulative, count, sum_s }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn nothing_is_lost_between_threads() {
        let (counter, histogram) =
            (Arc::new(ShardedCounter::default()), Arc::new(ShardedHistogram::new(&[0.001, 0.01])));
        let threads: Vec<_> = (0..CELLS as u64 + 4)
            .map(|thread| {
                let (counter, histogram) = (Arc::clone(&counter), Arc::clone(&histogram));
                std::thread::spawn(move || {
                    for _ in 0..1_000 {
                        counter.increment(2);
                        histogram.record(Duration::from_millis(thread % 3 * 10));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert_eq!(counter.sum(), 40_000);
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.cumulative, snapshot.count), ([7_000, 14_000], 20_000));
        assert!((snapshot.sum_s - 190.0).abs() < 1e-6, "{}", snapshot.sum_s);
    }
}
