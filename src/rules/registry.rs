//! The cache of rules, and the door to everything that changes them.

use std::{
    collections::HashMap,
    fmt,
    hash::BuildHasher,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
};

use foldhash::fast::RandomState;
use tokio::sync::MutexGuard;

use super::{adopt::Refused, catalog::Catalog, compiled::CompiledRule, history::Scheme};
use crate::{
    clock::{Clock, UnixMillis},
    prefix_key::PrefixKey,
    rule::Rule,
    snowflake::Layout,
    store::{AuditStore, CountersByMode, RuleRecord, RuleStore, StoreError},
    template::Origin,
};

/// So many that neither a writer nor the growth of a map holds up readers of other keys.
const SHARDS: usize = 64;

/// What the deployment means for rules.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many data centres there are: `NUMGEN_DATACENTERS`.
    pub datacenters: u32,
    /// How wide `{datacenter}` and `{worker}` are.
    pub origin: Origin,
    /// How snowflake IDs are divided.
    pub layout: Layout,
    /// Where their time begins.
    pub epoch: UnixMillis,
    /// Where mode strict is not available: the name of the setting that is missing.
    pub strict: Option<&'static str>,
}

/// What is known of a key. A deleted rule leaves its revision, so that a slow reader cannot bring it back.
struct Slot {
    revision: u64,
    rule: Option<Arc<CompiledRule>>,
}

type Shard = HashMap<PrefixKey, Slot, RandomState>;

/// The register of rules. Cheap to read, safe to change.
pub struct Registry {
    pub(super) rules: Arc<dyn RuleStore>,
    pub(super) counters: CountersByMode,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: Settings,
    hasher: RandomState,
    shards: Box<[RwLock<Shard>]>,
    /// Locked after a shard, never before.
    catalog: RwLock<Catalog>,
    /// One writer at a time for each key of this process; the store arbitrates between processes.
    turns: Box<[tokio::sync::Mutex<()>]>,
    /// Rules that are no longer in force, as long as somebody holds them.
    retired: Mutex<Vec<(PrefixKey, Weak<CompiledRule>)>>,
    pub(super) refused: Refused,
    /// Where changes are written down; nowhere, unless [`Registry::recorded_on`] says.
    pub(super) trail: Option<Arc<dyn AuditStore>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What [`Registry::load`] found.
#[derive(Debug)]
pub struct Loaded {
    /// How many rules are in force.
    pub rules: usize,
    /// Records that are not understood. The rule that was in force stays in force, if there was one.
    pub refused: Vec<Misunderstood>,
}

/// A record that is not understood.
#[derive(Debug)]
pub struct Misunderstood {
    /// Its key.
    pub key: PrefixKey,
    /// Why.
    pub error: StoreError,
}

/// A part of the list of rules.
#[derive(Debug)]
pub struct Page {
    /// In key order.
    pub rules: Vec<Arc<CompiledRule>>,
    /// Where the next page goes on (`after`), if there is one.
    pub next: Option<PrefixKey>,
}

impl Registry {
    /// An empty register over the stores; [`Self::load`] fills it.
    pub fn new(
        rules: Arc<dyn RuleStore>,
        counters: impl Into<CountersByMode>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Self {
        let hasher = RandomState::default();
        let shard = || RwLock::new(HashMap::with_hasher(hasher.clone()));
        Self {
            rules,
            counters: counters.into(),
            clock,
            settings,
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: hasher.clone(),
            catalog: RwLock::new(Catalog::new(settings.origin)),
            turns: (0..SHARDS).map(|_| tokio::sync::Mutex::default()).collect(),
            retired: Mutex::default(),
            refused: Refused::default(),
            trail: None,
        }
    }

    /// The same register, which writes down who changes what.
    #[must_use]
    pub fn recorded_on(mut self, trail: Arc<dyn AuditStore>) -> Self {
        self.trail = Some(trail);
        self
    }

    /// Reads every record: at the start, and whenever others may have written. One that is not understood does not hold up
    /// the rest; the caller reports it.
    ///
    /// # Errors
    ///
    /// `StoreError` if the store does not answer; the rules that are known stay in force.
    pub async fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded { rules: 0, refused: Vec::new() };
        for record in self.rules.load_rules().await? {
            match self.publish(&record) {
                Ok(rule) => loaded.rules += usize::from(rule.is_some()),
                Err(error) => loaded.refused.push(Misunderstood { key: record.key, error }),
            }
        }
        Ok(loaded)
    }

    /// The rule of a key.
    pub fn get(&self, key: &str) -> Option<Arc<CompiledRule>> {
        let shard = self.shard(key).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(key)?.rule.clone()
    }

    /// The revision that is known of a key; 0 for none.
    pub(super) fn revision(&self, key: &PrefixKey) -> u64 {
        let shard = self.shard(key.as_str()).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(key).map_or(0, |slot| slot.revision)
    }

    /// Up to `limit` rules above `after` that are visible.
    pub fn list(
        &self,
        after: Option<&PrefixKey>,
        limit: usize,
        visible: impl Fn(&PrefixKey) -> bool,
    ) -> Page {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = catalog.after(after).filter(|rule| visible(&rule.rule().prefix_key));
        let rules: Vec<_> = found.by_ref().take(limit).cloned().collect();
        let next = found.next().and(rules.last()).map(|rule| rule.rule().prefix_key.clone());
        Page { rules, next }
    }

    /// How many rules are in force.
    pub fn count(&self) -> usize {
        self.with_catalog(|catalog| catalog.after(None).count())
    }

    /// Whether a rule in force is such a one.
    pub fn has(&self, such: impl Fn(&Rule) -> bool) -> bool {
        self.with_catalog(|catalog| catalog.after(None).any(|rule| such(rule.rule())))
    }

    /// Asks the catalogue.
    pub(super) fn with_catalog<T>(&self, ask: impl FnOnce(&Catalog) -> T) -> T {
        ask(&self.catalog.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for the key's turn to be written.
    pub(super) async fn turn(&self, key: &PrefixKey) -> MutexGuard<'_, ()> {
        self.turns[self.index(key.as_str())].lock().await
    }

    /// Puts what a record says in force, unless something newer is; answers what is in force then.
    pub(super) fn publish(&self, record: &RuleRecord) -> Result<Option<Arc<CompiledRule>>, StoreError> {
        let key = &record.key;
        let mut shard = self.shard(key.as_str()).write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = shard.get(key).filter(|slot| slot.revision >= record.revision) {
            // Another process was the first to use it, which leaves the revision as it is. Then this one need not ask, and goes on
            // while the store is away.
            if let Some(rule) = slot.rule.as_ref().filter(|_| record.used && slot.revision == record.revision)
            {
                rule.note_used();
            }
            return Ok(slot.rule.clone());
        }
        let rule = CompiledRule::of_record(record)?.map(Arc::new);
        let slot = Slot { revision: record.revision, rule: rule.clone() };
        let before = shard.insert(key.clone(), slot).and_then(|slot| slot.rule);
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        match &rule {
            Some(rule) => catalog.insert(Arc::clone(rule)),
            None => catalog.remove(key),
        }
        if let Some(before) = before {
            self.retire(&before);
        }
        Ok(rule)
    }

    /// Rules of the key that are no longer in force, and under which somebody may be drawing from other counters than under
    /// `rule`.
    pub(super) fn still_drawing(&self, rule: &CompiledRule) -> bool {
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = retired.iter().filter(|(key, _)| *key == rule.rule().prefix_key);
        of_key.filter_map(|(_, old)| old.upgrade()).any(|old| {
            let same = |scheme: Scheme| {
                rule.scheme().is_some_and(|now| now.has_counters_of(scheme, self.counters.books()))
            };
            let draws = old.scheme().is_some_and(|scheme| !same(scheme));
            draws && old.is_drawing()
        })
    }

    fn retire(&self, rule: &Arc<CompiledRule>) {
        rule.retire();
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|(_, old)| old.strong_count() > 0);
        retired.push((rule.rule().prefix_key.clone(), Arc::downgrade(rule)));
    }

    fn shard(&self, key: &str) -> &RwLock<Shard> {
        &self.shards[self.index(key)]
    }

    fn index(&self, key: &str) -> usize {
        // The low bits choose the bucket inside a shard.
        (self.hasher.hash_one(key) >> 58) as usize % SHARDS
    }
}
