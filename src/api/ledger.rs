//! `/ledger/...`: pages of rows and certificates.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Error, Parts,
    request::{self, Incoming},
};
use crate::{
    auth::Scope,
    body::{self, Body},
    calendar::Period,
    counter::{Counter, SequenceValue},
    json::Message,
    store::{LedgerQuery, LedgerRow, LedgerState},
};

const STATES: [(&str, LedgerState); 3] =
    [("reserved", LedgerState::Reserved), ("issued", LedgerState::Issued), ("void", LedgerState::Void)];

/// `GET /ledger/{prefixKey}`: a page of rows in (period, sequence) order.
pub(super) async fn rows(parts: &Parts, request: &Incoming<'_>, key: &str) -> Result<Response<Body>, Error> {
    let (_, key) = request.caller_of(Scope::LedgerRead, key)?;
    let mut query = request.query()?;
    let limit = query.bounded("limit", 1..=1_000).and_then(|limit| u32::try_from(limit).ok()).unwrap_or(100);
    let after = query.text("after");
    let wanted = LedgerQuery {
        period: query.text("period").map(Period::new),
        from: query.u64("from").map(SequenceValue),
        to: query.u64("to").map(SequenceValue),
        state: query.choice("state", &STATES),
        after: after.as_deref().and_then(position),
        // One more than the page tells whether there is another.
        limit: limit + 1,
    };
    if after.is_some() && wanted.after.is_none() {
        query.error("after", Message::new("must be the `next` of an earlier page", "须为先前页面的 `next`"));
    }
    query.finish()?;
    request::rule(parts, &key)?;
    let mut rows = parts.ledgers.rows(key, wanted).await?;
    let page = limit as usize;
    let more = rows.len() > page;
    rows.truncate(page);
    let next = rows.last().filter(|_| more).map(|row| format!("{}:{}", row.period, row.sequence));
    let rows: Vec<Value> = rows.iter().map(row_to_json).collect();
    Ok(body::json(StatusCode::OK, json!({"rows": rows, "next": next}).to_string()))
}

/// `period:sequence`, as `next` has it.
fn position(text: &str) -> Option<(Period, SequenceValue)> {
    let (period, sequence) = text.rsplit_once(':')?;
    Some((Period::new(period), SequenceValue(sequence.parse().ok()?)))
}

/// A row as callers read it.
pub(super) fn row_to_json(row: &LedgerRow) -> Value {
    json!({
        "period": row.period.as_str(),
        "sequence": row.sequence.to_string(),
        "number": row.number,
        "state": row.state.as_str(),
        "reason": row.reason,
        "subject": row.subject,
        "reserved_until": row.reserved_until.map(|until| until.to_rfc3339()),
        "issued_at": row.issued_at.to_rfc3339(),
        "idempotency_key": row.idempotency_key,
        "hash": row.hash,
    })
}

/// `GET /ledger/{prefixKey}/certificate`: of the period that is named, else of the present one.
pub(super) async fn certificate(
    parts: &Parts,
    request: &Incoming<'_>,
    key: &str,
) -> Result<Response<Body>, Error> {
    let (_, key) = request.caller_of(Scope::LedgerRead, key)?;
    let mut query = request.query()?;
    let period = query.text("period").map(Period::new);
    query.finish()?;
    let rule = request::rule(parts, &key)?;
    let period = period.unwrap_or_else(|| rule.period_of(rule.local(parts.clock.now()).date()));
    let counter = Counter { key: key.clone(), period: period.clone() };
    let certificate = parts.ledgers.certificate(counter).await?.ok_or_else(|| {
        Error::missing(
            format!("{key} has no ledger rows in period {period:?}"),
            format!("{key} 在期间 {period:?} 没有台账行"),
        )
    })?;
    let holes: Vec<Value> = certificate
        .holes
        .iter()
        .map(|(from, to)| json!({"from": from.to_string(), "to": to.to_string()}))
        .collect();
    let document = json!({
        "prefix_key": key.as_str(),
        "period": certificate.period.as_str(),
        "first": certificate.first.map(|value| value.to_string()),
        "last": certificate.last.map(|value| value.to_string()),
        "count": certificate.count,
        "states": {"issued": certificate.issued, "reserved": certificate.reserved, "void": certificate.void},
        "holes": holes,
        "head": certificate.head,
    });
    Ok(body::json(StatusCode::OK, document.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_text() {
        assert_eq!(position("2026-11:42"), Some((Period::new("2026-11"), SequenceValue(42))));
        assert_eq!(position(":18446744073709551615"), Some((Period::none(), SequenceValue::MAX)));
        for wrong in ["", "42", "2026:", "2026:x"] {
            assert_eq!(position(wrong), None, "{wrong}");
        }
    }
}
