//! Counting from many threads without fighting over a cache line.
//!
//! A shared atomic that two threads add to travels between their processors with every addition, which costs more than the rest of
//! counting a request. Here each thread adds to a cell of its own, and only who reads the metrics adds the cells up.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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

/// A histogram of whole numbers, such as nanoseconds.
pub(super) struct ShardedHistogram {
    /// Upper bounds, ascending, and how each is shown.
    bounds: Box<[(u64, f64)]>,
    scale: f64,
    cells: Box<[Padded<Cell>]>,
}

struct Cell {
    /// At or below each bound, but above the one before; beyond the last one.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a histogram holds.
pub(super) struct Snapshot {
    /// Each bound, and how many lie at or below it.
    pub(super) cumulative: Vec<(f64, u64)>,
    /// How many there are.
    pub(super) count: u64,
    /// Their sum.
    pub(super) sum: f64,
}

impl ShardedHistogram {
    /// An empty histogram with these upper bounds, ascending; what is recorded is `scale` times what is shown.
    pub(super) fn new(bounds: &[f64], scale: f64) -> Self {
        let empty = || Cell {
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        };
        Self {
            bounds: bounds.iter().map(|&bound| ((bound * scale).round() as u64, bound)).collect(),
            scale,
            cells: (0..CELLS).map(|_| Padded(empty())).collect(),
        }
    }

    /// Adds one.
    pub(super) fn record(&self, value: u64) {
        let Padded(cell) = &self.cells[cell()];
        let bucket = self.bounds.iter().position(|(bound, _)| value <= *bound).unwrap_or(self.bounds.len());
        cell.counts[bucket].fetch_add(1, Ordering::Relaxed);
        cell.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was recorded so far.
    pub(super) fn snapshot(&self) -> Snapshot {
        let total = |pick: &dyn Fn(&Cell) -> &AtomicU64| -> u64 {
            self.cells.iter().map(|Padded(cell)| pick(cell).load(Ordering::Relaxed)).sum()
        };
        let mut count = 0;
        let mut below = |bucket: usize| {
            count += total(&|cell| &cell.counts[bucket]);
            count
        };
        let cumulative =
            self.bounds.iter().enumerate().map(|(bucket, (_, bound))| (*bound, below(bucket))).collect();
        let count = below(self.bounds.len());
        Snapshot { cumulative, count, sum: total(&|cell| &cell.sum) as f64 / self.scale }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn nothing_is_lost_between_threads() {
        let (counter, histogram) =
            (Arc::new(ShardedCounter::default()), Arc::new(ShardedHistogram::new(&[0.001, 0.01], 1e9)));
        let threads: Vec<_> = (0..CELLS as u64 + 4)
            .map(|thread| {
                let (counter, histogram) = (Arc::clone(&counter), Arc::clone(&histogram));
                std::thread::spawn(move || {
                    for _ in 0..1_000 {
                        counter.increment(2);
                        histogram.record(thread % 3 * 10_000_000);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert_eq!(counter.sum(), 40_000);
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.cumulative, snapshot.count), (vec![(0.001, 7_000), (0.01, 14_000)], 20_000));
        assert!((snapshot.sum - 190.0).abs() < 1e-6, "{}", snapshot.sum);
    }
}
