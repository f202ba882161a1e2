//! What profile *full* adds to profile *redis*: a PostgreSQL that forgets nothing.

use std::{path::PathBuf, sync::Arc};

use super::BuildError;
use crate::{
    clock::Clock,
    config::Config,
    lifecycle::Lifecycle,
    store::{
        WorkerStore,
        postgres::{PostgresStore, Settings, grants::Site, marks::Marks},
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
) -> Arc<dyn WorkerStore> {
    let marks = Marks::new(postgres.clone(), config.worker.datacenter_id, config.worker.epoch);
    Arc::new(Confirmed::new(leases, Arc::new(marks)))
}
