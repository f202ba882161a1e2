//! What Redis holds that decides how a service would start; for `numgen check`.

use std::path::Path;

use redis::cmd;

use super::{
    client::{Glance, InspectError},
    identity,
    rules::{DIRECT, MIRROR, STATE},
    workers::{self, LAYOUT},
};
use crate::{config, secret::Secret, store::Nonce};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Fields of `prefix_configs`.
    pub rules: u64,
    /// Fields that nobody has adopted: refused, or written while no service runs. Those that were never looked at are none of them.
    pub refused: u64,
    /// Rules that services have adopted.
    pub adopted: u64,
    /// Layout, epoch and data centre that Redis was first used with.
    pub layout: Option<String>,
    /// Who holds the fixed worker ID that is asked for, alive or not yet past its mark.
    pub holder: Option<Nonce>,
    /// The name of this Redis, if it has one (profile *full*).
    pub name: Option<String>,
}

/// Looks, as a node with IDs of `worker` would, and changes nothing.
///
/// # Errors
///
/// Redis is away, or the configuration can never work.
pub async fn survey(
    url: &Secret<String>,
    ca_file: Option<&Path>,
    worker: &config::Worker,
) -> Result<Survey, InspectError> {
    let glance = Glance::new(url, ca_file)?;
    let mut questions = [cmd("HLEN"), cmd("SCARD"), cmd("HGET")];
    questions[0].arg(MIRROR);
    questions[1].arg(DIRECT);
    questions[2].arg(STATE).arg("live");
    let counts: Vec<Option<u64>> = glance.ask(MIRROR, &questions).await?;
    let count = |index: usize| counts.get(index).copied().flatten().unwrap_or(0);
    Ok(Survey {
        rules: count(0),
        refused: count(1),
        adopted: count(2),
        layout: text(&glance, LAYOUT).await?,
        holder: holder(&glance, worker).await?,
        name: text(&glance, identity::KEY).await?,
    })
}

async fn text(glance: &Glance, key: &str) -> Result<Option<String>, InspectError> {
    let mut get = cmd("GET");
    get.arg(key);
    Ok(glance.ask(key, &[get]).await?.pop().flatten())
}

/// Who holds the fixed worker ID, by the clock of Redis.
async fn holder(glance: &Glance, worker: &config::Worker) -> Result<Option<Nonce>, InspectError> {
    let Some(slot) = worker.worker_id else { return Ok(None) };
    let key = format!("{}{slot}", workers::slots_of(worker.datacenter_id));
    let mut fields = cmd("HMGET");
    fields.arg(&key).arg(&["owner", "expires", "mark"]);
    let fields: Vec<Vec<Option<String>>> = glance.ask(&key, &[fields]).await?;
    let clock: Vec<(i64, i64)> = glance.ask(&key, &[cmd("TIME")]).await?;
    let Some([owner, ends @ ..]) = fields.first().map(Vec::as_slice) else { return Ok(None) };
    let now = clock.first().map_or(0, |(seconds, micros)| seconds * 1_000 + micros / 1_000 - worker.epoch.0);
    let is_held = ends.iter().flatten().any(|end| end.parse().is_ok_and(|end: i64| end > now));
    Ok(owner.as_deref().and_then(workers::unhex).filter(|_owner| is_held))
}
