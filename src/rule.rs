//! The rule of a prefix key: what an operator writes ([`RuleDraft`]) and what is in force ([`Rule`]).

use chrono_tz::Tz;

use crate::{
    calendar::{FiscalYearStart, Reset},
    counter::SequenceValue,
    prefix_key::PrefixKey,
};

/// How sequence values are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// 63-bit snowflake IDs; no store on the request path.
    Snowflake,
    /// A consecutive counter; a crash may leave a hole, which is known.
    Continuous,
    /// A gapless counter with a ledger.
    Strict,
}

/// What happens to a value with more digits than `{SEQ:N}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// N is a minimum: the number grows.
    #[default]
    Grow,
    /// `SequenceOverflow`, and nothing is consumed.
    Reject,
}

/// What a continuous rule does while its store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnOutage {
    /// 503 at once.
    Fail,
    /// The local segment, then 503.
    Segment,
    /// The local segment, then temporary numbers.
    #[default]
    Temporary,
}

/// A rule as written: absent fields are `None`, each given field is within its range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleDraft {
    /// The key in the body, where the path may also have one.
    pub prefix_key: Option<PrefixKey>,
    /// The template; `None` when it is missing.
    pub format: Option<String>,
    /// Zero-fill length, 1 to 20.
    pub seq_length: Option<u8>,
    /// The first value issued is this plus one.
    pub initial_seq: Option<SequenceValue>,
    /// Explicit mode.
    pub mode: Option<Mode>,
    /// When the counter starts afresh.
    pub reset: Option<Reset>,
    /// In which dates and periods are computed.
    pub timezone: Option<Tz>,
    /// When the fiscal year starts.
    pub fiscal_year_start: Option<FiscalYearStart>,
    /// What a value that is too wide does.
    pub overflow: Option<Overflow>,
    /// The highest value.
    pub max_seq: Option<SequenceValue>,
    /// What an outage does.
    pub on_outage: Option<OnOutage>,
}

/// A rule in force: every default applied, the mode resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its prefix key.
    pub prefix_key: PrefixKey,
    /// The template as written.
    pub format: String,
    /// Zero-fill length, 1 to 20.
    pub seq_length: u8,
    /// The first value issued is this plus one.
    pub initial_seq: SequenceValue,
    /// How sequence values are made.
    pub mode: Mode,
    /// When the counter starts afresh.
    pub reset: Reset,
    /// In which dates and periods are computed.
    pub timezone: Tz,
    /// When the fiscal year starts.
    pub fiscal_year_start: FiscalYearStart,
    /// What a value that is too wide does.
    pub overflow: Overflow,
    /// The highest value.
    pub max_seq: SequenceValue,
    /// What an outage does.
    pub on_outage: OnOutage,
}
