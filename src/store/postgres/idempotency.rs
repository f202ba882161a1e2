//! What each `Idempotency-Key` was given, in every mode: one table, so that a key stays used when its rule changes its mode.
//!
//! A record is found by the SHA-256 of its scoped key: of one length, and whatever the key holds.

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    PostgresStore,
    failure::Failure,
    values::{moment, ranges},
};
use crate::{
    clock::UnixMillis,
    counter::Ranges,
    store::{Claim, IdempotencyStore, Recorded, StoreError, StoreFuture, Taken, draw::Record},
};

/// Expired records that one call deletes at most.
const SWEEP: i64 = 1_000;

/// Inserts a record, or puts it in the place of one that had expired when the claim was made.
const REMEMBER: &str = "
    INSERT INTO numgen_idempotency AS known (key, fingerprint, stamp, value_ranges, expires_at_ms)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (key) DO UPDATE
    SET fingerprint = excluded.fingerprint, stamp = excluded.stamp, value_ranges = excluded.value_ranges,
        expires_at_ms = excluded.expires_at_ms
    WHERE known.expires_at_ms <= $6";

const RECALL: &str =
    "SELECT fingerprint, stamp, value_ranges, expires_at_ms FROM numgen_idempotency WHERE key = $1";

const FORGET: &str = "
    DELETE FROM numgen_idempotency WHERE key IN (
        SELECT key FROM numgen_idempotency WHERE expires_at_ms < $1 ORDER BY expires_at_ms LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// The primary key of a claim's record.
pub(super) fn key_of(claim: &Claim) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, claim.scoped_key.as_bytes()).as_ref());
    key
}

/// Reads `fingerprint, stamp, value_ranges, expires_at_ms`.
pub(super) fn record(row: &PgRow) -> Result<Record, Failure> {
    let stamp: String = row.try_get("stamp")?;
    Ok(Record {
        fingerprint: row.try_get("fingerprint")?,
        recorded: Recorded { stamp: stamp.into(), values: ranges(row, "value_ranges")? },
        expires_at: moment(row, "expires_at_ms")?,
    })
}

impl IdempotencyStore for PostgresStore {
    fn remember(&self, claim: Claim, values: Ranges) -> StoreFuture<'_, Taken> {
        Box::pin(async move { self.transact("remember", &(claim, values), remember).await })
    }

    fn forget_expired(&self, now: UnixMillis) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            self.transact("forget_expired", &now, |connection, now| {
                Box::pin(async move {
                    let done = sqlx::query(FORGET).bind(now.0).bind(SWEEP).execute(connection).await?;
                    Ok(done.rows_affected())
                })
            })
            .await
        })
    }
}

impl PostgresStore {
    /// What a key was given; `None`, if it was given nothing or its record has expired when the claim is made.
    pub(super) async fn recall(&self, claim: Claim) -> Result<Option<Taken>, StoreError> {
        self.transact("recall", &claim, |connection, claim| Box::pin(recall(connection, claim))).await
    }
}

async fn recall(connection: &mut PgConnection, claim: &Claim) -> Result<Option<Taken>, Failure> {
    let found = sqlx::query(RECALL).bind(&key_of(claim)[..]).fetch_optional(connection).await?;
    Ok(found.as_ref().map(record).transpose()?.and_then(|known| known.answer(claim)))
}

fn remember<'c>(
    connection: &'c mut PgConnection,
    (claim, values): &'c (Claim, Ranges),
) -> BoxFuture<'c, Result<Taken, Failure>> {
    Box::pin(async move {
        let key = key_of(claim);
        loop {
            let written = sqlx::query(REMEMBER)
                .bind(&key[..])
                .bind(&claim.fingerprint[..])
                .bind(&*claim.stamp)
                .bind(values.to_string())
                .bind(claim.expires_at.0)
                .bind(claim.claimed_at.0)
                .execute(&mut *connection)
                .await?;
            if written.rows_affected() > 0 {
                return Ok(Taken::Fresh(values.clone()));
            }
            // None: it was forgotten between the two statements.
            if let Some(taken) = recall(connection, claim).await? {
                return Ok(taken);
            }
        }
    })
}
