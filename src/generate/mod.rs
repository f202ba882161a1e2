//! The engine: turns an order for numbers into numbers, and changes what became of them.
//!
//! Invariants:
//!
//! 1. A number is a pure function of (format, context, sequence value). The context is fixed once, from the moment of the
//!    request, before a value is drawn: the printed date, the period and the counter cannot disagree.
//! 2. Values are drawn all or none; an order that fails has consumed nothing, or exactly what a retry with the same
//!    idempotency key returns.
//! 3. An answer is given only after its store has made it durable; a snowflake needs none.
//!
//! Reading order: [`Engine::issue`], one arm per mode; then `snowflake`, `continuous`, `strict`, `temporary`; `steps` confirms and voids;
//! `combine` is how many requests share one call of a store, `stamp` how an answer is remembered under an idempotency key.

mod combine;
mod continuous;
mod snowflake;
mod stamp;
mod steps;
mod strict;
pub mod temporary;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use chrono::{NaiveDate, NaiveDateTime};

use crate::{
    calendar::Period,
    clock::UnixMillis,
    counter::{Counter, Ranges, SequenceValue, ValueRange},
    language::{Language, Localized},
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    rule::{Mode, Rule},
    snowflake::{IdParts, Ids, Layout},
    store::{
        Bounds, CounterStore, IdempotencyStore, LedgerStep, LedgerStore, StoreError, Taken, Transitioned,
    },
    telemetry::BatchSizes,
    template::{Origin, Template},
};

use stamp::Stamp;

/// How the engine works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How snowflake IDs are divided.
    pub layout: Layout,
    /// Where their time begins.
    pub epoch: UnixMillis,
    /// The data centre ID.
    pub datacenter: u32,
    /// How long an order may wait for its store, from its arrival.
    pub storage_timeout: Duration,
    /// How long an idempotency key is remembered.
    pub idempotency_ttl: Duration,
}

/// The stores that the engine draws from.
#[derive(Clone)]
pub struct Stores {
    /// Consecutive counters.
    pub counters: Arc<dyn CounterStore>,
    /// Gapless ledgers.
    pub ledgers: Arc<dyn LedgerStore>,
    /// Answers to remember for modes that draw elsewhere.
    pub idempotency: Arc<dyn IdempotencyStore>,
    /// Stands in for consecutive counters that cannot be reached; `None` where they are in this process.
    pub temporary: Option<Arc<temporary::Issuer>>,
    /// The sizes of combined calls of `counters` and of `ledgers`.
    pub batches: [BatchSizes; 2],
}

/// What a caller asks for, with everything that follows from its moment.
#[derive(Clone)]
pub struct Order<'a> {
    /// The rule in force.
    pub rule: &'a Rule,
    /// Its parsed format.
    pub template: &'a Arc<Template>,
    /// The limits of the counter.
    pub bounds: Bounds,
    /// The period in which `local` lies.
    pub period: Period,
    /// The moment of the request, or its document date at 00:00:00, in the rule's time zone.
    pub local: NaiveDateTime,
    /// When it arrived.
    pub now: UnixMillis,
    /// How many numbers, at least 1.
    pub count: u32,
    /// Who asks.
    pub subject: &'a Arc<str>,
    /// The caller's idempotency key.
    pub idempotency_key: Option<Arc<str>>,
    /// The document date, as the caller gave it.
    pub date: Option<NaiveDate>,
    /// Reserve for so long instead of issuing; strict only.
    pub reserve: Option<Duration>,
    /// Kept until the store has answered, even where the caller has gone by then: what must not change under a draw.
    pub hold: Option<Hold>,
}

/// Something that is only to be kept for a while.
pub type Hold = Arc<dyn std::any::Any + Send + Sync>;

impl Order<'_> {
    fn counter(&self) -> Counter {
        Counter { key: self.rule.prefix_key.clone(), period: self.period.clone() }
    }
}

/// Where numbers came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The store that owns the sequence, or a worker window.
    Primary,
    /// The local segment, while the store is away.
    Segment,
    /// The local clock, to be resolved by a person.
    Temporary,
}

impl Source {
    /// The word for it in an answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Segment => "segment",
            Self::Temporary => "temporary",
        }
    }
}

/// Numbers that are the caller's.
#[derive(Debug)]
pub struct Issued<'a> {
    numbers: Numbers<'a>,
    /// Where they came from.
    pub source: Source,
}

/// Values that are yet to be written out, or finished texts.
#[derive(Debug)]
enum Numbers<'a> {
    Values { prefix: &'a str, template: IssuedTemplate<'a>, stamp: Stamp, values: Ranges },
    Written(Vec<String>),
}

/// The template in force, or the one under which a replayed answer was first given.
#[derive(Debug)]
enum IssuedTemplate<'a> {
    InForce(&'a Template),
    Replayed(Box<Template>),
}

impl<'a> Issued<'a> {
    fn values(
        order: &Order<'a>,
        template: IssuedTemplate<'a>,
        stamp: Stamp,
        values: Ranges,
        source: Source,
    ) -> Self {
        let prefix = order.rule.prefix_key.as_str();
        Self { numbers: Numbers::Values { prefix, template, stamp, values }, source }
    }

    fn written(numbers: Vec<String>, source: Source) -> Self {
        Self { numbers: Numbers::Written(numbers), source }
    }

    /// How many numbers.
    pub fn count(&self) -> u64 {
        match &self.numbers {
            Numbers::Values { values, .. } => values.count(),
            Numbers::Written(numbers) => numbers.len() as u64,
        }
    }

    /// Until when they are reserved.
    pub fn reserved_until(&self) -> Option<UnixMillis> {
        match &self.numbers {
            Numbers::Values { stamp, .. } => stamp.reserved_until,
            Numbers::Written(_) => None,
        }
    }

    /// Writes each number, ascending: `before(out, index)`, then the number. No number needs escaping in JSON: a format
    /// cannot contain quotes, backslashes or control characters.
    pub fn write(&self, out: &mut String, mut before: impl FnMut(&mut String, usize)) {
        let (prefix, template, stamp, values) = match &self.numbers {
            Numbers::Values { prefix, template: IssuedTemplate::InForce(template), stamp, values } => {
                (*prefix, *template, stamp, values)
            }
            Numbers::Values { prefix, template: IssuedTemplate::Replayed(template), stamp, values } => {
                (*prefix, &**template, stamp, values)
            }
            Numbers::Written(numbers) => {
                for (index, number) in numbers.iter().enumerate() {
                    before(out, index);
                    out.push_str(number);
                }
                return;
            }
        };
        let context = stamp.context(prefix);
        for (index, value) in values.values().enumerate() {
            before(out, index);
            template.render(&context, value, out);
        }
    }
}

/// Why no numbers were issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The counter cannot give that many values at or below its limit.
    #[error(
        "{count} more would take the counter{} past its limit, {limit}",
        .key.as_deref().map(|key| format!(" of {key}")).unwrap_or_default()
    )]
    Overflow {
        /// The prefix key; `None` where nobody named one.
        key: Option<String>,
        /// How many were asked for.
        count: u32,
        /// The highest value that may be issued.
        limit: SequenceValue,
    },
    /// The time bits of the layout have run out.
    #[error("the time bits of the snowflake layout have run out: a wider layout or a later epoch is needed")]
    TimeExhausted,
    /// No worker window is held, or the one that is held is used up.
    #[error("this node holds no worker window to issue from at the moment")]
    NoWindow,
    /// More was asked for than the generator can make before the deadline.
    #[error("the generator is busy: {0} could not be issued in time")]
    Busy(u32),
    /// The idempotency key was used for another request.
    #[error("this idempotency key was used before, with another count, date or reservation")]
    IdempotencyMismatch,
    /// The store did not answer before the deadline.
    #[error("the store did not answer in time")]
    Timeout,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] Arc<StoreError>),
    /// The store is away, and what this node has for the meantime is not enough.
    #[error(
        "the store is away, and this node has not {count} left to issue without it: ask for fewer, or again in a while"
    )]
    Unbridged {
        /// How many were asked for.
        count: u32,
    },
    /// The store that remembers idempotency keys is away, and the request has one.
    #[error(
        "the store that remembers idempotency keys is away, and nothing stands in for it: send this again with the same key in a \
         while, or without a key if two numbers for it would do no harm"
    )]
    KeysAway(#[source] Arc<StoreError>),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random(#[source] getrandom::Error),
    /// A bug, or the process is going down.
    #[error("{0}")]
    Internal(&'static str),
}

impl IssueError {
    /// The same for a caller who gave no idempotency key.
    pub fn without_key(self) -> Self {
        if let Self::KeysAway(error) = self { Self::Store(error) } else { self }
    }

    /// The same for a caller who named no prefix key.
    #[must_use]
    pub fn without_prefix(self) -> Self {
        if let Self::Overflow { count, limit, .. } = self {
            Self::Overflow { key: None, count, limit }
        } else {
            self
        }
    }
}

impl Localized for IssueError {
    fn localized(&self, language: Language) -> String {
        match (language, self) {
            (Language::English, _) => self.to_string(),
            (Language::Chinese, Self::Overflow { key, count, limit }) => {
                let of_key = key.as_deref().map(|key| format!(" {key} 的")).unwrap_or_default();
                format!("再取 {count} 个将使{of_key}计数器超过上限 {limit}")
            }
            (Language::Chinese, Self::TimeExhausted) => {
                "雪花布局的时间位已用尽，需要更宽的布局或更晚的纪元".into()
            }
            (Language::Chinese, Self::NoWindow) => "本节点目前没有可用的工作窗口".into(),
            (Language::Chinese, Self::Busy(count)) => format!("生成器繁忙，未能及时签发 {count} 个号码"),
            (Language::Chinese, Self::IdempotencyMismatch) => {
                "该幂等键此前已用于数量、日期或预留时间不同的请求".into()
            }
            (Language::Chinese, Self::Timeout) => "存储未能及时响应".into(),
            (Language::Chinese, Self::Store(_)) => "存储出错".into(),
            (Language::Chinese, Self::Unbridged { count }) => {
                format!("存储暂不可用，本节点剩余的备用号码不足 {count} 个：请减少数量，或稍后再试")
            }
            (Language::Chinese, Self::KeysAway(_)) => {
                "记录幂等键的存储暂不可用，且无可替代：请稍后以同一幂等键重试；若重复取号无妨，也可不带幂等键"
                    .into()
            }
            (Language::Chinese, Self::Random(_) | Self::Internal(_)) => "内部错误".into(),
        }
    }
}

/// Issues numbers in every mode.
pub struct Engine {
    settings: Settings,
    ids: Arc<Ids>,
    idempotency: Arc<dyn IdempotencyStore>,
    continuous: continuous::Continuous,
    strict: strict::Strict,
    steps: steps::Steps,
    temporary: Option<Arc<temporary::Issuer>>,
}

impl Engine {
    /// An engine over `stores` and a worker window.
    pub fn new(settings: Settings, stores: Stores, ids: Arc<Ids>, lifecycle: &Lifecycle) -> Self {
        let patience = settings.storage_timeout;
        let [of_counters, of_ledgers] = stores.batches;
        Self {
            settings,
            ids,
            idempotency: stores.idempotency,
            continuous: continuous::Continuous::new(stores.counters, patience, of_counters, lifecycle),
            steps: steps::Steps::new(Arc::clone(&stores.ledgers), patience, lifecycle),
            strict: strict::Strict::new(stores.ledgers, patience, of_ledgers, lifecycle),
            temporary: stores.temporary,
        }
    }

    /// Issues what can be issued without waiting for anything: snowflakes without an idempotency key. `None`: use
    /// [`Engine::issue`]; nothing was consumed.
    pub fn issue_at_once<'a>(&self, order: &Order<'a>) -> Option<Result<Issued<'a>, IssueError>> {
        match order.rule.mode {
            Mode::Snowflake if order.idempotency_key.is_none() => self.draw_at_once(order),
            Mode::Snowflake | Mode::Continuous | Mode::Strict => None,
        }
    }

    /// Issues `order.count` numbers, or none.
    ///
    /// # Errors
    ///
    /// [`IssueError`]; after `Timeout` and `Store` a retry with the same idempotency key returns what was drawn, if anything was.
    pub async fn issue<'a>(&self, order: &Order<'a>) -> Result<Issued<'a>, IssueError> {
        let stamp = self.stamp(order)?;
        let (taken, stamp) = match order.rule.mode {
            // Boxed: rare on this way, and large.
            Mode::Snowflake => Box::pin(self.issue_snowflakes(order, stamp))
                .await
                .map_err(|error| explained(order, error))?,
            Mode::Continuous => {
                let claim = self.claim(order, &stamp)?;
                match self.continuous.take(order, claim).await {
                    Ok(taken) => (taken, stamp),
                    // Boxed: rare on this way.
                    Err(error) => return Box::pin(self.stand_in(order, error)).await,
                }
            }
            Mode::Strict => {
                let claim = self.claim(order, &stamp)?;
                (self.strict.issue(order, claim, &stamp).await?, stamp)
            }
        };
        answer(order, taken, stamp)
    }

    /// Confirms or voids a strict number of `key`.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Store` and `Internal`; it may have been done then, and can be asked for again.
    pub async fn step(&self, key: PrefixKey, step: LedgerStep) -> Result<Transitioned, IssueError> {
        let at = self.shared_time(step.at);
        self.steps.take(key, LedgerStep { at, ..step }).await
    }

    /// What an order gets that its store did not serve: temporary numbers, where rule and caller allow them, else the error.
    ///
    /// # Errors
    ///
    /// The same error, or that of the journal.
    pub async fn stand_in<'a>(&self, order: &Order<'a>, error: IssueError) -> Result<Issued<'a>, IssueError> {
        match &self.temporary {
            Some(issuer) if temporary::Issuer::stands_in(order, &error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "temporary numbers stand in");
                issuer.issue(order).await
            }
            Some(_) | None => Err(explained(order, error)),
        }
    }

    /// The worker ID and data centre that numbers are issued under.
    pub fn origin(&self) -> Origin {
        Origin {
            datacenter: self.settings.datacenter,
            worker: self.ids.worker(),
            max_datacenter: self.settings.layout.max_datacenter(),
            max_worker: self.settings.layout.max_worker(),
        }
    }

    /// When and by whom a snowflake was issued; `None` for a value that is none.
    pub fn read_id(&self, id: SequenceValue) -> Option<(UnixMillis, IdParts)> {
        let parts = self.settings.layout.parts(id.0)?;
        Some((self.settings.epoch.plus(Duration::from_millis(parts.timestamp)), parts))
    }

    /// What `count` numbers would look like, without drawing any: the first ones of a counter that begins now, or snowflakes
    /// of the present millisecond. Where the limits do not allow that many, as many as they allow, but `at_least` so many; that may be
    /// none.
    ///
    /// # Errors
    ///
    /// `Overflow` where the limits do not allow `at_least`; `Random`.
    pub fn preview(&self, order: &Order<'_>, at_least: u32) -> Result<Vec<String>, IssueError> {
        let first = match order.rule.mode {
            Mode::Snowflake => {
                let timestamp = self.ids.now().min(self.settings.layout.max_timestamp());
                let Origin { datacenter, worker, .. } = self.origin();
                self.settings
                    .layout
                    .compose(IdParts { timestamp, datacenter, worker, sequence: 0 })
                    .saturating_sub(1)
            }
            Mode::Continuous | Mode::Strict => order.bounds.base.max(order.bounds.floor).0,
        };
        let within = |count: u32| ValueRange::after(SequenceValue(first), count.into(), order.bounds.max);
        let range = (at_least..=order.count).rev().find_map(within);
        let range = match range {
            Some(range) => range,
            None if at_least == 0 => return Ok(Vec::new()),
            None => return Err(overflow(&Order { count: at_least, ..order.clone() })),
        };
        let values = Ranges::from(range);
        let stamp = self.stamp(order)?;
        let context = stamp.context(order.rule.prefix_key.as_str());
        let render = |value| {
            let mut number = String::new();
            order.template.render(&context, value, &mut number);
            number
        };
        Ok(values.values().map(render).collect())
    }
}

/// What a store's outcome means to the caller.
fn answer<'a>(order: &Order<'a>, taken: Taken, stamp: Stamp) -> Result<Issued<'a>, IssueError> {
    let in_force = IssuedTemplate::InForce(order.template);
    match taken {
        Taken::Fresh(values) => Ok(Issued::values(order, in_force, stamp, values, Source::Primary)),
        Taken::Segment(values) => Ok(Issued::values(order, in_force, stamp, values, Source::Segment)),
        Taken::Replayed(recorded) => {
            let (template, stamp) = Stamp::recall(&recorded.stamp)
                .ok_or(IssueError::Internal("an idempotency record is damaged"))?;
            let template = IssuedTemplate::Replayed(Box::new(template));
            Ok(Issued::values(order, template, stamp, recorded.values, Source::Primary))
        }
        Taken::Mismatch => Err(IssueError::IdempotencyMismatch),
        Taken::Overflow => Err(overflow(order)),
        Taken::Away => Err(IssueError::Internal("a store that is away is an error by now")),
    }
}

/// What a caller with an idempotency key is told of a store that is away: no other source would do.
fn explained(order: &Order<'_>, error: IssueError) -> IssueError {
    match (&order.idempotency_key, &error) {
        (Some(_), IssueError::Unbridged { .. }) => IssueError::KeysAway(Arc::new(continuous::away())),
        (Some(_), IssueError::Store(cause)) if temporary::is_unreachable(cause) => {
            IssueError::KeysAway(Arc::clone(cause))
        }
        _ => error,
    }
}

fn overflow(order: &Order<'_>) -> IssueError {
    let key = Some(order.rule.prefix_key.to_string());
    IssueError::Overflow { key, count: order.count, limit: order.bounds.max }
}
