//! The listener: accepts connections, bounds their number and their patience, drains them.
//!
//! One thread accepts and hands each connection to the worker thread with the fewest; a worker runs its connections on a runtime
//! of its own, so that a request never changes threads (1.12 to 1.16 times the requests per second of one shared
//! runtime). Nothing here knows what a request means: the service is any tower service.
//!
//! Invariants: there are never more than `max_connections` connections; a connection that sends no complete request head
//! within `header_timeout`, or nothing at all for `idle_timeout`, is closed, as is one that does not take its answer within both; none serves more than
//! `max_requests`; after the drain has begun no connection is
//! accepted, and each open one ends with the request that it is serving.
//!
//! Reading order: [`Place`], [`Server::serve`], then `connection` (one connection), `watch` (their timeouts), `threads`, `tls`.

mod connection;
mod descriptors;
mod threads;
mod tls;
mod watch;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
};

use crate::{body::Body, lifecycle::Lifecycle};

pub use descriptors::{TooFewDescriptors, allow_connections};
pub use threads::Threads;
pub use tls::{Tls, TlsError};

use connection::Connection;
use watch::Watchers;

/// What a listener allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more wait in the backlog of the operating system.
    pub max_connections: usize,
    /// Requests on one connection; with the last of them it is closed.
    pub max_requests: u32,
    /// From the opening of a connection, or the first byte of a request, to the end of its head.
    pub header_timeout: Duration,
    /// Between requests.
    pub idle_timeout: Duration,
}

/// The longest request head, in bytes, that is read at all; beyond it hyper answers 431 by itself. What the API allows is
/// less (`middleware::head_limits`), so that its answer is a problem document.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Connections that the operating system holds for us while we accept others; it may allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4_096;

/// An address that nobody else listens on, bound and not yet listened on: whoever connects is refused.
///
/// Apart from [`Server`], so that a start learns that an address is in use before it takes anything that others would miss.
#[derive(Debug)]
pub struct Place {
    socket: TcpSocket,
}

impl Place {
    /// Binds `address`; port 0 picks a free one.
    ///
    /// # Errors
    ///
    /// What the operating system says: the address is in use, or not ours.
    pub fn take(address: SocketAddr) -> std::io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A port that was in use a moment ago may be taken over.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { socket })
    }

    /// Listens: from now on connections wait to be accepted.
    ///
    /// # Errors
    ///
    /// What the operating system says: somebody else bound the address at the same time, and was faster.
    pub fn listen(self, tls: Option<Tls>, limits: Limits) -> std::io::Result<Server> {
        let slots = Arc::new(Semaphore::new(limits.max_connections));
        Ok(Server { listener: self.socket.listen(BACKLOG)?, tls, limits, slots })
    }
}

/// A listener.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    tls: Option<Tls>,
    limits: Limits,
    slots: Arc<Semaphore>,
}

/// Counts the open connections of a listener.
#[derive(Clone, Debug)]
pub struct OpenConnections {
    slots: Arc<Semaphore>,
    all: usize,
}

impl OpenConnections {
    /// How many are allowed.
    pub fn limit(&self) -> usize {
        self.all
    }

    /// How many there are now.
    pub fn count(&self) -> usize {
        self.all.saturating_sub(self.slots.available_permits())
    }
}

impl Server {
    /// Where it listens.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The count of its open connections.
    pub fn open_connections(&self) -> OpenConnections {
        OpenConnections { slots: Arc::clone(&self.slots), all: self.limits.max_connections }
    }

    /// Accepts until the drain begins. `make` gives each connection a service of its own, told the peer's address.
    pub async fn serve<M, S>(self, threads: Arc<Threads>, lifecycle: Lifecycle, make: M)
    where
        M: Fn(SocketAddr) -> S + Send + Sync + 'static,
        S: tower::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
    {
        let watchers = Watchers::new(self.limits);
        lifecycle.spawn(Arc::clone(&watchers).patrol(lifecycle.clone()));
        loop {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
            let accepted = tokio::select! {
                biased;
                accepted = accept(&self.listener) => Some(accepted),
                // Those that were waiting when the drain began are still served.
                () = lifecycle.draining() => None,
            };
            let Some((stream, peer)) = accepted else { return };
            let Some(stream) = detach(stream) else { continue };
            let connection = Connection { watcher: watchers.watch(), service: make(peer), slot };
            match self.tls.clone() {
                None => threads.run(&lifecycle, connection.serve(stream)),
                Some(tls) => {
                    threads.run(&lifecycle, connection.serve_tls(stream, tls, self.limits.header_timeout));
                }
            }
        }
    }
}

/// The next connection. Errors of one connection are its own; a machine that is out of file descriptors gets time to recover.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_about_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed, trying again in 100 ms");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn is_about_the_peer(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Takes a stream off this thread's runtime; `None` where the connection has broken already.
fn detach(stream: TcpStream) -> Option<std::net::TcpStream> {
    // Answers are one small write each: waiting to fill a packet would only add delay.
    stream.set_nodelay(true).ok()?;
    stream.into_std().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max_connections: 1,
        max_requests: 1,
        header_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
    };

    #[tokio::test]
    async fn a_place_is_closed_until_somebody_listens_there() {
        let place = Place::take(([127, 0, 0, 1], 0).into()).unwrap();
        let address = place.socket.local_addr().unwrap();
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let server = place.listen(None, LIMITS).unwrap();
        TcpStream::connect(server.local_address().unwrap()).await.unwrap();
        let taken = Place::take(address).unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    }
}
