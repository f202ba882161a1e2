//! What profile *full* adds to profile *redis*: a PostgreSQL that forgets nothing.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use super::BuildError;
use crate::{
    clock::Clock,
    config::{Config, DataDir, RedisUrl},
    lifecycle::Lifecycle,
    store::{
        Home, Housekeeper, WorkerStore,
        postgres::{
            PostgresStore, Settings,
            grants::{Grants, Site},
            marks::Marks,
        },
        redis::RedisStore,
    },
    telemetry::Metrics,
    worker::Confirmed,
};

/// Connections to PostgreSQL of one node: a few hot strict counters, and everything else.
const POOL: u32 = 16;

/// PostgreSQL, where it is configured: connected to in the background.
pub(super) fn database(
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
    connections: &Lifecycle,
) -> Result<Option<PostgresStore>, BuildError> {
    let Some(url) = &config.storage.database_url else { return Ok(None) };
    let settings = Settings {
        clock: Arc::clone(clock),
        timeout: config.storage.storage_timeout,
        locking: config.storage.strict_locking,
        pool_size: POOL,
        ca_file: None::<PathBuf>,
    };
    Ok(Some(PostgresStore::connect(url, settings, metrics, connections)?))
}

/// Which data centre this is.
pub(super) fn site(config: &Config) -> Site {
    Site { datacenter: config.worker.datacenter_id, datacenters: config.worker.datacenters }
}

/// Windows that count only when PostgreSQL has their mark too.
pub(super) fn confirmed(
    config: &Config,
    leases: Arc<dyn WorkerStore>,
    postgres: &PostgresStore,
    home: &watch::Sender<Home>,
) -> Arc<dyn WorkerStore> {
    let Config { worker, .. } = config;
    let marks = Marks::new(postgres.clone(), worker.datacenter_id, worker.epoch, home.subscribe());
    Arc::new(Confirmed::new(leases, Arc::new(marks)))
}

/// Holds the data centre ID for the Redis of this node.
pub(super) fn keep_home(
    config: &Config,
    redis: &Arc<RedisStore>,
    grants: &Grants,
    home: &Arc<watch::Sender<Home>>,
    data_dir: &DataDir,
    background: &Lifecycle,
) {
    let url = config.storage.redis_url.as_ref().and_then(|url| RedisUrl::parse(url.reveal()).ok());
    let place = url.map(|url| url.place()).unwrap_or_default();
    let memory = data_dir.path().join("redis-name");
    let keeper = Housekeeper::new(redis.clone(), grants.clone(), place, memory, Arc::clone(home));
    background.spawn(keeper.keep(background.clone()));
}
