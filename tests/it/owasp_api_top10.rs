//! The OWASP API Security Top 10 of 2023, one test an item. Each is the short form; where a file of its own goes deeper, the test says which.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use numgen::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::harness::{Caller, Connection, Response, SECRET, Site, Stopwatch, TestServer, TokenKey};

fn now_s() -> i64 {
    SystemClock::new().now().0 / 1_000
}

/// The claims of an administrator, valid for ten minutes, with these changes; null takes a claim away.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({ "sub": "mallory", "scope": "admin", "exp": now_s() + 600 });
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    claims
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token of this header and these claims, signed by HMAC-SHA256 with `secret`, whatever the header says.
fn signed(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let signed = format!("{}.{}", encoded(header), encoded(claims));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    let signature = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn status_of(server: &TestServer, token: &str) -> u16 {
    Caller::new(server.listen, Some(token.to_owned())).get("/prefix-configs").status
}

/// The body without what differs between two requests anyway.
fn essence(answer: &Response, key: &str) -> String {
    let mut problem = answer.json();
    problem["request_id"] = Value::Null;
    problem.to_string().replace(key, "KEY")
}

/// Object level: a token that is confined to some prefixes touches no other by any route, and does not learn which exist.
/// More in `tenants.rs`.
#[test]
fn api1_broken_object_level_authorization() {
    let server = TestServer::start();
    let mut admin = server.caller();
    admin.register("SECRET1", &json!({ "format": "S-{SEQ:3}", "mode": "strict" }));
    admin.number("SECRET1");
    let mut tenant = server.caller_with(&["--scope", "admin", "--sub", "tenant", "--prefixes", "MINE-*"]);
    let rule = json!({ "format": "X-{SEQ:3}" });
    let reason = json!({ "reason": "mischief" });
    let routes = [
        ("GET", "/numbers/KEY", None),
        ("GET", "/api/numbers/KEY", None),
        ("GET", "/numbers?prefixKey=KEY", None),
        ("GET", "/numbers/KEY?count=5", None),
        ("POST", "/numbers", Some(json!({ "prefix_key": "KEY" }))),
        ("GET", "/numbers/decode?prefixKey=KEY&number=S-001", None),
        ("POST", "/numbers/KEY/S-001/confirm", None),
        ("POST", "/numbers/KEY/S-001/void", Some(reason.clone())),
        ("GET", "/prefix-configs/KEY", None),
        ("PUT", "/prefix-configs/KEY", Some(rule.clone())),
        ("POST", "/prefix-configs/KEY", Some(rule.clone())),
        ("DELETE", "/prefix-configs/KEY", None),
        ("GET", "/sequences/KEY", None),
        ("POST", "/sequences/KEY/advance", Some(json!({ "to": 50 }))),
        ("POST", "/sequences/KEY/abandon", Some(json!({ "node": "n", "reason": "mischief" }))),
        ("GET", "/ledger/KEY", None),
        ("GET", "/ledger/KEY/certificate", None),
        ("GET", "/audit?prefixKey=KEY", None),
    ];
    for (method, target, body) in routes {
        let mut ask = |key: &str| {
            let body = body.as_ref().map(|body| body.to_string().replace("KEY", key));
            let body = body.map(|body| serde_json::from_str::<Value>(&body).expect("JSON"));
            let answer = tenant.send(method, &target.replace("KEY", key), &[], body.as_ref());
            answer.expect_problem(403, "Forbidden");
            essence(&answer, key)
        };
        // What is there and what is not look the same.
        assert_eq!(ask("SECRET1"), ask("MISSING"), "{method} {target}");
    }
    // Encoded, in another case, with a glob of its own: still another's, or nobody's.
    for target in [
        "/numbers/SECRET%31",
        "/numbers/%53ECRET1",
        "/numbers/secret1",
        "/numbers/*",
        "/numbers/MINE-%2fSECRET1",
    ] {
        assert!((400..=404).contains(&tenant.get(target).status), "{target}");
    }
    assert_eq!(admin.number("SECRET1"), "S-002", "nothing of all this was consumed");
}

/// Tokens: every known way around a signature. More in `hurl/security.hurl` and the unit tests of `auth`.
#[test]
fn api2_broken_authentication() {
    let key = TokenKey::new();
    let pem = key.pem();
    let site =
        Site::new().with("NUMGEN_JWT_ISSUER", "https://issuer.example").with("NUMGEN_JWT_AUDIENCE", "numgen");
    fs::write(site.path("public.pem"), &pem).expect("written");
    let public = site.path("public.pem").to_string_lossy().into_owned();
    let server = site.with("NUMGEN_JWT_PUBLIC_KEY_FILE", &public).start();

    let right = json!({ "iss": "https://issuer.example", "aud": "numgen" });
    let with = |changes: Value| {
        let mut all = right.clone();
        for (name, value) in changes.as_object().expect("an object") {
            all[name] = value.clone();
        }
        claims(&all)
    };
    let hs256 = json!({ "alg": "HS256", "typ": "JWT" });
    let sign = |claims: &Value| signed(&hs256, claims, SECRET.as_bytes());
    assert_eq!(status_of(&server, &sign(&with(json!({})))), 200, "the way it should be");
    assert_eq!(status_of(&server, &key.sign(&with(json!({})))), 200, "by the public key too");

    let good_claims = with(json!({}));
    let whole = sign(&good_claims);
    let (unsigned, _) = whole.rsplit_once('.').expect("three parts");
    let none =
        |alg: &str| format!("{}.{}.", encoded(&json!({ "alg": alg, "typ": "JWT" })), encoded(&good_claims));
    let header = |header: Value| signed(&header, &good_claims, SECRET.as_bytes());
    let far = now_s() + 3_600;
    let refused = [
        ("alg none", none("none")),
        ("alg None", none("None")),
        ("alg nOnE", none("nOnE")),
        ("no signature", format!("{unsigned}.")),
        ("two parts", unsigned.to_owned()),
        ("another secret", signed(&hs256, &good_claims, b"another secret that is long enough")),
        ("no secret", signed(&hs256, &good_claims, b"")),
        // The public key as a shared secret, in each form that a library might take it in.
        ("PEM as secret", signed(&hs256, &good_claims, pem.as_bytes())),
        ("trimmed PEM as secret", signed(&hs256, &good_claims, pem.trim().as_bytes())),
        ("DER as secret", signed(&hs256, &good_claims, &key.der())),
        ("raw key as secret", signed(&hs256, &good_claims, key.raw())),
        ("HS512 of a key for HS256", header(json!({ "alg": "HS512" }))),
        ("EdDSA over an HMAC", header(json!({ "alg": "EdDSA" }))),
        ("expired", sign(&with(json!({ "exp": now_s() - 31 })))),
        ("no exp", sign(&with(json!({ "exp": null })))),
        ("exp as text", sign(&with(json!({ "exp": far.to_string() })))),
        ("not yet valid", sign(&with(json!({ "nbf": now_s() + 300 })))),
        ("no subject", sign(&with(json!({ "sub": null })))),
        ("another issuer", sign(&with(json!({ "iss": "https://evil.example" })))),
        ("no issuer", sign(&with(json!({ "iss": null })))),
        ("another audience", sign(&with(json!({ "aud": "other" })))),
        ("no audience", sign(&with(json!({ "aud": null })))),
        // A kid names a configured key, or nothing: it is no path, no query, no address.
        ("kid as path", signed(&json!({ "alg": "HS256", "kid": "../../../../dev/null" }), &good_claims, b"")),
        ("kid as SQL", signed(&json!({ "alg": "HS256", "kid": "x' UNION SELECT 'k" }), &good_claims, b"k")),
        ("crit", header(json!({ "alg": "HS256", "crit": ["exp"] }))),
        ("another type", header(json!({ "alg": "HS256", "typ": "secevent+jwt" }))),
        (
            "a key of its own",
            signed(&json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": "a2V5" } }), &good_claims, b"key"),
        ),
        ("encrypted", "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..aaaa.bbbb.cccc".to_owned()),
    ];
    for (what, token) in refused {
        assert_eq!(status_of(&server, &token), 401, "{what}");
    }

    // One token, in one place.
    let mut stranger = server.stranger();
    let bearer = format!("Bearer {whole}");
    let twice = [("Authorization", bearer.as_str()), ("Authorization", bearer.as_str())];
    stranger.send("GET", "/prefix-configs", &twice, None).expect(401);
    stranger.get(&format!("/prefix-configs?access_token={whole}")).expect(401);
    stranger.send("GET", "/prefix-configs", &[("Cookie", &format!("token={whole}"))], None).expect(401);
    stranger.send("GET", "/prefix-configs", &[("X-Api-Key", &whole)], None).expect(401);
    // Whoever guesses is slowed down: `strangers_are_limited_by_address` in limits.rs. What was refused is not in the log.
    let log = server.stop().log();
    assert!(!log.contains(whole.rsplit('.').next().expect("a signature")));
}

/// Property level: nothing can be set that is not a setting, and `initial_seq` is shown with the rule alone. More in `redaction.rs`.
#[test]
fn api3_broken_object_property_level_authorization() {
    let server = TestServer::start();
    let mut caller = server.caller();
    for field in [
        "status",
        "revision",
        "edition",
        "last_value",
        "used",
        "history",
        "owner",
        "sub",
        "scope",
        "__proto__",
        "warnings",
    ] {
        let body = json!({ "format": "M-{SEQ:4}", field: 1 });
        let refused = caller.post("/prefix-configs/MASS", &body);
        refused.expect_problem(400, "Validation");
        assert_eq!(refused.json()["errors"][0]["field"], field, "{}", refused.text());
    }
    caller.post("/prefix-configs/MASS", &json!({ "format": "M-{SEQ:4}", "prefix_key": "OTHER" })).expect(400);
    caller.get("/prefix-configs/MASS").expect(404);
    caller.register("MASS", &json!({ "format": "M-{SEQ:4}", "initial_seq": 987_650_123_u64 }));
    caller.post("/numbers", &json!({ "prefix_key": "MASS", "sequence": 7 })).expect(400);
    caller.post("/sequences/MASS/advance", &json!({ "to": 5, "force": true })).expect(400);

    // Where it must not be: refusals, the audit trail, metrics, the log.
    let again = json!({ "format": "M-{SEQ:4}", "initial_seq": 987_650_124_u64 });
    let conflict = caller.post("/prefix-configs/MASS", &again).expect(409).text();
    let wrong = json!({ "format": "M-{SEQ:4}", "initial_seq": 987_650_125_u64, "max_seq": 3 });
    let refused = caller.post("/prefix-configs/MASS2", &wrong).expect(400).text();
    let audit = caller.get("/audit").expect(200).text();
    assert!(audit.contains("MASS"), "{audit}");
    let mut issuer =
        server.caller_with(&["--scope", "numbers:issue sequences:write ledger:read", "--sub", "issuer"]);
    let hidden = issuer.get("/prefix-configs/MASS").expect(403).text();
    // Before the first number and after it.
    let below = json!({ "to": 5 });
    let mut moved = issuer.post("/sequences/MASS/advance", &below).expect(409).text();
    issuer.get("/numbers/MASS").expect(200);
    moved += &issuer
        .send("POST", "/sequences/MASS/advance", &[("Accept-Language", "zh")], Some(&below))
        .expect(409)
        .text();
    let metrics = server.admin("/metrics").expect("an answer").expect(200).text();
    let ready = server.admin("/readyz").expect("an answer").expect(200).text();
    let log = server.stop().log();
    for (place, text) in [
        ("conflict", conflict),
        ("refusal", refused),
        ("advance", moved),
        ("audit", audit),
        ("403", hidden),
        ("metrics", metrics),
        ("readyz", ready),
        ("log", log),
    ] {
        assert!(!text.contains("98765012"), "{place}: {text}");
    }
}

/// Consumption: everything that a caller can make larger has an end. Bodies, heads, connections and slow clients in `limits.rs`, waiting
/// requests in `overload.rs`.
#[test]
fn api4_unrestricted_resource_consumption() {
    let server = Site::new().with("NUMGEN_RATE_LIMIT_ISSUED", "20000").start();
    let mut caller = server.caller();
    caller.register("MUCH", &json!({ "format": "M-{SEQ:19}" }));
    for target in [
        "/numbers/MUCH?count=10001",
        "/numbers/MUCH?count=99999999999999999999",
        "/numbers/MUCH?count=-1",
        "/numbers/MUCH?count=0",
        "/prefix-configs?limit=1001",
        "/audit?limit=1001",
        "/temporary-numbers?status=open&limit=1000000",
    ] {
        caller.get(target).expect_problem(400, "Validation");
    }
    let long = "k".repeat(256);
    caller.send("GET", "/numbers/MUCH", &[("Idempotency-Key", &long)], None).expect(400);
    caller.get(&format!("/numbers/{}", "K".repeat(65))).expect(400);
    let format = json!({ "format": format!("{}{{SEQ:4}}", "x".repeat(128)) });
    caller.post("/prefix-configs/LONG", &format).expect_problem(400, "InvalidFormat");
    caller.post("/formats/preview", &json!({ "format": "M-{SEQ:4}", "count": 101 })).expect(400);
    caller.post("/numbers", &json!({ "prefix_key": "MUCH", "reserve_seconds": 999_999_999 })).expect(400);

    // A body as deep as it is long, and one of a thousand fields, cost no more than their length.
    for body in [
        "[".repeat(60_000),
        format!("{{\"format\":{}", "[".repeat(60_000)),
        format!("{{{}", "\"a\":1,".repeat(9_000)),
    ] {
        let mut connection = Connection::open(server.listen).expect("a connection");
        let headers = [("Authorization", caller.authorization()), ("Content-Type", "application/json")];
        let answer =
            connection.send("POST", "/prefix-configs/DEEP", &headers, Some(&body)).expect("an answer");
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.body.len() < 16 * 1024, "an answer of {} bytes", answer.body.len());
    }
    // Numbers are counted, not only requests.
    let statuses: Vec<_> = (0..6).map(|_| caller.get("/numbers/MUCH?count=10000").status).collect();
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
}

/// Function level: each function asks for its own scope, and names it. `admin` implies all, and nothing implies `admin`.
#[test]
fn api5_broken_function_level_authorization() {
    let server = TestServer::start();
    server.caller().register("FUNC", &json!({ "format": "F-{SEQ:3}", "mode": "strict" }));
    let rule = json!({ "format": "F-{SEQ:3}" });
    let reason = json!({ "reason": "mischief" });
    let functions = [
        ("POST", "/prefix-configs/NEW", "prefixes:write", Some(rule.clone())),
        (
            "POST",
            "/prefix-configs",
            "prefixes:write",
            Some(json!({ "prefix_key": "NEW", "format": "F-{SEQ:3}" })),
        ),
        ("PUT", "/prefix-configs/FUNC", "prefixes:write", Some(rule.clone())),
        ("DELETE", "/prefix-configs/FUNC", "prefixes:write", None),
        ("GET", "/prefix-configs/FUNC", "prefixes:read", None),
        ("GET", "/prefix-configs", "prefixes:read", None),
        ("HEAD", "/prefix-configs/FUNC", "prefixes:read", None),
        ("POST", "/formats/preview", "prefixes:read", Some(rule)),
        ("GET", "/numbers/decode?prefixKey=FUNC&number=F-001", "prefixes:read", None),
        ("GET", "/numbers/FUNC", "numbers:issue", None),
        ("GET", "/numbers?prefixKey=FUNC", "numbers:issue", None),
        ("POST", "/numbers", "numbers:issue", Some(json!({ "prefix_key": "FUNC" }))),
        ("POST", "/numbers/FUNC/F-001/confirm", "numbers:issue", None),
        ("POST", "/numbers/FUNC/F-001/void", "numbers:issue", Some(reason.clone())),
        ("POST", "/sequences/FUNC/advance", "sequences:write", Some(json!({ "to": 5 }))),
        ("POST", "/sequences/FUNC/abandon", "sequences:write", Some(json!({ "node": "n", "reason": "r" }))),
        ("GET", "/ledger/FUNC", "ledger:read", None),
        ("GET", "/ledger/FUNC/certificate", "ledger:read", None),
        ("GET", "/audit", "ledger:read", None),
        ("GET", "/temporary-numbers?status=open", "conflicts:read", None),
        (
            "POST",
            "/temporary-numbers/TMP~A~b~0/resolve",
            "conflicts:write",
            Some(json!({ "action": "void", "reason": "r" })),
        ),
    ];
    let scopes = [
        "prefixes:read",
        "prefixes:write",
        "numbers:issue",
        "sequences:write",
        "ledger:read",
        "conflicts:read",
        "conflicts:write",
    ];
    for (method, target, needed, body) in &functions {
        // Every scope but the one, and words that are none.
        let others: Vec<_> = scopes.into_iter().filter(|scope| scope != needed).collect();
        let others = claims(
            &json!({ "scope": format!("{} Admin admin:x * root", others.join(" ")), "role": "admin", "admin": true }),
        );
        let token = signed(&json!({ "alg": "HS256" }), &others, SECRET.as_bytes());
        let mut caller = Caller::new(server.listen, Some(token));
        let refused = caller.send(method, target, &[], body.as_ref()).expect(403);
        if *method != "HEAD" {
            let detail = refused.json()["detail"].as_str().unwrap_or_default().to_owned();
            assert!(detail.contains(needed), "{method} {target}: {detail}");
        }
        // Neither a field nor another method gets around it.
        let around =
            [("X-HTTP-Method-Override", "GET"), ("X-Original-URL", "/docs"), ("X-Rewrite-URL", "/docs")];
        assert_eq!(caller.send(method, target, &around, body.as_ref()).status, 403, "{method} {target}");
    }
    let mut reader = server.caller_with(&["--scope", "ledger:read", "--sub", "reader"]);
    assert_eq!(reader.get("/ledger/FUNC").expect(200).json()["rows"], json!([]), "nothing happened");
}

/// Business flows: whoever may draw numbers may still not drain a prefix; the rule's own limit holds over all callers.
#[test]
fn api6_unrestricted_access_to_sensitive_business_flows() {
    let server = TestServer::start();
    server.caller().register(
        "DRAIN",
        &json!({ "format": "D-{SEQ:6}", "rate_limit": 50, "max_seq": 60, "overflow": "reject" }),
    );
    let mut statuses = Vec::new();
    for subject in 0..10 {
        let subject = format!("bot-{subject}");
        let mut bot = server.caller_with(&["--scope", "numbers:issue", "--sub", &subject]);
        statuses.extend((0..3).map(|_| bot.get("/numbers/DRAIN?count=50").status));
    }
    assert_eq!(statuses[0], 200);
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(
        statuses.iter().filter(|status| **status == 200).count() == 1,
        "max_seq is the end of it: {statuses:?}"
    );
}

/// A host that counts who calls, and answers with this body.
fn host(body: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            let _head = stream.read(&mut [0; 4_096]);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    (format!("http://{address}/keys"), calls)
}

/// Server-side requests: the service calls what its settings name, never what a caller does.
#[test]
fn api7_server_side_request_forgery() {
    let key = URL_SAFE_NO_PAD.encode(b"a key that mallory has chosen, 32 bytes");
    let keys = json!({ "keys": [{ "kty": "oct", "kid": "m", "alg": "HS256", "k": key }] });
    let (url, calls) = host(keys.to_string().into_bytes());
    let server = TestServer::start();
    let secret = b"a key that mallory has chosen, 32 bytes";
    for field in ["jku", "x5u", "kid", "iss"] {
        let header = json!({ "alg": "HS256", "kid": "m", field: url });
        assert_eq!(status_of(&server, &signed(&header, &claims(&json!({})), secret)), 401, "{field}");
        let claims = claims(&json!({ field: url, "jwks_uri": url }));
        assert_eq!(status_of(&server, &signed(&json!({ "alg": "HS256", "kid": "m" }), &claims, secret)), 401);
    }
    let mut caller = server.caller();
    let host_name = url.trim_start_matches("http://").split('/').next().expect("a host").to_owned();
    for (name, value) in [
        ("X-Forwarded-Host", host_name.as_str()),
        ("Referer", &url),
        ("Origin", &url),
        ("Forwarded", &format!("host={host_name}")),
    ] {
        caller.send("GET", "/prefix-configs", &[(name, value)], None).expect(200);
    }
    caller.post("/formats/preview", &json!({ "format": format!("{url}/{{SEQ:4}}") }));
    // The absolute form of a target makes no proxy of it.
    let mut connection = Connection::open(server.listen).expect("a connection");
    connection.write(format!("GET {url} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("sent");
    connection.read("GET").expect("an answer").expect(404);
    let mut connection = Connection::open(server.listen).expect("a connection");
    connection.write(format!("CONNECT {host_name} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("sent");
    if let Ok(answer) = connection.read("GET") {
        assert!(answer.status >= 400, "{}", answer.status);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0, "somebody was called");
}

/// Configuration: what is not asked for is off, and nothing tells what it is made of. More in `wire.rs`.
#[test]
fn api8_security_misconfiguration() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("CONF", &json!({ "format": "C-{SEQ:4}" }));
    let mut answers: Vec<(String, Response)> = Vec::new();
    for target in [
        "/numbers/CONF",
        "/prefix-configs",
        "/prefix-configs/CONF",
        "/nothing",
        "/numbers/UNKNOWN",
        "/openapi.json",
        "/docs",
        "/numbers/CONF?count=x",
    ] {
        let origin = [("Origin", "https://evil.example")];
        answers.push((target.to_owned(), caller.send("GET", target, &origin, None)));
        answers
            .push((format!("{target} of a stranger"), server.stranger().send("GET", target, &origin, None)));
    }
    for method in ["TRACE", "TRACK", "PATCH", "PROPFIND", "DEBUG"] {
        let refused = caller.send(method, "/prefix-configs/CONF", &[("X-Canary", "canary-of-trace")], None);
        assert_eq!(refused.status, 405, "{method}");
        answers.push((method.to_owned(), refused));
    }
    for (what, answer) in &answers {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{what}");
        assert!(answer.header("content-type").is_some(), "{what}");
        let documentation = what.starts_with("/openapi.json") || what.starts_with("/docs");
        let kept = if documentation { "no-cache" } else { "no-store" };
        assert_eq!(answer.header("cache-control"), Some(kept), "{what}");
        for told in
            ["server", "x-powered-by", "via", "access-control-allow-origin", "strict-transport-security"]
        {
            assert_eq!(answer.header(told), None, "{what}");
        }
        if answer.status >= 400 {
            let text = answer.text();
            for cause in ["src/", ".rs:", "sqlite", "panicked", "canary-of-trace", "/tmp/", "hyper", "tokio"]
            {
                assert!(!text.contains(cause), "{what}: {cause} in {text}");
            }
        }
    }
    let page = caller.get("/docs").expect(200);
    let policy = page.header("content-security-policy").expect("a policy");
    for part in ["default-src 'none'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{part} in {policy}");
    }
    let text = page.text();
    assert!(!text.contains("src=\"http") && !text.contains("//cdn"), "it asks nobody else");
    // The two listeners are apart.
    for target in ["/metrics", "/livez", "/readyz"] {
        caller.get(target).expect(404);
    }
    let authorization = [("Authorization", caller.authorization())];
    let mut admin = Connection::open(server.admin).expect("a connection");
    admin.send("GET", "/numbers/CONF", &authorization, None).expect("an answer").expect(404);
    // No default credentials: what nobody configured is random, and for its owner alone.
    let fresh = Site::new().without("NUMGEN_JWT_SECRET_FILE");
    let server = fresh.start();
    let secret = fs::read_to_string(fresh.path("data/jwt-secret")).expect("made at the first start");
    assert!(secret.trim().len() >= 32);
    let mode =
        std::os::unix::fs::MetadataExt::mode(&fs::metadata(fresh.path("data/jwt-secret")).expect("there"));
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(status_of(&server, &signed(&json!({ "alg": "HS256" }), &claims(&json!({})), b"secret")), 401);
}

/// Inventory: what is served is what is documented. That the documents hold is in `openapi.rs`.
#[test]
fn api9_improper_inventory_management() {
    let server = TestServer::start();
    let mut caller = server.caller();
    let api = caller.get("/openapi.json").expect(200).json();
    assert_eq!(api["info"]["version"], env!("CARGO_PKG_VERSION"));
    for target in [
        "/",
        "/api",
        "/v1/numbers/X",
        "/api/v1/numbers/X",
        "/v2/prefix-configs",
        "/internal",
        "/admin",
        "/debug",
        "/debug/pprof",
        "/actuator",
        "/actuator/env",
        "/health",
        "/status",
        "/metrics",
        "/graphql",
        "/.env",
        "/.git/config",
        "/swagger-ui",
        "/swagger.json",
        "/console",
        "/numbers/X/",
        "/prefix-configs/",
        "//numbers/X",
        "/api//numbers/X",
        "/./numbers/X",
        "/docs/../prefix-configs",
        "/docs/..%2fprefix-configs",
        "/openapi.json/x",
        "/ledger",
        "/sequences",
        "/formats",
    ] {
        caller.get(target).expect_problem(404, "NotFound");
    }
    for target in
        ["/", "/debug", "/metrics/x", "/config", "/reload", "/shutdown", "/numbers/X", "/prefix-configs"]
    {
        let answer = server.admin(target).expect("an answer");
        assert_eq!(answer.status, 404, "{target} of the admin listener");
    }
}

/// Other people's APIs: the one that is called is the issuer's key set, and it is believed no further than its keys go.
#[test]
fn api10_unsafe_consumption_of_apis() {
    let shared = b"a shared key in a public place, 32 bytes";
    let oct = json!({ "keys": [{ "kty": "oct", "kid": "m", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(shared) }] });
    let endless = [b"{\"keys\":[".as_slice(), &vec![b' '; 3 * 1024 * 1024]].concat();
    let redirect = b"{\"keys\":\"http://169.254.169.254/\"}".to_vec();
    for body in [oct.to_string().into_bytes(), b"not JSON".to_vec(), endless, redirect, b"{}".to_vec()] {
        let (url, calls) = host(body);
        let server = Site::new().with("NUMGEN_JWT_JWKS_URL", &url).start();
        let token = signed(&json!({ "alg": "HS256", "kid": "m" }), &claims(&json!({})), shared);
        assert_eq!(status_of(&server, &token), 401, "a shared secret does not come from outside");
        Stopwatch::wait_until(Duration::from_secs(30), "it is asked, and what it answered refused", || {
            let ready = server.admin("/readyz").expect("an answer").expect(200).json();
            let jwks = ready["components"]["jwks"].as_str().expect("a component");
            assert_ne!(jwks, "ok", "a set without a usable key is no good set: {ready}");
            calls.load(Ordering::SeqCst) > 0 && !jwks.contains("not fetched yet")
        });
        server.caller().get("/prefix-configs").expect(200);
    }
}
