//! Worker windows: two nodes at once, pauses, clocks, more nodes than slots.

use std::{collections::BTreeSet, path::Path, thread, time::Duration};

use serde_json::{Value, json};

use super::{Fleet, Load, NORMAL_WITHIN, Pace, SETTLING, flaking, settled, worker_of};
use crate::harness::{Data, Hands, Redis, Site, Stopwatch, faketime, turn_hands, watching_hands};

/// Windows and leases that a test can wait for.
fn short(site: Site) -> Site {
    site.with("NUMGEN_WORKER_WINDOW_MS", "2000").with("NUMGEN_WORKER_TTL_MS", "1000")
}

/// Two slots in all: one bit for the worker.
pub(super) fn two_slots(site: Site) -> Site {
    site.with("NUMGEN_SNOWFLAKE_LAYOUT", "41/5/1/16")
}

/// The worker IDs of all nodes that can issue.
#[track_caller]
pub(super) fn workers(fleet: &Fleet) -> Vec<u64> {
    let running = (0..fleet.nodes.len()).filter(|&index| fleet.nodes[index].is_some());
    running
        .map(|index| {
            let mut caller = fleet.caller(index);
            let number = caller.number("FLAKE");
            worker_of(&mut caller, "FLAKE", &number)
        })
        .collect()
}

/// Leaf, 2021: two nodes raced for the first worker ID.
#[test]
fn nodes_that_start_at_once_on_an_empty_redis_are_different_workers() {
    let redis = Redis::start();
    let fleet = Fleet::start(&redis.url(), 5);
    fleet.register("FLAKE", &flaking());
    let workers = workers(&fleet);
    assert_eq!(workers.iter().collect::<BTreeSet<_>>().len(), 5, "{workers:?}");
    let load = Load::on(&fleet, "FLAKE", Pace { callers: 1, batch: 50, ..Pace::FULL });
    thread::sleep(Duration::from_secs(2));
    load.stop().assert_unique();
}

/// A lease that is lost while issuing goes on (CosId, Leaf, yitter): here by a pause, longer than the window, of a node whose slot is
/// taken meanwhile.
#[test]
fn a_node_that_slept_through_its_window_issues_nothing_from_it() {
    let redis = settled();
    let mut fleet = Fleet::plan(3, |_, site| two_slots(short(site)).with("NUMGEN_REDIS_URL", &redis.url()));
    fleet.start_unready(0);
    fleet.start_unready(1);
    fleet.wait_ready(0);
    fleet.wait_ready(1);
    fleet.caller(0).register("FLAKE", &flaking());
    thread::sleep(Duration::from_secs(1));
    let load = Load::on(&fleet, "FLAKE", Pace { callers: 2, pause: Duration::from_millis(1), batch: 20 });
    thread::sleep(Duration::from_secs(1));
    fleet.node(0).pause();
    // Its slot rests until its mark has passed, and then belongs to the third node.
    fleet.start_unready(2);
    fleet.wait_ready(2);
    thread::sleep(Duration::from_secs(1));
    fleet.node(0).resume();
    // More nodes than slots: the one that lost its own says so, and what limits it.
    Stopwatch::wait_until(NORMAL_WITHIN, "the node says what limits it", || {
        let (status, readiness) = fleet.readiness(0);
        status == 503 && readiness.to_string().contains("NUMGEN_SNOWFLAKE_LAYOUT")
    });
    fleet.caller(0).get("/numbers/FLAKE").expect_problem(503, "NoWorkerId");
    // A place becomes free: nobody is needed.
    fleet.stop(2);
    Stopwatch::wait_until(NORMAL_WITHIN, "a slot for the node that slept", || fleet.readiness(0).0 == 200);
    thread::sleep(Duration::from_millis(500));
    let story = load.stop();
    story.assert_unique();
    assert!(story.drawn.iter().any(|drawn| drawn.node == 2), "the third node issued: {story}");
}

#[test]
fn a_killed_node_is_replaced_and_its_slot_rests() {
    let redis = settled();
    let mut fleet = Fleet::start_with(&redis.url(), 2, |_, site| two_slots(short(site)));
    fleet.register("FLAKE", &flaking());
    let load = Load::on(&fleet, "FLAKE", Pace { callers: 2, pause: Duration::from_millis(1), batch: 20 });
    for life in 0..3 {
        thread::sleep(Duration::from_millis(500 + life * 200));
        fleet.kill_9(1);
        fleet.start_again(1);
    }
    let story = load.stop();
    story.assert_unique();
    let of_other = story.drawn.iter().filter(|drawn| drawn.node == 0).count();
    assert!(of_other > 200 && story.problems.is_empty(), "the other node did not notice: {story}");
}

#[test]
fn clocks_of_nodes_do_not_matter() {
    let Some(library) = faketime() else { return };
    let redis = settled();
    let directory = tempfile::tempdir().expect("a directory");
    let hands = |index: usize| directory.path().join(format!("hands-{index}"));
    // From the start they are two days apart.
    let offsets = [0, -86_400_000, 86_400_000];
    for (index, offset) in offsets.into_iter().enumerate() {
        turn_hands(&hands(index), Hands::Off(offset));
    }
    let fleet = Fleet::start_with(&redis.url(), 3, |index, site| bent(site, &library, &hands(index)));
    fleet.register("FLAKE", &flaking());
    let begun_ms = redis.time_ms();
    let load = Load::on(&fleet, "FLAKE", Pace { callers: 2, pause: Duration::from_millis(1), batch: 20 });
    for jumps in
        [[3_600_000, 0, -3_600_000], [-7_200_000, 7_200_000, 0], [0, -10_000, 10_000], [-1, 1, 86_400_000]]
    {
        thread::sleep(Duration::from_millis(800));
        for (index, offset) in jumps.into_iter().enumerate() {
            turn_hands(&hands(index), Hands::Off(offset));
        }
    }
    thread::sleep(Duration::from_millis(800));
    let story = load.stop();
    story.assert_unique();
    assert_eq!((story.unknown, story.problems.len()), (0, 0), "nobody had to wait: {story}");
    // IDs stay true to the time of Redis, whatever the clock of their node shows.
    let ended_ms = redis.time_ms();
    let mut caller = fleet.caller(0);
    for drawn in story.drawn.iter().step_by(story.drawn.len() / 20 + 1) {
        let path = format!("/numbers/decode?prefixKey=FLAKE&number={}", drawn.numbers[0]);
        let decoded: Value = caller.get(&path).expect(200).json();
        let issued_at = decoded["issued_at"].as_str().expect("a time");
        let issued_at = chrono::DateTime::parse_from_rfc3339(issued_at).expect("RFC 3339").timestamp_millis();
        assert!(
            (begun_ms - 1_000..=ended_ms + 1_000).contains(&issued_at),
            "{issued_at} is not from {begun_ms} to {ended_ms}: {decoded}"
        );
    }
}

pub(super) fn bent(site: Site, library: &Path, hands: &Path) -> Site {
    watching_hands(library, hands).into_iter().fold(site, |site, (name, value)| site.with(&name, &value))
}

#[test]
fn an_emptied_redis_gives_no_slot_away_that_somebody_holds() {
    let mut redis = settled();
    let mut fleet = Fleet::plan(4, |_, site| site.with("NUMGEN_REDIS_URL", &redis.url()));
    for index in 0..3 {
        fleet.start_unready(index);
    }
    for index in 0..3 {
        fleet.wait_ready(index);
    }
    fleet.caller(0).register("FLAKE", &flaking());
    thread::sleep(SETTLING);
    let held: BTreeSet<u64> = workers(&fleet).into_iter().collect();
    let load = Load::on(&fleet, "FLAKE", Pace { callers: 1, pause: Duration::from_millis(1), batch: 20 });
    redis.kill();
    redis.start_again(Data::Empty);
    let watch = Stopwatch::start();
    fleet.start_unready(3);
    fleet.wait_ready(3);
    let waited = watch.elapsed();
    assert!(
        waited + Duration::from_secs(1) >= SETTLING,
        "it waited until the others could re-assert: {waited:?}"
    );
    let after: Vec<u64> = workers(&fleet);
    assert_eq!(after.iter().collect::<BTreeSet<_>>().len(), 4, "{after:?}");
    assert!(after[..3].iter().all(|worker| held.contains(worker)), "they kept theirs: {held:?} {after:?}");
    thread::sleep(Duration::from_secs(1));
    let story = load.stop();
    story.assert_unique();
    assert_eq!((story.unknown, story.problems.len()), (0, 0), "issuing went on: {story}");
}

#[test]
fn a_fixed_worker_id_has_one_holder() {
    let redis = settled();
    let mut fleet =
        Fleet::plan(2, |_, site| site.with("NUMGEN_REDIS_URL", &redis.url()).with("NUMGEN_WORKER_ID", "7"));
    fleet.start_again(0);
    let mut caller = fleet.caller(0);
    caller.register("FLAKE", &flaking());
    let number = caller.number("FLAKE");
    assert_eq!(worker_of(&mut caller, "FLAKE", &number), 7);
    fleet.start_unready(1);
    Stopwatch::wait_until(NORMAL_WITHIN, "the second is refused and told which setting", || {
        fleet.node(1).log().contains("NUMGEN_WORKER_ID")
    });
    assert_ne!(fleet.node(1).admin("/readyz").map_or(503, |answer| answer.status), 200);
}

#[test]
fn one_redis_bears_one_data_centre_and_one_layout() {
    let redis = settled();
    let mut fleet = Fleet::start(&redis.url(), 1);
    fleet.register("FLAKE", &flaking());
    for (setting, value) in [("NUMGEN_DATACENTER_ID", "1"), ("NUMGEN_SNOWFLAKE_LAYOUT", "42/5/5/11")] {
        let stranger = Site::new().with("NUMGEN_REDIS_URL", &redis.url()).with(setting, value);
        let status = stranger.start_unready().wait_exit(Duration::from_secs(20));
        assert_ne!(status.code(), Some(0));
        let log = stranger.log();
        assert!(log.contains(setting), "it names what disagrees: {log}");
    }
    let (status, readiness) = fleet.readiness(0);
    assert_eq!((status, &readiness["status"]), (200, &json!("ready")), "{readiness}");
    fleet.stop(0);
}
