//! Puts the address that a request comes from into its extensions.
//!
//! That is the peer of the connection, unless the peer is a trusted proxy: then it is the last address of `X-Forwarded-For` that
//! is no trusted proxy itself. What stands before that one was written by whoever sent the request, and proves nothing.

use std::{
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, Request};
use tower::{Layer, Service};

use super::PeerAddress;
use crate::config::Cidr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Names the sender of the requests of one connection.
#[derive(Clone, Debug)]
pub struct PeerLayer {
    peer: IpAddr,
    /// Empty unless the peer is one of them.
    proxies: Arc<[Cidr]>,
}

impl PeerLayer {
    /// For the connection from `peer`, where `proxies` are trusted.
    pub fn new(peer: IpAddr, proxies: &Arc<[Cidr]>) -> Self {
        let trusted = proxies.iter().any(|proxy| proxy.contains(peer));
        Self { peer, proxies: if trusted { Arc::clone(proxies) } else { Arc::default() } }
    }

    fn sender(&self, headers: &HeaderMap) -> IpAddr {
        if self.proxies.is_empty() {
            return self.peer;
        }
        let fields = headers.get_all(X_FORWARDED_FOR).iter().rev().filter_map(|field| field.to_str().ok());
        let addresses =
            fields.flat_map(|field| field.rsplit(',')).map(|text| text.trim().parse::<IpAddr>().ok());
        // A part that is no address ends what can be believed.
        let mut believed = addresses.map_while(|address| address);
        let is_proxy = |address: &IpAddr| self.proxies.iter().any(|proxy| proxy.contains(*address));
        believed.find(|address| !is_proxy(address)).unwrap_or(self.peer)
    }
}

impl<S> Layer<S> for PeerLayer {
    type Service = Peer<S>;

    fn layer(&self, inner: S) -> Peer<S> {
        Peer { inner, layer: self.clone() }
    }
}

/// Service of [`PeerLayer`].
#[derive(Clone, Debug)]
pub struct Peer<S> {
    inner: S,
    layer: PeerLayer,
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
        let sender = self.layer.sender(request.headers());
        request.extensions_mut().insert(PeerAddress(sender));
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn sender(peer: &str, forwarded: &[&'static str]) -> String {
        let proxies: Arc<[Cidr]> = Arc::new(["10.0.0.0/8".parse().expect("a block")]);
        let mut headers = HeaderMap::new();
        for field in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(field));
        }
        PeerLayer::new(peer.parse().expect("an address"), &proxies).sender(&headers).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(sender("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(sender("10.1.1.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(sender("10.1.1.1", &["1.1.1.1, 198.51.100.7, 10.9.9.9"]), "198.51.100.7");
        assert_eq!(sender("10.1.1.1", &["1.1.1.1", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(sender("10.1.1.1", &["1.1.1.1, nonsense"]), "10.1.1.1");
        assert_eq!(sender("10.1.1.1", &[]), "10.1.1.1");
    }
}
