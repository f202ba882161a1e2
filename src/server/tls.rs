//! TLS: a certificate chain and its key, HTTP/2 and HTTP/1.1 by ALPN. Both can be replaced while connections are open: those keep
//! theirs, new ones are given the new.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

/// Accepts TLS connections. Clones share the certificate.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ArcSwap<ServerConfig>>,
    files: Arc<Mutex<Files>>,
}

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

/// Where the certificate is, and what was there when it was last read, whether or not that was of use.
#[derive(PartialEq, Eq)]
struct Files {
    certificates: PathBuf,
    key: PathBuf,
    seen: [Option<Look>; 2],
}

/// What tells a file from its successor: modification time in seconds and nanoseconds, inode, length. A link is followed, since
/// secrets are mounted as links that are turned.
type Look = (i64, i64, u64, u64);

fn look(file: &Path) -> Option<Look> {
    let found = fs::metadata(file).ok()?;
    Some((found.mtime(), found.mtime_nsec(), found.ino(), found.len()))
}

impl Files {
    /// Looks before it reads: what changes in between is noticed by the next look.
    fn looking_at(certificates: PathBuf, key: PathBuf) -> Self {
        let seen = [look(&certificates), look(&key)];
        Self { certificates, key, seen }
    }

    fn read(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let Self { certificates, key, .. } = self;
        let in_certificates =
            |source| TlsError::File { file: certificates.clone(), what: "certificate", source };
        let chain = CertificateDer::pem_file_iter(certificates)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(in_certificates)?;
        if chain.is_empty() {
            return Err(in_certificates(rustls::pki_types::pem::Error::NoItemsFound));
        }
        let private = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
            file: key.clone(),
            what: "private key",
            source,
        })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(TlsError::Unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl Tls {
    /// Reads a certificate chain and its private key (PKCS #8, PKCS #1 or SEC 1), both PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the file.
    pub fn from_files(certificates: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let files = Files::looking_at(certificates, key);
        let config = Arc::new(ArcSwap::new(files.read()?));
        Ok(Self { config, files: Arc::new(Mutex::new(files)) })
    }

    /// Goes on with the certificate in these files; answers whether that is something else.
    ///
    /// # Errors
    ///
    /// As [`Tls::from_files`]; then the certificate stays, and so do its files.
    pub fn replace(&self, certificates: PathBuf, key: PathBuf) -> Result<bool, TlsError> {
        let files = Files::looking_at(certificates, key);
        self.config.store(files.read()?);
        let mut before = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let differs = *before != files;
        *before = files;
        Ok(differs)
    }

    /// Goes on with what is in the files now; answers whether that is something else. What is of no use is tried once: certificate
    /// and key are seldom written in one moment, and the second of them is a change, too.
    ///
    /// # Errors
    ///
    /// As [`Tls::from_files`]; then the certificate stays.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = [look(&files.certificates), look(&files.key)];
        if seen == files.seen {
            return Ok(false);
        }
        files.seen = seen;
        self.config.store(files.read()?);
        Ok(true)
    }

    /// Whoever accepts the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }
}
