//! `/temporary-numbers`: numbers issued while the store was away, and what a person makes of them.
//!
//! In profile *embedded* the store is a file of the process itself: it is never away, so no temporary number ever arises. The
//! routes answer as they do in the other profiles on a day without an outage.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Error, Parts, numbers,
    request::{self, Incoming, required},
    transitions::{optional_reason, reason},
};
use crate::{
    auth::Scope,
    body::{self, Body},
    generate::{
        IssueError,
        temporary::{ResolveError, claim_key},
    },
    prefix_key::PrefixKey,
    rules::{CompiledRule, Moment},
    store::{
        Action, AuditAction, AuditDetails, Decision, Fate, Status, TemporaryNumber, TemporaryQuery,
        TemporaryRow,
    },
};

/// `GET /temporary-numbers`: a page in the order of numbers, those that the caller may see.
pub(super) async fn list(parts: &Parts, request: &Incoming<'_>) -> Result<Response<Body>, Error> {
    let claims = request.caller(Scope::ConflictsRead)?;
    let mut query = request.query()?;
    let limit = query.bounded("limit", 1..=1_000).and_then(|limit| u32::try_from(limit).ok()).unwrap_or(100);
    let wanted = TemporaryQuery {
        status: query.choice("status", &Status::ALL.map(|status| (status.as_str(), status))),
        key: query.parsed("prefix_key", PrefixKey::parse),
        after: query.text("after"),
        // One more than the page tells whether there is another.
        limit: limit + 1,
    };
    query.finish()?;
    if let Some(key) = &wanted.key {
        claims.may_touch(key.as_str())?;
    }
    let visible = |number: &TemporaryNumber| claims.may_touch(number.key().as_str()).is_ok();
    let mut listed = parts.temporary.list(&wanted, visible).await?;
    let page = limit as usize;
    let more = listed.rows.len() > page;
    listed.rows.truncate(page);
    let next = listed.rows.last().filter(|_| more).map(|row| row.number.as_str());
    let rows: Vec<Value> = listed.rows.iter().map(row_to_json).collect();
    let document = json!({"rows": rows, "next": next, "complete": listed.complete});
    Ok(body::json(StatusCode::OK, document.to_string()))
}

/// `POST /temporary-numbers/{number}/resolve`.
pub(super) async fn resolve(
    parts: &Parts,
    request: &Incoming<'_>,
    number: &str,
) -> Result<Response<Body>, Error> {
    let claims = request.caller(Scope::ConflictsWrite)?;
    request.query()?.finish()?;
    let mut object = request.object()?;
    let action = object.choice("action", &[("assign", Action::Assign), ("void", Action::Void)]);
    let action = required(&mut object, "action", action);
    let reason = match action {
        Some(Action::Void) => reason(&mut object),
        Some(Action::Assign) | None => optional_reason(&mut object),
    };
    object.finish()?;
    let action = action.ok_or(Error::Internal("a checked field is missing"))?;
    let number = TemporaryNumber::parse(number).ok_or_else(|| {
        Error::missing(format!("there is no temporary number {number:?}"), format!("没有临时号码 {number:?}"))
    })?;
    claims.may_touch(number.key().as_str())?;
    let decision = Decision { actor: claims.subject.to_string(), at_ms: parts.clock.now().0, reason };
    let row = match action {
        Action::Void => {
            let details = details(&number, None, &decision);
            let note = request.note(parts, AuditAction::Voided, number.key(), details)?;
            parts.temporary.decide(&number, action, &decision, Some(&note)).await?
        }
        Action::Assign => assign(parts, request, &number, &decision).await?,
    };
    tracing::info!(
        number = number.as_str(),
        status = row.status().as_str(),
        actor = &*claims.subject,
        "temporary number resolved"
    );
    Ok(body::json(StatusCode::OK, row_to_json(&row).to_string()))
}

/// What the audit trail says of a number that is resolved.
fn details(number: &TemporaryNumber, final_number: Option<&str>, decision: &Decision) -> AuditDetails {
    AuditDetails {
        number: Some(number.to_string()),
        final_number: final_number.map(str::to_owned),
        reason: decision.reason.clone(),
        ..AuditDetails::default()
    }
}

/// Draws the final number, at most one whatever happens in between, and notes it.
async fn assign(
    parts: &Parts,
    request: &Incoming<'_>,
    number: &TemporaryNumber,
    decision: &Decision,
) -> Result<TemporaryRow, Error> {
    // Without a rule nothing can be drawn; what was assigned before stands all the same.
    if let Err(unregistered) = request::rule(parts, number.key()) {
        return match parts.temporary.find(number).await? {
            Some(row) if row.status() == Status::Assigned => Ok(row),
            Some(_) => Err(unregistered),
            None => Err(ResolveError::Unknown(number.clone()).into()),
        };
    }
    let row = parts.temporary.decide(number, Action::Assign, decision, None).await?;
    if row.status() != Status::Open {
        return Ok(row);
    }
    match draw(parts, &row).await {
        Ok(final_number) => {
            let details = details(number, Some(&final_number), decision);
            let note = request.note(parts, AuditAction::Assigned, number.key(), details)?;
            Ok(parts.temporary.complete(number, &final_number, Some(&note)).await?)
        }
        Err(error) => {
            if nothing_was_drawn(&error) {
                parts.temporary.withdraw(number).await?;
            }
            Err(error)
        }
    }
}

/// The final number: of the moment and for the caller of the temporary one, under the rule that is in force now, since only that is
/// known not to repeat a text.
async fn draw(parts: &Parts, row: &TemporaryRow) -> Result<String, Error> {
    let rule: Arc<CompiledRule> = request::rule(parts, row.number.key())?;
    let moment = row.date.map_or(Moment::Now(row.created_at), Moment::Document);
    let usable = parts.rules.ensure_used(rule, moment).await?;
    let wishes = numbers::Wishes {
        date: row.date,
        idempotency_key: Some(claim_key(&row.number)),
        ..numbers::Wishes::default()
    };
    let mut order = numbers::order(&usable, usable.local(), &row.subject, parts.clock.now(), wishes);
    order.hold = Some(Arc::new(usable.clone()));
    // The claim is ours, not the caller's: it is not told of a key.
    let issued = parts.engine.issue(&order).await.map_err(IssueError::without_key)?;
    parts.meter.counter(usable.rule(), issued.source).increment(issued.count());
    let mut text = String::new();
    issued.write(&mut text, |_, _| {});
    Ok(text)
}

/// Whether an error proves that no earlier attempt has drawn a number either: the store looked for one under the claim. Anything
/// else leaves the number to be assigned by another attempt.
fn nothing_was_drawn(error: &Error) -> bool {
    matches!(error, Error::Issue(IssueError::Overflow { .. }))
}

fn row_to_json(row: &TemporaryRow) -> Value {
    json!({
        "number": row.number.as_str(),
        "prefix_key": row.number.key().as_str(),
        "node": row.number.node(),
        "created_at": row.created_at.to_rfc3339(),
        "subject": &*row.subject,
        "status": row.status().as_str(),
        "final": row.final_number(),
        "reason": match row.fate {
            // Not yet what has become of it.
            Fate::Assigning(_) => None,
            Fate::Open | Fate::Assigned { .. } | Fate::Void(_) => row.reason(),
        },
    })
}
