//! Worker windows on a real Redis: the scripts against the protocol, and workers against its outages.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use numgen::{
    clock::{SystemClock, UnixMillis},
    counter::Ranges,
    lifecycle::Lifecycle,
    secret::Secret,
    snowflake::Layout,
    store::{
        AcquireRequest, Acquired, Extension, Generation, Holding, IdMillis, Nonce, Renewed, Tenure,
        WorkerStore,
        protocol::window::{Company, Contact, Phase, ServerId, Slots, Terms},
        redis::{
            RedisStore, Settings as StoreSettings,
            client::{Client, Options},
            workers::Workers,
        },
    },
    telemetry::Metrics,
    worker::{AcquireError, Settings, Sharing, Standing, Worker},
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use serde_json::json;

use crate::harness::{Caller, Data, Fault, Hands, Proxy, Redis, Site, Stopwatch, TestServer};

const EPOCH: UnixMillis = UnixMillis(1_704_067_200_000);
const NOON: UnixMillis = UnixMillis(1_795_348_800_000);
const TTL_MS: u64 = 15_000;

async fn workers_of(redis: &Redis, lifecycle: &Lifecycle) -> Workers {
    let clock = Arc::new(SystemClock::new());
    let timeout = Duration::from_secs(5);
    let options = Options { ca_file: None, timeout, clock: clock.clone(), metrics: Metrics::new() };
    let client = Client::connect(&Secret::new(redis.url()), options, lifecycle).await.expect("a client");
    RedisStore::new(client, StoreSettings { epoch: EPOCH, timeout }).workers(0)
}

// ------------------------------------------------------------------------- the scripts and the protocol

#[derive(Clone, Debug)]
enum Step {
    Acquire {
        worker: usize,
        tenure: Tenure,
    },
    Renew {
        worker: usize,
        carried_off_ms: i64,
        tenure: Tenure,
    },
    /// With what was known before the last answer: a request that comes late, or twice.
    RenewLate {
        worker: usize,
    },
    Release {
        worker: usize,
        used_per_mille: u64,
    },
    ReleaseLate {
        worker: usize,
    },
    Pass {
        ms: i64,
    },
    Flush,
    /// Another server, which knows everything, or nothing of a slot.
    Promote {
        forgotten: Option<u32>,
    },
    /// Its replicas have left it.
    Desert,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let worker = 0..4_usize;
    let tenure = prop_oneof![3 => Just(Tenure::Lease), 1 => Just(Tenure::Fixed)];
    let pass = prop_oneof![4 => 1..2_000_i64, 2 => Just(5_000), 1 => Just(95_000), 1 => -100_000..0_i64];
    let step = prop_oneof![
        6 => (worker.clone(), tenure.clone())
            .prop_map(|(worker, tenure)| Step::Acquire { worker, tenure }),
        6 => (worker.clone(), -8_000..8_000_i64, tenure)
            .prop_map(|(worker, carried_off_ms, tenure)| Step::Renew { worker, carried_off_ms, tenure }),
        2 => worker.clone().prop_map(|worker| Step::RenewLate { worker }),
        2 => (worker.clone(), 0..=1_000_u64)
            .prop_map(|(worker, used_per_mille)| Step::Release { worker, used_per_mille }),
        1 => worker.prop_map(|worker| Step::ReleaseLate { worker }),
        8 => pass.prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Flush),
        2 => prop::option::of(0..3_u32).prop_map(|forgotten| Step::Promote { forgotten }),
        1 => Just(Step::Desert),
    ];
    prop::collection::vec(step, 1..80)
}

/// Redis beside the protocol, both asked the same.
struct Twins<'a> {
    redis: &'a Redis,
    workers: &'a Workers,
    slots: Slots,
    now: UnixMillis,
    memories: u64,
    /// The protocol's name of each of Redis' generations.
    names: BTreeMap<Generation, Generation>,
    /// What each worker holds, as Redis and as the protocol says, now and before.
    held: [Option<[(Holding, Holding); 2]>; 4],
    nonces: u128,
}

impl Twins<'_> {
    fn contact(&mut self) -> Contact {
        let now = u64::try_from(self.now.0 - EPOCH.0).expect("after the epoch");
        self.memories += 1;
        Contact {
            now,
            presence_ms: now,
            server: ServerId(1),
            company: Company::Alone,
            fresh: Generation(self.memories),
        }
    }

    /// Redis' answer in the protocol's words.
    fn translated(&mut self, real: Generation, named: Generation) -> Generation {
        *self.names.entry(real).or_insert(named)
    }

    async fn acquire(&mut self, worker: usize, tenure: Tenure) {
        let nonce = match &self.held[worker] {
            Some(held) => held[0].0.nonce,
            None => {
                self.nonces += 1;
                Nonce((self.nonces << 64).to_be_bytes())
            }
        };
        let request = AcquireRequest { nonce, slots: 0..3, window_ms: 30_000, ttl_ms: TTL_MS, tenure };
        let contact = self.contact();
        let expected = self.slots.acquire(&Terms::SHARED, &request, &contact);
        let answer = self.workers.acquire(request).await.expect("answered");
        match (answer, expected) {
            (Acquired::Held(real), Acquired::Held(told)) => {
                let generation = self.translated(real.generation, told.generation);
                assert_eq!(Holding { generation, ..real }, told);
                self.held[worker] = Some([(real, told); 2]);
            }
            (answer, expected) => assert_eq!(answer, expected),
        }
    }

    async fn renew(&mut self, worker: usize, carried_off_ms: i64, tenure: Tenure, age: usize) {
        let Some(held) = self.held[worker] else { return };
        let contact = self.contact();
        let carried = contact.now.saturating_add_signed(carried_off_ms);
        let extension = Extension { carried, window_ms: 30_000, ttl_ms: TTL_MS, tenure };
        let (real, told) = held[age];
        let expected = self.slots.renew(&Terms::SHARED, &told, &extension, &contact);
        match (self.workers.renew(real, extension).await.expect("answered"), expected) {
            (Renewed::Lost, Renewed::Lost) => {
                self.held[worker] = self.held[worker].filter(|_| age == 1);
            }
            (
                Renewed::Extended { mark, now, generation },
                Renewed::Extended { mark: told_mark, now: told_now, generation: told_generation },
            ) => {
                let translated = self.translated(generation, told_generation);
                assert_eq!((mark, now, translated), (told_mark, told_now, told_generation));
                let newer = (
                    Holding { mark, generation, ..real },
                    Holding { mark, generation: told_generation, ..told },
                );
                self.held[worker] = Some([newer, held[0]]);
            }
            (answer, expected) => panic!("{answer:?} instead of {expected:?}"),
        }
    }

    async fn release(&mut self, worker: usize, used_per_mille: u64, age: usize) {
        let Some(held) = self.held[worker] else { return };
        let (real, told) = held[age];
        let last = told.start + (told.mark - told.start) * used_per_mille / 1_000;
        let contact = self.contact();
        self.slots.release(&Terms::SHARED, &told, last, &contact);
        self.workers.release(real, last).await.expect("released");
        if age == 0 {
            self.held[worker] = None;
        }
    }

    /// Slots that could be leased now: only of a memory that both have begun.
    async fn count_free(&mut self) {
        let contact = self.contact();
        if self
            .slots
            .marker
            .is_some_and(|marker| (marker.phase, marker.server) == (Phase::Settled, contact.server))
        {
            let expected = self.slots.free(&Terms::SHARED, 0..3, &contact);
            let counted = self.workers.free_slots(0..3).await.expect("answered");
            assert_eq!(counted, Some(u32::try_from(expected).expect("three at most")));
        }
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Acquire { worker, tenure } => self.acquire(worker, tenure).await,
            Step::Renew { worker, carried_off_ms, tenure } => {
                self.renew(worker, carried_off_ms, tenure, 0).await;
            }
            Step::RenewLate { worker } => self.renew(worker, 0, Tenure::Lease, 1).await,
            Step::Release { worker, used_per_mille } => self.release(worker, used_per_mille, 0).await,
            Step::ReleaseLate { worker } => self.release(worker, 500, 1).await,
            Step::Pass { ms } => {
                self.now = UnixMillis(self.now.0 + ms);
                self.redis.set_clock(Hands::Standing(self.now));
            }
            Step::Flush => {
                self.redis.cli(&["FLUSHALL"]);
                self.slots = Slots::default();
            }
            Step::Desert => {
                let generation = self.redis.cli(&["HGET", "numgen:generation:{numgen}", "generation"]);
                let now = self.contact().now;
                let followed = format!("{} {now}", generation.trim());
                self.redis.cli(&["HSET", "numgen:worker:{worker:0}:holdings", "followed", &followed]);
                self.slots.followed = self.slots.marker.map(|marker| (marker.generation, now));
            }
            Step::Promote { forgotten } => {
                self.redis.cli(&["HSET", "numgen:generation:{numgen}", "replid", "another"]);
                if let Some(marker) = &mut self.slots.marker {
                    marker.server = ServerId(2);
                }
                if let Some(slot) = forgotten {
                    self.redis.cli(&["DEL", &format!("numgen:worker:{{worker:0}}:slot:{slot}")]);
                    self.slots.slots.remove(&slot);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scripts_do_what_the_protocol_says() {
    if crate::harness::faketime().is_none() {
        return;
    }
    let redis = Redis::start_with_clock(Hands::Standing(NOON));
    let lifecycle = Lifecycle::new();
    let workers = workers_of(&redis, &lifecycle).await;
    let mut runner = TestRunner::default();
    let mut answers = 0;
    for case in 0..60 {
        let schedule = steps().new_tree(&mut runner).expect("a schedule").current();
        redis.cli(&["FLUSHALL"]);
        redis.set_clock(Hands::Standing(NOON));
        let mut twins = Twins {
            redis: &redis,
            workers: &workers,
            slots: Slots::default(),
            now: NOON,
            memories: 0,
            names: BTreeMap::new(),
            held: [None; 4],
            nonces: case << 32,
        };
        eprintln!("schedule: {schedule:?}");
        for step in &schedule {
            twins.take(step).await;
            twins.count_free().await;
            answers += 1;
        }
    }
    println!("{answers} equal answers");
    lifecycle.drain();
}

// ----------------------------------------------------------------------------------------- workers

/// Some workers on one Redis, and all that they issued.
struct Fleet {
    redis: Redis,
    /// Connections end after what uses them.
    lifecycle: Lifecycle,
    keeping: Lifecycle,
    settings: Settings,
    workers: Vec<Worker>,
    issued: BTreeSet<u64>,
}

fn settings(layout: Layout) -> Settings {
    Settings {
        layout,
        datacenter: 0,
        slots: 0..layout.max_worker() + 1,
        window: Duration::from_secs(600),
        renew_every: Settings::RENEW_EVERY,
        ttl: Duration::from_millis(TTL_MS),
        max_ahead: Duration::from_millis(50),
        sharing: Sharing::Shared { pinned: format!("{layout} in a test") },
    }
}

impl Fleet {
    async fn start(layout: Layout, count: usize) -> Self {
        let mut fleet = Self {
            redis: Redis::start(),
            lifecycle: Lifecycle::new(),
            keeping: Lifecycle::new(),
            settings: settings(layout),
            workers: Vec::new(),
            issued: BTreeSet::new(),
        };
        for _ in 0..count {
            fleet.join().await.expect("nothing forbids it");
        }
        fleet
    }

    async fn join(&mut self) -> Result<(), AcquireError> {
        let store = Arc::new(workers_of(&self.redis, &self.lifecycle).await);
        let worker = Worker::start(store, self.settings.clone(), Arc::new(SystemClock::new())).await?;
        self.keeping.spawn(worker.clone().keep(self.keeping.clone()));
        self.workers.push(worker);
        Ok(())
    }

    /// Issues from every worker that can; answers how many could. Panics at the first ID that was issued before.
    fn issue(&mut self) -> usize {
        let mut able = 0;
        for worker in &self.workers {
            let mut ids = Ranges::new();
            if let Some(sequencer) = worker.ids().sequencer().as_deref()
                && let Ok(drawn) = sequencer.draw(worker.ids().now(), 3)
            {
                sequencer.ids(&drawn, &mut ids);
                able += 1;
            }
            for id in ids.values() {
                assert!(self.issued.insert(id.0), "{} was issued before", id.0);
            }
        }
        able
    }

    /// Issues until so many workers can, for `limit` at most.
    async fn until_able(&mut self, count: usize, limit: Duration) -> Duration {
        let begun = tokio::time::Instant::now();
        while self.issue() < count {
            let standing: Vec<_> = self.workers.iter().map(|worker| worker.standing().to_string()).collect();
            assert!(begun.elapsed() < limit, "{count} workers should issue by now: {standing:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        begun.elapsed()
    }

    /// Issues all the time, and expects every worker to be able to, always.
    async fn issue_for(&mut self, time: Duration) {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < time {
            assert_eq!(self.issue(), self.workers.len(), "issuing goes on");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn end(self) {
        self.keeping.drain();
        self.lifecycle.drain();
    }

    fn slots(&self) -> BTreeSet<u32> {
        self.workers.iter().map(|worker| worker.ids().worker()).collect()
    }
}

const SETTLED: Duration = Duration::from_secs(9);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_once_on_an_empty_redis_take_different_slots() {
    let mut fleet = Fleet::start(Layout::DEFAULT, 4).await;
    assert_eq!(fleet.issue(), 0, "it has to settle first");
    assert_eq!(fleet.workers[0].standing(), Standing::Settling);
    let took = fleet.until_able(4, SETTLED).await;
    assert!(took > Duration::from_secs(3), "{took:?}");
    assert_eq!(fleet.slots(), BTreeSet::from([0, 1, 2, 3]));
    fleet.issue_for(Duration::from_secs(2)).await;
    fleet.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extra_node_waits_for_a_slot_and_says_what_limits_it() {
    let layout: Layout = "41/5/1/16".parse().expect("a layout");
    let mut fleet = Fleet::start(layout, 3).await;
    fleet.until_able(2, SETTLED).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let extra = fleet.workers.iter().position(|worker| worker.standing() != Standing::Held).expect("one");
    let said = fleet.workers[extra].standing().to_string();
    assert!(
        said.contains("all 2 worker IDs are taken") && said.contains("NUMGEN_SNOWFLAKE_LAYOUT"),
        "{said}"
    );
    let extra = fleet.workers.remove(extra);
    let leaving = fleet.workers.remove(0);
    fleet.keeping.drain();
    fleet.keeping.finished(Duration::from_secs(2)).await;
    leaving.release().await.expect("released");
    fleet.workers.push(extra);
    for worker in &fleet.workers {
        worker.renew_or_acquire().await.expect("the slot is free at once");
    }
    assert_eq!(fleet.issue(), 2);
    fleet.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issuing_goes_on_over_flushall_and_nobody_takes_a_slot_that_is_held() {
    let mut fleet = Fleet::start(Layout::DEFAULT, 2).await;
    fleet.until_able(2, SETTLED).await;
    let slots = fleet.slots();
    fleet.redis.cli(&["FLUSHALL"]);
    fleet.issue_for(Duration::from_secs(2)).await;
    assert_eq!(fleet.slots(), slots, "put back");
    fleet.join().await.expect("nothing forbids it");
    fleet.until_able(3, SETTLED).await;
    assert_eq!(fleet.slots().len(), 3);
    fleet.issue_for(Duration::from_secs(1)).await;
    fleet.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issuing_goes_on_over_a_restart_from_an_old_dump() {
    let mut fleet = Fleet::start(Layout::DEFAULT, 1).await;
    fleet.until_able(1, SETTLED).await;
    let dump = fleet.redis.dump();
    fleet.join().await.expect("nothing forbids it");
    fleet.until_able(2, Duration::from_secs(3)).await;
    fleet.issue_for(Duration::from_secs(2)).await;
    let slots = fleet.slots();
    fleet.redis.kill();
    fleet.issue_for(Duration::from_secs(1)).await;
    fleet.redis.start_again(Data::Dump(dump));
    fleet.issue_for(Duration::from_secs(3)).await;
    assert_eq!(fleet.slots(), slots, "the second was put back, though the dump knows nothing of it");
    fleet.join().await.expect("nothing forbids it");
    fleet.until_able(3, SETTLED).await;
    assert_eq!(fleet.slots().len(), 3);
    fleet.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_bears_one_layout_and_one_data_centre() {
    let mut fleet = Fleet::start(Layout::DEFAULT, 1).await;
    fleet.settings.sharing = Sharing::Shared { pinned: "41/5/5/12 in another data centre".to_owned() };
    let refused = fleet.join().await.expect_err("IDs could repeat");
    assert!(refused.is_final());
    let said = refused.to_string();
    assert!(said.contains("NUMGEN_DATACENTER_ID") && said.contains("41/5/5/12 in a test"), "{said}");
    fleet.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_waits_for_a_redis_that_is_away_at_the_start() {
    let mut fleet = Fleet::start(Layout::DEFAULT, 0).await;
    fleet.redis.kill();
    fleet.join().await.expect("not fatal");
    assert_eq!(fleet.workers[0].standing(), Standing::Away);
    assert_eq!(fleet.issue(), 0);
    fleet.redis.start_again(Data::Empty);
    fleet.until_able(1, Duration::from_secs(15)).await;
    fleet.end();
}

/// So that a reader of the marks sees ID timestamps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_are_written_in_the_domain_of_id_timestamps() {
    let mut fleet = Fleet::start(Layout::DEFAULT, 1).await;
    fleet.until_able(1, SETTLED).await;
    let mark: IdMillis =
        fleet.redis.cli(&["HGET", "numgen:worker:{worker:0}:slot:0", "mark"]).parse().expect("a number");
    let now = u64::try_from(fleet.redis.time_ms() - EPOCH.0).expect("after the epoch");
    assert!((now + 20_000..now + 40_000).contains(&mark), "{mark} is not half a minute ahead of {now}");
    fleet.end();
}

// --------------------------------------------------------------------------------------- processes

/// `count` IDs of a node, `None` where it cannot issue now.
fn flakes(caller: &mut Caller, count: usize) -> Option<Vec<String>> {
    let response = caller.get(&format!("/numbers/FLAKE?count={count}"));
    (response.status == 200).then(|| response.numbers())
}

/// A node on `redis`, ready, with a window that is used up soon.
fn node(redis: &Redis, name: &str) -> TestServer {
    let site = Site::new().with("NUMGEN_REDIS_URL", &redis.url());
    site.with("NUMGEN_NODE_NAME", name).with("NUMGEN_WORKER_WINDOW_MS", "2000").start()
}

#[test]
fn a_process_that_was_stopped_past_its_window_never_repeats_an_id() {
    let redis = Redis::start();
    let nodes = [node(&redis, "one"), node(&redis, "two")];
    let mut callers = nodes.each_ref().map(TestServer::caller);
    callers[0].register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
    Stopwatch::wait_until(Duration::from_secs(6), "the other node knows the rule", || {
        flakes(&mut callers[1], 1).is_some()
    });
    let mut all = BTreeSet::new();
    let mut collect = |ids: Option<Vec<String>>| {
        let ids = ids.unwrap_or_default();
        let count = ids.len();
        for id in ids {
            assert!(all.insert(id.clone()), "{id} twice");
        }
        count
    };
    for _ in 0..3 {
        for caller in &mut callers {
            assert_eq!(collect(flakes(caller, 100)), 100);
        }
        nodes[0].pause();
        let paused = Stopwatch::start();
        while paused.elapsed() < Duration::from_secs(4) {
            assert_eq!(collect(flakes(&mut callers[1], 100)), 100, "the other goes on");
        }
        nodes[0].resume();
        // Its window is used up; in a moment it has another.
        Stopwatch::wait_until(Duration::from_secs(5), "it issues again", || {
            collect(flakes(&mut callers[0], 100)) == 100
        });
    }
    assert!(redis.cli(&["HGET", "numgen:worker:{worker:0}:slot:0", "mark"]).parse::<u64>().is_ok());
}

#[test]
fn a_second_process_with_the_same_worker_id_is_refused_and_says_so() {
    let redis = Redis::start();
    let site = || Site::new().with("NUMGEN_REDIS_URL", &redis.url()).with("NUMGEN_WORKER_ID", "3");
    let first = site().start();
    let mut caller = first.caller();
    caller.register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
    assert!(flakes(&mut caller, 10).is_some());
    let second = site().start_unready();
    Stopwatch::wait_until(Duration::from_secs(10), "the second says why it has no window", || {
        second.admin("/readyz").is_ok_and(|response| {
            response.status == 503
                && response.text().contains("worker ID 3 is taken by another node (NUMGEN_WORKER_ID)")
        })
    });
    assert!(flakes(&mut caller, 10).is_some());
    drop(first.stop());
    second.wait_ready();
}

/// It may go on without that Redis for longer than anybody remembers it there.
#[test]
fn no_lease_follows_a_fixed_worker_id_that_was_cut_off() {
    let redis = Redis::start();
    let to_redis = Proxy::to(redis.port());
    let fixed =
        Site::new().with("NUMGEN_REDIS_URL", &to_redis.redis_url()).with("NUMGEN_WORKER_ID", "0").start();
    let mut caller = fixed.caller();
    caller.register("FLAKE", &json!({ "format": "F-{worker}-{SEQ:19}" }));
    let mut all = BTreeSet::new();
    assert!(collect(&mut caller, &mut all));
    to_redis.set(Fault::BlackHole);
    // What it claims lapses after 15 s and is used up after 30.
    let watch = Stopwatch::start();
    while watch.elapsed() < Duration::from_secs(33) {
        collect(&mut caller, &mut all);
        std::thread::sleep(Duration::from_millis(100));
    }
    let leasing = node(&redis, "leasing");
    leasing.wait_ready();
    let mut other = leasing.caller();
    let mut issue = |caller: &mut Caller| {
        let mut workers = BTreeSet::new();
        for number in flakes(caller, 100).expect("issued") {
            workers.insert(number.split('-').nth(1).expect("a worker").to_owned());
            assert!(all.insert(number.clone()), "{number} twice");
        }
        workers
    };
    for _ in 0..5 {
        let (one, another) = (issue(&mut caller), issue(&mut other));
        assert!(one.is_disjoint(&another), "{one:?} {another:?}");
    }
}

/// The operator's word: nobody else has the ID, so that nobody need be asked.
#[test]
fn a_fixed_worker_id_starts_and_goes_on_without_redis() {
    let mut redis = Redis::start();
    let site = Site::new().with("NUMGEN_REDIS_URL", &redis.url()).with("NUMGEN_WORKER_ID", "3");
    let node = site.start();
    let mut caller = node.caller();
    caller.register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
    let mut all: BTreeSet<String> = flakes(&mut caller, 10).expect("issued").into_iter().collect();
    let site = node.stop();
    // Connections are accepted, and nothing is answered.
    redis.pause();
    let node = issuing(&site, &mut all, "it issues beside a silent Redis");
    // A stall ends the window, which is a second long; another one needs nobody either.
    for _ in 0..3 {
        node.pause();
        std::thread::sleep(Duration::from_millis(1_500));
        node.resume();
        let mut caller = node.caller();
        let what = "it issues after a stall";
        Stopwatch::wait_until(Duration::from_secs(3), what, || collect(&mut caller, &mut all));
    }
    let site = node.kill_9();
    redis.resume();
    redis.kill();
    let node = issuing(&site, &mut all, "it issues where nobody listens");
    // Renewals wait for Redis, and the window does not run out meanwhile, unless nobody was run for as long as it is renewed ahead.
    let (mut caller, watch) = (node.caller(), Stopwatch::start());
    while watch.elapsed() < Duration::from_secs(4) {
        let goes_on = collect(&mut caller, &mut all);
        let stalled = watch.elapsed().saturating_sub(watch.awake());
        assert!(
            goes_on || stalled >= Duration::from_millis(500),
            "it goes on; the machine stalled for {stalled:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a node, and waits until it issues.
fn issuing(site: &Site, all: &mut BTreeSet<String>, what: &str) -> TestServer {
    let node = site.start();
    let mut caller = node.caller();
    Stopwatch::wait_until(Duration::from_secs(3), what, || collect(&mut caller, all));
    node
}

/// Draws, and notes what is drawn; whether anything was.
fn collect(caller: &mut Caller, all: &mut BTreeSet<String>) -> bool {
    let drawn = flakes(caller, 10).unwrap_or_default();
    let is_any = !drawn.is_empty();
    for number in drawn {
        assert!(all.insert(number.clone()), "{number} twice");
    }
    is_any
}
