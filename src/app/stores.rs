//! The stores of a profile, opened: which URL is configured decides what is kept where.
//!
//! | | embedded | redis | full |
//! | --- | --- | --- | --- |
//! | counters | SQLite | Redis | Redis, inside what PostgreSQL grants |
//! | worker windows | SQLite | Redis | Redis, confirmed in PostgreSQL |
//! | rules | SQLite | Redis | PostgreSQL, mirrored in Redis |
//! | idempotency, temporary numbers | SQLite | Redis | PostgreSQL |
//! | strict ledgers | SQLite | nowhere: refused | PostgreSQL |
//! | copy of the rules, journal of temporary numbers | | SQLite | SQLite |
//!
//! SQLite in the data directory is always opened: its lock proves that no other process uses the directory. A Redis that is away is
//! connected to in the background.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{BuildError, full};
use crate::{
    clock::Clock,
    config::{Config, DataDir, NodeName},
    generate::{
        self,
        temporary::{Handover, Issuer, Resolver},
    },
    lifecycle::Lifecycle,
    rules::{Follower, Following, Registry},
    store::{
        CopiedRules, CounterStore, Home, IdempotencyStore, LedgerStore, MirroredRules, Nonce, RuleStore,
        SharedRules, TemporaryStore, WorkerStore,
        counters::{self, SharedCounters},
        postgres::{PostgresStore, grants::Grants},
        redis::{
            RedisStore, Settings,
            client::{Client, Options},
            counters::RedisLink,
        },
        sqlite::SqliteStore,
    },
    telemetry::Metrics,
    worker::Claimed,
};

/// What a configuration amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// Everything in the data directory.
    Embedded,
    /// What nodes share is in Redis.
    Redis,
    /// What must never be forgotten is in PostgreSQL, and Redis is the fast path.
    Full,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Redis => "redis",
            Self::Full => "full",
        })
    }
}

/// Every store that the configuration asks for.
pub(super) struct Stores {
    /// In the data directory.
    pub(super) local: Arc<SqliteStore>,
    /// What nodes share.
    pub(super) redis: Option<Arc<RedisStore>>,
    /// What must never be forgotten.
    pub(super) postgres: Option<PostgresStore>,
    /// Whether the data centre ID is that of this Redis.
    pub(super) home: Option<watch::Receiver<Home>>,
    /// The register of rules that nodes follow.
    register: Option<Arc<dyn SharedRules>>,
    /// Where temporary numbers of all nodes are resolved.
    resolution: Option<Arc<dyn TemporaryStore>>,
    /// The counters that nodes share: at the end, what this node holds of them is given up.
    pub(super) shared_counters: Option<SharedCounters>,
    pub(super) rules: Arc<dyn RuleStore>,
    pub(super) counters: Arc<dyn CounterStore>,
    pub(super) ledgers: Arc<dyn LedgerStore>,
    pub(super) idempotency: Arc<dyn IdempotencyStore>,
    pub(super) workers: Arc<dyn WorkerStore>,
    /// Connections to stores elsewhere: they end after everybody who calls.
    connections: Lifecycle,
}

impl Stores {
    /// Opens them.
    ///
    /// # Errors
    ///
    /// The data directory cannot be used, or a URL can never work.
    pub(super) async fn open(
        config: &Config,
        data_dir: &DataDir,
        node: &NodeName,
        background: &Lifecycle,
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Result<Self, BuildError> {
        let timeout = config.storage.storage_timeout;
        let local = SqliteStore::open(data_dir.path(), Arc::clone(clock), config.worker.epoch, timeout)?;
        let local = Arc::new(local.measured(metrics));
        let connections = Lifecycle::new();
        let mut stores = Self {
            redis: None,
            postgres: None,
            home: None,
            register: None,
            resolution: None,
            shared_counters: None,
            rules: local.clone(),
            counters: local.clone(),
            ledgers: local.clone(),
            idempotency: local.clone(),
            workers: local.clone(),
            connections: connections.clone(),
            local,
        };
        let Some(url) = &config.storage.redis_url else { return Ok(stores) };
        let options = Options {
            ca_file: config.storage.redis_ca_file.clone(),
            timeout,
            clock: Arc::clone(clock),
            metrics: metrics.clone(),
        };
        let client = Client::connect(url, options, &connections).await?;
        let settings = Settings { epoch: config.worker.epoch, timeout };
        let taking_part =
            counters::Settings { node: node.to_string(), segment_size: config.storage.segment_size, timeout };
        let link = Arc::new(RedisLink::new(client.clone()));
        stores.postgres = full::database(config, clock, metrics, &connections)?;
        let disk = stores.local.clone();
        let home = Arc::new(watch::Sender::new(Home::Unknown));
        let grants = stores
            .postgres
            .clone()
            .map(|postgres| Grants::new(postgres, full::site(config), home.subscribe()));
        let shared = match &grants {
            None => SharedCounters::start(link, disk, taking_part, background).await,
            Some(grants) => {
                let grants = Arc::new(grants.clone());
                SharedCounters::start_under_grants(link, grants, disk, taking_part, background).await
            }
        };
        let shared = shared.map_err(BuildError::Segments)?;
        stores.counters = Arc::new(shared.clone());
        stores.shared_counters = Some(shared);
        let redis = Arc::new(RedisStore::new(client, settings));
        stores.idempotency = redis.clone();
        stores.register = Some(redis.clone());
        stores.resolution = Some(redis.clone());
        let mut leases: Arc<dyn WorkerStore> = Arc::new(redis.workers(config.worker.datacenter_id));
        if let Some(postgres) = stores.postgres.clone() {
            stores.register = Some(Arc::new(MirroredRules::new(Arc::new(postgres.clone()), redis.clone())));
            stores.resolution = Some(Arc::new(postgres.clone()));
            stores.idempotency = Arc::new(postgres.clone());
            stores.ledgers = Arc::new(postgres.clone());
            leases = full::confirmed(config, leases, &postgres, &home);
        }
        if let Some(grants) = &grants {
            full::keep_home(config, &redis, grants, &home, data_dir, background);
            stores.home = Some(home.subscribe());
        }
        let register = stores.register.clone().unwrap_or_else(|| redis.clone());
        stores.rules = Arc::new(CopiedRules::new(register, stores.local.clone()));
        stores.workers = match config.worker.worker_id {
            None => leases,
            Some(_fixed) => {
                let identity = Nonce(data_dir.identity()?);
                Arc::new(Claimed::new(stores.local.clone(), leases, identity))
            }
        };
        stores.redis = Some(redis);
        Ok(stores)
    }

    /// Which profile this is.
    pub(super) fn profile(&self) -> Profile {
        match (&self.redis, &self.postgres) {
            (None, _) => Profile::Embedded,
            (Some(_), None) => Profile::Redis,
            (Some(_), Some(_)) => Profile::Full,
        }
    }

    /// How many data centres have counters of their own; where PostgreSQL grants values to each, they have them in common.
    pub(super) fn own_counters(&self, datacenters: u32) -> u32 {
        if self.profile() == Profile::Full { 1 } else { datacenters }
    }

    /// The setting that mode strict waits for, where it is not available.
    pub(super) fn missing_for_strict(&self) -> Option<&'static str> {
        (self.profile() == Profile::Redis).then_some("NUMGEN_DATABASE_URL")
    }

    /// What the engine draws from.
    pub(super) async fn for_engine(&self, node: &NodeName) -> Result<generate::Stores, BuildError> {
        let temporary = match self.profile() {
            // The counters are in this process: there is no outage for temporary numbers to bridge.
            Profile::Embedded => None,
            Profile::Redis | Profile::Full => {
                let issuer = Issuer::start(self.local.clone(), node.clone()).await;
                Some(Arc::new(issuer.map_err(BuildError::Journal)?))
            }
        };
        Ok(generate::Stores {
            counters: self.counters.clone(),
            ledgers: self.ledgers.clone(),
            idempotency: self.idempotency.clone(),
            temporary,
        })
    }

    /// Puts the rules in force; where they are kept elsewhere, from the local copy at first, and follows them from then on.
    pub(super) async fn load_rules(
        &self,
        registry: &Arc<Registry>,
        clock: &Arc<dyn Clock>,
        background: &Lifecycle,
    ) -> Result<Option<Arc<Following>>, BuildError> {
        let Some(register) = &self.register else {
            let loaded = registry.load().await.map_err(BuildError::Rules)?;
            for refused in &loaded.refused {
                let prefix_key = refused.key.as_str();
                tracing::error!(prefix_key, error = %refused.error, "rule not understood, left out");
            }
            return Ok(None);
        };
        let follower =
            Follower::start(registry.clone(), register.clone(), self.local.clone(), Arc::clone(clock));
        let follower = follower.await.map_err(BuildError::Rules)?;
        let following = Arc::clone(follower.following());
        background.spawn(follower.run(background.clone()));
        Ok(Some(following))
    }

    /// Who resolves temporary numbers; where others have a part in it, what this node makes is handed over.
    pub(super) fn resolver(&self, metrics: &Metrics, background: &Lifecycle) -> Resolver {
        let Some(shared) = &self.resolution else { return Resolver::new(self.local.clone(), None) };
        let open = metrics.gauges().temporary_numbers_open.clone();
        let handover = Handover::new(shared.clone(), self.local.clone(), open);
        background.spawn(handover.run(background.clone()));
        Resolver::new(shared.clone(), Some(self.local.clone()))
    }

    /// Ends connections and closes the data directory. After everything that calls.
    pub(super) async fn close(&self) {
        if let Some(counters) = &self.shared_counters {
            counters.leave(LEAVE_LIMIT).await;
        }
        self.connections.drain();
        self.connections.finished(CLOSE_LIMIT).await;
        self.local.close().await;
    }
}

/// How long giving up segments may take: the next process takes up the rest.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// How long connections may take to end.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
