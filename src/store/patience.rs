//! How long a caller waits for a store that is known to be away.

use std::time::Duration;

use super::Reachable;
use crate::clock::Clock;

/// A connection that was lost is waited for so long: a failover of the network, a quick restart, the start of this process.
const BLIP: Duration = Duration::from_secs(1);

/// A store that has been away for longer is waited for no longer than this: it may come back at this very moment.
const MOMENT: Duration = Duration::from_millis(250);

/// How long a call may wait for a store to come back.
pub(super) fn patience(reachable: &Reachable, clock: &dyn Clock) -> Duration {
    let away_for = match reachable {
        Reachable::Yes => Duration::ZERO,
        Reachable::No { since, .. } => clock.monotonic().saturating_sub(*since),
    };
    with(away_for)
}

fn with(away_for: Duration) -> Duration {
    BLIP.saturating_sub(away_for).max(MOMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blip_is_waited_for_and_an_outage_is_not() {
        for (away_ms, wait_ms) in [(0, 1_000), (400, 600), (750, 250), (1_000, 250), (3_600_000, 250)] {
            assert_eq!(with(Duration::from_millis(away_ms)), Duration::from_millis(wait_ms), "{away_ms}");
        }
    }
}
