//! Continuous counters that nodes share, on whatever store is their authority: consecutive over all nodes, and bridged by each for a
//! while when the store is away. This is the node's side.
//!
//! # Invariants
//!
//! 1. One message at a time for each counter (its *turn*). A call that was not answered is repeated, with the same number, before
//!    anything else is said; what it turns out to have drawn for callers that were told otherwise is handed back.
//! 2. A request is served only by a message that was sent after it arrived. So numbers are in real-time order while the store is there.
//! 3. What is issued from the segment is on disk before it is answered, and the disk never falls behind (its *pen*).
//! 4. A segment that is offered is on disk before it is used, and is taken over or dropped before the next message: that one tells
//!    the authority which segment is free. While a write is in doubt nothing is said.
//! 5. A process is on disk, under the name by which the authority knows it, before it holds a segment: so the next process on the same
//!    directory can speak for it.
//! 6. A scheme that was retired draws nothing, on no node: every counter refuses it by itself, and before its first message, and
//!    after each loss, a counter is enlisted with its key, which refuses it as well. A node that was
//!    refused reports and gives back, and is neither drawn from nor asked for a segment. A row on disk keeps the scheme of its segment.
//! 7. Whoever is dropped in the middle (a caller that has gone, a task that is cancelled) leaves a state from which the next
//!    message goes on: a call that is repeated, a write that is repeated, values that are handed back.
//!
//! Order of reading: `link.rs` (what an authority is asked), `pin.rs` (keys), `desk.rs` (one counter), `desks.rs` (all of them;
//! one exchange), `batch.rs` and `draw.rs` (a caller's batch), `keeper.rs` (what nobody asks for), `resting.rs` (counters that nobody draws from), `show.rs` (what operators see).
//! The authorities are `redis/counters/` and `postgres/counters/`.

mod batch;
mod desk;
mod desks;
mod draw;
#[cfg(test)]
mod fake;
mod gauges;
mod grants;
mod keeper;
mod link;
mod pin;
mod resting;
mod show;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, future::OptionFuture, stream};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

pub(in crate::store) use pin::{hex, key_of};
pub use {
    gauges::{Cause, Figures},
    link::{AuthorityLink, Closed, GrantLink, Lot, Shown},
    pin::{PinOutcome, claim_ask},
};

use self::{
    desk::{Desk, LONGEST_BEAT_MS, Use},
    desks::{Desks, Errand, Identity},
    keeper::Keeper,
};
use crate::{
    clock::UnixMillis,
    counter::{Counter, Ranges, SequenceValue},
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    rule::OnOutage,
    store::{
        Abandon, Abandoned, Advanced, Bounds, CounterState, CounterStore, Note, StoreError, StoreFuture,
        TakeRequest, Taken,
        protocol::{
            counter::{Advance, Fenced, Stride},
            grant::Raised,
        },
        segments::SegmentStore,
        sqlite::SqliteStore,
    },
};

/// How long `advance` waits for nodes that are there to swap their segments.
const ADVANCE_PATIENCE: Duration = Duration::from_secs(3);
const ADVANCE_PAUSE: Duration = Duration::from_millis(50);

/// How long `abandon` waits for the word of a node to run out that was heard of a moment ago: its longest beat, and the grace.
const ABANDON_PATIENCE: Duration = Duration::from_millis(LONGEST_BEAT_MS + 2_500);
const ABANDON_PAUSE: Duration = Duration::from_millis(250);

/// Counters that are fenced at once.
const FENCED_AT_A_TIME: usize = 64;

/// Counters that are given up at once at the end.
const LEAVING_AT_A_TIME: usize = 256;

/// How a node takes part.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of this node, for people.
    pub node: String,
    /// How many values it keeps of each counter for the time in which the store is away.
    pub segment_size: u64,
    /// How long a request may wait, and how long one call at most.
    pub timeout: Duration,
}

/// The counters of this node. Cheap to clone.
#[derive(Clone)]
pub struct SharedCounters {
    desks: Arc<Desks>,
}

impl SharedCounters {
    /// Takes up what earlier processes have left on `disk`, and keeps counters until `lifecycle` is drained. The store
    /// behind `link` may be away.
    ///
    /// # Errors
    ///
    /// The local disk's.
    pub async fn start(
        link: Arc<dyn AuthorityLink>,
        disk: Arc<SqliteStore>,
        settings: Settings,
        lifecycle: &Lifecycle,
    ) -> Result<Self, StoreError> {
        Self::over(link, disk, None, settings, lifecycle).await
    }

    /// The same where the authority draws only what `grants` grants it, and this node draws there while the authority is away.
    ///
    /// # Errors
    ///
    /// The local disk's.
    pub async fn start_under_grants(
        link: Arc<dyn AuthorityLink>,
        grants: Arc<dyn GrantLink>,
        disk: Arc<SqliteStore>,
        settings: Settings,
        lifecycle: &Lifecycle,
    ) -> Result<Self, StoreError> {
        Self::over(link, disk, Some(grants), settings, lifecycle).await
    }

    async fn over(
        link: Arc<dyn AuthorityLink>,
        disk: Arc<dyn SegmentStore>,
        grants: Option<Arc<dyn GrantLink>>,
        settings: Settings,
        lifecycle: &Lifecycle,
    ) -> Result<Self, StoreError> {
        let Settings { node, segment_size, timeout } = settings;
        let identity = Identity { node, segment_size, patience: timeout };
        let (desks, errands) = Desks::new(link, disk, grants, identity);
        let desks = Arc::new(desks);
        desks.take_up().await?;
        lifecycle.spawn(Keeper::new(Arc::clone(&desks), errands, lifecycle.clone()).keep());
        Ok(Self { desks })
    }

    /// Gives every counter up, within `limit`: what is not given up by then is taken up by the next process on this data directory.
    /// Nothing is drawn any more.
    pub async fn leave(&self, limit: Duration) {
        self.desks.is_leaving.store(true, Ordering::Release);
        let leaving = async {
            let permits = Semaphore::new(LEAVING_AT_A_TIME);
            let each = self.desks.all().into_iter().map(|desk| {
                let permits = &permits;
                async move {
                    let _permit = permits.acquire().await;
                    self.desks.give_up(&desk).await
                }
            });
            let outcomes = futures_util::future::join_all(each).await;
            let kept = outcomes.iter().filter(|outcome| outcome.is_err()).count();
            self.desks.note_left(outcomes.into_iter().flatten().flatten().collect()).await;
            kept
        };
        match tokio::time::timeout(limit, leaving).await {
            Ok(0) => {}
            Ok(kept) => tracing::warn!(counters = kept, "segments kept for the next process"),
            Err(_elapsed) => tracing::warn!("segments kept for the next process: no time was left"),
        }
    }

    /// Every counter of a key that the authority knows, and what was granted of any.
    async fn look(&self, key: &PrefixKey) -> Result<(Vec<CounterState>, Vec<Lot>), StoreError> {
        let patience = self.desks.identity.patience;
        let shown = self.desks.link.show(key, patience).await?;
        let mut states: Vec<_> = shown.into_iter().filter_map(show::state).collect();
        let lots = match &self.desks.grants {
            Some(grants) => grants.lots(key, patience).await?,
            None => Vec::new(),
        };
        states.iter_mut().for_each(|state| show::under_grants(state, &lots));
        Ok((states, lots))
    }

    /// A desk for somebody who does not know the limits of the counter.
    async fn desk_at(
        &self,
        counter: &Counter,
        base: SequenceValue,
        scheme: u64,
    ) -> Result<Arc<Desk>, StoreError> {
        let floor = SequenceValue(0);
        let bounds = Bounds { base, floor, max: SequenceValue::MAX, scheme, on_outage: OnOutage::Fail };
        self.desks.desk(counter, &bounds).await
    }

    /// Closes the list of a key to lower schemes; answers every counter that any scheme has drawn from.
    async fn close(&self, key: &PrefixKey, scheme: u64, until: Instant) -> Result<Vec<Counter>, StoreError> {
        loop {
            match self.desks.link.close(key, scheme, self.desks.identity.patience).await? {
                Closed::Listed(listed) => return Ok(listed),
                Closed::Settling { wait_ms } => {
                    self.pause("retire", Duration::from_millis(wait_ms), until).await?
                }
            }
        }
    }

    /// Closes one counter to lower schemes; answers the highest value that was issued from it, or may still be.
    async fn fence(
        &self,
        counter: Counter,
        scheme: u64,
        until: Instant,
    ) -> Result<SequenceValue, StoreError> {
        loop {
            let fenced = self.desks.link.fence(&counter, scheme, self.desks.identity.patience).await?;
            match fenced {
                Fenced::At(highest) => return Ok(highest),
                Fenced::Settling { wait_ms } => {
                    self.pause("retire", Duration::from_millis(wait_ms), until).await?
                }
                Fenced::Unknown => {
                    // It exists, so that it knows where it began; it waits for a report.
                    let desk = self.desk_at(&counter, SequenceValue(0), scheme).await?;
                    self.beat(&desk).await;
                    self.pause("retire", ADVANCE_PAUSE, until).await?;
                }
            }
        }
    }

    /// Waits so long, if that is not too long.
    async fn pause(
        &self,
        operation: &'static str,
        pause: Duration,
        until: Instant,
    ) -> Result<(), StoreError> {
        if Instant::now() + pause > until {
            return Err(self.desks.late(operation));
        }
        sleep(pause).await;
        Ok(())
    }

    async fn beat(&self, desk: &Arc<Desk>) {
        let turn = desk.turn().await;
        self.desks.beat(desk, turn).await;
    }

    async fn advance_to(
        &self,
        counter: Counter,
        base: SequenceValue,
        to: SequenceValue,
        note: Option<Note>,
    ) -> Result<Advanced, StoreError> {
        if to < base {
            return Ok(Advanced::Below(base));
        }
        let until = Instant::now() + ADVANCE_PATIENCE.min(self.desks.identity.patience);
        let outcome = self.raise_and_move(&counter, base, to, until).await;
        match outcome {
            Ok(Advanced::Done) => {}
            Ok(Advanced::Below(_)) => return outcome,
            // What was refused has moved nothing: segments are no longer to be placed above. Later draws would swap all the same.
            Ok(Advanced::Held { .. } | Advanced::Granted { .. } | Advanced::TooFar { .. }) | Err(_) => {
                let patience = self.desks.call();
                if let Err(error) = self.desks.link.advance(&counter, to, Stride::Desist, patience).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(%counter, error, "segments may still make way for an advance that was refused");
                }
                return outcome;
            }
        }
        // Noted whatever comes of the rest: the counter has moved.
        let noted = OptionFuture::from(note.map(Note::write));
        let (remembered, _) = tokio::join!(self.remember(&counter, base, to, until), noted);
        remembered.map(|()| Advanced::Done)
    }

    /// Raises what is granted before the counter moves: else it would stand above its grant. Nothing is raised for a counter that cannot
    /// move, so that a refusal leaves everything as it was.
    async fn raise_and_move(
        &self,
        counter: &Counter,
        base: SequenceValue,
        to: SequenceValue,
        until: Instant,
    ) -> Result<Advanced, StoreError> {
        if let Some(grants) = &self.desks.grants {
            let clear = self.stride(counter, base, to, Stride::Clear, until).await?;
            if clear != Advanced::Done {
                return Ok(clear);
            }
            if let Raised::Held { datacenter } = grants.raise(counter, to, self.desks.call()).await? {
                return Ok(Advanced::Granted { datacenter });
            }
        }
        self.stride(counter, base, to, Stride::Move, until).await
    }

    async fn stride(
        &self,
        counter: &Counter,
        base: SequenceValue,
        to: SequenceValue,
        stride: Stride,
        until: Instant,
    ) -> Result<Advanced, StoreError> {
        loop {
            let answer = self.desks.link.advance(counter, to, stride, self.desks.identity.patience).await?;
            let is_late = Instant::now() + ADVANCE_PAUSE > until;
            match answer {
                Advance::Done => return Ok(Advanced::Done),
                // A report would have its first grant fetched, below what it is to be raised to.
                Advance::Unknown if stride == Stride::Clear => return Ok(Advanced::Done),
                Advance::Below(cursor) => return Ok(Advanced::Below(cursor)),
                Advance::Held { node, alive } if !alive || is_late => return Ok(Advanced::Held { node }),
                Advance::Unknown if is_late => {
                    return Err(self.desks.late("advance"));
                }
                // It may be held by this node, or wait for its report.
                Advance::Held { .. } | Advance::Unknown => {
                    let desk = self.desk_at(counter, base, 0).await?;
                    self.beat(&desk).await;
                    sleep(if matches!(answer, Advance::Unknown) { Duration::ZERO } else { ADVANCE_PAUSE })
                        .await;
                }
            }
        }
    }

    /// Has this process know that a counter stands at `to` or above, in memory and on disk: an authority that forgets it is told. Where
    /// values are granted, whoever grants them knows.
    async fn remember(
        &self,
        counter: &Counter,
        base: SequenceValue,
        to: SequenceValue,
        until: Instant,
    ) -> Result<(), StoreError> {
        if self.desks.grants.is_some() {
            return Ok(());
        }
        loop {
            let desk = self.desk_at(counter, base, 0).await?;
            self.beat(&desk).await;
            if desk.work().node.seen() >= Some(to) {
                return self.desks.write_down(&[desk]).await;
            }
            self.pause("advance", ADVANCE_PAUSE, until).await?;
        }
    }
}

impl Desks {
    /// Takes over what earlier processes have left: first on disk, under this process's names, then with the authorities.
    async fn take_up(&self) -> Result<(), StoreError> {
        let mut desks = Vec::new();
        for kept in self.disk.held().await? {
            let bounds = Bounds {
                base: kept.limits.base,
                floor: kept.limits.floor,
                max: kept.limits.max,
                scheme: kept.limits.scheme,
                on_outage: OnOutage::Segment,
            };
            desks.push(self.open(&kept.counter.clone(), &bounds, Some(kept), Use::Drawn)?);
        }
        if !desks.is_empty() {
            tracing::info!(counters = desks.len(), "segments of the process before are taken over");
            self.write_down(&desks).await?;
        }
        desks.into_iter().for_each(|desk| self.send(Errand::Begin(desk)));
        self.watch_resting().await
    }
}

impl CounterStore for SharedCounters {
    fn take(
        &self,
        counter: Counter,
        bounds: Bounds,
        requests: Vec<TakeRequest>,
    ) -> StoreFuture<'_, Vec<Taken>> {
        Box::pin(self.desks.take(counter, bounds, requests))
    }

    fn hand_back(&self, counter: Counter, values: Ranges) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            // What was drawn here is known here; after ten idle minutes nobody hands anything back.
            let Some(desk) = self.desks.find(&counter) else { return Ok(()) };
            desk.work().node.hand_back(values.iter());
            self.beat(&desk).await;
            self.desks.give_back(&desk, &values.iter().collect::<Vec<_>>()).await
        })
    }

    fn counters<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Vec<CounterState>> {
        Box::pin(async move { Ok(self.look(key).await?.0) })
    }

    fn accounts<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Vec<CounterState>> {
        Box::pin(async move {
            let (mut states, lots) = self.look(key).await?;
            let foreign = lots.iter().filter(|lot| states.iter().all(|state| state.period != lot.period));
            let foreign: Vec<_> = foreign.filter_map(show::elsewhere).collect();
            states.extend(foreign);
            Ok(states)
        })
    }

    fn retire<'a>(&'a self, key: &'a PrefixKey, scheme: u64) -> StoreFuture<'a, SequenceValue> {
        Box::pin(async move {
            self.desks.retire(key, scheme);
            let until = Instant::now() + self.desks.identity.patience;
            let granted = match &self.desks.grants {
                Some(grants) => grants.retire(key, scheme, self.desks.identity.patience).await?,
                None => SequenceValue::default(),
            };
            // What this node remembers counts too: a store that has forgotten may not be told of it in time.
            let granted = granted.max(self.desks.disk.highest(key).await?);
            let listed = self.close(key, scheme, until).await?;
            let fenced = stream::iter(listed).map(|counter| self.fence(counter, scheme, until));
            let highest = |highest: SequenceValue, of_one| async move { Ok(highest.max(of_one)) };
            fenced.buffer_unordered(FENCED_AT_A_TIME).try_fold(granted, highest).await
        })
    }

    fn advance(
        &self,
        counter: Counter,
        base: SequenceValue,
        to: SequenceValue,
        _actor: Arc<str>,
        _now: UnixMillis,
    ) -> StoreFuture<'_, Advanced> {
        Box::pin(self.advance_to(counter, base, to, None))
    }

    fn advance_noted(
        &self,
        counter: Counter,
        base: SequenceValue,
        to: SequenceValue,
        note: Note,
    ) -> StoreFuture<'_, Advanced> {
        Box::pin(self.advance_to(counter, base, to, Some(note)))
    }

    fn abandon(&self, counter: Counter, what: Abandon) -> StoreFuture<'_, Abandoned> {
        Box::pin(async move {
            let until = Instant::now() + ABANDON_PATIENCE;
            loop {
                let outcome = self.desks.link.abandon(&counter, &what, self.desks.identity.patience).await?;
                let is_late = Instant::now() + ABANDON_PAUSE > until;
                match outcome {
                    Abandoned::Alive(_) if !is_late => {}
                    Abandoned::Unknown if !is_late => {
                        let desk = self.desk_at(&counter, SequenceValue(0), 0).await?;
                        self.beat(&desk).await;
                    }
                    Abandoned::Done(_) | Abandoned::Nothing | Abandoned::Alive(_) | Abandoned::Unknown => {
                        return Ok(outcome);
                    }
                }
                sleep(ABANDON_PAUSE).await;
            }
        })
    }
}

impl fmt::Debug for SharedCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCounters").field("identity", &self.desks.identity).finish_non_exhaustive()
    }
}
