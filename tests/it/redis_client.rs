//! The client of Redis against real servers: scripts, deadlines, outages, failover, redirection.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use numgen::{
    clock::SystemClock,
    lifecycle::Lifecycle,
    secret::Secret,
    store::{
        StoreError,
        redis::client::{Arg, Client, Options, Reachable, Script},
    },
    telemetry::Metrics,
};

static ECHO: Script = Script::new("echo", "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}");

struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(port, dir.path());
        Self { child, port, dir }
    }
    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
    fn again(&mut self) {
        self.child = spawn(self.port, self.dir.path());
    }
    fn signal(&self, name: &str) {
        Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, dir: &std::path::Path) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--save", "", "--dir"])
        .arg(dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

async fn client(url: &str, lifecycle: &Lifecycle) -> Client {
    let options = Options {
        ca_file: None,
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
    let start = Instant::now();
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
    let start = Instant::now();
    assert!(matches!(echo(&client, SECOND / 2).await, Err(StoreError::Timeout { .. })));
    assert!(start.elapsed() < SECOND);
    let mut reachable = client.reachable();
    tokio::time::timeout(2 * SECOND, reachable.wait_for(|r| *r != Reachable::Yes)).await.unwrap().unwrap();
    assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
    server.signal("-CONT");
    assert!(echo(&client, 2 * SECOND).await.is_ok());
}
