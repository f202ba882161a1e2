//! What everything else stands on: the data directory, the stores, the worker window; and the parts that are made of little else.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    BuildError,
    gauges::{Gauges, Granting},
    health::{self, Status},
    meter,
    stores::{Ground, Stores},
    survey::Survey,
};
use crate::{
    api::{Api, Parts},
    auth::Verifier,
    clock::Clock,
    config::{Config, DataDir, NodeName, ProcessSource, Profile},
    generate::{self, Engine},
    lifecycle::Lifecycle,
    middleware::rate_limit::RuleLimits,
    rules::{self, Following, Registry},
    server::OpenConnections,
    telemetry::{Metrics, catalog, traces::SpanCounts},
    worker::{self, Sharing, Worker},
};

/// In profile *embedded* the mark runs this far ahead of the clock, and is extended twice as often: a restart waits for nobody.
const EMBEDDED_WINDOW: Duration = Duration::from_secs(1);

pub(super) struct Foundation {
    pub(super) config: Config,
    pub(super) data_dir: DataDir,
    pub(super) node: NodeName,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    /// Drains after the last request.
    pub(super) background: Lifecycle,
    pub(super) stores: Stores,
    pub(super) worker: Worker,
}

impl Foundation {
    /// Opens the stores, and takes a window.
    ///
    /// # Errors
    ///
    /// The data directory or a store cannot be used, or the first window cannot be had.
    pub(super) async fn lay(
        config: Config,
        data_dir: DataDir,
        background: Lifecycle,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let node = match &config.node.name {
            Some(name) => name.clone(),
            None => data_dir.node_name(&ProcessSource)?,
        };
        let metrics = Metrics::with_prefixes(config.metrics.prefixes);
        name_node(&metrics, &config, &node);
        let ground = Ground {
            config: &config,
            data_dir: &data_dir,
            node: &node,
            background: &background,
            clock: &clock,
            metrics: &metrics,
        };
        let stores = Stores::open(ground).await?;
        let worker = hold_worker(&stores, &config, &clock).await?;
        background.spawn(worker.clone().keep(background.clone()));
        Ok(Self { config, data_dir, node, clock, metrics, background, stores, worker })
    }

    /// What issues numbers.
    pub(super) async fn engine(&self) -> Result<Engine, BuildError> {
        let Config { worker, storage, .. } = &self.config;
        let settings = generate::Settings {
            layout: worker.layout,
            epoch: worker.epoch,
            datacenter: worker.datacenter_id,
            storage_timeout: storage.storage_timeout,
            idempotency_ttl: storage.idempotency_ttl,
        };
        let stores = self.stores.for_engine(&self.node, &self.metrics).await?;
        Ok(Engine::new(settings, stores, Arc::clone(self.worker.ids()), &self.background))
    }

    /// The rules that `engine` issues by; none are loaded yet.
    pub(super) fn registry(&self, engine: &Engine) -> Arc<Registry> {
        let Config { worker, .. } = &self.config;
        let settings = rules::Settings {
            datacenters: self.stores.own_counters(worker.datacenters),
            origin: engine.origin(),
            layout: worker.layout,
            epoch: worker.epoch,
            strict: self.stores.missing_for_strict(),
        };
        let (rules, counters) = (self.stores.rules.clone(), self.stores.counters.clone());
        let registry = Registry::new(rules, counters, Arc::clone(&self.clock), settings);
        Arc::new(registry.recorded_on(self.stores.trail.clone()))
    }

    /// Answers requests; what of them must be finished is finished by the end of `serving`.
    pub(super) fn api(
        &self,
        rules: &Arc<Registry>,
        following: Option<Arc<Following>>,
        engine: Engine,
        serving: Lifecycle,
    ) -> Api {
        let (stores, limits) = (&self.stores, &self.config.limits);
        Api::new(Parts {
            rules: Arc::clone(rules),
            following,
            engine: Arc::new(engine),
            counters: stores.counters.clone(),
            ledgers: stores.ledgers.clone(),
            temporary: Arc::new(stores.resolver(&self.metrics, &self.background)),
            trail: stores.trail.clone(),
            clock: Arc::clone(&self.clock),
            body_timeout: limits.body_timeout,
            request_timeout: limits.request_timeout,
            meter: Arc::new(meter::Issued::new(self.metrics.clone())),
            rule_limits: RuleLimits::new(Arc::clone(&self.clock)),
            serving,
        })
    }

    /// Shows what this node knows.
    pub(super) fn gauges(
        &self,
        rules: &Arc<Registry>,
        connections: OpenConnections,
        spans: SpanCounts,
    ) -> Gauges {
        let stores = &self.stores;
        Gauges {
            metrics: self.metrics.clone(),
            worker: self.worker.clone(),
            epoch: self.config.worker.epoch,
            rules: Arc::clone(rules),
            connections,
            shared_counters: stores.shared_counters().cloned(),
            is_granted: if stores.behind().is_some() { Granting::Granted } else { Granting::Own },
            stores: stores.states(),
            postgres: stores.pool(),
            shown: Mutex::default(),
            spans,
        }
    }

    /// Shows what the stores know.
    pub(super) fn survey(&self, rules: &Arc<Registry>) -> Survey {
        let (stores, metrics) = (&self.stores, &self.config.metrics);
        Survey {
            metrics: self.metrics.clone(),
            clock: Arc::clone(&self.clock),
            rules: Arc::clone(rules),
            counters: stores.counters.clone(),
            ledgers: stores.missing_for_strict().is_none().then(|| stores.ledgers.clone()),
            worker: self.worker.clone(),
            every: metrics.survey_interval,
            prefixes: metrics.prefixes,
        }
    }

    /// Answers probes.
    pub(super) fn status(
        &self,
        rules: &Arc<Registry>,
        following: Option<Arc<Following>>,
        verifier: &Arc<Verifier>,
        gauges: Gauges,
    ) -> Arc<Status> {
        let behind = self.stores.behind();
        Status::new(health::Parts {
            worker: self.worker.clone(),
            rules: Arc::clone(rules),
            following,
            elsewhere: self.stores.elsewhere(),
            postgres: behind.map(|behind| behind.postgres.reachable()),
            suspension: self.stores.suspension(),
            home: behind.map(|behind| behind.home.clone()),
            verifier: Arc::clone(verifier),
            gauges,
        })
    }
}

/// Shows which node this is.
fn name_node(metrics: &Metrics, config: &Config, node: &NodeName) {
    let (datacenter, profile) = (config.worker.datacenter_id.to_string(), config.profile().to_string());
    let labels = [("node", node.as_str()), ("datacenter", &datacenter), ("profile", &profile)];
    metrics.gauge(&catalog::NODE_INFO, &labels).set(1.0);
}

/// The window that IDs are issued from: a short one of a store that nobody else uses, or a lease of one that nodes share.
async fn hold_worker(stores: &Stores, config: &Config, clock: &Arc<dyn Clock>) -> Result<Worker, BuildError> {
    let Config { worker, .. } = config;
    let common = worker::Settings {
        layout: worker.layout,
        datacenter: worker.datacenter_id,
        slots: worker.worker_id.map_or(0..1, |slot| slot..slot + 1),
        window: EMBEDDED_WINDOW,
        renew_every: EMBEDDED_WINDOW / 2,
        ttl: worker.ttl,
        max_ahead: worker.max_ahead,
        sharing: Sharing::Exclusive,
    };
    let settings = match config.profile() {
        Profile::Embedded => {
            pin_layout(stores, config).await?;
            common
        }
        // The mark of a fixed worker ID is kept here; it is claimed in the store that nodes share.
        Profile::Redis | Profile::Postgres | Profile::Full if worker.worker_id.is_some() => {
            worker::Settings { sharing: Sharing::Shared { pinned: worker.pinned_layout() }, ..common }
        }
        Profile::Redis | Profile::Postgres | Profile::Full => worker::Settings {
            slots: 0..worker.layout.max_worker() + 1,
            window: worker.window,
            renew_every: worker::Settings::RENEW_EVERY,
            sharing: Sharing::Shared { pinned: worker.pinned_layout() },
            ..common
        },
    };
    Worker::start(stores.workers.clone(), settings, Arc::clone(clock)).await.map_err(BuildError::Window)
}

/// What decides which ID means what must never change under IDs that were issued.
async fn pin_layout(stores: &Stores, config: &Config) -> Result<(), BuildError> {
    let wanted = config.worker.pinned_layout();
    let recorded = stores.workers.pin_layout(&wanted).await.map_err(BuildError::Worker)?;
    if recorded == wanted { Ok(()) } else { Err(BuildError::LayoutDiffers { recorded, wanted }) }
}
