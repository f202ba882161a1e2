//! `numgen check` looks at the store that is configured, not at what happens to lie in the data directory; `numgen health` at
//! the service that runs.

use std::{thread, time::Duration};

use serde_json::json;

use crate::harness::{Postgres, Redis, RedisCluster, Site, Stopwatch};

/// What it says, and its exit code.
fn check(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let output = site.run(&[&["check"], arguments].concat());
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn on_redis_rules_and_layout_are_those_of_redis() {
    let mut redis = Redis::start();
    let site = Site::new().with("NUMGEN_REDIS_URL", &redis.url());
    let (code, said) = check(&site, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("0 in Redis") && said.contains("no snowflake was issued yet"), "{said}");
    assert_eq!(redis.cli(&["DBSIZE"]), "0", "it changes nothing");

    let server = site.start();
    server.caller().register("A", &json!({ "format": "A-{SEQ:4}" }));
    redis.cli(&["HSET", "prefix_configs", "B", r#"{"format":"B-{SEQ:4}"}"#, "no key", "{}"]);
    Stopwatch::wait_until(Duration::from_secs(5), "looked at", || {
        redis.cli(&["HLEN", "numgen:rules:{prefix_configs}"]) == "2"
    });
    thread::sleep(Duration::from_millis(1_200));
    let site = server.stop();
    // Another directory knows nothing, and is told the same.
    for site in [&site, &Site::new().with("NUMGEN_REDIS_URL", &redis.url())] {
        let (code, said) = check(site, &[]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("3 in Redis") && said.contains("1 written directly and not adopted"), "{said}");
        assert!(said.contains("layout          41/5/5/12") && !said.contains("no snowflake"), "{said}");
        assert!(!said.contains(", 0 rules"), "{said}");
        let (code, said) = check(site, &["--datacenter-id", "3"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("FAIL  layout") && said.contains("data centre 0"), "{said}");
    }

    redis.kill();
    let (code, said) = check(&site, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("FAIL  redis"), "{said}");
    assert!(said.contains("the local copy from 20") && said.contains("has 2, which"), "{said}");
    assert!(said.contains("note  layout"), "{said}");
    let (_, said) = check(&Site::new().with("NUMGEN_REDIS_URL", &redis.url()), &[]);
    assert!(said.contains("there is no local copy"), "{said}");
}

#[test]
fn on_a_cluster_it_asks_the_owner_of_each_key() {
    let cluster = RedisCluster::start();
    cluster.cli(&["HSET", "prefix_configs", "B", r#"{"format":"B-{SEQ:4}"}"#]);
    cluster.cli(&["SET", "numgen:layout", "40/6/5/12 as it was"]);
    let (code, said) = check(&Site::new().with("NUMGEN_REDIS_URL", &cluster.url()), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("1 in Redis") && said.contains("issued with 40/6/5/12"), "{said}");
}

/// What another node has claimed, the service would be refused: it is told so before.
#[test]
fn a_worker_id_of_another_node_is_named() {
    let (redis, database) = (Redis::start(), Postgres::create_database());
    for (setting, url) in [("NUMGEN_REDIS_URL", redis.url()), ("NUMGEN_DATABASE_URL", database.url())] {
        let site = || Site::new().with(setting, &url).with("NUMGEN_WORKER_ID", "7");
        let holder = site().start();
        let (code, said) = check(holder.site(), &[]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("worker ID 7 is held from this data directory"), "{said}");
        let other = site();
        let (code, said) = check(&other, &[]);
        assert_eq!(code, Some(1), "{said}");
        let refusal = "worker ID 7 is taken by another node (NUMGEN_WORKER_ID)";
        assert!(
            said.lines().any(|line| line.starts_with("FAIL  worker") && line.ends_with(refusal)),
            "{said}"
        );
        let (code, said) = check(&other, &["--worker-id", "8"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("worker ID 8 is held by nobody"), "{said}");
        let refused = other.start_unready();
        Stopwatch::wait_until(Duration::from_secs(10), "refused in the same words", || {
            refused.admin("/readyz").is_ok_and(|answer| answer.text().contains(refusal))
        });
        refused.stop();
        holder.stop();
        let (code, said) = check(&site(), &[]);
        assert_eq!(code, Some(0), "it was given up: {said}");
    }
}

#[test]
fn a_data_centre_id_of_another_redis_is_named() {
    let (database, own, mut other) = (Postgres::create_database(), Redis::start(), Redis::start());
    let site = |redis: &Redis| {
        Site::new().with("NUMGEN_DATABASE_URL", &database.url()).with("NUMGEN_REDIS_URL", &redis.url())
    };
    let (code, said) = check(&site(&own), &[]);
    assert_eq!(code, Some(0), "before the first start: {said}");
    let server = site(&own).start();
    Stopwatch::wait_until(Duration::from_secs(10), "held", || {
        database.psql("SELECT count(*) FROM numgen_datacenters") == "1"
    });
    for site in [server.site(), &site(&own)] {
        let (code, said) = check(site, &[]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("0 is this Redis's"), "{said}");
    }
    let foreign = site(&other);
    let (code, said) = check(&foreign, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("FAIL  data centre"), "{said}");
    assert!(said.contains("NUMGEN_DATACENTER_ID: data centre 0 belongs to the Redis "), "{said}");
    assert_eq!(other.cli(&["DBSIZE"]), "0", "it changes nothing");
    let (code, said) = check(&foreign, &["--datacenter-id", "1"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 belongs to no Redis yet"), "{said}");
    other.kill();
    let (_, said) = check(&foreign, &["--worker-id", "3"]);
    assert!(!said.contains("data centre  ") && !said.contains("worker ID"), "nobody knows: {said}");
}

#[test]
fn health_is_what_readyz_says() {
    let server = Site::new().start();
    let admin = server.admin.to_string();
    let everywhere = format!("0.0.0.0:{}", server.admin.port());
    for address in [&admin, &everywhere] {
        // On a busy machine the window may just be late: then it is not ready, and says so.
        Stopwatch::wait_until(Duration::from_secs(20), "healthy", || {
            let output = server.site().run(&["health", "--admin-listen", address]);
            let said = String::from_utf8(output.stdout).expect("text");
            assert_eq!(output.status.success(), said.starts_with(r#"{"status":"ready","#), "{said}");
            output.status.success()
        });
    }
    let site = server.stop();
    let output = site.run(&["health", "--admin-listen", &admin]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot be reached") && output.stdout.is_empty(), "{said}");
}
