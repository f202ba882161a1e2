//! Redis out of reach, and back: segments, temporary numbers, bad lines.

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::{Value, json};

use super::{
    ENOUGH, Fleet, Load, NORMAL_WITHIN, Pace, Source, Story, assert_accounted, counting, flaking, settled,
};
use crate::harness::{Data, Fault, Proxy, Stopwatch};

/// A worker window is as long as its holder has been alive, but at least so long, less what passes between two renewals.
const LEAST_WINDOW: Duration = Duration::from_secs(27);

/// How long Redis is away: longer with `NUMGEN_TEST_OUTAGE_S=60`.
fn outage() -> Duration {
    let seconds = std::env::var("NUMGEN_TEST_OUTAGE_S").ok().map(|text| text.parse().expect("seconds"));
    Duration::from_secs(seconds.unwrap_or(8))
}

#[test]
fn redis_away_and_back_four_nodes_one_hot_prefix() {
    let redis = settled();
    let proxy = Proxy::to(redis.port());
    let fleet = Fleet::start(&proxy.redis_url(), 4);
    fleet.register("HOT", &counting());
    fleet.register("FLAKE", &flaking());
    let (hot, flakes) = (Load::on(&fleet, "HOT", Pace::CALM), Load::on(&fleet, "FLAKE", Pace::CALM));
    // Nodes that have just started can bridge half a minute; for more they must have lived as long.
    let age =
        if outage() > LEAST_WINDOW { outage() + Duration::from_secs(5) } else { Duration::from_secs(2) };
    thread::sleep(age);
    hot.wait_for(ENOUGH);
    fleet.wait_segments("HOT");
    let healthy_until = fleet.watch.elapsed();
    proxy.set(Fault::Refuse);
    hot.wait_for(ENOUGH);
    thread::sleep(outage());
    for index in 0..4 {
        let (status, readiness) = fleet.readiness(index);
        assert_eq!((status, &readiness["status"]), (200, &json!("degraded")), "{readiness}");
    }
    proxy.set(Fault::None);
    let mut story = Story::default();
    fleet.wait_normal("HOT", &format!("Redis away for {} s", outage().as_secs()), &mut story);
    let normal_since = fleet.watch.elapsed();
    hot.wait_for(3 * ENOUGH);
    let (hot, flakes) = (hot.stop(), flakes.stop());
    let ended = fleet.watch.elapsed();
    story.add(hot);
    story.assert_unique();
    story.assert_order(Duration::ZERO, healthy_until);
    story.assert_order(normal_since, ended);
    assert!(story.count(Source::Segment) > 100, "segments bridged it: {story}");
    assert_accounted(&story, &fleet.sequences(1, "HOT"));
    flakes.assert_unique();
    assert_eq!((flakes.unknown, flakes.problems.len()), (0, 0), "snowflakes need no Redis: {flakes}");
}

/// No window is left when Redis comes back, and none is given for five seconds. Counters have their segments meanwhile, so callers are not
/// to be sent elsewhere.
#[test]
fn redis_comes_back_empty_after_a_long_outage_and_nodes_stay_in_use() {
    let mut redis = settled();
    let fleet = Fleet::start_with(&redis.url(), 2, |_, site| site.with("NUMGEN_WORKER_WINDOW_MS", "2000"));
    fleet.register("HOT", &counting());
    let mut story = Story::default();
    for index in 0..2 {
        assert_eq!(fleet.draw(index, "HOT", 1, &mut story), Some(Source::Primary));
    }
    fleet.wait_segments("HOT");
    redis.kill();
    let worker = |index: usize| {
        let (status, readiness) = fleet.readiness(index);
        assert_eq!((status, &readiness["status"]), (200, &json!("degraded")), "{readiness}");
        readiness["components"]["worker"].as_str().unwrap_or_default().to_owned()
    };
    thread::sleep(Duration::from_millis(500));
    for index in 0..2 {
        Stopwatch::wait_until(Duration::from_secs(10), "no window is left", || {
            worker(index).starts_with("no window")
        });
    }
    redis.start_again(Data::Empty);
    for index in 0..2 {
        Stopwatch::wait_until(Duration::from_secs(5), "Redis settles", || worker(index).contains("settles"));
        assert_eq!(fleet.draw(index, "HOT", 1, &mut story), Some(Source::Segment));
    }
    fleet.wait_normal("HOT", "a long outage, and Redis emptied", &mut story);
    story.assert_unique();
    assert_accounted(&story, &fleet.sequences(1, "HOT"));
}

#[test]
fn a_segment_has_a_thousand_values_and_then_on_outage_decides() {
    let redis = settled();
    let proxy = Proxy::to(redis.port());
    let fleet = Fleet::start(&proxy.redis_url(), 2);
    let modes = ["FAIL", "SEGMENT", "TEMPORARY"];
    let mut stories: Vec<Story> = Vec::new();
    for mode in modes {
        let rule = json!({ "format": "N-{SEQ:9}", "mode": "continuous", "on_outage": mode.to_lowercase() });
        fleet.register(mode, &rule);
        let mut story = Story::default();
        for index in 0..2 {
            fleet.draw(index, mode, 1, &mut story);
        }
        stories.push(story);
    }
    fleet.wait_segments("SEGMENT");
    fleet.wait_segments("TEMPORARY");
    proxy.set(Fault::Refuse);
    thread::sleep(Duration::from_millis(300));
    for index in 0..2 {
        let [fail, segment, temporary] = &mut stories[..] else { panic!("three stories") };
        assert_eq!(fleet.draw(index, "FAIL", 1, fail), None, "503 at once");
        for (prefix, story) in [("SEGMENT", &mut *segment), ("TEMPORARY", &mut *temporary)] {
            for batch in [1, 499, 450] {
                assert_eq!(fleet.draw(index, prefix, batch, story), Some(Source::Segment));
            }
        }
        // Fifty are left: a larger batch is refused, or temporary, as a whole; and the fifty are still there.
        assert_eq!(fleet.draw(index, "SEGMENT", 51, segment), None);
        assert_eq!(fleet.draw(index, "TEMPORARY", 51, temporary), Some(Source::Temporary));
        for (prefix, story) in [("SEGMENT", &mut *segment), ("TEMPORARY", &mut *temporary)] {
            assert_eq!(fleet.draw(index, prefix, 50, story), Some(Source::Segment));
        }
        assert_eq!(fleet.draw(index, "SEGMENT", 1, segment), None, "exactly a thousand");
        assert_eq!(fleet.draw(index, "TEMPORARY", 1, temporary), Some(Source::Temporary));
    }
    assert_eq!(stories[1].count(Source::Segment), 2_000);
    assert_eq!(stories[2].count(Source::Temporary), 104);
    proxy.set(Fault::None);
    for (mode, story) in modes.iter().zip(&mut stories) {
        fleet.wait_normal(mode, &format!("on_outage: {}", mode.to_lowercase()), story);
        story.assert_unique();
        assert_accounted(story, &fleet.sequences(0, mode));
    }
    assert_resolved(&fleet, &mut stories[2]);
}

/// What was temporary is listed on every node, and becomes final at most once.
#[track_caller]
fn assert_resolved(fleet: &Fleet, story: &mut Story) {
    let mut caller = fleet.caller(1);
    let open = |caller: &mut crate::harness::Caller| -> Vec<Value> {
        let page = caller.get("/temporary-numbers?status=open&limit=1000").expect(200).json();
        page["rows"].as_array().cloned().expect("rows")
    };
    crate::harness::Stopwatch::wait_until(NORMAL_WITHIN, "every journal is uploaded", || {
        open(&mut caller).len() == 104
    });
    let listed: BTreeSet<String> =
        open(&mut caller).iter().map(|row| row["number"].as_str().expect("a number").to_owned()).collect();
    let given: BTreeSet<String> = story
        .drawn
        .iter()
        .filter(|drawn| drawn.source == Source::Temporary)
        .flat_map(|drawn| drawn.numbers.iter().cloned())
        .collect();
    assert_eq!(listed, given, "what was answered is what is listed");
    let number = given.first().expect("some").replace('~', "%7E");
    let assign = json!({ "action": "assign", "reason": "printed" });
    let path = format!("/temporary-numbers/{number}/resolve");
    let first = caller.post(&path, &assign).expect(200).json();
    let second = fleet.caller(0).post(&path, &assign).expect(200).json();
    assert_eq!(first["final"], second["final"], "at most once: {first} {second}");
    assert!(first["final"].as_str().is_some_and(|text| text.starts_with("N-")), "{first}");
}

/// One network after the other, each as bad as networks get, under load.
#[test]
fn bad_lines_cost_time_and_nothing_else() {
    let redis = settled();
    let proxy = Proxy::to(redis.port());
    let fleet = Fleet::start(&proxy.redis_url(), 2);
    fleet.register("HOT", &counting());
    fleet.register("FLAKE", &flaking());
    let (hot, flakes) = (Load::on(&fleet, "HOT", Pace::CALM), Load::on(&fleet, "FLAKE", Pace::CALM));
    thread::sleep(Duration::from_secs(1));
    let mut story = Story::default();
    for fault in [
        Fault::BlackHole,
        Fault::DropReplies,
        Fault::CutReplies,
        Fault::HalfOpen,
        Fault::Loss(0.5),
        Fault::Latency(Duration::from_millis(40)),
    ] {
        proxy.set(fault);
        thread::sleep(Duration::from_millis(2_500));
        if fault == Fault::HalfOpen {
            // Connections that nobody closed are noticed all the same.
            fleet.wait_normal("HOT", "half-open connections, not healed", &mut story);
        }
        proxy.set(Fault::None);
        fleet.wait_normal("HOT", &format!("{fault:?}"), &mut story);
    }
    let normal_since = fleet.watch.elapsed();
    hot.wait_for(ENOUGH);
    story.add(hot.stop());
    story.assert_unique();
    story.assert_order(normal_since, fleet.watch.elapsed());
    assert_accounted(&story, &fleet.sequences(1, "HOT"));
    let flakes = flakes.stop();
    flakes.assert_unique();
    assert_eq!((flakes.unknown, flakes.problems.len()), (0, 0), "{flakes}");
}

/// A partition: one node sees nothing, the others go on; no value twice when it comes back with what it had under way.
#[test]
fn a_node_that_is_cut_off_disturbs_nobody() {
    let redis = settled();
    let proxy = Proxy::to(redis.port());
    let fleet = Fleet::start_with(&redis.url(), 3, |index, site| {
        if index == 0 { site.with("NUMGEN_REDIS_URL", &proxy.redis_url()) } else { site }
    });
    fleet.register("HOT", &counting());
    let load = Load::on(&fleet, "HOT", Pace { callers: 2, pause: Duration::from_millis(3), batch: 2 });
    thread::sleep(Duration::from_secs(1));
    fleet.wait_segments("HOT");
    let mut story = Story::default();
    for _ in 0..2 {
        proxy.set(Fault::BlackHole);
        thread::sleep(Duration::from_secs(4));
        proxy.set(Fault::None);
        fleet.wait_normal("HOT", "a node was cut off", &mut story);
    }
    story.add(load.stop());
    story.assert_unique();
    assert_accounted(&story, &fleet.sequences(1, "HOT"));
    let of_others = story.drawn.iter().filter(|drawn| drawn.node != 0);
    assert!(of_others.clone().count() > 500, "{story}");
    assert!(of_others.clone().all(|drawn| drawn.source == Source::Primary), "the others noticed nothing");
    let segments = story.drawn.iter().filter(|drawn| drawn.source == Source::Segment).count();
    assert!(segments > 0, "{story}");
}

#[test]
fn a_node_that_starts_without_redis_serves_what_it_has() {
    let redis = settled();
    let proxy = Proxy::to(redis.port());
    let mut fleet = Fleet::start(&proxy.redis_url(), 1);
    fleet.register("HOT", &counting());
    let mut story = Story::default();
    fleet.draw(0, "HOT", 5, &mut story);
    fleet.wait_segments("HOT");
    // It dies with its segment, and its segment is on its disk.
    fleet.kill_9(0);
    proxy.set(Fault::Refuse);
    fleet.start_again(0);
    let (status, readiness) = fleet.readiness(0);
    assert_eq!((status, &readiness["status"]), (200, &json!("degraded")), "{readiness}");
    let rules = readiness["components"]["rules"].as_str().unwrap_or_default().to_owned();
    assert_ne!(rules, "ok", "it says that its rules are a copy: {readiness}");
    assert_eq!(fleet.draw(0, "HOT", 10, &mut story), Some(Source::Segment));
    proxy.set(Fault::None);
    fleet.wait_normal("HOT", "a start without Redis", &mut story);
    story.assert_unique();
    assert_accounted(&story, &fleet.sequences(0, "HOT"));
}
