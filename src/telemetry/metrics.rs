//! The metrics of one service: handles to count with, and the page that shows them.
//!
//! Invariants: what a request counts is a handle that was looked up before, and a cell of its own thread; the number of label
//! values is bounded, whatever callers send; nothing here grows with the number of requests; nothing is shown that is not in the
//! [catalogue](super::catalog).

use std::{
    collections::HashMap,
    fmt::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::{
    catalog::{self, FAMILIES, Family, Kind},
    labels::Bounded,
    process,
    sharded::{ShardedCounter, ShardedHistogram, Snapshot},
};

/// Upper bounds in seconds: dense where a store answers, sparse where somebody waits.
const DURATION_BOUNDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds of batches, up to the largest that is made.
const BATCH_BOUNDS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Durations are counted in nanoseconds, and shown in seconds.
const NANOS: f64 = 1e9;

/// So many prefix keys have a label value of their own, unless it is said otherwise.
const PREFIXES: usize = 100;

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// The metrics of one service. Cloning is cheap.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    prefixes: Bounded,
    /// Every counter beside the exporter's own, which is set when somebody reads.
    counters: Mutex<HashMap<Key, (Arc<ShardedCounter>, Counter)>>,
    /// Every histogram, with its labels as they are shown.
    histograms: Mutex<Vec<(&'static Family, String, Arc<ShardedHistogram>)>>,
}

/// How long something took, over and over.
#[derive(Clone)]
pub struct Durations(Arc<ShardedHistogram>);

impl Durations {
    /// Adds one.
    pub fn record(&self, duration: Duration) {
        self.0.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// How many requests shared one call, over and over.
#[derive(Clone)]
pub struct BatchSizes(Arc<ShardedHistogram>);

/// Shown nowhere.
impl Default for BatchSizes {
    fn default() -> Self {
        Self(Arc::new(ShardedHistogram::new(&BATCH_BOUNDS, 1.0)))
    }
}

impl BatchSizes {
    /// Adds one.
    pub fn record(&self, requests: usize) {
        self.0.record(requests as u64);
    }
}

/// What is measured rather than counted; each is set by whoever knows it.
#[derive(Clone)]
pub struct Gauges {
    /// Open connections of the API.
    pub connections: Gauge,
    /// How many are allowed.
    pub connections_limit: Gauge,
    /// Whether a worker window is held.
    pub worker_held: Gauge,
    /// The worker ID.
    pub worker_id: Gauge,
    /// Seconds of worker window left.
    pub worker_window_seconds: Gauge,
    /// Days until the time bits run out.
    pub snowflake_days_left: Gauge,
    /// Numbers left in segments.
    pub segment_remaining: Gauge,
    /// Temporary numbers that wait for a person.
    pub temporary_numbers_open: Gauge,
}

impl Metrics {
    /// An empty set of metrics, described, the gauges at 0.
    pub fn new() -> Self {
        Self::with_prefixes(PREFIXES)
    }

    /// The same with so many values of the label `prefix`.
    pub fn with_prefixes(limit: usize) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for Family { name, kind, help, .. } in FAMILIES {
            let (name, help) = ((*name).into(), (*help).into());
            match kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                // Rendered here.
                Kind::Histogram => {}
            }
        }
        let handle = recorder.handle();
        let inner = Inner {
            recorder,
            handle,
            prefixes: Bounded::new(limit),
            counters: Mutex::default(),
            histograms: Mutex::default(),
        };
        let metrics = Self { inner: Arc::new(inner) };
        metrics.gauge(&catalog::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        metrics.gauges();
        metrics
    }

    /// The gauges without labels that every profile has; the same ones at every call.
    pub fn gauges(&self) -> Gauges {
        let gauge = |family| self.gauge(family, &[]);
        Gauges {
            connections: gauge(&catalog::CONNECTIONS),
            connections_limit: gauge(&catalog::CONNECTIONS_LIMIT),
            worker_held: gauge(&catalog::WORKER_HELD),
            worker_id: gauge(&catalog::WORKER_ID),
            worker_window_seconds: gauge(&catalog::WORKER_WINDOW),
            snowflake_days_left: gauge(&catalog::SNOWFLAKE_DAYS),
            segment_remaining: gauge(&catalog::SEGMENT_REMAINING),
            temporary_numbers_open: gauge(&catalog::TEMPORARY_OPEN),
        }
    }

    /// The counter of numbers that one rule issues from one source, to be kept with the rule. Beyond the first prefix keys it is that
    /// of `other`.
    pub fn numbers_issued(&self, mode: &'static str, source: &'static str, prefix_key: &str) -> Counter {
        let prefix = self.prefix(prefix_key);
        self.counter(&catalog::NUMBERS_ISSUED, &[("mode", mode), ("source", source), ("prefix", prefix)])
    }

    /// The sizes of combined calls, to be kept with whoever combines.
    pub fn batch_requests(&self, mode: &'static str, store: &'static str) -> BatchSizes {
        let labels = [("mode", mode), ("store", store)];
        BatchSizes(self.histogram(&catalog::BATCH_REQUESTS, &labels, &BATCH_BOUNDS, 1.0))
    }

    /// Counters of the calls of one operation of a store, to be kept with it.
    pub fn store_calls(&self, store: &'static str, operation: &'static str) -> StoreMetrics {
        let labels = [("store", store), ("operation", operation)];
        StoreMetrics {
            counters: StoreOutcome::ALL.map(|outcome| {
                let labels = [("store", store), ("operation", operation), ("outcome", outcome.as_str())];
                self.counter(&catalog::STORE_CALLS, &labels)
            }),
            duration: self.durations(&catalog::STORE_DURATION, &labels),
        }
    }

    /// The label value of a prefix key: itself, or `other`.
    pub fn prefix<'a>(&self, prefix_key: &'a str) -> &'a str {
        self.inner.prefixes.label(prefix_key)
    }

    /// Everything in the Prometheus text format (version 0.0.4).
    pub fn render(&self) -> String {
        for (counted, shown) in lock(&self.inner.counters).values() {
            shown.absolute(counted.sum());
        }
        let mut text = self.inner.handle.render();
        self.render_histograms(&mut text);
        process::render(&mut text);
        text
    }

    /// Histograms in the text format: buckets are cumulative, the last one has no bound.
    fn render_histograms(&self, out: &mut String) {
        let histograms = lock(&self.inner.histograms);
        for Family { name, help, .. } in FAMILIES.iter().filter(|family| family.kind == Kind::Histogram) {
            let mut series = histograms.iter().filter(|(family, ..)| family.name == *name).peekable();
            if series.peek().is_none() {
                continue;
            }
            // Writing to a String cannot fail.
            let _infallible = write!(out, "# HELP {name} {help}\n# TYPE {name} histogram\n");
            for (_, labels, histogram) in series {
                let Snapshot { cumulative, count, sum } = histogram.snapshot();
                for (bound, below) in cumulative {
                    let _infallible = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
                }
                let _infallible = write!(
                    out,
                    "{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n\
                     {name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}\n"
                );
            }
            out.push('\n');
        }
    }

    /// The counter of one series, registered now; to be kept by whoever counts.
    pub fn counter(&self, family: &'static Family, labels: &[(&'static str, &str)]) -> Counter {
        let key = key(family, Kind::Counter, labels);
        let shown = self.inner.recorder.register_counter(&key, &METADATA);
        let mut counters = lock(&self.inner.counters);
        let (counted, _) = counters.entry(key).or_insert_with(|| (Arc::default(), shown));
        Counter::from_arc(Arc::clone(counted))
    }

    /// The gauge of one series, registered now.
    pub fn gauge(&self, family: &'static Family, labels: &[(&'static str, &str)]) -> Gauge {
        self.inner.recorder.register_gauge(&key(family, Kind::Gauge, labels), &METADATA)
    }

    /// Durations with these labels, whose values are the program's own.
    pub(super) fn durations(
        &self,
        family: &'static Family,
        labels: &[(&'static str, &'static str)],
    ) -> Durations {
        Durations(self.histogram(family, labels, &DURATION_BOUNDS, NANOS))
    }

    fn histogram(
        &self,
        family: &'static Family,
        labels: &[(&'static str, &'static str)],
        bounds: &[f64],
        scale: f64,
    ) -> Arc<ShardedHistogram> {
        debug_assert_eq!(family.kind, Kind::Histogram, "{}", family.name);
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let labels = labels.join(",");
        let mut histograms = lock(&self.inner.histograms);
        let known = histograms.iter().find(|(other, of, _)| other.name == family.name && *of == labels);
        if let Some((.., known)) = known {
            return Arc::clone(known);
        }
        let histogram = Arc::new(ShardedHistogram::new(bounds, scale));
        histograms.push((family, labels, Arc::clone(&histogram)));
        histogram
    }
}

fn key(family: &'static Family, kind: Kind, labels: &[(&'static str, &str)]) -> Key {
    debug_assert_eq!(family.kind, kind, "{}", family.name);
    debug_assert!(labels.iter().map(|(name, _)| name).eq(family.labels), "{}: {labels:?}", family.name);
    let labels: Vec<_> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(family.name, labels)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

macro_rules! opaque {
    ($($name:ident)+) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        })+
    };
}
opaque!(Metrics Gauges Durations BatchSizes StoreMetrics);

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

    /// The word for it in metrics and spans.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
        }
    }
}

/// Counts and times the calls of one operation of a store.
#[derive(Clone)]
pub struct StoreMetrics {
    counters: [Counter; StoreOutcome::ALL.len()],
    duration: Durations,
}

impl StoreMetrics {
    /// Counts one call, which took so long.
    pub fn count(&self, outcome: StoreOutcome, duration: Duration) {
        // The counters stand in the order of `ALL`, which is that of the variants.
        self.counters[outcome as usize].increment(1);
        self.duration.record(duration);
    }
}
