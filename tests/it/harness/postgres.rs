//! A real PostgreSQL for a test: loopback and a socket, a free port, a directory of its own, every setting that durability rests on as
//! it is out of the box; gone when the test ends, or for the shared one when the process does.
//!
//! `initdb` runs once for each test binary, and what it made is copied. PostgreSQL refuses to run as root: then it runs as `nobody`.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, LazyLock, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use numgen::clock::UnixMillis;
use tempfile::TempDir;

use super::{
    Certificate, Stopwatch,
    process::{Process, Signal, free_address},
};

/// How long a server may take to do what it is told; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who runs the server where the tests run as root: `nobody` and `nogroup`.
const NOBODY: u32 = 65_534;

/// Where Debian and others keep the programs of a server that are not on the path.
const FOLDERS: [&str; 5] = [
    "/usr/lib/postgresql/17/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/15/bin",
    "/usr/lib/postgresql/14/bin",
    "/usr/lib/postgresql/13/bin",
];

/// The role that the tests connect as, and the database that is always there.
const OWNER: &str = "numgen";
const FIRST_DATABASE: &str = "postgres";

/// One server.
pub(crate) struct Postgres {
    home: Arc<TempDir>,
    port: u16,
    settings: Vec<String>,
    process: Option<Process>,
}

/// Whether a server that comes back with older files can be told by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeline {
    /// It goes on as if nothing had been.
    Same,
    /// It begins another one.
    New,
}

/// A database of its own on a server that tests share, for one test.
pub(crate) struct Database {
    server: Arc<Postgres>,
    name: String,
    hands: Option<TempDir>,
}

impl Postgres {
    /// A server with the settings that a fresh installation has.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with other settings, such as `fsync=off`.
    #[track_caller]
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        Self::start_in(directory("numgen-postgres-"), settings)
    }

    /// The same, with TLS for whoever asks for it.
    #[track_caller]
    pub(crate) fn start_with_tls(certificate: &Certificate) -> Self {
        let home = directory("numgen-postgres-");
        let mut settings = vec!["ssl=on".to_owned()];
        for (setting, file) in [("ssl_cert_file", &certificate.file), ("ssl_key_file", &certificate.key)] {
            // It reads no key that others may read, or that is not its own.
            let own = home.path().join(setting);
            copy(file, &own);
            belongs_to_server(&own);
            settings.push(format!("{setting}={}", own.display()));
        }
        Self::start_in(home, settings)
    }

    #[track_caller]
    fn start_in(home: TempDir, settings: Vec<String>) -> Self {
        copy(&TEMPLATE, &home.path().join("data"));
        let mut postgres = Self { home: Arc::new(home), port: 0, settings, process: None };
        // A port that was free a moment ago may have been taken by another program since.
        for _ in 0..5 {
            postgres.port = free_address().port();
            if postgres.run() {
                return postgres;
            }
        }
        panic!("postgres does not start: {}", postgres.log());
    }

    /// A hot standby of this server, which follows it from now on. It writes nothing until [`Postgres::promote`].
    #[track_caller]
    pub(crate) fn standby(&self) -> Self {
        let home = directory("numgen-standby-");
        let data = home.path().join("data");
        // As the server itself: what it copies belongs to whoever runs it.
        let output = unprivileged(&program("pg_basebackup"))
            .args(["-h", "127.0.0.1", "-U", OWNER, "-p", &self.port.to_string()])
            .args(["-R", "-X", "stream", "-c", "fast", "-D", &data.to_string_lossy()])
            .output()
            .expect("pg_basebackup");
        assert!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        let port = free_address().port();
        let mut standby = Self { home: Arc::new(home), port, settings: self.settings.clone(), process: None };
        standby.start_again();
        Stopwatch::wait_until(PATIENCE, "the standby follows", || {
            self.psql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") != "0"
        });
        standby
    }

    /// From now on a commit waits until a standby has it.
    #[track_caller]
    pub(crate) fn wait_for_standbys(&self) {
        self.psql("ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.psql("SELECT pg_reload_conf()");
        Stopwatch::wait_until(PATIENCE, "the standby is synchronous", || {
            self.psql("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != "0"
        });
    }

    /// A standby takes over.
    #[track_caller]
    pub(crate) fn promote(&self) {
        assert_eq!(self.psql("SELECT pg_promote(true, 60)"), "t");
    }

    /// The server that tests share which break nothing; it ends with the last that has it.
    #[track_caller]
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// An empty database on the shared server.
    #[track_caller]
    pub(crate) fn create_database() -> Database {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let server = Self::shared();
        server.psql(&format!("CREATE DATABASE {name}"));
        Database { server, name, hands: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        self.url_of(FIRST_DATABASE)
    }

    pub(crate) fn url_of(&self, database: &str) -> String {
        format!("postgres://{OWNER}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// kill -9; its children notice and end by themselves, and until then no other server starts on its data.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("a running server");
        process.kill();
    }

    /// An orderly end that does not wait for clients (SIGINT), and a new start at the same port.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// An orderly end that does not wait for clients (SIGINT).
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let mut process = self.process.take().expect("a running server");
        process.signal(Signal::Interrupt);
        Stopwatch::wait_until(PATIENCE, "the server ends", || process.ended().is_some());
    }

    /// A copy of its files, after [`Postgres::stop`].
    #[track_caller]
    pub(crate) fn back_up(&self) -> TempDir {
        assert!(self.process.is_none(), "it is still running");
        let backup = directory("numgen-backup-");
        copy(&self.data(), &backup.path().join("data"));
        backup
    }

    /// Puts a copy of its files in the place of what it has, after [`Postgres::stop`].
    #[track_caller]
    pub(crate) fn restore(&mut self, backup: &TempDir, onto: Timeline) {
        assert!(self.process.is_none(), "it is still running");
        fs::remove_dir_all(self.data()).expect("its files");
        copy(&backup.path().join("data"), &self.data());
        if onto == Timeline::New {
            // As recovery to a point in time does, and as a standby that is promoted.
            let signal = self.data().join("recovery.signal");
            fs::write(&signal, "").expect("its files");
            belongs_to_server(&signal);
            self.set("restore_command=false");
        }
    }

    /// Starts it at the same port, after [`Postgres::kill`].
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        assert!(self.process.is_none(), "it is still running");
        let watch = Stopwatch::start();
        while !self.run() {
            assert!(watch.elapsed() < PATIENCE, "postgres does not start again: {}", self.log());
        }
        if self.data().join("recovery.signal").exists() {
            // It answers questions before it has recovered, and takes no writes.
            let recovers = || self.psql("SELECT pg_is_in_recovery()") != "f";
            Stopwatch::wait_until(PATIENCE, "it has recovered", || !recovers());
        }
    }

    /// Other settings from the next start on.
    pub(crate) fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// SIGSTOP to the server and all its children: connections stay, nothing answers.
    pub(crate) fn pause(&self) {
        self.signal_all("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal_all("CONT");
    }

    /// One or more statements; what they answer, without headers, one row on each line, columns parted by `|`.
    #[track_caller]
    pub(crate) fn psql(&self, sql: &str) -> String {
        self.psql_in(FIRST_DATABASE, sql)
    }

    #[track_caller]
    pub(crate) fn psql_in(&self, database: &str, sql: &str) -> String {
        let output = self.client(database, sql);
        let (text, complaint) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{sql}: {complaint}");
        text.trim_end().to_owned()
    }

    /// What `pg_dump` makes of a database.
    #[track_caller]
    pub(crate) fn dump(&self, database: &str) -> TempDir {
        let dump = directory("numgen-dump-");
        self.tool("pg_dump", &["-Fc", "-d", database, "-f", &dump.path().join("dump").to_string_lossy()]);
        dump
    }

    /// `pg_restore` into a database that is empty.
    #[track_caller]
    pub(crate) fn load(&self, dump: &TempDir, database: &str) {
        self.tool("pg_restore", &["-e", "-d", database, &dump.path().join("dump").to_string_lossy()]);
    }

    #[track_caller]
    fn tool(&self, name: &str, arguments: &[&str]) {
        let output = Command::new(program(name))
            .args(["-h", "127.0.0.1", "-U", OWNER, "-p", &self.port.to_string()])
            .args(arguments)
            .output();
        let output = output.expect("a client of PostgreSQL: tests/stages/tools.sh system installs it");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn client(&self, database: &str, sql: &str) -> std::process::Output {
        Command::new(program("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", OWNER])
            .args(["-p", &self.port.to_string(), "-d", database, "-c", sql])
            .env("PGCONNECT_TIMEOUT", "5")
            .output()
            .expect("psql: tests/stages/tools.sh system installs it")
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn signal_all(&self, name: &str) {
        let id = self.process.as_ref().expect("a running server").id();
        // Its children are its process's children, and nobody else's.
        let script = format!("kill -{name} {id} $(ps -o pid= --ppid {id})");
        let status = Command::new("sh").arg("-c").arg(script).stderr(Stdio::null()).status();
        // A child may have ended between the look and the signal.
        let _ = status.expect("a shell");
    }

    /// Starts the process; whether it answers.
    fn run(&mut self) -> bool {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.home.path().join("log"));
        let log = log.expect("a log");
        let mut command = unprivileged(&program("postgres"));
        command
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "max_connections=200", "-c", "shared_buffers=16MB"])
            // In its directory: what a killed server leaves behind goes with it.
            .args(["-c", "dynamic_shared_memory_type=mmap"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", self.home.path().display()))
            .args(self.settings.iter().flat_map(|setting| ["-c", setting]))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        let mut process = Process::spawn(&mut command);
        let watch = Stopwatch::start();
        while watch.elapsed() < PATIENCE && process.ended().is_none() {
            // Another program may have taken the port a moment ago, another server of another run.
            let answer = self.client(FIRST_DATABASE, "SHOW data_directory").stdout;
            if String::from_utf8_lossy(&answer).trim_end() == self.data().to_string_lossy() {
                self.process = Some(process);
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Postgres {
    /// An immediate end (SIGQUIT), which reaches its children too; what is left of it is killed.
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::Quit);
            let watch = Stopwatch::start();
            while process.ended().is_none() && watch.elapsed() < Duration::from_secs(5) {
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

impl Database {
    /// From now on `clock_timestamp()` means [`Database::set_clock`] to whoever connects: a function of that name comes before the one of
    /// PostgreSQL, and reads a file. Limits of time go by the real clock.
    #[track_caller]
    pub(crate) fn with_clock(mut self, at: UnixMillis) -> Self {
        let hands = directory("numgen-hands-");
        let (name, file) = (&self.name, hands.path().join("ms"));
        self.psql(&format!(
            "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
                 SELECT to_timestamp(pg_read_file('{}')::numeric / 1000)
             $$;
             ALTER DATABASE {name} SET search_path = public, pg_catalog",
            file.display()
        ));
        self.hands = Some(hands);
        self.set_clock(at);
        self
    }

    /// Turns the hands of [`Database::with_clock`].
    #[track_caller]
    pub(crate) fn set_clock(&self, at: UnixMillis) {
        let hands = self.hands.as_ref().expect("made with a clock").path();
        fs::write(hands.join("draft"), at.0.to_string()).expect("its hands");
        fs::rename(hands.join("draft"), hands.join("ms")).expect("its hands");
    }

    /// Somebody else at work here: a transaction that has begun with this statement when the call returns, and goes on with the other
    /// so much later, if there is one.
    #[track_caller]
    pub(crate) fn transact_slowly(&self, first: &str, pause: Duration, then: &str) -> thread::JoinHandle<()> {
        let (server, name) = (Arc::clone(&self.server), self.name.clone());
        let sql = format!("BEGIN; {first}; SELECT pg_sleep({}); {then}; COMMIT", pause.as_secs_f64());
        let other = thread::spawn(move || drop(server.psql_in(&name, &sql)));
        let pausing = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
        Stopwatch::wait_until(PATIENCE, "the first statement", || {
            self.psql(pausing) == "1" || other.is_finished()
        });
        other
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn url(&self) -> String {
        self.server.url_of(&self.name)
    }

    #[track_caller]
    pub(crate) fn psql(&self, sql: &str) -> String {
        self.server.psql_in(&self.name, sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let _ = self.server.client(FIRST_DATABASE, &sql);
    }
}

/// What `initdb` made, kept from run to run: it takes longer than most tests.
static TEMPLATE: LazyLock<PathBuf> = LazyLock::new(|| {
    let initdb = program("initdb");
    let version = Command::new(&initdb).arg("--version").output();
    let version = version.expect("initdb: tests/stages/tools.sh system installs it").stdout;
    let version = String::from_utf8_lossy(&version).split(' ').nth(2).unwrap_or("any").trim().to_owned();
    let template = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("postgres-{version}"));
    if template.is_dir() {
        return template;
    }
    let home = directory("numgen-initdb-");
    let output = unprivileged(&initdb)
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--username", OWNER, "-D"])
        .arg(home.path().join("data"))
        .stdin(Stdio::null())
        .output()
        .expect("initdb");
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    // Another run may be doing the same: the first to give it its name is believed.
    let draft = template.with_extension(format!("{}.draft", std::process::id()));
    copy(&home.path().join("data"), &draft);
    if fs::rename(&draft, &template).is_err() {
        fs::remove_dir_all(&draft).expect("a draft");
    }
    template
});

/// A program of PostgreSQL.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.into_iter().map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file()).unwrap_or_else(|| name.into())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("this process").uid() == 0
}

/// A command that does not run as root.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/");
    command
}

/// A directory that the server may write into.
fn directory(prefix: &str) -> TempDir {
    let directory = tempfile::Builder::new().prefix(prefix).tempdir().expect("a directory");
    belongs_to_server(directory.path());
    directory
}

/// Gives a file or a directory to the user that the server runs as.
fn belongs_to_server(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("it becomes nobody's");
    }
}

/// Copies a folder with its owner and permissions.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(status.success(), "{} is copied", from.display());
}
