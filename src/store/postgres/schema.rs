//! Brings a database to the schema of this program, one numbered step after the other.
//!
//! Invariants: each step is one transaction, under a lock that every node of every version takes, so that of several nodes that
//! start at once each step is taken by one; a step that was released never changes, and one that reads otherwise than the step that
//! was taken is refused; steps of a later program are left alone, since during a rolling upgrade both run.

use aws_lc_rs::digest::{SHA256, digest};
use sqlx::{Connection, PgConnection, Row};

use super::failure::{code, said};

/// One step.
struct Step {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

macro_rules! step {
    ($version:literal, $name:literal) => {
        Step { version: $version, name: $name, sql: include_str!(concat!("migrations/", $name, ".sql")) }
    };
}

/// Every step, in order.
const STEPS: &[Step] = &[
    step!(1, "0001_base"),
    step!(2, "0002_ledger"),
    step!(3, "0003_counters"),
    step!(4, "0004_audit"),
    step!(5, "0005_grants"),
    step!(6, "0006_ledger_marker"),
    step!(7, "0007_ledger_checks"),
    step!(8, "0008_fixed_workers"),
    step!(9, "0009_generations_in_force"),
    step!(10, "0010_ledger_heard"),
    step!(11, "0011_ledger_counters_stay"),
    step!(12, "0012_counter_notes"),
];

/// The lock of the runner: "numgen" in ASCII.
const LOCK: i64 = 0x6e75_6d67_656e;

/// Which steps were taken, and when.
const TABLE: &str = "CREATE TABLE numgen_schema (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    digest     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)";

/// Why a database is not brought to the schema.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A step that was taken is not the one that this program knows.
    #[error(
        "schema step {version} ({name}) of the database differs from that of this program: it was taken by a program that was \
         never released, or numgen_schema was edited"
    )]
    Changed {
        /// Which step.
        version: i32,
        /// Its name here.
        name: &'static str,
    },
    /// The database refuses.
    #[error("schema step {name} failed: {}", said(source))]
    Failed {
        /// Which step.
        name: &'static str,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
}

impl SchemaError {
    /// Whether only a person can change it: another try fails like the last one.
    pub(super) fn needs_a_person(&self) -> bool {
        match self {
            Self::Changed { .. } => true,
            // Syntax error or access rule violation: no privilege to make tables, above all.
            Self::Failed { source, .. } => code(source).is_some_and(|code| code.starts_with("42")),
        }
    }
}

/// How the schema of a database stands to this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaState {
    /// The last step that was taken; 0 in an empty database.
    pub found: i32,
    /// The last step that this program knows.
    pub known: i32,
    /// The first step that was taken in other words than this program's.
    pub changed: Option<i32>,
}

/// Reads how the schema stands, and changes nothing.
pub(super) async fn state(connection: &mut PgConnection) -> Result<SchemaState, sqlx::Error> {
    let known = STEPS.last().map_or(0, |step| step.version);
    let exists = sqlx::query("SELECT to_regclass('numgen_schema') IS NOT NULL AS there");
    if !exists.fetch_one(&mut *connection).await?.try_get("there")? {
        return Ok(SchemaState { found: 0, known, changed: None });
    }
    let taken = "SELECT version, digest FROM numgen_schema ORDER BY version";
    let mut state = SchemaState { found: 0, known, changed: None };
    for row in sqlx::query(taken).fetch_all(connection).await? {
        let (version, digest): (i32, String) = (row.try_get("version")?, row.try_get("digest")?);
        state.found = version;
        let differs = |step: &Step| step.version == version && digest_of(step.sql) != digest;
        if state.changed.is_none() && STEPS.iter().any(differs) {
            state.changed = Some(version);
        }
    }
    Ok(state)
}

/// Takes the steps that are missing. Every node may do so at any time.
///
/// # Errors
///
/// See [`SchemaError`]; what was done up to there stands.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<(), SchemaError> {
    for step in STEPS {
        let failed = |source| SchemaError::Failed { name: step.name, source };
        let taken = take(connection, step).await.map_err(failed)?;
        if taken != digest_of(step.sql) {
            return Err(SchemaError::Changed { version: step.version, name: step.name });
        }
    }
    Ok(())
}

/// Takes one step if nobody has; answers the digest of the one that is in force.
async fn take(connection: &mut PgConnection, step: &Step) -> Result<String, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    // Not `IF NOT EXISTS`, which says each time that it does.
    let exists = "SELECT to_regclass(quote_ident(current_schema()) || '.numgen_schema') IS NOT NULL AS there";
    if !sqlx::query(exists).fetch_one(&mut *transaction).await?.try_get("there")? {
        sqlx::raw_sql(TABLE).execute(&mut *transaction).await?;
    }
    let found = sqlx::query("SELECT digest FROM numgen_schema WHERE version = $1")
        .bind(step.version)
        .fetch_optional(&mut *transaction)
        .await?;
    if let Some(row) = found {
        return row.try_get("digest");
    }
    sqlx::raw_sql(step.sql).execute(&mut *transaction).await?;
    let digest = digest_of(step.sql);
    sqlx::query("INSERT INTO numgen_schema (version, name, digest) VALUES ($1, $2, $3)")
        .bind(step.version)
        .bind(step.name)
        .bind(&digest)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(digest)
}

/// SHA-256 as hex.
fn digest_of(sql: &str) -> String {
    digest(&SHA256, sql.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_count_from_one_and_are_named_by_their_number() {
        for (step, version) in STEPS.iter().zip(1..) {
            assert_eq!(step.version, version);
            assert!(step.name.starts_with(&format!("{version:04}_")), "{}", step.name);
        }
    }
}
