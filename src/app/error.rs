//! Why the service does not start.

use std::{io, net::SocketAddr};

use crate::{
    auth::SetupError,
    client::ClientError,
    config::DataDirError,
    server::TlsError,
    store::{StoreError, postgres, redis::client::ConnectError, sqlite::OpenError},
    telemetry::traces,
    worker::AcquireError,
};

/// Why the service does not start; the message names the setting to look at.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The data directory cannot be used.
    #[error("NUMGEN_DATA_DIR: {0}")]
    DataDir(#[from] DataDirError),
    /// The database cannot be opened, or another process has it.
    #[error("NUMGEN_DATA_DIR: {0}")]
    Open(#[from] OpenError),
    /// The IDs issued so far were laid out otherwise.
    #[error(
        "NUMGEN_SNOWFLAKE_LAYOUT, NUMGEN_SNOWFLAKE_EPOCH, NUMGEN_DATACENTER_ID: this data directory was used with {recorded}; \
         with {wanted} IDs could repeat"
    )]
    LayoutDiffers {
        /// What is recorded.
        recorded: String,
        /// What is configured.
        wanted: String,
    },
    /// The store did not play along.
    #[error("the worker store failed")]
    Worker(#[source] StoreError),
    /// No worker window.
    #[error("no worker window: {0}")]
    Window(#[source] AcquireError),
    /// The journal of temporary numbers could not be read.
    #[error("the journal of temporary numbers could not be read")]
    Journal(#[source] StoreError),
    /// What an earlier process held of shared counters could not be read.
    #[error("the segments in the data directory could not be taken up")]
    Segments(#[source] StoreError),
    /// Redis can never be used as configured.
    #[error("NUMGEN_REDIS_URL: {0}")]
    Redis(#[from] ConnectError),
    /// PostgreSQL can never be used as configured.
    #[error(transparent)]
    Database(#[from] postgres::ConnectError),
    /// PostgreSQL was found, and must not be used.
    #[error("NUMGEN_DATABASE_URL: {0}")]
    DatabaseRefused(#[from] postgres::Refused),
    /// The rules could not be read.
    #[error("the rules could not be read")]
    Rules(#[source] StoreError),
    /// The demonstration rule could not be registered.
    #[error("the DEMO rule could not be registered")]
    Demo(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Tokens cannot be verified.
    #[error(transparent)]
    Auth(#[from] SetupError),
    /// The certificate is of no use.
    #[error("NUMGEN_TLS_CERT_FILE, NUMGEN_TLS_KEY_FILE: {0}")]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error("{setting}: cannot listen on {address}")]
    Bind {
        /// Which setting.
        setting: &'static str,
        /// Which address.
        address: SocketAddr,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The collector's URL is of no use.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Collector(#[source] ClientError),
    /// Traces cannot be sent as configured.
    #[error(transparent)]
    Traces(#[from] traces::SetupError),
    /// No way to be told to stop.
    #[error("signals cannot be listened for")]
    Signals(#[from] io::Error),
    /// No threads.
    #[error("the operating system gives no more threads")]
    Threads(#[source] io::Error),
}

impl BuildError {
    /// Whether the operator has to change a setting: exit code 2 rather than 1.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Window(error) => error.is_final(),
            Self::DataDir(_)
            | Self::Open(_)
            | Self::LayoutDiffers { .. }
            | Self::Auth(_)
            | Self::Redis(_)
            | Self::Database(_)
            | Self::DatabaseRefused(_)
            | Self::Tls(_)
            | Self::Collector(_)
            | Self::Traces(_)
            | Self::Bind { .. } => true,
            Self::Worker(_)
            | Self::Journal(_)
            | Self::Segments(_)
            | Self::Rules(_)
            | Self::Demo(_)
            | Self::Signals(_)
            | Self::Threads(_) => false,
        }
    }
}
