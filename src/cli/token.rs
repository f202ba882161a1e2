//! `numgen token`: a token on standard output, and nothing else.

use std::time::Duration;

use clap::Args;

use super::{CliError, ForToken, SettingFlags, Terminal, signing};
use crate::{
    auth::{Grant, Prefixes, Scopes},
    clock::Clock,
    config::{ClientConfig, Flags, Source, Values, parse_duration},
};

#[derive(Debug, Args)]
pub(super) struct TokenArguments {
    #[command(flatten)]
    pub(super) options: TokenOptions,
    #[command(flatten)]
    pub(super) settings: SettingFlags<ForToken>,
}

#[derive(Debug, Args)]
pub(super) struct TokenOptions {
    /// What it may do: prefixes:read, prefixes:write, numbers:issue, sequences:write, ledger:read, conflicts:read,
    /// conflicts:write, or admin for everything; several between spaces.
    #[arg(long, value_name = "SCOPES")]
    scope: String,
    /// Who bears it.
    #[arg(long, value_name = "SUBJECT", default_value = signing::SUBJECT, value_parser = subject)]
    sub: String,
    /// How long it lasts: 90s, 30m, 8h, 7d.
    #[arg(long, default_value = "1h", value_parser = ttl)]
    ttl: Duration,
    /// Which prefix keys it may touch, as patterns: "A*,B*".
    #[arg(long, value_delimiter = ',', value_name = "PATTERNS")]
    prefixes: Option<Vec<String>>,
}

fn subject(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("a token needs a subject") } else { Ok(text.to_owned()) }
}

fn ttl(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text)
        .filter(|ttl| *ttl >= Duration::from_secs(1))
        .ok_or("give a duration of a second or more with its unit, such as 1h, 30m or 90s")
}

pub(super) fn run(
    flags: &Flags,
    options: &TokenOptions,
    source: &impl Source,
    clock: &dyn Clock,
    terminal: &mut Terminal<'_>,
) -> Result<(), CliError> {
    let config = ClientConfig::read(&Values::gather(flags, source)?)?;
    let scopes = Scopes::parse(&options.scope).map_err(CliError::Scope)?;
    if scopes == Scopes::NONE {
        return Err(CliError::NoScope);
    }
    if let Some(patterns) = &options.prefixes
        && Prefixes::new(patterns.iter().map(String::as_str)).iter().next().is_none()
    {
        return Err(CliError::NoPrefixes);
    }
    let grant =
        Grant { prefixes: options.prefixes.as_deref(), ..signing::grant(&options.sub, scopes, options.ttl) };
    let token = signing::sign(&config, grant, clock)?;
    writeln!(terminal.out, "{}", token.reveal())?;
    Ok(())
}
