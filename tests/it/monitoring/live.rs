//! A real Prometheus scrapes one server of every profile, under load in every mode, with every kind of refusal, and through the outage of
//! both stores. Then every panel has something to show, every recording rule has written, and the alert for a store that is away is on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use numgen::clock::{Clock, SystemClock, UnixMillis};
use serde_json::{Value, json};

use super::{
    alerts,
    dashboards::{self, list, text},
    prometheus::Prometheus,
};
use crate::harness::{Caller, Database, Fault, Postgres, Proxy, Redis, Site, Stopwatch, TestServer};

/// How long callers call before the outage, during it and after it.
const CALM: Duration = Duration::from_secs(7);
const OUTAGE: Duration = Duration::from_secs(8);
/// How long a store may keep a first request waiting.
const PATIENCE: Duration = Duration::from_secs(20);

/// The stores, with lines that can be cut, and one server of every profile.
struct World {
    _redis: Redis,
    to_redis: Proxy,
    _databases: [Database; 2],
    to_postgres: Proxy,
    servers: Vec<TestServer>,
}

impl World {
    #[track_caller]
    fn start() -> Self {
        let redis = Redis::start();
        let databases = [Postgres::create_database(), Postgres::create_database()];
        let (to_redis, to_postgres) = (Proxy::to(redis.port()), Proxy::to(Postgres::shared().port()));
        let [alone, behind] = databases.each_ref().map(|database| {
            let server = format!(":{}/", Postgres::shared().port());
            database.url().replace(&server, &format!(":{}/", to_postgres.port()))
        });
        let site = |name: &str| {
            Site::new()
                .with("NUMGEN_NODE_NAME", name)
                .with("NUMGEN_METRICS_INTERVAL", "1s")
                .with("NUMGEN_SEGMENT_SIZE", "40")
                .with("NUMGEN_STORAGE_TIMEOUT_MS", "2000")
        };
        let sites = [
            // Two IDs in a millisecond, so that a large batch is too much.
            site("embedded")
                .with("NUMGEN_SNOWFLAKE_LAYOUT", "52/5/5/1")
                .with("NUMGEN_RATE_LIMIT_ISSUED", "10000"),
            site("redis").with("NUMGEN_REDIS_URL", &format!("{}/1", to_redis.redis_url())),
            site("postgres").with("NUMGEN_DATABASE_URL", &alone),
            site("full")
                .with("NUMGEN_REDIS_URL", &format!("{}/2", to_redis.redis_url()))
                .with("NUMGEN_DATABASE_URL", &behind)
                .with("NUMGEN_DATACENTERS", "2")
                .with("NUMGEN_DATACENTER_ID", "1"),
        ];
        let servers = sites.iter().map(Site::start_unready).collect();
        Self { _redis: redis, to_redis, _databases: databases, to_postgres, servers }
    }
}

/// Whether a server keeps ledgers.
fn is_strict(server: &TestServer) -> bool {
    !server.log().contains("profile redis")
}

/// Rules in every mode, a reservation that stays open, and values that were passed by.
#[track_caller]
fn register(server: &TestServer) {
    let mut caller = server.caller();
    // On a busy machine a store may be late; each of these can be said twice, though the second time there may be nothing left to do.
    let mut insist = |method: &str, target: &str, body: Value| {
        Stopwatch::wait_until(PATIENCE, target, || {
            [200, 409].contains(&caller.send(method, target, &[], Some(&body)).status)
        });
    };
    insist("PUT", "/prefix-configs/COUNT", json!({ "format": "C-{SEQ:6}", "max_seq": 1_000_000 }));
    insist("PUT", "/prefix-configs/FLAKE", json!({ "format": "F-{SEQ:19}" }));
    if is_strict(server) {
        insist("PUT", "/prefix-configs/BOOKS", json!({ "format": "B-{SEQ:6}", "mode": "strict" }));
        insist("POST", "/numbers", json!({ "prefix_key": "BOOKS", "reserve_seconds": 3_600 }));
    }
    insist("POST", "/numbers", json!({ "prefix_key": "COUNT" }));
    insist("POST", "/sequences/COUNT/advance", json!({ "to": "5000" }));
}

/// What callers of a server do, again and again: good, bad and too much. Answers and refusals are what the panels are about.
fn one_round(caller: &mut Caller, stranger: &mut Caller, is_strict: bool) -> std::io::Result<()> {
    for target in ["/numbers/COUNT", "/numbers/FLAKE?count=5", "/numbers/NOBODY", "/made/up"] {
        caller.try_send("GET", target, &[], None)?;
    }
    stranger.try_send("GET", "/numbers/COUNT", &[], None)?;
    caller.try_send("POST", "/formats/preview", &[], Some(&json!({ "format": "nothing" })))?;
    if is_strict {
        let reserve = json!({ "prefix_key": "BOOKS", "reserve_seconds": 600 });
        for step in ["confirm", "void"] {
            let answer = caller.try_send("POST", "/numbers", &[], Some(&reserve))?;
            if answer.status == 200 {
                let target = format!("/numbers/BOOKS/{}/{step}", answer.numbers()[0]);
                caller.try_send("POST", &target, &[], Some(&json!({ "reason": "a test" })))?;
            }
        }
    }
    Ok(())
}

/// Callers of one server, until they are told to stop.
fn callers(server: &TestServer, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let is_strict = is_strict(server);
    let (caller, stranger) = (server.caller(), server.stranger());
    let call = |mut caller: Caller, mut stranger: Caller, stop: Arc<AtomicBool>| {
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if one_round(&mut caller, &mut stranger, is_strict).is_err() {
                    (caller, stranger) = (caller.again(), stranger.again());
                }
                thread::sleep(Duration::from_millis(20));
            }
        })
    };
    (0..2).map(|_| call(caller.again(), stranger.again(), Arc::clone(stop))).collect()
}

/// More than can be made in time, and more than a quota allows.
#[track_caller]
fn greed(server: &TestServer) {
    let mut greedy = server.caller_with(&["--scope", "admin", "--sub", "greedy"]);
    for (target, refusal) in [("/numbers/FLAKE?count=10000", 503), ("/numbers/COUNT?count=10000", 429)] {
        Stopwatch::wait_until(PATIENCE, target, || greedy.get(target).status == refusal);
    }
}

/// What Grafana puts in the place of variables.
struct Choice {
    instances: String,
    stores: Vec<String>,
}

impl Choice {
    /// A query as it is sent; once for each value of the variable that rows are repeated for.
    fn of(&self, query: &str) -> Vec<String> {
        let query = query
            .replace("$__rate_interval", "15s")
            .replace("$__range", "1m")
            .replace("$instance", &self.instances);
        let query = ["datacenter", "node", "prefix"]
            .iter()
            .fold(query, |query, name| query.replace(&format!("${name}"), ".*"));
        if query.contains("$store") {
            self.stores.iter().map(|store| query.replace("$store", store)).collect()
        } else {
            vec![query]
        }
    }
}

/// The values that Grafana offers for the variables of a dashboard.
#[track_caller]
fn choose(prometheus: &Prometheus, dashboard: &Value, choice: &mut Choice) {
    for variable in list(&dashboard["templating"]["list"]).iter().filter(|one| one["type"] == "query") {
        let query = &choice.of(text(&variable["query"]["query"]))[0];
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (series, label) = inside.and_then(|inside| inside.rsplit_once(", ")).expect("label_values");
        let values = prometheus.label_values(series, label);
        assert!(!values.is_empty(), "no values of ${}: {query}", variable["name"]);
        match text(&variable["name"]) {
            "instance" => choice.instances = values.join("|").replace('.', r"\\."),
            "store" => choice.stores = values,
            _ => {}
        }
    }
}

#[test]
fn every_panel_and_every_rule_has_data() {
    let (began, watch) = (now(), Stopwatch::start());
    let world = World::start();
    let targets: Vec<_> = world.servers.iter().map(|server| server.admin).collect();
    let prometheus = Prometheus::start(&targets);
    for server in &world.servers {
        server.wait_ready();
    }
    println!("ready after {:?}", watch.elapsed());
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = Vec::new();
    for server in &world.servers {
        register(server);
        load.extend(callers(server, &stop));
    }
    greed(&world.servers[0]);
    println!("calling after {:?}", watch.elapsed());
    thread::sleep(CALM);
    for line in [&world.to_redis, &world.to_postgres] {
        line.set(Fault::Refuse);
    }
    thread::sleep(OUTAGE);
    for line in [&world.to_redis, &world.to_postgres] {
        line.set(Fault::None);
    }
    thread::sleep(CALM);
    stop.store(true, Ordering::Relaxed);
    for caller in load {
        caller.join().expect("a caller");
    }
    let ended = now();
    println!("called until {:?}", watch.elapsed());

    let mut empty = Vec::new();
    let mut asked = 0;
    for (file, dashboard) in dashboards::all() {
        let mut choice = Choice { instances: String::new(), stores: Vec::new() };
        choose(&prometheus, &dashboard, &mut choice);
        let panels = dashboards::panels(&dashboard).flat_map(|panel| {
            list(&panel["targets"]).iter().map(move |target| (text(&panel["title"]), target))
        });
        let annotations = list(&dashboard["annotations"]["list"]).iter().filter(|one| one["builtIn"] != 1);
        for (title, target) in panels.chain(annotations.map(|one| (text(&one["name"]), one))) {
            for query in choice.of(text(&target["expr"])) {
                asked += 1;
                if prometheus.range(&query, began, ended).is_empty() {
                    empty.push(format!("{file}: {title}: {query}"));
                }
            }
        }
    }
    assert!(empty.is_empty(), "of {asked} queries these show nothing:\n{}", empty.join("\n"));
    println!("{asked} queries of panels, all with data, after {:?}", watch.elapsed());

    let unwritten: Vec<_> = alerts::recorded()
        .into_iter()
        .filter(|name| prometheus.range(name, began, ended).is_empty())
        .collect();
    assert!(unwritten.is_empty(), "recording rules without data: {unwritten:?}");
    let groups = prometheus.ask("rules", &[]);
    let rules: Vec<&Value> = list(&groups["groups"]).iter().flat_map(|group| list(&group["rules"])).collect();
    let ill: Vec<_> = rules.iter().filter(|rule| rule["health"] != "ok").collect();
    assert!(rules.len() > 40 && ill.is_empty(), "{ill:?}");
    for store in ["redis", "postgres"] {
        let alert = format!("ALERTS{{alertname=\"NumgenStoreDown\", store=\"{store}\"}}");
        assert!(!prometheus.range(&alert, began, ended).is_empty(), "{store} was away");
    }
    assert!(prometheus.range("ALERTS{alertname=\"NumgenSegmentInUse\"}", began, ended).len() >= 2);
}

fn now() -> UnixMillis {
    SystemClock::new().now()
}
