//! A Redis that nodes may not use, or that does not let them write, while they use it.

use std::{thread, time::Duration};

use serde_json::json;

use super::{Fleet, Source, Story, assert_accounted, counting, flaking, settled};
use crate::harness::Stopwatch;

/// How soon a running node notices: it looks every two seconds.
const NOTICED_WITHIN: Duration = Duration::from_secs(4);

#[test]
fn a_redis_that_may_evict_is_left_at_once_and_used_again_when_it_may_not() {
    let redis = settled();
    let fleet = Fleet::start(&redis.url(), 2);
    fleet.register("HOT", &counting());
    fleet.register("FLAKE", &flaking());
    let mut story = Story::default();
    for index in 0..2 {
        fleet.draw(index, "HOT", 1, &mut story);
        fleet.caller(index).number("FLAKE");
    }
    fleet.wait_segments("HOT");
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let watch = Stopwatch::start();
    for index in 0..2 {
        let left = NOTICED_WITHIN.saturating_sub(watch.elapsed());
        Stopwatch::wait_until(left, "/readyz names the policy and the remedy", || {
            thread::sleep(Duration::from_millis(20));
            let (status, readiness) = fleet.readiness(index);
            let said = readiness["components"]["redis"].as_str().unwrap_or_default().to_owned();
            let names = ["allkeys-lru", "CONFIG SET maxmemory-policy noeviction"];
            (status, &readiness["status"]) == (200, &json!("degraded"))
                && names.iter().all(|name| said.contains(name))
        });
        // As if it were away: nothing is written to it, segments and windows bridge it.
        assert_eq!(fleet.draw(index, "HOT", 3, &mut story), Some(Source::Segment));
        fleet.caller(index).number("FLAKE");
        let body = json!({ "prefix_key": "HOT" });
        let headers = [("Idempotency-Key", "during")];
        let keyed = fleet.caller(index).send("POST", "/numbers", &headers, Some(&body));
        keyed.expect_problem(503, "StorageUnavailable");
    }
    let before = redis.cli(&["GET", "sequence:HOT"]);
    fleet.draw(0, "HOT", 2, &mut story);
    assert_eq!(redis.cli(&["GET", "sequence:HOT"]), before);
    let log = fleet.node(0).log();
    assert!(log.contains("Redis is not used") && log.contains("allkeys-lru"), "{log}");
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    fleet.wait_normal("HOT", "Redis may not evict any more", &mut story);
    story.assert_unique();
    assert_accounted(&story, &fleet.sequences(0, "HOT"));
}

/// A master that is cut off from its replicas, or full, is there and takes no writes: as good as away, and no reason to send callers
/// elsewhere.
#[test]
fn a_redis_that_refuses_writes_is_as_good_as_away() {
    let redis = settled();
    let fleet = Fleet::start_with(&redis.url(), 2, |_, site| site.with("NUMGEN_WORKER_WINDOW_MS", "2000"));
    fleet.register("HOT", &counting());
    let mut story = Story::default();
    for index in 0..2 {
        fleet.draw(index, "HOT", 1, &mut story);
    }
    fleet.wait_segments("HOT");
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    for index in 0..2 {
        Stopwatch::wait_until(Duration::from_secs(10), "/readyz says why, with no window left", || {
            thread::sleep(Duration::from_millis(20));
            let (status, readiness) = fleet.readiness(index);
            let said = |name: &str| readiness["components"][name].as_str().unwrap_or_default().to_owned();
            assert_eq!(status, 200, "{readiness}");
            said("redis").contains("refuses: NOREPLICAS") && said("worker").starts_with("no window: ")
        });
        assert_eq!(fleet.readiness(index).1["status"], "degraded");
        assert_eq!(fleet.draw(index, "HOT", 3, &mut story), Some(Source::Segment));
    }
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    fleet.wait_normal("HOT", "Redis takes writes again", &mut story);
    story.assert_unique();
    assert_accounted(&story, &fleet.sequences(0, "HOT"));
}
