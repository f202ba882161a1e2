//! From settings to spans on their way: what telemetry must not know of the configuration and of HTTP.

use std::{borrow::Cow, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;

use crate::{
    client::{Client, ClientError, Limits},
    config::{Config, NodeName, Sampling, Traces},
    secret::Secret,
    telemetry::traces::Settings,
};

/// More than a collector has to say.
const ANSWER_BYTES: usize = 64 * 1024;

/// What is traced, as the configuration wants it; `None`: nothing.
pub fn settings(config: &Config) -> Option<Settings> {
    let Config { traces, worker, .. } = config;
    let headers = traces.headers.as_ref().map(|headers| headers.reveal().clone()).unwrap_or_default();
    Some(Settings {
        endpoint: traces.url()?,
        headers: headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
        timeout: traces.timeout,
        delay: traces.delay,
        queue: traces.queue,
        batch: traces.batch.min(traces.queue),
        sampler: sampler(traces),
        resource: resource(traces, config.node.name.as_ref(), worker.datacenter_id),
    })
}

fn sampler(traces: &Traces) -> Sampler {
    let part = Sampler::TraceIdRatioBased(traces.sampler_arg);
    let else_by = |other| Sampler::ParentBased(Box::new(other));
    match traces.sampler {
        Sampling::Always => Sampler::AlwaysOn,
        Sampling::Never => Sampler::AlwaysOff,
        Sampling::Ratio => part,
        Sampling::CallerElseAlways => else_by(Sampler::AlwaysOn),
        Sampling::CallerElseNever => else_by(Sampler::AlwaysOff),
        Sampling::CallerElseRatio => else_by(part),
    }
}

/// Later ones win: what the operator says of this node, and the name above all.
fn resource(traces: &Traces, node: Option<&NodeName>, datacenter: u32) -> Vec<(Cow<'static, str>, String)> {
    let mut attributes: Vec<(Cow<'static, str>, String)> = vec![
        ("service.name".into(), env!("CARGO_PKG_NAME").to_owned()),
        ("service.version".into(), env!("CARGO_PKG_VERSION").to_owned()),
        ("numgen.datacenter".into(), datacenter.to_string()),
    ];
    attributes.extend(node.map(|node| ("service.instance.id".into(), node.to_string())));
    let given = traces.resource_attributes.iter().flatten();
    attributes.extend(given.map(|(name, value)| (name.clone().into(), decoded(value))));
    attributes.extend(traces.service_name.iter().map(|name| ("service.name".into(), name.clone())));
    attributes
}

fn decoded(value: &str) -> String {
    percent_decode_str(value).decode_utf8_lossy().into_owned()
}

/// Posts by this crate's own client.
#[derive(Debug)]
pub(super) struct Carrier {
    client: Client,
    limits: Limits,
}

impl Carrier {
    pub(super) fn new(traces: &Traces) -> Result<Arc<Self>, ClientError> {
        let client = Client::for_url(&traces.url().unwrap_or_default())?;
        Ok(Arc::new(Self { client, limits: Limits { deadline: traces.timeout, body_bytes: ANSWER_BYTES } }))
    }
}

impl HttpClient for Carrier {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let url = head.uri.to_string();
            Ok(self.client.send(head.method, &url, head.headers, body, self.limits).await?)
        })
    }
}
