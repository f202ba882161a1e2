//! What scripts are sent and what they answer: lists of texts.
//!
//! Values are written with 20 digits, so that they compare as text; a range is two of them, 40 digits, and several
//! ranges stand one behind the other. Absent is the empty text in messages, and `-` inside of stored fields.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    time::Duration,
};

use crate::{
    clock::UnixMillis,
    counter::{SequenceValue, ValueRange},
    store::{
        HoleReason,
        protocol::counter::{
            Abandoned, Advance, Ahead, Authority, ClaimAnswer, Fenced, Generation, Hole, Incarnation, Member,
            Outcome, RangeSet, Rate, Record, Recovery, Reply, Segment, Settled, Stride, Take,
        },
    },
};

/// One text of a message.
pub(super) type Text = String;

const DIGITS: usize = 20;

// ------------------------------------------------------------------------------------------- writing

/// A value with 20 digits.
pub(super) fn digits(value: SequenceValue) -> Text {
    format!("{:020}", value.0)
}

/// Ranges, one behind the other.
pub(super) fn ranges(ranges: &[ValueRange]) -> Text {
    ranges.iter().map(|range| format!("{:020}{:020}", range.from.0, range.to.0)).collect()
}

/// The name of a node as it is stored, one line.
pub(super) fn name(node: &str) -> Text {
    node.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// How long Redis is to keep something, in ms: it takes no zero.
pub(super) fn lifetime_ms(lifetime: Duration) -> u64 {
    u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX).clamp(1, MAX_LIFETIME_MS)
}

/// A century: Redis refuses what does not fit its arithmetic.
const MAX_LIFETIME_MS: u64 = 100 * 365 * 86_400_000;

fn incarnations(ids: &[Incarnation]) -> Text {
    ids.iter().map(Incarnation::to_string).collect()
}

/// TAKE: see `healthy.lua` for the order.
pub(super) fn write_take(take: &Take, fresh: Text) -> Vec<Text> {
    let mut args = vec![
        fresh,
        take.incarnation.to_string(),
        name(&take.node),
        match (take.distrusts, take.generation) {
            (Some(left), _) => format!("!{left}"),
            (None, Some(generation)) => generation.to_string(),
            (None, None) => Text::new(),
        },
        take.call.to_string(),
        take.count.to_string(),
        digits(take.limits.base),
        digits(take.limits.floor),
        digits(take.limits.max),
        take.seen.map_or_else(Text::new, digits),
        take.holds.map_or_else(Text::new, |Segment(range)| ranges(&[range])),
        ranges(&take.used),
        ranges(&take.surplus),
        take.wants.map_or_else(Text::new, |wants| wants.size.to_string()),
        incarnations(&take.retires),
        incarnations(&take.covers),
        incarnations(&take.peers),
        take.next_beat_ms.to_string(),
        Text::from(if take.leaves { "1" } else { "" }),
        take.limits.scheme.to_string(),
        digits(take.horizon),
    ];
    for claim in &take.claims {
        let lifetime = claim.expires_at.0.saturating_sub(claim.claimed_at.0);
        args.extend([
            claim.fingerprint.clone(),
            claim.stamp.clone(),
            claim.count.to_string(),
            claim.turn.to_string(),
            claim.claimed_at.0.to_string(),
            claim.expires_at.0.to_string(),
            lifetime_ms(Duration::from_millis(u64::try_from(lifetime).unwrap_or(0))).to_string(),
        ]);
    }
    args
}

// ------------------------------------------------------------------------------------------- reading

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

pub(super) fn value(text: &str) -> Option<SequenceValue> {
    number(text).map(SequenceValue)
}

/// `-`, or what `read` makes of the text.
fn optional<T>(text: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    if text == "-" { Some(None) } else { read(text).map(Some) }
}

/// Texts of `length` bytes that stand one behind the other.
fn pieces(text: &str, length: usize) -> Option<impl Iterator<Item = &str>> {
    (text.is_ascii() && text.len().is_multiple_of(length))
        .then(|| (0..text.len()).step_by(length).map(move |at| &text[at..at + length]))
}

fn read_ranges(text: &str) -> Option<Vec<ValueRange>> {
    let range = |both: &str| {
        let (from, to) = both.split_at(DIGITS);
        let range = ValueRange { from: value(from)?, to: value(to)? };
        (range.from <= range.to).then_some(range)
    };
    pieces(text, 2 * DIGITS)?.map(range).collect()
}

fn read_range(text: &str) -> Option<ValueRange> {
    let ranges = read_ranges(text)?;
    let [range] = ranges.as_slice() else { return None };
    Some(*range)
}

fn read_segment(text: &str) -> Option<Segment> {
    read_range(text).map(Segment)
}

fn read_incarnation(text: &str) -> Option<Incarnation> {
    u128::from_str_radix(text, 16).ok().map(Incarnation)
}

fn read_incarnations<T: FromIterator<Incarnation>>(text: &str) -> Option<T> {
    pieces(text, 32)?.map(read_incarnation).collect()
}

pub(super) fn read_generation(text: &str) -> Option<Generation> {
    u64::from_str_radix(text, 16).ok().map(Generation)
}

/// What TAKE was answered.
pub(super) fn read_reply(take: &Take, reply: &[Text]) -> Option<Reply> {
    let texts: Vec<&str> = reply.iter().map(Text::as_str).collect();
    Some(match texts.as_slice() {
        ["taken", generation, outcome, of, cursor, segment, peers, horizon, peak, claims @ ..] => {
            Reply::Taken {
                generation: read_generation(generation)?,
                call: take.call,
                outcome: match *outcome {
                    "drawn" => Outcome::Drawn(read_ranges(of)?),
                    "blocked" => Outcome::Blocked { by: read_incarnation(of)? },
                    "overflow" => Outcome::Overflow { left: number(of)? },
                    "superseded" => Outcome::Superseded,
                    _ => return None,
                },
                claims: claims.iter().map(|claim| read_claim(claim)).collect::<Option<_>>()?,
                cursor: value(cursor)?,
                segment: if segment.is_empty() { None } else { Some(read_segment(segment)?) },
                // The list of members has the asker on it.
                peers: read_incarnations::<Vec<_>>(peers)?
                    .into_iter()
                    .filter(|id| *id != take.incarnation)
                    .collect(),
                horizon: value(horizon)?,
                peak: number(peak)?,
            }
        }
        ["recover", generation, wait_ms] => {
            Reply::Recover { generation: read_generation(generation)?, wait_ms: number(wait_ms)? }
        }
        ["stale"] => Reply::Stale,
        _ => return None,
    })
}

/// `F` values, `R` values `:` stamp, `M`, or `V`.
fn read_claim(text: &str) -> Option<ClaimAnswer> {
    Some(match text.split_at_checked(1)? {
        ("F", values) => ClaimAnswer::Fresh(read_ranges(values)?),
        ("R", recorded) => {
            let (values, stamp) = recorded.split_once(':')?;
            ClaimAnswer::Replayed { stamp: stamp.to_owned(), values: read_ranges(values)? }
        }
        ("M", "") => ClaimAnswer::Mismatch,
        ("V", "") => ClaimAnswer::Moved,
        _ => return None,
    })
}

/// What SETTLE was answered.
pub(super) fn read_settled(reply: &[Text]) -> Option<Settled> {
    Some(match reply {
        [drawn, fingerprint, stamp, values, expires_at] if drawn == "drawn" => Settled::Drawn(Record {
            fingerprint: fingerprint.clone(),
            stamp: stamp.clone(),
            values: read_ranges(values)?,
            expires_at: UnixMillis(number(expires_at)?),
        }),
        [void] if void == "void" => Settled::Void,
        _ => return None,
    })
}

/// What FENCE was answered.
pub(super) fn read_fenced(reply: &[Text]) -> Option<Fenced> {
    let texts: Vec<&str> = reply.iter().map(Text::as_str).collect();
    Some(match texts.as_slice() {
        ["at", highest] => Fenced::At(value(highest)?),
        ["settling", wait_ms] => Fenced::Settling { wait_ms: number(wait_ms)? },
        ["unknown"] => Fenced::Unknown,
        _ => return None,
    })
}

/// The word for how far ADVANCE is to go.
pub(super) fn stride(stride: Stride) -> String {
    match stride {
        Stride::Clear => "clear",
        Stride::Move => "move",
        Stride::Desist => "desist",
    }
    .to_owned()
}

/// What ADVANCE was answered.
pub(super) fn read_advance(reply: &[Text]) -> Option<Advance> {
    let texts: Vec<&str> = reply.iter().map(Text::as_str).collect();
    Some(match texts.as_slice() {
        ["done"] => Advance::Done,
        ["below", cursor] => Advance::Below(value(cursor)?),
        ["held", node, alive] => Advance::Held { node: (*node).to_owned(), alive: *alive == "1" },
        ["unknown"] => Advance::Unknown,
        _ => return None,
    })
}

/// What ABANDON was answered.
pub(super) fn read_abandoned(reply: &[Text]) -> Option<Abandoned> {
    let texts: Vec<&str> = reply.iter().map(Text::as_str).collect();
    Some(match texts.as_slice() {
        ["done", values] => {
            Abandoned::Done(read_ranges(values)?.into_iter().collect::<RangeSet>().iter().collect())
        }
        ["nothing"] => Abandoned::Nothing,
        ["alive", node] => Abandoned::Alive((*node).to_owned()),
        ["unknown"] => Abandoned::Unknown,
        _ => return None,
    })
}

// --------------------------------------------------------------------------------- what is stored

/// What SHOW was answered: the time; the fields of the state and what is in them, in turn; the holes.
pub(super) fn read_state(reply: &[Vec<Text>]) -> Option<(u64, Authority)> {
    let [now, state, holes] = reply else { return None };
    let mut fields: BTreeMap<&str, &str> =
        state.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let core: Vec<&str> = fields.remove("core")?.split(' ').collect();
    let [origin, base, cursor, generation, _clear, target, second, drawn, peak, scheme] = core.as_slice()
    else {
        return None;
    };
    let _roster = fields.remove("roster");
    let horizon = fields.remove("horizon").map_or(Some(SequenceValue(0)), value)?;
    let ahead = fields.remove("ahead").unwrap_or_default();
    let returned = fields.remove("returned").map_or(Some(Vec::new()), read_ranges)?;
    let recovery = fields.remove("recovery").map_or(Some(None), |text| read_recovery(text).map(Some))?;
    let counter = Authority {
        origin: value(origin)?,
        base: value(base)?,
        cursor: value(cursor)?,
        scheme: number(scheme)?,
        generation: optional(generation, read_generation)?,
        recovery,
        rate: Rate { second: number(second)?, drawn: number(drawn)?, peak: number(peak)? },
        // Members have names of 32 digits; anything else is what a later program has added, beside which this one may run.
        members: fields
            .into_iter()
            .filter(|(id, _)| id.len() == 32)
            .map(|(id, member)| Some((read_incarnation(id)?, read_member(member)?)))
            .collect::<Option<_>>()?,
        ahead: ahead.lines().map(read_ahead).collect::<Option<_>>()?,
        returned: returned.into_iter().collect(),
        target: value(target)?,
        horizon,
        holes: holes.iter().map(|hole| read_hole(hole)).collect::<Option<_>>()?,
        records: BTreeMap::new(),
    };
    Some((number(now.first()?)?, counter))
}

/// `call beat next_beat held offered offered_by drawn name`
fn read_member(text: &str) -> Option<Member> {
    let mut parts = text.splitn(8, ' ');
    let mut part = || parts.next();
    let (call, beat, next_beat_ms) = (number(part()?)?, number(part()?)?, number(part()?)?);
    let held = optional(part()?, read_segment)?;
    let (offered, by) = (optional(part()?, read_segment)?, optional(part()?, number)?);
    let drawn = optional(part()?, read_ranges)?.unwrap_or_default();
    Some(Member { node: part()?.to_owned(), call, drawn, held, offered: offered.zip(by), beat, next_beat_ms })
}

/// Range, `a` (abandoned) or `u` (used), name.
fn read_ahead(text: &str) -> Option<Ahead> {
    let (range, rest) = text.split_at_checked(2 * DIGITS)?;
    let (kind, node) = rest.split_at_checked(1)?;
    Some(Ahead { range: read_range(range)?, node: node.to_owned(), abandoned: kind == "a" })
}

/// Range, reason, since, holder.
fn read_hole(text: &str) -> Option<Hole> {
    let (range, rest) = text.split_at_checked(2 * DIGITS)?;
    let mut parts = rest.split(' ');
    Some(Hole {
        range: read_range(range)?,
        reason: HoleReason::parse(parts.next()?)?,
        since: number(parts.next()?)?,
        holder: optional(parts.next()?, read_incarnation)?,
    })
}

/// `generation highest known reported`
fn read_recovery(text: &str) -> Option<Recovery> {
    let parts: Vec<&str> = text.split(' ').collect();
    let [generation, highest, known, reported] = parts.as_slice() else { return None };
    let ids = |text: &str| optional(text, read_incarnations::<BTreeSet<_>>).map(Option::unwrap_or_default);
    Some(Recovery {
        generation: read_generation(generation)?,
        reported: ids(reported)?,
        known: ids(known)?,
        highest: value(highest)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_program_has_added_to_a_counter_is_left_alone() {
        let value = |value| digits(SequenceValue(value));
        let core = format!("{0} {0} {1} - {1} {0} 0 0 0 1", value(0), value(7));
        let member = "3 5 500 - - - - node 1".to_owned();
        let id = "0".repeat(31) + "a";
        let fields =
            ["core", &core, &id, &member, "returned", &(value(9) + &value(11)), "later", "than this"];
        let state = fields.map(str::to_owned).to_vec();
        let (now, counter) = read_state(&[vec!["42".to_owned()], state, Vec::new()]).expect("understood");
        assert_eq!((now, counter.cursor), (42, SequenceValue(7)));
        assert_eq!(counter.members[&Incarnation(10)].node, "node 1");
        let returned: Vec<_> = counter.returned.iter().map(|range| (range.from.0, range.to.0)).collect();
        assert_eq!(returned, [(9, 11)]);
    }
}
