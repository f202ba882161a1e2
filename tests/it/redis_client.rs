//! The client of Redis against real servers: scripts, deadlines, outages, failover, redirection.

use std::{path::PathBuf, sync::Arc, time::Duration};

use numgen::{
    clock::SystemClock,
    lifecycle::Lifecycle,
    secret::Secret,
    store::{
        StoreError,
        redis::client::{Arg, Client, Durability, Options, Reachable, Script},
    },
    telemetry::Metrics,
};

use crate::harness::{
    Authority, Data, Fault, Proxy, Redis, RedisCluster, Sentinels, Site, Stopwatch, free_address,
    wait_reachable,
};

static ECHO: Script = Script::new("echo", "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}");

async fn client(url: &str, lifecycle: &Lifecycle) -> Client {
    client_with(url, lifecycle, None, Metrics::new()).await
}

async fn client_with(url: &str, lifecycle: &Lifecycle, ca_file: Option<PathBuf>, metrics: Metrics) -> Client {
    let options =
        Options { ca_file, timeout: Duration::from_secs(5), clock: Arc::new(SystemClock::new()), metrics };
    Client::connect(&Secret::new(url.to_owned()), options, lifecycle).await.expect("a client")
}

async fn echo(client: &Client, deadline: Duration) -> Result<(String, u64, u64), StoreError> {
    client.run(&ECHO, &["k".to_owned()], &[Arg::Unsigned(7)], deadline).await
}

/// What a server is and which version, as we write it.
fn flavour(server: &Redis) -> String {
    let [valkey, redis] = ["valkey_version", "redis_version"].map(|field| server.info("server", field));
    if valkey.is_empty() { format!("Redis {redis}") } else { format!("Valkey {valkey}") }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn scripts_run_and_are_loaded_again() {
    let server = Redis::start_with(&["--save", ""]);
    let (lifecycle, metrics) = (Lifecycle::new(), Metrics::new());
    let client = client_with(&server.url(), &lifecycle, None, metrics.clone()).await;
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap(), ("k".to_owned(), 7, 1));
    let _: String = client.query("flush", redis::cmd("SCRIPT").arg("FLUSH")).await.unwrap();
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 2);
    let counted = r#"numgen_store_calls_total{store="redis",operation="echo",outcome="ok"} 2"#;
    assert!(metrics.render().contains(counted), "one call each, however often it was sent");
}

#[tokio::test]
async fn a_restart_is_survived_and_messages_are_heard_again() {
    let mut server = Redis::start_with(&["--save", ""]);
    let lifecycle = Lifecycle::new();
    let client = client(&server.url(), &lifecycle).await;
    let mut heard = client.subscribe("news");
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 1);
    server.kill();
    let watch = Stopwatch::start();
    wait_reachable(client.reachable(), false).await;
    watch.assert_within(2 * SECOND, "noticing");
    assert!(matches!(echo(&client, SECOND / 10).await, Err(StoreError::Unavailable { .. })));
    server.start_again(Data::Empty);
    let start = Stopwatch::start();
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 1, "empty");
    eprintln!("back after {:?}", start.elapsed());
    start.assert_within(2 * SECOND, "coming back");
    let mut listeners = 0;
    while listeners == 0 {
        listeners = client.query("publish", redis::cmd("PUBLISH").arg("news").arg("x")).await.unwrap();
    }
    assert_eq!(heard.recv().await.unwrap(), "x");
}

#[tokio::test]
async fn a_stopped_server_is_noticed_and_deadlines_hold() {
    let server = Redis::start_with(&["--save", ""]);
    let lifecycle = Lifecycle::new();
    let client = client(&server.url(), &lifecycle).await;
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 1);
    server.pause();
    let start = Stopwatch::start();
    assert!(matches!(echo(&client, SECOND / 2).await, Err(StoreError::Timeout { .. })));
    start.assert_within(SECOND, "a deadline of half a second");
    wait_reachable(client.reachable(), false).await;
    start.assert_within(2 * SECOND, "noticing");
    server.resume();
    assert!(echo(&client, 2 * SECOND).await.is_ok());
}

#[tokio::test]
async fn a_lost_reply_is_unknown_and_nothing_is_sent_twice() {
    let server = Redis::start_with(&["--save", ""]);
    let proxy = Proxy::to(server.port());
    let lifecycle = Lifecycle::new();
    let client = client(&proxy.redis_url(), &lifecycle).await;
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 1);
    proxy.set(Fault::DropReplies);
    // The heartbeat notices before this deadline: what was in flight ends then.
    let watch = Stopwatch::start();
    assert!(matches!(echo(&client, 5 * SECOND).await, Err(StoreError::Timeout { .. })));
    watch.assert_within(2 * SECOND, "noticing");
    assert_eq!(server.cli(&["GET", "k"]).trim(), "2", "executed once");
    // Connecting fails meanwhile: nothing is sent.
    assert!(matches!(echo(&client, SECOND).await, Err(StoreError::Unavailable { .. })));
    proxy.set(Fault::None);
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 3);
}

#[tokio::test]
async fn a_kill_leaves_what_was_in_flight_unknown() {
    static SLOW: Script = Script::new("slow", "redis.call('INCR', KEYS[1]) while true do end");
    let mut server = Redis::start_with(&["--save", ""]);
    let lifecycle = Lifecycle::new();
    let client = client(&server.url(), &lifecycle).await;
    assert!(echo(&client, 5 * SECOND).await.is_ok());
    let slow = async {
        let keys = ["k".to_owned()];
        client.run::<u64>(&SLOW, &keys, &[], 5 * SECOND).await
    };
    let kill = async {
        tokio::time::sleep(SECOND / 4).await;
        server.kill();
    };
    let (outcome, ()) = tokio::join!(slow, kill);
    assert!(matches!(outcome, Err(StoreError::Timeout { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_server_that_may_evict_is_refused_by_name_until_it_may_not() {
    let server = Redis::start_with(&["--save", "", "--maxmemory-policy", "allkeys-lru"]);
    let lifecycle = Lifecycle::new();
    let client = client(&server.url(), &lifecycle).await;
    let mut reachable = client.reachable();
    let said = |reachable: &Reachable| matches!(reachable, Reachable::No { reason, .. } if reason.contains("noeviction"));
    tokio::time::timeout(5 * SECOND, reachable.wait_for(said)).await.unwrap().unwrap();
    assert!(matches!(echo(&client, SECOND / 10).await, Err(StoreError::Unavailable { .. })));
    let report = client.inspect().await.unwrap().remove(0);
    assert!(report.refused.unwrap().contains("CONFIG SET maxmemory-policy noeviction"));
    assert_eq!((report.maxmemory_policy.as_str(), report.durability), ("allkeys-lru", Durability::None));
    assert_eq!(report.version, flavour(&server));
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 1);
}

#[tokio::test]
async fn a_server_without_resp3_is_served_and_heard() {
    let server = Redis::start_with(&["--save", "", "--rename-command", "HELLO", ""]);
    server.cli(&["CONFIG", "SET", "requirepass", "pw"]);
    let lifecycle = Lifecycle::new();
    let client = client(&format!("redis://:pw@127.0.0.1:{}/3", server.port()), &lifecycle).await;
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 1);
    let mut heard = client.subscribe("news");
    let mut listeners = 0;
    while listeners == 0 {
        listeners = client.query("publish", redis::cmd("PUBLISH").arg("news").arg("x")).await.unwrap();
    }
    assert_eq!(heard.recv().await.unwrap(), "x");
}

#[tokio::test]
async fn a_wrong_password_is_said_and_not_shown() {
    let server = Redis::start_with(&["--save", ""]);
    server.cli(&["CONFIG", "SET", "requirepass", "right"]);
    let lifecycle = Lifecycle::new();
    let client = client(&format!("redis://:canary@127.0.0.1:{}", server.port()), &lifecycle).await;
    let mut reachable = client.reachable();
    let said = |reachable: &Reachable| matches!(reachable, Reachable::No { reason, .. } if reason.contains("refuses"));
    let reachable =
        tokio::time::timeout(5 * SECOND, reachable.wait_for(said)).await.unwrap().unwrap().clone();
    assert!(!format!("{reachable:?} {client:?}").contains("canary"), "{reachable:?}");
}

#[tokio::test]
async fn errors_of_scripts_are_told_apart() {
    static BROKEN: Script = Script::new("broken", "return redis.error_reply('CORRUPT the cursor is a song')");
    static WRONG: Script = Script::new("wrong", "return redis.call('INCR', 'k', 'too many')");
    let server = Redis::start_with(&["--save", ""]);
    let lifecycle = Lifecycle::new();
    let client = client(&server.url(), &lifecycle).await;
    let corrupt = client.run::<u64>(&BROKEN, &[], &[], SECOND).await.unwrap_err();
    assert!(corrupt.to_string().contains("the cursor is a song"), "{corrupt}");
    assert!(matches!(corrupt, StoreError::Corrupt { .. }));
    let refused = client.run::<u64>(&WRONG, &[], &[], SECOND).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
    let other =
        client.run::<Vec<u64>>(&ECHO, &["k".to_owned()], &[Arg::Text("x")], SECOND).await.unwrap_err();
    assert!(matches!(other, StoreError::Corrupt { .. }), "{other}");
}

#[tokio::test]
async fn tls_is_spoken_with_whom_the_file_vouches_for() {
    if Redis::start_with(&["--save", ""]).cli(&["CONFIG", "GET", "tls-port"]).is_empty() {
        assert!(std::env::var_os("NUMGEN_TEST_REDIS_SERVER").is_some(), "the installed one has TLS");
        eprintln!("NOT RUN: this server was built without TLS");
        return;
    }
    let authority = Authority::new();
    let certificate = authority.vouch("redis");
    let port = free_address().port().to_string();
    let _server = Redis::start_with(&[
        "--tls-port",
        &port,
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &certificate.file.to_string_lossy(),
        "--tls-key-file",
        &certificate.key.to_string_lossy(),
        "--tls-ca-cert-file",
        &authority.file().to_string_lossy(),
    ]);
    let lifecycle = Lifecycle::new();
    let url = format!("rediss://localhost:{port}");
    let trusting = client_with(&url, &lifecycle, Some(authority.file()), Metrics::new()).await;
    assert_eq!(echo(&trusting, 5 * SECOND).await.unwrap().2, 1);
    let doubting = client(&url, &lifecycle).await;
    let error = echo(&doubting, SECOND).await.unwrap_err();
    assert!(numgen::telemetry::fields::chain(&error).contains("certificate"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn sentinels_are_followed_to_the_new_master() {
    let mut watched = Sentinels::start();
    let lifecycle = Lifecycle::new();
    let client = client(&watched.url(), &lifecycle).await;
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 1);
    assert_eq!(client.inspect().await.unwrap()[0].replicas, 1);
    let old = watched.master();
    Stopwatch::wait_until(5 * SECOND, "the replica knows", || {
        watched.server(1 - old).cli(&["GET", "k"]).trim() == "1"
    });
    let watch = Stopwatch::start();
    let new = watched.failover();
    let value = loop {
        match echo(&client, SECOND).await {
            Ok((_, _, value)) => break value,
            Err(error) => watch.assert_within(20 * SECOND, &format!("another master ({error:?})")),
        }
    };
    eprintln!("a new master after {:?}", watch.elapsed());
    assert_eq!((value, watched.server(new).cli(&["GET", "k"]).trim()), (2, "2"));

    // The sentinels choose another master while the present one lives on: what a master is told then is lost.
    watched.server(old).start_again(Data::Kept);
    let present = watched.wait_whole();
    assert_eq!(watched.switch(), 1 - present);
    tokio::time::sleep(SECOND / 2).await;
    let after = echo(&client, 5 * SECOND).await.unwrap().2;
    assert_eq!(watched.server(1 - present).cli(&["GET", "k"]).trim(), after.to_string());
}

/// A sentinel that was cut off from the others names its master of long ago for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_sentinel_that_names_a_dead_master_is_passed_over() {
    let mut watched = Sentinels::start();
    let misled = watched.misled();
    let url = watched.url().replace("redis+sentinel://", &format!("redis+sentinel://127.0.0.1:{misled},"));
    let lifecycle = Lifecycle::new();
    let client = client(&url, &lifecycle).await;
    assert_eq!(echo(&client, 10 * SECOND).await.unwrap().2, 1);
}

/// How often the masters of a cluster were told a command.
fn calls(cluster: &RedisCluster, command: &str) -> u64 {
    let of = |master: &Redis| {
        let said = master.info("commandstats", &format!("cmdstat_{command}"));
        let calls = said.strip_prefix("calls=").and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse::<u64>().expect("a number"))
    };
    cluster.masters().map(of).sum()
}

async fn count(client: &Client, key: &str) -> Result<u64, StoreError> {
    let keys = [key.to_owned()];
    client
        .run::<(String, u64, u64)>(&ECHO, &keys, &[Arg::Unsigned(7)], 10 * SECOND)
        .await
        .map(|(_, _, value)| value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_cluster_is_followed_through_moves_and_failover() {
    let mut cluster = RedisCluster::start();
    let lifecycle = Lifecycle::new();
    // The first address is one that was taken out of the cluster and still answers.
    let outsider = RedisCluster::outsider();
    let scheme = "redis+cluster://";
    let url = cluster.url().replace(scheme, &format!("{scheme}127.0.0.1:{},", outsider.port()));
    let client = client(&url, &lifecycle).await;
    for key in 0..100 {
        assert_eq!(count(&client, &format!("key:{key}")).await.unwrap(), 1);
    }
    let mut heard = client.subscribe("news");
    let mut message = None;
    while message.is_none() {
        cluster.cli(&["PUBLISH", "news", "x"]);
        message = tokio::time::timeout(SECOND / 10, heard.recv()).await.ok();
    }
    assert_eq!(message.unwrap().unwrap(), "x");

    // Every slot has its marker, in its slot.
    Stopwatch::wait_until(20 * SECOND, "every slot has its marker", || {
        let keys = cluster.masters().map(|node| node.cli(&["DBSIZE"]).trim().parse::<usize>().unwrap());
        keys.sum::<usize>() == 16_384 + 100
    });
    let marker = client.marker_key("key:1");
    assert_eq!(cluster.cli(&["CLUSTER", "KEYSLOT", "key:1"]), cluster.cli(&["CLUSTER", "KEYSLOT", &marker]));
    let generation: String =
        client.query("marker", redis::cmd("HGET").arg(&marker).arg("generation")).await.unwrap();
    assert_eq!(generation.len(), 16);

    // Who comes next looks at them and writes nothing: others draw numbers meanwhile.
    let before = [calls(&cluster, "hmget"), calls(&cluster, "evalsha")];
    let next = client_with(&cluster.url(), &lifecycle, None, Metrics::new()).await;
    Stopwatch::wait_until(20 * SECOND, "every marker is looked at", || {
        calls(&cluster, "hmget") >= before[0] + 16_384
    });
    assert_eq!(calls(&cluster, "evalsha"), before[1]);
    drop(next);

    // ASK: the slot is under way, the key is not there yet.
    let slot = cluster.open_slot("moving");
    assert_eq!(count(&client, "moving").await.unwrap(), 1);
    assert_eq!(count(&client, "moving").await.unwrap(), 2);
    // MOVED: now it is there for good.
    cluster.move_keys(&slot);
    cluster.close_slot(slot);
    assert_eq!(count(&client, "moving").await.unwrap(), 3);

    // A master dies; its replica takes over.
    let victim = cluster.master_of("key:7");
    cluster.node(victim).kill();
    let watch = Stopwatch::start();
    let value = loop {
        match count(&client, "key:7").await {
            Ok(value) => break value,
            Err(error) => watch.assert_within(30 * SECOND, &format!("another master ({error:?})")),
        }
    };
    eprintln!("a new master of the slot after {:?}", watch.elapsed());
    assert_eq!(value, 2);
    let watch = Stopwatch::start();
    wait_reachable(client.reachable(), true).await;
    watch.assert_within(10 * SECOND, "noticing");
}

/// One current-thread runtime for each core calls, the connection lives on another.
#[test]
fn calls_come_from_any_runtime() {
    let server = Redis::start_with(&["--save", ""]);
    let lifecycle = Lifecycle::new();
    let main = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = main.block_on(client(&server.url(), &lifecycle));
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let calls = (0..100).map(|_| echo(&client, 5 * SECOND));
                    for outcome in futures_util::future::join_all(calls).await {
                        outcome.unwrap();
                    }
                });
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    assert_eq!(server.cli(&["GET", "k"]).trim(), "300");
}

/// Connections of clients, by their number and with their last command, but for the one that asks. Redis 6 calls every command that
/// begins with CLIENT the same: there, who has just asked to be told of writes is left out as well.
fn connections(server: &Redis) -> Vec<(u64, String)> {
    let list = server.cli(&["CLIENT", "LIST"]);
    let word = |line: &str, name: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(name)).expect("a word of CLIENT LIST").to_owned()
    };
    let all = list.lines().filter(|line| line.starts_with("id="));
    let all = all.map(|line| (word(line, "id=").parse().expect("a number"), word(line, "cmd=")));
    all.filter(|(_, command)| !["client|list", "client"].contains(&command.as_str())).collect()
}

#[test]
fn a_runtime_that_calls_gets_a_connection_whose_fate_the_others_share() {
    let server = Redis::start_with(&["--save", ""]);
    let lifecycle = Lifecycle::new();
    let main = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = main.block_on(client(&server.url(), &lifecycle));
    let http = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    http.block_on(async {
        let mut reachable = client.reachable();
        reachable.wait_for(|reachable| *reachable == Reachable::Yes).await.unwrap();
        let mut own = None;
        Stopwatch::wait_until(5 * SECOND, "one connection is listed", || {
            own = if let [(one, _)] = connections(&server)[..] { Some(one) } else { None };
            own.is_some()
        });
        let own = own.expect("one");
        let opened = async {
            loop {
                echo(&client, SECOND).await.unwrap();
                let nearby = |(id, command): &(u64, String)| *id != own && command == "evalsha";
                if let Some((nearby, _)) = connections(&server).into_iter().find(nearby) {
                    return nearby;
                }
            }
        };
        let nearby = tokio::time::timeout(5 * SECOND, opened).await.expect("one for the runtime that calls");
        server.cli(&["CLIENT", "KILL", "ID", &nearby.to_string()]);
        // Both are opened anew, so quickly that nobody else may notice.
        let renewed = async {
            while connections(&server).iter().any(|(id, _)| [own, nearby].contains(id)) {
                tokio::time::sleep(SECOND / 50).await;
            }
        };
        tokio::time::timeout(2 * SECOND, renewed).await.expect("a broken connection is noticed");
        echo(&client, SECOND).await.unwrap();
    });
}

#[test]
fn check_says_what_redis_forgets_and_refuses_one_that_evicts() {
    let server = Redis::start_with(&["--save", "", "--maxmemory-policy", "volatile-lru"]);
    let site =
        Site::new().with("NUMGEN_REDIS_URL", &format!("redis://:canary@127.0.0.1:{}/1", server.port()));
    let run = |site: &Site| {
        let output = site.run(&["check"]);
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert!(!text.contains("canary"), "{text}");
        (output.status.code(), text)
    };
    let (code, text) = run(&site);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("FAIL  redis") && text.contains("CONFIG SET maxmemory-policy noeviction"),
        "{text}"
    );

    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let (code, text) = run(&site);
    assert_eq!(code, Some(0), "{text}");
    for line in
        ["ok    profile", &flavour(&server), "no persistence", "CONFIG SET appendonly yes", "its clock is"]
    {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert_eq!(server.cli(&["INFO", "keyspace"]).trim(), "# Keyspace", "nothing was changed");
    let (code, text) = run(&site.with("NUMGEN_REDIS_URL", "redis://127.0.0.1:1"));
    assert!(code == Some(1) && text.contains("127.0.0.1:1 cannot be reached"), "{text}");
}
