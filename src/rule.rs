//! The rule of a prefix key: what an operator writes ([`RuleDraft`]) and what is in force ([`Rule`]).
//!
//! Invariants: `Debug` never shows `initial_seq`; what [`Rule::to_json`] writes, [`RuleDraft::from_json`] reads, and it
//! resolves to the same rule. Resolution (defaults, modes, what fits together) is in `rules`.

use std::{fmt, num::NonZeroU32};

use chrono_tz::{TZ_VARIANTS, Tz};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{
    calendar::{FiscalYearStart, Reset},
    counter::SequenceValue,
    json::Object,
    language::{Language, Localized},
    prefix_key::PrefixKey,
    secret::Secret,
};

/// How sequence values are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// 63-bit snowflake IDs; no store on the request path.
    Snowflake,
    /// A consecutive counter; a crash may leave a hole, which is known.
    Continuous,
    /// A gapless counter with a ledger.
    Strict,
}

impl Mode {
    /// Every variant, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Snowflake, Self::Continuous, Self::Strict];

    /// The word for it in a rule.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Snowflake => "snowflake",
            Self::Continuous => "continuous",
            Self::Strict => "strict",
        }
    }

    /// Whether values come from a counter, which `initial_seq` and `reset` apply to.
    pub const fn counts(self) -> bool {
        match self {
            Self::Snowflake => false,
            Self::Continuous | Self::Strict => true,
        }
    }
}

/// What happens to a value with more digits than `{SEQ:N}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// N is a minimum: the number grows.
    #[default]
    Grow,
    /// `SequenceOverflow`, and nothing is consumed.
    Reject,
}

impl Overflow {
    /// Every variant, in the order of the documentation.
    pub const ALL: [Self; 2] = [Self::Grow, Self::Reject];

    /// The word for it in a rule.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grow => "grow",
            Self::Reject => "reject",
        }
    }
}

/// What a continuous rule does while its store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnOutage {
    /// 503 at once.
    Fail,
    /// The local segment, then 503.
    Segment,
    /// The local segment, then temporary numbers.
    #[default]
    Temporary,
}

impl OnOutage {
    /// Every variant, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Fail, Self::Segment, Self::Temporary];

    /// The word for it in a rule.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Segment => "segment",
            Self::Temporary => "temporary",
        }
    }
}

/// The highest `rate_limit`, in numbers per second.
const MAX_RATE_LIMIT: i64 = 1_000_000_000;

/// A rule as written: absent fields are `None`, each given field is within its range.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RuleDraft {
    /// The key in the body, where the path may also have one.
    pub prefix_key: Option<PrefixKey>,
    /// The template; `None` when it is missing.
    pub format: Option<String>,
    /// Zero-fill length. Any: the parser of formats has its own word (`InvalidLength`) for what is not 1 to 20.
    pub seq_length: Option<u8>,
    /// The first value issued is this plus one.
    pub initial_seq: Option<SequenceValue>,
    /// Explicit mode.
    pub mode: Option<Mode>,
    /// When the counter starts afresh.
    pub reset: Option<Reset>,
    /// In which dates and periods are computed.
    pub timezone: Option<Tz>,
    /// When the fiscal year starts.
    pub fiscal_year_start: Option<FiscalYearStart>,
    /// What a value that is too wide does.
    pub overflow: Option<Overflow>,
    /// The highest value.
    pub max_seq: Option<SequenceValue>,
    /// What an outage does.
    pub on_outage: Option<OnOutage>,
    /// Numbers per second that each node issues; `None` for 0, too: no limit.
    pub rate_limit: Option<NonZeroU32>,
}

/// A rule in force: every default applied, the mode resolved.
#[derive(Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its prefix key.
    pub prefix_key: PrefixKey,
    /// The template as written.
    pub format: String,
    /// Zero-fill length, 1 to 20.
    pub seq_length: u8,
    /// The first value issued is this plus one.
    pub initial_seq: SequenceValue,
    /// How sequence values are made.
    pub mode: Mode,
    /// When the counter starts afresh.
    pub reset: Reset,
    /// In which dates and periods are computed.
    pub timezone: Tz,
    /// When the fiscal year starts.
    pub fiscal_year_start: FiscalYearStart,
    /// What a value that is too wide does.
    pub overflow: Overflow,
    /// The highest value.
    pub max_seq: SequenceValue,
    /// What an outage does.
    pub on_outage: OnOutage,
    /// Numbers per second that each node issues; `None`: no limit.
    pub rate_limit: Option<NonZeroU32>,
}

impl RuleDraft {
    /// Asks a body for every field of a rule; what is wrong with them is noted there. The caller asks for its own fields, if any, and
    /// then finishes the object.
    pub fn from_json(object: &mut Object) -> Self {
        // The one place to add a field: here, in `RuleDraft`, in `Rule` and in its `Serialize`.
        Self {
            prefix_key: object.parsed("prefix_key", PrefixKey::parse),
            format: object.any_text("format"),
            seq_length: object
                .unsigned("seq_length", 1..=20)
                .map(|length| u8::try_from(length).unwrap_or(u8::MAX)),
            initial_seq: object.u64("initial_seq").map(SequenceValue),
            mode: object.choice("mode", &Mode::ALL.map(|mode| (mode.as_str(), mode))),
            reset: object.choice("reset", &Reset::ALL.map(|reset| (reset.as_str(), reset))),
            timezone: object.parsed("timezone", zone),
            fiscal_year_start: object.parsed("fiscal_year_start", |text| {
                FiscalYearStart::parse(text).ok_or(InvalidFiscalYearStart)
            }),
            overflow: object.choice("overflow", &Overflow::ALL.map(|overflow| (overflow.as_str(), overflow))),
            max_seq: object.u64("max_seq").map(SequenceValue),
            on_outage: object
                .choice("on_outage", &OnOutage::ALL.map(|on_outage| (on_outage.as_str(), on_outage))),
            rate_limit: object
                .bounded("rate_limit", 0..=MAX_RATE_LIMIT)
                .and_then(|per_second| u32::try_from(per_second).ok())
                .and_then(NonZeroU32::new),
        }
    }
}

impl Rule {
    /// The rule as JSON, every field explicit: what a store keeps and what the API answers.
    pub fn to_json(&self) -> String {
        // Fails only for maps with keys that are not texts.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The names of the fields in which `other` differs, in the order of the documentation.
    pub fn changed_fields(&self, other: &Self) -> Vec<&'static str> {
        // Destructured, so that the compiler asks about a new field.
        let Self {
            prefix_key,
            format,
            seq_length,
            initial_seq,
            mode,
            reset,
            timezone,
            fiscal_year_start,
            overflow,
            max_seq,
            on_outage,
            rate_limit,
        } = self;
        let differs = [
            ("prefix_key", *prefix_key != other.prefix_key),
            ("format", *format != other.format),
            ("seq_length", *seq_length != other.seq_length),
            ("initial_seq", *initial_seq != other.initial_seq),
            ("mode", *mode != other.mode),
            ("reset", *reset != other.reset),
            ("timezone", *timezone != other.timezone),
            ("fiscal_year_start", *fiscal_year_start != other.fiscal_year_start),
            ("overflow", *overflow != other.overflow),
            ("max_seq", *max_seq != other.max_seq),
            ("on_outage", *on_outage != other.on_outage),
            ("rate_limit", *rate_limit != other.rate_limit),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

/// In the order of the documentation. Integers that can pass 2^53 are texts. A snowflake has no `initial_seq`: it is `null`,
/// which counts as absent when the answer is sent back. `rate_limit` is left out where there is none: the rule then reads as it did before
/// there was such a field, to nodes of an older version too.
impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let initial_seq = self.mode.counts().then(|| self.initial_seq.to_string());
        let fields = 11 + usize::from(self.rate_limit.is_some());
        let mut rule = serializer.serialize_struct("Rule", fields)?;
        rule.serialize_field("prefix_key", self.prefix_key.as_str())?;
        rule.serialize_field("format", &self.format)?;
        rule.serialize_field("seq_length", &self.seq_length)?;
        rule.serialize_field("initial_seq", &initial_seq)?;
        rule.serialize_field("mode", self.mode.as_str())?;
        rule.serialize_field("reset", self.reset.as_str())?;
        rule.serialize_field("timezone", self.timezone.name())?;
        rule.serialize_field("fiscal_year_start", &self.fiscal_year_start.to_string())?;
        rule.serialize_field("overflow", self.overflow.as_str())?;
        rule.serialize_field("max_seq", &self.max_seq.to_string())?;
        rule.serialize_field("on_outage", self.on_outage.as_str())?;
        match self.rate_limit {
            Some(per_second) => rule.serialize_field("rate_limit", &per_second)?,
            None => rule.skip_field("rate_limit")?,
        }
        rule.end()
    }
}

// Both destructure, so that the compiler asks about a new field: may it be shown?
impl fmt::Debug for RuleDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            prefix_key,
            format,
            seq_length,
            initial_seq,
            mode,
            reset,
            timezone,
            fiscal_year_start,
            overflow,
            max_seq,
            on_outage,
            rate_limit,
        } = self;
        f.debug_struct("RuleDraft")
            .field("prefix_key", prefix_key)
            .field("format", format)
            .field("seq_length", seq_length)
            .field("initial_seq", &initial_seq.map(Secret::new))
            .field("mode", mode)
            .field("reset", reset)
            .field("timezone", timezone)
            .field("fiscal_year_start", fiscal_year_start)
            .field("overflow", overflow)
            .field("max_seq", max_seq)
            .field("on_outage", on_outage)
            .field("rate_limit", rate_limit)
            .finish()
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            prefix_key,
            format,
            seq_length,
            initial_seq,
            mode,
            reset,
            timezone,
            fiscal_year_start,
            overflow,
            max_seq,
            on_outage,
            rate_limit,
        } = self;
        f.debug_struct("Rule")
            .field("prefix_key", prefix_key)
            .field("format", format)
            .field("seq_length", seq_length)
            .field("initial_seq", &Secret::new(*initial_seq))
            .field("mode", mode)
            .field("reset", reset)
            .field("timezone", timezone)
            .field("fiscal_year_start", fiscal_year_start)
            .field("overflow", overflow)
            .field("max_seq", max_seq)
            .field("on_outage", on_outage)
            .field("rate_limit", rate_limit)
            .finish()
    }
}

/// Not a day of every year.
struct InvalidFiscalYearStart;

impl Localized for InvalidFiscalYearStart {
    fn localized(&self, language: Language) -> String {
        match language {
            Language::English => "must be a day of every year as MM-DD, such as 04-01; 02-29 is none",
            Language::Chinese => "须为每年都有的日期，格式 MM-DD，例如 04-01；02-29 不可用",
        }
        .into()
    }
}

/// Not the name of a time zone; with the nearest one, if there is one.
struct UnknownZone(Option<&'static str>);

fn zone(name: &str) -> Result<Tz, UnknownZone> {
    name.parse().map_err(|_| {
        // Comparing takes time in the length of the text, which is the caller's choice.
        let near = |zone: &Tz| {
            (strsim::osa_distance(&name.to_lowercase(), &zone.name().to_lowercase()), zone.name())
        };
        let nearest = (3..=40).contains(&name.len()).then(|| TZ_VARIANTS.iter().map(near).min()).flatten();
        UnknownZone(nearest.filter(|(distance, _)| *distance <= 3).map(|(_, name)| name))
    })
}

impl Localized for UnknownZone {
    fn localized(&self, language: Language) -> String {
        match (language, self.0) {
            (Language::English, Some(near)) => {
                format!("is not an IANA time zone such as Europe/Berlin; did you mean {near}?")
            }
            (Language::English, None) => "is not an IANA time zone such as UTC or Europe/Berlin".into(),
            (Language::Chinese, Some(near)) => {
                format!("不是 IANA 时区名称（例如 Asia/Shanghai）；是否想写 {near}？")
            }
            (Language::Chinese, None) => "不是 IANA 时区名称，例如 UTC 或 Asia/Shanghai".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule {
            prefix_key: PrefixKey::parse("ORDERS").expect("valid"),
            format: "ORD-{fy}-{SEQ:6}".into(),
            seq_length: 6,
            initial_seq: SequenceValue(u64::MAX - 7),
            mode: Mode::Strict,
            reset: Reset::Fiscal,
            timezone: Tz::Asia__Shanghai,
            fiscal_year_start: FiscalYearStart::parse("04-01").expect("valid"),
            overflow: Overflow::Reject,
            max_seq: SequenceValue(u64::MAX),
            on_outage: OnOutage::Fail,
            rate_limit: NonZeroU32::new(500),
        }
    }

    #[test]
    fn what_changed_is_named() {
        let before = rule();
        let after = Rule { initial_seq: SequenceValue(1), reset: Reset::Never, ..rule() };
        assert_eq!(before.changed_fields(&after), ["initial_seq", "reset"]);
        assert_eq!(before.changed_fields(&before), [""; 0]);
    }

    fn draft(json: &str) -> Result<RuleDraft, String> {
        let mut object = Object::parse(json.as_bytes()).map_err(|error| error.to_string())?;
        let draft = RuleDraft::from_json(&mut object);
        object.finish().map(|()| draft).map_err(|error| error.to_string())
    }

    #[test]
    fn writes_every_field_in_order_and_large_integers_as_text() {
        assert_eq!(
            rule().to_json(),
            r#"{"prefix_key":"ORDERS","format":"ORD-{fy}-{SEQ:6}","seq_length":6,"initial_seq":"18446744073709551608","mode":"strict","reset":"fiscal","timezone":"Asia/Shanghai","fiscal_year_start":"04-01","overflow":"reject","max_seq":"18446744073709551615","on_outage":"fail","rate_limit":500}"#
        );
        assert!(Rule { rate_limit: None, ..rule() }.to_json().ends_with(r#""on_outage":"fail"}"#));
        assert!(Rule { mode: Mode::Snowflake, ..rule() }.to_json().contains(r#""initial_seq":null,"#));
    }

    #[test]
    fn reads_what_it_writes() {
        let draft = draft(&rule().to_json()).expect("valid");
        let Rule { prefix_key, format, seq_length, initial_seq, mode, reset, timezone, .. } = rule();
        let expected = RuleDraft {
            prefix_key: Some(prefix_key),
            format: Some(format),
            seq_length: Some(seq_length),
            initial_seq: Some(initial_seq),
            mode: Some(mode),
            reset: Some(reset),
            timezone: Some(timezone),
            fiscal_year_start: Some(rule().fiscal_year_start),
            overflow: Some(rule().overflow),
            max_seq: Some(rule().max_seq),
            on_outage: Some(rule().on_outage),
            rate_limit: rule().rate_limit,
        };
        assert!(draft == expected, "{draft:?}");
    }

    #[test]
    fn a_hand_written_document_is_a_draft() {
        let draft = draft(r#"{"format":"TEST-{SEQ}","seq_length":4}"#).expect("valid");
        let expected =
            RuleDraft { format: Some("TEST-{SEQ}".into()), seq_length: Some(4), ..RuleDraft::default() };
        assert!(draft == expected, "{draft:?}");
    }

    #[test]
    fn a_length_out_of_range_is_left_to_the_parser_of_formats() {
        for (json, expected) in [("0", 0), ("21", 21), ("300", 255)] {
            let draft = draft(&format!(r#"{{"seqLength":{json}}}"#)).expect("read");
            assert_eq!(draft.seq_length, Some(expected));
        }
    }

    #[test]
    fn neither_debug_shows_where_a_counter_starts() {
        let draft = draft(&rule().to_json()).expect("valid");
        for shown in [format!("{:?}", rule()), format!("{draft:?}"), format!("{draft:#?}")] {
            assert!(shown.contains("****") && !shown.contains("18446744073709551608"), "{shown}");
        }
    }

    #[test]
    fn names_each_field_that_is_wrong() {
        for (json, expected) in [
            (r#"{"seq_length":-5}"#, "seq_length: must be a whole number from 1 to 20"),
            (r#"{"seq_length":"4"}"#, "seq_length: must be a whole number from 1 to 20"),
            (r#"{"initial_seq":-1}"#, "initial_seq: is negative"),
            (r#"{"initialSeq":1.5}"#, "initial_seq: has a fraction"),
            (r#"{"initial_seq":"x"}"#, "initial_seq: must be a whole number"),
            (
                r#"{"mode":"snowflakes"}"#,
                "mode: must be one of snowflake, continuous, strict; did you mean snowflake?",
            ),
            (r#"{"reset":"hourly"}"#, "reset: must be one of never, daily"),
            (
                r#"{"timezone":"Asia/Shangai"}"#,
                "timezone: is not an IANA time zone such as Europe/Berlin; did you mean Asia/Shanghai?",
            ),
            (r#"{"timezone":"Mars/Olympus"}"#, "timezone: is not an IANA time zone"),
            (r#"{"fiscal_year_start":"02-29"}"#, "fiscal_year_start: must be a day of every year"),
            (r#"{"overflow":"wrap"}"#, "overflow: must be one of grow, reject"),
            (r#"{"max_seq":18446744073709551616}"#, "max_seq: is too large"),
            (r#"{"on_outage":"panic"}"#, "on_outage: must be one of fail, segment, temporary"),
            (r#"{"prefix_key":"a b"}"#, "prefix_key: character ' ' at position 2"),
            (r#"{"formt":"X-{SEQ:4}"}"#, "formt: unknown field; did you mean format?"),
        ] {
            let error = draft(json).expect_err(json);
            assert!(error.starts_with(expected), "{json}: {error}");
        }
    }
}
