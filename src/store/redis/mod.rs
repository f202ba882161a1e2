//! The store that many nodes share: Redis, or Valkey.
//!
//! Invariants: whatever must be one step is one Lua script; nothing that Redis may forget is believed without its marker (see
//! [`RedisStore`]); what is not answered is unknown, and every script may be sent again with the same arguments by whoever wants to know.
//!
//! Order of reading: `client/` (connection, deadlines, scripts), then one file for each trait.

mod audit;
pub mod client;
pub mod counters;
pub mod idempotency;
mod rules;
mod survey;
mod temporary;
pub mod workers;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use crate::clock::UnixMillis;

use self::client::Client;

pub use survey::{Survey, survey};

/// The name of this store in errors and metrics.
const STORE: &str = "redis";

/// What the store has to know beside its connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where snowflake time begins.
    pub epoch: UnixMillis,
    /// The deadline of calls that have none of their own.
    pub timeout: Duration,
}

/// The handle: cheap to clone.
///
/// Redis may forget: it restarts empty, from an old dump, or another server takes over. A *marker* tells: a hash that holds a
/// random generation and the `master_replid` under which it was blessed. A script that finds it gone, or under another
/// `master_replid`, knows that what it reads may be old.
#[derive(Clone)]
pub struct RedisStore {
    client: Client,
    epoch: UnixMillis,
    timeout: Duration,
    /// The count of [`client::Vigil`] under which the rules were last looked at.
    looked: Arc<AtomicU64>,
}

impl RedisStore {
    /// A store on a connection.
    pub fn new(client: Client, settings: Settings) -> Self {
        let Settings { epoch, timeout } = settings;
        Self { client, epoch, timeout, looked: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// The connection: whether it stands, and to what.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("client", &self.client).finish_non_exhaustive()
    }
}
