//! The layer as a connection uses it: one service, many requests.

use std::{
    convert::Infallible,
    io,
    net::Ipv4Addr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use serde_json::json;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use super::*;
use crate::{
    auth::{
        FetchError, Grant, KeySource, LEEWAY, MAX_TOKEN_BYTES, Rejection, Scopes, Settings, Verifier,
        forge::Forge, mint,
    },
    clock::{ManualClock, UnixMillis},
    lifecycle::Lifecycle,
    middleware::context::{Context, tests::context},
    secret::Secret,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const TTL: Duration = Duration::from_secs(600);

struct Bench {
    clock: Arc<ManualClock>,
    verifier: Arc<Verifier>,
}

impl Bench {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(UnixMillis(1_800_000_000_000)));
        let settings = Settings { secret: Some(Secret::new(SECRET.to_owned())), ..Settings::default() };
        let verifier = Verifier::start(&settings, Arc::clone(&clock) as _, &Lifecycle::new()).unwrap();
        Self { clock, verifier }
    }

    fn token(&self, subject: &str) -> String {
        let scopes = Scopes::from_claim("numbers:issue");
        let grant = Grant { subject, scopes, ttl: TTL, prefixes: None, issuer: None, audience: None };
        let token = mint(&Secret::new(SECRET.to_owned()), &grant, &*self.clock).unwrap();
        token.reveal().clone()
    }

    fn layer(&self) -> AuthenticateLayer {
        AuthenticateLayer::new(Arc::clone(&self.verifier))
    }
}

fn request(path: &str, fields: &[&str]) -> Request<()> {
    let mut request = Request::builder().uri(path).body(()).unwrap();
    for field in fields {
        request.headers_mut().append(AUTHORIZATION, HeaderValue::from_str(field).unwrap());
    }
    let context = context(Ipv4Addr::LOCALHOST.into(), request.uri().path());
    request.extensions_mut().insert(context);
    request
}

/// Answers with the subject, and fails the test if the field came through.
async fn who(request: Request<()>) -> Result<Response<String>, Infallible> {
    assert!(!request.headers().contains_key(AUTHORIZATION), "the field must not come through");
    let claims = Context::of(&request).and_then(|context| context.caller.as_ref());
    Ok(Response::new(claims.map_or("nobody".to_owned(), |claims| claims.subject.to_string())))
}

fn outcome(result: Result<Response<String>, BoxError>) -> Result<String, Rejection> {
    match result {
        Ok(response) => Ok(response.into_body()),
        Err(error) => Err(error.downcast_ref::<Unauthenticated>().expect("a typed refusal").0),
    }
}

#[tokio::test]
async fn the_field_in_all_its_forms() {
    let bench = Bench::new();
    let token = bench.token("erp");
    let ok = || Ok("erp".to_owned());
    let long = format!("Bearer {}", "x".repeat(MAX_TOKEN_BYTES + 1));
    for (fields, expected) in [
        (vec![format!("Bearer {token}")], ok()),
        (vec![format!("bearer {token}")], ok()),
        (vec![format!("BEARER   {token}")], ok()),
        (vec![], Err(Rejection::Missing)),
        (vec![String::new()], Err(Rejection::Scheme)),
        (vec!["Bearer".to_owned()], Err(Rejection::Malformed)),
        (vec!["Bearer ".to_owned()], Err(Rejection::Malformed)),
        (vec![format!("Bearer\t{token}")], Err(Rejection::Scheme)),
        (vec![format!("Bearer {token} ")], Err(Rejection::Malformed)),
        (vec![format!("Bearer {token}, Bearer {token}")], Err(Rejection::Malformed)),
        (vec![format!("Bearer{token}")], Err(Rejection::Scheme)),
        (vec![token.clone()], Err(Rejection::Scheme)),
        (vec!["Basic dXNlcjpwYXNz".to_owned()], Err(Rejection::Scheme)),
        (vec![format!("Bearer {token}"), format!("Bearer {token}")], Err(Rejection::Repeated)),
        (vec![format!("Bearer {token}"), String::new()], Err(Rejection::Repeated)),
        (vec![long], Err(Rejection::Oversize)),
    ] {
        let fields: Vec<_> = fields.iter().map(String::as_str).collect();
        let service = bench.layer().layer(service_fn(who));
        let answer = outcome(service.oneshot(request("/numbers", &fields)).await);
        assert_eq!(answer, expected, "{fields:.40?}");
    }
}

#[tokio::test]
async fn open_paths_need_no_token_and_show_none() {
    let bench = Bench::new();
    for fields in [vec![], vec!["Basic junk"], vec!["Bearer junk", "Bearer junk"]] {
        let service = bench.layer().layer(service_fn(who));
        let answer = outcome(service.oneshot(request("/open?token=x", &fields)).await);
        assert_eq!(answer, Ok("nobody".to_owned()));
    }
}

#[tokio::test]
async fn a_connection_may_change_its_token_and_outlive_one() {
    let bench = Bench::new();
    let (erp, shop) = (format!("Bearer {}", bench.token("erp")), format!("Bearer {}", bench.token("shop")));
    let mut connection = bench.layer().layer(service_fn(who));
    for (field, expected) in [(&erp, "erp"), (&erp, "erp"), (&shop, "shop"), (&erp, "erp")] {
        let answer = connection.ready().await.unwrap().call(request("/numbers", &[field])).await;
        assert_eq!(outcome(answer), Ok(expected.to_owned()));
    }
    let changed = format!("{}x", &erp[..erp.len() - 1]);
    assert!(outcome(connection.call(request("/numbers", &[&changed])).await).is_err());

    bench.clock.advance(TTL + LEEWAY);
    let answer = connection.call(request("/numbers", &[&erp])).await;
    assert_eq!(outcome(answer), Err(Rejection::Expired), "the memo ends with the token");
}

/// A source that has no key at first.
struct Late(Mutex<Vec<String>>);

impl KeySource for Late {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + '_>> {
        let document = self.0.lock().unwrap().pop().map(Bytes::from).ok_or_else(|| "away".into());
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            document
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_with_a_new_key_waits_and_the_memo_ends_with_its_key() {
    let (old, new) = (Forge::es256(), Forge::es256());
    let set = |forge: &Forge, kid| json!({"keys": [forge.public_jwk(Some(kid))]}).to_string();
    let source = Late(Mutex::new(vec![set(&new, "new"), set(&old, "old")]));
    let bench = Bench::new();
    let (clock, lifecycle) = (Arc::clone(&bench.clock), Lifecycle::new());
    let verifier =
        Verifier::with_source(&Settings::default(), Some(Arc::new(source)), clock, &lifecycle).unwrap();
    let field = |forge: &Forge, kid| {
        let payload = json!({"sub": "erp", "exp": 1_800_000_600});
        format!("Bearer {}", forge.token(Some(kid), &payload))
    };
    let (old_field, new_field) = (field(&old, "old"), field(&new, "new"));
    let mut connection = AuthenticateLayer::new(verifier).layer(service_fn(who));
    for (field, expected) in [
        (&old_field, Ok("erp".to_owned())),
        (&old_field, Ok("erp".to_owned())),
        (&new_field, Ok("erp".to_owned())),
        (&old_field, Err(Rejection::UnknownKey)),
    ] {
        let answer = connection.ready().await.unwrap().call(request("/numbers", &[field])).await;
        assert_eq!(outcome(answer), expected);
    }
}

/// What was logged, for a test to read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_refusal_is_logged_once_without_token_and_query() {
    let bench = Bench::new();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let field = format!("Bearer {}canary", bench.token("canary"));
    let service = bench.layer().layer(service_fn(who));
    let answer = service.oneshot(request("/numbers/ORDERS?canary=1", &[&field])).await;
    drop(guard);
    let error = answer.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"));

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    let event: serde_json::Value = serde_json::from_str(&log).unwrap();
    let fields = &event["fields"];
    assert_eq!(fields["address"], "127.0.0.1");
    assert_eq!(fields["route"], "/numbers/ORDERS");
    assert_eq!(fields["status"], 401);
    assert!(["malformed", "bad_signature"].contains(&fields["reason"].as_str().unwrap()), "{log}");
    assert!(!log.contains("canary") && !log.contains("eyJ"), "{log}");
}
