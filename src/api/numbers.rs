//! `/numbers`: issuing, and reading a number back.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{NaiveDate, NaiveDateTime};
use http::{Response, StatusCode};
use serde_json::json;

use super::{
    Error, Parts,
    request::{self, Incoming, idempotency_key, required},
};
use crate::{
    auth::{Claims, Scope},
    body::{self, Body},
    calendar,
    clock::UnixMillis,
    generate::{Issued, Order},
    json::{Invalid, Message, Object},
    language::{Language, Localized},
    middleware::rate_limit::IssuedQuota,
    prefix_key::PrefixKey,
    rule::Mode,
    rules::{CompiledRule, Moment, UseError},
    store::TemporaryNumber,
    telemetry::note_issue,
    template::Check,
};

/// The most numbers of one request.
const MAX_COUNT: i64 = 10_000;

/// The longest reservation: 30 days, in seconds.
const MAX_RESERVE_S: i64 = 30 * 24 * 3600;

/// What a caller asks for.
struct Wanted {
    key: PrefixKey,
    /// `None`: one number, answered as `number` instead of `numbers`.
    count: Option<u32>,
    date: Option<NaiveDate>,
    reserve: Option<Duration>,
    idempotency_key: Option<Arc<str>>,
}

impl Wanted {
    fn wishes(&self) -> Wishes {
        Wishes {
            count: self.count.unwrap_or(1),
            date: self.date,
            reserve: self.reserve,
            idempotency_key: self.idempotency_key.clone(),
        }
    }
}

/// `GET /numbers?prefixKey=K` and `GET /numbers/{prefixKey}`.
pub(super) async fn get(
    parts: &Parts,
    request: &Incoming<'_>,
    key: Option<&str>,
) -> Result<Response<Body>, Error> {
    let claims = request.caller(Scope::NumbersIssue)?;
    let mut query = request.query()?;
    let given = query.text("prefix_key");
    let key = match (key, given) {
        (Some(path), Some(query_key)) if path != query_key => {
            query.error("prefix_key", Message::new("must match the path", "须与路径一致"));
            Some(path.to_owned())
        }
        (Some(path), _) => Some(path.to_owned()),
        (None, given) => required(&mut query, "prefix_key", given),
    };
    let wanted = wanted(&mut query, key, request)?;
    query.finish()?;
    issue(parts, request, claims, wanted).await
}

/// `POST /numbers`.
pub(super) async fn post(parts: &Parts, request: &Incoming<'_>) -> Result<Response<Body>, Error> {
    let claims = request.caller(Scope::NumbersIssue)?;
    request.query()?.finish()?;
    let mut object = request.object()?;
    let key = object.text("prefix_key");
    let key = required(&mut object, "prefix_key", key);
    let reserve = object.bounded("reserve_seconds", 1..=MAX_RESERVE_S);
    let wanted = wanted(&mut object, key, request)?;
    object.finish()?;
    let reserve = reserve.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    issue(parts, request, claims, wanted.map(|wanted| Wanted { reserve, ..wanted })).await
}

/// What query and body have in common. `None` where a field is wrong, which `finish` then reports.
fn wanted(object: &mut Object, key: Option<String>, request: &Incoming<'_>) -> Result<Option<Wanted>, Error> {
    let count = object.bounded("count", 1..=MAX_COUNT).and_then(|count| u32::try_from(count).ok());
    let date = object.parsed("date", document_date);
    let idempotency_key = idempotency_key(&request.head.headers)?;
    let Some(key) = key else { return Ok(None) };
    let key = match PrefixKey::parse(&key) {
        Ok(key) => key,
        Err(error) => {
            object.error("prefix_key", Message::of(&error));
            return Ok(None);
        }
    };
    Ok(Some(Wanted { key, count, date, reserve: None, idempotency_key }))
}

/// A document date that is not one, or lies outside the years that formats tell apart.
#[derive(Debug)]
pub(super) struct NotADocumentDate;

impl Localized for NotADocumentDate {
    fn localized(&self, language: Language) -> String {
        match language {
            Language::English => "must be a date from 2000-01-01 to 2099-12-31, written YYYY-MM-DD".into(),
            Language::Chinese => "须为 2000-01-01 至 2099-12-31 之间的日期，写作 YYYY-MM-DD".into(),
        }
    }
}

/// A date as documents bear it, `YYYY-MM-DD`.
pub(super) fn document_date(text: &str) -> Result<NaiveDate, NotADocumentDate> {
    use chrono::Datelike;
    let digit_or_dash =
        |(at, byte): (usize, u8)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    let shaped = text.len() == 10 && text.bytes().enumerate().all(digit_or_dash);
    let date = text.parse::<NaiveDate>().ok().filter(|date| shaped && calendar::YEARS.contains(&date.year()));
    date.ok_or(NotADocumentDate)
}

async fn issue(
    parts: &Parts,
    request: &Incoming<'_>,
    claims: &Arc<Claims>,
    wanted: Option<Wanted>,
) -> Result<Response<Body>, Error> {
    let wanted = wanted.ok_or(Error::Internal("a checked field is missing"))?;
    claims.may_touch(wanted.key.as_str())?;
    let now = parts.clock.now();
    let unregistered = || request::without_rule(parts, Error::IssueUnregistered(wanted.key.clone()));
    let rule = parts.rules.get(wanted.key.as_str()).ok_or_else(unregistered)?;
    if wanted.reserve.is_some() && rule.rule().mode != Mode::Strict {
        let message = Message::new("only strict prefixes can reserve", "只有 strict 前缀可以预留");
        return Err(Invalid::of("reserve_seconds", message).into());
    }
    let count = wanted.count.unwrap_or(1);
    quota(&request.head.extensions, parts.rule_limits.quota(rule.rule()).as_ref(), count)?;
    match issue_under(parts, &rule, claims, &wanted, now).await {
        Err(error) if error.is_superseded() => Box::pin(follow(parts, claims, &wanted, now)).await,
        answer => answer,
    }
}

/// One number of a key whose rule was changed by another node while somebody asked under it.
pub(super) async fn issue_anew(
    parts: &Parts,
    claims: &Arc<Claims>,
    key: PrefixKey,
    now: UnixMillis,
) -> Result<Response<Body>, Error> {
    let wanted = Wanted { key, count: None, date: None, reserve: None, idempotency_key: None };
    follow(parts, claims, &wanted, now).await
}

/// How often a request follows a rule that is changed under it, and the first pause, which doubles: counters are closed to the old
/// rule a little before the new one can be read. Together 0.6 s.
const REREADS: u32 = 6;
const REREAD_PAUSE: Duration = Duration::from_millis(10);

/// Draws under the rule that is in force in the store, which this node learns at once, rather than with its next look.
async fn follow(
    parts: &Parts,
    claims: &Arc<Claims>,
    wanted: &Wanted,
    now: UnixMillis,
) -> Result<Response<Body>, Error> {
    let mut reread = 0;
    loop {
        let rule = parts.rules.reread(&wanted.key).await?;
        let rule = rule.ok_or_else(|| Error::IssueUnregistered(wanted.key.clone()))?;
        let answer = issue_under(parts, &rule, claims, wanted, now).await;
        if reread == REREADS || !answer.as_ref().is_err_and(Error::is_superseded) {
            return answer;
        }
        tokio::time::sleep(REREAD_PAUSE * 2_u32.pow(reread)).await;
        reread += 1;
    }
}

/// Draws under a rule, or under the one that has taken its place by now.
async fn issue_under(
    parts: &Parts,
    rule: &Arc<CompiledRule>,
    claims: &Arc<Claims>,
    wanted: &Wanted,
    now: UnixMillis,
) -> Result<Response<Body>, Error> {
    let moment = wanted.date.map_or(Moment::Now(now), Moment::Document);
    let wishes = wanted.wishes();
    let usable = match parts.rules.use_at_once(rule, moment) {
        Some(usable) => Ok(usable),
        // Only the first number of a rule, or of a later date, has to tell the store.
        None => Box::pin(parts.rules.ensure_used(Arc::clone(rule), moment)).await,
    };
    let usable = match usable {
        Ok(usable) => usable,
        // A temporary number says nothing that the store would have to know before.
        Err(UseError::Store(error)) => {
            let order = order(rule, rule.local(moment), &claims.subject, now, wishes);
            let issued = Box::pin(parts.engine.stand_in(&order, error.into())).await?;
            count(parts, rule, &issued);
            return Ok(answer(&issued, wanted.count));
        }
        Err(error) => return Err(error.into()),
    };
    let mut order = order(&usable, usable.local(), &claims.subject, now, wishes);
    order.hold = Some(Arc::new(usable.clone()));
    let issued = match parts.engine.issue_at_once(&order) {
        Some(issued) => issued?,
        None => parts.engine.issue(&order).await?,
    };
    count(parts, &usable, &issued);
    Ok(answer(&issued, wanted.count))
}

/// Counts what is in the answer that is being made.
fn count(parts: &Parts, rule: &CompiledRule, issued: &Issued<'_>) {
    note_issue(rule.rule().mode);
    parts.meter.counter(rule.rule(), issued.source).increment(issued.count());
}

/// Takes `count` from the caller's quota of issued numbers and from that of the rule, where there are any. The caller's first: who has
/// used up its own takes nothing from the others.
pub(super) fn quota(
    extensions: &http::Extensions,
    of_rule: Option<&IssuedQuota>,
    count: u32,
) -> Result<(), Error> {
    let of_caller = extensions.get::<IssuedQuota>();
    of_caller.into_iter().chain(of_rule).try_for_each(|quota| quota.check(count)).map_err(Error::from)
}

/// The part of an order that is the caller's choice.
pub(super) struct Wishes {
    pub(super) count: u32,
    pub(super) date: Option<NaiveDate>,
    pub(super) reserve: Option<Duration>,
    pub(super) idempotency_key: Option<Arc<str>>,
}

impl Default for Wishes {
    fn default() -> Self {
        Self { count: 1, date: None, reserve: None, idempotency_key: None }
    }
}

/// An order under a rule, at the moment that `local` shows in the rule's time zone.
pub(super) fn order<'a>(
    rule: &'a CompiledRule,
    local: NaiveDateTime,
    subject: &'a Arc<str>,
    now: UnixMillis,
    wishes: Wishes,
) -> Order<'a> {
    Order {
        rule: rule.rule(),
        template: rule.template(),
        bounds: rule.bounds(local.date()),
        period: rule.period_of(local.date()),
        local,
        now,
        count: wishes.count,
        subject,
        idempotency_key: wishes.idempotency_key,
        date: wishes.date,
        reserve: wishes.reserve,
        hold: None,
    }
}

/// `{"number":...}`, or `{"numbers":[...]}` where a count was given, written straight into the answer's buffer.
pub(super) fn answer(issued: &Issued<'_>, count: Option<u32>) -> Response<Body> {
    let mut out = String::with_capacity(64 + 32 * usize::try_from(issued.count()).unwrap_or(0));
    match count {
        None => {
            out.push_str(r#"{"number":""#);
            issued.write(&mut out, |_, _| {});
            out.push('"');
        }
        Some(_) => {
            out.push_str(r#"{"numbers":[""#);
            issued.write(&mut out, |out, index| {
                if index > 0 {
                    out.push_str(r#"",""#);
                }
            });
            out.push_str(r#""]"#);
        }
    }
    out.push_str(r#","source":""#);
    out.push_str(issued.source.as_str());
    out.push('"');
    if let Some(until) = issued.reserved_until() {
        out.push_str(r#","state":"reserved","reserved_until":""#);
        out.push_str(&until.to_rfc3339());
        out.push('"');
    }
    out.push('}');
    body::json(StatusCode::OK, Bytes::from(out))
}

/// `GET /numbers/decode?prefixKey=K&number=TEXT`.
pub(super) fn decode(parts: &Parts, request: &Incoming<'_>) -> Result<Response<Body>, Error> {
    let claims = request.caller(Scope::PrefixesRead)?;
    let mut query = request.query()?;
    let key = query.parsed("prefix_key", PrefixKey::parse);
    let key = required(&mut query, "prefix_key", key);
    let number = query.text("number");
    let number = required(&mut query, "number", number);
    query.finish()?;
    let (Some(key), Some(number)) = (key, number) else {
        return Err(Error::Internal("a checked field is missing"));
    };
    claims.may_touch(key.as_str())?;
    let rule = request::rule(parts, &key)?;
    let origin = parts.engine.origin();
    // No format can have the `~` of a temporary number.
    let decoded = rule.template().decode(key.as_str(), origin, &number).map_err(|misfit| {
        if TemporaryNumber::is_tagged(&number) {
            Error::Temporary { position: misfit.position }
        } else {
            Error::Decode(misfit)
        }
    })?;
    let snowflake = match rule.rule().mode {
        Mode::Snowflake => parts.engine.read_id(decoded.sequence),
        Mode::Continuous | Mode::Strict => None,
    };
    let reset = rule.rule().reset;
    let period = decoded.date.period(reset, rule.rule().fiscal_year_start);
    let mut document = serde_json::Map::new();
    document.insert("prefix_key".into(), json!(key.as_str()));
    document.insert("sequence".into(), json!(decoded.sequence.to_string()));
    document
        .insert("period".into(), json!(period.as_ref().map(|period| period.as_str()).unwrap_or_default()));
    if let Some((issued_at, id)) = &snowflake {
        document.insert("issued_at".into(), json!(issued_at.to_rfc3339()));
        document.insert("datacenter".into(), json!(id.datacenter));
        document.insert("worker".into(), json!(id.worker));
    } else {
        for (name, part) in [("datacenter", decoded.datacenter), ("worker", decoded.worker)] {
            if let Some(part) = part {
                document.insert(name.into(), json!(part));
            }
        }
    }
    let check = match decoded.check {
        Check::Valid => "valid",
        Check::Invalid => "invalid",
        Check::None => "none",
    };
    document.insert("check".into(), json!(check));
    Ok(body::json(StatusCode::OK, serde_json::Value::Object(document).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_dates_lie_in_this_century() {
        assert!(document_date("2000-01-01").is_ok() && document_date("2099-12-31").is_ok());
        for wrong in [
            "1999-12-31",
            "2100-01-01",
            "2026-02-30",
            "2026-2-3",
            "26-02-03",
            "2026-02-03T00:00",
            "+2026-1-01",
            "",
        ] {
            assert!(document_date(wrong).is_err(), "{wrong}");
        }
    }
}
