//! Where traces go: the variables of OpenTelemetry (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

use std::time::Duration;

use super::{
    parse::{Fault, Parser, millis, one_of, open_url, text, whole},
    section::{Default, Unset, section},
};
use crate::secret::Secret;

/// How spans are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Protobuf in the body of a POST.
    HttpProtobuf,
}

/// Whether anything is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracing {
    /// It is, where there is an endpoint.
    Enabled,
    /// It is not.
    Disabled,
}

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// All.
    Always,
    /// None.
    Never,
    /// A part, by trace ID.
    Ratio,
    /// As the caller's; without one, all.
    CallerElseAlways,
    /// As the caller's; without one, none.
    CallerElseNever,
    /// As the caller's; without one, a part.
    CallerElseRatio,
}

const PROTOCOLS: &[(&str, Protocol)] = &[("http/protobuf", Protocol::HttpProtobuf)];
const SWITCH: &[(&str, Tracing)] = &[("false", Tracing::Enabled), ("true", Tracing::Disabled)];
const SAMPLERS: &[(&str, Sampling)] = &[
    ("parentbased_always_on", Sampling::CallerElseAlways),
    ("parentbased_always_off", Sampling::CallerElseNever),
    ("parentbased_traceidratio", Sampling::CallerElseRatio),
    ("always_on", Sampling::Always),
    ("always_off", Sampling::Never),
    ("traceidratio", Sampling::Ratio),
];

section! {
    /// Where traces go.
    Traces, "Traces";
    /// Where traces are sent (OTLP over HTTP), below `/v1/traces`.
    endpoint: Option<String> = "OTEL_EXPORTER_OTLP_ENDPOINT", Unset("traces are not sent"), open_url(&["http", "https"], "http://collector:4318");
    /// The whole URL, in place of the one before.
    traces_endpoint: Option<String> = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", Unset("`/v1/traces` of `OTEL_EXPORTER_OTLP_ENDPOINT`"), open_url(&["http", "https"], "http://collector:4318/v1/traces");
    /// Header fields for the collector, such as its API key; values percent-encoded.
    headers: Option<Secret<Vec<(String, String)>>> = "OTEL_EXPORTER_OTLP_HEADERS", Unset("none"), pairs().secret();
    /// How long the collector may take to answer.
    timeout: Duration = "OTEL_EXPORTER_OTLP_TIMEOUT", Default("10000"), millis(1..=600_000);
    /// How spans are sent.
    protocol: Protocol = "OTEL_EXPORTER_OTLP_PROTOCOL", Default("http/protobuf"), one_of(PROTOCOLS);
    /// The name of the service in traces.
    service_name: Option<String> = "OTEL_SERVICE_NAME", Unset("`service.name` of `OTEL_RESOURCE_ATTRIBUTES`, else `numgen`"), text();
    /// What else to say of this node in traces; values percent-encoded.
    resource_attributes: Option<Vec<(String, String)>> = "OTEL_RESOURCE_ATTRIBUTES", Unset("none"), pairs();
    /// Which traces are recorded.
    sampler: Sampling = "OTEL_TRACES_SAMPLER", Default("parentbased_always_on"), one_of(SAMPLERS);
    /// Which part of the traces, for the samplers that take one.
    sampler_arg: f64 = "OTEL_TRACES_SAMPLER_ARG", Default("1.0"), ratio();
    /// Whether traces are off, whatever else is set.
    sdk: Tracing = "OTEL_SDK_DISABLED", Default("false"), one_of(SWITCH);
    /// How long a span waits for others before it is sent.
    delay: Duration = "OTEL_BSP_SCHEDULE_DELAY", Default("5000"), millis(1..=600_000);
    /// Spans that may wait; beyond them they are dropped and counted.
    queue: usize = "OTEL_BSP_MAX_QUEUE_SIZE", Default("2048"), whole(1..=1_000_000);
    /// Spans that are sent at once.
    batch: usize = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", Default("512"), whole(1..=1_000_000);
}

impl Traces {
    /// The URL that spans are posted to; `None` where none are made.
    pub fn url(&self) -> Option<String> {
        if self.sdk == Tracing::Disabled {
            return None;
        }
        let below = |base: &String| format!("{}/v1/traces", base.trim_end_matches('/'));
        self.traces_endpoint.clone().or_else(|| self.endpoint.as_ref().map(below))
    }
}

fn ratio() -> Parser<f64> {
    Parser::new("number from 0 to 1, such as 0.01", |text| {
        text.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
    })
}

/// `name=value,name=value`. The values stay as they are: whoever uses them decodes them.
fn pairs() -> Parser<Vec<(String, String)>> {
    Parser::explaining("comma-separated list of name=value", |text| {
        let pair = |item: &str| {
            let (name, value) = item.split_once('=').ok_or_else(Fault::default)?;
            let (name, value) = (name.trim(), value.trim());
            if name.is_empty() { Err(Fault::default()) } else { Ok((name.to_owned(), value.to_owned())) }
        };
        text.split(',').filter(|item| !item.trim().is_empty()).map(pair).collect()
    })
}
