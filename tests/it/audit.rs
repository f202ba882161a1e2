//! The audit trail over HTTP: who changed what, when, from where; for whom it is to be seen.

use serde_json::{Value, json};

use crate::harness::{Caller, Postgres, Redis, Site, TestServer};

/// Action and prefix key of each row.
fn deeds(page: &Value) -> Vec<(String, String)> {
    let word = |row: &Value, name: &str| row[name].as_str().expect("a text").to_owned();
    rows(page).iter().map(|row| (word(row, "action"), word(row, "prefix_key"))).collect()
}

fn rows(page: &Value) -> &Vec<Value> {
    page["rows"].as_array().expect("rows")
}

fn audit(caller: &mut Caller, query: &str) -> Value {
    caller.get(&format!("/audit{query}")).expect(200).json()
}

fn pairs<'a>(deeds: &'a [(&'a str, &'a str)]) -> Vec<(String, String)> {
    deeds.iter().map(|(action, key)| ((*action).to_owned(), (*key).to_owned())).collect()
}

/// `initial_seq` is secret. Looked for in all but times and positions, where its digits may come up by chance.
#[track_caller]
fn assert_secret_kept(trail: &Value) {
    for row in rows(trail) {
        for (field, told) in row.as_object().expect("a row") {
            let by_chance = ["position", "at", "request_id"].contains(&field.as_str());
            assert!(by_chance || !told.to_string().contains("7731"), "{field}: {told}");
        }
    }
}

/// One of everything that a person can do to `S` and `C`.
fn change_everything(caller: &mut Caller) {
    caller.register("C", &json!({ "format": "C{year}-{SEQ:4}", "reset": "yearly", "initial_seq": 77_310 }));
    let put = json!({ "format": "C{year}-{SEQ:5}", "reset": "yearly", "initial_seq": 77_311 });
    caller.send("PUT", "/prefix-configs/C", &[], Some(&put)).expect(200);
    caller.send("PUT", "/prefix-configs/C", &[], Some(&put)).expect(200); // unchanged
    caller.post("/sequences/C/advance", &json!({ "to": "90000", "period": "2026" })).expect(200);
    caller
        .post("/sequences/C/advance", &json!({ "to": "5", "period": "2026" }))
        .expect_problem(409, "BelowHighWater");
    caller.send("DELETE", "/prefix-configs/C", &[], None).expect(204);
    caller.send("DELETE", "/prefix-configs/C", &[], None).expect(404);
}

#[test]
fn every_change_has_its_entry() {
    let server = Site::new().with("NUMGEN_TRUSTED_PROXIES", "127.0.0.0/8").start();
    let mut caller = server.caller_with(&["--scope", "admin", "--sub", "operator"]);
    change_everything(&mut caller);
    caller.register("S", &json!({ "format": "S-{SEQ:4}", "mode": "strict" }));
    assert_eq!(caller.number("S"), "S-0001");
    let reserve = json!({ "prefix_key": "S", "reserve_seconds": 600 });
    caller.post("/numbers", &reserve).expect(200);
    caller.post("/numbers/S/S-0002/confirm", &json!({})).expect(200);
    let from = [("X-Forwarded-For", "192.0.2.7"), ("X-Request-Id", "void-1")];
    let reason = json!({ "reason": "printed twice" });
    caller.send("POST", "/numbers/S/S-0001/void", &from, Some(&reason)).expect(200);
    caller.send("POST", "/numbers/S/S-0001/void", &from, Some(&reason)).expect(200); // again

    let trail = audit(&mut caller, "");
    let expected = [
        ("registered", "C"),
        ("changed", "C"),
        ("advanced", "C"),
        ("deleted", "C"),
        ("registered", "S"),
        ("voided", "S"),
    ];
    assert_eq!(deeds(&trail), pairs(&expected), "{trail:#}");
    assert_eq!(trail["next"], Value::Null);
    let rows = rows(&trail);
    assert_eq!(
        rows[1]["details"],
        json!({ "old_revision": 1, "new_revision": 2, "fields": ["format", "seq_length", "initial_seq"] })
    );
    assert_eq!(rows[2]["details"], json!({ "period": "2026", "to": "90000" }));
    assert_eq!(rows[0]["address"], "127.0.0.1");
    let voided = &rows[5];
    assert_eq!(voided["details"], json!({ "number": "S-0001", "reason": "printed twice" }));
    assert_eq!(
        (&voided["subject"], &voided["address"], &voided["request_id"]),
        (&json!("operator"), &json!("192.0.2.7"), &json!("void-1"))
    );
    assert_secret_kept(&trail);

    // What a restart leaves.
    let server = server.stop().start();
    let mut caller = server.caller();
    assert_eq!(audit(&mut caller, ""), trail);
}

#[test]
fn pages_and_filters_and_what_is_wrong_with_them() {
    let server = TestServer::start();
    let mut caller = server.caller();
    change_everything(&mut caller);
    caller.register("D", &json!({ "format": "D-{SEQ:4}" }));

    let first = audit(&mut caller, "?limit=2");
    assert_eq!(deeds(&first), pairs(&[("registered", "C"), ("changed", "C")]));
    let next = first["next"].as_str().expect("another page");
    let second = audit(&mut caller, &format!("?limit=3&after={next}"));
    assert_eq!(deeds(&second), pairs(&[("advanced", "C"), ("deleted", "C"), ("registered", "D")]));
    assert_eq!(second["next"], Value::Null);

    assert_eq!(deeds(&audit(&mut caller, "?prefixKey=D")), pairs(&[("registered", "D")]));
    assert_eq!(deeds(&audit(&mut caller, "?prefix_key=C&limit=1")), pairs(&[("registered", "C")]));
    assert_eq!(deeds(&audit(&mut caller, "?prefixKey=NOBODY")), []);
    let at = rows(&second)[2]["at"].as_str().expect("a time").to_owned();
    assert_eq!(
        deeds(&audit(&mut caller, &format!("?prefixKey=D&from={at}&to={at}"))),
        pairs(&[("registered", "D")])
    );
    assert_eq!(deeds(&audit(&mut caller, "?to=2000-01-01T00:00:00Z")), []);
    assert_eq!(deeds(&audit(&mut caller, "?from=2999-01-01T00:00:00Z")), []);

    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("after=x", "after"),
        ("from=yesterday", "from"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "to"),
        ("prefixKey=a%20b", "prefix_key"),
        ("color=red", "color"),
    ] {
        let problem = caller.get(&format!("/audit?{query}")).expect_problem(400, "Validation");
        assert_eq!(problem["errors"][0]["field"], field, "{query}: {problem}");
    }
    let mut issuer = server.caller_with(&["--scope", "numbers:issue prefixes:write"]);
    issuer.get("/audit").expect_problem(403, "Forbidden");
    caller.post("/audit", &json!({})).expect_problem(405, "MethodNotAllowed");
}

#[test]
fn a_tenant_sees_its_own() {
    let server = TestServer::start();
    let mut admin = server.caller();
    for key in ["A1", "B1", "A2", "B2", "B3", "A3"] {
        admin.register(key, &json!({ "format": format!("{key}-{{SEQ:4}}") }));
    }
    let mut tenant = server.caller_with(&["--scope", "ledger:read", "--sub", "tenant", "--prefixes", "A*"]);
    let keys = |page: &Value| deeds(page).into_iter().map(|(_, key)| key).collect::<Vec<_>>();
    assert_eq!(keys(&audit(&mut tenant, "")), ["A1", "A2", "A3"]);
    let page = audit(&mut tenant, "?limit=2");
    assert_eq!(keys(&page), ["A1", "A2"], "a page is full of what may be seen");
    let next = page["next"].as_str().expect("another page");
    let last = audit(&mut tenant, &format!("?limit=2&after={next}"));
    assert_eq!((keys(&last), &last["next"]), (vec!["A3".to_owned()], &Value::Null));
    assert_eq!(keys(&audit(&mut tenant, "?prefixKey=A2")), ["A2"]);
    tenant.get("/audit?prefixKey=B1").expect_problem(403, "Forbidden");
}

#[test]
fn on_redis_every_node_tells_of_all() {
    let redis = Redis::start();
    let node = || Site::new().with("NUMGEN_REDIS_URL", &redis.url()).start();
    let (one, two) = (node(), node());
    let mut caller = one.caller();
    change_everything(&mut caller);
    let expected = pairs(&[("registered", "C"), ("changed", "C"), ("advanced", "C"), ("deleted", "C")]);
    let trail = audit(&mut two.caller(), "?prefixKey=C");
    assert_eq!(deeds(&trail), expected);
    assert_eq!(deeds(&audit(&mut caller, "?limit=1")), expected[..1]);
    assert_secret_kept(&trail);
}

#[test]
fn on_postgresql_every_node_tells_of_all() {
    let database = Postgres::create_database();
    let node = || Site::new().with("NUMGEN_DATABASE_URL", &database.url()).start();
    let (one, two) = (node(), node());
    let mut caller = one.caller();
    change_everything(&mut caller);
    caller.register("S", &json!({ "format": "S-{SEQ:4}", "mode": "strict" }));
    assert_eq!(caller.number("S"), "S-0001");
    let reason = json!({ "reason": "printed twice" });
    for _ in 0..2 {
        caller.post("/numbers/S/S-0001/void", &reason).expect(200);
    }
    caller.post("/sequences/S/advance", &json!({ "to": 4 })).expect(200);
    let expected = [
        ("registered", "C"),
        ("changed", "C"),
        ("advanced", "C"),
        ("deleted", "C"),
        ("registered", "S"),
        ("voided", "S"),
        ("advanced", "S"),
    ];
    let trail = audit(&mut two.caller(), "");
    assert_eq!(deeds(&trail), pairs(&expected));
    assert_secret_kept(&trail);
    // The ledger that the voiding and the moving made is whole.
    let verified = one.site().run(&["verify", "S"]);
    assert!(verified.status.success(), "{verified:?}");
}
