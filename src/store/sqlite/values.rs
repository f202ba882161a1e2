//! How values are written in columns and read back.

use std::{net::IpAddr, time::Duration};

use rusqlite::{
    Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};

use super::failure::Failure;
use crate::{
    calendar::Period,
    clock::UnixMillis,
    counter::{Counter, Ranges, SequenceValue, ValueRange},
    prefix_key::PrefixKey,
    store::{
        Hole, HoleReason, LedgerRow, LedgerState, Recorded, RuleRecord,
        draw::Record,
        ledger::{Change, Event},
    },
};

/// So long ago, in ms since 1970.
pub(super) fn before(now: UnixMillis, ago: Duration) -> i64 {
    now.0.saturating_sub_unsigned(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))
}

/// A sequence value as 20 digits: text order is numeric order, for all of `u64`.
pub(super) struct Digits(pub(super) SequenceValue);

impl ToSql for Digits {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(format!("{:020}", self.0.0)))
    }
}

impl FromSql for Digits {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(|value| Self(SequenceValue(value))).map_err(FromSqlError::other)
    }
}

/// Reads a sequence value.
pub(super) fn sequence(row: &Row<'_>, column: &str) -> Result<SequenceValue, Failure> {
    Ok(row.get::<_, Digits>(column)?.0)
}

/// Reads a range from two columns that are both NULL or both given.
pub(super) fn range(row: &Row<'_>, from: &str, to: &str) -> Result<Option<ValueRange>, Failure> {
    let (from, to) = (row.get::<_, Option<Digits>>(from)?, row.get::<_, Option<Digits>>(to)?);
    Ok(from.zip(to).map(|(from, to)| ValueRange { from: from.0, to: to.0 }))
}

/// Reads a count that SQLite keeps as a signed integer.
pub(super) fn unsigned(row: &Row<'_>, column: &str) -> Result<u64, Failure> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| Failure::Corrupt(format!("a negative {column}")))
}

/// Writes a count that is far from the limit of signed integers, or is cut off there.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn prefix_key(row: &Row<'_>) -> Result<PrefixKey, Failure> {
    let text = row.get_ref("prefix_key")?.as_str().map_err(rusqlite::Error::from)?;
    PrefixKey::parse(text).map_err(|_| Failure::Corrupt("a prefix key that is none".to_owned()))
}

pub(super) fn period(row: &Row<'_>) -> Result<Period, Failure> {
    Ok(Period::new(row.get_ref("period")?.as_str().map_err(rusqlite::Error::from)?))
}

pub(super) fn counter(row: &Row<'_>) -> Result<Counter, Failure> {
    Ok(Counter { key: prefix_key(row)?, period: period(row)? })
}

/// Reads a word of a fixed vocabulary.
pub(super) fn word<T>(
    row: &Row<'_>,
    column: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Failure> {
    let text = row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?;
    read(text).ok_or_else(|| Failure::Corrupt(format!("an unknown {column}")))
}

/// Reads where a request came from.
pub(super) fn address(row: &Row<'_>) -> Result<Option<IpAddr>, Failure> {
    let text: Option<String> = row.get("address")?;
    let address = text.map(|text| text.parse()).transpose();
    address.map_err(|_| Failure::Corrupt("an address that is none".to_owned()))
}

pub(super) fn state(row: &Row<'_>) -> Result<LedgerState, Failure> {
    word(row, "state", LedgerState::parse)
}

/// `prefix_key, revision, rule, history, used`
pub(super) fn rule_record(row: &Row<'_>) -> Result<RuleRecord, Failure> {
    Ok(RuleRecord {
        key: prefix_key(row)?,
        revision: unsigned(row, "revision")?,
        rule: row.get("rule")?,
        history: row.get("history")?,
        used: row.get("used")?,
    })
}

/// `from_value, to_value, reason, since_ms`
pub(super) fn hole(row: &Row<'_>) -> Result<Hole, Failure> {
    Ok(Hole {
        from: sequence(row, "from_value")?,
        to: sequence(row, "to_value")?,
        reason: word(row, "reason", HoleReason::parse)?,
        since: UnixMillis(row.get("since_ms")?),
    })
}

/// Reads a list of ranges.
pub(super) fn ranges(row: &Row<'_>) -> Result<Ranges, Failure> {
    ranges_of(row, "value_ranges")
}

/// The same, from a column of another name.
pub(super) fn ranges_of(row: &Row<'_>, column: &str) -> Result<Ranges, Failure> {
    word(row, column, |text| text.parse().ok())
}

/// `fingerprint, stamp, value_ranges, expires_at_ms`
pub(super) fn record(row: &Row<'_>) -> Result<Record, Failure> {
    Ok(Record {
        fingerprint: row.get("fingerprint")?,
        recorded: Recorded { stamp: row.get("stamp")?, values: ranges(row)? },
        expires_at: UnixMillis(row.get("expires_at_ms")?),
    })
}

/// Every column of `ledger` but the prefix key.
pub(super) fn ledger_row(row: &Row<'_>) -> Result<LedgerRow, Failure> {
    Ok(LedgerRow {
        period: period(row)?,
        sequence: sequence(row, "sequence")?,
        number: row.get("number")?,
        state: state(row)?,
        reason: row.get("reason")?,
        subject: row.get("subject")?,
        reserved_until: row.get::<_, Option<i64>>("reserved_until_ms")?.map(UnixMillis),
        issued_at: UnixMillis(row.get("issued_at_ms")?),
        idempotency_key: row.get("idempotency_key")?,
        hash: row.get("hash")?,
    })
}

/// Every column of `ledger_events` but the counter's.
pub(super) fn event(row: &Row<'_>) -> Result<Event, Failure> {
    Ok(Event {
        position: unsigned(row, "position")?,
        sequence: sequence(row, "sequence")?,
        change: word(row, "change", Change::parse)?,
        reason: row.get("reason")?,
        actor: row.get("actor")?,
        at: UnixMillis(row.get("at_ms")?),
        hash: row.get("hash")?,
    })
}
