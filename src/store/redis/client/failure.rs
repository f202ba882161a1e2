//! Why a server cannot be used, and what a caller is told when a call fails.
//!
//! Invariant: `Unavailable` means that the call was certainly not executed, or that the server refused it; whatever was sent
//! and not answered is a `Timeout`. No text shows a login: addresses are printed without it, what servers say is scrubbed.

use std::io;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::{
    config::{Address, InvalidRedisUrl},
    scrub::scrub,
    store::{Refused, StoreError, redis::STORE},
};

/// Why no client can be made of the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none.
    #[error("NUMGEN_REDIS_URL: {0}")]
    Url(#[from] InvalidRedisUrl),
    /// The certificates cannot be read.
    #[error("NUMGEN_REDIS_CA_FILE: no certificates can be read from {path}")]
    Certificates {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The system has no certificates to trust.
    #[error("NUMGEN_REDIS_URL: TLS cannot be set up; install ca-certificates or set NUMGEN_REDIS_CA_FILE")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a server is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Nobody asked yet.
    #[error("not connected yet")]
    New,
    /// The network says no.
    #[error("Redis at {address} cannot be reached: {source}")]
    Unreachable {
        address: Address,
        #[source]
        source: io::Error,
    },
    /// No answer.
    #[error("Redis at {address} does not answer")]
    Silent { address: Address },
    /// The connection was there and is not any more.
    #[error("the connection to Redis at {address} broke")]
    Broken { address: Address },
    /// It answers, but not as it should.
    #[error("Redis at {address} refuses: {said}")]
    Refused { address: Address, said: String },
    /// It is reading its data.
    #[error("Redis at {address} is loading its data")]
    Loading { address: Address },
    /// A server that cannot do what is needed.
    #[error("Redis at {address} has version {version}; 6.2 or later is needed")]
    TooOld { address: Address, version: String },
    /// A server that throws keys away when memory is short.
    #[error(
        "Redis at {address} may evict keys, and numbers would repeat: maxmemory-policy is {policy}; set it by \
         CONFIG SET maxmemory-policy noeviction, and in redis.conf"
    )]
    Evicting { address: Address, policy: String },
    /// Only masters take writes.
    #[error("Redis at {address} is a replica; name its master, or use redis+sentinel://")]
    Replica { address: Address },
    /// Its slots are only a part.
    #[error("Redis at {address} is a node of a cluster; use redis+cluster://")]
    ClusterNode { address: Address },
    /// The sentinels have chosen another.
    #[error("Redis at {address} is not the master any more")]
    Replaced { address: Address },
    /// The sentinels do not know the name.
    #[error("the sentinel at {address} watches no master of the name {master}")]
    Unwatched { address: Address, master: String },
    /// A part of the cluster has no master.
    #[error("slot {slot} of the Redis Cluster has no master")]
    Unowned { slot: u16 },
    /// No cluster there.
    #[error("Redis at {address} is no node of a cluster; use redis://")]
    NoCluster { address: Address },
    /// A cluster of its own, and an empty one.
    #[error(
        "Redis at {address} knows of no slots: its cluster was not made yet, or it is no member of it any more"
    )]
    Slotless { address: Address },
}

impl Refusal {
    /// Whether only a person can change it.
    pub(super) fn needs_a_person(&self) -> bool {
        match self {
            Self::TooOld { .. }
            | Self::Evicting { .. }
            | Self::Replica { .. }
            | Self::ClusterNode { .. }
            | Self::NoCluster { .. }
            | Self::Slotless { .. }
            | Self::Unwatched { .. }
            | Self::Refused { .. } => true,
            Self::New
            | Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Broken { .. }
            | Self::Replaced { .. }
            | Self::Unowned { .. }
            | Self::Loading { .. } => false,
        }
    }

    /// Whether the server does not speak RESP3, or must not say so.
    pub(super) fn is_of_protocol(&self) -> bool {
        let Self::Refused { said, .. } = self else { return false };
        ["NOPROTO", "RESP3", "HELLO", "hello"].iter().any(|word| said.contains(word))
    }

    /// What a failed greeting means.
    pub(super) fn of(address: &Address, error: &RedisError) -> Self {
        let (address, said) = (address.clone(), scrub(&error.to_string()).into_owned());
        if error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading) {
            Self::Loading { address }
        } else if error.is_io_error() {
            Self::Unreachable { address, source: io::Error::other(said) }
        } else {
            Self::Refused { address, said }
        }
    }
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unsent(String);

/// Certainly not executed, because of `reason`.
pub(super) fn unavailable(operation: &'static str, reason: &str) -> StoreError {
    StoreError::Unavailable { store: STORE, operation, source: Box::new(Unsent(reason.to_owned())) }
}

/// Sent, and not answered.
pub(super) fn unknown(operation: &'static str) -> StoreError {
    StoreError::Timeout { store: STORE, operation }
}

/// What an error means that came in place of a reply.
pub(super) fn of_reply(operation: &'static str, error: &RedisError) -> StoreError {
    if is_reply(error) { of_server(operation, error) } else { unknown(operation) }
}

/// Whether the server said so, rather than the connection.
pub(super) fn is_reply(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

fn of_server(operation: &'static str, error: &RedisError) -> StoreError {
    let said = scrub(error.detail().unwrap_or_default()).into_owned();
    match error.code() {
        Some("CORRUPT") => StoreError::Corrupt { store: STORE, what: format!("{said}, during {operation}") },
        code => {
            let said = Refused(format!("{} {said}", code.unwrap_or_default()).trim().to_owned());
            StoreError::Unavailable { store: STORE, operation, source: Box::new(said) }
        }
    }
}

/// The reply is of another kind than the caller expects.
pub(super) fn unexpected(operation: &'static str) -> StoreError {
    StoreError::Corrupt { store: STORE, what: format!("an unexpected reply to {operation}") }
}

/// Whether the server is a replica. Inside a script Redis 6 says so in the middle of its text.
pub(super) fn is_read_only(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
        || error.detail().is_some_and(|said| said.contains("-READONLY"))
}

/// Whether the server said that it did not execute the call, and that waiting or asking elsewhere may help.
pub(super) fn is_for_now(error: &RedisError) -> bool {
    let ErrorKind::Server(kind) = error.kind() else { return is_read_only(error) };
    is_read_only(error)
        || matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::TryAgain
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }

    #[test]
    fn only_a_reply_says_that_nothing_happened() {
        let broken = RedisError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(!is_reply(&broken));
        assert!(matches!(of_reply("take", &broken), StoreError::Timeout { operation: "take", .. }));
        for line in [
            "ERR no such thing",
            "OOM command not allowed",
            "NOREPLICAS Not enough good replicas",
            "NOPERM no",
        ] {
            let error = reply(line);
            assert!(is_reply(&error) && !is_for_now(&error), "{line}");
            let refused = of_reply("take", &error);
            assert_eq!(refused.refusal().map(|refused| &*refused.0), Some(line));
        }
        let corrupt = of_reply("take", &reply("CORRUPT the cursor is a song"));
        assert_eq!(
            corrupt.to_string(),
            "redis holds something that is not understood: the cursor is a song, during take"
        );
    }

    #[test]
    fn what_was_not_executed_may_be_asked_again() {
        for line in [
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write against a read only replica.",
            "CLUSTERDOWN Hash slot not served",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "MASTERDOWN Link with MASTER is down",
        ] {
            assert!(is_for_now(&reply(line)), "{line}");
        }
    }

    #[test]
    fn no_text_shows_a_login() {
        let said = of_reply("take", &reply("ERR cannot reach redis://:canary@host"));
        assert!(!crate::telemetry::fields::chain(&said).contains("canary"));
        let address = Address { host: "h".to_owned(), port: 1 };
        let refusal = Refusal::of(&address, &reply("WRONGPASS for redis://u:canary@h"));
        assert!(!refusal.to_string().contains("canary") && refusal.needs_a_person(), "{refusal}");
        assert!(Refusal::of(&address, &reply("NOPROTO unsupported protocol version")).is_of_protocol());
    }
}
