//! Clocks that jump by hours: that of Redis, those of the nodes. Order and uniqueness come from marks and cursors; a clock decides
//! how long somebody waits, and at most for how long a slot rests.

use std::{thread, time::Duration};

use super::{
    Fleet, Load, NORMAL_WITHIN, Pace, Source, Story, assert_accounted, counting, flaking, settle, settled,
    windows::{bent, two_slots, workers},
};
use crate::harness::{Fault, Hands, Proxy, Redis, Stopwatch, faketime, turn_hands};

const THREE_HOURS: i64 = 3 * 3_600_000;

/// Counters and snowflakes asked for all the while.
struct Callers {
    hot: Load,
    flakes: Load,
}

impl Callers {
    #[track_caller]
    fn of(fleet: &Fleet) -> Self {
        fleet.register("HOT", &counting());
        fleet.register("FLAKE", &flaking());
        let hot = Load::on(fleet, "HOT", Pace::CALM);
        let flakes =
            Load::on(fleet, "FLAKE", Pace { callers: 2, pause: Duration::from_millis(2), batch: 20 });
        Self { hot, flakes }
    }

    /// Nothing came twice, and every value of the counter is accounted for. Answers what was seen of the snowflakes.
    #[track_caller]
    fn judge(self, fleet: &Fleet, mut story: Story) -> Story {
        // Of five requests one is for twenty: these are over a thousand requests.
        self.flakes.wait_for_all(6_000);
        story.add(self.hot.stop());
        let flakes = self.flakes.stop();
        story.assert_unique();
        flakes.assert_unique();
        assert_accounted(&story, &fleet.sequences(0, "HOT"));
        assert!(flakes.drawn.len() > 1_000, "{flakes}");
        flakes
    }
}

fn redis_with_clock() -> Option<Redis> {
    faketime()?;
    let redis = Redis::start_with_clock(Hands::Off(0));
    settle(&redis);
    Some(redis)
}

#[test]
fn the_clock_of_redis_jumps_by_hours_either_way() {
    let Some(redis) = redis_with_clock() else { return };
    let fleet = Fleet::start(&redis.url(), 2);
    let callers = Callers::of(&fleet);
    thread::sleep(Duration::from_secs(1));
    let mut story = Story::default();
    // There and back, and from one side to the other.
    for offset in [THREE_HOURS, 0, -THREE_HOURS, 0, THREE_HOURS, -THREE_HOURS, 0] {
        let before = redis.time_ms();
        redis.set_clock(Hands::Off(offset));
        assert!((redis.time_ms() - before).abs() > THREE_HOURS / 2, "it did jump");
        thread::sleep(Duration::from_millis(800));
        fleet.wait_normal("HOT", &format!("the clock of Redis {} h off", offset / 3_600_000), &mut story);
    }
    let flakes = callers.judge(&fleet, story);
    assert_eq!((flakes.unknown, flakes.problems.len()), (0, 0), "nobody had to wait: {flakes}");
}

#[test]
fn nodes_restart_while_the_clock_of_redis_is_hours_off() {
    let Some(redis) = redis_with_clock() else { return };
    let mut fleet = Fleet::start(&redis.url(), 2);
    let callers = Callers::of(&fleet);
    thread::sleep(Duration::from_secs(1));
    let mut story = Story::default();
    for (offset, victim) in [(THREE_HOURS, 0), (-THREE_HOURS, 1), (0, 0), (THREE_HOURS, 1), (0, 1)] {
        redis.set_clock(Hands::Off(offset));
        thread::sleep(Duration::from_millis(500));
        fleet.kill_9(victim);
        fleet.start_again(victim);
        let other = 1 - victim;
        fleet.stop(other);
        fleet.start_again(other);
        let workers = workers(&fleet);
        assert_ne!(workers[0], workers[1]);
        let what = format!("nodes restarted, the clock of Redis {} h off", offset / 3_600_000);
        fleet.wait_normal("HOT", &what, &mut story);
    }
    callers.judge(&fleet, story);
}

/// The price of a clock that was ahead: a slot used then rests until true time has come so far. Where no other slot is left the node
/// says so, and issues again as soon as it may.
#[test]
fn a_node_whose_slot_rests_for_hours_says_so() {
    let Some(redis) = redis_with_clock() else { return };
    let mut fleet = Fleet::start_with(&redis.url(), 2, |_, site| two_slots(site));
    let callers = Callers::of(&fleet);
    thread::sleep(Duration::from_millis(500));
    fleet.kill_9(1);
    redis.set_clock(Hands::Off(THREE_HOURS));
    fleet.start_again(1); // by this clock every window of before is long over
    thread::sleep(Duration::from_millis(500));
    fleet.kill_9(1);
    redis.set_clock(Hands::Off(0));
    fleet.start_unready(1);
    Stopwatch::wait_until(NORMAL_WITHIN, "the node says what limits it", || {
        fleet
            .node(1)
            .admin("/readyz")
            .is_ok_and(|answer| answer.status == 503 && answer.text().contains("NUMGEN_SNOWFLAKE_LAYOUT"))
    });
    fleet.caller(1).get("/numbers/FLAKE").expect_problem(503, "NoWorkerId");
    redis.set_clock(Hands::Off(THREE_HOURS + 60_000));
    Stopwatch::wait_until(NORMAL_WITHIN, "the slot has rested", || fleet.readiness(1).0 == 200);
    fleet.wait_ready(1);
    thread::sleep(Duration::from_millis(500));
    callers.judge(&fleet, Story::default());
}

/// By that clock the node that is cut off has been silent for hours: the others pass its segment, and it issues from it meanwhile.
#[test]
fn a_node_is_cut_off_while_the_clock_of_redis_jumps() {
    let Some(redis) = redis_with_clock() else { return };
    let proxy = Proxy::to(redis.port());
    let fleet = Fleet::start_with(&redis.url(), 2, |index, site| {
        if index == 1 { site.with("NUMGEN_REDIS_URL", &proxy.redis_url()) } else { site }
    });
    fleet.register("HOT", &counting());
    let mut story = Story::default();
    for offset in [THREE_HOURS, -THREE_HOURS] {
        fleet.draw(0, "HOT", 1, &mut story);
        fleet.draw(1, "HOT", 1, &mut story);
        fleet.wait_segments("HOT");
        proxy.set(Fault::BlackHole);
        redis.set_clock(Hands::Off(offset));
        thread::sleep(Duration::from_secs(2));
        // Through where the other's segment lies.
        for _ in 0..5 {
            assert_eq!(fleet.draw(0, "HOT", 1_000, &mut story), Some(Source::Primary));
            assert_eq!(fleet.draw(1, "HOT", 100, &mut story), Some(Source::Segment));
        }
        proxy.set(Fault::None);
        fleet.wait_normal("HOT", "cut off while the clock of Redis jumped", &mut story);
        story.assert_unique();
        assert_accounted(&story, &fleet.sequences(0, "HOT"));
    }
}

#[test]
fn the_clocks_of_nodes_jump_by_hours_and_nodes_restart_meanwhile() {
    let Some(library) = faketime() else { return };
    let (redis, directory) = (settled(), tempfile::tempdir().expect("a directory"));
    let hands = |index: usize| directory.path().join(format!("hands-{index}"));
    for index in 0..2 {
        turn_hands(&hands(index), Hands::Off(0));
    }
    let mut fleet = Fleet::start_with(&redis.url(), 2, |index, site| bent(site, &library, &hands(index)));
    let callers = Callers::of(&fleet);
    let mut story = Story::default();
    for (offsets, victim) in
        [([THREE_HOURS, 0], 0), ([-THREE_HOURS, THREE_HOURS], 1), ([0, -THREE_HOURS], 1), ([0, 0], 0)]
    {
        thread::sleep(Duration::from_millis(700));
        for (index, offset) in offsets.into_iter().enumerate() {
            turn_hands(&hands(index), Hands::Off(offset));
        }
        fleet.wait_normal("HOT", "the clocks of nodes jumped", &mut story);
        fleet.kill_9(victim);
        fleet.start_again(victim);
        fleet.wait_normal("HOT", "a node restarted, its clock hours off", &mut story);
    }
    let flakes = callers.judge(&fleet, story);
    assert_eq!(flakes.problems.len(), 0, "nobody had to wait: {flakes}");
}
