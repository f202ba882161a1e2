//! How Redis is deployed, and what can be done to it in each case.

use std::path::PathBuf;

use super::settled;
use crate::harness::{Data, OpenSlot, Redis, RedisCluster, Sentinels};

/// The counter whose server is struck.
const COUNTER: &str = "sequence:HOT";

/// The servers of a world. Where there are several, it is the master that is struck: another one may have its place when it comes
/// back.
pub(super) enum Deployment {
    Alone {
        server: Redis,
        /// What it held at some moment.
        saved: Option<PathBuf>,
    },
    Watched {
        sentinels: Sentinels,
        struck: usize,
    },
    Cluster {
        cluster: RedisCluster,
        struck: usize,
        open: Option<OpenSlot>,
    },
}

impl Deployment {
    #[track_caller]
    pub(super) fn alone() -> Self {
        Self::Alone { server: settled(), saved: None }
    }

    #[track_caller]
    pub(super) fn watched() -> Self {
        Self::Watched { sentinels: Sentinels::start(), struck: 0 }
    }

    #[track_caller]
    pub(super) fn cluster() -> Self {
        Self::Cluster { cluster: RedisCluster::start(), struck: 0, open: None }
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Alone { server, .. } => server.url(),
            Self::Watched { sentinels, .. } => sentinels.url(),
            Self::Cluster { cluster, .. } => cluster.url(),
        }
    }

    /// Where a line can be led to: others say by themselves where they are.
    pub(super) fn port(&self) -> Option<u16> {
        match self {
            Self::Alone { server, .. } => Some(server.port()),
            Self::Watched { .. } | Self::Cluster { .. } => None,
        }
    }

    /// The one that is to be struck.
    #[track_caller]
    fn master(&mut self) -> &mut Redis {
        match self {
            Self::Alone { server, .. } => server,
            Self::Watched { sentinels, struck } => {
                *struck = sentinels.master();
                sentinels.server(*struck)
            }
            Self::Cluster { cluster, struck, .. } => {
                *struck = cluster.master_of(COUNTER);
                cluster.node(*struck)
            }
        }
    }

    /// The one that was.
    fn struck(&mut self) -> &mut Redis {
        match self {
            Self::Alone { server, .. } => server,
            Self::Watched { sentinels, struck } => sentinels.server(*struck),
            Self::Cluster { cluster, struck, .. } => cluster.node(*struck),
        }
    }

    #[track_caller]
    pub(super) fn kill(&mut self) {
        self.master().kill();
    }

    #[track_caller]
    pub(super) fn start_again(&mut self) {
        self.struck().start_again(Data::Kept);
    }

    #[track_caller]
    pub(super) fn start_empty(&mut self) {
        self.struck().start_again(Data::Empty);
    }

    #[track_caller]
    pub(super) fn pause(&mut self) {
        self.master().pause();
    }

    pub(super) fn resume(&mut self) {
        self.struck().resume();
    }

    #[track_caller]
    pub(super) fn tell(&mut self, command: &[&str]) {
        self.master().cli(command);
    }

    /// Saves what one server holds, to be set back to it.
    #[track_caller]
    pub(super) fn save(&mut self) {
        if let Self::Alone { server, saved } = self {
            *saved = Some(server.dump());
        }
    }

    pub(super) fn kill_where_saved(&mut self) {
        if let Self::Alone { server, saved: Some(_) } = self {
            server.kill();
        }
    }

    #[track_caller]
    pub(super) fn start_as_saved(&mut self) {
        if let Self::Alone { server, saved: Some(dump) } = self {
            server.start_again(Data::Dump(dump.clone()));
        }
    }

    /// The keys of the counter go to another master of a cluster, unless it has something else to get over.
    #[track_caller]
    pub(super) fn begin_move(&mut self) {
        if let Self::Cluster { cluster, open, .. } = self
            && cluster.is_whole()
        {
            let slot = cluster.open_slot(COUNTER);
            cluster.move_keys(&slot);
            *open = Some(slot);
        }
    }

    #[track_caller]
    pub(super) fn end_move(&mut self) {
        if let Self::Cluster { cluster, open, .. } = self
            && let Some(slot) = open.take()
        {
            cluster.close_slot(slot);
        }
    }
}
