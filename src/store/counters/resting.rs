//! Counters that nobody draws from: what is on disk of them is told to a store that has forgotten.
//!
//! A counter without a request for a while has no desk, and says nothing. Whoever draws from it next on another node, in a store that was
//! emptied meanwhile, would begin anew. So the markers are looked at, whether or not there is a desk; under a new generation,
//! and under the first that this process hears of, each counter that has a row is put on its list again, and where the store knows less of
//! it than the row does it gets a desk, reports, and is given up again. These desks hold no segment, and their rows are not written
//! as those of counters that are used.
//!
//! Where the store knows as much nothing is reported: a report for a process that is gone makes the counter skip. Under grants
//! nothing rests on such a report, and nothing is skipped for it; but whoever drew first from a counter that the store has forgotten
//! would else have it settle anew, for all.
//!
//! What is told within the settling of a generation counts; what comes later is found by `seen`, perhaps too late. Those that were
//! used last go first.

use std::{
    collections::BTreeSet,
    ops::Bound,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::time::{sleep, timeout};

use super::{
    desk::{Desk, Standing, Use},
    desks::{Answer, Desks, Errand},
    keeper::Gone,
};
use crate::{
    counter::Counter,
    rule::OnOutage,
    store::{Bounds, StoreError},
};

/// Markers that are looked at in one round. There is one, and in a cluster one for each slot that is used.
const LOOKED_AT: usize = 256;

/// Counters that have desks for a report at once: it bounds the memory.
const OPEN_AT_A_TIME: usize = 10_000;

/// Messages under way.
const AT_A_TIME: usize = 64;

/// How long the store is waited for, until the desk is left to the agenda: longer than it settles.
const PATIENCE: Duration = Duration::from_secs(10);

/// Before it is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The markers of all counters that this process knows, and what is to be done for them.
#[derive(Default)]
pub(super) struct Watch {
    markers: BTreeSet<Arc<str>>,
    /// Where the last round has ended.
    last: Option<Arc<str>>,
    is_looking: bool,
    /// Markers whose counters are to report.
    news: BTreeSet<Arc<str>>,
    is_reporting: bool,
}

impl Watch {
    fn next_round(&mut self) -> Vec<Arc<str>> {
        let after = self.last.as_ref().map_or(Bound::Unbounded, |last| Bound::Excluded(Arc::clone(last)));
        let rest = self.markers.range::<Arc<str>, _>((after, Bound::Unbounded));
        let round: Vec<_> =
            rest.chain(&self.markers).take(LOOKED_AT.min(self.markers.len())).cloned().collect();
        self.last = round.last().cloned();
        round
    }
}

impl Desks {
    /// The marker of a counter, and that of the list of its prefix key. They are looked at from now on.
    pub(super) fn markers(&self, counter: &Counter) -> (Arc<str>, Arc<str>) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = |marker: String| {
            let marker: Arc<str> = marker.into();
            watch.markers.get(&marker).cloned().unwrap_or_else(|| {
                watch.markers.insert(Arc::clone(&marker));
                marker
            })
        };
        (known(self.link.marker(counter)), known(self.link.list_marker(&counter.key)))
    }

    /// Notes under which markers there is something on disk.
    ///
    /// # Errors
    ///
    /// The local disk's.
    pub(super) async fn watch_resting(&self) -> Result<(), StoreError> {
        for counter in self.disk.resting().await? {
            self.markers(&counter);
        }
        Ok(())
    }

    /// Looks at the next markers; one at a time does.
    pub(super) async fn look_at_markers(&self) {
        let round = {
            let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
            if watch.is_looking || watch.markers.is_empty() {
                return;
            }
            watch.is_looking = true;
            watch.next_round()
        };
        let looks = stream::iter(round).for_each_concurrent(AT_A_TIME, |marker| async move {
            // While the store is away nobody is told anything; the next round comes.
            if let Ok(generation) = self.link.look(&marker, self.deadline()).await {
                self.note_generation(&marker, generation);
            }
        });
        looks.await;
        self.watch.lock().unwrap_or_else(PoisonError::into_inner).is_looking = false;
    }

    /// The counters under a marker are to report; answers whether somebody has to begin with it.
    pub(super) fn is_to_be_reported(&self, marker: Arc<str>) -> bool {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        watch.news.insert(marker);
        !std::mem::replace(&mut watch.is_reporting, true)
    }

    /// Reports what is on disk under the markers of which there is news, until there is no more.
    pub(super) async fn report_resting(&self) {
        loop {
            let news = {
                let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
                let news = std::mem::take(&mut watch.news);
                watch.is_reporting = !news.is_empty();
                news
            };
            if news.is_empty() {
                return;
            }
            if let Err(error) = self.report_under(&news).await {
                {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "not every counter that rests was reported; tried again");
                }
                sleep(PAUSE).await;
                self.watch.lock().unwrap_or_else(PoisonError::into_inner).news.extend(news);
            }
        }
    }

    async fn report_under(&self, news: &BTreeSet<Arc<str>>) -> Result<(), StoreError> {
        let mut resting = self.disk.resting().await?;
        resting.retain(|counter| {
            let (marker, list_marker) = self.markers(counter);
            news.contains(&marker) || news.contains(&list_marker)
        });
        for resting in resting.chunks(OPEN_AT_A_TIME) {
            let (mut reported, mut failed) = (Vec::new(), None);
            let reports = resting.iter().cloned().map(|counter| async move { self.report(&counter).await });
            let mut reports = stream::iter(reports).buffer_unordered(AT_A_TIME);
            while let Some(outcome) = reports.next().await {
                match outcome {
                    Ok(desk) => reported.extend(desk),
                    Err(error) => failed = Some(error),
                }
                if failed.is_some() {
                    // Those that were begun are dropped: what they have opened is found again.
                    break;
                }
            }
            drop(reports);
            self.close_reported(reported).await;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Puts a counter on its list; opens its desk and has it report where the store knows less. `None`: it need not, or somebody else
    /// has a desk, which does it.
    async fn report(&self, counter: &Counter) -> Result<Option<Arc<Desk>>, StoreError> {
        let Some(kept) = self.disk.kept(counter).await? else { return Ok(None) };
        if self.find(counter).is_some_and(|desk| !desk.pulse.is(Use::Reporting)) {
            return Ok(None);
        }
        match self.link.enlist(counter, kept.limits.scheme, self.deadline()).await {
            // Refused, it is on the list all the same.
            Ok(()) | Err(StoreError::Superseded { .. }) => {}
            Err(error) => return Err(error),
        }
        let cursor = self.link.cursor(counter, self.deadline()).await?;
        if cursor.is_some_and(|cursor| cursor >= kept.state.highest()) {
            return Ok(None);
        }
        let bounds = Bounds {
            base: kept.limits.base,
            floor: kept.limits.floor,
            max: kept.limits.max,
            scheme: kept.limits.scheme,
            // It asks for no segment.
            on_outage: OnOutage::Fail,
        };
        let desk = self.open(counter, &bounds, Some(kept), Use::Reporting)?;
        if !desk.pulse.is(Use::Reporting) {
            return Ok(None);
        }
        let turn = desk.turn().await;
        self.beat(&desk, turn).await;
        Ok(Some(desk))
    }

    /// Gives desks up that have reported, unless somebody draws there by now.
    async fn close_reported(&self, mut desks: Vec<Arc<Desk>>) {
        let _late = timeout(PATIENCE, async {
            for desk in &desks {
                desk.back().await;
            }
        })
        .await;
        desks.retain(|desk| desk.pulse.is(Use::Reporting));
        let (states, rows): (Vec<_>, Vec<_>) = desks
            .iter()
            .map(|desk| {
                let work = desk.work();
                let state = work.node.refreshed();
                (state.clone(), desk.row(&work, state))
            })
            .unzip();
        match self.disk.pass_on(rows).await {
            Ok(()) => desks.iter().zip(states).for_each(|(desk, state)| desk.work().note_written(&state)),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, counters = desks.len(), "who has reported is not on disk");
            }
        }
        let closing = desks.into_iter().map(|desk| async move {
            match self.leave_again(&desk).await {
                Ok(gone) if gone.is_some() => return gone,
                Ok(_kept) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(counter = desk.name, error, "not given up yet");
                }
            }
            // It goes the way of all others, unless somebody has sent it there.
            let is_kept = desk.pulse.turn(Use::Reporting, Use::Drawn);
            if is_kept || desk.pulse.turn(Use::Leaving, Use::Drawn) {
                self.send(Errand::Begin(desk));
            }
            None
        });
        let closing = stream::iter(closing);
        let gone: Vec<_> = closing.buffer_unordered(AT_A_TIME).collect().await;
        self.note_left(gone.into_iter().flatten().collect()).await;
    }

    /// `None`: it is held on to, since it knows what is not on disk, or somebody draws.
    async fn leave_again(&self, desk: &Arc<Desk>) -> Result<Option<Gone>, StoreError> {
        let mut turn = desk.turn().await;
        let is_quiet = turn.offer.is_none() && !turn.in_doubt && desk.is_quiet();
        if turn.is_closed || desk.standing() != Standing::Here || !is_quiet {
            return Ok(None);
        }
        // Whoever comes from now on waits for the turn, and finds the desk closed.
        if !desk.pulse.turn(Use::Reporting, Use::Leaving) {
            return Ok(None);
        }
        let mut ask = desk.ask(0, Vec::new(), self.identity.segment_size);
        (ask.wants, ask.leaves) = (None, true);
        let Answer::Served { .. } = self.exchange(desk, &mut turn, ask).await? else { return Ok(None) };
        self.close(desk, &mut turn);
        let incarnation = desk.work().node.incarnation();
        Ok(Some((desk.counter.clone(), incarnation)))
    }
}
