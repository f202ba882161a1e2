//! The yardstick: a bare hyper server that answers every request with the same constant, the size and shape of an answer
//! with a number, and does nothing else. `make bench` compares the service with it, in one run.
//!
//! `bare ADDRESS [shared|per-core]`: one multi-threaded runtime, as most hyper servers have (default), or one
//! single-threaded runtime per core, as numgen has.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments.next().unwrap_or_else(|| "127.0.0.1:8090".to_owned()).parse()?;
    match arguments.next().as_deref() {
        None | Some("shared") => shared(address),
        Some("per-core") => per_core(address),
        Some(other) => Err(format!("{other:?}: shared or per-core").into()),
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing to drain here")]
fn shared(address: SocketAddr) -> Result<(), Error> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(serve(stream));
        }
    })
}

fn per_core(address: SocketAddr) -> Result<(), Error> {
    let cores = std::thread::available_parallelism()?.get();
    let runtimes: Vec<_> = (0..cores)
        .map(|_| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
            Ok(handle)
        })
        .collect::<Result<_, std::io::Error>>()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(address).await?;
        let mut turn = runtimes.iter().cycle();
        loop {
            let (stream, _) = listener.accept().await?;
            let stream = stream.into_std()?;
            if let Some(runtime) = turn.next() {
                runtime.spawn(async move {
                    if let Ok(stream) = TcpStream::from_std(stream) {
                        serve(stream).await;
                    }
                });
            }
        }
    })
}

async fn serve(stream: TcpStream) {
    // A peer that leaves is the only thing that ends this.
    let _nodelay = stream.set_nodelay(true);
    let _left = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = Bytes::from_static(br#"{"number":"EVT-0382940128345612288","source":"primary"}"#);
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
