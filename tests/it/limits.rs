//! What a server endures: clients that are slow, greedy or rude cost it a bounded amount, and are told why.

use std::{thread, time::Duration};

use serde_json::json;

use crate::harness::{Connection, Site, Stopwatch, TestServer};

const KIB: usize = 1024;

#[test]
fn a_body_over_64_kib_is_413() {
    let server = TestServer::start();
    let caller = server.caller();
    let head = format!(
        "POST /prefix-configs/BIG HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Type: application/json\r\n",
        caller.authorization()
    );
    // Announced: refused before anything of it is read.
    let mut connection = Connection::open(server.listen).expect("a connection");
    connection.write(format!("{head}Content-Length: 10000000\r\n\r\n").as_bytes()).expect("sent");
    connection.read("POST").expect("an answer").expect_problem(413, "PayloadTooLarge");

    // Not announced: refused when it gets there.
    let mut connection = Connection::open(server.listen).expect("a connection");
    connection.write(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).expect("sent");
    let chunk = format!("{:x}\r\n{}\r\n", KIB, " ".repeat(KIB));
    for _ in 0..65 {
        connection.write(chunk.as_bytes()).expect("sent");
    }
    connection.read("POST").expect("an answer").expect_problem(413, "PayloadTooLarge");

    // Just below the limit is a matter of content.
    let mut caller = server.caller();
    let rule = json!({ "format": " ".repeat(63 * KIB) + "{SEQ:4}" });
    caller.post("/prefix-configs/BIG", &rule).expect_problem(400, "InvalidFormat");
}

#[test]
fn a_url_over_8_kib_is_414() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.get(&format!("/prefix-configs?after={}", "A".repeat(9 * KIB))).expect_problem(414, "UriTooLong");
    // Below the limit it is a matter of content.
    assert!(caller.get(&format!("/prefix-configs?after={}", "A".repeat(7 * KIB))).status < 414);
}

#[test]
fn headers_over_16_kib_are_431() {
    let server = TestServer::start();
    let mut caller = server.caller();
    let padding = "p".repeat(17 * KIB);
    caller
        .send("GET", "/prefix-configs", &[("X-Padding", &padding)], None)
        .expect_problem(431, "HeadersTooLarge");
    let padding = "p".repeat(12 * KIB);
    caller.send("GET", "/prefix-configs", &[("X-Padding", &padding)], None).expect(200);
    // Far above, the connection has seen enough.
    let padding = "p".repeat(200 * KIB);
    if let Ok(answer) = caller.again().try_send("GET", "/prefix-configs", &[("X-Padding", &padding)], None) {
        assert_eq!(answer.status, 431);
    }
    caller.get("/prefix-configs").expect(200);
}

#[test]
fn slow_headers_are_cut_off() {
    let server = Site::new().with("NUMGEN_HEADER_TIMEOUT", "500ms").start();
    // Nothing at all, half a header, and one byte after the other.
    let mut silent = Connection::open(server.listen).expect("a connection");
    let mut half = Connection::open(server.listen).expect("a connection");
    half.write(b"GET /livez HTTP/1.1\r\nHo").expect("sent");
    let mut dripping = Connection::open(server.listen).expect("a connection");
    let watch = Stopwatch::start();
    for byte in b"GET /openapi.json HTTP/1.1\r\nHost: somewhere\r\nX: 12345678901234567890" {
        if dripping.write(&[*byte]).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
        if watch.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    assert!(dripping.is_closed_within(Duration::from_secs(1)), "dripping");
    assert!(half.is_closed_within(Duration::from_secs(1)), "half a header");
    assert!(silent.is_closed_within(Duration::from_secs(1)), "silent");
    server.caller().get("/prefix-configs").expect(200);
}

#[test]
fn slow_bodies_are_cut_off() {
    let server = Site::new().with("NUMGEN_BODY_TIMEOUT", "500ms").start();
    let mut connection = Connection::open(server.listen).expect("a connection");
    let head = format!(
        "POST /prefix-configs/SLOW HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{{\"form",
        server.caller().authorization()
    );
    connection.write(head.as_bytes()).expect("sent");
    connection.read("POST").expect("an answer").expect_problem(408, "RequestTimeout");
    assert!(
        connection.is_closed_within(Duration::from_secs(2)),
        "what is left of the body cannot be told from a request"
    );
    server.caller().get("/prefix-configs/SLOW").expect(404);
}

#[test]
fn idle_connections_are_closed() {
    let server = Site::new().with("NUMGEN_IDLE_TIMEOUT", "500ms").start();
    let mut connection = Connection::open(server.listen).expect("a connection");
    connection.send("GET", "/openapi.json", &[], None).expect("an answer").expect(200);
    assert!(connection.is_closed_within(Duration::from_secs(3)));
}

#[test]
fn connections_are_counted() {
    let server = Site::new().with("NUMGEN_MAX_CONNECTIONS", "4").start();
    let mut open: Vec<_> = (0..4).map(|_| Connection::open(server.listen).expect("a connection")).collect();
    for connection in &mut open {
        connection.send("GET", "/openapi.json", &[], None).expect("an answer").expect(200);
    }
    // One more is not served, and does no harm.
    let mut fifth = Connection::open(server.listen).expect("the kernel takes it");
    fifth.write(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    assert!(!fifth.has_answer_within(Duration::from_millis(400)));
    // Operators still get through.
    server.admin("/livez").expect("an answer").expect(200);
    // Once somebody leaves, it is its turn.
    drop(open.pop());
    fifth.read("GET").expect("an answer").expect(200);
}

#[test]
fn what_is_not_http_is_refused() {
    let server = TestServer::start();
    for rude in [
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03",
        "GET\r\n\r\n",
        "GET / HTTP/3.7\r\n\r\n",
        "GET /numbers HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST /numbers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
        "GET /\u{0} HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut connection = Connection::open(server.listen).expect("a connection");
        connection.write(rude.as_bytes()).expect("sent");
        match connection.read("GET") {
            Ok(answer) => assert!((400..500).contains(&answer.status), "{rude:?}: {}", answer.status),
            Err(_closed) => {}
        }
    }
    server.caller().get("/prefix-configs").expect(200);
}

#[test]
fn rates_are_limited_per_subject() {
    let server = Site::new().with("NUMGEN_RATE_LIMIT_NUMBERS", "5").start();
    let mut caller = server.caller();
    caller.register("RATE", &json!({ "format": "R-{SEQ:4}" }));
    let answers: Vec<_> = (0..20).map(|_| caller.get("/numbers/RATE")).collect();
    let issued = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((5..20).contains(&issued), "{issued}");
    let refused = answers.iter().find(|answer| answer.status == 429).expect("a refusal");
    refused.expect_problem(429, "RateLimited");
    let wait = refused.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
    assert!(wait.is_some_and(|wait| wait <= 2), "{:?}", refused.headers);
    assert!(refused.header("ratelimit").is_some(), "{:?}", refused.headers);
    assert!(refused.header("ratelimit-policy").is_some(), "{:?}", refused.headers);
    // What was refused consumed nothing, and somebody else has a quota of their own.
    let mut other = server.caller_with(&["--scope", "numbers:issue", "--sub", "other"]);
    assert_eq!(other.number("RATE"), format!("R-{:04}", issued + 1));
}

#[test]
fn strangers_are_limited_by_address() {
    let server = Site::new().with("NUMGEN_RATE_LIMIT_ADDRESS", "5").start();
    let mut stranger = server.stranger();
    let statuses: Vec<_> = (0..20).map(|_| stranger.get("/numbers/X").status).collect();
    assert!(statuses.contains(&401) && statuses.contains(&429), "{statuses:?}");
}

/// Who asks for much and reads nothing is cut off, and keeps nobody else waiting.
#[test]
fn answers_that_nobody_reads_are_not_kept() {
    let server =
        Site::new().with("NUMGEN_IDLE_TIMEOUT", "500ms").with("NUMGEN_HEADER_TIMEOUT", "500ms").start();
    let mut caller = server.caller();
    caller.register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
    let request = format!(
        "GET /numbers/FLAKE?count=10000 HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n",
        caller.authorization()
    );
    // 200 answers of 240 kB each: more than both kernels hold.
    let whole = 200 * 10_000 * "\"F-0000000000000000000\",".len();
    let mut deaf = Connection::open(server.listen).expect("a connection");
    deaf.write(request.repeat(200).as_bytes()).expect("sent");
    thread::sleep(Duration::from_secs(4));
    caller.again().get("/prefix-configs/FLAKE").expect(200);
    let read = deaf.drain();
    assert!(read < whole, "all of {whole} bytes were kept for it: {read}");
}

#[test]
fn a_rule_may_limit_its_numbers_whoever_asks() {
    let server = TestServer::start();
    let mut caller = server.caller();
    for wrong in [json!(-1), json!(1.5), json!("many"), json!(1_000_000_001)] {
        let refused =
            caller.post("/prefix-configs/QUOTA", &json!({ "format": "Q-{SEQ:4}", "rate_limit": wrong }));
        assert_eq!(refused.expect(400).json()["errors"][0]["field"], "rate_limit", "{wrong}");
    }
    let rule = json!({ "format": "Q-{SEQ:4}", "rateLimit": 10 });
    assert_eq!(caller.post("/prefix-configs/QUOTA", &rule).expect(200).json()["rate_limit"], 10);
    assert_eq!(caller.get("/prefix-configs/QUOTA").expect(200).json()["rate_limit"], 10);
    caller.register("FREE", &json!({ "format": "X-{SEQ:4}", "rate_limit": 0 }));
    assert!(caller.get("/prefix-configs/FREE").expect(200).json().get("rate_limit").is_none());

    // More than a second's worth can never be had at once.
    let refused = caller.get("/numbers/QUOTA?count=11");
    refused.expect_problem(429, "RateLimited");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"rule\";q=10;w=1"));
    assert!(refused.text().contains("ask for fewer"), "{}", refused.text());

    // One allowance for all callers, on every path; what is refused takes nothing.
    let mut other = server.caller_with(&["--scope", "numbers:issue", "--sub", "other"]);
    let batch = json!({ "prefix_key": "QUOTA", "count": 5 });
    let answers: Vec<_> =
        (0..20).flat_map(|_| [caller.get("/numbers/QUOTA"), other.post("/numbers", &batch)]).collect();
    let issued: usize =
        answers.iter().filter(|answer| answer.status == 200).map(|one| one.numbers().len()).sum();
    assert!((10..100).contains(&issued), "{issued} of 120");
    let refused = answers.iter().find(|answer| answer.status == 429).expect("a refusal");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(caller.get("/numbers/FREE?count=100").expect(200).numbers().len(), 100);
    Stopwatch::wait_until(Duration::from_secs(5), "an allowance", || {
        other.get("/numbers/QUOTA").status == 200
    });
    assert_eq!(
        caller.get("/sequences/QUOTA").expect(200).json()["counters"][0]["last_value"],
        (issued + 1).to_string()
    );

    // A new limit holds at once, on open connections too.
    let put = json!({ "format": "Q-{SEQ:4}" });
    caller.send("PUT", "/prefix-configs/QUOTA", &[], Some(&put)).expect(200);
    for _ in 0..50 {
        caller.get("/numbers/QUOTA").expect(200);
    }
}

/// Forwarded-for fields count from trusted proxies alone: else whoever wants another allowance would write another address.
#[test]
fn forwarded_addresses_are_believed_from_trusted_proxies_alone() {
    let refused = |server: &TestServer| {
        let mut stranger = server.stranger();
        let ask = |turn: usize| {
            let from = format!("198.51.100.{turn}");
            let headers = [
                ("X-Forwarded-For", from.as_str()),
                ("Forwarded", "for=203.0.113.9"),
                ("X-Real-IP", "203.0.113.9"),
            ];
            stranger.send("GET", "/numbers/X", &headers, None).status == 429
        };
        (0..40).map(ask).filter(|refused| *refused).count()
    };
    let site = || Site::new().with("NUMGEN_RATE_LIMIT_ADDRESS", "5");
    assert!(refused(&site().start()) > 10, "one address, whatever it says");
    let server = site().with("NUMGEN_TRUSTED_PROXIES", "127.0.0.0/8").start();
    assert_eq!(refused(&server), 0, "forty addresses, as the proxy says");
    let log = server.stop().log();
    assert!(log.contains("198.51.100.7") && !log.contains("203.0.113.9"), "{log}");
}

/// A call of the store ends 500 of them; it is called until none is left.
#[test]
fn reservations_end_in_time_however_many_there_are() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("MANY", &json!({ "format": "MANY-{SEQ:6}", "mode": "strict" }));
    let reserve = json!({ "prefix_key": "MANY", "count": 1000, "reserve_seconds": 2 });
    for _ in 0..10 {
        caller.post("/numbers", &reserve).expect(200);
    }
    Stopwatch::wait_until(Duration::from_secs(9), "all of them are void", || {
        let certificate = caller.get("/ledger/MANY/certificate").expect(200).json();
        certificate["states"]["void"] == 10_000
    });
}
