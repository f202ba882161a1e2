//! Every metric that the service shows: name, kind, labels, help and where it is shown stand here and nowhere else.
//!
//! Invariants: `docs/metrics.md` is this list ([`markdown_table`], held to it by a test); a name ends in its unit, `_total` where it
//! counts; the number of values of every label is bounded, that of `prefix` by `NUMGEN_METRICS_PREFIXES`.

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only rises; a restart begins at 0.
    Counter,
    /// It stands where it stands.
    Gauge,
    /// How many lie at or below each bound, their number and their sum.
    Histogram,
}

impl Kind {
    /// The word for it in the Prometheus text format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The profiles in which a metric is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Every one.
    Everywhere,
    /// Where nodes share a store: *redis*, *postgres*, *full*.
    Shared,
    /// Where a ledger is kept: *embedded*, *postgres*, *full*.
    Ledger,
    /// Where there is a PostgreSQL: *postgres*, *full*.
    Postgres,
    /// *full*.
    Full,
}

impl Shown {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Everywhere => "all",
            Self::Shared => "redis, postgres, full",
            Self::Ledger => "embedded, postgres, full",
            Self::Postgres => "postgres, full",
            Self::Full => "full",
        }
    }
}

/// A metric, with all its series.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// In which profiles it is shown.
    pub shown: Shown,
    /// What it says, in one or two sentences.
    pub help: &'static str,
}

/// Declares the list: one entry for each metric, under its help.
macro_rules! families {
    ($($(#[doc = $help:literal])+ $id:ident: $kind:ident $name:literal [$($label:literal),*] $shown:ident;)+) => {
        $(
            $(#[doc = $help])+
            pub const $id: Family = Family {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                shown: Shown::$shown,
                help: concat!($($help),+).trim_ascii(),
            };
        )+
        /// Every metric, in the order of the documentation.
        pub const FAMILIES: &[Family] = &[$($id),+];
    };
}

families! {
    /// HTTP requests answered, refusals included, by route, method and status.
    HTTP_REQUESTS: Counter "numgen_http_requests_total" ["route", "method", "status"] Everywhere;
    /// Time from the arrival of a request to its answer, in seconds, by route.
    HTTP_DURATION: Histogram "numgen_http_request_duration_seconds" ["route"] Everywhere;
    /// Time from the arrival of a request to its answer, in seconds, of requests that were given numbers, by mode of the rule.
    ISSUE_DURATION: Histogram "numgen_issue_duration_seconds" ["mode"] Everywhere;
    /// Open connections of the API.
    CONNECTIONS: Gauge "numgen_connections" [] Everywhere;
    /// How many connections the API allows (NUMGEN_MAX_CONNECTIONS); more wait in the backlog of the operating system.
    CONNECTIONS_LIMIT: Gauge "numgen_connections_limit" [] Everywhere;
    /// Requests answered 401, by what was wrong with the token.
    TOKENS_REJECTED: Counter "numgen_tokens_rejected_total" ["reason"] Everywhere;
    /// Requests answered 429, by quota (numbers, issued, rule, management, address).
    RATE_LIMITED: Counter "numgen_rate_limited_total" ["policy"] Everywhere;
    /// Requests answered 503 Overloaded: too many in flight (in_flight), or a generator that could not make as many in time (generator).
    OVERLOAD_REFUSALS: Counter "numgen_overload_refusals_total" ["reason"] Everywhere;

    /// Numbers issued, by mode, by source (primary, segment, temporary) and by prefix key.
    NUMBERS_ISSUED: Counter "numgen_numbers_issued_total" ["mode", "source", "prefix"] Everywhere;
    /// Requests that shared one combined call of the store, by mode and store.
    BATCH_REQUESTS: Histogram "numgen_batch_requests" ["mode", "store"] Everywhere;

    /// Calls of a store, by store, operation and outcome (ok, timeout, unavailable, corrupt).
    STORE_CALLS: Counter "numgen_store_calls_total" ["store", "operation", "outcome"] Everywhere;
    /// Time of a call of a store, in seconds, waiting for a connection included, by store and operation.
    STORE_DURATION: Histogram "numgen_store_call_duration_seconds" ["store", "operation"] Everywhere;
    /// Whether the store can be asked: 1 or 0.
    STORE_REACHABLE: Gauge "numgen_store_reachable" ["store"] Everywhere;
    /// How often a store that could be asked was found away.
    STORE_OUTAGES: Counter "numgen_store_outages_total" ["store"] Shared;
    /// Connections of the pool, by store and state (idle, busy).
    STORE_CONNECTIONS: Gauge "numgen_store_connections" ["store", "state"] Postgres;
    /// How far the clock of the store that leases worker IDs is ahead of this machine's, in seconds; negative: behind.
    CLOCK_OFFSET: Gauge "numgen_store_clock_offset_seconds" ["store"] Shared;

    /// How the service stands, as /readyz says: 1 for the present status (ready, degraded, unready, draining), 0 for the others.
    READINESS: Gauge "numgen_readiness" ["status"] Everywhere;
    /// Whether a component of /readyz is ok: 1 or 0.
    COMPONENT_OK: Gauge "numgen_component_ok" ["component"] Everywhere;
    /// Rules, by state: in_force, or refused because they are not understood.
    RULES: Gauge "numgen_rules" ["state"] Everywhere;

    /// Whether this node holds a worker window that its store has confirmed lately: 1 or 0.
    WORKER_HELD: Gauge "numgen_worker_held" [] Everywhere;
    /// The worker ID that this node holds, or held last.
    WORKER_ID: Gauge "numgen_worker_id" [] Everywhere;
    /// How long snowflake IDs can go on without the store that leases worker IDs, in seconds.
    WORKER_WINDOW: Gauge "numgen_worker_window_seconds" [] Everywhere;
    /// Worker IDs of this data centre that a node could take now.
    WORKER_SLOTS_FREE: Gauge "numgen_worker_slots_free" [] Shared;
    /// Days until the time bits of snowflake IDs run out.
    SNOWFLAKE_DAYS: Gauge "numgen_snowflake_days_left" [] Everywhere;

    /// The least that a counter of this node could issue from its segment if the store went away now; 0 where none holds one.
    SEGMENT_REMAINING: Gauge "numgen_segment_remaining" [] Everywhere;
    /// Counters of which this node holds a segment.
    SEGMENTS_HELD: Gauge "numgen_segments_held" [] Shared;
    /// Counters of this node that go on without their store at the moment.
    COUNTERS_AWAY: Gauge "numgen_counters_away" [] Shared;
    /// The least that the counters of this node may still draw from Redis before PostgreSQL has to grant more; 0 where none has a grant.
    GRANT_REMAINING: Gauge "numgen_grant_remaining" [] Full;
    /// Grants asked of PostgreSQL, by cause (ahead: in time; needed: a request waits) and outcome (ok, failed).
    GRANT_FETCHES: Counter "numgen_grant_fetches_total" ["cause", "outcome"] Full;

    /// The last value of the counter of a prefix key, in its present period. Looked up once per NUMGEN_METRICS_INTERVAL.
    SEQUENCE_LAST: Gauge "numgen_sequence_last_value" ["mode", "prefix"] Everywhere;
    /// The highest value that the counter of a prefix key may issue.
    SEQUENCE_MAX: Gauge "numgen_sequence_max_value" ["mode", "prefix"] Everywhere;
    /// Values at or below the last one that were not issued, by reason, over all periods. Looked up once per NUMGEN_METRICS_INTERVAL.
    HOLE_VALUES: Gauge "numgen_hole_values" ["prefix", "reason"] Everywhere;
    /// Temporary numbers that wait for a person to resolve them; more than 10,000 are counted once a minute.
    TEMPORARY_OPEN: Gauge "numgen_temporary_numbers_open" [] Everywhere;
    /// Strict numbers that are reserved and neither confirmed nor void.
    RESERVATIONS_OPEN: Gauge "numgen_ledger_reservations_open" [] Ledger;
    /// How long ago the oldest of them was reserved, in seconds; 0 where there is none.
    RESERVATION_OLDEST: Gauge "numgen_ledger_oldest_reservation_seconds" [] Ledger;

    /// Spans of sampled traces, by what became of them: exported, failed (the collector did not take them), dropped (the queue was full).
    TRACE_SPANS: Counter "numgen_trace_spans_total" ["outcome"] Everywhere;
    /// Always 1; the version is in the label.
    BUILD_INFO: Gauge "numgen_build_info" ["version"] Everywhere;
    /// Always 1; the labels say which node this is: join them to anything else by `instance`.
    NODE_INFO: Gauge "numgen_node_info" ["node", "datacenter", "profile"] Everywhere;

    /// Processor time used, user and system, in seconds.
    PROCESS_CPU: Counter "process_cpu_seconds_total" [] Everywhere;
    /// Resident memory, in bytes.
    PROCESS_RESIDENT: Gauge "process_resident_memory_bytes" [] Everywhere;
    /// Virtual memory, in bytes.
    PROCESS_VIRTUAL: Gauge "process_virtual_memory_bytes" [] Everywhere;
    /// Open file descriptors.
    PROCESS_OPEN_FDS: Gauge "process_open_fds" [] Everywhere;
    /// File descriptors that may be open.
    PROCESS_MAX_FDS: Gauge "process_max_fds" [] Everywhere;
    /// When the process started, in seconds since 1970.
    PROCESS_START: Gauge "process_start_time_seconds" [] Everywhere;
}

/// The metrics as a Markdown table, for `docs/metrics.md`; a test holds the page to it.
pub fn markdown_table() -> String {
    let mut table =
        "| metric | type | labels | profiles | what it says |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for Family { name, kind, labels, shown, help } in FAMILIES {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let (kind, labels, shown) = (kind.as_str(), labels.join(", "), shown.as_str());
        table.push_str(&format!("| `{name}` | {kind} | {labels} | {shown} | {help} |\n"));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_tell_kind_and_unit() {
        for (index, family) in FAMILIES.iter().enumerate() {
            let Family { name, kind, help, .. } = family;
            assert!(FAMILIES[..index].iter().all(|other| other.name != *name), "{name} stands there twice");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(help.ends_with('.') && !help.contains('|'), "{name}: {help}");
        }
    }
}
