//! A rule that changes between `continuous` and `strict`, on every store that has both.

use serde_json::{Value, json};

use crate::harness::{Caller, Postgres, Redis, Site, TestServer, value_of};

/// One node and a rule that changes its mode.
struct Counted {
    // Last: the callers go before their node.
    caller: Caller,
    last: u64,
    _node: TestServer,
}

impl Counted {
    fn on(site: &Site) -> Self {
        let node = site.start();
        let mut caller = node.caller();
        caller.register("M", &rule("continuous"));
        Self { caller, last: 0, _node: node }
    }

    #[track_caller]
    fn draw(&mut self, count: usize) {
        for _ in 0..count {
            let value = value_of(&self.caller.number("M"));
            assert!(value > self.last, "{value} after {}", self.last);
            self.last = value;
        }
    }

    #[track_caller]
    fn change_to(&mut self, mode: &str) {
        self.caller.send("PUT", "/prefix-configs/M", &[], Some(&rule(mode))).expect(200);
    }

    #[track_caller]
    fn advance(&mut self, by: u64) {
        let to = self.last + by;
        self.caller.post("/sequences/M/advance", &json!({"to": to})).expect(200);
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

fn rule(mode: &str) -> Value {
    json!({"format": "M-{SEQ:9}", "mode": mode})
}

/// Back and forth, and what the ledger says at each step.
#[track_caller]
fn assert_no_number_becomes_void(site: &Site) {
    let mut counted = Counted::on(site);
    counted.draw(5);
    for round in 1..=3 {
        counted.change_to("strict");
        counted.draw(1);
        let first = counted.last;
        counted.draw(round);
        counted.assert_ledger_is_true(first);
        counted.change_to("continuous");
        counted.draw(4 - round);
    }
    counted.change_to("strict");
    counted.advance(50_000);
    counted.draw(1);
    counted.assert_ledger_is_true(counted.last);
}

#[test]
fn a_change_of_mode_in_one_process_makes_no_number_void() {
    assert_no_number_becomes_void(&Site::new());
}

#[test]
fn a_change_of_mode_on_postgresql_makes_no_number_void() {
    let database = Postgres::create_database();
    assert_no_number_becomes_void(&Site::new().with("NUMGEN_DATABASE_URL", &database.url()));
}

#[test]
fn a_change_of_mode_on_both_makes_no_number_void() {
    let (database, redis) = (Postgres::create_database(), Redis::start());
    let site = Site::new().with("NUMGEN_DATABASE_URL", &database.url());
    assert_no_number_becomes_void(&site.with("NUMGEN_REDIS_URL", &redis.url()));
}
