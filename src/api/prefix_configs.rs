//! `/prefix-configs`: the rules.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{
    Error, Parts,
    request::{self, Incoming, required},
};
use crate::{
    auth::{Claims, Scope},
    body::{self, Body},
    json::{Invalid, Message},
    language::{Language, Localized},
    prefix_key::PrefixKey,
    rule::RuleDraft,
    rules::{CompiledRule, IfMatch, Saved, Warning, require_seq},
};

/// `POST /prefix-configs` and `POST /prefix-configs/{prefixKey}`.
pub(super) async fn register(
    parts: &Parts,
    request: &Incoming<'_>,
    path: Option<&str>,
) -> Result<Response<Body>, Error> {
    let (claims, key, draft) = draft(request, path)?;
    let saved = parts.rules.register(&key, &draft, &visible(claims), &request.author()?).await?;
    Ok(saved_answer(request, claims, &saved))
}

/// `PUT /prefix-configs/{prefixKey}`.
pub(super) async fn put(parts: &Parts, request: &Incoming<'_>, path: &str) -> Result<Response<Body>, Error> {
    let (claims, key, draft) = draft(request, Some(path))?;
    let (guard, author) = (if_match(request)?, request.author()?);
    let saved = parts.rules.put(&key, &draft, guard.as_ref(), &visible(claims), &author).await?;
    Ok(saved_answer(request, claims, &saved))
}

/// `GET /prefix-configs/{prefixKey}`.
pub(super) fn get(parts: &Parts, request: &Incoming<'_>, path: &str) -> Result<Response<Body>, Error> {
    let (_, key) = request.caller_of(Scope::PrefixesRead, path)?;
    request.query()?.finish()?;
    let rule = request::rule(parts, &key)?;
    Ok(with_etag(body::json(StatusCode::OK, rule.rule().to_json()), &rule))
}

/// `DELETE /prefix-configs/{prefixKey}`.
pub(super) async fn delete(
    parts: &Parts,
    request: &Incoming<'_>,
    path: &str,
) -> Result<Response<Body>, Error> {
    let (claims, key) = request.caller_of(Scope::PrefixesWrite, path)?;
    request.query()?.finish()?;
    parts.rules.delete(&key, if_match(request)?.as_ref(), &request.author()?).await?;
    tracing::info!(status = "deleted", prefix_key = key.as_str(), actor = &*claims.subject, "rule deleted");
    Ok(body::empty(StatusCode::NO_CONTENT))
}

/// `GET /prefix-configs?limit=&after=`.
pub(super) fn list(parts: &Parts, request: &Incoming<'_>) -> Result<Response<Body>, Error> {
    let claims = request.caller(Scope::PrefixesRead)?;
    let mut query = request.query()?;
    let limit = query.bounded("limit", 1..=1_000).unwrap_or(100);
    let after = query.parsed("after", PrefixKey::parse);
    query.finish()?;
    let page = parts.rules.list(after.as_ref(), usize::try_from(limit).unwrap_or(100), visible(claims));
    let rules: Vec<Value> = page.rules.iter().map(|rule| rule_to_json(rule)).collect();
    let next = page.next.as_ref().map(PrefixKey::as_str);
    Ok(body::json(StatusCode::OK, json!({"rules": rules, "next": next}).to_string()))
}

/// The caller, the key of path and body, and the rule that the body describes.
fn draft<'a>(
    request: &'a Incoming<'_>,
    path: Option<&str>,
) -> Result<(&'a Claims, PrefixKey, RuleDraft), Error> {
    let claims = request.caller(Scope::PrefixesWrite)?;
    let path = path.map(PrefixKey::parse).transpose()?;
    if let Some(key) = &path {
        claims.may_touch(key.as_str())?;
    }
    request.query()?.finish()?;
    let mut object = request.object()?;
    let mut draft = RuleDraft::from_json(&mut object);
    let in_body = draft.prefix_key.take();
    let key = match (path, in_body) {
        (Some(path), Some(body)) if path != body => {
            object.error("prefix_key", Message::new("must match the path", "须与路径一致"));
            Some(path)
        }
        (Some(path), _) => Some(path),
        (None, body) => required(&mut object, "prefix_key", body),
    };
    require_seq(&draft)?;
    object.finish()?;
    let key = key.ok_or(Error::Internal("a checked field is missing"))?;
    claims.may_touch(key.as_str())?;
    Ok((claims, key, draft))
}

/// Which other rules a caller may be told of.
fn visible(claims: &Claims) -> impl Fn(&PrefixKey) -> bool + '_ {
    |key| claims.may_touch(key.as_str()).is_ok()
}

/// `If-Match`, at most once.
fn if_match(request: &Incoming<'_>) -> Result<Option<IfMatch>, Error> {
    let fields: Result<Vec<&str>, _> =
        request.head.headers.get_all(header::IF_MATCH).iter().map(HeaderValue::to_str).collect();
    let Ok(fields) = fields else {
        return Err(Invalid::of("If-Match", Message::new("must be ASCII", "须为 ASCII")).into());
    };
    Ok((!fields.is_empty()).then(|| IfMatch::parse(&fields.join(","))))
}

fn saved_answer(request: &Incoming<'_>, claims: &Claims, saved: &Saved) -> Response<Body> {
    let status = saved.status.as_str();
    let rule = saved.rule.rule();
    // The log of a registration names its fields; what must not be read shows as ****.
    tracing::info!(
        status,
        prefix_key = rule.prefix_key.as_str(),
        format = rule.format.as_str(),
        mode = rule.mode.as_str(),
        initial_seq = "****",
        actor = &*claims.subject,
        "rule saved"
    );
    let Value::Object(fields) = rule_to_json(&saved.rule) else { return body::empty(StatusCode::OK) };
    let mut document = serde_json::Map::new();
    document.insert("status".into(), json!(status));
    document.extend(fields);
    if !saved.warnings.is_empty() {
        document.insert("warnings".into(), warnings_to_json(&saved.warnings, request.language()));
    }
    with_etag(body::json(StatusCode::OK, Value::Object(document).to_string()), &saved.rule)
}

/// Warnings in the caller's language.
pub(super) fn warnings_to_json(warnings: &[Warning], language: Language) -> Value {
    warnings.iter().map(|warning| Value::String(warning.localized(language))).collect()
}

fn rule_to_json(rule: &CompiledRule) -> Value {
    serde_json::to_value(rule.rule()).unwrap_or_default()
}

fn with_etag(mut response: Response<Body>, rule: &CompiledRule) -> Response<Body> {
    if let Ok(etag) = HeaderValue::from_str(&rule.etag()) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}
