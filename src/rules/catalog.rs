//! The rules in force in key order, and a quick way to those that can yield the same text.
//!
//! Two formats share a text only if the fixed text at their starts is the same as far as both go, and likewise at their ends.
//! So candidates are found by their start in an ordered map, and only they are compared in full.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

use super::compiled::CompiledRule;
use crate::{
    prefix_key::PrefixKey,
    template::{Origin, Template},
};

/// Every rule in force.
#[derive(Default)]
pub(super) struct Catalog {
    by_key: BTreeMap<PrefixKey, Arc<CompiledRule>>,
    /// By the fixed text at the start.
    by_start: BTreeMap<Box<str>, Vec<Entry>>,
}

struct Entry {
    end: Box<str>,
    rule: Arc<CompiledRule>,
}

impl Entry {
    fn key(&self) -> &PrefixKey {
        &self.rule.rule().prefix_key
    }
}

impl Catalog {
    /// Puts a rule in the place of the one that its key had.
    pub(super) fn insert(&mut self, rule: Arc<CompiledRule>) {
        let key = rule.rule().prefix_key.clone();
        self.remove(&key);
        let Edges { start, end } = Edges::of(rule.template(), &key);
        let entry = Entry { end: end.into(), rule: Arc::clone(&rule) };
        self.by_start.entry(start.into()).or_default().push(entry);
        self.by_key.insert(key, rule);
    }

    /// Takes a rule out.
    pub(super) fn remove(&mut self, key: &PrefixKey) {
        let Some(rule) = self.by_key.remove(key) else { return };
        let start = Edges::of(rule.template(), key).start;
        if let Some(group) = self.by_start.get_mut(&*start) {
            group.retain(|entry| entry.key() != key);
            if group.is_empty() {
                self.by_start.remove(&*start);
            }
        }
    }

    /// The rules above `after`, in key order.
    pub(super) fn after(&self, after: Option<&PrefixKey>) -> impl Iterator<Item = &Arc<CompiledRule>> {
        let from = after.map_or(Unbounded, Excluded);
        self.by_key.range::<PrefixKey, _>((from, Unbounded)).map(|(_, rule)| rule)
    }

    /// The rules of other keys that can yield a text that `template` can yield for `key`, each with such a text. Lazy.
    pub(super) fn colliding<'a>(
        &'a self,
        key: &'a PrefixKey,
        template: &'a Template,
        origin: Origin,
    ) -> impl Iterator<Item = (PrefixKey, String)> + 'a {
        let own = Edges::of(template, key);
        self.starting_like(own.start).filter_map(move |entry| {
            let other = entry.key();
            let may_end_alike = entry.end.ends_with(&own.end) || own.end.ends_with(&*entry.end);
            if other == key || !may_end_alike {
                return None;
            }
            let text = template.common_text(key.as_str(), entry.rule.template(), other.as_str(), origin)?;
            Some((other.clone(), text))
        })
    }

    /// Entries whose start is the beginning of `start`, or begins with it.
    fn starting_like(&self, start: String) -> impl Iterator<Item = &Entry> {
        let beginnings = (0..start.len()).filter_map(|end| start.get(..end));
        let shorter: Vec<_> = beginnings.filter_map(|beginning| self.by_start.get(beginning)).collect();
        let longer = self.by_start.range::<str, _>((Included(&*start), Unbounded));
        let longer = longer.take_while(move |(other, _)| other.starts_with(&start)).map(|(_, group)| group);
        shorter.into_iter().chain(longer).flatten()
    }
}

/// The fixed text at the two ends of every number of a rule.
#[derive(Debug, PartialEq, Eq)]
struct Edges {
    start: String,
    end: String,
}

impl Edges {
    /// Reads them off the format, which is known to be valid. Anything in braces but `{prefix}` counts as variable.
    fn of(template: &Template, key: &PrefixKey) -> Self {
        let (mut start, mut fixed) = (None, String::new());
        let mut rest = template.text();
        while let Some(next) = rest.chars().next() {
            let variable = rest.strip_prefix('{').filter(|inside| !inside.starts_with('{'));
            if let Some((name, after)) = variable.and_then(|inside| inside.split_once('}')) {
                if name.eq_ignore_ascii_case("prefix") {
                    fixed.push_str(key.as_str());
                } else {
                    let before = std::mem::take(&mut fixed);
                    start.get_or_insert(before);
                }
                rest = after;
            } else {
                fixed.push(next);
                let doubled = usize::from(matches!(next, '{' | '}'));
                rest = &rest[next.len_utf8() + doubled..];
            }
        }
        Self { start: start.unwrap_or_default(), end: fixed }
    }
}
