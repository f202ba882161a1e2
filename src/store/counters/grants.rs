//! Counters whose authority draws only what it was granted (profile *full*), and what a node draws from whoever grants while the
//! authority is away.
//!
//! Invariants:
//! - a message draws, or asks for a segment, only within a grant of the generation that it speaks of, and only once the authority has
//!   served this node in that generation; until then it asks for nothing, and what comes of a segment is ignored;
//! - so a counter that recovers is not told to skip: the next grant lies above everything that was lost;
//! - what is drawn for once is drawn under one name until it is answered; what nobody waits for any more is handed back.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    batch::Batch,
    desk::{Desk, Turn, Use, Work, limits},
    desks::{Answer, Desks, Errand, is_away},
    gauges::Cause,
    link::GrantLink,
};
use crate::{
    counter::{Counter, Ranges, SequenceValue, ValueRange},
    store::{
        Bounds, Claim, Reachable, StoreError, Taken,
        protocol::{
            counter::{Ask, Fenced, Generation, Limits, Outcome},
            grant::{Draw, Drawn, Granted, Need, grant_size},
        },
    },
};

/// How long one call waits for its answer.
const CALL: Duration = Duration::from_secs(1);

/// Before a draw that was not answered is asked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// As many values that were drawn for once are remembered, to be handed back.
const DIRECT_KEPT: usize = 1_000;

/// On which terms a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Terms {
    /// All values are the authority's own.
    Own,
    /// Within a grant that reaches up to the limit of the rule.
    Whole,
    /// Within a grant that ends before.
    Part,
    /// Without a grant, a sign of life.
    Beat,
    /// Without a grant, a sign of life in place of a draw: the authority has not served this node in this generation.
    Substitute,
    /// Without a grant, and there is nothing to say.
    None,
}

impl Terms {
    pub(super) fn may_draw(self) -> bool {
        matches!(self, Self::Own | Self::Whole | Self::Part)
    }

    /// What an outcome means to whoever asked.
    pub(super) fn read(self, outcome: Outcome, is_substitute: bool) -> Result<Outcome, Answer> {
        match (self, outcome) {
            (Self::Part, Outcome::Overflow { left }) => Err(Answer::Short { left }),
            // An earlier call that is repeated, or nothing at all.
            (Self::Beat | Self::Substitute | Self::None, Outcome::Overflow { .. }) => Err(Answer::Again),
            (Self::Substitute, Outcome::Drawn(values)) if values.is_empty() => Err(Answer::Again),
            (_, Outcome::Drawn(values)) if is_substitute && values.is_empty() && self != Self::Beat => {
                Err(Answer::Again)
            }
            (_, outcome) => Ok(outcome),
        }
    }
}

/// What came of asking for more.
pub(super) enum Provided {
    /// There is something to draw from.
    More,
    /// Nothing is left up to the limit.
    Exhausted,
    /// Whoever grants does not answer, or grants nothing to this generation.
    Nothing,
}

impl Desks {
    /// Puts a message on the terms of the grants.
    pub(super) fn terms(&self, work: &mut Work, turn: &Turn, ask: &mut Ask) -> Terms {
        if self.grants.is_none() {
            return Terms::Own;
        }
        let generation = work.node.generation();
        let has_joined = generation.is_some() && turn.joined == generation;
        let granted = work.book.limits(generation, ask.limits).filter(|_| has_joined);
        if let Some(granted) = granted {
            let is_whole = granted.max == ask.limits.max;
            ask.limits = granted;
            return if is_whole { Terms::Whole } else { Terms::Part };
        }
        let draws = ask.count > 0 || !ask.claims.is_empty();
        if draws && has_joined && !work.node.has_pending_call() {
            return Terms::None;
        }
        ask.count = 0;
        ask.claims.clear();
        ask.wants = None;
        ask.limits.max = SequenceValue(0);
        if draws { Terms::Substitute } else { Terms::Beat }
    }

    /// The authority has served this node: notes how far it is, and sees to the next grant in time.
    pub(super) fn look_ahead(&self, desk: &Arc<Desk>, turn: &mut Turn) {
        if self.grants.is_none() {
            return;
        }
        let is_low = {
            let mut work = desk.work();
            let (generation, seen) = (work.node.generation(), work.node.seen().unwrap_or_default());
            turn.joined = generation;
            work.book.pass(seen);
            let rule = work.limits;
            work.book.is_low(generation, seen, rule)
        };
        // A counter that only reports draws nothing: a fresh grant would list the rest of the last one for nothing.
        let draws = !desk.pulse.is(Use::Reporting);
        if is_low && draws && self.is_granting() && !desk.pulse.is_fetching.swap(true, Ordering::AcqRel) {
            self.send(Errand::Fetch(Arc::clone(desk)));
        }
    }

    fn is_granting(&self) -> bool {
        self.grants.as_ref().is_some_and(|grants| *grants.reachable().borrow() == Reachable::Yes)
    }

    /// Asks for the next grant before it is needed.
    pub(super) async fn fetch_ahead(&self, desk: &Arc<Desk>) {
        if let Some(grants) = &self.grants {
            let rule = desk.work().limits;
            let fetched = self.fetch(&**grants, desk, rule, 0).await;
            self.fetches.note(Cause::Ahead, &fetched);
            if let Err(error) = fetched {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(counter = desk.name, error, "the next grant is not here yet");
            }
        }
        desk.pulse.is_fetching.store(false, Ordering::Release);
    }

    /// Something to draw `count` values from: the rest of the grant is too small, or there is none. Whoever has the turn calls it.
    pub(super) async fn provide(
        &self,
        desk: &Arc<Desk>,
        rule: Limits,
        count: u64,
        drawn_to: Option<SequenceValue>,
    ) -> Result<Provided, StoreError> {
        let Some(grants) = &self.grants else { return Ok(Provided::Nothing) };
        {
            let mut work = desk.work();
            let generation = work.node.generation();
            let reaches = work.book.limits(generation, rule).map(|limits| limits.max);
            // Meanwhile the run has grown, or another follows.
            if reaches.is_some() && (reaches > drawn_to || drawn_to.is_some() && work.book.turn_page()) {
                return Ok(Provided::More);
            }
            if work.book.is_exhausted(generation, rule) {
                return Ok(Provided::Exhausted);
            }
        }
        let fetched = self.fetch(&**grants, desk, rule, count).await;
        self.fetches.note(Cause::Needed, &fetched);
        match fetched {
            Ok(provided) => Ok(provided),
            Err(error) if is_away(&error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(counter = desk.name, error, "no grant");
                Ok(Provided::Nothing)
            }
            Err(error) => Err(error),
        }
    }

    /// Where the present run of grants ends.
    pub(super) fn granted_to(&self, desk: &Desk, rule: Limits) -> Option<SequenceValue> {
        let work = desk.work();
        work.book.limits(work.node.generation(), rule).map(|limits| limits.max)
    }

    async fn fetch(
        &self,
        grants: &dyn GrantLink,
        desk: &Arc<Desk>,
        rule: Limits,
        count: u64,
    ) -> Result<Provided, StoreError> {
        if !self.is_granting() {
            return Err(self.unavailable("grant", NotGranting));
        }
        let (generation, cursor, after) = {
            let work = desk.work();
            let Some(generation) = work.node.generation() else { return Ok(Provided::Nothing) };
            let cursor = work.node.seen().unwrap_or_default();
            (generation, cursor, work.book.latest(generation))
        };
        let known = match after {
            Some(_) => cursor,
            // What was issued, or is held, before there were grants.
            None => cursor.max(self.known_to_authority(desk, rule.scheme).await?),
        };
        let need = {
            let work = desk.work();
            let nodes = u64::try_from(work.node.peers()).unwrap_or(u64::MAX).saturating_add(1);
            let size = grant_size(work.peak, self.identity.segment_size, nodes);
            let seen = known.max(work.book.highest()).max(work.node.highest());
            Need { generation, after, cursor, known, seen, limits: rule, size, count }
        };
        let granted = grants.fetch(&desk.counter, &desk.marker, &need, self.call()).await?;
        self.take_in(desk, generation, rule, granted)
    }

    fn take_in(
        &self,
        desk: &Desk,
        generation: Generation,
        rule: Limits,
        granted: Granted,
    ) -> Result<Provided, StoreError> {
        let mut work = desk.work();
        match granted {
            Granted::Grants(grants) => {
                work.book.enter(generation, &grants);
                Ok(Provided::More)
            }
            Granted::Exhausted => {
                work.book.note_exhausted(generation, rule.max);
                Ok(Provided::Exhausted)
            }
            Granted::Superseded => Err(self.superseded()),
            Granted::Over => {
                tracing::warn!(
                    counter = desk.name,
                    %generation,
                    "this Redis was followed by another one and is granted no more values"
                );
                Ok(Provided::Nothing)
            }
        }
    }

    /// The highest value that the authority knows to be issued or held.
    async fn known_to_authority(&self, desk: &Desk, scheme: u64) -> Result<SequenceValue, StoreError> {
        match self.link.fence(&desk.counter, scheme, self.deadline()).await? {
            Fenced::At(highest) => Ok(highest),
            Fenced::Settling { .. } | Fenced::Unknown => Err(self.unavailable("grant", Settling)),
        }
    }

    // ------------------------------------------------------------------------------ without the authority

    /// Draws what needs no key straight from whoever grants.
    pub(super) async fn draw_for_once(
        &self,
        desk: &Arc<Desk>,
        bounds: &Bounds,
        batch: &mut Batch,
        until: Instant,
    ) -> Result<(), StoreError> {
        let Some(grants) = &self.grants else { return Ok(()) };
        self.settle_draws(&**grants, desk, until).await;
        while let Some(count) = batch.next_plain() {
            let mut request = [0; 16];
            getrandom::fill(&mut request).map_err(|error| self.unavailable("random", error))?;
            let seen = {
                let work = desk.work();
                work.node.highest().max(work.book.highest())
            };
            let request = u128::from_be_bytes(request);
            let draw = Draw { request, seen, limits: limits(bounds), count };
            let Some(drawn) = self.draw_until(&**grants, desk, draw, until).await? else { return Ok(()) };
            match drawn {
                Drawn::Values(range) => {
                    desk.work().note_direct(range);
                    batch.serve(&[range]).map_err(|misfit| self.misfit(&misfit))?;
                }
                Drawn::Overflow { left } => batch.squeeze(left),
                Drawn::Superseded => return Err(self.superseded()),
            }
        }
        Ok(())
    }

    /// Asks under one name until there is an answer; `None`: there is none in time, or nobody can tell.
    async fn draw_until(
        &self,
        grants: &dyn GrantLink,
        desk: &Desk,
        draw: Draw,
        until: Instant,
    ) -> Result<Option<Drawn>, StoreError> {
        let mut unknown = false;
        loop {
            if self.is_granting() {
                // Noted before it is sent: the caller may go away at any time.
                desk.work().unsettled.push(draw);
                let drawn = grants.draw(&desk.counter, &draw, self.call()).await;
                match drawn {
                    Ok(drawn) => {
                        desk.work().unsettled.retain(|unsettled| *unsettled != draw);
                        return Ok(drawn);
                    }
                    Err(error) if !is_away(&error) => return Err(error),
                    Err(StoreError::Timeout { .. }) => unknown = true,
                    Err(_) if unknown => {}
                    Err(_) => desk.work().unsettled.retain(|unsettled| *unsettled != draw),
                }
                desk.work().unsettled.dedup();
            }
            if !unknown || Instant::now() + PAUSE > until {
                return Ok(None);
            }
            sleep(PAUSE).await;
        }
    }

    /// Hands back what earlier draws have drawn that nobody waits for; what there is no time for waits for the next one.
    async fn settle_draws(&self, grants: &dyn GrantLink, desk: &Desk, until: Instant) {
        if !self.is_granting() {
            return;
        }
        let unsettled = desk.work().unsettled.clone();
        for draw in unsettled {
            let settled = timeout_at(until, async {
                let drawn = grants.draw(&desk.counter, &draw, self.call()).await?;
                let Some(Drawn::Values(range)) = drawn else { return Ok(()) };
                grants.give_back(&desk.counter, &[range], self.call()).await
            });
            match settled.await {
                Ok(Ok(())) => desk.work().unsettled.retain(|unsettled| *unsettled != draw),
                Ok(Err(_)) => {}
                Err(_elapsed) => return,
            }
        }
    }

    /// Records what keys were given where nothing is forgotten, before anybody hears of it. What a key was given before counts.
    pub(super) async fn record(
        &self,
        grants: &dyn GrantLink,
        counter: &Counter,
        claims: Vec<Option<Claim>>,
        taken: Vec<Taken>,
    ) -> Result<Vec<Taken>, StoreError> {
        let recorded = claims.into_iter().zip(taken).map(|(claim, taken)| async move {
            let Some(claim) = claim else { return Ok(taken) };
            if taken == Taken::Overflow && self.is_granting() {
                // The authority that refused it may have forgotten its key; what was recorded here is no matter of what is left.
                return match grants.recall(claim).await {
                    Ok(known) => Ok(known.unwrap_or(taken)),
                    Err(error) if is_away(&error) => Ok(Taken::Away),
                    Err(error) => Err(error),
                };
            }
            let (claim, values) = match &taken {
                Taken::Fresh(values) => (claim, values.clone()),
                // Recorded by the authority; whether it was recorded here as well, nobody knows.
                Taken::Replayed(known) => {
                    (Claim { stamp: known.stamp.clone(), ..claim }, known.values.clone())
                }
                Taken::Segment(_) | Taken::Mismatch | Taken::Away => return Ok(taken),
                Taken::Overflow => return Ok(Taken::Away),
            };
            if !self.is_granting() {
                // The authority remembers: asked again, the key gets the same.
                return Ok(Taken::Away);
            }
            match grants.remember(claim, values.clone()).await {
                Ok(Taken::Fresh(_)) => Ok(taken),
                Ok(before) => {
                    if taken == Taken::Fresh(values.clone()) && !is_same(&before, &values) {
                        self.hand_back(counter, &values).await;
                    }
                    Ok(before)
                }
                Err(error) if is_away(&error) => Ok(Taken::Away),
                Err(error) => Err(error),
            }
        });
        join_all(recorded).await.into_iter().collect()
    }

    /// Values that nobody receives.
    pub(super) async fn hand_back(&self, counter: &Counter, values: &Ranges) {
        let Some(desk) = self.find(counter) else { return };
        desk.work().node.hand_back(values.iter());
        if let Err(error) = self.give_back(&desk, &values.iter().collect::<Vec<_>>()).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "values nobody received are not listed");
        }
    }

    /// Takes back what was drawn for once.
    pub(super) async fn give_back(&self, desk: &Desk, values: &[ValueRange]) -> Result<(), StoreError> {
        let Some(grants) = &self.grants else { return Ok(()) };
        let direct: Vec<_> = {
            let work = desk.work();
            values.iter().flat_map(|range| work.direct.within(*range).collect::<Vec<_>>()).collect()
        };
        if direct.is_empty() { Ok(()) } else { grants.give_back(&desk.counter, &direct, self.call()).await }
    }

    pub(super) fn call(&self) -> Duration {
        CALL.min(self.identity.patience)
    }
}

impl Work {
    fn note_direct(&mut self, range: ValueRange) {
        self.direct.insert(range);
        while self.direct.iter().count() > DIRECT_KEPT {
            let Some(lowest) = self.direct.iter().next() else { break };
            self.direct.remove(lowest);
        }
    }
}

fn is_same(before: &Taken, values: &Ranges) -> bool {
    matches!(before, Taken::Replayed(known) if known.values == *values)
}

/// Whoever grants is away.
#[derive(Debug, thiserror::Error)]
#[error("the store that grants values is away")]
struct NotGranting;

/// The authority does not know yet what it has forgotten.
#[derive(Debug, thiserror::Error)]
#[error("the store waits for reports")]
struct Settling;
