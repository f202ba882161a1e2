//! Several nodes of the service, and everything that can happen to the Redis that they share.
//!
//! Each scenario is real processes on loopback, with callers that ask all the while. It ends with the checkers: no number twice;
//! where nothing was wrong, real-time order; and every value at or below the counter issued, held or listed.

mod accounts;
mod answers;
mod clocks;
mod counters;
mod deployment;
mod failover;
mod full;
mod idempotency;
mod load;
mod orders;
mod outage;
mod policy;
mod recovery;
mod storms;
mod strikes;
mod windows;
mod world;

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{Caller, Redis, Site, Stopwatch, TestServer};

use self::{
    accounts::{assert_accounted, assert_no_gap},
    load::{ENOUGH, Load, Pace, Source, Story},
};

/// Back to normal within this time once what was away is back: the promise.
const NORMAL_WITHIN: Duration = Duration::from_secs(30);
/// How long a Redis that is new to everybody is left alone, so that those who know more can say so.
const SETTLING: Duration = Duration::from_secs(5);

/// Nodes behind one load balancer.
struct Fleet {
    sites: Vec<Site>,
    nodes: Vec<Option<TestServer>>,
    addresses: Addresses,
    watch: Arc<Stopwatch>,
}

/// Where each node listens at present; a node that is started again listens elsewhere.
type Addresses = Arc<Mutex<Vec<Option<SocketAddr>>>>;

impl Fleet {
    /// So many nodes on this Redis, started at the same moment, all ready.
    #[track_caller]
    fn start(redis_url: &str, count: usize) -> Self {
        Self::start_with(redis_url, count, |_, site| site)
    }

    /// The same with settings for each.
    #[track_caller]
    fn start_with(redis_url: &str, count: usize, settings: impl Fn(usize, Site) -> Site) -> Self {
        let mut fleet =
            Self::plan(count, |index, site| settings(index, site.with("NUMGEN_REDIS_URL", redis_url)));
        fleet.start_all();
        fleet
    }

    /// Places for nodes, none of them started.
    fn plan(count: usize, settings: impl Fn(usize, Site) -> Site) -> Self {
        let site = |index: usize| {
            let site = Site::new().with("NUMGEN_NODE_NAME", &format!("node-{index}"));
            settings(index, site.with("NUMGEN_STORAGE_TIMEOUT_MS", "2000"))
        };
        Self {
            sites: (0..count).map(site).collect(),
            nodes: (0..count).map(|_| None).collect(),
            addresses: Arc::new(Mutex::new(vec![None; count])),
            watch: Arc::new(Stopwatch::start()),
        }
    }

    /// Starts every node at the same moment and waits for all.
    #[track_caller]
    fn start_all(&mut self) {
        for index in 0..self.sites.len() {
            self.start_unready(index);
        }
        for index in 0..self.sites.len() {
            self.wait_ready(index);
        }
    }

    /// Starts a node to which nobody is sent yet.
    fn start_unready(&mut self, index: usize) {
        self.nodes[index] = Some(self.sites[index].start_unready());
    }

    /// Waits until a node is ready; from then on callers are sent to it, as a load balancer does.
    #[track_caller]
    fn wait_ready(&self, index: usize) {
        let node = self.node(index);
        node.wait_ready();
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(node.listen);
    }

    #[track_caller]
    fn start_again(&mut self, index: usize) {
        self.start_unready(index);
        self.wait_ready(index);
    }

    #[track_caller]
    fn node(&self, index: usize) -> &TestServer {
        self.nodes[index].as_ref().unwrap_or_else(|| panic!("node {index} runs"))
    }

    fn take(&mut self, index: usize) -> TestServer {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)[index] = None;
        self.nodes[index].take().unwrap_or_else(|| panic!("node {index} runs"))
    }

    fn kill_9(&mut self, index: usize) {
        let _site = self.take(index).kill_9();
    }

    /// Asks a node to stop; nobody is sent to it any more.
    fn ask_to_stop(&self, index: usize) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)[index] = None;
        self.node(index).ask_to_stop();
    }

    #[track_caller]
    fn stop(&mut self, index: usize) {
        let _site = self.take(index).stop();
    }

    /// Somebody with every scope who calls this node.
    #[track_caller]
    fn caller(&self, index: usize) -> Caller {
        Caller::new(self.node(index).listen, Some(self.token()))
    }

    /// Registers a rule at the first node and waits until every node that runs has it.
    #[track_caller]
    fn register(&self, key: &str, rule: &Value) {
        self.caller(0).register(key, rule);
        for index in (0..self.nodes.len()).filter(|&index| self.nodes[index].is_some()) {
            let mut caller = self.caller(index);
            let path = format!("/prefix-configs/{key}");
            Stopwatch::wait_until(SETTLING, "every node knows the rule", || caller.get(&path).status == 200);
        }
    }

    /// What `/readyz` of a node says.
    #[track_caller]
    fn readiness(&self, index: usize) -> (u16, Value) {
        let answer = self.node(index).admin("/readyz").expect("the admin listener answers");
        (answer.status, answer.json())
    }

    /// Whether a node says that none of its counters goes on without its store: what it draws from PostgreSQL meanwhile is `primary`, too.
    fn is_whole(&self, index: usize) -> bool {
        let metrics = self.node(index).admin("/metrics").expect("the admin listener answers").text();
        metrics.lines().any(|line| line == "numgen_counters_away 0")
    }

    /// Waits until every node that runs draws from Redis again, and says that nothing is away; prints how long it took.
    /// What it draws is part of the story.
    #[track_caller]
    fn wait_normal(&self, prefix: &str, what: &str, story: &mut Story) {
        let watch = Stopwatch::start();
        let running: Vec<usize> =
            (0..self.nodes.len()).filter(|&index| self.nodes[index].is_some()).collect();
        for &index in &running {
            let mut caller = self.caller(index);
            Stopwatch::wait_until(NORMAL_WITHIN.saturating_sub(watch.awake()), what, || {
                thread::sleep(Duration::from_millis(20));
                let source = self.draw_from(index, &mut caller, prefix, 1, story);
                source == Some(Source::Primary)
                    && self.is_whole(index)
                    && self.readiness(index).1["status"] == "ready"
            });
        }
        let took_ms = watch.elapsed().as_millis();
        report(&format!("{what}: back to normal after {took_ms} ms, {} nodes", running.len()));
    }

    /// One request, told to the story; where its numbers came from, if there are any.
    #[track_caller]
    fn draw(&self, index: usize, prefix: &str, count: usize, story: &mut Story) -> Option<Source> {
        self.draw_from(index, &mut self.caller(index), prefix, count, story)
    }

    #[track_caller]
    fn draw_from(
        &self,
        index: usize,
        caller: &mut Caller,
        prefix: &str,
        count: usize,
        story: &mut Story,
    ) -> Option<Source> {
        let asked = self.watch.elapsed();
        let Ok(answer) = load::ask(caller, prefix, count) else {
            *caller = caller.again(); // what failed is not used again
            story.unknown += count;
            return None;
        };
        story.note(index, count, asked, self.watch.elapsed(), &answer);
        (answer.status == 200).then(|| Source::of(&answer))
    }

    /// What a node says of the counters of a prefix key.
    #[track_caller]
    fn sequences(&self, index: usize, prefix: &str) -> Value {
        self.caller(index).get(&format!("/sequences/{prefix}")).expect(200).json()
    }

    /// Waits until every node that runs holds a segment of this counter, as it does soon after it has drawn from it.
    #[track_caller]
    fn wait_segments(&self, prefix: &str) {
        let running = self.nodes.iter().flatten().count();
        Stopwatch::wait_until(SETTLING * 2, "every node holds a segment", || {
            let index = self.nodes.iter().position(Option::is_some).expect("a node");
            let sequences = self.sequences(index, prefix);
            let segments = sequences["counters"][0]["segments"].as_array().cloned().unwrap_or_default();
            let holders: BTreeSet<&str> = segments
                .iter()
                .filter(|segment| segment["state"] == "held")
                .filter_map(|segment| segment["node"].as_str())
                .collect();
            holders.len() == running
        });
    }

    fn token(&self) -> String {
        self.sites[0].token(&["--scope", "admin", "--sub", "tester", "--ttl", "240h"])
    }
}

/// Says what was measured, and where the stages of `make test` collect such lines, also there.
fn report(line: &str) {
    println!("{line}");
    if let Some(file) = std::env::var_os("NUMGEN_TEST_REPORT") {
        let appended = fs::OpenOptions::new().create(true).append(true).open(file);
        appended.and_then(|mut file| writeln!(file, "{line}")).expect("the report is written");
    }
}

/// A Redis that nodes have used before: nothing has to settle any more.
#[track_caller]
fn settled() -> Redis {
    let redis = Redis::start();
    settle(&redis);
    redis
}

/// Writes what nodes would have written there long ago.
#[track_caller]
fn settle(redis: &Redis) {
    let replid = redis.info("replication", "master_replid");
    let marker = "numgen:generation:{numgen}";
    redis.cli(&[
        "HSET",
        marker,
        "generation",
        "0123456789abcdef",
        "replid",
        &replid,
        "since",
        "1700000000000",
    ]);
}

/// A rule that counts.
fn counting() -> Value {
    json!({ "format": "N-{SEQ:9}", "mode": "continuous" })
}

/// A rule of snowflakes.
fn flaking() -> Value {
    json!({ "format": "F-{SEQ:19}" })
}

/// Which worker made this snowflake.
#[track_caller]
fn worker_of(caller: &mut Caller, prefix: &str, number: &str) -> u64 {
    let answer =
        caller.get(&format!("/numbers/decode?prefixKey={prefix}&number={number}")).expect(200).json();
    answer["worker"].as_u64().unwrap_or_else(|| panic!("no worker in {answer}"))
}
