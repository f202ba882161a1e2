//! Profile *full*: a Redis for each data centre, and one PostgreSQL that forgets nothing.

use std::{thread, time::Duration};

use serde_json::json;

use super::{
    Fleet, Load, NORMAL_WITHIN, Pace, SETTLING, Source, Story, assert_accounted, assert_no_gap, counting,
    flaking, settled,
};
use crate::harness::{Data, Database, Fault, Postgres, Proxy, Redis, Site, Stopwatch};

/// A database of one's own, and a line to it that can be cut.
fn database() -> (Database, Proxy, String) {
    let database = Postgres::create_database();
    let proxy = Proxy::to(Postgres::shared().port());
    let server = format!(":{}/", Postgres::shared().port());
    let url = database.url().replace(&server, &format!(":{}/", proxy.port()));
    (database, proxy, url)
}

/// Nodes of one data centre.
#[track_caller]
fn fleet(redis_url: &str, database_url: &str, datacenter: u32, count: usize) -> Fleet {
    Fleet::start_with(redis_url, count, |index, site| {
        site.with("NUMGEN_DATABASE_URL", database_url)
            .with("NUMGEN_DATACENTERS", "2")
            .with("NUMGEN_DATACENTER_ID", &datacenter.to_string())
            .with("NUMGEN_NODE_NAME", &format!("dc{datacenter}-{index}"))
    })
}

fn strict() -> serde_json::Value {
    json!({ "format": "S-{SEQ:9}", "mode": "strict" })
}

#[test]
fn a_healthy_full_counter_has_no_gap_over_many_grants() {
    let redis = settled();
    let (_database, _line, url) = database();
    let fleet = fleet(&redis.url(), &url, 1, 2);
    fleet.register("HOT", &counting());
    let load = Load::on(&fleet, "HOT", Pace { callers: 2, pause: Duration::from_millis(5), batch: 150 });
    load.wait_for(30_000); // more than one grant
    let story = load.stop();
    story.assert_unique();
    assert_no_gap(&story, &fleet.sequences(1, "HOT"));
}

#[test]
fn redis_emptied_while_every_node_is_down_and_nothing_repeats() {
    let mut redis = settled();
    let (_database, _line, url) = database();
    let mut fleet = fleet(&redis.url(), &url, 1, 2);
    for (prefix, rule) in [("HOT", counting()), ("FLAKE", flaking()), ("STRICT", strict())] {
        fleet.register(prefix, &rule);
    }
    let mut stories = [Story::default(), Story::default(), Story::default()];
    let mut draw = |fleet: &Fleet, rounds: usize| {
        for round in 0..rounds {
            for (prefix, story) in ["HOT", "FLAKE", "STRICT"].iter().zip(&mut stories) {
                assert!(fleet.draw(round % 2, prefix, 7, story).is_some(), "{prefix}: {story}");
            }
        }
    };
    draw(&fleet, 20);
    fleet.kill_9(0);
    fleet.kill_9(1);
    redis.kill();
    redis.start_again(Data::Empty);
    // Without the memory of a data directory either: PostgreSQL is what remembers.
    fleet.sites[1] = std::mem::replace(&mut fleet.sites[1], crate::harness::Site::new());
    fleet.start_all();
    draw(&fleet, 20);
    for story in &stories {
        story.assert_unique();
    }
    assert_accounted(&stories[0], &fleet.sequences(0, "HOT"));
    Stopwatch::wait_until(NORMAL_WITHIN, "the mirror is there again", || {
        redis.cli(&["HKEYS", "prefix_configs"]).contains("HOT")
    });
}

#[test]
fn postgresql_away_and_what_was_granted_goes_on() {
    let redis = settled();
    let (_database, line, url) = database();
    let fleet = fleet(&redis.url(), &url, 1, 2);
    for (prefix, rule) in [("HOT", counting()), ("FLAKE", flaking()), ("STRICT", strict())] {
        fleet.register(prefix, &rule);
    }
    let (mut hot, mut flakes, mut gapless) = (Story::default(), Story::default(), Story::default());
    for index in 0..2 {
        assert_eq!(fleet.draw(index, "HOT", 1, &mut hot), Some(Source::Primary));
        assert!(fleet.draw(index, "STRICT", 1, &mut gapless).is_some());
        assert!(fleet.draw(index, "FLAKE", 1, &mut flakes).is_some());
    }
    fleet.wait_segments("HOT");
    line.set(Fault::Refuse);
    thread::sleep(Duration::from_secs(3));
    for round in 0..50 {
        assert_eq!(fleet.draw(round % 2, "HOT", 20, &mut hot), Some(Source::Primary));
        assert_eq!(fleet.draw(round % 2, "FLAKE", 20, &mut flakes), Some(Source::Primary));
    }
    assert_eq!(fleet.draw(0, "STRICT", 1, &mut gapless), None, "503");
    line.set(Fault::None);
    Stopwatch::wait_until(NORMAL_WITHIN, "strict is back", || {
        fleet.draw(0, "STRICT", 1, &mut gapless).is_some()
    });
    for round in 0..30 {
        assert_eq!(fleet.draw(round % 2, "HOT", 1_000, &mut hot), Some(Source::Primary));
    }
    for story in [&hot, &flakes, &gapless] {
        story.assert_unique();
    }
    assert_no_gap(&hot, &fleet.sequences(0, "HOT"));
}

/// Without PostgreSQL the window runs out. Counters go on in what they were granted, so callers are not to be sent elsewhere.
#[test]
fn postgresql_away_for_longer_than_a_window_and_nodes_stay_in_use() {
    let redis = settled();
    let (_database, line, url) = database();
    let fleet = Fleet::start_with(&redis.url(), 1, |_, site| {
        site.with("NUMGEN_DATABASE_URL", &url).with("NUMGEN_WORKER_WINDOW_MS", "2000")
    });
    fleet.register("HOT", &counting());
    let mut story = Story::default();
    assert_eq!(fleet.draw(0, "HOT", 1, &mut story), Some(Source::Primary));
    line.set(Fault::Refuse);
    Stopwatch::wait_until(Duration::from_secs(20), "the window has run out", || {
        let (status, readiness) = fleet.readiness(0);
        assert_eq!(status, 200, "{readiness}");
        let said = |name: &str| readiness["components"][name].as_str().unwrap_or_default().to_owned();
        said("postgres").starts_with("away: ") && said("worker").contains("window")
    });
    assert_eq!(fleet.readiness(0).1["status"], "degraded");
    assert_eq!(fleet.draw(0, "HOT", 1, &mut story), Some(Source::Primary));
    line.set(Fault::None);
    fleet.wait_normal("HOT", "full, PostgreSQL away for longer than a window", &mut story);
    assert_no_gap(&story, &fleet.sequences(0, "HOT"));
}

#[test]
fn redis_away_for_longer_than_a_window_and_nodes_stay_in_use_for_strict_numbers() {
    let redis = settled();
    let proxy = Proxy::to(redis.port());
    let (_database, _line, url) = database();
    let fleet = Fleet::start_with(&proxy.redis_url(), 1, |_, site| {
        site.with("NUMGEN_DATABASE_URL", &url).with("NUMGEN_WORKER_WINDOW_MS", "2000")
    });
    fleet.register("STRICT", &strict());
    let mut story = Story::default();
    assert!(fleet.draw(0, "STRICT", 1, &mut story).is_some());
    proxy.set(Fault::Refuse);
    Stopwatch::wait_until(Duration::from_secs(20), "no window is left", || {
        let (status, readiness) = fleet.readiness(0);
        assert_eq!(status, 200, "{readiness}");
        readiness["components"]["worker"].as_str().is_some_and(|said| said.starts_with("no window"))
    });
    assert!(fleet.draw(0, "STRICT", 1, &mut story).is_some());
    proxy.set(Fault::None);
    fleet.wait_normal("STRICT", "full, Redis away for longer than a window", &mut story);
}

#[test]
fn redis_away_the_segment_first_and_then_postgresql() {
    let redis = settled();
    let proxy = Proxy::to(redis.port());
    let (_database, _line, url) = database();
    let fleet = fleet(&proxy.redis_url(), &url, 1, 2);
    fleet.register("HOT", &counting());
    let mut story = Story::default();
    for index in 0..2 {
        assert_eq!(fleet.draw(index, "HOT", 1, &mut story), Some(Source::Primary));
    }
    fleet.wait_segments("HOT");
    proxy.set(Fault::Refuse);
    thread::sleep(Duration::from_millis(300));
    for index in 0..2 {
        for _ in 0..4 {
            assert_eq!(fleet.draw(index, "HOT", 250, &mut story), Some(Source::Segment));
        }
        for _ in 0..4 {
            assert_eq!(fleet.draw(index, "HOT", 250, &mut story), Some(Source::Primary), "from PostgreSQL");
        }
    }
    proxy.set(Fault::None);
    fleet.wait_normal("HOT", "full, Redis away", &mut story);
    for round in 0..40 {
        let source = fleet.draw(round % 2, "HOT", 500, &mut story);
        assert_eq!(source, Some(Source::Primary), "round {round}: {}", fleet.sequences(0, "HOT"));
    }
    story.assert_unique();
    assert_accounted(&story, &fleet.sequences(1, "HOT"));
}

#[test]
fn two_data_centres_draw_one_prefix_and_one_of_them_forgets() {
    let (first, mut second) = (settled(), settled());
    let (database, _line, url) = database();
    let fleets = [fleet(&first.url(), &url, 1, 2), fleet(&second.url(), &url, 2, 2)];
    for (prefix, rule) in [("HOT", counting()), ("FLAKE", flaking())] {
        fleets[0].register(prefix, &rule);
    }
    Stopwatch::wait_until(SETTLING, "rules travel through PostgreSQL", || {
        let path = "/prefix-configs/FLAKE";
        (0..2).all(|index| fleets[1].caller(index).get(path).status == 200)
    });
    let pace = Pace { callers: 2, pause: Duration::from_millis(10), batch: 40 };
    let loads = fleets.each_ref().map(|fleet| Load::on(fleet, "HOT", pace));
    let flakes = fleets.each_ref().map(|fleet| Load::on(fleet, "FLAKE", Pace::CALM));
    loads.iter().for_each(|load| load.wait_for(10_000));
    second.kill();
    second.start_again(Data::Empty);
    thread::sleep(SETTLING);
    loads.iter().for_each(|load| load.wait_for(10_000));
    let mut hot = Story::default();
    loads.into_iter().for_each(|load| hot.add(load.stop()));
    let mut flaked = Story::default();
    flakes.into_iter().for_each(|load| flaked.add(load.stop()));
    fleets[1].wait_normal("HOT", "a data centre whose Redis was emptied", &mut hot);
    hot.assert_unique();
    flaked.assert_unique();
    let granted = database.psql(
        "SELECT count(*) FROM numgen_grants a JOIN numgen_grants b USING (prefix_key, period) \
         WHERE a.id < b.id AND a.first <= b.last AND b.first <= a.last",
    );
    assert_eq!(granted.trim(), "0", "grants are disjoint");
}

#[test]
fn a_redis_under_the_id_of_another_is_refused_and_both_are_named() {
    // A settled one has the generation of every settled one: the other must be another.
    let (first, second) = (settled(), Redis::start());
    let (_database, _line, url) = database();
    let mut own = fleet(&first.url(), &url, 1, 1);
    own.register("HOT", &counting());
    let mut story = Story::default();
    assert_eq!(own.draw(0, "HOT", 1, &mut story), Some(Source::Primary));
    let mut foreign = Fleet::plan(1, |_, site| {
        site.with("NUMGEN_REDIS_URL", &second.url())
            .with("NUMGEN_DATABASE_URL", &url)
            .with("NUMGEN_DATACENTER_ID", "1")
    });
    foreign.start_unready(0);
    let names = [&first, &second].map(|redis| format!("127.0.0.1:{}", redis.port()));
    Stopwatch::wait_until(Duration::from_secs(10), "the node says whose the ID is", || {
        let said =
            foreign.node(0).admin("/readyz").map(|answer| answer.json().to_string()).unwrap_or_default();
        names.iter().all(|name| said.contains(name))
    });
    assert_eq!(foreign.readiness(0).0, 503, "no window");
    // Its rules may be in force elsewhere: nothing is added to them, not even what is registered here.
    foreign.register("NEW", &flaking());
    let rules = || second.cli(&["HKEYS", "prefix_configs"]);
    assert_eq!(rules().trim(), "", "no rule is written to a Redis of others");
    // Thirty seconds after the last node behind it the ID is free.
    own.stop(0);
    Stopwatch::wait_until(Duration::from_secs(50), "the ID passes on", || foreign.readiness(0).0 == 200);
    Stopwatch::wait_until(NORMAL_WITHIN, "it has the rules now", || {
        ["HOT", "NEW"].iter().all(|key| rules().contains(key))
    });
    for _ in 0..20 {
        foreign.draw(0, "HOT", 1, &mut story);
    }
    story.assert_unique();
}

/// The IDs of two data centres differ in the bits of the data centre, as long as these are the same bits.
#[test]
fn data_centres_have_one_layout() {
    let redis = [settled(), settled()];
    let (database, _line, url) = database();
    let site = |datacenter: usize, layout: &str| {
        Site::new()
            .with("NUMGEN_REDIS_URL", &redis[datacenter].url())
            .with("NUMGEN_DATABASE_URL", &url)
            .with("NUMGEN_DATACENTERS", "2")
            .with("NUMGEN_DATACENTER_ID", &datacenter.to_string())
            .with("NUMGEN_SNOWFLAKE_LAYOUT", layout)
    };
    let first = site(0, "41/5/5/12").start();
    let other = site(1, "40/6/5/12");
    let refused = other.start_unready();
    assert_eq!(refused.wait_exit(Duration::from_secs(20)).code(), Some(2));
    let said = other.log();
    assert!(
        said.contains("41/5/5/12") && said.contains("data centre 0") && said.contains("40/6/5/12"),
        "{said}"
    );
    let check = other.run(&["check"]);
    let check = String::from_utf8_lossy(&check.stdout);
    assert!(check.contains("FAIL  layout") && check.contains("data centre 0"), "{check}");
    let second = site(1, "41/5/5/12").start();
    assert_eq!(database.psql("SELECT count(*) FROM numgen_layouts"), "2");
    drop((first, second));

    // So it is where PostgreSQL leases the worker IDs.
    let other = other.without("NUMGEN_REDIS_URL");
    assert_eq!(other.start_unready().wait_exit(Duration::from_secs(20)).code(), Some(2), "{}", other.log());
}

#[test]
fn rules_come_back_to_an_emptied_redis_and_what_is_written_there_is_adopted() {
    let redis = settled();
    let (database, _line, url) = database();
    let fleet = fleet(&redis.url(), &url, 1, 2);
    fleet.register("KEPT", &counting());
    redis.cli(&["FLUSHALL"]);
    Stopwatch::wait_until(Duration::from_secs(10), "the rule is in Redis again", || {
        redis.cli(&["HGET", "prefix_configs", "KEPT"]).contains("{SEQ:9}")
    });
    redis.cli(&["HSET", "prefix_configs", "BY_HAND", r#"{"format": "H-{SEQ:9}", "mode": "continuous"}"#]);
    let mut caller = fleet.caller(1);
    Stopwatch::wait_until(Duration::from_secs(12), "a rule written into Redis is in force", || {
        caller.get("/prefix-configs/BY_HAND").status == 200
    });
    thread::sleep(Duration::from_secs(2));
    let rows = database.psql("SELECT revision FROM numgen_rules WHERE prefix_key = 'BY_HAND'");
    assert_eq!(rows.trim(), "1", "it is in PostgreSQL, and was adopted once");
}

/// 100,000 rules: what a node learns, and when, while Redis gets them back.
#[test]
#[ignore = "measures"]
fn measure_a_hundred_thousand_that_redis_has_forgotten() {
    const SEED: &str = r#"
        INSERT INTO numgen_rules (prefix_key, revision, rule, history, used, change)
            SELECT name, 1, format('{"prefix_key":"%s","format":"%s-{year}-{SEQ:19}","seq_length":19,"initial_seq":null,"mode":"snowflake","reset":"never","timezone":"UTC","fiscal_year_start":"01-01","overflow":"grow","max_seq":"18446744073709551615","on_outage":"temporary"}', name, name),
                '{"edition":1}', false, change + id
            FROM numgen_memory, generate_series(1, 100000) AS id, format('K%s', lpad(id::text, 6, '0')) AS name;
        UPDATE numgen_memory SET change = change + 100000"#;
    let redis = settled();
    let (database, _line, url) = database();
    let mut fleet = fleet(&redis.url(), &url, 1, 2);
    let knows =
        |fleet: &Fleet, key: &str| fleet.caller(1).get(&format!("/prefix-configs/{key}")).status == 200;
    let took = |what: &str, done: &mut dyn FnMut() -> bool| {
        let watch = Stopwatch::start();
        Stopwatch::wait_until(Duration::from_secs(60), what, done);
        println!("{what} after {} ms", watch.elapsed().as_millis());
    };
    database.psql(SEED);
    took("the last rule is known", &mut || knows(&fleet, "K100000"));
    let mirrored = || redis.cli(&["HLEN", "prefix_configs"]);
    took("Redis has them", &mut || mirrored() == "100000");
    redis.cli(&["FLUSHALL"]);
    took("PUT while Redis has forgotten is answered", &mut || {
        fleet.caller(0).register("NEW", &counting());
        true
    });
    took("it is known to the other node", &mut || knows(&fleet, "NEW"));
    took("Redis has them again", &mut || mirrored() == "100001");
    redis.cli(&["FLUSHALL"]);
    fleet.kill_9(1);
    fleet.sites[1] = Site::new()
        .with("NUMGEN_REDIS_URL", &redis.url())
        .with("NUMGEN_DATABASE_URL", &url)
        .with("NUMGEN_DATACENTERS", "2")
        .with("NUMGEN_DATACENTER_ID", "1");
    fleet.start_all();
    took("a node with an empty directory knows the last rule", &mut || knows(&fleet, "K100000"));
    took("Redis has them once more", &mut || mirrored() == "100001");
    redis.cli(&["HSET", "prefix_configs", "BY_HAND", r#"{"format": "H-{SEQ:9}"}"#]);
    took("a rule written into Redis is in force", &mut || knows(&fleet, "BY_HAND"));
}
