//! What an operator should know of a server.

use std::{path::Path, time::Duration};

use redis::Value;

use super::{
    cluster,
    failure::{ConnectError, Refusal},
    info::Info,
    link::{Access, Link},
    place,
    sentinel::Sentinels,
};
use crate::{
    clock::Clock,
    config::{RedisUrl, Topology},
    lifecycle::Lifecycle,
    secret::Secret,
};

/// A server, as `numgen check` shows it.
#[derive(Clone, Debug)]
pub struct ServerReport {
    /// Host and port.
    pub address: String,
    /// `Redis 7.0.15`, `Valkey 8.0.1`.
    pub version: String,
    /// `master` or `slave`.
    pub role: String,
    /// Replicas that are connected.
    pub replicas: u32,
    /// What a restart keeps.
    pub durability: Durability,
    /// Replicas without which the server takes no writes; `None` where it does not say.
    pub min_replicas_to_write: Option<u32>,
    /// What happens when memory is short.
    pub maxmemory_policy: String,
    /// How far its clock is ahead of ours, in milliseconds; negative: behind.
    pub clock_offset_ms: i64,
    /// How long it took to answer.
    pub round_trip: Duration,
    /// Why the service does not use it, with the remedy.
    pub refused: Option<String>,
}

/// What a restart of a server keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durability {
    /// An append-only file, synced as this says: `always`, `everysec`, `no`; `None` where the server does not tell.
    AppendOnly {
        /// `appendfsync`.
        fsync: Option<String>,
    },
    /// Snapshots now and then, as this says (`save`); `None` where the server does not tell.
    Snapshots {
        /// `save`.
        save: Option<String>,
    },
    /// Nothing.
    None,
}

/// Why servers cannot be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The configuration can never work.
    #[error(transparent)]
    Configuration(#[from] ConnectError),
    /// A server cannot be looked at; the text says which, and why.
    #[error("{0}")]
    Away(String),
}

impl From<Refusal> for InspectError {
    fn from(refusal: Refusal) -> Self {
        Self::Away(refusal.to_string())
    }
}

/// Looks at every server that holds data, fit or not, and changes nothing.
///
/// # Errors
///
/// The first that cannot be looked at.
pub async fn inspect(
    url: &Secret<String>,
    ca_file: Option<&Path>,
    clock: &dyn Clock,
) -> Result<Vec<ServerReport>, InspectError> {
    let lifecycle = Lifecycle::new();
    let url = RedisUrl::parse(url.reveal()).map_err(ConnectError::from)?;
    let access = Access::new(&url, ca_file, &lifecycle)?;
    let reports = all(&url.topology, &access, clock).await;
    lifecycle.drain();
    Ok(reports?)
}

/// Every server that takes writes.
pub(super) async fn all(
    topology: &Topology,
    access: &Access,
    clock: &dyn Clock,
) -> Result<Vec<ServerReport>, Refusal> {
    let masters = match topology {
        Topology::Single(address) => vec![address.clone()],
        Topology::Sentinel { sentinels, master } => {
            vec![Sentinels::new(sentinels.clone(), master.clone(), access).master().await?]
        }
        Topology::Cluster(seeds) => cluster::masters(access, seeds).await?,
    };
    let mut reports = Vec::with_capacity(masters.len());
    for address in &masters {
        let link = access.open(address).await?;
        reports.push(one(&link, place::check(topology, &link).err(), clock).await?);
    }
    Ok(reports)
}

async fn one(link: &Link, refused: Option<Refusal>, clock: &dyn Clock) -> Result<ServerReport, Refusal> {
    let info = link.info();
    let text = |field: &str| info.get(field).unwrap_or("unknown").to_owned();
    let asked = clock.monotonic();
    let time = link.send_soon(&redis::cmd("TIME")).await?;
    let round_trip = clock.monotonic().saturating_sub(asked);
    // It read its clock when about half of that had passed.
    let ours = clock.now().0 - i64::try_from(round_trip.as_millis() / 2).unwrap_or(0);
    Ok(ServerReport {
        address: link.address().to_string(),
        version: info.flavour(),
        role: text("role"),
        replicas: info.get("connected_slaves").and_then(|count| count.parse().ok()).unwrap_or(0),
        durability: durability(link, info).await,
        min_replicas_to_write: setting(link, "min-replicas-to-write")
            .await
            .and_then(|count| count.parse().ok()),
        maxmemory_policy: text("maxmemory_policy"),
        clock_offset_ms: time_of(time) - ours,
        round_trip,
        refused: refused.map(|refusal| refusal.to_string()),
    })
}

async fn durability(link: &Link, info: &Info) -> Durability {
    if info.get("aof_enabled") == Some("1") {
        return Durability::AppendOnly { fsync: setting(link, "appendfsync").await };
    }
    match setting(link, "save").await {
        Some(save) if save.is_empty() => Durability::None,
        save => Durability::Snapshots { save },
    }
}

/// `CONFIG GET`, which managed servers do not allow.
async fn setting(link: &Link, name: &str) -> Option<String> {
    let mut question = redis::cmd("CONFIG");
    question.arg("GET").arg(name);
    let reply = link.send_soon(&question).await.ok()?;
    let pairs: Vec<(String, String)> = redis::from_redis_value(reply).ok()?;
    pairs.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// Milliseconds since 1970.
fn time_of(reply: Value) -> i64 {
    let (seconds, micros): (i64, i64) = redis::from_redis_value(reply).unwrap_or_default();
    seconds.saturating_mul(1_000).saturating_add(micros / 1_000)
}
