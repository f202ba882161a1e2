//! The client of Redis against real servers: scripts, deadlines, outages, failover, redirection.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

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
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::Stopwatch;

static ECHO: Script = Script::new("echo", "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}");

/// A server of its own for a test.
struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
    program: &'static str,
    arguments: Vec<String>,
}

/// A port that nobody has, and whose cluster bus is free too.
fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 50_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

impl Server {
    fn start() -> Self {
        Self::with(&["--save", ""])
    }

    fn with(arguments: &[&str]) -> Self {
        let port = free_port();
        let mut all = vec!["--port".to_owned(), port.to_string()];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Self::run("redis-server", port, tempfile::tempdir().unwrap(), all)
    }

    fn run(program: &'static str, port: u16, dir: tempfile::TempDir, arguments: Vec<String>) -> Self {
        let child = spawn(program, dir.path(), &arguments);
        let server = Self { child, port, dir, program, arguments };
        server.wait();
        server
    }

    fn wait(&self) {
        Stopwatch::wait_until(10 * SECOND, "redis-server answers", || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn again(&mut self) {
        self.child = spawn(self.program, self.dir.path(), &self.arguments);
    }

    fn signal(&self, name: &str) {
        Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
    }

    fn cli(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn spawn(program: &str, dir: &std::path::Path, arguments: &[String]) -> Child {
    Command::new(program).args(arguments).current_dir(dir).stdout(Stdio::null()).spawn().unwrap()
}

async fn client(url: &str, lifecycle: &Lifecycle) -> Client {
    client_that_trusts(None, url, lifecycle).await
}

async fn client_that_trusts(ca_file: Option<PathBuf>, url: &str, lifecycle: &Lifecycle) -> Client {
    let options = Options {
        ca_file,
        timeout: Duration::from_secs(5),
        clock: Arc::new(SystemClock::new()),
        metrics: Metrics::new(),
    };
    Client::connect(&Secret::new(url.to_owned()), options, lifecycle).await.unwrap()
}

async fn echo(client: &Client, deadline: Duration) -> Result<(String, u64, u64), StoreError> {
    client.run(&ECHO, &["k".to_owned()], &[Arg::Unsigned(7)], deadline).await
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn scripts_run_and_are_loaded_again() {
    let server = Server::start();
    let lifecycle = Lifecycle::new();
    let client = client(&server.url(), &lifecycle).await;
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap(), ("k".to_owned(), 7, 1));
    let _: String = client.query("flush", redis::cmd("SCRIPT").arg("FLUSH")).await.unwrap();
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 2);
}

#[tokio::test]
async fn a_restart_is_survived_and_messages_are_heard_again() {
    let mut server = Server::start();
    let lifecycle = Lifecycle::new();
    let client = client(&server.url(), &lifecycle).await;
    let mut heard = client.subscribe("news");
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 1);
    server.kill();
    let mut reachable = client.reachable();
    tokio::time::timeout(2 * SECOND, reachable.wait_for(|r| *r != Reachable::Yes)).await.unwrap().unwrap();
    assert!(matches!(echo(&client, SECOND / 10).await, Err(StoreError::Unavailable { .. })));
    server.again();
    let start = Stopwatch::start();
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 1, "empty");
    eprintln!("back after {:?}", start.elapsed());
    assert!(start.elapsed() < 2 * SECOND);
    let mut listeners = 0;
    while listeners == 0 {
        listeners = client.query("publish", redis::cmd("PUBLISH").arg("news").arg("x")).await.unwrap();
    }
    assert_eq!(heard.recv().await.unwrap(), "x");
}

#[tokio::test]
async fn a_stopped_server_is_noticed_and_deadlines_hold() {
    let server = Server::start();
    let lifecycle = Lifecycle::new();
    let client = client(&server.url(), &lifecycle).await;
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 1);
    server.signal("-STOP");
    let start = Stopwatch::start();
    assert!(matches!(echo(&client, SECOND / 2).await, Err(StoreError::Timeout { .. })));
    assert!(start.elapsed() < SECOND);
    let mut reachable = client.reachable();
    tokio::time::timeout(2 * SECOND, reachable.wait_for(|r| *r != Reachable::Yes)).await.unwrap().unwrap();
    assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
    server.signal("-CONT");
    assert!(echo(&client, 2 * SECOND).await.is_ok());
}

/// Passes bytes on, until it is told to keep what the server says to itself.
struct Deaf {
    port: u16,
    swallow: Arc<AtomicBool>,
}

impl Deaf {
    async fn to(target: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let swallow = Arc::new(AtomicBool::new(false));
        let swallows = Arc::clone(&swallow);
        Lifecycle::new().spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = tokio::net::TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                let (mut near_read, mut near_write) = near.into_split();
                let (mut far_read, mut far_write) = far.into_split();
                let swallows = Arc::clone(&swallows);
                Lifecycle::new().spawn(async move {
                    let _end = tokio::io::copy(&mut near_read, &mut far_write).await;
                });
                Lifecycle::new().spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = far_read.read(&mut buffer).await {
                        if !swallows.load(Ordering::SeqCst)
                            && near_write.write_all(&buffer[..read]).await.is_err()
                        {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, swallow }
    }
}

#[tokio::test]
async fn a_lost_reply_is_unknown_and_nothing_is_sent_twice() {
    let server = Server::start();
    let proxy = Deaf::to(server.port).await;
    let lifecycle = Lifecycle::new();
    let client = client(&format!("redis://127.0.0.1:{}", proxy.port), &lifecycle).await;
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 1);
    proxy.swallow.store(true, Ordering::SeqCst);
    // The heartbeat notices before this deadline: what was in flight ends then.
    let watch = Stopwatch::start();
    assert!(matches!(echo(&client, 5 * SECOND).await, Err(StoreError::Timeout { .. })));
    assert!(watch.elapsed() < 2 * SECOND, "{:?}", watch.elapsed());
    assert_eq!(server.cli(&["GET", "k"]), "2", "executed once");
    // Connecting fails meanwhile: nothing is sent.
    assert!(matches!(echo(&client, SECOND).await, Err(StoreError::Unavailable { .. })));
    proxy.swallow.store(false, Ordering::SeqCst);
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 3);
}

#[tokio::test]
async fn a_kill_leaves_what_was_in_flight_unknown() {
    static SLOW: Script = Script::new("slow", "redis.call('INCR', KEYS[1]) while true do end");
    let mut server = Server::start();
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
    let server = Server::with(&["--save", "", "--maxmemory-policy", "allkeys-lru"]);
    let lifecycle = Lifecycle::new();
    let client = client(&server.url(), &lifecycle).await;
    let mut reachable = client.reachable();
    let said = |reachable: &Reachable| matches!(reachable, Reachable::No { reason, .. } if reason.contains("noeviction"));
    tokio::time::timeout(5 * SECOND, reachable.wait_for(said)).await.unwrap().unwrap();
    assert!(matches!(echo(&client, SECOND / 10).await, Err(StoreError::Unavailable { .. })));
    let report = client.inspect().await.unwrap().remove(0);
    assert!(report.refused.unwrap().contains("CONFIG SET maxmemory-policy noeviction"));
    assert_eq!((report.maxmemory_policy.as_str(), report.durability), ("allkeys-lru", Durability::None));
    assert!(report.version.starts_with("Redis "), "{}", report.version);
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 1);
}

#[tokio::test]
async fn a_server_without_resp3_is_served_and_heard() {
    let server = Server::with(&["--save", "", "--requirepass", "pw", "--rename-command", "HELLO", ""]);
    let lifecycle = Lifecycle::new();
    let client = client(&format!("redis://:pw@127.0.0.1:{}/3", server.port), &lifecycle).await;
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
    let server = Server::with(&["--save", "", "--requirepass", "right"]);
    let lifecycle = Lifecycle::new();
    let client = client(&format!("redis://:canary@127.0.0.1:{}", server.port), &lifecycle).await;
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
    let server = Server::start();
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
    let dir = tempfile::tempdir().unwrap();
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=test ca",
        "-days",
        "2",
    ]);
    openssl(&[
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "redis.key",
        "-out",
        "redis.csr",
        "-subj",
        "/CN=localhost",
    ]);
    std::fs::write(dir.path().join("names"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        "redis.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-out",
        "redis.pem",
        "-days",
        "2",
        "-extfile",
        "names",
    ]);
    let ca = dir.path().join("ca.pem");
    let port = free_port();
    let mut arguments: Vec<String> = [
        "--port",
        "0",
        "--save",
        "",
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        "redis.pem",
        "--tls-key-file",
        "redis.key",
        "--tls-ca-cert-file",
        "ca.pem",
        "--tls-port",
    ]
    .map(str::to_owned)
    .into();
    arguments.push(port.to_string());
    let server = Server::run("redis-server", port, dir, arguments);
    let lifecycle = Lifecycle::new();
    let url = format!("rediss://localhost:{}", server.port);
    let trusting = client_that_trusts(Some(ca), &url, &lifecycle).await;
    assert_eq!(echo(&trusting, 5 * SECOND).await.unwrap().2, 1);
    let doubting = client(&url, &lifecycle).await;
    let error = echo(&doubting, SECOND).await.unwrap_err();
    assert!(numgen::telemetry::fields::chain(&error).contains("certificate"), "{error:?}");
}

/// A master, its replica and three sentinels.
struct Watched {
    servers: [Server; 2],
    sentinels: Vec<Server>,
}

impl Watched {
    fn start() -> Self {
        let master = Server::start();
        let master_port = master.port.to_string();
        let replica = Server::with(&["--save", "", "--replicaof", "127.0.0.1", &master_port]);
        let sentinel = || {
            let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
            let config = format!(
                "port {port}\nsentinel monitor mymaster 127.0.0.1 {master_port} 2\nsentinel down-after-milliseconds mymaster 1000\n\
                 sentinel failover-timeout mymaster 5000\n"
            );
            std::fs::write(dir.path().join("sentinel.conf"), config).unwrap();
            Server::run("redis-sentinel", port, dir, vec!["sentinel.conf".to_owned()])
        };
        let sentinels: Vec<_> = (0..3).map(|_| sentinel()).collect();
        Stopwatch::wait_until(30 * SECOND, "the sentinels know each other and the replica", || {
            sentinels.iter().all(|sentinel| {
                let known = sentinel.cli(&["SENTINEL", "MASTER", "mymaster"]);
                known.contains("num-other-sentinels\n2") && known.contains("num-slaves\n1")
            })
        });
        Self { servers: [master, replica], sentinels }
    }

    fn url(&self) -> String {
        let servers: Vec<_> =
            self.sentinels.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("redis+sentinel://{}/mymaster", servers.join(","))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn sentinels_are_followed_to_the_new_master() {
    let mut watched = Watched::start();
    let lifecycle = Lifecycle::new();
    let client = client(&watched.url(), &lifecycle).await;
    assert_eq!(echo(&client, 5 * SECOND).await.unwrap().2, 1);
    assert_eq!(client.inspect().await.unwrap()[0].replicas, 1);

    // The old master lives on, as a replica.
    watched.sentinels[0].cli(&["SENTINEL", "FAILOVER", "mymaster"]);
    let promoted = watched.servers[1].port.to_string();
    Stopwatch::wait_until(20 * SECOND, "the replica is promoted", || {
        watched.sentinels.iter().all(|sentinel| {
            sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]).ends_with(&promoted)
        })
    });
    // A call that was in flight as the link was given up may be unknown; the next ones go to the new master.
    tokio::time::sleep(SECOND / 2).await;
    echo(&client, 5 * SECOND).await.unwrap();
    assert_eq!(watched.servers[1].cli(&["GET", "k"]), "2");

    // The new one dies; the first takes over again.
    Stopwatch::wait_until(20 * SECOND, "the old master follows", || {
        watched.servers[0].cli(&["INFO", "replication"]).contains("master_link_status:up")
    });
    tokio::time::sleep(6 * SECOND).await;
    watched.servers[1].kill();
    let watch = Stopwatch::start();
    let value = loop {
        match echo(&client, SECOND).await {
            Ok((_, _, value)) => break value,
            Err(error) => assert!(watch.elapsed() < 30 * SECOND, "{error:?}"),
        }
    };
    eprintln!("a new master after {:?}", watch.elapsed());
    assert_eq!(value, 3);
}

/// Three masters, three replicas.
struct Nodes(Vec<Server>);

impl Nodes {
    fn start() -> Self {
        let node = || {
            Server::with(&[
                "--save",
                "",
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "2000",
                "--cluster-config-file",
                "nodes.conf",
            ])
        };
        let nodes: Vec<_> = (0..6).map(|_| node()).collect();
        let addresses: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let output = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(&addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        Stopwatch::wait_until(30 * SECOND, "the cluster is up", || {
            nodes.iter().all(|node| node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
        });
        Self(nodes)
    }

    fn url(&self) -> String {
        let servers: Vec<_> =
            self.0.iter().take(3).map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("redis+cluster://{}", servers.join(","))
    }

    /// The node that owns a key, and one that does not.
    fn owner_and_other(&self, key: &str) -> (&Server, &Server) {
        let masters: Vec<_> =
            self.0.iter().filter(|node| node.cli(&["ROLE"]).starts_with("master")).collect();
        let owns = |node: &Server| node.cli(&["GET", key]).lines().all(|line| !line.starts_with("MOVED"));
        let owner = masters.iter().find(|node| owns(node)).unwrap();
        (owner, masters.iter().find(|node| !owns(node)).unwrap())
    }
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
    let mut nodes = Nodes::start();
    let lifecycle = Lifecycle::new();
    let client = client(&nodes.url(), &lifecycle).await;
    for key in 0..100 {
        assert_eq!(count(&client, &format!("key:{key}")).await.unwrap(), 1);
    }
    let mut heard = client.subscribe("news");
    let mut listeners: u64 = 0;
    while listeners == 0 {
        tokio::time::sleep(SECOND / 20).await;
        listeners =
            nodes.0.iter().map(|node| node.cli(&["PUBLISH", "news", "x"]).parse::<u64>().unwrap()).sum();
    }
    assert_eq!(heard.recv().await.unwrap(), "x");

    // Every slot has its marker, in its slot.
    Stopwatch::wait_until(20 * SECOND, "every slot has its marker", || {
        let keys: usize = nodes
            .0
            .iter()
            .filter(|node| node.cli(&["ROLE"]).starts_with("master"))
            .map(|node| node.cli(&["DBSIZE"]).parse::<usize>().unwrap())
            .sum();
        keys == 16_384 + 100
    });
    let marker = client.marker_key("key:1");
    assert_eq!(
        nodes.0[0].cli(&["CLUSTER", "KEYSLOT", "key:1"]),
        nodes.0[0].cli(&["CLUSTER", "KEYSLOT", &marker])
    );
    let generation: String =
        client.query("marker", redis::cmd("HGET").arg(&marker).arg("generation")).await.unwrap();
    assert_eq!(generation.len(), 16);

    // ASK: the slot is under way, the key is not there yet.
    let (owner, other) = nodes.owner_and_other("moving");
    let slot = owner.cli(&["CLUSTER", "KEYSLOT", "moving"]);
    let (from, to) = (owner.cli(&["CLUSTER", "MYID"]), other.cli(&["CLUSTER", "MYID"]));
    other.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]);
    owner.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]);
    assert_eq!(count(&client, "moving").await.unwrap(), 1);
    assert_eq!(count(&client, "moving").await.unwrap(), 2);
    // MOVED: now it is there for good.
    let marker = client.marker_key("moving");
    owner.cli(&["MIGRATE", "127.0.0.1", &other.port.to_string(), &marker, "0", "5000"]);
    for node in &nodes.0 {
        node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to]);
    }
    assert_eq!(count(&client, "moving").await.unwrap(), 3);

    // A master dies; its replica takes over.
    let (owner, _) = nodes.owner_and_other("key:7");
    let port = owner.port;
    let victim = nodes.0.iter_mut().find(|node| node.port == port).unwrap();
    victim.kill();
    let watch = Stopwatch::start();
    loop {
        match count(&client, "key:7").await {
            Ok(value) => {
                assert!(value >= 2, "{value}");
                break;
            }
            Err(error) => assert!(watch.elapsed() < 30 * SECOND, "{error:?}"),
        }
    }
    eprintln!("a new master of the slot after {:?}", watch.elapsed());
    let mut reachable = client.reachable();
    tokio::time::timeout(10 * SECOND, reachable.wait_for(|r| *r == Reachable::Yes)).await.unwrap().unwrap();
}

/// One current-thread runtime for each core calls, the connection lives on another.
#[test]
fn calls_come_from_any_runtime() {
    let server = Server::start();
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
    assert_eq!(server.cli(&["GET", "k"]), "300");
}
