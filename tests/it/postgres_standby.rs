//! A synchronous standby: what was acknowledged is there too, whenever it takes over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use serde_json::json;

use crate::harness::{Caller, Fault, Postgres, Proxy, Site, Stopwatch, TestServer};

const SECOND: Duration = Duration::from_secs(1);

/// One server, one that follows it, and a way that leads to whichever is the primary.
struct Pair {
    primary: Postgres,
    standby: Postgres,
    way: Proxy,
}

impl Pair {
    fn start() -> Self {
        let primary = Postgres::start();
        let standby = primary.standby();
        primary.wait_for_standbys();
        let way = Proxy::to(primary.port());
        Self { primary, standby, way }
    }

    fn site(&self, name: &str) -> Site {
        let url = self
            .primary
            .url()
            .replace(&format!(":{}/", self.primary.port()), &format!(":{}/", self.way.port()));
        Site::new().with("NUMGEN_DATABASE_URL", &url).with("NUMGEN_NODE_NAME", name)
    }

    /// kill -9 of the primary; the standby takes over, and its place.
    fn fail_over(&mut self) {
        self.primary.kill();
        self.way.set(Fault::Refuse);
        self.standby.promote();
        self.way.lead_to(self.standby.port());
        self.way.set(Fault::None);
    }
}

/// What one caller was told.
#[derive(Default)]
struct Told {
    /// Strict, each under a key that is sent until it is answered.
    strict: BTreeMap<String, String>,
    continuous: Vec<u64>,
    snowflakes: Vec<String>,
}

fn value(number: &str) -> u64 {
    number[2..].parse().expect("a number")
}

/// Ends the callers, also where a test fails before it says so.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How far all callers are together.
#[derive(Default)]
struct Progress {
    strict: AtomicU64,
    continuous: AtomicU64,
    is_over: AtomicBool,
}

/// Asks for a number of each kind in turn until it is over.
fn ask(mut caller: Caller, name: &str, progress: &Progress) -> Told {
    let mut told = Told::default();
    for turn in 0.. {
        if progress.is_over.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{name}-{turn}");
        let number = loop {
            let answer = caller.send("GET", "/numbers/S", &[("Idempotency-Key", &key)], None);
            match answer.status {
                200 => break answer.numbers().remove(0),
                503 => assert!(!answer.text().contains("suspended"), "nothing is lacking: {}", answer.text()),
                other => panic!("{other}: {}", answer.text()),
            }
            thread::sleep(SECOND / 50);
        };
        told.strict.insert(key, number);
        progress.strict.fetch_add(1, Ordering::Relaxed);
        let answer = caller.get("/numbers/C");
        if answer.status == 200 {
            told.continuous.push(value(&answer.numbers()[0]));
            if answer.json()["source"] == "primary" {
                progress.continuous.fetch_add(1, Ordering::Relaxed);
            }
        }
        told.snowflakes.push(caller.number("E"));
    }
    told
}

/// Every integer was issued, is listed as a hole, or lies in a segment.
fn assert_accounted(caller: &mut Caller, issued: &BTreeSet<u64>) {
    let counter = caller.get("/sequences/C").expect(200).json()["counters"][0].clone();
    let number = |value: &serde_json::Value| value.as_str().expect("text").parse::<u64>().expect("a value");
    let ranges = |name: &str| -> Vec<(u64, u64)> {
        let list = counter[name].as_array().expect("a list").iter();
        list.map(|range| (number(&range["from"]), number(&range["to"]))).collect()
    };
    let listed = [ranges("holes"), ranges("segments")].concat();
    let is_listed = |value: u64| listed.iter().any(|(from, to)| (*from..=*to).contains(&value));
    let lacking: Vec<u64> = (1..=number(&counter["last_value"]))
        .filter(|value| !issued.contains(value) && !is_listed(*value))
        .collect();
    assert!(lacking.is_empty(), "neither issued nor listed: {lacking:?} of {counter}");
}

/// Whether a node that drew dies with the primary.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    PrimaryAlone,
    NodeToo,
}

fn promoted_under_load(loss: Loss) {
    let mut pair = Pair::start();
    let nodes = ["first", "second"].map(|name| pair.site(name).start());
    let doomed = (loss == Loss::NodeToo).then(|| pair.site("doomed").start());
    let mut first = nodes[0].caller();
    first.register("S", &json!({"format": "S-{SEQ:9}", "mode": "strict"}));
    first.register("C", &json!({"format": "C-{SEQ:9}"}));
    first.register("E", &json!({"format": "E-{SEQ:19}"}));
    let everybody = nodes.iter().chain(&doomed);
    for node in everybody {
        let mut caller = node.caller();
        Stopwatch::wait_until(5 * SECOND, "the rules are known", || {
            caller.get("/prefix-configs/E").status == 200
        });
    }
    let of_doomed = doomed.as_ref().map(|node| node.caller().number("S"));
    let progress = Progress::default();
    let told: Vec<Told> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|at| {
                let (caller, progress) = (nodes[at % 2].caller(), &progress);
                scope.spawn(move || ask(caller, &format!("caller-{at}"), progress))
            })
            .collect();
        let over = Over(&progress.is_over);
        thread::sleep(2 * SECOND);
        drop(doomed.map(TestServer::kill_9));
        pair.fail_over();
        let watch = Stopwatch::start();
        for (what, count) in [("strict", &progress.strict), ("continuous", &progress.continuous)] {
            let before = count.load(Ordering::Relaxed);
            Stopwatch::wait_until(60 * SECOND, "back to normal", || {
                count.load(Ordering::Relaxed) >= before + 20
            });
            println!("{loss:?}: {what} numbers {} ms after the promotion", watch.elapsed().as_millis());
        }
        thread::sleep(2 * SECOND);
        drop(over);
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });

    let strict: Vec<&String> = told.iter().flat_map(|told| told.strict.values()).chain(&of_doomed).collect();
    let distinct: BTreeSet<&&String> = strict.iter().collect();
    assert_eq!(distinct.len(), strict.len(), "a strict number came twice");
    assert!(strict.len() > 100, "{}", strict.len());
    let rows = pair.standby.psql("SELECT count(*), min(sequence), max(sequence) FROM numgen_ledger_rows");
    let rows: Vec<u64> = rows.split('|').map(|part| part.parse().expect("a number")).collect();
    assert_eq!((rows[1], rows[0]), (1, rows[2]), "no gap: {rows:?}");
    let acknowledged = pair.standby.psql("SELECT number FROM numgen_ledger_rows WHERE state = 'issued'");
    let acknowledged: BTreeSet<&str> = acknowledged.lines().collect();
    let lacking: Vec<_> = strict.iter().filter(|number| !acknowledged.contains(number.as_str())).collect();
    assert!(lacking.is_empty(), "acknowledged, and not in the ledger: {lacking:?}");

    let continuous: Vec<u64> = told.iter().flat_map(|told| told.continuous.iter().copied()).collect();
    let distinct: BTreeSet<u64> = continuous.iter().copied().collect();
    assert_eq!(distinct.len(), continuous.len(), "a continuous number came twice");
    let snowflakes: Vec<&String> = told.iter().flat_map(|told| &told.snowflakes).collect();
    let ids: BTreeSet<&&String> = snowflakes.iter().collect();
    assert_eq!(ids.len(), snowflakes.len(), "a snowflake came twice");
    println!("{} strict, {} continuous, {} snowflakes", strict.len(), continuous.len(), snowflakes.len());
    // What was drawn for callers who had gone is handed back by the beats that follow.
    thread::sleep(3 * SECOND);
    assert_accounted(&mut first, &distinct);
}

#[test]
fn a_standby_that_is_promoted_under_load_lacks_nothing() {
    promoted_under_load(Loss::PrimaryAlone);
}

#[test]
fn a_node_that_dies_with_the_primary_holds_nobody_up() {
    promoted_under_load(Loss::NodeToo);
}

/// The standby is away, so COMMIT waits; the node sleeps for longer than any limit of its own, as a machine that stalls does. What was
/// committed here alone must not be answered: a promoted standby lacks it.
#[test]
fn a_commit_that_no_standby_has_is_not_answered() {
    let mut pair = Pair::start();
    let node = pair.site("first").with("NUMGEN_STORAGE_TIMEOUT_MS", "2000").start();
    let mut caller = node.caller();
    caller.register("S", &json!({"format": "S-{SEQ:4}", "mode": "strict"}));
    assert_eq!(caller.number("S"), "S-0001");
    pair.standby.kill();
    let key = [("Idempotency-Key", "one")];
    thread::scope(|scope| {
        let mut asking = caller.again();
        let asked = scope.spawn(move || asking.send("GET", "/numbers/S", &key, None));
        thread::sleep(SECOND / 2);
        node.pause();
        thread::sleep(3 * SECOND);
        node.resume();
        let answer = asked.join().expect("no panic");
        assert_eq!(answer.status, 503, "nothing has it but the primary: {}", answer.text());
    });
    for _ in 0..3 {
        let answer = caller.send("GET", "/numbers/S", &key, None);
        assert_eq!(answer.status, 503, "still: {}", answer.text());
    }
    // The standby comes back, and the number with it.
    pair.standby.start_again();
    let mut number = String::new();
    Stopwatch::wait_until(30 * SECOND, "it is replicated", || {
        let answer = caller.send("GET", "/numbers/S", &key, None);
        if answer.status == 200 {
            number = answer.numbers().remove(0);
        }
        answer.status == 200
    });
    assert_eq!(number, "S-0002");
    let there = Site::new().with("NUMGEN_DATABASE_URL", &pair.standby.url());
    let refused = there.run(&["resume", "--reason", "the wrong server"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("only reads"), "{said}");
    pair.fail_over();
    Stopwatch::wait_until(30 * SECOND, "the promoted one issues", || {
        let Ok(answer) = caller.try_send("GET", "/numbers/S", &[], None) else { return false };
        assert!(answer.status != 200 || answer.numbers() == ["S-0003"], "{}", answer.text());
        answer.status == 200
    });
}
