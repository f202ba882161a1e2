//! Grants on a PostgreSQL, call by call: what a whole service meets in one of many starts.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use numgen::{
    calendar::Period,
    clock::SystemClock,
    config::StrictLocking,
    counter::{Counter, SequenceValue, ValueRange},
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    secret::Secret,
    store::{
        Home,
        counters::GrantLink,
        postgres::{
            PostgresStore, Settings,
            grants::{Grants, Site},
        },
        protocol::{
            counter::{Generation, Limits},
            grant::{Granted, Need},
        },
    },
    telemetry::Metrics,
};
use tokio::sync::watch;

use crate::harness::{Database, Postgres, Stopwatch, wait_reachable};

const DEADLINE: Duration = Duration::from_secs(20);
const COUNTERS: usize = 40;
const IN_FORCE: &str =
    "SELECT generation FROM numgen_redis_generations WHERE NOT is_over ORDER BY generation";

/// One node of data centre 1.
struct Node {
    grants: Grants,
    lifecycle: Lifecycle,
}

impl Node {
    async fn start(database: &Database) -> Self {
        let lifecycle = Lifecycle::new();
        let settings = Settings {
            clock: Arc::new(SystemClock::new()),
            timeout: DEADLINE,
            locking: StrictLocking::Row,
            pool_size: 8,
            node: None,
            ca_file: None,
        };
        let url = Secret::new(database.url());
        let store = PostgresStore::connect(&url, settings, &Metrics::new(), &lifecycle).expect("a good URL");
        wait_reachable(store.reachable(), true).await;
        let site = Site { datacenter: 1, datacenters: 1 };
        Self { grants: Grants::new(store, site, watch::channel(Home::Own).1), lifecycle }
    }

    async fn fetch(&self, counter: usize, generation: u64) -> Granted {
        let counter = Counter { key: key(counter), period: Period::new("") };
        let zero = SequenceValue(0);
        let need = Need {
            generation: Generation(generation),
            after: None,
            cursor: zero,
            known: zero,
            seen: zero,
            limits: Limits { base: zero, floor: zero, max: SequenceValue::MAX, scheme: 0 },
            size: 1_000,
            count: 1,
        };
        self.grants.fetch(&counter, "marker", &need, DEADLINE).await.expect("an answer")
    }
}

fn key(counter: usize) -> PrefixKey {
    PrefixKey::parse(&format!("K{counter}")).expect("a prefix key")
}

impl Drop for Node {
    fn drop(&mut self) {
        self.lifecycle.drain();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_is_not_ended_by_its_own_first_fetches() {
    let database = Postgres::create_database();
    let nodes = [Node::start(&database).await, Node::start(&database).await];
    for generation in 1..=8 {
        let fetches = (0..COUNTERS).map(|counter| nodes[counter % 2].fetch(counter, generation));
        for granted in join_all(fetches).await {
            assert!(matches!(granted, Granted::Grants(_)), "generation {generation}: {granted:?}");
        }
        assert_eq!(database.psql(IN_FORCE), generation.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_generations_that_are_new_at_once_one_is_in_force() {
    let database = Postgres::create_database();
    let node = Node::start(&database).await;
    for round in 1..=8 {
        let fetches = (0..COUNTERS).map(|counter| node.fetch(counter, 100 * round + counter as u64 % 4));
        join_all(fetches).await;
        assert_eq!(database.psql(IN_FORCE).lines().count(), 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_version_has_ended_by_itself_is_in_force_again() {
    let database = Postgres::create_database();
    drop(Node::start(&database).await);
    database.psql(
        "INSERT INTO numgen_redis_generations (datacenter, marker, generation, is_over, since_ms) VALUES
             (1, 'marker', 3, true, 10), (1, 'marker', 1, true, 20), (1, 'other', 5, true, 30),
             (2, 'marker', 6, true, 30), (2, 'marker', 7, false, 20);
         DELETE FROM numgen_schema WHERE version = 9",
    );
    let node = Node::start(&database).await;
    assert_eq!(database.psql(IN_FORCE), "1\n5\n7", "the last one of each, where there was none");
    assert!(matches!(node.fetch(0, 1).await, Granted::Grants(_)));
    assert_eq!(node.fetch(0, 3).await, Granted::Over, "followed by another one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_generation_has_left_is_listed_since_the_next_was_granted_something() {
    let database = Postgres::create_database();
    let node = Node::start(&database).await;
    for generation in 1..=2 {
        assert!(matches!(node.fetch(0, generation).await, Granted::Grants(_)));
    }
    database.psql("UPDATE numgen_grants SET since_ms = id");
    let lots = node.grants.lots(&key(0), DEADLINE).await.expect("an answer");
    let thousand = ValueRange { from: SequenceValue(1), to: SequenceValue(1_000) };
    assert_eq!(lots.iter().map(|lot| &*lot.left).collect::<Vec<_>>(), [[(thousand, 2)]]);
}

/// The page of a counter is asked for while it has thousands of grants. Rows that were read tell what that costs, on whatever machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_generations_have_left_is_listed_without_reading_all_that_follows_each() {
    const READ: &str =
        "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables WHERE relname = 'numgen_grants'";
    const GRANTS: u64 = 3_000;
    let database = Postgres::create_database();
    let node = Node::start(&database).await;
    assert!(matches!(node.fetch(0, 1).await, Granted::Grants(_)));
    database.psql(&format!(
        "INSERT INTO numgen_grants (prefix_key, period, id, datacenter, generation, follows, first, last, state,
             remainder_from, since_ms)
         SELECT 'K0', '', id, 1, id, 0, id * 1000 + 1, id * 1000 + 1000, 'closed', id * 1000 + 1, id
             FROM generate_series(2, {GRANTS}) AS id;
         ANALYZE numgen_grants"
    ));
    let read = || database.psql(READ).parse::<u64>().expect("a count");
    let (before, mut lists) = (read(), 0);
    // PostgreSQL counts what a connection has read about once a second.
    let limit = Stopwatch::start();
    while read() == before {
        let lots = node.grants.lots(&key(0), DEADLINE).await.expect("an answer");
        lists += 1;
        assert!(lots.iter().all(|lot| lot.left.iter().all(|&(range, since)| {
            let id = range.from.0 / 1_000;
            since == (id + 1).min(GRANTS)
        })));
        limit.assert_within(DEADLINE, "the statistics");
    }
    let each = (read() - before) / lists;
    assert!(each < 20 * GRANTS, "{each} rows for a list of {GRANTS}");
}
