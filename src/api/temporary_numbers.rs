//! `/temporary-numbers`: numbers issued while the store was away, and what a person makes of them.
//!
//! In profile *embedded* the store is a file of the process itself: it is never away, so no temporary number ever arises. The
//! routes answer as they do in the other profiles on a day without an outage.

use http::{Response, StatusCode};
use serde_json::json;

use super::{
    Error,
    request::{Incoming, required},
    transitions::reason,
};
use crate::{
    auth::Scope,
    body::{self, Body},
};

#[derive(Clone, Copy)]
enum Action {
    Assign,
    Void,
}

#[derive(Clone, Copy)]
enum Status {
    Open,
    Assigned,
    Void,
}

pub(super) fn list(request: &Incoming<'_>) -> Result<Response<Body>, Error> {
    request.caller(Scope::ConflictsRead)?;
    let mut query = request.query()?;
    query.choice("status", &[("open", Status::Open), ("assigned", Status::Assigned), ("void", Status::Void)]);
    query.bounded("limit", 1..=1_000);
    query.text("after");
    query.finish()?;
    Ok(body::json(StatusCode::OK, json!({"rows": [], "next": null}).to_string()))
}

pub(super) fn resolve(request: &Incoming<'_>, number: &str) -> Result<Response<Body>, Error> {
    request.caller(Scope::ConflictsWrite)?;
    let mut object = request.object()?;
    let action = object.choice("action", &[("assign", Action::Assign), ("void", Action::Void)]);
    required(&mut object, "action", action);
    reason(&mut object);
    object.finish()?;
    Err(Error::missing(
        format!("there is no temporary number {number:?}"),
        format!("没有临时号码 {number:?}"),
    ))
}
