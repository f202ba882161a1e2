//! Threads that read: a page or an audit sees the database as it was when it began, and never holds up who writes.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::{OpenError, writer::QUEUE_LIMIT};

/// One reading on its way; it answers by itself.
type Read = Box<dyn FnOnce(&Connection) + Send>;

/// What is sent to a reader.
pub(super) enum Message {
    /// A reading.
    Read(Read),
    /// The connection is closed, then the sender dropped.
    Close(oneshot::Sender<()>),
}

/// Opens a connection that cannot write and starts its thread.
pub(super) fn start(
    name: &str,
    database: &Path,
    busy_timeout: Duration,
) -> Result<(SyncSender<Message>, JoinHandle<()>), OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    connection.busy_timeout(busy_timeout)?;
    let (sender, receiver) = sync_channel(QUEUE_LIMIT);
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || serve(connection, &receiver))
        .map_err(OpenError::Thread)?;
    Ok((sender, thread))
}

fn serve(connection: Connection, queue: &Receiver<Message>) {
    let mut closing = None;
    while closing.is_none() {
        match queue.recv() {
            Ok(Message::Read(read)) => {
                // The caller of a reading that panics sees its reply dropped; the thread goes on.
                if catch_unwind(AssertUnwindSafe(|| read(&connection))).is_err() {
                    tracing::error!("a reading panicked");
                }
            }
            Ok(Message::Close(done)) => closing = Some(done),
            Err(_disconnected) => break,
        }
    }
    drop(connection);
}
