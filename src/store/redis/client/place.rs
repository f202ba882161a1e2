//! Where a line leads.

use super::{cluster, failure::Refusal, link::Link, sentinel::Sentinels};
use crate::config::{Address, Topology};

/// What a line is to be connected to.
pub(super) enum Place {
    /// This server, which stands alone.
    Alone(Address),
    /// The master that sentinels watch.
    Watched(Box<Sentinels>),
    /// This node of a cluster.
    Node(Address),
    /// Any of these nodes of a cluster: messages reach them all.
    Any(Vec<Address>),
}

impl Place {
    /// The server to connect to now.
    pub(super) async fn find(&mut self) -> Result<Address, Refusal> {
        match self {
            Self::Alone(address) | Self::Node(address) => Ok(address.clone()),
            Self::Watched(sentinels) => sentinels.master().await,
            Self::Any(nodes) => {
                nodes.rotate_left(1);
                nodes.last().cloned().ok_or(Refusal::New)
            }
        }
    }

    /// What was found is of no use: the next time somebody else is asked, where there is a choice.
    pub(super) fn pass_over(&mut self) {
        match self {
            Self::Watched(sentinels) => sentinels.pass_over(),
            // The next of any nodes is another one as it is.
            Self::Alone(_) | Self::Node(_) | Self::Any(_) => {}
        }
    }

    /// Whether a server is what belongs here.
    pub(super) async fn check(&self, link: &Link) -> Result<(), Refusal> {
        match self {
            Self::Alone(_) | Self::Watched(_) => check_alone(link),
            Self::Node(_) => check_node(link),
            Self::Any(_) => {
                check_node(link)?;
                cluster::require_slots(link).await
            }
        }
    }

    /// Resolves when the line should lead elsewhere than to `present`.
    pub(super) async fn moved(&self, present: &Address) -> Refusal {
        match self {
            Self::Watched(sentinels) => sentinels.moved(present).await,
            Self::Alone(_) | Self::Node(_) | Self::Any(_) => std::future::pending().await,
        }
    }

    /// Whether messages are heard here; in a cluster one line hears for all.
    pub(super) fn is_heard(&self) -> bool {
        match self {
            Self::Alone(_) | Self::Watched(_) | Self::Any(_) => true,
            Self::Node(_) => false,
        }
    }
}

/// Whether a server fits a topology.
pub(super) fn check(topology: &Topology, link: &Link) -> Result<(), Refusal> {
    match topology {
        Topology::Single(_) | Topology::Sentinel { .. } => check_alone(link),
        Topology::Cluster(_) => check_node(link),
    }
}

fn check_alone(link: &Link) -> Result<(), Refusal> {
    let (info, address) = (link.info(), || link.address().clone());
    info.check(link.address())?;
    match (info.is_cluster_node(), info.is_master()) {
        (true, _) => Err(Refusal::ClusterNode { address: address() }),
        (false, false) => Err(Refusal::Replica { address: address() }),
        (false, true) => Ok(()),
    }
}

fn check_node(link: &Link) -> Result<(), Refusal> {
    link.info().check(link.address())?;
    if link.info().is_cluster_node() {
        Ok(())
    } else {
        Err(Refusal::NoCluster { address: link.address().clone() })
    }
}
