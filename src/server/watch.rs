//! How long a connection may keep us waiting.
//!
//! A timer for each request would be an allocation and two visits to the timer wheel for each request. Instead each connection
//! notes in atomics what it is doing, and one patrol looks at them all four times a second: a request costs a few plain
//! stores. Timeouts are therefore up to a quarter of a second late.
//!
//! A connection is *idle*, *reading* (bytes of a request head have come, not yet all), or *serving* (one request or, with
//! HTTP/2, several). The patrol sends it away by a command and wakes its task, which alone touches the connection.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Limits;
use crate::lifecycle::Lifecycle;

const TICK: Duration = Duration::from_millis(250);

/// How many ticks a request that is just arriving has at the drain.
const FAREWELL_ROUNDS: u32 = 4;

/// What a connection is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Go on.
    Stay,
    /// Finish what is being served, then close.
    Finish,
    /// Close now.
    Close,
}

/// The patrol's view of one connection.
#[derive(Debug)]
pub(super) struct Watcher {
    ticks: Arc<AtomicU32>,
    /// Of the connection's task, which stays the same as long as it lives.
    waker: OnceLock<Waker>,
    command: AtomicU8,
    serving: AtomicU32,
    reading: AtomicBool,
    http2: AtomicBool,
    /// The tick since which it has been idle, or reading.
    since: AtomicU32,
    /// How many requests may still come.
    left: AtomicU32,
}

impl Watcher {
    /// Called in each poll of the connection: remembers whom to wake, answers what to do.
    pub(super) fn command(&self, context: &Context<'_>) -> Command {
        self.waker.get_or_init(|| context.waker().clone());
        match self.command.load(Ordering::Acquire) {
            0 => Command::Stay,
            1 => Command::Finish,
            _ => Command::Close,
        }
    }

    /// A request head is complete; the guard is held until its answer is ready.
    pub(super) fn serve(self: &Arc<Self>, version: http::Version) -> Serving {
        self.serving.fetch_add(1, Ordering::Relaxed);
        self.reading.store(false, Ordering::Relaxed);
        // Only the connection's own thread counts.
        let left = self.left.load(Ordering::Relaxed).saturating_sub(1);
        self.left.store(left, Ordering::Relaxed);
        if left == 0 {
            self.order(Command::Finish);
        }
        if version == http::Version::HTTP_2 {
            self.http2.store(true, Ordering::Relaxed);
        }
        Serving(Arc::clone(self))
    }

    /// Whether the connection ends with the request that it is serving.
    fn is_finishing(&self) -> bool {
        self.command.load(Ordering::Relaxed) != Command::Stay as u8
    }

    fn now(&self) -> u32 {
        self.ticks.load(Ordering::Relaxed)
    }

    fn bytes_came(&self) {
        // HTTP/2 frames between requests are not heads; a body is read while serving.
        if self.serving.load(Ordering::Relaxed) == 0
            && !self.http2.load(Ordering::Relaxed)
            && !self.reading.swap(true, Ordering::Relaxed)
        {
            self.since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn order(&self, command: Command) {
        let raised = self.command.fetch_max(command as u8, Ordering::AcqRel) < command as u8;
        if raised {
            // A task that has not been polled yet will find the command when it is.
            if let Some(waker) = self.waker.get() {
                waker.wake_by_ref();
            }
        }
    }

    /// What the drain calls for, in its `round`-th tick. Whoever is sending a request, or has just been accepted, has a second
    /// for it: its request is served, and no other after it.
    fn farewell(&self, round: u32) -> Command {
        let arriving = self.reading.load(Ordering::Relaxed) && self.serving.load(Ordering::Relaxed) == 0;
        if arriving && round < FAREWELL_ROUNDS { Command::Stay } else { Command::Finish }
    }

    /// What the time that has passed calls for.
    fn verdict(&self, now: u32, header_ticks: u32, idle_ticks: u32) -> Command {
        if self.serving.load(Ordering::Relaxed) > 0 {
            return Command::Stay;
        }
        let waited = now.wrapping_sub(self.since.load(Ordering::Relaxed));
        if self.reading.load(Ordering::Relaxed) {
            if waited > header_ticks { Command::Close } else { Command::Stay }
        } else if waited > idle_ticks.saturating_add(header_ticks) {
            // Told to finish long ago: its peer does not even read.
            Command::Close
        } else if waited > idle_ticks {
            Command::Finish
        } else {
            Command::Stay
        }
    }
}

/// One request being served.
pub(super) struct Serving(Arc<Watcher>);

impl Serving {
    /// Whether no other request will follow on this connection.
    pub(super) fn ends_connection(&self) -> bool {
        self.0.is_finishing()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.since.store(self.0.now(), Ordering::Relaxed);
        self.0.serving.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All connections of a listener.
#[derive(Debug)]
pub(super) struct Watchers {
    ticks: Arc<AtomicU32>,
    header_ticks: u32,
    idle_ticks: u32,
    max_requests: u32,
    connections: Mutex<Vec<Weak<Watcher>>>,
}

impl Watchers {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let ticks = |timeout: Duration| {
            u32::try_from(timeout.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u32::MAX)
        };
        Arc::new(Self {
            ticks: Arc::default(),
            header_ticks: ticks(limits.header_timeout),
            idle_ticks: ticks(limits.idle_timeout),
            max_requests: limits.max_requests,
            connections: Mutex::default(),
        })
    }

    /// Watches a new connection. Its first request is due at once: it counts as reading.
    pub(super) fn watch(&self) -> Arc<Watcher> {
        let watcher = Arc::new(Watcher {
            ticks: Arc::clone(&self.ticks),
            waker: OnceLock::new(),
            command: AtomicU8::new(0),
            serving: AtomicU32::new(0),
            reading: AtomicBool::new(true),
            http2: AtomicBool::new(false),
            since: AtomicU32::new(self.ticks.load(Ordering::Relaxed)),
            left: AtomicU32::new(self.max_requests),
        });
        self.lock().push(Arc::downgrade(&watcher));
        watcher
    }

    /// Looks at every connection four times a second; at the drain tells all to finish.
    pub(super) async fn patrol(self: Arc<Self>, lifecycle: Lifecycle) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick(),
                () = lifecycle.draining() => break,
            }
        }
        for round in 0_u32.. {
            self.each(|watcher| watcher.farewell(round));
            if self.lock().is_empty() {
                return;
            }
            ticks.tick().await;
        }
    }

    fn tick(&self) {
        let now = self.ticks.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.each(|watcher| watcher.verdict(now, self.header_ticks, self.idle_ticks));
    }

    fn each(&self, verdict: impl Fn(&Watcher) -> Command) {
        self.lock().retain(|watcher| {
            let Some(watcher) = watcher.upgrade() else { return false };
            watcher.order(verdict(&watcher));
            true
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Watcher>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that tells its watcher when bytes come.
#[derive(Debug)]
pub(super) struct Watched<T> {
    pub(super) stream: T,
    pub(super) watcher: Arc<Watcher>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.watcher.bytes_came();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watchers() -> Arc<Watchers> {
        Watchers::new(Limits {
            max_connections: 1,
            max_requests: 100,
            header_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(5),
        })
    }

    fn command(watcher: &Watcher) -> Command {
        watcher.command(&Context::from_waker(std::task::Waker::noop()))
    }

    fn pass(watchers: &Watchers, seconds: u32) {
        for _ in 0..seconds * 4 {
            watchers.tick();
        }
    }

    #[test]
    fn a_connection_that_sends_no_head_is_closed() {
        let watchers = watchers();
        let watcher = watchers.watch();
        pass(&watchers, 1);
        assert_eq!(command(&watcher), Command::Stay);
        watchers.tick();
        assert_eq!(command(&watcher), Command::Close);
    }

    #[test]
    fn a_head_that_trickles_in_is_not_given_new_time() {
        let watchers = watchers();
        let watcher = watchers.watch();
        drop(watcher.serve(http::Version::HTTP_11));
        pass(&watchers, 2);
        watcher.bytes_came();
        for _ in 0..5 {
            watchers.tick();
            watcher.bytes_came();
        }
        assert_eq!(command(&watcher), Command::Close);
    }

    #[test]
    fn an_idle_connection_finishes_and_a_deaf_one_is_closed() {
        let watchers = watchers();
        let watcher = watchers.watch();
        drop(watcher.serve(http::Version::HTTP_11));
        pass(&watchers, 5);
        assert_eq!(command(&watcher), Command::Stay);
        watchers.tick();
        assert_eq!(command(&watcher), Command::Finish);
        pass(&watchers, 1);
        assert_eq!(command(&watcher), Command::Close);
    }

    #[test]
    fn a_connection_ends_with_its_last_request() {
        let watchers = watchers();
        let watcher = watchers.watch();
        for _ in 1..100 {
            drop(watcher.serve(http::Version::HTTP_11));
            assert!(!watcher.is_finishing());
        }
        let last = watcher.serve(http::Version::HTTP_11);
        assert!(watcher.is_finishing());
        assert_eq!(command(&watcher), Command::Finish);
        drop(last);
    }

    #[test]
    fn serving_has_no_limit_here() {
        let watchers = watchers();
        let watcher = watchers.watch();
        let serving = watcher.serve(http::Version::HTTP_11);
        pass(&watchers, 60);
        assert_eq!(command(&watcher), Command::Stay);
        drop(serving);
        watchers.tick();
        assert_eq!(command(&watcher), Command::Stay, "its idle time begins with its answer");
    }

    #[test]
    fn frames_between_http2_requests_are_not_heads() {
        let watchers = watchers();
        let watcher = watchers.watch();
        drop(watcher.serve(http::Version::HTTP_2));
        watcher.bytes_came();
        pass(&watchers, 3);
        assert_eq!(command(&watcher), Command::Stay);
    }

    #[test]
    fn the_drain_waits_a_second_for_a_request_that_is_arriving() {
        let watchers = watchers();
        let (arriving, idle) = (watchers.watch(), watchers.watch());
        drop(idle.serve(http::Version::HTTP_11));
        assert_eq!((arriving.farewell(0), idle.farewell(0)), (Command::Stay, Command::Finish));
        let serving = arriving.serve(http::Version::HTTP_11);
        assert_eq!(arriving.farewell(1), Command::Finish, "this request is its last");
        drop(serving);
        assert_eq!(watchers.watch().farewell(FAREWELL_ROUNDS), Command::Finish);
    }

    #[test]
    fn connections_that_have_gone_are_forgotten() {
        let watchers = watchers();
        drop(watchers.watch());
        watchers.tick();
        assert!(watchers.lock().is_empty());
    }
}
