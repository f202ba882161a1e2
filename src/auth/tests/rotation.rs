//! Keys from a JWKS: the first set, rotation, outages, floods of unknown names.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    super::{forge::Forge, *},
    SECRET, clock, payload, with_secret,
};
use crate::lifecycle::Lifecycle;

/// Answers fetches from a list, the last answer again and again; `None` fails.
#[derive(Default)]
struct Shelf {
    answers: Mutex<VecDeque<Option<String>>>,
    fetches: Mutex<u32>,
    delay: Duration,
}

impl Shelf {
    fn with(answers: impl IntoIterator<Item = Option<Value>>, delay: Duration) -> Arc<Self> {
        let answers = answers.into_iter().map(|answer| answer.map(|it| it.to_string())).collect();
        Arc::new(Self { answers: Mutex::new(answers), fetches: Mutex::new(0), delay })
    }

    fn fetches(&self) -> u32 {
        *self.fetches.lock().unwrap()
    }
}

impl KeySource for Shelf {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + '_>> {
        Box::pin(async {
            *self.fetches.lock().unwrap() += 1;
            tokio::time::sleep(self.delay).await;
            let mut answers = self.answers.lock().unwrap();
            let answer = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
            answer.map(Bytes::from).ok_or_else(|| "away".into())
        })
    }
}

fn set(keys: &[Value]) -> Option<Value> {
    Some(json!({"keys": keys}))
}

fn fetching(settings: &Settings, shelf: &Arc<Shelf>) -> (Arc<Verifier>, Lifecycle) {
    let lifecycle = Lifecycle::new();
    let source = Some(Arc::clone(shelf) as Arc<dyn KeySource>);
    (Verifier::with_source(settings, source, clock(), &lifecycle).unwrap(), lifecycle)
}

/// As a request does it.
async fn judge(verifier: &Arc<Verifier>, token: &str) -> Result<Arc<Claims>, Rejection> {
    let rejection = match verifier.verify(token) {
        Ok(claims) => return Ok(claims),
        Err(rejection) => rejection,
    };
    match verifier.reconsider(rejection, token) {
        Some(second) => second.await,
        None => Err(rejection),
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_the_first_set() {
    let forge = Forge::es256();
    let shelf = Shelf::with([set(&[forge.public_jwk(Some("a"))])], Duration::from_millis(300));
    let (verifier, lifecycle) = fetching(&Settings::default(), &shelf);
    let token = forge.token(Some("a"), &payload());
    assert_eq!(verifier.verify(&token), Err(Rejection::KeysUnavailable));
    assert!(judge(&verifier, &token).await.is_ok());
    let status = verifier.jwks_status().unwrap();
    assert_eq!((status.keys, status.failure, status.fetched_at.is_some()), (1, None, true));
    lifecycle.drain();
    assert_eq!(lifecycle.finished(Duration::from_secs(1)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn rotation_lets_the_new_key_in_at_once_and_the_old_one_out() {
    let (old, new) = (Forge::es256(), Forge::ed25519());
    let shelf = Shelf::with(
        [set(&[old.public_jwk(Some("old"))]), set(&[new.public_jwk(Some("new"))])],
        Duration::from_millis(50),
    );
    let (verifier, _lifecycle) = fetching(&Settings::default(), &shelf);
    let (old_token, new_token) = (old.token(Some("old"), &payload()), new.token(Some("new"), &payload()));
    assert!(judge(&verifier, &old_token).await.is_ok());
    let epoch = verifier.epoch();
    assert!(judge(&verifier, &new_token).await.is_ok(), "the request waited for the fetch that it asked for");
    assert!(verifier.epoch() > epoch);
    assert_eq!(
        verifier.verify(&old_token),
        Err(Rejection::UnknownKey),
        "remembered under keys that are gone"
    );
    assert_eq!(shelf.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn unknown_names_cost_one_fetch_in_ten_seconds() {
    let forge = Forge::es256();
    let shelf = Shelf::with([set(&[forge.public_jwk(Some("a"))])], Duration::from_millis(50));
    let (verifier, _lifecycle) = fetching(&Settings::default(), &shelf);
    assert!(judge(&verifier, &forge.token(Some("a"), &payload())).await.is_ok());
    for round in 1..=3 {
        let tokens: Vec<_> =
            (0..20).map(|index| forge.token(Some(&format!("x{index}")), &payload())).collect();
        let judged = futures_util::future::join_all(tokens.iter().map(|token| judge(&verifier, token))).await;
        assert!(judged.iter().all(|outcome| *outcome == Err(Rejection::UnknownKey)));
        assert!(verifier.reconsider(Rejection::UnknownKey, &tokens[0]).is_none(), "not again so soon");
        assert_eq!(shelf.fetches(), 1 + round);
        tokio::time::sleep(UNKNOWN_KEY_SPACING).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_good_set_stays_and_the_start_is_retried() {
    let (first, second) = (Forge::es256(), Forge::es256());
    let shelf = Shelf::with(
        [
            None,
            None,
            set(&[first.public_jwk(Some("a"))]),
            set(&[]),
            None,
            set(&[first.public_jwk(Some("a")), second.public_jwk(Some("b"))]),
        ],
        Duration::ZERO,
    );
    let (verifier, _lifecycle) = fetching(&with_secret(), &shelf);
    let token = first.token(Some("a"), &payload());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let status = verifier.jwks_status().unwrap();
    assert_eq!((status.failure.as_deref(), status.fetched_at), (Some("away"), None));
    assert!(verifier.verify(&Forge::hs256(SECRET.as_bytes()).token(None, &payload())).is_ok());

    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(verifier.verify(&token).is_ok(), "after two retries");
    tokio::time::sleep(REFRESH_EVERY - Duration::from_secs(5)).await;
    while shelf.fetches() < 4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    let failure = verifier.jwks_status().unwrap().failure.expect("an empty set is no good set");
    assert!(failure.contains("none of its 0 keys"), "{failure}");
    assert!(verifier.verify(&token).is_ok(), "the last good set stays");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(verifier.jwks_status().unwrap().keys, 2);
    assert!(verifier.verify(&second.token(Some("b"), &payload())).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_delays_a_request_only_so_long() {
    let forge = Forge::es256();
    let shelf = Shelf::with([None], Duration::from_secs(3600));
    let (verifier, _lifecycle) = fetching(&Settings::default(), &shelf);
    let begun = tokio::time::Instant::now();
    assert_eq!(judge(&verifier, &forge.token(None, &payload())).await, Err(Rejection::KeysUnavailable));
    assert_eq!(begun.elapsed(), UNKNOWN_KEY_PATIENCE);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(verifier.jwks_status().unwrap().failure.as_deref(), Some("no answer in time"));
}

#[tokio::test(start_paused = true)]
async fn a_token_without_a_name_needs_exactly_one_key_of_its_algorithm() {
    let (one, two, other) = (Forge::es256(), Forge::es256(), Forge::ed25519());
    let keys = [one.public_jwk(Some("1")), two.public_jwk(Some("2")), other.public_jwk(None)];
    let shelf = Shelf::with([set(&keys)], Duration::ZERO);
    let (verifier, _lifecycle) = fetching(&with_secret(), &shelf);
    assert!(judge(&verifier, &other.token(None, &payload())).await.is_ok());
    assert!(
        verifier.verify(&other.token(Some("any"), &payload())).is_ok(),
        "the only nameless key of its kind"
    );
    assert!(verifier.verify(&two.token(Some("2"), &payload())).is_ok());
    assert_eq!(verifier.verify(&one.token(None, &payload())), Err(Rejection::UnknownKey));
    assert_eq!(verifier.verify(&one.token(Some("2"), &payload())), Err(Rejection::BadSignature));
    assert!(verifier.verify(&Forge::hs256(SECRET.as_bytes()).token(Some("1"), &payload())).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_pem_key_beside_a_jwks_does_not_hide_a_rotation() {
    let (configured, old, new) = (Forge::es256(), Forge::es256(), Forge::es256());
    let settings = Settings { public_key_pem: Some(configured.public_pem()), ..Settings::default() };
    let answers = [set(&[old.public_jwk(Some("old"))]), set(&[new.public_jwk(Some("new"))])];
    let shelf = Shelf::with(answers, Duration::ZERO);
    let (verifier, _lifecycle) = fetching(&settings, &shelf);
    assert!(judge(&verifier, &old.token(Some("old"), &payload())).await.is_ok());
    assert!(judge(&verifier, &configured.token(Some("unlisted"), &payload())).await.is_ok());
    assert!(judge(&verifier, &new.token(Some("new"), &payload())).await.is_ok());
}
