//! Why a command did not do its work, and with which exit code the process says so.

use std::{io, path::PathBuf};

use crate::{
    auth::{MintError, UnknownScope},
    calendar::Period,
    client::ClientError,
    config::{ConfigError, DataDirError},
    counter::SequenceValue,
    prefix_key::PrefixKey,
    store::{StoreError, postgres::InspectError, sqlite::OpenError},
};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Tokens come from elsewhere.
    #[error(
        "no token can be signed here: {configured} only verifies tokens; ask who issues them, and set NUMGEN_TOKEN for \
         commands that need one"
    )]
    NoSigningKey {
        /// The settings that are configured.
        configured: String,
    },
    /// `--scope` names something that is no scope.
    #[error("flag --scope: {0}")]
    Scope(#[source] UnknownScope),
    /// `--scope` is empty.
    #[error("flag --scope: a token without a scope may do nothing: name one or more, such as numbers:issue")]
    NoScope,
    /// `--prefixes` is empty.
    #[error(
        "flag --prefixes: a token for no prefix key may do nothing: name one or more patterns, such as \"A*,B*\", or leave the flag out, for \
         all"
    )]
    NoPrefixes,
    /// The token could not be made.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// The service cannot be asked.
    #[error("{url}: {source}{}", causes(.source))]
    Client {
        /// The service.
        url: String,
        /// Why.
        source: ClientError,
    },
    /// The service said no.
    #[error("{text}")]
    Refused {
        /// What it said, for people.
        text: String,
        /// What it said, for programs.
        code: String,
    },
    /// The service answered something else than it should.
    #[error("{url} answered {status}, but not as numgen does: is that the right address (NUMGEN_URL)?")]
    NotUnderstood {
        /// The service.
        url: String,
        /// The status line's code and reason.
        status: String,
    },
    /// `check` found a reason not to issue.
    #[error("not fit to issue numbers: {0} of the checks failed")]
    Unfit(usize),
    /// `health` was answered that the service is not ready.
    #[error("not ready: {0}")]
    Unready(String),
    /// `verify` found no ledger.
    #[error(
        "{key} has no ledger in {place}: is that its name, is its rule strict, and was anything issued yet?"
    )]
    NoLedger {
        /// The prefix key.
        key: PrefixKey,
        /// Where was looked.
        place: &'static str,
    },
    /// `verify` found that a ledger is not what was written.
    #[error("the ledger of {key} is broken in {broken} of {periods} periods")]
    Broken {
        /// The prefix key.
        key: PrefixKey,
        /// How many periods are broken.
        broken: usize,
        /// How many there are.
        periods: usize,
    },
    /// The local database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// PostgreSQL cannot be looked at.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// PostgreSQL is not as this program needs it, and is not to be changed by a look.
    #[error(
        "PostgreSQL at {name} has schema {found}, this program needs {known}: start the service of this version first, or is \
         that the right database (NUMGEN_DATABASE_URL)?"
    )]
    OldSchema {
        /// Where.
        name: String,
        /// Its schema.
        found: i32,
        /// The schema that is needed.
        known: i32,
    },
    /// PostgreSQL takes no writes.
    #[error(
        "PostgreSQL at {name} only reads: resume where the service writes, or promote this standby first"
    )]
    ReadOnly {
        /// Where.
        name: String,
    },
    /// `resume` might have numbers issued twice.
    #[error("{nodes} nodes may remember more strict numbers than there are here; nothing was changed")]
    Unheard {
        /// How many nodes.
        nodes: usize,
    },
    /// `resume` would have numbers issued twice.
    #[error(
        "{counters} strict counters lack numbers that were issued: advance them (POST /sequences/PREFIX/advance), then resume; nothing \
         was changed"
    )]
    Lacking {
        /// How many counters.
        counters: usize,
    },
    /// A store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file of `import` cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// `import` found numbers that cannot be taken over.
    #[error(
        "{misfits} numbers do not fit the format, {duplicates} are there twice: nothing was changed{}",
        if *.duplicates == 0 { " (--skip-misfits goes on without them)" } else { "" }
    )]
    Misfits {
        /// How many do not fit.
        misfits: u64,
        /// How many stand on an earlier line too.
        duplicates: u64,
    },
    /// `import` would void integers of a strict counter.
    #[error(
        "the strict counter of period {period:?} is in use: moving it up would void {count} integers in its ledger, for ever. Register \
         another prefix for new numbers, or allow that with --void-passed (at most {limit}); nothing was changed"
    )]
    WouldVoid {
        /// The first such period.
        period: Period,
        /// How many, in all periods.
        count: u64,
        /// How many an import may void.
        limit: u64,
    },
    /// `import` found a snowflake that may still be issued.
    #[error(
        "the number with value {highest} says that it was issued at {at}: the service would issue it again. Snowflakes of the future cannot \
         be taken over; register a continuous rule above them instead"
    )]
    FutureSnowflake {
        /// Its value.
        highest: SequenceValue,
        /// When it says it was issued.
        at: String,
    },
    /// `import` found a value that is no snowflake of the service.
    #[error(
        "the value {highest} is no snowflake ID of this service: its numbers could meet those of the service, and cannot be taken over"
    )]
    NoSnowflake {
        /// The value.
        highest: SequenceValue,
    },
    /// The result could not be written.
    #[error("cannot write the result")]
    Output(#[from] io::Error),
}

impl CliError {
    /// 2 for what is wrong with arguments or configuration, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::NoSigningKey { .. }
            | Self::Scope(_)
            | Self::NoScope
            | Self::NoPrefixes
            | Self::Mint(_)
            | Self::NoLedger { .. }
            | Self::Unreadable { .. } => 2,
            Self::DataDir(DataDirError::NoSecret { .. }) => 2,
            Self::DataDir(_)
            | Self::Client { .. }
            | Self::Refused { .. }
            | Self::Misfits { .. }
            | Self::WouldVoid { .. }
            | Self::FutureSnowflake { .. }
            | Self::NoSnowflake { .. }
            | Self::NotUnderstood { .. }
            | Self::Unfit(_)
            | Self::Unready(_)
            | Self::Broken { .. }
            | Self::Lacking { .. }
            | Self::Unheard { .. }
            | Self::ReadOnly { .. }
            | Self::Open(_)
            | Self::Inspect(_)
            | Self::OldSchema { .. }
            | Self::Store(_)
            | Self::Output(_) => 1,
        }
    }

    /// Whether the service said no with this code.
    pub(super) fn has_code(&self, expected: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == expected)
    }

    /// Whether nobody reads the result any more (`numgen next A --count 100 | head -1`), which is nothing to report.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// `: cause: cause`, or nothing.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
