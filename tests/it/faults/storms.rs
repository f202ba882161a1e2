//! Storms: strikes by lot, one upon the other, while callers ask. When it is calm again the checkers look.
//!
//! The same seed draws the same strikes, though threads and processes interleave as they like. `NUMGEN_TEST_STORM_SEED` is another one than that
//! of every run, and `NUMGEN_TEST_STORM_S` says how many seconds a storm lasts: `make storm`.

use std::{collections::BTreeSet, ops::Range, thread, time::Duration};

use serde_json::json;

use super::{
    ENOUGH, Load, Pace, Story, assert_accounted, counting,
    deployment::Deployment,
    flaking,
    orders::{Clerks, Orders},
    strikes::Strike,
    world::World,
};
use crate::harness::{Postgres, Random, Stopwatch};

/// Strikes by lot.
struct Storm {
    lot: Random,
    lasts: Duration,
}

impl Storm {
    const NODES: usize = 3;
    /// How long a strike lasts.
    const STRIKE: Range<Duration> = Duration::from_millis(50)..Duration::from_secs(5);
    /// From one to the next.
    const PAUSE: Range<Duration> = Duration::from_millis(20)..Duration::from_secs(1);

    fn new() -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let seed = number("NUMGEN_TEST_STORM_SEED").unwrap_or(1);
        println!("the storm of NUMGEN_TEST_STORM_SEED={seed}");
        let lasts = Duration::from_secs(number("NUMGEN_TEST_STORM_S").unwrap_or(12));
        Self { lot: Random::of(seed), lasts }
    }

    fn rage(mut self, world: &mut World, strikes: &[Strike]) {
        let watch = Stopwatch::start();
        let mut under_way: Vec<(Strike, Duration)> = Vec::new();
        while watch.elapsed() < self.lasts {
            let over: Vec<_> = under_way.extract_if(.., |(_, until)| *until <= watch.elapsed()).collect();
            over.into_iter().for_each(|(strike, _)| world.end(strike));
            world.admit();
            let (strike, lasts) = (*self.lot.pick(strikes), self.lot.time(Self::STRIKE));
            if under_way.iter().all(|(other, _)| other.place() != strike.place()) {
                println!("{:>6} ms: {strike:?} for {} ms", watch.elapsed().as_millis(), lasts.as_millis());
                world.begin(strike);
                under_way.push((strike, watch.elapsed() + lasts));
            }
            thread::sleep(self.lot.time(Self::PAUSE));
        }
        under_way.into_iter().for_each(|(strike, _)| world.end(strike));
    }
}

/// Callers before, while and after; then what holds of every storm. Answers the orders that were numbered of each prefix.
#[track_caller]
fn weather(world: &mut World, strikes: &[Strike], numbered: &[&'static str]) -> Vec<Orders> {
    let fleet = &world.fleet;
    fleet.register("HOT", &counting());
    fleet.register("FLAKE", &flaking());
    for prefix in numbered {
        fleet.register(prefix, &if *prefix == "STRICT" { strict() } else { counting() });
    }
    let hot = Load::on(fleet, "HOT", Pace { callers: 2, pause: Duration::from_millis(5), batch: 7 });
    let flakes = Load::on(fleet, "FLAKE", Pace { callers: 1, pause: Duration::from_millis(2), batch: 20 });
    let clerks: Vec<Clerks> = numbered.iter().map(|prefix| Clerks::on(fleet, prefix)).collect();
    hot.wait_for(ENOUGH);
    let healthy_until = fleet.watch.elapsed();
    Storm::new().rage(world, strikes);
    world.admit_all();
    let fleet = &world.fleet;
    let mut story = Story::default();
    fleet.wait_normal("HOT", "a storm", &mut story);
    let normal_since = fleet.watch.elapsed();
    hot.wait_for(ENOUGH);
    story.add(hot.stop());
    let ended = fleet.watch.elapsed();
    let orders: Vec<Orders> = clerks.into_iter().map(Clerks::stop).collect();
    orders.iter().for_each(Orders::assert_unique);
    story.assert_unique();
    story.assert_order(Duration::ZERO, healthy_until);
    story.assert_order(normal_since, ended);
    flakes.stop().assert_unique();
    for index in 0..Storm::NODES {
        assert_accounted(&story, &fleet.sequences(index, "HOT"));
    }
    orders
}

fn strict() -> serde_json::Value {
    json!({ "format": "S-{SEQ:9}", "mode": "strict" })
}

/// The ledger has each number of an order, and no other: whoever asked was answered in the end.
#[track_caller]
fn assert_ledger(world: &World, orders: &Orders) {
    let certificate = world.fleet.caller(0).get("/ledger/STRICT/certificate").expect(200).json();
    let numbers: BTreeSet<&str> = orders.numbers().collect();
    assert_eq!(certificate["holes"], json!([]), "{certificate}");
    assert_eq!(certificate["last"], numbers.len().to_string(), "{certificate}");
    let rows =
        world.psql("SELECT number FROM numgen_ledger_rows WHERE prefix_key = 'STRICT' AND state = 'issued'");
    assert_eq!(rows.lines().collect::<BTreeSet<&str>>(), numbers);
}

#[test]
fn a_storm_over_redis() {
    let mut world = World::of(Storm::NODES, Some(Deployment::alone()), None);
    let strikes = world.strikes();
    for orders in weather(&mut world, &strikes, &["ORDERS"]) {
        orders.assert_known(&world.fleet);
    }
}

#[test]
fn a_storm_in_which_redis_forgets() {
    let mut world = World::of(Storm::NODES, Some(Deployment::alone()), None);
    let strikes = [world.strikes(), Strike::LOSSES.repeat(5)].concat();
    // Which key had which number is forgotten, too.
    weather(&mut world, &strikes, &["ORDERS"]);
}

/// A replica that takes over lacks what had not reached it, keys too.
#[test]
fn a_storm_over_sentinels() {
    let mut world = World::of(Storm::NODES, Some(Deployment::watched()), None);
    let strikes = [world.strikes(), vec![Strike::Replace, Strike::Empty]].concat();
    weather(&mut world, &strikes, &["ORDERS"]);
}

#[test]
fn a_storm_over_a_cluster() {
    let mut world = World::of(Storm::NODES, Some(Deployment::cluster()), None);
    let strikes = world.strikes();
    weather(&mut world, &strikes, &["ORDERS"]);
}

#[test]
fn a_storm_over_postgresql() {
    let mut world = World::of(Storm::NODES, None, Some(Postgres::start()));
    let strikes = world.strikes();
    let orders = weather(&mut world, &strikes, &["ORDERS", "STRICT"]);
    orders.iter().for_each(|orders| orders.assert_known(&world.fleet));
    assert_ledger(&world, &orders[1]);
}

#[test]
fn a_storm_over_both_in_which_redis_forgets() {
    let mut world = World::of(Storm::NODES, Some(Deployment::alone()), Some(Postgres::start()));
    let strikes = [world.strikes(), Strike::LOSSES.repeat(5)].concat();
    let orders = weather(&mut world, &strikes, &["ORDERS", "STRICT"]);
    // Keys of strict numbers are kept with them.
    orders[1].assert_known(&world.fleet);
    assert_ledger(&world, &orders[1]);
}
