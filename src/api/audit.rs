//! `/audit`: who changed what, when, from where.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Error, Parts, request::Incoming};
use crate::{
    auth::{Claims, Scope},
    body::{self, Body},
    clock::UnixMillis,
    json::Message,
    language::{Language, Localized},
    prefix_key::PrefixKey,
    store::{AuditEntry, AuditQuery, AuditRecord, StoreError},
};

/// Entries that are read at a time for a caller who may not see all of them.
const PART: u32 = 1_000;

/// How many parts one request reads: a page may then have fewer entries than were asked for, and `next` all the same.
const PARTS: usize = 10;

/// `GET /audit`: a page in the order in which changes were made, of those that the caller may see.
pub(super) async fn page(parts: &Parts, request: &Incoming<'_>) -> Result<Response<Body>, Error> {
    let claims = request.caller(Scope::LedgerRead)?;
    let mut query = request.query()?;
    let limit = query.bounded("limit", 1..=1_000).and_then(|limit| u32::try_from(limit).ok()).unwrap_or(100);
    let wanted = AuditQuery {
        key: query.parsed("prefix_key", PrefixKey::parse),
        from: query.parsed("from", moment),
        to: query.parsed("to", moment),
        after: query.u64("after"),
        limit,
    };
    if wanted.from.zip(wanted.to).is_some_and(|(from, to)| from > to) {
        query.error("to", Message::new("must not be before `from`", "不得早于 `from`"));
    }
    query.finish()?;
    if let Some(key) = &wanted.key {
        claims.may_touch(key.as_str())?;
    }
    let (records, next) = visible(parts, claims, wanted).await?;
    let rows: Vec<Value> = records.iter().map(record_to_json).collect();
    let next = next.map(|position| position.to_string());
    Ok(body::json(StatusCode::OK, json!({"rows": rows, "next": next}).to_string()))
}

/// The entries of a page that the caller may see, and where the next page goes on.
async fn visible(
    parts: &Parts,
    claims: &Claims,
    mut query: AuditQuery,
) -> Result<(Vec<AuditRecord>, Option<u64>), StoreError> {
    let page = usize::try_from(query.limit).unwrap_or(usize::MAX);
    // One more than the page tells whether there is another.
    let part = if claims.prefixes.is_none() || query.key.is_some() { query.limit + 1 } else { PART };
    query.limit = part;
    let mut found: Vec<AuditRecord> = Vec::new();
    for _ in 0..PARTS {
        let read = parts.trail.page(query.clone()).await?;
        let is_last = read.len() < usize::try_from(part).unwrap_or(usize::MAX);
        query.after = read.last().map(|record| record.position).or(query.after);
        found.extend(read.into_iter().filter(|record| claims.may_touch(record.entry.key.as_str()).is_ok()));
        if found.len() > page {
            found.truncate(page);
            let next = found.last().map(|record| record.position);
            return Ok((found, next));
        }
        if is_last {
            return Ok((found, None));
        }
    }
    Ok((found, query.after))
}

fn record_to_json(record: &AuditRecord) -> Value {
    let AuditEntry { at, author, action, key, details } = &record.entry;
    json!({
        "position": record.position.to_string(),
        "at": at.to_rfc3339(),
        "action": action.as_str(),
        "prefix_key": key.as_str(),
        "subject": &*author.subject,
        "address": author.address.map(|address| address.to_string()),
        "request_id": author.request_id,
        "details": serde_json::to_value(details).unwrap_or_default(),
    })
}

/// Not a moment.
#[derive(Debug)]
struct NotAMoment;

impl Localized for NotAMoment {
    fn localized(&self, language: Language) -> String {
        match language {
            Language::English => "must be a time such as 2026-11-22T12:00:00Z (RFC 3339)".into(),
            Language::Chinese => "须为时间，例如 2026-11-22T12:00:00Z（RFC 3339）".into(),
        }
    }
}

fn moment(text: &str) -> Result<UnixMillis, NotAMoment> {
    let moment = chrono::DateTime::parse_from_rfc3339(text).map_err(|_| NotAMoment)?;
    Ok(UnixMillis(moment.timestamp_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_rfc_3339() {
        let noon = moment("2026-11-22T13:00:00+01:00").expect("a moment");
        assert_eq!(noon.to_rfc3339(), "2026-11-22T12:00:00.000Z");
        for wrong in ["", "2026-11-22", "2026-11-22 13:00", "now"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
