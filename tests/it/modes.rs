//! A rule that changes between `continuous` and `strict`: what `GET /sequences` says of the values of both.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::harness::{Caller, Data, Database, Postgres, Redis, Site, Stopwatch, TestServer, value_of};

/// One node and a rule that changes its mode, and all values that its callers were given.
struct Counted {
    // Last: the callers go before their node.
    caller: Caller,
    given: BTreeSet<u64>,
    _node: TestServer,
}

impl Counted {
    fn on(site: &Site) -> Self {
        let node = site.start();
        let mut caller = node.caller();
        caller.register("M", &rule("continuous"));
        Self { caller, given: BTreeSet::new(), _node: node }
    }

    #[track_caller]
    fn draw(&mut self, count: usize) {
        for _ in 0..count {
            let value = value_of(&self.caller.number("M"));
            assert!(self.given.insert(value), "{value} came twice");
        }
        self.assert_accounted();
    }

    #[track_caller]
    fn change_to(&mut self, mode: &str) {
        self.caller.send("PUT", "/prefix-configs/M", &[], Some(&rule(mode))).expect(200);
        self.assert_accounted();
    }

    #[track_caller]
    fn advance(&mut self, by: u64) {
        let to = self.given.last().expect("given") + by;
        self.caller.post("/sequences/M/advance", &json!({"to": to})).expect(200);
        assert_eq!(assert_accounted(&mut self.caller, "M", &self.given), to);
    }

    #[track_caller]
    fn assert_accounted(&mut self) {
        let last = assert_accounted(&mut self.caller, "M", &self.given);
        assert_eq!(self.given.last(), Some(&last));
    }

    /// The ledger calls no number void that somebody has, and is whole.
    #[track_caller]
    fn assert_ledger_is_true(&mut self, first: u64) {
        let void = self.caller.get("/ledger/M?state=void").expect(200).json();
        assert_eq!(void["rows"], json!([]), "{void}");
        let certificate = self.caller.get("/ledger/M/certificate").expect(200).json();
        assert_eq!(certificate["first"], first.to_string(), "{certificate}");
        assert_eq!(certificate["holes"], json!([]), "{certificate}");
    }
}

/// Every value at or below the counter, which is answered, was given to a caller or is listed, never both; `issued` counts the former.
#[track_caller]
pub(crate) fn assert_accounted(caller: &mut Caller, key: &str, given: &BTreeSet<u64>) -> u64 {
    let sequences = caller.get(&format!("/sequences/{key}")).expect(200).json();
    let [counter] = &sequences["counters"].as_array().expect("a list")[..] else {
        panic!("one counter: {sequences}")
    };
    let last = whole(&counter["last_value"]);
    let holes = counter["holes"].as_array().expect("a list");
    let listed: Vec<u64> = holes.iter().flat_map(|hole| whole(&hole["from"])..=whole(&hole["to"])).collect();
    let nobodys: Vec<u64> = (1..=last).filter(|value| !given.contains(value)).collect();
    assert!(listed == nobodys, "given: {given:?}\n{sequences}");
    assert_eq!(counter["issued"], given.len(), "{sequences}");
    last
}

fn rule(mode: &str) -> Value {
    json!({"format": "M-{SEQ:9}", "mode": mode})
}

fn whole(text: &Value) -> u64 {
    text.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no value: {text}"))
}

/// Back and forth, and what is shown at each step.
#[track_caller]
fn assert_no_number_becomes_a_hole(site: &Site) {
    let mut counted = Counted::on(site);
    counted.draw(5);
    for round in 1..=3 {
        counted.change_to("strict");
        counted.draw(1);
        let first = counted.given.last().copied().expect("given");
        counted.draw(round);
        counted.assert_ledger_is_true(first);
        counted.change_to("continuous");
        counted.draw(4 - round);
    }
    // Passed by hand: first what the other book has, then in a ledger that has gone on.
    for _ in 0..2 {
        counted.change_to("strict");
        counted.advance(50_000);
        counted.draw(1);
        counted.assert_ledger_is_true(*counted.given.last().expect("given"));
        counted.change_to("continuous");
        counted.draw(2);
    }
}

/// The ledger has not begun when it is advanced.
#[track_caller]
fn assert_an_advance_is_told_from_a_change(site: &Site) {
    let mut counted = Counted::on(site);
    counted.draw(5);
    counted.change_to("strict");
    counted.advance(50_000);
    counted.draw(1);
    let holes = counted.caller.get("/sequences/M").expect(200).json()["counters"][0]["holes"].clone();
    let advanced = holes.as_array().expect("a list").iter().filter(|hole| hole["reason"] == "advanced");
    assert_eq!(advanced.map(|hole| whole(&hole["to"])).max(), Some(50_005), "{holes}");
}

#[test]
fn a_change_of_mode_in_one_process_makes_no_hole_of_a_number() {
    assert_no_number_becomes_a_hole(&Site::new());
    assert_an_advance_is_told_from_a_change(&Site::new());
}

#[test]
fn a_change_of_mode_on_postgresql_makes_no_hole_of_a_number() {
    let databases = [Postgres::create_database(), Postgres::create_database()];
    let site = |database: &Database| Site::new().with("NUMGEN_DATABASE_URL", &database.url());
    assert_no_number_becomes_a_hole(&site(&databases[0]));
    assert_an_advance_is_told_from_a_change(&site(&databases[1]));
}

#[test]
fn a_change_of_mode_on_both_makes_no_hole_of_a_number() {
    let (databases, redis) =
        ([Postgres::create_database(), Postgres::create_database()], [Redis::start(), Redis::start()]);
    let site = |at: usize| {
        let site = Site::new().with("NUMGEN_DATABASE_URL", &databases[at].url());
        site.with("NUMGEN_REDIS_URL", &redis[at].url())
    };
    assert_no_number_becomes_a_hole(&site(0));
    assert_an_advance_is_told_from_a_change(&site(1));
}

/// A data centre that has never drawn from the counter knows by the grants that others have.
#[test]
fn numbers_of_another_data_centre_are_no_holes_of_a_ledger() {
    let (database, redis) = (Postgres::create_database(), [Redis::start(), Redis::start()]);
    let site = |at: usize| {
        let site = Site::new().with("NUMGEN_DATABASE_URL", &database.url());
        let site = site.with("NUMGEN_REDIS_URL", &redis[at].url()).with("NUMGEN_DATACENTERS", "2");
        site.with("NUMGEN_DATACENTER_ID", &(at + 1).to_string())
    };
    let mut counted = Counted::on(&site(0));
    for mode in ["strict", "continuous", "strict"] {
        counted.draw(2);
        counted.change_to(mode);
    }
    counted.draw(2);
    let other = site(1).start();
    let sequences = other.caller().get("/sequences/M").expect(200).json();
    let counter = &sequences["counters"][0];
    assert_eq!(counter["last_value"], counted.given.last().expect("given").to_string(), "{sequences}");
    for hole in counter["holes"].as_array().expect("a list") {
        let within = counted.given.range(whole(&hole["from"])..=whole(&hole["to"]));
        assert_eq!(within.count(), 0, "given: {:?}\n{sequences}", counted.given);
    }
    assert!(counter["grants"].as_array().is_some_and(|grants| !grants.is_empty()), "{sequences}");
}

/// What Redis would have to say of a rule that was always strict is known: nothing.
#[test]
fn only_a_rule_that_has_changed_needs_both_stores_to_be_shown() {
    let (database, mut redis) = (Postgres::create_database(), Redis::start());
    let site = Site::new().with("NUMGEN_DATABASE_URL", &database.url());
    let mut counted = Counted::on(&site.with("NUMGEN_REDIS_URL", &redis.url()));
    counted.caller.register("S", &json!({"format": "S-{SEQ:9}", "mode": "strict"}));
    counted.draw(2);
    counted.change_to("strict");
    counted.draw(2);
    counted.caller.number("S");
    redis.kill();
    assert!(counted.given.insert(value_of(&counted.caller.number("M"))), "the ledger goes on");
    assert_eq!(assert_accounted(&mut counted.caller, "S", &BTreeSet::from([1])), 1);
    let refused = counted.caller.get("/sequences/M").status;
    assert_eq!(refused, 503, "what of it was issued elsewhere, nobody can tell");
    redis.start_again(Data::Kept);
    Stopwatch::wait_until(Duration::from_secs(30), "both are there again", || {
        counted.caller.get("/sequences/M").status == 200
    });
}
