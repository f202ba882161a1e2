//! libfaketime: the wall clock of a process in the hands of a test. The monotonic clock stays as it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use numgen::clock::UnixMillis;

/// Where a bent wall clock stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hands {
    /// It shows this moment and does not move, as `ManualClock` does.
    Standing(UnixMillis),
    /// It runs, so many milliseconds away from the true time.
    Off(i64),
}

/// The library, or `None` after saying so. In CI it must be there.
pub(crate) fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let found = folders.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "libfaketime is missing: apt-get install faketime");
        eprintln!("NOT RUN: libfaketime is missing");
    }
    found
}

/// The environment of a process that looks at the file `hands` each time it asks for the time.
pub(crate) fn watching(library: &Path, hands: &Path) -> [(String, String); 6] {
    // The C library once more: a program that brings its own allocator (Redis: jemalloc) would allocate while that
    // allocator asks for the time for the first time, and hang.
    let preload = format!("{} libc.so.6", library.display());
    [
        ("LD_PRELOAD", preload),
        ("FAKETIME_TIMESTAMP_FILE", hands.to_string_lossy().into_owned()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_FMT", "%s".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("TZ", "UTC".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

/// Turns the hands of every process that watches this file.
pub(crate) fn turn(file: &Path, hands: Hands) {
    let parts = |ms: i64| (ms.div_euclid(1_000), ms.rem_euclid(1_000));
    let text = match hands {
        Hands::Standing(at) => {
            let (seconds, millis) = parts(at.0);
            // Half a millisecond more, for the library reads a binary fraction: .251 would show as 250999 us.
            format!("{seconds}.{millis:03}5\n")
        }
        Hands::Off(ms) => {
            let (seconds, millis) = parts(ms.abs());
            format!("{}{seconds}.{millis:03}s\n", if ms < 0 { '-' } else { '+' })
        }
    };
    // Never half a file: who reads it reads the old or the new one.
    let draft = file.with_extension("draft");
    fs::write(&draft, text).and_then(|()| fs::rename(&draft, file)).expect("the hands of a clock");
}

/// What the library leaves in shared memory for a process that was killed.
pub(super) fn traces(process: u32) -> [PathBuf; 2] {
    ["faketime_shm", "sem.faketime_sem"].map(|name| PathBuf::from(format!("/dev/shm/{name}_{process}")))
}
