//! The strict ledger on PostgreSQL when something breaks, and when several nodes draw on it: no gap, no value twice, every answered
//! number in the ledger once, both chains whole.

mod answers;
mod disk;
mod figures;
mod nodes;
mod rows;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
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
        Bounds, Claim, IssueRequest, LedgerQuery, LedgerRow, LedgerState, LedgerStep, LedgerStore as _,
        RenderNumber, StoreError, Taken, Transition,
        postgres::{PostgresStore, Settings},
    },
    telemetry::Metrics,
};
use tokio::time::sleep;

use crate::harness::{Database, Postgres, Proxy, Stopwatch};

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

fn step(number: &str, transition: Transition) -> LedgerStep {
    LedgerStep { number: number.to_owned(), transition, actor: "bob".into(), at: NOW, note: None }
}

fn void() -> Transition {
    Transition::Void { reason: "spoilt".to_owned() }
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
        watch.assert_within(20 * SECOND, &format!("waiting for {count} rows"));
        sleep(Duration::from_millis(20)).await;
    }
}
