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
    calendar::{Period, Reset},
    counter::{Counter, SequenceValue, ValueRange},
    json::{Message, Object},
    prefix_key::PrefixKey,
    rule::{Mode, Rule},
    rules::{CompiledRule, Moment},
    store::{
        Abandon, Abandoned, Advanced, AuditAction, AuditDetails, CounterState, Grant, Hole, NodeSegment,
        SegmentState,
    },
};

/// `GET /sequences/{prefixKey}`.
pub(super) async fn show(parts: &Parts, request: &Incoming<'_>, key: &str) -> Result<Response<Body>, Error> {
    let (_, key) = request.caller_of(Scope::PrefixesRead, key)?;
    request.query()?.finish()?;
    let rule = request::rule(parts, &key)?;
    Ok(body::json(StatusCode::OK, document(parts, &key, &rule).await?.to_string()))
}

/// Every counter of a rule, as it stands.
async fn document(parts: &Parts, key: &PrefixKey, rule: &CompiledRule) -> Result<Value, Error> {
    let counters = parts.counters.shown(key, rule.rule().mode, rule.past()).await?;
    let counters: Vec<Value> = counters.iter().map(|counter| counter_to_json(rule, counter)).collect();
    Ok(json!({"prefix_key": key.as_str(), "mode": rule.rule().mode.as_str(), "counters": counters}))
}

fn counter_to_json(rule: &CompiledRule, counter: &CounterState) -> Value {
    let last = counter.last;
    let ahead = counter.segments.iter().filter(|segment| segment.from > last);
    let used_ahead: u64 = ahead
        .filter(|segment| segment.state == SegmentState::Used)
        .map(|segment| count(segment.from, segment.to))
        .sum();
    let elsewhere = counter.elsewhere.count_between(counter.base, last);
    let not_issued = counter.holes_above_base().saturating_add(elsewhere);
    json!({
        "period": counter.period.as_str(),
        "last_value": last.to_string(),
        "issued": (last.0 - counter.base.0).saturating_sub(not_issued).saturating_add(used_ahead),
        "remaining": rule.max().0.saturating_sub(last.0).to_string(),
        "segments": counter.segments.iter().map(segment_to_json).collect::<Vec<_>>(),
        "grants": counter.elsewhere.grants.iter().map(grant_to_json).collect::<Vec<_>>(),
        "holes": counter.holes.iter().map(hole_to_json).collect::<Vec<_>>(),
    })
}

fn count(from: SequenceValue, to: SequenceValue) -> u64 {
    ValueRange { from, to }.count()
}

fn segment_to_json(segment: &NodeSegment) -> Value {
    json!({
        "node": segment.node,
        "from": segment.from.to_string(),
        "to": segment.to.to_string(),
        "state": segment.state.as_str(),
    })
}

fn grant_to_json(grant: &Grant) -> Value {
    json!({
        "holder": grant.holder,
        "from": grant.range.from.to_string(),
        "to": grant.range.to.to_string(),
    })
}

fn hole_to_json(hole: &Hole) -> Value {
    json!({
        "from": hole.from.to_string(),
        "to": hole.to.to_string(),
        "reason": hole.reason.as_str(),
        "since": hole.since.to_rfc3339(),
    })
}

/// `POST /sequences/{prefixKey}/advance`.
pub(super) async fn advance(
    parts: &Parts,
    request: &Incoming<'_>,
    key: &str,
) -> Result<Response<Body>, Error> {
    let (claims, key) = request.caller_of(Scope::SequencesWrite, key)?;
    request.query()?.finish()?;
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
    let counters = parts.counters.of(usable.rule().mode);
    let (counter, bounds) = (usable.counter(), usable.bounds());
    let lowest = bounds.base.max(bounds.floor);
    if to < lowest {
        return Err(Error::BelowHighWater { last: None });
    }
    let (period, actor) = (counter.period.clone(), Arc::clone(&claims.subject));
    let details = AuditDetails { period: named(&period), to: Some(to), ..AuditDetails::default() };
    let note = request.note(parts, AuditAction::Advanced, &key, details)?;
    let outcome = counters.advance_noted(counter, lowest, to, note).await?;
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
        Advanced::Below(last) => {
            Err(Error::BelowHighWater { last: Some(last).filter(|last| *last > lowest) })
        }
        Advanced::TooFar { limit } => Err(Error::AdvanceTooFar { limit }),
        Advanced::Held { node } => Err(Error::StateConflict(Message::new(
            format!(
                "node {node} holds values at or below `to`: try again, or abandon them if it will not return"
            ),
            format!("节点 {node} 持有不高于 `to` 的值：请重试；若该节点不再恢复，请先放弃（abandon）"),
        ))),
        Advanced::Granted { datacenter } => Err(Error::StateConflict(Message::new(
            format!(
                "data centre {datacenter} was granted values at or below `to` and may issue them at any time: advance a counter before \
                 several data centres draw from it"
            ),
            format!(
                "数据中心 {datacenter} 已获授不高于 `to` 的值，随时可能发出：请在多个数据中心取号之前前移计数器"
            ),
        ))),
    }
}

/// The period of a counter that has one.
fn named(period: &Period) -> Option<Period> {
    Some(period.clone()).filter(|period| !period.as_str().is_empty())
}

/// What the audit trail says of values that were given up.
fn abandoned(what: &Abandon, period: &Period, reason: Option<&str>) -> AuditDetails {
    let (node, range) = match what {
        Abandon::Node(node) => (Some(node.clone()), None),
        Abandon::Range(range) => (None, Some(*range)),
    };
    AuditDetails {
        node,
        from: range.map(|range| range.from),
        to: range.map(|range| range.to),
        period: named(period),
        reason: reason.map(str::to_owned),
        ..AuditDetails::default()
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
    let day = reset.day_of(text, fiscal_year_start, rule.told_since());
    if day.is_none() {
        let example = rule.period_of(today);
        let message = Message::new(
            format!("must be a period of reset {reset} from 2000 to 2099, such as {example:?}"),
            format!("须为 2000 至 2099 年间 {reset} 重置方式的期间，例如 {example:?}"),
        );
        object.error("period", message);
    }
    day
}

/// `POST /sequences/{prefixKey}/abandon`: `node`, or `from` and `to`; of `period`, where the rule has a reset.
pub(super) async fn abandon(
    parts: &Parts,
    request: &Incoming<'_>,
    key: &str,
) -> Result<Response<Body>, Error> {
    let (claims, key) = request.caller_of(Scope::SequencesWrite, key)?;
    request.query()?.finish()?;
    let mut object = request.object()?;
    let (node, from, to) = (object.text("node"), object.u64("from"), object.u64("to"));
    let period = object.text("period");
    let reason = reason(&mut object);
    let what = match (node, from.map(SequenceValue), to.map(SequenceValue)) {
        (Some(node), None, None) => Some(Abandon::Node(node)),
        (None, Some(from), Some(to)) if from <= to => Some(Abandon::Range(ValueRange { from, to })),
        _ => {
            let english = "give either node, or from and to in that order";
            object.error("node", Message::new(english, "请给出 node，或依次给出 from 和 to"));
            None
        }
    };
    object.finish()?;
    let what = what.ok_or(Error::Internal("a checked field is missing"))?;
    let rule = request::rule(parts, &key)?;
    let mut outcome = Abandoned::Nothing;
    let counters = parts.counters.of(rule.rule().mode);
    for counter in counters.counters(&key).await? {
        // A range is one of a period; a node may hold something in each.
        let wanted = period.as_deref().map_or_else(
            || matches!(what, Abandon::Node(_)) || rule.rule().reset == Reset::Never,
            |period| counter.period.as_str() == period,
        );
        if wanted {
            let on = Counter { key: key.clone(), period: counter.period };
            let details = abandoned(&what, &on.period, reason.as_deref());
            let note = request.note(parts, AuditAction::Abandoned, &key, details)?;
            outcome = joined(outcome, counters.abandon_noted(on, what.clone(), note).await?);
        }
    }
    match outcome {
        Abandoned::Done(given_up) => {
            let (actor, reason) = (&*claims.subject, reason.as_deref().unwrap_or_default());
            tracing::info!(
                prefix_key = key.as_str(),
                actor,
                reason,
                ranges = given_up.len(),
                "values abandoned"
            );
            Ok(body::json(StatusCode::OK, document(parts, &key, &rule).await?.to_string()))
        }
        Abandoned::Alive(node) => Err(Error::StateConflict(Message::new(
            format!("node {node} is there and answers: what it holds is not pending"),
            format!("节点 {node} 仍在运行：它持有的值并非待定"),
        ))),
        Abandoned::Nothing | Abandoned::Unknown => Err(Error::StateConflict(Message::new(
            format!("nothing of {key} is pending there: there is nothing to abandon"),
            format!("{key} 在此没有待定的范围，无可放弃"),
        ))),
    }
}

/// What several counters have given up: what was done counts, then who was found alive.
fn joined(a: Abandoned, b: Abandoned) -> Abandoned {
    match (a, b) {
        (Abandoned::Done(mut ranges), Abandoned::Done(more)) => {
            ranges.extend(more);
            Abandoned::Done(ranges)
        }
        (done @ Abandoned::Done(_), _) | (_, done @ Abandoned::Done(_)) => done,
        (alive @ Abandoned::Alive(_), _) | (_, alive @ Abandoned::Alive(_)) => alive,
        (other, _) => other,
    }
}
