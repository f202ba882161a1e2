//! `/sequences/...`: counters as they stand, and the two ways to move them by hand.

use std::sync::Arc;

use chrono::NaiveDate;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Error, Parts,
    request::{self, Incoming, required},
    transitions::reason,
};
use crate::{
    auth::Scope,
    body::{self, Body},
    calendar::Reset,
    counter::SequenceValue,
    json::{Message, Object},
    rule::{Mode, Rule},
    rules::{CompiledRule, Moment},
    store::{Advanced, CounterState},
};

/// `GET /sequences/{prefixKey}`.
pub(super) async fn show(parts: &Parts, request: &Incoming<'_>, key: &str) -> Result<Response<Body>, Error> {
    let (_, key) = request.caller_of(Scope::PrefixesRead, key)?;
    request.query()?.finish()?;
    let rule = request::rule(parts, &key)?;
    let counters = parts.counters.counters(&key).await?;
    let counters: Vec<Value> = counters.iter().map(|counter| counter_to_json(&rule, counter)).collect();
    let document =
        json!({"prefix_key": key.as_str(), "mode": rule.rule().mode.as_str(), "counters": counters});
    Ok(body::json(StatusCode::OK, document.to_string()))
}

fn counter_to_json(rule: &CompiledRule, counter: &CounterState) -> Value {
    let holes: Vec<Value> = counter
        .holes
        .iter()
        .map(|hole| {
            json!({
                "from": hole.from.to_string(),
                "to": hole.to.to_string(),
                "reason": hole.reason.as_str(),
                "since": hole.since.to_rfc3339(),
            })
        })
        .collect();
    let missing: u64 = counter.holes.iter().map(|hole| hole.to.0 - hole.from.0 + 1).sum();
    let remaining = rule.max().0.saturating_sub(counter.last.0);
    json!({
        "period": counter.period.as_str(),
        "last_value": counter.last.to_string(),
        "issued": (counter.last.0 - counter.base.0).saturating_sub(missing),
        "remaining": remaining.to_string(),
        // Grants and segments exist where a counter is shared between nodes; SQLite's is not.
        "segments": [],
        "grants": [],
        "holes": holes,
    })
}

/// `POST /sequences/{prefixKey}/advance`.
pub(super) async fn advance(
    parts: &Parts,
    request: &Incoming<'_>,
    key: &str,
) -> Result<Response<Body>, Error> {
    let (claims, key) = request.caller_of(Scope::SequencesWrite, key)?;
    let mut object = request.object()?;
    let to = object.u64("to");
    let to = required(&mut object, "to", to);
    let period = object.text("period");
    let rule = match request::rule(parts, &key) {
        Ok(rule) => rule,
        Err(error) => return object.finish().map_err(Error::from).and(Err(error)),
    };
    if rule.rule().mode == Mode::Snowflake {
        object.finish()?;
        return Err(Error::StateConflict(Message::new(
            format!("{key} issues snowflakes, which have no counter to advance"),
            format!("{key} 使用雪花编号，没有可前移的计数器"),
        )));
    }
    let date = day_of(parts, &rule, &mut object, period.as_deref());
    let limit = rule.max();
    if to.is_some_and(|to| to > limit.0) {
        let message = Message::new(
            format!("must be at most {limit}, the rule's limit"),
            format!("不得超过规则上限 {limit}"),
        );
        object.error("to", message);
    }
    object.finish()?;
    let (Some(date), Some(to)) = (date, to.map(SequenceValue)) else {
        return Err(Error::Internal("a checked field is missing"));
    };
    // Numbers above `to` may be issued from now on: a later change of the rule must know that it was used.
    let usable = parts.rules.ensure_used(rule, Moment::Document(date)).await?;
    let (counter, bounds) = (usable.counter(), usable.bounds());
    let lowest = bounds.base.max(bounds.floor);
    if to < lowest {
        return Err(Error::BelowHighWater { last: lowest });
    }
    let (period, actor) = (counter.period.clone(), Arc::clone(&claims.subject));
    let outcome = parts.counters.advance(counter, lowest, to, Arc::clone(&actor), parts.clock.now()).await?;
    drop(usable);
    match outcome {
        Advanced::Done => {
            tracing::info!(
                prefix_key = key.as_str(),
                period = period.as_str(),
                actor = &*actor,
                "counter advanced"
            );
            let document =
                json!({"prefix_key": key.as_str(), "period": period.as_str(), "last_value": to.to_string()});
            Ok(body::json(StatusCode::OK, document.to_string()))
        }
        Advanced::Below(last) => Err(Error::BelowHighWater { last }),
        Advanced::TooFar { limit } => Err(Error::AdvanceTooFar { limit }),
    }
}

/// A day of the period that is meant: of the present one where none is named.
fn day_of(
    parts: &Parts,
    rule: &CompiledRule,
    object: &mut Object,
    period: Option<&str>,
) -> Option<NaiveDate> {
    let today = rule.local(parts.clock.now()).date();
    let Some(text) = period else { return Some(today) };
    let Rule { reset, fiscal_year_start, .. } = *rule.rule();
    if reset == Reset::Never && text.is_empty() {
        return Some(today);
    }
    let day = reset.first_day_of(text, fiscal_year_start);
    if day.is_none() {
        let example = rule.period_of(today);
        let message = Message::new(
            format!("must be a period of reset {reset}, such as {example:?}"),
            format!("须为 {reset} 重置方式的期间，例如 {example:?}"),
        );
        object.error("period", message);
    }
    day
}

/// `POST /sequences/{prefixKey}/abandon`: `node`, or `from` and `to`.
pub(super) async fn abandon(
    parts: &Parts,
    request: &Incoming<'_>,
    key: &str,
) -> Result<Response<Body>, Error> {
    let (_, key) = request.caller_of(Scope::SequencesWrite, key)?;
    let mut object = request.object()?;
    let node = object.text("node");
    let (from, to) = (object.u64("from"), object.u64("to"));
    reason(&mut object);
    match (&node, from, to) {
        (Some(_), None, None) => {}
        (None, Some(from), Some(to)) if from <= to => {}
        _ => object.error(
            "node",
            Message::new(
                "give either node, or from and to in that order",
                "请给出 node，或依次给出 from 和 to",
            ),
        ),
    }
    object.finish()?;
    request::rule(parts, &key)?;
    // A counter of SQLite belongs to one process: no other node ever holds a part of it that could be given up.
    Err(Error::StateConflict(Message::new(
        format!("nothing of {key} is pending: there is nothing to abandon"),
        format!("{key} 没有待定的范围，无可放弃"),
    )))
}
