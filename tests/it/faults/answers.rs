//! What callers and operators are told while Redis is away, and after it has restarted.

use std::{thread, time::Duration};

use serde_json::json;

use super::{Fleet, NORMAL_WITHIN, Story, counting, flaking, settled};
use crate::harness::{Data, Fault, Proxy, Stopwatch};

/// Far below the storage timeout, which is 2 s in these tests.
const AT_ONCE: Duration = Duration::from_millis(1_000);

#[test]
fn what_nothing_stands_in_for_is_refused_at_once_while_redis_is_away() {
    let redis = settled();
    let proxy = Proxy::to(redis.port());
    let fleet = Fleet::start(&proxy.redis_url(), 1);
    fleet.register("N", &counting());
    fleet.draw(0, "N", 1, &mut Story::default());
    proxy.set(Fault::Refuse);
    thread::sleep(Duration::from_millis(1_500));
    let mut caller = fleet.caller(0);
    let rule = counting();
    let read = |target| ("GET", target, None);
    for (method, target, body) in [
        read("/sequences/N"),
        ("POST", "/sequences/N/advance", Some(json!({ "to": 5_000 }))),
        ("POST", "/prefix-configs/NEW", Some(rule.clone())),
        ("PUT", "/prefix-configs/N", Some(json!({ "format": "M-{SEQ:9}", "mode": "continuous" }))),
        ("DELETE", "/prefix-configs/N", None),
    ] {
        let watch = Stopwatch::start();
        let answer = caller.send(method, target, &[], body.as_ref());
        watch.assert_within(AT_ONCE, &format!("{method} {target}"));
        answer.expect_problem(503, "StorageUnavailable");
    }
    // They work again as soon as Redis is back.
    proxy.set(Fault::None);
    Stopwatch::wait_until(NORMAL_WITHIN, "rules can be changed", || {
        caller.send("PUT", "/prefix-configs/NEW", &[], Some(&rule)).status == 200
    });
    caller.get("/sequences/N").expect(200);
}

#[test]
fn a_caller_is_told_why_nothing_stands_in_for_its_numbers() {
    let redis = settled();
    let proxy = Proxy::to(redis.port());
    let fleet = Fleet::start(&proxy.redis_url(), 1);
    fleet.register("N", &json!({ "format": "N-{SEQ:9}", "mode": "continuous", "on_outage": "segment" }));
    fleet.register("F", &flaking());
    let mut story = Story::default();
    fleet.draw(0, "N", 1, &mut story);
    fleet.draw(0, "F", 1, &mut story);
    fleet.wait_segments("N");
    proxy.set(Fault::Refuse);
    thread::sleep(Duration::from_millis(1_500));
    let mut caller = fleet.caller(0);
    let mut told = |target: &str, headers: &[(&str, &str)]| {
        let problem = caller.send("GET", target, headers, None).expect_problem(503, "StorageUnavailable");
        problem["detail"].as_str().expect("a text").to_owned()
    };
    for target in ["/numbers/N?count=5000", "/numbers/N", "/numbers/F"] {
        let said = told(target, &[("idempotency-key", "cart-1")]);
        assert!(
            said.contains("idempotency keys is away") && said.contains("the same key"),
            "{target}: {said}"
        );
    }
    let said = told("/numbers/N?count=5000", &[]);
    assert!(said.contains("has not 5000 left") && said.contains("ask for fewer"), "{said}");
    let said = told("/numbers/N?count=5000", &[("accept-language", "zh-CN")]);
    assert!(said.contains("不足 5000 个"), "{said}");
    caller.get("/numbers/N?count=500").expect(200);
}

#[test]
fn a_restart_that_keeps_its_data_is_not_said_to_have_forgotten() {
    let mut redis = settled();
    let fleet = Fleet::start(&redis.url(), 1);
    fleet.register("N", &counting());
    let mut story = Story::default();
    fleet.draw(0, "N", 1, &mut story);
    fleet.wait_segments("N");
    redis.kill();
    redis.start_again(Data::Kept);
    fleet.wait_normal("N", "an orderly restart", &mut story);
    let log = fleet.node(0).log();
    let said: Vec<_> = log.lines().filter(|line| line.contains("settling")).collect();
    assert!(
        said.iter().any(|line| line.contains("the store restarted, failed over or was emptied")),
        "{log}"
    );
    assert!(said.iter().all(|line| !line.contains("WARN")), "{said:?}");
    assert!(!log.contains("forgotten"), "{log}");
}
