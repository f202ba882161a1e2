//! Wires every part once, and runs them until they are told to stop.
//!
//! Order of the build: data directory, stores (`stores.rs`: what the profile asks for), worker window, rules, engine, keys,
//! listeners. Whatever fails, fails before the first request is accepted, and names the setting to look at.
//!
//! Order of the end: readiness fails, the listener closes, requests in flight finish, then what they needed stops (renewal of
//! the window last), the window is given back, the store is closed.

mod error;
mod gauges;
mod health;
mod meter;
pub mod otlp;
mod reload;
mod stores;
mod survey;
mod upkeep;
mod welcome;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::HeaderValue;
use tower_http::cors::{AllowOrigin, Any};

use crate::{
    api::{Admin, Api, Parts},
    auth::{self, Verifier},
    clock::Clock,
    config::{Config, DataDir, DataDirError, Jwt, NodeName, Origins, ProcessSource, Profile},
    generate::{self, Engine},
    lifecycle::Lifecycle,
    middleware::{
        cors::CorsLayer,
        rate_limit::{Limits, Rates, RuleLimits},
    },
    rules::{self, Registry},
    secret::Secret,
    server::{self, Server, Threads, Tls, TlsError},
    stack::{self, Public, PublicParts, Transport},
    telemetry::{Metrics, catalog, traces::Outbox},
    worker::{self, Sharing, Worker},
};

pub use error::BuildError;
pub use reload::Reload;

use gauges::{Gauges, Granting};
use health::Status;
use reload::{Replaceable, Tokens};
use stores::{Ground, Stores};
use survey::Survey;

/// In profile *embedded* the mark runs this far ahead of the clock, and is extended twice as often: a restart waits for nobody.
const EMBEDDED_WINDOW: Duration = Duration::from_secs(1);

/// Connections of the admin listener: probes and scrapes.
const ADMIN_CONNECTIONS: usize = 64;

/// How long the last spans may take; what sends them gives up before.
const SENDING_LIMIT: Duration = Duration::from_secs(5);

/// The whole service, wired and bound, not yet serving.
pub struct App {
    config: Config,
    data_dir: DataDir,
    node: NodeName,
    clock: Arc<dyn Clock>,
    secret: Option<Secret<String>>,
    serving: Lifecycle,
    background: Lifecycle,
    /// Spans on their way to a collector: ends after whatever makes some.
    sending: Lifecycle,
    stores: Stores,
    registry: Arc<Registry>,
    worker: Worker,
    status: Arc<Status>,
    public: Public,
    replaceable: Replaceable,
    public_server: Server,
    admin_server: Server,
}

impl App {
    /// Wires every part; spans that wait in `outbox` are sent from then on.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the part, and the setting to look at.
    pub async fn build(
        config: Config,
        clock: Arc<dyn Clock>,
        outbox: Option<Outbox>,
    ) -> Result<Self, BuildError> {
        let (serving, background) = (Lifecycle::new(), Lifecycle::new());
        let data_dir = DataDir::prepare(&config.storage.data_dir)?;
        let node = match &config.node.name {
            Some(name) => name.clone(),
            None => data_dir.node_name(&ProcessSource)?,
        };
        let metrics = Metrics::with_prefixes(config.metrics.prefixes);
        name_node(&metrics, &config, &node);
        let sending = Lifecycle::new();
        let spans = outbox.as_ref().map(Outbox::counts).unwrap_or_default();
        if let Some(outbox) = outbox {
            let carrier = otlp::Carrier::new(&config.traces).map_err(BuildError::Collector)?;
            sending.spawn(outbox.send(carrier, sending.clone()).map_err(BuildError::Traces)?);
        }
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
        let ids = Arc::clone(worker.ids());
        let engine = Engine::new(
            engine_settings(&config),
            stores.for_engine(&node, &metrics).await?,
            ids,
            &background,
        );
        let registry = Registry::new(
            stores.rules.clone(),
            stores.counters.clone(),
            Arc::clone(&clock),
            rules::Settings {
                datacenters: stores.own_counters(config.worker.datacenters),
                origin: engine.origin(),
                layout: config.worker.layout,
                epoch: config.worker.epoch,
                strict: stores.missing_for_strict(),
            },
        );
        let registry = Arc::new(registry.recorded_on(stores.trail.clone()));
        let following = stores.load_rules(&registry, &clock, &background).await?;
        let accepted = accepted_tokens::<BuildError>(&config.jwt, &data_dir)?;
        let secret = accepted.secret.clone();
        let verifier = Verifier::start(&accepted, Arc::clone(&clock), &background)?;
        let tls = tls(&config)?;
        let (public_server, admin_server) = bind(&config, tls.clone()).await?;
        let gauges = Gauges {
            metrics: metrics.clone(),
            worker: worker.clone(),
            epoch: config.worker.epoch,
            rules: Arc::clone(&registry),
            connections: public_server.open_connections(),
            shared_counters: stores.shared_counters().cloned(),
            is_granted: if stores.behind().is_some() { Granting::Granted } else { Granting::Own },
            stores: stores.states(),
            postgres: stores.pool(),
            shown: Mutex::default(),
            spans,
        };
        gauges.watch_outages(&background);
        let survey = Survey {
            metrics: metrics.clone(),
            clock: Arc::clone(&clock),
            rules: Arc::clone(&registry),
            counters: stores.counters.clone(),
            ledgers: stores.missing_for_strict().is_none().then(|| stores.ledgers.clone()),
            worker: worker.clone(),
            every: config.metrics.survey_interval,
            prefixes: config.metrics.prefixes,
        };
        survey.start(&background);
        let status = Status::new(health::Parts {
            worker: worker.clone(),
            rules: Arc::clone(&registry),
            following,
            elsewhere: stores.elsewhere(),
            postgres: stores.behind().map(|behind| behind.postgres.reachable()),
            suspension: stores.suspension(),
            home: stores.behind().map(|behind| behind.home.clone()),
            verifier: Arc::clone(&verifier),
            gauges,
        });
        let api = Api::new(Parts {
            rules: Arc::clone(&registry),
            engine: Arc::new(engine),
            counters: stores.counters.clone(),
            ledgers: stores.ledgers.clone(),
            temporary: Arc::new(stores.resolver(&metrics, &background)),
            trail: stores.trail.clone(),
            clock: Arc::clone(&clock),
            body_timeout: config.limits.body_timeout,
            request_timeout: config.limits.request_timeout,
            meter: Arc::new(meter::Issued::new(metrics.clone())),
            rule_limits: RuleLimits::new(Arc::clone(&clock)),
        });
        let limits = Limits::new(Rates::from(&config.rate_limits), Arc::clone(&clock));
        let tokens = Tokens {
            verifier: Arc::clone(&verifier),
            data_dir: data_dir.clone(),
            jwks_url: config.jwt.jwks_url.clone(),
        };
        let replaceable = Replaceable::new(&config, Arc::clone(&limits), tls, tokens);
        let public = Public::new(PublicParts {
            api,
            proxies: config.http.trusted_proxies.clone().into(),
            cors: cors(&config.http.cors_origins),
            metrics: metrics.clone(),
            verifier,
            limits,
            max_waiting: config.limits.max_waiting,
            threads: cores(),
            transport: if replaceable.tls.is_some() { Transport::Tls } else { Transport::Plain },
            access_sample: config.log.access_sample,
            clock: Arc::clone(&clock),
        });
        Ok(Self {
            config,
            data_dir,
            node,
            clock,
            secret,
            serving,
            background,
            sending,
            stores,
            registry,
            worker,
            status,
            public,
            replaceable,
            public_server,
            admin_server,
        })
    }

    /// Where the API listens.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.public_server.local_address()
    }

    /// Where the admin listener listens.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin_server.local_address()
    }

    /// Serves until `stop` resolves, then drains; meanwhile follows `reload`.
    ///
    /// # Errors
    ///
    /// The operating system gives no threads.
    pub async fn run(self, stop: impl Future<Output = ()>, reload: Reload) -> Result<(), BuildError> {
        self.welcome().await?;
        let http_threads = Arc::new(Threads::start(cores()).map_err(BuildError::Threads)?);
        let admin_threads = Arc::new(Threads::start(1).map_err(BuildError::Threads)?);
        let public = self.public.clone();
        let serve = self
            .public_server
            .serve(Arc::clone(&http_threads), self.serving.clone(), move |peer| public.connection(peer));
        self.serving.spawn(serve);
        let admin = Admin::new(self.status.clone());
        let serve_admin =
            self.admin_server.serve(Arc::clone(&admin_threads), self.background.clone(), move |peer| {
                stack::admin(admin.clone(), peer)
            });
        self.background.spawn(serve_admin);
        upkeep::start(&self.background, &self.stores, &self.clock);
        self.background.spawn(self.replaceable.follow(reload, self.background.clone()));

        stop.await;
        tracing::info!("stopping: finishing requests in flight");
        self.status.drain();
        self.serving.drain();
        let unfinished = self.serving.finished(self.config.limits.shutdown_grace).await;
        if unfinished > 0 {
            tracing::warn!(connections = unfinished, "connections cut off at the end of the grace period");
        }
        self.background.drain();
        self.background.finished(Duration::from_secs(1)).await;
        // Only now: dropping the threads drops the connections that run on them.
        drop((http_threads, admin_threads));
        if let Err(error) = self.worker.release().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "worker window not given back");
        }
        self.stores.close().await;
        self.sending.drain();
        self.sending.finished(SENDING_LIMIT).await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Shows which node this is.
fn name_node(metrics: &Metrics, config: &Config, node: &NodeName) {
    let (datacenter, profile) = (config.worker.datacenter_id.to_string(), config.profile().to_string());
    let labels = [("node", node.as_str()), ("datacenter", &datacenter), ("profile", &profile)];
    metrics.gauge(&catalog::NODE_INFO, &labels).set(1.0);
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
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

fn engine_settings(config: &Config) -> generate::Settings {
    generate::Settings {
        layout: config.worker.layout,
        epoch: config.worker.epoch,
        datacenter: config.worker.datacenter_id,
        storage_timeout: config.storage.storage_timeout,
        idempotency_ttl: config.storage.idempotency_ttl,
    }
}

/// Which tokens are accepted: those of the configured keys; where there is none, those of the secret of the data directory.
fn accepted_tokens<E>(jwt: &Jwt, data_dir: &DataDir) -> Result<auth::Settings, E>
where
    E: From<auth::SetupError> + From<DataDirError>,
{
    let configured = auth::Settings::read(jwt)?;
    if jwt.has_key() {
        return Ok(configured);
    }
    Ok(auth::Settings { secret: Some(data_dir.signing_secret()?), ..configured })
}

/// Which browsers may call: none unless configured.
fn cors(origins: &Origins) -> Option<CorsLayer> {
    match origins {
        Origins::None => None,
        Origins::Any => Some(CorsLayer::new(Any)),
        Origins::Only(list) => {
            let list = list.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
            Some(CorsLayer::new(AllowOrigin::list(list)))
        }
    }
}

fn tls(config: &Config) -> Result<Option<Tls>, TlsError> {
    config.listen.tls().map(|files| Tls::from_files(files.cert.into(), files.key.into())).transpose()
}

async fn bind(config: &Config, tls: Option<Tls>) -> Result<(Server, Server), BuildError> {
    let limits = server::Limits {
        max_connections: config.limits.max_connections,
        max_requests: config.limits.max_requests,
        header_timeout: config.limits.header_timeout,
        idle_timeout: config.limits.idle_timeout,
    };
    let connections = limits.max_connections.saturating_add(ADMIN_CONNECTIONS);
    if let Err(error) = server::allow_connections(connections) {
        tracing::warn!(setting = "NUMGEN_MAX_CONNECTIONS", "{error}");
    }
    let in_use = |setting, address| move |source| BuildError::Bind { setting, address, source };
    let public = Server::bind(config.listen.public, tls, limits)
        .await
        .map_err(in_use("NUMGEN_LISTEN", config.listen.public))?;
    let admin_limits = server::Limits { max_connections: ADMIN_CONNECTIONS, ..limits };
    let admin = Server::bind(config.listen.admin, None, admin_limits)
        .await
        .map_err(in_use("NUMGEN_ADMIN_LISTEN", config.listen.admin))?;
    Ok((public, admin))
}
