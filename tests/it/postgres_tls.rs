//! TLS to PostgreSQL: each `sslmode` goes as far as libpq's documentation says, and no further.

use serde_json::json;

use crate::harness::{Authority, Postgres, Site, Stopwatch, TestServer};

/// Where the node connects, and whom it trusts.
fn site(server: &Postgres, host: &str, mode: &str, trusted: Option<&Authority>) -> Site {
    let url = server.url().replace("127.0.0.1", host).replace("sslmode=disable", mode);
    let site = Site::new().with("NUMGEN_DATABASE_URL", &url);
    match trusted {
        Some(authority) => site.with("NUMGEN_DATABASE_CA_FILE", &authority.file().to_string_lossy()),
        None => site,
    }
}

/// Whether the connections of a node are encrypted: `t` or `f`, once each.
fn encrypted(server: &Postgres) -> String {
    server.psql(
        "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
         WHERE application_name = 'numgen' ORDER BY ssl",
    )
}

#[track_caller]
fn wait_component(node: &TestServer, what: &str, pleases: impl Fn(&str) -> bool) {
    Stopwatch::wait_until(std::time::Duration::from_secs(20), what, || {
        let answer = node.admin("/readyz").map(|answer| answer.json());
        answer.is_ok_and(|json| json["components"]["postgres"].as_str().is_some_and(&pleases))
    });
}

#[test]
fn whoever_is_vouched_for_is_spoken_to() {
    let (ours, other) = (Authority::new(), Authority::new());
    let server = Postgres::start_with_tls(&ours.vouch("server"));

    let node = site(&server, "localhost", "sslmode=verify-full", Some(&ours)).start();
    let mut caller = node.caller();
    caller.register("BOOKS", &json!({ "format": "B-{SEQ:4}", "mode": "strict" }));
    assert_eq!(caller.number("BOOKS"), "B-0001");
    assert_eq!(encrypted(&server), "t", "ledgers, followers and the watchman, too");
    drop(node.stop());

    // Without a mode: all that can be checked is.
    for (host, mode, trusted, said) in [
        ("127.0.0.1", "sslmode=verify-full", &ours, "not valid for name"),
        ("127.0.0.1", "", &ours, "not valid for name"),
        ("localhost", "", &other, "invalid peer certificate"),
        ("127.0.0.1", "sslmode=verify-ca", &other, "invalid peer certificate"),
    ] {
        let node = site(&server, host, mode, Some(trusted)).start_unready();
        wait_component(&node, &format!("{host} {mode}: {said}"), |state| state.contains(said));
        assert_eq!(encrypted(&server), "", "{host} {mode}");
    }
    for (host, mode, trusted, by_tls) in [
        ("127.0.0.1", "sslmode=verify-ca", Some(&ours), "t"),
        ("127.0.0.1", "sslmode=require", None, "t"),
        ("127.0.0.1", "", None, "t"),
        ("127.0.0.1", "sslmode=disable", None, "f"),
    ] {
        let node = site(&server, host, mode, trusted).start_unready();
        wait_component(&node, &format!("{host} {mode}"), |state| state == "ok");
        assert_eq!(encrypted(&server), by_tls, "{host} {mode}");
        drop(node.stop());
    }
}

#[test]
fn a_server_without_tls_is_refused_where_it_is_required() {
    let server = Postgres::start();
    let node = site(&server, "127.0.0.1", "sslmode=require", None).start_unready();
    wait_component(&node, "it says why", |state| state.contains("TLS"));
}
