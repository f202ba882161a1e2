//! TLS: a certificate chain and its key, HTTP/2 and HTTP/1.1 by ALPN.

use std::{fmt, path::PathBuf, sync::Arc};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::TlsAcceptor;

/// Accepts TLS connections.
#[derive(Clone)]
pub struct Tls(pub(super) TlsAcceptor);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// Why a certificate is of no use. Names the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read, or holds no PEM of the right kind.
    #[error("{file} holds no {what} in PEM form")]
    File {
        /// Which file.
        file: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What was found.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit, or are of a kind that is not supported.
    #[error("the certificate and its key cannot be used together")]
    Unusable(#[source] rustls::Error),
}

impl Tls {
    /// Reads a certificate chain and its private key (PKCS #8, PKCS #1 or SEC 1), both PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the file.
    pub fn from_files(certificates: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let in_certificates =
            |source| TlsError::File { file: certificates.clone(), what: "certificate", source };
        let chain = CertificateDer::pem_file_iter(&certificates)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(in_certificates)?;
        if chain.is_empty() {
            return Err(in_certificates(rustls::pki_types::pem::Error::NoItemsFound));
        }
        let private = PrivateKeyDer::from_pem_file(&key).map_err(|source| TlsError::File {
            file: key.clone(),
            what: "private key",
            source,
        })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(TlsError::Unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}
