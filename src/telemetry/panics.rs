//! Panics as log lines.

use std::{backtrace::Backtrace, panic::PanicHookInfo};

/// From now on a panic is an event at level error, scrubbed like any other, instead of raw text on standard error.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(log_panic));
}

pub(super) fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload_as_str().unwrap_or("a value that is no text");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    // Captured only when RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture().to_string();
    tracing::error!(
        panic = payload,
        location,
        thread = thread.name().unwrap_or("unnamed"),
        backtrace,
        "panicked"
    );
}
