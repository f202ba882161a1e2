//! The counters that each mode draws on.
//!
//! Some stores keep continuous and strict counters as one, so that a change of mode goes on where it was; others keep two books. Then
//! the same counter has two cursors, and a rule that changes its mode changes its counters as by a change of reset. Who looks at
//! them is shown one counter all the same: see `joint.rs`.

use std::{fmt, sync::Arc};

use super::{CounterState, CounterStore, StoreError, joint::join_all};
use crate::{counter::SequenceValue, prefix_key::PrefixKey, rule::Mode};

/// Whether the modes share their counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Books {
    /// A change of mode keeps the cursor.
    One,
    /// Continuous and strict counters know nothing of each other.
    Two,
}

/// Which counters the rules of a prefix key have drawn from so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// Those of the rule in force.
    Same,
    /// Others before them: in the other book, perhaps.
    Others,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct CountersByMode {
    continuous: Arc<dyn CounterStore>,
    strict: Option<Arc<dyn CounterStore>>,
}

impl CountersByMode {
    /// Both modes draw on the same counters.
    pub fn one(counters: Arc<dyn CounterStore>) -> Self {
        Self { continuous: counters, strict: None }
    }

    /// Each mode has counters of its own.
    pub fn two(continuous: Arc<dyn CounterStore>, strict: Arc<dyn CounterStore>) -> Self {
        Self { continuous, strict: Some(strict) }
    }

    /// Whether the modes share their counters.
    pub fn books(&self) -> Books {
        if self.strict.is_some() { Books::Two } else { Books::One }
    }

    /// The counters of a mode; snowflakes have none, and are answered with those that they would have as continuous numbers.
    pub fn of(&self, mode: Mode) -> &Arc<dyn CounterStore> {
        match (mode, &self.strict) {
            (Mode::Strict, Some(strict)) => strict,
            (Mode::Strict, None) | (Mode::Continuous | Mode::Snowflake, _) => &self.continuous,
        }
    }

    /// Every counter of a prefix key as an operator sees it: what was issued in either book is issued, and no hole of the other. Where
    /// nobody can have drawn in the other book, it is not asked.
    ///
    /// # Errors
    ///
    /// The store's. What is not known of one book cannot be said of the other.
    pub async fn shown(
        &self,
        key: &PrefixKey,
        mode: Mode,
        past: Past,
    ) -> Result<Vec<CounterState>, StoreError> {
        let in_force = self.of(mode);
        let Some(strict) = self.strict.as_ref().filter(|_| past == Past::Others) else {
            return in_force.counters(key).await;
        };
        // The book in force is read last: whatever the other one may have passed of it was drawn before.
        let (continuous, ledger) = match mode {
            Mode::Strict => {
                let continuous = self.continuous.accounts(key).await?;
                (continuous, in_force.counters(key).await?)
            }
            Mode::Continuous | Mode::Snowflake => {
                let ledger = strict.counters(key).await?;
                (in_force.accounts(key).await?, ledger)
            }
        };
        Ok(join_all(continuous, ledger))
    }

    /// Every counter of a prefix key in every book.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn all(&self, key: &PrefixKey) -> Result<Vec<CounterState>, StoreError> {
        let mut counters = self.continuous.counters(key).await?;
        if let Some(strict) = &self.strict {
            counters.extend(strict.counters(key).await?);
        }
        Ok(counters)
    }

    /// As [`CounterStore::retire`], in every book.
    ///
    /// # Errors
    ///
    /// The store's; some counters may have been retired then.
    pub async fn retire(&self, key: &PrefixKey, scheme: u64) -> Result<SequenceValue, StoreError> {
        let mut highest = self.continuous.retire(key, scheme).await?;
        if let Some(strict) = &self.strict {
            highest = highest.max(strict.retire(key, scheme).await?);
        }
        Ok(highest)
    }
}

impl<S: CounterStore> From<Arc<S>> for CountersByMode {
    fn from(counters: Arc<S>) -> Self {
        Self::one(counters)
    }
}

impl fmt::Debug for CountersByMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountersByMode").field("books", &self.books()).finish_non_exhaustive()
    }
}
