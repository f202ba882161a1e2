//! `numgen check`: may the service issue, if it is started now with this configuration?
//!
//! It reads and changes nothing: no directory, no secret, no database and no key is made, and a service that is running goes on.
//! Keys and certificate are loaded by what the service loads them with, so that both find the same mistakes.

mod claims;
mod data_dir;
mod database;
mod postgres;
mod redis;
mod report;

use std::sync::Arc;

use super::{CliError, Terminal};
use crate::{
    auth,
    clock::{Clock, UnixMillis},
    config::{Config, Flags, Profile, Source, TlsFiles, Values, existing_signing_secret},
    server::Tls,
    store::{Nonce, postgres::grants::Redis},
    telemetry::fields::chain,
};

use report::Report;

pub(super) async fn run(
    flags: &Flags,
    source: &impl Source,
    clock: Arc<dyn Clock>,
    terminal: &mut Terminal<'_>,
) -> Result<(), CliError> {
    let values = Values::gather(flags, source)?;
    let config = Config::read(&values)?;

    let mut report = Report::default();
    let profile = config.profile();
    report.ok(
        "profile",
        match profile {
            Profile::Embedded => "embedded (SQLite)".to_owned(),
            Profile::Redis | Profile::Postgres | Profile::Full => profile.to_string(),
        },
    );
    for warning in values.warnings() {
        report.note("configuration", warning.to_string());
    }
    keys(&config, &mut report);
    certificate(&config, &mut report);
    data_dir::look(&config.storage.data_dir, &mut report);
    let facts = database::look(&config, &mut report);
    let found = match (&config.storage.database_url, &config.storage.redis_url) {
        (None, None) => Found { pinned: Pinned::As(facts.pinned_layout.clone()), ..Found::default() },
        (Some(url), Some(redis_url)) => {
            // Which IDs there are, Redis knows; PostgreSQL confirms them, and knows those of other data centres.
            let confirmed = postgres::look(url, &config, &facts, &clock, &mut report).await;
            let leased = redis::look(redis_url, &config, &facts, &clock, &mut report).await;
            if confirmed.is_there() && leased.is_there() {
                claims::home(&config, redis_url, confirmed.home, leased.name.clone(), &mut report);
            }
            if confirmed.pinned.differs_from(&config) {
                Found { pinned: confirmed.pinned, ..leased }
            } else {
                leased
            }
        }
        (Some(url), None) => postgres::look(url, &config, &facts, &clock, &mut report).await,
        (None, Some(url)) => redis::look(url, &config, &facts, &clock, &mut report).await,
    };
    if found.is_there() {
        claims::worker(&config, found.holder, &mut report);
    }
    layout(&config, &found.pinned, &mut report);
    time(&config, clock.now(), facts.highest_mark, &mut report);

    report.write(terminal.out)?;
    match report.failures() {
        0 => Ok(()),
        failures => Err(CliError::Unfit(failures)),
    }
}

fn keys(config: &Config, report: &mut Report) {
    let configured = config.jwt.configured_keys();
    if !configured.is_empty() {
        return match auth::Settings::read(&config.jwt).and_then(|settings| settings.check()) {
            Ok(()) => report.ok("keys", configured.join(", ")),
            Err(error) => report.fail("keys", chain(&error)),
        };
    }
    match existing_signing_secret(&config.storage.data_dir) {
        Ok(_secret) => report.ok("keys", "the secret in the data directory"),
        Err(crate::config::DataDirError::NoSecret { .. }) => {
            report.ok(
                "keys",
                "none configured: a secret is made at the first start and kept in the data directory",
            );
        }
        Err(error) => report.fail("keys", error.to_string()),
    }
}

fn certificate(config: &Config, report: &mut Report) {
    let Some(TlsFiles { cert, key }) = config.listen.tls() else { return };
    match Tls::from_files(cert.into(), key.into()) {
        Ok(_usable) => report.ok("certificate", format!("{}, its key {}", cert.display(), key.display())),
        Err(error) => report
            .fail("certificate", format!("NUMGEN_TLS_CERT_FILE, NUMGEN_TLS_KEY_FILE: {}", chain(&error))),
    }
}

/// What the stores say that a start has to agree with.
#[derive(Default)]
struct Found {
    pinned: Pinned,
    /// Who holds the fixed worker ID that is configured.
    holder: Option<Nonce>,
    /// The Redis that the data centre ID belongs to, as PostgreSQL knows it.
    home: Option<Redis>,
    /// The name of the Redis, as it knows it.
    name: Option<String>,
}

impl Found {
    /// Whether the store could be asked.
    fn is_there(&self) -> bool {
        !matches!(self.pinned, Pinned::Unknown)
    }
}

/// What the IDs that were issued so far are laid out by.
#[derive(Default)]
enum Pinned {
    /// That; `None`: none was issued.
    As(Option<String>),
    /// The store that knows is away.
    #[default]
    Unknown,
}

impl Pinned {
    fn differs_from(&self, config: &Config) -> bool {
        matches!(self, Self::As(Some(pinned)) if *pinned != config.worker.pinned_layout())
    }
}

fn layout(config: &Config, pinned: &Pinned, report: &mut Report) {
    let configured = config.worker.pinned_layout();
    match pinned {
        Pinned::As(Some(recorded)) if pinned.differs_from(config) => report.fail(
            "layout",
            format!(
                "configured is {configured}, but numbers were issued with {recorded}: set NUMGEN_SNOWFLAKE_LAYOUT, \
                 NUMGEN_SNOWFLAKE_EPOCH and NUMGEN_DATACENTER_ID to that"
            ),
        ),
        Pinned::As(Some(_same)) => report.ok("layout", configured),
        Pinned::As(None) => report.ok("layout", format!("{configured} (no snowflake was issued yet)")),
        Pinned::Unknown => {
            report.note("layout", format!("{configured} (whether the store was used with another one is unknown)"));
        }
    }
}

/// What the clock says, against the epoch, the end of the time bits and the highest timestamp that may have been issued.
fn time(config: &Config, now: UnixMillis, highest_mark: Option<u64>, report: &mut Report) {
    let epoch = config.worker.epoch;
    let Ok(id_now) = u64::try_from(now.0 - epoch.0) else {
        let message = format!("{} is before NUMGEN_SNOWFLAKE_EPOCH {}", now.to_rfc3339(), epoch.to_rfc3339());
        return report.fail("clock", message);
    };
    let last = config.worker.layout.max_timestamp();
    let end = UnixMillis(epoch.0.saturating_add_unsigned(last));
    if id_now.max(highest_mark.unwrap_or(0)) >= last {
        return report.fail("clock", format!("the time bits of the layout ended at {}", end.to_rfc3339()));
    }
    report.ok("clock", format!("{}; the time bits last until {}", now.to_rfc3339(), end.to_rfc3339()));
    // The window runs about a second ahead of a service that is up; more means that the clock was set back.
    const AHEAD_MS: u64 = 5_000;
    if let Some(ahead_ms) = highest_mark.and_then(|mark| mark.checked_sub(id_now)).filter(|ms| *ms > AHEAD_MS)
    {
        let message = format!(
            "{} s behind the last window: snowflake IDs go on above it, with a time that is ahead by that much",
            ahead_ms / 1000
        );
        report.note("clock", message);
    }
}
