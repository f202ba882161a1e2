//! One connection, from the handshake to its end.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{
    MAX_HEAD_BYTES, Tls,
    watch::{Command, Serving, Watched, Watcher},
};
use crate::body::Body;

pub(super) struct Connection<S> {
    pub(super) watcher: Arc<Watcher>,
    pub(super) tls: Option<Tls>,
    pub(super) header_timeout: Duration,
    pub(super) service: S,
}

impl<S> Connection<S>
where
    S: tower::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    /// Serves until the peer leaves, the watcher sends it away, or the drain ends it.
    pub(super) async fn serve(self, stream: std::net::TcpStream) {
        // The stream moves to the runtime of this thread.
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        match self.tls.clone() {
            None => self.serve_stream(stream).await,
            Some(tls) => {
                let handshake = tokio::time::timeout(self.header_timeout, tls.acceptor().accept(stream));
                match handshake.await {
                    // In a box of its own: the states of TLS are large, and most connections have none.
                    Ok(Ok(stream)) => Box::pin(self.serve_stream(stream)).await,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(_elapsed) => tracing::debug!("TLS handshake took too long"),
                }
            }
        }
    }

    async fn serve_stream<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: T) {
        let watcher = Arc::clone(&self.watcher);
        let service = WatchedService { service: Mutex::new(self.service), watcher: Arc::clone(&watcher) };
        let stream = TokioIo::new(Watched { stream, watcher: Arc::clone(&watcher) });
        let builder = builder();
        let mut connection = std::pin::pin!(builder.serve_connection(stream, service));
        let mut finishing = false;
        let outcome = std::future::poll_fn(|cx| {
            match watcher.command(cx) {
                Command::Close => return Poll::Ready(Ok(())),
                Command::Finish if !finishing => {
                    finishing = true;
                    connection.as_mut().graceful_shutdown();
                }
                Command::Finish | Command::Stay => {}
            }
            connection.as_mut().poll(cx)
        });
        if let Err(error) = outcome.await {
            // Peers that vanish or speak something else are everyday life.
            tracing::debug!(error = &*error, "connection ended with an error");
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // The watcher's, which costs nothing per request, takes its place.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES)
        .pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(32 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Shows a tower service to hyper. hyper calls through a shared reference, hence the lock, which nobody else ever holds.
struct WatchedService<S> {
    service: Mutex<S>,
    watcher: Arc<Watcher>,
}

impl<S> hyper::service::Service<Request<Incoming>> for WatchedService<S>
where
    S: tower::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Served<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Served<S::Future> {
        let version = request.version();
        let serving = self.watcher.serve(version);
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        // Every service of the stack is always ready: what sheds load does so by an answer.
        Served { future: service.call(request), serving: Some(serving), version }
    }
}

pin_project! {
    struct Served<F> {
        #[pin]
        future: F,
        serving: Option<Serving>,
        version: Version,
    }
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for Served<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut output = ready!(this.future.poll(cx));
        let ends = this.serving.take().is_some_and(|serving| serving.ends_connection());
        // HTTP/2 has frames for it.
        if ends
            && *this.version != Version::HTTP_2
            && let Ok(response) = &mut output
        {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(output)
    }
}
