//! What the column `state` holds of a counter: everything but what is in [`Marks`], which has columns, long past holes, which
//! have a table, and idempotency records.
//!
//! JSON, so that an operator can read it: ranges are `[first, last]`, incarnations and generations hexadecimal, times in ms. A field that
//! is not known is refused, rather than lost with the next write. So what is added later gets a column of its own, which programs before
//! it leave alone: during a rolling upgrade both run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    counter::{SequenceValue, ValueRange},
    store::{
        HoleReason,
        protocol::counter::{
            Ahead, Authority, Generation, Hole, Incarnation, Member, RangeSet, Rate, Recovery, Segment,
        },
    },
};

/// First and last value.
type Pair = (u64, u64);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateText {
    scheme: u64,
    generation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recovery: Option<RecoveryText>,
    rate: RateText,
    members: BTreeMap<String, MemberText>,
    ahead: Vec<AheadText>,
    target: u64,
    /// Where programs of schema 11 have it; it has a column since.
    #[serde(default, skip_serializing)]
    horizon: u64,
    holes: Vec<HoleText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecoveryText {
    generation: String,
    reported: Vec<String>,
    known: Vec<String>,
    highest: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateText {
    second: u64,
    drawn: u64,
    peak: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberText {
    node: String,
    call: u64,
    drawn: Vec<Pair>,
    held: Option<Pair>,
    offered: Option<(Pair, u64)>,
    beat: u64,
    next_beat_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AheadText {
    range: Pair,
    node: String,
    abandoned: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoleText {
    range: Pair,
    reason: String,
    since: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
}

/// A text that is not what [`write()`] makes.
#[derive(Debug, thiserror::Error)]
pub(super) enum Misread {
    #[error("the state of a counter is not understood: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the state of a counter is not understood: {0}")]
    Word(&'static str),
}

/// The columns with their own names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) origin: SequenceValue,
    pub(super) base: SequenceValue,
    pub(super) last: SequenceValue,
    pub(super) horizon: SequenceValue,
    pub(super) returned: RangeSet,
}

/// The column `returned`, empty where there is nothing.
pub(super) fn write_returned(counter: &Authority) -> Result<Option<String>, Misread> {
    let returned: Vec<_> = counter.returned.iter().map(pair).collect();
    if returned.is_empty() { Ok(None) } else { Ok(Some(serde_json::to_string(&returned)?)) }
}

/// Reads it.
pub(super) fn read_returned(text: Option<&str>) -> Result<RangeSet, Misread> {
    let Some(text) = text else { return Ok(RangeSet::new()) };
    let pairs: Vec<Pair> = serde_json::from_str(text)?;
    pairs.into_iter().map(range).collect()
}

/// The state of a counter with these holes.
pub(super) fn write(counter: &Authority, holes: &[Hole]) -> Result<String, Misread> {
    let state = StateText {
        scheme: counter.scheme,
        generation: counter.generation.map(|generation| generation.to_string()),
        recovery: counter.recovery.as_ref().map(recovery_text),
        rate: RateText { second: counter.rate.second, drawn: counter.rate.drawn, peak: counter.rate.peak },
        members: counter.members.iter().map(|(id, member)| (id.to_string(), member_text(member))).collect(),
        ahead: counter.ahead.iter().map(ahead_text).collect(),
        target: counter.target.0,
        horizon: 0,
        holes: holes.iter().map(hole_text).collect(),
    };
    Ok(serde_json::to_string(&state)?)
}

/// The counter, without idempotency records and archived holes.
pub(super) fn read(text: &str, marks: Marks) -> Result<Authority, Misread> {
    let state: StateText = serde_json::from_str(text)?;
    let members = state.members.iter().map(|(id, member)| Ok((incarnation(id)?, read_member(member)?)));
    Ok(Authority {
        origin: marks.origin,
        base: marks.base,
        cursor: marks.last,
        scheme: state.scheme,
        generation: state.generation.as_deref().map(generation).transpose()?,
        recovery: state.recovery.map(read_recovery).transpose()?,
        rate: Rate { second: state.rate.second, drawn: state.rate.drawn, peak: state.rate.peak },
        members: members.collect::<Result<_, Misread>>()?,
        ahead: state.ahead.into_iter().map(read_ahead).collect::<Result<_, _>>()?,
        returned: marks.returned,
        target: SequenceValue(state.target),
        horizon: marks.horizon.max(SequenceValue(state.horizon)),
        holes: state.holes.into_iter().map(read_hole).collect::<Result<_, _>>()?,
        records: BTreeMap::new(),
    })
}

/// A counter of which nothing is known: to the protocol as if there were none.
pub(super) fn blank() -> Authority {
    let start = SequenceValue(0);
    Authority {
        origin: start,
        base: start,
        cursor: start,
        scheme: 0,
        generation: None,
        recovery: None,
        rate: Rate::default(),
        members: BTreeMap::new(),
        ahead: Vec::new(),
        returned: RangeSet::new(),
        target: start,
        horizon: start,
        holes: Vec::new(),
        records: BTreeMap::new(),
    }
}

fn recovery_text(recovery: &Recovery) -> RecoveryText {
    let names = |set: &std::collections::BTreeSet<Incarnation>| set.iter().map(ToString::to_string).collect();
    RecoveryText {
        generation: recovery.generation.to_string(),
        reported: names(&recovery.reported),
        known: names(&recovery.known),
        highest: recovery.highest.0,
    }
}

fn read_recovery(text: RecoveryText) -> Result<Recovery, Misread> {
    let set = |names: Vec<String>| names.iter().map(|name| incarnation(name)).collect::<Result<_, _>>();
    Ok(Recovery {
        generation: generation(&text.generation)?,
        reported: set(text.reported)?,
        known: set(text.known)?,
        highest: SequenceValue(text.highest),
    })
}

fn member_text(member: &Member) -> MemberText {
    MemberText {
        node: member.node.clone(),
        call: member.call,
        drawn: member.drawn.iter().map(|range| pair(*range)).collect(),
        held: member.held.map(|segment| pair(segment.0)),
        offered: member.offered.map(|(segment, call)| (pair(segment.0), call)),
        beat: member.beat,
        next_beat_ms: member.next_beat_ms,
    }
}

fn read_member(text: &MemberText) -> Result<Member, Misread> {
    let offered = |(range, call): (Pair, u64)| Ok::<_, Misread>((Segment(self::range(range)?), call));
    Ok(Member {
        node: text.node.clone(),
        call: text.call,
        drawn: text.drawn.iter().map(|pair| range(*pair)).collect::<Result<_, _>>()?,
        held: text.held.map(range).transpose()?.map(Segment),
        offered: text.offered.map(offered).transpose()?,
        beat: text.beat,
        next_beat_ms: text.next_beat_ms,
    })
}

fn ahead_text(ahead: &Ahead) -> AheadText {
    AheadText { range: pair(ahead.range), node: ahead.node.clone(), abandoned: ahead.abandoned }
}

fn read_ahead(text: AheadText) -> Result<Ahead, Misread> {
    Ok(Ahead { range: range(text.range)?, node: text.node, abandoned: text.abandoned })
}

fn hole_text(hole: &Hole) -> HoleText {
    HoleText {
        range: pair(hole.range),
        reason: hole.reason.as_str().to_owned(),
        since: hole.since,
        holder: hole.holder.map(|holder| holder.to_string()),
    }
}

fn read_hole(text: HoleText) -> Result<Hole, Misread> {
    Ok(Hole {
        range: range(text.range)?,
        reason: HoleReason::parse(&text.reason).ok_or(Misread::Word("the reason of a hole"))?,
        since: text.since,
        holder: text.holder.as_deref().map(incarnation).transpose()?,
    })
}

fn pair(range: ValueRange) -> Pair {
    (range.from.0, range.to.0)
}

fn range((from, to): Pair) -> Result<ValueRange, Misread> {
    let range = ValueRange { from: SequenceValue(from), to: SequenceValue(to) };
    if from <= to { Ok(range) } else { Err(Misread::Word("a range that falls")) }
}

fn incarnation(text: &str) -> Result<Incarnation, Misread> {
    u128::from_str_radix(text, 16).map(Incarnation).map_err(|_| Misread::Word("an incarnation"))
}

fn generation(text: &str) -> Result<Generation, Misread> {
    u64::from_str_radix(text, 16).map(Generation).map_err(|_| Misread::Word("a generation"))
}
