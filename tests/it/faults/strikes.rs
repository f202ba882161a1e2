//! What can strike a fleet and its stores.

use std::time::Duration;

use crate::harness::Fault;

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
    /// The slot of a counter moves to another master of the cluster.
    Move,
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
            Self::FlushScripts | Self::Move | Self::Replace | Self::Empty | Self::Dump | Self::SetBack => {
                Place::Server(Store::Redis)
            }
        }
    }

    /// Those after which Redis lacks what it had acknowledged.
    pub(super) const LOSSES: [Self; 4] = [Self::Replace, Self::Empty, Self::Dump, Self::SetBack];
}

/// What can be wrong with a line.
pub(super) const LINES: [Fault; 7] = [
    Fault::Refuse,
    Fault::BlackHole,
    Fault::DropReplies,
    Fault::CutReplies,
    Fault::Latency(Duration::from_millis(30)),
    Fault::Loss(0.2),
    Fault::HalfOpen,
];
