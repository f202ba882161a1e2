//! Saving and deleting rules so that no text can come back.
//!
//! Each change is worked out from the record as it stands (pure), and written on condition that it still stands so.

use std::{sync::Arc, time::Duration};

use chrono::NaiveDate;

use super::{
    adopt::Verdict,
    compiled::{CompiledRule, Moment, etag},
    error::{Reappearance, SaveError, Warning},
    history::{History, Scheme, Values, corrupt},
    if_match::IfMatch,
    registry::{Registry, Settings},
    resolve::{Kept, resolve},
    usage::{ATTEMPTS, contended},
};
use crate::{
    clock::UnixMillis,
    counter::SequenceValue,
    json::{Invalid, Message},
    prefix_key::PrefixKey,
    rule::{Mode, Rule, RuleDraft},
    snowflake::IdParts,
    store::{Author, DirectWrite, RuleRecord, StoreError, Swap},
    template::Template,
};

/// Warnings are for people; more than this are not read.
const MAX_WARNINGS: usize = 10;

/// Which other rules the caller may see.
pub type Visible<'a> = &'a (dyn Fn(&PrefixKey) -> bool + Send + Sync);

/// What saving did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There was no rule.
    Registered,
    /// There was another rule.
    Updated,
    /// There was this rule.
    Unchanged,
}

impl Status {
    /// The word for it in an answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
        }
    }
}

/// A rule that is in force now.
#[derive(Debug)]
pub struct Saved {
    /// What became of it.
    pub status: Status,
    /// The rule.
    pub rule: Arc<CompiledRule>,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
}

/// A rule that would be in force.
#[derive(Debug)]
pub struct Preview {
    /// The rule; nothing of it is stored.
    pub rule: Arc<CompiledRule>,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
}

/// Whether a rule may be replaced.
#[derive(Clone, Copy)]
enum Intent<'a> {
    /// `POST`.
    Create,
    /// `PUT`.
    Replace(Option<&'a IfMatch>),
}

/// The record as it stands, read.
pub(super) struct Standing {
    pub(super) record: Option<RuleRecord>,
    /// What an operator wrote past this program and nobody has adopted.
    pub(super) direct: Option<DirectWrite>,
    pub(super) rule: Option<Rule>,
    pub(super) history: History,
}

/// What is to be written.
pub(super) struct Change {
    status: Status,
    rule: Rule,
    template: Template,
    history: History,
}

impl Registry {
    /// Registers a rule for a key that has none (`POST`).
    ///
    /// # Errors
    ///
    /// `SaveError`; nothing has changed then, except that after a timeout of the store it may have.
    pub async fn register(
        &self,
        key: &PrefixKey,
        draft: &RuleDraft,
        visible: Visible<'_>,
        author: &Author,
    ) -> Result<Saved, SaveError> {
        self.save(key, draft, Intent::Create, visible, author).await
    }

    /// Creates or replaces a rule (`PUT`).
    ///
    /// # Errors
    ///
    /// As [`Self::register`], and `PreconditionFailed`.
    pub async fn put(
        &self,
        key: &PrefixKey,
        draft: &RuleDraft,
        if_match: Option<&IfMatch>,
        visible: Visible<'_>,
        author: &Author,
    ) -> Result<Saved, SaveError> {
        self.save(key, draft, Intent::Replace(if_match), visible, author).await
    }

    /// Takes a rule out of force. Its counters and its eras stay.
    ///
    /// # Errors
    ///
    /// `SaveError::NotRegistered`, `PreconditionFailed`, `Store`.
    pub async fn delete(
        &self,
        key: &PrefixKey,
        if_match: Option<&IfMatch>,
        author: &Author,
    ) -> Result<(), SaveError> {
        let _turn = self.turn(key).await;
        for _ in 0..ATTEMPTS {
            let standing = self.standing(key).await?;
            if self.judge(key, &standing).await? == Verdict::Changed {
                continue;
            }
            if standing.rule.is_none() {
                return Err(match if_match {
                    Some(_) => SaveError::PreconditionFailed(key.clone()),
                    None => SaveError::NotRegistered(key.clone()),
                });
            }
            standing.check(key, if_match)?;
            if self.write(&standing, standing.without_rule(key), author).await? == Swap::Done {
                return Ok(());
            }
        }
        Err(contended("swap_rule").into())
    }

    /// Works out what saving `draft` would give, with the same errors, and stores nothing. A draft with a prefix key is looked at
    /// as a replacement of that key's rule.
    ///
    /// # Errors
    ///
    /// As [`Self::put`].
    pub async fn preview(&self, draft: &RuleDraft, visible: Visible<'_>) -> Result<Preview, SaveError> {
        let (standing, key) = match &draft.prefix_key {
            Some(key) => (self.standing(key).await?, key.clone()),
            None => (Standing::nothing(), anonymous()?),
        };
        let change = self.change(&key, draft, &standing).await?;
        let rule = Arc::new(CompiledRule::draft(change.rule, change.template));
        let warnings = self.warnings(&rule, visible);
        Ok(Preview { rule, warnings })
    }

    async fn save(
        &self,
        key: &PrefixKey,
        draft: &RuleDraft,
        intent: Intent<'_>,
        visible: Visible<'_>,
        author: &Author,
    ) -> Result<Saved, SaveError> {
        let _turn = self.turn(key).await;
        for _ in 0..ATTEMPTS {
            let standing = self.standing(key).await?;
            if self.judge(key, &standing).await? == Verdict::Changed {
                continue;
            }
            match intent {
                Intent::Create if standing.rule.is_some() => {
                    // What is wrong with the body is worth more to the caller than that it comes too late.
                    resolve(key, draft, Kept::default())?;
                    return Err(SaveError::AlreadyExists(key.clone()));
                }
                Intent::Create => {}
                Intent::Replace(if_match) => standing.check(key, if_match)?,
            }
            let change = self.change(key, draft, &standing).await?;
            let (status, next) = (change.status, standing.with(key, &change));
            let in_force = match (status, &standing) {
                (Status::Unchanged, Standing { record: Some(record), direct: None, .. }) => record.clone(),
                (Status::Registered | Status::Updated | Status::Unchanged, standing) => {
                    match self.write(standing, next.clone(), author).await? {
                        Swap::Done => next,
                        Swap::Changed(_) => continue,
                    }
                }
            };
            if let Some(rule) = self.publish(&in_force)? {
                let warnings = self.warnings(&rule, visible);
                return Ok(Saved { status, rule, warnings });
            }
        }
        Err(contended("swap_rule").into())
    }

    /// Writes a record in the place of what stands, notes who did, and puts it in force here.
    pub(super) async fn write(
        &self,
        standing: &Standing,
        next: RuleRecord,
        author: &Author,
    ) -> Result<Swap, StoreError> {
        let key = next.key.clone();
        let note = self.note(standing, &next, author)?;
        let expected = standing.record.clone();
        let outcome = match (&standing.direct, note) {
            (None, Some(note)) => self.rules.swap_rule_noted(expected, next.clone(), note).await,
            (None, None) => self.rules.swap_rule(expected, next.clone()).await,
            (Some(write), note) => {
                let outcome = self.rules.swap_over(write.clone(), expected, next.clone()).await;
                if let (Ok(Swap::Done), Some(note)) = (&outcome, note) {
                    note.write().await;
                }
                outcome
            }
        };
        match &outcome {
            Ok(Swap::Done) => {
                self.publish(&next)?;
            }
            Ok(Swap::Changed(_)) => {}
            // It may have happened: what is in force here should not lag behind longer than needed.
            Err(_) => {
                if let Ok(Some(record)) = self.rules.rule(&key).await {
                    self.publish(&record)?;
                }
            }
        }
        outcome
    }

    pub(super) async fn standing(&self, key: &PrefixKey) -> Result<Standing, StoreError> {
        // The record first: a write that is adopted in between is not there any more, and then the record has changed.
        let record = self.rules.rule(key).await?;
        let direct = self.rules.direct_write(key).await?;
        let Some(record) = record else { return Ok(Standing { direct, ..Standing::nothing() }) };
        let history = History::read(&record)?;
        let rule = CompiledRule::of_record(&record)?.map(|compiled| compiled.rule().clone());
        Ok(Standing { record: Some(record), direct, rule, history })
    }

    /// Works out the change, or why it must not be.
    pub(super) async fn change(
        &self,
        key: &PrefixKey,
        draft: &RuleDraft,
        standing: &Standing,
    ) -> Result<Change, SaveError> {
        let mut history = standing.history.clone();
        standing.close_era(&mut history);
        let begun_at = self.begun_at(key, draft, standing, &history).await?;
        let (rule, template) = resolve(key, draft, Kept { rule: standing.rule.as_ref(), begun_at })?;
        self.check_deployment(&rule, &template)?;
        if standing.rule.as_ref() == Some(&rule) {
            let history = standing.history.clone();
            return Ok(Change { status: Status::Unchanged, rule, template, history });
        }
        self.check_eras(key, &rule, &template, &history)?;
        history.changed = self.scheme_changed(&rule, standing, &history);
        history.count_scheme(standing.rule.as_ref(), &rule, self.counters.books());
        history.edition += 1;
        let status = if standing.rule.is_some() { Status::Updated } else { Status::Registered };
        Ok(Change { status, rule, template, history })
    }

    /// Where counters of the key have begun: by a used rule, or by an `advance` before the first number.
    async fn begun_at(
        &self,
        key: &PrefixKey,
        draft: &RuleDraft,
        standing: &Standing,
        history: &History,
    ) -> Result<Option<SequenceValue>, StoreError> {
        let counted = history.initial_seq.map(SequenceValue);
        let (None, Some(rule), Some(_)) = (counted, &standing.rule, draft.initial_seq) else {
            return Ok(counted);
        };
        let untouched = self.counters.all(key).await?.is_empty();
        Ok((rule.mode.counts() && !untouched).then_some(rule.initial_seq))
    }

    fn check_deployment(&self, rule: &Rule, template: &Template) -> Result<(), SaveError> {
        if let (Mode::Strict, Some(setting)) = (rule.mode, self.settings.strict) {
            return Err(SaveError::StrictUnavailable { setting });
        }
        if self.settings.datacenters > 1 && rule.mode.counts() && !template.uses_datacenter() {
            let count = self.settings.datacenters;
            let message = Message::new(
                format!(
                    "needs {{datacenter}}: there are {count} data centres (NUMGEN_DATACENTERS), and only profile full (NUMGEN_REDIS_URL and \
                     NUMGEN_DATABASE_URL) sees to it that their counters do not give the same numbers"
                ),
                format!(
                    "须包含 {{datacenter}}：共有 {count} 个数据中心（NUMGEN_DATACENTERS），只有 full 模式（NUMGEN_REDIS_URL 和 \
                     NUMGEN_DATABASE_URL）才能保证它们的计数器不产生相同的号码"
                ),
            );
            return Err(Invalid::of("format", message).into());
        }
        Ok(())
    }

    /// Invariants 2 to 4 of the register.
    fn check_eras(
        &self,
        key: &PrefixKey,
        rule: &Rule,
        template: &Template,
        history: &History,
    ) -> Result<(), SaveError> {
        let values = Values::from(rule.mode);
        for era in &history.eras {
            let earlier = Template::parse(&era.format, Some(era.seq_length))
                .map_err(|_| corrupt(format!("an earlier format of {key} cannot be read")))?;
            let same_pieces = earlier.same_pieces(template);
            if same_pieces && era.values == values {
                continue;
            }
            let origin = self.settings.origin;
            if let Some(example) = earlier.common_text(key.as_str(), template, key.as_str(), origin) {
                let reason = if same_pieces { Reappearance::Values } else { Reappearance::Text };
                return Err(SaveError::FormatConflict { earlier: era.format.clone(), example, reason });
            }
        }
        Ok(())
    }

    /// Invariant 5: since when counters are others than those that were drawn from, if they are.
    fn scheme_changed(&self, rule: &Rule, standing: &Standing, history: &History) -> Option<NaiveDate> {
        let scheme = Scheme::of(rule)?;
        let books = self.counters.books();
        if history.scheme.is_none_or(|drawn| drawn.has_counters_of(scheme, books)) {
            return None;
        }
        // A change that waits for its first number has happened when it was made.
        let waiting = standing.rule.as_ref().and_then(Scheme::of);
        let waiting = waiting.is_some_and(|waiting| waiting.has_counters_of(scheme, books));
        let waiting_since = history.changed.filter(|_| waiting);
        let today = || Moment::Now(self.clock.now()).local(rule.timezone).date();
        Some(waiting_since.unwrap_or_else(today))
    }

    fn warnings(&self, rule: &CompiledRule, visible: Visible<'_>) -> Vec<Warning> {
        let (key, template) = (&rule.rule().prefix_key, rule.template());
        let mut warnings = Vec::new();
        let mut hidden = None;
        self.with_catalog(|catalog| {
            for (other, example) in catalog.colliding(key, template) {
                if visible(&other) {
                    warnings.push(Warning::SharedText { other: Some(other), example });
                } else {
                    // That there is one may be known; which and how many, not.
                    hidden.get_or_insert(Warning::SharedText { other: None, example });
                }
                if warnings.len() == MAX_WARNINGS {
                    break;
                }
            }
        });
        warnings.sort();
        warnings.extend(hidden);
        warnings.extend(self.narrowness(rule));
        warnings
    }

    /// Whether values do not fit their width or limit, or will not for long: counters begin where they begin, snowflakes grow with time.
    fn narrowness(&self, rule: &CompiledRule) -> Option<Warning> {
        let highest = rule.max();
        if rule.rule().mode.counts() {
            return (rule.rule().initial_seq >= highest).then_some(Warning::NothingFits);
        }
        let Settings { layout, epoch, origin, .. } = self.settings;
        let after_epoch = |moment: UnixMillis| u64::try_from(moment.0.saturating_sub(epoch.0)).unwrap_or(0);
        let timestamp = after_epoch(self.clock.now()).min(layout.max_timestamp());
        let lowest = IdParts { timestamp, datacenter: origin.datacenter, worker: 0, sequence: 0 };
        if layout.compose(lowest) > highest.0 {
            return Some(Warning::NothingFits);
        }
        // Above 63 bits there is no ID that would not fit.
        let last = layout.parts(highest.0).filter(|_| highest.0 < u64::MAX >> 1)?;
        Some(Warning::FitsUntil(epoch.plus(Duration::from_millis(last.timestamp))))
    }
}

impl Standing {
    fn nothing() -> Self {
        Self { record: None, direct: None, rule: None, history: History::default() }
    }

    /// Whether the caller has seen the rule as it stands.
    fn check(&self, key: &PrefixKey, if_match: Option<&IfMatch>) -> Result<(), SaveError> {
        let etag = self.rule.as_ref().map(|_| etag(self.history.edition));
        match if_match {
            Some(guard) if !guard.admits(etag.as_deref()) => Err(SaveError::PreconditionFailed(key.clone())),
            Some(_) | None => Ok(()),
        }
    }

    /// Turns the rule into an era, if numbers may have been issued under it.
    fn close_era(&self, history: &mut History) {
        if let (Some(RuleRecord { used: true, .. }), Some(rule)) = (&self.record, &self.rule) {
            history.close_era(rule);
        }
    }

    /// The record once the rule is out of force.
    pub(super) fn without_rule(&self, key: &PrefixKey) -> RuleRecord {
        let mut history = self.history.clone();
        self.close_era(&mut history);
        history.edition += 1;
        self.next_record(key, None, &history)
    }

    /// The record once `change` is made.
    pub(super) fn with(&self, key: &PrefixKey, change: &Change) -> RuleRecord {
        match (change.status, &self.record) {
            // The same rule, written another way: the store is to show it as it is in force, used as it is.
            (Status::Unchanged, Some(record)) => {
                RuleRecord { revision: record.revision + 1, ..record.clone() }
            }
            (Status::Registered | Status::Updated | Status::Unchanged, _) => {
                self.next_record(key, Some(&change.rule), &change.history)
            }
        }
    }

    fn next_record(&self, key: &PrefixKey, rule: Option<&Rule>, history: &History) -> RuleRecord {
        RuleRecord {
            key: key.clone(),
            revision: self.record.as_ref().map_or(1, |record| record.revision + 1),
            rule: rule.map(Rule::to_json),
            history: history.to_json(),
            used: false,
        }
    }
}

/// The key under which a format without one is looked at.
fn anonymous() -> Result<PrefixKey, SaveError> {
    PrefixKey::parse("PREVIEW").map_err(|error| Invalid::of("prefix_key", Message::of(&error)).into())
}
