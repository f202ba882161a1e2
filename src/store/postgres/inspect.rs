//! A look at a database that changes nothing, fit or not: for `numgen check`.

use std::{path::Path, time::Duration};

use sqlx::{Connection, PgConnection, Row};
use tokio::time::timeout;

use super::{
    durability::{Role, ServerReport},
    failure::{Failure, code, said},
    grants::{self, Redis},
    layouts,
    ledger::{self, LedgerReport},
    schema::{self, SchemaState},
    url::{self, ConnectError},
    workers,
};
use crate::{
    clock::Clock,
    config::{self, DatabaseUrl},
    secret::Secret,
    store::{Nonce, StoreError},
};

/// How long all of it may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Where: host, port and database.
    pub name: String,
    /// What the server says of itself.
    pub server: ServerReport,
    /// How the schema stands.
    pub schema: SchemaState,
    /// What it holds.
    pub held: Held,
    /// How strict ledgers stand.
    pub ledgers: LedgerReport,
    /// How long one question took.
    pub round_trip: Duration,
    /// How far the server's clock is ahead of this machine's, in ms; negative: behind.
    pub clock_offset_ms: i64,
}

/// What a database holds; nothing before the first start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The layout of IDs that the data centre was first used with, or that another one has which does not go with what is asked for.
    pub layout: Option<String>,
    /// Rules that are in force.
    pub rules: u64,
    /// Who holds the fixed worker ID that is asked for, alive or not yet past its mark.
    pub holder: Option<Nonce>,
    /// The Redis that the data centre ID belongs to (profile *full*).
    pub home: Option<Redis>,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It can never work.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nobody answers, or in another way than a database does.
    #[error("PostgreSQL at {name} cannot be looked at: {}", said(cause))]
    Failed {
        /// Where.
        name: String,
        /// What happened; not a `source`, whose text would be shown beside what is said of it here.
        cause: sqlx::Error,
    },
    /// What it holds makes no sense.
    #[error("PostgreSQL at {name} cannot be looked at")]
    Store {
        /// Where.
        name: String,
        /// What was found.
        source: StoreError,
    },
    /// No answer.
    #[error("PostgreSQL at {name} does not answer")]
    Silent {
        /// Where.
        name: String,
    },
}

impl InspectError {
    pub(super) fn of(name: String, failure: Failure) -> Self {
        match failure {
            Failure::Database(cause) => Self::Failed { name, cause },
            Failure::Final(source) => Self::Store { name, source },
            Failure::Overtaken => Self::Silent { name },
        }
    }
}

/// Looks at the database, as a node with IDs of `worker` would.
///
/// # Errors
///
/// It cannot be looked at.
pub async fn inspect(
    url: &Secret<String>,
    ca_file: Option<&Path>,
    worker: &config::Worker,
    clock: &dyn Clock,
) -> Result<Inspection, InspectError> {
    let url = DatabaseUrl::parse(url.reveal()).map_err(ConnectError::from)?;
    let options = url::options(&url, ca_file)?;
    let name = url.to_string();
    let look = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        // The first question makes the driver learn types: the second one tells how long a question takes.
        ServerReport::of(&mut connection).await?;
        let (asked, wall) = (clock.monotonic(), clock.now());
        let server = ServerReport::of(&mut connection).await?;
        let round_trip = clock.monotonic().saturating_sub(asked);
        let schema = schema::state(&mut connection).await?;
        let held = held(&mut connection, worker).await?;
        let ledgers = if schema.found >= ledger::MARKED_SINCE && server.role == Role::Primary {
            ledger::look(&mut connection, schema.found).await?
        } else {
            LedgerReport::default()
        };
        drop(connection.close().await);
        let midway = wall.plus(round_trip / 2);
        let clock_offset_ms = server.clock_ms - midway.0;
        Ok::<_, Failure>(Inspection {
            name: name.clone(),
            server,
            schema,
            held,
            ledgers,
            round_trip,
            clock_offset_ms,
        })
    };
    match timeout(PATIENCE, look).await {
        Ok(Ok(inspection)) => Ok(inspection),
        Ok(Err(failure)) => Err(InspectError::of(name, failure)),
        Err(_elapsed) => Err(InspectError::Silent { name }),
    }
}

async fn held(connection: &mut PgConnection, worker: &config::Worker) -> Result<Held, Failure> {
    const RULES: &str = "SELECT count(*) AS rules FROM numgen_rules WHERE rule IS NOT NULL";
    let datacenter = i32::try_from(worker.datacenter_id).unwrap_or(i32::MAX);
    let look = async {
        let rules: i64 = sqlx::query(RULES).fetch_one(&mut *connection).await?.try_get("rules")?;
        let layout = layouts::recorded(connection, datacenter, &worker.pinned_layout()).await?;
        Ok(Held { layout, rules: rules.unsigned_abs(), ..Held::default() })
    };
    let held = or_nothing(look.await)?;
    let holder = match worker.worker_id {
        Some(slot) => or_nothing(workers::holder(connection, datacenter, slot, worker.epoch).await)?,
        None => None,
    };
    let home = or_nothing(grants::holder(connection, &worker.datacenter_id).await)?;
    Ok(Held { holder, home, ..held })
}

/// Nothing where there is no such table: an older schema has none, and another program's has no meaning.
fn or_nothing<T: Default>(found: Result<T, Failure>) -> Result<T, Failure> {
    const UNDEFINED_TABLE: &str = "42P01";
    match found {
        Err(Failure::Database(error)) if code(&error).as_deref() == Some(UNDEFINED_TABLE) => Ok(T::default()),
        found => found,
    }
}
