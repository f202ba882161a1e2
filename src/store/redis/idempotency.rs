//! Idempotency keys on Redis: the same key gives the same numbers, whichever node, period or mode it comes back to.
//!
//! A counter records a key in the step that draws for it. A key may come back when the period has changed, or the mode, and meet
//! another counter, in another slot of a cluster. So there is a *pin* before the draw: it says which counter a key draws
//! from, or holds the values that were drawn elsewhere (snowflake).
//!
//! Invariant: a key is drawn for on the counter that its pin names, under the turn that it names, or nowhere. A pin moves only
//! after its counter has said that nothing was drawn under the key and, in the same step, that nothing will be up to that
//! turn ([`Authority::settle`](crate::store::protocol::counter::Authority::settle)); a TAKE that comes late finds its turn void.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    RedisStore, STORE,
    client::{Arg, Script},
    counters::RedisAuthority,
};
use crate::{
    clock::UnixMillis,
    counter::{Counter, Ranges, ValueRange},
    store::{
        Claim, IdempotencyStore, Recorded, StoreError, StoreFuture, Taken,
        counters::{PinOutcome, hex, key_of},
        protocol::counter::Settled,
    },
};

static PIN: Script = Script::new("pin", include_str!("pin.lua"));

/// How much longer a pin is kept than what it leads to, in ms: it outlives a turn that was made void.
const PIN_OUTLIVES_MS: u64 = 60_000;

/// A century: Redis refuses what does not fit its arithmetic.
const LONGEST_MS: u64 = 100 * 365 * 86_400_000;

impl RedisAuthority {
    /// Says whether a key may be drawn for on `counter`, and pins it there. `moved` is the turn of an earlier outcome that TAKE
    /// answered with [`ClaimAnswer::Moved`](crate::store::protocol::counter::ClaimAnswer::Moved).
    ///
    /// # Errors
    ///
    /// As [`Client::run`](super::client::Client::run); nothing was drawn.
    pub async fn resolve_pin(
        &self,
        claim: &Claim,
        counter: &Counter,
        moved: Option<u64>,
        deadline: Duration,
    ) -> Result<PinOutcome, StoreError> {
        let (on, moved) = (counter.to_string(), moved.unwrap_or(0));
        let wish = Wish { kind: "C", content: &on, moved };
        Ok(match place(self, claim, wish, deadline).await? {
            Placed::Here { turn } => PinOutcome::Draw { turn },
            Placed::Used { fingerprint, recorded } if fingerprint == hex(&claim.fingerprint) => {
                PinOutcome::Recorded(recorded)
            }
            Placed::Used { .. } => PinOutcome::Mismatch,
            Placed::Kept => return Err(unexpected()),
        })
    }
}

impl IdempotencyStore for RedisStore {
    fn remember(&self, claim: Claim, values: Ranges) -> StoreFuture<'_, Taken> {
        Box::pin(async move {
            let fingerprint = hex(&claim.fingerprint);
            let content = format!("{} {fingerprint} {values} {}", claim.expires_at.0, claim.stamp);
            let wish = Wish { kind: "S", content: &content, moved: 0 };
            let authority = RedisAuthority::new(self.client.clone());
            self.client.at_hand(PIN.name, &format!("numgen:key:{}", key_of(&claim))).await?;
            Ok(match place(&authority, &claim, wish, self.timeout).await? {
                Placed::Kept => Taken::Fresh(values),
                Placed::Used { fingerprint: used_for, recorded } if used_for == fingerprint => {
                    Taken::Replayed(recorded)
                }
                Placed::Used { .. } => Taken::Mismatch,
                Placed::Here { .. } => return Err(unexpected()),
            })
        })
    }

    /// Redis forgets by itself.
    fn forget_expired(&self, _now: UnixMillis) -> StoreFuture<'_, u64> {
        Box::pin(async { Ok(0) })
    }
}

/// Where a key should be pinned.
#[derive(Clone, Copy)]
struct Wish<'a> {
    /// As the script has it.
    kind: &'static str,
    content: &'a str,
    moved: u64,
}

/// Where it is pinned.
enum Placed {
    /// To the counter that was wished for.
    Here { turn: u64 },
    /// To the values that were brought.
    Kept,
    /// The key was used before.
    Used { fingerprint: String, recorded: Recorded },
}

/// Pins a key as it is wished, unless it was used.
async fn place(
    authority: &RedisAuthority,
    claim: &Claim,
    wish: Wish<'_>,
    deadline: Duration,
) -> Result<Placed, StoreError> {
    let until = Instant::now() + deadline;
    let key = key_of(claim);
    let keys = [format!("numgen:key:{key}")];
    let (claimed_at, lifetime) = (claim.claimed_at.0.to_string(), lifetime_ms(claim));
    let pin_lifetime = (lifetime + PIN_OUTLIVES_MS).to_string();
    let moved = wish.moved.to_string();
    let mut void = String::new();
    // Others may move the pin meanwhile: then what was learnt of it is worth nothing.
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let args: Vec<Arg<'_>> = [&void, &claimed_at, &pin_lifetime]
            .map(Arg::from)
            .into_iter()
            .chain([Arg::from(wish.kind), Arg::from(wish.content), Arg::from(&moved)])
            .collect();
        let reply: Vec<String> = authority.client().run(&PIN, &keys, &args, left).await?;
        let texts: Vec<&str> = reply.iter().map(String::as_str).collect();
        match texts.as_slice() {
            ["here", turn] => {
                return Ok(Placed::Here { turn: turn.parse().map_err(|_| unexpected())? });
            }
            ["fresh"] => return Ok(Placed::Kept),
            ["recorded", fingerprint, values, stamp] => {
                let values: Ranges = values.parse().map_err(|_| unexpected())?;
                let recorded = Recorded { stamp: (*stamp).into(), values };
                return Ok(Placed::Used { fingerprint: (*fingerprint).to_owned(), recorded });
            }
            ["elsewhere", pin, turn, counter] => {
                let turn = turn.parse().map_err(|_| unexpected())?;
                let left = until.saturating_duration_since(Instant::now());
                let remember = Duration::from_millis(lifetime);
                let settled = authority.settle(counter, &key, turn, claim.claimed_at, remember, left).await?;
                match settled {
                    Settled::Drawn(record) => {
                        let values = ranges_of(&record.values);
                        let recorded = Recorded { stamp: record.stamp.into(), values };
                        return Ok(Placed::Used { fingerprint: record.fingerprint, recorded });
                    }
                    Settled::Void => void = (*pin).to_owned(),
                }
            }
            _ => return Err(unexpected()),
        }
    }
}

fn lifetime_ms(claim: &Claim) -> u64 {
    let lifetime = claim.expires_at.0.saturating_sub(claim.claimed_at.0);
    u64::try_from(lifetime).unwrap_or(0).clamp(1, LONGEST_MS)
}

fn ranges_of(values: &[ValueRange]) -> Ranges {
    let mut ranges = Ranges::new();
    values.iter().for_each(|range| ranges.push(*range));
    ranges
}

fn unexpected() -> StoreError {
    StoreError::Corrupt { store: STORE, what: format!("an unexpected reply to {}", PIN.name) }
}
