//! The stores of a profile, opened: which URL is configured decides what is kept where.
//!
//! | | embedded | redis | postgres | full |
//! | --- | --- | --- | --- | --- |
//! | counters | SQLite | Redis | PostgreSQL | Redis, inside what PostgreSQL grants |
//! | worker windows | SQLite | Redis | PostgreSQL | Redis, confirmed in PostgreSQL |
//! | rules | SQLite | Redis | PostgreSQL | PostgreSQL, mirrored in Redis |
//! | idempotency, temporary numbers, audit trail | SQLite | Redis | PostgreSQL | PostgreSQL |
//! | strict ledgers | SQLite | nowhere: refused | PostgreSQL | PostgreSQL |
//! | copy of the rules, segments, journal of temporary numbers | | SQLite | SQLite | SQLite |
//!
//! SQLite in the data directory is always opened: its lock proves that no other process uses the directory. A store that is away is
//! connected to in the background.

mod full;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use self::full::Behind;
use super::BuildError;
use crate::{
    clock::Clock,
    config::{Config, DataDir, NodeName},
    generate::{
        self,
        temporary::{Handover, Issuer, Resolver},
    },
    lifecycle::Lifecycle,
    rule::Mode,
    rules::{Follower, Following, Registry},
    secret::Secret,
    store::{
        AuditStore, CopiedRules, CounterStore, CountersByMode, IdempotencyStore, LedgerStore, Nonce,
        Reachable, RuleStore, SharedRules, Suspension, TemporaryStore, WorkerStore,
        counters::{self, AuthorityLink, GrantLink, SharedCounters},
        postgres::{self, PostgresStore, counters::PostgresLink},
        redis::{self, RedisStore, counters::RedisLink},
        sqlite::SqliteStore,
    },
    telemetry::Metrics,
    worker::Claimed,
};

/// Every store that the configuration asks for.
pub(super) struct Stores {
    /// In the data directory.
    pub(super) local: Arc<SqliteStore>,
    /// What nodes share, if they do.
    shared: Option<Shared>,
    pub(super) rules: Arc<dyn RuleStore>,
    pub(super) counters: CountersByMode,
    pub(super) ledgers: Arc<dyn LedgerStore>,
    pub(super) idempotency: Arc<dyn IdempotencyStore>,
    pub(super) workers: Arc<dyn WorkerStore>,
    /// Who changed what: kept where rules are.
    pub(super) trail: Arc<dyn AuditStore>,
    /// Connections to stores elsewhere: they end after everybody who calls.
    connections: Lifecycle,
}

/// A store that nodes share.
struct Shared {
    name: &'static str,
    reachable: watch::Receiver<Reachable>,
    rules: Arc<dyn SharedRules>,
    temporary: Arc<dyn TemporaryStore>,
    /// At the end, what this node holds of them is given up.
    counters: SharedCounters,
    suspension: Option<watch::Receiver<Option<Suspension>>>,
    /// The setting that mode strict waits for.
    missing_for_strict: Option<&'static str>,
    /// The PostgreSQL among them.
    pool: Option<Arc<PostgresStore>>,
    /// What is behind it.
    behind: Option<Behind>,
}

/// What every store is opened with.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) config: &'a Config,
    pub(super) data_dir: &'a DataDir,
    pub(super) node: &'a NodeName,
    pub(super) background: &'a Lifecycle,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) metrics: &'a Metrics,
}

impl Stores {
    /// Opens them.
    ///
    /// # Errors
    ///
    /// The data directory cannot be used, a URL can never work, or a database must not be used.
    pub(super) async fn open(ground: Ground<'_>) -> Result<Self, BuildError> {
        let Ground { config, data_dir, clock, metrics, .. } = ground;
        let (timeout, epoch) = (config.storage.storage_timeout, config.worker.epoch);
        let local = SqliteStore::open(data_dir.path(), Arc::clone(clock), epoch, timeout)?;
        let local = Arc::new(local.measured(metrics));
        let stores = Self {
            shared: None,
            rules: local.clone(),
            counters: CountersByMode::one(local.clone()),
            ledgers: local.clone(),
            idempotency: local.clone(),
            workers: local.clone(),
            trail: local.clone(),
            connections: Lifecycle::new(),
            local,
        };
        match (&config.storage.redis_url, &config.storage.database_url) {
            (Some(redis), Some(database)) => stores.on_both(redis, database, ground).await,
            (None, Some(url)) => stores.on_postgres(url, ground).await,
            (Some(url), None) => stores.on_redis(url, ground).await,
            (None, None) => Ok(stores),
        }
    }

    async fn on_redis(self, url: &Secret<String>, ground: Ground<'_>) -> Result<Self, BuildError> {
        let config = ground.config;
        let timeout = config.storage.storage_timeout;
        let client = self.redis(url, ground).await?;
        let link = Arc::new(RedisLink::new(client.clone()));
        let counters = self.shared_counters_over(link, None, ground).await?;
        let store =
            Arc::new(RedisStore::new(client, redis::Settings { epoch: config.worker.epoch, timeout }));
        let leases = Arc::new(store.workers(config.worker.datacenter_id));
        Ok(Self {
            rules: Arc::new(CopiedRules::new(store.clone(), self.local.clone())),
            counters: CountersByMode::one(Arc::new(counters.clone())),
            idempotency: store.clone(),
            workers: self.workers_over(leases, ground)?,
            trail: store.clone(),
            shared: Some(Shared {
                name: REDIS,
                reachable: store.client().reachable(),
                rules: store.clone(),
                temporary: store,
                counters,
                suspension: None,
                missing_for_strict: Some("NUMGEN_DATABASE_URL"),
                pool: None,
                behind: None,
            }),
            ..self
        })
    }

    async fn on_postgres(self, url: &Secret<String>, ground: Ground<'_>) -> Result<Self, BuildError> {
        let Ground { config, background, .. } = ground;
        let store = Arc::new(self.postgres(url, ground)?);
        store.first_look(FIRST_LOOK).await?;
        let link = PostgresLink::new(PostgresStore::clone(&store), background);
        let counters = self.shared_counters_over(Arc::new(link), None, ground).await?;
        let leases = Arc::new(store.workers(config.worker.datacenter_id, config.worker.epoch));
        Ok(Self {
            rules: Arc::new(CopiedRules::new(store.clone(), self.local.clone())),
            counters: CountersByMode::two(Arc::new(counters.clone()), store.clone()),
            ledgers: store.clone(),
            idempotency: store.clone(),
            workers: self.workers_over(leases, ground)?,
            trail: store.clone(),
            shared: Some(Shared {
                name: POSTGRES,
                reachable: store.reachable(),
                suspension: Some(store.suspension()),
                rules: store.clone(),
                temporary: store.clone(),
                counters,
                missing_for_strict: None,
                pool: Some(store),
                behind: None,
            }),
            ..self
        })
    }

    fn postgres(&self, url: &Secret<String>, ground: Ground<'_>) -> Result<PostgresStore, BuildError> {
        let Ground { config, clock, metrics, .. } = ground;
        let settings = postgres::Settings {
            clock: Arc::clone(clock),
            timeout: config.storage.storage_timeout,
            locking: config.storage.strict_locking,
            pool_size: config.storage.database_pool_size,
            node: Some(ground.node.to_string()),
            ca_file: config.storage.database_ca_file.clone(),
        };
        Ok(PostgresStore::connect(url, settings, metrics, &self.connections)?)
    }

    async fn shared_counters_over(
        &self,
        link: Arc<dyn AuthorityLink>,
        grants: Option<Arc<dyn GrantLink>>,
        ground: Ground<'_>,
    ) -> Result<SharedCounters, BuildError> {
        let storage = &ground.config.storage;
        let settings = counters::Settings {
            node: ground.node.to_string(),
            segment_size: storage.segment_size,
            timeout: storage.storage_timeout,
        };
        let (disk, background) = (self.local.clone(), ground.background);
        let started = match grants {
            None => SharedCounters::start(link, disk, settings, background).await,
            Some(grants) => {
                SharedCounters::start_under_grants(link, grants, disk, settings, background).await
            }
        };
        started.map_err(BuildError::Segments)
    }

    /// Worker IDs are leased, or the operator's own is claimed.
    fn workers_over(
        &self,
        leases: Arc<dyn WorkerStore>,
        ground: Ground<'_>,
    ) -> Result<Arc<dyn WorkerStore>, BuildError> {
        Ok(match ground.config.worker.worker_id {
            None => leases,
            Some(_fixed) => {
                let identity = Nonce(ground.data_dir.identity()?);
                Arc::new(Claimed::new(self.local.clone(), leases, identity))
            }
        })
    }

    /// The store that nodes share, by its name, and whether it can be asked.
    pub(super) fn elsewhere(&self) -> Option<(&'static str, watch::Receiver<Reachable>)> {
        self.shared.as_ref().map(|shared| (shared.name, shared.reachable.clone()))
    }

    /// Why strict numbers are not issued, where that may happen.
    pub(super) fn suspension(&self) -> Option<watch::Receiver<Option<Suspension>>> {
        self.shared.as_ref().and_then(|shared| shared.suspension.clone())
    }

    /// The store of continuous counters, by its name.
    fn name(&self) -> &'static str {
        self.shared.as_ref().map_or(SQLITE, |shared| shared.name)
    }

    /// The store of ledgers, by its name.
    fn name_of_ledgers(&self) -> &'static str {
        if self.pool().is_some() { POSTGRES } else { SQLITE }
    }

    /// Every store elsewhere, by its name, and whether it can be asked; the one that leases worker IDs first.
    pub(super) fn states(&self) -> Vec<(&'static str, watch::Receiver<Reachable>)> {
        let behind = self.behind().map(|behind| (POSTGRES, behind.postgres.reachable()));
        self.elsewhere().into_iter().chain(behind).collect()
    }

    /// The PostgreSQL, if there is one.
    pub(super) fn pool(&self) -> Option<Arc<PostgresStore>> {
        self.shared.as_ref().and_then(|shared| shared.pool.clone())
    }

    /// The PostgreSQL behind a Redis.
    pub(super) fn behind(&self) -> Option<&Behind> {
        self.shared.as_ref().and_then(|shared| shared.behind.as_ref())
    }

    /// How many data centres have counters of their own; where PostgreSQL grants values to each, they have them in common.
    pub(super) fn own_counters(&self, datacenters: u32) -> u32 {
        if self.behind().is_some() { 1 } else { datacenters }
    }

    /// The counters that nodes share.
    pub(super) fn shared_counters(&self) -> Option<&SharedCounters> {
        self.shared.as_ref().map(|shared| &shared.counters)
    }

    /// The setting that mode strict waits for, where it is not available.
    pub(super) fn missing_for_strict(&self) -> Option<&'static str> {
        self.shared.as_ref().and_then(|shared| shared.missing_for_strict)
    }

    /// What the engine draws from.
    pub(super) async fn for_engine(
        &self,
        node: &NodeName,
        metrics: &Metrics,
    ) -> Result<generate::Stores, BuildError> {
        let temporary = match &self.shared {
            // The counters are in this process: there is no outage for temporary numbers to bridge.
            None => None,
            Some(_) => {
                let issuer = Issuer::start(self.local.clone(), node.clone()).await;
                Some(Arc::new(issuer.map_err(BuildError::Journal)?))
            }
        };
        let counters: &Arc<dyn CounterStore> = self.counters.of(Mode::Continuous);
        Ok(generate::Stores {
            counters: counters.clone(),
            ledgers: self.ledgers.clone(),
            idempotency: self.idempotency.clone(),
            temporary,
            batches: [
                metrics.batch_requests(Mode::Continuous.as_str(), self.name()),
                metrics.batch_requests(Mode::Strict.as_str(), self.name_of_ledgers()),
            ],
        })
    }

    /// Puts the rules in force; where they are kept elsewhere, from the local copy at first, and follows them from then on.
    pub(super) async fn load_rules(
        &self,
        registry: &Arc<Registry>,
        clock: &Arc<dyn Clock>,
        background: &Lifecycle,
    ) -> Result<Option<Arc<Following>>, BuildError> {
        let Some(shared) = &self.shared else {
            let loaded = registry.load().await.map_err(BuildError::Rules)?;
            for refused in &loaded.refused {
                let prefix_key = refused.key.as_str();
                tracing::error!(prefix_key, error = %refused.error, "rule not understood, left out");
            }
            return Ok(None);
        };
        let (rules, copies) = (shared.rules.clone(), self.local.clone());
        let follower = Follower::start(registry.clone(), rules, copies, Arc::clone(clock)).await;
        let follower = follower.map_err(BuildError::Rules)?;
        let following = Arc::clone(follower.following());
        background.spawn(follower.run(background.clone()));
        Ok(Some(following))
    }

    /// Who resolves temporary numbers; where others have a part in it, what this node makes is handed over.
    pub(super) fn resolver(&self, metrics: &Metrics, background: &Lifecycle) -> Resolver {
        let Some(shared) = &self.shared else { return Resolver::new(self.local.clone(), None) };
        let open = metrics.gauges().temporary_numbers_open.clone();
        let handover = Handover::new(shared.temporary.clone(), self.local.clone(), open);
        background.spawn(handover.run(background.clone()));
        Resolver::new(shared.temporary.clone(), Some(self.local.clone()))
    }

    /// Ends connections and closes the data directory. After everything that calls.
    pub(super) async fn close(&self) {
        if let Some(shared) = &self.shared {
            shared.counters.leave(LEAVE_LIMIT).await;
        }
        self.connections.drain();
        self.connections.finished(CLOSE_LIMIT).await;
        self.local.close().await;
    }
}

/// The names of stores in metrics.
const SQLITE: &str = "sqlite";
const REDIS: &str = "redis";
const POSTGRES: &str = "postgres";

/// How long a start waits to hear whether the database must not be used. One that is away does not hold it up.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// How long giving up segments may take: the next process takes up the rest.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// How long connections may take to end.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
