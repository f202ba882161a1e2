//! `numgen temporary`: what became of numbers that were given out during a partition is decided by a person.

use clap::{Args, Subcommand};
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde_json::json;

use super::{
    CliError, ForRemote, SettingFlags, Terminal,
    remote::{Remote, SEGMENT},
};
use crate::{
    auth::Scope,
    clock::Clock,
    config::{Flags, Source},
};

#[derive(Debug, Subcommand)]
pub(super) enum TemporaryCommand {
    /// List those that are still open, one a line: number, prefix key, node, time, caller.
    List(SettingFlags<ForRemote>),
    /// Decide on one of them.
    Resolve(ResolveArguments),
}

#[derive(Debug, Args)]
pub(super) struct ResolveArguments {
    #[command(flatten)]
    options: ResolveOptions,
    #[command(flatten)]
    settings: SettingFlags<ForRemote>,
}

#[derive(Debug, Args)]
pub(super) struct ResolveOptions {
    /// The temporary number, TMP~...
    number: String,
    #[command(flatten)]
    action: Action,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Action {
    /// Draw the final number for it, and print that.
    #[arg(long)]
    assign: bool,
    /// Void it, for this reason.
    #[arg(long, value_name = "REASON")]
    void: Option<String>,
}

#[derive(Debug)]
pub(super) enum TemporaryOptions {
    List,
    Resolve(ResolveOptions),
}

impl TemporaryCommand {
    pub(super) fn into_parts(self) -> (SettingFlags<ForRemote>, TemporaryOptions) {
        match self {
            Self::List(settings) => (settings, TemporaryOptions::List),
            Self::Resolve(arguments) => (arguments.settings, TemporaryOptions::Resolve(arguments.options)),
        }
    }
}

#[derive(Deserialize)]
struct Page {
    rows: Vec<Row>,
    next: Option<String>,
    complete: bool,
}

#[derive(Deserialize)]
struct Row {
    number: String,
    prefix_key: String,
    node: String,
    created_at: String,
    subject: String,
}

#[derive(Deserialize)]
struct Resolved {
    status: String,
    #[serde(rename = "final")]
    final_number: Option<String>,
}

pub(super) async fn run(
    flags: &Flags,
    options: TemporaryOptions,
    source: &impl Source,
    clock: &dyn Clock,
    terminal: &mut Terminal<'_>,
) -> Result<(), CliError> {
    match options {
        TemporaryOptions::List => {
            let remote = Remote::connect(flags, source, &[Scope::ConflictsRead], clock)?;
            list(&remote, terminal).await
        }
        TemporaryOptions::Resolve(options) => {
            let remote = Remote::connect(flags, source, &[Scope::ConflictsWrite], clock)?;
            resolve(&remote, options, terminal).await
        }
    }
}

async fn list(remote: &Remote, terminal: &mut Terminal<'_>) -> Result<(), CliError> {
    let (mut after, mut is_first) = (String::new(), true);
    loop {
        let page: Page = remote.get(&format!("/temporary-numbers?status=open{after}")).await?;
        if is_first && !page.complete {
            writeln!(terminal.err, "the store is away: these are the numbers that the answering node knows")?;
        }
        is_first = false;
        for row in &page.rows {
            let Row { number, prefix_key, node, created_at, subject } = row;
            writeln!(terminal.out, "{number}\t{prefix_key}\t{node}\t{created_at}\t{subject}")?;
        }
        // A page without rows ends the list, whatever it says of a next one.
        match page.next {
            Some(next) if !page.rows.is_empty() => {
                after = format!("&after={}", utf8_percent_encode(&next, SEGMENT))
            }
            Some(_) | None => return Ok(()),
        }
    }
}

async fn resolve(
    remote: &Remote,
    options: ResolveOptions,
    terminal: &mut Terminal<'_>,
) -> Result<(), CliError> {
    let body = match options.action.void {
        Some(reason) => json!({ "action": "void", "reason": reason }),
        None => json!({ "action": "assign" }),
    };
    let number = utf8_percent_encode(&options.number, SEGMENT);
    let resolved: Resolved = remote.post(&format!("/temporary-numbers/{number}/resolve"), &body).await?;
    writeln!(terminal.out, "{}", resolved.final_number.unwrap_or(resolved.status))?;
    Ok(())
}
