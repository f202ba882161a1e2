//! Label values that callers choose: so many have a series of their own, by arrival; the rest share one.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

/// What the rest share.
pub(super) const OTHER: &str = "other";

/// The values of one label.
pub(super) struct Bounded {
    limit: usize,
    known: RwLock<HashSet<String>>,
}

impl Bounded {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, known: RwLock::default() }
    }

    /// The label value of `text`: itself, or [`OTHER`]. The same at every call.
    pub(super) fn label<'a>(&self, text: &'a str) -> &'a str {
        if self.known.read().unwrap_or_else(PoisonError::into_inner).contains(text) {
            return text;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < self.limit {
            known.insert(text.to_owned());
        }
        if known.contains(text) { text } else { OTHER }
    }
}
