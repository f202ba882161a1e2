//! Every metric of the service: its name, its labels and its help stand here and nowhere else.
//!
//! Invariants: what a request counts is a handle that was looked up before, and a cell of its own thread; the number of label
//! values is bounded, whatever callers send; nothing here grows with the number of requests.

use std::{
    collections::{HashMap, HashSet},
    fmt::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::{
    process,
    sharded::{ShardedCounter, ShardedHistogram, Snapshot},
};

pub(super) const HTTP_REQUESTS: &str = "numgen_http_requests_total";
pub(super) const HTTP_DURATION: &str = "numgen_http_request_duration_seconds";
const NUMBERS_ISSUED: &str = "numgen_numbers_issued_total";
const STORE_CALLS: &str = "numgen_store_calls_total";
const WORKER_WINDOW: &str = "numgen_worker_window_seconds";
const SNOWFLAKE_DAYS: &str = "numgen_snowflake_days_left";
const SEGMENT_REMAINING: &str = "numgen_segment_remaining";
const TEMPORARY_OPEN: &str = "numgen_temporary_numbers_open";
const CONNECTIONS: &str = "numgen_connections";
const BUILD_INFO: &str = "numgen_build_info";

/// (name, help) of all counters, then gauges.
const COUNTERS: [(&str, &str); 3] = [
    (HTTP_REQUESTS, "HTTP requests answered, by route, method and status."),
    (NUMBERS_ISSUED, "Numbers issued, by mode, by source (primary, segment, temporary) and by prefix key."),
    (STORE_CALLS, "Calls to a store, by store, operation and outcome."),
];
const GAUGES: [(&str, &str); 6] = [
    (WORKER_WINDOW, "How long snowflake IDs can go on without the store that leases worker IDs, in seconds."),
    (SNOWFLAKE_DAYS, "Days until the time bits of snowflake IDs run out."),
    (SEGMENT_REMAINING, "Numbers left in the local segments for the time the store is away."),
    (TEMPORARY_OPEN, "Temporary numbers that wait for a person to resolve them."),
    (CONNECTIONS, "Open connections of the API."),
    (BUILD_INFO, "Always 1; the version is in the label."),
];
const HTTP_DURATION_HELP: &str = "Time from the arrival of a request to its answer, in seconds, by route.";

/// Upper bounds in seconds: dense where a store answers, sparse where somebody waits.
const DURATION_BUCKETS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// So many prefix keys have a label value of their own, by arrival; the rest share `other`.
const PREFIX_LABELS: usize = 100;
pub(super) const OTHER: &str = "other";

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// The metrics of one service. Cloning is cheap.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    prefixes: Mutex<HashSet<String>>,
    /// Every counter beside the exporter's own, which is set when somebody reads.
    counters: Mutex<HashMap<Key, (Arc<ShardedCounter>, Counter)>>,
    /// The durations of each route, by label.
    durations: Mutex<Vec<(&'static str, Arc<Durations>)>>,
}

/// The durations of one route.
pub(super) type Durations = ShardedHistogram<{ DURATION_BUCKETS.len() }>;

/// What is measured rather than counted; each is set by whoever knows it.
#[derive(Clone)]
pub struct Gauges {
    /// Seconds of worker window left.
    pub worker_window_seconds: Gauge,
    /// Days until the time bits run out.
    pub snowflake_days_left: Gauge,
    /// Numbers left in segments.
    pub segment_remaining: Gauge,
    /// Temporary numbers that wait for a person.
    pub temporary_numbers_open: Gauge,
    /// Open connections of the API.
    pub connections: Gauge,
}

impl Metrics {
    /// An empty set of metrics, described, the gauges at 0.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for (name, help) in COUNTERS {
            recorder.describe_counter(name.into(), None, help.into());
        }
        for (name, help) in GAUGES {
            recorder.describe_gauge(name.into(), None, help.into());
        }
        let handle = recorder.handle();
        let metrics = Self {
            inner: Arc::new(Inner {
                recorder,
                handle,
                prefixes: Mutex::default(),
                counters: Mutex::default(),
                durations: Mutex::default(),
            }),
        };
        metrics.gauge(BUILD_INFO, vec![Label::new("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        metrics.gauges();
        metrics
    }

    /// The gauges; the same ones at every call.
    pub fn gauges(&self) -> Gauges {
        let gauge = |name| self.gauge(name, vec![]);
        Gauges {
            worker_window_seconds: gauge(WORKER_WINDOW),
            snowflake_days_left: gauge(SNOWFLAKE_DAYS),
            segment_remaining: gauge(SEGMENT_REMAINING),
            temporary_numbers_open: gauge(TEMPORARY_OPEN),
            connections: gauge(CONNECTIONS),
        }
    }

    /// The counter of numbers that one rule issues from one source, to be kept with the rule. Beyond the first 100
    /// prefix keys it is that of `other`.
    pub fn numbers_issued(&self, mode: &'static str, source: &'static str, prefix_key: &str) -> Counter {
        let prefix = self.prefix_label(prefix_key);
        let labels =
            vec![Label::new("mode", mode), Label::new("source", source), Label::new("prefix", prefix)];
        self.counter(NUMBERS_ISSUED, labels)
    }

    /// Counters of the calls of one operation of a store, to be kept with it.
    pub fn store_calls(&self, store: &'static str, operation: &'static str) -> StoreMetrics {
        StoreMetrics {
            counters: StoreOutcome::ALL.map(|outcome| {
                let labels = vec![
                    Label::new("store", store),
                    Label::new("operation", operation),
                    Label::new("outcome", outcome.as_str()),
                ];
                self.counter(STORE_CALLS, labels)
            }),
        }
    }

    /// Everything in the Prometheus text format (version 0.0.4).
    pub fn render(&self) -> String {
        for (counted, shown) in self.inner.counters.lock().unwrap_or_else(PoisonError::into_inner).values() {
            shown.absolute(counted.sum());
        }
        let mut text = self.inner.handle.render();
        self.render_durations(&mut text);
        process::render(&mut text);
        text
    }

    /// Histograms in the text format: buckets are cumulative, the last one has no bound.
    fn render_durations(&self, out: &mut String) {
        let durations = self.inner.durations.lock().unwrap_or_else(PoisonError::into_inner);
        let name = HTTP_DURATION;
        // Writing to a String cannot fail.
        let _infallible = write!(out, "# HELP {name} {HTTP_DURATION_HELP}\n# TYPE {name} histogram\n");
        for (route, histogram) in durations.iter() {
            let Snapshot { cumulative, count, sum_s } = histogram.snapshot();
            for (bound, below) in DURATION_BUCKETS.iter().zip(cumulative) {
                let _infallible = writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"{bound}\"}} {below}");
            }
            let _infallible = write!(
                out,
                "{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {count}\n\
                 {name}_sum{{route=\"{route}\"}} {sum_s}\n{name}_count{{route=\"{route}\"}} {count}\n"
            );
        }
        out.push('\n');
    }

    fn prefix_label(&self, prefix_key: &str) -> String {
        let mut known = self.inner.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(prefix_key) || known.len() < PREFIX_LABELS {
            known.insert(prefix_key.to_owned());
            prefix_key.to_owned()
        } else {
            OTHER.to_owned()
        }
    }

    pub(super) fn counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        let key = Key::from_parts(name, labels);
        let shown = self.inner.recorder.register_counter(&key, &METADATA);
        let mut counters = self.inner.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let (counted, _) = counters.entry(key).or_insert_with(|| (Arc::default(), shown));
        Counter::from_arc(Arc::clone(counted))
    }

    fn gauge(&self, name: &'static str, labels: Vec<Label>) -> Gauge {
        self.inner.recorder.register_gauge(&Key::from_parts(name, labels), &METADATA)
    }

    /// The durations of a route, to be called once for each.
    pub(super) fn durations(&self, route: &'static str) -> Arc<Durations> {
        let histogram = Arc::new(Durations::new(&DURATION_BUCKETS));
        let mut durations = self.inner.durations.lock().unwrap_or_else(PoisonError::into_inner);
        durations.push((route, Arc::clone(&histogram)));
        histogram
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}

/// How a call to a store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// It answered.
    Ok,
    /// No answer in time.
    Timeout,
    /// It could not be reached, or refused.
    Unavailable,
    /// It holds something that is not understood.
    Corrupt,
}

impl StoreOutcome {
    const ALL: [Self; 4] = [Self::Ok, Self::Timeout, Self::Unavailable, Self::Corrupt];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
        }
    }
}

/// Counts the calls of one operation of a store.
#[derive(Clone)]
pub struct StoreMetrics {
    counters: [Counter; StoreOutcome::ALL.len()],
}

impl StoreMetrics {
    /// Counts one call.
    pub fn count(&self, outcome: StoreOutcome) {
        // The counters stand in the order of `ALL`, which is that of the variants.
        self.counters[outcome as usize].increment(1);
    }
}

impl fmt::Debug for StoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreMetrics").finish_non_exhaustive()
    }
}
