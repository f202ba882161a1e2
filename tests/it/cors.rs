//! Browsers of other origins: what is a preflight, and what scripts may send and read.

use crate::harness::{Response, Site, TestServer};

const APP: &str = "https://app.example";

fn server() -> TestServer {
    Site::new().with("NUMGEN_CORS_ORIGINS", APP).start()
}

/// The words of a field that is a list, in lower case.
fn words(answer: &Response, name: &str) -> Vec<String> {
    let list = answer.header(name).unwrap_or_default().to_ascii_lowercase();
    list.split(',').map(|word| word.trim().to_owned()).collect()
}

#[test]
fn only_a_preflight_is_answered_in_the_place_of_the_api() {
    let server = server();
    let mut stranger = server.stranger();
    // Without an origin, or without the method that is to follow, it is an OPTIONS request like any other.
    for headers in [&[][..], &[("Origin", APP)], &[("Access-Control-Request-Method", "PUT")]] {
        let options = stranger.send("OPTIONS", "/numbers/X", headers, None).expect(204);
        assert_eq!(options.header("allow"), Some("GET, OPTIONS"), "{headers:?}");
        stranger.send("OPTIONS", "/pot-of-tea", headers, None).expect_problem(404, "NotFound");
    }
    // Its answer may be read where it comes from an origin that is named.
    let options = stranger.send("OPTIONS", "/numbers/X", &[("Origin", APP)], None);
    assert_eq!(options.header("access-control-allow-origin"), Some(APP));
    let other = stranger.send("OPTIONS", "/numbers/X", &[("Origin", "https://evil.example")], None);
    assert_eq!(other.header("access-control-allow-origin"), None);
}

/// `*` covers every field but `Authorization` (Fetch standard, CORS-preflight fetch), which nearly every request needs.
#[test]
fn a_preflight_names_what_may_be_sent() {
    let server = server();
    let asked = [("Origin", APP), ("Access-Control-Request-Method", "PUT")];
    let preflight = server.stranger().send("OPTIONS", "/prefix-configs/X", &asked, None).expect(204);
    assert_eq!(preflight.header("allow"), Some("DELETE, GET, HEAD, OPTIONS, POST, PUT"));
    assert_eq!(preflight.header("access-control-allow-origin"), Some(APP));
    let headers = words(&preflight, "access-control-allow-headers");
    for name in
        ["authorization", "content-type", "idempotency-key", "if-match", "x-request-id", "traceparent"]
    {
        assert!(headers.iter().any(|word| word == name), "{name} in {headers:?}");
    }
    let methods = words(&preflight, "access-control-allow-methods");
    assert_eq!(methods, ["get", "head", "post", "put", "delete", "options"]);
}

#[test]
fn scripts_may_read_what_the_api_says_in_fields() {
    let server = server();
    let answer = server.caller().send("GET", "/prefix-configs", &[("Origin", APP)], None).expect(200);
    let exposed = words(&answer, "access-control-expose-headers");
    for name in ["etag", "retry-after", "ratelimit", "ratelimit-policy", "x-request-id", "allow"] {
        assert!(exposed.iter().any(|word| word == name), "{name} in {exposed:?}");
    }
}
