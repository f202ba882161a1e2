//! What is kept, where, and how long a caller waits for it.

use std::{path::PathBuf, time::Duration};

use super::{
    database_url::DatabaseUrl,
    parse::{Fault, Parser, duration, millis, one_of, path, whole},
    redis_url::RedisUrl,
    section::{Default, Unset, section},
};
use crate::secret::Secret;

/// How a strict counter is locked while integers are drawn from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrictLocking {
    /// The row lock is the queue.
    Row,
    /// Read value and version, write if the version still stands; after a few failures the row lock.
    Optimistic,
}

const LOCKING: &[(&str, StrictLocking)] =
    &[("row", StrictLocking::Row), ("optimistic", StrictLocking::Optimistic)];
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

section! {
    /// Stores and what is kept in them.
    Storage, "Storage";
    /// Directory for everything that must survive the process; made at the first start.
    data_dir: PathBuf = "NUMGEN_DATA_DIR", Default("./numgen-data"), path();
    /// Redis for worker IDs, continuous counters and rules.
    redis_url: Option<Secret<String>> = "NUMGEN_REDIS_URL", Unset("no Redis"), redis().secret();
    /// Certificates (PEM) that vouch for a Redis with TLS.
    redis_ca_file: Option<PathBuf> = "NUMGEN_REDIS_CA_FILE", Unset("those of the system"), path();
    /// PostgreSQL for rules, counters, worker IDs and strict ledgers.
    database_url: Option<Secret<String>> = "NUMGEN_DATABASE_URL", Unset("no PostgreSQL"), database().secret();
    /// Certificates (PEM) that vouch for a PostgreSQL with TLS, beside the list of Mozilla; it has to prove its name then, as by sslmode=verify-full.
    database_ca_file: Option<PathBuf> = "NUMGEN_DATABASE_CA_FILE", Unset("sslmode of the URL decides"), path();
    /// Connections of a node to PostgreSQL at most, but for a few that listen and write ledgers.
    database_pool_size: u32 = "NUMGEN_DATABASE_POOL_SIZE", Default("16"), whole(1..=1_000);
    /// How long a request may wait for a store, from its arrival.
    storage_timeout: Duration = "NUMGEN_STORAGE_TIMEOUT_MS", Default("5000"), millis(10..=600_000);
    /// How a strict counter is locked.
    strict_locking: StrictLocking = "NUMGEN_STRICT_LOCKING", Default("row"), one_of(LOCKING);
    /// Numbers of each continuous counter that a node keeps for the time the store is away.
    segment_size: u64 = "NUMGEN_SEGMENT_SIZE", Default("1000"), whole(1..=1_000_000);
    /// How long an Idempotency-Key is remembered.
    idempotency_ttl: Duration = "NUMGEN_IDEMPOTENCY_TTL", Default("24h"), duration(MINUTE..=366 * DAY);
}

/// A URL of Redis. It is kept as text, which stays secret as a whole; whoever connects takes it apart again.
fn redis() -> Parser<String> {
    Parser::explaining("URL such as redis://localhost:6379", |text| match RedisUrl::parse(text) {
        Ok(_valid) => Ok(text.trim().to_owned()),
        Err(invalid) => Err(Fault(Some(invalid.to_string()))),
    })
}

/// A URL of PostgreSQL, kept as text like the one of Redis.
fn database() -> Parser<String> {
    Parser::explaining("URL such as postgres://localhost/numgen", |text| match DatabaseUrl::parse(text) {
        Ok(_valid) => Ok(text.trim().to_owned()),
        Err(invalid) => Err(Fault(Some(invalid.to_string()))),
    })
}
