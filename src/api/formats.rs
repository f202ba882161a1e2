//! `POST /formats/preview`: what a rule would issue, without storing or drawing anything.

use chrono::{DateTime, Datelike, Utc};
use http::{Response, StatusCode};
use serde_json::json;

use super::{
    Error, Parts,
    numbers::{Wishes, document_date, order},
    prefix_configs::warnings_to_json,
    request::Incoming,
};
use crate::{
    auth::Scope,
    body::{self, Body},
    calendar,
    clock::UnixMillis,
    json::{Invalid, Message},
    language::{Language, Localized},
    prefix_key::PrefixKey,
    rule::RuleDraft,
    rules::{Moment, UseError, require_seq},
};

/// The most numbers of one preview.
const MAX_COUNT: i64 = 100;

/// How many are shown to who does not say.
const USUAL_COUNT: u32 = 3;

pub(super) async fn preview(parts: &Parts, request: &Incoming<'_>) -> Result<Response<Body>, Error> {
    let claims = request.caller(Scope::PrefixesRead)?;
    request.query()?.finish()?;
    let mut object = request.object()?;
    let at = object.parsed("at", moment);
    let wanted = object.bounded("count", 1..=MAX_COUNT).and_then(|count| u32::try_from(count).ok());
    // A rule that has fewer left, or none, can be saved all the same: that is an error only where somebody asked for so many.
    let (count, at_least) = wanted.map_or((USUAL_COUNT, 0), |count| (count, count));
    let draft = RuleDraft::from_json(&mut object);
    require_seq(&draft)?;
    object.finish()?;
    if let Some(key) = &draft.prefix_key {
        claims.may_touch(key.as_str())?;
    }
    let visible = |other: &PrefixKey| claims.may_touch(other.as_str()).is_ok();
    let preview = parts.rules.preview(&draft, &visible).await?;
    let at = at.unwrap_or(Moment::Now(parts.clock.now()));
    let wishes = Wishes { count, ..Wishes::default() };
    let local = preview.rule.local(at);
    if !calendar::YEARS.contains(&local.year()) {
        return Err(Invalid::of("at", Message::of(&NotAMoment)).into());
    }
    if let Some(since) = preview.rule.told_since().filter(|since| local.date() < *since) {
        return Err(Invalid::of("at", Message::of(&UseError::Untold { since })).into());
    }
    let order = order(&preview.rule, local, &claims.subject, parts.clock.now(), wishes);
    let numbers = parts.engine.preview(&order, at_least).map_err(|error| match draft.prefix_key {
        Some(_) => error,
        None => error.without_prefix(),
    })?;
    let document = json!({
        "mode": preview.rule.rule().mode.as_str(),
        "numbers": numbers,
        "warnings": warnings_to_json(&preview.warnings, request.language()),
    });
    Ok(body::json(StatusCode::OK, document.to_string()))
}

#[derive(Debug)]
struct NotAMoment;

impl Localized for NotAMoment {
    fn localized(&self, language: Language) -> String {
        match language {
            Language::English => {
                "must be a date such as 2026-11-22 or a time such as 2026-11-22T02:10:27Z, from 2000 to 2099"
                    .into()
            }
            Language::Chinese => {
                "须为 2000 至 2099 年间的日期（如 2026-11-22）或时间（如 2026-11-22T02:10:27Z）".into()
            }
        }
    }
}

/// A date, which is a document date, or an RFC 3339 time.
///
/// In which year a time lies is the rule's to say.
fn moment(text: &str) -> Result<Moment, NotAMoment> {
    if let Ok(date) = document_date(text) {
        return Ok(Moment::Document(date));
    }
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| NotAMoment)?;
    Ok(Moment::Now(UnixMillis::from(time.with_timezone(&Utc))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date_or_a_time() {
        assert!(matches!(moment("2026-11-22"), Ok(Moment::Document(_))));
        assert!(matches!(moment("2026-11-22T02:10:27+08:00"), Ok(Moment::Now(_))));
        for wrong in ["", "yesterday", "2026-11-22T02:10:27", "2026-2-3", "1999-01-01", "2100-01-01"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
