//! Takes secrets out of spans: by the names of attributes, and by the shape of values.

use std::borrow::Cow;

use opentelemetry::{KeyValue, Value, trace::Status};
use opentelemetry_sdk::trace::SpanData;

use crate::scrub::{MASK, names_a_secret, scrub};

/// Every text of a span.
pub(super) fn span(span: &mut SpanData) {
    if let Cow::Owned(clean) = scrub(&span.name) {
        span.name = Cow::Owned(clean);
    }
    attributes(&mut span.attributes);
    for event in &mut span.events.events {
        if let Cow::Owned(clean) = scrub(&event.name) {
            event.name = Cow::Owned(clean);
        }
        attributes(&mut event.attributes);
    }
    for link in &mut span.links.links {
        attributes(&mut link.attributes);
    }
    if let Status::Error { description } = &mut span.status
        && let Cow::Owned(clean) = scrub(description)
    {
        *description = Cow::Owned(clean);
    }
}

fn attributes(attributes: &mut [KeyValue]) {
    for attribute in attributes {
        if names_a_secret(attribute.key.as_str()) {
            attribute.value = Value::from(MASK);
            continue;
        }
        let text = match &attribute.value {
            Value::Bool(_) | Value::I64(_) | Value::F64(_) => continue,
            Value::String(text) => Cow::Borrowed(text.as_str()),
            // Lists, and whatever else a later version may hold.
            other @ (Value::Array(_) | _) => Cow::Owned(other.to_string()),
        };
        if let Cow::Owned(clean) = scrub(&text) {
            attribute.value = Value::from(clean);
        }
    }
}

/// The value of an attribute.
pub(super) fn value<'a>(name: &str, text: &'a str) -> Cow<'a, str> {
    if names_a_secret(name) { Cow::Borrowed(MASK) } else { scrub(text) }
}
