//! Encrypted connections: rustls, the certificates of the system or those of a file.

use std::{path::Path, sync::Arc};

use hyper_rustls::ConfigBuilderExt;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use super::failure::ConnectError;

/// A connector that trusts the certificates in `ca_file`, or those of the system.
pub(super) fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, ConnectError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectError::Tls(error.into()))?;
    let builder = match ca_file {
        Some(path) => builder.with_root_certificates(roots(path)?),
        None => builder.with_native_roots().map_err(|error| ConnectError::Tls(error.into()))?,
    };
    Ok(TlsConnector::from(Arc::new(builder.with_no_client_auth())))
}

fn roots(path: &Path) -> Result<RootCertStore, ConnectError> {
    let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| ConnectError::Certificates {
        path: path.display().to_string(),
        source,
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.into()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unreadable(error.into()))?;
        roots.add(certificate).map_err(|error| unreadable(error.into()))?;
    }
    if roots.is_empty() { Err(unreadable("it holds no certificate".into())) } else { Ok(roots) }
}
