//! Nothing secret in the log, not even at level trace, nor in spans, and not when things go wrong.

use serde_json::json;

use crate::harness::{Caller, Collector, SECRET, Site};

#[test]
fn canaries_reach_neither_log_nor_spans() {
    let collector = Collector::start();
    let server = Site::new()
        .with("NUMGEN_LOG", "trace")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .with("OTEL_EXPORTER_OTLP_HEADERS", "x-key=canary-collector")
        .with("OTEL_RESOURCE_ATTRIBUTES", "team.password=canary-resource,team.name=numbers")
        .start();
    let mut caller = server.caller();
    let token = caller.authorization().trim_start_matches("Bearer ").to_owned();

    // Registered in every way, and refused in some.
    caller.register("MASK", &json!({ "format": "M-{SEQ:4}", "initial_seq": 7_771_234_561_u64 }));
    caller.register("MASK2", &json!({ "format": "N-{SEQ:4}", "initialSeq": "7771234562" }));
    let put = json!({ "format": "M-{SEQ:5}", "initial_seq": 7_771_234_563_u64 });
    caller.send("PUT", "/prefix-configs/MASK", &[], Some(&put)).expect(200);
    caller
        .post("/prefix-configs/MASK", &json!({ "format": "X{SEQ:4}", "initial_seq": 7_771_234_564_u64 }))
        .expect(409);
    let beyond = json!({ "format": "X{SEQ:4}", "initial_seq": "7771234565", "max_seq": 10 });
    let refused = caller.post("/prefix-configs/MASK3", &beyond).expect(400);
    assert!(!refused.text().contains("7771234565"), "nor an error body: {}", refused.text());
    let nonsense = json!({ "format": "X{SEQ:4}", "initial_seq": "canary-7771234566" });
    assert!(!caller.post("/prefix-configs/MASK3", &nonsense).expect(400).text().contains("7771234566"));
    let preview = json!({ "format": "X{SEQ:12}", "initial_seq": 7_771_234_567_u64 });
    caller.post("/formats/preview", &preview).expect(200);

    // Tokens where they belong, and where they do not.
    caller.get(&format!("/prefix-configs?access_token={token}"));
    let forged = format!("{token}canaryforged");
    Caller::new(server.listen, Some(forged.clone())).get("/prefix-configs").expect(401);
    server
        .stranger()
        .send("GET", "/prefix-configs", &[("Cookie", "session=canary-cookie")], None)
        .expect(401);
    let basic = [("Authorization", "Basic Y2FuYXJ5OmNhbmFyeQ==")];
    server.stranger().send("GET", "/prefix-configs", &basic, None).expect(401);

    // A token in a path, and in what a caller calls itself.
    server.stranger().send("GET", &format!("/{token}"), &[("tracestate", "canary=1")], None).expect(404);

    let log = server.stop().log();
    let sent = format!("{:?}", collector.spans());
    let resources = format!("{:?}", collector.posts().iter().map(|post| post.request()).collect::<Vec<_>>());
    assert!(sent.contains("PUT /prefix-configs/{prefixKey}"), "spans have arrived: {sent}");
    assert!(resources.contains("team.name") && resources.contains("team.password"), "{resources}");
    for canary in [
        "canary-collector",
        "canary-resource",
        SECRET,
        &token,
        &forged,
        "7771234561",
        "7771234562",
        "7771234563",
        "7771234564",
        "7771234565",
        "7771234566",
        "7771234567",
        "canary-cookie",
        "Y2FuYXJ5OmNhbmFyeQ",
    ] {
        let line = log.lines().find(|line| line.contains(canary));
        assert_eq!(line, None, "{canary} is in the log");
        assert!(!sent.contains(canary) && !resources.contains(canary), "{canary} is in a span");
    }
    // The token's signature alone would do as well.
    let signature = token.rsplit('.').next().expect("three parts");
    assert!(!log.contains(signature) && !sent.contains(signature));

    // What is there instead. In JSON logs a document inside a field has its quotes escaped.
    let plain = log.replace('\\', "").replace("\": ", "\":");
    assert!(plain.contains(r#""initial_seq":"****""#), "the registration shows that there was one:\n{log}");
    assert!(plain.contains(r#""status":"registered""#), "and what became of it:\n{log}");
}

#[test]
fn security_events_are_logged_with_reason_address_and_route() {
    let server = Site::new().start();
    server
        .stranger()
        .post("/prefix-configs/SECURE", &json!({ "format": "S-{SEQ:4}" }))
        .expect_problem(401, "Unauthorized");
    let mut reader = server.caller_with(&["--scope", "prefixes:read", "--sub", "reader"]);
    reader.post("/prefix-configs/SECURE", &json!({ "format": "S-{SEQ:4}" })).expect_problem(403, "Forbidden");
    let log = server.stop().log();
    let events: Vec<&str> = log.lines().filter(|line| line.contains("\"reason\":")).collect();
    assert_eq!(events.len(), 2, "one for the 401, one for the 403:\n{log}");
    for (event, reason) in events.iter().zip(["missing", "missing_scope"]) {
        for part in ["\"WARN\"", reason, "\"address\":\"127.0.0.1\"", "/prefix-configs/SECURE"] {
            assert!(event.contains(part), "{part} in {event}");
        }
    }
}
