//! One counter of this process: the [`Node`] that speaks for it, and who may do what with it at the same time.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex as Turnstile, OwnedMutexGuard, watch},
    time::Instant,
};

use crate::{
    counter::{Counter, SequenceValue, ValueRange},
    rule::OnOutage,
    store::{
        Bounds,
        protocol::{
            counter::{
                Ask, ClaimAsk, Generation, Heard, Incarnation, Limits, Node, NodeState, RangeSet, Reply,
                STRANDED_MS, Segment, Take, Wants,
            },
            grant::{Book, Draw},
        },
        segments::Kept,
    },
};

/// The time between two signs of life while the counter is drawn from, here or elsewhere faster than a segment in that time, in
/// ms: for so long, and the authority's grace, a node that has died can be in the way of others.
pub(super) const BEAT_MS: u64 = 500;

/// The longest, in ms. Shorter than the time for which a store that has forgotten waits for reports: so every node hears of it
/// in time, even one whose counters are all idle.
pub(super) const LONGEST_BEAT_MS: u64 = 4_000;

/// How long a node that has met a generation that it has left waits for the right store.
const STRANDED: Duration = Duration::from_millis(STRANDED_MS);

/// How many processes before this one are remembered on disk.
const ANCESTORS: usize = 16;

/// How a counter stands with its authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It answers.
    Here,
    /// It answers, and draws nothing until every node had the time to report.
    Recovering,
    /// It does not answer.
    Away,
}

/// Three locks, taken in this order. *turn*: who may speak to the authority, one message at a time. *pen*: who may write to the
/// disk; to issue from the segment and to write that down is one step under it, so the disk never falls behind what was answered.
/// *work*: the state itself, never held over an await.
pub(super) struct Desk {
    pub(super) counter: Counter,
    /// As the authority spells it.
    pub(super) name: String,
    /// The marker by which its store tells that it has forgotten.
    pub(super) marker: Arc<str>,
    /// The same of the list of its prefix key, which can be another.
    pub(super) list_marker: Arc<str>,
    turn: Arc<Turnstile<Turn>>,
    pen: Arc<Turnstile<()>>,
    work: Mutex<Work>,
    standing: watch::Sender<Standing>,
    pub(super) pulse: Pulse,
}

/// What belongs to whoever may speak.
#[derive(Default)]
pub(super) struct Turn {
    /// The segment that the last reply wants this node to hold, where it is another one. Written down and adopted before
    /// the next message, which tells the authority which of the two is free.
    pub(super) offer: Option<Option<Segment>>,
    /// A state was sent to the disk, and whether it arrived is unknown: the present one is written before the next message.
    pub(super) in_doubt: bool,
    /// The counter is on the list of its prefix key.
    pub(super) is_listed: bool,
    /// The generation in which the authority has served this node: before that, it only listens.
    pub(super) joined: Option<Generation>,
    /// The call that is under way asked for nothing: it was sent in place of one that had no grant.
    pub(super) is_substitute: bool,
    /// The counter was given up: another desk takes its place.
    pub(super) is_closed: bool,
}

/// The state.
pub(super) struct Work {
    pub(super) node: Node,
    pub(super) limits: Limits,
    pub(super) on_outage: OnOutage,
    ancestors: Vec<Incarnation>,
    /// Issued from the segment for callers that were not told yet; whoever has the pen and finds some knows that these were never
    /// told.
    pub(super) untold: Vec<ValueRange>,
    /// The grants of the authority, where it needs some.
    pub(super) book: Book,
    /// The most values in a second, of late, as the authority has counted them.
    pub(super) peak: u64,
    /// Draws for once that were not answered: what they have drawn is nobody's.
    pub(super) unsettled: Vec<Draw>,
    /// What was drawn for once, as long as somebody may hand it back.
    pub(super) direct: RangeSet,
    /// Since when it has met nothing but a generation that it has left.
    stranded: Option<Instant>,
    /// The cursor at the last beat.
    beaten: Option<SequenceValue>,
    /// The cursor in the last state that was written.
    written: Option<SequenceValue>,
}

/// Times in ms since the process began to use counters, to be read without a lock.
#[derive(Default)]
pub(super) struct Pulse {
    /// The last request of a caller.
    pub(super) used_at: AtomicU64,
    /// The last message that was answered.
    pub(super) heard_at: AtomicU64,
    /// How long after that the next one is due.
    pub(super) interval: AtomicU64,
    /// When the keeper looks at it next.
    pub(super) agenda: AtomicU64,
    /// `Recovering`: when the store is expected to draw again.
    pub(super) back_at: AtomicU64,
    /// This process has a row on disk: from now on it may hold a segment.
    pub(super) is_written: AtomicBool,
    /// Somebody is at work to get the next grant.
    pub(super) is_fetching: AtomicBool,
    /// Somebody is at work to reach the authority again.
    pub(super) is_sought: AtomicBool,
    /// The list of the prefix key was lost since it was put there.
    pub(super) is_list_lost: AtomicBool,
    use_: AtomicU8,
}

/// What a desk is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Use {
    /// Somebody draws, or did so lately.
    Drawn,
    /// Nobody does: it reports what is on disk, holds no segment and is not written down.
    Reporting,
    /// It has reported, and is being closed.
    Leaving,
}

impl Pulse {
    /// Begins as that.
    pub(super) fn begin_as(&self, use_: Use) {
        self.use_.store(use_ as u8, Ordering::Release);
    }

    /// What the desk is there for.
    pub(super) fn is(&self, use_: Use) -> bool {
        self.use_.load(Ordering::Acquire) == use_ as u8
    }

    /// From one use to another; answers whether it was in the former. Of two who turn it one does.
    pub(super) fn turn(&self, from: Use, to: Use) -> bool {
        self.use_.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Desk {
    /// A counter that this process begins to use; `kept` is what an earlier process has left.
    pub(super) fn new(
        counter: Counter,
        (marker, list_marker): (Arc<str>, Arc<str>),
        node: Node,
        bounds: &Bounds,
        kept: Option<&Kept>,
    ) -> Self {
        let pulse = Pulse::default();
        pulse.interval.store(BEAT_MS, Ordering::Relaxed);
        // The segment may have been given out under a later scheme than that of the first to ask.
        let scheme = kept.map_or(0, |kept| kept.limits.scheme).max(bounds.scheme);
        let limits = Limits { scheme, ..limits(bounds) };
        let work = Work {
            node,
            limits,
            on_outage: bounds.on_outage,
            ancestors: kept.map_or_else(Vec::new, ancestors),
            untold: Vec::new(),
            book: Book::default(),
            peak: 0,
            unsettled: Vec::new(),
            direct: RangeSet::new(),
            stranded: None,
            beaten: None,
            written: None,
        };
        Self {
            name: counter.to_string(),
            counter,
            marker,
            list_marker,
            turn: Arc::default(),
            pen: Arc::default(),
            work: Mutex::new(work),
            standing: watch::Sender::new(Standing::Here),
            pulse,
        }
    }

    /// Waits for the turn to speak.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<Turn> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// The turn, if nobody has it.
    pub(super) fn try_turn(&self) -> Option<OwnedMutexGuard<Turn>> {
        Arc::clone(&self.turn).try_lock_owned().ok()
    }

    /// Waits for the pen.
    pub(super) async fn pen(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.pen).lock_owned().await
    }

    pub(super) fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// Notes how the counter stands; answers how it stood.
    pub(super) fn stand(&self, now: Standing) -> Standing {
        self.standing.send_replace(now)
    }

    /// Waits until the authority draws again.
    pub(super) async fn back(&self) {
        // The sender is here: this does not fail.
        let mut standing = self.standing.subscribe();
        let _here = standing.wait_for(|standing| *standing == Standing::Here).await;
    }

    /// What of this counter is to be on disk; `state` is taken under the pen.
    pub(super) fn row(&self, work: &Work, state: NodeState) -> Kept {
        Kept {
            counter: self.counter.clone(),
            incarnation: work.node.incarnation(),
            ancestors: work.ancestors.clone(),
            limits: work.limits,
            state,
        }
    }

    /// Whether the disk should hear of it again: the process is not known there, or the cursor has moved.
    pub(super) fn wants_writing(&self) -> bool {
        let work = self.work();
        !self.pulse.is_written.load(Ordering::Acquire) || work.written != work.node.seen()
    }

    /// Whether every call was answered, and the disk knows what this process knows.
    pub(super) fn is_quiet(&self) -> bool {
        let work = self.work();
        !work.node.has_pending_call() && work.written == work.node.seen()
    }

    /// The next message: a sign of life, with what is asked for beside. `size`: of the segment that it would like to hold.
    pub(super) fn ask(&self, count: u64, claims: Vec<ClaimAsk>, size: u64) -> Ask {
        let mut work = self.work();
        let work = &mut *work;
        let may_hold = self.pulse.is_written.load(Ordering::Acquire) && work.on_outage != OnOutage::Fail;
        if count == 0 && claims.is_empty() {
            let cursor = |seen: Option<SequenceValue>| seen.map_or(0, |seen| seen.0);
            let moved = cursor(work.node.seen()).saturating_sub(cursor(work.beaten));
            let interval = match moved {
                0 => (2 * self.pulse.interval.load(Ordering::Relaxed)).min(LONGEST_BEAT_MS),
                _ if moved < size => 2 * BEAT_MS,
                _ => BEAT_MS,
            };
            self.pulse.interval.store(interval, Ordering::Relaxed);
            work.beaten = work.node.seen();
        }
        Ask {
            count,
            claims,
            limits: work.limits,
            wants: may_hold.then_some(Wants { size }),
            next_beat_ms: self.pulse.interval.load(Ordering::Relaxed),
            leaves: false,
            insists: work.stranded.is_some_and(|since| since.elapsed() >= STRANDED),
        }
    }
}

impl Work {
    /// Takes a reply in.
    pub(super) fn hear(&mut self, take: &Take, reply: Reply) -> Heard {
        let peak = if let Reply::Taken { peak, .. } = &reply { *peak } else { 0 };
        let heard = self.node.hear(take, reply);
        if let Heard::Served { .. } = heard {
            self.peak = peak;
        }
        self.stranded = self.node.refused().map(|_| self.stranded.unwrap_or_else(Instant::now));
        heard
    }

    /// What was issued from the segment and could not be told to its callers is nobody's.
    pub(super) fn hand_back_untold(&mut self) {
        let untold = std::mem::take(&mut self.untold);
        self.node.hand_back(untold);
    }

    /// A state was written.
    pub(super) fn note_written(&mut self, state: &NodeState) {
        self.written = state.seen;
    }
}

/// Within what a caller asks for values.
pub(super) fn limits(bounds: &Bounds) -> Limits {
    Limits { base: bounds.base, floor: bounds.floor, max: bounds.max, scheme: bounds.scheme }
}

/// Those before a process that begins now, the latest last.
pub(super) fn ancestors(kept: &Kept) -> Vec<Incarnation> {
    let mut ancestors = kept.ancestors.clone();
    ancestors.push(kept.incarnation);
    ancestors.split_off(ancestors.len().saturating_sub(ANCESTORS))
}
