//! Redis itself is struck: killed, emptied, set back, replaced by a replica that lags.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use super::{
    ENOUGH, Fleet, Load, NORMAL_WITHIN, Pace, SETTLING, Source, Story, assert_accounted, counting, flaking,
    settled,
};
use crate::harness::{Data, RedisCluster, Sentinels, Stopwatch};

/// Load before, while and after; then the checkers. `strike` does what is to be survived.
struct Trial<'a> {
    fleet: &'a mut Fleet,
    what: &'a str,
}

impl Trial<'_> {
    /// Answers what was seen of the counter.
    #[track_caller]
    fn run(self, strike: impl FnOnce(&mut Fleet)) -> Story {
        let Self { fleet, what } = self;
        fleet.register("HOT", &counting());
        fleet.register("FLAKE", &flaking());
        let (hot, flakes) = (Load::on(fleet, "HOT", Pace::CALM), Load::on(fleet, "FLAKE", Pace::CALM));
        hot.wait_for(2 * ENOUGH);
        let healthy_until = fleet.watch.elapsed();
        strike(fleet);
        let mut story = Story::default();
        fleet.wait_normal("HOT", what, &mut story);
        let normal_since = fleet.watch.elapsed();
        hot.wait_for(ENOUGH);
        story.add(hot.stop());
        let flakes = flakes.stop();
        story.assert_unique();
        story.assert_order(Duration::ZERO, healthy_until);
        story.assert_order(normal_since, fleet.watch.elapsed());
        flakes.assert_unique();
        assert_accounted(&story, &fleet.sequences(0, "HOT"));
        story
    }
}

#[test]
fn redis_is_killed_and_comes_back_with_its_data() {
    let mut redis = settled();
    let mut fleet = Fleet::start(&redis.url(), 3);
    let trial = Trial { fleet: &mut fleet, what: "Redis killed, data kept" };
    trial.run(|_| {
        redis.kill();
        thread::sleep(Duration::from_secs(1));
        redis.start_again(Data::Kept);
    });
}

#[test]
fn redis_comes_back_empty() {
    let mut redis = settled();
    let mut fleet = Fleet::start(&redis.url(), 3);
    let trial = Trial { fleet: &mut fleet, what: "Redis emptied" };
    trial.run(|_| {
        redis.kill();
        redis.start_again(Data::Empty);
    });
    // The same server, wiped by somebody: its master_replid is the same as before.
    let mut story = Story::default();
    let before =
        fleet.sequences(0, "HOT")["counters"][0]["last_value"].as_str().and_then(|text| text.parse().ok());
    let before: u64 = before.expect("a value");
    redis.cli(&["FLUSHALL"]);
    fleet.wait_normal("HOT", "FLUSHALL", &mut story);
    let lowest = story.observations().iter().map(|seen| seen.value).min().expect("values");
    assert!(lowest > before, "{lowest} after {before}");
}

/// A limit is raised, and who has drawn above it dies as Redis forgets. The others go by the old limit until somebody asks them: how far
/// is skipped is not bounded by it.
#[test]
fn redis_is_emptied_and_who_drew_above_the_former_limit_is_gone() {
    let redis = settled();
    let mut fleet = Fleet::start(&redis.url(), 3);
    let limited = |max: u64| json!({ "format": "N-{SEQ:9}", "mode": "continuous", "max_seq": max });
    fleet.register("HOT", &limited(90));
    let mut story = Story::default();
    for index in 0..3 {
        assert!(fleet.draw(index, "HOT", 30, &mut story).is_some());
    }
    let changed = fleet.caller(2).send("PUT", "/prefix-configs/HOT", &[], Some(&limited(1_000_000)));
    changed.expect(200);
    thread::sleep(Duration::from_secs(6));
    assert!(fleet.draw(2, "HOT", 20, &mut story).is_some());
    fleet.kill_9(2);
    redis.cli(&["FLUSHALL"]);
    thread::sleep(SETTLING);
    for index in 0..2 {
        Stopwatch::wait_until(NORMAL_WITHIN, "drawn from Redis again", || {
            thread::sleep(Duration::from_millis(20));
            fleet.draw(index, "HOT", 10, &mut story) == Some(Source::Primary)
        });
    }
    story.assert_unique();
}

/// An import was acknowledged, and whoever acknowledged it lives.
#[test]
fn redis_is_emptied_right_after_a_counter_was_advanced() {
    let redis = settled();
    let fleet = Fleet::start(&redis.url(), 2);
    fleet.register("HOT", &counting());
    let mut story = Story::default();
    assert!(fleet.draw(1, "HOT", 1, &mut story).is_some());
    let advance = json!({ "to": 500_000 });
    let mut caller = fleet.caller(0);
    Stopwatch::wait_until(NORMAL_WITHIN, "advanced", || {
        caller.post("/sequences/HOT/advance", &advance).status == 200
    });
    redis.cli(&["FLUSHALL"]);
    let mut after = Story::default();
    Stopwatch::wait_until(NORMAL_WITHIN, "drawn from Redis again", || {
        thread::sleep(Duration::from_millis(20));
        fleet.draw(1, "HOT", 1, &mut after) == Some(Source::Primary)
    });
    let primary = after.observations().iter().map(|seen| seen.value).max().expect("a value");
    assert!(primary > 500_000, "{primary}");
}

/// Who has drawn from a counter has given it up since: it is on disk, and nowhere else.
#[test]
fn redis_is_emptied_and_a_counter_is_known_to_nobody_who_draws() {
    let redis = settled();
    let mut fleet = Fleet::start(&redis.url(), 2);
    fleet.register("REST", &counting());
    let mut story = Story::default();
    assert!(fleet.draw(0, "REST", 30, &mut story).is_some());
    fleet.stop(0);
    redis.cli(&["FLUSHALL"]);
    fleet.start_again(0);
    // Only the one that knows nothing asks.
    Stopwatch::wait_until(NORMAL_WITHIN, "drawn from Redis again", || {
        thread::sleep(Duration::from_millis(20));
        fleet.draw(1, "REST", 1, &mut story) == Some(Source::Primary)
    });
    fleet.draw(1, "REST", 30, &mut story);
    story.assert_unique();
    assert!(story.observations().len() > 30);
}

#[test]
fn redis_comes_back_as_it_was_some_time_ago() {
    let mut redis = settled();
    let mut fleet = Fleet::start(&redis.url(), 3);
    let trial = Trial { fleet: &mut fleet, what: "Redis restored from an old dump" };
    trial.run(|_| {
        let dump = redis.dump();
        // What is drawn now is unknown to the dump.
        thread::sleep(Duration::from_secs(2));
        redis.kill();
        redis.start_again(Data::Dump(dump));
    });
}

/// Redis holds a segment for a process that has swapped it since, and is gone: what lies there was drawn by all, and is not nobody's.
#[test]
fn redis_is_set_back_and_a_node_was_killed_meanwhile() {
    let mut redis = settled();
    let mut fleet = Fleet::start_with(&redis.url(), 3, |_, site| site.with("NUMGEN_SEGMENT_SIZE", "20"));
    let trial = Trial { fleet: &mut fleet, what: "Redis restored, a node killed" };
    trial.run(|fleet| {
        let dump = redis.dump();
        // Segments lie some seconds ahead: by then the cursor has passed those of the dump.
        thread::sleep(Duration::from_secs(7));
        fleet.kill_9(0);
        redis.kill();
        redis.start_again(Data::Dump(dump));
        fleet.start_again(0);
    });
}

/// Everything goes at once: Redis remembers the past, and whoever knew better was killed.
#[test]
fn redis_is_set_back_and_every_node_was_killed_meanwhile() {
    let mut redis = settled();
    let mut fleet = Fleet::start(&redis.url(), 2);
    let trial = Trial { fleet: &mut fleet, what: "Redis restored, every node killed" };
    let story = trial.run(|fleet| {
        let dump = redis.dump();
        thread::sleep(Duration::from_secs(2));
        for index in 0..2 {
            fleet.kill_9(index);
        }
        redis.kill();
        redis.start_again(Data::Dump(dump));
        fleet.start_all();
    });
    assert!(story.drawn.len() > 300, "{story}");
}

#[test]
fn redis_stands_still_for_a_while() {
    let redis = settled();
    let mut fleet = Fleet::start(&redis.url(), 2);
    let trial = Trial { fleet: &mut fleet, what: "Redis stopped for 6 s" };
    trial.run(|_| {
        redis.pause();
        thread::sleep(Duration::from_secs(6));
        redis.resume();
    });
}

/// The counter that fell from 91 to 81 (redis #6062): here it must not.
#[test]
fn a_replica_that_lags_is_promoted() {
    let mut sentinels = Sentinels::start();
    let mut fleet = Fleet::start(&sentinels.url(), 3);
    let trial = Trial { fleet: &mut fleet, what: "a lagging replica promoted" };
    trial.run(|_| {
        sentinels.hold_replica_back();
        thread::sleep(Duration::from_secs(2));
        sentinels.failover();
    });
}

#[test]
fn a_master_of_a_cluster_is_killed() {
    let mut cluster = RedisCluster::start();
    let mut fleet = Fleet::start(&cluster.url(), 2);
    let trial = Trial { fleet: &mut fleet, what: "a master of a cluster killed" };
    trial.run(|_| {
        let master = cluster.master_of("sequence:HOT");
        cluster.node(master).kill();
        Stopwatch::wait_until(NORMAL_WITHIN, "another master", || cluster.masters().count() == 3);
    });
}

/// Where its counters are nobody can say for longer than a store settles; and yet every node is there, and every value.
#[test]
fn a_slot_of_a_cluster_stands_open_for_long() {
    let cluster = RedisCluster::start();
    let mut fleet = Fleet::start(&cluster.url(), 2);
    let trial = Trial { fleet: &mut fleet, what: "a slot moved to another master" };
    trial.run(|_| {
        let slot = cluster.open_slot("sequence:HOT");
        cluster.move_keys(&slot);
        thread::sleep(SETTLING + Duration::from_secs(3));
        cluster.close_slot(slot);
    });
    let holes = fleet.sequences(0, "HOT")["counters"][0]["holes"].clone();
    let skipped = |hole: &Value| hole["reason"] == "skipped";
    assert!(!holes.as_array().expect("a list").iter().any(skipped), "{holes}");
}
