//! Worker threads, each with a runtime of its own.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
};

use pin_project_lite::pin_project;
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
        lifecycle.spawn_on(&thread.runtime, Counted { task, place: Place::new(&thread.tasks) });
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

pin_project! {
    /// A task that is counted until it is dropped, whether it ends, is cancelled or panics.
    struct Counted<F> {
        #[pin]
        task: F,
        place: Place,
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().task.poll(cx)
    }
}

/// One in a count.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn new(tasks: &Arc<AtomicUsize>) -> Self {
        tasks.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(tasks))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
