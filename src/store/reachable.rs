//! Whether a store that lies elsewhere can be asked.

use std::{sync::Arc, time::Duration};

/// Whether a store can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reachable {
    /// Every server that is needed is connected.
    Yes,
    /// A server is away, or must not be used.
    No {
        /// Since when, on [`crate::clock::Clock::monotonic`].
        since: Duration,
        /// Which, and why: one sentence for a person.
        reason: Arc<str>,
    },
}
