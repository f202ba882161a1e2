//! What all settings have in common: precedence, error texts, secrecy.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, time::Duration};

use super::*;
use crate::{secret::Secret, snowflake::Layout};

fn flags(given: &[(&str, &str)]) -> Flags {
    let given = given.iter().map(|(flag, value)| ((*flag).to_owned(), Secret::new((*value).to_owned())));
    Flags { config: None, given: given.collect() }
}

fn load(flags: &Flags, source: &FixedSource) -> Result<(Config, Values), ConfigError> {
    let values = Values::gather(flags, source)?;
    let config = Config::read(&values)?;
    Ok((config, values))
}

fn config(source: &FixedSource) -> Config {
    load(&Flags::default(), source).unwrap().0
}

/// The error of one variable.
fn error(variable: &str, value: &str) -> String {
    load(&Flags::default(), &FixedSource::new().variable(variable, value)).unwrap_err().to_string()
}

fn file_error(content: &str) -> String {
    load(&Flags::default(), &FixedSource::new().file("numgen.toml", content)).unwrap_err().to_string()
}

#[test]
fn a_new_reading_names_what_needs_a_restart_and_changes_nothing() {
    let surroundings = |file: &str, secret: &str| {
        let file = format!("jwt_secret_file = \"secret\"\nredis_url_file = \"url\"\n{file}");
        let url = format!("redis://:{}@127.0.0.1", secret.repeat(8));
        FixedSource::new().file("numgen.toml", file).file("secret", secret.repeat(32)).file("url", url)
    };
    let first = surroundings("rate_limit_issued = 5\nlog = \"info\"", "a");
    let (reloader, config, _) = Reloader::load(&Flags::default(), first).unwrap();
    assert_eq!(config.rate_limits.issued.map(std::num::NonZeroU32::get), Some(5));
    let reread = |file: &str, secret: &str| reloader.clone().now_in(surroundings(file, secret)).reread();
    let named = |reread: &Reread| -> Vec<_> { reread.needs_restart.iter().map(|(one, _)| one.env).collect() };

    let same = reread("rate_limit_issued = 9\nlog = \"debug\"\nmax_connections = 10000", "a").unwrap();
    assert_eq!(named(&same), [""; 0], "what is reloaded, and what is the default anyway");
    assert_eq!(same.config.rate_limits.issued.map(std::num::NonZeroU32::get), Some(9));
    assert_eq!(same.config.log.filter, "debug");
    let other = reread("max_connections = 10001\nidle_timeout = \"1s\"", "b").unwrap();
    assert_eq!(named(&other), ["NUMGEN_REDIS_URL", "NUMGEN_MAX_CONNECTIONS", "NUMGEN_IDLE_TIMEOUT"]);
    assert!(!format!("{other:?}").contains("bbbb"), "never the secret itself");
    let wrong = reread("rate_limit_issued = -1", "a").unwrap_err().to_string();
    assert!(
        wrong.contains("key rate_limit_issued of numgen.toml") && wrong.contains("whole number"),
        "{wrong}"
    );
}

#[test]
fn what_is_reloaded_is_a_setting() {
    assert_eq!(settings().filter(|setting| setting.is_reloaded()).count(), 9);
}

#[test]
fn nothing_configured_is_the_documented_default() {
    let config = config(&FixedSource::new());
    assert_eq!(config.listen.public.to_string(), "127.0.0.1:8080");
    assert_eq!(config.listen.admin.to_string(), "127.0.0.1:9464");
    assert!(config.listen.tls().is_none());
    assert_eq!(config.storage.data_dir.to_str(), Some("./numgen-data"));
    assert_eq!(config.storage.storage_timeout, Duration::from_secs(5));
    assert_eq!(config.storage.strict_locking, StrictLocking::Row);
    assert_eq!(config.storage.segment_size, 1000);
    assert_eq!(config.storage.idempotency_ttl, Duration::from_secs(86_400));
    assert_eq!(
        (config.worker.datacenter_id, config.worker.datacenters, config.worker.worker_id),
        (0, 1, None)
    );
    assert_eq!(config.worker.ttl, Duration::from_secs(15));
    assert_eq!(config.worker.window, Duration::from_secs(600));
    assert_eq!(config.worker.layout, Layout::DEFAULT);
    assert_eq!(config.worker.max_ahead, Duration::from_millis(50));
    assert_eq!(config.worker.epoch.to_rfc3339(), "2024-01-01T00:00:00.000Z");
    assert!(!config.jwt.has_key());
    let limit = |limit: RateLimit| limit.map(std::num::NonZeroU32::get);
    assert_eq!(limit(config.rate_limits.numbers), Some(1_000_000));
    assert_eq!(limit(config.rate_limits.issued), None);
    assert_eq!(limit(config.rate_limits.management), Some(100));
    assert_eq!(limit(config.rate_limits.address), Some(20_000));
    assert_eq!(config.limits.max_connections, 10_000);
    assert_eq!(config.limits.shutdown_grace, Duration::from_secs(10));
    assert_eq!((config.http.cors_origins, config.http.trusted_proxies.len()), (Origins::None, 0));
    assert_eq!((config.log.filter.as_str(), config.log.format), ("info", None));
}

#[test]
fn flags_win_then_variables_then_the_file() {
    let source = FixedSource::new().file(
        "numgen.toml",
        "listen = '127.0.0.1:1'\nadmin_listen = '127.0.0.1:2'\nsegment_size = 3\nsnowflake_epoch = 2025-01-01T00:00:00Z\ntrusted_proxies = ['10.0.0.0/8', '::1']",
    );
    let source =
        source.variable("NUMGEN_LISTEN", "127.0.0.1:11").variable("NUMGEN_ADMIN_LISTEN", "127.0.0.1:12");
    let (config, values) = load(&flags(&[("--listen", "127.0.0.1:111")]), &source).unwrap();
    assert_eq!(config.listen.public.port(), 111);
    assert_eq!(config.listen.admin.port(), 12);
    assert_eq!(config.storage.segment_size, 3);
    assert_eq!(config.worker.epoch.to_rfc3339(), "2025-01-01T00:00:00.000Z");
    assert_eq!(config.http.trusted_proxies.len(), 2);
    for (variable, origin) in [
        ("NUMGEN_LISTEN", "flag --listen"),
        ("NUMGEN_ADMIN_LISTEN", "environment variable NUMGEN_ADMIN_LISTEN"),
        ("NUMGEN_SEGMENT_SIZE", "key segment_size of numgen.toml"),
        ("NUMGEN_DATA_DIR", "default of NUMGEN_DATA_DIR"),
    ] {
        assert_eq!(values.origin(variable).to_string(), origin);
    }
}

#[test]
fn each_kind_of_mistake_says_where_what_and_what_would_be_right() {
    for (variable, value, expected) in [
        (
            "NUMGEN_LISTEN",
            "8080",
            r#"environment variable NUMGEN_LISTEN: "8080" is invalid, expected: address and port, such as 127.0.0.1:8080"#,
        ),
        (
            "NUMGEN_SEGMENT_SIZE",
            "0",
            r#"environment variable NUMGEN_SEGMENT_SIZE: "0" is invalid, expected: whole number from 1 to 1000000"#,
        ),
        (
            "NUMGEN_STORAGE_TIMEOUT_MS",
            "5s",
            r#"environment variable NUMGEN_STORAGE_TIMEOUT_MS: "5s" is invalid, expected: whole number from 10 to 600000 (milliseconds)"#,
        ),
        (
            "NUMGEN_STRICT_LOCKING",
            "table",
            r#"environment variable NUMGEN_STRICT_LOCKING: "table" is invalid, expected: row or optimistic"#,
        ),
        (
            "NUMGEN_IDEMPOTENCY_TTL",
            "24",
            r#"environment variable NUMGEN_IDEMPOTENCY_TTL: "24" is invalid, expected: duration from 1m to 366d, such as 1h30m, 90s or 500ms"#,
        ),
        (
            "NUMGEN_SNOWFLAKE_LAYOUT",
            "41/5/5/13",
            r#"environment variable NUMGEN_SNOWFLAKE_LAYOUT: "41/5/5/13" is invalid (the bits of a snowflake layout add up to 63, these to 64), expected: bits for time/data centre/worker/sequence that add up to 63, such as 41/5/5/12"#,
        ),
        (
            "NUMGEN_SNOWFLAKE_LAYOUT",
            "63/0/0/0",
            r#"environment variable NUMGEN_SNOWFLAKE_LAYOUT: "63/0/0/0" is invalid (time takes 31 to 62 bits, not 63), expected: bits for time/data centre/worker/sequence that add up to 63, such as 41/5/5/12"#,
        ),
        (
            "NUMGEN_DATACENTER_ID",
            "32",
            "environment variable NUMGEN_DATACENTER_ID: 32 is too high: layout 41/5/5/12 (NUMGEN_SNOWFLAKE_LAYOUT) has room up to 31",
        ),
        (
            "NUMGEN_WORKER_ID",
            "32",
            "environment variable NUMGEN_WORKER_ID: 32 is too high: layout 41/5/5/12 (NUMGEN_SNOWFLAKE_LAYOUT) has room up to 31",
        ),
        (
            "NUMGEN_SNOWFLAKE_EPOCH",
            "2024",
            r#"environment variable NUMGEN_SNOWFLAKE_EPOCH: "2024" is invalid, expected: RFC 3339 time from 1970 on, such as 2024-01-01T00:00:00Z"#,
        ),
        (
            "NUMGEN_JWT_SECRET",
            "canary",
            "environment variable NUMGEN_JWT_SECRET: the value is invalid (6 bytes), expected: text of 32 bytes or more, such as openssl rand -hex 32 prints",
        ),
        (
            "NUMGEN_JWT_SECRET",
            "",
            "environment variable NUMGEN_JWT_SECRET: the value is empty: give one, or leave the setting out",
        ),
        (
            "NUMGEN_TLS_CERT_FILE",
            "c.pem",
            "environment variable NUMGEN_TLS_CERT_FILE: a certificate needs its key: set NUMGEN_TLS_KEY_FILE too",
        ),
        (
            "NUMGEN_ADMIN_LISTEN",
            "127.0.0.1:8080",
            "environment variable NUMGEN_ADMIN_LISTEN: 127.0.0.1:8080 is also the address of the API: choose another port",
        ),
        (
            "NUMGEN_TRUSTED_PROXIES",
            "10.0.0.0/99",
            r#"environment variable NUMGEN_TRUSTED_PROXIES: "10.0.0.0/99" is invalid, expected: comma-separated list of addresses or address blocks such as 10.0.0.0/8"#,
        ),
        (
            "NUMGEN_CORS_ORIGINS",
            "https://a.example/x",
            r#"environment variable NUMGEN_CORS_ORIGINS: "https://a.example/x" is invalid, expected: * or comma-separated list of web origins such as https://example.org, without a path"#,
        ),
        (
            "NUMGEN_LOG_FORMAT",
            "xml",
            r#"environment variable NUMGEN_LOG_FORMAT: "xml" is invalid, expected: json or pretty"#,
        ),
        (
            "NUMGEN_NODE_NAME",
            "a~b",
            r#"environment variable NUMGEN_NODE_NAME: "a~b" is invalid, expected: name of 1 to 64 characters A-Z a-z 0-9 . _ -"#,
        ),
        (
            "NUMGEN_REDIS_URL",
            "redis://:canary@h,i",
            "environment variable NUMGEN_REDIS_URL: the value is invalid (several servers need redis+sentinel:// or redis+cluster://), expected: URL such as redis://localhost:6379",
        ),
        (
            "NUMGEN_DATABASE_URL",
            "postgres://:canary@h",
            "environment variable NUMGEN_DATABASE_URL: the value is invalid (the name of the database comes behind the server: postgres://host/numgen), expected: URL such as postgres://localhost/numgen",
        ),
        (
            "NUMGEN_DATABASE_URL",
            "mysql://u:canary@h",
            "environment variable NUMGEN_DATABASE_URL: the value is invalid (it begins with postgres:// or postgresql://), expected: URL such as postgres://localhost/numgen",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://u:canary@h",
            r#"environment variable OTEL_EXPORTER_OTLP_ENDPOINT: "http://****@h" is invalid (without user and password), expected: URL such as http://collector:4318"#,
        ),
    ] {
        assert_eq!(error(variable, value), expected);
    }
    assert!(
        error("NUMGEN_LOG", "info,=")
            .starts_with(r#"environment variable NUMGEN_LOG: "info,=" is invalid ("#)
    );
    assert!(error("NUMGEN_SNOWFLAKE_EPOCH", "1969-12-31T00:00:00Z").contains("(86400 s before 1970)"));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let source = FixedSource::new().variable("NUMGEN_LISTEN", "x").variable("NUMGEN_SEGMENT_SIZE", "x");
    let error = load(&flags(&[("--worker-id", "x")]), &source).unwrap_err();
    assert_eq!(error.mistakes.len(), 3, "{error}");
    assert!(error.to_string().contains("\nflag --worker-id: \"x\" is invalid, "), "{error}");
}

#[test]
fn the_file_is_strict_and_never_repeated() {
    for (content, expected) in [
        ("lisen = 'x'", "key lisen of numgen.toml: there is no such setting, the nearest is listen"),
        (
            "jwtSecret = 'canary'",
            "key jwtSecret of numgen.toml: there is no such setting, the nearest is jwt_secret",
        ),
        (
            "[jwt]\nsecret = 'canary'",
            "key jwt of numgen.toml: there is no such setting, the nearest is jwt_issuer",
        ),
        (
            "listen = { a = 1 }",
            "key listen of numgen.toml: give a text, a number or a list of texts, not table",
        ),
        (
            "segment_size = 1.5",
            "key segment_size of numgen.toml: \"1.5\" is invalid, expected: whole number from 1 to 1000000",
        ),
        (
            "segment_size = 0",
            "key segment_size of numgen.toml: \"0\" is invalid, expected: whole number from 1 to 1000000",
        ),
    ] {
        assert_eq!(file_error(content), expected);
    }
    let source = FixedSource::new().file("numgen.toml", "otel_traces_sampler_arg = 0.25\notel_traces_sampler = 'traceidratio'\notel_exporter_otlp_endpoint = 'http://localhost:4318'");
    assert_eq!(load(&flags(&[]), &source).unwrap().0.traces.sampler_arg, 0.25);
    let syntax = file_error("listen = '127.0.0.1:1'\njwt_secret = 'canary");
    assert!(syntax.starts_with("numgen.toml, line 2, column "), "{syntax}");
    assert!(!syntax.contains("canary"), "{syntax}");
    assert!(file_error("listen = 1\nlisten = 2").contains("line 2"), "twice the same key");
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    let named = Flags { config: Some("other.toml".into()), given: vec![] };
    let error = load(&named, &FixedSource::new()).unwrap_err().to_string();
    assert!(error.starts_with("flag --config: cannot read other.toml: "), "{error}");
    let source =
        FixedSource::new().file("other.toml", "segment_size = 7").file("numgen.toml", "segment_size = 8");
    assert_eq!(load(&named, &source).unwrap().0.storage.segment_size, 7);
}

#[test]
fn secrets_come_from_files_too_but_not_twice() {
    let secret = "0123456789abcdef0123456789abcdef";
    for ending in ["", "\n", "\r\n"] {
        let source = FixedSource::new()
            .variable("NUMGEN_JWT_SECRET_FILE", "/run/secret")
            .file("/run/secret", format!("{secret}{ending}"));
        assert_eq!(config(&source).jwt.secret.unwrap().reveal(), secret, "{ending:?}");
    }
    let both = FixedSource::new()
        .variable("NUMGEN_JWT_SECRET", secret)
        .variable("NUMGEN_JWT_SECRET_FILE", "/run/secret");
    let error = load(&Flags::default(), &both).unwrap_err().to_string();
    assert_eq!(
        error,
        "environment variable NUMGEN_JWT_SECRET and environment variable NUMGEN_JWT_SECRET_FILE are both given: give only one of them"
    );
    // A stronger level replaces a weaker one, whichever form either takes.
    let flag = flags(&[("--jwt-secret-file", "/run/other")]);
    let source = FixedSource::new().variable("NUMGEN_JWT_SECRET", "x").file("/run/other", secret);
    assert_eq!(load(&flag, &source).unwrap().0.jwt.secret.unwrap().reveal(), secret);
    let error = load(&flag, &FixedSource::new()).unwrap_err().to_string();
    assert!(error.starts_with("flag --jwt-secret-file: cannot read /run/other: "), "{error}");
}

#[test]
fn unknown_variables_warn_and_others_are_none_of_our_business() {
    let source = FixedSource::new()
        .variable("NUMGEN_LISTN", "canary")
        .variable("NUMGEN_PORT_8080_TCP", "tcp://10.0.0.1:8080")
        .variable("PATH", "/bin");
    let (_, values) = load(&Flags::default(), &source).unwrap();
    let warnings: Vec<_> = values.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(warnings[0], "environment variable NUMGEN_LISTN is no setting, the nearest is NUMGEN_LISTEN");
}

#[test]
fn a_setting_without_effect_is_told() {
    let source = FixedSource::new().variable("NUMGEN_SEGMENT_SIZE", "500").variable("NUMGEN_WORKER_ID", "3");
    let (_, warnings) = Config::load(&Flags::default(), &source).unwrap();
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "environment variable NUMGEN_SEGMENT_SIZE has no effect without NUMGEN_REDIS_URL or NUMGEN_DATABASE_URL"
        ]
    );
}

#[test]
fn the_urls_choose_the_profile() {
    let of = |urls: &[&str]| {
        let source = urls.iter().fold(FixedSource::new(), |source, url| match url.split_once(':') {
            Some(("redis", _)) => source.variable("NUMGEN_REDIS_URL", url),
            _ => source.variable("NUMGEN_DATABASE_URL", url),
        });
        Config::load(&Flags::default(), &source)
            .map(|(config, _)| config.profile())
            .map_err(|e| e.to_string())
    };
    assert_eq!(of(&[]), Ok(Profile::Embedded));
    assert_eq!(of(&["redis://h"]), Ok(Profile::Redis));
    assert_eq!(of(&["postgres://h/n"]), Ok(Profile::Postgres));
    assert_eq!(of(&["redis://h", "postgres://h/n"]), Ok(Profile::Full));
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    assert_eq!(config(&FixedSource::new().variable("NUMGEN_WORKER_ID", "")).worker.worker_id, None);
}

#[test]
fn a_variable_that_is_not_text_is_named() {
    let source = FixedSource::new().variable("NUMGEN_LISTEN", OsString::from_vec(vec![0xff]));
    let error = load(&Flags::default(), &source).unwrap_err().to_string();
    assert_eq!(error, "environment variable NUMGEN_LISTEN: the value is not UTF-8 text");
}

#[test]
fn the_table_for_readme_has_a_row_for_each_setting() {
    let table = markdown_table();
    assert!(table.contains(
        "| `NUMGEN_SEGMENT_SIZE` | `1000` | whole number from 1 to 1000000 | Numbers of each continuous counter"
    ));
    assert!(
        table.contains("| `NUMGEN_JWT_SECRET` or `NUMGEN_JWT_SECRET_FILE` | with no key at all, "),
        "{table}"
    );
    assert_eq!(table.lines().filter(|line| line.starts_with("| `")).count(), settings().count());
    for row in table.lines().filter(|line| line.starts_with('|')) {
        assert_eq!(row.matches(" | ").count(), 3, "{row}");
    }
}

#[test]
fn names_follow_from_one_another_and_are_unique() {
    let mut seen = std::collections::HashSet::new();
    for setting in settings() {
        assert_eq!(setting.flag, format!("--{}", setting.key.replace('_', "-")));
        assert_eq!(setting.env.trim_start_matches("NUMGEN_").to_lowercase(), setting.key);
        assert_ne!(setting.default.is_some(), setting.unset.is_some(), "{}", setting.key);
        assert!(setting.help.ends_with(['.', ';']) && !setting.help.contains('\n'), "{}", setting.help);
        for (key, _, _) in setting.spellings() {
            assert!(seen.insert(key.clone()), "{key} is declared twice");
        }
    }
}

/// Every setting, by every way in, with a value that is wrong almost everywhere and looks like a credential.
#[test]
fn no_secret_is_ever_shown() {
    let canary = "redis://user:canary-5f3a@host/canary-5f3a?x=canary-5f3a and blanks";
    for setting in settings().filter(|setting| setting.secret) {
        let variable = FixedSource::new().variable(setting.env, canary);
        let key = FixedSource::new().file("numgen.toml", format!("{} = '{canary}'", setting.key));
        let from_file =
            FixedSource::new().variable(&format!("{}_FILE", setting.env), "/run/s").file("/run/s", canary);
        let no_table =
            FixedSource::new().file("numgen.toml", format!("{} = ['{canary}', {{}}]", setting.key));
        let cut = FixedSource::new().file("numgen.toml", format!("{} = '{canary}", setting.key));
        let flag = (flags(&[(&setting.flag, canary)]), FixedSource::new());
        let mut ways: Vec<_> =
            [variable, key, from_file, no_table, cut].map(|s| (Flags::default(), s)).into();
        ways.push(flag);
        for (flags, source) in ways {
            let shown = match Values::gather(&flags, &source) {
                Ok(values) => {
                    let outcome = Config::read(&values);
                    let client = ClientConfig::read(&values);
                    let chain = outcome.as_ref().err().map(ToString::to_string);
                    let client_chain = client.as_ref().err().map(ToString::to_string);
                    format!("{flags:?} {values:?} {outcome:?} {client:?} {chain:?} {client_chain:?}")
                }
                Err(error) => format!("{flags:?} {error} {error:?}"),
            };
            assert!(!shown.contains("canary-5f3a"), "{}: {shown}", setting.key);
        }
    }
    let long = format!("redis://u:canary-5f3a{}@host", "x".repeat(200));
    assert!(!error("NUMGEN_LISTEN", &long).contains("canary-5f3a"));
    // Settings that are no secrets may be shown, but not what somebody pasted there by mistake.
    for setting in settings().filter(|setting| !setting.secret) {
        let shown = load(
            &Flags::default(),
            &FixedSource::new().variable(setting.env, "redis://u:canary-5f3a@host 1"),
        );
        if let Err(error) = shown {
            assert!(!error.to_string().contains("canary-5f3a"), "{error}");
        }
    }
}

#[test]
fn the_ordinal_of_a_host_is_its_worker_id() {
    let on = |host: &str| FixedSource::new().variable("NUMGEN_WORKER_ID", "ordinal").host(host);
    assert_eq!(config(&on("numgen-7")).worker.worker_id, Some(7));
    assert_eq!(config(&on("my-app-12.numgen.default.svc")).worker.worker_id, Some(12));
    for (host, why) in [
        ("web1", "the host name \"web1\" does not end in a number, as in numgen-0"),
        ("web-1a", "does not end in a number"),
        ("numgen-32", "32 is too high: layout 41/5/5/12 (NUMGEN_SNOWFLAKE_LAYOUT) has room up to 31"),
    ] {
        let error = load(&Flags::default(), &on(host)).unwrap_err().to_string();
        assert!(error.contains("NUMGEN_WORKER_ID") && error.contains(why), "{error}");
    }
}
