//! What the service tells about itself: log lines and metrics.
//!
//! Invariants: a log line holds no secret, whatever was logged, at any level: every value goes through [`fields`] (by
//! name) and [`crate::scrub`] (by shape) before it is formatted. Metric handles are registered before they are used, so
//! that a request looks nothing up.
//!
//! Order: [`install`] once, first thing after the configuration is read; [`Metrics::new`] once per service.

pub mod fields;
mod http;
mod json;
mod log;
mod metrics;
mod panics;
mod pretty;
mod process;
mod sharded;

use std::{io::IsTerminal, sync::Arc};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Registry, filter::ParseError, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

pub use ::metrics::{Counter, Gauge};

pub use self::{
    http::HttpMetrics,
    log::LogLayer,
    metrics::{Gauges, Metrics, StoreMetrics, StoreOutcome},
};
use crate::clock::Clock;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One JSON object a line.
    Json,
    /// For people.
    Plain,
    /// For people, in colour.
    Coloured,
}

impl Style {
    /// The style for standard error: coloured on a terminal, JSON where a machine reads.
    pub fn detect() -> Self {
        if std::io::stderr().is_terminal() { Self::Coloured } else { Self::Json }
    }

    /// The style for people on standard error; colours only on a terminal.
    pub fn pretty() -> Self {
        if std::io::stderr().is_terminal() { Self::Coloured } else { Self::Plain }
    }
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter makes no sense.
    #[error("the log filter is not valid")]
    Filter(#[from] ParseError),
    /// The filter cannot be replaced any more.
    #[error("the log filter cannot be replaced")]
    Replace(#[from] reload::Error),
    /// There is a subscriber already.
    #[error("logging was already set up")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// The filter in force, which can be replaced while the process runs.
#[derive(Clone, Debug)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    /// Puts another filter in force.
    ///
    /// # Errors
    ///
    /// The filter does not parse; then the one before stays.
    pub fn replace(&self, filter: &str) -> Result<(), TelemetryError> {
        Ok(self.0.reload(parsed(filter)?)?)
    }
}

fn parsed(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse(filter)
}

/// Sends every event of the process that `filter` lets through to standard error, and panics too.
///
/// # Errors
///
/// The filter does not parse, or logging was set up before.
pub fn install(filter: &str, style: Style, clock: Arc<dyn Clock>) -> Result<LogFilter, TelemetryError> {
    let (filter, handle) = reload::Layer::new(parsed(filter)?);
    let layer = LogLayer::new(style, clock, std::io::stderr);
    Registry::default().with(filter).with(layer).try_init()?;
    panics::log_panics();
    Ok(LogFilter(handle))
}

#[cfg(test)]
mod tests;
