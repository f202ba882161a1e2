//! Wires every part once, and runs them until they are told to stop.
//!
//! Order of the build: addresses and certificate (`entrance.rs`), data directory, keys; stores (`stores.rs`: what the profile asks
//! for), worker window (both: `foundation.rs`), engine, rules, listeners. Whatever fails, fails before the first request is accepted,
//! and names the setting to look at. What a mistake in a setting can spoil comes before the window: a process that ends without
//! giving it back keeps a worker ID from others until it runs out.
//!
//! Order of the end: readiness fails, the listener closes, requests in flight finish, then what they needed stops (renewal of
//! the window last), the window is given back, the store is closed.

mod entrance;
mod error;
mod foundation;
mod gauges;
mod health;
mod meter;
pub mod otlp;
mod reload;
mod stores;
mod survey;
#[cfg(test)]
mod tests;
mod upkeep;
mod welcome;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::HeaderValue;
use tower_http::cors::{AllowOrigin, Any};

use crate::{
    api::{self, Admin},
    auth::{self, Verifier},
    clock::Clock,
    config::{Config, DataDir, DataDirError, Jwt, Origins},
    lifecycle::Lifecycle,
    middleware::{
        cors::CorsLayer,
        rate_limit::{Limits, Rates},
    },
    rules::Registry,
    secret::Secret,
    server::{Server, Threads},
    stack::{self, Public, PublicParts, Transport},
    telemetry::traces::Outbox,
};

pub use error::BuildError;
pub use reload::Reload;

use entrance::Entrance;
use foundation::Foundation;
use health::Status;
use reload::{Replaceable, Tokens};

/// How long the last spans may take; what sends them gives up before.
const SENDING_LIMIT: Duration = Duration::from_secs(5);

/// The whole service, wired and bound, not yet serving.
pub struct App {
    base: Foundation,
    secret: Option<Secret<String>>,
    serving: Lifecycle,
    /// Spans on their way to a collector: ends after whatever makes some.
    sending: Lifecycle,
    registry: Arc<Registry>,
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
        let sending = Lifecycle::new();
        let spans = outbox.as_ref().map(Outbox::counts).unwrap_or_default();
        if let Some(outbox) = outbox {
            let carrier = otlp::Carrier::new(&config.traces).map_err(BuildError::Collector)?;
            sending.spawn(outbox.send(carrier, sending.clone()).map_err(BuildError::Traces)?);
        }
        let entrance = Entrance::take(&config.listen)?;
        let (tls, background) = (entrance.tls.clone(), Lifecycle::new());
        let data_dir = DataDir::prepare(&config.storage.data_dir)?;
        let accepted = accepted_tokens::<BuildError>(&config.jwt, &data_dir)?;
        let verifier = Verifier::start(&accepted, Arc::clone(&clock), &background)?;
        let base = Foundation::lay(config, data_dir, background, clock).await?;
        let Foundation { config, data_dir, clock, background, .. } = &base;
        let engine = base.engine().await?;
        let registry = base.registry(&engine);
        let following = base.stores.load_rules(&registry, clock, background).await?;
        let (public_server, admin_server) = entrance.open(config)?;
        let gauges = base.gauges(&registry, public_server.open_connections(), spans);
        gauges.watch_outages(background);
        base.survey(&registry).start(background);
        let status = base.status(&registry, following.clone(), &verifier, gauges);
        let limits = Limits::new(Rates::from(&config.rate_limits), Arc::clone(clock));
        let tokens = Tokens {
            verifier: Arc::clone(&verifier),
            data_dir: data_dir.clone(),
            jwks_url: config.jwt.jwks_url.clone(),
        };
        let replaceable = Replaceable::new(config, Arc::clone(&limits), tls, tokens);
        let serving = Lifecycle::new();
        let public = Public::new(PublicParts {
            api: base.api(&registry, following, engine, serving.clone()),
            proxies: config.http.trusted_proxies.clone().into(),
            cors: cors(&config.http.cors_origins),
            metrics: base.metrics.clone(),
            verifier,
            limits,
            max_waiting: config.limits.max_waiting,
            threads: cores(),
            transport: if replaceable.tls.is_some() { Transport::Tls } else { Transport::Plain },
            access_sample: config.log.access_sample,
            clock: Arc::clone(clock),
        });
        Ok(Self {
            secret: accepted.secret,
            serving,
            sending,
            registry,
            status,
            public,
            replaceable,
            public_server,
            admin_server,
            base,
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
        let Self { base, serving, sending, status, public, .. } = self;
        let http_threads = Arc::new(Threads::start(cores()).map_err(BuildError::Threads)?);
        let admin_threads = Arc::new(Threads::start(1).map_err(BuildError::Threads)?);
        let serve = self
            .public_server
            .serve(Arc::clone(&http_threads), serving.clone(), move |peer| public.connection(peer));
        serving.spawn(serve);
        let admin = Admin::new(status.clone());
        let serve_admin =
            self.admin_server.serve(Arc::clone(&admin_threads), base.background.clone(), move |peer| {
                stack::admin(admin.clone(), peer)
            });
        base.background.spawn(serve_admin);
        upkeep::start(&base);
        base.background.spawn(self.replaceable.follow(reload, base.background.clone()));

        stop.await;
        tracing::info!("stopping: finishing requests in flight");
        status.drain();
        serving.drain();
        let unfinished = serving.finished(base.config.limits.shutdown_grace).await;
        if unfinished > 0 {
            tracing::warn!(connections = unfinished, "connections cut off at the end of the grace period");
        }
        base.background.drain();
        base.background.finished(Duration::from_secs(1)).await;
        // Only now: dropping the threads drops the connections that run on them.
        drop((http_threads, admin_threads));
        if let Err(error) = base.worker.release().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "worker window not given back");
        }
        base.stores.close().await;
        sending.drain();
        sending.finished(SENDING_LIMIT).await;
        tracing::info!("stopped");
        Ok(())
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
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
        Origins::Any => Some(CorsLayer::new(Any, api::allow)),
        Origins::Only(list) => {
            let list = list.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
            Some(CorsLayer::new(AllowOrigin::list(list), api::allow))
        }
    }
}
