//! Sends spans to a collector, many at once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracerProvider, SpanData, SpanExporter as _},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use super::{Settings, SpanCounts, SpanOutcome, redact};
use crate::lifecycle::Lifecycle;

/// How often a collector that takes nothing is complained about.
const COMPLAIN_EVERY: Duration = Duration::from_secs(300);

/// How long the end of the process waits for a collector.
const LAST_POST: Duration = Duration::from_secs(3);

/// The exporter cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("OTEL_...: traces cannot be sent: {0}")]
pub struct SetupError(#[from] ExporterBuildError);

/// See the module.
pub struct Outbox {
    settings: Settings,
    resource: Resource,
    waiting: mpsc::Receiver<SpanData>,
    counts: SpanCounts,
    /// Spans end with it.
    _provider: SdkTracerProvider,
}

impl Outbox {
    pub(super) fn new(
        settings: Settings,
        resource: Resource,
        waiting: mpsc::Receiver<SpanData>,
        counts: SpanCounts,
        provider: SdkTracerProvider,
    ) -> Self {
        Self { settings, resource, waiting, counts, _provider: provider }
    }

    /// What became of spans so far.
    pub fn counts(&self) -> SpanCounts {
        self.counts.clone()
    }

    /// Sends through `client` until the drain, and then what is left.
    ///
    /// # Errors
    ///
    /// The exporter cannot be made of these settings.
    pub fn send(
        self,
        client: Arc<dyn HttpClient>,
        lifecycle: Lifecycle,
    ) -> Result<impl Future<Output = ()> + Send, SetupError> {
        let headers: HashMap<_, _> = self
            .settings
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.reveal().clone()))
            .collect();
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_shared_http_client(client)
            .with_headers(headers)
            // Its pauses between attempts would hold up a thread: what is not taken is counted and let go.
            .with_retry_policy(RetryPolicy::disabled())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&self.settings.endpoint)
            .with_timeout(self.settings.timeout)
            .build()?;
        exporter.set_resource(&self.resource);
        let Settings { batch, delay, .. } = self.settings;
        let post = Post { exporter, counts: self.counts, complained: None, lost: 0 };
        // The provider goes along: it lives as long as spans are sent.
        let provider = self._provider;
        let waiting = self.waiting;
        Ok(async move {
            deliver(post, waiting, batch, delay, lifecycle).await;
            drop(provider);
        })
    }
}

async fn deliver(
    mut post: Post,
    mut waiting: mpsc::Receiver<SpanData>,
    batch: usize,
    delay: Duration,
    lifecycle: Lifecycle,
) {
    let mut spans = Vec::new();
    loop {
        let due = Instant::now() + delay;
        while spans.len() < batch {
            let room = batch - spans.len();
            let more = waiting.recv_many(&mut spans, room);
            tokio::select! {
                biased;
                () = lifecycle.draining() => {
                    let rest = finish(post, waiting, spans, batch);
                    let _late = timeout(LAST_POST, rest).await;
                    return;
                }
                more = timeout_at(due, more) => if more.is_err() { break },
            }
        }
        post.send(std::mem::take(&mut spans)).await;
    }
}

/// Sends what is there, and takes nothing more.
async fn finish(
    mut post: Post,
    mut waiting: mpsc::Receiver<SpanData>,
    mut spans: Vec<SpanData>,
    batch: usize,
) {
    waiting.close();
    loop {
        let missing = batch.saturating_sub(spans.len()).max(1);
        let more = waiting.recv_many(&mut spans, missing).await;
        if more == 0 || spans.len() >= batch {
            post.send(std::mem::take(&mut spans)).await;
        }
        if more == 0 {
            return;
        }
    }
}

struct Post {
    exporter: SpanExporter,
    counts: SpanCounts,
    /// When a collector was complained about; `None` while all is well.
    complained: Option<Instant>,
    /// How many spans were lost since the last complaint.
    lost: u64,
}

impl Post {
    async fn send(&mut self, mut spans: Vec<SpanData>) {
        if spans.is_empty() {
            return;
        }
        spans.iter_mut().for_each(redact::span);
        let count = spans.len();
        match self.exporter.export(spans).await {
            Ok(()) => {
                self.counts.add(SpanOutcome::Exported, count);
                if self.complained.take().is_some() {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                self.counts.add(SpanOutcome::Failed, count);
                self.complain(&error, count);
            }
        }
    }

    fn complain(&mut self, error: &(dyn std::error::Error + 'static), count: usize) {
        self.lost += count as u64;
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            let spans = std::mem::take(&mut self.lost);
            tracing::warn!(spans, error, "the collector does not take spans");
            self.complained = Some(Instant::now());
        }
    }
}
