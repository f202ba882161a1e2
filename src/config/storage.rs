//! What is kept, where, and how long a caller waits for it.

use std::{path::PathBuf, time::Duration};

use super::{
    parse::{duration, millis, one_of, path, url, whole},
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
const REDIS_SCHEMES: &[&str] = &["redis", "rediss", "redis+sentinel", "redis+cluster"];
const DATABASE_SCHEMES: &[&str] = &["postgres", "postgresql"];
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

section! {
    /// Stores and what is kept in them.
    Storage, "Storage";
    /// Directory for everything that must survive the process; made at the first start.
    data_dir: PathBuf = "NUMGEN_DATA_DIR", Default("./numgen-data"), path();
    /// Redis for worker IDs, continuous counters and rules.
    redis_url: Option<Secret<String>> = "NUMGEN_REDIS_URL", Unset("no Redis"), url(REDIS_SCHEMES, "redis://localhost:6379").secret();
    /// PostgreSQL for strict counters and durable copies.
    database_url: Option<Secret<String>> = "NUMGEN_DATABASE_URL", Unset("no PostgreSQL"), url(DATABASE_SCHEMES, "postgres://localhost/numgen").secret();
    /// How long a request may wait for a store, from its arrival.
    storage_timeout: Duration = "NUMGEN_STORAGE_TIMEOUT_MS", Default("5000"), millis(10..=600_000);
    /// How a strict counter is locked.
    strict_locking: StrictLocking = "NUMGEN_STRICT_LOCKING", Default("row"), one_of(LOCKING);
    /// Numbers of each continuous counter that a node keeps for the time Redis is away.
    segment_size: u64 = "NUMGEN_SEGMENT_SIZE", Default("1000"), whole(1..=1_000_000);
    /// How long an Idempotency-Key is remembered.
    idempotency_ttl: Duration = "NUMGEN_IDEMPOTENCY_TTL", Default("24h"), duration(MINUTE..=366 * DAY);
}
