//! Every counter of this process, and one exchange with its authority.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex as Turnstile, OwnedMutexGuard, mpsc, watch},
    time::Instant,
};

use super::{
    desk::{BEAT_MS, Desk, Standing, Turn, Use, ancestors, limits},
    gauges::Fetches,
    grants::Terms,
    link::{AuthorityLink, GrantLink},
    resting::Watch,
};
use crate::{
    counter::Counter,
    prefix_key::PrefixKey,
    store::{
        Bounds, Reachable, StoreError,
        protocol::counter::{
            Ask, ClaimAnswer, Followed, Generation, Generations, Heard, Incarnation, Node, NodeState,
            Outcome, Reply,
        },
        segments::{Kept, SegmentStore},
    },
};

/// How long one message waits for its reply.
const CALL: Duration = Duration::from_secs(1);

/// The same where a server is known to be away: in a cluster the others still answer.
const CALL_WHILE_AWAY: Duration = Duration::from_millis(100);

/// What the node is to its authorities.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// Its name, for people.
    pub(super) node: String,
    /// How many values it keeps of each counter.
    pub(super) segment_size: u64,
    /// How long a request may wait.
    pub(super) patience: Duration,
}

/// What the keeper is to do.
pub(super) enum Errand {
    /// A counter is used for the first time: its row is to be written, its beats begin.
    Begin(Arc<Desk>),
    /// The agenda has it later than it is due now.
    Hasten(Arc<Desk>),
    /// A segment is to be taken over; the turn comes along, since nothing may be said before.
    Settle(Arc<Desk>, OwnedMutexGuard<Turn>),
    /// The authority does not answer, or waits for reports.
    Seek(Arc<Desk>),
    /// The next grant is to be asked for.
    Fetch(Arc<Desk>),
    /// The store may have forgotten: everything under this marker is to report.
    Report(Arc<str>),
}

/// What came of one exchange.
pub(super) enum Answer {
    /// The call was served.
    Served {
        /// For requests without a key.
        outcome: Outcome,
        /// For each request with one; none where an earlier call was repeated.
        claims: Vec<ClaimAnswer>,
    },
    /// So many values are left in the grant, too few, and there may be another.
    Short {
        /// How many.
        left: u64,
    },
    /// There is no grant: nothing was asked for.
    Ungranted,
    /// Nothing was learnt, or this node had to learn the generation: ask again.
    Again,
    /// The store has forgotten, this node has reported: ask again after so long.
    Recover(Duration),
}

/// The store is one that this node has left for another.
#[derive(Debug, thiserror::Error)]
#[error("this store was left for another that took over from it")]
struct LeftBehind;

/// See the module.
pub(super) struct Desks {
    pub(super) link: Arc<dyn AuthorityLink>,
    pub(super) disk: Arc<dyn SegmentStore>,
    /// Who grants values to the authority; `None`: all are its own.
    pub(super) grants: Option<Arc<dyn GrantLink>>,
    pub(super) identity: Identity,
    pub(super) fetches: Fetches,
    desks: RwLock<HashMap<Counter, Arc<Desk>>>,
    /// The generation that was heard of last under each marker: a counter that is new here needs no round trip to learn it.
    generations: RwLock<HashMap<Arc<str>, Generations>>,
    /// The markers that are looked at though nobody draws.
    pub(super) watch: Mutex<Watch>,
    /// The lowest scheme of each key that may still be drawn from.
    schemes: RwLock<HashMap<PrefixKey, u64>>,
    reachable: watch::Receiver<Reachable>,
    /// Held by the one who may hold the pens of many counters.
    scribe: Turnstile<()>,
    errands: mpsc::UnboundedSender<Errand>,
    outage: Mutex<Outage>,
    began: Instant,
    pub(super) is_leaving: AtomicBool,
}

/// Counters that are away, for the log.
#[derive(Default)]
struct Outage {
    counters: usize,
    since: Option<Instant>,
}

impl Desks {
    pub(super) fn new(
        link: Arc<dyn AuthorityLink>,
        disk: Arc<dyn SegmentStore>,
        grants: Option<Arc<dyn GrantLink>>,
        identity: Identity,
    ) -> (Self, mpsc::UnboundedReceiver<Errand>) {
        let (errands, received) = mpsc::unbounded_channel();
        let desks = Self {
            reachable: link.reachable(),
            link,
            disk,
            grants,
            identity,
            fetches: Fetches::default(),
            desks: RwLock::default(),
            generations: RwLock::default(),
            watch: Mutex::default(),
            schemes: RwLock::default(),
            scribe: Turnstile::default(),
            errands,
            outage: Mutex::default(),
            began: Instant::now(),
            is_leaving: AtomicBool::new(false),
        };
        (desks, received)
    }

    /// Milliseconds since this began: what a [`Pulse`](super::desk::Pulse) is written in.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment of a reading of [`Self::now_ms`].
    pub(super) fn at(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    /// Sends somebody on an errand; after the end of the process there is nobody.
    pub(super) fn send(&self, errand: Errand) {
        let _ended = self.errands.send(errand);
    }

    // ------------------------------------------------------------------------------------- counters

    /// The desk of a counter, if there is one.
    pub(super) fn find(&self, counter: &Counter) -> Option<Arc<Desk>> {
        self.desks.read().unwrap_or_else(PoisonError::into_inner).get(counter).cloned()
    }

    /// Every desk.
    pub(super) fn all(&self) -> Vec<Arc<Desk>> {
        self.desks.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The desk of a counter; a new one continues where the last process, or the last desk, has left off.
    ///
    /// # Errors
    ///
    /// The local disk's, or that of the source of randomness.
    pub(super) async fn desk(&self, counter: &Counter, bounds: &Bounds) -> Result<Arc<Desk>, StoreError> {
        if let Some(desk) = self.find(counter) {
            return Ok(desk);
        }
        let kept = self.disk.kept(counter).await?;
        let desk = self.open(counter, bounds, kept, Use::Drawn)?;
        self.send(Errand::Begin(Arc::clone(&desk)));
        Ok(desk)
    }

    /// The desk of a counter of which this was kept.
    pub(super) fn open(
        &self,
        counter: &Counter,
        bounds: &Bounds,
        kept: Option<Kept>,
        use_: Use,
    ) -> Result<Arc<Desk>, StoreError> {
        let mut name = [0; 16];
        getrandom::fill(&mut name).map_err(|error| self.unavailable("random", error))?;
        let incarnation = Incarnation(u128::from_be_bytes(name));
        let (marker, list_marker) = self.markers(counter);
        let generations =
            self.generations.read().unwrap_or_else(PoisonError::into_inner).get(&marker).cloned();
        let (before, state) =
            kept.as_ref().map_or_else(Default::default, |kept| (ancestors(kept), kept.state.clone()));
        let node = Node::new(
            incarnation,
            self.identity.node.clone(),
            generations.unwrap_or_default(),
            state,
            before,
        );
        let desk = Desk::new(counter.clone(), (marker, list_marker), node, bounds, kept.as_ref());
        desk.pulse.begin_as(use_);
        desk.pulse.used_at.store(self.now_ms(), Ordering::Relaxed);
        let mut desks = self.desks.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(desks.entry(counter.clone()).or_insert_with(|| Arc::new(desk))))
    }

    /// Takes a desk away that was given up. Its turn is held: whoever waits for it finds it closed.
    pub(super) fn close(&self, desk: &Desk, turn: &mut Turn) {
        turn.is_closed = true;
        self.desks.write().unwrap_or_else(PoisonError::into_inner).remove(&desk.counter);
    }

    /// Notes that a caller uses a counter, and within which limits.
    pub(super) fn touch(&self, desk: &Arc<Desk>, bounds: &Bounds) {
        desk.pulse.used_at.store(self.now_ms(), Ordering::Relaxed);
        if desk.pulse.turn(Use::Reporting, Use::Drawn) {
            self.send(Errand::Begin(Arc::clone(desk)));
        }
        let mut work = desk.work();
        if bounds.scheme >= work.limits.scheme {
            work.limits = limits(bounds);
            work.on_outage = bounds.on_outage;
        }
        drop(work);
        if desk.pulse.interval.swap(BEAT_MS, Ordering::Relaxed) > BEAT_MS {
            self.send(Errand::Hasten(Arc::clone(desk)));
        }
    }

    /// From now on lower schemes of the key draw nothing in this process.
    pub(super) fn retire(&self, key: &PrefixKey, scheme: u64) {
        let mut schemes = self.schemes.write().unwrap_or_else(PoisonError::into_inner);
        let lowest = schemes.entry(key.clone()).or_default();
        *lowest = scheme.max(*lowest);
    }

    /// Whether a scheme was retired by this process.
    pub(super) fn is_retired(&self, key: &PrefixKey, scheme: u64) -> bool {
        let schemes = self.schemes.read().unwrap_or_else(PoisonError::into_inner);
        schemes.get(key).is_some_and(|lowest| scheme < *lowest)
    }

    // ------------------------------------------------------------------------------------- exchange

    /// One message and what came of it. Whoever holds the turn calls it; `ask` is left out where an earlier call was not
    /// answered: that one is repeated first, and its values are handed back.
    ///
    /// # Errors
    ///
    /// Those of the disk, before anything is sent; those of the authority. After `Timeout` and `Unavailable` the counter is away.
    pub(super) async fn exchange(
        &self,
        desk: &Arc<Desk>,
        turn: &mut Turn,
        mut ask: Ask,
    ) -> Result<Answer, StoreError> {
        self.settle(desk, turn).await?;
        // Asked first: what is lost while it is enlisted is noticed later, and has it enlisted again.
        if desk.pulse.is_list_lost.swap(false, Ordering::AcqRel) || !turn.is_listed {
            turn.is_listed = false;
            self.enlist(desk, turn, &mut ask).await?;
        }
        let (take, is_repeat, terms) = {
            let mut work = desk.work();
            let is_repeat = work.node.has_pending_call();
            let terms = self.terms(&mut work, turn, &mut ask);
            if terms == Terms::None {
                return Ok(Answer::Ungranted);
            }
            (work.node.ask(ask), is_repeat, terms)
        };
        if !is_repeat {
            turn.is_substitute = terms == Terms::Substitute;
        }
        let reply = match self.link.take(&desk.counter, &take, self.deadline()).await {
            Ok(reply) => reply,
            Err(error) => {
                // What was never sent needs no answer; an earlier attempt may still have one.
                if !is_repeat
                    && matches!(error, StoreError::Unavailable { .. } | StoreError::Superseded { .. })
                {
                    desk.work().node.withdraw();
                }
                if is_away(&error) {
                    self.lose(desk, Standing::Away);
                }
                return Err(error);
            }
        };
        desk.pulse.heard_at.store(self.now_ms(), Ordering::Relaxed);
        if let Reply::Taken { generation, .. } | Reply::Recover { generation, .. } = &reply {
            self.note_generation(&desk.marker, *generation);
        }
        let heard = desk.work().hear(&take, reply);
        if heard == Heard::Left {
            self.lose(desk, Standing::Away);
            return Err(self.unavailable("take", LeftBehind));
        }
        Ok(self.understand(desk, turn, heard, terms))
    }

    /// Puts the counter on the list of its key: whoever draws from a counter, or holds a segment of it, is on the list. Where the
    /// scheme was retired, a sign of life may go on without.
    async fn enlist(&self, desk: &Arc<Desk>, turn: &mut Turn, ask: &mut Ask) -> Result<(), StoreError> {
        match self.link.enlist(&desk.counter, ask.limits.scheme, self.deadline()).await {
            Ok(()) => turn.is_listed = true,
            Err(StoreError::Superseded { .. }) if ask.count == 0 && ask.claims.is_empty() => ask.wants = None,
            Err(error) => {
                if is_away(&error) {
                    self.lose(desk, Standing::Away);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn understand(&self, desk: &Arc<Desk>, turn: &mut Turn, heard: Heard, terms: Terms) -> Answer {
        match heard {
            Heard::Served { outcome, claims, write } => {
                // Without a grant no segment was asked for, and the one that is held is kept.
                turn.offer = write.filter(|_| terms.may_draw()).map(|state| state.segment);
                self.found(desk);
                self.look_ahead(desk, turn);
                match terms.read(outcome, turn.is_substitute) {
                    Ok(outcome) => Answer::Served { outcome, claims },
                    Err(instead) => instead,
                }
            }
            Heard::Recover { wait_ms } => {
                // The list may have been lost too.
                turn.is_listed = false;
                if wait_ms == 0 { Answer::Again } else { Answer::Recover(Duration::from_millis(wait_ms)) }
            }
            Heard::Left | Heard::Ignored => Answer::Again,
        }
    }

    /// Does to the disk what has to be done before the next message.
    ///
    /// # Errors
    ///
    /// The disk's; nothing is said until it works again.
    pub(super) async fn settle(&self, desk: &Desk, turn: &mut Turn) -> Result<(), StoreError> {
        if turn.offer.is_none() && !turn.in_doubt {
            return Ok(());
        }
        let _pen = desk.pen().await;
        let (state, row) = {
            let mut work = desk.work();
            work.hand_back_untold();
            let state = match turn.offer {
                Some(segment) => work.node.with_segment(segment),
                None => None,
            };
            let state = state.unwrap_or_else(|| work.node.refreshed());
            let row = desk.row(&work, state.clone());
            (state, row)
        };
        turn.in_doubt = true;
        self.disk.keep(vec![row]).await?;
        (turn.in_doubt, turn.offer) = (false, None);
        desk.pulse.is_written.store(true, Ordering::Release);
        let mut work = desk.work();
        work.note_written(&state);
        work.node.adopt(state);
        Ok(())
    }

    /// Writes the present states of counters, in one transaction.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub(super) async fn write_down(&self, desks: &[Arc<Desk>]) -> Result<(), StoreError> {
        // Two who wait for each other's pens would wait for ever.
        let _scribe = self.scribe.lock().await;
        let (mut pens, mut rows): (Vec<_>, Vec<(NodeState, Kept)>) = (Vec::new(), Vec::new());
        for desk in desks {
            // Whoever else has one has no other, and lets go of it.
            pens.push(desk.pen().await);
            let work = desk.work();
            let state = work.node.refreshed();
            rows.push((state.clone(), desk.row(&work, state)));
        }
        let (states, rows): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        self.disk.keep(rows).await?;
        for (desk, state) in desks.iter().zip(states) {
            desk.work().note_written(&state);
            desk.pulse.is_written.store(true, Ordering::Release);
        }
        drop(pens);
        Ok(())
    }

    /// How long one message waits for its reply.
    pub(super) fn deadline(&self) -> Duration {
        let call = match &*self.reachable.borrow() {
            Reachable::Yes => CALL,
            Reachable::No { .. } => CALL_WHILE_AWAY,
        };
        call.min(self.identity.patience)
    }

    /// Learns the generation under a marker; all else under it is to report as soon as there is a new one. So is what is on disk when
    /// the first is heard of: the store may have forgotten before this process began.
    pub(super) fn note_generation(&self, marker: &Arc<str>, generation: Generation) {
        let known = {
            let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
            generations.get(marker).and_then(Generations::present)
        };
        if known == Some(generation) {
            return;
        }
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        let generations = generations.entry(Arc::clone(marker)).or_default();
        let is_first = generations.present().is_none();
        // A reply that was late, or another store, may bring an old one.
        if generations.follow(generation) != Followed::Newly {
            return;
        }
        if !is_first {
            let (generation, marker, store) =
                (tracing::field::display(generation), &**marker, self.link.store());
            tracing::info!(
                generation,
                marker,
                store,
                "the store restarted, failed over or was emptied: settling"
            );
        }
        self.send(Errand::Report(Arc::clone(marker)));
    }

    // ------------------------------------------------------------------------------------- standing

    /// The counter cannot be drawn from for now: somebody sees to it.
    pub(super) fn lose(&self, desk: &Arc<Desk>, standing: Standing) {
        if desk.stand(standing) == Standing::Here {
            let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
            outage.counters += 1;
            if outage.counters == 1 {
                outage.since = Some(Instant::now());
                tracing::warn!(counter = desk.name, ?standing, "continuous counters go on from segments");
            }
        }
        if !desk.pulse.is_sought.swap(true, Ordering::AcqRel) {
            self.send(Errand::Seek(Arc::clone(desk)));
        }
    }

    /// The store draws again when every node had the time to report.
    pub(super) fn await_reports(&self, desk: &Arc<Desk>, wait: Duration) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        desk.pulse.back_at.store(self.now_ms().saturating_add(wait_ms), Ordering::Relaxed);
        self.lose(desk, Standing::Recovering);
    }

    fn found(&self, desk: &Desk) {
        if desk.standing() == Standing::Here || desk.stand(Standing::Here) == Standing::Here {
            return;
        }
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        outage.counters = outage.counters.saturating_sub(1);
        if outage.counters == 0
            && let Some(since) = outage.since.take()
        {
            let away_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(
                counter = desk.name,
                away_ms,
                "continuous counters are drawn from their store again"
            );
        }
    }

    // --------------------------------------------------------------------------------------- errors

    pub(super) fn unavailable(
        &self,
        operation: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> StoreError {
        StoreError::Unavailable { store: self.link.store(), operation, source: Box::new(source) }
    }

    pub(super) fn late(&self, operation: &'static str) -> StoreError {
        StoreError::Timeout { store: self.link.store(), operation }
    }
}

/// Whether a store did not answer.
pub(super) fn is_away(error: &StoreError) -> bool {
    match error {
        StoreError::Timeout { .. } | StoreError::Unavailable { .. } => true,
        StoreError::Superseded { .. } | StoreError::Suspended { .. } | StoreError::Corrupt { .. } => false,
    }
}
