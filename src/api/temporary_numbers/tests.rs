//! The routes over the reference store, with counters that can be taken away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::Service;

use super::super::{Api, Error, Meter, Parts, info};
use crate::{
    auth::{Claims, Prefixes, Scopes},
    clock::{Clock, ManualClock, UnixMillis},
    config::NodeName,
    counter::{Counter, Ranges, SequenceValue},
    generate::{
        Engine, IssueError, Settings, Source, Stores,
        temporary::{Issuer, ResolveError, Resolver},
    },
    lifecycle::Lifecycle,
    middleware::{context::Context, rate_limit::RuleLimits},
    prefix_key::PrefixKey,
    rule::Rule,
    rules::{self, Registry},
    snowflake::{Ids, Layout},
    store::{
        Advanced, Bounds, CounterState, CounterStore, RuleRecord, RuleStore, StoreError, StoreFuture, Swap,
        TakeRequest, Taken, memory::MemoryStore,
    },
};

/// 2026-11-22T23:30:00Z: in Shanghai it is the next day.
const NIGHT: UnixMillis = UnixMillis(1_795_390_200_000);

/// Rules and counters that can be away; counters that lose their answer on the way back.
struct Distant {
    store: Arc<MemoryStore>,
    away: AtomicBool,
    loses_answers: AtomicBool,
    hangs: AtomicBool,
    /// For how long the answer to `advance` is under way, in ms.
    lag_ms: AtomicU64,
}

impl Distant {
    fn reached<'a, T: Send + 'a>(&'a self, call: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        if self.away.load(Ordering::SeqCst) {
            let source = "connection refused".into();
            let away = StoreError::Unavailable { store: "distant", operation: "any", source };
            return Box::pin(std::future::ready(Err(away)));
        }
        call
    }
}

impl RuleStore for Distant {
    fn load_rules(&self) -> StoreFuture<'_, Vec<RuleRecord>> {
        self.reached(self.store.load_rules())
    }

    fn rule<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<RuleRecord>> {
        self.reached(self.store.rule(key))
    }

    fn swap_rule(&self, expected: Option<RuleRecord>, new: RuleRecord) -> StoreFuture<'_, Swap> {
        self.reached(self.store.swap_rule(expected, new))
    }

    fn mark_used<'a>(&'a self, key: &'a PrefixKey, revision: u64) -> StoreFuture<'a, bool> {
        self.reached(self.store.mark_used(key, revision))
    }
}

impl CounterStore for Distant {
    fn take(
        &self,
        counter: Counter,
        bounds: Bounds,
        requests: Vec<TakeRequest>,
    ) -> StoreFuture<'_, Vec<Taken>> {
        Box::pin(async move {
            let taken = self.reached(self.store.take(counter, bounds, requests)).await?;
            if self.loses_answers.load(Ordering::SeqCst) {
                return Err(StoreError::Timeout { store: "distant", operation: "take" });
            }
            Ok(taken)
        })
    }

    fn hand_back(&self, counter: Counter, values: Ranges) -> StoreFuture<'_, ()> {
        self.store.hand_back(counter, values)
    }

    fn counters<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Vec<CounterState>> {
        if self.hangs.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        self.store.counters(key)
    }

    fn advance(
        &self,
        counter: Counter,
        base: SequenceValue,
        to: SequenceValue,
        actor: Arc<str>,
        now: UnixMillis,
    ) -> StoreFuture<'_, Advanced> {
        Box::pin(async move {
            let advanced = self.store.advance(counter, base, to, actor, now).await;
            tokio::time::sleep(Duration::from_millis(self.lag_ms.load(Ordering::SeqCst))).await;
            advanced
        })
    }
}

struct Uncounted;

impl Meter for Uncounted {
    fn counter(&self, _: &Rule, _: Source) -> crate::telemetry::Counter {
        crate::telemetry::Counter::noop()
    }
}

/// A service, the switch of its counters, and its clock.
struct Bench {
    api: Api,
    counters: Arc<Distant>,
    clock: Arc<ManualClock>,
}

impl Bench {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::at(NIGHT));
        let store = Arc::new(MemoryStore::new(clock.clone(), UnixMillis(0)));
        let counters = Arc::new(Distant {
            store: store.clone(),
            away: AtomicBool::new(false),
            loses_answers: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            lag_ms: AtomicU64::new(0),
        });
        let node = NodeName::parse("n1").expect("a name");
        let issuer = Issuer::start(store.clone(), node).await.expect("started");
        let stores = Stores {
            counters: counters.clone(),
            ledgers: store.clone(),
            idempotency: store.clone(),
            temporary: Some(Arc::new(issuer)),
            batches: Default::default(),
        };
        let settings = Settings {
            layout: Layout::DEFAULT,
            epoch: UnixMillis(0),
            datacenter: 0,
            storage_timeout: Duration::from_secs(5),
            idempotency_ttl: Duration::from_secs(60),
        };
        let shared_clock: Arc<dyn Clock> = clock.clone();
        let ids = Arc::new(Ids::new(Layout::DEFAULT, 0, Arc::clone(&shared_clock)));
        let engine = Engine::new(settings, stores, ids, &Lifecycle::new());
        let of_rules = rules::Settings {
            datacenters: 1,
            origin: engine.origin(),
            layout: Layout::DEFAULT,
            epoch: UnixMillis(0),
            strict: None,
        };
        let rules = Registry::new(counters.clone(), counters.clone(), Arc::clone(&shared_clock), of_rules);
        let rule_limits = RuleLimits::new(Arc::clone(&shared_clock));
        let api = Api::new(Parts {
            rules: Arc::new(rules),
            following: None,
            engine: Arc::new(engine),
            counters: counters.clone().into(),
            ledgers: store.clone(),
            temporary: Arc::new(Resolver::new(store.clone(), None)),
            trail: store,
            clock: shared_clock,
            body_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            meter: Arc::new(Uncounted),
            rule_limits,
            serving: Lifecycle::new(),
        });
        Self { api, counters, clock }
    }

    async fn call(&self, caller: Claims, method: Method, path: &str, body: Value) -> Result<Value, Error> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let mut request = Request::builder().method(method.clone()).uri(path);
        let route = info(&method, path.split('?').next().unwrap_or_default());
        request = request.extension(Context::of_caller(caller, route));
        let request = request.body(Full::new(body)).expect("a request");
        let answer = self.api.clone().call(request).await;
        let answer = answer.map_err(|error| *error.downcast::<Error>().expect("an error of the API"))?;
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        Ok(if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") })
    }

    async fn get(&self, path: &str) -> Result<Value, Error> {
        self.call(admin(None), Method::GET, path, Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, Error> {
        self.call(admin(None), Method::POST, path, body).await
    }

    async fn register(&self, key: &str, rule: Value) {
        self.post(&format!("/prefix-configs/{key}"), rule).await.expect("registered");
    }

    /// Numbers given out while the counters are away.
    async fn temporary(&self, path: &str) -> Vec<String> {
        self.counters.away.store(true, Ordering::SeqCst);
        let issued = self.get(path).await.expect("issued");
        self.counters.away.store(false, Ordering::SeqCst);
        assert_eq!(issued["source"], "temporary", "{issued}");
        let numbers = issued["numbers"].as_array().cloned().unwrap_or_else(|| vec![issued["number"].clone()]);
        numbers.iter().map(|number| number.as_str().expect("a text").to_owned()).collect()
    }

    async fn resolve(&self, number: &str, body: Value) -> Result<Value, Error> {
        self.post(&format!("/temporary-numbers/{number}/resolve"), body).await
    }

    async fn number(&self, path: &str) -> String {
        self.get(path).await.expect("issued")["number"].as_str().expect("a number").to_owned()
    }
}

fn admin(prefixes: Option<&str>) -> Claims {
    Claims {
        subject: "ada".into(),
        scopes: Scopes::from_claim("admin"),
        prefixes: prefixes.map(Prefixes::parse),
        expires_at: UnixMillis(i64::MAX),
        not_before: None,
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_a_store_does_a_request_ends() {
    let bench = Bench::new().await;
    bench.register("SLOW", json!({ "format": "S-{SEQ:3}" })).await;
    bench.counters.hangs.store(true, Ordering::SeqCst);
    let outcome = bench.get("/sequences/SLOW").await;
    assert!(matches!(outcome, Err(Error::TooLong(limit)) if limit == Duration::from_secs(30)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_done_is_on_the_trail_though_nobody_waited_for_the_answer() {
    let bench = Bench::new().await;
    bench.register("MOVED", json!({ "format": "M-{SEQ:3}" })).await;
    bench.counters.lag_ms.store(1_000, Ordering::SeqCst);
    let advance = bench.post("/sequences/MOVED/advance", json!({ "to": "5" }));
    tokio::time::timeout(Duration::from_millis(100), advance).await.expect_err("the caller goes away");
    bench.counters.lag_ms.store(31_000, Ordering::SeqCst);
    let late = bench.post("/sequences/MOVED/advance", json!({ "to": "7" })).await;
    assert!(matches!(late, Err(Error::TooLong(_))), "{late:?}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let trail = bench.get("/audit?prefix_key=MOVED").await.expect("a page");
    let rows = trail["rows"].as_array().expect("rows");
    let moved: Vec<_> = rows.iter().map(|row| (&row["action"], &row["details"]["to"])).collect();
    assert_eq!(moved, [(&json!("advanced"), &json!("5")), (&json!("advanced"), &json!("7"))], "{trail}");
}

#[tokio::test]
async fn a_temporary_number_becomes_the_next_number_of_its_own_moment() {
    let bench = Bench::new().await;
    let rule =
        json!({ "format": "D{year}{month}{day}-{SEQ:3}", "reset": "daily", "timezone": "Asia/Shanghai" });
    bench.register("DAY", rule).await;
    assert_eq!(bench.number("/numbers/DAY").await, "D20261123-001");
    let [now] = &bench.temporary("/numbers/DAY").await[..] else { panic!("one") };
    let [dated] = &bench.temporary("/numbers/DAY?date=2026-11-20").await[..] else { panic!("one") };
    // Days later.
    bench.clock.advance(Duration::from_secs(3 * 24 * 3600));
    assert_eq!(bench.number("/numbers/DAY").await, "D20261126-001");

    let listed = bench.get("/temporary-numbers?status=open").await.expect("listed");
    assert_eq!(listed["rows"].as_array().map(Vec::len), Some(2));
    let expected = json!({
        "number": now, "prefix_key": "DAY", "node": "n1", "created_at": "2026-11-22T23:30:00.000Z", "subject": "ada",
        "status": "open", "final": null, "reason": null,
    });
    assert_eq!(listed["rows"][0], expected);
    let assigned =
        bench.resolve(now, json!({ "action": "assign", "reason": "cable" })).await.expect("assigned");
    assert_eq!((&assigned["status"], &assigned["final"]), (&json!("assigned"), &json!("D20261123-002")));
    assert_eq!(assigned["reason"], "cable");
    let of_date = bench.resolve(dated, json!({ "action": "assign" })).await.expect("assigned");
    assert_eq!((&of_date["final"], &of_date["reason"]), (&json!("D20261120-001"), &Value::Null));

    let again =
        bench.resolve(now, json!({ "action": "assign", "reason": "once more" })).await.expect("first result");
    assert_eq!(again, assigned);
    let contrary = bench.resolve(now, json!({ "action": "void", "reason": "no" })).await;
    assert!(matches!(contrary, Err(Error::Resolve(ResolveError::Conflict(_)))), "{contrary:?}");
    let open = bench.get("/temporary-numbers?status=open").await.expect("listed");
    assert_eq!(open["rows"], json!([]));
}

#[tokio::test]
async fn an_assignment_that_was_interrupted_draws_no_second_number() {
    let bench = Bench::new().await;
    bench.register("K", json!({ "format": "K-{SEQ:3}-{rand:8}" })).await;
    bench.number("/numbers/K").await;
    let [number] = &bench.temporary("/numbers/K").await[..] else { panic!("one") };
    bench.counters.loses_answers.store(true, Ordering::SeqCst);
    let unknown = bench.resolve(number, json!({ "action": "assign" })).await;
    assert!(matches!(unknown, Err(Error::Issue(IssueError::Store(_)))), "{unknown:?}");
    bench.counters.loses_answers.store(false, Ordering::SeqCst);
    // It was drawn, so nobody may give the number up, and another attempt finds it, however late.
    let given_up = bench.resolve(number, json!({ "action": "void", "reason": "slow" })).await;
    assert!(matches!(given_up, Err(Error::Resolve(ResolveError::Conflict(_)))), "{given_up:?}");
    bench.clock.advance(Duration::from_secs(30 * 24 * 3600));
    let assigned = bench.resolve(number, json!({ "action": "assign" })).await.expect("assigned");
    let last = assigned["final"].as_str().expect("a number");
    assert!(last.starts_with("K-002-"), "{last}");
    assert!(bench.number("/numbers/K").await.starts_with("K-003-"), "nothing else was consumed");
}

#[tokio::test]
async fn what_cannot_be_drawn_can_still_be_given_up() {
    let bench = Bench::new().await;
    bench.register("FULL", json!({ "format": "F-{SEQ:3}", "max_seq": 1 })).await;
    bench.number("/numbers/FULL").await;
    let batch = bench.temporary("/numbers/FULL?count=3").await;
    assert_eq!(batch.len(), 3);
    let overflow = bench.resolve(&batch[0], json!({ "action": "assign" })).await;
    assert!(matches!(overflow, Err(Error::Issue(IssueError::Overflow { .. }))), "{overflow:?}");
    let void = bench.resolve(&batch[0], json!({ "action": "void", "reason": "full" })).await.expect("void");
    assert_eq!(
        (&void["status"], &void["final"], &void["reason"]),
        (&json!("void"), &Value::Null, &json!("full"))
    );
    let late = bench.resolve(&batch[0], json!({ "action": "assign" })).await;
    assert!(matches!(late, Err(Error::Resolve(ResolveError::Conflict(_)))), "{late:?}");
    // Without its rule, too.
    bench.call(admin(None), Method::DELETE, "/prefix-configs/FULL", Value::Null).await.expect("deleted");
    let unregistered = bench.resolve(&batch[1], json!({ "action": "assign" })).await;
    assert!(matches!(unregistered, Err(Error::NotRegistered(_))), "{unregistered:?}");
    bench.resolve(&batch[1], json!({ "action": "void", "reason": "gone" })).await.expect("void");
}

#[tokio::test]
async fn a_tenant_sees_and_resolves_its_own() {
    let bench = Bench::new().await;
    for key in ["A", "B", "C"] {
        bench.register(key, json!({ "format": format!("{key}-{{SEQ:3}}") })).await;
        bench.number(&format!("/numbers/{key}")).await;
        bench.temporary(&format!("/numbers/{key}?count=2")).await;
    }
    let tenant = || admin(Some("A,C"));
    let mut seen = Vec::new();
    let mut path = "/temporary-numbers?limit=1".to_owned();
    loop {
        let page = bench.call(tenant(), Method::GET, &path, Value::Null).await.expect("listed");
        seen.extend(page["rows"].as_array().expect("rows").iter().map(|row| row["prefix_key"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/temporary-numbers?limit=1&after={next}");
    }
    assert_eq!(seen, ["A", "A", "C", "C"]);
    let of_b = bench.call(tenant(), Method::GET, "/temporary-numbers?prefix_key=B", Value::Null).await;
    assert!(matches!(of_b, Err(Error::Forbidden(_))), "{of_b:?}");
    let listed = bench.get("/temporary-numbers?prefixKey=B").await.expect("listed");
    let path =
        format!("/temporary-numbers/{}/resolve", listed["rows"][0]["number"].as_str().expect("a number"));
    let foreign = bench.call(tenant(), Method::POST, &path, json!({ "action": "assign" })).await;
    assert!(matches!(foreign, Err(Error::Forbidden(_))), "{foreign:?}");
}

/// The first number of a rule or of a later date has to tell the register; a temporary one has not.
#[tokio::test]
async fn an_outage_over_midnight_is_bridged_too() {
    let bench = Bench::new().await;
    bench.register("DAY", json!({ "format": "D{year}{month}{day}-{SEQ:3}", "reset": "daily" })).await;
    assert_eq!(bench.number("/numbers/DAY").await, "D20261122-001");
    bench.clock.advance(Duration::from_secs(3600));
    let batch = bench.temporary("/numbers/DAY?count=2").await;
    let assigned = bench.resolve(&batch[1], json!({ "action": "assign" })).await.expect("assigned");
    assert_eq!(assigned["final"], "D20261123-001");
    assert_eq!(bench.number("/numbers/DAY").await, "D20261123-002");
}

#[tokio::test]
async fn a_caller_with_a_key_gets_no_temporary_number() {
    let bench = Bench::new().await;
    bench.register("K", json!({ "format": "K-{SEQ:3}" })).await;
    bench.register("FAIL", json!({ "format": "F-{SEQ:3}", "on_outage": "fail" })).await;
    bench.counters.away.store(true, Ordering::SeqCst);
    let mut request = Request::builder().uri("/numbers/K").header("idempotency-key", "cart-1");
    request = request.extension(Context::of_caller(admin(None), info(&Method::GET, "/numbers/K")));
    let refused = bench.api.clone().call(request.body(Full::new(Bytes::new())).expect("a request")).await;
    let refused = refused.map(drop).expect_err("refused");
    assert!(matches!(
        refused.downcast_ref(),
        Some(Error::Issue(IssueError::KeysAway(error))) if matches!(**error, StoreError::Unavailable { .. })
    ));
    assert!(bench.get("/numbers/FAIL").await.is_err());
    let decoded = bench.get("/numbers/decode?prefixKey=K&number=TMP~K~n1~038G342H00003028T5").await;
    assert!(matches!(decoded, Err(Error::Temporary { .. })), "{decoded:?}");
}
