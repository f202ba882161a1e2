//! Every metric of the list is shown where the list says so, and moves: one that never does tells nobody anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use numgen::telemetry::catalog::{FAMILIES, Family, Kind, Shown};
use serde_json::json;

use crate::harness::{Caller, Data, Fault, Postgres, Proxy, Redis, Site, Stopwatch, TestServer, faketime};

/// What stays as it is while a process runs, in every profile.
/// `numgen_trace_spans_total` moves in `traces.rs`, where there is a collector; the offset of two clocks that go alike, in
/// `the_offset_of_the_clocks_is_shown`.
const STEADY: [&str; 9] = [
    "numgen_build_info",
    "numgen_node_info",
    "numgen_connections_limit",
    "numgen_worker_id",
    "process_max_fds",
    "process_start_time_seconds",
    // The allocator reserves far ahead.
    "process_virtual_memory_bytes",
    "numgen_trace_spans_total",
    "numgen_store_clock_offset_seconds",
];

/// The series of one scrape, with their values.
type Scrape = BTreeMap<String, f64>;

fn scrape(server: &TestServer) -> Scrape {
    let text = server.admin("/metrics").expect("an answer").expect(200).text();
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        Some((series.to_owned(), value.parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

/// The family of a series.
fn family(series: &str) -> &'static Family {
    let name = series.split('{').next().unwrap_or_default();
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let is = |family: &&Family| {
        family.name == name || (family.kind == Kind::Histogram && base == Some(family.name))
    };
    FAMILIES.iter().find(is).unwrap_or_else(|| panic!("{name} is not on the list"))
}

/// What was seen of a server over its life.
#[derive(Default)]
struct Story {
    shown: BTreeSet<&'static str>,
    moved: BTreeSet<&'static str>,
    last: Scrape,
}

impl Story {
    fn look(&mut self, server: &TestServer) {
        let seen = scrape(server);
        for (series, value) in &seen {
            let family = family(series);
            self.shown.insert(family.name);
            for label in series.split('"').step_by(2).filter_map(|part| part.strip_suffix('=')) {
                let label = label.trim_start_matches(|c| c != '{' && c != ',').trim_start_matches(['{', ',']);
                let is_bound = label == "le" && family.kind == Kind::Histogram;
                assert!(is_bound || family.labels.contains(&label), "{label} of {series}");
            }
            let before = self.last.get(series).copied().unwrap_or(0.0);
            if !self.last.is_empty() && (before - value).abs() > f64::EPSILON {
                self.moved.insert(family.name);
            }
        }
        self.last = seen;
    }

    /// Waits until a series has a value that pleases.
    #[track_caller]
    fn wait(&mut self, server: &TestServer, series: &str, pleases: impl Fn(f64) -> bool) {
        Stopwatch::wait_until(Duration::from_secs(30), series, || {
            self.look(server);
            thread::sleep(Duration::from_millis(50));
            self.last.get(series).copied().is_some_and(&pleases)
        });
    }

    #[track_caller]
    fn is_complete(&self, belongs: impl Fn(Shown) -> bool, still: &[&str]) {
        let of_profile: BTreeSet<_> =
            FAMILIES.iter().filter(|family| belongs(family.shown)).map(|family| family.name).collect();
        let odd: Vec<_> = self.shown.symmetric_difference(&of_profile).collect();
        assert!(odd.is_empty(), "shown and not on the list of this profile, or the other way round: {odd:?}");
        let stood: Vec<_> = of_profile
            .difference(&self.moved)
            .filter(|name| !STEADY.contains(name) && !still.contains(name))
            .collect();
        assert!(stood.is_empty(), "never moved: {stood:?}");
    }
}

/// A place whose server looks everything up once a second, has small segments, and makes two IDs in a millisecond.
fn site() -> Site {
    Site::new()
        .with("NUMGEN_METRICS_INTERVAL", "1s")
        .with("NUMGEN_SEGMENT_SIZE", "20")
        .with("NUMGEN_STORAGE_TIMEOUT_MS", "1500")
        .with("NUMGEN_SNOWFLAKE_LAYOUT", "52/5/5/1")
        .with("NUMGEN_RATE_LIMIT_ISSUED", "20000")
}

/// What callers do that every profile counts.
fn busy_day(server: &TestServer, caller: &mut Caller) {
    caller.register("METER", &json!({ "format": "M-{SEQ:4}", "max_seq": 1_000_000 }));
    caller.register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
    for _ in 0..3 {
        caller.get("/numbers/METER?count=7").expect(200);
        caller.number("FLAKE");
    }
    server.stranger().get("/numbers/METER").expect(401);
    caller.get("/numbers/FLAKE?count=10000").expect_problem(503, "Overloaded");
    let mut last = 200;
    for _ in 0..4 {
        last = caller.get("/numbers/METER?count=10000").status;
    }
    assert_eq!(last, 429);
    Stopwatch::wait_until(Duration::from_secs(5), "there is something left of the quota", || {
        caller.get("/numbers/METER").status == 200
    });
}

/// Reserves a strict number, and voids another.
fn keep_books(caller: &mut Caller) {
    caller.register("BOOKS", &json!({ "format": "B-{SEQ:4}", "mode": "strict" }));
    caller.number("BOOKS");
    caller.post("/numbers", &json!({ "prefix_key": "BOOKS", "reserve_seconds": 600 })).expect(200);
}

/// A server that shares stores: looked at before it is ready, then busy.
fn begin(server: &TestServer) -> (Story, Caller) {
    Stopwatch::wait_until(Duration::from_secs(10), "it listens", || server.admin("/livez").is_ok());
    let mut story = Story::default();
    story.look(server);
    server.wait_ready();
    let mut caller = server.caller();
    busy_day(server, &mut caller);
    (story, caller)
}

/// Once the survey has come round, moves the counter past values, which become holes.
fn skip_some(story: &mut Story, server: &TestServer, caller: &mut Caller) {
    story.wait(server, r#"numgen_sequence_last_value{mode="continuous",prefix="METER"}"#, |last| last > 20.0);
    caller.post("/sequences/METER/advance", &json!({ "to": "900000" })).expect(200);
    story.wait(server, r#"numgen_hole_values{prefix="METER",reason="advanced"}"#, |holes| holes > 0.0);
}

#[test]
fn embedded() {
    let server = site().start();
    let mut story = Story::default();
    story.look(&server);
    let mut caller = server.caller();
    busy_day(&server, &mut caller);
    keep_books(&mut caller);
    skip_some(&mut story, &server, &mut caller);
    story.wait(&server, "numgen_ledger_oldest_reservation_seconds", |age| age > 0.0);
    assert_eq!(story.last["numgen_ledger_reservations_open"], 1.0);
    assert_eq!(story.last[r#"numgen_store_reachable{store="sqlite"}"#], 1.0);
    assert_eq!(story.last[r#"numgen_readiness{status="ready"}"#], 1.0);
    // There is no store that could be away.
    let still = [
        "numgen_store_reachable",
        "numgen_readiness",
        "numgen_component_ok",
        "numgen_worker_held",
        "numgen_segment_remaining",
        "numgen_temporary_numbers_open",
    ];
    story.is_complete(|shown| matches!(shown, Shown::Everywhere | Shown::Ledger), &still);
}

#[test]
fn nothing_is_said_of_counters_that_are_counted_no_more() {
    let server = site().start();
    let mut story = Story::default();
    let mut caller = server.caller();
    let last = |mode: &str| format!(r#"numgen_sequence_last_value{{mode="{mode}",prefix="METER"}}"#);
    let holes = r#"numgen_hole_values{prefix="METER",reason="advanced"}"#;
    caller.register("METER", &json!({ "format": "M-{SEQ:4}" }));
    caller.number("METER");
    caller.post("/sequences/METER/advance", &json!({ "to": "20" })).expect(200);
    story.wait(&server, &last("continuous"), |last| last > 19.0);
    story.wait(&server, holes, |holes| holes > 0.0);

    let strict = json!({ "format": "M-{SEQ:4}", "mode": "strict" });
    caller.send("PUT", "/prefix-configs/METER", &[], Some(&strict)).expect(200);
    story.wait(&server, &last("strict"), |last| last > 19.0);
    story.wait(&server, &last("continuous"), f64::is_nan);

    caller.send("DELETE", "/prefix-configs/METER", &[], None).expect(204);
    story.wait(&server, &last("strict"), f64::is_nan);
    story.wait(&server, holes, f64::is_nan);
}

/// The segment of METER, then temporary numbers, while its store is away.
fn bridge(story: &mut Story, server: &TestServer, caller: &mut Caller, store: &str) {
    let away = format!(r#"numgen_store_reachable{{store="{store}"}}"#);
    story.wait(server, &away, |reachable| reachable < 0.5);
    for _ in 0..30 {
        caller.get("/numbers/METER").expect(200);
    }
    story.wait(server, "numgen_temporary_numbers_open", |open| open > 0.0);
    assert!(story.last["numgen_counters_away"] >= 1.0);
    assert_eq!(story.last[&format!(r#"numgen_component_ok{{component="{store}"}}"#)], 0.0);
    assert_eq!(story.last[r#"numgen_readiness{status="degraded"}"#], 1.0);
    let issued = |source| {
        let series =
            format!(r#"numgen_numbers_issued_total{{mode="continuous",source="{source}",prefix="METER"}}"#);
        story.last.get(&series).copied().unwrap_or(0.0)
    };
    assert!(issued("segment") >= 20.0 && issued("temporary") >= 1.0, "{:?}", story.last);
}

#[test]
fn redis() {
    let mut redis = Redis::start();
    let server = site().with("NUMGEN_REDIS_URL", &redis.url()).start_unready();
    let (mut story, mut caller) = begin(&server);
    skip_some(&mut story, &server, &mut caller);
    story.wait(&server, "numgen_worker_slots_free", |free| free == 31.0);
    story.wait(&server, "numgen_segments_held", |held| held == 1.0);
    redis.kill();
    bridge(&mut story, &server, &mut caller, "redis");
    redis.start_again(Data::Kept);
    story.wait(&server, r#"numgen_store_outages_total{store="redis"}"#, |outages| outages > 0.5);
    story.wait(&server, r#"numgen_store_reachable{store="redis"}"#, |reachable| reachable > 0.5);
    story.wait(&server, r#"numgen_store_clock_offset_seconds{store="redis"}"#, |offset| offset.abs() < 0.5);
    story.is_complete(|shown| matches!(shown, Shown::Everywhere | Shown::Shared), &[]);
}

#[test]
fn postgres() {
    let database = Postgres::create_database();
    let line = Proxy::to(Postgres::shared().port());
    let url = through(&line, &database.url());
    let server = site().with("NUMGEN_DATABASE_URL", &url).start_unready();
    let (mut story, mut caller) = begin(&server);
    keep_books(&mut caller);
    skip_some(&mut story, &server, &mut caller);
    story.wait(&server, "numgen_worker_slots_free", |free| free == 31.0);
    story.wait(&server, "numgen_ledger_oldest_reservation_seconds", |age| age > 0.0);
    line.set(Fault::Refuse);
    bridge(&mut story, &server, &mut caller, "postgres");
    line.set(Fault::None);
    story.wait(&server, r#"numgen_store_reachable{store="postgres"}"#, |reachable| reachable > 0.5);
    let belongs =
        |shown| matches!(shown, Shown::Everywhere | Shown::Shared | Shown::Ledger | Shown::Postgres);
    story.is_complete(belongs, &[]);
}

#[test]
fn full() {
    let redis = Redis::start();
    let fast = Proxy::to(redis.port());
    let database = Postgres::create_database();
    let line = Proxy::to(Postgres::shared().port());
    let server = site()
        .with("NUMGEN_REDIS_URL", &fast.redis_url())
        .with("NUMGEN_DATABASE_URL", &through(&line, &database.url()))
        .start_unready();
    let (mut story, mut caller) = begin(&server);
    keep_books(&mut caller);
    skip_some(&mut story, &server, &mut caller);
    // Large batches use their grants up; a segment is cut from what is granted to those that follow.
    Stopwatch::wait_until(Duration::from_secs(20), "a segment", || {
        caller.get("/numbers/METER");
        thread::sleep(Duration::from_millis(50));
        story.look(&server);
        story.last["numgen_segments_held"] == 1.0 && story.last["numgen_grant_remaining"] > 0.0
    });
    fast.set(Fault::Refuse);
    line.set(Fault::Refuse);
    story.wait(&server, r#"numgen_store_reachable{store="postgres"}"#, |reachable| reachable < 0.5);
    bridge(&mut story, &server, &mut caller, "redis");
    story.is_complete(|_| true, &[]);
}

/// Nodes whose clock is an hour behind that of the store that leases their worker IDs.
#[test]
fn the_offset_of_the_clocks_is_shown() {
    let Some(library) = faketime() else { return };
    let redis = Redis::start();
    let database = Postgres::create_database();
    let stores =
        [("redis", "NUMGEN_REDIS_URL", redis.url()), ("postgres", "NUMGEN_DATABASE_URL", database.url())];
    for (store, setting, url) in stores {
        let server = site()
            .with(setting, &url)
            .with("LD_PRELOAD", &library.to_string_lossy())
            .with("FAKETIME", "-1h")
            .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .start();
        let offset = format!(r#"numgen_store_clock_offset_seconds{{store="{store}"}}"#);
        Story::default().wait(&server, &offset, |seconds| (seconds - 3_600.0).abs() < 2.0);
    }
}

fn through(line: &Proxy, url: &str) -> String {
    url.replace(&format!(":{}/", Postgres::shared().port()), &format!(":{}/", line.port()))
}
