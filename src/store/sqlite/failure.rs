//! What can go wrong inside a job, and what a caller is told of it.

use std::sync::Arc;

use rusqlite::ErrorCode;

use super::STORE;
use crate::store::StoreError;

/// Why a job failed. Cheap to clone: one failing commit is the failure of a whole batch.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// SQLite refused: full or read-only disk, I/O error, broken file, violated constraint.
    #[error(transparent)]
    Database(Arc<rusqlite::Error>),
    /// Something stored does not make sense.
    #[error("{0}")]
    Corrupt(String),
    /// The work itself panicked; its changes are rolled back.
    #[error("a job panicked")]
    Panicked,
    /// More work is waiting than the store will ever manage in time.
    #[error("too many operations are waiting")]
    Congested,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl Failure {
    /// The same for a caller.
    pub(super) fn during(self, operation: &'static str) -> StoreError {
        match self {
            Self::Corrupt(what) => StoreError::Corrupt { store: STORE, what },
            Self::Database(error) if is_corruption(&error) => {
                StoreError::Corrupt { store: STORE, what: format!("{error}, during {operation}") }
            }
            Self::Database(error) => {
                StoreError::Unavailable { store: STORE, operation, source: Box::new(error) }
            }
            Self::Panicked | Self::Congested | Self::Closed => {
                StoreError::Unavailable { store: STORE, operation, source: Box::new(self) }
            }
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

/// Whether trying again is pointless: the file is broken, holds a value of the wrong kind, or a constraint that the code
/// keeps was violated all the same. Messages of SQLite name tables and columns, never values.
fn is_corruption(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => matches!(
            code,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation
        ),
        // No code: the failure is one of conversion, not of SQLite.
        None => true,
    }
}
