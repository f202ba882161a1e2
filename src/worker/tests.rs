//! Workers on stores in memory, on a clock that a test moves.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::{
    clock::{ManualClock, UnixMillis},
    snowflake::Layout,
    store::{Renewed, StoreFuture, Tenure, memory::MemoryStore},
};

const EPOCH: UnixMillis = UnixMillis(1_704_067_200_000);
const START: UnixMillis = UnixMillis(1_800_000_000_000);

struct Bench {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
}

impl Bench {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(START));
        let store = Arc::new(MemoryStore::new(clock.clone(), EPOCH));
        Self { clock, store }
    }

    async fn worker(&self) -> Result<Worker, AcquireError> {
        let settings = Settings {
            layout: Layout::DEFAULT,
            datacenter: 0,
            slots: 0..1,
            window: Duration::from_secs(1),
            renew_every: Duration::from_millis(500),
            ttl: Duration::from_secs(15),
            max_ahead: Duration::from_millis(50),
            sharing: Sharing::Exclusive,
        };
        Worker::start(self.store.clone(), settings, self.clock.clone()).await
    }
}

/// The timestamp of one ID, or `None` where the window gives none.
fn issue(worker: &Worker) -> Option<u64> {
    let ids = worker.ids();
    let mut drawn = crate::counter::Ranges::new();
    let sequencer = ids.sequencer();
    let sequencer = sequencer.as_deref()?;
    sequencer.ids(&sequencer.draw(ids.now(), 1).ok()?, &mut drawn);
    Layout::DEFAULT.parts(drawn.last()?.0).map(|parts| parts.timestamp)
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_renewed_goes_on_and_one_that_is_not_ends() {
    let bench = Bench::new();
    let worker = bench.worker().await.expect("a window");
    for _ in 0..10 {
        bench.clock.advance(Duration::from_millis(500));
        worker.renew_or_acquire().await.expect("renewed");
        assert!(issue(&worker).is_some());
    }
    bench.clock.advance(Duration::from_millis(1_500));
    assert_eq!(issue(&worker), None, "nobody renewed");
    assert_eq!(worker.ids().window_left(), Duration::ZERO);
    worker.renew_or_acquire().await.expect("another window");
    assert!(issue(&worker).is_some(), "a process that was stopped for a while goes on by itself");
}

#[tokio::test(start_paused = true)]
async fn a_restart_after_the_clock_was_set_back_issues_at_once_and_above() {
    let bench = Bench::new();
    let before = bench.worker().await.expect("a window");
    let last = issue(&before).expect("issued");
    before.release().await.expect("released");
    assert_eq!(issue(&before), None, "given back");

    bench.clock.step_to(UnixMillis(START.0 - 3_600_000));
    let after = bench.worker().await.expect("a window");
    assert!(issue(&after).expect("at once") > last);
    for _ in 0..10 {
        bench.clock.advance(Duration::from_millis(400));
        after.renew_or_acquire().await.expect("renewed");
        assert!(issue(&after).expect("and on, an hour ahead of the clock") > last);
    }
}

#[tokio::test(start_paused = true)]
async fn one_slot_has_one_holder() {
    let bench = Bench::new();
    let _holder = bench.worker().await.expect("a window");
    assert!(matches!(bench.worker().await, Err(AcquireError::NoSlot(slots)) if slots == (0..1)));
}

/// A worker ID that nodes share a store for.
struct Shared {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
}

impl Shared {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(START));
        Self { store: Arc::new(MemoryStore::shared(clock.clone(), EPOCH)), clock }
    }

    /// One that has settled.
    async fn settled() -> Self {
        let shared = Self::new();
        let first = shared.worker(0..0).await;
        assert_eq!(first.standing(), Standing::Settling);
        shared.pass(5_000);
        shared
    }

    fn pass(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }

    fn settings(slots: std::ops::Range<u32>) -> Settings {
        Settings {
            layout: Layout::DEFAULT,
            datacenter: 0,
            slots,
            window: Duration::from_secs(600),
            renew_every: Settings::RENEW_EVERY,
            ttl: Duration::from_secs(15),
            max_ahead: Duration::from_millis(50),
            sharing: Sharing::Shared { pinned: "41/5/5/12".to_owned() },
        }
    }

    async fn worker(&self, slots: std::ops::Range<u32>) -> Worker {
        let start = Worker::start(self.store.clone(), Self::settings(slots), self.clock.clone());
        start.await.expect("a shared store that has no window now is no error")
    }

    /// A worker with a fixed ID, whose data directory is `local`.
    async fn fixed(&self, local: &Arc<MemoryStore>, identity: u8) -> Worker {
        let store = Claimed::new(local.clone(), self.store.clone(), Nonce([identity; 16]));
        let settings = Settings {
            window: Duration::from_secs(1),
            renew_every: Duration::from_millis(500),
            ..Self::settings(3..4)
        };
        Worker::start(Arc::new(store), settings, self.clock.clone()).await.expect("a shared store")
    }

    fn local(&self) -> Arc<MemoryStore> {
        Arc::new(MemoryStore::new(self.clock.clone(), EPOCH))
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_grows_with_the_age_of_its_holder() {
    let shared = Shared::settled().await;
    let worker = shared.worker(0..2).await;
    assert_eq!(worker.ids().window_left(), Duration::from_secs(30));
    for (passed_ms, left_s) in [(20_000, 30), (20_000, 40), (30_000, 70), (60_000, 130)] {
        shared.pass(passed_ms);
        worker.renew_or_acquire().await.expect("renewed");
        assert_eq!(worker.ids().window_left(), Duration::from_secs(left_s));
    }
}

#[tokio::test(start_paused = true)]
async fn issuing_goes_on_while_a_store_that_forgot_settles() {
    let shared = Shared::settled().await;
    let worker = shared.worker(0..2).await;
    let before = issue(&worker).expect("issued");
    shared.store.forget_workers();
    for _ in 0..8 {
        shared.pass(1_000);
        worker.renew_or_acquire().await.expect("put back");
        assert!(issue(&worker).expect("issued") > before);
    }
    assert_eq!(worker.ids().window_left(), Duration::from_secs(30), "extended again");
    assert_eq!(shared.worker(0..1).await.standing(), Standing::NoSlot(0..1));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_slept_past_its_window_takes_another() {
    let shared = Shared::settled().await;
    let worker = shared.worker(0..1).await;
    let before = issue(&worker).expect("issued");
    shared.pass(31_000);
    assert_eq!(issue(&worker), None);
    let other = shared.worker(0..1).await;
    assert!(issue(&other).is_some_and(|timestamp| timestamp > before + 30_000), "above the first window");
    let error = worker.renew_or_acquire().await.expect_err("taken meanwhile");
    assert!(error.to_string().contains("worker ID 0 is taken"), "{error}");
    assert_eq!(issue(&worker), None);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_set_back_by_hours_does_not_end_issuing() {
    let shared = Shared::settled().await;
    let worker = shared.worker(0..2).await;
    shared.clock.step_to(UnixMillis(START.0 - 3 * 3_600_000));
    for _ in 0..40 {
        shared.pass(1_000);
        worker.renew_or_acquire().await.expect("renewed");
        assert!(issue(&worker).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_jumped_by_hours_gives_new_windows_at_once() {
    let shared = Shared::settled().await;
    let worker = shared.worker(0..2).await;
    let before = issue(&worker).expect("issued");
    shared.clock.step_to(UnixMillis(START.0 + 3 * 3_600_000));
    worker.renew_or_acquire().await.expect("another window");
    assert!(issue(&worker).is_some_and(|timestamp| timestamp > before));
}

#[tokio::test(start_paused = true)]
async fn a_layout_that_differs_ends_issuing_also_when_it_is_found_late() {
    let shared = Shared::settled().await;
    let worker = shared.worker(0..2).await;
    shared.store.forget_workers();
    shared.store.pin_layout("40/6/5/12").await.expect("pinned by somebody else");
    shared.pass(1_000);
    let error = worker.renew_or_acquire().await.expect_err("IDs could repeat");
    assert!(error.is_final() && error.to_string().contains("40/6/5/12"), "{error}");
    assert_eq!(issue(&worker), None);
}

#[tokio::test(start_paused = true)]
async fn a_fixed_worker_id_has_one_claimant() {
    let shared = Shared::settled().await;
    let (one, other) = (shared.local(), shared.local());
    let first = shared.fixed(&one, 1).await;
    assert!(issue(&first).is_some());
    let second = shared.fixed(&other, 2).await;
    assert!(
        second.standing().to_string().contains("worker ID 3 is taken by another node (NUMGEN_WORKER_ID)")
    );
    assert_eq!(issue(&second), None);
    assert_eq!(shared.worker(3..4).await.standing(), Standing::NoSlot(3..4), "leases avoid it");
    let last = issue(&first).expect("issued");
    first.release().await.expect("released");
    shared.pass(100);
    second.renew_or_acquire().await.expect("free at once");
    assert!(issue(&second).expect("issued") > last);
}

#[tokio::test(start_paused = true)]
async fn the_process_that_follows_in_a_directory_takes_over_its_claim() {
    let shared = Shared::settled().await;
    let local = shared.local();
    let before = issue(&shared.fixed(&local, 1).await).expect("issued");
    // It is killed; the store of its directory forgets nobody, but its process is known to be gone.
    shared.pass(15_000);
    let after = shared.fixed(&local, 1).await;
    assert!(issue(&after).expect("at once") > before);
    shared.pass(60_000);
    let much_later = shared.fixed(&local, 1).await;
    assert!(issue(&much_later).is_some(), "also when the claim has run out");
}

#[tokio::test(start_paused = true)]
async fn no_lease_follows_a_fixed_worker_id_that_was_cut_off() {
    let shared = Shared::settled().await;
    let local = shared.local();
    let fixed = shared.fixed(&local, 1).await;
    assert!(issue(&fixed).is_some());
    // It is cut off, and goes on by the operator's word, for far longer than its claim.
    for _ in 0..3 {
        shared.pass(3_600_000);
        assert_eq!(shared.worker(3..4).await.standing(), Standing::NoSlot(3..4));
    }
    // Nor in between, when it is back and finds that its claim has lapsed.
    fixed.renew_or_acquire().await.expect("a window");
    let last = issue(&fixed).expect("issued");
    assert_eq!(shared.worker(3..4).await.standing(), Standing::NoSlot(3..4));
    // A store that has forgotten it hears of it in time.
    shared.store.forget_workers();
    for _ in 0..10 {
        shared.pass(500);
        fixed.renew_or_acquire().await.expect("renewed");
    }
    shared.pass(3_600_000);
    assert_eq!(shared.worker(3..4).await.standing(), Standing::NoSlot(3..4));
    fixed.renew_or_acquire().await.expect("a window");
    assert!(issue(&fixed).expect("issued") > last);
    let last = issue(&fixed).expect("issued");
    fixed.release().await.expect("released");
    shared.pass(100);
    let lease = shared.worker(3..4).await;
    assert!(issue(&lease).expect("given up") > last);
}

#[tokio::test(start_paused = true)]
async fn another_directory_takes_a_fixed_worker_id_over_and_gives_it_up() {
    let shared = Shared::settled().await;
    let gone = shared.local();
    assert!(issue(&shared.fixed(&gone, 1).await).is_some());
    shared.pass(30_000);
    let local = shared.local();
    let next = shared.fixed(&local, 2).await;
    let last = issue(&next).expect("the same operator's word");
    next.release().await.expect("released");
    shared.pass(100);
    assert!(issue(&shared.worker(3..4).await).expect("given up") > last);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_given_another_fixed_worker_id_claims_that_one() {
    let shared = Shared::settled().await;
    let local = shared.local();
    assert!(issue(&shared.fixed(&local, 1).await).is_some());
    // It is killed, and started again at once with another ID.
    let store = Claimed::new(local, shared.store.clone(), Nonce([1; 16]));
    let settings = Settings { window: Duration::from_secs(1), ..Shared::settings(5..6) };
    let moved = Worker::start(Arc::new(store), settings, shared.clock.clone()).await.expect("a shared store");
    assert!(issue(&moved).is_some());
    for slot in [3, 5] {
        assert_eq!(shared.worker(slot..slot + 1).await.standing(), Standing::NoSlot(slot..slot + 1));
    }
}

/// A shared store that does not answer: a call ends at its deadline, and takes that time.
struct Silent(Arc<ManualClock>);

impl Silent {
    fn wait<T: Send + 'static>(&self) -> StoreFuture<'_, T> {
        Box::pin(async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                self.0.advance(Duration::from_millis(100));
            }
            Err(StoreError::Timeout { store: "Redis", operation: "test" })
        })
    }
}

impl WorkerStore for Silent {
    fn pin_layout<'a>(&'a self, _layout: &'a str) -> StoreFuture<'a, String> {
        self.wait()
    }

    fn acquire(&self, _request: AcquireRequest) -> StoreFuture<'_, Acquired> {
        self.wait()
    }

    fn renew(&self, _holding: Holding, _extension: Extension) -> StoreFuture<'_, Renewed> {
        self.wait()
    }

    fn release(&self, _holding: Holding, _last: IdMillis) -> StoreFuture<'_, ()> {
        self.wait()
    }
}

/// A shared store that may be away.
struct Away(Arc<MemoryStore>, AtomicBool);

impl Away {
    fn ask<'a, T: Send + 'a>(&'a self, answer: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        if !self.1.load(Ordering::Relaxed) {
            return answer;
        }
        let error = StoreError::Unavailable { store: "Redis", operation: "test", source: "away".into() };
        Box::pin(async { Err(error) })
    }
}

impl WorkerStore for Away {
    fn pin_layout<'a>(&'a self, layout: &'a str) -> StoreFuture<'a, String> {
        self.ask(self.0.pin_layout(layout))
    }

    fn acquire(&self, request: AcquireRequest) -> StoreFuture<'_, Acquired> {
        self.ask(self.0.acquire(request))
    }

    fn renew(&self, holding: Holding, extension: Extension) -> StoreFuture<'_, Renewed> {
        self.ask(self.0.renew(holding, extension))
    }

    fn release(&self, holding: Holding, last: IdMillis) -> StoreFuture<'_, ()> {
        self.ask(self.0.release(holding, last))
    }
}

#[tokio::test(start_paused = true)]
async fn a_fixed_worker_id_of_another_layout_ends_when_the_store_is_back() {
    for (pinned, is_same) in [("41/5/5/12", true), ("41/6/4/12", false)] {
        let shared = Shared::settled().await;
        shared.store.pin_layout("41/5/5/12").await.expect("pinned");
        let away = Arc::new(Away(shared.store.clone(), AtomicBool::new(true)));
        let store = Claimed::new(shared.local(), away.clone(), Nonce([1; 16]));
        let sharing = Sharing::Shared { pinned: pinned.to_owned() };
        let settings = Settings { window: Duration::from_secs(1), sharing, ..Shared::settings(3..4) };
        let worker = Worker::start(Arc::new(store), settings, shared.clock.clone()).await.expect("started");
        worker.renew_or_acquire().await.expect("the operator's word");
        assert!(issue(&worker).is_some());
        away.1.store(false, Ordering::Relaxed);
        let renewed = worker.renew_or_acquire().await;
        assert_eq!((renewed.is_ok(), issue(&worker).is_some()), (is_same, is_same), "{renewed:?}");
        if !is_same {
            assert!(matches!(renewed, Err(AcquireError::LayoutDiffers { .. })), "{renewed:?}");
        }
    }
}

/// A disk that takes its time.
struct Slow(Arc<MemoryStore>, Arc<ManualClock>);

impl WorkerStore for Slow {
    fn pin_layout<'a>(&'a self, layout: &'a str) -> StoreFuture<'a, String> {
        self.0.pin_layout(layout)
    }

    fn acquire(&self, request: AcquireRequest) -> StoreFuture<'_, Acquired> {
        Box::pin(async {
            let answer = self.0.acquire(request).await;
            self.1.advance(Duration::from_millis(60));
            answer
        })
    }

    fn renew(&self, holding: Holding, extension: Extension) -> StoreFuture<'_, Renewed> {
        self.0.renew(holding, extension)
    }

    fn release(&self, holding: Holding, last: IdMillis) -> StoreFuture<'_, ()> {
        self.0.release(holding, last)
    }
}

#[tokio::test(start_paused = true)]
async fn a_fixed_worker_id_counts_while_nobody_can_be_asked() {
    let shared = Shared::new();
    let local = Slow(shared.local(), shared.clock.clone());
    let store = Claimed::new(Arc::new(local), Arc::new(Silent(shared.clock.clone())), Nonce([1; 16]));
    let settings = Settings {
        window: Duration::from_secs(1),
        renew_every: Duration::from_millis(500),
        ..Shared::settings(3..4)
    };
    let worker = Worker::start(Arc::new(store), settings, shared.clock.clone()).await.expect("started");
    assert_eq!(worker.standing(), Standing::Held);
    let mut last = issue(&worker).expect("issued");
    for _ in 0..10 {
        worker.renew_or_acquire().await.expect("renewed");
        // Until the next renewal begins.
        shared.pass(500);
        let issued = issue(&worker).expect("the window has not run out");
        assert!(issued > last);
        last = issued;
    }
    // The process is stopped beyond its window.
    shared.pass(1_500);
    worker.renew_or_acquire().await.expect("another window");
    assert!(issue(&worker).expect("issued") > last);
}

#[tokio::test(start_paused = true)]
async fn a_fixed_worker_id_that_is_leased_is_refused() {
    let shared = Shared::settled().await;
    let lease = shared.worker(3..4).await;
    assert!(issue(&lease).is_some());
    let local = shared.local();
    let store = Claimed::new(local, shared.store.clone(), Nonce([1; 16]));
    let request = |nonce| AcquireRequest {
        nonce,
        slots: 3..4,
        window_ms: 1_000,
        ttl_ms: 15_000,
        tenure: Tenure::Lease,
    };
    assert_eq!(store.acquire(request(Nonce([7; 16]))).await.expect("answered"), Acquired::NoSlot);
}
