//! How many files this process may have open: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is open besides connections: stores, data directory, event queues; with room to spare.
const OTHERS: u64 = 256;

/// Raises the soft limit to what `connections` need, as far as the hard limit goes. Many systems start programs with a soft limit of
/// 1,024, so that old ones that use `select` do not break; this is none of them.
///
/// # Errors
///
/// [`TooFewDescriptors`] where the hard limit does not go far enough.
pub fn allow_connections(connections: usize) -> Result<(), TooFewDescriptors> {
    let needed = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit.
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let wanted = maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok();
    let allowed = if raised { wanted } else { current.unwrap_or(wanted) };
    if allowed >= needed { Ok(()) } else { Err(TooFewDescriptors { needed, allowed }) }
}

/// Connections that are allowed by the settings will be refused by the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "so many connections need {needed} open files, and the operating system allows {allowed} (ulimit -Hn)"
)]
pub struct TooFewDescriptors {
    /// How many would do.
    pub needed: u64,
    /// How many there may be.
    pub allowed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_anyway_needs_nothing_and_the_impossible_is_told() {
        assert_eq!(allow_connections(1), Ok(()));
        if getrlimit(Resource::Nofile).maximum.is_some() {
            let refused = allow_connections(usize::MAX).expect_err("nobody allows that");
            assert!(refused.to_string().contains("ulimit"), "{refused}");
        }
    }
}
