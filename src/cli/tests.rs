//! What the command line understands, and what commands do without a service.

use std::path::Path;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use clap::{CommandFactory, error::ErrorKind};

use super::*;
use crate::{
    auth::forge::{Forge, pem},
    clock::{ManualClock, UnixMillis},
    config::{DataDir, FixedSource, settings},
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn parse(arguments: &[&str]) -> Result<Command, clap::Error> {
    Cli::try_parse_from(std::iter::once(&"numgen").chain(arguments)).map(Cli::into_command)
}

fn errand(arguments: &[&str]) -> Errand {
    match parse(arguments).unwrap() {
        Command::Errand(errand) => errand,
        Command::Serve(flags) => panic!("that serves: {flags:?}"),
    }
}

fn given(flags: &Flags) -> Vec<(&str, &str)> {
    flags.given.iter().map(|(flag, value)| (flag.as_str(), value.reveal().as_str())).collect()
}

/// Runs a command that asks nobody; (outcome, standard output).
fn run(arguments: &[&str], source: &FixedSource, now: UnixMillis) -> (Result<(), CliError>, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut terminal = Terminal { out: &mut out, err: &mut err };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let done = runtime.block_on(errand(arguments).run(source, Arc::new(ManualClock::at(now)), &mut terminal));
    assert_eq!(String::from_utf8(err).unwrap(), "");
    (done, String::from_utf8(out).unwrap())
}

/// 2026-11-22T00:00:00Z.
const NOW: UnixMillis = UnixMillis(1_795_305_600_000);

fn claims(token: &str) -> serde_json::Value {
    use base64::Engine;
    let payload = token.trim_end().split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn the_declaration_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn nothing_and_serve_serve() {
    for arguments in [&[][..], &["serve"]] {
        assert!(matches!(parse(arguments).unwrap(), Command::Serve(flags) if flags.given.is_empty()));
    }
    let arguments =
        ["--listen", "1.2.3.4:5", "--config", "a.toml", "serve", "--listen", "1.2.3.4:6", "--config=b.toml"];
    let Command::Serve(flags) = parse(&arguments).unwrap() else { panic!("that serves") };
    assert_eq!(given(&flags), [("--listen", "1.2.3.4:5"), ("--listen", "1.2.3.4:6")], "the last one wins");
    assert_eq!(flags.config.as_deref(), Some(Path::new("b.toml")));
}

#[test]
fn every_setting_of_the_service_is_a_flag() {
    for setting in settings().filter(|setting| setting.section != "Commands") {
        for (_, _, flag) in setting.spellings() {
            let Command::Serve(flags) = parse(&[&flag, "-7"]).unwrap() else { panic!("that serves") };
            assert_eq!(given(&flags), [(flag.as_str(), "-7")]);
        }
    }
}

#[test]
fn help_shows_every_setting_with_variable_and_default() {
    let help = Cli::command().render_long_help().to_string();
    let words: Vec<_> = help.split_whitespace().collect();
    for setting in settings().filter(|setting| setting.section != "Commands") {
        for wanted in [&setting.flag, &format!("{}]", setting.env), &format!("{}:", setting.section)] {
            let first = wanted.split_whitespace().next().unwrap();
            assert!(words.contains(&first), "{first} in\n{help}");
        }
    }
    assert!(help.contains("[default: 127.0.0.1:8080]"), "{help}");
    let short = Cli::command().render_help().to_string();
    assert!(short.lines().count() < 40 && short.contains("--data-dir"), "{short}");
}

#[test]
fn mistakes_are_usage_errors_that_name_the_nearest() {
    for (arguments, kind, said) in [
        (&["--lisen", "x"][..], ErrorKind::UnknownArgument, "'--listen'"),
        (&["tokne"], ErrorKind::InvalidSubcommand, "'token'"),
        (&["token"], ErrorKind::MissingRequiredArgument, "--scope"),
        (&["token", "--scope", "admin", "--ttl", "1"], ErrorKind::ValueValidation, "such as 1h"),
        (&["token", "--scope", "admin", "--sub", " "], ErrorKind::ValueValidation, "needs a subject"),
        (&["next"], ErrorKind::MissingRequiredArgument, "<PREFIX>"),
        (&["next", "A", "--count", "x"], ErrorKind::ValueValidation, "--count"),
        (&["next", "A", "--count", "0"], ErrorKind::ValueValidation, "0 is not in 1..=10000"),
        (&["next", "A", "-n", "10001"], ErrorKind::ValueValidation, "10001 is not in 1..=10000"),
        (&["preview", "{SEQ}", "--count", "0"], ErrorKind::ValueValidation, "0 is not in 1..=100"),
        (&["temporary", "resolve", "TMP~A~n~1"], ErrorKind::MissingRequiredArgument, "--assign"),
        (&["temporary", "resolve", "T", "--assign", "--void", "x"], ErrorKind::ArgumentConflict, "--void"),
        (&["check", "--url", "http://x"], ErrorKind::UnknownArgument, "--url"),
        (&["verify"], ErrorKind::MissingRequiredArgument, "<PREFIX>"),
        (&["verify", "a b"], ErrorKind::ValueValidation, "a b"),
        (&["verify", "A", "--url", "http://x"], ErrorKind::UnknownArgument, "--url"),
        (&["import", "A"], ErrorKind::MissingRequiredArgument, "<FILE>"),
        (&["import", "..", "f"], ErrorKind::ValueValidation, "'..'"),
    ] {
        let error = parse(arguments).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{arguments:?}");
        assert!(error.to_string().contains(said), "{said} in {error}");
    }
    for arguments in [["--help"], ["--version"]] {
        assert_eq!(parse(&arguments).unwrap_err().exit_code(), 0);
    }
}

#[test]
fn no_mistake_on_the_command_line_repeats_a_secret() {
    for arguments in [
        &["--jwt-secrt=canary"][..],
        &["--jwt-secret", "canary", "--jwt-secret", "canary"],
        &["--redis-url", "redis://:canary@h", "--nonsense"],
        &["next", "--token", "canary", "--token=canary"],
        &["token", "--jwt-secret=canary"],
    ] {
        let error = parse(arguments).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
    let parsed =
        format!("{:?}", parse(&["next", "A", "--token", "canary", "--jwt-secret", "canary"]).unwrap());
    assert!(!parsed.contains("canary"), "{parsed}");
}

#[test]
fn token_prints_a_token_and_nothing_else() {
    let source = FixedSource::new()
        .variable("NUMGEN_JWT_SECRET", SECRET)
        .variable("NUMGEN_JWT_ISSUER", "here")
        .variable("NUMGEN_JWT_AUDIENCE", "numgen");
    let arguments = [
        "token",
        "--scope",
        "numbers:issue ledger:read",
        "--sub",
        "ann",
        "--ttl",
        "90s",
        "--prefixes",
        "A*,B*",
    ];
    let (done, out) = run(&arguments, &source, NOW);
    done.unwrap();
    assert_eq!(out.lines().count(), 1);
    let claims = claims(&out);
    assert_eq!(
        (&claims["sub"], &claims["iss"], &claims["aud"]),
        (&"ann".into(), &"here".into(), &"numgen".into())
    );
    assert_eq!(claims["scope"], "numbers:issue ledger:read");
    assert_eq!(claims["prefixes"], serde_json::json!(["A*", "B*"]));
    assert_eq!(claims["exp"].as_i64().unwrap(), NOW.0 / 1000 + 90);
}

#[test]
fn token_uses_the_secret_of_the_data_directory_once_there_is_one() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("data");
    let arguments = ["token", "--scope", "admin", "--data-dir", path.to_str().unwrap()];
    let (done, out) = run(&arguments, &FixedSource::new(), NOW);
    let error = done.unwrap_err();
    assert_eq!((error.exit_code(), out.as_str()), (2, ""));
    assert!(error.to_string().contains("start numgen once"), "{error}");
    assert!(!path.exists(), "asking for a token makes nothing");

    DataDir::prepare(&path).unwrap().signing_secret().unwrap();
    let (done, out) = run(&arguments, &FixedSource::new(), NOW);
    done.unwrap();
    assert_eq!((claims(&out)["scope"].as_str(), claims(&out)["sub"].as_str()), (Some("admin"), Some("cli")));
}

#[test]
fn token_says_why_it_cannot() {
    for (variable, value, scope, said) in [
        (
            "NUMGEN_JWT_JWKS_URL",
            "https://issuer/keys?canary",
            "admin",
            "NUMGEN_JWT_JWKS_URL only verifies tokens",
        ),
        ("NUMGEN_JWT_SECRET", SECRET, "root", "flag --scope: \"root\" is not a scope; there are "),
        ("NUMGEN_JWT_SECRET", SECRET, " ", "flag --scope: a token without a scope may do nothing"),
        ("NUMGEN_JWT_SECRET", "canary", "admin", "NUMGEN_JWT_SECRET: the value is invalid"),
    ] {
        let source = FixedSource::new().variable(variable, value);
        let (done, out) = run(&["token", "--scope", scope], &source, NOW);
        let error = done.unwrap_err();
        assert_eq!((error.exit_code(), out.as_str()), (2, ""), "{error}");
        assert!(error.to_string().contains(said) && !error.to_string().contains("canary"), "{error}");
    }
}

#[test]
fn a_token_for_no_prefix_key_is_refused() {
    let source = FixedSource::new().variable("NUMGEN_JWT_SECRET", SECRET);
    for (list, expected) in [("", None), (" ,", None), ("A*", Some("A*")), ("A*,", Some("A*"))] {
        let (done, out) = run(&["token", "--scope", "admin", "--prefixes", list], &source, NOW);
        match (done, expected) {
            (Ok(()), Some(pattern)) => assert_eq!(claims(&out)["prefixes"][0], pattern),
            (Err(error), None) => {
                assert_eq!((error.exit_code(), out.as_str()), (2, ""), "{error}");
                assert!(error.to_string().starts_with("flag --prefixes: "), "{error}");
            }
            (done, _) => panic!("{list:?}: {done:?}"),
        }
    }
}

#[test]
fn check_is_content_with_nothing_and_makes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("deep/data");
    let (done, out) = run(&["check", "--data-dir", path.to_str().unwrap()], &FixedSource::new(), NOW);
    done.unwrap();
    for line in [
        "ok    profile         embedded (SQLite)",
        "is made at the first start",
        "synchronous=FULL",
        " MiB free",
    ] {
        assert!(out.contains(line), "{line} in\n{out}");
    }
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn check_fails_where_the_service_would() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    let data_dir = scratch.path().to_str().unwrap();
    let absent = scratch.path().join("absent");
    let absent = absent.to_str().unwrap();
    std::fs::write(scratch.path().join("numgen.db"), "no database at all, but long enough to look at")
        .unwrap();
    for (arguments, now, said) in [
        (&["check", "--data-dir", file.to_str().unwrap()][..], NOW, "is no directory"),
        (&["check", "--data-dir", data_dir], NOW, "FAIL  database"),
        (
            &["check", "--tls-cert-file", "c", "--tls-key-file", "k"],
            NOW,
            "FAIL  certificate     NUMGEN_TLS_CERT_FILE, NUMGEN_TLS_KEY_FILE: c holds no certificate in PEM form: ",
        ),
        (
            &["check", "--data-dir", absent],
            UnixMillis(0),
            "1970-01-01T00:00:00.000Z is before NUMGEN_SNOWFLAKE_EPOCH",
        ),
        (
            &["check", "--data-dir", absent],
            UnixMillis(4_000_000_000_000),
            "the time bits of the layout ended at 2093",
        ),
    ] {
        let (done, out) = run(arguments, &FixedSource::new(), now);
        let error = done.expect_err(&out);
        assert_eq!(error.exit_code(), 1, "{error}");
        assert!(out.contains(said), "{said} in\n{out}");
    }
    let (done, _) = run(&["check", "--database-url", "postgres://h"], &FixedSource::new(), NOW);
    assert_eq!(done.unwrap_err().exit_code(), 2);
}

#[test]
fn check_takes_no_key_that_the_service_would_not() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("key.pem");
    let check = |content: &str| {
        std::fs::write(&path, content).unwrap();
        run(&["check", "--jwt-public-key-file", path.to_str().unwrap()], &FixedSource::new(), NOW)
    };
    for (content, said) in [
        ("root:x:0:0".to_owned(), "expected one PEM block with a public key, found 0"),
        (pem("PRIVATE KEY", b"canary"), "found BEGIN PRIVATE KEY"),
        (pem("CERTIFICATE", b"canary"), "found BEGIN CERTIFICATE"),
        (Forge::small_rsa_public_pem(), "the RSA key has 1024 bits"),
        (Forge::p384_public_pem(), "not a usable RSA, P-256 or Ed25519 public key"),
    ] {
        let (done, out) = check(&content);
        assert_eq!(done.expect_err(&out).exit_code(), 1);
        let line = out.lines().find(|line| line.starts_with("FAIL  keys ")).expect(&out);
        assert!(line.contains("NUMGEN_JWT_PUBLIC_KEY_FILE: ") && line.contains(said), "{said} in {line}");
        assert!(!out.contains("canary"), "{out}");
    }
    let (done, out) = check(&Forge::es256().public_pem());
    done.expect(&out);
    assert!(out.contains("ok    keys            NUMGEN_JWT_PUBLIC_KEY_FILE\n"), "{out}");
}

#[test]
fn check_takes_no_certificate_that_the_service_would_not() {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = scratch.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let fixture = |name: &str| format!("{}/tests/it/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let (certificate, key) = (fixture("localhost.pem"), fixture("localhost.key"));
    let other = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let other = write("other.key", pem("PRIVATE KEY", other.to_pkcs8v1().unwrap().as_ref()).as_bytes());
    let no_pem = write("no.pem", b"no PEM");
    let check = |certificate: &str, key: &str| {
        let arguments = ["check", "--tls-cert-file", certificate, "--tls-key-file", key];
        run(&arguments, &FixedSource::new(), NOW)
    };
    for (files, said) in [
        ((&certificate, &other), "the certificate and its key cannot be used together"),
        ((&key, &certificate), "localhost.key holds no certificate in PEM form"),
        ((&certificate, &no_pem), "no.pem holds no private key in PEM form"),
        ((&no_pem, &key), "no.pem holds no certificate in PEM form"),
    ] {
        let (done, out) = check(files.0, files.1);
        assert_eq!(done.expect_err(&out).exit_code(), 1);
        let line = out.lines().find(|line| line.starts_with("FAIL  certificate ")).expect(&out);
        assert!(line.contains(said), "{said} in {line}");
    }
    let (done, out) = check(&certificate, &key);
    done.expect(&out);
    assert!(out.contains("ok    certificate "), "{out}");
}

#[test]
fn check_names_odd_variables() {
    let scratch = tempfile::tempdir().unwrap();
    let source =
        FixedSource::new().variable("NUMGEN_LISTN", "canary").variable("NUMGEN_DATA_DIR", scratch.path());
    let (done, out) = run(&["check"], &source, NOW);
    done.unwrap();
    assert!(out.contains("note  configuration   environment variable NUMGEN_LISTN is no setting"), "{out}");
}

#[test]
fn commands_that_ask_the_service_need_a_token_they_can_make() {
    let source = FixedSource::new().variable("NUMGEN_TOKEN", "no\ntoken canary");
    let (done, _) = run(&["next", "ORDERS"], &source, NOW);
    let error = done.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(
        error.to_string().starts_with("environment variable NUMGEN_TOKEN: ")
            && !error.to_string().contains("canary")
    );
    let source = FixedSource::new().variable("NUMGEN_JWT_PUBLIC_KEY_FILE", "key.pem");
    let (done, _) = run(&["temporary", "list"], &source, NOW);
    assert!(done.unwrap_err().to_string().contains("NUMGEN_JWT_PUBLIC_KEY_FILE only verifies tokens"));
}

/// The names of files and tables that `check` reads are those that the store writes.
#[tokio::test]
async fn check_reads_a_real_store_while_it_is_used_and_afterwards() {
    use crate::store::{WorkerStore, sqlite::SqliteStore};

    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("data");
    DataDir::prepare(&path).unwrap().signing_secret().unwrap();
    let check = |arguments: &'static [&'static str]| {
        let source = FixedSource::new().variable("NUMGEN_DATA_DIR", path.as_os_str());
        // On a thread of its own, which has no runtime yet.
        std::thread::scope(|scope| scope.spawn(|| run(arguments, &source, NOW)).join().unwrap())
    };
    let (config, _) = crate::config::Config::load(&Flags::default(), &FixedSource::new()).unwrap();
    let clock = Arc::new(ManualClock::at(NOW));
    let store = SqliteStore::open(&path, clock, config.worker.epoch, config.storage.storage_timeout).unwrap();
    store.pin_layout(&config.worker.pinned_layout()).await.unwrap();
    let request = crate::store::AcquireRequest {
        nonce: crate::store::Nonce([7; 16]),
        slots: 0..1,
        window_ms: 60_000,
        ttl_ms: 1_000,
        tenure: crate::store::Tenure::Lease,
    };
    store.acquire(request).await.unwrap();

    let (done, out) = check(&["check"]);
    done.unwrap_or_else(|error| panic!("{error}\n{out}"));
    assert!(out.contains("a service is running on it"), "{out}");
    store.close().await;
    drop(store);

    let (done, out) = check(&["check"]);
    done.unwrap_or_else(|error| panic!("{error}\n{out}"));
    for line in [
        "no service is running on it",
        "the secret in the data directory",
        ", journal wal, 0 rules",
        "ok    layout          41/5/5/12 epoch 2024-01-01T00:00:00.000Z data centre 0\n",
        "note  clock           60 s behind the last window",
    ] {
        assert!(out.contains(line), "{line} in\n{out}");
    }
    let (done, out) = check(&["check", "--snowflake-layout", "42/4/5/12"]);
    assert_eq!(done.unwrap_err().exit_code(), 1);
    assert!(out.contains("FAIL  layout          configured is 42/4/5/12 "), "{out}");
}
