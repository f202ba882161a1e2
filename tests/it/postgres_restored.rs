//! A PostgreSQL that may have forgotten strict numbers: none is issued twice. It goes on by itself where every node finds what it was
//! told, and waits for a person where not.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Caller, Postgres, Site, Stopwatch, TestServer, Timeline};

const SECOND: Duration = Duration::from_secs(1);

fn site(url: &str, name: &str) -> Site {
    Site::new().with("NUMGEN_DATABASE_URL", url).with("NUMGEN_NODE_NAME", name)
}

/// The state of a component on `/readyz`.
fn component(node: &TestServer, name: &str) -> String {
    let Ok(answer) = node.admin("/readyz") else { return String::new() };
    answer.json()["components"][name].as_str().unwrap_or_default().to_owned()
}

fn register(caller: &mut Caller) {
    caller.register("S", &json!({"format": "S-{SEQ:4}", "mode": "strict"}));
}

/// Numbers `from` to `to`, one after the other.
#[track_caller]
fn draw(caller: &mut Caller, from: u32, to: u32) {
    for value in from..=to {
        assert_eq!(caller.number("S"), format!("S-{value:04}"));
    }
}

/// The next one, as soon as there is one.
#[track_caller]
fn draw_when_possible(caller: &mut Caller, value: u32) {
    let mut number = String::new();
    Stopwatch::wait_until(25 * SECOND, "numbers are issued again", || {
        let Ok(answer) = caller.try_send("GET", "/numbers/S", &[], None) else { return false };
        let issued = answer.status == 200;
        if issued {
            number = answer.numbers().remove(0);
        }
        issued
    });
    assert_eq!(number, format!("S-{value:04}"));
}

/// Whether this line is among the metrics.
fn is_shown(node: &TestServer, sample: &str) -> bool {
    node.admin("/metrics").expect("an answer").expect(200).text().lines().any(|line| line == sample)
}

/// Nothing is issued, and the reason names what a person can do.
#[track_caller]
fn wait_suspended(caller: &mut Caller, why: &str) {
    let mut said = String::new();
    Stopwatch::wait_until(25 * SECOND, "strict numbers are suspended", || {
        let Ok(answer) = caller.try_send("GET", "/numbers/S", &[], None) else { return false };
        assert_eq!(answer.status, 503, "{}", answer.text());
        said = answer.text();
        said.contains("suspended")
    });
    assert!(said.contains(why), "{said}");
    assert!(said.contains("StorageUnavailable") && said.contains("numgen resume"), "{said}");
}

fn run(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let output = site.run(arguments);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

/// As on call: another database is made of last night's dump, and takes the name of the present one.
#[test]
fn a_database_that_was_loaded_from_a_dump_waits_for_a_person() {
    let server = Postgres::start();
    server.psql("CREATE DATABASE numgen");
    let url = server.url_of("numgen");
    let node = site(&url, "first").start();
    let mut caller = node.caller();
    register(&mut caller);
    draw(&mut caller, 1, 18);
    let dump = server.dump("numgen");
    draw(&mut caller, 19, 20);
    server.psql("CREATE DATABASE restored");
    server.load(&dump, "restored");
    server.psql(
        "ALTER DATABASE numgen ALLOW_CONNECTIONS false;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'numgen'",
    );
    server.psql("ALTER DATABASE numgen RENAME TO broken");
    server.psql("ALTER DATABASE restored RENAME TO numgen");

    // A node that remembers says how far it went; one that does not says that nobody knows.
    wait_suspended(&mut caller, "lacks what it had acknowledged to node first");
    let chinese = [("Accept-Language", "zh")];
    let said = caller.send("GET", "/numbers/S", &chinese, None).expect(503).text();
    assert!(said.contains("严格编号已停用") && said.contains("numgen resume"), "{said}");
    assert!(component(&node, "ledger").contains("suspended"), "{}", component(&node, "ledger"));
    assert!(is_shown(&node, r#"numgen_component_ok{component="ledger"} 0"#));
    assert!(node.log().contains("strict numbers are suspended"), "{}", node.log());
    let (code, said) = run(node.site(), &["check"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("strict numbers are suspended"), "{said}");
    assert!(said.contains("S: ends at 18, but node first had values up to 20: advance it to 20"), "{said}");
    let (code, said) = run(node.site(), &["resume", "--reason", "in a hurry"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("advance it to 20") && said.contains("nothing was changed"), "{said}");

    caller.post("/sequences/S/advance", &json!({"to": 20})).expect(200);
    let (code, said) = run(node.site(), &["resume", "--reason", "restored last night's dump"]);
    assert_eq!((code, said.trim()), (Some(0), "strict numbers are issued again"));
    let (code, said) = run(node.site(), &["resume", "--reason", "again"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("nothing was changed"), "{said}");
    draw_when_possible(&mut caller, 21);
    Stopwatch::wait_until(5 * SECOND, "well again", || component(&node, "ledger").is_empty());
    assert!(is_shown(&node, r#"numgen_component_ok{component="ledger"} 1"#), "an alert would never end");
    let trail = caller.get("/audit?prefix_key=S").expect(200).text();
    assert!(trail.contains("resumed") && trail.contains("restored last night's dump"), "{trail}");
    let certificate = caller.get("/ledger/S/certificate").expect(200).json();
    assert_eq!((&certificate["count"], &certificate["holes"]), (&json!(21), &json!([])), "{certificate}");
}

#[test]
fn a_dump_that_nobody_remembers_more_of_waits_too() {
    let server = Postgres::start();
    server.psql("CREATE DATABASE numgen");
    let node = site(&server.url_of("numgen"), "first").start();
    let mut caller = node.caller();
    register(&mut caller);
    draw(&mut caller, 1, 3);
    node.stop();
    let dump = server.dump("numgen");
    server.psql("CREATE DATABASE restored");
    server.load(&dump, "restored");
    // A copy within the server has the same tables by their numbers.
    server.psql("CREATE DATABASE copied TEMPLATE numgen");
    for database in ["restored", "copied"] {
        let node = site(&server.url_of(database), "second").start();
        let mut caller = node.caller();
        wait_suspended(&mut caller, "restored from a dump or copied");
        let (code, said) = run(node.site(), &["check"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("restored from a dump or copied"), "{said}");
        // Rules go on, but for what would read how far a counter is.
        caller.get("/prefix-configs/S").expect(200);
        let (code, said) = run(node.site(), &["resume", "--reason", "a copy for tests"]);
        assert_eq!(code, Some(0), "{said}");
        draw_when_possible(&mut caller, 4);
    }
}

/// A promotion, as far as the ledger can tell; one of the nodes has stopped in order before, and is not waited for.
#[test]
fn a_server_that_lacks_nothing_goes_on_by_itself() {
    let mut server = Postgres::start();
    let nodes = ["first", "second", "third"].map(|name| site(&server.url(), name).start());
    let mut callers = nodes.each_ref().map(TestServer::caller);
    register(&mut callers[0]);
    for (caller, value) in callers.iter_mut().zip(1..) {
        Stopwatch::wait_until(5 * SECOND, "the rule is known", || {
            caller.get("/prefix-configs/S").status == 200
        });
        draw(caller, value, value);
    }
    let [first, second, third] = nodes;
    third.stop();
    server.stop();
    let everything = server.back_up();
    server.restore(&everything, Timeline::New);
    server.start_again();
    let watch = Stopwatch::start();
    draw_when_possible(&mut callers[0], 4);
    watch.assert_within(8 * SECOND, "nobody is silent, and the first number");
    draw_when_possible(&mut callers[1], 5);
    assert_eq!(component(&first, "ledger"), "");
    assert!(!second.log().contains("are suspended"), "{}", second.log());
}

fn a_server_that_lacks_something_waits(onto: Timeline) {
    let mut server = Postgres::start();
    let node = site(&server.url(), "first").start();
    let mut caller = node.caller();
    register(&mut caller);
    draw(&mut caller, 1, 5);
    server.stop();
    let older = server.back_up();
    server.start_again();
    draw_when_possible(&mut caller, 6);
    draw(&mut caller, 7, 9);
    server.stop();
    server.restore(&older, onto);
    server.start_again();
    wait_suspended(&mut caller, "lacks what it had acknowledged to node first");
    // What is there can be read, and confirmed or voided.
    caller.post("/numbers/S/S-0005/void", &json!({"reason": "twice"})).expect(200);
    caller.post("/sequences/S/advance", &json!({"to": 9})).expect(200);
    let (code, said) = run(node.site(), &["resume", "--reason", "older files"]);
    assert_eq!(code, Some(0), "{said}");
    draw_when_possible(&mut caller, 10);
}

#[test]
fn a_server_that_was_recovered_to_an_earlier_moment_waits_for_a_person() {
    a_server_that_lacks_something_waits(Timeline::New);
}

#[test]
fn files_that_were_put_back_wait_for_a_person() {
    a_server_that_lacks_something_waits(Timeline::Same);
}

/// Nothing is lacking, but a node that drew cannot be asked: it was killed with the old server.
#[test]
fn who_is_silent_is_waited_for() {
    let mut server = Postgres::start();
    let nodes = ["first", "second"].map(|name| site(&server.url(), name).start());
    let [mut first, mut second] = nodes.each_ref().map(TestServer::caller);
    register(&mut first);
    draw(&mut first, 1, 2);
    Stopwatch::wait_until(5 * SECOND, "the rule is known", || second.get("/prefix-configs/S").status == 200);
    draw(&mut second, 3, 3);
    let [node, other] = nodes;
    other.kill_9();
    server.stop();
    let everything = server.back_up();
    server.restore(&everything, Timeline::New);
    server.start_again();
    wait_suspended(&mut first, "issued by second");
    let (code, said) = run(node.site(), &["check"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("issued by second") && said.contains("--without second"), "{said}");
    let (code, said) = run(node.site(), &["resume", "--reason", "nothing was lost"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--without second") && said.contains("nothing was changed"), "{said}");
    let (code, said) = run(node.site(), &["resume", "--reason", "nothing was lost", "--without", "second"]);
    assert_eq!(code, Some(0), "{said}");
    draw_when_possible(&mut first, 4);
    let trail = first.get("/audit?prefix_key=S").expect(200).text();
    assert!(trail.contains("nothing was lost (without second)"), "{trail}");
}

/// A person is quicker than the nodes: what they remember is asked for all the same, and not thrown away where somebody was given up.
#[test]
fn who_has_not_been_heard_is_waited_for_and_who_was_given_up_is_heard_later() {
    let mut server = Postgres::start();
    let nodes = ["first", "second"].map(|name| site(&server.url(), name).start());
    let [mut first, mut second] = nodes.each_ref().map(TestServer::caller);
    register(&mut first);
    draw(&mut first, 1, 5);
    Stopwatch::wait_until(5 * SECOND, "the rule is known", || second.get("/prefix-configs/S").status == 200);
    server.stop();
    let older = server.back_up();
    server.start_again();
    draw_when_possible(&mut first, 6);
    draw_when_possible(&mut second, 7);
    draw(&mut second, 8, 9);
    nodes.iter().for_each(TestServer::pause);
    server.stop();
    server.restore(&older, Timeline::New);
    server.start_again();
    let resume = |without: &[&str]| {
        let without = without.iter().flat_map(|node| ["--without", node]);
        let arguments: Vec<&str> = ["resume", "--reason", "in a hurry"].into_iter().chain(without).collect();
        run(nodes[0].site(), &arguments)
    };
    let (code, said) = resume(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--without first") && said.contains("--without second"), "{said}");

    nodes[0].resume();
    wait_suspended(&mut first, "lacks what it had acknowledged to node first");
    let (code, said) = resume(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains("--without first") && said.contains("--without second"), "{said}");
    let (code, said) = resume(&["second"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("node first had values up to 6"), "{said}");
    first.post("/sequences/S/advance", &json!({"to": 6})).expect(200);
    let (code, said) = resume(&["second"]);
    assert_eq!(code, Some(0), "{said}");
    draw_when_possible(&mut first, 7);

    nodes[1].resume();
    wait_suspended(&mut second, "lacks what it had acknowledged to node second");
    // The first has yet to hear of it, which takes it a second.
    let mut said = String::new();
    Stopwatch::wait_until(5 * SECOND, "both have been heard", || {
        said = resume(&[]).1;
        !said.contains("--without")
    });
    assert!(said.contains("S: ends at 7, but node second had values up to 9"), "{said}");
    first.post("/sequences/S/advance", &json!({"to": 9})).expect(200);
    let (code, said) = resume(&[]);
    assert_eq!(code, Some(0), "{said}");
    draw_when_possible(&mut first, 10);
    draw_when_possible(&mut second, 11);
}
