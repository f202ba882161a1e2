//! Where callers come in: the two addresses and the certificate.
//!
//! They are taken before anything else and opened after everything else: an address in use or a certificate of no use are the most
//! usual mistakes of a start, which must not cost a worker ID; and no request comes in before it can be answered.

use std::{io, net::SocketAddr};

use super::BuildError;
use crate::{
    config::{Config, Listen},
    server::{self, Place, Server, Tls, TlsError},
};

/// Connections of the admin listener: probes and scrapes.
const ADMIN_CONNECTIONS: usize = 64;

/// The addresses, taken and still closed.
pub(super) struct Entrance {
    pub(super) tls: Option<Tls>,
    public: Place,
    admin: Place,
}

impl Entrance {
    /// Reads the certificate, and takes both addresses.
    ///
    /// # Errors
    ///
    /// The certificate is of no use, or an address is in use.
    pub(super) fn take(listen: &Listen) -> Result<Self, BuildError> {
        let tls = tls(listen)?;
        let public = Place::take(listen.public).map_err(on_public(listen))?;
        let admin = Place::take(listen.admin).map_err(on_admin(listen))?;
        Ok(Self { tls, public, admin })
    }

    /// Listens for callers, and for operators.
    ///
    /// # Errors
    ///
    /// Another process took an address at the same time, and was faster.
    pub(super) fn open(self, config: &Config) -> Result<(Server, Server), BuildError> {
        let limits = server::Limits {
            max_connections: config.limits.max_connections,
            max_requests: config.limits.max_requests,
            header_timeout: config.limits.header_timeout,
            idle_timeout: config.limits.idle_timeout,
        };
        let connections = limits.max_connections.saturating_add(ADMIN_CONNECTIONS);
        if let Err(error) = server::allow_connections(connections) {
            tracing::warn!(setting = "NUMGEN_MAX_CONNECTIONS", "{error}");
        }
        let admin_limits = server::Limits { max_connections: ADMIN_CONNECTIONS, ..limits };
        let public = self.public.listen(self.tls, limits).map_err(on_public(&config.listen))?;
        let admin = self.admin.listen(None, admin_limits).map_err(on_admin(&config.listen))?;
        Ok((public, admin))
    }
}

fn tls(listen: &Listen) -> Result<Option<Tls>, TlsError> {
    listen.tls().map(|files| Tls::from_files(files.cert.into(), files.key.into())).transpose()
}

fn on_public(listen: &Listen) -> impl FnOnce(io::Error) -> BuildError {
    in_use("NUMGEN_LISTEN", listen.public)
}

fn on_admin(listen: &Listen) -> impl FnOnce(io::Error) -> BuildError {
    in_use("NUMGEN_ADMIN_LISTEN", listen.admin)
}

fn in_use(setting: &'static str, address: SocketAddr) -> impl FnOnce(io::Error) -> BuildError {
    move |source| BuildError::Bind { setting, address, source }
}
