//! What was committed is not durable yet: a barrier makes it so.
//!
//! What others wait behind, a batch of a ledger or the change of a row, is committed with `synchronous_commit = off`, so that its counter
//! does not stand still while the disk turns. From then on everybody sees it, and a crash of the server may still take it back.
//!
//! # Invariant
//!
//! **Nobody is told anything that a crash may take back.** Whoever answers from what it has read or written
//! passes a barrier in between. What proves it:
//!
//! 1. The write-ahead log is one line, and a crash leaves a beginning of it. A transaction is seen by others only after its
//!    commit stands in the log. So whatever a transaction has seen stands in the log before anything that it writes after it has looked.
//! 2. A commit that waits (`synchronous_commit` as the server has it, which is never `off`: `durability.rs`) returns when the
//!    log up to it is on disk, and on a synchronous standby where there is one. It covers everything before it, its own node's or another's.
//! 3. So a transaction that waits and has written after it has read is its own barrier. One that only reads writes a message that
//!    nobody hears, for that purpose alone.
//! 4. What was committed ahead is followed by such a transaction *on the same connection*. A crash ends every
//!    connection; one that answers has not outlived the server that took the commit.
//! 5. If the connection ends before that, the outcome is unknown. That of a batch is found out under the row lock, by a transaction that is a
//!    barrier; whoever changes a row is told, and may ask for the change again.

use sqlx::PgConnection;

/// Writes to the log, as part of the transaction; standbys and subscribers do nothing with it. A server that was set to `off` since it was
/// looked at waits all the same.
const BARRIER: &str = "SELECT pg_logical_emit_message(true, 'numgen', ''),
    CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', true) END";

/// Makes everything that this transaction has seen durable by the time that its commit is answered; as a statement of its own, everything
/// that was committed before.
pub(super) async fn barrier(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(BARRIER).execute(connection).await.map(drop)
}
