//! What changes without a restart: the keys of tokens, rate limits, the log filter, the certificate.
//!
//! SIGHUP reads the configuration again. It is taken as a whole or not at all: with one mistake in it everything stays as it was, and
//! the log has what is wrong, where, and what would be right. The certificate is also looked at by itself, since whoever renews it
//! seldom knows whom to tell.

use std::{error::Error, path::PathBuf, sync::Arc, time::Duration};

use tokio::signal::unix::Signal;

use super::accepted_tokens;
use crate::{
    auth::{ConfiguredKeys, SetupError, Verifier},
    config::{Config, DataDir, DataDirError, Jwt, Listen, ProcessSource, Reloader, Reread},
    lifecycle::Lifecycle,
    middleware::rate_limit::{Limits, Rates},
    secret::Secret,
    server::{Tls, TlsError},
    telemetry::{LogFilter, TelemetryError},
};

/// How often the files of the certificate are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How the configuration is read again, and who asks for it.
#[derive(Debug)]
pub struct Reload {
    /// Reads it.
    pub reloader: Reloader<ProcessSource>,
    /// The filter in force.
    pub filter: LogFilter,
    /// SIGHUP.
    pub asked: Signal,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
enum NotApplied {
    #[error("NUMGEN_TLS_CERT_FILE, NUMGEN_TLS_KEY_FILE: {0}")]
    Tls(#[from] TlsError),
    #[error("NUMGEN_LOG")]
    Filter(#[from] TelemetryError),
    #[error(transparent)]
    Tokens(#[from] SetupError),
    #[error("NUMGEN_DATA_DIR: {0}")]
    DataDir(#[from] DataDirError),
}

/// Who verifies tokens, and where the secret is that serves when no key is configured.
pub(super) struct Tokens {
    pub(super) verifier: Arc<Verifier>,
    pub(super) data_dir: DataDir,
    /// Where others are fetched from, since the start.
    pub(super) jwks_url: Option<Secret<String>>,
}

impl Tokens {
    /// The keys of another configuration; one that has other keys to fetch has them after a restart.
    fn check(&self, jwt: &Jwt) -> Result<ConfiguredKeys, NotApplied> {
        let jwt = Jwt { jwks_url: self.jwks_url.clone(), ..jwt.clone() };
        Ok(self.verifier.check(&accepted_tokens::<NotApplied>(&jwt, &self.data_dir)?)?)
    }
}

/// What is in force, and can be replaced.
pub(super) struct Replaceable {
    pub(super) limits: Arc<Limits>,
    pub(super) tls: Option<Tls>,
    tokens: Tokens,
    rates: Rates,
    filter: String,
}

fn files(listen: &Listen) -> Option<(PathBuf, PathBuf)> {
    listen.tls().map(|files| (files.cert.to_owned(), files.key.to_owned()))
}

impl Replaceable {
    pub(super) fn new(config: &Config, limits: Arc<Limits>, tls: Option<Tls>, tokens: Tokens) -> Self {
        let (rates, filter) = (Rates::from(&config.rate_limits), config.log.filter.clone());
        Self { limits, tls, tokens, rates, filter }
    }

    /// Follows SIGHUP and the files of the certificate until the drain.
    pub(super) async fn follow(mut self, mut reload: Reload, lifecycle: Lifecycle) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = lifecycle.draining() => return,
                Some(()) = reload.asked.recv() => self.reread(&mut reload),
                _ = looks.tick() => self.look_at_certificate(),
            }
        }
    }

    fn look_at_certificate(&self) {
        match self.tls.as_ref().map(Tls::refresh) {
            None | Some(Ok(false)) => {}
            Some(Ok(true)) => {
                tracing::info!("certificate renewed: new connections are given the one in its file")
            }
            Some(Err(error)) => tracing::error!(
                error = &error as &dyn Error,
                "NUMGEN_TLS_CERT_FILE, NUMGEN_TLS_KEY_FILE: the new certificate cannot be used, the one before stays"
            ),
        }
    }

    fn reread(&mut self, reload: &mut Reload) {
        match reload.reloader.reread() {
            Ok(reread) => self.apply(&reread, &reload.filter),
            Err(error) => {
                for mistake in &error.mistakes {
                    tracing::error!("configuration not reloaded, nothing was changed: {mistake}");
                }
            }
        }
    }

    fn apply(&mut self, reread: &Reread, filter: &LogFilter) {
        let changed = match self.put_in_force(&reread.config, filter) {
            Ok(changed) => changed,
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::error!(error, "configuration not reloaded, nothing was changed");
                return;
            }
        };
        for warning in &reread.warnings {
            tracing::warn!("{warning}");
        }
        for (setting, origin) in &reread.needs_restart {
            tracing::warn!(setting = setting.env, "{origin} has changed, which takes effect with a restart");
        }
        if self.tls.is_some() != reread.config.listen.tls().is_some() {
            let setting = "NUMGEN_TLS_CERT_FILE";
            tracing::warn!(setting, "TLS is turned on or off, which takes effect with a restart");
        }
        tracing::info!(changed = changed.join(", "), "configuration reloaded");
    }

    /// First whatever can fail; answers what is other than before.
    fn put_in_force(&mut self, config: &Config, filter: &LogFilter) -> Result<Vec<&'static str>, NotApplied> {
        let keys = self.tokens.check(&config.jwt)?;
        let mut changed = Vec::new();
        if let (Some(tls), Some((certificates, key))) = (&self.tls, files(&config.listen))
            && tls.replace(certificates, key)?
        {
            changed.push("certificate");
        }
        if config.log.filter != self.filter {
            filter.replace(&config.log.filter)?;
            self.filter.clone_from(&config.log.filter);
            changed.push("log filter");
        }
        if self.tokens.verifier.replace(keys) {
            changed.push("keys of tokens");
        }
        let rates = Rates::from(&config.rate_limits);
        if rates != self.rates {
            self.limits.replace(rates);
            self.rates = rates;
            changed.push("rate limits");
        }
        Ok(changed)
    }
}
