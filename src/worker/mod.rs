//! Holds a worker window: acquires it, renews it, publishes the sequencer that issues from it, gives it back.
//!
//! Invariants (`docs/protocols.md`, worker windows):
//!
//! 1. What is published was granted: a [`Sequencer`] never reaches beyond a mark that the store has answered.
//! 2. A holding that was lost or released is closed before another is asked for, under a new nonce; a late reply finds it
//!    closed and changes nothing.
//! 3. The time in IDs never falls: it starts at the store's clock or at the mark that was found, whichever is later, and
//!    runs on the monotonic clock.
//!
//! So a restart after the clock was set back issues at once, above everything that was issued before.
//!
//! The decisions are those of `store/protocol/window/`: what an answer means is for [`Holder`] to say.

mod claimed;
mod confirmed;
mod settings;
mod standing;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    clock::{Clock, UnixMillis},
    lifecycle::Lifecycle,
    snowflake::{Ids, Sequencer},
    store::{
        AcquireRequest, Acquired, Extension, Generation, Holding, IdMillis, Nonce, StoreError, Tenure,
        WorkerStore,
        protocol::window::{Holder, Next},
    },
};

pub use claimed::Claimed;
pub use confirmed::Confirmed;
pub use settings::{Settings, Sharing};
pub use standing::{AcquireError, Standing};

/// A store's clock is followed forward by at most this much a renewal; also the bound on how far a renewal may move a mark.
const FOLLOW: Duration = Duration::from_secs(5);

/// The first pause after a failure; it doubles up to the pause between renewals.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A process's claim to a worker ID: keeps a window alive, publishes it in [`Ids`].
#[derive(Clone)]
pub struct Worker {
    settings: Arc<Settings>,
    store: Arc<dyn WorkerStore>,
    clock: Arc<dyn Clock>,
    ids: Arc<Ids>,
    state: Arc<Mutex<State>>,
    /// When the process began, on the monotonic clock.
    begun: Duration,
}

struct State {
    holder: Holder,
    standing: Standing,
    /// What the clock of the store showed, and at what time here.
    clocks: Option<(IdMillis, UnixMillis)>,
    /// The memory of the store in which the layout was found, or written, as it is here.
    pinned_in: Option<Generation>,
}

impl Worker {
    /// Acquires a window; call [`Worker::keep`] to keep it. With a shared store a window that is not to be had now is no error:
    /// [`Worker::keep`] goes on asking, and [`Worker::standing`] says why there is none.
    ///
    /// # Errors
    ///
    /// [`AcquireError`] when there can be no window: the store was used with another layout, or there is no randomness; with an
    /// exclusive store also when there is none now.
    pub async fn start(
        store: Arc<dyn WorkerStore>,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AcquireError> {
        // The time of IDs is the store's: until it is known, any time is too late.
        let ids = Arc::new(Ids::new(settings.layout, 0, Arc::clone(&clock)));
        let state = State {
            holder: Holder::new(fresh()?),
            standing: Standing::Starting,
            clocks: None,
            pinned_in: None,
        };
        let begun = clock.monotonic();
        let state = Arc::new(Mutex::new(state));
        let worker = Self { settings: Arc::new(settings), store, clock, ids, state, begun };
        match worker.renew_or_acquire().await {
            Err(error) if worker.settings.sharing == Sharing::Exclusive || error.is_final() => Err(error),
            Ok(()) | Err(_) => Ok(worker),
        }
    }

    /// Where the engine draws from.
    pub fn ids(&self) -> &Arc<Ids> {
        &self.ids
    }

    /// Whether there is a window, and if not, why.
    pub fn standing(&self) -> Standing {
        self.with(|state| state.standing.clone())
    }

    /// What the clock of the store showed when it was last heard of, since the epoch of IDs, and this machine's wall clock at that moment.
    pub fn clocks(&self) -> Option<(IdMillis, UnixMillis)> {
        self.with(|state| state.clocks)
    }

    /// How many worker IDs could be taken now; `None` where nobody else takes any.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn free_slots(&self) -> Result<Option<u32>, StoreError> {
        self.store.free_slots(0..self.settings.layout.max_worker() + 1).await
    }

    /// Renews until the drain begins; then call [`Worker::release`]. A store that fails is asked again; the window bridges
    /// the time.
    pub async fn keep(self, lifecycle: Lifecycle) {
        let mut failures = 0;
        loop {
            let round = async {
                let pause = match self.renew_or_acquire().await {
                    Ok(()) => {
                        failures = 0;
                        self.settings.renew_every
                    }
                    Err(error) => {
                        failures += 1;
                        self.pause_after(&error, failures)
                    }
                };
                tokio::time::sleep(pause).await;
            };
            tokio::select! {
                () = lifecycle.draining() => return,
                () = round => {}
            }
        }
    }

    /// One round: extends the window, or takes another where it is lost.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]; what is held stays held up to its mark.
    pub async fn renew_or_acquire(&self) -> Result<(), AcquireError> {
        let outcome = self.round().await;
        let standing = Standing::after(&outcome);
        let before = self.with(|state| std::mem::replace(&mut state.standing, standing.clone()));
        if before != standing {
            match &outcome {
                Ok(()) => tracing::info!(worker = self.ids.worker(), "worker window held"),
                Err(error) => {
                    tracing::warn!(error = error as &dyn std::error::Error, "worker window not renewed");
                }
            }
        }
        outcome
    }

    async fn round(&self) -> Result<(), AcquireError> {
        if let Some(held) = self.with(|state| state.holder.held())
            && self.renew(held).await? == Kept::Yes
        {
            return self.pin().await;
        }
        self.pin().await?;
        self.acquire().await?;
        if self.ids.window_left().is_zero() {
            // The time of IDs is ahead of a store whose clock was set back: a renewal follows it.
            if let Some(held) = self.with(|state| state.holder.held()) {
                self.renew(held).await?;
            }
        }
        Ok(())
    }

    /// Stops issuing and gives the window back, so that the slot is free at once. Call after the last request was served.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]: the slot then rests until real time has passed its mark; no harm is done.
    pub async fn release(&self) -> Result<(), AcquireError> {
        let (last, next) = (self.ids.close(), fresh()?);
        let Some(held) = self.with(|state| state.holder.give_up(next)) else { return Ok(()) };
        Ok(self.store.release(held, last.unwrap_or(held.start)).await?)
    }

    async fn renew(&self, held: Holding) -> Result<Kept, AcquireError> {
        let Settings { ttl, .. } = *self.settings;
        let extension = Extension {
            carried: self.ids.now(),
            window_ms: millis(self.window()),
            ttl_ms: millis(ttl),
            tenure: Tenure::Lease,
        };
        let (sent, next) = (self.clock.monotonic(), fresh()?);
        let answer = self.store.renew(held, extension).await?;
        let age_ms = self.age_ms(sent);
        let terms = self.settings.sharing.terms();
        match self.with(|state| state.holder.renewed(&terms, &held, answer, age_ms, next)) {
            Next::Issue(holding) => {
                if let Some(sequencer) = &*self.ids.sequencer() {
                    sequencer.extend(holding.mark);
                }
                self.ids.learn(holding.now, FOLLOW);
                self.compare_clocks(holding.now, age_ms);
                Ok(Kept::Yes)
            }
            Next::Stop => {
                tracing::warn!(worker = held.slot, "worker window lost, taking another");
                self.ids.close();
                Ok(Kept::No)
            }
            Next::Ignore => Err(AcquireError::TooLate),
        }
    }

    async fn acquire(&self) -> Result<(), AcquireError> {
        let Settings { layout, datacenter, ttl, max_ahead, ref slots, .. } = *self.settings;
        let nonce = self.with(|state| state.holder.nonce());
        let (window_ms, ttl_ms) = (millis(self.window()), millis(ttl));
        let sent = self.clock.monotonic();
        let answer = self
            .store
            .acquire(AcquireRequest { nonce, slots: slots.clone(), window_ms, ttl_ms, tenure: Tenure::Lease })
            .await?;
        match answer {
            Acquired::Held(_) => {}
            Acquired::NoSlot => return Err(AcquireError::NoSlot(slots.clone())),
            Acquired::Wait(wait) => return Err(AcquireError::Settling(wait)),
        }
        let age_ms = self.age_ms(sent);
        let terms = self.settings.sharing.terms();
        match self.with(|state| state.holder.acquired(&terms, nonce, answer, age_ms)) {
            Next::Issue(Holding { slot, start, mark, now, .. }) => {
                self.ids.learn(now.max(start), Duration::MAX);
                self.compare_clocks(now, age_ms);
                self.ids.publish(Sequencer::new(layout, datacenter, slot, start, mark, max_ahead));
                Ok(())
            }
            Next::Stop | Next::Ignore => Err(AcquireError::TooLate),
        }
    }

    /// Makes sure that the memory of a shared store has the layout of this node: anew in each, since an emptied one has lost it.
    async fn pin(&self) -> Result<(), AcquireError> {
        let Sharing::Shared { pinned: wanted } = &self.settings.sharing else { return Ok(()) };
        let generation = self.with(|state| state.holder.held().map(|held| held.generation));
        if generation.is_some() && generation == self.with(|state| state.pinned_in) {
            return Ok(());
        }
        let recorded = self.store.pin_layout(wanted).await?;
        if recorded == *wanted {
            self.with(|state| state.pinned_in = generation);
            return Ok(());
        }
        self.ids.close();
        let next = fresh()?;
        self.with(|state| state.holder.give_up(next));
        Err(AcquireError::LayoutDiffers { recorded, wanted: wanted.clone() })
    }

    /// How far a window reaches: as long as this process has been alive, within bounds. So a crash loop lets a slot rest for half a
    /// minute, and a process that has been up for long can go on for long.
    fn window(&self) -> Duration {
        let age = self.clock.monotonic().saturating_sub(self.begun);
        age.max(Settings::FIRST_WINDOW).min(self.settings.window)
    }

    fn pause_after(&self, error: &AcquireError, failures: u32) -> Duration {
        let longest = self.settings.renew_every;
        let pause = match error {
            AcquireError::Settling(left) => (*left).max(Duration::from_millis(1)),
            AcquireError::NoSlot(_) | AcquireError::LayoutDiffers { .. } => longest,
            AcquireError::TooLate | AcquireError::Random(_) | AcquireError::Store(_) => {
                FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(10))
            }
        };
        jitter(pause.min(longest))
    }

    /// Notes what the store's clock showed in an answer to a question that was asked so long ago: halfway between, as far as
    /// anybody can tell.
    fn compare_clocks(&self, now: IdMillis, age_ms: u64) {
        let here = UnixMillis(self.clock.now().0.saturating_sub_unsigned(age_ms / 2));
        self.with(|state| state.clocks = Some((now, here)));
        self.ids.hear(now.saturating_add(age_ms / 2));
    }

    fn age_ms(&self, sent: Duration) -> u64 {
        millis(self.clock.monotonic().saturating_sub(sent))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a renewal found the holding as it was.
#[derive(PartialEq)]
enum Kept {
    Yes,
    No,
}

/// A nonce that was never used.
fn fresh() -> Result<Nonce, AcquireError> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(AcquireError::Random)?;
    Ok(Nonce(nonce))
}

/// Between a half and all of `pause`, so that nodes do not march in step.
fn jitter(pause: Duration) -> Duration {
    let mut chance = [0];
    // Without randomness: the whole pause.
    let part = getrandom::fill(&mut chance).map_or(u32::from(u8::MAX), |()| chance[0].into());
    pause / 2 + pause * part / 510
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
