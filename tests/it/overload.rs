//! More callers than there ever were, all of a sudden: nobody is turned away whom no limit turns away, and afterwards all is as before. The
//! full size (5,000 users after 100) is that of `k6/spike.js`; this is the same in small.

use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use numgen::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};

use crate::harness::{Connection, Site, Stopwatch, TestServer};

/// What one user saw.
#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    numbers: Vec<String>,
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.numbers.extend(other.numbers);
        self.failures.extend(other.failures);
    }

    fn median(&mut self) -> Duration {
        self.latencies.sort_unstable();
        self.latencies[self.latencies.len() / 2]
    }
}

struct Crowd {
    address: SocketAddr,
    authorization: String,
    clock: SystemClock,
}

impl Crowd {
    fn request(&self) -> http::Request<Empty<Bytes>> {
        http::Request::get(format!("http://{}/numbers/CROWD", self.address))
            .header("host", "crowd")
            .header("authorization", &self.authorization)
            .body(Empty::new())
            .expect("a request")
    }

    /// Asks again and again, each time after a pause, on one connection.
    async fn user(self: Arc<Self>, arrival: Duration, pause: Duration, until: Duration) -> Tally {
        let mut tally = Tally::default();
        tokio::time::sleep(arrival).await;
        if let Err(error) = self.ask_until(&mut tally, pause, until).await {
            tally.failures.push(error.to_string());
        }
        tally
    }

    async fn ask_until(
        &self,
        tally: &mut Tally,
        pause: Duration,
        until: Duration,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut background = JoinSet::new();
        background.spawn(connection);
        while self.clock.monotonic() < until {
            let asked = self.clock.monotonic();
            sender.ready().await?;
            let answer = sender.send_request(self.request()).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            tally.latencies.push(self.clock.monotonic() - asked);
            match serde_json::from_slice::<Value>(&body)?["number"].as_str() {
                Some(number) => tally.numbers.push(number.to_owned()),
                None => tally.failures.push(format!("{status}: {}", String::from_utf8_lossy(&body))),
            }
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// `users` arrive within `arrivals` and stay for `stay`.
    async fn come(self: &Arc<Self>, users: u32, arrivals: Duration, stay: Duration, pause_ms: u64) -> Tally {
        let until = self.clock.monotonic() + arrivals + stay;
        let mut all = JoinSet::new();
        for user in 0..users {
            // Pauses differ, or all would ask in step.
            let pause = Duration::from_millis(pause_ms / 2 + u64::from(user) * 37 % pause_ms);
            all.spawn(Arc::clone(self).user(arrivals * user / users, pause, until));
        }
        let mut tally = Tally::default();
        while let Some(one) = all.join_next().await {
            tally.add(one.expect("a user"));
        }
        tally
    }
}

#[test]
fn a_sudden_crowd_is_served_and_leaves_no_trace() {
    const USERS: u32 = 2_000;
    numgen::server::allow_connections(USERS as usize).expect("files for so many connections");
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("CROWD", &json!({ "format": "C-{SEQ:9}" }));
    let crowd = Arc::new(Crowd {
        address: server.listen,
        authorization: caller.authorization().to_owned(),
        clock: SystemClock::new(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let few = || runtime.block_on(crowd.come(20, Duration::ZERO, Duration::from_secs(1), 20));

    let mut all = few();
    let base = all.median();
    let mut spike = runtime.block_on(crowd.come(USERS, Duration::from_secs(1), Duration::from_secs(5), 400));
    let during = spike.median();
    all.add(spike);

    // Back at the base within 10 s.
    let watch = Stopwatch::start();
    let after = loop {
        let mut few = few();
        let median = few.median();
        all.add(few);
        // Twice, and a little for whatever else this machine is doing.
        if median <= base * 2 + Duration::from_millis(20) {
            break median;
        }
        watch.assert_within(Duration::from_secs(10), &format!("coming down from {median:?} to {base:?}"));
    };
    println!(
        "median {base:?}, {during:?} with {USERS} users, {after:?} afterwards; {} requests",
        all.numbers.len()
    );
    assert!(all.failures.is_empty(), "{} failures, the first: {}", all.failures.len(), all.failures[0]);
    let issued = all.numbers.len();
    all.numbers.sort_unstable();
    all.numbers.dedup();
    assert_eq!(all.numbers.len(), issued, "no number twice");
    assert_eq!(caller.number("CROWD"), format!("C-{:09}", issued + 1), "and none missing");
}

/// Requests whose bodies do not come wait, until there are enough of them; the next is told at once. The same holds for whatever waits.
#[test]
fn what_waits_is_bounded_and_the_rest_is_told_at_once() {
    const LIMIT: usize = 8;
    const CALLERS: usize = 60;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let server = Site::new().with("NUMGEN_MAX_WAITING", &LIMIT.to_string()).start();
    let mut caller = server.caller();
    caller.register("CROWD", &json!({ "format": "C-{SEQ:9}" }));
    let body = r#"{"prefix_key":"CROWD"}"#;
    let head = format!(
        "POST /numbers HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        caller.authorization(),
        body.len()
    );
    let all: Vec<_> = (0..CALLERS)
        .map(|_| {
            let mut connection = Connection::open(server.listen).expect("a connection");
            connection.write(head.as_bytes()).expect("sent");
            connection
        })
        .collect();
    thread::sleep(Duration::from_secs(1));
    let (mut waiting, mut refused) = (Vec::new(), 0);
    for mut connection in all {
        if connection.has_answer_within(Duration::from_millis(10)) {
            let answer = connection.read("POST").expect("an answer");
            answer.expect_problem(503, "Overloaded");
            assert!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
            refused += 1;
        } else {
            waiting.push(connection);
        }
    }
    // Each thread has an equal part, rounded up.
    assert!((1..LIMIT + threads).contains(&waiting.len()), "{} wait, {refused} were refused", waiting.len());
    let issued = waiting.len();
    for mut connection in waiting {
        connection.write(body.as_bytes()).expect("sent");
        connection.read("POST").expect("an answer").expect(200);
    }
    assert_eq!(caller.number("CROWD"), format!("C-{:09}", issued + 1), "what was refused consumed nothing");
    let watch = server.stop().log();
    let lines = watch.lines().filter(|line| line.contains("answered 503 Overloaded")).count();
    assert!(lines > 0 && lines < refused, "{lines} lines for {refused} refusals:\n{watch}");
    assert!(!watch.contains(r#""status":503"#), "a flood is not answered with a flood of lines:\n{watch}");
}

#[test]
fn a_connection_ends_after_its_share_of_requests_and_says_so() {
    let server = Site::new().with("NUMGEN_MAX_REQUESTS_PER_CONNECTION", "3").start();
    let mut caller = server.caller();
    let authorization = caller.authorization().to_owned();
    caller.register("CROWD", &json!({ "format": "C-{SEQ:3}" }));
    let mut connection = Connection::open(server.listen).expect("a connection");
    for turn in 1..=3 {
        let headers = [("Authorization", authorization.as_str())];
        let answer = connection.send("GET", "/numbers/CROWD", &headers, None).expect("an answer").expect(200);
        assert_eq!(answer.header("connection") == Some("close"), turn == 3, "{turn}");
    }
    assert!(connection.is_closed_within(Duration::from_secs(2)));
    // Who heeds it never notices.
    for value in 4..=10 {
        assert_eq!(caller.number("CROWD"), format!("C-{value:03}"));
    }
}
