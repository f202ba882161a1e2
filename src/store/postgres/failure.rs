//! What can go wrong in a transaction, and what a caller is told of it.
//!
//! Invariant: `Unavailable` means that nothing happened. What ended between the sending of COMMIT and its answer is a `Timeout`: nobody
//! knows. No text shows a login or a value: what the server says is scrubbed, its details are left out.

use crate::{scrub::scrub, store::StoreError};

use super::STORE;

/// Why work inside a transaction failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The driver, the network or the server.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The answer of the call, whatever the database does: the transaction is rolled back.
    #[error(transparent)]
    Final(#[from] StoreError),
    /// Another transaction has meanwhile done what this one was about to: it begins again.
    #[error("overtaken by another transaction")]
    Overtaken,
}

impl Failure {
    /// Something stored does not make sense.
    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Final(StoreError::Corrupt { store: STORE, what: what.into() })
    }
}

/// What a failure means before COMMIT was sent: the transaction is rolled back for certain.
#[derive(Debug)]
pub(super) enum Meaning {
    /// The transaction stood in the way of another: again at once.
    Conflict(StoreError),
    /// The connection is gone, or the server does not take this call now: again on another connection.
    Lost(StoreError),
    /// Trying again is pointless.
    Final(StoreError),
}

impl Meaning {
    /// What a caller is told who does not try again.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Conflict(error) | Self::Lost(error) | Self::Final(error) => error,
        }
    }
}

/// SQLSTATE classes and codes, PostgreSQL manual, appendix A.
mod state {
    pub(super) const CONNECTION: &str = "08";
    pub(super) const CONSTRAINT: &str = "23";
    pub(super) const SERIALIZATION_FAILURE: &str = "40001";
    pub(super) const DEADLOCK: &str = "40P01";
    pub(super) const READ_ONLY: &str = "25006";
    pub(super) const IDLE_IN_TRANSACTION: &str = "25P03";
    pub(super) const TOO_MANY_CONNECTIONS: &str = "53300";
    pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";
    pub(super) const QUERY_CANCELLED: &str = "57014";
    pub(super) const SHUTDOWN: &str = "57P";
    pub(super) const UNDEFINED_TABLE: &str = "42P01";
    pub(super) const DAMAGED: &str = "XX001";
    pub(super) const DAMAGED_INDEX: &str = "XX002";
}

/// What a failure before COMMIT means.
pub(super) fn meaning(operation: &'static str, failure: Failure) -> Meaning {
    let error = match failure {
        Failure::Final(error) => return Meaning::Final(error),
        Failure::Overtaken => return Meaning::Conflict(unavailable(operation, &failure.to_string())),
        Failure::Database(error) => error,
    };
    let away = || unavailable(operation, &said(&error));
    let Some(code) = code(&error) else {
        return if is_of_stored_values(&error) {
            Meaning::Final(StoreError::Corrupt { store: STORE, what: format!("{error}, during {operation}") })
        } else {
            Meaning::Lost(away())
        };
    };
    match &*code {
        state::SERIALIZATION_FAILURE | state::DEADLOCK => Meaning::Conflict(away()),
        state::QUERY_CANCELLED | state::LOCK_NOT_AVAILABLE | state::IDLE_IN_TRANSACTION => {
            Meaning::Final(unknown(operation))
        }
        // A standby: the connections lead to the server that was the primary.
        state::READ_ONLY | state::TOO_MANY_CONNECTIONS => Meaning::Lost(away()),
        state::DAMAGED | state::DAMAGED_INDEX | state::UNDEFINED_TABLE => {
            Meaning::Final(StoreError::Corrupt {
                store: STORE,
                what: format!("{}, during {operation}", said(&error)),
            })
        }
        code if code.starts_with(state::CONNECTION) || code.starts_with(state::SHUTDOWN) => {
            Meaning::Lost(away())
        }
        code if code.starts_with(state::CONSTRAINT) => Meaning::Final(StoreError::Corrupt {
            store: STORE,
            what: format!("{}, during {operation}", said(&error)),
        }),
        _ => Meaning::Final(away()),
    }
}

/// What a failure of COMMIT means. Only what the server says of the transaction itself tells that it was rolled back: that it goes
/// away, it may say after the commit.
pub(super) fn meaning_of_commit(operation: &'static str, error: sqlx::Error) -> Meaning {
    let decided = code(&error)
        .is_some_and(|code| [state::CONSTRAINT, "25", "40"].iter().any(|class| code.starts_with(class)));
    if decided { meaning(operation, error.into()) } else { Meaning::Final(unknown(operation)) }
}

/// Whether a statement that is a transaction of its own was rolled back for certain: the server says so of the statement, not of itself.
pub(super) fn rolled_back(error: &sqlx::Error) -> bool {
    let classes = ["22", state::CONSTRAINT, "25", "40", "42", "53", "54", state::LOCK_NOT_AVAILABLE];
    code(error).is_some_and(|code| {
        code == state::QUERY_CANCELLED || classes.iter().any(|class| code.starts_with(class))
    })
}

/// Not executed.
pub(super) fn unavailable(operation: &'static str, why: &str) -> StoreError {
    StoreError::Unavailable { store: STORE, operation, source: why.to_owned().into() }
}

/// Not answered in time, or nobody knows whether it happened.
pub(super) fn unknown(operation: &'static str) -> StoreError {
    StoreError::Timeout { store: STORE, operation }
}

/// The SQLSTATE, where the server itself said what is wrong.
pub(super) fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(Into::into)
}

/// The failure as a sentence for a person, without secrets.
pub(super) fn said(error: &sqlx::Error) -> String {
    let text = if let Some(database) = error.as_database_error() {
        format!("{} ({})", database.message(), database.code().unwrap_or_default())
    } else if let sqlx::Error::Io(source) = error {
        source.to_string()
    } else {
        error.to_string()
    };
    scrub(&text).into_owned()
}

/// Whether what was read is of another kind than the code expects.
fn is_of_stored_values(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::RowNotFound
            | sqlx::Error::Encode(_)
            | sqlx::Error::TypeNotFound { .. }
    )
}
