//! What happens to counters whoever asks: signs of life, segments, what is written to disk, the way back after an outage.
//!
//! One task keeps the agenda; the work is done by others, a bounded number at a time.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{OwnedMutexGuard, Semaphore, broadcast, mpsc},
    time::{Instant, MissedTickBehavior, sleep, sleep_until, timeout},
};

use super::{
    desk::{BEAT_MS, Desk, LONGEST_BEAT_MS, Standing, Turn, Use},
    desks::{Answer, Desks, Errand},
};
use crate::{
    calendar::Period,
    counter::Counter,
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    store::{
        Reachable, StoreError,
        protocol::counter::{Incarnation, Outcome},
    },
};

/// After so long without a request a counter is given up, in ms.
const IDLE_MS: u64 = 600_000;

/// How often what was heard of is written to disk, and how often markers are looked at: a store that has forgotten waits for some
/// seconds.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Counters of one transaction.
const ROWS: usize = 1_000;

/// How often the disk is rid of counters of past periods, and how long they are kept after they were given up: longer than any
/// period is, so that what is forgotten is over.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
const KEPT_FOR: Duration = Duration::from_secs(400 * 86_400);
/// As many as that in one transaction.
const PRUNED_AT_A_TIME: u32 = 1_000;

/// Messages under way that nobody waits for.
const AT_A_TIME: usize = 256;

/// After an adopted segment: how long to wait for a request that tells the authority of it, before a beat does.
const SOON: Duration = Duration::from_millis(2);

/// How often a beat may have to be followed by another at once.
const ROUNDS: usize = 6;

/// Pauses between attempts to reach an authority: the first, doubled up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A counter that was given up, and by whom.
pub(super) type Gone = (Counter, Incarnation);

/// The task that keeps the agenda.
pub(super) struct Keeper {
    desks: Arc<Desks>,
    errands: mpsc::UnboundedReceiver<Errand>,
    lifecycle: Lifecycle,
    permits: Arc<Semaphore>,
    /// When to look at which desk, and a number that tells two of one moment apart.
    agenda: BTreeMap<(u64, u64), Arc<Desk>>,
    entries: u64,
}

impl Keeper {
    pub(super) fn new(
        desks: Arc<Desks>,
        errands: mpsc::UnboundedReceiver<Errand>,
        lifecycle: Lifecycle,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(AT_A_TIME));
        Self { desks, errands, lifecycle, permits, agenda: BTreeMap::new(), entries: 0 }
    }

    /// Keeps counters until the drain.
    pub(super) async fn keep(mut self) {
        let (mut swaps, mut reachable) = (self.desks.link.swaps(), self.desks.link.reachable());
        let mut ticks = tokio::time::interval(WRITE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut prunings = tokio::time::interval(PRUNE_EVERY);
        let draining = self.lifecycle.clone();
        loop {
            let next = self.agenda.first_key_value().map(|((at, _), _)| self.desks.at(*at));
            tokio::select! {
                () = draining.draining() => return,
                Some(errand) = self.errands.recv() => self.run(errand),
                name = swaps.recv() => match name {
                    Ok(name) => self.nudge(&name),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    // Beats come in time without it.
                    Err(broadcast::error::RecvError::Closed) => swaps = self.desks.link.swaps(),
                },
                Ok(()) = reachable.changed() => {
                    if *reachable.borrow_and_update() == Reachable::Yes {
                        // It may be another server, or one that has forgotten.
                        self.beat_all(|_| true);
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.look(),
                _ = ticks.tick() => {
                    self.write_down();
                    self.watch();
                }
                _ = prunings.tick() => self.prune(),
            }
        }
    }

    fn run(&mut self, errand: Errand) {
        match errand {
            Errand::Begin(desk) => {
                let mut begun = vec![desk];
                while begun.len() < ROWS {
                    match self.errands.try_recv() {
                        Ok(Errand::Begin(desk)) => begun.push(desk),
                        Ok(other) => {
                            self.run(other);
                            break;
                        }
                        Err(_empty) => break,
                    }
                }
                self.begin(begun);
            }
            Errand::Hasten(desk) => self.schedule(desk, self.desks.now_ms() + BEAT_MS),
            Errand::Settle(desk, turn) => {
                let desks = Arc::clone(&self.desks);
                self.lifecycle.spawn(async move { desks.take_over(&desk, turn).await });
            }
            Errand::Seek(desk) => {
                let (desks, permits) = (Arc::clone(&self.desks), Arc::clone(&self.permits));
                let lifecycle = self.lifecycle.clone();
                self.lifecycle.spawn(async move {
                    tokio::select! {
                        () = lifecycle.draining() => {}
                        () = desks.seek(&desk, &permits) => {}
                    }
                });
            }
            Errand::Fetch(desk) => {
                let (desks, permits) = (Arc::clone(&self.desks), Arc::clone(&self.permits));
                self.lifecycle.spawn(async move {
                    let _permit = permits.acquire().await;
                    desks.fetch_ahead(&desk).await;
                });
            }
            Errand::Report(marker) => {
                for desk in self.desks.all() {
                    // A counter under the same marker hears of it by itself.
                    let is_apart = desk.list_marker == marker && desk.marker != marker;
                    desk.pulse.is_list_lost.fetch_or(is_apart, Ordering::AcqRel);
                }
                self.beat_all(|desk| desk.marker == marker || desk.list_marker == marker);
                self.report_resting(marker);
            }
        }
    }

    /// Looks at the next markers, unless somebody is still at it.
    fn watch(&self) {
        let desks = Arc::clone(&self.desks);
        self.lifecycle.spawn(async move { desks.look_at_markers().await });
    }

    /// Has what is on disk reported, for which there is no desk.
    fn report_resting(&self, marker: Arc<str>) {
        if !self.desks.is_to_be_reported(marker) {
            return;
        }
        let (desks, lifecycle) = (Arc::clone(&self.desks), self.lifecycle.clone());
        self.lifecycle.spawn(async move {
            tokio::select! {
                () = lifecycle.draining() => {}
                () = desks.report_resting() => {}
            }
        });
    }

    /// Counters that are used for the first time: first their rows, then they may hold segments. Several callers may have begun one at the
    /// same moment: whoever wrote it down twice would wait for ever for the pen that he has.
    fn begin(&mut self, mut begun: Vec<Arc<Desk>>) {
        begun.sort_unstable_by_key(|desk| Arc::as_ptr(desk).addr());
        begun.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let now = self.desks.now_ms();
        for desk in &begun {
            self.schedule(Arc::clone(desk), now + BEAT_MS);
        }
        let (desks, permits, lifecycle) =
            (Arc::clone(&self.desks), Arc::clone(&self.permits), self.lifecycle.clone());
        self.lifecycle.spawn(async move {
            let unknown: Vec<_> = begun.iter().filter(|desk| desk.wants_writing()).cloned().collect();
            if !unknown.is_empty() && !desks.try_to_write_down(&unknown).await {
                return;
            }
            for desk in begun {
                beat_by_and_by(&lifecycle, &desks, &permits, desk);
            }
        });
    }

    /// Puts a desk on the agenda; an entry of it that is there already counts no more.
    fn schedule(&mut self, desk: Arc<Desk>, at: u64) {
        desk.pulse.agenda.store(at, Ordering::Relaxed);
        self.entries += 1;
        self.agenda.insert((at, self.entries), desk);
    }

    /// Sees to everything that is due.
    fn look(&mut self) {
        let now = self.desks.now_ms();
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((at, _), desk) = entry.remove_entry();
            let is_open =
                || self.desks.find(&desk.counter).is_some_and(|present| Arc::ptr_eq(&present, &desk));
            if desk.pulse.agenda.load(Ordering::Relaxed) != at || !is_open() {
                continue;
            }
            let due = due(&desk);
            if now.saturating_sub(desk.pulse.used_at.load(Ordering::Relaxed)) >= IDLE_MS {
                self.give_up(Arc::clone(&desk));
                // If it cannot be for now, that was a beat all the same.
                self.schedule(desk, now + LONGEST_BEAT_MS);
            } else if due > now {
                self.schedule(desk, due);
            } else {
                beat_by_and_by(&self.lifecycle, &self.desks, &self.permits, Arc::clone(&desk));
                self.schedule(desk, now + BEAT_MS);
            }
        }
    }

    fn give_up(&self, desk: Arc<Desk>) {
        let (desks, permits) = (Arc::clone(&self.desks), Arc::clone(&self.permits));
        self.lifecycle.spawn(async move {
            let _permit = permits.acquire().await;
            let gone = match desks.give_up(&desk).await {
                Ok(gone) => gone,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(counter = desk.name, error, "not given up yet");
                    None
                }
            };
            desks.note_left(gone.into_iter().collect()).await;
        });
    }

    fn prune(&self) {
        let (desks, lifecycle) = (Arc::clone(&self.desks), self.lifecycle.clone());
        self.lifecycle.spawn(async move {
            while !lifecycle.is_draining() {
                match desks.disk.prune(KEPT_FOR, PRUNED_AT_A_TIME).await {
                    Ok(pruned) if pruned < u64::from(PRUNED_AT_A_TIME) => return,
                    Ok(_more) => {}
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        return tracing::warn!(error, "counters of past periods are not pruned for now");
                    }
                }
            }
        });
    }

    /// Somebody waits for the segment that lies in the way.
    fn nudge(&self, name: &str) {
        let (key, period) = name.split_once(':').unwrap_or((name, ""));
        let Ok(key) = PrefixKey::parse(key) else { return };
        let Some(desk) = self.desks.find(&Counter { key, period: Period::new(period) }) else { return };
        if desk.work().node.state().segment.is_none() {
            return;
        }
        let desks = Arc::clone(&self.desks);
        self.lifecycle.spawn(async move {
            // Who has the turn is about to speak: that does as well.
            if let Some(turn) = desk.try_turn() {
                desks.beat(&desk, turn).await;
            }
        });
    }

    fn beat_all(&self, concerned: impl Fn(&Desk) -> bool) {
        for desk in self.desks.all().into_iter().filter(|desk| concerned(desk)) {
            beat_by_and_by(&self.lifecycle, &self.desks, &self.permits, desk);
        }
    }

    /// Writes where counters stand, so that the next process knows it even if the store has forgotten.
    fn write_down(&self) {
        let moved =
            self.desks.all().into_iter().filter(|desk| desk.pulse.is(Use::Drawn) && desk.wants_writing());
        let moved: Vec<_> = moved.collect();
        if moved.is_empty() {
            return;
        }
        let desks = Arc::clone(&self.desks);
        self.lifecycle.spawn(async move {
            for moved in moved.chunks(ROWS) {
                desks.try_to_write_down(moved).await;
            }
        });
    }
}

/// When the next sign of life is due.
fn due(desk: &Desk) -> u64 {
    let heard_at = desk.pulse.heard_at.load(Ordering::Relaxed);
    heard_at.saturating_add(desk.pulse.interval.load(Ordering::Relaxed))
}

fn beat_by_and_by(lifecycle: &Lifecycle, desks: &Arc<Desks>, permits: &Arc<Semaphore>, desk: Arc<Desk>) {
    let (desks, permits) = (Arc::clone(desks), Arc::clone(permits));
    lifecycle.spawn(async move {
        let _permit = permits.acquire().await;
        let turn = desk.turn().await;
        desks.beat(&desk, turn).await;
    });
}

impl Desks {
    /// A sign of life, and what follows from its answer: a segment is taken over and the authority told so.
    pub(super) async fn beat(&self, desk: &Arc<Desk>, mut turn: OwnedMutexGuard<Turn>) {
        if turn.is_closed || desk.standing() != Standing::Here {
            return;
        }
        if let Err(error) = self.converge(desk, &mut turn).await {
            tracing::debug!(counter = desk.name, error = &error as &dyn std::error::Error, "a beat failed");
        }
    }

    /// Speaks until authority and disk agree with this node.
    async fn converge(&self, desk: &Arc<Desk>, turn: &mut Turn) -> Result<(), StoreError> {
        for _ in 0..ROUNDS {
            match self.heartbeat(desk, turn).await? {
                Answer::Served { .. } if turn.offer.is_none() => return Ok(()),
                Answer::Served { .. } | Answer::Short { .. } | Answer::Ungranted | Answer::Again => {}
                Answer::Recover(wait) => {
                    self.await_reports(desk, wait);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A message that asks for nothing; what an earlier call drew is handed back.
    async fn heartbeat(&self, desk: &Arc<Desk>, turn: &mut Turn) -> Result<Answer, StoreError> {
        let ask = desk.ask(0, Vec::new(), self.identity.segment_size);
        let answer = self.exchange(desk, turn, ask).await?;
        if let Answer::Served { outcome: Outcome::Drawn(values), .. } = &answer
            && !values.is_empty()
        {
            desk.work().node.hand_back(values.iter().copied());
        }
        Ok(answer)
    }

    /// Takes the offered segment over. The next request tells the authority, or else a beat.
    async fn take_over(&self, desk: &Arc<Desk>, mut turn: OwnedMutexGuard<Turn>) {
        if let Err(error) = self.settle(desk, &mut turn).await {
            tracing::warn!(
                counter = desk.name,
                error = &error as &dyn std::error::Error,
                "a segment is not on disk"
            );
            return;
        }
        drop(turn);
        let settled_at = self.now_ms();
        sleep(SOON).await;
        if desk.pulse.heard_at.load(Ordering::Relaxed) <= settled_at {
            let turn = desk.turn().await;
            self.beat(desk, turn).await;
        }
    }

    /// Asks until the authority draws again.
    async fn seek(&self, desk: &Arc<Desk>, permits: &Semaphore) {
        let mut reachable = self.link.reachable();
        let (mut pause, mut again) = (FIRST_PAUSE, 0);
        while desk.standing() != Standing::Here {
            let permit = permits.acquire().await;
            let mut turn = desk.turn().await;
            if turn.is_closed {
                break;
            }
            let answer = self.heartbeat(desk, &mut turn).await;
            drop((turn, permit));
            match answer {
                Ok(Answer::Served { .. } | Answer::Short { .. } | Answer::Ungranted) => break,
                Ok(Answer::Again) if again < ROUNDS => again += 1,
                Ok(Answer::Recover(wait)) => {
                    (pause, again) = (FIRST_PAUSE, 0);
                    self.await_reports(desk, wait);
                    sleep(wait).await;
                }
                Ok(Answer::Again) | Err(_) => {
                    // A connection that comes back ends the pause.
                    let _elapsed = timeout(jittered(pause), reachable.changed()).await;
                    (pause, again) = ((pause * 2).min(LONGEST_PAUSE), 0);
                }
            }
        }
        desk.pulse.is_sought.store(false, Ordering::Release);
        if desk.standing() == Standing::Here {
            // What was used has been reported; now the segment is swapped for a fresh one.
            let turn = desk.turn().await;
            self.beat(desk, turn).await;
        } else {
            self.lose(desk, desk.standing());
        }
    }

    async fn try_to_write_down(&self, desks: &[Arc<Desk>]) -> bool {
        let written = self.write_down(desks).await;
        if let Err(error) = &written {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, counters = desks.len(), "where counters stand is not on disk; tried again");
        }
        written.is_ok()
    }

    /// Writes down what was given up. If that fails it is only kept for longer.
    pub(super) async fn note_left(&self, gone: Vec<Gone>) {
        if gone.is_empty() {
            return;
        }
        if let Err(error) = self.disk.left(gone).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "given up, and not noted");
        }
    }

    /// Gives a counter up: its segment is free, this process is off its registry. What was used of segments stays on disk. Answers
    /// who is gone once the authority has confirmed it.
    ///
    /// # Errors
    ///
    /// Those of disk and authority: then it is held on to.
    pub(super) async fn give_up(&self, desk: &Arc<Desk>) -> Result<Option<Gone>, StoreError> {
        let mut turn = desk.turn().await;
        if turn.is_closed || desk.standing() != Standing::Here {
            return Ok(None);
        }
        // Nothing may be left untold, and nothing unanswered.
        self.converge(desk, &mut turn).await?;
        turn.offer = Some(None);
        self.settle(desk, &mut turn).await?;
        let mut ask = desk.ask(0, Vec::new(), self.identity.segment_size);
        (ask.wants, ask.leaves) = (None, true);
        let Answer::Served { .. } = self.exchange(desk, &mut turn, ask).await? else { return Ok(None) };
        self.close(desk, &mut turn);
        let incarnation = desk.work().node.incarnation();
        Ok(Some((desk.counter.clone(), incarnation)))
    }
}

/// Half of a pause is chance, so that nodes do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let mut chance = [0];
    // Without randomness they come back in step.
    let _unchanged = getrandom::fill(&mut chance);
    pause / 2 + pause / 2 * u32::from(chance[0]) / 255
}
