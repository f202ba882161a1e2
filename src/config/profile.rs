//! Which URL is configured decides what is kept where.

use std::fmt;

use super::{Config, Storage};

/// What a configuration amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Everything in the data directory.
    Embedded,
    /// What nodes share is in Redis.
    Redis,
    /// What nodes share is in PostgreSQL.
    Postgres,
    /// What must never be forgotten is in PostgreSQL, and Redis is the fast path.
    Full,
}

impl Config {
    /// What this configuration amounts to.
    pub fn profile(&self) -> Profile {
        self.storage.profile()
    }
}

impl Storage {
    pub(super) fn profile(&self) -> Profile {
        match (&self.database_url, &self.redis_url) {
            (Some(_), Some(_)) => Profile::Full,
            (Some(_), None) => Profile::Postgres,
            (None, Some(_)) => Profile::Redis,
            (None, None) => Profile::Embedded,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Full => "full",
        })
    }
}
