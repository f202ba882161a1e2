//! The side of a node: which grants its Redis has, as far as it knows.

use std::collections::VecDeque;

use super::{Grant, GrantId, LASTS_S, LEAST};
use crate::{
    counter::{SequenceValue, ValueRange},
    store::protocol::counter::{Generation, Limits},
};

/// How often a grant is to have room for every segment and the way to them.
const ROOM: u64 = 5;

/// See the module. Empty after a start, and in each generation anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Book {
    generation: Option<Generation>,
    /// Runs of grants that touch, ascending; the first is drawn from.
    runs: VecDeque<ValueRange>,
    /// The last grant.
    latest: Option<Grant>,
    /// The highest value of any grant that was ever heard of.
    highest: SequenceValue,
    /// Nothing is left up to this limit.
    exhausted: Option<SequenceValue>,
}

/// How many values a grant should have for a counter from which `peak` are drawn in a second, by all nodes of the data centre, where
/// `nodes` keep segments of `segment_size`. What is drawn counts, and not how far the cursor goes: that jumps with each grant.
pub fn grant_size(peak: u64, segment_size: u64, nodes: u64) -> u64 {
    let ahead = segment_size.saturating_mul(2).max(peak.saturating_mul(3));
    let segments = segment_size.saturating_mul(nodes.saturating_add(1));
    let lasting = peak.saturating_mul(LASTS_S);
    LEAST.max(lasting).max(ahead.saturating_add(segments).saturating_mul(ROOM))
}

impl Book {
    /// Within which limits a message may draw that speaks of this generation; `None`: it may not.
    pub fn limits(&self, generation: Option<Generation>, rule: Limits) -> Option<Limits> {
        let run = self.runs.front().filter(|_| self.generation.is_some() && self.generation == generation)?;
        let below = SequenceValue(run.from.0.saturating_sub(1));
        Some(Limits { floor: rule.floor.max(below), max: rule.max.min(run.to), ..rule })
    }

    /// Takes in what was granted in a generation. What is of another than the present one is forgotten.
    pub fn enter(&mut self, generation: Generation, grants: &[Grant]) {
        self.begin(generation);
        for grant in grants {
            self.highest = self.highest.max(grant.range.to);
            if self.latest.is_some_and(|latest| grant.id <= latest.id) {
                continue;
            }
            self.latest = Some(*grant);
            match self.runs.back_mut() {
                Some(run) if run.to.0.checked_add(1) == Some(grant.range.from.0) => run.to = grant.range.to,
                _ => self.runs.push_back(grant.range),
            }
        }
    }

    /// Nothing is left up to that limit.
    pub fn note_exhausted(&mut self, generation: Generation, max: SequenceValue) {
        self.begin(generation);
        self.exhausted = Some(max);
    }

    /// The first run is used up, but for what is listed: goes on to the next. Answers whether there is one.
    pub fn turn_page(&mut self) -> bool {
        let is_another = self.runs.len() > 1;
        if is_another {
            self.runs.pop_front();
        }
        is_another
    }

    /// Whether nothing is left up to the limit of the rule.
    pub fn is_exhausted(&self, generation: Option<Generation>, rule: Limits) -> bool {
        generation.is_some()
            && self.generation == generation
            && self.exhausted.is_some_and(|max| max >= rule.max)
    }

    /// Whether another run follows the first.
    pub fn has_next(&self) -> bool {
        self.runs.len() > 1
    }

    /// The cursor of the Redis has come there: runs below it are over.
    pub fn pass(&mut self, cursor: SequenceValue) {
        while self.runs.len() > 1 && self.runs.front().is_some_and(|run| run.to <= cursor) {
            self.runs.pop_front();
        }
    }

    /// Whether it is time to ask for the next grant.
    pub fn is_low(&self, generation: Option<Generation>, cursor: SequenceValue, rule: Limits) -> bool {
        if self.generation != generation || generation.is_none() {
            return generation.is_some();
        }
        if self.is_exhausted(generation, rule) {
            return false;
        }
        let Some(latest) = self.latest else { return true };
        let from = cursor.max(rule.floor);
        let left =
            self.runs.iter().map(|run| run.to.0.saturating_sub(from.0.max(run.from.0 - 1))).sum::<u64>();
        left <= latest.range.count() / 5
    }

    /// Of which generation its grants are.
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// The last grant that was heard of in a generation.
    pub fn latest(&self, generation: Generation) -> Option<GrantId> {
        self.latest.filter(|_| self.generation == Some(generation)).map(|grant| grant.id)
    }

    /// The highest value of any grant that was ever heard of.
    pub fn highest(&self) -> SequenceValue {
        self.highest
    }

    fn begin(&mut self, generation: Generation) {
        if self.generation != Some(generation) {
            *self = Self { generation: Some(generation), highest: self.highest, ..Self::default() };
        }
    }
}
