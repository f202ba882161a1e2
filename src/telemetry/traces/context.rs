//! The trace that a request belongs to (W3C Trace Context, <https://www.w3.org/TR/trace-context-2/>).

use std::{fmt, str::FromStr};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header, in requests and in answers.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-` trace ID `-` span ID `-` flags.
const LENGTH: usize = 55;

/// The longest `tracestate` that is passed on, in bytes: what the specification asks for at least.
const TRACESTATE_BYTES: usize = 512;

/// Which trace, and which span of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: TraceId,
    span: SpanId,
    flags: u8,
}

impl TraceContext {
    /// What the caller sent; `None` where that is nothing, or nothing valid.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(only), None) => Self::parse(only.as_bytes()),
            (None, _) | (Some(_), Some(_)) => None,
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let version = number(&known[..2])?;
        // Version 00 ends here; later ones may go on behind another dash, 255 is forbidden.
        let is_whole = rest.is_empty() || version > 0 && rest[0] == b'-';
        let has_dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
        if version == u128::from(u8::MAX) || !is_whole || !has_dashes {
            return None;
        }
        let trace = TraceId::from(number(&known[3..35])?);
        let span = SpanId::from(u64::try_from(number(&known[36..52])?).ok()?);
        let flags = u8::try_from(number(&known[53..55])?).ok()?;
        (trace != TraceId::INVALID && span != SpanId::INVALID).then_some(Self { trace, span, flags })
    }

    /// The trace ID, as it stands in logs.
    pub fn trace_id(self) -> impl fmt::Display {
        self.trace
    }

    /// The header of an answer, or of a request further on.
    pub fn to_header(self) -> (HeaderName, HeaderValue) {
        let text = self.to_string();
        (TRACEPARENT, HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("")))
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A number in hexadecimal digits, of which the specification allows only lower-case ones.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Makes `span` a part of the trace that the caller sent, if it sent one. Answers which trace it belongs to now: that of the
/// caller, one of its own, or `None` where nothing is traced and the caller sent nothing.
pub fn join(span: &Span, headers: &HeaderMap) -> Option<TraceContext> {
    let sent = TraceContext::of(headers);
    if span.is_disabled() {
        return sent;
    }
    if let Some(TraceContext { trace, span: parent, flags }) = sent {
        let remote = SpanContext::new(trace, parent, TraceFlags::new(flags), true, state(headers));
        // Where no layer makes spans, there is nothing to join.
        let _ = span.set_parent(Context::new().with_remote_span_context(remote));
    }
    let context = span.context();
    let own = context.span().span_context().clone();
    if !own.is_valid() {
        return sent;
    }
    Some(TraceContext { trace: own.trace_id(), span: own.span_id(), flags: own.trace_flags().to_u8() })
}

fn state(headers: &HeaderMap) -> TraceState {
    let parts: Vec<_> = headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
    let text = parts.join(",");
    if text.len() > TRACESTATE_BYTES {
        TraceState::NONE
    } else {
        TraceState::from_str(&text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parsed(text: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_str(text).expect("valid"));
        TraceContext::of(&headers).map(|context| context.to_string())
    }

    #[test]
    fn reads_what_the_specification_calls_valid() {
        assert_eq!(parsed(SENT).as_deref(), Some(SENT));
        let later = SENT.replacen("00", "cc", 1) + "-what-the-future-will-be-like";
        assert_eq!(parsed(&later).as_deref(), Some(SENT), "a later version is read as far as it is known");
        for wrong in [
            "",
            "00",
            &SENT[..54],
            &format!("{SENT}-00"),
            &format!("{SENT}0"),
            &SENT.replacen("00", "ff", 1),
            &SENT.to_uppercase(),
            &SENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &SENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &SENT.replace("-01", "_01"),
            &SENT.replace("4bf9", "4bg9"),
        ] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn two_parents_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(SENT));
        headers.append(TRACEPARENT, HeaderValue::from_static(SENT));
        assert_eq!(TraceContext::of(&headers), None);
    }
}
