//! Traces: whose they are, what is in them, and that nobody waits for a collector.

use std::{thread, time::Duration};

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use serde_json::json;

use crate::harness::{Caller, Collector, Manners, Site, Stopwatch, TestServer, attribute};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A place whose spans go to a collector, soon.
fn site(collector: &Collector) -> Site {
    Site::new().with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()).with("OTEL_BSP_SCHEDULE_DELAY", "100")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The spans of a trace, once that of the request is there, which ends last.
#[track_caller]
fn spans_of(collector: &Collector, trace: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    Stopwatch::wait_until(Duration::from_secs(20), "spans arrive", || {
        spans = collector.spans();
        spans.retain(|span| hex(&span.trace_id) == trace);
        spans.iter().any(|span| span.kind == SpanKind::Server as i32)
    });
    spans
}

#[track_caller]
fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| {
        panic!("{name} among {:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>())
    })
}

fn traced(caller: &mut Caller, target: &str, parent: &str) -> crate::harness::Response {
    caller.send("GET", target, &[("traceparent", parent), ("tracestate", "vendor=opaque")], None)
}

#[test]
fn a_request_stays_in_the_trace_of_its_caller() {
    let collector = Collector::start();
    let server = site(&collector)
        .with("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=canary%20key")
        .with("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=a%20test,service.name=overruled")
        .with("OTEL_SERVICE_NAME", "numbers")
        .start();
    let mut caller = server.caller();
    caller.register("METER", &json!({ "format": "M-{SEQ:4}" }));
    let answer = traced(&mut caller, "/numbers/METER", SENT).expect(200);
    let spans = spans_of(&collector, TRACE);

    let request = named(&spans, "GET /numbers/{prefixKey}");
    assert_eq!(hex(&request.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(request.kind, SpanKind::Server as i32);
    assert_eq!(request.trace_state, "vendor=opaque");
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/numbers/{prefixKey}"),
        ("http.response.status_code", "200"),
        ("url.path", "/numbers/METER"),
        ("client.address", "127.0.0.1"),
        ("request_id", answer.header("x-request-id").expect("an ID")),
    ] {
        assert_eq!(attribute(&request.attributes, name).as_deref(), Some(value), "{name}");
    }
    // The answer names the span.
    let own = format!("00-{TRACE}-{}-01", hex(&request.span_id));
    assert_eq!(answer.header("traceparent"), Some(own.as_str()));

    // Down to the store, each in the one before.
    let draw = named(&spans, "wait");
    assert_eq!(draw.parent_span_id, request.span_id);
    let call = named(&spans, "combined call");
    assert_eq!(call.parent_span_id, draw.span_id);
    assert_eq!(attribute(&call.attributes, "requests").as_deref(), Some("1"));
    let store = named(&spans, "sqlite take");
    assert_eq!(store.parent_span_id, call.span_id);
    assert_eq!(store.kind, SpanKind::Client as i32);
    assert_eq!(attribute(&store.attributes, "db.system.name").as_deref(), Some("sqlite"));
    assert_eq!(attribute(&store.attributes, "outcome").as_deref(), Some("ok"));

    // Who says so.
    let post = collector.posts().into_iter().next().expect("a post");
    assert!(post.head.starts_with("post /v1/traces http/1.1"), "{}", post.head);
    assert!(post.head.contains("content-type: application/x-protobuf"), "{}", post.head);
    assert!(post.head.contains("x-api-key: canary key"), "{}", post.head);
    let resource = post.request().resource_spans.remove(0).resource.expect("a resource").attributes;
    assert_eq!(attribute(&resource, "service.name").as_deref(), Some("numbers"));
    assert_eq!(attribute(&resource, "service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(attribute(&resource, "deployment.environment.name").as_deref(), Some("a test"));
    assert!(!server.stop().log().contains("canary"), "the key of the collector is a secret");
}

#[test]
fn what_is_no_parent_is_none_and_who_is_not_sampled_is_not_sent() {
    let collector = Collector::start();
    let server = site(&collector).start();
    let mut caller = server.caller();
    caller.register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
    let unsampled = SENT.replace("-01", "-00");
    let answer = traced(&mut caller, "/numbers/FLAKE", &unsampled).expect(200);
    let own = answer.header("traceparent").expect("a trace");
    assert!(own.starts_with(&unsampled[..36]) && own.ends_with("-00"), "{own}");
    for wrong in ["00-zz-01", &SENT.replace(TRACE, &"0".repeat(32)), &SENT.to_uppercase()] {
        let answer = traced(&mut caller, "/numbers/FLAKE", wrong).expect(200);
        let own = answer.header("traceparent").expect("a trace of its own");
        assert!(!own.contains(TRACE), "{own}");
        let spans = spans_of(&collector, &own[3..35]);
        assert_eq!(hex(&spans[0].span_id), own[36..52]);
        assert!(spans[0].parent_span_id.is_empty() && spans[0].trace_state.is_empty(), "{:?}", spans[0]);
    }
    assert!(collector.spans().iter().all(|span| hex(&span.trace_id) != TRACE), "not sampled, not sent");
}

#[test]
fn a_failure_has_one_id_in_answer_log_and_span() {
    let collector = Collector::start();
    let server = site(&collector)
        .with("NUMGEN_SNOWFLAKE_LAYOUT", "52/5/5/1")
        .with("NUMGEN_STORAGE_TIMEOUT_MS", "1000")
        .start();
    let mut caller = server.caller();
    caller.register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
    let answer = traced(&mut caller, "/numbers/FLAKE?count=10000", SENT);
    let problem = answer.expect_problem(503, "Overloaded");
    let id = problem["request_id"].as_str().expect("an ID");
    assert_eq!(answer.header("x-request-id"), Some(id));
    let spans = spans_of(&collector, TRACE);
    let request = named(&spans, "GET /numbers/{prefixKey}");
    assert_eq!(attribute(&request.attributes, "request_id").as_deref(), Some(id));
    assert_eq!(request.status.as_ref().map(|status| status.code), Some(StatusCode::Error as i32));
    assert!(!request.events.is_empty(), "what went wrong is in the span");

    caller.get("/prefix-configs/NOBODY").expect(404);
    server.stranger().get("/numbers/FLAKE").expect(401);
    let log = server.stop().log();
    let lines: Vec<serde_json::Value> =
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of_request: Vec<_> = lines.iter().filter(|line| line["request_id"] == id).collect();
    assert_eq!(of_request.len(), 2, "its cause and its access line:\n{log}");
    assert!(of_request.iter().all(|line| line["level"] == "ERROR" && line["trace_id"] == TRACE), "{log}");
    // One access line for what callers did wrong, none for what went well.
    let access: Vec<_> = lines.iter().filter(|line| line["target"] == "numgen::access").collect();
    let statuses: Vec<_> = access.iter().map(|line| (&line["level"], line["status"].as_u64())).collect();
    assert_eq!(
        statuses,
        [(&json!("ERROR"), Some(503)), (&json!("INFO"), Some(404)), (&json!("INFO"), Some(401))]
    );
    assert!(access.iter().all(|line| line["request_id"].is_string() && line["elapsed_us"].is_u64()), "{log}");
}

#[test]
fn those_who_share_a_call_are_linked_to_it() {
    let collector = Collector::start();
    let server = site(&collector).with("OTEL_BSP_MAX_QUEUE_SIZE", "100000").start();
    let caller = server.caller();
    caller.again().register("HOT", &json!({ "format": "H-{SEQ:9}" }));
    thread::scope(|scope| {
        for _ in 0..16 {
            let mut caller = caller.again();
            scope.spawn(move || (0..50).for_each(|_| drop(caller.number("HOT"))));
        }
    });
    let mut spans = Vec::new();
    Stopwatch::wait_until(Duration::from_secs(20), "every request has its spans", || {
        spans = collector.spans();
        spans.iter().filter(|span| span.name == "wait").count() >= 800
    });
    let shared: Vec<_> =
        spans.iter().filter(|span| span.name == "combined call" && !span.links.is_empty()).collect();
    assert!(!shared.is_empty(), "16 callers on one counter share calls");
    for call in shared {
        assert_eq!(attribute(&call.attributes, "requests"), Some((call.links.len() + 1).to_string()));
        let draws = call.links.iter().map(|link| &link.span_id).chain([&call.parent_span_id]);
        for id in draws {
            assert!(
                spans.iter().any(|span| span.name == "wait" && span.span_id == *id),
                "each leads to a request"
            );
        }
    }
}

fn spans_total(server: &TestServer, outcome: &str) -> f64 {
    let text = server.admin("/metrics").expect("an answer").expect(200).text();
    let series = format!("numgen_trace_spans_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).expect("the series")
}

#[test]
fn a_dead_collector_costs_a_log_line() {
    let nobody = crate::harness::free_address();
    let server = Site::new()
        .with("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("http://{nobody}/v1/traces"))
        .with("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start();
    let mut caller = server.caller();
    caller.register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
    Stopwatch::wait_until(Duration::from_secs(20), "some posts have failed", || {
        caller.number("FLAKE");
        spans_total(&server, "failed") >= 20.0
    });
    assert!(spans_total(&server, "exported") < 0.5);
    let log = server.stop().log();
    let complaints = log.lines().filter(|line| line.contains("the collector does not take spans")).count();
    assert_eq!(complaints, 1, "{log}");
}

#[test]
fn nobody_waits_for_a_collector_that_says_nothing() {
    let collector = Collector::with(Manners::Silent);
    let server = site(&collector).with("OTEL_BSP_MAX_QUEUE_SIZE", "16").start();
    let mut caller = server.caller();
    caller.register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
    let watch = Stopwatch::start();
    for _ in 0..500 {
        caller.number("FLAKE");
    }
    watch.assert_within(Duration::from_secs(10), "500 numbers");
    assert!(spans_total(&server, "dropped") > 400.0, "a queue of 16");
    let watch = Stopwatch::start();
    server.stop();
    watch.assert_within(Duration::from_secs(8), "nor does the end of the process wait: it");
}

#[test]
fn the_end_of_the_process_sends_what_is_left() {
    let collector = Collector::start();
    let server = site(&collector).with("OTEL_BSP_SCHEDULE_DELAY", "600000").start();
    let mut caller = server.caller();
    caller.register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
    traced(&mut caller, "/numbers/FLAKE", SENT).expect(200);
    assert!(collector.spans().is_empty(), "not yet");
    server.stop();
    let spans = collector.spans();
    assert!(spans.iter().any(|span| hex(&span.trace_id) == TRACE), "{spans:?}");
}

#[test]
fn samplers_and_the_switch_do_as_they_are_told() {
    let collector = Collector::start();
    for (name, value, counted) in [
        ("OTEL_SDK_DISABLED", "true", [false, false]),
        ("OTEL_TRACES_SAMPLER", "always_off", [false, false]),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off", [true, false]),
        ("OTEL_TRACES_SAMPLER", "always_on", [true, true]),
    ] {
        let before = collector.spans().len();
        let server = site(&collector).with(name, value).start();
        let mut caller = server.caller();
        let with_parent = traced(&mut caller, "/prefix-configs/NOBODY", SENT).expect(404);
        let without = caller.get("/prefix-configs/NOBODY").expect(404);
        server.stop();
        let spans = collector.spans().split_off(before);
        let of_caller = spans.iter().any(|span| hex(&span.trace_id) == TRACE);
        let own = without.header("traceparent").map(|own| own[3..35].to_owned());
        let of_nobody = spans.iter().any(|span| Some(hex(&span.trace_id)) == own);
        assert_eq!([of_caller, of_nobody], counted, "{name}={value}");
        // Whoever sent a trace gets it back, whatever is recorded.
        assert_eq!(&with_parent.header("traceparent").expect("the trace")[..35], &SENT[..35]);
    }
}

#[test]
fn without_a_collector_the_trace_of_a_caller_is_still_in_its_log_lines() {
    let server = TestServer::start();
    let mut caller = server.caller();
    let answer = traced(&mut caller, "/prefix-configs/NOBODY", SENT).expect(404);
    assert_eq!(answer.header("traceparent"), Some(SENT), "it is handed back as it came");
    assert_eq!(caller.get("/prefix-configs/NOBODY").expect(404).header("traceparent"), None);
    let log = server.stop().log();
    assert_eq!(
        log.lines().filter(|line| line.contains(&format!("\"trace_id\":\"{TRACE}\""))).count(),
        1,
        "{log}"
    );
}

#[test]
fn a_sample_of_what_went_well_is_logged_where_it_is_wanted() {
    let server = Site::new().with("NUMGEN_LOG_ACCESS_SAMPLE", "10").start();
    let mut caller = server.caller();
    caller.register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
    for _ in 0..199 {
        caller.number("FLAKE");
    }
    let log = server.stop().log();
    let lines =
        log.lines().filter(|line| line.contains("numgen::access") && line.contains("\"status\":200")).count();
    // Each thread counts for itself, and a caller stays on one.
    assert!((19..=22).contains(&lines), "{lines} of 200");
}
