//! `numgen verify`: an auditor who believes no service reads the store.

use std::{path::Path, sync::Arc, time::Duration};

use numgen::{
    calendar::Period,
    clock::{SystemClock, UnixMillis},
    config::StrictLocking,
    counter::{Counter, SequenceValue},
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    rule::OnOutage,
    secret::Secret,
    store::{
        Bounds, IssueRequest, LedgerStore,
        postgres::{PostgresStore, Settings},
    },
    telemetry::Metrics,
};
use serde_json::json;

use crate::harness::{Postgres, Site, TestServer};

fn verify(site: &Site, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = site.run(&[&["verify"], arguments].concat());
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn edit(site: &Site, sql: &str) {
    let path: &Path = &site.path("data").join("numgen.db");
    rusqlite::Connection::open(path).expect("a database").execute_batch(sql).expect(sql);
}

#[test]
fn an_edit_of_a_ledger_is_found_and_its_place_named() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("INV", &json!({ "format": "I{year}-{SEQ:4}", "mode": "strict", "reset": "yearly" }));
    for date in ["2025-03-01", "2026-03-01"] {
        let three = json!({ "prefix_key": "INV", "date": date, "count": 3 });
        caller.post("/numbers", &three).expect(200);
    }
    caller.post("/numbers/INV/I2026-0002/void", &json!({ "reason": "printed twice" })).expect(200);
    let head = caller.get("/ledger/INV/certificate?period=2026").expect(200).json()["head"].clone();

    // While the service runs.
    let (code, out, err) = verify(server.site(), &["INV"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].starts_with("INV:2025\tintact\t3 rows, 0 events; certificate: 1 to 3, 3 numbers"),
        "{out}"
    );
    assert!(lines[1].starts_with("INV:2026\tintact\t3 rows, 1 events"), "{out}");
    assert!(lines[1].ends_with(head.as_str().expect("a hash")), "{out}");

    for (prefix, said) in [("NOBODY", "NOBODY has no ledger"), ("a b", "a b")] {
        let (code, _, err) = verify(server.site(), &[prefix]);
        assert_eq!(code, Some(2), "{prefix}");
        assert!(err.contains(said), "{err}");
    }

    let site = server.stop();
    edit(
        &site,
        "DROP TRIGGER ledger_content_is_final; DROP TRIGGER ledger_rows_stay; DROP TRIGGER ledger_events_stay",
    );
    edit(&site, "UPDATE ledger SET subject = 'somebody else' WHERE number = 'I2026-0003'");
    let (code, out, err) = verify(&site, &["INV"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("INV:2025\tintact") && out.contains("INV:2026\tBROKEN"), "{out}");
    assert!(out.contains("INV:2026\t  row 3 does not carry the hash"), "{out}");
    assert!(err.contains("the ledger of INV is broken in 1 of 2 periods"), "{err}");

    // A whole period that is gone is missed, not passed over.
    edit(&site, "DELETE FROM ledger WHERE period = '2025'");
    let (code, out, _) = verify(&site, &["INV"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("INV:2025\t  no row for 1 to 3"), "{out}");
}

#[test]
fn where_there_are_no_ledgers_nothing_is_said_to_be_intact() {
    let site = Site::new();
    let (code, _, err) = verify(&site, &["INV"]);
    assert_eq!(code, Some(1), "there is no database yet: {err}");
    assert!(!site.path("data").join("numgen.db").exists(), "a look makes nothing");
    let (code, _, err) = verify(&site, &["INV", "--redis-url", "redis://127.0.0.1:1"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("profile redis keeps no ledgers"), "{err}");
    let (code, _, err) = verify(&site, &["INV", "--database-url", "postgres://127.0.0.1:1/none"]);
    assert_eq!(code, Some(1), "{err}");
}

#[test]
fn ledgers_in_postgresql_are_read_there() {
    let database = Postgres::create_database();
    let site = Site::new().with("NUMGEN_DATABASE_URL", &database.url());
    let (code, _, err) = verify(&site, &["INV"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("has schema 0"), "a look makes no tables: {err}");

    tokio::runtime::Runtime::new().expect("a runtime").block_on(issue_three(&database.url()));
    let (code, out, err) = verify(&site, &["INV"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.starts_with("INV:2026\tintact\t3 rows, 0 events; certificate: 1 to 3"), "{out}");
    assert_eq!(verify(&site, &["OTHER"]).0, Some(2));

    database.psql("ALTER TABLE numgen_ledger DISABLE TRIGGER ALL; UPDATE numgen_ledger SET number = 'I-9' WHERE sequence = 2");
    let (code, out, _) = verify(&site, &["INV"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("INV:2026\t  row 2 does not carry the hash"), "{out}");
}

#[test]
fn rows_that_have_lost_their_counter_are_found() {
    let database = Postgres::create_database();
    let site = Site::new().with("NUMGEN_DATABASE_URL", &database.url());
    tokio::runtime::Runtime::new().expect("a runtime").block_on(issue_three(&database.url()));
    let remove = |table: &str| {
        database.psql(&format!("ALTER TABLE {table} DISABLE TRIGGER ALL; DELETE FROM {table}"));
    };
    remove("numgen_ledger_counters");
    let (code, out, err) = verify(&site, &["INV"]);
    assert_eq!(
        (code, out.as_str()),
        (Some(1), "INV\tBROKEN\trows 1 to 3, the first of them I-1, have lost their counter\n")
    );
    assert!(err.contains("the ledger of INV is broken in 1 of 1 periods"), "{err}");
    assert_eq!(verify(&site, &["OTHER"]).0, Some(2), "they are another's");

    remove("numgen_ledger_keys");
    for key in ["INV", "OTHER"] {
        let (code, out, _) = verify(&site, &[key]);
        let said = "(unknown)\tBROKEN\trows 1 to 3, the first of them I-1, have lost their prefix key\n";
        assert_eq!((code, out.as_str()), (Some(1), said), "nobody can say whose they are");
    }
}

async fn issue_three(url: &str) {
    let settings = Settings {
        clock: Arc::new(SystemClock::new()),
        timeout: Duration::from_secs(20),
        locking: StrictLocking::Row,
        pool_size: 2,
        node: None,
        ca_file: None,
    };
    let lifecycle = Lifecycle::new();
    let url = Secret::new(url.to_owned());
    let store = PostgresStore::connect(&url, settings, &Metrics::new(), &lifecycle).expect("a good URL");
    let (base, floor, max) = (SequenceValue(0), SequenceValue(0), SequenceValue::MAX);
    let bounds = Bounds { base, floor, max, scheme: 0, on_outage: OnOutage::Fail };
    let key = PrefixKey::parse("INV").expect("a prefix key");
    let counter = Counter { key, period: Period::new("2026") };
    let three = IssueRequest {
        count: 3,
        claim: None,
        idempotency_key: None,
        subject: "alice".into(),
        issued_at: UnixMillis(1_795_348_800_000),
        reserved_until: None,
    };
    store
        .issue(counter, bounds, vec![three], Arc::new(|_, value| format!("I-{value}")))
        .await
        .expect("issued");
    lifecycle.drain();
    lifecycle.finished(Duration::from_secs(5)).await;
}
