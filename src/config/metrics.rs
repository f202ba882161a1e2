//! What `/metrics` shows.

use std::time::Duration;

use super::{
    parse::{duration, whole},
    section::{Default, section},
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

section! {
    /// What `/metrics` shows.
    Metrics, "Metrics";
    /// Prefix keys that have a series of their own, by arrival; the rest are `other`.
    prefixes: usize = "NUMGEN_METRICS_PREFIXES", Default("100"), whole(0..=100_000);
    /// How often last values, holes, free worker IDs and open reservations are looked up in the store.
    survey_interval: Duration = "NUMGEN_METRICS_INTERVAL", Default("30s"), duration(SECOND..=HOUR);
}
