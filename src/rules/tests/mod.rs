//! A desk with a register over a memory store, at which tests save rules and issue numbers.

mod deleting;
mod direct;
mod fields;
mod many;
mod races;
mod resets;
mod saving;
mod trail;
mod uniqueness;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use chrono::{DateTime, NaiveDate};

use super::{CompiledRule, IfMatch, Moment, Registry, SaveError, Saved, Settings, Usable, UseError};
use crate::{
    clock::{Clock, ManualClock, UnixMillis},
    counter::SequenceValue,
    json::Object,
    language::{Language, Localized},
    prefix_key::PrefixKey,
    rule::{Mode, RuleDraft},
    snowflake::Layout,
    store::{Author, CounterStore, StoreError, TakeRequest, Taken, memory::MemoryStore},
    template::{Origin, RenderContext},
};

const ORIGIN: Origin = Origin { datacenter: 1, worker: 2, max_datacenter: 31, max_worker: 31 };
/// 2024-01-01.
const EPOCH: UnixMillis = UnixMillis(1_704_067_200_000);
const SETTINGS: Settings =
    Settings { datacenters: 1, origin: ORIGIN, layout: Layout::DEFAULT, epoch: EPOCH, strict: None };

struct Desk {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
    registry: Arc<Registry>,
    /// Small on purpose, so that snowflakes and counters meet.
    snowflakes: AtomicU64,
}

fn key(text: &str) -> PrefixKey {
    PrefixKey::parse(text).expect("a prefix key")
}

fn date(text: &str) -> NaiveDate {
    text.parse().expect("a date")
}

fn draft(json: &str) -> RuleDraft {
    let mut object = Object::parse(json.as_bytes()).expect("an object");
    let draft = RuleDraft::from_json(&mut object);
    object.finish().expect("valid fields");
    draft
}

fn registry(store: &Arc<MemoryStore>, clock: &Arc<ManualClock>, settings: Settings) -> Arc<Registry> {
    Arc::new(Registry::new(store.clone(), store.clone(), clock.clone(), settings))
}

impl Desk {
    fn new() -> Self {
        Self::with(SETTINGS)
    }

    fn with(settings: Settings) -> Self {
        let noon: DateTime<chrono::Utc> = "2026-11-22T12:00:00Z".parse().expect("a moment");
        let clock = Arc::new(ManualClock::at(noon.into()));
        let store = Arc::new(MemoryStore::new(clock.clone(), UnixMillis(0)));
        let registry = registry(&store, &clock, settings);
        Self { clock, store, registry, snowflakes: AtomicU64::new(0) }
    }

    /// Another process, or the same one after a restart: the same store, an empty cache.
    async fn another(&self) -> Arc<Registry> {
        let registry = registry(&self.store, &self.clock, SETTINGS);
        registry.load().await.expect("loads");
        registry
    }

    /// From here on values come from a store that knows no counter; the records are still those of the one before.
    async fn lose_counters(&mut self) {
        let emptied = Arc::new(MemoryStore::new(self.clock.clone(), UnixMillis(0)));
        let rules = std::mem::replace(&mut self.store, emptied);
        self.registry = Arc::new(Registry::new(rules, self.store.clone(), self.clock.clone(), SETTINGS));
        self.registry.load().await.expect("loads");
    }

    fn now(&self) -> Moment {
        self.clock.now().into()
    }

    async fn post(&self, prefix: &str, json: &str) -> Result<Saved, SaveError> {
        self.registry.register(&key(prefix), &draft(json), &|_| true, &Author::program()).await
    }

    async fn put(&self, prefix: &str, json: &str) -> Result<Saved, SaveError> {
        self.registry.put(&key(prefix), &draft(json), None, &|_| true, &Author::program()).await
    }

    async fn put_if(&self, prefix: &str, json: &str, if_match: &str) -> Result<Saved, SaveError> {
        self.registry
            .put(&key(prefix), &draft(json), Some(&IfMatch::parse(if_match)), &|_| true, &Author::program())
            .await
    }

    async fn delete(&self, prefix: &str) -> Result<(), SaveError> {
        self.registry.delete(&key(prefix), None, &Author::program()).await
    }

    fn rule(&self, prefix: &str) -> Arc<CompiledRule> {
        self.registry.get(prefix).expect("registered")
    }

    async fn enter(&self, prefix: &str, moment: Moment) -> Result<Usable, UseError> {
        self.registry.ensure_used(self.rule(prefix), moment).await
    }

    /// The number of now.
    async fn issue(&self, prefix: &str) -> String {
        self.issue_at(prefix, self.now()).await
    }

    async fn issue_on(&self, prefix: &str, day: &str) -> String {
        self.issue_at(prefix, Moment::Document(date(day))).await
    }

    async fn issue_at(&self, prefix: &str, moment: Moment) -> String {
        let usable = self.enter(prefix, moment).await.expect("usable");
        self.draw(&usable).await
    }

    async fn draw(&self, usable: &Usable) -> String {
        self.try_draw(usable).await.expect("taken")
    }

    async fn try_draw(&self, usable: &Usable) -> Result<String, StoreError> {
        let value = match usable.rule().mode {
            Mode::Snowflake => SequenceValue(self.snowflakes.fetch_add(1, Ordering::SeqCst) + 1),
            Mode::Continuous | Mode::Strict => {
                let one = vec![TakeRequest { count: 1, claim: None }];
                let taken = self.store.take(usable.counter(), usable.bounds(), one).await?;
                match taken.as_slice() {
                    [Taken::Fresh(ranges)] => ranges.last().expect("one value"),
                    other => panic!("{other:?}"),
                }
            }
        };
        let context = RenderContext {
            prefix: usable.rule().prefix_key.as_str(),
            local: usable.local(),
            fiscal_year_start: usable.rule().fiscal_year_start,
            origin: ORIGIN,
            seed: [0; 32],
        };
        let mut text = String::new();
        usable.template().render(&context, value, &mut text);
        Ok(text)
    }
}

/// The code that the API will answer with.
fn code(error: &SaveError) -> &'static str {
    for language in [Language::English, Language::Chinese] {
        assert!(!error.localized(language).is_empty());
    }
    match error {
        SaveError::Format(error) => match error.kind() {
            crate::template::FormatErrorKind::MissingSeq => "Missing {SEQ} tag",
            crate::template::FormatErrorKind::InvalidFormat => "InvalidFormat",
            crate::template::FormatErrorKind::InvalidLength => "InvalidLength",
            crate::template::FormatErrorKind::Validation => "Validation",
        },
        SaveError::Invalid(_) => "Validation",
        SaveError::AlreadyExists(_) => "PrefixAlreadyExists",
        SaveError::NotRegistered(_) => "PrefixNotRegistered",
        SaveError::FormatConflict { .. } => "FormatConflict",
        SaveError::StateConflict(_) => "StateConflict",
        SaveError::PreconditionFailed(_) => "PreconditionFailed",
        SaveError::StrictUnavailable { .. } => "StrictUnavailable",
        SaveError::Store(_) => "Store",
    }
}

/// The code of an outcome, or the status.
fn outcome(result: Result<Saved, SaveError>) -> &'static str {
    match result {
        Ok(saved) => saved.status.as_str(),
        Err(error) => code(&error),
    }
}
