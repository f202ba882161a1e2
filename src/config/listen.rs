//! Where the service listens, and with which certificate.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    error::Mistake,
    parse::{address, path},
    section::{Default, Unset, section},
    values::Values,
};

section! {
    /// Addresses and certificate of the listeners.
    Listen, "Listening";
    /// Address of the API.
    public: SocketAddr = "NUMGEN_LISTEN", Default("127.0.0.1:8080"), address();
    /// Address of the admin listener: health and metrics, no token asked.
    admin: SocketAddr = "NUMGEN_ADMIN_LISTEN", Default("127.0.0.1:9464"), address();
    /// PEM file with the certificate chain; turns TLS on for the API.
    tls_cert_file: Option<PathBuf> = "NUMGEN_TLS_CERT_FILE", Unset("no TLS"), path();
    /// PEM file with the key of the certificate.
    tls_key_file: Option<PathBuf> = "NUMGEN_TLS_KEY_FILE", Unset("no TLS"), path();
}

/// A certificate chain and its key.
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'a> {
    /// The chain, leaf first.
    pub cert: &'a Path,
    /// The key.
    pub key: &'a Path,
}

impl Listen {
    /// Certificate and key, if TLS is on.
    pub fn tls(&self) -> Option<TlsFiles<'_>> {
        Some(TlsFiles { cert: self.tls_cert_file.as_deref()?, key: self.tls_key_file.as_deref()? })
    }

    pub(super) fn check(&self, values: &Values, mistakes: &mut Vec<Mistake>) {
        let unfitting = |variable: &str, problem: &str| Mistake::Unfitting {
            origin: values.origin(variable),
            problem: problem.to_owned(),
        };
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(_), None) => mistakes.push(unfitting(
                "NUMGEN_TLS_CERT_FILE",
                "a certificate needs its key: set NUMGEN_TLS_KEY_FILE too",
            )),
            (None, Some(_)) => mistakes.push(unfitting(
                "NUMGEN_TLS_KEY_FILE",
                "a key needs its certificate: set NUMGEN_TLS_CERT_FILE too",
            )),
            (Some(_), Some(_)) | (None, None) => {}
        }
        // Port 0 is "any free port", which two listeners may share.
        if self.public == self.admin && self.public.port() != 0 {
            let problem = format!("{} is also the address of the API: choose another port", self.admin);
            mistakes.push(unfitting("NUMGEN_ADMIN_LISTEN", &problem));
        }
    }
}
