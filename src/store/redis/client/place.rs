//! Where a line leads.

use super::{
    failure::Refusal,
    link::{Access, Link},
};
use crate::config::Address;

/// What a line is to be connected to.
pub(super) enum Place {
    /// This server, which stands alone.
    Alone(Address),
}

impl Place {
    /// The server to connect to now.
    pub(super) async fn find(&mut self, _access: &Access) -> Result<Address, Refusal> {
        match self {
            Self::Alone(address) => Ok(address.clone()),
        }
    }

    /// Whether a server is what belongs here.
    pub(super) fn check(&self, link: &Link) -> Result<(), Refusal> {
        let (info, address) = (link.info(), || link.address().clone());
        info.check(link.address())?;
        match self {
            Self::Alone(_) if info.is_cluster_node() => Err(Refusal::ClusterNode { address: address() }),
            Self::Alone(_) if !info.is_master() => Err(Refusal::Replica { address: address() }),
            Self::Alone(_) => Ok(()),
        }
    }

    /// What is to be heard here.
    pub(super) fn channels(&self, access: &Access) -> Vec<&'static str> {
        match self {
            Self::Alone(_) => access.ears.channels(),
        }
    }
}
