//! The `prefixes` claim: a tenant reads, writes and draws only under its own keys.

use serde_json::json;

use crate::harness::TestServer;

#[test]
fn a_tenant_stays_within_its_prefixes() {
    let server = TestServer::start();
    let mut admin = server.caller();
    let mut tenant =
        server.caller_with(&["--scope", "admin", "--sub", "tenant", "--prefixes", "ACME-*,SHARED"]);
    admin.register("OTHER", &json!({ "format": "O-{SEQ:3}", "mode": "strict" }));
    admin.register("SHARED", &json!({ "format": "SH-{SEQ:3}" }));
    admin.number("OTHER");
    tenant.register("ACME-1", &json!({ "format": "AC-{SEQ:3}" }));
    assert_eq!(tenant.number("ACME-1"), "AC-001");
    assert_eq!(tenant.number("SHARED"), "SH-001");

    let rule = json!({ "format": "X-{SEQ:3}" });
    let refusals = [
        ("GET", "/numbers/OTHER", None),
        ("GET", "/numbers?prefixKey=OTHER", None),
        ("POST", "/numbers", Some(json!({ "prefix_key": "OTHER" }))),
        ("GET", "/prefix-configs/OTHER", None),
        ("PUT", "/prefix-configs/OTHER", Some(rule.clone())),
        ("POST", "/prefix-configs/NEW", Some(rule.clone())),
        ("POST", "/prefix-configs", Some(json!({ "prefix_key": "NEW", "format": "X-{SEQ:3}" }))),
        ("DELETE", "/prefix-configs/OTHER", None),
        ("GET", "/sequences/OTHER", None),
        ("POST", "/sequences/OTHER/advance", Some(json!({ "to": 50 }))),
        ("GET", "/numbers/decode?prefixKey=OTHER&number=O-001", None),
        ("POST", "/numbers/OTHER/O-001/void", Some(json!({ "reason": "mischief" }))),
        ("GET", "/ledger/OTHER", None),
        ("GET", "/ledger/OTHER/certificate", None),
        ("GET", "/audit?prefixKey=OTHER", None),
        // Whether a key exists outside is not told.
        ("GET", "/prefix-configs/NEVER-SEEN", None),
        ("GET", "/numbers/acme-1", None),
    ];
    for (method, target, body) in refusals {
        tenant.send(method, target, &[], body.as_ref()).expect_problem(403, "Forbidden");
    }

    let keys = |page: serde_json::Value| -> Vec<String> {
        let rules = page["rules"].as_array().expect("rules").clone();
        rules.iter().map(|rule| rule["prefix_key"].as_str().expect("a key").to_owned()).collect()
    };
    assert_eq!(keys(tenant.get("/prefix-configs").expect(200).json()), ["ACME-1", "SHARED"]);
    assert_eq!(keys(admin.get("/prefix-configs").expect(200).json()), ["ACME-1", "OTHER", "SHARED"]);
    // A page is full of what may be seen, whatever lies in between.
    let page = tenant.get("/prefix-configs?limit=1").expect(200).json();
    assert_eq!((keys(page.clone()).len(), page["next"].is_null()), (1, false), "{page}");

    // A rule of somebody else that can yield the same text is not named.
    let warned = tenant.post("/prefix-configs/ACME-2", &json!({ "format": "O-{SEQ:3}" })).expect(200);
    assert!(!warned.text().contains("OTHER"), "{}", warned.text());
    // Nothing of all this was consumed.
    assert_eq!(admin.number("OTHER"), "O-002");
}

#[test]
fn two_tenants_have_idempotency_keys_of_their_own() {
    let server = TestServer::start();
    server.caller().register("KEYED", &json!({ "format": "K-{SEQ:3}" }));
    let draw = |subject: &str| {
        let mut caller = server.caller_with(&["--scope", "numbers:issue", "--sub", subject]);
        caller.send("GET", "/numbers/KEYED", &[("Idempotency-Key", "same")], None).expect(200).numbers()
    };
    assert_eq!(draw("one"), ["K-001"]);
    assert_eq!(draw("two"), ["K-002"]);
    assert_eq!(draw("one"), ["K-001"]);
}
