//! The scripts of a counter against `Authority`, which they have to equal: the same answers, the same state, after any messages.

use std::{sync::Arc, time::Duration};

use numgen::{
    clock::{SystemClock, UnixMillis},
    counter::{Counter, SequenceValue, ValueRange},
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    secret::Secret,
    store::{
        counters::Closed,
        protocol::counter::{
            Abandon, Abandoned, Advance, Ask, Authority, ClaimAsk, Generation, Generations, Heard,
            Incarnation, Limits, Marker, Node, NodeState, Outcome, Reply, Segment, Stride, Take, Wants,
        },
        redis::{
            client::{Client, Options},
            counters::RedisAuthority,
        },
    },
    telemetry::Metrics,
};
use proptest::{prelude::*, test_runner::TestRunner};

use super::harness::{Hands, Redis, faketime};

const DEADLINE: Duration = Duration::from_secs(5);
const NODES: usize = 3;
const SIZE: u64 = 10;
const REPLID: u64 = 1;
const DAY_MS: i64 = 86_400_000;

#[derive(Clone, Debug)]
enum Step {
    Ask {
        node: usize,
        count: u64,
        keys: Vec<u8>,
        arrives: bool,
    },
    Wild {
        node: usize,
        count: u64,
        used: Vec<(u64, u64)>,
        surplus: Vec<(u64, u64)>,
        holds: Option<(u64, u64)>,
    },
    Leave {
        node: usize,
    },
    Local {
        node: usize,
        count: u64,
    },
    Repeat {
        index: usize,
    },
    Late {
        index: usize,
    },
    Crash {
        node: usize,
    },
    Wait {
        ms: u64,
    },
    SetBack {
        ms: u64,
    },
    Base {
        ahead: u64,
    },
    Floor {
        ahead: u64,
    },
    Max {
        ahead: u64,
    },
    Advance {
        ahead: u64,
        stride: Stride,
    },
    AbandonNode {
        node: usize,
    },
    AbandonRange {
        back: u64,
        extent: u64,
    },
    /// What is asked under from now on.
    Scheme {
        scheme: u64,
    },
    Fence {
        scheme: u64,
    },
    Settle {
        key: u8,
    },
    Save,
    Rollback,
    /// Counter and marker are what they were: another store, which was left.
    Stray,
    OtherServer,
    /// The counter is as it was, and the marker as it is.
    Forget,
    /// The counter is gone, and the marker is not.
    Lose,
    Empty,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = 0..NODES;
    let stride = prop_oneof![Just(Stride::Clear), Just(Stride::Move), Just(Stride::Desist)];
    let ranges = || prop::collection::vec((0_u64..80, 0_u64..15), 0..3);
    let step = prop_oneof![
        16 => (node.clone(), 0_u64..25, prop::collection::vec(0_u8..6, 0..3), prop::bool::weighted(0.85))
            .prop_map(|(node, count, keys, arrives)| Step::Ask { node, count, keys, arrives }),
        12 => (node.clone(), 1_u64..6).prop_map(|(node, count)| Step::Ask { node, count, keys: Vec::new(), arrives: true }),
        2 => (node.clone(), 0_u64..9, ranges(), ranges(), prop::option::of((0_u64..80, 0_u64..15)))
            .prop_map(|(node, count, used, surplus, holds)| Step::Wild { node, count, used, surplus, holds }),
        1 => node.clone().prop_map(|node| Step::Leave { node }),
        3 => (node.clone(), 1_u64..6).prop_map(|(node, count)| Step::Local { node, count }),
        2 => (0_usize..1_000).prop_map(|index| Step::Repeat { index }),
        2 => (0_usize..1_000).prop_map(|index| Step::Late { index }),
        1 => node.clone().prop_map(|node| Step::Crash { node }),
        3 => prop_oneof![1_u64..500, 1_000_u64..8_000, 55_000_u64..70_000].prop_map(|ms| Step::Wait { ms }),
        1 => prop_oneof![1_u64..3_000, 5_000_u64..9_000].prop_map(|ms| Step::SetBack { ms }),
        1 => (0_u64..60).prop_map(|ahead| Step::Floor { ahead }),
        1 => (0_u64..60).prop_map(|ahead| Step::Max { ahead }),
        1 => (0_u64..60).prop_map(|ahead| Step::Base { ahead }),
        2 => (0_u64..40, stride).prop_map(|(ahead, stride)| Step::Advance { ahead, stride }),
        1 => node.prop_map(|node| Step::AbandonNode { node }),
        1 => (0_u64..60, 0_u64..60).prop_map(|(back, extent)| Step::AbandonRange { back, extent }),
        1 => (0_u8..6).prop_map(|key| Step::Settle { key }),
        2 => (0_u64..4).prop_map(|scheme| Step::Scheme { scheme }),
        2 => (0_u64..4).prop_map(|scheme| Step::Fence { scheme }),
        1 => Just(Step::Save),
        1 => Just(Step::Rollback),
        1 => Just(Step::Stray),
        1 => Just(Step::OtherServer),
        1 => Just(Step::Forget),
        1 => Just(Step::Lose),
        1 => Just(Step::Empty),
    ];
    prop::collection::vec(step, 1..70)
}

/// Where counters begin: also where digits carry, and where doubles and `u64` end.
fn bases() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(9_999_999_950),
        Just((1 << 53) - 40),
        Just(u64::MAX - 40_000),
        Just(u64::MAX - 150),
        any::<u64>(),
    ]
}

/// What the tests have been told, and may be told again.
#[derive(Clone)]
struct Envelope {
    to: usize,
    take: Take,
    reply: Reply,
}

struct Bench {
    server: Redis,
    client: Client,
    authority: RedisAuthority,
    now_ms: u64,
    cases: u64,
}

struct World<'a> {
    bench: &'a mut Bench,
    on: Counter,
    limits: Limits,
    expected: Option<Authority>,
    marker: Option<Marker>,
    saved: (Option<Authority>, Option<Marker>),
    nodes: Vec<Node>,
    ancestors: Vec<Vec<Incarnation>>,
    network: Vec<Envelope>,
    drawn: u128,
    turn: u64,
}

const MARKER: &str = "numgen:generation:{numgen}";

impl Bench {
    async fn query(&self, command: &[&str]) -> Option<String> {
        let (verb, rest) = command.split_first().expect("a command");
        let mut query = redis::cmd(verb);
        query.arg(rest);
        self.client.query("test", &query).await.expect("an answer")
    }
}

impl<'a> World<'a> {
    async fn new(bench: &'a mut Bench, base: u64) -> Self {
        bench.cases += 1;
        bench.query(&["DEL", MARKER]).await;
        let on = Counter {
            key: PrefixKey::parse(&format!("C{}", bench.cases)).expect("valid"),
            period: numgen::calendar::Period::none(),
        };
        bench.authority.enlist(&on, 0, DEADLINE).await.expect("enlisted");
        let limits = Limits {
            base: SequenceValue(base),
            floor: SequenceValue(base),
            max: SequenceValue::MAX,
            scheme: 0,
        };
        let mut world = Self {
            bench,
            on,
            limits,
            expected: None,
            marker: None,
            saved: (None, None),
            nodes: Vec::new(),
            ancestors: vec![Vec::new(); NODES],
            network: Vec::new(),
            drawn: 0,
            turn: 1,
        };
        for index in 0..NODES {
            let node = world.start(index, NodeState::default());
            world.nodes.push(node);
        }
        world
    }

    /// A process; names are not in the order in which they start.
    fn start(&mut self, index: usize, left: NodeState) -> Node {
        self.drawn += 1;
        let incarnation = Incarnation(self.drawn.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835));
        Node::new(
            incarnation,
            format!("node {index}"),
            Generations::default(),
            left,
            self.ancestors[index].clone(),
        )
    }

    fn keys(&self) -> [String; 3] {
        let plain = format!("sequence:{}", self.on);
        [plain.clone(), format!("{{{plain}}}:state"), format!("{{{plain}}}:holes")]
    }

    fn cursor(&self) -> u64 {
        self.expected.as_ref().map_or(self.limits.base.0, |counter| counter.cursor.0)
    }

    fn near(&self, (ahead, extent): (u64, u64)) -> ValueRange {
        let from = self.cursor().saturating_sub(30).saturating_add(ahead);
        ValueRange { from: SequenceValue(from), to: SequenceValue(from.saturating_add(extent)) }
    }

    /// The generation that Redis has begun by itself; where it has begun none, one that it would not have.
    async fn fresh(&self) -> Generation {
        let text = self.bench.query(&["HGET", MARKER, "generation"]).await.expect("a marker");
        let found = Generation(u64::from_str_radix(&text, 16).expect("hexadecimal"));
        let known = self.marker.is_some_and(|marker| marker.generation == found);
        if known { Generation(!found.0) } else { found }
    }

    async fn serve(&mut self, take: &Take) -> Reply {
        let reply = self.bench.authority.take(&self.on, take, DEADLINE).await.expect("an answer");
        let fresh = self.fresh().await;
        let now = self.bench.now_ms;
        let expected = Authority::serve(&mut self.expected, &mut self.marker, REPLID, now, fresh, take);
        assert_eq!(reply, expected, "to {take:?}");
        self.compare().await;
        reply
    }

    async fn compare(&self) {
        let shown = self.bench.authority.show_one(self.on.clone(), DEADLINE).await.expect("shown");
        let without_records =
            self.expected.clone().map(|counter| Authority { records: Default::default(), ..counter });
        assert_eq!(shown.as_ref().map(|shown| &shown.counter), without_records.as_ref());
        if let Some(shown) = shown {
            assert_eq!(shown.now_ms, self.bench.now_ms);
            let plain = self.bench.query(&["GET", &self.keys()[0]]).await;
            assert_eq!(plain, Some((shown.counter.cursor.0 - shown.counter.origin.0).to_string()));
        }
    }

    fn claim(&self, key: u8) -> ClaimAsk {
        let now = UnixMillis(self.bench.now_ms as i64);
        ClaimAsk {
            key: format!("{key:064x}"),
            // Now and then the same key for something else.
            fingerprint: format!("{:08x}", self.network.len() % 5 / 4),
            stamp: format!("a stamp: {key} \u{20ac}\n"),
            count: u64::from(key) % 4 + 1,
            turn: self.turn,
            claimed_at: now,
            expires_at: UnixMillis(now.0 + if key == 0 { 2_000 } else { DAY_MS }),
        }
    }

    fn ask(&self, count: u64, keys: &[u8], leaves: bool) -> Ask {
        Ask {
            count,
            claims: keys.iter().map(|key| self.claim(*key)).collect(),
            limits: self.limits,
            wants: (!leaves && count % 4 != 3).then_some(Wants { size: SIZE }),
            next_beat_ms: 1_000,
            leaves,
            insists: count % 2 == 1,
        }
    }

    fn deliver(&mut self, Envelope { to, take, reply }: Envelope) {
        let node = &mut self.nodes[to];
        if take.incarnation != node.incarnation() {
            return;
        }
        if let Heard::Served { outcome, write, .. } = node.hear(&take, reply) {
            if let Some(state) = write {
                node.adopt(state);
            }
            // Some of what is drawn is handed back.
            if let Outcome::Drawn(values) = outcome
                && take.count % 7 == 6
            {
                node.hand_back(values);
            }
        }
    }

    async fn send(&mut self, to: usize, take: Take, arrives: bool) {
        let reply = self.serve(&take).await;
        let envelope = Envelope { to, take, reply };
        if arrives {
            self.deliver(envelope.clone());
        }
        self.network.push(envelope);
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Ask { node, count, keys, arrives } => {
                let ask = self.ask(count, &keys, false);
                let take = self.nodes[node].ask(ask);
                self.send(node, take, arrives).await;
            }
            Step::Wild { node, count, used, surplus, holds } => {
                let ask = self.ask(count, &[], false);
                let mut take = self.nodes[node].ask(ask);
                let near = |ranges: Vec<_>| ranges.into_iter().map(|range| self.near(range)).collect();
                (take.used, take.surplus) = (near(used), near(surplus));
                take.holds = holds.map(|range| Segment(self.near(range))).or(take.holds);
                self.send(node, take, false).await;
            }
            Step::Leave { node } => {
                let state = self.nodes[node].give_up();
                self.nodes[node].adopt(state);
                let ask = self.ask(0, &[], true);
                let take = self.nodes[node].ask(ask);
                self.send(node, take, true).await;
            }
            Step::Local { node, count } => {
                self.nodes[node].issue_locally(count, self.limits.max);
            }
            Step::Repeat { index } if !self.network.is_empty() => {
                let Envelope { to, mut take, .. } = self.network[index % self.network.len()].clone();
                // Redis forgets records by its own clock: a claim must not be older than that.
                for claim in &mut take.claims {
                    let now = UnixMillis(self.bench.now_ms as i64);
                    let lifetime = claim.expires_at.0 - claim.claimed_at.0;
                    (claim.claimed_at, claim.expires_at) = (now, UnixMillis(now.0 + lifetime));
                }
                self.send(to, take, false).await;
            }
            Step::Late { index } if !self.network.is_empty() => {
                self.deliver(self.network[index % self.network.len()].clone());
            }
            Step::Repeat { .. } | Step::Late { .. } => {}
            Step::Crash { node } => {
                let before = &self.nodes[node];
                let left = before.state().clone();
                self.ancestors[node].push(before.incarnation());
                self.nodes[node] = self.start(node, left);
            }
            Step::Wait { ms } => self.turn_to(self.bench.now_ms + ms),
            Step::SetBack { ms } => self.turn_to(self.bench.now_ms - ms),
            Step::Base { ahead } => self.limits.base = self.near((ahead, 0)).from,
            Step::Floor { ahead } => self.limits.floor = self.near((ahead, 0)).from,
            Step::Max { ahead } => {
                self.limits.max = SequenceValue(self.near((ahead, 0)).from.0.max(self.limits.base.0));
            }
            Step::Advance { ahead, stride } => self.advance(ahead, stride).await,
            Step::AbandonNode { node } => self.abandon(Abandon::Node(format!("node {node}"))).await,
            Step::AbandonRange { back, extent } => {
                self.abandon(Abandon::Range(self.near((back, extent)))).await;
            }
            Step::Scheme { scheme } => self.limits.scheme = scheme,
            Step::Fence { scheme } => self.fence(scheme).await,
            Step::Settle { key } => self.settle(key).await,
            Step::Save => {
                self.saved = (self.expected.clone(), self.marker);
                for key in self.keys().iter().map(String::as_str).chain([MARKER]) {
                    self.bench.query(&["DEL", &format!("saved {key}")]).await;
                    self.bench.query(&["COPY", key, &format!("saved {key}")]).await;
                }
            }
            Step::Rollback => self.roll_back().await,
            Step::Stray => self.stray().await,
            Step::Forget => self.forget(self.saved.0.clone()).await,
            Step::Lose => self.forget(None).await,
            Step::OtherServer => self.meet_another_server().await,
            Step::Empty => self.lose_everything().await,
        }
    }

    fn turn_to(&mut self, now_ms: u64) {
        self.bench.now_ms = now_ms;
        self.bench.server.set_clock(Hands::Standing(UnixMillis(self.bench.now_ms as i64)));
    }

    async fn advance(&mut self, ahead: u64, stride: Stride) {
        let to = self.near((ahead, 0)).from;
        let answer = self.bench.authority.advance(&self.on, to, stride, DEADLINE).await;
        let answer = answer.expect("an answer");
        let (fresh, now) = (self.fresh().await, self.bench.now_ms);
        let counter = Authority::in_force(&mut self.expected, &mut self.marker, REPLID, now, fresh);
        let expected = counter.map_or(Advance::Unknown, |counter| counter.advance(to, stride, now));
        assert_eq!(answer, expected, "{stride:?} to {to}");
        self.compare().await;
    }

    async fn abandon(&mut self, what: Abandon) {
        let answer = self.bench.authority.abandon(&self.on, &what, DEADLINE).await.expect("an answer");
        let (fresh, now) = (self.fresh().await, self.bench.now_ms);
        let counter = Authority::in_force(&mut self.expected, &mut self.marker, REPLID, now, fresh);
        let expected = counter.map_or(Abandoned::Unknown, |counter| counter.abandon(&what, now));
        assert_eq!(answer, expected, "{what:?}");
        self.compare().await;
    }

    async fn fence(&mut self, scheme: u64) {
        let answer = self.bench.authority.fence(&self.on, scheme, DEADLINE).await.expect("an answer");
        let (fresh, now) = (self.fresh().await, self.bench.now_ms);
        let expected = Authority::fence(&mut self.expected, &mut self.marker, REPLID, now, fresh, scheme);
        assert_eq!(answer, expected, "for {scheme}");
        self.compare().await;
    }

    async fn settle(&mut self, key: u8) {
        let claim = self.claim(key);
        let on = self.on.to_string();
        let remember = Duration::from_secs(86_400);
        let authority = self.bench.authority.clone();
        let answer =
            authority.settle(&on, &claim.key, claim.turn, claim.claimed_at, remember, DEADLINE).await;
        let mut none = Default::default();
        let records = self.expected.as_mut().map_or(&mut none, |counter| &mut counter.records);
        let expected = Authority::settle(records, &claim.key, claim.turn, claim.claimed_at);
        assert_eq!(answer.expect("an answer"), expected);
        if self.expected.is_none() {
            self.bench.query(&["DEL", &self.record(key)]).await;
        }
        self.turn += u64::from(key % 2);
    }

    fn record(&self, key: u8) -> String {
        format!("{{sequence:{}}}:key:{key:064x}", self.on)
    }

    /// The counter becomes what it was, but for its records.
    async fn forget(&mut self, was: Option<Authority>) {
        let now = std::mem::replace(&mut self.expected, was);
        for key in self.keys() {
            self.bench.query(&["DEL", &key]).await;
            if self.expected.is_some() {
                self.bench.query(&["COPY", &format!("saved {key}"), &key]).await;
            }
        }
        match (&mut self.expected, now) {
            (Some(counter), Some(now)) => counter.records = now.records,
            _ => self.forget_records().await,
        }
    }

    /// Redis comes back as it was, and is another server.
    async fn roll_back(&mut self) {
        let counter;
        (counter, self.marker) = self.saved.clone();
        self.forget(counter).await;
        self.bench.query(&["DEL", MARKER]).await;
        if let Some(marker) = &mut self.marker {
            marker.replid = REPLID + 1;
            let [since, alive, lacks] =
                [marker.since, marker.alive, marker.lacks_ms].map(|number| number.to_string());
            let generation = marker.generation.to_string();
            let fields = [
                ["generation", &generation],
                ["replid", "another"],
                ["since", &since],
                ["alive", &alive],
                ["lacks", &lacks],
            ];
            self.bench.query(&[&["HSET", MARKER], fields.as_flattened()].concat()).await;
        }
    }

    /// Redis is the one that it was.
    async fn stray(&mut self) {
        let counter;
        (counter, self.marker) = self.saved.clone();
        self.forget(counter).await;
        self.bench.query(&["DEL", MARKER]).await;
        if self.marker.is_some() {
            self.bench.query(&["COPY", &format!("saved {MARKER}"), MARKER]).await;
        }
    }

    async fn forget_records(&mut self) {
        for key in 0..6 {
            self.bench.query(&["DEL", &self.record(key)]).await;
        }
        if let Some(counter) = &mut self.expected {
            counter.records.clear();
        }
    }

    async fn meet_another_server(&mut self) {
        if let Some(marker) = &mut self.marker {
            marker.replid = REPLID + 1;
            self.bench.query(&["HSET", MARKER, "replid", "another"]).await;
        }
    }

    async fn lose_everything(&mut self) {
        self.marker = None;
        self.forget(None).await;
        self.bench.query(&["DEL", MARKER]).await;
    }
}

#[test]
fn the_scripts_do_what_the_authority_does() {
    if faketime().is_none() {
        return;
    }
    let now_ms = 1_750_000_000_000;
    let server = Redis::start_with_clock(Hands::Standing(UnixMillis(now_ms as i64)));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lifecycle = Lifecycle::new();
    let options = Options {
        ca_file: None,
        timeout: DEADLINE,
        clock: Arc::new(SystemClock::new()),
        metrics: Metrics::new(),
    };
    let url = Secret::new(server.url());
    let client = runtime.block_on(Client::connect(&url, options, &lifecycle)).expect("a client");
    let authority = RedisAuthority::new(client.clone());
    let bench = std::cell::RefCell::new(Bench { server, client, authority, now_ms, cases: 0 });
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    let run = |base: u64, steps: Vec<Step>| {
        let mut bench = bench.borrow_mut();
        runtime.block_on(async {
            let mut world = World::new(&mut bench, base).await;
            // Half of the counters go on from a store that has settled.
            for node in 0..NODES {
                world.step(Step::Ask { node, count: 0, keys: Vec::new(), arrives: true }).await;
            }
            let settled_or_not = world.bench.now_ms + 5_000 * (base % 2);
            world.turn_to(settled_or_not);
            for step in steps {
                world.step(step).await;
            }
        });
    };
    // What chance seldom finds: a counter that has gone back, met where nothing else is unusual.
    let ask = |count| Step::Ask { node: 0, count, keys: Vec::new(), arrives: true };
    run(1, vec![ask(0), ask(1), Step::Save, ask(1), Step::Forget, ask(1), ask(1)]);
    // A store goes back to where somebody holds a segment who has swapped it since, and is gone.
    let swapped = (0..12)
        .flat_map(|_| (0..NODES).map(|node| Step::Ask { node, count: 5, keys: Vec::new(), arrives: true }));
    let lost = [Step::Crash { node: 0 }, Step::Forget];
    let heard = (0..6).flat_map(|_| {
        let beats = (0..NODES).map(|node| Step::Ask { node, count: 0, keys: Vec::new(), arrives: true });
        beats.chain([Step::Wait { ms: 2_500 }])
    });
    run(1, [ask(1), Step::Save].into_iter().chain(swapped).chain(lost).chain(heard).collect());
    // A store that was left is met again, by who has seen more than it has, and is asked to begin another generation.
    let settle = || Step::Wait { ms: 5_000 };
    let go_over = vec![ask(1), Step::Save, Step::OtherServer, ask(0), ask(0), settle(), ask(2), ask(2)];
    let stray = vec![Step::Stray, ask(2), ask(2), ask(1), ask(0), settle(), ask(2), ask(2)];
    run(1, [go_over, stray].concat());
    let outcome = TestRunner::new(config).run(&(bases(), steps()), |(base, steps)| {
        run(base, steps);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn a_list_of_any_length_is_closed() {
    const PERIODS: usize = 9_000;
    let server = Redis::start();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lifecycle = Lifecycle::new();
    let options = Options {
        ca_file: None,
        timeout: DEADLINE,
        clock: Arc::new(SystemClock::new()),
        metrics: Metrics::new(),
    };
    runtime.block_on(async {
        let client =
            Client::connect(&Secret::new(server.url()), options, &lifecycle).await.expect("a client");
        let authority = RedisAuthority::new(client.clone());
        let mut add = redis::cmd("SADD");
        add.arg("numgen:periods:LONG");
        (0..PERIODS).for_each(|period| {
            add.arg(format!("{period}"));
        });
        let _added: u64 = client.query("test", &add).await.expect("an answer");
        let key = PrefixKey::parse("LONG").expect("valid");
        let listed = loop {
            match authority.close(&key, 1, DEADLINE).await.expect("closed") {
                Closed::Listed(listed) => break listed,
                Closed::Settling { wait_ms } => tokio::time::sleep(Duration::from_millis(wait_ms)).await,
            }
        };
        assert_eq!(listed.len(), PERIODS);
    });
}

#[test]
fn a_marker_and_a_cursor_can_be_looked_at() {
    let server = Redis::start();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lifecycle = Lifecycle::new();
    let options = Options {
        ca_file: None,
        timeout: DEADLINE,
        clock: Arc::new(SystemClock::new()),
        metrics: Metrics::new(),
    };
    runtime.block_on(async {
        let client =
            Client::connect(&Secret::new(server.url()), options, &lifecycle).await.expect("a client");
        let authority = RedisAuthority::new(client);
        let look = || authority.look(MARKER, DEADLINE);
        let first = look().await.expect("a generation");
        assert_eq!(look().await.expect("a generation"), first);
        server.cli(&["FLUSHALL"]);
        assert_ne!(look().await.expect("a generation"), first);

        let key = PrefixKey::parse("LOOKED").expect("valid");
        let on = Counter { key, period: numgen::calendar::Period::none() };
        assert_eq!(authority.cursor(&on, DEADLINE).await.expect("answered"), None);
        let core = format!("{:020} {:020} {:020} - - - 0 0 0 0", 3, 4, 57);
        server.cli(&["HSET", "{sequence:LOOKED}:state", "core", &core]);
        assert_eq!(authority.cursor(&on, DEADLINE).await.expect("answered"), Some(SequenceValue(57)));
    });
}
