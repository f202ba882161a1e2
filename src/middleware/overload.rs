//! Sheds load: while so many requests wait for something (a store, mostly), one more is answered at once that it is too much, before
//! queues grow.
//!
//! Only requests that have to wait are counted, from the moment when they do: what is answered at once stands in no queue of ours. While
//! the queue is full all are refused, since nobody knows beforehand what will have to wait, and what was begun may have consumed. Each
//! thread counts its own, and a connection stays on its thread, so that counting shares no cache line; connections are spread evenly over
//! threads, hence each has an equal part of the limit.
//!
//! A connection of HTTP/1.1 has one request under way, and connections are bounded: with at most as many connections as may wait, nothing
//! is ever refused here. Requests that share a connection (HTTP/2) are.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http::Request;
use pin_project_lite::pin_project;
use tower::{BoxError, Layer, Service};

use crate::{
    clock::Clock,
    language::{Language, Localized},
};

/// Threads beyond so many share counts.
const CELLS: usize = 16;

/// More requests wait than may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit} requests are waiting already; try again")]
pub struct Overloaded {
    /// How many may, over all threads.
    pub limit: usize,
}

impl Localized for Overloaded {
    fn localized(&self, language: Language) -> String {
        match language {
            Language::English => self.to_string(),
            Language::Chinese => format!("已有 {} 个请求在等待，请重试", self.limit),
        }
    }
}

/// A count on cache lines of its own: processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell(AtomicUsize);

/// What all connections share.
#[derive(Debug)]
struct Queue {
    cells: [Cell; CELLS],
    limit: usize,
    limit_per_cell: usize,
    clock: Arc<dyn Clock>,
    /// The monotonic second, plus one, in which shedding was last reported.
    reported_s: AtomicU64,
}

impl Queue {
    /// The count of the present thread.
    fn here(&self) -> &AtomicUsize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static CELL: usize = NEXT.fetch_add(1, Ordering::Relaxed) % CELLS;
        }
        &self.cells[CELL.with(|cell| *cell)].0
    }

    fn is_full(&self) -> bool {
        self.here().load(Ordering::Relaxed) >= self.limit_per_cell
    }

    /// At most one line a second: a log that grows with the load would be load.
    fn report(&self) {
        let second = self.clock.coarse_monotonic().as_secs() + 1;
        if self.reported_s.swap(second, Ordering::Relaxed) != second {
            tracing::warn!(
                limit = self.limit,
                "too many requests wait: further ones are answered 503 Overloaded"
            );
        }
    }
}

/// The queue as one connection sees it. Requests count as its owners, so that they do not fight over the count of the queue's.
#[derive(Debug)]
struct Entrance(Arc<Queue>);

/// Bounds how many requests wait, over all connections.
#[derive(Clone, Debug)]
pub struct OverloadLayer {
    queue: Arc<Queue>,
}

impl OverloadLayer {
    /// Lets `limit` requests wait, on `threads` threads.
    pub fn new(limit: usize, threads: usize, clock: Arc<dyn Clock>) -> Self {
        let limit_per_cell = limit.div_ceil(threads.clamp(1, CELLS));
        let (cells, reported_s) = (Default::default(), AtomicU64::new(0));
        Self { queue: Arc::new(Queue { cells, limit, limit_per_cell, clock, reported_s }) }
    }
}

impl<S> Layer<S> for OverloadLayer {
    type Service = Overload<S>;

    fn layer(&self, inner: S) -> Overload<S> {
        Overload { inner, queue: Arc::new(Entrance(Arc::clone(&self.queue))) }
    }
}

/// Service of [`OverloadLayer`].
#[derive(Clone, Debug)]
pub struct Overload<S> {
    inner: S,
    queue: Arc<Entrance>,
}

impl<S, B> Service<Request<B>> for Overload<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let future = (!self.queue.0.is_full()).then(|| self.inner.call(request));
        ResponseFuture { future, queue: Arc::clone(&self.queue), place: None }
    }
}

/// A place in the queue.
struct Place {
    queue: Arc<Entrance>,
    cell: usize,
}

impl Place {
    fn take(queue: &Arc<Entrance>) -> Self {
        let here = queue.0.here();
        here.fetch_add(1, Ordering::Relaxed);
        // A request may end on another thread than it began on, where its connection is dropped at the very end.
        let cell = queue.0.cells.iter().position(|cell| std::ptr::eq(&cell.0, here)).unwrap_or(0);
        Self { queue: Arc::clone(queue), cell }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.0.cells[self.cell].0.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project! {
    /// Future of [`Overload`].
    pub struct ResponseFuture<F> {
        // None: refused.
        #[pin]
        future: Option<F>,
        queue: Arc<Entrance>,
        // Taken when the request first has to wait.
        place: Option<Place>,
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(future) = this.future.as_pin_mut() else {
            this.queue.0.report();
            return Poll::Ready(Err(Overloaded { limit: this.queue.0.limit }.into()));
        };
        match future.poll(cx) {
            Poll::Ready(outcome) => {
                *this.place = None;
                Poll::Ready(outcome.map_err(Into::into))
            }
            Poll::Pending => {
                this.place.get_or_insert_with(|| Place::take(this.queue));
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::FutureExt;
    use tokio::sync::Semaphore;
    use tower::service_fn;

    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    fn layer(limit: usize) -> OverloadLayer {
        OverloadLayer::new(limit, 1, Arc::new(ManualClock::at(UnixMillis(0))))
    }

    /// Answers once it has a permit.
    fn gated(
        layer: &OverloadLayer,
        gate: &Arc<Semaphore>,
    ) -> impl Service<Request<()>, Response = (), Error = BoxError, Future: Unpin> + use<> {
        let gate = Arc::clone(gate);
        layer.layer(service_fn(move |_: Request<()>| {
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                gate.acquire().await.expect("open").forget();
                Ok::<_, Infallible>(())
            })
        }))
    }

    fn refusal(outcome: Option<Result<(), BoxError>>) -> Option<Overloaded> {
        outcome?.err()?.downcast_ref().copied()
    }

    #[tokio::test]
    async fn the_request_too_many_is_refused_and_the_next_is_not() {
        let (layer, gate) = (layer(2), Arc::new(Semaphore::new(0)));
        let (mut one, mut two) = (gated(&layer, &gate), gated(&layer, &gate));
        let mut waiting: Vec<_> = [one.call(Request::new(())), two.call(Request::new(()))].into();
        for request in &mut waiting {
            assert!(request.now_or_never().is_none());
        }
        for service in [&mut one, &mut two] {
            let answer = service.call(Request::new(())).now_or_never();
            assert_eq!(refusal(answer), Some(Overloaded { limit: 2 }), "over all connections");
        }
        gate.add_permits(1);
        waiting.remove(0).await.expect("served");
        let mut third = one.call(Request::new(()));
        assert!((&mut third).now_or_never().is_none(), "there is a place again");
        drop(third);
        assert!(one.call(Request::new(())).now_or_never().is_none(), "who leaves gives up its place");
    }

    #[tokio::test]
    async fn what_is_answered_at_once_is_never_too_much() {
        let layer = layer(1);
        let mut service = layer.layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(()) }));
        let unpolled: Vec<_> = (0..10).map(|_| service.call(Request::new(()))).collect();
        for request in unpolled {
            request.await.expect("served");
        }
    }

    #[test]
    fn shedding_is_reported_once_a_second() {
        let clock = Arc::new(ManualClock::at(UnixMillis(0)));
        let layer = OverloadLayer::new(1, 1, Arc::clone(&clock) as _);
        let lines = || layer.queue.reported_s.load(Ordering::Relaxed);
        layer.queue.report();
        let first = lines();
        layer.queue.report();
        assert_eq!(lines(), first);
        clock.advance(std::time::Duration::from_secs(1));
        layer.queue.report();
        assert_eq!(lines(), first + 1);
    }
}
