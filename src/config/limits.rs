//! How many connections, and how long anything on them may take.

use std::time::Duration;

use super::{
    parse::{duration, whole},
    section::{Default, section},
};

const SHORTEST: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_secs(3_600);

section! {
    /// Connections and timeouts.
    Limits, "Connections";
    /// Connections at a time; more wait in the kernel's queue.
    max_connections: usize = "NUMGEN_MAX_CONNECTIONS", Default("10000"), whole(1..=1_000_000);
    /// Requests on one connection, which is closed with the last of them.
    max_requests: u32 = "NUMGEN_MAX_REQUESTS_PER_CONNECTION", Default("1000000"), whole(1..=u32::MAX);
    /// Requests that may wait for a store at a time; more are answered 503 Overloaded.
    max_waiting: usize = "NUMGEN_MAX_WAITING", Default("10000"), whole(1..=1_000_000);
    /// How long the header of a request may take.
    header_timeout: Duration = "NUMGEN_HEADER_TIMEOUT", Default("10s"), duration(SHORTEST..=HOUR);
    /// How long the body of a request may take.
    body_timeout: Duration = "NUMGEN_BODY_TIMEOUT", Default("10s"), duration(SHORTEST..=HOUR);
    /// How long an answer may take once the request is there; then 503.
    request_timeout: Duration = "NUMGEN_REQUEST_TIMEOUT", Default("30s"), duration(SHORTEST..=HOUR);
    /// How long a connection may stay open without a request.
    idle_timeout: Duration = "NUMGEN_IDLE_TIMEOUT", Default("75s"), duration(SHORTEST..=HOUR);
    /// How long requests in flight may go on after SIGTERM.
    shutdown_grace: Duration = "NUMGEN_SHUTDOWN_GRACE", Default("10s"), duration(Duration::ZERO..=HOUR);
}
