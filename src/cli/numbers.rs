//! `numgen next` and `numgen preview`.

use clap::{Args, value_parser};
use serde::Deserialize;
use serde_json::json;

use super::{CliError, ForRemote, SettingFlags, Terminal, remote::Remote};
use crate::{
    auth::Scope,
    clock::Clock,
    config::{Flags, Source},
};

#[derive(Debug, Args)]
pub(super) struct NextArguments {
    #[command(flatten)]
    pub(super) options: NextOptions,
    #[command(flatten)]
    pub(super) settings: SettingFlags<ForRemote>,
}

#[derive(Debug, Args)]
pub(super) struct NextOptions {
    /// The prefix key, such as ORDERS.
    #[arg(value_name = "PREFIX")]
    prefix_key: String,
    /// How many numbers, up to 10000: all of them or none.
    #[arg(long, short = 'n', default_value_t = 1, value_parser = value_parser!(u32).range(1..=10_000))]
    count: u32,
}

#[derive(Debug, Args)]
pub(super) struct PreviewArguments {
    #[command(flatten)]
    pub(super) options: PreviewOptions,
    #[command(flatten)]
    pub(super) settings: SettingFlags<ForRemote>,
}

#[derive(Debug, Args)]
pub(super) struct PreviewOptions {
    /// The format, such as 'ORD-{year}-{SEQ:6}'.
    #[arg(value_name = "FORMAT")]
    format: String,
    /// How many numbers, up to 100.
    #[arg(long, short = 'n', value_parser = value_parser!(u32).range(1..=100))]
    count: Option<u32>,
    /// As if it were this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
}

/// What issuing answers: one number or several.
#[derive(Deserialize)]
struct Issued {
    number: Option<String>,
    #[serde(default)]
    numbers: Vec<String>,
    source: String,
}

#[derive(Deserialize)]
struct Preview {
    mode: String,
    numbers: Vec<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

pub(super) async fn next(
    flags: &Flags,
    options: NextOptions,
    source: &impl Source,
    clock: &dyn Clock,
    terminal: &mut Terminal<'_>,
) -> Result<(), CliError> {
    let remote = Remote::connect(flags, source, &[Scope::NumbersIssue], clock)?;
    let body = json!({ "prefix_key": options.prefix_key, "count": options.count });
    let issued: Issued = remote.post("/numbers", &body).await?;
    for number in issued.number.iter().chain(&issued.numbers) {
        writeln!(terminal.out, "{number}")?;
    }
    if issued.source != "primary" {
        writeln!(terminal.err, "source: {}", issued.source)?;
    }
    Ok(())
}

pub(super) async fn preview(
    flags: &Flags,
    options: PreviewOptions,
    source: &impl Source,
    clock: &dyn Clock,
    terminal: &mut Terminal<'_>,
) -> Result<(), CliError> {
    let remote = Remote::connect(flags, source, &[Scope::PrefixesRead], clock)?;
    let mut body = json!({ "format": options.format });
    if let Some(count) = options.count {
        body["count"] = count.into();
    }
    if let Some(at) = options.at {
        body["at"] = at.into();
    }
    let preview: Preview = remote.post("/formats/preview", &body).await?;
    for number in &preview.numbers {
        writeln!(terminal.out, "{number}")?;
    }
    writeln!(terminal.err, "mode: {}", preview.mode)?;
    for warning in &preview.warnings {
        writeln!(terminal.err, "warning: {warning}")?;
    }
    Ok(())
}
