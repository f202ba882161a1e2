//! One batch: drawn from the authority, or from the segment while that is away.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    batch::{Batch, Misfit},
    desk::{Desk, Standing, Turn, limits},
    desks::{Answer, Desks, Errand, is_away},
    grants::Provided,
};
use crate::{
    counter::{Counter, Ranges, ValueRange},
    rule::OnOutage,
    store::{
        Bounds, StoreError, TakeRequest, Taken,
        protocol::counter::{Ask, ClaimAnswer, Outcome},
    },
};

/// The first pause before asking again where a segment is in the way; doubles up to the second.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The process is going down.
#[derive(Debug, thiserror::Error)]
#[error("this node is going down")]
struct Leaving;

/// How a batch fared with the authority.
enum Drawn {
    /// Every request has its answer.
    Whole,
    /// The counter is away, or waits for reports.
    Away,
    /// It is there, and was granted nothing to draw from.
    Ungranted,
    /// The desk was closed meanwhile.
    Closed,
}

impl Desks {
    /// [`CounterStore::take`](crate::store::CounterStore::take).
    pub(super) async fn take(
        &self,
        counter: Counter,
        bounds: Bounds,
        requests: Vec<TakeRequest>,
    ) -> Result<Vec<Taken>, StoreError> {
        let Some(grants) = &self.grants else { return self.serve(counter, bounds, requests).await };
        let claims: Vec<_> = requests.iter().map(|request| request.claim.clone()).collect();
        let taken = self.serve(counter.clone(), bounds, requests).await?;
        let plain = claims.iter().zip(&taken).filter(|(claim, _)| claim.is_none());
        let unclaimed: Vec<_> = plain.filter_map(|(_, taken)| issued(taken)).cloned().collect();
        let recorded = self.record(&**grants, &counter, claims, taken).await;
        if recorded.is_err() {
            self.hand_back_all(&counter, &unclaimed).await;
        }
        recorded
    }

    /// Hands back what requests without a key were given of a batch that fails: nobody hears of it. What one with a key was given is
    /// recorded, and is its answer when it is asked again.
    async fn hand_back_all(&self, counter: &Counter, unclaimed: &[Ranges]) {
        for values in unclaimed {
            self.hand_back(counter, values).await;
        }
    }

    async fn serve(
        &self,
        counter: Counter,
        bounds: Bounds,
        requests: Vec<TakeRequest>,
    ) -> Result<Vec<Taken>, StoreError> {
        if self.is_retired(&counter.key, bounds.scheme) {
            return Err(self.superseded());
        }
        if self.is_leaving.load(Ordering::Acquire) {
            return Err(self.unavailable("take", Leaving));
        }
        let mut batch = Batch::new(requests);
        match self.serve_batch(&counter, &bounds, &mut batch).await {
            Ok(()) => Ok(batch.finish()),
            Err(error) => {
                self.hand_back_all(&counter, &batch.unclaimed()).await;
                Err(error)
            }
        }
    }

    /// Answers what can be answered.
    async fn serve_batch(
        &self,
        counter: &Counter,
        bounds: &Bounds,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let until = Instant::now() + self.identity.patience;
        loop {
            let desk = self.desk(counter, bounds).await?;
            self.touch(&desk, bounds);
            let mut is_granted = true;
            if desk.standing() == Standing::Here {
                match self.draw(&desk, bounds, batch, until).await? {
                    Drawn::Whole => return Ok(()),
                    Drawn::Closed => continue,
                    Drawn::Away => {}
                    Drawn::Ungranted => is_granted = false,
                }
            }
            self.draw_locally(&desk, batch, bounds).await?;
            if !batch.is_answered() && bounds.on_outage != OnOutage::Fail {
                self.draw_for_once(&desk, bounds, batch, until).await?;
            }
            if batch.is_answered() || !is_granted || !self.is_worth_waiting(&desk, batch, until) {
                return Ok(());
            }
            if timeout_at(until, desk.back()).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Draws what is open from the authority.
    async fn draw(
        &self,
        desk: &Arc<Desk>,
        bounds: &Bounds,
        batch: &mut Batch,
        until: Instant,
    ) -> Result<Drawn, StoreError> {
        let Ok(mut turn) = timeout_at(until, desk.turn()).await else { return Err(self.late("take")) };
        if turn.is_closed {
            return Ok(Drawn::Closed);
        }
        if desk.standing() != Standing::Here {
            return Ok(Drawn::Away);
        }
        let drawn = self.converse(desk, &mut turn, bounds, batch, until).await;
        if turn.offer.is_some() {
            // The answers do not wait for the disk; the next message does.
            self.send(Errand::Settle(Arc::clone(desk), turn));
        }
        drawn
    }

    /// Asks until every request has its answer.
    async fn converse(
        &self,
        desk: &Arc<Desk>,
        turn: &mut Turn,
        bounds: &Bounds,
        batch: &mut Batch,
        until: Instant,
    ) -> Result<Drawn, StoreError> {
        let mut pause = PAUSE;
        // A call that somebody else has left unanswered is not for this batch.
        let mut is_ours = !desk.work().node.has_pending_call();
        loop {
            self.pin(desk, batch).await?;
            let Some((count, claims)) = batch.next() else { return Ok(Drawn::Whole) };
            if Instant::now() >= until {
                return Err(self.late("take"));
            }
            let wanted = claims.iter().fold(count, |sum, claim| sum.saturating_add(claim.count));
            // Not those of another caller, who may have heard of a later rule.
            let ask = Ask { limits: limits(bounds), ..desk.ask(count, claims, self.identity.segment_size) };
            let drawn_to = self.granted_to(desk, limits(bounds));
            let answer = match self.exchange(desk, turn, ask).await {
                Err(error) if is_away(&error) && desk.standing() != Standing::Here => return Ok(Drawn::Away),
                answer => answer?,
            };
            match answer {
                Answer::Served { outcome: Outcome::Drawn(values), .. } if !is_ours => {
                    desk.work().node.hand_back(values);
                }
                Answer::Served { outcome: Outcome::Drawn(values), claims } => {
                    distribute(batch, &values, claims).map_err(|misfit| self.misfit(&misfit))?;
                    pause = PAUSE;
                }
                Answer::Served { outcome: Outcome::Overflow { left }, .. } if is_ours => batch.squeeze(left),
                Answer::Served { outcome: Outcome::Overflow { .. }, .. } => {}
                Answer::Served { outcome: Outcome::Superseded, .. } if is_ours => {
                    return Err(self.superseded());
                }
                Answer::Served { outcome: Outcome::Superseded, .. } => {}
                Answer::Served { outcome: Outcome::Blocked { by }, .. } => {
                    // One's own segment is swapped for another before the next message.
                    if by != desk.work().node.incarnation() || turn.offer.is_none() {
                        rest(&mut pause, until).await;
                    }
                }
                Answer::Again => rest(&mut pause, until).await,
                Answer::Short { .. } if !is_ours => {}
                // Another run begins elsewhere: this one is used up first.
                Answer::Short { left } if desk.work().book.has_next() && batch.narrow(left) => {}
                Answer::Short { left } => match self.provide(desk, limits(bounds), wanted, drawn_to).await? {
                    Provided::More => {}
                    Provided::Exhausted => batch.squeeze(left),
                    Provided::Nothing => return Ok(Drawn::Ungranted),
                },
                Answer::Ungranted => match self.provide(desk, limits(bounds), wanted, None).await? {
                    Provided::More => {}
                    Provided::Exhausted => batch.squeeze(0),
                    Provided::Nothing => return Ok(Drawn::Ungranted),
                },
                Answer::Recover(wait) => {
                    if self.is_bridged(desk) || Instant::now() + wait > until {
                        self.await_reports(desk, wait);
                        return Ok(Drawn::Away);
                    }
                    sleep_until(Instant::now() + wait).await;
                }
            }
            // A call that was not answered is repeated, as ours.
            is_ours = is_ours || !desk.work().node.has_pending_call();
        }
    }

    /// Pins the keys of a batch to its counter, all at once. A key whose pin cannot be asked for is not served, others are.
    async fn pin(&self, desk: &Desk, batch: &mut Batch) -> Result<(), StoreError> {
        let deadline = self.deadline();
        let asked = batch.unpinned().map(|(index, claim, moved)| async move {
            (index, self.link.pin(&desk.counter, claim, moved, deadline).await)
        });
        for (index, outcome) in join_all(asked).await {
            match outcome {
                Ok(outcome) => batch.pin(index, Some(outcome)),
                Err(error) if is_away(&error) => batch.pin(index, None),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Issues from the segment what needs no key. On disk before it is answered: one write for the whole batch.
    async fn draw_locally(&self, desk: &Desk, batch: &mut Batch, bounds: &Bounds) -> Result<(), StoreError> {
        if bounds.on_outage == OnOutage::Fail {
            return Ok(());
        }
        let _pen = desk.pen().await;
        let row = {
            let mut work = desk.work();
            work.hand_back_untold();
            if bounds.scheme < work.limits.scheme {
                // What the segment holds was given out under a later rule, or will be.
                return Err(self.superseded());
            }
            let mut issued = Vec::new();
            batch.serve_locally(|count| {
                work.node.state().next().filter(|next| *next > bounds.floor)?;
                let range = work.node.issue_locally(count, bounds.max)?;
                issued.push(range);
                Some(range)
            });
            if issued.is_empty() {
                return Ok(());
            }
            work.untold = issued;
            desk.row(&work, work.node.state().clone())
        };
        let written = self.disk.keep(vec![row]).await;
        match written {
            Ok(()) => desk.work().untold.clear(),
            // Perhaps it is on disk: nobody gets these values any more.
            Err(_) => batch.retract_local(),
        }
        written
    }

    /// Whether the segment can stand in.
    fn is_bridged(&self, desk: &Desk) -> bool {
        let work = desk.work();
        work.on_outage != OnOutage::Fail && work.node.state().remaining() > 0
    }

    /// Whether open requests may still be served: the authority is there and only waits for reports. Where some were served from
    /// the segment the others are not kept waiting: those behind them would wait too.
    fn is_worth_waiting(&self, desk: &Desk, batch: &Batch, until: Instant) -> bool {
        let back_at = self.at(desk.pulse.back_at.load(Ordering::Relaxed));
        desk.standing() != Standing::Away && back_at < until && !batch.is_begun() && !self.is_bridged(desk)
    }

    pub(super) fn superseded(&self) -> StoreError {
        StoreError::Superseded { store: self.link.store(), operation: "take" }
    }

    pub(super) fn misfit(&self, misfit: &Misfit) -> StoreError {
        StoreError::Corrupt { store: self.link.store(), what: misfit.to_string() }
    }
}

/// What a request was given, and nobody before it.
pub(super) fn issued(taken: &Taken) -> Option<&Ranges> {
    match taken {
        Taken::Fresh(values) | Taken::Segment(values) => Some(values),
        Taken::Replayed(_) | Taken::Mismatch | Taken::Overflow | Taken::Away => None,
    }
}

fn distribute(batch: &mut Batch, values: &[ValueRange], claims: Vec<ClaimAnswer>) -> Result<(), Misfit> {
    batch.serve(values)?;
    // A call that is repeated leaves its claims out: they are asked for by the next.
    if claims.is_empty() { Ok(()) } else { batch.answer(claims) }
}

async fn rest(pause: &mut Duration, until: Instant) {
    sleep_until((Instant::now() + *pause).min(until)).await;
    *pause = (*pause * 2).min(LONGEST_PAUSE);
}
