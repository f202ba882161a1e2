//! What callers are told of requests that are wrong, and of previews of rules that are nearly used up.

use serde_json::{Value, json};

use crate::harness::{Connection, Response, TestServer};

/// The fields at fault.
fn fields(answer: &Response) -> Vec<String> {
    let document = answer.expect_problem(400, "Validation");
    let errors = document["errors"].as_array().unwrap_or_else(|| panic!("no errors: {document}"));
    assert!(errors.iter().all(|error| error["message"].as_str().is_some_and(|message| !message.is_empty())));
    errors.iter().map(|error| error["field"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn every_validation_problem_names_its_field() {
    let server = TestServer::start();
    let mut caller = server.caller();
    for target in [
        "/numbers/a%20b",
        "/prefix-configs/a%20b",
        "/sequences/..",
        "/ledger/decode",
        "/ledger/a%20b/certificate",
    ] {
        assert_eq!(fields(&caller.get(target)), ["prefix_key"], "{target}");
    }
    let body = json!({ "format": "A{SEQ:4}" });
    for method in ["PUT", "POST"] {
        let answer = caller.send(method, "/prefix-configs/a%20b", &[], Some(&body));
        assert_eq!(fields(&answer), ["prefix_key"], "{method}");
    }
    assert_eq!(fields(&caller.post("/numbers/a%20b/x/confirm", &json!({}))), ["prefix_key"]);
    for body in ["", "[]", "7", "{\"format\":"] {
        let headers = [("Authorization", caller.authorization()), ("Content-Type", "application/json")];
        let mut connection = Connection::open(server.listen).expect("a connection");
        let answer = connection.send("PUT", "/prefix-configs/A", &headers, Some(body)).expect("an answer");
        assert_eq!(fields(&answer), ["body"], "{body:?}");
    }
}

#[test]
fn a_temporary_number_stops_fitting_somewhere() {
    let server = TestServer::start();
    let mut caller = server.caller();
    for (key, format, position) in [("ORD", "ORD-{SEQ:4}", 1), ("TMP", "{prefix}:{SEQ:4}", 4)] {
        caller.register(key, &json!({ "format": format }));
        let answer =
            caller.get(&format!("/numbers/decode?prefixKey={key}&number=TMP~{key}~n~0388D8BVC0003028T5"));
        let problem = answer.expect_problem(400, "NotDecodable");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains("temporary") && detail.contains(&format!("position {position}")), "{detail}");
    }
}

#[test]
fn a_preview_shows_what_there_is() {
    let server = TestServer::start();
    let mut caller = server.caller();
    let last = json!({ "format": "PV{SEQ:4}", "initial_seq": "18446744073709551614" });
    for (body, numbers) in [
        (json!({ "format": "PV{SEQ:4}", "max_seq": 2 }), &["PV0001", "PV0002"][..]),
        (json!({ "format": "PV{SEQ:1}", "overflow": "reject", "initial_seq": 7 }), &["PV8", "PV9"]),
        (last, &["PV18446744073709551615"]),
        (json!({ "format": "PV{SEQ:4}" }), &["PV0001", "PV0002", "PV0003"]),
    ] {
        assert_eq!(caller.post("/formats/preview", &body).expect(200).numbers(), numbers, "{body}");
    }
    // Who asks for three is told that there are not so many; of a prefix that nobody named is no word.
    let mut asked = json!({ "format": "PV{SEQ:4}", "max_seq": 2, "count": 3 });
    for key in [None, Some("MINE")] {
        if let Some(key) = key {
            asked["prefix_key"] = Value::from(key);
        }
        let answer = caller.post("/formats/preview", &asked);
        let problem = answer.expect_problem(409, "SequenceOverflow");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(!detail.contains("PREVIEW"), "{detail}");
        assert_eq!(detail.contains("MINE"), key.is_some(), "{detail}");
    }
}

#[test]
fn dates_that_would_look_like_others_are_refused() {
    let server = TestServer::start();
    let mut caller = server.caller();
    let format = json!({ "format": "{fy:2}-{SEQ:4}", "reset": "fiscal", "fiscal_year_start": "04-01" });
    caller.register("FY", &format);
    let dated = |date: &str| json!({ "prefix_key": "FY", "date": date });
    for late in ["1999-12-31", "2000-03-31", "2100-01-01"] {
        assert_eq!(fields(&caller.post("/numbers", &dated(late))), ["date"], "{late}");
    }
    assert_eq!(caller.post("/numbers", &dated("2000-04-01")).expect(200).numbers(), ["00-0001"]);
    assert_eq!(caller.post("/numbers", &dated("2099-12-31")).expect(200).numbers(), ["99-0001"]);
    let advance = |period: &str| json!({ "to": "7", "period": period });
    for period in ["FY1999", "FY2100", "2026"] {
        assert_eq!(fields(&caller.post("/sequences/FY/advance", &advance(period))), ["period"], "{period}");
    }
    caller.post("/sequences/FY/advance", &advance("FY2000")).expect(200);
    caller.register(
        "FULL",
        &json!({ "format": "{fy}-{SEQ:4}", "reset": "fiscal", "fiscal_year_start": "04-01" }),
    );
    caller.post("/sequences/FULL/advance", &advance("FY1999")).expect(200);
    let last = json!({ "prefix_key": "FULL", "date": "2000-03-31" });
    assert_eq!(caller.post("/numbers", &last).expect(200).numbers(), ["1999-0008"]);
}

#[test]
fn no_action_takes_a_query() {
    let server = TestServer::start();
    let mut caller = server.caller();
    caller.register("Q", &json!({ "format": "{year}-{SEQ:4}", "reset": "yearly", "mode": "strict" }));
    let number = caller.post("/numbers", &json!({ "prefix_key": "Q", "reserve_seconds": 60 })).expect(200);
    let number = number.numbers().remove(0);
    for (target, body) in [
        ("/sequences/Q/advance", json!({ "to": 50 })),
        ("/sequences/Q/abandon", json!({ "node": "n", "reason": "gone" })),
        (&format!("/numbers/Q/{number}/confirm"), json!({})),
        (&format!("/numbers/Q/{number}/void"), json!({ "reason": "wrong" })),
        ("/temporary-numbers/TMP~Q~n~0388D8BVC0003028T5/resolve", json!({ "action": "assign" })),
    ] {
        let answer = caller.post(&format!("{target}?period=2020"), &body);
        assert_eq!(fields(&answer), ["period"], "{target}");
        assert!(answer.text().contains("none are known here"), "{}", answer.text());
    }
    assert_eq!(caller.get("/sequences/Q").expect(200).json()["counters"][0]["last_value"], "1");
}

#[test]
fn a_missing_tag_is_said_first() {
    let server = TestServer::start();
    let mut caller = server.caller();
    for (path, field) in [("/prefix-configs/INVALID", "foo"), ("/formats/preview", "bar")] {
        for format in ["INVALID", "\0INVALID"] {
            let body = json!({ "format": format, field: 1, "initial_seq": -1 });
            let problem = caller.post(path, &body).expect_problem(400, "InvalidFormat");
            assert_eq!(problem["title"], "Missing {SEQ} tag", "{body}");
        }
        let problem =
            caller.post(path, &json!({ "format": "X{SEQ:4}\0" })).expect_problem(400, "InvalidFormat");
        assert!(problem["detail"].as_str().expect("a text").contains("position 9"), "{problem}");
        assert_eq!(fields(&caller.post(path, &json!({ "format": "X{SEQ:4}", field: 1 }))), [field]);
    }
}

#[test]
fn a_preview_is_of_a_day_that_numbers_can_bear() {
    let server = TestServer::start();
    let mut caller = server.caller();
    let mut at = |zone: &str, at: &str| {
        let body = json!({ "format": "{year}X{SEQ:4}", "timezone": zone, "at": at, "count": 1 });
        caller.post("/formats/preview", &body)
    };
    for (zone, wrong) in [
        ("Asia/Tokyo", "2099-12-31T23:00:00Z"),
        ("America/New_York", "2000-01-01T00:00:00Z"),
        ("UTC", "2026-2-3"),
        ("UTC", " 2026-02-03"),
    ] {
        assert_eq!(fields(&at(zone, wrong)), ["at"], "{zone} {wrong}");
    }
    assert_eq!(at("Asia/Tokyo", "1999-12-31T16:00:00Z").expect(200).numbers(), ["2000X0001"]);
    let fiscal = json!({ "format": "{fy:2}-{SEQ:4}", "fiscal_year_start": "04-01", "mode": "continuous", "at": "2000-03-31" });
    assert_eq!(fields(&caller.post("/formats/preview", &fiscal)), ["at"]);
}
