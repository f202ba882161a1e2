//! Several nodes over one Redis, healthy: what the promise of profile redis looks like from outside.

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
        Stopwatch::wait_until(std::time::Duration::from_secs(5), "the rule is known", || {
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
