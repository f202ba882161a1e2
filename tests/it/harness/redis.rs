//! Real Redis servers for a test: single, as a cluster of six, as a pair under three sentinels. Loopback only, free ports,
//! directories of their own; gone when the test ends.
//!
//! `NUMGEN_TEST_REDIS_SERVER` names another binary than the installed `redis-server`: another version, or Valkey.

mod cluster;
mod sentinels;

use std::{
    ffi::OsString,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use tempfile::TempDir;

pub(crate) use cluster::{OpenSlot, RedisCluster, SharedCluster};
pub(crate) use sentinels::Sentinels;

use super::{
    Stopwatch,
    faketime::{self, Hands},
    process::{Process, Signal, free_address},
};

/// How long a server may take to do what it is told; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server finds when it starts again.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// All that it had acknowledged.
    Kept,
    Empty,
    /// What [`Redis::dump`] saved earlier.
    Dump(PathBuf),
}

/// The binary that plays Redis.
pub(crate) fn server_binary() -> OsString {
    std::env::var_os("NUMGEN_TEST_REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// One server.
pub(crate) struct Redis {
    home: Arc<TempDir>,
    port: u16,
    settings: Vec<String>,
    clock: Option<Clock>,
    process: Option<Process>,
}

/// A file that says what time it is, and the library that makes a process believe it.
#[derive(Clone)]
struct Clock {
    library: PathBuf,
    directory: Arc<TempDir>,
}

impl Redis {
    /// A server that keeps what it acknowledged when it is killed.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(&["--appendonly", "yes"])
    }

    /// A server with these settings and an empty directory.
    #[track_caller]
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        Self::launch(settings, None)
    }

    /// A server whose `TIME` obeys [`Redis::set_clock`].
    #[track_caller]
    pub(crate) fn start_with_clock(hands: Hands) -> Self {
        let clock = Clock::new(hands);
        Self::launch(&["--appendonly", "yes"], Some(clock))
    }

    #[track_caller]
    fn launch(settings: &[&str], clock: Option<Clock>) -> Self {
        let mut redis = Self {
            home: Arc::new(tempfile::Builder::new().prefix("numgen-redis-").tempdir().expect("a directory")),
            port: 0,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            clock,
            process: None,
        };
        // A port that was free a moment ago may have been taken by another program since.
        for _ in 0..5 {
            redis.port = free_address().port();
            if redis.run() {
                return redis;
            }
        }
        panic!("redis-server does not start: {}", redis.log());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("a running server").kill();
    }

    /// Starts it at the same port, after [`Redis::kill`].
    #[track_caller]
    pub(crate) fn start_again(&mut self, data: Data) {
        assert!(self.process.is_none(), "it is still running");
        let kept = self.settings.clone();
        match data {
            Data::Kept => {}
            Data::Empty => self.forget(),
            Data::Dump(dump) => {
                self.forget();
                fs::copy(dump, self.data().join("dump.rdb")).expect("a dump");
                // With the log on, Redis would look for a log and overlook the dump.
                self.settings.extend(["--appendonly".to_owned(), "no".to_owned()]);
            }
        }
        let started = self.run();
        assert!(started, "redis-server does not start again: {}", self.log());
        if self.settings != kept {
            self.settings = kept;
            if let Some(at) = self.settings.iter().position(|setting| setting == "--appendonly") {
                self.cli(&["CONFIG", "SET", "appendonly", &self.settings[at + 1].clone()]);
                Stopwatch::wait_until(PATIENCE, "the log is rewritten", || {
                    self.info("persistence", "aof_rewrite_in_progress") == "0"
                        && self.info("persistence", "aof_rewrite_scheduled") == "0"
                });
            }
        }
    }

    /// SIGSTOP: connections stay, nothing answers.
    pub(crate) fn pause(&self) {
        self.process.as_ref().expect("a running server").signal(Signal::Stop);
    }

    pub(crate) fn resume(&self) {
        self.process.as_ref().expect("a running server").signal(Signal::Continue);
    }

    /// Saves all that it holds now, for [`Data::Dump`].
    #[track_caller]
    pub(crate) fn dump(&self) -> PathBuf {
        assert_eq!(self.cli(&["SAVE"]), "OK");
        let copies = fs::read_dir(self.home.path()).expect("its directory").count();
        let copy = self.home.path().join(format!("dump-{copies}.rdb"));
        fs::copy(self.data().join("dump.rdb"), &copy).expect("a dump");
        copy
    }

    /// One command by `redis-cli`; the answer without the line break at its end.
    #[track_caller]
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port, arguments)
    }

    /// One field of `INFO section`, empty where there is none.
    #[track_caller]
    pub(crate) fn info(&self, section: &str, field: &str) -> String {
        // A sentinel that makes a server follow another one cuts every connection, this one too.
        let mut asked = (0..3).map(|_| try_cli(self.port, &["INFO", section]));
        let info = asked.find_map(Result::ok).expect("an answer to INFO");
        let mut lines = info.lines().filter_map(|line| line.trim_end().split_once(':'));
        lines.find(|(name, _)| *name == field).map(|(_, value)| value.to_owned()).unwrap_or_default()
    }

    /// What its `TIME` says, in ms since 1970.
    #[track_caller]
    pub(crate) fn time_ms(&self) -> i64 {
        let answer = self.cli(&["TIME"]);
        let mut parts = answer.lines().map(|line| line.parse::<i64>().expect("a number"));
        let (seconds, micros) = (parts.next().expect("seconds"), parts.next().expect("microseconds"));
        seconds * 1_000 + micros / 1_000
    }

    /// Turns the hands of a server that was started with a clock.
    #[track_caller]
    pub(crate) fn set_clock(&self, hands: Hands) {
        self.clock.as_ref().expect("started with a clock").turn(hands);
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Every file and directory that belongs to it.
    fn belongings(&self) -> Vec<PathBuf> {
        let clock = self.clock.as_ref().map(|clock| clock.directory.path());
        let directories = [Some(self.home.path()), clock].into_iter().flatten().map(Into::into);
        directories.chain(self.process_id().into_iter().flat_map(faketime::traces)).collect()
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn forget(&self) {
        fs::remove_dir_all(self.data()).and_then(|()| fs::create_dir(self.data())).expect("its data");
    }

    /// Starts the process; whether it answers.
    fn run(&mut self) -> bool {
        fs::create_dir_all(self.data()).expect("a directory");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.home.path().join("log"));
        let mut command = Command::new(server_binary());
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--port", &self.port.to_string()])
            .args(["--dir", &self.data().to_string_lossy()])
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(log.expect("a log"))
            .stderr(Stdio::null());
        if let Some(clock) = &self.clock {
            command.envs(faketime::watching(&clock.library, &clock.hands()));
        }
        let mut process = Process::spawn(&mut command);
        let answers = answers_within(self.port, PATIENCE, || process.ended().is_none());
        if answers {
            self.process = Some(process);
        }
        answers
    }
}

impl Clock {
    #[track_caller]
    fn new(hands: Hands) -> Self {
        let library = faketime::faketime().expect("libfaketime: tests/stages/tools.sh system installs it");
        let directory = tempfile::Builder::new().prefix("numgen-clock-").tempdir().expect("a directory");
        let clock = Self { library, directory: Arc::new(directory) };
        clock.turn(hands);
        clock
    }

    fn turn(&self, hands: Hands) {
        faketime::turn(&self.hands(), hands);
    }

    fn hands(&self) -> PathBuf {
        self.directory.path().join("hands")
    }
}

#[track_caller]
fn cli(port: u16, arguments: &[&str]) -> String {
    try_cli(port, arguments).unwrap_or_else(|said| panic!("redis-cli {arguments:?}: {said}"))
}

/// What `redis-cli` says; an error where it fails.
fn try_cli(port: u16, arguments: &[&str]) -> Result<String, String> {
    let port = port.to_string();
    let output = Command::new("redis-cli")
        .args(["-h", "127.0.0.1", "-p", &port])
        .args(arguments)
        .output()
        .expect("redis-cli: tests/stages/tools.sh system installs it");
    let text = String::from_utf8(output.stdout).expect("a text");
    if output.status.success() { Ok(text.trim_end().to_owned()) } else { Err(text) }
}

/// Whether the server at this port answers before it ends or `patience` does.
fn answers_within(port: u16, patience: Duration, mut alive: impl FnMut() -> bool) -> bool {
    let ping = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG")
    };
    let watch = Stopwatch::start();
    while watch.elapsed() < patience && alive() {
        if ping().unwrap_or(false) {
            return alive();
        }
        thread::sleep(Duration::from_millis(3));
    }
    false
}
