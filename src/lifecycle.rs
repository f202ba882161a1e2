//! Start and end of everything that runs in the background.
//!
//! Invariant: a task that was spawned here is awaited before the process exits, or was told to stop and given
//! its time. Nothing else in the crate calls `tokio::spawn` (`clippy.toml` sees to it).

use std::{future::Future, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The handle that every part shares: it says when to stop, and counts who is still at work.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    draining: CancellationToken,
    tasks: TaskTracker,
}

impl Lifecycle {
    /// A life that has just begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` on the current runtime and remembers it until it ends.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(self.tasks.track_future(task));
    }

    /// Runs `task` on another runtime and remembers it until it ends.
    pub fn spawn_on<F>(&self, runtime: &tokio::runtime::Handle, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        runtime.spawn(self.tasks.track_future(task));
    }

    /// Tells everybody to finish what is in flight and take nothing new. Idempotent.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether `drain` was called.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Resolves once `drain` was called.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Waits for every tracked task, at most for `limit`; answers how many were still running then.
    pub async fn finished(&self, limit: Duration) -> usize {
        self.tasks.close();
        match tokio::time::timeout(limit, self.tasks.wait()).await {
            Ok(()) => 0,
            Err(_elapsed) => self.tasks.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn finished_waits_for_tracked_tasks() {
        let lifecycle = Lifecycle::new();
        let inside = lifecycle.clone();
        lifecycle.spawn(async move { inside.draining().await });
        assert_eq!(lifecycle.finished(Duration::from_secs(1)).await, 1, "nobody told it to stop");
        lifecycle.drain();
        assert!(lifecycle.is_draining());
        assert_eq!(lifecycle.finished(Duration::from_secs(1)).await, 0);
    }
}
