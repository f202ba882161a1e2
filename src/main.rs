//! The program: arguments, exit codes, runtime, signals.

use std::{error::Error, process::ExitCode, sync::Arc};

use clap::Parser;
use numgen::{
    cli::{Cli, Command, Errand, Terminal},
    clock::{Clock, SystemClock},
    config::{Config, Flags, LogFormat, ProcessSource},
    telemetry::{self, Style},
};

/// Many short-lived allocations on few threads are what it is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// For arguments and configuration; clap uses the same.
const USAGE: u8 = 2;
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    match Cli::parse().into_command() {
        Command::Serve(flags) => serve(&flags, clock),
        Command::Errand(errand) => run(errand, clock),
    }
}

fn serve(flags: &Flags, clock: Arc<dyn Clock>) -> ExitCode {
    let (config, warnings) = match Config::load(flags, &ProcessSource) {
        Ok(loaded) => loaded,
        Err(error) => return fail(USAGE, &error),
    };
    let style = match config.log.format {
        Some(LogFormat::Json) => Style::Json,
        Some(LogFormat::Pretty) => Style::pretty(),
        None => Style::detect(),
    };
    if let Err(error) = telemetry::install(&config.log.filter, style, clock) {
        return fail(FAILURE, &error);
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // App::build(config, clock) and run() stand here once app.rs has landed.
    fail(FAILURE, &std::io::Error::other("the service is not part of this build yet"))
}

fn run(errand: Errand, clock: Arc<dyn Clock>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILURE, &error),
    };
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut terminal = Terminal { out: &mut out, err: &mut err };
    match runtime.block_on(errand.run(&ProcessSource, clock, &mut terminal)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::from(error.exit_code()),
        Err(error) => fail(error.exit_code(), &error),
    }
}

/// A line on standard error for each thing that is wrong.
fn fail(code: u8, error: &dyn Error) -> ExitCode {
    eprintln!("numgen: {}", error.to_string().replace('\n', "\nnumgen: "));
    ExitCode::from(code)
}
