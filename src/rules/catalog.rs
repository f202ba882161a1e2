//! The rules in force in key order, and a quick way to those that can yield the same text.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use super::{
    compiled::CompiledRule,
    outline::{Draughtsman, Outline},
};
use crate::{
    prefix_key::PrefixKey,
    template::{Origin, Template},
};

/// Every rule in force.
pub(super) struct Catalog {
    origin: Origin,
    draughtsman: Draughtsman,
    /// Where in `entries` the rule of a key stands.
    by_key: BTreeMap<PrefixKey, usize>,
    /// In no order, but side by side: a save looks at the outline of each.
    entries: Vec<Entry>,
}

struct Entry {
    outline: Outline,
    rule: Arc<CompiledRule>,
}

impl Entry {
    fn key(&self) -> &PrefixKey {
        &self.rule.rule().prefix_key
    }
}

impl Catalog {
    /// An empty catalogue.
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin, draughtsman: Draughtsman::default(), by_key: BTreeMap::new(), entries: Vec::new() }
    }

    /// Puts a rule in the place of the one that its key had.
    pub(super) fn insert(&mut self, rule: Arc<CompiledRule>) {
        let key = &rule.rule().prefix_key;
        let outline = self.draughtsman.draw(rule.template(), key, self.origin);
        match self.by_key.get(key) {
            Some(&at) => self.entries[at] = Entry { outline, rule },
            None => {
                self.by_key.insert(key.clone(), self.entries.len());
                self.entries.push(Entry { outline, rule });
            }
        }
    }

    /// Takes a rule out.
    pub(super) fn remove(&mut self, key: &PrefixKey) {
        let Some(at) = self.by_key.remove(key) else { return };
        self.entries.swap_remove(at);
        // The last one stands here now.
        if let Some(moved) = self.entries.get(at) {
            self.by_key.insert(moved.key().clone(), at);
        }
    }

    /// The rules above `after`, in key order.
    pub(super) fn after(&self, after: Option<&PrefixKey>) -> impl Iterator<Item = &Arc<CompiledRule>> {
        let from = after.map_or(Unbounded, Excluded);
        self.by_key.range::<PrefixKey, _>((from, Unbounded)).map(|(_, &at)| &self.entries[at].rule)
    }

    /// The rules of other keys that can yield a text that `template` can yield for `key`, each with such a text. Lazy.
    pub(super) fn colliding<'a>(
        &'a self,
        key: &'a PrefixKey,
        template: &'a Template,
    ) -> impl Iterator<Item = (PrefixKey, String)> + 'a {
        let own = Draughtsman::default().draw(template, key, self.origin);
        let near = self.entries.iter().filter(move |entry| entry.outline.may_meet(&own));
        near.filter(move |entry| entry.key() != key).filter_map(move |entry| {
            let other = entry.key();
            let text =
                template.common_text(key.as_str(), entry.rule.template(), other.as_str(), self.origin)?;
            Some((other.clone(), text))
        })
    }
}
