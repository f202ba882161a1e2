//! `/numbers/{prefixKey}/{number}/confirm` and `/void`: what becomes of a strict number.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::{
    Error, Parts,
    ledger::row_to_json,
    request::{Incoming, required},
};
use crate::{
    auth::Scope,
    body::{self, Body},
    json::{Message, Object},
    store::{AuditAction, AuditDetails, LedgerStep, Transition, Transitioned},
};

/// The longest reason, in characters.
const MAX_REASON: usize = 500;

/// A reason of 1 to 500 characters.
pub(super) fn reason(object: &mut Object) -> Option<String> {
    let reason = optional_reason(object);
    required(object, "reason", reason)
}

/// The same, where none is needed.
pub(super) fn optional_reason(object: &mut Object) -> Option<String> {
    let reason = object.text("reason")?;
    if reason.trim().is_empty() || reason.chars().count() > MAX_REASON {
        object.error(
            "reason",
            Message::new(
                format!("must have 1 to {MAX_REASON} characters"),
                format!("须为 1 至 {MAX_REASON} 个字符"),
            ),
        );
        return None;
    }
    Some(reason)
}

pub(super) async fn confirm(
    parts: &Parts,
    request: &Incoming<'_>,
    key: &str,
    number: &str,
) -> Result<Response<Body>, Error> {
    request.caller(Scope::NumbersIssue)?;
    request.query()?.finish()?;
    request.optional_object()?.finish()?;
    step(parts, request, key, number, Transition::Confirm).await
}

pub(super) async fn void(
    parts: &Parts,
    request: &Incoming<'_>,
    key: &str,
    number: &str,
) -> Result<Response<Body>, Error> {
    request.caller(Scope::NumbersIssue)?;
    request.query()?.finish()?;
    let mut object = request.optional_object()?;
    let reason = reason(&mut object);
    object.finish()?;
    step(parts, request, key, number, Transition::Void { reason: reason.unwrap_or_default() }).await
}

async fn step(
    parts: &Parts,
    request: &Incoming<'_>,
    key: &str,
    number: &str,
    transition: Transition,
) -> Result<Response<Body>, Error> {
    let (claims, key) = request.caller_of(Scope::NumbersIssue, key)?;
    super::request::rule(parts, &key)?;
    let (word, note) = match &transition {
        // The ordinary course, which the events of the ledger tell of.
        Transition::Confirm => ("confirmed", None),
        Transition::Void { reason } => {
            let (number, reason) = (Some(number.to_owned()), Some(reason.clone()));
            let details = AuditDetails { number, reason, ..AuditDetails::default() };
            ("voided", Some(request.note(parts, AuditAction::Voided, &key, details)?))
        }
    };
    let actor = Arc::clone(&claims.subject);
    let at = note.as_ref().map_or_else(|| parts.clock.now(), |note| note.entry().at);
    let step = LedgerStep { number: number.to_owned(), transition, actor: Arc::clone(&actor), at, note };
    match parts.engine.step(key.clone(), step).await? {
        Transitioned::Done(row) => {
            tracing::info!(prefix_key = key.as_str(), number, actor = &*actor, "{word}");
            Ok(body::json(StatusCode::OK, row_to_json(&row).to_string()))
        }
        Transitioned::Conflict(row) => Err(Error::RowConflict { state: row.state, reason: row.reason }),
        Transitioned::Unknown => Err(Error::missing(
            format!("the ledger of {key} has no such number"),
            format!("{key} 的台账中没有该号码"),
        )),
    }
}
