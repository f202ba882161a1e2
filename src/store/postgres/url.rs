//! From the parsed URL to what the driver wants.

use std::path::Path;

use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::config::{DatabaseHost, DatabaseUrl, InvalidDatabaseUrl, Verification};

/// Why no store can be made of the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none.
    #[error("NUMGEN_DATABASE_URL: {0}")]
    Url(#[from] InvalidDatabaseUrl),
    /// The certificates cannot be read.
    #[error("NUMGEN_DATABASE_CA_FILE: no certificates can be read from {path}")]
    Certificates {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// The process cannot be told from others.
    #[error("the system gives no randomness")]
    Random(#[from] getrandom::Error),
}

/// How to connect.
pub(super) fn options(url: &DatabaseUrl, ca_file: Option<&Path>) -> Result<PgConnectOptions, ConnectError> {
    let mut options = PgConnectOptions::new_without_pgpass()
        .application_name("numgen")
        .database(&url.database)
        .disable_statement_logging();
    options = match &url.host {
        DatabaseHost::Tcp(address) => options.host(&address.host).port(address.port),
        DatabaseHost::Socket { directory, port } => options.socket(directory).port(*port),
    };
    if let Some(user) = &url.user {
        options = options.username(user);
    }
    if let Some(password) = &url.password {
        options = options.password(password.reveal());
    }
    if let Some(path) = ca_file {
        let certificates = std::fs::read(path)
            .map_err(|source| ConnectError::Certificates { path: path.display().to_string(), source })?;
        options = options.ssl_root_cert_from_pem(certificates);
    }
    let verification = url.verification.unwrap_or(match ca_file {
        Some(_) => Verification::Full,
        None => Verification::Prefer,
    });
    Ok(options.ssl_mode(match verification {
        Verification::Disable => PgSslMode::Disable,
        Verification::Prefer => PgSslMode::Prefer,
        Verification::Require => PgSslMode::Require,
        Verification::Authority => PgSslMode::VerifyCa,
        Verification::Full => PgSslMode::VerifyFull,
    }))
}
