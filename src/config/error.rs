//! What can be wrong with a configuration. Every message names the setting and where its value came from; none holds
//! the value of a secret.

use std::{fmt, io, path::PathBuf};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A key of a configuration file.
    Key {
        /// The key.
        key: String,
        /// The file.
        file: PathBuf,
    },
    /// Nothing was given.
    Default {
        /// The variable that would set it.
        variable: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Key { key, file } => write!(f, "key {key} of {}", file.display()),
            Self::Default { variable } => write!(f, "default of {variable}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// A value is not what its setting takes.
    #[error("{origin}: {shown} is invalid{}, expected: {expects}", .detail.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Invalid {
        /// Where the value came from.
        origin: Origin,
        /// The value in quotes, or "the value" for a secret.
        shown: String,
        /// What would be right.
        expects: String,
        /// More about what is wrong; never the value of a secret.
        detail: Option<String>,
    },
    /// Two settings do not fit together.
    #[error("{origin}: {problem}")]
    Unfitting {
        /// Where the first of them came from.
        origin: Origin,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A key of the file that is no setting.
    #[error("key {key} of {}: there is no such setting, the nearest is {nearest}", .file.display())]
    UnknownKey {
        /// The key.
        key: String,
        /// The file.
        file: PathBuf,
        /// The nearest key.
        nearest: String,
    },
    /// A key of the file holds a table or a list of something else than texts and numbers.
    #[error("key {key} of {}: give a text, a number or a list of texts, not {found}", .file.display())]
    WrongType {
        /// The key.
        key: String,
        /// The file.
        file: PathBuf,
        /// The TOML type that was found.
        found: &'static str,
    },
    /// The configuration file is not TOML.
    #[error("{}, line {line}, column {column}: {problem}", .file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser says, without the text.
        problem: String,
    },
    /// A file that was named cannot be read.
    #[error("{named_by}: cannot read {}: {source}", .file.display())]
    Unreadable {
        /// Who named the file.
        named_by: Origin,
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A variable or a secret's file is not UTF-8.
    #[error("{origin}: the value is not UTF-8 text")]
    NotText {
        /// Where it came from.
        origin: Origin,
    },
    /// A secret is given both directly and as a file.
    #[error("{direct} and {file} are both given: give only one of them")]
    GivenTwice {
        /// The value.
        direct: Origin,
        /// The name of its file.
        file: Origin,
    },
    /// A secret is given and empty, which is more likely an accident than a wish to have none.
    #[error("{origin}: the value is empty: give one, or leave the setting out")]
    EmptySecret {
        /// Where it came from.
        origin: Origin,
    },
}

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug)]
pub struct ConfigError {
    /// At least one.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl From<Mistake> for ConfigError {
    fn from(mistake: Mistake) -> Self {
        Self { mistakes: vec![mistake] }
    }
}

/// Something odd that does not keep the service from starting; logged once telemetry is up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A variable that begins like ours. Kubernetes injects such names for services, so it is no error.
    #[error("environment variable {name} is no setting, the nearest is {nearest}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The nearest variable.
        nearest: String,
    },
    /// A setting that only matters with a store that is not configured.
    #[error("{origin} has no effect {lack}")]
    NoEffect {
        /// Which setting, and where it was given.
        origin: Origin,
        /// What it would need: "without ...".
        lack: &'static str,
    },
}
