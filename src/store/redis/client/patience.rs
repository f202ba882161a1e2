//! How long a caller waits for a Redis that is known to be away.

use std::time::Duration;

use super::{Client, Reachable, failure};
use crate::store::StoreError;

/// A connection that was lost is waited for so long: a failover of the network, a quick restart, the start of this process.
const BLIP: Duration = Duration::from_secs(1);

/// A server that has been away for longer is waited for no longer than this: it may come back at this very moment.
const MOMENT: Duration = Duration::from_millis(250);

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
        let away_for = match &*shared.reachable.borrow() {
            Reachable::Yes => Duration::ZERO,
            Reachable::No { since, .. } => shared.clock.monotonic().saturating_sub(*since),
        };
        let wait = patience(away_for).min(shared.timeout);
        if tokio::time::timeout(wait, shared.route.ready(key.as_bytes())).await.is_ok() {
            return Ok(());
        }
        let reason = shared.route.why_not(key.as_bytes()).map(|refusal| refusal.to_string());
        let away = failure::unavailable(operation, reason.as_deref().unwrap_or("no connection"));
        shared.calls.counted(super::STORE, operation, Err(away))
    }
}

fn patience(away_for: Duration) -> Duration {
    BLIP.saturating_sub(away_for).max(MOMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blip_is_waited_for_and_an_outage_is_not() {
        for (away_ms, wait_ms) in [(0, 1_000), (400, 600), (750, 250), (1_000, 250), (3_600_000, 250)] {
            assert_eq!(patience(Duration::from_millis(away_ms)), Duration::from_millis(wait_ms), "{away_ms}");
        }
    }
}
