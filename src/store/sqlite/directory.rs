//! The data directory: one process at a time, nobody else reads it.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::OpenError;

const LOCK: &str = "numgen.lock";
/// The database in a data directory.
pub(super) const DATABASE: &str = "numgen.db";

/// A data directory that this process has to itself for as long as the value lives: the kernel lets go of the lock when the
/// process ends, however it ends, so a lock that is granted proves that the previous holder is gone.
#[derive(Debug)]
pub(super) struct Directory {
    database: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory if needed, locks it, and makes the database file.
    ///
    /// # Errors
    ///
    /// `OpenError::AlreadyRunning` when another process holds it, `OpenError::Directory` when it cannot be used.
    pub(super) fn claim(path: &Path) -> Result<Self, OpenError> {
        let refused = |source| OpenError::Directory { path: path.to_owned(), source };
        if !path.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(refused)?;
        }
        let lock = private_file(&path.join(LOCK)).map_err(refused)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::AlreadyRunning { path: path.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(refused(source)),
        }
        // SQLite would make the file readable for everybody; its log and index take the mode from it.
        let database = path.join(DATABASE);
        private_file(&database).map_err(refused)?;
        // SQLite syncs what is in its files, not that there are files.
        File::open(path).and_then(|directory| directory.sync_all()).map_err(refused)?;
        Ok(Self { database, _lock: lock })
    }

    /// Where the database is.
    pub(super) fn database(&self) -> &Path {
        &self.database
    }
}

/// Opens or makes a file that only its owner may read or write.
fn private_file(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}
