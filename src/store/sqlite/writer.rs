//! The one thread that writes: everything that waits becomes ONE transaction with ONE fsync.
//!
//! Invariants: a job is answered only after the COMMIT that carries it came back; a job that fails is rolled back alone
//! (its savepoint), a commit that fails fails every job of its batch; a job that nobody waits for any more is not begun.
//!
//! A COMMIT that reports an error is rolled back: this process sees nothing of it, and the next commit overwrites its frames in
//! the log. Should it have happened all the same, then values were drawn for callers that were told otherwise: they are never
//! given to anybody else, and listed as `returned`, or by the next start as `unconfirmed` if the process dies at that moment.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{directory::Directory, failure::Failure, settlement, workspace::Workspace};
use crate::store::StoreError;

/// The most jobs that share a transaction: bounds how long the first of them waits for the last.
const BATCH_LIMIT: usize = 256;

/// How many jobs may wait. More would only time out.
pub(super) const QUEUE_LIMIT: usize = 4_096;

/// How often a writer with something to tidy up looks whether it is time.
const TICK: Duration = Duration::from_millis(500);

/// One operation on its way through the writer.
pub(super) trait Job: Send {
    /// Whether anybody still waits for it.
    fn is_awaited(&self) -> bool;

    /// Does the work inside a transaction. Called at most once.
    fn run(&mut self, workspace: &mut Workspace) -> Result<(), Failure>;

    /// Tells the caller, once it is known whether the work is durable; what is left to do if the caller is gone.
    fn answer(self: Box<Self>, outcome: Result<(), Failure>) -> Option<Box<dyn Job>>;
}

/// What is sent to the writer.
pub(super) enum Message {
    /// Work.
    Job(Box<dyn Job>),
    /// Everything that was sent before is finished, the database closed; then the sender is dropped.
    Close(oneshot::Sender<()>),
}

/// A moment at which a test can make things go wrong.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Before BEGIN.
    Begin,
    /// Before COMMIT.
    Commit,
    /// After COMMIT, before anybody is told.
    Answer,
}

/// What a test does to the writer: fail, or block for a while.
#[cfg(test)]
pub(super) type Fault = Box<dyn FnMut(Moment) -> Result<(), rusqlite::Error> + Send>;

/// The state of the thread.
pub(super) struct Writer {
    pub(super) workspace: Workspace,
    /// Held until the database is closed.
    pub(super) directory: Directory,
    /// Jobs that came up by themselves.
    pub(super) backlog: Vec<Box<dyn Job>>,
    #[cfg(test)]
    pub(super) fault: Option<Fault>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(self) -> std::io::Result<(SyncSender<Message>, JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(QUEUE_LIMIT);
        let thread =
            thread::Builder::new().name("sqlite-writer".to_owned()).spawn(move || self.serve(&receiver))?;
        Ok((sender, thread))
    }

    fn serve(mut self, queue: &Receiver<Message>) {
        let mut closing = None;
        while closing.is_none() {
            let mut batch = std::mem::take(&mut self.backlog);
            match self.next(queue, !batch.is_empty()) {
                Ok(Message::Job(job)) => batch.push(job),
                Ok(Message::Close(done)) => closing = Some(done),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while batch.len() < BATCH_LIMIT && closing.is_none() {
                match queue.try_recv() {
                    Ok(Message::Job(job)) => batch.push(job),
                    Ok(Message::Close(done)) => closing = Some(done),
                    Err(_empty_or_disconnected) => break,
                }
            }
            if self.workspace.is_settlement_due() {
                batch.push(Box::new(Settle));
            }
            self.run_batch(batch);
        }
        let left = std::mem::take(&mut self.backlog);
        self.run_batch(left);
        self.close();
        // Dropping `closing` is the answer: the lock is free by now.
    }

    /// Waits for work; not for long while there is something to tidy up.
    fn next(&self, queue: &Receiver<Message>, has_backlog: bool) -> Result<Message, RecvTimeoutError> {
        if has_backlog || self.workspace.is_unsettled() {
            queue.recv_timeout(TICK)
        } else {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        }
    }

    fn run_batch(&mut self, mut batch: Vec<Box<dyn Job>>) {
        batch.retain(|job| job.is_awaited());
        if batch.is_empty() {
            return;
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        let committed = self.transact(&mut batch, &mut outcomes);
        if committed.is_err() || outcomes.iter().any(Result::is_err) {
            self.workspace.forget();
        }
        match committed {
            Ok(()) => {
                let left = batch.into_iter().zip(outcomes).filter_map(|(job, outcome)| job.answer(outcome));
                self.backlog.extend(left);
            }
            Err(failure) => {
                let left = batch.into_iter().filter_map(|job| job.answer(Err(failure.clone())));
                self.backlog.extend(left);
            }
        }
    }

    /// One transaction around all jobs; `outcomes` says how each went.
    fn transact(
        &mut self,
        batch: &mut [Box<dyn Job>],
        outcomes: &mut Vec<Result<(), Failure>>,
    ) -> Result<(), Failure> {
        #[cfg(test)]
        self.pass(Moment::Begin)?;
        self.roll_back()?;
        self.workspace.execute("BEGIN IMMEDIATE", [])?;
        let committed = self.run_jobs(batch, outcomes).and_then(|()| {
            #[cfg(test)]
            self.pass(Moment::Commit)?;
            self.workspace.execute("COMMIT", [])
        });
        if let Err(failure) = committed {
            if let Err(also) = self.roll_back() {
                tracing::error!(error = %also, "could not roll back; tried again before the next transaction");
            }
            return Err(failure);
        }
        #[cfg(test)]
        self.pass(Moment::Answer)?;
        Ok(())
    }

    /// Ends a transaction that is open, if there is one.
    fn roll_back(&self) -> Result<(), Failure> {
        if !self.workspace.connection.is_autocommit() {
            self.workspace.execute("ROLLBACK", [])?;
        }
        Ok(())
    }

    fn run_jobs(
        &mut self,
        batch: &mut [Box<dyn Job>],
        outcomes: &mut Vec<Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let is_alone = batch.len() == 1;
        for job in batch {
            let workspace = &mut self.workspace;
            if !is_alone {
                workspace.execute("SAVEPOINT job", [])?;
            }
            // A panic must not take the thread, and with it the store, away from everybody else.
            let outcome = catch_unwind(AssertUnwindSafe(|| job.run(workspace)));
            let outcome = outcome.unwrap_or(Err(Failure::Panicked));
            if let Err(failure) = &outcome {
                workspace.forget();
                // Some errors (a full disk) end the whole transaction: then nobody's work is left.
                if is_alone || workspace.connection.is_autocommit() {
                    return Err(failure.clone());
                }
                workspace.execute("ROLLBACK TO job", [])?;
            }
            if !is_alone {
                workspace.execute("RELEASE job", [])?;
            }
            outcomes.push(outcome);
        }
        Ok(())
    }

    /// A clean end: nothing is in doubt, and the log is folded into the database.
    fn close(self) {
        let Self { workspace, directory, .. } = self;
        let tidied = settlement::settle_all(&workspace.connection)
            .and_then(|()| Ok(workspace.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?));
        if let Err(failure) = tidied {
            tracing::warn!(error = %failure, "could not tidy up the database; the next start will");
        }
        // The connection first, then the lock.
        drop(workspace);
        drop(directory);
    }

    #[cfg(test)]
    fn pass(&mut self, moment: Moment) -> Result<(), Failure> {
        Ok(self.fault.as_mut().map_or(Ok(()), |fault| fault(moment))?)
    }
}

/// Writes down that counters at rest are settled.
struct Settle;

impl Job for Settle {
    fn is_awaited(&self) -> bool {
        true
    }

    fn run(&mut self, workspace: &mut Workspace) -> Result<(), Failure> {
        workspace.settle()
    }

    fn answer(self: Box<Self>, outcome: Result<(), Failure>) -> Option<Box<dyn Job>> {
        if let Err(failure) = outcome {
            tracing::debug!(error = %failure, "could not write down that counters are settled");
        }
        None
    }
}

/// Work with somebody waiting for its result.
pub(super) struct Call<T, W, L> {
    pub(super) operation: &'static str,
    /// Taken when it is run.
    pub(super) work: Option<W>,
    pub(super) result: Option<T>,
    pub(super) reply: oneshot::Sender<Result<T, StoreError>>,
    /// What is left to do when the result is, or may be, durable and does not reach the caller.
    pub(super) leftover: L,
}

impl<T, W, L> Job for Call<T, W, L>
where
    T: Send,
    W: FnOnce(&mut Workspace) -> Result<T, Failure> + Send,
    L: FnOnce(T) -> Option<Box<dyn Job>> + Send,
{
    fn is_awaited(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run(&mut self, workspace: &mut Workspace) -> Result<(), Failure> {
        let work = self.work.take().ok_or(Failure::Panicked)?;
        self.result = Some(work(workspace)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), Failure>) -> Option<Box<dyn Job>> {
        let Self { operation, result, reply, leftover, work: _ } = *self;
        match (outcome, result) {
            (Ok(()), Some(result)) => match reply.send(Ok(result)) {
                Err(Ok(result)) => leftover(result),
                Ok(()) | Err(Err(_)) => None,
            },
            (outcome, result) => {
                let failure = outcome.err().unwrap_or(Failure::Panicked);
                let _gone = reply.send(Err(failure.during(operation)));
                // There is a result where the work was done and the commit failed: perhaps not quite.
                result.and_then(leftover)
            }
        }
    }
}
