//! `GET /numbers/{prefixKey}`: the one route that is worth paths of its own.
//!
//! A connection asks for the same rule again and again, so it remembers the last one: as long as that is in force, nothing is
//! looked up. What it remembers is its own, because a reference count that two threads write travels between their processors.
//!
//! A number that has to be waited for keeps nothing of the request: hyper reads on meanwhile, to see whether the peer leaves, and
//! needs another buffer while anybody refers to the first. Nor does its future have room for other handlers, as that of
//! `dispatch` has: there is one for each request that waits.

use std::sync::Arc;

use bytes::Bytes;
use chrono::NaiveDateTime;
use http::{Method, Request, Response};

use super::{
    Answer, Error, Parts,
    numbers::{self, Wishes, answer, order, quota},
    request::{self, IDEMPOTENCY_KEY, Incoming},
    route::{Kind, Route},
};
use crate::{
    auth::{Claims, Scope},
    body::Body,
    generate::{Issued, Source},
    middleware::{context::Context, rate_limit::IssuedQuota},
    rules::CompiledRule,
    telemetry::{Counter, note_issue},
};

/// The rule that a connection used last, and what counts its numbers.
pub(super) struct Remembered {
    parts: Arc<Parts>,
    rule: Arc<CompiledRule>,
    issued: Counter,
    quota: Option<IssuedQuota>,
}

impl Remembered {
    fn is_in_force_as(&self, key: &str) -> bool {
        self.rule.rule().prefix_key.as_str() == key && self.rule.is_in_force()
    }

    fn count(&self, issued: &Issued<'_>) {
        note_issue(self.rule.rule().mode);
        match issued.source {
            Source::Primary => self.issued.increment(issued.count()),
            Source::Segment | Source::Temporary => {
                self.parts.meter.counter(self.rule.rule(), issued.source).increment(issued.count());
            }
        }
    }
}

/// Whether a request is served by [`draw`]: a GET without a body that would have to be read.
pub(super) fn is_draw<B: hyper::body::Body>(request: &Request<B>) -> bool {
    let route = Context::of(request).map(|context| context.route.index);
    route == Some(Kind::NumbersOf as usize)
        && request.method() == Method::GET
        && request.body().is_end_stream()
}

/// `GET /numbers/{prefixKey}`.
pub(super) fn draw<B>(parts: &Arc<Parts>, last: &mut Option<Arc<Remembered>>, request: Request<B>) -> Answer {
    if let Some(answer) = draw_one(parts, last, &request) {
        return answer;
    }
    let parts = Arc::clone(parts);
    let (head, _no_body) = request.into_parts();
    Answer::Slow(Box::pin(async move { draw_as_asked(&parts, &head).await }))
}

/// The long way, for whatever is asked.
async fn draw_as_asked(parts: &Parts, head: &http::request::Parts) -> Result<Response<Body>, Error> {
    let key = Route::of(head.uri.path()).and_then(|route| route.key()).ok_or(Error::NotFound)?;
    numbers::get(parts, &Incoming { head, body: Bytes::new() }, Some(&key)).await
}

/// One number, without a query or an idempotency key, under a rule that needs no preparation. `None`: it takes the long way, and
/// nothing was consumed.
fn draw_one<B>(
    parts: &Arc<Parts>,
    last: &mut Option<Arc<Remembered>>,
    request: &Request<B>,
) -> Option<Answer> {
    let context = Context::of(request)?;
    if request.uri().query().is_some() || request.headers().contains_key(IDEMPOTENCY_KEY) {
        return None;
    }
    let claims = request::caller(Some(context), Scope::NumbersIssue).ok()?;
    // The last segment, still encoded: a key has no character that needs to be, so one that is encoded takes the long way.
    let (_, key) = request.uri().path().rsplit_once('/')?;
    claims.may_touch(key).ok()?;
    let remembered = match last.take().filter(|last| last.is_in_force_as(key)) {
        Some(same) => last.insert(same),
        None => {
            let rule = parts.rules.get(key)?;
            let issued = parts.meter.counter(rule.rule(), Source::Primary);
            let quota = parts.rule_limits.quota(rule.rule());
            last.insert(Arc::new(Remembered { parts: Arc::clone(parts), rule, issued, quota }))
        }
    };
    if remembered.rule.rule().mode.counts() {
        draw_value(remembered, claims, request.extensions())
    } else {
        draw_snowflake(remembered, claims, request.extensions()).map(|answer| Answer::Ready(Some(answer)))
    }
}

/// A snowflake, if it can be drawn without waiting.
fn draw_snowflake(
    remembered: &Remembered,
    claims: &Claims,
    extensions: &http::Extensions,
) -> Option<Result<Response<Body>, Error>> {
    let Remembered { parts, rule, .. } = remembered;
    if !rule.draws_freely() {
        return None;
    }
    let now = parts.clock.coarse_now();
    // A format without a date needs none.
    let local = if rule.template().needs_date() { rule.local(now) } else { NaiveDateTime::default() };
    let order = order(rule, local, &claims.subject, now, Wishes::default());
    let issued = parts.engine.issue_at_once(&order)?;
    // After the draw, so that the long way does not count a request twice; a snowflake that nobody gets is no loss.
    Some(quota(extensions, remembered.quota.as_ref(), 1).and_then(|()| Ok(issued?)).map(|issued| {
        remembered.count(&issued);
        answer(&issued, None)
    }))
}

/// A value of a counter, which its store has to make durable first.
fn draw_value(
    remembered: &Arc<Remembered>,
    claims: &Arc<Claims>,
    extensions: &http::Extensions,
) -> Option<Answer> {
    let now = remembered.parts.clock.now();
    let usable = remembered.parts.rules.use_at_once(&remembered.rule, now)?;
    if let Err(exceeded) = quota(extensions, remembered.quota.as_ref(), 1) {
        return Some(Answer::Ready(Some(Err(exceeded))));
    }
    let (remembered, claims) = (Arc::clone(remembered), Arc::clone(claims));
    Some(Answer::Slow(Box::pin(async move {
        let Remembered { parts, rule, .. } = &*remembered;
        let mut order = order(rule, usable.local(), &claims.subject, now, Wishes::default());
        order.hold = Some(Arc::new(usable));
        let error = match parts.engine.issue(&order).await {
            Ok(issued) => {
                remembered.count(&issued);
                return Ok(answer(&issued, None));
            }
            Err(error) => Error::from(error),
        };
        drop(order);
        if error.is_superseded() {
            let key = rule.rule().prefix_key.clone();
            return Box::pin(numbers::issue_anew(parts, &claims, key, now)).await;
        }
        Err(error)
    })))
}
