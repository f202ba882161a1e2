//! How a worker holds its window.

use std::{ops::Range, time::Duration};

use crate::{snowflake::Layout, store::protocol::window::Terms};

/// How a worker holds its window.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How IDs are divided.
    pub layout: Layout,
    /// The data centre ID.
    pub datacenter: u32,
    /// The worker IDs that it may take.
    pub slots: Range<u32>,
    /// How far a window reaches ahead of the store's clock, at most.
    pub window: Duration,
    /// How often it is renewed; well below `window`.
    pub renew_every: Duration,
    /// How long until a worker that does not renew may be looked at as dead.
    pub ttl: Duration,
    /// How far a burst may run ahead of the clock.
    pub max_ahead: Duration,
    /// Who else uses the store.
    pub sharing: Sharing,
}

/// Who else uses the store of the windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody: it belongs to this process, and its layout was checked when it was opened.
    Exclusive,
    /// Other nodes. It may be away, or forget.
    Shared {
        /// Layout, epoch and data centre, in words: the same for all nodes.
        pinned: String,
    },
}

impl Settings {
    /// How far the first window of a process reaches, unless the setting is shorter.
    pub const FIRST_WINDOW: Duration = Duration::from_secs(30);

    /// How often a window of a shared store is renewed.
    pub const RENEW_EVERY: Duration = Duration::from_secs(1);
}

impl Sharing {
    /// The figures by which store and worker play.
    pub(super) fn terms(&self) -> Terms {
        match self {
            Self::Exclusive => Terms::EXCLUSIVE,
            Self::Shared { .. } => Terms::SHARED,
        }
    }
}
