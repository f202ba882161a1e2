//! A connection for somebody who only looks: nothing is blessed, watched or kept up.

use std::path::Path;

use redis::{Cmd, FromRedisValue};

use super::{
    cluster,
    failure::ConnectError,
    inspect::InspectError,
    link::{Access, Link},
    sentinel::Sentinels,
    slots::slot_of,
};
use crate::{
    config::{RedisUrl, Topology},
    lifecycle::Lifecycle,
    secret::Secret,
};

/// How to look at the data of a deployment.
pub struct Glance {
    topology: Topology,
    access: Access,
    lifecycle: Lifecycle,
}

impl Glance {
    /// Reads the settings; connects when something is asked.
    ///
    /// # Errors
    ///
    /// A configuration that can never work.
    pub fn new(url: &Secret<String>, ca_file: Option<&Path>) -> Result<Self, ConnectError> {
        let lifecycle = Lifecycle::new();
        let url = RedisUrl::parse(url.reveal())?;
        let access = Access::new(&url, ca_file, &lifecycle)?;
        Ok(Self { topology: url.topology, access, lifecycle })
    }

    /// Asks the server of a key, one command after the other; commands must change nothing.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, refuses, or answers something else.
    pub async fn ask<T: FromRedisValue>(&self, key: &str, commands: &[Cmd]) -> Result<Vec<T>, InspectError> {
        let link = self.server_of(key).await?;
        let mut replies = Vec::with_capacity(commands.len());
        for command in commands {
            let reply = link.send_soon(command).await?;
            let typed = redis::from_redis_value(reply);
            replies.push(typed.map_err(|_| InspectError::Away(format!("{key} holds something unexpected")))?);
        }
        Ok(replies)
    }

    async fn server_of(&self, key: &str) -> Result<Link, InspectError> {
        let address = match &self.topology {
            Topology::Single(address) => address.clone(),
            Topology::Sentinel { sentinels, master } => {
                Sentinels::new(sentinels.clone(), master.clone(), &self.access).master().await?
            }
            Topology::Cluster(seeds) => cluster::owner(&self.access, seeds, slot_of(key.as_bytes())).await?,
        };
        Ok(self.access.open(&address).await?)
    }
}

impl Drop for Glance {
    fn drop(&mut self) {
        self.lifecycle.drain();
    }
}
