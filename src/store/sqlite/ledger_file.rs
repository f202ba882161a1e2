//! The ledgers in a data directory, read without changing it, also while a service runs on it: for an auditor.

use std::{io, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};

use super::{
    OpenError, directory,
    ledger::{certificate, verify},
    values,
    workspace::collect,
};
use crate::{
    calendar::Period,
    counter::Counter,
    prefix_key::PrefixKey,
    store::{Certificate, StoreError, Verification},
};

/// A connection that cannot write.
#[derive(Debug)]
pub struct LedgerFile {
    connection: Connection,
}

impl LedgerFile {
    /// Opens the database in `data_dir`; a write that is under way is waited for up to `patience`.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be read.
    pub fn open(data_dir: &Path, patience: Duration) -> Result<Self, OpenError> {
        let path = data_dir.join(directory::DATABASE);
        if !path.exists() {
            let source = io::Error::new(io::ErrorKind::NotFound, "there is no database in it");
            return Err(OpenError::Directory { path: data_dir.to_owned(), source });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(patience)?;
        Ok(Self { connection })
    }

    /// The periods in which a prefix key has a ledger, in their order: those with rows, and those of which the counter remembers some.
    ///
    /// # Errors
    ///
    /// As [`Self::verify`].
    pub fn periods(&self, key: &PrefixKey) -> Result<Vec<Period>, StoreError> {
        const PERIODS: &str =
            "SELECT period FROM counters WHERE prefix_key = ?1 AND (run_first IS NOT NULL OR events > 0)
            UNION SELECT DISTINCT period FROM ledger WHERE prefix_key = ?1 ORDER BY period";
        let periods = collect(&self.connection, PERIODS, [key.as_str()], values::period);
        periods.map_err(|failure| failure.during("periods"))
    }

    /// As [`LedgerStore::verify`](crate::store::LedgerStore::verify).
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn verify(&self, counter: &Counter) -> Result<Verification, StoreError> {
        verify(&self.connection, counter).map_err(|failure| failure.during("verify"))
    }

    /// As [`LedgerStore::certificate`](crate::store::LedgerStore::certificate).
    ///
    /// # Errors
    ///
    /// As [`Self::verify`].
    pub fn certificate(&self, counter: &Counter) -> Result<Option<Certificate>, StoreError> {
        certificate(&self.connection, counter).map_err(|failure| failure.during("certificate"))
    }
}
