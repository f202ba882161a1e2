//! A rule as requests see it: parsed once, shared, with the calendar arithmetic of its counters.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering},
    },
};

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeZone};
use chrono_tz::Tz;

use super::{
    history::{Floor, History, Scheme, corrupt},
    resolve::{Kept, resolve},
};
use crate::{
    calendar::{FiscalYearStart, Period, Reset},
    clock::UnixMillis,
    counter::{Counter, SequenceValue},
    json::Object,
    language::{Language, Localized},
    rule::{Overflow, Rule, RuleDraft},
    store::{Bounds, Past, RuleRecord, StoreError},
    template::Template,
};

/// When a number is said to be from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The moment of the request, seen in the rule's time zone.
    Now(UnixMillis),
    /// A document date: its midnight, in no time zone.
    Document(NaiveDate),
}

impl Moment {
    /// The local time in a zone, which both the printed date and the period come from.
    pub(super) fn local(self, zone: Tz) -> NaiveDateTime {
        match self {
            Self::Document(date) => date.and_time(NaiveTime::MIN),
            Self::Now(now) => {
                let utc = now.to_utc().naive_utc();
                // Most rules need no search in the table of a zone.
                if zone == Tz::UTC { utc } else { zone.from_utc_datetime(&utc).naive_local() }
            }
        }
    }
}

impl From<UnixMillis> for Moment {
    fn from(now: UnixMillis) -> Self {
        Self::Now(now)
    }
}

/// A rule in force, or the one that a draft would become.
pub struct CompiledRule {
    rule: Rule,
    template: Arc<Template>,
    revision: u64,
    edition: u64,
    floor: Option<Floor>,
    scheme_number: u64,
    /// See [`Template::names_fiscal_year`].
    names_fiscal_year: bool,
    told_since: Option<NaiveDate>,
    /// The floor must be settled before the first number.
    pub(super) unsettled: bool,
    usage: Usage,
}

/// How far the rule may be used, and by how many. The three are only meaningful together: see [`CompiledRule::enter`].
struct Usage {
    /// The latest day, counted from the common era, for which the store knows that numbers may be issued.
    usable_until: AtomicI32,
    /// A later record is in force.
    retired: AtomicBool,
    /// How many [`Usable`]s there are.
    drawing: AtomicU32,
}

/// Why [`CompiledRule::enter`] did not let a request in.
pub(super) enum Refusal {
    /// The rule is not in force any more.
    Retired,
    /// The store must be told first.
    Unprepared,
    /// Numbers of that date would look as those of another period: only later ones are told, from this day on.
    Untold(NaiveDate),
}

impl CompiledRule {
    /// Compiles the rule of a record; `None` if it is deleted.
    pub(super) fn of_record(record: &RuleRecord) -> Result<Option<Self>, StoreError> {
        let Some(json) = &record.rule else { return Ok(None) };
        let refuse = |why: String| corrupt(format!("the rule of {} cannot be read: {why}", record.key));
        let mut object = Object::parse(json.as_bytes()).map_err(|error| refuse(error.to_string()))?;
        let draft = RuleDraft::from_json(&mut object);
        object.finish().map_err(|error| refuse(error.to_string()))?;
        let (rule, template) = resolve(&record.key, &draft, Kept::default())
            .map_err(|error| refuse(error.localized(Language::English)))?;
        let mut compiled = Self::draft(rule, template);
        let history = History::read(record)?;
        compiled.revision = record.revision;
        compiled.edition = history.edition;
        compiled.floor = history.floor;
        compiled.scheme_number = history.scheme_number;
        compiled.unsettled = history.changed.is_some();
        if record.used && !compiled.unsettled {
            compiled.allow_until(history.latest);
        }
        Ok(Some(compiled))
    }

    /// A rule that is not saved.
    pub(super) fn draft(rule: Rule, template: Template) -> Self {
        let usage = Usage {
            usable_until: AtomicI32::new(i32::MIN),
            retired: AtomicBool::new(false),
            drawing: AtomicU32::new(0),
        };
        // Whatever the reset is: the next rule may have a fiscal one.
        let is_confused = rule.mode.counts() && template.confuses_fiscal_years();
        let told_since = is_confused.then(|| rule.fiscal_year_start.in_year(2000)).flatten();
        Self {
            names_fiscal_year: template.names_fiscal_year(),
            told_since,
            rule,
            template: Arc::new(template),
            revision: 0,
            edition: 0,
            floor: None,
            scheme_number: 0,
            unsettled: false,
            usage,
        }
    }

    /// The rule.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Its parsed format.
    pub fn template(&self) -> &Arc<Template> {
        &self.template
    }

    /// The revision of the record that it was read from; 0 for a preview.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The entity tag, quotes included. It changes when the rule changes, not when the record notes that it is used.
    pub fn etag(&self) -> String {
        etag(self.edition)
    }

    /// The local time of a moment in the rule's time zone.
    pub fn local(&self, moment: impl Into<Moment>) -> NaiveDateTime {
        moment.into().local(self.rule.timezone)
    }

    /// The reset period of a local date.
    pub fn period_of(&self, date: NaiveDate) -> Period {
        self.rule.reset.period_of(date, self.rule.fiscal_year_start)
    }

    /// The counter of a local date.
    pub fn counter(&self, date: NaiveDate) -> Counter {
        Counter { key: self.rule.prefix_key.clone(), period: self.period_of(date) }
    }

    /// Within what the counter of a local date moves.
    pub fn bounds(&self, date: NaiveDate) -> Bounds {
        Bounds {
            base: self.rule.initial_seq,
            floor: self.floor.map_or(SequenceValue(0), |floor| floor.of(self.first_look(date))),
            max: self.max(),
            scheme: self.scheme_number,
            on_outage: self.rule.on_outage,
        }
    }

    /// The first day whose numbers, under whatever earlier scheme, can look as those of the period of `date`. A fiscal year that is
    /// told by its name alone may have begun on any day of the calendar year of that name.
    fn first_look(&self, date: NaiveDate) -> Option<NaiveDate> {
        let Rule { reset, fiscal_year_start, .. } = self.rule;
        if reset == Reset::Fiscal && self.names_fiscal_year {
            return FiscalYearStart::JANUARY_FIRST.in_year(fiscal_year_start.fiscal_year(date));
        }
        reset.period_start(date, fiscal_year_start)
    }

    /// The first day whose period numbers tell; `None` where they tell that of every day.
    pub fn told_since(&self) -> Option<NaiveDate> {
        self.told_since
    }

    /// The highest value that may be issued: `max_seq`, or what fits the length under `overflow: reject`.
    pub fn max(&self) -> SequenceValue {
        match self.rule.overflow {
            Overflow::Grow => self.rule.max_seq,
            Overflow::Reject => self.rule.max_seq.min(self.template.highest_within_width()),
        }
    }

    /// Whether the latest printed date must be on record: only counters start afresh, and only a printed date tells
    /// their periods apart.
    pub(super) fn notes_dates(&self) -> bool {
        self.rule.mode.counts() && self.template.needs_date()
    }

    /// Whether counters of the key have become others after they were drawn from: then there is a floor, or will be.
    pub fn past(&self) -> Past {
        if self.unsettled || self.floor.is_some() { Past::Others } else { Past::Same }
    }

    pub(super) fn scheme(&self) -> Option<Scheme> {
        Scheme::of(&self.rule)
    }

    /// Lets requests in for dates up to `latest`, or for any date where dates do not matter.
    pub(super) fn allow_until(&self, latest: Option<NaiveDate>) {
        let day = match latest {
            _ if !self.notes_dates() => i32::MAX,
            Some(date) => date.num_days_from_ce(),
            None => return,
        };
        self.usage.usable_until.fetch_max(day, Ordering::SeqCst);
    }

    /// Lets a request in that is about to draw.
    pub(super) fn enter(self: &Arc<Self>, moment: Moment) -> Result<Usable, Refusal> {
        let local = self.local(moment);
        // First the count, then the flag; `retire` sets the flag, and only then somebody reads the count. So either this request
        // sees the flag, or it is seen in the count (sequential consistency).
        self.usage.drawing.fetch_add(1, Ordering::SeqCst);
        let usable = Usable { rule: Arc::clone(self), local };
        if self.usage.retired.load(Ordering::SeqCst) {
            return Err(Refusal::Retired);
        }
        if let Some(since) = self.told_since.filter(|since| local.date() < *since) {
            return Err(Refusal::Untold(since));
        }
        if self.usage.usable_until.load(Ordering::SeqCst) < local.date().num_days_from_ce() {
            return Err(Refusal::Unprepared);
        }
        Ok(usable)
    }

    /// The store has it on record as used. Dates that are printed and a floor that is open need more than that.
    pub(super) fn note_used(&self) {
        if !self.unsettled && !self.notes_dates() {
            self.allow_until(None);
        }
    }

    /// Whether numbers may be drawn without [`Registry::ensure_used`](super::Registry::ensure_used): the rule is in force and on
    /// record as used, and its values come from no counter, so that no change of it has to wait for a draw.
    pub fn draws_freely(&self) -> bool {
        !self.rule.mode.counts()
            && self.usage.usable_until.load(Ordering::Acquire) == i32::MAX
            && self.is_in_force()
    }

    /// Whether no later record of its key has taken its place.
    pub fn is_in_force(&self) -> bool {
        !self.usage.retired.load(Ordering::Acquire)
    }

    /// Lets nobody in any more.
    pub(super) fn retire(&self) {
        self.usage.retired.store(true, Ordering::SeqCst);
    }

    /// Whether a request is drawing, or looking whether it may.
    pub(super) fn is_drawing(&self) -> bool {
        self.usage.drawing.load(Ordering::SeqCst) > 0
    }
}

/// The entity tag of an edition.
pub(super) fn etag(edition: u64) -> String {
    format!("\"{edition}\"")
}

impl fmt::Debug for CompiledRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledRule")
            .field("rule", &self.rule)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// A rule that numbers may be drawn under, at one moment. A change of the rule waits for it: keep it until the store has
/// answered, and not longer.
#[derive(Debug)]
pub struct Usable {
    rule: Arc<CompiledRule>,
    local: NaiveDateTime,
}

impl Usable {
    /// The rule, to be kept for rendering or longer.
    pub fn compiled(&self) -> &Arc<CompiledRule> {
        &self.rule
    }

    /// The local time of the moment that was asked for.
    pub fn local(&self) -> NaiveDateTime {
        self.local
    }

    /// The counter of that moment.
    pub fn counter(&self) -> Counter {
        self.rule.counter(self.local.date())
    }

    /// Within what that counter moves.
    pub fn bounds(&self) -> Bounds {
        self.rule.bounds(self.local.date())
    }
}

impl Deref for Usable {
    type Target = CompiledRule;

    fn deref(&self) -> &CompiledRule {
        &self.rule
    }
}

impl Clone for Usable {
    fn clone(&self) -> Self {
        self.rule.usage.drawing.fetch_add(1, Ordering::SeqCst);
        Self { rule: Arc::clone(&self.rule), local: self.local }
    }
}

impl Drop for Usable {
    fn drop(&mut self) {
        self.rule.usage.drawing.fetch_sub(1, Ordering::SeqCst);
    }
}
