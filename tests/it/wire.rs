//! The protocol: HTTP/1.1 with pipelining, HTTP/2, TLS, methods, and the two spellings of every path.

use std::{fs, sync::Arc};

use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;

use crate::harness::{Connection, Site, TestServer};

#[test]
fn both_paths_and_both_spellings_are_one_counter() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller
        .post("/api/prefix-configs/TWO", &json!({ "format": "T-{SEQ}", "seqLength": 2, "initialSeq": "6" }))
        .expect(200);
    for (turn, target) in
        ["/numbers/TWO", "/api/numbers/TWO", "/numbers?prefixKey=TWO", "/api/numbers?prefix_key=TWO"]
            .iter()
            .enumerate()
    {
        assert_eq!(caller.get(target).expect(200).numbers(), [format!("T-{:02}", turn + 7)], "{target}");
    }
    for body in [json!({ "prefixKey": "TWO" }), json!({ "prefix_key": "TWO" })] {
        caller.post("/numbers", &body).expect(200);
    }
    // Twice, in both spellings, is one too many; `/api/api` is nothing.
    caller
        .post("/numbers", &json!({ "prefixKey": "TWO", "prefix_key": "TWO" }))
        .expect_problem(400, "Validation");
    caller.get("/numbers?prefixKey=TWO&prefix_key=TWO").expect_problem(400, "Validation");
    caller.get("/api/api/numbers/TWO").expect_problem(404, "NotFound");
}

#[test]
fn methods() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("VERB", &json!({ "format": "V-{SEQ:2}" }));

    let head = caller.send("HEAD", "/prefix-configs/VERB", &[], None).expect(200);
    let get = caller.get("/prefix-configs/VERB").expect(200);
    assert_eq!(head.header("content-length"), get.header("content-length"));
    assert_eq!(head.header("etag"), get.header("etag"));
    assert!(head.header("etag").is_some());

    // HEAD never consumes.
    for target in ["/numbers/VERB", "/numbers?prefixKey=VERB"] {
        let refused = caller.send("HEAD", target, &[], None).expect(405);
        assert!(refused.header("allow").is_some_and(|allow| allow.contains("GET")), "{:?}", refused.headers);
    }
    assert_eq!(caller.number("VERB"), "V-01");

    let options = caller.send("OPTIONS", "/prefix-configs/VERB", &[], None).expect(204);
    let allow = options.header("allow").unwrap_or_default().to_owned();
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
        assert!(allow.split(',').any(|one| one.trim() == method), "{method} in {allow}");
    }
    assert_eq!(options.header("access-control-allow-origin"), None, "CORS is off");

    let refused = caller.send("DELETE", "/formats/preview", &[], None);
    refused.expect_problem(405, "MethodNotAllowed");
    assert!(refused.header("allow").is_some_and(|allow| allow.contains("POST")), "{:?}", refused.headers);
    caller.send("BREW", "/prefix-configs", &[], None).expect_problem(405, "MethodNotAllowed");
    caller.get("/pot-of-tea").expect_problem(404, "NotFound");
    caller.get("/").expect_problem(404, "NotFound");
}

#[test]
fn other_origins_only_where_they_are_named() {
    let server = Site::new().with("NUMGEN_CORS_ORIGINS", "https://app.example").start();
    let mut stranger = server.stranger();
    let ask = |origin| {
        [
            ("Origin", origin),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "authorization"),
        ]
    };
    let yes = stranger.send("OPTIONS", "/numbers/X", &ask("https://app.example"), None);
    assert!(yes.status < 300, "{}", yes.status);
    assert_eq!(yes.header("access-control-allow-origin"), Some("https://app.example"));
    let no = stranger.send("OPTIONS", "/numbers/X", &ask("https://evil.example"), None);
    assert_ne!(no.header("access-control-allow-origin"), Some("https://evil.example"));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("PIPE", &json!({ "format": "P-{SEQ:3}" }));
    let request =
        format!("GET /numbers/PIPE HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n", caller.authorization());
    let mut connection = Connection::open(server.listen).expect("a connection");
    connection.write(request.repeat(50).as_bytes()).expect("sent");
    for turn in 1..=50 {
        let answer = connection.read("GET").expect("an answer").expect(200);
        assert_eq!(answer.numbers(), [format!("P-{turn:03}")]);
    }
}

/// What stands behind a request is no reason to keep its answer.
#[test]
fn answers_do_not_wait_for_what_follows_their_request() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("NEXT", &json!({ "format": "N-{SEQ:3}" }));
    let token = format!("Authorization: {}\r\n", caller.authorization());
    let get = |more: &str| format!("GET /numbers/NEXT HTTP/1.1\r\nHost: x\r\n{token}{more}\r\n");
    let answer = |sent: &str| {
        let mut connection = Connection::open(server.listen).expect("a connection");
        connection.write(sent.as_bytes()).expect("sent");
        connection.read("GET").expect("an answer")
    };
    // Half of another request, an empty line, another one that comes too late.
    assert_eq!(answer(&(get("") + "GET /num")).expect(200).numbers(), ["N-001"]);
    assert_eq!(answer(&(get("Connection: close\r\n") + "\r\n")).expect(200).numbers(), ["N-002"]);
    assert_eq!(answer(&(get("Connection: close\r\n") + &get(""))).expect(200).numbers(), ["N-003"]);
    // Bodies that nobody reads.
    let chunked = "Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let stranger = format!("POST /numbers HTTP/1.1\r\nHost: x\r\n{chunked}");
    answer(&stranger).expect_problem(401, "Unauthorized");
    answer(&format!("POST /nope HTTP/1.1\r\nHost: x\r\n{token}{chunked}")).expect_problem(404, "NotFound");
    assert_eq!(caller.number("NEXT"), "N-004");
}

#[test]
fn every_answer_has_a_request_id() {
    let server = TestServer::start();
    let mut caller = server.caller();
    let (first, second) = (caller.get("/prefix-configs").expect(200), caller.get("/nothing").expect(404));
    let id = second.json()["request_id"].as_str().expect("an ID").to_owned();
    assert_eq!(second.header("x-request-id"), Some(id.as_str()));
    assert!(first.header("x-request-id").is_some_and(|other| other != id), "{:?}", first.headers);
}

/// Without TLS, by prior knowledge: the first bytes say that it is HTTP/2.
#[test]
fn http2_by_prior_knowledge() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("TWO", &json!({ "format": "H2-{SEQ:3}" }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let numbers = runtime.block_on(async {
        let client =
            Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Empty<bytes::Bytes>>();
        let mut numbers = Vec::new();
        // Streams of one connection, all under way at once.
        let mut answers = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let request = http::Request::get(format!("http://{}/numbers/TWO", server.listen))
                .header("authorization", caller.authorization())
                .body(Empty::new())
                .expect("a request");
            answers.spawn(client.request(request));
        }
        while let Some(answer) = answers.join_next().await {
            let answer = answer.expect("a task").expect("an answer");
            assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            numbers.push(json["number"].as_str().expect("a number").to_owned());
        }
        numbers
    });
    let mut sorted = numbers;
    sorted.sort();
    assert_eq!(sorted, (1..=100).map(|value| format!("H2-{value:03}")).collect::<Vec<_>>());
}

#[test]
fn heads_over_http2_have_no_body() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("HEAD", &json!({ "format": "H-{SEQ:3}" }));
    let length = caller.get("/prefix-configs/HEAD").expect(200).text().len();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client =
            Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Empty<bytes::Bytes>>();
        for (path, status) in [("/prefix-configs/HEAD", 200), ("/numbers/HEAD", 405), ("/nope", 404)] {
            let request = http::Request::head(format!("http://{}{path}", server.listen))
                .header("authorization", caller.authorization())
                .body(Empty::new())
                .expect("a request");
            let answer = client.request(request).await.expect("an answer");
            assert_eq!(answer.status().as_u16(), status, "{path}");
            let told: usize = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
            assert!(status != 200 || told == length, "{told} and {length}");
            assert!(answer.into_body().collect().await.expect("a body").to_bytes().is_empty(), "{path}");
        }
    });
}

/// With a certificate: TLS, and HTTP/2 or HTTP/1.1 as the two sides agree.
#[test]
fn tls_with_alpn() {
    let site = Site::new();
    let fixture = |name: &str| format!("{}/tests/it/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::copy(fixture("localhost.pem"), site.path("cert.pem")).expect("copied");
    fs::copy(fixture("localhost.key"), site.path("key.pem")).expect("copied");
    let server = site
        .clone()
        .with("NUMGEN_TLS_CERT_FILE", &site.path("cert.pem").to_string_lossy())
        .with("NUMGEN_TLS_KEY_FILE", &site.path("key.pem").to_string_lossy())
        .start();
    let token = site.token(&["--scope", "admin"]);

    let certificate = CertificateDer::from_pem_file(site.path("cert.pem")).expect("a certificate");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for (offered, version) in [
        (&["http/1.1"][..], http::Version::HTTP_11),
        (&["h2", "http/1.1"][..], http::Version::HTTP_2),
        (&[][..], http::Version::HTTP_11),
    ] {
        let mut tls = tls.clone();
        tls.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let answer = runtime.block_on(ask_over_tls(server.listen, tls, version, &token));
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version), "{offered:?}");
        // Browsers stay with TLS.
        assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    }
    // Whoever speaks plainly is not understood.
    let plain = server.stranger().try_send("GET", "/openapi.json", &[], None);
    assert!(plain.is_err() || plain.is_ok_and(|answer| answer.status == 400));
}

/// One request over TLS, in the version that was agreed on.
async fn ask_over_tls(
    address: std::net::SocketAddr,
    tls: rustls::ClientConfig,
    version: http::Version,
    token: &str,
) -> http::Response<hyper::body::Incoming> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let stream = TokioIo::new(connector.connect(name, stream).await.expect("a handshake"));
    let request = http::Request::get(format!("https://localhost:{}/prefix-configs", address.port()))
        .header("host", "localhost")
        .header("authorization", format!("Bearer {token}"))
        .body(Empty::<bytes::Bytes>::new())
        .expect("a request");
    let mut background = tokio::task::JoinSet::new();
    let answer = if version == http::Version::HTTP_2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
        background.spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = http1::handshake(stream).await.expect("HTTP/1.1");
        background.spawn(connection);
        sender.send_request(request).await
    };
    answer.expect("an answer")
}
