//! Why there is no window.

use std::{fmt, ops::Range, time::Duration};

use crate::store::StoreError;

/// Why there is no window.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// Somebody else holds every slot.
    #[error("{}", taken(.0))]
    NoSlot(Range<u32>),
    /// The store has just begun, or may have forgotten who holds what; or no replica confirms.
    #[error("the store gives workers another {0:?} to say what they hold, or waits for a replica")]
    Settling(Duration),
    /// The answer came so late that it may no longer be true.
    #[error("the store took too long to answer")]
    TooLate,
    /// The store was used with other IDs.
    #[error(
        "NUMGEN_SNOWFLAKE_LAYOUT, NUMGEN_SNOWFLAKE_EPOCH, NUMGEN_DATACENTER_ID: the store of worker IDs is in use with {recorded}; \
         with {wanted} IDs could repeat. Nodes that share a store share these settings, and each data centre has a store of its own"
    )]
    LayoutDiffers {
        /// What is recorded.
        recorded: String,
        /// What is configured.
        wanted: String,
    },
    /// The operating system gave no random bytes for the nonce.
    #[error("no random bytes from the operating system")]
    Random(#[source] getrandom::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AcquireError {
    /// Whether asking again is of no use.
    pub fn is_final(&self) -> bool {
        match self {
            Self::LayoutDiffers { .. } | Self::Random(_) => true,
            Self::NoSlot(_) | Self::Settling(_) | Self::TooLate | Self::Store(_) => false,
        }
    }
}

/// How a worker stands with its window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds one, and the store has confirmed it lately.
    Held,
    /// The store was not asked yet.
    Starting,
    /// The store was emptied, or has restarted: nobody gets a window for some seconds.
    Settling,
    /// Everybody else holds the others.
    NoSlot(Range<u32>),
    /// The store does not answer. What is held goes on up to its mark.
    Away,
    /// The store answers and does nothing, such as a Redis without the replicas that it should have. As for those who are away.
    Unwilling(String),
    /// The store was used with other IDs.
    Refused(String),
}

impl Standing {
    pub(super) fn after(outcome: &Result<(), AcquireError>) -> Self {
        match outcome {
            Ok(()) => Self::Held,
            Err(AcquireError::NoSlot(slots)) => Self::NoSlot(slots.clone()),
            Err(AcquireError::Settling(_)) => Self::Settling,
            Err(error @ AcquireError::LayoutDiffers { .. }) => Self::Refused(error.to_string()),
            Err(AcquireError::Store(error)) => {
                error.refusal().map_or(Self::Away, |why| Self::Unwilling(why.to_string()))
            }
            Err(AcquireError::TooLate | AcquireError::Random(_)) => Self::Away,
        }
    }
}

/// One phrase, for `/readyz`.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("ok"),
            Self::Starting => f.write_str("starting"),
            Self::Settling => {
                f.write_str("the store settles, which takes 5 s after it was emptied or has restarted")
            }
            Self::NoSlot(slots) => f.write_str(&taken(slots)),
            Self::Away => f.write_str("the store of worker IDs does not answer"),
            Self::Unwilling(why) => write!(f, "the store of worker IDs refuses: {why}"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

fn taken(slots: &Range<u32>) -> String {
    match slots.len() {
        1 => format!("worker ID {} is taken by another node (NUMGEN_WORKER_ID)", slots.start),
        count => format!(
            "all {count} worker IDs are taken; NUMGEN_SNOWFLAKE_LAYOUT sets how many there are (2 to the power of its third number)"
        ),
    }
}
