//! What callers are told of requests that are wrong, and of previews of rules that are nearly used up.

use serde_json::{Value, json};

use crate::harness::TestServer;

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
