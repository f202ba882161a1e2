//! Profile *full*: Redis is the fast path, and PostgreSQL what must never be forgotten.

use std::sync::Arc;

use tokio::sync::watch;

use super::{BuildError, FIRST_LOOK, Ground, REDIS, Shared, Stores};
use crate::{
    config::{Config, RedisUrl},
    secret::Secret,
    store::{
        CopiedRules, CountersByMode, Home, Housekeeper, MirroredRules, WorkerStore,
        postgres::{
            PostgresStore,
            grants::{Grants, Site},
            marks::Marks,
        },
        redis::{self, RedisStore, client::Client, counters::RedisLink},
    },
    worker::Confirmed,
};

/// The PostgreSQL behind a Redis.
pub(in crate::app) struct Behind {
    /// The store.
    pub(in crate::app) postgres: Arc<PostgresStore>,
    /// Whether the data centre ID is that of the Redis of this node.
    pub(in crate::app) home: watch::Receiver<Home>,
}

impl Stores {
    pub(super) async fn on_both(
        self,
        redis_url: &Secret<String>,
        database_url: &Secret<String>,
        ground: Ground<'_>,
    ) -> Result<Self, BuildError> {
        let Ground { config, background, .. } = ground;
        let postgres = Arc::new(self.postgres(database_url, ground)?);
        postgres.first_look(FIRST_LOOK).await?;
        let client = self.redis(redis_url, ground).await?;
        let home = Arc::new(watch::Sender::new(Home::Unknown));
        let grants = Grants::new(PostgresStore::clone(&postgres), site(config), home.subscribe());
        let link = Arc::new(RedisLink::new(client.clone()));
        let counters = self.shared_counters_over(link, Some(Arc::new(grants.clone())), ground).await?;
        let (timeout, epoch) = (config.storage.storage_timeout, config.worker.epoch);
        let redis = Arc::new(RedisStore::new(client, redis::Settings { epoch, timeout }));
        let place = RedisUrl::parse(redis_url.reveal()).map(|url| url.place()).unwrap_or_default();
        let data_dir = ground.data_dir.path().to_owned();
        let keeper = Housekeeper::new(redis.clone(), grants, place, data_dir, Arc::clone(&home));
        background.spawn(keeper.keep(background.clone()));
        let rules = Arc::new(MirroredRules::new(postgres.clone(), redis.clone(), home.subscribe()));
        background.spawn(Arc::clone(&rules).keep(background.clone()));
        let datacenter = config.worker.datacenter_id;
        let marks = Marks::new(PostgresStore::clone(&postgres), datacenter, epoch, home.subscribe());
        let leases: Arc<dyn WorkerStore> = Arc::new(redis.workers(datacenter));
        let leases = Arc::new(Confirmed::new(leases, Arc::new(marks)));
        Ok(Self {
            rules: Arc::new(CopiedRules::new(rules.clone(), self.local.clone())),
            counters: CountersByMode::two(Arc::new(counters.clone()), postgres.clone()),
            ledgers: postgres.clone(),
            idempotency: postgres.clone(),
            workers: self.workers_over(leases, ground)?,
            trail: postgres.clone(),
            shared: Some(Shared {
                name: REDIS,
                reachable: redis.client().reachable(),
                suspension: Some(postgres.suspension()),
                rules,
                temporary: postgres.clone(),
                counters,
                missing_for_strict: None,
                pool: Some(postgres.clone()),
                behind: Some(Behind { postgres, home: home.subscribe() }),
            }),
            ..self
        })
    }

    pub(super) async fn redis(&self, url: &Secret<String>, ground: Ground<'_>) -> Result<Client, BuildError> {
        let Ground { config, clock, metrics, .. } = ground;
        let options = redis::client::Options {
            ca_file: config.storage.redis_ca_file.clone(),
            timeout: config.storage.storage_timeout,
            clock: Arc::clone(clock),
            metrics: metrics.clone(),
        };
        Ok(Client::connect(url, options, &self.connections).await?)
    }
}

fn site(config: &Config) -> Site {
    Site { datacenter: config.worker.datacenter_id, datacenters: config.worker.datacenters }
}
