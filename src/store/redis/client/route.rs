//! Which server a call goes to.

use std::{sync::Arc, time::Duration};

use redis::{RedisError, aio::MultiplexedConnection};
use tokio::sync::watch;

use super::{
    cluster::{Cluster, Map, Redirection},
    failure::Refusal,
    line::{Line, State},
    link::{Access, Link},
    markers,
    place::Place,
    sentinel::Sentinels,
    slots::slot_of,
};
use crate::config::Topology;

/// How soon a change of one node of a cluster is seen.
const GLANCE: Duration = Duration::from_millis(100);

/// The servers of a deployment.
pub(super) enum Route {
    /// One server has everything.
    Whole(Line),
    /// Each slot has a master.
    Sharded {
        cluster: Cluster,
        /// Hears messages; dropped with the rest.
        _ear: Line,
    },
}

/// How a call goes out.
pub(super) struct Way {
    pub(super) link: Arc<Link>,
    /// One of the link's, the same for everything that goes this way.
    pub(super) connection: MultiplexedConnection,
    pub(super) manner: Manner,
}

impl Way {
    fn new(link: Arc<Link>, manner: Manner) -> Self {
        Self { connection: link.nearest(), link, manner }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Plain,
    /// Behind `ASKING`.
    Asking,
}

impl Route {
    /// Connects in the background.
    pub(super) fn start(topology: &Topology, access: Access) -> Self {
        let line = |access: Access, place| Line::start(Arc::new(access), place);
        match topology {
            Topology::Single(address) => Self::Whole(line(access, Place::Alone(address.clone()))),
            Topology::Sentinel { sentinels, master } => {
                let sentinels = Sentinels::new(sentinels.clone(), master.clone(), &access);
                Self::Whole(line(access, Place::Watched(Box::new(sentinels))))
            }
            Topology::Cluster(seeds) => Self::Sharded {
                _ear: line(access.clone(), Place::Any(seeds.clone())),
                cluster: Cluster::start(Arc::new(access), seeds.clone()),
            },
        }
    }

    /// Waits for a way to the server of a key.
    pub(super) async fn ready(&self, key: &[u8]) -> Way {
        let link = match self {
            Self::Whole(line) => line.ready().await,
            Self::Sharded { cluster, .. } => cluster.ready(slot_of(key)).await,
        };
        Way::new(link, Manner::Plain)
    }

    /// Why there is none.
    pub(super) fn why_not(&self, key: &[u8]) -> Option<Arc<Refusal>> {
        self.link(key).err()
    }

    /// The link to the server of a key.
    pub(super) fn link(&self, key: &[u8]) -> Result<Arc<Link>, Arc<Refusal>> {
        match self {
            Self::Whole(line) => line.link(),
            Self::Sharded { cluster, .. } => cluster.link(slot_of(key)),
        }
    }

    /// Where a server sends a call that it did not execute. A master that takes no more writes is left.
    pub(super) fn redirected(&self, error: &RedisError, link: &Link) -> Option<Detour<'_>> {
        match self {
            Self::Whole(_) => {
                if super::failure::is_read_only(error) {
                    link.give_up(Refusal::Replica { address: link.address().clone() });
                }
                None
            }
            Self::Sharded { cluster, .. } => {
                let redirection = Redirection::of(error, link.address());
                if !matches!(redirection, Some(Redirection::Ask(_))) {
                    cluster.is_stale();
                }
                Some(Detour { cluster, redirection: redirection? })
            }
        }
    }

    /// The marker that guards a key.
    pub(super) fn marker_key(&self, key: &[u8]) -> String {
        match self {
            Self::Whole(_) => markers::key_of(None),
            Self::Sharded { .. } => markers::key_of(Some(slot_of(key))),
        }
    }

    /// Tells whenever a server may have come or gone.
    pub(super) fn changes(&self) -> Changes {
        match self {
            Self::Whole(line) => Changes::Whole(line.watch()),
            Self::Sharded { cluster, .. } => Changes::Sharded(cluster.map()),
        }
    }

    /// What is not as it should be.
    pub(super) fn trouble(&self) -> Option<Arc<Refusal>> {
        match self {
            Self::Whole(line) => line.link().err(),
            Self::Sharded { cluster, .. } => cluster.map().borrow().trouble(),
        }
    }

    /// Each connected server for which `is_new` holds, with its slots in a cluster.
    pub(super) fn shares(&self, is_new: impl Fn(&Arc<Link>) -> bool) -> Vec<(Arc<Link>, Option<Vec<u16>>)> {
        match self {
            Self::Whole(line) => {
                line.link().ok().filter(is_new).map(|link| (link, None)).into_iter().collect()
            }
            Self::Sharded { cluster, .. } => {
                let map = Arc::clone(&cluster.map().borrow());
                let new = map.links().into_iter().filter(|(_, link)| is_new(link));
                new.map(|(place, link)| (link, Some(map.slots(place)))).collect()
            }
        }
    }
}

/// A server that another one named.
pub(super) struct Detour<'a> {
    cluster: &'a Cluster,
    redirection: Redirection,
}

impl Detour<'_> {
    /// Whether the next call goes where this one was sent first.
    pub(super) fn is_for_once(&self) -> bool {
        matches!(self.redirection, Redirection::Ask(_))
    }

    /// Waits for a way there.
    pub(super) async fn ready(&self) -> Way {
        let (address, manner) = match &self.redirection {
            Redirection::Moved(address) => (address, Manner::Plain),
            Redirection::Ask(address) => (address, Manner::Asking),
        };
        Way::new(self.cluster.line_to(address).ready().await, manner)
    }
}

/// Waits for changes. Holds nothing alive.
pub(super) enum Changes {
    Whole(watch::Receiver<State>),
    Sharded(watch::Receiver<Arc<Map>>),
}

impl Changes {
    /// Resolves when there may be something new to see; `Err` when there never will be.
    pub(super) async fn next(&mut self) -> Result<(), watch::error::RecvError> {
        match self {
            Self::Whole(line) => line.changed().await,
            Self::Sharded(map) => match tokio::time::timeout(GLANCE, map.changed()).await {
                Ok(changed) => changed,
                Err(_glance) => Ok(()),
            },
        }
    }
}
