//! Several nodes over one PostgreSQL, from outside: what profile postgres promises, healthy and through outages of the database.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::json;

use crate::{
    harness::{Caller, Database, Postgres, Site, Stopwatch, TestServer, faketime, value_of},
    modes::assert_accounted,
};

const SECOND: Duration = Duration::from_secs(1);

fn site(url: &str) -> Site {
    Site::new().with("NUMGEN_DATABASE_URL", url)
}

/// All rules are known on this node.
fn wait_for_rule(caller: &mut Caller, key: &str) {
    Stopwatch::wait_until(5 * SECOND, "the rule is known", || {
        caller.get(&format!("/prefix-configs/{key}")).status == 200
    });
}

/// The state of a component on `/readyz`; empty before there is an answer.
fn component(node: &TestServer, name: &str) -> String {
    let Ok(answer) = node.admin("/readyz") else { return String::new() };
    answer.json()["components"][name].as_str().unwrap_or_default().to_owned()
}

#[test]
fn nodes_count_as_one_in_every_mode() {
    let database: Database = Postgres::create_database();
    let nodes = [site(&database.url()).start(), site(&database.url()).start()];
    assert!(nodes[0].log().contains("profile postgres"), "{}", nodes[0].log());
    let mut callers = nodes.each_ref().map(TestServer::caller);
    callers[0].register("C", &json!({"format": "C-{SEQ:4}"}));
    callers[0].register("S", &json!({"format": "S-{SEQ:4}", "mode": "strict"}));
    callers[0].register("E", &json!({"format": "{worker}-{SEQ:19}"}));
    wait_for_rule(&mut callers[1], "E");
    for round in 0..20 {
        for (at, caller) in callers.iter_mut().enumerate() {
            let value = round * 2 + at + 1;
            assert_eq!(caller.number("C"), format!("C-{value:04}"), "consecutive");
            assert_eq!(caller.number("S"), format!("S-{value:04}"), "gapless");
        }
    }
    let workers = callers.each_mut().map(|caller| caller.number("E")[..2].to_owned());
    assert_ne!(workers[0], workers[1]);

    for prefix in ["C", "S", "E"] {
        let key = [("Idempotency-Key", "same")];
        let target = format!("/numbers/{prefix}");
        let first = callers[0].send("GET", &target, &key, None).expect(200).numbers();
        assert_eq!(callers[1].send("GET", &target, &key, None).expect(200).numbers(), first, "{prefix}");
    }
    // Every worker window is given back at the end, every segment too.
    drop(callers);
    for node in nodes {
        node.stop();
    }
    assert_eq!(database.psql("SELECT count(*) FROM numgen_worker_slots WHERE owner IS NOT NULL"), "0");
}

/// It is alone when the short reservation ends: so it sweeps, and by a clock of an hour later the long one would be over as well.
#[test]
fn a_node_whose_clock_is_ahead_ends_no_reservation() {
    let Some(library) = faketime() else { return };
    let database = Postgres::create_database();
    let right = site(&database.url()).start();
    let mut caller = right.caller();
    caller.register("S", &json!({"format": "S-{SEQ:4}", "mode": "strict"}));
    for seconds in [1, 600] {
        caller.post("/numbers", &json!({"prefix_key": "S", "reserve_seconds": seconds})).expect(200);
    }
    drop(caller);
    drop(right.stop());
    let hands = [("LD_PRELOAD", &*library.to_string_lossy()), ("FAKETIME", "+1h")];
    let hands = hands.into_iter().chain([("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
    let ahead = hands.fold(site(&database.url()), |site, (name, value)| site.with(name, value)).start();
    let state = |number: &str| {
        database.psql(&format!("SELECT state FROM numgen_ledger_rows WHERE number = '{number}'"))
    };
    Stopwatch::wait_until(10 * SECOND, "what is over was swept", || state("S-0001") == "void");
    assert_eq!(state("S-0002"), "reserved");
    let confirmed = ahead.caller().send("POST", "/numbers/S/S-0002/confirm", &[], None).expect(200);
    assert_eq!(confirmed.json()["state"], "issued");
}

/// No table can keep U+0000: it is refused wherever a caller may write one, by name.
#[test]
fn the_character_that_no_table_keeps_is_refused() {
    let database = Postgres::create_database();
    let node = site(&database.url()).start();
    let mut caller = node.caller();
    caller.register("S", &json!({"format": "S-{SEQ:4}", "mode": "strict"}));
    assert_eq!(caller.number("S"), "S-0001");
    let reason = json!({"reason": "spo\u{0}ilt"});
    for (method, target, body, status) in [
        ("POST", "/numbers/S/S%000001/confirm", None, 404),
        ("POST", "/numbers/S/S%000001/void", Some(&reason), 404),
        ("POST", "/numbers/S/S-0001/void", Some(&reason), 400),
        ("GET", "/ledger/S%00", None, 400),
        ("GET", "/ledger/S?period=%00", None, 400),
        ("GET", "/ledger/S/certificate?period=%00", None, 400),
        ("GET", "/audit?prefixKey=S%00", None, 400),
    ] {
        let answer = caller.send(method, target, &[], body);
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
    }
    let said = caller.send("POST", "/numbers/S/S-0001/void", &[], Some(&reason)).text();
    assert!(said.contains("U+0000") && said.contains("reason"), "{said}");
    assert_eq!(caller.number("S"), "S-0002");
}

/// Continuous and strict counters are kept apart: the change must not begin again.
#[test]
fn a_change_of_mode_never_repeats_a_number() {
    let database = Postgres::create_database();
    let nodes = [site(&database.url()).start(), site(&database.url()).start()];
    let mut callers = nodes.each_ref().map(TestServer::caller);
    let rule = |mode| json!({"format": "M-{SEQ:6}", "mode": mode});
    callers[0].register("M", &rule("continuous"));
    wait_for_rule(&mut callers[1], "M");
    let is_over = AtomicBool::new(false);
    let (mut numbers, elsewhere) = thread::scope(|scope| {
        let elsewhere: Vec<_> = (0..2)
            .map(|_| {
                let (mut caller, is_over) = (callers[1].again(), &is_over);
                scope.spawn(move || {
                    let mut numbers = Vec::new();
                    while !is_over.load(Ordering::Relaxed) {
                        numbers.push(caller.number("M"));
                    }
                    numbers
                })
            })
            .collect();
        let mut numbers = Vec::new();
        for round in 0..8 {
            numbers.push(callers[0].number("M"));
            let mode = ["strict", "continuous"][round % 2];
            callers[0].send("PUT", "/prefix-configs/M", &[], Some(&rule(mode))).expect(200);
            numbers.push(callers[0].number("M"));
            thread::sleep(SECOND / 20);
        }
        is_over.store(true, Ordering::Relaxed);
        let elsewhere: Vec<String> =
            elsewhere.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
        (numbers, elsewhere)
    });
    assert!(elsewhere.len() > 20, "{}", elsewhere.len());
    numbers.extend(elsewhere);
    let distinct: BTreeSet<u64> = numbers.iter().map(|number| value_of(number)).collect();
    assert_eq!(distinct.len(), numbers.len(), "{} came twice", numbers.len() - distinct.len());
    for caller in &mut callers {
        assert_eq!(Some(&assert_accounted(caller, "M", &distinct)), distinct.last());
    }
}

/// Ends the callers, also where a test fails before it says so.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a thread saw.
#[derive(Default)]
struct Seen {
    numbers: Vec<String>,
    refusals: u32,
}

#[test]
fn restarts_under_load_cost_no_number_and_nobody_is_needed() {
    let mut server = Postgres::start();
    let nodes = [site(&server.url()).start(), site(&server.url()).start()];
    let mut first = nodes[0].caller();
    first.register("C", &json!({"format": "C-{SEQ:9}"}));
    first.register("S", &json!({"format": "S-{SEQ:9}", "mode": "strict"}));
    first.register("E", &json!({"format": "E-{SEQ:19}"}));
    for node in &nodes {
        wait_for_rule(&mut node.caller(), "E");
    }
    let is_over = AtomicBool::new(false);
    let seen: Vec<(&str, Seen)> = thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .iter()
            .flat_map(|node| ["C", "S", "E"].map(|prefix| (node.caller(), prefix)))
            .map(|(mut caller, prefix)| {
                let is_over = &is_over;
                scope.spawn(move || {
                    let (target, mut seen) = (format!("/numbers/{prefix}"), Seen::default());
                    while !is_over.load(Ordering::Relaxed) {
                        let answer = caller.get(&target);
                        match answer.status {
                            200 => seen.numbers.extend(answer.numbers()),
                            503 | 504 => seen.refusals += 1,
                            other => panic!("{prefix}: {other} {}", answer.text()),
                        }
                        // Snowflakes without a pause take every core, and servers of other tests are not heard for seconds.
                        thread::sleep(Duration::from_millis(1));
                    }
                    (prefix, seen)
                })
            })
            .collect();
        let over = Over(&is_over);
        thread::sleep(SECOND);
        server.restart();
        thread::sleep(SECOND);
        server.kill();
        thread::sleep(2 * SECOND);
        assert!(
            component(&nodes[0], "postgres").starts_with("away: "),
            "{}",
            component(&nodes[0], "postgres")
        );
        assert_eq!(nodes[0].admin("/readyz").expect("answers").status, 200, "degraded, and issuing");
        server.start_again();
        let watch = Stopwatch::start();
        for node in &nodes {
            Stopwatch::wait_until(30 * SECOND, "back to normal", || {
                node.admin("/readyz").is_ok_and(|answer| answer.json()["status"] == "ready")
            });
        }
        watch.assert_within(30 * SECOND, "coming back, every node");
        thread::sleep(2 * SECOND);
        drop(over);
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    for (prefix, seen) in &seen {
        assert!(
            seen.numbers.len() > 20,
            "{prefix}: {} numbers, {} refusals",
            seen.numbers.len(),
            seen.refusals
        );
        if *prefix == "E" {
            assert_eq!(seen.refusals, 0, "snowflakes go on");
        }
    }
    let all: Vec<&String> = seen.iter().flat_map(|(_, seen)| &seen.numbers).collect();
    let distinct: BTreeSet<&&String> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{} came twice", all.len() - distinct.len());
    // One row for each integer of the strict counter: whatever was answered is there.
    let strict: BTreeSet<u64> =
        all.iter().filter_map(|number| number.strip_prefix("S-")?.parse().ok()).collect();
    let rows = server.psql("SELECT count(*), min(sequence), max(sequence) FROM numgen_ledger_rows");
    let rows: Vec<u64> = rows.split('|').map(|part| part.parse().expect("a number")).collect();
    assert_eq!((rows[1], rows[0]), (1, rows[2]), "gapless: {rows:?}");
    assert!(strict.iter().all(|value| *value <= rows[2]), "nothing acknowledged is lost");
}

#[test]
fn a_node_starts_without_its_database_by_its_copy() {
    let mut server = Postgres::start();
    let place = site(&server.url());
    let node = place.start();
    node.caller().register("C", &json!({"format": "C-{SEQ:4}"}));
    assert_eq!(node.caller().number("C"), "C-0001");
    let place = node.stop();
    server.kill();
    let node = place.start_unready();
    Stopwatch::wait_until(10 * SECOND, "the copy is in force", || {
        component(&node, "rules").starts_with("local copy from ")
    });
    assert!(component(&node, "postgres").starts_with("away: "));
    let strict = node.caller().get("/prefix-configs/C");
    assert_eq!(strict.status, 200, "{}", strict.text());
    server.start_again();
    node.wait_ready();
    // Until the counter was asked for once, temporary numbers stand in.
    let mut caller = node.caller();
    Stopwatch::wait_until(30 * SECOND, "counted on", || caller.number("C") == "C-0002");
}

#[test]
fn a_database_that_forgets_is_refused_by_name() {
    let server = Postgres::start_with(&["fsync=off"]);
    for (setting, arguments) in [("serve", &["serve"][..]), ("check", &["check"][..])] {
        let output = site(&server.url()).run(arguments);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && said.contains("fsync is off"), "{setting}: {said}");
    }
}

#[test]
fn a_database_that_lacks_characters_is_refused_by_name() {
    let database = Postgres::create_database();
    let name = format!("{}_latin1", database.name());
    database.psql(&format!("CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"));
    let url = database.url().replace(database.name(), &name);
    for arguments in [&["check"][..], &["serve"][..]] {
        let output = site(&url).run(arguments);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let is_named = said.contains(&name) && said.contains("the encoding of the database is LATIN1");
        assert!(!output.status.success() && is_named, "{arguments:?}: {said}");
    }
    database.psql(&format!("DROP DATABASE {name} WITH (FORCE)"));
}

#[test]
fn check_reads_a_database_and_changes_nothing() {
    let database = Postgres::create_database();
    let place = site(&database.url());
    let check = || {
        let output = place.run(&["check"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = check();
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "profile         postgres",
        "primary",
        "fsync on",
        "the schema is made at the first start",
        "its clock is",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert_eq!(database.psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
    let node = place.start();
    node.caller().register("C", &json!({"format": "C-{SEQ:4}"}));
    let place_again = node.stop();
    let output = place_again.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 in PostgreSQL"), "{said}");
    let away = site("postgres://u:canary@127.0.0.1:1/numgen").run(&["check"]);
    let said = String::from_utf8_lossy(&[away.stdout, away.stderr].concat()).into_owned();
    assert!(
        away.status.code() == Some(1) && said.contains("127.0.0.1:1/numgen") && !said.contains("canary"),
        "{said}"
    );
}

#[test]
fn a_database_that_is_known_to_be_away_is_not_waited_for() {
    let mut server = Postgres::start();
    let node = site(&server.url()).start();
    let mut caller = node.caller();
    caller.register("S", &json!({"format": "S-{SEQ:4}", "mode": "strict"}));
    caller.register("C", &json!({"format": "C-{SEQ:4}"}));
    assert_eq!(caller.number("S"), "S-0001");
    server.kill();
    Stopwatch::wait_until(5 * SECOND, "it is known", || component(&node, "postgres").starts_with("away: "));
    thread::sleep(SECOND);
    let rule = json!({"format": "S-{SEQ:5}", "mode": "strict"});
    for (method, target, body) in [
        ("GET", "/numbers/S", None),
        ("GET", "/sequences/S", None),
        ("GET", "/sequences/C", None),
        ("PUT", "/prefix-configs/S", Some(&rule)),
        ("POST", "/sequences/S/advance", Some(&json!({"to": 9}))),
        ("GET", "/ledger/S/certificate", None),
        ("GET", "/audit", None),
    ] {
        let watch = Stopwatch::start();
        let answer = caller.send(method, target, &[], body);
        assert_eq!(answer.status, 503, "{method} {target}: {}", answer.text());
        watch.assert_within(SECOND, &format!("{method} {target}"));
    }
    server.start_again();
    let watch = Stopwatch::start();
    Stopwatch::wait_until(30 * SECOND, "back to normal", || {
        caller.try_send("GET", "/numbers/S", &[], None).is_ok_and(|answer| answer.status == 200)
    });
    watch.assert_within(10 * SECOND, "coming back");
}
