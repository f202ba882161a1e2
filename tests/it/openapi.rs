//! The OpenAPI document is kept true: its routes are the routes, its codes the codes, its bodies what is really answered.

use std::collections::BTreeSet;

use numgen::problem::Code;
use serde_json::{Value, json};

use crate::harness::{Caller, TestServer};

/// The table of `api.md`: what other programs rely on.
const CONTRACT: [(&str, &[&str]); 18] = [
    ("/prefix-configs", &["get", "post"]),
    ("/prefix-configs/{prefixKey}", &["delete", "get", "post", "put"]),
    ("/formats/preview", &["post"]),
    ("/numbers", &["get", "post"]),
    ("/numbers/{prefixKey}", &["get"]),
    ("/numbers/decode", &["get"]),
    ("/sequences/{prefixKey}", &["get"]),
    ("/sequences/{prefixKey}/advance", &["post"]),
    ("/sequences/{prefixKey}/abandon", &["post"]),
    ("/numbers/{prefixKey}/{number}/confirm", &["post"]),
    ("/numbers/{prefixKey}/{number}/void", &["post"]),
    ("/ledger/{prefixKey}", &["get"]),
    ("/ledger/{prefixKey}/certificate", &["get"]),
    ("/audit", &["get"]),
    ("/temporary-numbers", &["get"]),
    ("/temporary-numbers/{number}/resolve", &["post"]),
    ("/openapi.json", &["get"]),
    ("/docs", &["get"]),
];

fn methods(item: &Value) -> BTreeSet<String> {
    let known = ["get", "put", "post", "delete", "patch"];
    known.iter().filter(|method| item.get(**method).is_some()).map(ToString::to_string).collect()
}

fn document(caller: &mut Caller) -> Value {
    caller.get("/openapi.json").expect(200).json()
}

#[test]
fn the_document_has_the_routes_of_the_contract_and_no_other() {
    let server = TestServer::start();
    let api = document(&mut server.stranger());
    let documented: BTreeSet<(String, BTreeSet<String>)> = api["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .map(|(path, item)| (path.clone(), methods(item)))
        .collect();
    let contract = CONTRACT
        .iter()
        .map(|(path, methods)| ((*path).to_owned(), methods.iter().map(ToString::to_string).collect()))
        .collect();
    assert_eq!(documented, contract);
}

#[test]
fn the_server_has_the_methods_of_the_document_and_no_other() {
    let server = TestServer::start();
    let mut caller = server.caller();
    for (path, item) in document(&mut caller)["paths"].as_object().expect("paths") {
        let target = path.replace("{prefixKey}", "KEY").replace("{number}", "N-1");
        for prefix in ["", "/api"] {
            let options = caller.send("OPTIONS", &format!("{prefix}{target}"), &[], None).expect(204);
            let allowed: BTreeSet<String> = options
                .header("allow")
                .unwrap_or_default()
                .split(',')
                .map(|method| method.trim().to_ascii_lowercase())
                .filter(|method| !matches!(method.as_str(), "head" | "options"))
                .collect();
            assert_eq!(allowed, methods(item), "{prefix}{path}");
        }
        // And each of them is served: it may refuse, but it knows the route and the method.
        for method in methods(item) {
            let answer = caller.send(&method.to_ascii_uppercase(), &target, &[], None);
            assert_ne!(answer.status, 405, "{method} {path}");
            assert_ne!(answer.status, 500, "{method} {path}: {}", answer.text());
            assert_ne!(answer.status, 501, "{method} {path}");
        }
        // Without a token: only what says so.
        let open = item["get"]["security"] == json!([]);
        for method in methods(item) {
            let answer = server.stranger().send(&method.to_ascii_uppercase(), &target, &[], None);
            assert_eq!(answer.status == 401, !open, "{method} {path}: {}", answer.status);
        }
    }
}

#[test]
fn every_error_code_is_enumerated() {
    let server = TestServer::start();
    let api = document(&mut server.stranger());
    let documented: BTreeSet<&str> = api["components"]["schemas"]["ErrorCode"]["enum"]
        .as_array()
        .expect("codes")
        .iter()
        .map(|code| code.as_str().expect("a text"))
        .collect();
    assert_eq!(documented, Code::ALL.iter().map(|code| code.as_str()).collect());
}

#[test]
fn real_answers_have_the_documented_bodies() {
    let server = TestServer::start();
    let mut caller = server.caller();
    let api = document(&mut caller);
    let mut checked = Checked { api: &api, caller: &mut caller, operations: BTreeSet::new() };

    // The examples of the document are good requests.
    for path in ["/prefix-configs", "/formats/preview", "/numbers", "/sequences/ORDERS/advance"] {
        let documented = path.replace("ORDERS", "{prefixKey}");
        let example =
            &api["paths"][&documented]["post"]["requestBody"]["content"]["application/json"]["example"];
        assert!(example.is_object(), "{path}");
        checked.call("POST", &documented, path, Some(example), 200);
    }
    let rule = |format: &str| json!({ "format": format });
    let strict = json!({ "format": "S-{SEQ:4}", "mode": "strict" });
    let key = "/prefix-configs/{prefixKey}";
    checked.call("POST", key, "/prefix-configs/STRICT", Some(&strict), 200);
    checked.call("POST", key, "/prefix-configs/STRICT", Some(&strict), 409);
    checked.call("PUT", key, "/prefix-configs/FLAKE", Some(&rule("F-{SEQ:19}")), 200);
    checked.call("PUT", key, "/prefix-configs/TWIN", Some(&rule("S-{SEQ:5}")), 200); // collides: a warning
    checked.call(
        "POST",
        key,
        "/prefix-configs/BAD",
        Some(&json!({ "format": "{SEQ:4}", "seq_length": -5 })),
        400,
    );
    checked.call("GET", key, "/prefix-configs/FLAKE", None, 200);
    checked.call("GET", key, "/prefix-configs/NOBODY", None, 404);
    checked.call("GET", "/prefix-configs", "/prefix-configs?limit=2", None, 200);
    checked.call("POST", "/formats/preview", "/formats/preview", Some(&rule("NONE")), 400);
    checked.call("GET", "/numbers", "/numbers?prefixKey=ORDERS", None, 200);
    checked.call("GET", "/numbers/{prefixKey}", "/numbers/STRICT?count=2", None, 200);
    checked.call("GET", "/numbers/{prefixKey}", "/numbers/NOBODY", None, 400);
    let reserve = json!({ "prefix_key": "STRICT", "reserve_seconds": 600 });
    checked.call("POST", "/numbers", "/numbers", Some(&reserve), 200);
    let flake = checked.call("GET", "/numbers/{prefixKey}", "/numbers/FLAKE", None, 200);
    let flake = flake["number"].as_str().expect("a number").to_owned();
    let decode = "/numbers/decode";
    checked.call("GET", decode, &format!("{decode}?prefixKey=FLAKE&number={flake}"), None, 200);
    checked.call("GET", decode, &format!("{decode}?prefixKey=STRICT&number=S-0001"), None, 200);
    checked.call("GET", decode, &format!("{decode}?prefixKey=STRICT&number=X"), None, 400);
    let (confirm, void) = ("/numbers/{prefixKey}/{number}/confirm", "/numbers/{prefixKey}/{number}/void");
    let reason = json!({ "reason": "printed twice" });
    checked.call("POST", confirm, "/numbers/STRICT/S-0003/confirm", None, 200);
    checked.call("POST", void, "/numbers/STRICT/S-0002/void", Some(&reason), 200);
    checked.call("POST", confirm, "/numbers/STRICT/S-0002/confirm", None, 409);
    checked.call("GET", "/ledger/{prefixKey}", "/ledger/STRICT?limit=2", None, 200);
    checked.call("GET", "/ledger/{prefixKey}/certificate", "/ledger/STRICT/certificate", None, 200);
    checked.call("GET", "/sequences/{prefixKey}", "/sequences/ORDERS", None, 200);
    checked.call("GET", "/sequences/{prefixKey}", "/sequences/STRICT", None, 200);
    let abandon = json!({ "from": "1", "to": "2", "reason": "node lost" });
    checked.call("POST", "/sequences/{prefixKey}/abandon", "/sequences/ORDERS/abandon", Some(&abandon), 409);
    checked.call("GET", "/audit", "/audit", None, 200);
    checked.call("GET", "/audit", "/audit?prefixKey=STRICT&limit=1", None, 200);
    checked.call("GET", "/audit", "/audit?from=x", None, 400);
    checked.call("GET", "/temporary-numbers", "/temporary-numbers?status=open", None, 200);
    let resolve = json!({ "action": "void", "reason": "nobody used it" });
    checked.call(
        "POST",
        "/temporary-numbers/{number}/resolve",
        "/temporary-numbers/TMP~A~b~0/resolve",
        Some(&resolve),
        404,
    );
    checked.call("DELETE", key, "/prefix-configs/FLAKE", None, 204);

    let all: BTreeSet<String> = CONTRACT
        .iter()
        .filter(|(path, _)| !matches!(*path, "/openapi.json" | "/docs"))
        .flat_map(|(path, methods)| methods.iter().map(move |method| format!("{method} {path}")))
        .collect();
    assert_eq!(checked.operations, all, "every operation was called");
}

/// What GET answers is a body that PUT takes, and changes nothing.
#[test]
fn a_rule_that_is_read_can_be_written_back() {
    let server = TestServer::start();
    let mut caller = server.caller();
    for (key, rule) in [
        ("FLAKE", json!({ "format": "F-{SEQ:19}" })),
        ("COUNT", json!({ "format": "C-{SEQ:4}", "initial_seq": 7, "max_seq": "500", "overflow": "reject" })),
        (
            "MONTH",
            json!({ "format": "M-{year}{month}-{SEQ:4}", "reset": "monthly", "timezone": "Asia/Shanghai" }),
        ),
        (
            "BOOKS",
            json!({ "format": "B-{fy}-{SEQ}", "seq_length": 4, "mode": "strict", "reset": "fiscal", "fiscal_year_start": "04-01" }),
        ),
    ] {
        caller.register(key, &rule);
        let path = format!("/prefix-configs/{key}");
        let read = caller.get(&path).expect(200);
        let etag = read.header("etag").expect("an ETag").to_owned();
        let rule = read.json();
        let written = caller.send("PUT", &path, &[("If-Match", &etag)], Some(&rule)).expect(200);
        assert_eq!(written.json()["status"], "unchanged", "{rule}");
        assert_eq!(written.header("etag"), Some(etag.as_str()));
    }
}

/// Calls, and holds each answer against the document.
struct Checked<'a> {
    api: &'a Value,
    caller: &'a mut Caller,
    operations: BTreeSet<String>,
}

impl Checked<'_> {
    #[track_caller]
    fn call(&mut self, method: &str, path: &str, target: &str, body: Option<&Value>, status: u16) -> Value {
        let answer = self.caller.send(method, target, &[], body).expect(status);
        let method = method.to_ascii_lowercase();
        self.operations.insert(format!("{method} {path}"));
        let operation = &self.api["paths"][path][&method];
        let documented = self.follow(&operation["responses"][status.to_string()]);
        assert!(documented.is_object(), "{method} {path} does not document {status}");
        let kind =
            answer.header("content-type").map(|kind| kind.split(';').next().unwrap_or_default().to_owned());
        let Some(kind) = kind else {
            assert!(documented.get("content").is_none(), "{method} {path} {status} documents a body");
            return Value::Null;
        };
        let schema = &documented["content"][&kind]["schema"];
        assert!(schema.is_object(), "{method} {path} {status} does not document {kind}");
        let json = answer.json();
        let problems = self.problems("$", schema, &json);
        assert!(problems.is_empty(), "{method} {target} {status}: {problems:#?} in {json:#}");
        json
    }

    fn follow<'v>(&'v self, value: &'v Value) -> &'v Value {
        match value["$ref"].as_str() {
            Some(reference) => self.api.pointer(reference.trim_start_matches('#')).expect("a target of $ref"),
            None => value,
        }
    }

    /// What of `value` the schema does not describe. Stricter than JSON Schema: a field must be documented.
    fn problems(&self, at: &str, schema: &Value, value: &Value) -> Vec<String> {
        let schema = self.follow(schema);
        if let Some(choices) = schema["oneOf"].as_array() {
            let fitting = choices.iter().filter(|choice| self.problems(at, choice, value).is_empty()).count();
            return if fitting == 1 { vec![] } else { vec![format!("{at} fits {fitting} of the choices")] };
        }
        let mut found = Vec::new();
        if let Some(constant) = schema.get("const") {
            found.extend((constant != value).then(|| format!("{at} is not {constant}")));
        }
        if let Some(choices) = schema["enum"].as_array() {
            found.extend((!choices.contains(value)).then(|| format!("{at} is {value}, none of {choices:?}")));
        }
        let types: Vec<&str> = match schema["type"].as_array() {
            Some(types) => types.iter().filter_map(Value::as_str).collect(),
            None => schema["type"].as_str().into_iter().collect(),
        };
        let fits = |kind: &str| match kind {
            "null" => value.is_null(),
            "string" => value.is_string(),
            "integer" => value.is_u64() || value.is_i64(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            _ => false,
        };
        if !types.is_empty() && !types.iter().any(|kind| fits(kind)) {
            found.push(format!("{at} is {value}, not {types:?}"));
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            found.extend(self.problems(&format!("{at}[{index}]"), &schema["items"], item));
        }
        if let Some(object) = value.as_object() {
            let parts: Vec<&Value> = match schema["allOf"].as_array() {
                Some(parts) => parts.iter().map(|part| self.follow(part)).collect(),
                None => vec![schema],
            };
            for (name, field) in object {
                match parts.iter().find_map(|part| part["properties"].get(name)) {
                    Some(schema) => found.extend(self.problems(&format!("{at}.{name}"), schema, field)),
                    None => found.push(format!("{at}.{name} is not documented")),
                }
            }
            for name in parts.iter().flat_map(|part| part["required"].as_array().into_iter().flatten()) {
                if !object.contains_key(name.as_str().unwrap_or_default()) {
                    found.push(format!("{at}.{name} is missing"));
                }
            }
        }
        found
    }
}
