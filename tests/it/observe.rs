//! What operators see: readiness, and metrics under the names that dashboards rely on.

use serde_json::json;

use crate::harness::TestServer;

#[test]
fn readiness_names_its_components() {
    let server = TestServer::start();
    server.admin("/livez").expect("an answer").expect(200);
    let ready = server.admin("/readyz").expect("an answer").expect(200).json();
    assert!(ready["status"].is_string(), "{ready}");
    assert!(ready["components"].as_object().is_some_and(|components| components.len() >= 2), "{ready}");
    // What is for operators is not for the public, nor the other way round.
    server.caller().get("/metrics").expect(404);
    server.caller().get("/readyz").expect_problem(404, "NotFound");
    server.admin("/openapi.json").expect("an answer").expect(404);
}

#[test]
fn metrics_have_the_names_of_the_contract() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("METER", &json!({ "format": "M-{SEQ:4}" }));
    caller.register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
    caller.register("BOOKS", &json!({ "format": "B-{SEQ:4}", "mode": "strict" }));
    caller.get("/numbers/METER?count=7").expect(200);
    caller.number("METER");
    caller.number("FLAKE");
    caller.number("BOOKS");
    caller.get("/api/numbers?prefixKey=NOBODY").expect(400);
    server.stranger().get("/numbers/METER").expect(401);
    caller.get("/made-up/path").expect(404);

    let answer = server.admin("/metrics").expect("an answer").expect(200);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    let text = answer.text();
    // The value of the one sample with this name and these labels, in any order.
    let sample = |name: &str, labels: &[(&str, &str)]| -> f64 {
        let wanted: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| wanted.iter().all(|label| line.contains(label.as_str())))
            .filter_map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()))
            .sum()
    };
    let requests = |route, status| {
        sample("numgen_http_requests_total", &[("route", route), ("method", "GET"), ("status", status)])
    };
    assert!((requests("/numbers/{prefixKey}", "200") - 4.0).abs() < 0.1, "{text}");
    assert!((requests("/numbers/{prefixKey}", "401") - 1.0).abs() < 0.1, "refusals are counted too:\n{text}");
    assert!((requests("/numbers", "400") - 1.0).abs() < 0.1, "with and without /api is one route:\n{text}");
    let issued = |mode, prefix| {
        sample("numgen_numbers_issued_total", &[("mode", mode), ("source", "primary"), ("prefix", prefix)])
    };
    assert!((issued("continuous", "METER") - 8.0).abs() < 0.1, "numbers, not requests:\n{text}");
    assert!((issued("snowflake", "FLAKE") - 1.0).abs() < 0.1, "{text}");
    assert!((issued("strict", "BOOKS") - 1.0).abs() < 0.1, "{text}");
    let timed = sample("numgen_http_request_duration_seconds_count", &[("route", "/numbers/{prefixKey}")]);
    assert!(timed >= 5.0, "{text}");
    assert!(text.contains("numgen_http_request_duration_seconds_bucket{"), "a histogram:\n{text}");
    assert!(sample("numgen_store_calls_total", &[("store", "sqlite"), ("outcome", "ok")]) >= 3.0, "{text}");
    for name in ["numgen_worker_window_seconds", "numgen_segment_remaining", "numgen_temporary_numbers_open"]
    {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} in\n{text}");
    }
    assert!(sample("numgen_worker_window_seconds", &[]) > 0.0, "{text}");
    // Paths that callers make up are no labels, else anybody could fill the memory.
    assert!(!text.contains("made-up") && !text.contains("NOBODY"), "{text}");
    // Each family says what it is.
    for name in ["numgen_http_requests_total", "numgen_numbers_issued_total", "numgen_worker_window_seconds"]
    {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} in\n{text}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} in\n{text}");
    }
}
