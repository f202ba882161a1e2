//! `numgen import`: the numbers of an older system, and a service that goes on above them.

use std::{
    fs,
    io::Write,
    process::{Output, Stdio},
};

use serde_json::json;

use crate::harness::TestServer;

fn run(server: &TestServer, arguments: &[&str]) -> (Option<i32>, String, String) {
    let url = format!("http://{}", server.listen);
    said(server.site().run(&[&["import", "--url", &url], arguments].concat()))
}

fn said(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn write(server: &TestServer, lines: &str) -> String {
    let path = server.site().path("numbers.txt");
    fs::write(&path, lines).expect("written");
    path.to_string_lossy().into_owned()
}

#[test]
fn what_begins_higher_is_not_counted_as_moved() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("R", &json!({ "format": "R-{SEQ:4}" }));
    caller.post("/sequences/R/advance", &json!({ "to": 50 })).expect(200);
    // Its periods begin above what the former counter issued, whose numbers may look like theirs.
    let changed = json!({ "format": "{year}R-{SEQ:4}", "reset": "yearly" });
    caller.send("PUT", "/prefix-configs/R", &[], Some(&changed)).expect(200);
    let file = write(&server, "2020R-0007\n2021R-0009\n");
    let (code, done, note) = run(&server, &["R", &file]);
    assert_eq!(code, Some(0), "{note}");
    assert_eq!(done.matches("not begun, stays").count(), 2, "{done}");
    assert!(note.contains("2 numbers in 2 counters; 0 counters moved"), "{note}");
}

#[test]
fn counters_go_on_above_the_highest_of_each_period() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("ORD", &json!({ "format": "ORD-{year}-{SEQ:4}", "reset": "yearly", "initial_seq": 5 }));
    let dated = |date: &str| json!({ "prefix_key": "ORD", "date": date });
    caller.post("/numbers", &dated("2024-05-01")).expect(200);

    let file = write(&server, "\u{FEFF}ORD-2024-0003\r\n\r\nORD-2025-0150\r\nORD-2025-0012\nORD-2023-0004\n");
    let (code, planned, note) = run(&server, &["ORD", &file, "--dry-run"]);
    assert_eq!(code, Some(0), "{note}");
    assert!(
        note.contains("4 numbers in 3 counters; 1 counters would be moved; nothing was changed"),
        "{note}"
    );
    let lines: Vec<&str> = planned.lines().collect();
    assert_eq!(
        lines,
        [
            "ORD:2023\t1 numbers, highest 4\tcounter not begun, stays",
            "ORD:2024\t1 numbers, highest 3\tcounter 6, stays",
            "ORD:2025\t2 numbers, highest 150\tcounter not begun -> 150",
        ]
    );
    let mut next = |date: &str| caller.post("/numbers", &dated(date)).expect(200).json()["number"].clone();
    assert_eq!(next("2024-05-01"), "ORD-2024-0007", "a dry run changes nothing");

    for _ in 0..2 {
        let (code, done, note) = run(&server, &["ORD", &file]);
        assert_eq!(code, Some(0), "{note}");
        assert!(done.contains("ORD:2025\t2 numbers, highest 150\tcounter "), "{done}");
    }
    assert_eq!(next("2025-05-01"), "ORD-2025-0151");
    assert_eq!(next("2023-05-01"), "ORD-2023-0006");
    let trail = server.caller().get("/audit?prefixKey=ORD").expect(200).json();
    let moved: Vec<_> = trail["rows"].as_array().expect("rows").iter().map(|row| &row["action"]).collect();
    assert_eq!(moved, ["registered", "advanced"], "{trail}");
}

#[test]
fn nothing_is_changed_when_a_period_cannot_be() {
    let server = TestServer::start();
    server.caller().register("OLD", &json!({ "format": "OLD-{year}-{SEQ:4}", "reset": "yearly" }));
    for year in [1998, 2100] {
        let file = write(&server, &format!("OLD-2026-0600\nOLD-{year}-0300\n"));
        for arguments in [&["OLD", file.as_str()][..], &["OLD", &file, "--dry-run"]] {
            let (code, out, note) = run(&server, arguments);
            assert_eq!((code, out.as_str()), (Some(1), ""), "{note}");
            let said =
                format!("numbers.txt, line 2, column 5: its period {year} does not lie in 2000 to 2099");
            assert!(note.contains(&said), "{note}");
        }
    }
    assert_eq!(server.caller().get("/sequences/OLD").expect(200).json()["counters"], json!([]));
}

#[test]
fn nothing_is_changed_when_anything_does_not_fit() {
    let server = TestServer::start();
    server.caller().register("A", &json!({ "format": "A{year}-{SEQ:4}", "reset": "yearly" }));
    let file = write(&server, "A2026-0007\nA2026-00008\nB2026-0009\n\nA2026-0007\nA2026-0001\n");
    let (code, out, note) = run(&server, &["A", &file]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{note}");
    for said in [
        "numbers.txt, line 2, column 11: ",
        "numbers.txt, line 3, column 1: expected \"A\"",
        "numbers.txt, line 5: the same number as on line 1",
        "2 numbers do not fit the format, 1 are there twice: nothing was changed",
    ] {
        assert!(note.contains(said), "{said} in {note}");
    }
    let counters = || server.caller().get("/sequences/A").expect(200).json()["counters"].clone();
    assert_eq!(counters(), json!([]));

    // Duplicates are never passed over.
    assert_eq!(run(&server, &["A", &file, "--skip-misfits"]).0, Some(1));
    let file = write(&server, "A2026-0007\nB2026-0009\n");
    assert_eq!(run(&server, &["A", &file]).0, Some(1));
    assert_eq!(counters(), json!([]));
    let (code, out, note) = run(&server, &["A", &file, "--skip-misfits"]);
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "A:2026\t1 numbers, highest 7\tcounter not begun -> 7\n"),
        "{note}"
    );

    for (arguments, code) in [
        (&["NOBODY", file.as_str()][..], Some(1)),
        (&["A", "/nowhere/at/all"], Some(2)),
        (&["a b", file.as_str()], Some(2)),
        (&["A"], Some(2)),
    ] {
        assert_eq!(run(&server, arguments).0, code, "{arguments:?}");
    }
}

#[test]
fn standard_input_will_do_and_who_issued_is_read_too() {
    let server = TestServer::start();
    server.caller().register("W", &json!({ "format": "W{datacenter}{worker}-{SEQ:4}" }));
    let url = format!("http://{}", server.listen);
    let mut command = server.site().command(&["import", "W", "-", "--url", &url]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the binary runs");
    // More than a pipe holds.
    let numbers: String = (1..=30_000).map(|value| format!("W0103-{value:04}\n")).collect();
    child.stdin.take().expect("a pipe").write_all(numbers.as_bytes()).expect("read");
    let (code, out, note) = said(child.wait_with_output().expect("an end"));
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "W\t30000 numbers, highest 30000\tcounter not begun -> 30000\n"),
        "{note}"
    );
}

#[test]
fn a_strict_counter_in_use_is_moved_only_on_demand() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("S", &json!({ "format": "S-{SEQ:4}", "mode": "strict" }));
    // One that is not in use begins above the older numbers: its ledger has none of them.
    let file = write(&server, "S-0002\nS-0010\n");
    assert_eq!(run(&server, &["S", &file]).0, Some(0));
    assert_eq!(caller.number("S"), "S-0011");
    let file = write(&server, "S-0014\n");
    let (code, _, note) = run(&server, &["S", &file]);
    assert_eq!(code, Some(1));
    assert!(note.contains("would void 3 integers") && note.contains("--void-passed"), "{note}");
    assert_eq!(caller.number("S"), "S-0012");
    let (code, out, note) = run(&server, &["S", &file, "--void-passed"]);
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "S\t1 numbers, highest 14\tcounter 12 -> 14, 2 void\n"),
        "{note}"
    );
    assert_eq!(caller.number("S"), "S-0015");
    let certificate = caller.get("/ledger/S/certificate").expect(200).json();
    assert_eq!(
        (&certificate["first"], &certificate["count"], &certificate["states"]["void"]),
        (&json!("11"), &json!(5), &json!(2))
    );
}

#[test]
fn snowflakes_of_the_past_need_nothing_and_others_are_refused() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("F", &json!({ "format": "F-{SEQ:19}" }));
    let now = caller.number("F");
    // A day earlier and later: the time stands above 22 bits.
    let id: u64 = now["F-".len()..].parse().expect("an ID");
    let day = 86_400_000_u64 << 22;
    let file = write(&server, &format!("F-{:019}\nF-{:019}\n", id - day, id - 2 * day));
    let (code, _, note) = run(&server, &["F", &file]);
    assert_eq!(code, Some(0), "{note}");
    assert!(note.contains("2 snowflakes") && note.contains("nothing to move"), "{note}");
    for (value, said) in
        [(id, "would issue it again"), (id + day, "would issue it again"), (u64::MAX, "no snowflake ID")]
    {
        let file = write(&server, &format!("F-{value:019}\n"));
        let (code, _, note) = run(&server, &["F", &file]);
        assert_eq!(code, Some(1), "{note}");
        assert!(note.contains(said), "{said} in {note}");
    }
}
