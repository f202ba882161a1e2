//! The address that a request comes from.
//!
//! That is the peer of the connection, unless the peer is a trusted proxy: then it is the last address of `X-Forwarded-For` that
//! is no trusted proxy itself. What stands before that one was written by whoever sent the request, and proves nothing.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName};

use crate::config::Cidr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Who sends the requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct Senders {
    peer: IpAddr,
    /// Empty unless the peer is one of them.
    proxies: Arc<[Cidr]>,
}

impl Senders {
    /// For the connection from `peer`, where `proxies` are trusted.
    pub(super) fn new(peer: IpAddr, proxies: &Arc<[Cidr]>) -> Self {
        let trusted = proxies.iter().any(|proxy| proxy.contains(peer));
        Self { peer, proxies: if trusted { Arc::clone(proxies) } else { Arc::default() } }
    }

    pub(super) fn sender(&self, headers: &HeaderMap) -> IpAddr {
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
        Senders::new(peer.parse().expect("an address"), &proxies).sender(&headers).to_string()
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
