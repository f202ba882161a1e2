//! The connection to PostgreSQL, its schema, and what it must keep.

use std::{sync::Arc, time::Duration};

use numgen::{
    clock::{SystemClock, UnixMillis},
    config::StrictLocking,
    counter::{Ranges, SequenceValue, ValueRange},
    lifecycle::Lifecycle,
    secret::Secret,
    store::{
        Claim, IdempotencyStore, Reachable, Taken,
        postgres::{PostgresStore, Settings},
    },
    telemetry::Metrics,
};

use crate::harness::Postgres;

const SECOND: Duration = Duration::from_secs(1);

fn connect(url: &str, lifecycle: &Lifecycle) -> PostgresStore {
    let settings = Settings {
        clock: Arc::new(SystemClock::new()),
        timeout: 5 * SECOND,
        locking: StrictLocking::Row,
        pool_size: 4,
        ca_file: None,
    };
    PostgresStore::connect(&Secret::new(url.to_owned()), settings, &Metrics::new(), lifecycle)
        .expect("a good URL")
}

async fn wait_until_reachable(store: &PostgresStore) {
    let mut reachable = store.reachable();
    let said = tokio::time::timeout(30 * SECOND, reachable.wait_for(|state| *state == Reachable::Yes)).await;
    if said.is_err() {
        panic!("{:?}", store.reachable().borrow());
    }
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
    wait_until_reachable(&store).await;
    assert_eq!(
        database.psql("SELECT version, name FROM numgen_schema ORDER BY version LIMIT 1"),
        "1|0001_base"
    );
    lifecycle.drain();
    assert_eq!(lifecycle.finished(5 * SECOND).await, 0);
}
