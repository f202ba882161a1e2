//! `numgen resume`: strict numbers are issued again, on a database that may lack some.
//!
//! It changes the configured database itself: a suspended ledger is nothing that a token should be able to lift.

use std::sync::Arc;

use clap::Args;

use super::{CliError, ForService, SettingFlags, Terminal};
use crate::{
    clock::Clock,
    config::{Config, ConfigError, Flags, Mistake, Source, Values},
    store::postgres::{self, Lost, Resumed, Role, SchemaState},
};

#[derive(Debug, Args)]
pub(super) struct ResumeArguments {
    #[command(flatten)]
    pub(super) options: ResumeOptions,
    #[command(flatten)]
    pub(super) settings: SettingFlags<ForService>,
}

#[derive(Debug, Args)]
pub(super) struct ResumeOptions {
    /// Who says so, and why: for the audit trail.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    /// A node that will not come back: what it alone was told cannot be asked for any more. Once for each.
    #[arg(long, value_name = "NODE")]
    without: Vec<String>,
}

fn reason(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.is_empty() || text.len() > 500 || text.contains('\0') {
        return Err("give 1 to 500 characters");
    }
    Ok(text.to_owned())
}

pub(super) async fn run(
    flags: &Flags,
    options: ResumeOptions,
    source: &impl Source,
    clock: Arc<dyn Clock>,
    terminal: &mut Terminal<'_>,
) -> Result<(), CliError> {
    let values = Values::gather(flags, source)?;
    let config = Config::read(&values)?;
    let Some(url) = &config.storage.database_url else {
        let problem = "only strict ledgers in PostgreSQL are ever suspended".to_owned();
        let origin = values.origin("NUMGEN_DATABASE_URL");
        return Err(ConfigError::from(Mistake::Unfitting { origin, problem }).into());
    };
    let ca_file = config.storage.database_ca_file.as_deref();
    let looked = postgres::inspect(url, ca_file, &config.worker, &*clock).await?;
    let SchemaState { found, known, .. } = looked.schema;
    if found < known {
        return Err(CliError::OldSchema { name: looked.name, found, known });
    }
    if looked.server.role == Role::ReadOnly {
        return Err(CliError::ReadOnly { name: looked.name });
    }
    match postgres::resume(url, ca_file, &options.reason, &options.without, &*clock).await? {
        Resumed::Done => writeln!(terminal.out, "strict numbers are issued again")?,
        Resumed::NotSuspended => {
            writeln!(terminal.out, "strict numbers are not suspended: nothing was changed")?;
        }
        Resumed::Unheard(nodes) => {
            for node in &nodes {
                writeln!(terminal.out, "{}", waited_for(node))?;
            }
            return Err(CliError::Unheard { nodes: nodes.len() });
        }
        Resumed::Lacking(lost) => {
            for lost in &lost {
                writeln!(terminal.out, "{}", said(lost))?;
            }
            return Err(CliError::Lacking { counters: lost.len() });
        }
    }
    Ok(())
}

/// Who is missing, and what to do.
pub(super) fn waited_for(node: &str) -> String {
    format!(
        "node {node} drew until the end and has not said here what it remembers: let it reach this database; if it is gone for good, \
         resume with --without {node}"
    )
}

/// What is lacking, and what to do.
pub(super) fn said(lost: &Lost) -> String {
    let Lost { counter, told, reaches, node } = lost;
    let reaches = reaches.map_or_else(|| "has no ledger".to_owned(), |reaches| format!("ends at {reaches}"));
    format!("{counter}: {reaches}, but node {node} had values up to {told}: advance it to {told} or further")
}
