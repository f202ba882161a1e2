//! Another server takes over from the master: worker windows and counters of running nodes, as processes see it.

use std::{collections::BTreeSet, thread, time::Duration};

use super::{
    ENOUGH, Fleet, Load, NORMAL_WITHIN, Pace, Story, assert_accounted, counting, flaking, settle,
    windows::workers,
};
use crate::harness::{Data, Sentinels, Stopwatch};

/// Nodes under load, on a master with a replica that follows it.
struct Scene {
    sentinels: Sentinels,
    fleet: Fleet,
    hot: Load,
    flakes: Load,
}

impl Scene {
    /// Places for `count` nodes, of which `running` run.
    #[track_caller]
    fn set(count: usize, running: usize) -> Self {
        let mut sentinels = Sentinels::start();
        let master = sentinels.master();
        settle(sentinels.server(master));
        let url = sentinels.url();
        let mut fleet = Fleet::plan(count, |_, site| site.with("NUMGEN_REDIS_URL", &url));
        for index in 0..running {
            fleet.start_unready(index);
        }
        for index in 0..running {
            fleet.wait_ready(index);
        }
        for (prefix, rule) in [("HOT", counting()), ("FLAKE", flaking())] {
            fleet.register(prefix, &rule);
        }
        let (hot, flakes) = (Load::on(&fleet, "HOT", Pace::CALM), Load::on(&fleet, "FLAKE", Pace::CALM));
        hot.wait_for(2 * ENOUGH);
        Self { sentinels, fleet, hot, flakes }
    }

    /// Back to normal in time; each node another worker; nothing twice, everything accounted for. Answers what was seen of the
    /// snowflakes.
    #[track_caller]
    fn judge(self, what: &str, since: &Stopwatch, mut story: Story) -> Story {
        self.fleet.wait_normal("HOT", what, &mut story);
        since.assert_within(NORMAL_WITHIN, &format!("{what}, and the election,"));
        let normal_since = self.fleet.watch.elapsed();
        let workers = workers(&self.fleet);
        assert_eq!(workers.iter().collect::<BTreeSet<_>>().len(), workers.len(), "{workers:?}");
        self.hot.wait_for(ENOUGH);
        story.add(self.hot.stop());
        let flakes = self.flakes.stop();
        story.assert_unique();
        story.assert_order(normal_since, self.fleet.watch.elapsed());
        flakes.assert_unique();
        assert_accounted(&story, &self.fleet.sequences(0, "HOT"));
        flakes
    }
}

/// The replica has everything but the name of the master; a node dies with it, and comes back to the new one.
#[test]
fn a_master_is_killed_and_a_node_with_it() {
    let mut scene = Scene::set(2, 2);
    let watch = Stopwatch::start();
    scene.fleet.kill_9(1);
    scene.sentinels.failover();
    scene.fleet.start_again(1);
    let flakes = scene.judge("a master and a node killed", &watch, Story::default());
    let of_other = flakes.drawn.iter().filter(|drawn| drawn.node == 0).count();
    assert!(of_other > 100 && flakes.problems.is_empty(), "the other node issued all the while: {flakes}");
}

/// The replica has not heard for a while, so that the old master gives no window that it does not have; the new one, which knows less of the
/// marks than their holders, gives it after they have spoken.
#[test]
fn a_window_that_no_replica_has_is_given_by_the_next_master() {
    let mut scene = Scene::set(4, 2);
    scene.sentinels.hold_replica_back();
    scene.fleet.start_unready(2);
    thread::sleep(Duration::from_secs(3));
    let (status, _) = scene.fleet.readiness(2);
    assert_eq!(status, 503, "its window could be forgotten, and given to somebody else");
    let watch = Stopwatch::start();
    scene.sentinels.failover();
    // While Redis is away a node that starts counts as ready as soon as it can issue anything.
    Stopwatch::wait_until(NORMAL_WITHIN, "a window", || {
        scene.fleet.readiness(2).1["components"]["worker"] == "ok"
    });
    scene.fleet.wait_ready(2);
    scene.fleet.start_again(3);
    let flakes = scene.judge("a failover to a replica that was held back", &watch, Story::default());
    assert_eq!((flakes.unknown, flakes.problems.len()), (0, 0), "issuing went on: {flakes}");
}

/// Two masters for a moment: the old one lives on, and what it is told then is lost. And once more when it has become a replica.
#[test]
fn sentinels_choose_another_master_while_the_old_one_lives() {
    let mut scene = Scene::set(2, 2);
    let mut story = Story::default();
    let (old, watch) = (scene.sentinels.master(), Stopwatch::start());
    scene.sentinels.switch();
    scene.fleet.wait_normal("HOT", "another master chosen, the old one alive", &mut story);
    scene.sentinels.server(old).kill();
    scene.sentinels.server(old).start_again(Data::Kept);
    let flakes = scene.judge("the old master came back", &watch, story);
    assert_eq!((flakes.unknown, flakes.problems.len()), (0, 0), "issuing went on: {flakes}");
}
