//! Why a command did not do its work, and with which exit code the process says so.

use std::io;

use crate::{
    auth::{MintError, UnknownScope},
    client::ClientError,
    config::{ConfigError, DataDirError},
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
    #[error("{0}")]
    Refused(String),
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
    /// The result could not be written.
    #[error("cannot write the result")]
    Output(#[from] io::Error),
}

impl CliError {
    /// 2 for what is wrong with arguments or configuration, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::NoSigningKey { .. } | Self::Scope(_) | Self::NoScope | Self::Mint(_) => 2,
            Self::DataDir(DataDirError::NoSecret { .. }) => 2,
            Self::DataDir(_)
            | Self::Client { .. }
            | Self::Refused(_)
            | Self::NotUnderstood { .. }
            | Self::Unfit(_)
            | Self::Output(_) => 1,
        }
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
