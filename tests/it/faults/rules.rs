//! Rules that every node shares.

use std::{thread, time::Duration};

use serde_json::json;

use super::{Fleet, Load, Pace, counting};
use crate::harness::{Redis, Stopwatch};

/// Changes reach every node within this time.
const EVERYWHERE_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn of_many_registrations_at_once_one_is_accepted() {
    let redis = Redis::start();
    let fleet = Fleet::start(&redis.url(), 4);
    for round in 0..5 {
        let key = format!("RACE{round}");
        let outcomes: Vec<_> = (0..8)
            .map(|writer| {
                let (mut caller, path) = (fleet.caller(writer % 4), format!("/prefix-configs/{key}"));
                let rule = json!({ "format": format!("R{writer}-{{SEQ:6}}") });
                thread::spawn(move || caller.post(&path, &rule))
            })
            .collect::<Vec<_>>()
            .into_iter()
            .map(|thread| thread.join().expect("an answer"))
            .collect();
        let accepted: Vec<_> = outcomes.iter().filter(|answer| answer.status == 200).collect();
        assert_eq!(accepted.len(), 1, "exactly one");
        for refused in outcomes.iter().filter(|answer| answer.status != 200) {
            refused.expect_problem(409, "PrefixAlreadyExists");
        }
        let format = accepted[0].json()["format"].clone();
        for index in 0..4 {
            let mut caller = fleet.caller(index);
            Stopwatch::wait_until(EVERYWHERE_WITHIN, "the same rule everywhere", || {
                let answer = caller.get(&format!("/prefix-configs/{key}"));
                answer.status == 200 && answer.json()["format"] == format
            });
        }
    }
}

#[test]
fn what_operators_write_reaches_every_node() {
    let redis = Redis::start();
    let fleet = Fleet::start(&redis.url(), 3);
    fleet.register("STEADY", &counting());
    redis.cli(&["HSET", "prefix_configs", "OPS", r#"{"format":"OPS-{SEQ:5}","initial_seq":41}"#]);
    // A malformed one is refused loudly and harms nobody else.
    redis.cli(&["HSET", "prefix_configs", "BROKEN", r#"{"format":"no sequence at all"}"#]);
    let mut callers: Vec<_> = (0..3).map(|index| fleet.caller(index)).collect();
    for caller in &mut callers {
        Stopwatch::wait_until(EVERYWHERE_WITHIN, "the operator's rule", || {
            caller.get("/prefix-configs/OPS").status == 200
        });
        caller.get("/numbers/BROKEN").expect_problem(400, "PrefixNotRegistered");
    }
    let numbers: Vec<String> = callers.iter_mut().map(|caller| caller.number("OPS")).collect();
    assert_eq!(numbers, ["OPS-00042", "OPS-00043", "OPS-00044"]);
    assert!(fleet.node(0).log().contains("BROKEN"), "it is said which one was refused");

    redis.cli(&["HSET", "prefix_configs", "OPS", r#"{"format":"NEW-{SEQ:5}","initial_seq":41}"#]);
    for caller in &mut callers {
        Stopwatch::wait_until(EVERYWHERE_WITHIN, "the operator's change", || {
            caller.get("/numbers/OPS").expect(200).numbers()[0].starts_with("NEW-")
        });
    }
}

#[test]
fn rules_are_written_back_into_an_emptied_redis() {
    let mut redis = Redis::start();
    let fleet = Fleet::start(&redis.url(), 2);
    fleet.register("KEPT", &counting());
    let load = Load::on(&fleet, "KEPT", Pace::CALM);
    thread::sleep(Duration::from_secs(1));
    redis.kill();
    redis.start_again(crate::harness::Data::Empty);
    Stopwatch::wait_until(Duration::from_secs(30), "the rule is back", || {
        redis.cli(&["HEXISTS", "prefix_configs", "KEPT"]) == "1"
    });
    let mut story = load.stop();
    fleet.wait_normal("KEPT", "rules after an empty restart", &mut story);
    story.assert_unique();
}
