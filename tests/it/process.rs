//! The process as an operator meets it: starting, stopping, exit codes, the other commands.

use std::{fs, net::TcpListener, time::Duration};

use serde_json::json;

use crate::harness::{Caller, Connection, Redis, SECRET, Site, Stopwatch, TestServer};

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let first = TestServer::start();
    let second = first.site().start_unready();
    let status = second.wait_exit(Duration::from_secs(10));
    let log = first.log();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains(&*first.site().path("data").to_string_lossy()), "it names the directory: {log}");
    // The first one is none the worse for it.
    let mut caller = first.caller();
    caller.register("ONE", &json!({ "format": "O-{SEQ:2}" }));
    assert_eq!(caller.number("ONE"), "O-01");
}

/// A process that ends without giving its worker ID back keeps it from others for 30 s.
#[test]
fn a_start_on_a_port_in_use_takes_no_worker_id() {
    let redis = Redis::start();
    let site = |id| Site::new().with("NUMGEN_REDIS_URL", &redis.url()).with("NUMGEN_WORKER_ID", id);
    let _settled = site("3").start();
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = other.local_addr().expect("an address").to_string();
    for setting in ["NUMGEN_LISTEN", "NUMGEN_ADMIN_LISTEN"] {
        let ports = site("7").with("NUMGEN_LISTEN", "127.0.0.1:0").with("NUMGEN_ADMIN_LISTEN", "127.0.0.1:0");
        let refused = ports.with(setting, &port).run(&["serve"]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(setting) && said.contains(&port), "{said}");
    }
    let watch = Stopwatch::start();
    let _another_directory = site("7").start();
    watch.assert_within(Duration::from_secs(15), "nobody else has the ID");
}

#[test]
fn sigterm_finishes_what_is_in_flight() {
    let server = Site::new().with("NUMGEN_LOG", "trace").start();
    let mut caller = server.caller();
    caller.register("DRAIN", &json!({ "format": "D-{SEQ:2}" }));

    // A request whose body is still on its way when the signal comes.
    let body = json!({ "prefix_key": "DRAIN" }).to_string();
    let mut connection = Connection::open(server.listen).expect("a connection");
    let head = format!(
        "POST /numbers HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        caller.authorization(),
        body.len()
    );
    connection.write(head.as_bytes()).expect("sent");
    connection.write(&body.as_bytes()[..5]).expect("sent");
    std::thread::sleep(Duration::from_millis(200));

    server.ask_to_stop();
    Stopwatch::wait_until(Duration::from_secs(5), "readiness fails first", || {
        server.admin("/readyz").is_ok_and(|answer| answer.status == 503)
    });
    connection.write(&body.as_bytes()[5..]).expect("sent");
    assert_eq!(connection.read("POST").expect("an answer").expect(200).numbers(), ["D-01"]);
    let site = server.site().clone();
    assert_eq!(server.wait_exit(Duration::from_secs(10)).code(), Some(0), "{}", site.log());

    // What was given back is not given twice.
    let server = site.start();
    assert_eq!(server.caller().number("DRAIN"), "D-02");
}

/// `numgen check 2>&1 | head -1`
#[test]
fn a_reader_that_leaves_early_is_no_crash() {
    let site = Site::new();
    let closed = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        writer
    };
    for (arguments, code) in [
        (&["check", "--datacenter-id", "99"][..], 2),
        (&["check"], 1),
        (&["preview", "A{SEQ:4}"], 1),
        (&["token", "--scope", "admin", "--unknown"], 2),
    ] {
        let status = site.command(arguments).stdout(closed()).stderr(closed()).status().expect("it runs");
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("IDLE", &json!({ "format": "I-{SEQ:2}" }));
    let mut silent = Connection::open(server.listen).expect("a connection");
    let watch = Stopwatch::start();
    server.ask_to_stop();
    assert_eq!(server.wait_exit(Duration::from_secs(9)).code(), Some(0));
    watch.assert_within(Duration::from_secs(5), "the end");
    assert!(silent.is_closed_within(Duration::from_secs(1)));
}

#[test]
fn the_first_start_needs_no_configuration() {
    use std::os::unix::fs::PermissionsExt as _;

    let site = Site::new().without("NUMGEN_JWT_SECRET_FILE").without("NUMGEN_DATA_DIR");
    let server = site.start();
    let log = server.log();
    assert!(log.contains("embedded"), "it prints the profile: {log}");
    assert!(log.contains(&server.listen.to_string()), "and where it listens: {log}");
    assert!(log.contains(&server.admin.to_string()), "and where for operators: {log}");
    // The secret that it drew is nobody else's.
    let data = site.path("numgen-data");
    let secrets: Vec<_> = fs::read_dir(&data)
        .expect("the data directory")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.file_name().to_string_lossy().contains("secret"))
        .collect();
    assert_eq!(secrets.len(), 1, "{secrets:?}");
    assert_eq!(secrets[0].metadata().expect("metadata").permissions().mode() & 0o777, 0o600);
    // Not a terminal: nothing is registered by itself.
    assert_eq!(server.caller().get("/prefix-configs").expect(200).json()["rules"], json!([]));

    // And it stays the same secret: a token from before the restart is good after it.
    let token = site.token(&["--scope", "admin"]);
    let site = server.stop();
    let server = site.start();
    let mut caller = Caller::new(server.listen, Some(token));
    caller.get("/prefix-configs").expect(200);
}

/// What a newcomer sees: a command to paste, once, and it works.
#[test]
fn the_first_start_at_a_terminal_prints_a_command_that_issues_a_number() {
    let site = Site::new().without("NUMGEN_JWT_SECRET_FILE");
    let server = site.start_on_a_terminal();
    Stopwatch::wait_until(Duration::from_secs(5), "the command", || server.log().contains("/numbers/DEMO"));
    let log = server.log();
    let command = log.lines().find(|line| line.trim_start().starts_with("curl ")).expect("a command");
    assert!(command.trim_end().ends_with(&format!("http://{}/numbers/DEMO", server.listen)), "{command}");
    let token = command.split("Bearer ").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    let mut newcomer = Caller::new(server.listen, Some(token.to_owned()));
    let answer = newcomer.get("/numbers/DEMO").expect(200);
    assert_eq!(answer.text(), r#"{"number":"DEMO-0001","source":"primary"}"#);
    // It is good for that and no more.
    newcomer.get("/ledger/DEMO").expect(403);
    server.ask_to_stop();
    server.wait_exit(Duration::from_secs(15));

    // The second start is nobody's first.
    let printed = site.log().matches("/numbers/DEMO").count();
    let server = site.start_on_a_terminal();
    assert_eq!(site.log().matches("/numbers/DEMO").count(), printed);
    let mut newcomer = Caller::new(server.listen, Some(token.to_owned()));
    assert_eq!(newcomer.number("DEMO"), "DEMO-0002");
    server.ask_to_stop();
    server.wait_exit(Duration::from_secs(15));
}

#[test]
fn usage_and_configuration_errors_exit_with_2_and_name_the_setting() {
    let site = Site::new();
    let complaint = |site: &Site, arguments: &[&str]| {
        let output = site.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        text
    };
    assert!(complaint(&site, &["serve", "--lisen", "127.0.0.1:1"]).contains("--listen"), "the nearest flag");
    assert!(complaint(&site, &["srve"]).contains("serve"), "the nearest command");

    let wrong = site.clone().with("NUMGEN_LISTEN", "nowhere");
    assert!(complaint(&wrong, &["serve"]).contains("NUMGEN_LISTEN"));
    let short = site.clone().with("NUMGEN_JWT_SECRET", "short").without("NUMGEN_JWT_SECRET_FILE");
    let text = complaint(&short, &["serve"]);
    assert!(text.contains("NUMGEN_JWT_SECRET") && text.contains("32"), "{text}");
    assert!(!text.contains("short\""), "never the secret itself: {text}");

    fs::write(site.path("numgen.toml"), "lisen = \"127.0.0.1:1\"\n").expect("written");
    let text = complaint(&site, &["serve"]);
    assert!(text.contains("lisen") && text.contains("listen"), "{text}");
    fs::remove_file(site.path("numgen.toml")).expect("removed");

    // An unknown variable is a warning only: Kubernetes makes such names.
    let site = site.with("NUMGEN_SERVICE_HOST", "10.0.0.1");
    let server = site.start();
    assert!(server.log().contains("NUMGEN_SERVICE_HOST"), "{}", server.log());
}

#[test]
fn an_address_in_use_is_said() {
    let first = TestServer::start();
    let site = Site::new().with("NUMGEN_LISTEN", &first.listen.to_string());
    let output = site.run(&["serve", "--admin-listen", "127.0.0.1:0"]);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success());
    assert!(text.contains(&first.listen.to_string()), "{text}");
}

#[test]
fn the_other_commands() {
    let server = TestServer::start();
    server.caller().register("SHELL", &json!({ "format": "SH-{SEQ:3}" }));
    let url = format!("http://{}", server.listen);
    let site = server.site().clone().with("NUMGEN_URL", &url);
    let run = |arguments: &[&str]| {
        let output = site.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.code(), text, String::from_utf8_lossy(&output.stderr).into_owned())
    };

    let (code, out, error) = run(&["next", "SHELL"]);
    assert_eq!((code, out.as_str()), (Some(0), "SH-001"), "{error}");
    let (code, out, error) = run(&["next", "SHELL", "--count", "2"]);
    assert_eq!((code, out.as_str()), (Some(0), "SH-002\nSH-003"), "{error}");
    let (code, out, error) = run(&["next", "SHELL", "--url", &format!("{url}/api")]);
    assert_eq!((code, out.as_str()), (Some(0), "SH-004"), "{error}");
    let (code, _, error) = run(&["next", "SHELL", "--url", &format!("{url}?a=b")]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--url") && error.contains("without query"), "{error}");
    let (code, out, error) = run(&["preview", "P-{SEQ:4}"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("P-0001"), "{out}");
    let (code, _, error) = run(&["next", "NOBODY"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("NOBODY"), "{error}");
    let (code, _, error) = run(&["preview", "INVALID"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("{SEQ}"), "{error}");
    let (code, out, error) = run(&["temporary", "list"]);
    assert_eq!(code, Some(0), "{out} {error}");

    // A token, and nothing else: three parts, one line, and the secret is not among them.
    let (code, token, error) = run(&["token", "--scope", "numbers:issue", "--ttl", "5m"]);
    assert_eq!(code, Some(0), "{error}");
    assert_eq!((token.split('.').count(), token.lines().count()), (3, 1), "{token}");
    assert!(!token.contains(SECRET));

    // `check` may run while the server does, and says so; once it is gone, numbers may be issued.
    let site = server.stop();
    let output = site.run(&["check"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.to_lowercase().contains("sqlite"), "{text}");
}
