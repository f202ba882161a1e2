//! Worker threads, each with a runtime of its own.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::Lifecycle;

/// The threads that connections run on. Dropping it ends them; tasks that still run there are dropped.
#[derive(Debug)]
pub struct Threads {
    threads: Vec<Thread>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Thread {
    runtime: Handle,
    tasks: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Threads {
    /// Starts `count` threads.
    ///
    /// # Errors
    ///
    /// The operating system gives no more threads or no event queue.
    pub fn start(count: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let threads =
            (0..count.max(1)).map(|index| Thread::start(index, stop.clone())).collect::<io::Result<_>>()?;
        Ok(Self { threads, stop })
    }

    /// Runs `task` on the thread that has the fewest.
    pub fn run<F>(&self, lifecycle: &Lifecycle, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(thread) = self.threads.iter().min_by_key(|thread| thread.tasks.load(Ordering::Relaxed))
        else {
            return;
        };
        let counted = Counted::new(&thread.tasks);
        lifecycle.spawn_on(&thread.runtime, async move {
            task.await;
            drop(counted);
        });
    }
}

impl Thread {
    fn start(index: usize, stop: CancellationToken) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let thread = thread::Builder::new()
            .name(format!("numgen-http-{index}"))
            .spawn(move || runtime.block_on(stop.cancelled()))?;
        Ok(Self { runtime: handle, tasks: Arc::default(), thread: Some(thread) })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.iter_mut().filter_map(|thread| thread.thread.take()) {
            // A thread that panicked has said so already.
            let _panicked = thread.join();
        }
    }
}

/// Counts a task from now until it is dropped, whether it ends, is cancelled or panics.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(tasks: &Arc<AtomicUsize>) -> Self {
        tasks.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(tasks))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
