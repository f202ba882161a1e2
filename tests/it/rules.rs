//! Rules that several nodes share through a real Redis: written by one, by an operator's `HSET`, lost and written back.

use std::{thread, time::Duration};

use serde_json::json;

use crate::harness::{Data, Fault, Proxy, Redis, RedisCluster, Sentinels, Site, Stopwatch, TestServer};

/// How soon a change must be known everywhere.
const PROMISED: Duration = Duration::from_secs(5);

fn node(redis: &Redis) -> TestServer {
    Site::new().with("NUMGEN_REDIS_URL", &redis.url()).start()
}

fn readyz(server: &TestServer) -> (u16, serde_json::Value) {
    let answer = server.admin("/readyz").expect("an answer");
    (answer.status, answer.json())
}

/// The format of a rule as a node knows it, or none.
fn format_at(server: &TestServer, key: &str) -> Option<String> {
    let answer = server.caller().get(&format!("/prefix-configs/{key}"));
    (answer.status == 200).then(|| answer.json()["format"].as_str().expect("a text").to_owned())
}

#[test]
fn of_two_nodes_that_register_at_once_one_wins() {
    let redis = Redis::start();
    let (one, two) = (node(&redis), node(&redis));
    for round in 0..10 {
        let target = format!("/prefix-configs/K{round}");
        let post = |server: &TestServer, number: u32| {
            let mut caller = server.caller();
            let target = target.clone();
            let body = json!({"format": format!("K{number}-{{SEQ:19}}")});
            thread::spawn(move || caller.post(&target, &body).status)
        };
        let tries = [post(&one, 1), post(&two, 2), post(&one, 3), post(&two, 4)];
        let mut statuses: Vec<_> = tries.into_iter().map(|task| task.join().expect("answered")).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409, 409, 409], "round {round}");
    }
    let said = format_at(&one, "K0");
    Stopwatch::wait_until(PROMISED, "both know the winner", || format_at(&two, "K0") == said);
}

#[test]
fn an_operators_write_is_known_everywhere_within_five_seconds() {
    let redis = Redis::start();
    let (one, two) = (node(&redis), node(&redis));
    redis.cli(&["HSET", "prefix_configs", "EVT", r#"{"format":"EVT-{SEQ:19}"}"#]);
    for server in [&one, &two] {
        Stopwatch::wait_until(PROMISED, "a new rule", || format_at(server, "EVT").is_some());
    }
    redis.cli(&["HSET", "prefix_configs", "EVT", r#"{"format":"EV2-{SEQ:19}"}"#]);
    for server in [&one, &two] {
        Stopwatch::wait_until(PROMISED, "a changed rule", || {
            format_at(server, "EVT").as_deref() == Some("EV2-{SEQ:19}")
        });
    }
    let shown = redis.cli(&["HGET", "prefix_configs", "EVT"]);
    assert!(shown.contains(r#""mode":"snowflake""#), "the rule as it is in force: {shown}");
    redis.cli(&["HDEL", "prefix_configs", "EVT"]);
    for server in [&one, &two] {
        Stopwatch::wait_until(PROMISED, "a rule taken out", || format_at(server, "EVT").is_none());
    }
}

#[test]
fn a_malformed_write_is_refused_loudly_and_fails_nobody_else() {
    let redis = Redis::start();
    let server = node(&redis);
    let mut caller = server.caller();
    caller.register("GOOD", &json!({"format": "GOOD-{SEQ:19}"}));
    caller.register("BAD", &json!({"format": "BAD-{SEQ:19}"}));
    redis.cli(&["HSET", "prefix_configs", "BAD", "{canary-7f"]);
    redis.cli(&["HSET", "prefix_configs", "LEDGER", r#"{"format":"L-{SEQ:4}","mode":"strict"}"#]);
    redis.cli(&["HSET", "prefix_configs", "no key", "{}"]);
    Stopwatch::wait_until(PROMISED, "it says so", || {
        let said = readyz(&server).1["components"]["rules"].to_string();
        ["BAD: ", "LEDGER: ", "NUMGEN_DATABASE_URL", "no key"].iter().all(|part| said.contains(part))
    });
    let (status, said) = readyz(&server);
    assert_eq!((status, said["status"].as_str()), (200, Some("degraded")), "{said}");
    assert!(caller.number("BAD").starts_with("BAD-"), "the rule before stays in force");
    assert!(caller.number("GOOD").starts_with("GOOD-"));
    assert!(server.log().contains("refused") && !server.log().contains("canary-7f"), "{}", server.log());
    caller.send("PUT", "/prefix-configs/BAD", &[], Some(&json!({"format": "BAD-{SEQ:20}"}))).expect(200);
    redis.cli(&["HDEL", "prefix_configs", "no key", "LEDGER"]);
    Stopwatch::wait_until(PROMISED, "all is well again", || readyz(&server).1["status"] == "ready");
}

#[test]
fn a_rule_goes_on_to_its_next_date_whatever_waits_beside_it() {
    let redis = Redis::start();
    let nodes = [node(&redis), node(&redis)];
    let rule = |name: &str, reset: &str| {
        let format = format!("{name}-{{year}}{{month}}{{day}}-{{SEQ:4}}");
        json!({"format": format, "reset": reset, "mode": "continuous", "on_outage": "fail"})
    };
    let keys = ["USED", "FRESH", "RESET"];
    let mut caller = nodes[0].caller();
    for key in keys {
        caller.register(key, &rule(key, "daily"));
    }
    caller.number("USED");
    caller.number("RESET");
    caller.send("PUT", "/prefix-configs/RESET", &[], Some(&rule("RESET", "monthly"))).expect(200);
    let draw = |date: &str| {
        for (server, key) in nodes.iter().flat_map(|server| keys.map(|key| (server, key))) {
            server.caller().get(&format!("/numbers/{key}?date={date}")).expect(200);
        }
    };

    for key in keys {
        redis.cli(&["HSET", "prefix_configs", key, "nonsense"]);
    }
    for server in &nodes {
        Stopwatch::wait_until(PROMISED, "all know the rules, and refuse what is none", || {
            let said = readyz(server).1["components"]["rules"].to_string();
            keys.iter().all(|key| said.contains(key) && format_at(server, key).is_some())
        });
    }
    draw("2031-01-01");
    assert_eq!(redis.cli(&["HGET", "prefix_configs", "USED"]), "nonsense", "it stays as it is");

    // Under the rule before or the one to come, but without a gap between them.
    for key in keys {
        redis.cli(&["HSET", "prefix_configs", key, &rule("N", "daily").to_string()]);
    }
    draw("2031-01-02");
    for (server, key) in nodes.iter().flat_map(|server| keys.map(|key| (server, key))) {
        Stopwatch::wait_until(PROMISED, "adopted", || {
            format_at(server, key).is_some_and(|format| format.starts_with("N-"))
        });
    }
    draw("2031-01-03");
    redis.cli(&["HDEL", "prefix_configs", "USED"]);
    for server in &nodes {
        Stopwatch::wait_until(PROMISED, "taken out", || format_at(server, "USED").is_none());
    }
}

#[test]
fn an_emptied_redis_gets_its_rules_back() {
    let redis = Redis::start();
    let (one, two) = (node(&redis), node(&redis));
    let mut caller = one.caller();
    for number in 0..20 {
        caller.register(&format!("K{number}"), &json!({"format": format!("K{number}-{{SEQ:19}}")}));
    }
    caller.number("K3");
    Stopwatch::wait_until(PROMISED, "the other knows", || format_at(&two, "K19").is_some());
    let before = redis.cli(&["HGET", "numgen:rules:{prefix_configs}", "K3"]);
    assert!(before.contains("\n1 1\n"), "used: {before}");
    redis.cli(&["FLUSHALL"]);
    Stopwatch::wait_until(PROMISED, "written back", || {
        redis.cli(&["HLEN", "prefix_configs"]) == "20"
            && redis.cli(&["HGET", "numgen:rules:{prefix_configs}", "K3"]) == before
    });
    assert_eq!(caller.post("/prefix-configs/K3", &json!({"format": "X-{SEQ:19}"})).status, 409);
    // The hash alone, as by an accident: it comes back from the records.
    redis.cli(&["DEL", "prefix_configs"]);
    Stopwatch::wait_until(PROMISED, "written again", || redis.cli(&["HLEN", "prefix_configs"]) == "20");
    assert!(format_at(&two, "K7").is_some());
}

#[test]
fn a_node_starts_while_redis_is_away_and_says_what_it_knows() {
    let mut redis = Redis::start();
    let server = node(&redis);
    server.caller().register("EVT", &json!({"format": "EVT-{SEQ:4}"}));
    Stopwatch::wait_until(PROMISED, "in the copy", || server.log().contains("serving"));
    thread::sleep(Duration::from_millis(1_500));
    let site = server.stop();
    redis.kill();
    let server = site.start();
    let (_, said) = readyz(&server);
    let rules = said["components"]["rules"].as_str().expect("a text");
    assert!(rules.starts_with("local copy from 20") && said["status"] == "degraded", "{said}");
    assert!(said["components"]["redis"].as_str().expect("a text").starts_with("away"), "{said}");
    assert_eq!(format_at(&server, "EVT").as_deref(), Some("EVT-{SEQ:4}"));
    // One that has no copy does not say of any that it is not there.
    let blank = Site::new().with("NUMGEN_REDIS_URL", &redis.url()).start_unready();
    Stopwatch::wait_until(Duration::from_secs(20), "it listens", || blank.admin("/readyz").is_ok());
    let mut caller = blank.caller();
    for target in ["/numbers/EVT", "/prefix-configs/EVT", "/sequences/EVT"] {
        caller.get(target).expect_problem(503, "StorageUnavailable");
    }
    drop(blank);
    redis.start_again(Data::Kept);
    Stopwatch::wait_until(Duration::from_secs(30), "caught up", || {
        readyz(&server).1["components"]["rules"] == "ok"
    });
}

/// So many that the rules are not looked at in one go.
fn many(redis: &Redis) {
    const SEED: &str = r#"
        for i = 1, 3000 do
          redis.call('HSET', KEYS[1], string.format('K%04d', i), string.format('{"format":"K%04d-{SEQ:19}"}', i))
        end"#;
    redis.cli(&["EVAL", SEED, "1", "prefix_configs"]);
}

/// Waits until nobody looks through the rules any more.
#[track_caller]
fn wait_for_rest(redis: &Redis) {
    let looks = || redis.info("commandstats", "cmdstat_hscan");
    Stopwatch::wait_until(Duration::from_secs(20), "nobody looks", || {
        let before = looks();
        thread::sleep(Duration::from_millis(2_500));
        looks() == before
    });
}

fn overwrite(key: &str, format: &str) -> [String; 4] {
    ["HSET".into(), "prefix_configs".into(), key.into(), json!({ "format": format }).to_string()]
}

#[test]
fn rules_are_looked_through_only_when_somebody_has_written_to_them() {
    let redis = Redis::start();
    many(&redis);
    let (one, two) = (node(&redis), node(&redis));
    Stopwatch::wait_until(Duration::from_secs(30), "all are adopted", || format_at(&two, "K3000").is_some());
    wait_for_rest(&redis);
    let write = overwrite("K1234", "NEW-{SEQ:19}");
    redis.cli(&write.each_ref().map(String::as_str));
    for server in [&one, &two] {
        Stopwatch::wait_until(PROMISED, "a changed rule", || {
            format_at(server, "K1234").as_deref() == Some("NEW-{SEQ:19}")
        });
    }
    wait_for_rest(&redis);
}

#[test]
fn a_write_that_nobody_was_told_of_is_found_when_the_connection_is_back() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let server = Site::new().with("NUMGEN_REDIS_URL", &proxy.redis_url()).start();
    server.caller().register("EVT", &json!({"format": "EVT-{SEQ:19}"}));
    wait_for_rest(&redis);
    proxy.set(Fault::Refuse);
    thread::sleep(Duration::from_millis(500));
    let write = overwrite("EVT", "EV2-{SEQ:19}");
    redis.cli(&write.each_ref().map(String::as_str));
    thread::sleep(Duration::from_millis(500));
    proxy.set(Fault::None);
    Stopwatch::wait_until(PROMISED, "found", || format_at(&server, "EVT").as_deref() == Some("EV2-{SEQ:19}"));
}

#[test]
fn a_redis_that_reports_no_writes_is_looked_through_again_and_again() {
    let redis = Redis::start();
    redis.cli(&["ACL", "SETUSER", "default", "-client|tracking"]);
    many(&redis);
    let server = node(&redis);
    Stopwatch::wait_until(Duration::from_secs(30), "all are adopted", || {
        format_at(&server, "K3000").is_some()
    });
    for round in 0..3 {
        let write = overwrite("K1234", &format!("NEW{round}-{{SEQ:19}}"));
        redis.cli(&write.each_ref().map(String::as_str));
        let known = format!("NEW{round}-{{SEQ:19}}");
        Stopwatch::wait_until(PROMISED, "found", || format_at(&server, "K1234").as_deref() == Some(&known));
    }
    assert!(server.log().contains("does not report direct writes"), "{}", server.log());
}

#[test]
fn writes_are_reported_by_a_cluster_and_by_the_server_that_takes_over() {
    let mut cluster = RedisCluster::start();
    let server = Site::new().with("NUMGEN_REDIS_URL", &cluster.url()).start();
    server.caller().register("EVT", &json!({"format": "EVT-{SEQ:19}"}));
    let known = |format: &str| format_at(&server, "EVT").as_deref() == Some(format);
    let rewrite = |cluster: &RedisCluster, format: &str| {
        cluster.cli(&overwrite("EVT", format).each_ref().map(String::as_str));
        Stopwatch::wait_until(PROMISED, "known", || known(format));
    };
    let owner = cluster.master_of("prefix_configs");
    wait_for_rest(cluster.node(owner));
    rewrite(&cluster, "EV2-{SEQ:19}");
    cluster.node(owner).kill();
    Stopwatch::wait_until(Duration::from_secs(30), "another master", || {
        cluster.masters().count() == 3
            && server.caller().post("/prefix-configs/X", &json!({"format": "X-{SEQ:19}"})).status != 503
    });
    let owner = cluster.master_of("prefix_configs");
    wait_for_rest(cluster.node(owner));
    rewrite(&cluster, "EV3-{SEQ:19}");
}

#[test]
fn writes_are_reported_by_the_server_that_sentinels_choose() {
    let mut sentinels = Sentinels::start();
    let server = Site::new().with("NUMGEN_REDIS_URL", &sentinels.url()).start();
    server.caller().register("EVT", &json!({"format": "EVT-{SEQ:19}"}));
    let master = sentinels.failover();
    Stopwatch::wait_until(Duration::from_secs(30), "the other one is used", || {
        server.caller().post("/prefix-configs/X", &json!({"format": "X-{SEQ:19}"})).status != 503
    });
    wait_for_rest(sentinels.server(master));
    let write = overwrite("EVT", "EV2-{SEQ:19}");
    sentinels.server(master).cli(&write.each_ref().map(String::as_str));
    Stopwatch::wait_until(PROMISED, "known", || format_at(&server, "EVT").as_deref() == Some("EV2-{SEQ:19}"));
}

/// 100,000 rules: what a start takes, and what looking for changes costs Redis.
#[test]
#[ignore = "measures"]
fn measure_a_hundred_thousand() {
    const SEED: &str = r#"
        for i = 1, 100000 do
          local name = string.format('K%06d', i)
          local rule = string.format('{"prefix_key":"%s","format":"%s-{year}-{SEQ:19}","seq_length":19,"initial_seq":null,"mode":"snowflake","reset":"never","timezone":"UTC","fiscal_year_start":"01-01","overflow":"grow","max_seq":"18446744073709551615","on_outage":"temporary"}', name, name)
          redis.call('HSET', 'prefix_configs', name, rule)
          redis.call('HSET', KEYS[1], name, rule .. '\n1 0\n{"edition":1}')
          redis.call('ZADD', KEYS[1] .. ':changes', i, name)
        end
        redis.call('HSET', KEYS[1] .. ':state', 'change', 100000, 'live', 100000)"#;
    let redis = Redis::start();
    redis.cli(&["EVAL", SEED, "1", "numgen:rules:{prefix_configs}"]);
    drop(node(&redis));
    let started = |site: &Site, what: &str| {
        let watch = Stopwatch::start();
        let server = site.start_unready();
        let mut said = String::new();
        Stopwatch::wait_until(Duration::from_secs(60), "loaded", || {
            said = server.admin("/readyz").map(|answer| answer.text().to_owned()).unwrap_or_default();
            said.contains(r#""rules":"ok""#)
        });
        println!("{what}: {} ms until the rules are in force", watch.elapsed().as_millis());
        server
    };
    let site = Site::new().with("NUMGEN_REDIS_URL", &redis.url());
    let server = started(&site, "empty directory");
    thread::sleep(Duration::from_secs(5));
    drop(server);
    let server = started(&site, "with a copy");
    thread::sleep(Duration::from_secs(5));
    redis.cli(&["CONFIG", "RESETSTAT"]);
    thread::sleep(Duration::from_secs(10));
    println!("10 s without a change: {}", redis.cli(&["INFO", "commandstats"]));
    redis.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "1500"]);
    thread::sleep(Duration::from_secs(5));
    println!("scripts above 1.5 ms in 5 s: {}", redis.cli(&["SLOWLOG", "LEN"]));
    let watch = Stopwatch::start();
    redis.cli(&["HSET", "prefix_configs", "K050000", r#"{"format":"X-{SEQ:19}"}"#]);
    Stopwatch::wait_until(PROMISED, "changed", || {
        format_at(&server, "K050000").as_deref() == Some("X-{SEQ:19}")
    });
    println!("a direct write is in force after {} ms", watch.elapsed().as_millis());
}
