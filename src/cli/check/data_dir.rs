//! The data directory: there, writable, with room, and whose?

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use super::report::Report;

/// The file that a running service has locked.
pub(super) const LOCK_FILE: &str = "numgen.lock";

/// With less room than this the next numbers could already fail.
const LEAST_FREE_BYTES: u64 = 16 << 20;

/// With less than this somebody should look.
const AMPLE_FREE_BYTES: u64 = 1 << 30;

const SUBJECT: &str = "data directory";

pub(super) fn look(path: &Path, report: &mut Report) {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            let mode = metadata.permissions().mode() & 0o777;
            report.ok(SUBJECT, format!("{} (mode {mode:04o})", path.display()));
            if mode & 0o077 != 0 {
                report.note(SUBJECT, "others may enter it: the secret in it is safe, but mode 0700 is safer");
            }
            writable(path, report);
            room(path, report);
            holder(path, report);
        }
        Ok(_something_else) => report.fail(SUBJECT, format!("{} is no directory", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.ok(SUBJECT, format!("{} is made at the first start", path.display()));
            let ancestor = path.ancestors().skip(1).find(|ancestor| ancestor.is_dir());
            let ancestor = ancestor.unwrap_or(Path::new("."));
            writable(ancestor, report);
            room(ancestor, report);
        }
        Err(error) => report.fail(SUBJECT, format!("{}: {error}", path.display())),
    }
}

/// Makes a file and removes it: permissions alone do not tell of read-only mounts and quotas.
fn writable(directory: &Path, report: &mut Report) {
    // Others may be looking, too; in containers processes have the same few numbers.
    let mut name = [0; 8];
    let _ = getrandom::fill(&mut name);
    let probe = directory.join(format!(".numgen-check-{:016x}", u64::from_ne_bytes(name)));
    let made = OpenOptions::new().write(true).create_new(true).open(&probe).and_then(|file| file.sync_all());
    let removed = std::fs::remove_file(&probe);
    match made.and(removed) {
        Ok(()) => report.ok(SUBJECT, "writable"),
        Err(error) => {
            report.fail(SUBJECT, format!("nothing can be written in {}: {error}", directory.display()))
        }
    }
}

fn room(directory: &Path, report: &mut Report) {
    let free = match rustix::fs::statvfs(directory) {
        Ok(status) => status.f_bavail.saturating_mul(status.f_frsize),
        Err(error) => return report.note("disk", format!("free space is unknown: {error}")),
    };
    let finding = format!("{} MiB free", free >> 20);
    match free {
        0..LEAST_FREE_BYTES => report.fail("disk", finding),
        LEAST_FREE_BYTES..AMPLE_FREE_BYTES => report.note("disk", finding),
        AMPLE_FREE_BYTES.. => report.ok("disk", finding),
    }
}

/// Whether a service is running here. The lock is asked for as a reader and let go at once.
fn holder(directory: &Path, report: &mut Report) {
    let lock = match File::open(directory.join(LOCK_FILE)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return report.ok(SUBJECT, "not used by any service yet");
        }
        Err(error) => return report.fail(SUBJECT, format!("cannot read {LOCK_FILE}: {error}")),
    };
    match lock.try_lock_shared() {
        Ok(()) => report.ok(SUBJECT, "no service is running on it"),
        Err(TryLockError::WouldBlock) => report.ok(SUBJECT, "a service is running on it"),
        Err(TryLockError::Error(error)) => report.fail(SUBJECT, format!("cannot be locked: {error}")),
    }
}
