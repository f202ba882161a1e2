//! A real server for a test: the built binary, in a directory of its own, on ports of its own.
//!
//! Invariants: the process sees only the environment that the test gave it; whatever a test does, its server is gone
//! when the test ends, and nothing but its own server.

mod certificates;
mod check;
mod collector;
mod faketime;
mod http;
mod keys;
mod postgres;
mod process;
mod proxy;
mod random;
mod redis;
mod selftest;
mod stopwatch;

use std::{
    fs,
    net::SocketAddr,
    panic::Location,
    path::PathBuf,
    process::{Command, ExitStatus, Output, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use numgen::store::Reachable;
use process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

pub(crate) use certificates::{Authority, Certificate};
pub(crate) use check::{Observation, assert_no_value_twice, assert_real_time_order, value_of};
pub(crate) use collector::{Collector, Manners, attribute};
pub(crate) use faketime::{Hands, faketime, turn as turn_hands, watching as watching_hands};
pub(crate) use http::{Connection, Response};
pub(crate) use keys::TokenKey;
pub(crate) use postgres::{Database, Postgres, Timeline};
pub(crate) use process::{Process, free_address};
pub(crate) use proxy::{Fault, Proxy};
pub(crate) use random::Random;
pub(crate) use redis::{Data, OpenSlot, Redis, RedisCluster, Sentinels, SharedCluster};
pub(crate) use stopwatch::Stopwatch;

/// What signs the tokens of a test; also the canary that must never appear in a log.
pub(crate) const SECRET: &str = "canary-secret-4f1d2a9c8b7e6d5c4b3a291807f6e5d4";

/// Waits until a store in this process can be asked, or cannot.
#[track_caller]
pub(crate) fn wait_reachable(
    mut reachable: watch::Receiver<Reachable>,
    wanted: bool,
) -> impl Future<Output = ()> {
    let (caller, watch) = (Location::caller(), Stopwatch::start());
    async move {
        let said = reachable.wait_for(|state| (*state == Reachable::Yes) == wanted);
        let said = tokio::time::timeout(Duration::from_secs(60), said).await;
        assert!(said.is_ok_and(|said| said.is_ok()), "{caller}: still {:?}", reachable.borrow());
        watch.assert_within(Duration::from_secs(30), &format!("{caller}: the word of the store"));
    }
}

/// A place where servers run: a directory that outlives each of them, and settings.
#[derive(Clone)]
pub(crate) struct Site {
    dir: Arc<TempDir>,
    settings: Vec<(String, String)>,
}

/// A running server.
pub(crate) struct TestServer {
    site: Site,
    process: Process,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Site {
    /// A fresh directory with a signing secret and quiet limits.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("numgen-it-").tempdir().expect("a directory");
        fs::write(dir.path().join("secret"), format!("{SECRET}\n")).expect("a secret file");
        let site = Self { dir: Arc::new(dir), settings: Vec::new() };
        let (secret, data) = (site.path("secret"), site.path("data"));
        site.with("NUMGEN_JWT_SECRET_FILE", &secret.to_string_lossy())
            .with("NUMGEN_DATA_DIR", &data.to_string_lossy())
            .with("NUMGEN_RATE_LIMIT_MANAGEMENT", "0")
            .with("NUMGEN_LOG_FORMAT", "json")
    }

    /// The same with one setting more, or another value for it.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(other, _)| other != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same without one setting.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.settings.retain(|(other, _)| other != name);
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Everything that the servers of this place have written so far.
    pub(crate) fn log(&self) -> String {
        let read = |name| fs::read(self.path(name)).unwrap_or_default();
        String::from_utf8_lossy(&[read("stdout"), read("stderr")].concat()).into_owned()
    }

    /// The binary with these settings and no other environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_numgen"));
        command.args(arguments);
        self.surround(command)
    }

    /// A command in this place, with these settings and no other environment.
    fn surround(&self, mut command: Command) -> Command {
        command.current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        // Coverage runs tell the process where to write what it executed.
        for name in ["PATH", "LLVM_PROFILE_FILE", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary runs")
    }

    /// A token as the command line prints it.
    #[track_caller]
    pub(crate) fn token(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["token"], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a token is text").trim().to_owned()
    }

    /// Starts a server and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(&self) -> TestServer {
        let server = self.start_unready();
        server.wait_ready();
        server
    }

    /// Starts a server and does not wait.
    pub(crate) fn start_unready(&self) -> TestServer {
        self.spawn(self.command(&["serve"]))
    }

    /// Starts a server that believes to write to a terminal, and waits until it is ready. `script` passes a signal on.
    #[track_caller]
    pub(crate) fn start_on_a_terminal(&self) -> TestServer {
        let mut command = Command::new("script");
        command.args(["-qefc", concat!("exec ", env!("CARGO_BIN_EXE_numgen")), "/dev/null"]);
        let server = self.spawn(self.surround(command));
        server.wait_ready();
        server
    }

    fn spawn(&self, mut command: Command) -> TestServer {
        let (listen, admin) = (free_address(), free_address());
        let log = |name| {
            fs::OpenOptions::new().create(true).append(true).open(self.path(name)).expect("a log file")
        };
        command
            .env("NUMGEN_LISTEN", listen.to_string())
            .env("NUMGEN_ADMIN_LISTEN", admin.to_string())
            .stdout(log("stdout"))
            .stderr(log("stderr"));
        TestServer { site: self.clone(), process: Process::spawn(&mut command), listen, admin }
    }
}

impl TestServer {
    /// A server in a fresh place.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Site::new().start()
    }

    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    pub(crate) fn log(&self) -> String {
        self.site.log()
    }

    /// Waits until the admin listener says that numbers can be issued.
    #[track_caller]
    pub(crate) fn wait_ready(&self) {
        Stopwatch::wait_until(Duration::from_secs(20), "ready", || {
            self.admin("/readyz").is_ok_and(|answer| answer.status == 200)
        });
    }

    /// GET from the admin listener.
    pub(crate) fn admin(&self, path: &str) -> std::io::Result<Response> {
        Connection::open(self.admin)?.send("GET", path, &[("Connection", "close")], None)
    }

    /// A caller with every scope.
    #[track_caller]
    pub(crate) fn caller(&self) -> Caller {
        self.caller_with(&["--scope", "admin", "--sub", "tester"])
    }

    /// A caller with the token that these arguments of `numgen token` give.
    #[track_caller]
    pub(crate) fn caller_with(&self, arguments: &[&str]) -> Caller {
        Caller::new(self.listen, Some(self.site.token(arguments)))
    }

    /// A caller without a token.
    pub(crate) fn stranger(&self) -> Caller {
        Caller::new(self.listen, None)
    }

    /// Kills it as a power cut would, and answers where it lived.
    pub(crate) fn kill_9(mut self) -> Site {
        self.process.kill();
        self.site.clone()
    }

    /// Asks it to stop, without waiting.
    pub(crate) fn ask_to_stop(&self) {
        self.process.signal(Signal::Terminate);
    }

    /// Asks it to read its configuration again, and waits until it has done so or refused.
    #[track_caller]
    pub(crate) fn reload(&self) {
        let answers = || {
            self.log().matches("configuration reloaded").count()
                + self.log().matches("configuration not reloaded").count()
        };
        let before = answers();
        self.process.signal(Signal::HangUp);
        Stopwatch::wait_until(Duration::from_secs(10), "a new reading of the configuration", || {
            answers() > before
        });
    }

    /// Freezes it, its connections open.
    pub(crate) fn pause(&self) {
        self.process.signal(Signal::Stop);
    }

    pub(crate) fn resume(&self) {
        self.process.signal(Signal::Continue);
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub(crate) fn wait_exit(mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        Stopwatch::wait_until(limit, "exit", || {
            status = self.process.ended();
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Asks it to stop and waits until it has done so.
    #[track_caller]
    pub(crate) fn stop(self) -> Site {
        let site = self.site.clone();
        self.ask_to_stop();
        let status = self.wait_exit(Duration::from_secs(15));
        assert_eq!(status.code(), Some(0), "{}", site.log());
        site
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // A process that counts the lines it executes writes them down at a clean end.
        if std::env::var_os("LLVM_PROFILE_FILE").is_some() && self.process.ended().is_none() {
            self.resume(); // it may be frozen
            self.ask_to_stop();
            for _ in 0..300 {
                if self.process.ended().is_some() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        if thread::panicking() {
            eprintln!("log of the server:\n{}", self.log());
        }
    }
}

/// Somebody who calls the API, on one connection.
pub(crate) struct Caller {
    address: SocketAddr,
    authorization: Option<String>,
    connection: Option<Connection>,
}

impl Caller {
    pub(crate) fn new(address: SocketAddr, token: Option<String>) -> Self {
        Self { address, authorization: token.map(|token| format!("Bearer {token}")), connection: None }
    }

    /// Another caller with the same token and a connection of its own.
    pub(crate) fn again(&self) -> Self {
        Self { address: self.address, authorization: self.authorization.clone(), connection: None }
    }

    /// The value of the `Authorization` field.
    pub(crate) fn authorization(&self) -> &str {
        self.authorization.as_deref().unwrap_or_default()
    }

    /// One request; an error means that no answer came.
    pub(crate) fn try_send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> std::io::Result<Response> {
        let mut all = headers.to_vec();
        if let Some(authorization) = &self.authorization {
            all.push(("Authorization", authorization));
        }
        let text = body.map(Value::to_string);
        if text.is_some() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            all.push(("Content-Type", "application/json"));
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.address)?,
        };
        let response = connection.send(method, target, &all, text.as_deref())?;
        if response.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    #[track_caller]
    pub(crate) fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Response {
        self.try_send(method, target, headers, body)
            .unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.send("GET", target, &[], None)
    }

    #[track_caller]
    pub(crate) fn post(&mut self, target: &str, body: &Value) -> Response {
        self.send("POST", target, &[], Some(body))
    }

    /// Registers a rule that must be accepted.
    #[track_caller]
    pub(crate) fn register(&mut self, key: &str, rule: &Value) {
        self.post(&format!("/prefix-configs/{key}"), rule).expect(200);
    }

    /// One number that must be given.
    #[track_caller]
    pub(crate) fn number(&mut self, key: &str) -> String {
        let mut numbers = self.get(&format!("/numbers/{key}")).expect(200).numbers();
        assert_eq!(numbers.len(), 1, "{numbers:?}");
        numbers.remove(0)
    }
}
