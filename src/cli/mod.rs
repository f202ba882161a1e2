//! The command line: what `numgen` understands, and every command but `serve`.
//!
//! Invariants: standard output carries the result and nothing else, so that it can be piped; everything said about it
//! goes to standard error. No command shows a secret, but for `token`, whose result is one.
//!
//! Order: [`Cli`] (arguments) -> [`Cli::into_command`] -> [`Errand::run`], or the service, which `main` starts.

mod check;
mod error;
mod health;
mod import;
mod numbers;
mod remote;
mod resume;
mod settings;
mod signing;
mod temporary;
mod token;
mod verify;

use std::{io::Write, sync::Arc};

use clap::{Parser, Subcommand};

pub use self::error::CliError;
use self::settings::{ForRemote, ForService, ForToken, SettingFlags};
use crate::{
    clock::Clock,
    config::{Flags, Source},
};

const EXAMPLES: &str = "\
Examples:
  numgen                                     serve with everything in ./numgen-data
  numgen token --scope admin --ttl 8h        a token for an operator
  numgen next ORDERS --count 3               three numbers, one a line
  numgen preview 'ORD-{year}-{SEQ:6}'        what a format would make

Every setting is a flag, a NUMGEN_... variable and a key of numgen.toml: flags win, then variables, then the file. \
`numgen --help` lists them.";

/// Issues unique numbers over HTTP, such as ORD-2026-000123.
#[derive(Debug, Parser)]
#[command(name = "numgen", version, max_term_width = 110, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    settings: SettingFlags<ForService>,
    #[command(subcommand)]
    command: Option<Commands>,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Serve; what numgen does without a command.
    Serve(SettingFlags<ForService>),
    /// Print a token signed with the configured secret, and nothing else.
    Token(token::TokenArguments),
    /// Look at configuration, data directory and stores; exit 0 only if the service may issue.
    Check(SettingFlags<ForService>),
    /// Ask the running service whether it is ready; exit 0 only if it is.
    Health(SettingFlags<ForService>),
    /// Issue numbers through the running service, one a line.
    Next(numbers::NextArguments),
    /// Show what a format would make; nothing is stored.
    Preview(numbers::PreviewArguments),
    /// Resolve numbers that were given out during a partition.
    #[command(subcommand)]
    Temporary(temporary::TemporaryCommand),
    /// Go on above the numbers of an older system: move every counter up to the highest.
    Import(import::ImportArguments),
    /// Recompute the ledgers of a strict prefix; exit 0 only if they are what was written.
    Verify(verify::VerifyArguments),
    /// Issue strict numbers again, on a PostgreSQL that was restored or may lack some; `numgen check` says whether they are suspended.
    Resume(resume::ResumeArguments),
}

/// What was asked for.
#[derive(Debug)]
pub enum Command {
    /// Serve, with these flags.
    Serve(Flags),
    /// Anything else.
    Errand(Errand),
}

/// A command that does its work and ends.
#[derive(Debug)]
pub struct Errand {
    flags: Flags,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Token(token::TokenOptions),
    Check,
    Health,
    Next(numbers::NextOptions),
    Preview(numbers::PreviewOptions),
    Temporary(temporary::TemporaryOptions),
    Import(import::ImportOptions),
    Verify(verify::VerifyOptions),
    Resume(resume::ResumeOptions),
}

impl Cli {
    /// What was asked for. Settings may stand before the command or behind it; those behind it win.
    pub fn into_command(self) -> Command {
        let before = self.settings.flags;
        let errand =
            |behind: Flags, kind| Command::Errand(Errand { flags: joined(before.clone(), behind), kind });
        match self.command {
            None => Command::Serve(before),
            Some(Commands::Serve(settings)) => Command::Serve(joined(before, settings.flags)),
            Some(Commands::Token(arguments)) => {
                errand(arguments.settings.flags, Kind::Token(arguments.options))
            }
            Some(Commands::Check(settings)) => errand(settings.flags, Kind::Check),
            Some(Commands::Health(settings)) => errand(settings.flags, Kind::Health),
            Some(Commands::Next(arguments)) => {
                errand(arguments.settings.flags, Kind::Next(arguments.options))
            }
            Some(Commands::Preview(arguments)) => {
                errand(arguments.settings.flags, Kind::Preview(arguments.options))
            }
            Some(Commands::Temporary(command)) => {
                let (settings, options) = command.into_parts();
                errand(settings.flags, Kind::Temporary(options))
            }
            Some(Commands::Import(arguments)) => {
                errand(arguments.settings.flags, Kind::Import(arguments.options))
            }
            Some(Commands::Verify(arguments)) => {
                errand(arguments.settings.flags, Kind::Verify(arguments.options))
            }
            Some(Commands::Resume(arguments)) => {
                errand(arguments.settings.flags, Kind::Resume(arguments.options))
            }
        }
    }
}

fn joined(before: Flags, behind: Flags) -> Flags {
    let mut given = before.given;
    given.extend(behind.given);
    Flags { config: behind.config.or(before.config), given }
}

/// Where the results go, and what they are said about.
pub struct Terminal<'a> {
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
}

impl Errand {
    /// Does the work.
    ///
    /// # Errors
    ///
    /// [`CliError`], whose [`CliError::exit_code`] is that of the process.
    pub async fn run(
        self,
        source: &impl Source,
        clock: Arc<dyn Clock>,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), CliError> {
        match self.kind {
            Kind::Token(options) => token::run(&self.flags, &options, source, &*clock, terminal),
            Kind::Check => check::run(&self.flags, source, clock, terminal).await,
            Kind::Health => health::run(&self.flags, source, terminal).await,
            Kind::Next(options) => numbers::next(&self.flags, options, source, &*clock, terminal).await,
            Kind::Preview(options) => numbers::preview(&self.flags, options, source, &*clock, terminal).await,
            Kind::Temporary(options) => temporary::run(&self.flags, options, source, &*clock, terminal).await,
            Kind::Import(options) => import::run(&self.flags, options, source, &*clock, terminal).await,
            Kind::Verify(options) => verify::run(&self.flags, options, source, clock, terminal).await,
            Kind::Resume(options) => resume::run(&self.flags, options, source, clock, terminal).await,
        }
    }
}

#[cfg(test)]
mod tests;
