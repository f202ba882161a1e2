//! Puts the peer's address into each request of a connection.

use std::{
    net::IpAddr,
    task::{Context, Poll},
};

use http::Request;
use tower::{Layer, Service};

use super::PeerAddress;

/// Names the peer of one connection.
#[derive(Clone, Copy, Debug)]
pub struct PeerLayer {
    address: PeerAddress,
}

impl PeerLayer {
    /// For the connection from `address`.
    pub fn new(address: IpAddr) -> Self {
        Self { address: PeerAddress(address) }
    }
}

impl<S> Layer<S> for PeerLayer {
    type Service = Peer<S>;

    fn layer(&self, inner: S) -> Peer<S> {
        Peer { inner, address: self.address }
    }
}

/// Service of [`PeerLayer`].
#[derive(Clone, Debug)]
pub struct Peer<S> {
    inner: S,
    address: PeerAddress,
}

impl<S, B> Service<Request<B>> for Peer<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().insert(self.address);
        self.inner.call(request)
    }
}
