//! The program: arguments, exit codes, runtime, signals.

use std::{
    error::Error,
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use numgen::{
    app::{self, App, BuildError, Reload},
    cli::{Cli, CliError, Command, Errand, Terminal},
    clock::{Clock, SystemClock},
    config::{ConfigError, Flags, LogFormat, ProcessSource, Reloader},
    scrub::scrub,
    telemetry::{self, Style, TelemetryError, fields::chain, traces::Traces},
};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

/// Many short-lived allocations on few threads are what it is good at. Without huge pages (its feature `no_thp`), because one is
/// resident as a whole: 9 MiB more when idle, 17 MiB more with 1,000 connections.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let outcome = match Cli::parse().into_command() {
        Command::Serve(flags) => serve(&flags, clock),
        Command::Errand(errand) => run(errand, clock),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn serve(flags: &Flags, clock: Arc<dyn Clock>) -> Result<(), Failure> {
    let (reloader, config, warnings) = Reloader::load(flags, ProcessSource)?;
    let style = match config.log.format {
        Some(LogFormat::Json) => Style::Json,
        Some(LogFormat::Pretty) => Style::pretty(),
        None => Style::detect(),
    };
    let (traces, outbox) = app::otlp::settings(&config).map(Traces::new).unzip();
    let filter = telemetry::install(&config.log.filter, style, Arc::clone(&clock), traces)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    runtime()?.block_on(async {
        // Before anything is opened, so that a signal during the start still ends in order.
        let (stop, asked) = (stop()?, signal(SignalKind::hangup())?);
        let reload = Reload { reloader, filter, asked };
        Ok(App::build(config, clock, outbox).await?.run(stop, reload).await?)
    })
}

fn run(errand: Errand, clock: Arc<dyn Clock>) -> Result<(), Failure> {
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let mut terminal = Terminal { out: &mut out, err: &mut err };
    Ok(runtime()?.block_on(errand.run(&ProcessSource, clock, &mut terminal))?)
}

/// One thread for what runs in the background; requests have threads of their own.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Resolves when the process is asked to end (SIGTERM), or somebody presses Ctrl-C (SIGINT).
fn stop() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// How the process ends that did not do what it was asked for: 2 for what the operator has to change in arguments or
/// settings (clap uses the same), else 1.
struct Failure(u8, Box<dyn Error>);

impl Failure {
    /// A line on standard error for each thing that is wrong, unless nobody reads any more (`| head -1`).
    fn report(self) -> ExitCode {
        let Self(code, error) = self;
        if !error.downcast_ref::<CliError>().is_some_and(CliError::is_broken_pipe) {
            let said = scrub(&chain(&*error)).replace('\n', "\nnumgen: ");
            // Not `eprintln!`, which panics where nobody reads standard error either (`2>&1 | head -1`).
            let _unread = writeln!(io::stderr(), "numgen: {said}");
        }
        ExitCode::from(code)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self(2, error.into())
    }
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self(error.exit_code(), error.into())
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self(if error.is_configuration() { 2 } else { 1 }, error.into())
    }
}

impl From<TelemetryError> for Failure {
    fn from(error: TelemetryError) -> Self {
        Self(1, error.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(1, error.into())
    }
}
