//! What can strike a fleet and its stores, and how it is undone.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use super::{Fleet, NORMAL_WITHIN};
use crate::harness::{Data, Fault, Postgres, Proxy, Redis, Stopwatch};

/// Nodes with their stores, each node with a line of its own to each of them.
pub(super) struct World {
    pub(super) fleet: Fleet,
    redis: Option<Redis>,
    postgres: Option<Postgres>,
    lines: Vec<Lines>,
    /// What Redis held at some moment.
    dump: Option<PathBuf>,
    /// Nodes that run again, and to which nobody is sent yet.
    starting: BTreeSet<usize>,
    /// Nodes that would not answer the question whether they are ready.
    frozen: BTreeSet<usize>,
}

/// The ways of one node.
struct Lines {
    redis: Option<Proxy>,
    postgres: Option<Proxy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    Redis,
    Postgres,
}

/// Where something can be wrong, one thing at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Node(usize),
    Line(usize, Store),
    Server(Store),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Strike {
    /// kill -9; the same starts again later, with all that it had acknowledged.
    Kill(Place),
    /// SIGSTOP.
    Pause(Place),
    /// A node is asked to stop.
    Stop(usize),
    Line(usize, Store, Fault),
    /// Redis no longer knows the scripts.
    FlushScripts,
    /// Redis is killed, and comes back without anything.
    Replace,
    /// Somebody empties Redis.
    Empty,
    /// What Redis holds is saved, for a later [`Strike::SetBack`].
    Dump,
    /// Redis is killed, and comes back with what was saved.
    SetBack,
}

impl Strike {
    pub(super) fn place(self) -> Place {
        match self {
            Self::Kill(place) | Self::Pause(place) => place,
            Self::Stop(node) => Place::Node(node),
            Self::Line(node, store, _) => Place::Line(node, store),
            Self::FlushScripts | Self::Replace | Self::Empty | Self::Dump | Self::SetBack => {
                Place::Server(Store::Redis)
            }
        }
    }

    /// Those after which Redis lacks what it had acknowledged.
    pub(super) const LOSSES: [Self; 4] = [Self::Replace, Self::Empty, Self::Dump, Self::SetBack];
}

impl World {
    /// So many nodes over these stores, all ready.
    #[track_caller]
    pub(super) fn of(nodes: usize, redis: Option<Redis>, postgres: Option<Postgres>) -> Self {
        let line = |_| Lines {
            redis: redis.as_ref().map(|redis| Proxy::to(redis.port())),
            postgres: postgres.as_ref().map(|postgres| Proxy::to(postgres.port())),
        };
        let lines: Vec<Lines> = (0..nodes).map(line).collect();
        let mut fleet = Fleet::plan(nodes, |index, mut site| {
            if let Some(line) = &lines[index].redis {
                site = site.with("NUMGEN_REDIS_URL", &line.redis_url());
            }
            if let (Some(postgres), Some(line)) = (&postgres, &lines[index].postgres) {
                let (server, led) = (format!(":{}/", postgres.port()), format!(":{}/", line.port()));
                site = site.with("NUMGEN_DATABASE_URL", &postgres.url().replace(&server, &led));
            }
            site
        });
        fleet.start_all();
        Self { fleet, redis, postgres, lines, dump: None, starting: BTreeSet::new(), frozen: BTreeSet::new() }
    }

    /// Everything that can strike here and leaves the memory of the stores alone.
    pub(super) fn strikes(&self) -> Vec<Strike> {
        let mut strikes = Vec::new();
        let stores = [(Store::Redis, self.redis.is_some()), (Store::Postgres, self.postgres.is_some())];
        for (store, _) in stores.iter().filter(|(_, is_there)| *is_there) {
            let server = Place::Server(*store);
            strikes.extend([Strike::Kill(server), Strike::Pause(server)]);
            for node in 0..self.lines.len() {
                strikes.extend(LINES.map(|fault| Strike::Line(node, *store, fault)));
            }
        }
        for node in 0..self.lines.len() {
            let place = Place::Node(node);
            strikes.extend([Strike::Kill(place), Strike::Pause(place), Strike::Stop(node)]);
        }
        if self.redis.is_some() {
            strikes.push(Strike::FlushScripts);
        }
        strikes
    }

    pub(super) fn begin(&mut self, strike: Strike) {
        match strike {
            Strike::Kill(Place::Node(node)) => self.fleet.kill_9(node),
            Strike::Pause(Place::Node(node)) => {
                self.frozen.insert(node);
                self.fleet.node(node).pause();
            }
            Strike::Stop(node) => self.fleet.ask_to_stop(node),
            Strike::Kill(Place::Server(Store::Redis)) | Strike::Replace => self.redis().kill(),
            Strike::Pause(Place::Server(Store::Redis)) => self.redis().pause(),
            Strike::Kill(Place::Server(Store::Postgres)) => self.postgres().kill(),
            Strike::Pause(Place::Server(Store::Postgres)) => self.postgres().pause(),
            Strike::Kill(Place::Line(..)) | Strike::Pause(Place::Line(..)) => {
                unreachable!("a line is no process: {strike:?}")
            }
            Strike::Line(node, store, fault) => self.line(node, store).set(fault),
            Strike::FlushScripts => drop(self.redis().cli(&["SCRIPT", "FLUSH"])),
            Strike::Empty => drop(self.redis().cli(&["FLUSHALL"])),
            Strike::Dump => self.dump = Some(self.redis().dump()),
            Strike::SetBack => {
                if self.dump.is_some() {
                    self.redis().kill();
                }
            }
        }
    }

    pub(super) fn end(&mut self, strike: Strike) {
        match strike {
            Strike::Kill(Place::Node(node)) => self.start(node),
            Strike::Stop(node) => {
                self.fleet.stop(node);
                self.start(node);
            }
            Strike::Pause(Place::Node(node)) => {
                self.fleet.node(node).resume();
                self.frozen.remove(&node);
            }
            Strike::Kill(Place::Server(Store::Redis)) => self.redis().start_again(Data::Kept),
            Strike::Replace => self.redis().start_again(Data::Empty),
            Strike::Pause(Place::Server(Store::Redis)) => self.redis().resume(),
            Strike::Kill(Place::Server(Store::Postgres)) => self.postgres().start_again(),
            Strike::Pause(Place::Server(Store::Postgres)) => self.postgres().resume(),
            Strike::Line(node, store, _) => self.line(node, store).set(Fault::None),
            Strike::SetBack => {
                if let Some(dump) = self.dump.clone() {
                    self.redis().start_again(Data::Dump(dump));
                }
            }
            Strike::Kill(Place::Line(..)) | Strike::Pause(Place::Line(..)) => {}
            Strike::FlushScripts | Strike::Empty | Strike::Dump => {}
        }
    }

    fn start(&mut self, node: usize) {
        self.fleet.start_unready(node);
        self.starting.insert(node);
    }

    /// Sends callers to the nodes that have become ready again.
    pub(super) fn admit(&mut self) {
        let Self { fleet, starting, frozen, .. } = self;
        starting.retain(|node| {
            if frozen.contains(node) {
                return true;
            }
            // One that was struck again begins anew.
            let Some(server) = &fleet.nodes[*node] else { return false };
            let is_ready = server.admin("/readyz").is_ok_and(|answer| answer.status == 200);
            if is_ready {
                fleet.wait_ready(*node);
            }
            !is_ready
        });
    }

    /// Waits for every node that runs again.
    #[track_caller]
    pub(super) fn admit_all(&mut self) {
        Stopwatch::wait_until(NORMAL_WITHIN, "every node is ready again", || {
            self.admit();
            self.starting.is_empty()
        });
    }

    #[track_caller]
    pub(super) fn psql(&self, sql: &str) -> String {
        self.postgres.as_ref().expect("there is a PostgreSQL to ask").psql(sql)
    }

    fn redis(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("there is a Redis to strike")
    }

    fn postgres(&mut self) -> &mut Postgres {
        self.postgres.as_mut().expect("there is a PostgreSQL to strike")
    }

    fn line(&self, node: usize, store: Store) -> &Proxy {
        let lines = &self.lines[node];
        let line = match store {
            Store::Redis => &lines.redis,
            Store::Postgres => &lines.postgres,
        };
        line.as_ref().expect("there is a line to strike")
    }
}

/// What can be wrong with a line.
const LINES: [Fault; 7] = [
    Fault::Refuse,
    Fault::BlackHole,
    Fault::DropReplies,
    Fault::CutReplies,
    Fault::Latency(Duration::from_millis(30)),
    Fault::Loss(0.2),
    Fault::HalfOpen,
];
