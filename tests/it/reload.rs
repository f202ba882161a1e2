//! What changes without a restart: by SIGHUP, and the certificate by its files.

use std::{fs, sync::Arc, time::Duration};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::json;

use crate::harness::{Authority, Caller, Certificate, Connection, Site, Stopwatch, TestServer, TokenKey};

fn configure(site: &Site, content: &str) {
    fs::write(site.path("numgen.toml"), content).expect("written");
}

/// How many of 20 requests for numbers on one connection are refused for their rate.
fn refused(caller: &mut Caller) -> usize {
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
    let site = Site::new();
    let server = site.start();
    let url = site.path("url").to_string_lossy().into_owned();
    let secret = "a-password-of-redis";
    fs::write(&url, format!("redis://:{secret}@127.0.0.1:1")).expect("written");
    configure(&site, &format!("redis_url_file = '{url}'\nmax_connections = 5\nrate_limit_issued = 3\n"));
    server.reload();
    let log = server.log();
    for named in [
        "key max_connections of numgen.toml has changed, which takes effect with a restart",
        "key redis_url_file of numgen.toml has changed, which takes effect with a restart",
        "\"NUMGEN_MAX_CONNECTIONS\"",
        "configuration reloaded",
    ] {
        assert!(log.contains(named), "{named} in {log}");
    }
    assert!(!log.contains(secret), "a secret is named, never shown");
    let restarts = log.matches("takes effect with a restart").count();
    assert_eq!(restarts, 2, "what is in force already is not named: {log}");
}

#[test]
fn a_key_set_waits_for_a_restart() {
    let site = Site::new().without("NUMGEN_JWT_SECRET_FILE");
    let server = site.start();
    let mut caller = server.caller();
    configure(&site, "jwt_jwks_url = 'http://127.0.0.1:1/jwks.json'\nrate_limit_issued = 3\n");
    server.reload();
    let log = server.log();
    assert!(
        log.contains("key jwt_jwks_url of numgen.toml has changed, which takes effect with a restart"),
        "{log}"
    );
    assert!(log.contains("configuration reloaded") && !log.contains("keys of tokens"), "{log}");
    assert_eq!(caller.get("/prefix-configs").status, 200, "by the secret that was made at the start");
}

#[test]
fn other_keys_verify_tokens_on_open_connections_too() {
    let site = Site::new();
    configure(&site, "jwt_public_key_file = 'key.pem'\n");
    let publish = |key: &TokenKey| fs::write(site.path("key.pem"), key.pem()).expect("written");
    let (first, second) = (TokenKey::new(), TokenKey::new());
    publish(&first);
    let server = site.start();
    let status = |caller: &mut Caller| caller.get("/prefix-configs").status;
    let claims = json!({ "sub": "issuer", "scope": "admin", "exp": 4_000_000_000_u32 });
    let of = |key: &TokenKey| Caller::new(server.listen, Some(key.sign(&claims)));
    let (mut of_first, mut of_second) = (of(&first), of(&second));
    let mut of_secret = server.caller();
    assert_eq!([&mut of_first, &mut of_second, &mut of_secret].map(status), [200, 401, 200]);

    let other = "another-secret-of-more-than-32-bytes-in-length";
    fs::write(site.path("secret"), other).expect("written");
    publish(&second);
    server.reload();
    assert!(server.log().contains("keys of tokens"), "{}", server.log());
    assert_eq!([&mut of_first, &mut of_second, &mut of_secret].map(status), [401, 200, 401]);
    let mut of_other = server.caller();
    assert_eq!(status(&mut of_other), 200, "numgen token has read the new secret");

    fs::write(site.path("key.pem"), "no key").expect("written");
    server.reload();
    let log = server.log();
    assert!(log.contains("NUMGEN_JWT_PUBLIC_KEY_FILE: expected one PEM block"), "{log}");
    fs::remove_file(site.path("key.pem")).expect("removed");
    fs::write(site.path("secret"), "short").expect("written");
    server.reload();
    assert!(server.log().contains("NUMGEN_JWT_SECRET"), "{}", server.log());
    assert_eq!(
        [&mut of_first, &mut of_second, &mut of_other].map(status),
        [401, 200, 200],
        "those before stay"
    );
    assert!(!server.log().contains(other));
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
