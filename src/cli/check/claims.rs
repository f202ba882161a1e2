//! What another node may have claimed that this configuration claims, too: said in the words of the service that is refused it.

use super::report::Report;
use crate::{
    config::{Config, RedisUrl, existing_identity},
    secret::Secret,
    store::{Home, Nonce, postgres::grants::Redis, remembered_name},
    worker::AcquireError,
};

const WORKER: &str = "worker";
const DATA_CENTRE: &str = "data centre";

/// Whether a fixed worker ID is this data directory's to claim.
pub(super) fn worker(config: &Config, holder: Option<Nonce>, report: &mut Report) {
    let Some(id) = config.worker.worker_id else { return };
    match (holder, existing_identity(&config.storage.data_dir)) {
        (_, Err(error)) => report.fail(WORKER, error.to_string()),
        (None, Ok(_)) => report.ok(WORKER, format!("worker ID {id} is held by nobody")),
        (Some(holder), Ok(own)) if own == Some(holder.0) => {
            report.ok(WORKER, format!("worker ID {id} is held from this data directory"));
        }
        (Some(_other), Ok(_)) => report.fail(WORKER, AcquireError::NoSlot(id..id + 1).to_string()),
    }
}

/// Whether the data centre ID, which `owner` holds, is that of the Redis at `url`, called `name`.
pub(super) fn home(
    config: &Config,
    url: &Secret<String>,
    owner: Option<Redis>,
    name: Option<String>,
    report: &mut Report,
) {
    let id = config.worker.datacenter_id;
    let place = RedisUrl::parse(url.reveal()).map(|url| url.place()).unwrap_or_default();
    let held = owner.is_some();
    // One that was emptied gets the name back that is remembered here.
    let name = name.or_else(|| remembered_name(&config.storage.data_dir));
    match Home::seen(id, owner, name, place) {
        Home::Foreign(foreign) => report.fail(DATA_CENTRE, foreign.to_string()),
        Home::Own | Home::Unknown if held => report.ok(DATA_CENTRE, format!("{id} is this Redis's")),
        Home::Own | Home::Unknown => report.ok(DATA_CENTRE, format!("{id} belongs to no Redis yet")),
    }
}
