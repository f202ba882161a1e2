//! Every setting of the service: declared once, read once, before anything else runs.
//!
//! A setting is one line of a `section!` declaration; its flag, its environment variable, its key in `numgen.toml`, its
//! help and its line in README's table all follow from that line. Flags win over the environment, the environment over
//! the file, the file over the default.
//!
//! Invariants: no value of a secret appears in an error, a warning or a `Debug`; the environment is read only through
//! [`Source`]; reading changes nothing on disk ([`DataDir`] does that, afterwards).
//!
//! Order: [`Values::gather`] (what was given, and where) -> [`Config::read`] (types and bounds, every mistake at once)
//! -> [`DataDir::prepare`].

mod cidr;
mod client;
mod data_dir;
mod database_url;
mod duration;
mod error;
mod http;
mod jwt;
mod limits;
mod listen;
mod log;
mod metrics;
mod names;
mod node;
mod parse;
mod profile;
mod rate_limits;
mod redis_url;
mod reload;
mod section;
mod source;
mod storage;
mod traces;
mod values;
mod worker;

use std::sync::LazyLock;

pub use self::{
    cidr::Cidr,
    client::{Client, ClientConfig},
    data_dir::{DataDir, DataDirError, existing_identity, existing_signing_secret},
    database_url::{DatabaseHost, DatabaseUrl, InvalidDatabaseUrl, Verification},
    duration::parse_duration,
    error::{ConfigError, Mistake, Origin, Warning},
    http::{Http, Origins},
    jwt::Jwt,
    limits::Limits,
    listen::{Listen, TlsFiles},
    log::{Log, LogFormat},
    metrics::Metrics,
    node::{Node, NodeName},
    profile::Profile,
    rate_limits::{RateLimit, RateLimits},
    redis_url::{Address, InvalidRedisUrl, RedisUrl, Topology, Transport},
    reload::{Reloader, Reread},
    section::Setting,
    source::{FixedSource, ProcessSource, Source},
    storage::{Storage, StrictLocking},
    traces::{Protocol, Sampling, Traces, Tracing},
    values::{Flags, Values},
    worker::Worker,
};

/// Settings that are checked, and told to be without effect in some configurations: with what they would have one.
const IDLE: [(&str, Needs); 16] = [
    ("OTEL_EXPORTER_OTLP_HEADERS", Needs::Collector),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", Needs::Collector),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", Needs::Collector),
    ("OTEL_SERVICE_NAME", Needs::Collector),
    ("OTEL_RESOURCE_ATTRIBUTES", Needs::Collector),
    ("OTEL_TRACES_SAMPLER", Needs::Collector),
    ("OTEL_TRACES_SAMPLER_ARG", Needs::Collector),
    ("OTEL_BSP_SCHEDULE_DELAY", Needs::Collector),
    ("OTEL_BSP_MAX_QUEUE_SIZE", Needs::Collector),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", Needs::Collector),
    ("NUMGEN_STRICT_LOCKING", Needs::Database),
    ("NUMGEN_DATABASE_CA_FILE", Needs::Database),
    ("NUMGEN_DATABASE_POOL_SIZE", Needs::Database),
    ("NUMGEN_REDIS_CA_FILE", Needs::Redis),
    ("NUMGEN_SEGMENT_SIZE", Needs::Either),
    ("NUMGEN_WORKER_WINDOW_MS", Needs::Either),
];

/// What a setting needs to matter.
#[derive(Clone, Copy)]
enum Needs {
    Collector,
    Redis,
    Database,
    Either,
}

impl Needs {
    /// What is missing in this configuration, in words.
    fn missing(self, config: &Config) -> Option<&'static str> {
        let Config { storage, traces, .. } = config;
        let (redis, database) = (storage.redis_url.is_some(), storage.database_url.is_some());
        match self {
            Self::Collector => traces
                .url()
                .is_none()
                .then_some("without OTEL_EXPORTER_OTLP_ENDPOINT, or with OTEL_SDK_DISABLED"),
            Self::Redis => (!redis).then_some("without NUMGEN_REDIS_URL"),
            Self::Database => (!database).then_some("without NUMGEN_DATABASE_URL"),
            Self::Either => {
                (!redis && !database).then_some("without NUMGEN_REDIS_URL or NUMGEN_DATABASE_URL")
            }
        }
    }
}

/// Everything that the service is told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses and certificate.
    pub listen: Listen,
    /// Data directory, stores and what is kept in them.
    pub storage: Storage,
    /// Worker ID, window and snowflake layout.
    pub worker: Worker,
    /// The name of this node.
    pub node: Node,
    /// How tokens are checked.
    pub jwt: Jwt,
    /// Who may ask how often.
    pub rate_limits: RateLimits,
    /// Connections and timeouts.
    pub limits: Limits,
    /// Browsers and proxies.
    pub http: Http,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Log lines.
    pub log: Log,
    /// Where traces go.
    pub traces: Traces,
}

impl Config {
    /// Gathers and reads all that the service needs.
    ///
    /// # Errors
    ///
    /// As [`Values::gather`] and [`Config::read`].
    pub fn load(flags: &Flags, source: &impl Source) -> Result<(Self, Vec<Warning>), ConfigError> {
        let values = Values::gather(flags, source)?;
        let config = Self::read(&values)?;
        let warnings = config.warnings(&values);
        Ok((config, warnings))
    }

    /// What is odd about the values that this was read from.
    fn warnings(&self, values: &Values) -> Vec<Warning> {
        let mut warnings = values.warnings().to_vec();
        for (variable, needs) in IDLE.into_iter().filter(|(variable, _)| values.is_given(variable)) {
            if let Some(lack) = needs.missing(self) {
                warnings.push(Warning::NoEffect { origin: values.origin(variable), lack });
            }
        }
        warnings
    }

    /// Reads every section that the service needs.
    ///
    /// # Errors
    ///
    /// All mistakes at once, each with the setting, where its value came from, what is wrong and what would be right.
    pub fn read(values: &Values) -> Result<Self, ConfigError> {
        let mut mistakes = Vec::new();
        let listen = Listen::read(values, &mut mistakes);
        let storage = Storage::read(values, &mut mistakes);
        let worker = Worker::read(values, &mut mistakes);
        let node = Node::read(values, &mut mistakes);
        let jwt = Jwt::read(values, &mut mistakes);
        let rate_limits = RateLimits::read(values, &mut mistakes);
        let limits = Limits::read(values, &mut mistakes);
        let http = Http::read(values, &mut mistakes);
        let metrics = Metrics::read(values, &mut mistakes);
        let log = Log::read(values, &mut mistakes);
        let traces = Traces::read(values, &mut mistakes);
        if let Some(listen) = &listen {
            listen.check(values, &mut mistakes);
        }
        if let Some(worker) = &worker {
            worker.check(values, &mut mistakes);
        }
        let whole = (|| {
            Some(Self {
                listen: listen?,
                storage: storage?,
                worker: worker?,
                node: node?,
                jwt: jwt?,
                rate_limits: rate_limits?,
                limits: limits?,
                http: http?,
                metrics: metrics?,
                log: log?,
                traces: traces?,
            })
        })();
        match whole {
            Some(config) if mistakes.is_empty() => Ok(config),
            _ => Err(ConfigError { mistakes }),
        }
    }
}

/// Every setting, section by section, in the order of README's table.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
        let mut all = Vec::new();
        Listen::declare(&mut all);
        Storage::declare(&mut all);
        Worker::declare(&mut all);
        Node::declare(&mut all);
        Jwt::declare(&mut all);
        RateLimits::declare(&mut all);
        Limits::declare(&mut all);
        Http::declare(&mut all);
        Metrics::declare(&mut all);
        Log::declare(&mut all);
        Traces::declare(&mut all);
        Client::declare(&mut all);
        all
    });
    SETTINGS.iter()
}

/// The settings as a Markdown table, for README; a test holds README to it.
pub fn markdown_table() -> String {
    let mut table = "| variable | default | takes | what for |\n| --- | --- | --- | --- |\n".to_owned();
    for setting in settings() {
        let names: Vec<_> = setting.spellings().map(|(_, env, _)| format!("`{env}`")).collect();
        let default = match (setting.default, setting.unset) {
            (Some(""), _) => "none".to_owned(),
            (Some(default), _) => format!("`{default}`"),
            (None, unset) => unset.unwrap_or_default().to_owned(),
        };
        let (expects, help) = (&setting.expects, setting.help);
        let reloaded = if setting.is_reloaded() { " SIGHUP reloads it." } else { "" };
        table.push_str(&format!("| {} | {default} | {expects} | {help}{reloaded} |\n", names.join(" or ")));
    }
    table
}

#[cfg(test)]
mod tests;
