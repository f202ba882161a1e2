//! Continuous counters while nothing is wrong, and when a node dies.

use std::{thread, time::Duration};

use serde_json::json;

use super::{Fleet, Load, Pace, Source, Story, assert_accounted, assert_no_gap, counting, settled};
use crate::harness::{RedisCluster, Stopwatch, value_of};

#[test]
fn four_nodes_count_without_a_gap_and_in_order() {
    let redis = settled();
    let fleet = Fleet::start(&redis.url(), 4);
    fleet.register("HOT", &counting());
    let load = Load::on(&fleet, "HOT", Pace::FULL);
    thread::sleep(Duration::from_secs(5));
    let story = load.stop();
    story.assert_unique();
    story.assert_order(Duration::ZERO, fleet.watch.elapsed());
    assert_eq!((story.count(Source::Segment), story.count(Source::Temporary)), (0, 0), "{story}");
    let sequences = fleet.sequences(2, "HOT");
    assert_no_gap(&story, &sequences);
    // The key that other programs read: the cursor, here above 0.
    assert_eq!(
        redis.cli(&["GET", "sequence:HOT"]),
        sequences["counters"][0]["last_value"].as_str().expect("a text")
    );
}

#[test]
fn the_plain_key_is_right_after_every_batch() {
    let redis = settled();
    let fleet = Fleet::start(&redis.url(), 2);
    fleet.register("BASE", &json!({ "format": "B-{SEQ:6}", "initial_seq": 1000 }));
    fleet.register("YEARLY", &json!({ "format": "Y-{year}-{SEQ:6}", "reset": "yearly" }));
    for turn in 0..20 {
        let mut caller = fleet.caller(turn % 2);
        let count = 1 + turn * 3;
        for (prefix, key, body) in [
            ("BASE", "sequence:BASE", json!({ "prefix_key": "BASE", "count": count })),
            (
                "YEARLY",
                "sequence:YEARLY:2031",
                json!({ "prefix_key": "YEARLY", "count": count, "date": "2031-05-04" }),
            ),
        ] {
            let numbers = caller.post("/numbers", &body).expect(200).numbers();
            let base = if prefix == "BASE" { 1000 } else { 0 };
            let last = value_of(numbers.last().expect("numbers")) - base;
            assert_eq!(redis.cli(&["GET", key]), last.to_string(), "{prefix} after {numbers:?}");
        }
    }
    // An import from an older system, and the limit.
    let mut caller = fleet.caller(0);
    fleet.register("SMALL", &json!({ "format": "S-{SEQ:6}", "mode": "continuous", "max_seq": 1010 }));
    assert_eq!(caller.number("SMALL"), "S-000001");
    caller.post("/sequences/SMALL/advance", &json!({ "to": 1000 })).expect(200);
    assert_eq!(fleet.caller(1).number("SMALL"), "S-001001");
    fleet.caller(1).get("/numbers/SMALL?count=10").expect_problem(409, "SequenceOverflow");
    assert_eq!(caller.get("/numbers/SMALL?count=9").expect(200).numbers().len(), 9);
    caller.get("/numbers/SMALL").expect_problem(409, "SequenceOverflow");
    assert_eq!(redis.cli(&["GET", "sequence:SMALL"]), "1010");
}

/// What README shows: three nodes on one machine with one Redis.
#[test]
fn three_nodes_on_one_machine_count_together() {
    let redis = settled();
    let fleet = Fleet::start(&redis.url(), 3);
    fleet.register("ORDERS", &json!({ "format": "ORD-{SEQ:6}" }));
    let mut callers: Vec<_> = (0..3).map(|index| fleet.caller(index)).collect();
    for expected in 1..=300 {
        let number = callers[expected % 3].number("ORDERS");
        assert_eq!(number, format!("ORD-{expected:06}"), "one after the other, whichever node is asked");
    }
    for index in 0..3 {
        let (status, readiness) = fleet.readiness(index);
        assert_eq!((status, &readiness["status"]), (200, &json!("ready")), "{readiness}");
    }
}

#[test]
fn counters_of_a_cluster_are_spread_and_each_has_no_gap() {
    let cluster = RedisCluster::start();
    let fleet = Fleet::start(&cluster.url(), 2);
    let prefixes = ["A", "B", "C", "D"];
    let loads: Vec<_> = prefixes
        .iter()
        .map(|prefix| {
            fleet.register(prefix, &counting());
            Load::on(&fleet, prefix, Pace { callers: 1, ..Pace::FULL })
        })
        .collect();
    thread::sleep(Duration::from_secs(4));
    for (load, prefix) in loads.into_iter().zip(prefixes) {
        let story = load.stop();
        story.assert_unique();
        story.assert_order(Duration::ZERO, fleet.watch.elapsed());
        assert_no_gap(&story, &fleet.sequences(0, prefix));
    }
    let masters: std::collections::BTreeSet<usize> =
        prefixes.iter().map(|prefix| cluster.master_of(&format!("sequence:{prefix}"))).collect();
    assert!(masters.len() > 1, "spread: {masters:?}");
}

#[test]
fn a_killed_node_leaves_a_known_hole_and_takes_its_segment_up_again() {
    let redis = settled();
    let mut fleet = Fleet::start(&redis.url(), 3);
    fleet.register("HOT", &counting());
    let load = Load::on(&fleet, "HOT", Pace::FULL);
    thread::sleep(Duration::from_secs(2));
    fleet.wait_segments("HOT");
    for life in 0..3 {
        fleet.kill_9(2);
        thread::sleep(Duration::from_millis(400 + 300 * life));
        fleet.start_again(2);
        thread::sleep(Duration::from_millis(700));
    }
    let mut story = load.stop();
    fleet.wait_normal("HOT", "a node was killed three times", &mut story);
    story.assert_unique();
    story.assert_order(Duration::ZERO, fleet.watch.elapsed());
    assert_accounted(&story, &fleet.sequences(0, "HOT"));
    let others = story.problems.iter().filter(|(code, _)| *code != "NoWorkerId").count();
    assert_eq!(others, 0, "the other nodes carried on: {story}");
}

#[test]
fn a_node_that_never_returns_is_given_up_by_a_person() {
    let redis = settled();
    let mut fleet = Fleet::start(&redis.url(), 2);
    fleet.register("HOT", &counting());
    let mut story = Story::default();
    fleet.draw(0, "HOT", 1, &mut story);
    fleet.draw(1, "HOT", 1, &mut story);
    fleet.wait_segments("HOT");
    fleet.kill_9(1);
    let mut caller = fleet.caller(0);
    let held_by_the_dead = |sequences: &serde_json::Value| {
        let segments = sequences["counters"][0]["segments"].as_array().cloned().unwrap_or_default();
        segments.into_iter().find(|segment| segment["node"] == "node-1")
    };
    let segment = held_by_the_dead(&fleet.sequences(0, "HOT")).expect("the dead node's segment");
    // Nothing at or below it can be promised while it may come back.
    let to: u64 = segment["to"].as_str().and_then(|text| text.parse().ok()).expect("a bound");
    let refused = caller.post("/sequences/HOT/advance", &json!({ "to": to + 5 }));
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains("node-1"), "it names the holder: {}", refused.text());
    let body = json!({ "node": "node-1", "reason": "the disk is gone" });
    caller.post("/sequences/HOT/abandon", &body).expect(200);
    Stopwatch::wait_until(Duration::from_secs(10), "given up", || {
        held_by_the_dead(&fleet.sequences(0, "HOT")).is_none()
    });
    // The counter goes through where the segment was, or around it; either way every value is accounted for.
    for _ in 0..4 {
        fleet.draw(0, "HOT", 1_000, &mut story);
    }
    story.assert_unique();
    assert_accounted(&story, &fleet.sequences(0, "HOT"));
}

/// Asleep with a TAKE under way, again and again: what it wakes up with is still its own, and the others never waited for it.
#[test]
fn a_node_that_sleeps_delays_nobody() {
    let redis = settled();
    let fleet = Fleet::start(&redis.url(), 3);
    fleet.register("HOT", &counting());
    let load = Load::on(&fleet, "HOT", Pace::FULL);
    thread::sleep(Duration::from_secs(1));
    for nap_ms in [50, 400, 3_000, 200] {
        fleet.node(1).pause();
        thread::sleep(Duration::from_millis(nap_ms));
        fleet.node(1).resume();
        thread::sleep(Duration::from_millis(300));
    }
    let mut story = load.stop();
    fleet.wait_normal("HOT", "a node slept", &mut story);
    story.assert_unique();
    story.assert_order(Duration::ZERO, fleet.watch.elapsed());
    assert_accounted(&story, &fleet.sequences(0, "HOT"));
    let others = story.drawn.iter().filter(|drawn| drawn.node != 1);
    let slowest = others.map(|drawn| drawn.answered - drawn.asked).max().expect("answers");
    assert!(slowest < Duration::from_secs(2), "the others waited {slowest:?}");
}
