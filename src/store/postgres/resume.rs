//! A person's word that strict numbers may be issued again: for `numgen resume`.

use std::path::Path;

use sqlx::{Connection, PgConnection};

use super::{
    failure::Failure,
    inspect::{InspectError, PATIENCE},
    ledger,
    url::{self, ConnectError},
};
use crate::{clock::Clock, config::DatabaseUrl, secret::Secret};

pub use super::ledger::{Lost, Resumed};

/// Lets strict numbers be issued on this database, which may lack some; `reason` goes to the audit trail of every strict prefix key. Nodes `without` which it has to do are not waited for.
///
/// # Errors
///
/// The database cannot be asked.
pub async fn resume(
    url: &Secret<String>,
    ca_file: Option<&Path>,
    reason: &str,
    without: &[String],
    clock: &dyn Clock,
) -> Result<Resumed, InspectError> {
    let url = DatabaseUrl::parse(url.reveal()).map_err(ConnectError::from)?;
    let options = url::options(&url, ca_file)?;
    let resuming = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        let mut transaction = connection.begin().await?;
        let answer = ledger::resume(&mut transaction, clock.now(), reason, without).await?;
        transaction.commit().await?;
        drop(connection.close().await);
        Ok::<_, Failure>(answer)
    };
    match tokio::time::timeout(PATIENCE, resuming).await {
        Ok(answer) => answer.map_err(|failure| InspectError::of(url.to_string(), failure)),
        Err(_elapsed) => Err(InspectError::Silent { name: url.to_string() }),
    }
}
