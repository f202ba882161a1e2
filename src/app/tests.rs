//! What a start that fails leaves behind.

use std::{net::TcpListener, path::Path};

use super::*;
use crate::{
    clock::{ManualClock, UnixMillis},
    config::{FixedSource, Flags, Values},
};

/// 2026-11-22T00:00:00Z.
const NOW: UnixMillis = UnixMillis(1_795_305_600_000);

/// Why it does not start.
async fn refused(data_dir: &Path, source: FixedSource) -> BuildError {
    let source = source.variable("NUMGEN_DATA_DIR", data_dir);
    let values = Values::gather(&Flags::default(), &source).unwrap();
    let config = Config::read(&values).unwrap();
    let built = App::build(config, Arc::new(ManualClock::at(NOW)), None).await;
    built.err().unwrap()
}

fn anywhere() -> FixedSource {
    FixedSource::new().variable("NUMGEN_LISTEN", "127.0.0.1:0").variable("NUMGEN_ADMIN_LISTEN", "127.0.0.1:0")
}

/// A window that was taken is not given back by a process that ends here: a worker ID of a shared store would be missing for 30 s.
#[tokio::test]
async fn an_address_in_use_is_noticed_before_anything_is_taken() {
    let scratch = tempfile::tempdir().unwrap();
    let data_dir = scratch.path().join("data");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    for setting in ["NUMGEN_LISTEN", "NUMGEN_ADMIN_LISTEN"] {
        let error =
            refused(&data_dir, anywhere().variable(setting, other.local_addr().unwrap().to_string())).await;
        assert!(matches!(error, BuildError::Bind { setting: named, .. } if named == setting), "{error}");
        assert!(!data_dir.exists(), "{setting}");
    }
}

#[tokio::test]
async fn a_key_or_certificate_of_no_use_is_noticed_before_a_store_is_opened() {
    let scratch = tempfile::tempdir().unwrap();
    let (data_dir, no_pem) = (scratch.path().join("data"), scratch.path().join("file"));
    std::fs::write(&no_pem, "no PEM").unwrap();
    let key = anywhere().variable("NUMGEN_JWT_PUBLIC_KEY_FILE", &*no_pem);
    let certificate =
        anywhere().variable("NUMGEN_TLS_CERT_FILE", &*no_pem).variable("NUMGEN_TLS_KEY_FILE", &*no_pem);
    for (source, said) in [(key, "NUMGEN_JWT_PUBLIC_KEY_FILE"), (certificate, "NUMGEN_TLS_CERT_FILE")] {
        let error = refused(&data_dir, source).await;
        assert!(error.to_string().starts_with(said), "{error}");
        assert!(!data_dir.join("numgen.db").exists(), "{said}");
    }
}
