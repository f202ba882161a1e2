//! Idempotency keys that come back to another counter, another period or another mode, from many nodes at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use numgen::{
    calendar::Period,
    clock::{SystemClock, UnixMillis},
    counter::{Counter, Ranges, SequenceValue, ValueRange},
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    secret::Secret,
    store::{
        Claim, IdempotencyStore, Taken,
        counters::{PinOutcome, claim_ask},
        protocol::counter::{ClaimAnswer, Generation, Incarnation, Limits, Outcome, Reply, Take},
        redis::{
            RedisStore, Settings,
            client::{Client, Options},
            counters::RedisAuthority,
        },
    },
    telemetry::Metrics,
};

use super::harness::{Hands, Redis, faketime};

const DEADLINE: Duration = Duration::from_secs(20);
const NOW: UnixMillis = UnixMillis(1_795_348_800_000);

struct Bench {
    authority: RedisAuthority,
    store: RedisStore,
    /// Heard of first thing: who claims to know of an earlier one is one more to be waited for.
    generation: Option<Generation>,
    processes: AtomicU64,
    _lifecycle: Lifecycle,
    server: Redis,
}

/// What a request was given, and whether it drew.
type Given = (Vec<u64>, bool);

impl Bench {
    /// `None` where the clock cannot be moved.
    async fn start() -> Option<Self> {
        faketime()?;
        let server = Redis::start_with_clock(Hands::Standing(NOW));
        let lifecycle = Lifecycle::new();
        let clock = Arc::new(SystemClock::new());
        let options =
            Options { ca_file: None, timeout: DEADLINE, clock: clock.clone(), metrics: Metrics::new() };
        let client =
            Client::connect(&Secret::new(server.url()), options, &lifecycle).await.expect("a client");
        let authority = RedisAuthority::new(client.clone());
        let store = RedisStore::new(client, Settings { epoch: UnixMillis(0), timeout: DEADLINE });
        let processes = AtomicU64::new(1);
        let mut bench = Self { authority, store, generation: None, processes, _lifecycle: lifecycle, server };
        bench.take(&counter(0), Vec::new()).await;
        bench.server.set_clock(Hands::Standing(NOW.plus(Duration::from_secs(6))));
        let reply = bench.take(&counter(0), Vec::new()).await;
        let Reply::Recover { generation, .. } = reply else { panic!("{reply:?}") };
        bench.generation = Some(generation);
        Some(bench)
    }

    /// A TAKE of a new process.
    async fn take(&self, on: &Counter, claims: Vec<numgen::store::protocol::counter::ClaimAsk>) -> Reply {
        let take = Take {
            incarnation: Incarnation(self.processes.fetch_add(1, Ordering::Relaxed).into()),
            node: "a node".into(),
            generation: self.generation,
            call: 1,
            count: 0,
            claims,
            limits: Limits {
                base: SequenceValue(0),
                floor: SequenceValue(0),
                max: SequenceValue::MAX,
                scheme: 0,
            },
            seen: None,
            holds: None,
            used: Vec::new(),
            distrusts: None,
            surplus: Vec::new(),
            wants: None,
            retires: Vec::new(),
            covers: Vec::new(),
            peers: Vec::new(),
            horizon: SequenceValue(0),
            next_beat_ms: 1_000,
            leaves: false,
        };
        self.authority.take(on, &take, DEADLINE).await.expect("an answer")
    }

    async fn claim(&self, on: &Counter, claim: &Claim, turn: u64) -> ClaimAnswer {
        let reply = self.take(on, vec![claim_ask(claim, 2, turn)]).await;
        let Reply::Taken { outcome: Outcome::Drawn(_), mut claims, .. } = reply else { panic!("{reply:?}") };
        claims.pop().expect("an answer")
    }

    /// A request, as a node serves it. Gives up before the draw, now and then.
    async fn draw(&self, on: &Counter, claim: &Claim, patience: u64) -> Option<Given> {
        let mut moved = None;
        for round in 0.. {
            let turn = match self.authority.resolve_pin(claim, on, moved, DEADLINE).await.expect("an answer")
            {
                PinOutcome::Draw { turn } => turn,
                PinOutcome::Recorded(recorded) => {
                    return Some((recorded.values.values().map(|value| value.0).collect(), false));
                }
                PinOutcome::Mismatch => panic!("the same request"),
            };
            if round >= patience {
                return None;
            }
            match self.claim(on, claim, turn).await {
                ClaimAnswer::Fresh(values) => return Some((numbers(&values), true)),
                ClaimAnswer::Replayed { values, .. } => return Some((numbers(&values), false)),
                ClaimAnswer::Moved => moved = Some(turn),
                ClaimAnswer::Mismatch => panic!("the same request"),
            }
        }
        None
    }

    /// A request of a rule that draws snowflakes.
    async fn remember(&self, claim: &Claim, values: Ranges) -> Given {
        let (values, fresh) = match self.store.remember(claim.clone(), values).await.expect("an answer") {
            Taken::Fresh(values) => (values, true),
            Taken::Replayed(recorded) => (recorded.values, false),
            other @ (Taken::Segment(_) | Taken::Mismatch | Taken::Overflow | Taken::Away) => {
                panic!("{other:?}")
            }
        };
        (values.values().map(|value| value.0).collect(), fresh)
    }
}

fn counter(year: u32) -> Counter {
    Counter { key: PrefixKey::parse("ORDERS").expect("valid"), period: Period::new(2026 + year) }
}

fn claim(key: &str) -> Claim {
    Claim {
        scoped_key: key.into(),
        fingerprint: [7; 32],
        stamp: "stamp".into(),
        claimed_at: NOW,
        expires_at: NOW.plus(Duration::from_secs(3_600)),
    }
}

fn numbers(values: &[ValueRange]) -> Vec<u64> {
    values.iter().flat_map(|range| range.from.0..=range.to.0).collect()
}

fn snowflake(value: u64) -> Ranges {
    ValueRange { from: SequenceValue(value), to: SequenceValue(value + 1) }.into()
}

#[tokio::test]
async fn a_key_follows_its_first_draw_into_another_period() {
    let Some(bench) = Bench::start().await else { return };
    let key = claim("k");
    assert_eq!(bench.draw(&counter(0), &key, 9).await, Some((vec![1, 2], true)));
    assert_eq!(bench.draw(&counter(1), &key, 9).await, Some((vec![1, 2], false)), "not of 2027");
    assert_eq!(bench.remember(&key, snowflake(99)).await, (vec![1, 2], false), "nor of another mode");
    let other = Claim { fingerprint: [8; 32], ..key.clone() };
    for on in [counter(0), counter(1)] {
        let outcome = bench.authority.resolve_pin(&other, &on, None, DEADLINE).await.expect("an answer");
        match outcome {
            PinOutcome::Draw { turn } => {
                assert_eq!(bench.claim(&on, &other, turn).await, ClaimAnswer::Mismatch);
            }
            outcome @ (PinOutcome::Recorded(_) | PinOutcome::Mismatch) => {
                assert_eq!(outcome, PinOutcome::Mismatch)
            }
        }
    }
    let expired = Claim { claimed_at: key.expires_at, expires_at: key.expires_at.plus(DEADLINE), ..key };
    assert_eq!(bench.draw(&counter(1), &expired, 9).await, Some((vec![1, 2], true)), "the first of 2027");
}

#[tokio::test]
async fn a_draw_that_comes_late_finds_its_turn_void() {
    let Some(bench) = Bench::start().await else { return };
    let key = claim("k");
    let resolve = async |on: &Counter, moved| {
        let outcome = bench.authority.resolve_pin(&key, on, moved, DEADLINE).await.expect("an answer");
        let PinOutcome::Draw { turn } = outcome else { panic!("{outcome:?}") };
        turn
    };
    let first = resolve(&counter(0), None).await;
    assert_eq!(resolve(&counter(0), None).await, first, "as long as nothing happens");
    let second = resolve(&counter(1), None).await;
    assert!(second > first);
    assert_eq!(bench.claim(&counter(0), &key, first).await, ClaimAnswer::Moved);
    let third = resolve(&counter(0), Some(first)).await;
    assert_eq!(bench.claim(&counter(1), &key, second).await, ClaimAnswer::Moved);
    assert_eq!(bench.claim(&counter(0), &key, first).await, ClaimAnswer::Moved);
    assert!(matches!(bench.claim(&counter(0), &key, third).await, ClaimAnswer::Fresh(_)));
    assert!(matches!(bench.claim(&counter(0), &key, first).await, ClaimAnswer::Replayed { .. }));
    assert_eq!(bench.draw(&counter(1), &key, 9).await, Some((vec![1, 2], false)));
}

#[tokio::test]
async fn somebody_who_voids_and_dies_stops_nobody() {
    let Some(bench) = Bench::start().await else { return };
    let key = claim("k");
    assert_eq!(bench.draw(&counter(0), &key, 0).await, None, "pinned, not drawn");
    let ask = claim_ask(&key, 2, 0);
    let outcome = bench.authority.resolve_pin(&key, &counter(0), None, DEADLINE).await.expect("an answer");
    let PinOutcome::Draw { turn } = outcome else { panic!("{outcome:?}") };
    let on = counter(0).to_string();
    bench.authority.settle(&on, &ask.key, turn, NOW, DEADLINE, DEADLINE).await.expect("void");
    assert_eq!(bench.draw(&counter(0), &key, 9).await, Some((vec![1, 2], true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_requests_with_one_key_one_draws() {
    let Some(bench) = Bench::start().await else { return };
    let bench = Arc::new(bench);
    for round in 0..30_u64 {
        let key = claim(&format!("key {round}"));
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..12_u64 {
            let (bench, key) = (bench.clone(), key.clone());
            tasks.spawn(async move {
                match task {
                    0 | 1 => Some(bench.remember(&key, snowflake(1 << 40)).await),
                    // Some give up between the pin and the draw.
                    2..=5 => bench.draw(&counter((task % 3) as u32), &key, 0).await,
                    _ => bench.draw(&counter((task % 3) as u32), &key, 99).await,
                }
            });
        }
        let given: Vec<Given> = tasks.join_all().await.into_iter().flatten().collect();
        assert_eq!(given.iter().filter(|(_, drew)| *drew).count(), 1, "round {round}: {given:?}");
        assert!(given.iter().all(|(values, _)| *values == given[0].0), "round {round}: {given:?}");
    }
}
