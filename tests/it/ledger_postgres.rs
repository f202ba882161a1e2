//! The strict ledger on PostgreSQL when something breaks, and when several nodes draw on it: no gap, no value twice, every answered
//! number in the ledger once, both chains whole.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use numgen::{
    calendar::Period,
    clock::{SystemClock, UnixMillis},
    config::StrictLocking,
    counter::{Counter, Ranges, SequenceValue},
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    rule::OnOutage,
    secret::Secret,
    store::{
        AuditQuery, AuditStore as _, Bounds, Claim, CounterStore, IssueRequest, LedgerQuery, LedgerRow,
        LedgerState, LedgerStore, RenderNumber, StoreError, TakeRequest, Taken, Transition, Transitioned,
        postgres::{PostgresStore, Settings},
    },
    telemetry::Metrics,
};
use tokio::{task::JoinSet, time::sleep};

use crate::harness::{Database, Fault, Postgres, Proxy, Stopwatch};

const SECOND: Duration = Duration::from_secs(1);
const NOW: UnixMillis = UnixMillis(1_795_348_800_000);
const BOTH: [StrictLocking; 2] = [StrictLocking::Row, StrictLocking::Optimistic];
const FREE: Bounds = Bounds {
    base: SequenceValue(0),
    floor: SequenceValue(0),
    max: SequenceValue::MAX,
    scheme: 0,
    on_outage: OnOutage::Segment,
};

/// A process of the service, as far as this goes.
struct Node {
    store: PostgresStore,
    lifecycle: Lifecycle,
}

impl Node {
    fn start(url: &str, locking: StrictLocking, timeout: Duration) -> Self {
        Self::start_with(4, url, locking, timeout)
    }

    fn start_with(pool_size: u32, url: &str, locking: StrictLocking, timeout: Duration) -> Self {
        let (clock, node) = (Arc::new(SystemClock::new()), Some("a".to_owned()));
        let settings = Settings { clock, timeout, locking, pool_size, node, ca_file: None };
        let lifecycle = Lifecycle::new();
        let url = Secret::new(url.to_owned());
        let store = PostgresStore::connect(&url, settings, &Metrics::new(), &lifecycle).expect("a good URL");
        Self { store, lifecycle }
    }

    fn on(database: &Database) -> Self {
        Self::start(&database.url(), StrictLocking::Row, 10 * SECOND)
    }

    async fn issue(&self, on: &Counter, requests: Vec<IssueRequest>) -> Result<Vec<Taken>, StoreError> {
        self.store.issue(on.clone(), FREE, requests, numbers(on)).await
    }

    /// Draws `count` values without a key.
    async fn draw(&self, on: &Counter, count: u32) -> Ranges {
        let taken = self.issue(on, vec![plain(count)]).await.expect("drawn");
        let [Taken::Fresh(values)] = &taken[..] else { panic!("{taken:?}") };
        values.clone()
    }

    async fn rows(&self, on: &Counter) -> Vec<LedgerRow> {
        let (period, mut rows) = (Some(on.period.clone()), Vec::<LedgerRow>::new());
        loop {
            let after = rows.last().map(|row| (row.period.clone(), row.sequence));
            let query = LedgerQuery {
                period: period.clone(),
                from: None,
                to: None,
                state: None,
                after,
                limit: 1_000,
            };
            let page = self.store.rows(on.key.clone(), query).await.expect("read");
            if page.is_empty() {
                return rows;
            }
            rows.extend(page);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.lifecycle.drain();
    }
}

fn counter(period: &str) -> Counter {
    Counter { key: PrefixKey::parse("INV").expect("a prefix key"), period: Period::new(period) }
}

/// `2026/7`
fn numbers(on: &Counter) -> RenderNumber {
    let period = on.period.clone();
    Arc::new(move |_, value| format!("{period}/{value}"))
}

fn plain(count: u32) -> IssueRequest {
    IssueRequest {
        count,
        claim: None,
        idempotency_key: None,
        subject: "alice".into(),
        issued_at: NOW,
        reserved_until: None,
    }
}

fn keyed(key: &str, count: u32) -> IssueRequest {
    let claim = Claim {
        scoped_key: format!("alice INV {key}").into(),
        fingerprint: [1; 32],
        stamp: "stamp".into(),
        claimed_at: NOW,
        expires_at: NOW.plus(60 * SECOND),
    };
    IssueRequest { claim: Some(claim), idempotency_key: Some(key.into()), ..plain(count) }
}

fn values_of(taken: &Taken) -> Option<&Ranges> {
    match taken {
        Taken::Fresh(values) => Some(values),
        Taken::Replayed(recorded) => Some(&recorded.values),
        Taken::Segment(_) | Taken::Mismatch | Taken::Overflow | Taken::Away => None,
    }
}

/// Chains, states and account of a counter agree, and there is a row for each integer from 1.
async fn assert_sound(node: &Node, on: &Counter) -> Vec<LedgerRow> {
    let verification = node.store.verify(on.clone()).await.expect("read");
    assert_eq!(verification.faults, [], "{on}");
    let rows = node.rows(on).await;
    assert_eq!(verification.rows, rows.len() as u64);
    assert!(rows.iter().zip(1..).all(|(row, value)| row.sequence.0 == value), "{on}: each integer once");
    if let Some(certificate) = node.store.certificate(on.clone()).await.expect("read") {
        assert_eq!((certificate.count, certificate.holes), (rows.len() as u64, Vec::new()));
        let of = |state| rows.iter().filter(|row| row.state == state).count() as u64;
        let states = (of(LedgerState::Issued), of(LedgerState::Reserved), of(LedgerState::Void));
        assert_eq!((certificate.issued, certificate.reserved, certificate.void), states);
    }
    rows
}

/// What callers were told: the values of each counter, and those of each key.
#[derive(Default)]
struct Told {
    fresh: HashMap<Counter, Vec<u64>>,
    of_key: HashMap<String, (Counter, Ranges)>,
}

impl Told {
    /// Nobody else was told so, and a key always stands for the same.
    fn note(&mut self, on: &Counter, key: Option<&str>, taken: &Taken) {
        let values = values_of(taken).unwrap_or_else(|| panic!("{key:?}: {taken:?}"));
        if let Some(key) = key {
            let known = self.of_key.entry(key.to_owned()).or_insert((on.clone(), values.clone()));
            assert_eq!(known.1, *values, "{key}");
            if matches!(taken, Taken::Fresh(_)) {
                known.0 = on.clone();
            }
        } else {
            self.fresh.entry(on.clone()).or_default().extend(values.values().map(|value| value.0));
        }
    }

    fn merge(&mut self, other: Self) {
        for (on, values) in other.fresh {
            self.fresh.entry(on).or_default().extend(values);
        }
        for (key, (on, values)) in other.of_key {
            let known = self.of_key.entry(key.clone()).or_insert((on, values.clone()));
            assert_eq!(known.1, values, "{key}");
        }
    }

    /// Every answered value has its row, and stands for one caller; a key stands in the rows of its values alone.
    fn assert_in(&self, ledgers: &[(Counter, Vec<LedgerRow>)]) {
        let mut keys: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (on, rows) in ledgers {
            let mut fresh = self.fresh.get(on).cloned().unwrap_or_default();
            fresh.sort_unstable();
            assert!(fresh.windows(2).all(|pair| pair[0] < pair[1]), "{on}: a value was given twice");
            for value in fresh {
                let row = rows.iter().find(|row| row.sequence.0 == value);
                let row = row.unwrap_or_else(|| panic!("{on}: {value} was answered, and has no row"));
                assert_eq!(row.idempotency_key, None, "{on}: {value} was given twice");
            }
            for row in rows {
                if let Some(key) = &row.idempotency_key {
                    keys.entry(key).or_default().push(row.sequence.0);
                }
            }
        }
        for (key, (_, values)) in &self.of_key {
            let values: Vec<u64> = values.values().map(|value| value.0).collect();
            assert_eq!(keys.get(&**key), Some(&values), "{key} was drawn for once");
        }
    }
}

// --------------------------------------------------------------------------------------- several nodes

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_draw_on_the_same_counters_with_the_same_keys() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let start = || Arc::new(Node::start(&database.url(), locking, 30 * SECOND));
        let nodes = [start(), start()];
        let counters = [counter("2026"), counter("2027")];
        let mut tasks = JoinSet::new();
        for task in 0..8_usize {
            let (node, on) = (Arc::clone(&nodes[task % 2]), counters[task / 2 % 2].clone());
            tasks.spawn(async move {
                let mut told = Told::default();
                for round in 0..30 {
                    // Every task comes with the same keys at about the same time, also to another counter.
                    let (once, twice) = (format!("a{round}"), format!("b{}", round / 2));
                    let requests = vec![plain(1), keyed(&twice, 2), plain(2), keyed(&once, 2)];
                    let taken = node.issue(&on, requests).await.expect("drawn");
                    let keys = [None, Some(&*twice), None, Some(&*once)];
                    keys.into_iter().zip(&taken).for_each(|(key, taken)| told.note(&on, key, taken));
                }
                told
            });
        }
        let mut told = Told::default();
        while let Some(task) = tasks.join_next().await {
            told.merge(task.expect("no panic"));
        }
        let mut ledgers = Vec::new();
        for on in counters {
            ledgers.push((on.clone(), assert_sound(&nodes[0], &on).await));
        }
        told.assert_in(&ledgers);
        let rows: usize = ledgers.iter().map(|(_, rows)| rows.len()).sum();
        assert_eq!(rows, 8 * 30 * 3 + (30 + 15) * 2, "plain draws, and each key once");
    }
}

/// The guess of a node that has not heard of another's batch writes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_take_turns() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let start = || Node::start(&database.url(), locking, 10 * SECOND);
        let (nodes, on) = ([start(), start()], counter(""));
        let mut last = 0;
        for turn in 0..20 {
            let values = nodes[turn / 2 % 2].draw(&on, 1).await;
            last += 1;
            assert_eq!(values.to_string(), last.to_string());
        }
        assert_eq!(assert_sound(&nodes[0], &on).await.len(), 20);
    }
}

/// Another node has moved the cursor without leaving a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guess_is_not_written_over_what_left_no_row() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let start = || Node::start(&database.url(), locking, 10 * SECOND);
        let (node, other, on) = (start(), start(), counter(""));
        node.draw(&on, 2).await;
        other.store.take(on.clone(), FREE, vec![TakeRequest { count: 3, claim: None }]).await.expect("drawn");
        assert_eq!(node.draw(&on, 1).await.to_string(), "6");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_used_on_another_counter_is_replayed() {
    let database = Postgres::create_database();
    let nodes = [Node::on(&database), Node::on(&database)];
    let (first, second) = (counter("2026"), counter("2027"));
    // Both know their counter, so both guess.
    nodes[0].draw(&first, 1).await;
    nodes[1].draw(&second, 5).await;
    let taken = nodes[0].issue(&first, vec![keyed("k", 2)]).await.expect("drawn");
    assert!(matches!(&taken[..], [Taken::Fresh(values)] if values.to_string() == "2-3"), "{taken:?}");
    let taken = nodes[1].issue(&second, vec![keyed("k", 2), plain(1)]).await.expect("drawn");
    assert!(
        matches!(&taken[..], [Taken::Replayed(recorded), Taken::Fresh(values)]
            if recorded.values.to_string() == "2-3" && values.to_string() == "6"),
        "{taken:?}"
    );
    assert_eq!(assert_sound(&nodes[0], &second).await.len(), 6);
}

/// A record is being written by a transaction that has not committed: whoever comes with its key waits, and then finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_being_recorded_is_waited_for() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let nodes = [0, 1].map(|_| Arc::new(Node::start(&database.url(), locking, 30 * SECOND)));
        let counters = [counter("2026"), counter("2027")];
        for (node, on) in nodes.iter().zip(&counters) {
            node.draw(on, 1).await;
        }
        delay_commits(&database, "0.5");
        let mut tasks = JoinSet::new();
        for (node, on) in nodes.iter().zip(&counters) {
            let (node, on) = (Arc::clone(node), on.clone());
            tasks.spawn(async move { node.issue(&on, vec![keyed("k", 1)]).await.expect("drawn").remove(0) });
        }
        let mut fresh = tasks.join_all().await;
        fresh.sort_by_key(|taken| matches!(taken, Taken::Replayed(_)));
        assert!(matches!(&fresh[..], [Taken::Fresh(_), Taken::Replayed(_)]), "{fresh:?}");
        let mut rows = 0;
        for on in &counters {
            rows += assert_sound(&nodes[0], on).await.len();
        }
        assert_eq!(rows, 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_record_is_replaced_once() {
    let database = Postgres::create_database();
    let nodes = [0, 1].map(|_| Arc::new(Node::on(&database)));
    let on = counter("");
    let again = |key: &str| {
        let mut request = keyed(key, 1);
        let later = NOW.plus(120 * SECOND);
        if let Some(claim) = &mut request.claim {
            (claim.claimed_at, claim.expires_at) = (later, later.plus(60 * SECOND));
        }
        request
    };
    for round in 0..10_u64 {
        let key = format!("k{round}");
        nodes[0].issue(&on, vec![keyed(&key, 1)]).await.expect("drawn");
        let mut tasks = JoinSet::new();
        for node in &nodes {
            let (node, on, request) = (Arc::clone(node), on.clone(), again(&key));
            tasks.spawn(async move { node.issue(&on, vec![request]).await.expect("drawn").remove(0) });
        }
        let answers = tasks.join_all().await;
        let expected = (round * 2 + 2).to_string();
        for answer in &answers {
            assert_eq!(values_of(answer).map(ToString::to_string), Some(expected.clone()), "{answers:?}");
        }
    }
    assert_eq!(assert_sound(&nodes[0], &on).await.len(), 20);
}

/// A record that had expired is renewed by somebody else between two looks at it: it is not taken away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_renewed_meanwhile_stands() {
    let database = Postgres::create_database();
    let (node, other, on) = (Node::on(&database), Node::on(&database), counter(""));
    other.issue(&on, vec![keyed("k", 1)]).await.expect("drawn");
    database.psql("UPDATE numgen_idempotency SET expires_at_ms = 1");
    // Readers pass, writers wait.
    let renewing = in_background(
        &database,
        "BEGIN; LOCK TABLE numgen_idempotency IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(1);
        UPDATE numgen_idempotency SET expires_at_ms = 9000000000000; COMMIT",
    );
    sleep(SECOND / 2).await;
    let taken = node.issue(&on, vec![keyed("k", 1)]).await.expect("answered");
    assert!(matches!(&taken[..], [Taken::Replayed(_)]), "{taken:?}");
    renewing.await.expect("psql");
    assert_eq!(assert_sound(&node, &on).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retired_scheme_draws_nothing() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let start = || Node::start(&database.url(), locking, 10 * SECOND);
        let (node, other, on) = (start(), start(), counter(""));
        node.draw(&on, 3).await;
        assert_eq!(other.store.retire(&on.key, 2).await.expect("retired"), SequenceValue(3));
        assert_eq!(other.store.retire(&on.key, 1).await.expect("nothing new"), SequenceValue(3));
        for (scheme, on) in [(0, &on), (1, &on), (1, &counter("2026"))] {
            let bounds = Bounds { scheme, ..FREE };
            let refused = node.store.issue(on.clone(), bounds, vec![plain(1)], numbers(on)).await;
            assert!(matches!(refused, Err(StoreError::Superseded { .. })), "{refused:?}");
        }
        let bounds = Bounds { scheme: 2, ..FREE };
        let drawn = node.store.issue(on.clone(), bounds, vec![plain(1)], numbers(&on)).await;
        assert!(matches!(&drawn.expect("in force")[..], [Taken::Fresh(values)] if values.to_string() == "4"));
        assert_eq!(assert_sound(&node, &on).await.len(), 4);
    }
}

/// Whoever makes a sheet while schemes are being retired waits; whoever retires waits for those who draw.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retiring_waits_and_is_waited_for() {
    let database = Postgres::create_database();
    let (node, other) = (Arc::new(Node::on(&database)), Node::on(&database));
    let (on, young) = (counter("2026"), counter("2027"));
    node.draw(&on, 1).await;
    let retiring = in_background(
        &database,
        "BEGIN; UPDATE numgen_ledger_keys SET scheme = 1; SELECT pg_sleep(1); UPDATE numgen_ledger_counters SET scheme = 1; COMMIT",
    );
    sleep(SECOND / 2).await;
    let refused = node.issue(&young, vec![plain(1)]).await;
    assert!(matches!(refused, Err(StoreError::Superseded { .. })), "{refused:?}");
    retiring.await.expect("psql");

    // One that is known, and one that is new.
    delay_commits(&database, "0.7");
    for (scheme, on, count) in [(1, on, 5), (2, young, 9)] {
        let mut drawing = JoinSet::new();
        let (drawer, of) = (Arc::clone(&node), on.clone());
        drawing.spawn(async move {
            let bounds = Bounds { scheme, ..FREE };
            drawer.store.issue(of.clone(), bounds, vec![plain(count)], numbers(&of)).await
        });
        sleep(SECOND / 2).await;
        let highest = other.store.retire(&on.key, scheme + 1).await.expect("retired");
        let drawn = drawing.join_all().await.remove(0).expect("drawn before");
        assert_eq!(values_of(&drawn[0]).and_then(Ranges::last), Some(highest));
    }
}

// ------------------------------------------------------------------------------------------ lost answers

/// Somebody else at work on the same database.
fn in_background(database: &Database, sql: &'static str) -> tokio::task::JoinHandle<()> {
    let url = database.url();
    tokio::task::spawn_blocking(move || {
        let output = std::process::Command::new("psql").args(["-X", "-q", "-d", &url, "-c", sql]).output();
        let output = output.expect("psql");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    })
}

/// From now on each commit that writes a ledger row takes so many seconds longer, inside COMMIT.
fn delay_commits(database: &Database, seconds: &str) {
    database.psql(&format!(
        "CREATE OR REPLACE FUNCTION test_delay() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER test_delay AFTER INSERT ON numgen_ledger
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION test_delay();"
    ));
}

fn no_delay(database: &Database) {
    database.psql("DROP TRIGGER test_delay ON numgen_ledger");
}

/// A way to the database that can be cut.
fn through(proxy: &Proxy, database: &Database) -> String {
    database.url().replace(&format!(":{}/", Postgres::shared().port()), &format!(":{}/", proxy.port()))
}

fn rows_in(database: &Database) -> String {
    database.psql("SELECT count(*) FROM numgen_ledger")
}

async fn wait_for_rows(database: &Database, count: &str) {
    let watch = Stopwatch::start();
    while rows_in(database) != count {
        assert!(watch.elapsed() < 20 * SECOND, "no {count} rows");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The connection is cut in the middle of COMMIT: the numbers are found on another one, for callers without a key too. First with a
/// guess, then with the row lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_is_found_out() {
    for locking in BOTH {
        for guessing in [true, false] {
            let database = Postgres::create_database();
            let proxy = Proxy::to(Postgres::shared().port());
            let node = Arc::new(Node::start(&through(&proxy, &database), locking, 20 * SECOND));
            let (other, on) = (Node::on(&database), counter(""));
            node.draw(&on, 1).await;
            if !guessing {
                other.draw(&on, 1).await;
            }
            let before: u64 = rows_in(&database).parse().expect("a number");
            delay_commits(&database, "0.7");
            let call = {
                let (node, on) = (Arc::clone(&node), on.clone());
                let mut tasks = JoinSet::new();
                tasks.spawn(async move { node.draw(&on, 1).await });
                tasks
            };
            // Long enough for COMMIT to have been sent, not for its answer.
            sleep(Duration::from_millis(500)).await;
            proxy.set(Fault::CutReplies);
            wait_for_rows(&database, &(before + 1).to_string()).await;
            no_delay(&database);
            sleep(Duration::from_millis(100)).await;
            proxy.set(Fault::None);
            let drawn = call.join_all().await.remove(0);
            assert_eq!(drawn.to_string(), (before + 1).to_string());
            assert_eq!(assert_sound(&other, &on).await.len() as u64, before + 1, "drawn once");
        }
    }
}

/// The node is back before the transaction that it has lost has ended: the question waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_under_way_is_waited_for() {
    for guessing in [true, false] {
        let database = Postgres::create_database();
        let proxy = Proxy::to(Postgres::shared().port());
        let node = Arc::new(Node::start(&through(&proxy, &database), StrictLocking::Row, 20 * SECOND));
        let (other, on) = (Node::on(&database), counter(""));
        node.draw(&on, 1).await;
        if !guessing {
            other.draw(&on, 1).await;
        }
        let before = rows_in(&database).parse::<usize>().expect("a number");
        delay_commits(&database, "3");
        let mut call = JoinSet::new();
        {
            let (node, on) = (Arc::clone(&node), on.clone());
            call.spawn(async move { node.draw(&on, 1).await });
        }
        sleep(SECOND / 2).await;
        proxy.set(Fault::Refuse);
        sleep(SECOND / 20).await;
        proxy.set(Fault::None);
        assert_eq!(call.join_all().await.remove(0).to_string(), (before + 1).to_string());
        no_delay(&database);
        assert_eq!(assert_sound(&other, &on).await.len(), before + 1, "drawn once");
    }
}

/// The same, and before the node is back another has written over its signature.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_was_written_over_is_found_out() {
    let database = Postgres::create_database();
    let proxy = Proxy::to(Postgres::shared().port());
    let node = Arc::new(Node::start(&through(&proxy, &database), StrictLocking::Row, 20 * SECOND));
    let (others, on) = ([Node::on(&database), Node::on(&database)], counter(""));
    node.draw(&on, 1).await;
    delay_commits(&database, "0.7");
    let mut call = JoinSet::new();
    {
        let (node, on) = (Arc::clone(&node), on.clone());
        call.spawn(async move { node.draw(&on, 1).await });
    }
    sleep(Duration::from_millis(500)).await;
    proxy.set(Fault::Refuse);
    wait_for_rows(&database, "2").await;
    no_delay(&database);
    for other in &others {
        other.draw(&on, 1).await;
        other.draw(&on, 1).await;
    }
    proxy.set(Fault::None);
    assert_eq!(call.join_all().await.remove(0).to_string(), "2");
    assert_eq!(assert_sound(&others[0], &on).await.len(), 6, "drawn once");
}

/// Connections are cut while they are opened: nobody who has time notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_as_they_open_cost_nobody() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let proxy = Proxy::to(Postgres::shared().port());
        let node = Arc::new(Node::start(&through(&proxy, &database), locking, 60 * SECOND));
        let on = counter("");
        node.draw(&on, 1).await;
        for _ in 0..5 {
            proxy.set(Fault::CutReplies);
            let mut calls = JoinSet::new();
            for _ in 0..4 {
                let (node, on) = (Arc::clone(&node), on.clone());
                calls.spawn(async move { node.rows(&on).await.len() });
            }
            sleep(Duration::from_millis(50)).await;
            proxy.set(Fault::None);
            assert_eq!(calls.join_all().await, [1; 4]);
        }
    }
}

/// Connections are cut again and again under load. Every caller is answered in time, each value has one caller, none is left over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_lose_and_double_nothing() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let proxy = Proxy::to(Postgres::shared().port());
        let node = Arc::new(Node::start(&through(&proxy, &database), locking, 60 * SECOND));
        let on = [counter("2026"), counter("2027"), counter("2028")];
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for task in 0..6_usize {
            let (node, on) = (Arc::clone(&node), on[task % 3].clone());
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tasks.spawn(async move {
                let (mut told, mut round) = (Told::default(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("{task}-{round}");
                    let taken = node.issue(&on, vec![plain(1), keyed(&key, 1)]).await.expect("in time");
                    told.note(&on, None, &taken[0]);
                    told.note(&on, Some(&key), &taken[1]);
                    done.fetch_add(1, Ordering::Relaxed);
                    round += 1;
                }
                told
            });
        }
        for round in 0..6 {
            // Until it is under load again.
            let before = done.load(Ordering::Relaxed);
            let watch = Stopwatch::start();
            while done.load(Ordering::Relaxed) < before + 30 {
                assert!(watch.elapsed() < 30 * SECOND, "nothing is issued");
                sleep(Duration::from_millis(5)).await;
            }
            proxy.set(if round % 2 == 0 { Fault::CutReplies } else { Fault::Refuse });
            sleep(Duration::from_millis(50)).await;
            proxy.set(Fault::None);
        }
        stop.store(true, Ordering::Relaxed);
        let mut told = Told::default();
        while let Some(task) = tasks.join_next().await {
            told.merge(task.expect("no panic"));
        }
        let direct = Node::on(&database);
        let mut ledgers = Vec::new();
        for on in on {
            ledgers.push((on.clone(), assert_sound(&direct, &on).await));
        }
        told.assert_in(&ledgers);
        let rows: usize = ledgers.iter().map(|(_, rows)| rows.len()).sum();
        let answered: usize = told.fresh.values().map(Vec::len).sum::<usize>() + told.of_key.len();
        assert_eq!(rows, answered, "no number without a caller");
    }
}

/// kill -9 of PostgreSQL in the middle of commits, three times. Whoever is not answered asks again with the same key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_database_loses_and_doubles_nothing() {
    for locking in BOTH {
        let mut server = Postgres::start();
        let nodes = [0, 1].map(|_| Arc::new(Node::start(&server.url(), locking, 3 * SECOND)));
        let on = [counter("2026"), counter("2027")];
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for task in 0..8_usize {
            let (node, on) = (Arc::clone(&nodes[task % 2]), on[task / 2 % 2].clone());
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tasks.spawn(async move {
                let (mut told, mut round) = (Told::default(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("{task}-{round}");
                    let mut asked = vec![plain(1), keyed(&key, 2)];
                    let taken = loop {
                        match node.issue(&on, asked).await {
                            Ok(taken) => break taken,
                            Err(StoreError::Timeout { .. } | StoreError::Unavailable { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                        asked = vec![plain(1), keyed(&key, 2)];
                        sleep(Duration::from_millis(20)).await;
                    };
                    told.note(&on, None, &taken[0]);
                    told.note(&on, Some(&key), &taken[1]);
                    done.fetch_add(1, Ordering::Relaxed);
                    round += 1;
                }
                told
            });
        }
        for _ in 0..3 {
            let before = done.load(Ordering::Relaxed);
            let watch = Stopwatch::start();
            while done.load(Ordering::Relaxed) < before + 40 {
                assert!(watch.elapsed() < 60 * SECOND, "nothing is issued");
                sleep(Duration::from_millis(5)).await;
            }
            tokio::task::block_in_place(|| {
                server.kill();
                server.start_again();
            });
        }
        sleep(SECOND).await;
        stop.store(true, Ordering::Relaxed);
        let mut told = Told::default();
        while let Some(task) = tasks.join_next().await {
            told.merge(task.expect("no panic"));
        }
        let mut ledgers = Vec::new();
        for on in on {
            ledgers.push((on.clone(), assert_sound(&nodes[0], &on).await));
        }
        told.assert_in(&ledgers);
    }
}

// ------------------------------------------------------------------------------------------------ the disk

/// The way of a barrier, for who connects from now on: it rests before it writes.
fn slow_barrier(server: &Postgres, seconds: &str) {
    server.psql(&format!(
        "ALTER ROLE numgen SET search_path = public, pg_catalog;
        CREATE OR REPLACE FUNCTION public.pg_logical_emit_message(boolean, text, text) RETURNS pg_lsn LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep({seconds}); RETURN pg_catalog.pg_logical_emit_message($1, $2, $3); END $$;"
    ));
}

fn signal(process: &str, signal: &str) {
    let status = std::process::Command::new("kill").args([signal, process]).status().expect("kill");
    assert!(status.success(), "{signal} {process}");
}

/// As many callers as make it worth while to commit a batch ahead of the disk.
fn crowd() -> Vec<IssueRequest> {
    (0..4).map(|_| plain(1)).collect()
}

/// kill -9 of PostgreSQL between the commit of a batch and its barrier: it takes the batch back, and others are given its values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_takes_back_was_told_to_nobody() {
    for locking in BOTH {
        let mut server = Postgres::start_with(&["wal_writer_delay=10s", "autovacuum=off"]);
        slow_barrier(&server, "0");
        let proxy = Proxy::to(server.port());
        let url = server.url().replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
        let node = Arc::new(Node::start(&url, locking, 60 * SECOND));
        let on = counter("");
        node.draw(&on, 1).await;
        node.issue(&on, crowd()).await.expect("drawn");
        slow_barrier(&server, "30");
        // Nobody else writes the log to disk.
        let writer = server.psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
        signal(&writer, "-STOP");
        let mut call = JoinSet::new();
        {
            let (node, on) = (Arc::clone(&node), on.clone());
            call.spawn(async move { node.issue(&on, crowd()).await });
        }
        let watch = Stopwatch::start();
        while server.psql("SELECT count(*) FROM numgen_ledger") != "9" {
            assert!(watch.elapsed() < 20 * SECOND, "it is not committed");
            sleep(Duration::from_millis(5)).await;
        }
        assert!(call.try_join_next().is_none(), "it was answered before it was durable");
        proxy.set(Fault::Refuse);
        tokio::task::block_in_place(|| {
            server.kill();
            signal(&writer, "-KILL");
            server.start_again();
        });
        assert_eq!(
            server.psql("SELECT count(*) FROM numgen_ledger"),
            "5",
            "nothing was lost: this proves nothing"
        );
        slow_barrier(&server, "0");
        let other = Node::start(&server.url(), locking, 10 * SECOND);
        assert_eq!(other.draw(&on, 1).await.to_string(), "6");
        proxy.set(Fault::None);
        let taken = call.join_all().await.remove(0).expect("drawn again");
        let values: Vec<_> = taken.iter().filter_map(values_of).map(ToString::to_string).collect();
        assert_eq!(values, ["7", "8", "9", "10"]);
        assert_eq!(assert_sound(&other, &on).await.len(), 10);
    }
}

/// A synchronous standby that is not there: what was committed ahead is seen by everybody, and nobody is told of it by any call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_what_is_on_no_standby() {
    let server = Postgres::start();
    // A connection for each call: nobody waits for anything but the standby.
    let start = || Node::start_with(16, &server.url(), StrictLocking::Row, 60 * SECOND);
    let nodes = [0, 1].map(|_| Arc::new(start()));
    let on = counter("");
    for node in &nodes {
        node.draw(&on, 1).await;
    }
    nodes[0].draw(&on, 1).await;
    // Nobody else holds this one.
    nodes[1].draw(&counter("apart"), 1).await;
    server.psql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.psql("SELECT pg_reload_conf()");
    sleep(SECOND / 2).await;
    let mut calls: JoinSet<&str> = JoinSet::new();
    {
        let (node, on) = (Arc::clone(&nodes[0]), on.clone());
        let mut requests = crowd();
        requests.push(keyed("k", 1));
        calls.spawn(async move {
            node.issue(&on, requests).await.expect("drawn");
            "the batch"
        });
    }
    let watch = Stopwatch::start();
    while server.psql("SELECT count(*) FROM numgen_ledger") != "9" {
        assert!(watch.elapsed() < 20 * SECOND, "it is not committed");
        sleep(Duration::from_millis(5)).await;
    }
    macro_rules! call {
        ($what:literal, |$node:ident, $on:ident| $call:expr) => {{
            let ($node, $on) = (Arc::clone(&nodes[1]), on.clone());
            calls.spawn(async move {
                $call.await.expect($what);
                $what
            });
        }};
    }
    let query = || LedgerQuery { period: None, from: None, to: None, state: None, after: None, limit: 100 };
    let claimed = || TakeRequest { count: 1, claim: keyed("k", 1).claim };
    call!("its key again", |node, on| node.issue(&on, vec![keyed("k", 1)]));
    call!("its key elsewhere", |node, on| node.store.take(on.clone(), FREE, vec![claimed()]));
    call!("rows", |node, on| node.store.rows(on.key.clone(), query()));
    call!("certificate", |node, on| node.store.certificate(on.clone()));
    call!("verification", |node, on| node.store.verify(on.clone()));
    call!("counters", |node, on| node.store.counters(&on.key));
    call!("highest", |node, on| node.store.retire(&on.key, 0));
    call!("confirmed", |node, on| {
        node.store.transition(on.key.clone(), "/8".to_owned(), Transition::Confirm, "bob".into(), NOW)
    });
    call!("voided", |node, on| {
        let why = Transition::Void { reason: "spoilt".to_owned() };
        node.store.transition(on.key.clone(), "apart/1".to_owned(), why, "bob".into(), NOW)
    });
    call!("the trail", |node, _on| {
        node.store.page(AuditQuery { key: None, after: None, from: None, to: None, limit: 10 })
    });
    call!("advanced", |node, on| {
        node.store.advance(on.clone(), SequenceValue(0), SequenceValue(8), "bob".into(), NOW)
    });
    sleep(2 * SECOND).await;
    assert_eq!(calls.try_join_next().transpose().expect("no panic"), None, "told before it was on a standby");
    server.psql("ALTER SYSTEM RESET synchronous_standby_names");
    server.psql("SELECT pg_reload_conf()");
    assert_eq!(calls.join_all().await.len(), 12);
    assert_eq!(assert_sound(&nodes[1], &on).await.len(), 8);
}

// ------------------------------------------------------------------------------------------------- limits

/// Somebody holds the row: whoever waits is told so in time, and nothing was drawn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_held_times_out() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let node = Node::start(&database.url(), locking, Duration::from_millis(700));
        let on = counter("");
        let patient = Node::on(&database);
        patient.draw(&on, 1).await;
        let url = database.url();
        let holder = tokio::task::spawn_blocking(move || {
            let sql = "BEGIN; SELECT FROM numgen_ledger_counters FOR UPDATE; SELECT pg_sleep(3); COMMIT";
            std::process::Command::new("psql")
                .args(["-X", "-q", "-d", &url, "-c", sql])
                .output()
                .expect("psql")
        });
        sleep(SECOND).await;
        let watch = Stopwatch::start();
        let late = node.issue(&on, vec![plain(1)]).await;
        assert!(matches!(late, Err(StoreError::Timeout { .. })), "{late:?}");
        assert!(watch.elapsed() < Duration::from_millis(1_500), "{:?}", watch.elapsed());
        holder.await.expect("psql");
        patient.draw(&on, 1).await;
        let rows = assert_sound(&patient, &on).await.len();
        assert_eq!(rows, 2, "nobody's numbers");
    }
}

/// Those who wait for one counter share a transaction, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_share_a_transaction_stand_alone() {
    let database = Postgres::create_database();
    let node = Arc::new(Node::on(&database));
    let (on, apart) = (counter(""), counter("2027"));
    node.draw(&on, 9).await;
    node.draw(&apart, 2).await;
    // Nobody can read this one.
    database.psql(
        "INSERT INTO numgen_ledger (counter, prefix, sequence, number, state, subject, issued_at_ms, hash)
        SELECT counter, prefix, 99999999999999999999, '/bad', state, subject, issued_at_ms, hash
        FROM numgen_ledger WHERE number = '/1'",
    );
    let holder = in_background(
        &database,
        "BEGIN; SELECT FROM numgen_ledger_counters FOR UPDATE; SELECT pg_sleep(2); COMMIT",
    );
    sleep(SECOND / 2).await;
    let mut steps = JoinSet::new();
    let mut ask = |number: &str, step: Transition| {
        let (node, key, number) = (Arc::clone(&node), on.key.clone(), number.to_owned());
        steps.spawn(async move {
            let outcome = node.store.transition(key, number.clone(), step, "bob".into(), NOW).await;
            (number, outcome)
        });
    };
    let void = || Transition::Void { reason: "spoilt".to_owned() };
    ask("/9", Transition::Confirm);
    for value in 1..=8 {
        ask(&format!("/{value}"), void());
    }
    ask("/1", void());
    ask("2027/1", void());
    ask("/10", void());
    ask("/bad", void());
    let mut gone = JoinSet::new();
    let (visitor, key, step) = (Arc::clone(&node), on.key.clone(), void());
    gone.spawn(
        async move { visitor.store.transition(key, "2027/2".to_owned(), step, "bob".into(), NOW).await },
    );
    sleep(SECOND / 2).await;
    drop(gone);
    let queue = database.psql(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
    );
    assert_eq!(queue, "1", "transactions that wait for the counter");
    holder.await.expect("psql");
    let outcomes = steps.join_all().await;
    assert_eq!(outcomes.len(), 13);
    for (number, outcome) in outcomes {
        match (&*number, outcome) {
            ("/10", Ok(Transitioned::Unknown)) | ("/bad", Err(StoreError::Corrupt { .. })) => {}
            ("/9", Ok(Transitioned::Done(row))) => assert_eq!(row.state, LedgerState::Issued),
            (_, Ok(Transitioned::Done(row))) => {
                assert_eq!((row.state, &row.number), (LedgerState::Void, &number));
            }
            (_, outcome) => panic!("{number}: {outcome:?}"),
        }
    }
    database.psql(
        "ALTER TABLE numgen_ledger DISABLE TRIGGER numgen_ledger_rows_stay;
        DELETE FROM numgen_ledger WHERE number = '/bad'",
    );
    for on in [on, apart] {
        assert_sound(&node, &on).await;
    }
    let events = database.psql("SELECT count(*), count(DISTINCT sequence) FROM numgen_ledger_events");
    assert_eq!(
        events, "9|8",
        "nine rows once, two of them the first of their counter; nothing for who has gone"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_row_says_cannot_be_edited() {
    let database = Postgres::create_database();
    let (node, on) = (Node::on(&database), counter(""));
    node.draw(&on, 2).await;
    let void = Transition::Void { reason: "lost".to_owned() };
    let voided = node.store.transition(on.key.clone(), "/1".to_owned(), void, "bob".into(), NOW).await;
    assert!(matches!(voided, Ok(Transitioned::Done(_))), "{voided:?}");
    for sql in [
        "UPDATE numgen_ledger SET number = 'x' WHERE sequence = 1",
        "UPDATE numgen_ledger SET idempotency_key = 'x' WHERE sequence = 1",
        "UPDATE numgen_ledger SET state = 'issued' WHERE sequence = 1",
        "UPDATE numgen_ledger SET state = 'reserved' WHERE sequence = 2",
        "DELETE FROM numgen_ledger WHERE sequence = 2",
        "TRUNCATE numgen_ledger",
        "UPDATE numgen_ledger_events SET actor = 'x'",
        "DELETE FROM numgen_ledger_events",
    ] {
        let tried = format!(
            "DO $do$ BEGIN EXECUTE $sql${sql}$sql$; EXCEPTION WHEN integrity_constraint_violation THEN RETURN; END $do$;
            SELECT count(*) FROM numgen_ledger WHERE number = 'x' OR idempotency_key = 'x'"
        );
        assert_eq!(database.psql(&tried), "0", "{sql}");
    }
    assert_eq!(assert_sound(&node, &on).await.len(), 2);
    // Past the triggers it shows.
    database.psql(
        "ALTER TABLE numgen_ledger DISABLE TRIGGER ALL; UPDATE numgen_ledger SET subject = 'mallory' WHERE sequence = 1;
        ALTER TABLE numgen_ledger ENABLE TRIGGER ALL",
    );
    let verification = node.store.verify(on.clone()).await.expect("read");
    assert_eq!(verification.faults.len(), 1, "{verification:?}");
    database
        .psql("ALTER TABLE numgen_ledger DISABLE TRIGGER ALL; DELETE FROM numgen_ledger WHERE sequence = 1");
    let certificate = node.store.certificate(on.clone()).await.expect("read").expect("rows");
    assert_eq!(certificate.holes, [(SequenceValue(1), SequenceValue(1))]);
}

/// Whole batches of several counters, of which one has moved: the others are written all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_that_share_a_statement_stand_alone() {
    let database = Postgres::create_database();
    let (node, other) = (Arc::new(Node::on(&database)), Node::on(&database));
    let counters: Vec<_> = (0..40).map(|index| counter(&format!("{index}"))).collect();
    for round in 0..3_u64 {
        let mut tasks = JoinSet::new();
        for on in counters.clone() {
            let node = Arc::clone(&node);
            tasks.spawn(async move { node.draw(&on, 3).await });
        }
        tasks.join_all().await;
        for on in counters.iter().step_by(5) {
            other.draw(on, 1).await;
        }
        let rows = assert_sound(&node, &counters[1]).await.len() as u64;
        assert_eq!(rows, (round + 1) * 3);
    }
    for on in &counters {
        assert_sound(&other, on).await;
    }
}

// ------------------------------------------------------------------------------------------------ figures

/// `PG_URL=postgres://.. cargo test --test it ledger_postgres::figures -- --ignored --nocapture`: numbers a second on one hot counter
/// and on many, by callers who each ask again as soon as they are answered; batches as the combiner makes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn figures() {
    let database = Postgres::create_database();
    let url = std::env::var("PG_URL").unwrap_or_else(|_| database.url());
    for (locking, lanes, callers) in [
        (StrictLocking::Row, 1_usize, 64_usize),
        (StrictLocking::Optimistic, 1, 64),
        (StrictLocking::Row, 1_000, 64),
        (StrictLocking::Row, 1, 512),
    ] {
        let node = Arc::new(Node::start(&url, locking, 10 * SECOND));
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let waits = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let mut senders = Vec::new();
        for lane in 0..lanes {
            let (sender, mut receiver) =
                tokio::sync::mpsc::unbounded_channel::<tokio::sync::oneshot::Sender<()>>();
            senders.push(sender);
            let node = Arc::clone(&node);
            let on = counter(&format!("{locking:?}-{lanes}-{callers}-{lane}-{}", std::process::id()));
            tasks.spawn(async move {
                let mut waiting = Vec::new();
                while receiver.recv_many(&mut waiting, 256).await > 0 {
                    tokio::task::yield_now().await;
                    while let Ok(more) = receiver.try_recv() {
                        waiting.push(more);
                    }
                    let requests = waiting.iter().map(|_| plain(1)).collect();
                    node.issue(&on, requests).await.expect("drawn");
                    for caller in waiting.drain(..) {
                        let _ = caller.send(());
                    }
                }
            });
        }
        for caller in 0..callers {
            let (senders, stop, done, waits) =
                (senders.clone(), Arc::clone(&stop), Arc::clone(&done), Arc::clone(&waits));
            tasks.spawn(async move {
                let (mut round, mut own) = (caller * 7_919, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let (answer, answered) = tokio::sync::oneshot::channel();
                    let watch = Stopwatch::start();
                    senders[round % senders.len()].send(answer).expect("a lane");
                    answered.await.expect("answered");
                    own.push(watch.elapsed());
                    done.fetch_add(1, Ordering::Relaxed);
                    round += 104_729;
                }
                waits.lock().expect("no panic").extend(own);
            });
        }
        drop(senders);
        sleep(2 * SECOND).await;
        let (watch, before) = (Stopwatch::start(), done.load(Ordering::Relaxed));
        sleep(4 * SECOND).await;
        let rate = (done.load(Ordering::Relaxed) - before) as f64 / watch.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        tasks.join_all().await;
        let mut waits = std::mem::take(&mut *waits.lock().expect("no panic"));
        waits.sort_unstable();
        let at = |share: f64| waits[(waits.len() as f64 * share) as usize];
        println!(
            "{locking:?}, {lanes} counters, {callers} callers: {rate:.0}/s, p50 {:?}, p99 {:?}",
            at(0.5),
            at(0.99)
        );
    }
}
