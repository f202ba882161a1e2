//! A look at a database that changes nothing, fit or not: for `numgen check`.

use std::{path::Path, time::Duration};

use sqlx::{Connection, PgConnection, Row};
use tokio::time::timeout;

use super::{
    durability::ServerReport,
    failure::{code, said},
    schema::{self, SchemaState},
    url::{self, ConnectError},
};
use crate::{clock::Clock, config::DatabaseUrl, secret::Secret};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// How long one question took.
    pub round_trip: Duration,
    /// How far the server's clock is ahead of this machine's, in ms; negative: behind.
    pub clock_offset_ms: i64,
}

/// What a database holds; nothing before the first start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The layout of IDs that the data centre was first used with.
    pub layout: Option<String>,
    /// Rules that are in force.
    pub rules: u64,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It can never work.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nobody answers, or in another way than a database does.
    #[error("PostgreSQL at {name} cannot be looked at: {}", said(source))]
    Failed {
        /// Where.
        name: String,
        /// What happened.
        source: sqlx::Error,
    },
    /// No answer.
    #[error("PostgreSQL at {name} does not answer")]
    Silent {
        /// Where.
        name: String,
    },
}

/// Looks at the database.
///
/// # Errors
///
/// It cannot be looked at.
pub async fn inspect(
    url: &Secret<String>,
    ca_file: Option<&Path>,
    datacenter: u32,
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
        let held = held(&mut connection, datacenter).await?;
        drop(connection.close().await);
        let midway = wall.plus(round_trip / 2);
        let clock_offset_ms = server.clock_ms - midway.0;
        Ok(Inspection { name: name.clone(), server, schema, held, round_trip, clock_offset_ms })
    };
    match timeout(PATIENCE, look).await {
        Ok(Ok(inspection)) => Ok(inspection),
        Ok(Err(source)) => Err(InspectError::Failed { name, source }),
        Err(_elapsed) => Err(InspectError::Silent { name }),
    }
}

async fn held(connection: &mut PgConnection, datacenter: u32) -> Result<Held, sqlx::Error> {
    /// SQLSTATE of a table that is not there.
    const UNDEFINED_TABLE: &str = "42P01";
    let found = sqlx::query(
        "SELECT (SELECT count(*) FROM numgen_rules WHERE rule IS NOT NULL) AS rules,
                (SELECT layout FROM numgen_layouts WHERE datacenter = $1) AS layout",
    )
    .bind(i32::try_from(datacenter).unwrap_or(i32::MAX))
    .fetch_one(connection)
    .await;
    match found {
        Ok(row) => {
            let rules: i64 = row.try_get("rules")?;
            Ok(Held { layout: row.try_get("layout")?, rules: rules.unsigned_abs() })
        }
        Err(error) if code(&error).as_deref() == Some(UNDEFINED_TABLE) => Ok(Held::default()),
        Err(error) => Err(error),
    }
}
