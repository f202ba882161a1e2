//! A master and its replica, watched by three sentinels.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    super::{
        Stopwatch,
        process::{Process, free_address},
    },
    PATIENCE, Redis, answers_within, cli, server_binary,
};

/// The name under which the sentinels know the master.
const NAME: &str = "numgen";
/// How long a master must be silent before the sentinels replace it.
const DOWN_AFTER: Duration = Duration::from_millis(800);

/// Two servers and who decides which of them is the master.
pub(crate) struct Sentinels {
    servers: Vec<Redis>,
    ports: Vec<u16>,
    processes: Vec<Process>,
    home: TempDir,
}

impl Sentinels {
    #[track_caller]
    pub(crate) fn start() -> Self {
        let settings = ["--appendonly", "yes", "--repl-diskless-sync-delay", "0"];
        let master = Redis::start_with(&settings);
        let master_port = master.port().to_string();
        let replica =
            Redis::start_with(&[&settings[..], &["--replicaof", "127.0.0.1", &master_port]].concat());
        wait_linked(&replica);
        let home = tempfile::Builder::new().prefix("numgen-sentinel-").tempdir().expect("a directory");
        let mut sentinels =
            Self { servers: vec![master, replica], ports: Vec::new(), processes: Vec::new(), home };
        let master_port = sentinels.servers[0].port();
        for index in 0..3 {
            let port = sentinels.watch(index, master_port);
            sentinels.ports.push(port);
        }
        Stopwatch::wait_until(PATIENCE, "the sentinels know each other and the replica", || {
            sentinels.ports.iter().all(|&port| {
                let known = cli(port, &["SENTINEL", "MASTER", NAME]);
                let fields: Vec<&str> = known.lines().collect();
                let is = |name, value| fields.windows(2).any(|pair| pair == [name, value]);
                is("num-other-sentinels", "2") && is("num-slaves", "1") && is("flags", "master")
            })
        });
        sentinels
    }

    /// Another sentinel, which no other one knows: it watches a master that has been gone for long. Answers its port.
    #[track_caller]
    pub(crate) fn misled(&mut self) -> u16 {
        self.watch(self.processes.len(), free_address().port())
    }

    #[track_caller]
    fn watch(&mut self, index: usize, master_port: u16) -> u16 {
        let port = free_address().port();
        let directory = self.home.path().join(index.to_string());
        fs::create_dir(&directory).expect("a directory");
        let file = directory.join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nlogfile {0}/log\n\
             sentinel monitor {NAME} 127.0.0.1 {master_port} 2\n\
             sentinel down-after-milliseconds {NAME} {}\n\
             sentinel failover-timeout {NAME} 4000\n",
            directory.display(),
            DOWN_AFTER.as_millis(),
        );
        fs::write(&file, text).expect("a file");
        let mut command = Command::new(server_binary());
        command.arg(&file).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::spawn(&mut command);
        assert!(answers_within(port, PATIENCE, || process.ended().is_none()), "a sentinel at {port}");
        self.processes.push(process);
        port
    }

    /// The sentinels and the name of the master, as the service takes it.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/{NAME}", hosts.join(","))
    }

    /// Whom the sentinels call master.
    #[track_caller]
    pub(crate) fn master(&self) -> usize {
        let address = cli(self.ports[0], &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
        let port: u16 = address.lines().last().expect("a port").parse().expect("a port");
        self.servers.iter().position(|server| server.port() == port).expect("one of the two")
    }

    pub(crate) fn server(&mut self, index: usize) -> &mut Redis {
        &mut self.servers[index]
    }

    /// Keeps the replica as it is: from now on it receives nothing, and still may be promoted (for about ten seconds).
    #[track_caller]
    pub(crate) fn hold_replica_back(&self) {
        let replica = &self.servers[1 - self.master()];
        // The master knows no password, so the replica is turned away when it comes back.
        replica.cli(&["CONFIG", "SET", "masterauth", "wrong"]);
        replica.cli(&["CLIENT", "KILL", "TYPE", "master"]);
        Stopwatch::wait_until(PATIENCE, "the replica is cut off", || {
            replica.info("replication", "master_link_status") == "down"
        });
    }

    /// Kills the master and waits until the other one has its place; answers which one that is. What the replica had not received
    /// is lost.
    #[track_caller]
    pub(crate) fn failover(&mut self) -> usize {
        let (old, new) = (self.master(), 1 - self.master());
        self.servers[old].kill();
        Stopwatch::wait_until(PATIENCE, "another master", || {
            self.master() == new && self.servers[new].info("replication", "role") == "master"
        });
        new
    }

    /// Waits until one server is the master and the other follows it; answers which one the master is. That may be another than a
    /// moment ago: on a machine with much to do the sentinels may take the silence of a master for its death.
    #[track_caller]
    pub(crate) fn wait_whole(&self) -> usize {
        let mut master = self.master();
        // Sentinels that noticed a pause of their own do nothing for 30 s (TILT).
        Stopwatch::wait_until(Duration::from_secs(90), "one follows the other", || {
            master = self.master();
            self.servers[1 - master].info("replication", "master_link_status") == "up"
        });
        master
    }

    /// Has the sentinels choose the other server while the master lives on; answers which one that is. For some seconds both think
    /// that they are the master, and what the old one is told then is lost.
    #[track_caller]
    pub(crate) fn switch(&mut self) -> usize {
        let new = 1 - self.master();
        Stopwatch::wait_until(PATIENCE, "the sentinels are willing", || {
            cli(self.ports[0], &["SENTINEL", "FAILOVER", NAME]).trim() == "OK"
        });
        Stopwatch::wait_until(PATIENCE, "another master", || {
            self.ports.iter().all(|&port| {
                let address = cli(port, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
                address.trim().ends_with(&self.servers[new].port().to_string())
            })
        });
        new
    }
}

/// What the sentinels did, where a test goes wrong.
impl Drop for Sentinels {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        for index in 0..self.ports.len() {
            let log =
                fs::read_to_string(self.home.path().join(index.to_string()).join("log")).unwrap_or_default();
            let events: Vec<&str> =
                log.lines().filter(|line| line.contains(" # ") || line.contains(" * ")).collect();
            eprintln!("sentinel {index}:\n{}", events[events.len().saturating_sub(40)..].join("\n"));
        }
    }
}

#[track_caller]
fn wait_linked(replica: &Redis) {
    Stopwatch::wait_until(PATIENCE, "the replica follows", || {
        replica.info("replication", "master_link_status") == "up"
    });
}

#[test]
fn sentinels_promote_the_replica_with_what_it_has() {
    let mut sentinels = Sentinels::start();
    let old = sentinels.master();
    sentinels.server(old).cli(&["SET", "sequence:ORDERS", "91"]);
    let replid = sentinels.server(old).info("replication", "master_replid");
    Stopwatch::wait_until(PATIENCE, "replicated", || {
        sentinels.server(1 - old).cli(&["GET", "sequence:ORDERS"]) == "91"
    });
    sentinels.hold_replica_back();
    sentinels.server(old).cli(&["SET", "sequence:ORDERS", "99"]);
    let new = sentinels.failover();
    assert_eq!(sentinels.server(new).cli(&["GET", "sequence:ORDERS"]), "91", "the last writes are forgotten");
    assert_ne!(sentinels.server(new).info("replication", "master_replid"), replid);
}
