//! One connection, from the handshake to its end.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, Version, header};
use hyper::body::{Body as _, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};

use super::{
    MAX_HEAD_BYTES, Tls,
    watch::{Command, Serving, Watched, Watcher},
};
use crate::body::Body;

pub(super) struct Connection<S> {
    pub(super) watcher: Arc<Watcher>,
    pub(super) service: S,
    /// Its place among those that there may be, until it ends.
    pub(super) slot: OwnedSemaphorePermit,
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
        self.converse(stream).await;
    }

    /// The same over TLS, as soon as the peer has shaken hands, for which it has `patience`.
    pub(super) async fn serve_tls(self, stream: std::net::TcpStream, tls: Tls, patience: Duration) {
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let handshake = tokio::time::timeout(patience, tls.acceptor().accept(stream)).await;
        match handshake {
            Ok(Ok(stream)) => self.converse(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_elapsed) => tracing::debug!("TLS handshake took too long"),
        }
    }

    /// No async function, which would keep room for each part beside the whole: there are as many of these as connections.
    fn converse<T>(self, stream: T) -> Conversation<Watched<T>, WatchedService<S>>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { watcher, service, slot } = self;
        let service = WatchedService { service: Mutex::new(service), watcher: Arc::clone(&watcher) };
        let stream = TokioIo::new(Watched { stream, watcher: Arc::clone(&watcher) });
        let connection = builder().serve_connection(stream, service).into_owned();
        Conversation { connection, watcher, is_finishing: false, slot }
    }
}

pin_project! {
    /// Requests and answers, until one side ends it.
    struct Conversation<T, S: hyper::service::HttpService<Incoming>> {
        #[pin]
        connection: auto::Connection<'static, TokioIo<T>, S, TokioExecutor>,
        watcher: Arc<Watcher>,
        is_finishing: bool,
        slot: OwnedSemaphorePermit,
    }
}

impl<T, S> Future for Conversation<T, WatchedService<S>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: tower::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        match this.watcher.command(cx) {
            Command::Close => return Poll::Ready(()),
            Command::Finish if !*this.is_finishing => {
                *this.is_finishing = true;
                this.connection.as_mut().graceful_shutdown();
            }
            Command::Finish | Command::Stay => {}
        }
        if let Err(error) = ready!(this.connection.poll(cx)) {
            // Peers that vanish or speak something else are everyday life.
            tracing::debug!(error = &*error, "connection ended with an error");
        }
        Poll::Ready(())
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
        // An answer is one small buffer: copying it behind its head is cheaper than sending two.
        .writev(false);
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
        let is_head = *request.method() == Method::HEAD;
        let serving = self.watcher.serve(version);
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        // Every service of the stack is always ready: what sheds load does so by an answer.
        Served { future: service.call(request), serving: Some(serving), version, is_head }
    }
}

pin_project! {
    struct Served<F> {
        #[pin]
        future: F,
        serving: Option<Serving>,
        version: Version,
        is_head: bool,
    }
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for Served<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.future.poll(cx));
        let ends = this.serving.take().is_some_and(|serving| serving.ends_connection());
        match *this.version {
            Version::HTTP_2 if *this.is_head => leave_body_out(&mut response),
            // It has frames for the end of a connection.
            Version::HTTP_2 => {}
            _ if ends => {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        Poll::Ready(Ok(response))
    }
}

/// hyper does so itself over HTTP/1, and over HTTP/2 leaves it to the service.
fn leave_body_out(response: &mut Response<Body>) {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    *response.body_mut() = Body::default();
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};

    use super::*;

    struct Stack;

    impl tower::Service<Request<Incoming>> for Stack {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _request: Request<Incoming>) -> Self::Future {
            ready(Ok(Response::default()))
        }
    }

    fn size_of_task<A, B, F: Future>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_takes_its_parts_and_what_becomes_of_them_once_each() {
        let parts = size_of::<Connection<Stack>>() + size_of::<std::net::TcpStream>();
        let conversation = size_of::<Conversation<Watched<TcpStream>, WatchedService<Stack>>>();
        let task = size_of_task(Connection::<Stack>::serve);
        assert!(task <= parts + conversation + 64, "{task} bytes of {parts} and {conversation}");
    }
}
