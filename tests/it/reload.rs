//! What changes without a restart: SIGHUP and the files of the certificate.

use std::{fs, sync::Arc, time::Duration};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::json;

use crate::harness::{Authority, Certificate, Connection, Site, Stopwatch, TestServer};

fn configure(site: &Site, content: &str) {
    fs::write(site.path("numgen.toml"), content).expect("written");
}

/// How many of 20 requests for numbers on one connection are refused for their rate.
fn refused(caller: &mut crate::harness::Caller) -> usize {
    (0..20).filter(|_| caller.get("/numbers/RATE").status == 429).count()
}

#[test]
fn rate_limits_and_the_log_filter_follow_the_file() {
    let site = Site::new();
    configure(&site, "rate_limit_numbers = 5\n");
    let server = site.start();
    let mut caller = server.caller();
    caller.register("RATE", &json!({ "format": "R-{SEQ:6}" }));
    assert!(refused(&mut caller) > 5);

    configure(&site, "rate_limit_numbers = 0\nlog = 'debug'\n");
    server.reload();
    assert_eq!(refused(&mut caller), 0, "also on the connection that was open before");
    let log = server.log();
    assert!(log.contains("log filter, rate limits"), "{log}");
    let mut rude = Connection::open(server.listen).expect("a connection");
    rude.write(b"\0\0\0\0\r\n\r\n").expect("sent");
    Stopwatch::wait_until(Duration::from_secs(5), "a line of level debug", || {
        server.log().contains("\"DEBUG\"")
    });

    configure(&site, "rate_limit_numbers = 5\n");
    server.reload();
    assert!(refused(&mut caller) > 5, "and back");
}

#[test]
fn a_bad_file_changes_nothing_and_says_what_is_wrong() {
    let site = Site::new();
    configure(&site, "rate_limit_numbers = 5\n");
    let server = site.start();
    let mut caller = server.caller();
    caller.register("RATE", &json!({ "format": "R-{SEQ:6}" }));
    for (content, said) in [
        ("rate_limit_issued = 7\nrate_limit_numbers = 'many'\n", "key rate_limit_numbers of numgen.toml"),
        ("rate_limit_numbers = 0\nlogg = 'info'\n", "the nearest is log"),
        ("rate_limit_numbers = 0\nlog = 'numgen=loud'\n", "expected: filter such as"),
        ("rate_limit_numbers = \n", "line 1, column"),
    ] {
        configure(&site, content);
        server.reload();
        let log = server.log();
        let line = log.lines().rfind(|line| line.contains("configuration not reloaded")).expect(content);
        assert!(line.contains("\"ERROR\"") && line.contains(said), "{said} in {line}");
        assert!(refused(&mut caller) > 5, "{content}");
        assert!(!log.contains("configuration reloaded"), "{content}");
    }
    assert!(server.log().contains("whole number from 0 to 1000000000"), "and what would be right");
}

#[test]
fn what_needs_a_restart_is_named() {
    let site = Site::new().without("NUMGEN_JWT_SECRET_FILE");
    let secret = site.path("secret").to_string_lossy().into_owned();
    configure(&site, &format!("jwt_secret_file = '{secret}'\n"));
    let server = site.start();
    configure(&site, &format!("jwt_secret_file = '{secret}'\nmax_connections = 5\nrate_limit_issued = 3\n"));
    let other = "another-secret-of-more-than-32-bytes-in-length";
    fs::write(site.path("secret"), other).expect("written");
    server.reload();
    let log = server.log();
    for named in [
        "key max_connections of numgen.toml has changed, which takes effect with a restart",
        "key jwt_secret_file of numgen.toml has changed, which takes effect with a restart",
        "\"NUMGEN_MAX_CONNECTIONS\"",
        "configuration reloaded",
    ] {
        assert!(log.contains(named), "{named} in {log}");
    }
    assert!(!log.contains(other), "a secret is named, never shown");
    let restarts = log.matches("takes effect with a restart").count();
    assert_eq!(restarts, 2, "what is in force already is not named: {log}");
}

/// Puts a certificate where the server looks: renamed into place, as whoever renews certificates does.
fn install(site: &Site, certificate: &Certificate) {
    for (file, live) in [(&certificate.key, "live.key"), (&certificate.file, "live.pem")] {
        fs::copy(file, site.path("new")).expect("copied");
        fs::rename(site.path("new"), site.path(live)).expect("renamed");
    }
}

/// Whether the server shows this certificate.
fn shows(server: &TestServer, authority: &Authority, certificate: &Certificate) -> bool {
    let certificate = CertificateDer::from_pem_file(&certificate.file).expect("one");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file()).expect("one")).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = rustls::ClientConnection::new(Arc::new(tls), name).expect("a session");
    let mut stream = std::net::TcpStream::connect(server.listen).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    while session.is_handshaking() {
        if session.complete_io(&mut stream).is_err() {
            return false;
        }
    }
    session.peer_certificates().is_some_and(|chain| chain.first() == Some(&certificate))
}

#[test]
fn a_renewed_certificate_is_taken_up() {
    let site = Site::new();
    let authority = Authority::new();
    let [one, two, three] = ["one", "two", "three"].map(|name| authority.vouch(name));
    install(&site, &one);
    let server = site
        .clone()
        .with("NUMGEN_TLS_CERT_FILE", &site.path("live.pem").to_string_lossy())
        .with("NUMGEN_TLS_KEY_FILE", &site.path("live.key").to_string_lossy())
        .start();
    let shown = |certificate| shows(&server, &authority, certificate);
    assert!(shown(&one) && !shown(&two));

    // By itself.
    install(&site, &two);
    Stopwatch::wait_until(Duration::from_secs(10), "the second certificate", || shown(&two));

    // What is of no use is refused, whoever asks, and the one before stays.
    fs::write(site.path("live.pem"), "no certificate").expect("written");
    server.reload();
    let log = server.log();
    assert!(
        log.contains("configuration not reloaded, nothing was changed") && log.contains("live.pem"),
        "{log}"
    );
    assert!(shown(&two));

    // By SIGHUP, at once.
    install(&site, &three);
    server.reload();
    assert!(shown(&three));

    // Over TLS alone, browsers are told to stay there.
    let log = server.stop().log();
    assert!(!log.contains("PRIVATE KEY"), "no key in the log");
}
