//! The connection to PostgreSQL, its schema, and what it must keep.

use std::{sync::Arc, time::Duration};

use numgen::{
    clock::{SystemClock, UnixMillis},
    config::StrictLocking,
    counter::{Ranges, SequenceValue, ValueRange},
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    secret::Secret,
    store::{
        Claim, IdempotencyStore, Lineage, Reachable, RuleMark, RuleRecord, RuleStore, SharedRules,
        StoreError, Swap, Taken, TemporaryNumber, TemporaryStore,
        postgres::{PostgresStore, Settings},
    },
    telemetry::Metrics,
};

use crate::harness::{Postgres, Stopwatch, wait_reachable};

const SECOND: Duration = Duration::from_secs(1);

fn connect(url: &str, lifecycle: &Lifecycle) -> PostgresStore {
    connect_with(url, 20_000, 4, lifecycle)
}

fn connect_with(url: &str, timeout_ms: u64, pool_size: u32, lifecycle: &Lifecycle) -> PostgresStore {
    let settings = Settings {
        clock: Arc::new(SystemClock::new()),
        timeout: Duration::from_millis(timeout_ms),
        locking: StrictLocking::Row,
        pool_size,
        node: None,
        ca_file: None,
    };
    PostgresStore::connect(&Secret::new(url.to_owned()), settings, &Metrics::new(), lifecycle)
        .expect("a good URL")
}

fn claim(key: &str) -> Claim {
    Claim {
        scoped_key: key.into(),
        fingerprint: [7; 32],
        stamp: "stamp".into(),
        claimed_at: UnixMillis(1),
        expires_at: UnixMillis(60_000),
    }
}

fn values(from: u64, to: u64) -> Ranges {
    ValueRange { from: SequenceValue(from), to: SequenceValue(to) }.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_database_is_brought_to_the_schema_and_takes_a_transaction() {
    let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
    let store = connect(&database.url(), &lifecycle);
    // Not waiting for anything: a call waits by itself.
    let taken = store.remember(claim("k"), values(1, 3)).await.expect("written");
    assert_eq!(taken, Taken::Fresh(values(1, 3)));
    let again = store.remember(claim("k"), values(4, 6)).await.expect("read");
    assert!(matches!(again, Taken::Replayed(recorded) if recorded.values == values(1, 3)));
    wait_reachable(store.reachable(), true).await;
    store.first_look(SECOND).await.expect("fit");
    assert_eq!(database.psql("SELECT name FROM numgen_schema ORDER BY version LIMIT 1"), "0001_base");
    lifecycle.drain();
    assert_eq!(lifecycle.finished(5 * SECOND).await, 0);
    let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'numgen' AND datname = current_database()";
    Stopwatch::wait_until(5 * SECOND, "connections end", || database.psql(left) == "0");
}

/// Steps of a schema: who takes them, and what is refused.
mod schema {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn five_nodes_start_at_once_on_an_empty_database() {
        let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
        let stores: Vec<_> = (0..5).map(|_| connect(&database.url(), &lifecycle)).collect();
        for store in &stores {
            wait_reachable(store.reachable(), true).await;
        }
        let steps =
            database.psql("SELECT count(*), count(DISTINCT version), max(version) FROM numgen_schema");
        let steps: Vec<&str> = steps.split('|').collect();
        assert!(steps[0] == steps[1] && steps[1] == steps[2] && steps[0] != "0", "{steps:?}");
        for (at, store) in stores.iter().enumerate() {
            let taken = store.remember(claim("k"), values(1, 1)).await.expect("answered");
            assert_eq!(matches!(taken, Taken::Fresh(_)), at == 0, "one database: {taken:?}");
        }
        lifecycle.drain();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_newer_schema_is_tolerated_and_a_changed_step_is_refused() {
        let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
        wait_reachable(connect(&database.url(), &lifecycle).reachable(), true).await;
        database.psql("INSERT INTO numgen_schema (version, name, digest) VALUES (9999, '9999_later', 'x')");
        let store = connect(&database.url(), &lifecycle);
        wait_reachable(store.reachable(), true).await;
        store.remember(claim("k"), values(1, 1)).await.expect("a rolling upgrade goes on");

        database.psql("UPDATE numgen_schema SET digest = 'y' WHERE version = 1");
        let store = connect(&database.url(), &lifecycle);
        let refused = store.first_look(20 * SECOND).await.expect_err("refused").to_string();
        assert!(refused.contains("step 1 (0001_base)") && refused.contains("differs"), "{refused}");
        let error = store.remember(claim("l"), values(1, 1)).await.expect_err("not served");
        assert!(
            matches!(&error, StoreError::Unavailable { source, .. } if source.to_string() == refused),
            "{error:?}"
        );
        lifecycle.drain();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_ordinary_role_that_owns_its_database_is_enough() {
        let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
        let role = format!("app_{}", database.name());
        database
            .psql(&format!("CREATE ROLE {role} LOGIN; ALTER DATABASE {} OWNER TO {role}", database.name()));
        let url = database.url().replace("numgen@", &format!("{role}@"));
        let store = connect(&url, &lifecycle);
        store.remember(claim("k"), values(1, 1)).await.expect("written");
        store.upload(Vec::new()).await.expect("the memory is observed");
        lifecycle.drain();
        lifecycle.finished(5 * SECOND).await;
        database.psql(&format!("ALTER DATABASE {} OWNER TO numgen; REASSIGN OWNED BY {role} TO numgen; DROP OWNED BY {role}; DROP ROLE {role}", database.name()));
    }
}

/// What a server must not be.
mod fitness {
    use super::*;

    async fn refusal(setting: &str) -> String {
        let (server, lifecycle) = (Postgres::start_with(&[setting]), Lifecycle::new());
        let store = connect(&server.url(), &lifecycle);
        let refused = store.first_look(30 * SECOND).await.expect_err("refused").to_string();
        let error = store.remember(claim("k"), values(1, 1)).await.expect_err("not served");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        lifecycle.drain();
        refused
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_forgets_is_refused_by_name() {
        let said = refusal("fsync=off").await;
        assert!(said.contains("fsync is off"), "{said}");
        let said = refusal("synchronous_commit=off").await;
        assert!(said.contains("synchronous_commit is off"), "{said}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_set_for_the_role_counts_and_can_be_mended_while_it_runs() {
        let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
        let set = |value| format!("ALTER DATABASE {} SET synchronous_commit = {value}", database.name());
        database.psql(&set("off"));
        let store = connect(&database.url(), &lifecycle);
        let said = store.first_look(30 * SECOND).await.expect_err("refused").to_string();
        assert!(said.contains("synchronous_commit is off") && said.contains(database.name()), "{said}");
        database.psql(&set("on"));
        store.remember(claim("k"), values(1, 1)).await.expect("nobody is needed");
        lifecycle.drain();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_only_reads_is_away_until_it_writes() {
        let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
        let set =
            |value| format!("ALTER DATABASE {} SET default_transaction_read_only = {value}", database.name());
        database.psql(&set("on"));
        let store = connect(&database.url(), &lifecycle);
        store.first_look(30 * SECOND).await.expect("a standby may be promoted");
        assert!(
            matches!(&*store.reachable().borrow(), Reachable::No { reason, .. } if reason.contains("only reads"))
        );
        database.psql(&format!("SET transaction_read_only = off; {}", set("off")));
        store.remember(claim("k"), values(1, 1)).await.expect("promoted");
        lifecycle.drain();
    }
}

/// What a caller is told while the server is away, stands still, or is busy.
mod outage {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_is_away_at_the_start_is_found_later() {
        let (mut server, lifecycle) = (Postgres::start(), Lifecycle::new());
        server.kill();
        let store = connect_with(&server.url(), 300, 4, &lifecycle);
        store.first_look(5 * SECOND).await.expect("no reason not to start");
        let error = store.remember(claim("k"), values(1, 1)).await.expect_err("away");
        assert!(
            matches!(&error, StoreError::Unavailable { source, .. } if source.to_string().contains("cannot be reached")),
            "{error:?}"
        );
        server.start_again();
        wait_reachable(store.reachable(), true).await;
        store.remember(claim("k"), values(1, 1)).await.expect("back");
        lifecycle.drain();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_crash_loses_nothing_and_calls_go_on_by_themselves() {
        let (mut server, lifecycle) = (Postgres::start(), Lifecycle::new());
        let store = connect_with(&server.url(), 10_000, 4, &lifecycle);
        wait_reachable(store.reachable(), true).await;
        for round in 0..4_u64 {
            let key = |at: u64| format!("{round}-{at}");
            for at in 0..8 {
                store.remember(claim(&key(at)), values(at + 1, at + 1)).await.expect("written");
            }
            if round % 2 == 0 {
                server.kill();
                server.start_again();
            } else {
                server.restart();
            }
            // Every connection of the pool is dead, and nobody was told.
            for at in 0..8 {
                let again =
                    store.remember(claim(&key(at)), values(99, 99)).await.expect("within the deadline");
                assert!(
                    matches!(again, Taken::Replayed(recorded) if recorded.values == values(at + 1, at + 1))
                );
            }
        }
        lifecycle.drain();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_stands_still_costs_the_deadline_and_no_more() {
        let (server, lifecycle) = (Postgres::start(), Lifecycle::new());
        let store = connect_with(&server.url(), 500, 4, &lifecycle);
        wait_reachable(store.reachable(), true).await;
        store.remember(claim("k"), values(1, 1)).await.expect("written");
        server.pause();
        let watch = Stopwatch::start();
        let error = store.remember(claim("l"), values(2, 2)).await.expect_err("no answer");
        assert!(matches!(error, StoreError::Timeout { .. }), "{error:?}");
        watch.assert_within(2 * SECOND, "a deadline of half a second");
        let watch = Stopwatch::start();
        wait_reachable(store.reachable(), false).await;
        watch.assert_within(10 * SECOND, "noticing");
        server.resume();
        wait_reachable(store.reachable(), true).await;
        store.remember(claim("l"), values(2, 2)).await.expect("the same again, whatever became of it");
        lifecycle.drain();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_locked_row_and_an_exhausted_pool_are_timeouts() {
        let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
        let store = connect_with(&database.url(), 500, 2, &lifecycle);
        wait_reachable(store.reachable(), true).await;
        let rule = |key: &str| RuleRecord {
            key: PrefixKey::parse(key).expect("a key"),
            revision: 1,
            rule: Some("{}".to_owned()),
            history: "[]".to_owned(),
            used: false,
        };
        tokio::time::sleep(6 * SECOND).await; // settled
        assert_eq!(store.swap_rule(None, rule("A")).await.expect("free"), Swap::Done);
        let locker = database.transact_slowly("SELECT FROM numgen_memory FOR UPDATE", 2 * SECOND, "");
        let swaps = ["B", "C", "D", "E"].map(|key| store.swap_rule(None, rule(key)));
        let watch = Stopwatch::start();
        for outcome in futures_util::future::join_all(swaps).await {
            assert!(matches!(outcome, Err(StoreError::Timeout { .. })), "{outcome:?}");
        }
        watch.assert_within(2 * SECOND, "a deadline of half a second");
        locker.join().expect("a lock");
        assert_eq!(store.swap_rule(None, rule("B")).await.expect("free again"), Swap::Done);
        lifecycle.drain();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_caller_that_goes_away_leaves_no_transaction_behind() {
        let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
        let store = connect_with(&database.url(), 5_000, 2, &lifecycle);
        wait_reachable(store.reachable(), true).await;
        for round in 0..30_u64 {
            let key = format!("k{round}");
            let call = store.remember(claim(&key), values(1, 1));
            // Somewhere in the middle.
            let _ = tokio::time::timeout(Duration::from_micros(150 * round), call).await;
        }
        for round in 0..30_u64 {
            store.remember(claim(&format!("k{round}")), values(1, 1)).await.expect("no lock, a connection");
        }
        lifecycle.drain();
    }
}

/// Whether a database may have forgotten something.
mod memory {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_restart_is_the_same_memory_and_tables_made_anew_are_another() {
        let (mut server, lifecycle) = (Postgres::start(), Lifecycle::new());
        let store = connect(&server.url(), &lifecycle);
        let first = store.upload(Vec::new()).await.expect("kept");
        server.restart();
        assert_eq!(store.upload(Vec::new()).await.expect("kept"), first, "nothing was forgotten");
        let generation = server.psql("SELECT generation FROM numgen_memory");
        // A dump that is read in again holds the generation, too.
        server.psql(
            "CREATE TABLE dump (LIKE numgen_memory INCLUDING ALL); INSERT INTO dump TABLE numgen_memory;
             DROP TABLE numgen_memory; ALTER TABLE dump RENAME TO numgen_memory",
        );
        assert_eq!(server.psql("SELECT generation FROM numgen_memory"), generation);
        assert_ne!(store.upload(Vec::new()).await.expect("kept"), first, "noticed");
        // Nobody decides on a temporary number before all had the time to tell what was decided.
        let number = TemporaryNumber::parse("TMP~ORDERS~n~0388D8BVC0003028T5").expect("a number");
        let early = store.find(number).await;
        assert!(matches!(early, Err(StoreError::Unavailable { .. })), "{early:?}");
        lifecycle.drain();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_are_called() {
    let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
    let (here, there) = (connect(&database.url(), &lifecycle), connect(&database.url(), &lifecycle));
    wait_reachable(here.reachable(), true).await;
    wait_reachable(there.reachable(), true).await;
    let news = there.follow(RuleMark::default()).await.expect("followed");
    assert_eq!((news.lineage, news.records.len()), (Lineage::New, 0));
    let called = there.called();
    let record = RuleRecord {
        key: PrefixKey::parse("A").expect("a key"),
        revision: 1,
        rule: Some("{}".to_owned()),
        history: "[]".to_owned(),
        used: false,
    };
    here.swap_rule(None, record.clone())
        .await
        .map(drop)
        .or_else(|error| match error {
            // The memory settles.
            StoreError::Timeout { .. } => Ok(()),
            StoreError::Unavailable { .. }
            | StoreError::Superseded { .. }
            | StoreError::Suspended { .. }
            | StoreError::Corrupt { .. } => Err(error),
        })
        .expect("written");
    tokio::time::timeout(20 * SECOND, called).await.expect("called");
    let news = there.follow(news.mark).await.expect("followed");
    assert_eq!((news.lineage, news.records), (Lineage::Same, vec![record]));
    let nothing = there.follow(news.mark.clone()).await.expect("followed");
    assert_eq!((nothing.records.len(), nothing.mark), (0, news.mark));
    lifecycle.drain();
}

/// One current-thread runtime for each core calls; a connection that was opened on one that has ended is replaced.
#[test]
fn calls_come_from_any_runtime() {
    let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
    let main =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let store = main.block_on(async { connect(&database.url(), &lifecycle) });
    for round in 0..3 {
        let callers: Vec<_> = (0..3)
            .map(|caller| {
                let store = store.clone();
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime");
                    runtime.block_on(async {
                        let keys: Vec<String> = (0..30).map(|at| format!("{round}-{caller}-{at}")).collect();
                        let calls = keys.iter().map(|key| store.remember(claim(key), values(1, 1)));
                        for outcome in futures_util::future::join_all(calls).await {
                            assert_eq!(outcome.expect("answered"), Taken::Fresh(values(1, 1)));
                        }
                    });
                })
            })
            .collect();
        for caller in callers {
            caller.join().expect("no panic");
        }
    }
    assert_eq!(database.psql("SELECT count(*) FROM numgen_idempotency"), "270");
    lifecycle.drain();
    assert_eq!(main.block_on(lifecycle.finished(5 * SECOND)), 0);
}
