//! How the counters of this node stand, in figures.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{SharedCounters, desk::Standing, desks::Desks};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The least that a counter could issue from its segment if the store went away now; `None` where none holds one.
    pub segment_remaining: Option<u64>,
    /// How many counters hold a segment.
    pub segments: usize,
    /// How many go on without their store.
    pub away: usize,
    /// The least that a counter may draw before more has to be granted; `None` where none has a grant.
    pub grant_remaining: Option<u64>,
}

/// Why a grant was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Before it is needed.
    Ahead,
    /// A request waits for it.
    Needed,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 2] = [Self::Ahead, Self::Needed];

    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ahead => "ahead",
            Self::Needed => "needed",
        }
    }
}

/// Counts what came of asking for grants.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    /// By cause: how many were granted, how many were not.
    counts: [(AtomicU64, AtomicU64); Cause::ALL.len()],
}

impl Fetches {
    pub(super) fn note<T, E>(&self, cause: Cause, outcome: &Result<T, E>) {
        let (ok, failed) = &self.counts[cause as usize];
        if outcome.is_ok() { ok } else { failed }.fetch_add(1, Ordering::Relaxed);
    }
}

impl Desks {
    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for desk in self.all() {
            figures.away += usize::from(desk.standing() != Standing::Here);
            let work = desk.work();
            let state = work.node.state();
            if state.segment.is_some() {
                figures.segments += 1;
                figures.segment_remaining = least(figures.segment_remaining, state.remaining());
            }
            if let Some(granted) = work.book.limits(work.node.generation(), work.limits) {
                let seen = work.node.seen().unwrap_or_default();
                figures.grant_remaining =
                    least(figures.grant_remaining, granted.max.0.saturating_sub(seen.0));
            }
        }
        figures
    }
}

fn least(known: Option<u64>, value: u64) -> Option<u64> {
    Some(known.map_or(value, |known| known.min(value)))
}

impl SharedCounters {
    /// How the counters of this node stand. Looks at each of them.
    pub fn figures(&self) -> Figures {
        self.desks.figures()
    }

    /// How often grants were asked for, by cause: (granted, not granted).
    pub fn grant_fetches(&self, cause: Cause) -> (u64, u64) {
        let (ok, failed) = &self.desks.fetches.counts[cause as usize];
        (ok.load(Ordering::Relaxed), failed.load(Ordering::Relaxed))
    }
}
