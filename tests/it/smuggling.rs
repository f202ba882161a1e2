//! Request smuggling: whatever the framing says, and however a proxy in front may have read it, what stands inside of one request is never
//! served as another.
//!
//! Each case sends bytes in which a second request is hidden, and a token with it. If it were served, it would take a number.

use serde_json::json;

use crate::harness::{Caller, Connection, TestServer};

/// What may happen to the outer request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outer {
    /// It is malformed: 400, or the connection is closed.
    Refused,
    /// It can be read in one way alone, and is served; then the connection is closed.
    AnsweredLast,
    /// It can be read in one way alone, and is answered.
    Answered,
}

struct Bench {
    server: TestServer,
    caller: Caller,
    taken: u32,
}

impl Bench {
    fn start() -> Self {
        let server = TestServer::start();
        let mut caller = server.caller();
        caller.register("BAIT", &json!({ "format": "B-{SEQ:6}" }));
        Self { server, caller, taken: 0 }
    }

    /// The request that is hidden.
    fn hidden(&self) -> String {
        format!(
            "GET /numbers/BAIT HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n",
            self.caller.authorization()
        )
    }

    #[track_caller]
    fn check(&mut self, what: &str, bytes: &str, outer: Outer) {
        let mut connection = Connection::open(self.server.listen).expect("a connection");
        connection.write(bytes.as_bytes()).expect("sent");
        match connection.read("POST") {
            Ok(answer) if outer == Outer::Refused => assert_eq!(answer.status, 400, "{what}"),
            Ok(answer) => {
                assert!(answer.status < 500, "{what}: {}", answer.status);
                assert_ne!(answer.status, 400, "{what} can be read in one way: {}", answer.text());
            }
            // Where bytes are left that nobody will read, TCP may take the answer back.
            Err(_closed) => assert!(outer != Outer::Answered, "{what} was not answered"),
        }
        if outer != Outer::Answered {
            let patience = std::time::Duration::from_secs(5);
            assert!(connection.is_closed_within(patience), "{what}: somebody may still listen for more");
        }
        drop(connection);
        self.taken += 1;
        assert_eq!(self.caller.number("BAIT"), format!("B-{:06}", self.taken), "{what}: one was smuggled");
    }
}

/// A POST that is refused for its content, not for its framing: a rule without a format is a 400 as well, so it asks for a preview, as
/// a stranger: 401.
fn post(framing: &str, body: &str) -> String {
    format!(
        "POST /formats/preview HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n{body}"
    )
}

#[test]
fn two_lengths() {
    let mut bench = Bench::start();
    let hidden = bench.hidden();
    let whole = hidden.len() + 5;
    // Two lengths that differ, in either order, as a list, with a sign, in another base, with blanks.
    for lengths in [
        format!("Content-Length: 5\r\nContent-Length: {whole}\r\n"),
        format!("Content-Length: {whole}\r\nContent-Length: 5\r\n"),
        format!("Content-Length: 5, {whole}\r\n"),
        "Content-Length: +5\r\n".to_owned(),
        "Content-Length: -5\r\n".to_owned(),
        "Content-Length: 0x5\r\n".to_owned(),
        "Content-Length: 5 5\r\n".to_owned(),
        "Content-Length: five\r\n".to_owned(),
        "Content-Length: 99999999999999999999\r\n".to_owned(),
        "Content-Length : 5\r\n".to_owned(),
        "Content-Length\t: 5\r\n".to_owned(),
        "Content-Length\u{b}: 5\r\n".to_owned(),
    ] {
        bench.check(&lengths, &post(&lengths, &format!("hello{hidden}")), Outer::Refused);
    }
}

#[test]
fn a_length_beside_chunks() {
    let mut bench = Bench::start();
    let hidden = bench.hidden();
    let chunked = format!("0\r\n\r\n{hidden}");
    // The chunks count (RFC 9112, section 6.3), and nothing is read after them, since whoever stands in between may have
    // gone by the length.
    for framing in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", chunked.len()),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n", chunked.len()),
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n".to_owned(),
    ] {
        bench.check(&framing, &post(&framing, &chunked), Outer::AnsweredLast);
    }
}

#[test]
fn transfer_encodings_that_are_almost_chunked() {
    let mut bench = Bench::start();
    let hidden = bench.hidden();
    for coding in [
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked;a=b\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: 'chunked'\r\n",
        "Transfer-Encoding: chunk\r\n",
        "Transfer-Encoding:\u{b}chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\r\n: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\u{0}\r\n",
        " Transfer-Encoding: chunked\r\n",
    ] {
        bench.check(coding, &post(coding, &format!("0\r\n\r\n{hidden}")), Outer::Refused);
    }
    // HTTP/1.0 knows no chunks.
    let old = post("Transfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{hidden}"));
    bench.check("HTTP/1.0", &old.replacen("HTTP/1.1", "HTTP/1.0", 1), Outer::Refused);
}

#[test]
fn chunks_that_are_not_what_they_say() {
    let mut bench = Bench::start();
    let (hidden, authorization) = (bench.hidden(), bench.caller.authorization().to_owned());
    let framing = format!("Authorization: {authorization}\r\nTransfer-Encoding: chunked\r\n");
    for body in [
        format!("5\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5\r\nhello0\r\n\r\n{hidden}"),
        format!("0x5\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("+5\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("-1\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5 5\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("ffffffffffffffff1\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("\r\n\r\n{hidden}"),
        format!("5;a=\nb\r\nhello\r\n0\r\n\r\n{hidden}"),
    ] {
        bench.check(&body, &post(&framing, &body), Outer::Refused);
    }
}

#[test]
fn heads_that_lines_can_be_counted_in_differently() {
    let mut bench = Bench::start();
    let hidden = bench.hidden();
    // A fold, a bare CR, a NUL, a second request line inside of a field, a missing version, control characters in the target.
    for head in [
        "GET /openapi.json HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n".to_owned(),
        "GET /openapi.json HTTP/1.1\r\nHost: x\r\nX: a\rGET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET /openapi.json HTTP/1.1\r\nHost: x\r\nX: \u{0}\r\n\r\n".to_owned(),
        "GET /openapi.json\r\nHost: x\r\n\r\n".to_owned(),
        "GET /openapi.json HTTP/1.1 x\r\nHost: x\r\n\r\n".to_owned(),
        "GET /openapi\t.json HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /openapi.json HTTP/1.1\r\nHost: x\r\n: empty\r\n\r\n".to_owned(),
        "GET /openapi.json HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n".to_owned(),
    ] {
        bench.check(&head, &format!("{head}{hidden}"), Outer::Refused);
    }
    // Lines that end with LF alone may be read (RFC 9112, section 2.2), and mean one thing: here a body, which is not a request.
    let bare =
        format!("POST /formats/preview HTTP/1.1\nHost: x\nContent-Length: {}\n\n{hidden}", hidden.len());
    bench.check("bare LF", &bare, Outer::Answered);
}
