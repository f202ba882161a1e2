//! How long a caller waits for a Redis that is known to be away.

use std::future::ready;

use super::{Client, failure};
use crate::store::{StoreError, patience::patience};

impl Client {
    /// Whether the server of this key is there, for a call whose caller is better told at once that it is not. Waits for a
    /// connection that was lost a moment ago.
    ///
    /// # Errors
    ///
    /// `Unavailable`: it is away, and nothing was sent.
    pub async fn at_hand(&self, operation: &'static str, key: &str) -> Result<(), StoreError> {
        let shared = &self.shared;
        if shared.route.why_not(key.as_bytes()).is_none() {
            return Ok(());
        }
        let wait = patience(&shared.reachable.borrow(), &*shared.clock).min(shared.timeout);
        if tokio::time::timeout(wait, shared.route.ready(key.as_bytes())).await.is_ok() {
            return Ok(());
        }
        let reason = shared.route.why_not(key.as_bytes()).map(|refusal| refusal.to_string());
        let away = failure::unavailable(operation, reason.as_deref().unwrap_or("no connection"));
        shared.calls.timed(super::STORE, operation, ready(Err(away))).await
    }
}
