//! Combining: many requests, one call of the store.
//!
//! Invariants:
//!
//! 1. A lane (one counter, or one prefix key) never has more than one call in flight. A call whose batch has its place in the order and only waits for
//!    the disk ([`Served::Later`]) is not in flight any more: the next one comes after it.
//! 2. A request is served only by a call that was sent after the request arrived: whoever asks after an answer was seen
//!    gets higher values. That is what makes the order of a counter real-time order.
//! 3. Requests of one call stand in the order of their arrival; the answers too.
//!
//! The first to arrive in an idle lane starts it; those that come while its call is in flight wait and share the next. Under
//! load one round trip, or one fsync, serves them all. A request whose caller has gone before its call was sent is left out.
//!
//! What this costs is waking tasks: each wake across threads is a system call. So answers travel to each thread in one message
//! and are handed out there, and before each call the lane steps back once, so that whoever is ready to ask can join. A timer
//! that is set is a wake, too: a lane has one for all who wait in it.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use foldhash::fast::RandomState;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, Sleep, timeout_at},
};

use tracing::{Instrument, Span};

use crate::{lifecycle::Lifecycle, store::StoreError, telemetry::BatchSizes};

/// The target of the spans here.
const TRACED: &str = "numgen::generate";

/// What is still to come, of a store.
pub(super) type Promise<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// The call of one batch: as many answers as requests, in their order.
pub(super) type Call<K, R, A> = Box<dyn Fn(K, Vec<R>) -> Promise<Served<A>> + Send + Sync>;

/// What a call has come to.
pub(super) enum Served<A> {
    /// The answers.
    Now(Vec<A>),
    /// The next call may be sent; the answers come when they may be given.
    Later(Promise<Vec<A>>),
}

/// Why a request of a batch got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum CombineError {
    /// The call failed for the whole batch.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// There was no answer before the deadline.
    #[error("no answer in time")]
    TimedOut,
    /// The call ended without an answer for this request: the process is going down, or a bug.
    #[error("the store's call ended without an answer")]
    Abandoned,
}

/// What becomes of an answer whose caller has gone: it was drawn, and nobody will show it.
pub(super) type Undelivered<K, A> = Box<dyn Fn(&K, A) + Send + Sync>;

/// Which requests share a call: those at the front of a lane that may, as many as are bounded.
pub(super) struct Batching<R> {
    /// Whether two may share one: they must agree on everything but themselves.
    pub(super) together: fn(&R, &R) -> bool,
    /// The most requests of one call.
    pub(super) requests: usize,
    /// What a request weighs.
    pub(super) weigh: fn(&R) -> u64,
    /// Nobody joins a call that weighs this much.
    pub(super) full: u64,
}

impl<R> Batching<R> {
    /// Any requests, all of the same weight.
    pub(super) fn of(requests: usize, together: fn(&R, &R) -> bool) -> Self {
        Self { together, requests, weigh: |_| 0, full: 1 }
    }

    /// How many of those that wait come with the first.
    fn count<'a>(&self, waiting: impl Iterator<Item = &'a R> + Clone) -> usize
    where
        R: 'a,
    {
        let Some(first) = waiting.clone().next() else { return 0 };
        let mut weight: u64 = 0;
        let joins = |request: &&R| {
            let has_room = weight < self.full && (self.together)(first, request);
            weight = weight.saturating_add((self.weigh)(request));
            has_room
        };
        waiting.take(self.requests).take_while(joins).count()
    }
}

/// What has a lane of its own.
pub(super) trait Key: Clone + Eq + Hash + Send + Sync + 'static {}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Key for K {}

/// Those who wait for the next call of each lane.
type Lanes<K, R, A> = HashMap<K, Vec<Waiting<R, A>>, RandomState>;

/// Lanes of one kind of call.
pub(super) struct Combiner<K, R, A> {
    lanes: Mutex<Lanes<K, R, A>>,
    call: Call<K, R, A>,
    undelivered: Undelivered<K, A>,
    batching: Batching<R>,
    /// How long a request may wait from its arrival, over as many calls as that takes.
    patience: Duration,
    sizes: BatchSizes,
    lifecycle: Lifecycle,
}

struct Waiting<R, A> {
    request: R,
    caller: Caller<A>,
    /// In which it waits.
    span: Span,
}

/// What a caller gets.
type Outcome<A> = Result<A, CombineError>;

/// Who waits for an answer, on which runtime, and how long.
struct Caller<A> {
    answer: oneshot::Sender<Outcome<A>>,
    home: Handle,
    deadline: Instant,
}

impl<A> Caller<A> {
    fn is_late(&self, now: Instant) -> bool {
        self.deadline <= now
    }

    fn give_up(self) {
        // A caller that has gone misses nothing.
        let _gone = self.answer.send(Err(CombineError::TimedOut));
    }
}

/// Callers of one runtime with their answers.
struct Delivery<A> {
    home: Handle,
    answers: Vec<(oneshot::Sender<Outcome<A>>, Outcome<A>)>,
}

impl<K: Key, R: Send + 'static, A: Send + 'static> Combiner<K, R, A> {
    pub(super) fn new(
        call: Call<K, R, A>,
        undelivered: Undelivered<K, A>,
        batching: Batching<R>,
        patience: Duration,
        sizes: BatchSizes,
        lifecycle: Lifecycle,
    ) -> Arc<Self> {
        Arc::new(Self { lanes: Mutex::default(), call, undelivered, batching, patience, sizes, lifecycle })
    }

    /// Waits for the call that serves `request`.
    ///
    /// # Errors
    ///
    /// [`CombineError`]; whether the request was served is then unknown, as it is for the call.
    pub(super) async fn submit(self: &Arc<Self>, key: K, request: R) -> Result<A, CombineError> {
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + self.patience;
        let span = tracing::debug_span!(target: TRACED, "wait");
        let caller = Caller { answer, home: Handle::current(), deadline };
        let waiting = Waiting { request, caller, span };
        let starts_lane = {
            let mut lanes = self.lanes();
            // A lane exists exactly while somebody drives it.
            match lanes.get_mut(&key) {
                Some(lane) => {
                    lane.push(waiting);
                    false
                }
                None => {
                    lanes.insert(key.clone(), vec![waiting]);
                    true
                }
            }
        };
        if starts_lane {
            self.lifecycle.spawn(Arc::clone(self).drive(key));
        }
        answered.await.unwrap_or(Err(CombineError::Abandoned))
    }

    /// Calls until nobody waits in the lane.
    async fn drive(self: Arc<Self>, key: K) {
        let lane = Lane { combiner: &self, key: &key };
        let mut alarm = pin!(tokio::time::sleep(self.patience));
        loop {
            tokio::task::yield_now().await;
            let batch = lane.next_batch();
            if batch.is_empty() {
                return;
            }
            self.sizes.record(batch.len());
            let span = span_of_call(&batch);
            let (requests, mut callers): (Vec<R>, Vec<_>) =
                batch.into_iter().map(|waiting| (waiting.request, Some(waiting.caller))).unzip();
            let call: Promise<_> = Box::pin((self.call)(key.clone(), requests).instrument(span));
            match lane.await_call(call, &mut callers, alarm.as_mut()).await {
                Ok(Served::Now(answers)) => self.hand_out(&key, callers, Ok(answers)),
                Ok(Served::Later(rest)) => {
                    self.lifecycle.spawn(Arc::clone(&self).await_rest(key.clone(), callers, rest));
                }
                Err(error) => self.hand_out(&key, callers, Err(error)),
            }
        }
    }

    /// Waits for the answers of a batch that has left its lane. Whose time is up before is told so.
    async fn await_rest(
        self: Arc<Self>,
        key: K,
        mut callers: Vec<Option<Caller<A>>>,
        mut rest: Promise<Vec<A>>,
    ) {
        let outcome = loop {
            let next = callers.iter().flatten().map(|caller| caller.deadline).min();
            let Some(next) = next else { break rest.await };
            match timeout_at(next, &mut rest).await {
                Ok(outcome) => break outcome,
                Err(_elapsed) => dismiss(&mut callers, Instant::now()),
            }
        };
        self.hand_out(&key, callers, outcome);
    }

    fn hand_out(
        self: &Arc<Self>,
        key: &K,
        callers: Vec<Option<Caller<A>>>,
        outcome: Result<Vec<A>, StoreError>,
    ) {
        let answers: Vec<_> = match outcome {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            Err(error) => {
                let error = CombineError::Store(Arc::new(error));
                callers.iter().map(|_| Err(error.clone())).collect()
            }
        };
        for delivery in self.by_home(key, callers.into_iter().zip(answers)) {
            self.deliver(key, delivery);
        }
    }

    /// Hands out answers on the runtime of those who wait for them.
    fn deliver(self: &Arc<Self>, key: &K, delivery: Delivery<A>) {
        let Delivery { home, answers } = delivery;
        let (combiner, key) = (Arc::clone(self), key.clone());
        let hand_out = move || {
            for (caller, answer) in answers {
                if let Err(unheard) = caller.send(answer) {
                    combiner.keep(&key, unheard);
                }
            }
        };
        if home.id() == Handle::current().id() {
            hand_out();
        } else {
            self.lifecycle.spawn_on(&home, async move { hand_out() });
        }
    }

    /// Sorts answers by the runtimes of their callers, of which there are as many as cores.
    fn by_home(
        &self,
        key: &K,
        answers: impl Iterator<Item = (Option<Caller<A>>, Outcome<A>)>,
    ) -> Vec<Delivery<A>> {
        let mut deliveries: Vec<Delivery<A>> = Vec::new();
        for (caller, answer) in answers {
            let Some(Caller { answer: caller, home, .. }) = caller else {
                self.keep(key, answer);
                continue;
            };
            match deliveries.iter_mut().find(|delivery| delivery.home.id() == home.id()) {
                Some(delivery) => delivery.answers.push((caller, answer)),
                None => deliveries.push(Delivery { home, answers: vec![(caller, answer)] }),
            }
        }
        deliveries
    }

    /// A caller that has gone misses nothing; what was drawn for it must not be lost.
    fn keep(&self, key: &K, unheard: Outcome<A>) {
        if let Ok(served) = unheard {
            (self.undelivered)(key, served);
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes<K, R, A>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives up on everybody whose deadline has come.
fn dismiss<A>(callers: &mut [Option<Caller<A>>], now: Instant) {
    for caller in callers {
        if let Some(late) = caller.take_if(|caller| caller.is_late(now)) {
            late.give_up();
        }
    }
}

/// The span of one call: it belongs to the trace of the first request that it serves, and is linked to the others.
fn span_of_call<R, A>(batch: &[Waiting<R, A>]) -> Span {
    let Some((first, others)) = batch.split_first() else { return Span::none() };
    let requests = batch.len();
    let span = tracing::debug_span!(target: TRACED, parent: &first.span, "combined call", requests);
    if !span.is_disabled() {
        for other in others {
            span.follows_from(&other.span);
        }
    }
    span
}

/// A lane that is being driven. Dropping it while it is (a panic in a call) closes it, so that the next request starts anew.
struct Lane<'a, K: Key, R: Send + 'static, A: Send + 'static> {
    combiner: &'a Combiner<K, R, A>,
    key: &'a K,
}

impl<K: Key, R: Send + 'static, A: Send + 'static> Lane<'_, K, R, A> {
    /// Those at the front who may share a call; an empty batch closes the lane.
    fn next_batch(&self) -> Vec<Waiting<R, A>> {
        let mut lanes = self.combiner.lanes();
        let Some(lane) = lanes.get_mut(self.key) else { return Vec::new() };
        lane.retain(|waiting| !waiting.caller.answer.is_closed());
        if lane.is_empty() {
            lanes.remove(self.key);
            return Vec::new();
        }
        let count = self.combiner.batching.count(lane.iter().map(|waiting| &waiting.request));
        if count == lane.len() { std::mem::take(lane) } else { lane.drain(..count).collect() }
    }

    /// Waits for a call on behalf of `callers`. Those whose time is up before it ends, here or in the lane, are told so and leave.
    ///
    /// Nobody's deadline comes before that of somebody who arrived earlier, so the alarm may stay set from one call to the next: it
    /// goes off too early, never too late.
    async fn await_call<T>(
        &self,
        mut call: impl Future<Output = T> + Unpin,
        callers: &mut [Option<Caller<A>>],
        mut alarm: Pin<&mut Sleep>,
    ) -> T {
        loop {
            tokio::select! {
                biased;
                outcome = &mut call => return outcome,
                () = alarm.as_mut() => alarm.as_mut().reset(self.dismiss_late(callers)),
            }
        }
    }

    /// Gives up on everybody whose deadline has come; answers the next one.
    fn dismiss_late(&self, callers: &mut [Option<Caller<A>>]) -> Instant {
        let now = Instant::now();
        dismiss(callers, now);
        let mut lanes = self.combiner.lanes();
        let waiting = lanes.entry(self.key.clone()).or_default();
        for late in waiting.extract_if(.., |waiting| waiting.caller.is_late(now)) {
            late.caller.give_up();
        }
        let in_flight = callers.iter().flatten();
        let deadlines =
            in_flight.chain(waiting.iter().map(|waiting| &waiting.caller)).map(|caller| caller.deadline);
        deadlines.min().unwrap_or(now + self.combiner.patience)
    }
}

impl<K: Key, R: Send + 'static, A: Send + 'static> Drop for Lane<'_, K, R, A> {
    fn drop(&mut self) {
        // After a regular end the lane is closed already, and may have been opened by somebody else.
        if std::thread::panicking() {
            self.combiner.lanes().remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::{calendar::Period, counter::Counter, prefix_key::PrefixKey};

    fn counter() -> Counter {
        Counter { key: PrefixKey::parse("A").expect("valid"), period: Period::none() }
    }

    const PATIENCE: Duration = Duration::from_secs(5);

    struct Fake {
        combiner: Arc<Combiner<Counter, u32, u32>>,
        gate: Arc<Semaphore>,
        batches: Arc<Mutex<Vec<Vec<u32>>>>,
        in_flight: Arc<AtomicUsize>,
        returned: Arc<Mutex<Vec<u32>>>,
    }

    /// Each call waits for a permit of `gate`, then answers each request with itself.
    fn fake(requests: usize, together: fn(&u32, &u32) -> bool) -> Fake {
        fake_of(Batching::of(requests, together))
    }

    fn fake_of(batching: Batching<u32>) -> Fake {
        let gate = Arc::new(Semaphore::new(0));
        let batches = Arc::new(Mutex::new(Vec::new()));
        let in_flight = Arc::new(AtomicUsize::new(0));
        let (inner_gate, inner_batches, inner_flight) =
            (Arc::clone(&gate), Arc::clone(&batches), Arc::clone(&in_flight));
        let call: Call<Counter, u32, u32> = Box::new(move |_, requests| {
            let (gate, batches, in_flight) =
                (Arc::clone(&inner_gate), Arc::clone(&inner_batches), Arc::clone(&inner_flight));
            Box::pin(async move {
                assert_eq!(in_flight.fetch_add(1, Ordering::SeqCst), 0, "one call in flight");
                batches.lock().expect("no panic").push(requests.clone());
                gate.acquire().await.expect("open").forget();
                in_flight.fetch_sub(1, Ordering::SeqCst);
                assert!(!requests.contains(&666), "the call panics");
                if requests.contains(&13) {
                    return Err(StoreError::Timeout { store: "fake", operation: "take" });
                }
                Ok(Served::Now(requests))
            })
        });
        let returned = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&returned);
        let undelivered: Undelivered<Counter, u32> =
            Box::new(move |_, answer| list.lock().expect("no panic").push(answer));
        let sizes = BatchSizes::default();
        let combiner = Combiner::new(call, undelivered, batching, PATIENCE, sizes, Lifecycle::new());
        Fake { combiner, gate, batches, in_flight, returned }
    }

    impl Fake {
        async fn submit_all(
            &self,
            requests: &[u32],
        ) -> Vec<tokio::task::JoinHandle<Result<u32, CombineError>>> {
            let mut handles = Vec::new();
            for &request in requests {
                let combiner = Arc::clone(&self.combiner);
                #[expect(clippy::disallowed_methods, reason = "a test's own tasks")]
                handles.push(tokio::spawn(async move { combiner.submit(counter(), request).await }));
                tokio::task::yield_now().await;
            }
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            handles
        }

        fn batches(&self) -> Vec<Vec<u32>> {
            self.batches.lock().expect("no panic").clone()
        }
    }

    #[tokio::test]
    async fn those_who_arrive_during_a_call_share_the_next() {
        let fake = fake(100, |_, _| true);
        let mut handles = fake.submit_all(&[1]).await;
        handles.extend(fake.submit_all(&[2, 3]).await);
        assert_eq!(fake.batches(), [vec![1]], "2 and 3 arrived after the call was sent");
        fake.gate.add_permits(2);
        for (expected, handle) in [1, 2, 3].into_iter().zip(handles) {
            assert_eq!(handle.await.expect("no panic").expect("served"), expected);
        }
        assert_eq!(fake.batches(), [vec![1], vec![2, 3]]);
        assert_eq!(fake.in_flight.load(Ordering::SeqCst), 0);
        fake.submit_all(&[]).await;
        assert!(fake.combiner.lanes().is_empty(), "an idle lane costs nothing");
    }

    #[tokio::test]
    async fn batches_are_bounded_and_of_one_kind() {
        let fake = fake(2, |a, b| a / 10 == b / 10);
        let mut handles = fake.submit_all(&[1]).await;
        handles.extend(fake.submit_all(&[11, 12, 15, 21]).await);
        fake.gate.add_permits(10);
        for handle in handles {
            handle.await.expect("no panic").expect("served");
        }
        assert_eq!(fake.batches(), [vec![1], vec![11, 12], vec![15], vec![21]]);
    }

    #[tokio::test]
    async fn nobody_joins_a_batch_that_is_heavy_enough() {
        let fake = fake_of(Batching {
            weigh: |request| u64::from(*request),
            full: 10,
            ..Batching::of(100, |_, _| true)
        });
        let mut handles = fake.submit_all(&[1]).await;
        handles.extend(fake.submit_all(&[4, 5, 8, 2, 50, 1, 9, 3]).await);
        fake.gate.add_permits(10);
        for handle in handles {
            handle.await.expect("no panic").expect("served");
        }
        assert_eq!(fake.batches(), [vec![1], vec![4, 5, 8], vec![2, 50], vec![1, 9], vec![3]]);
    }

    #[tokio::test]
    async fn an_error_reaches_everybody_in_the_batch_and_nobody_else() {
        let fake = fake(2, |_, _| true);
        let mut handles = fake.submit_all(&[1]).await;
        handles.extend(fake.submit_all(&[13, 14, 15]).await);
        fake.gate.add_permits(10);
        let mut served = Vec::new();
        for handle in handles {
            served.push(handle.await.expect("no panic").is_ok());
        }
        assert_eq!(served, [true, false, false, true]);
    }

    #[tokio::test]
    async fn a_caller_that_left_before_the_call_consumes_nothing() {
        let fake = fake(100, |_, _| true);
        let mut handles = fake.submit_all(&[1]).await;
        handles.extend(fake.submit_all(&[2, 3]).await);
        handles[1].abort();
        tokio::task::yield_now().await;
        fake.gate.add_permits(10);
        for handle in handles {
            let _aborted = handle.await;
        }
        assert_eq!(fake.batches(), [vec![1], vec![3]]);
    }

    #[tokio::test]
    async fn what_was_drawn_for_a_caller_that_left_is_handed_back() {
        let fake = fake(100, |_, _| true);
        let mut handles = fake.submit_all(&[1]).await;
        handles.extend(fake.submit_all(&[2]).await);
        handles[0].abort();
        tokio::task::yield_now().await;
        fake.gate.add_permits(10);
        for handle in handles {
            let _aborted = handle.await;
        }
        assert_eq!(fake.batches(), [vec![1], vec![2]], "the call of the first was under way");
        assert_eq!(*fake.returned.lock().expect("no panic"), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_waits_for_as_long_as_the_others() {
        let fake = fake(2, |_, _| true);
        let mut handles = fake.submit_all(&[1]).await;
        tokio::time::advance(PATIENCE / 2).await;
        handles.extend(fake.submit_all(&[2, 3, 4]).await);
        tokio::time::advance(PATIENCE / 2).await;
        fake.submit_all(&[]).await;
        let is_over = |handles: &[tokio::task::JoinHandle<_>]| {
            handles.iter().map(|handle| handle.is_finished()).collect::<Vec<_>>()
        };
        assert_eq!(is_over(&handles), [true, false, false, false], "the time of the first is up");
        fake.gate.add_permits(1);
        fake.submit_all(&[]).await;
        assert_eq!(*fake.returned.lock().expect("no panic"), [1], "it was drawn all the same");
        assert_eq!(fake.batches(), [vec![1], vec![2, 3]]);
        tokio::time::advance(PATIENCE / 2).await;
        fake.submit_all(&[]).await;
        assert_eq!(is_over(&handles), [true; 4], "in flight, or still waiting");
        for handle in handles {
            let outcome = handle.await.expect("no panic");
            assert!(matches!(outcome, Err(CombineError::TimedOut)), "{outcome:?}");
        }
        fake.gate.add_permits(10);
        fake.submit_all(&[]).await;
        assert_eq!(*fake.returned.lock().expect("no panic"), [1, 2, 3]);
        assert_eq!(fake.batches().len(), 2, "nothing is drawn for who left before the call");
        assert!(fake.combiner.lanes().is_empty());
    }

    #[test]
    fn answers_reach_callers_on_other_runtimes() {
        let runtimes: Vec<_> = (0..3)
            .map(|_| {
                tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()
                    .expect("a runtime")
            })
            .collect();
        let fake = fake(100, |_, _| true);
        fake.gate.add_permits(1_000);
        let handles: Vec<_> = (100..160_u32)
            .map(|request| {
                let combiner = Arc::clone(&fake.combiner);
                runtimes[request as usize % 3].spawn(async move { combiner.submit(counter(), request).await })
            })
            .collect();
        for (expected, handle) in (100..160).zip(handles) {
            assert_eq!(runtimes[0].block_on(handle).expect("no panic").expect("served"), expected);
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_call_does_not_close_the_counter_for_good() {
        let fake = fake(100, |_, _| true);
        let handles = fake.submit_all(&[666]).await;
        fake.gate.add_permits(10);
        for handle in handles {
            assert!(matches!(handle.await.expect("the waiter lives"), Err(CombineError::Abandoned)));
        }
        let again = fake.submit_all(&[7]).await.remove(0);
        assert_eq!(again.await.expect("no panic").expect("served"), 7);
    }
}
