//! Canaries through every way into the log, and what `/metrics` shows.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tracing::{Level, dispatcher::with_default, field::Empty, level_filters::LevelFilter};
use tracing_subscriber::{Registry, fmt::MakeWriter, layer::SubscriberExt};

use super::*;
use crate::{
    clock::{ManualClock, UnixMillis},
    secret::Secret,
};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Captured {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// What is logged at level trace while `work` runs.
fn logged(style: Style, work: impl FnOnce()) -> String {
    let captured = Captured::default();
    let layer = LogLayer::new(style, Arc::new(ManualClock::at(UnixMillis(0))), captured.clone());
    let subscriber = Registry::default().with(LevelFilter::TRACE).with(layer);
    with_default(&subscriber.into(), work);
    let bytes = captured.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[derive(Debug, thiserror::Error)]
#[error("cannot connect to postgres://numgen:canary-1@db/numgen")]
struct Outer(#[source] Inner);

#[derive(Debug, thiserror::Error)]
#[error("refused with token=canary-2")]
struct Inner;

#[derive(Debug, thiserror::Error)]
#[error("while starting: {0}")]
struct Told(#[source] Outer);

#[test]
fn a_chain_says_everything_once() {
    let told = Told(Outer(Inner));
    let text =
        "while starting: cannot connect to postgres://numgen:canary-1@db/numgen: refused with token=canary-2";
    assert_eq!(fields::chain(&told), text);
}

#[expect(dead_code, reason = "only its Debug is used")]
#[derive(Debug)]
struct Draft {
    initial_seq: Option<u64>,
    format: &'static str,
}

/// Not a real token; three parts in the right form are enough to be one.
const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.canary-3_signature";

fn log_every_secret() {
    let outer = tracing::trace_span!(
        "request",
        authorization = "Bearer canary-4",
        request_id = "r1",
        initial_seq = Empty
    );
    outer.record("initial_seq", 424_242);
    let _outer = outer.enter();
    let inner = tracing::trace_span!("store", redis_url = "redis://:canary-5@host/0", cookie = ?["canary-6"]);
    let _inner = inner.enter();
    let draft = Draft { initial_seq: Some(424_242), format: "A-{SEQ:4}" };
    let error = Outer(Inner);
    tracing::info!(prefix_key = "ORDERS", initial_seq = 424_242, "rule registered");
    tracing::trace!(initial_seq = %"424242", initialSeq = "424242", rule.initial_seq = true, "rule saved");
    tracing::debug!(?draft, body = r#"{"initial_seq": 424242, "format": "x"}"#, "draft");
    tracing::debug!(token = JWT, access_token = ?Some("canary-7"), jwt_secret = 424_242_u64, other = JWT, "got {JWT}");
    tracing::error!(error = &error as &dyn std::error::Error, "failed: {error:?}");
    tracing::error!(%error, database_url = "postgres://u:canary-8@h", password = 42.4242, "failed");
    tracing::warn!(secret = ?Secret::new("canary-9"), "GET /numbers?token=canary-10 to http://u:canary-11@host:1/x");
    let header = format!("authorization: Basic {}", "canary-12");
    tracing::event!(Level::TRACE, "{header}");
}

#[test]
fn no_secret_is_ever_logged() {
    for style in [Style::Json, Style::Plain, Style::Coloured] {
        let text = logged(style, log_every_secret);
        assert_eq!(text.lines().count(), 8, "{text}");
        for secret in ["canary", "424242", "42.4242", "eyJ"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        // What is no secret is still there.
        for open in
            ["rule registered", "ORDERS", "r1", "redis://****@host/0", "A-{SEQ:4}", "refused with token=****"]
        {
            assert!(text.contains(open), "{open} not in {text}");
        }
    }
}

#[test]
fn the_registration_of_a_rule_shows_a_masked_start() {
    let register = || tracing::info!(prefix_key = "ORDERS", initial_seq = 1000, "rule registered");
    assert_eq!(
        logged(Style::Json, register),
        concat!(
            r#"{"timestamp":"1970-01-01T00:00:00.000Z","level":"INFO","target":"numgen::telemetry::tests","#,
            r#""message":"rule registered","prefix_key":"ORDERS","initial_seq":"****"}"#,
            "\n"
        )
    );
    assert_eq!(
        logged(Style::Plain, register),
        "1970-01-01T00:00:00.000Z  INFO rule registered prefix_key=\"ORDERS\" initial_seq=\"****\"  \
         numgen::telemetry::tests\n"
    );
}

#[test]
fn every_json_line_is_json_and_spans_stand_from_the_outside_in() {
    let text = logged(Style::Json, || {
        let request = tracing::info_span!("request", request_id = "r1", n = Empty);
        let _request = request.enter();
        request.record("n", 1);
        request.record("n", 2);
        tracing::info_span!("inner")
            .in_scope(|| tracing::info!(level = 1, ratio = f64::NAN, ok = true, "a \"quote\"\n"));
    });
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["_level"], 1);
    assert_eq!((&line["ratio"], &line["ok"]), (&"NaN".into(), &true.into()));
    assert_eq!(line["message"], "a \"quote\"\n");
    assert_eq!(line["spans"][0], serde_json::json!({"span": "request", "request_id": "r1", "n": 2}));
    assert_eq!(line["spans"][1]["span"], "inner");
}

#[test]
fn a_caller_can_neither_forge_a_line_nor_steer_the_terminal() {
    let text = logged(Style::Plain, || {
        let path = "/x\n2026 ERROR forged\u{1b}[2J";
        tracing::info!(path, shown = %path, "{path}");
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_panic_is_logged_without_its_secrets() {
    let text = logged(Style::Json, || {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(panics::log_panic));
        let caught = std::panic::catch_unwind(|| panic!("no answer from redis://:canary@host"));
        std::panic::set_hook(previous);
        assert!(caught.is_err());
    });
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["panic"], "no answer from redis://****@host");
    assert!(line["location"].as_str().unwrap().contains("telemetry/tests.rs:"), "{line}");
    assert_eq!((&line["level"], &line["message"]), (&"ERROR".into(), &"panicked".into()));
}

#[test]
fn every_metric_of_the_contract_is_there_with_its_labels_and_help() {
    let metrics = Metrics::new();
    HttpMetrics::new(&metrics, &["/numbers"]).record(
        0,
        &::http::Method::GET,
        ::http::StatusCode::OK,
        std::time::Duration::from_millis(3),
    );
    metrics.numbers_issued("continuous", "primary", "ORDERS").increment(5);
    metrics.store_calls("sqlite", "take").count(StoreOutcome::Timeout, std::time::Duration::from_millis(30));
    metrics.gauges().worker_window_seconds.set(1.5);
    let text = metrics.render();
    for line in [
        r#"numgen_http_requests_total{route="/numbers",method="GET",status="200"} 1"#,
        r#"numgen_http_request_duration_seconds_count{route="/numbers"} 1"#,
        r#"numgen_numbers_issued_total{mode="continuous",source="primary",prefix="ORDERS"} 5"#,
        r#"numgen_store_calls_total{store="sqlite",operation="take",outcome="timeout"} 1"#,
        r#"numgen_store_calls_total{store="sqlite",operation="take",outcome="ok"} 0"#,
        r#"numgen_store_call_duration_seconds_sum{store="sqlite",operation="take"} 0.03"#,
        "numgen_worker_window_seconds 1.5",
        "numgen_segment_remaining 0",
        "numgen_temporary_numbers_open 0",
        concat!("numgen_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
    let names: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in &names {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
    let known = |name: &&str| catalog::FAMILIES.iter().any(|family| family.name == *name);
    assert!(names.len() > 10 && names.iter().all(known), "{names:?}");
}

#[test]
fn prefix_labels_are_bounded_by_arrival() {
    let metrics = Metrics::new();
    for number in 0..300 {
        metrics.numbers_issued("snowflake", "primary", &format!("P{number}")).increment(1);
    }
    metrics.numbers_issued("snowflake", "primary", "P7").increment(1);
    let text = metrics.render();
    let series = text.lines().filter(|line| line.starts_with("numgen_numbers_issued_total{")).count();
    assert_eq!(series, 101);
    assert!(text.contains(r#"{mode="snowflake",source="primary",prefix="other"} 200"#), "{text}");
    assert!(text.contains(r#"{mode="snowflake",source="primary",prefix="P7"} 2"#), "{text}");
}
