//! Certificates for a test, made by openssl, gone with the test.

use std::{path::PathBuf, process::Command};

use tempfile::TempDir;

/// An authority that nobody but the test knows, and what it vouches for.
pub(crate) struct Authority {
    home: TempDir,
}

/// A key and its certificate, for `localhost` alone.
pub(crate) struct Certificate {
    pub(crate) file: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let authority = Self { home: tempfile::tempdir().expect("a directory") };
        authority.make("ca", &["-subj", "/CN=authority of a test"]);
        authority
    }

    /// What those read who trust it.
    pub(crate) fn file(&self) -> PathBuf {
        self.home.path().join("ca.pem")
    }

    #[track_caller]
    pub(crate) fn vouch(&self, name: &str) -> Certificate {
        let certified = ["-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=localhost"];
        let extended = ["subjectAltName=DNS:localhost", "basicConstraints=critical,CA:FALSE"];
        let extended = extended.iter().flat_map(|extension| ["-addext", extension]);
        self.make(name, &certified.into_iter().chain(extended).collect::<Vec<_>>());
        let path = |ending| self.home.path().join(name).with_extension(ending);
        Certificate { file: path("pem"), key: path("key") }
    }

    #[track_caller]
    fn make(&self, name: &str, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")])
            .args(arguments)
            .current_dir(self.home.path())
            .output()
            .expect("openssl: tests/stages/tools.sh system installs it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
