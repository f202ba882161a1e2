//! Whether a server keeps what it acknowledges, as it was given.

use sqlx::{PgConnection, Row};

/// The oldest version that is supported, as `server_version_num` counts.
const OLDEST: i32 = 130_000;

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerReport {
    /// `server_version`, such as `15.12 (Debian 15.12-0+deb12u2)`.
    pub version: String,
    /// The same as a number, such as 150012.
    pub version_number: i32,
    /// `fsync`.
    pub fsync: String,
    /// `synchronous_commit`, as it is for this role in this database.
    pub synchronous_commit: String,
    /// `full_page_writes`.
    pub full_page_writes: String,
    /// `wal_level`.
    pub wal_level: String,
    /// `synchronous_standby_names`, empty where no standby is waited for.
    pub synchronous_standby_names: String,
    /// `server_encoding` of the database.
    pub encoding: String,
    /// Whether the server only reads.
    pub role: Role,
    /// How far the clock of the server was ahead of ours, in ms; negative: behind.
    pub clock_ms: i64,
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows another one, or is set to read only.
    ReadOnly,
}

/// Why a server must not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A power cut may take what was acknowledged.
    #[error(
        "fsync is off: a crash may take back numbers that were given out; set fsync = on in postgresql.conf"
    )]
    Fsync,
    /// A crash may take the last moments.
    #[error(
        "synchronous_commit is off: a crash may take back numbers that were given out; set synchronous_commit = on for this \
         database and role"
    )]
    SynchronousCommit,
    /// A server that cannot do what is needed.
    #[error("PostgreSQL {version} is too old; 13 or later is needed")]
    TooOld {
        /// Its version.
        version: String,
    },
    /// What one caller may send, the database cannot keep.
    #[error(
        "the encoding of the database is {encoding}: a character that it lacks would stop the counter of whoever sends one; make the \
         database with ENCODING 'UTF8' TEMPLATE template0"
    )]
    Encoding {
        /// `server_encoding`.
        encoding: String,
    },
    /// Only a primary takes writes.
    #[error(
        "the server only reads: it is a standby, or default_transaction_read_only is on; name the primary"
    )]
    ReadOnly,
}

impl ServerReport {
    /// Asks the server.
    pub(super) async fn of(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let row = sqlx::query(
            "SELECT current_setting('server_version') AS version,
                    current_setting('server_version_num')::integer AS version_number,
                    current_setting('fsync') AS fsync,
                    current_setting('synchronous_commit') AS synchronous_commit,
                    current_setting('full_page_writes') AS full_page_writes,
                    current_setting('wal_level') AS wal_level,
                    current_setting('synchronous_standby_names') AS synchronous_standby_names,
                    current_setting('server_encoding') AS encoding,
                    (pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean) AS read_only,
                    floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS clock_ms",
        )
        .fetch_one(connection)
        .await?;
        Ok(Self {
            version: row.try_get("version")?,
            version_number: row.try_get("version_number")?,
            fsync: row.try_get("fsync")?,
            synchronous_commit: row.try_get("synchronous_commit")?,
            full_page_writes: row.try_get("full_page_writes")?,
            wal_level: row.try_get("wal_level")?,
            synchronous_standby_names: row.try_get("synchronous_standby_names")?,
            encoding: row.try_get("encoding")?,
            role: if row.try_get("read_only")? { Role::ReadOnly } else { Role::Primary },
            clock_ms: row.try_get("clock_ms")?,
        })
    }

    /// Why a standby that is promoted may lack what was acknowledged, though the server is to wait for standbys.
    pub fn doubt(&self) -> Option<String> {
        let Self { synchronous_commit: level, synchronous_standby_names: names, .. } = self;
        let what = match level.as_str() {
            "local" => "no standby is waited for",
            "remote_write" => "a standby is not waited for until it has written to disk",
            _ => return None,
        };
        (!names.is_empty()).then(|| {
            format!(
                "synchronous_commit is {level} though synchronous_standby_names is {names}: {what}, and one that is promoted may lack \
                 numbers that were given out; set synchronous_commit = on for this database and role"
            )
        })
    }

    /// Whether the server may be used.
    ///
    /// # Errors
    ///
    /// The first reason against it, by the name of the setting.
    pub fn judge(&self) -> Result<(), Unfit> {
        if self.version_number < OLDEST {
            Err(Unfit::TooOld { version: self.version.clone() })
        } else if self.fsync == "off" {
            Err(Unfit::Fsync)
        } else if self.synchronous_commit == "off" {
            Err(Unfit::SynchronousCommit)
        } else if self.encoding != "UTF8" {
            Err(Unfit::Encoding { encoding: self.encoding.clone() })
        } else if self.role == Role::ReadOnly {
            Err(Unfit::ReadOnly)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> ServerReport {
        ServerReport {
            version: "15.12".to_owned(),
            version_number: 150_012,
            fsync: "on".to_owned(),
            synchronous_commit: "on".to_owned(),
            full_page_writes: "on".to_owned(),
            wal_level: "replica".to_owned(),
            synchronous_standby_names: String::new(),
            encoding: "UTF8".to_owned(),
            role: Role::Primary,
            clock_ms: 0,
        }
    }

    #[test]
    fn a_standby_that_is_not_waited_for_is_named() {
        let with = |level: &str, names: &str| {
            let (level, names) = (level.to_owned(), names.to_owned());
            ServerReport { synchronous_commit: level, synchronous_standby_names: names, ..report() }.doubt()
        };
        for level in ["local", "remote_write"] {
            let said = with(level, "FIRST 1 (a)").expect("a doubt");
            assert!(
                said.contains(&format!("synchronous_commit is {level}")) && said.contains("FIRST 1 (a)"),
                "{said}"
            );
            assert_eq!(with(level, ""), None);
        }
        for level in ["on", "remote_apply"] {
            assert_eq!(with(level, "*"), None);
        }
    }

    #[test]
    fn what_forgets_is_refused_by_name() {
        assert_eq!(report().judge(), Ok(()));
        for level in ["local", "remote_write", "remote_apply"] {
            assert_eq!(ServerReport { synchronous_commit: level.to_owned(), ..report() }.judge(), Ok(()));
        }
        let off = || "off".to_owned();
        for (report, expected) in [
            (ServerReport { fsync: off(), ..report() }, "fsync is off"),
            (ServerReport { synchronous_commit: off(), ..report() }, "synchronous_commit is off"),
            (
                ServerReport { encoding: "LATIN1".to_owned(), ..report() },
                "encoding of the database is LATIN1",
            ),
            (ServerReport { encoding: "SQL_ASCII".to_owned(), ..report() }, "ENCODING 'UTF8'"),
            (ServerReport { version_number: 120_022, ..report() }, "13 or later"),
            (ServerReport { role: Role::ReadOnly, ..report() }, "only reads"),
        ] {
            let said = report.judge().unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
        }
    }
}
