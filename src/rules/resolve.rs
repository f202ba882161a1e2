//! From a draft to a rule: defaults, the mode, and what fits together. Pure.

use crate::{
    calendar::Reset,
    counter::SequenceValue,
    json::{FieldError, Invalid, Message},
    prefix_key::PrefixKey,
    rule::{Mode, OnOutage, Rule, RuleDraft},
    template::Template,
};

use super::error::SaveError;

/// What a new rule takes over from the past of its key.
#[derive(Clone, Copy, Default)]
pub(super) struct Kept<'a> {
    /// The rule that is replaced.
    pub(super) rule: Option<&'a Rule>,
    /// Where counters of the key have begun, if they have.
    pub(super) begun_at: Option<SequenceValue>,
}

/// Refuses a draft without `{SEQ}`: that is said before anything else that is wrong with a rule, unknown fields too.
///
/// # Errors
///
/// `SaveError::Format`.
pub fn require_seq(draft: &RuleDraft) -> Result<(), SaveError> {
    Ok(draft.format.as_deref().map_or(Ok(()), Template::require_seq)?)
}

/// Works out the rule that `draft` stands for.
///
/// # Errors
///
/// `SaveError::Format`, `Invalid` with every field that does not fit, or `StateConflict`.
pub(super) fn resolve(
    key: &PrefixKey,
    draft: &RuleDraft,
    kept: Kept<'_>,
) -> Result<(Rule, Template), SaveError> {
    let Some(format) = &draft.format else {
        let missing =
            Message::new("is required, for example ORD-{year}-{SEQ:6}", "必须提供，例如 ORD-{year}-{SEQ:6}");
        return Err(Invalid::of("format", missing).into());
    };
    let template = Template::parse(format, draft.seq_length)?;
    let mode = mode(draft, &template, kept.rule);
    let rule = Rule {
        prefix_key: key.clone(),
        format: format.clone(),
        seq_length: template.seq_width(),
        initial_seq: initial_seq(key, draft, mode, kept)?,
        mode,
        reset: draft.reset.unwrap_or_default(),
        timezone: draft.timezone.unwrap_or_default(),
        fiscal_year_start: draft.fiscal_year_start.unwrap_or_default(),
        overflow: draft.overflow.unwrap_or_default(),
        max_seq: draft.max_seq.unwrap_or(SequenceValue::MAX),
        on_outage: match mode {
            // A ledger has no segments.
            Mode::Strict => OnOutage::Fail,
            Mode::Snowflake | Mode::Continuous => draft.on_outage.unwrap_or_default(),
        },
        rate_limit: draft.rate_limit,
    };
    let errors = contradictions(draft, &rule, &template);
    if errors.is_empty() { Ok((rule, template)) } else { Err(Invalid { errors }.into()) }
}

/// The mode that is given, else the one of the replaced rule as long as it suits, else snowflake where that suits.
///
/// A kept snowflake does not suit a body that asks for a counter. Its narrow format does so only if the format was wide
/// before: a narrow one was made a snowflake by an explicit mode, which stays.
fn mode(draft: &RuleDraft, template: &Template, replaced: Option<&Rule>) -> Mode {
    let asks_for_counter = draft.initial_seq.is_some() || resets(draft);
    let narrow = !template.holds_snowflake();
    match (draft.mode, replaced.map(|rule| rule.mode)) {
        (Some(mode), _) => mode,
        (None, Some(kept @ (Mode::Continuous | Mode::Strict))) => kept,
        (None, Some(Mode::Snowflake)) => {
            let becomes_narrow = narrow && replaced.is_none_or(held_snowflakes);
            if asks_for_counter || becomes_narrow { Mode::Continuous } else { Mode::Snowflake }
        }
        (None, None) => {
            if asks_for_counter || narrow {
                Mode::Continuous
            } else {
                Mode::Snowflake
            }
        }
    }
}

fn resets(draft: &RuleDraft) -> bool {
    draft.reset.is_some_and(|reset| reset != Reset::Never)
}

fn held_snowflakes(rule: &Rule) -> bool {
    Template::parse(&rule.format, Some(rule.seq_length)).is_ok_and(|template| template.holds_snowflake())
}

fn initial_seq(
    key: &PrefixKey,
    draft: &RuleDraft,
    mode: Mode,
    kept: Kept<'_>,
) -> Result<SequenceValue, SaveError> {
    if !mode.counts() {
        return Ok(SequenceValue::default());
    }
    match (draft.initial_seq, kept.begun_at) {
        (Some(given), Some(begun)) if given != begun => Err(SaveError::StateConflict(key.clone())),
        (_, Some(begun)) => Ok(begun),
        (Some(given), None) => Ok(given),
        (None, None) => Ok(kept.rule.map(|rule| rule.initial_seq).unwrap_or_default()),
    }
}

/// What does not fit together. No message shows a value.
fn contradictions(draft: &RuleDraft, rule: &Rule, template: &Template) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut wrong = |field: &str, english: &str, chinese: &str| {
        errors.push(FieldError { field: field.into(), message: Message::new(english, chinese) });
    };
    if draft.prefix_key.as_ref().is_some_and(|given| *given != rule.prefix_key) {
        wrong("prefix_key", "does not match the prefix key in the path", "与路径中的前缀键不一致");
    }
    if rule.mode == Mode::Snowflake && draft.initial_seq.is_some() {
        wrong(
            "initial_seq",
            "does not apply to mode snowflake: leave it out, or choose continuous or strict",
            "不适用于 snowflake 模式：请去掉它，或改用 continuous 或 strict",
        );
    }
    if rule.mode == Mode::Snowflake && resets(draft) {
        wrong(
            "reset",
            "does not apply to mode snowflake: leave it out, or choose continuous or strict",
            "不适用于 snowflake 模式：请去掉它，或改用 continuous 或 strict",
        );
    } else if !template.reveals_period(rule.reset) {
        let needed = what_reveals(rule.reset);
        wrong(
            "reset",
            &format!("a {} reset would repeat numbers: the format must show {needed}", rule.reset),
            &format!("{} 重置会产生重复号码：格式中须包含 {needed}", rule.reset),
        );
    }
    if rule.mode.counts() && rule.initial_seq >= rule.max_seq {
        let field = if draft.initial_seq.is_some() { "initial_seq" } else { "max_seq" };
        wrong(
            field,
            "initial_seq must be below max_seq, since the first value is initial_seq + 1",
            "initial_seq 必须小于 max_seq，因为第一个值是 initial_seq + 1",
        );
    }
    errors
}

/// The variables from which a period can be read.
fn what_reveals(reset: Reset) -> &'static str {
    match reset {
        Reset::Never => "nothing",
        Reset::Daily => "{year}, {month}, {day} / {year}, {doy}",
        Reset::Weekly => "{isoyear}, {week} / {year}, {month}, {day}",
        Reset::Monthly => "{year}, {month}",
        Reset::Quarterly => "{year}, {quarter} / {year}, {month}",
        Reset::Yearly => "{year}",
        Reset::Fiscal => "{fy} / {year}, {month}, {day}",
    }
}
