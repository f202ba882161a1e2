//! Temporary numbers: what a continuous rule gives while its counter cannot be reached, and what becomes of them.
//!
//! Invariants:
//!
//! 1. A temporary number is journaled before it is answered, and never made twice ([`crate::store::TemporaryNumber`]).
//! 2. Only an order without an idempotency key gets one: a caller with a key asked for exactly-once, and may have been served by
//!    the call that was not answered.
//! 3. A batch is temporary as a whole.
//! 4. A temporary number gets at most one final number: the draw is claimed under a key that follows from the temporary number
//!    ([`claim_key`]), so whoever repeats it gets the same value.
//!
//! Order: [`Issuer`], then `resolve` (what a person makes of them) and `handover` (how other nodes learn of them).

mod handover;
mod resolve;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use handover::Handover;
pub use resolve::{Listed, ResolveError, Resolver};

use super::{IssueError, Issued, Order, Source};
use crate::{
    clock::UnixMillis,
    config::NodeName,
    rule::{Mode, OnOutage},
    store::{Fate, Journal, Making, Stamp, StoreError, TemporaryNumber, TemporaryRow},
};

/// No idempotency key of a caller begins so: those have no spaces.
const CLAIM: &str = "temporary ";

/// How long a claim on a final number is kept, in place of `NUMGEN_IDEMPOTENCY_TTL`: an assignment that a crash interrupted may
/// be finished at any time.
pub(super) const CLAIM_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The idempotency key under which the final number of a temporary one is drawn; no caller can send it.
pub fn claim_key(number: &TemporaryNumber) -> Arc<str> {
    format!("{CLAIM}{number}").into()
}

/// Whether an idempotency key is one of [`claim_key`].
pub(super) fn is_claim(key: &str) -> bool {
    key.starts_with(CLAIM)
}

/// Makes temporary numbers.
pub struct Issuer {
    journal: Arc<dyn Journal>,
    node: NodeName,
    making: Making,
    last: Mutex<Option<Stamp>>,
}

impl Issuer {
    /// Goes on above what the journal holds.
    ///
    /// # Errors
    ///
    /// The journal cannot be read, or the system gives no random bits.
    pub async fn start(journal: Arc<dyn Journal>, node: NodeName) -> Result<Self, StoreError> {
        let last = journal.last_stamp().await?;
        let mut bits = [0; 4];
        getrandom::fill(&mut bits).map_err(|source| StoreError::Unavailable {
            store: "journal",
            operation: "start",
            source: Box::new(source),
        })?;
        let making = Making::new(u32::from_ne_bytes(bits));
        Ok(Self { journal, node, making, last: Mutex::new(last) })
    }

    /// Whether an order that its store did not serve for this reason gets temporary numbers.
    pub(super) fn stands_in(order: &Order<'_>, error: &IssueError) -> bool {
        let wanted = order.rule.mode == Mode::Continuous
            && order.rule.on_outage == OnOutage::Temporary
            && order.idempotency_key.is_none();
        wanted && is_away(error)
    }

    /// Temporary numbers for the whole order, journaled.
    pub(super) async fn issue<'a>(&self, order: &Order<'_>) -> Result<Issued<'a>, IssueError> {
        let first = self.stamps(order.now, order.count);
        let row = |index: u32| TemporaryRow {
            number: TemporaryNumber::new(
                &order.rule.prefix_key,
                &self.node,
                Stamp(first.0 + u64::from(index)),
                self.making,
            ),
            created_at: order.now,
            subject: Arc::clone(order.subject),
            date: order.date,
            fate: Fate::Open,
            revision: 0,
        };
        let rows: Vec<TemporaryRow> = (0..order.count).map(row).collect();
        let numbers = rows.iter().map(|row| row.number.to_string()).collect();
        self.journal.append(rows).await?;
        Ok(Issued::written(numbers, Source::Temporary))
    }

    /// Takes `count` stamps; what is not journaled in the end is left out.
    fn stamps(&self, now: UnixMillis, count: u32) -> Stamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let first = Stamp::after(*last, now);
        *last = Some(Stamp(first.0 + u64::from(count.max(1)) - 1));
        first
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Whether the store did not answer, as opposed to refusing.
fn is_away(error: &IssueError) -> bool {
    match error {
        IssueError::Timeout => true,
        IssueError::Store(error) | IssueError::KeysAway(error) => is_unreachable(error),
        IssueError::Unbridged { .. } => true,
        IssueError::Overflow { .. }
        | IssueError::TimeExhausted
        | IssueError::NoWindow
        | IssueError::Busy(_)
        | IssueError::IdempotencyMismatch
        | IssueError::Random(_)
        | IssueError::Internal(_) => false,
    }
}

/// Whether a store did not answer.
pub(super) fn is_unreachable(error: &StoreError) -> bool {
    match error {
        StoreError::Timeout { .. } | StoreError::Unavailable { .. } => true,
        StoreError::Superseded { .. } | StoreError::Suspended { .. } | StoreError::Corrupt { .. } => false,
    }
}
