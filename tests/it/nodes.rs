//! Several nodes over one Redis, healthy: what the promise of profile redis looks like from outside.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::json;

use crate::harness::{Redis, Site, Stopwatch, TestServer};

fn node(redis: &Redis) -> TestServer {
    Site::new().with("NUMGEN_REDIS_URL", &redis.url()).start()
}

#[test]
fn nodes_count_as_one_and_have_workers_of_their_own() {
    let redis = Redis::start();
    let nodes = [node(&redis), node(&redis), node(&redis)];
    let mut callers = nodes.each_ref().map(TestServer::caller);
    callers[0].register("TEST", &json!({"format": "TEST-{SEQ:4}"}));
    callers[0].register("EVT", &json!({"format": "{worker}-{SEQ:19}"}));
    for caller in &mut callers {
        Stopwatch::wait_until(Duration::from_secs(5), "the rule is known", || {
            caller.get("/prefix-configs/EVT").status == 200
        });
    }
    for round in 0..20 {
        for (at, caller) in callers.iter_mut().enumerate() {
            assert_eq!(caller.number("TEST"), format!("TEST-{:04}", round * 3 + at + 1), "consecutive");
        }
    }
    let mut workers = callers.each_mut().map(|caller| caller.number("EVT")[..2].to_owned());
    workers.sort();
    assert!(workers.windows(2).all(|pair| pair[0] != pair[1]), "{workers:?}");
    assert_eq!(redis.cli(&["GET", "sequence:TEST"]), "60");

    let key = [("Idempotency-Key", "same")];
    let first = callers[0].send("GET", "/numbers/TEST", &key, None).expect(200).numbers();
    assert_eq!(callers[1].send("GET", "/numbers/TEST", &key, None).expect(200).numbers(), first);
}

#[test]
fn a_change_of_the_reset_is_noticed_by_a_node_that_draws() {
    let redis = Redis::start();
    let nodes = [node(&redis), node(&redis)];
    let rule = |reset| json!({"format": "{year}{month}-{SEQ:9}", "reset": reset});
    let mut a = nodes[0].caller();
    a.register("R", &rule("monthly"));
    let mut b = nodes[1].caller();
    Stopwatch::wait_until(Duration::from_secs(5), "the rule is known", || {
        b.get("/prefix-configs/R").status == 200
    });
    let is_over = AtomicBool::new(false);
    let (mut numbers, drawn) = thread::scope(|scope| {
        let elsewhere: Vec<_> = (0..3)
            .map(|_| {
                let (mut b, is_over) = (b.again(), &is_over);
                scope.spawn(move || {
                    let mut numbers = Vec::new();
                    while !is_over.load(Ordering::Relaxed) {
                        // Never 503: what another node has retired is learnt in place.
                        numbers.push(b.number("R"));
                    }
                    numbers
                })
            })
            .collect();
        let mut numbers = Vec::new();
        for round in 0..12 {
            let reset = ["never", "yearly", "monthly"][round % 3];
            a.send("PUT", "/prefix-configs/R", &[], Some(&rule(reset))).expect(200);
            numbers.push(a.number("R"));
            thread::sleep(Duration::from_millis(50));
        }
        is_over.store(true, Ordering::Relaxed);
        let drawn: Vec<Vec<String>> =
            elsewhere.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        (numbers, drawn)
    });
    numbers.extend(drawn.into_iter().flatten());
    let distinct: BTreeSet<&String> = numbers.iter().collect();
    assert_eq!(distinct.len(), numbers.len(), "{} came twice", numbers.len() - distinct.len());
    assert!(numbers.len() > 100, "{}", numbers.len());
}
