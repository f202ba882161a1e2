//! What the service tells about itself: log lines and metrics.
//!
//! Invariants: a log line holds no secret, whatever was logged, at any level: every value goes through [`fields`] (by
//! name) and [`crate::scrub`] (by shape) before it is formatted. Metric handles are registered before they are used, so
//! that a request looks nothing up.
//!
//! Order: [`install`] once, first thing after the configuration is read; [`Metrics::new`] once per service.

pub mod catalog;
pub mod fields;
mod http;
mod json;
mod labels;
mod log;
mod metrics;
mod panics;
mod pretty;
mod process;
mod sharded;
pub mod traces;

use std::{fmt, io::IsTerminal, sync::Arc};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::ParseError, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

pub use ::metrics::{Counter, Gauge};

pub use self::{
    http::{HttpMetrics, note_issue},
    log::LogLayer,
    metrics::{BatchSizes, Durations, Gauges, Metrics, StoreMetrics, StoreOutcome},
};
use crate::clock::Clock;

use traces::Traces;

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
#[derive(Clone)]
pub struct LogFilter(Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl LogFilter {
    /// Puts another filter in force.
    ///
    /// # Errors
    ///
    /// The filter does not parse; then the one before stays.
    pub fn replace(&self, filter: &str) -> Result<(), TelemetryError> {
        Ok((self.0)(parsed(filter)?)?)
    }

    fn of<S: 'static>(handle: reload::Handle<EnvFilter, S>) -> Self {
        Self(Arc::new(move |filter| handle.reload(filter)))
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogFilter")
    }
}

fn parsed(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse(filter)
}

/// Sends every event of the process that `filter` lets through to standard error, and panics too; spans to `traces`, if there is
/// somebody who wants them.
///
/// # Errors
///
/// The filter does not parse, or logging was set up before.
pub fn install(
    filter: &str,
    style: Style,
    clock: Arc<dyn Clock>,
    traces: Option<Traces>,
) -> Result<LogFilter, TelemetryError> {
    let filter = parsed(filter)?;
    let log = LogLayer::new(style, clock, std::io::stderr);
    let in_force = match traces {
        // A filter for all: what it does not let through costs nothing where it is made.
        None => {
            let (filter, handle) = reload::Layer::new(filter);
            Registry::default().with(filter).with(log).try_init()?;
            LogFilter::of(handle)
        }
        Some(traces) => {
            let (filter, handle) = reload::Layer::new(filter);
            Registry::default().with(traces.layer()).with(log.with_filter(filter)).try_init()?;
            LogFilter::of(handle)
        }
    };
    panics::log_panics();
    Ok(in_force)
}

#[cfg(test)]
mod tests;
