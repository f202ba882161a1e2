//! A new worker window does not count before a replica has it, where there is one: `WAIT` goes to the server that wrote, over the
//! connection that wrote.

use std::{sync::Arc, time::Duration};

use numgen::{
    clock::{SystemClock, UnixMillis},
    lifecycle::Lifecycle,
    secret::Secret,
    store::{
        AcquireRequest, Acquired, Nonce, Tenure, WorkerStore,
        redis::{
            RedisStore, Settings,
            client::{Client, Options},
        },
    },
    telemetry::Metrics,
};

use crate::harness::{RedisCluster, Stopwatch};

const EPOCH: UnixMillis = UnixMillis(1_704_067_200_000);
/// How long the service waits for a replica.
const WAIT: Duration = Duration::from_millis(200);

/// How often a server was told to `WAIT`.
fn waits(cluster: &mut RedisCluster, node: usize) -> u64 {
    let said = cluster.node(node).info("commandstats", "cmdstat_wait");
    let calls = said.strip_prefix("calls=").and_then(|rest| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_in_a_cluster_is_confirmed_where_it_was_written() {
    let (mut cluster, lifecycle) = (RedisCluster::start(), Lifecycle::new());
    let (clock, timeout) = (Arc::new(SystemClock::new()), Duration::from_secs(20));
    let options = Options { ca_file: None, timeout, clock, metrics: Metrics::new() };
    let client = Client::connect(&Secret::new(cluster.url()), options, &lifecycle).await.expect("a client");
    let store = RedisStore::new(client.clone(), Settings { epoch: EPOCH, timeout });
    let mut expected = [0; 6];
    // One data centre whose slots lie on each of the masters, as if there were so many.
    let mut masters = Vec::new();
    for datacenter in 0.. {
        let slots = format!("numgen:worker:{{worker:{datacenter}}}:slot:");
        let master = cluster.master_of(&slots);
        if masters.contains(&master) {
            continue;
        }
        masters.push(master);
        settle(&cluster, &client.marker_key(&slots));
        let replica = cluster.replica_of(master);
        cluster.node(replica).pause();
        let request = AcquireRequest {
            nonce: Nonce([7; 16]),
            slots: 0..2,
            window_ms: 30_000,
            ttl_ms: 15_000,
            tenure: Tenure::Lease,
        };
        let watch = Stopwatch::start();
        let workers = store.workers(datacenter);
        let answer = workers.acquire(request.clone()).await.expect("answered");
        let waited = watch.elapsed();
        // The server has given the slot away, and may have been left behind: so may have its replica, to somebody else.
        assert!(matches!(answer, Acquired::Wait(_)), "{answer:?}");
        // A server that wrote nothing over this connection, or whose replica is awake, answers at once.
        assert!(waited >= WAIT, "data centre {datacenter}: answered after {waited:?}");
        cluster.node(replica).resume();
        expected[master] += 1;
        loop {
            let answer = workers.acquire(request.clone()).await.expect("answered");
            expected[master] += 1;
            match answer {
                Acquired::Held(holding) => break assert_eq!(holding.fence, 1, "the same holding"),
                Acquired::Wait(_) | Acquired::NoSlot => {
                    watch.assert_within(Duration::from_secs(20), "waiting for a slot");
                }
            }
        }
        let asked: Vec<u64> = (0..6).map(|node| waits(&mut cluster, node)).collect();
        assert_eq!(asked, expected, "data centre {datacenter}");
        if masters.len() == 3 {
            break;
        }
    }
    lifecycle.drain();
}

/// A marker that has settled, once the client has written it.
fn settle(cluster: &RedisCluster, marker: &str) {
    let mut generation = String::new();
    Stopwatch::wait_until(Duration::from_secs(20), "the marker is written", || {
        generation = cluster.cli(&["HGET", marker, "generation"]);
        !generation.is_empty()
    });
    cluster.cli(&["HSET", marker, "settled", &generation]);
}
