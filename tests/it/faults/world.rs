//! A fleet and its stores, how they are struck and how that is undone.

use std::collections::BTreeSet;

use super::{
    Fleet, NORMAL_WITHIN,
    deployment::Deployment,
    strikes::{LINES, Place, Store, Strike},
};
use crate::harness::{Fault, Postgres, Proxy, Stopwatch};

/// Nodes with their stores, each node with a line of its own to each of them.
pub(super) struct World {
    pub(super) fleet: Fleet,
    redis: Option<Deployment>,
    postgres: Option<Postgres>,
    lines: Vec<Lines>,
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

impl World {
    /// So many nodes over these stores, all ready.
    #[track_caller]
    pub(super) fn of(nodes: usize, redis: Option<Deployment>, postgres: Option<Postgres>) -> Self {
        let line = |_| Lines {
            redis: redis.as_ref().and_then(Deployment::port).map(Proxy::to),
            postgres: postgres.as_ref().map(|postgres| Proxy::to(postgres.port())),
        };
        let lines: Vec<Lines> = (0..nodes).map(line).collect();
        let mut fleet = Fleet::plan(nodes, |index, mut site| {
            if let Some(redis) = &redis {
                let url = lines[index].redis.as_ref().map_or_else(|| redis.url(), Proxy::redis_url);
                site = site.with("NUMGEN_REDIS_URL", &url);
            }
            if let (Some(postgres), Some(line)) = (&postgres, &lines[index].postgres) {
                let (server, led) = (format!(":{}/", postgres.port()), format!(":{}/", line.port()));
                site = site.with("NUMGEN_DATABASE_URL", &postgres.url().replace(&server, &led));
            }
            site
        });
        fleet.start_all();
        Self { fleet, redis, postgres, lines, starting: BTreeSet::new(), frozen: BTreeSet::new() }
    }

    /// Everything that can strike here and leaves the memory of the stores alone.
    pub(super) fn strikes(&self) -> Vec<Strike> {
        let mut strikes = Vec::new();
        let stores = [(Store::Redis, self.redis.is_some()), (Store::Postgres, self.postgres.is_some())];
        for (store, _) in stores.iter().filter(|(_, is_there)| *is_there) {
            let server = Place::Server(*store);
            strikes.extend([Strike::Kill(server), Strike::Pause(server)]);
            for node in (0..self.lines.len()).filter(|node| self.lines[*node].to(*store).is_some()) {
                strikes.extend(LINES.map(|fault| Strike::Line(node, *store, fault)));
            }
        }
        for node in 0..self.lines.len() {
            let place = Place::Node(node);
            strikes.extend([Strike::Kill(place), Strike::Pause(place), Strike::Stop(node)]);
        }
        strikes.extend(self.redis.as_ref().map(|_| Strike::FlushScripts));
        if let Some(Deployment::Cluster { .. }) = &self.redis {
            strikes.push(Strike::Move);
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
            Strike::Stop(node) => {
                // Before it listens to signals one just ends it.
                Stopwatch::wait_until(NORMAL_WITHIN, "a node lives", || {
                    self.fleet.node(node).admin("/livez").is_ok()
                });
                self.fleet.ask_to_stop(node);
            }
            Strike::Kill(Place::Server(Store::Redis)) | Strike::Replace => self.redis().kill(),
            Strike::Pause(Place::Server(Store::Redis)) => self.redis().pause(),
            Strike::Kill(Place::Server(Store::Postgres)) => self.postgres().kill(),
            Strike::Pause(Place::Server(Store::Postgres)) => self.postgres().pause(),
            Strike::Kill(Place::Line(..)) | Strike::Pause(Place::Line(..)) => {
                unreachable!("a line is no process: {strike:?}")
            }
            Strike::Line(node, store, fault) => self.line(node, store).set(fault),
            Strike::FlushScripts => self.redis().tell(&["SCRIPT", "FLUSH"]),
            Strike::Move => self.redis().begin_move(),
            Strike::Empty => self.redis().tell(&["FLUSHALL"]),
            Strike::Dump => self.redis().save(),
            Strike::SetBack => self.redis().kill_where_saved(),
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
            Strike::Kill(Place::Server(Store::Redis)) => self.redis().start_again(),
            Strike::Replace => self.redis().start_empty(),
            Strike::Move => self.redis().end_move(),
            Strike::Pause(Place::Server(Store::Redis)) => self.redis().resume(),
            Strike::Kill(Place::Server(Store::Postgres)) => self.postgres().start_again(),
            Strike::Pause(Place::Server(Store::Postgres)) => self.postgres().resume(),
            Strike::Line(node, store, _) => self.line(node, store).set(Fault::None),
            Strike::SetBack => self.redis().start_as_saved(),
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

    fn redis(&mut self) -> &mut Deployment {
        self.redis.as_mut().expect("there is a Redis to strike")
    }

    fn postgres(&mut self) -> &mut Postgres {
        self.postgres.as_mut().expect("there is a PostgreSQL to strike")
    }

    fn line(&self, node: usize, store: Store) -> &Proxy {
        self.lines[node].to(store).expect("there is a line to strike")
    }
}

impl Lines {
    fn to(&self, store: Store) -> Option<&Proxy> {
        match store {
            Store::Redis => self.redis.as_ref(),
            Store::Postgres => self.postgres.as_ref(),
        }
    }
}
