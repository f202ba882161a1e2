//! A Redis Cluster of three masters with one replica each.

use std::{
    ops::{Deref, DerefMut},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use numgen::clock::{Clock as _, SystemClock, UnixMillis};

use super::{
    super::{Stopwatch, faketime::Hands, process::free_address},
    Clock, PATIENCE, Redis, server_binary,
};

/// Six nodes.
pub(crate) struct RedisCluster {
    nodes: Vec<Redis>,
}

/// A slot on its way from one master to another: each of its keys is here or there.
pub(crate) struct OpenSlot {
    slot: String,
    from: usize,
    to: usize,
    /// The ID of the node that gets it.
    heir: String,
}

/// The one cluster of this test binary, while a test has it for itself.
pub(crate) struct SharedCluster(MutexGuard<'static, Option<(RedisCluster, Keeper)>>);

impl RedisCluster {
    /// A cluster that elects another master about two seconds after one is gone.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::launch(Duration::from_secs(1), None)
    }

    /// A cluster whose `TIME` obeys [`RedisCluster::set_clock`], and where nobody is ever thought dead because of that.
    #[track_caller]
    pub(crate) fn start_with_clock(hands: Hands) -> Self {
        Self::launch(Duration::from_secs(86_400), Some(Clock::new(hands)))
    }

    /// One cluster for all tests of this binary that are content with an empty one: it takes seconds to make. They have it one after
    /// the other, since they turn its clock. The first caller decides where that stands in the beginning.
    #[track_caller]
    pub(crate) fn shared(at: UnixMillis) -> SharedCluster {
        static SHARED: Mutex<Option<(RedisCluster, Keeper)>> = Mutex::new(None);
        // A test that failed has left its data, which the next one clears.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.is_none() {
            // Nodes that meet count the milliseconds until they trust each other: their clocks run until then.
            let a_minute_before = at.0 - 60_000 - SystemClock::new().now().0;
            let cluster = Self::start_with_clock(Hands::Off(a_minute_before));
            cluster.set_clock(Hands::Standing(at));
            let keeper = Keeper::of(&cluster);
            *shared = Some((cluster, keeper));
        }
        SharedCluster(shared)
    }

    /// A node that is a cluster of its own, without slots: as one is that was taken out of another.
    #[track_caller]
    pub(crate) fn outsider() -> Redis {
        Self::launch_node(Duration::from_secs(1), None)
    }

    #[track_caller]
    fn launch_node(node_timeout: Duration, clock: Option<Clock>) -> Redis {
        let node_timeout_ms = node_timeout.as_millis().to_string();
        let bus_port = free_address().port().to_string();
        let settings = [
            "--appendonly",
            "yes",
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            &node_timeout_ms,
            "--repl-diskless-sync-delay",
            "0",
        ];
        // Redis 6 takes the port of the server and 10,000.
        let bus = ["--cluster-port", &bus_port];
        let bus = if knows_bus_ports() { &bus[..] } else { &[] };
        Redis::launch(&[&settings, bus].concat(), clock)
    }

    #[track_caller]
    fn launch(node_timeout: Duration, clock: Option<Clock>) -> Self {
        let cluster =
            Self { nodes: (0..6).map(|_| Self::launch_node(node_timeout, clock.clone())).collect() };
        let mut create = vec!["--cluster".to_owned(), "create".to_owned()];
        create.extend(cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())));
        create.extend(["--cluster-replicas", "1", "--cluster-yes"].map(str::to_owned));
        let arguments: Vec<&str> = create.iter().map(String::as_str).collect();
        cluster.nodes[0].cli(&arguments);
        cluster.wait_ok();
        cluster
    }

    /// Waits until the cluster [is whole](Self::is_whole).
    #[track_caller]
    pub(crate) fn wait_ok(&self) {
        Stopwatch::wait_until(PATIENCE, "the cluster is whole", || self.is_whole());
    }

    /// Whether every node that runs sees all slots served and each of three masters has its replica.
    pub(crate) fn is_whole(&self) -> bool {
        let running = || self.nodes.iter().filter(|node| node.is_running());
        let whole = running().all(|node| node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        let linked = |node: &&Redis| node.info("replication", "master_link_status") == "up";
        let replicas = running().filter(linked).count();
        whole && replicas + 3 == running().count()
    }

    /// The address of every node, as the service takes it.
    pub(crate) fn url(&self) -> String {
        let nodes: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }

    pub(crate) fn masters(&self) -> impl Iterator<Item = &Redis> {
        self.nodes.iter().filter(|node| node.is_running() && node.info("replication", "role") == "master")
    }

    /// Which node is the master of the slot of this key.
    #[track_caller]
    pub(crate) fn master_of(&self, key: &str) -> usize {
        let holds = |node: &Redis| {
            // Anybody else answers MOVED.
            node.is_running() && !node.cli(&["EXISTS", key]).starts_with("MOVED")
        };
        let master =
            self.nodes.iter().position(|node| holds(node) && node.info("replication", "role") == "master");
        master.unwrap_or_else(|| panic!("no master for {key}"))
    }

    /// Which node follows this master.
    #[track_caller]
    pub(crate) fn replica_of(&self, master: usize) -> usize {
        let port = self.nodes[master].port().to_string();
        let follows = |node: &Redis| node.is_running() && node.info("replication", "master_port") == port;
        self.nodes.iter().position(follows).unwrap_or_else(|| panic!("nobody follows node {master}"))
    }

    /// Opens the slot of a key, as `redis-cli --cluster reshard` does before it moves the keys.
    #[track_caller]
    pub(crate) fn open_slot(&self, key: &str) -> OpenSlot {
        let slot = self.cli(&["CLUSTER", "KEYSLOT", key]);
        let from = self.master_of(key);
        let is_other = |node: &Redis| node.is_running() && node.info("replication", "role") == "master";
        let to = (0..self.nodes.len()).find(|&index| index != from && is_other(&self.nodes[index]));
        let to = to.expect("another master");
        let [owner, heir] = [from, to].map(|index| self.nodes[index].cli(&["CLUSTER", "MYID"]));
        self.nodes[to].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &owner]);
        self.nodes[from].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &heir]);
        OpenSlot { slot, from, to, heir }
    }

    /// Moves what there is in an open slot.
    #[track_caller]
    pub(crate) fn move_keys(&self, open: &OpenSlot) {
        let OpenSlot { slot, from, to, .. } = open;
        let port = self.nodes[*to].port().to_string();
        let keys = self.nodes[*from].cli(&["CLUSTER", "GETKEYSINSLOT", slot, "1000"]);
        let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        let moved = self.nodes[*from].cli(&[&migrate, &keys.lines().collect::<Vec<_>>()[..]].concat());
        assert_eq!(moved, "OK", "{keys}");
    }

    /// From now on the slot is where it was going.
    #[track_caller]
    pub(crate) fn close_slot(&self, open: OpenSlot) {
        for node in [open.to, open.from] {
            self.nodes[node].cli(&["CLUSTER", "SETSLOT", &open.slot, "NODE", &open.heir]);
        }
    }

    /// One node, to be killed, paused or asked.
    pub(crate) fn node(&mut self, index: usize) -> &mut Redis {
        &mut self.nodes[index]
    }

    /// One command by a `redis-cli` that follows redirections.
    #[track_caller]
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let node = self.nodes.iter().find(|node| node.is_running()).expect("a node");
        node.cli(&[&["-c"], arguments].concat())
    }

    /// Turns the hands of all nodes at once.
    #[track_caller]
    pub(crate) fn set_clock(&self, hands: Hands) {
        self.nodes[0].set_clock(hands);
    }

    /// Deletes every key, except those that begin with `kept`.
    #[track_caller]
    pub(crate) fn clear_except(&self, kept: &str) {
        const CLEAR: &str = "local gone = 0 \
            for _, key in ipairs(redis.call('KEYS', '*')) do \
              if string.sub(key, 1, #ARGV[1]) ~= ARGV[1] then gone = gone + redis.call('DEL', key) end \
            end \
            return gone";
        for master in self.masters() {
            master.cli(&["EVAL", CLEAR, "0", kept]);
        }
    }
}

/// Whether a server can be told at which port other nodes reach it: Redis 7 can.
fn knows_bus_ports() -> bool {
    let version = Command::new(server_binary()).arg("--version").output().expect("a server binary").stdout;
    !String::from_utf8_lossy(&version).contains("v=6.")
}

impl Deref for SharedCluster {
    type Target = RedisCluster;
    fn deref(&self) -> &RedisCluster {
        &self.0.as_ref().expect("made when it was first asked for").0
    }
}

impl DerefMut for SharedCluster {
    fn deref_mut(&mut self) -> &mut RedisCluster {
        &mut self.0.as_mut().expect("made when it was first asked for").0
    }
}

/// Ends processes that nobody drops: statics outlive the tests. It waits for the end of this process, by whatever death, which
/// closes the pipe that it reads from.
struct Keeper(#[expect(dead_code, reason = "its pipe is held open")] Child);

impl Keeper {
    fn of(cluster: &RedisCluster) -> Self {
        let mut wait = Command::new("sh");
        wait.args([
            "-c",
            "trap '' INT TERM HUP; while read -r _; do :; done; kill -9 $1; shift; rm -rf \"$@\"",
            "keeper",
        ]);
        let ids: Vec<String> =
            cluster.nodes.iter().filter_map(Redis::process_id).map(|id| id.to_string()).collect();
        wait.arg(ids.join(" ")).args(cluster.nodes.iter().flat_map(Redis::belongings));
        wait.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(wait.spawn().expect("a shell"))
    }
}

#[test]
fn six_nodes_make_a_cluster_and_elect_a_master() {
    let mut cluster = RedisCluster::start();
    assert_eq!(cluster.masters().count(), 3);
    assert_eq!(cluster.cli(&["SET", "sequence:ORDERS", "7"]), "OK");
    let master = cluster.master_of("sequence:ORDERS");
    Stopwatch::wait_until(PATIENCE, "replicated", || {
        cluster.nodes.iter().filter(|node| node.cli(&["DBSIZE"]) == "1").count() == 2
    });
    cluster.node(master).kill();
    Stopwatch::wait_until(PATIENCE, "another master", || {
        cluster.masters().count() == 3 && cluster.cli(&["GET", "sequence:ORDERS"]) == "7"
    });
    assert_ne!(cluster.master_of("sequence:ORDERS"), master);
}

#[test]
fn the_shared_cluster_is_emptied_and_its_clock_turned() {
    let noon = UnixMillis(1_795_348_800_000);
    let cluster = RedisCluster::shared(noon);
    cluster.set_clock(Hands::Standing(noon.plus(Duration::from_millis(250))));
    assert!(cluster.masters().all(|master| master.time_ms() == noon.0 + 250));
    for key in ["a", "b", "c", "kept:a", "kept:b"] {
        cluster.cli(&["SET", key, "1"]);
    }
    cluster.clear_except("kept:");
    let sizes = cluster.masters().map(|master| master.cli(&["DBSIZE"]));
    assert_eq!(sizes.map(|size| size.parse::<u32>().expect("a number")).sum::<u32>(), 2);
    cluster.clear_except(" ");
}
