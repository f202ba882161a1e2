//! Spans for a collector (OTLP), by the variables of OpenTelemetry.
//!
//! Invariants: a span that ends is put on a queue or, where that is full, dropped and counted: no request ever waits for a collector,
//! nor fails because of one. What leaves the process has passed `redact`. Without an endpoint nothing of this exists: spans are
//! disabled where they are made.
//!
//! Order: [`Traces::new`] before [`install`](super::install), which is given [`Traces::layer`]; [`Outbox::send`] for as long as the
//! process runs; its end, after everything else has ended, sends what is left.

mod context;
mod outbox;
mod redact;

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use tokio::sync::mpsc;
use tracing::{Level, Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    filter::{FilterExt, filter_fn},
    layer::Layer,
    registry::LookupSpan,
};

pub use self::{
    context::{TraceContext, join},
    outbox::{Outbox, SetupError},
};
use crate::secret::Secret;

/// Where spans go, and which.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The URL to post them to.
    pub endpoint: String,
    /// Header fields to send along, percent-encoded; they may be credentials.
    pub headers: Vec<(String, Secret<String>)>,
    /// How long one post may take.
    pub timeout: Duration,
    /// How long a span waits for others at most.
    pub delay: Duration,
    /// How many spans may wait.
    pub queue: usize,
    /// How many are sent at once.
    pub batch: usize,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// Who this is: attributes of the resource.
    pub resource: Vec<(Cow<'static, str>, String)>,
}

/// What became of spans.
#[derive(Clone, Debug, Default)]
pub struct SpanCounts(Arc<[AtomicU64; SpanOutcome::ALL.len()]>);

/// What may become of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanOutcome {
    /// A collector has taken it.
    Exported,
    /// No collector has taken it.
    Failed,
    /// The queue was full.
    Dropped,
}

impl SpanOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Exported, Self::Failed, Self::Dropped];

    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

impl SpanCounts {
    /// How many it was so far.
    pub fn get(&self, outcome: SpanOutcome) -> u64 {
        // In the order of `ALL`, which is that of the variants.
        self.0[outcome as usize].load(Ordering::Relaxed)
    }

    fn add(&self, outcome: SpanOutcome, count: usize) {
        self.0[outcome as usize].fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Makes spans.
pub struct Traces {
    tracer: SdkTracer,
}

impl Traces {
    /// Spans as these settings want them, and the end of the queue from which they are to be sent.
    pub fn new(settings: Settings) -> (Self, Outbox) {
        let (sender, waiting) = mpsc::channel(settings.queue.max(1));
        let counts = SpanCounts::default();
        let attributes = settings.resource.iter();
        let attributes = attributes
            .map(|(name, value)| KeyValue::new(name.clone(), redact::value(name, value).into_owned()));
        let resource = Resource::builder_empty().with_attributes(attributes).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Queue { sender, counts: counts.clone() })
            .with_sampler(settings.sampler.clone())
            .with_resource(resource.clone())
            .build();
        let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
        (Self { tracer }, Outbox::new(settings, resource, waiting, counts, provider))
    }

    /// The layer that makes them: of this crate's own spans, and of what went wrong in them.
    pub fn layer<S>(self) -> impl Layer<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let layer = tracing_opentelemetry::layer()
            .with_tracer(self.tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_target(false)
            .with_level(false);
        layer.with_filter(filter_fn(is_traced).and(LevelFilter::DEBUG))
    }
}

fn is_traced(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_own = target == "numgen" || target.starts_with("numgen::");
    // The access line says what the span says.
    is_own && (metadata.is_span() || *metadata.level() <= Level::WARN && target != "numgen::access")
}

/// Puts spans on the queue.
#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<SpanData>,
    counts: SpanCounts,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.sender.try_send(span).is_err() {
            self.counts.add(SpanOutcome::Dropped, 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        // The end of the process does not wait here: the outbox sends what is left.
        Ok(())
    }
}
