//! The attacks of RFC 8725 and others on the verifier as a whole; `rotation` is its life with changing keys.

mod rotation;

use std::{collections::HashSet, sync::Arc, time::Duration};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    forge::{Forge, encoded},
    *,
};
use crate::{
    clock::{Clock, ManualClock, UnixMillis},
    language::{Language, Localized},
    lifecycle::Lifecycle,
    secret::Secret,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Seconds since 1970 at which the tests' clock stands.
const NOW: i64 = 1_800_000_000;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(UnixMillis(NOW * 1_000)))
}

fn with_secret() -> Settings {
    Settings { secret: Some(Secret::new(SECRET.to_owned())), ..Settings::default() }
}

fn verifier(settings: &Settings) -> Arc<Verifier> {
    Verifier::start(settings, clock(), &Lifecycle::new()).unwrap()
}

fn payload() -> Value {
    json!({"sub": "erp", "exp": NOW + 600, "scope": "numbers:issue"})
}

/// The usual payload with one claim replaced, or taken away by `null`.
fn with(claim: &str, value: Value) -> String {
    let mut payload = payload();
    payload[claim] = value;
    payload.to_string()
}

fn without(claim: &str) -> String {
    let mut payload = payload();
    payload.as_object_mut().unwrap().remove(claim);
    payload.to_string()
}

const HEADER: &str = r#"{"typ":"JWT","alg":"HS256"}"#;

#[test]
fn each_algorithm_verifies_its_own_tokens_alone() {
    for forge in [Forge::rs256(), Forge::es256(), Forge::ed25519()] {
        let settings = Settings { public_key_pem: Some(forge.public_pem()), ..Settings::default() };
        let verifier = verifier(&settings);
        let token = forge.token(None, &payload());
        let claims = verifier.verify(&token).unwrap();
        assert_eq!((&*claims.subject, claims.require(Scope::NumbersIssue)), ("erp", Ok(())));

        let other = match forge {
            Forge::EdDsa(_) => Forge::ed25519(),
            Forge::Hs256(_) | Forge::Rs256(_) | Forge::Es256(_) => Forge::es256(),
        };
        let forged = other.sign(&format!(r#"{{"alg":"{}"}}"#, forge.alg()), &payload().to_string());
        assert_eq!(verifier.verify(&forged), Err(Rejection::BadSignature));
        assert_eq!(
            verifier.verify(&Forge::hs256(SECRET.as_bytes()).token(None, &payload())),
            Err(Rejection::Algorithm)
        );
    }
}

#[test]
fn the_public_key_is_no_hmac_secret() {
    let pem = Forge::rs256().public_pem();
    let both = Settings { public_key_pem: Some(pem.clone()), ..with_secret() };
    let alone = Settings { public_key_pem: Some(pem.clone()), ..Settings::default() };
    let confused = Forge::hs256(pem.as_bytes()).token(None, &payload());
    assert_eq!(verifier(&alone).verify(&confused), Err(Rejection::Algorithm));
    assert_eq!(verifier(&both).verify(&confused), Err(Rejection::BadSignature));
    let trimmed = Forge::hs256(pem.trim_end().as_bytes()).token(None, &payload());
    assert_eq!(verifier(&both).verify(&trimmed), Err(Rejection::BadSignature));
}

#[test]
fn headers() {
    let verifier = verifier(&with_secret());
    let forge = Forge::hs256(SECRET.as_bytes());
    for (header, expected) in [
        (HEADER, None),
        (r#"{"alg":"HS256"}"#, None),
        (r#"{"alg":"HS256","typ":"jwt"}"#, None),
        (r#"{"alg":"HS256","typ":"at+jwt"}"#, None),
        (r#"{"alg":"HS256","typ":"application/AT+JWT"}"#, None),
        (r#"{"alg":"HS256","kid":"../../../../dev/null"}"#, None),
        (r#"{"alg":"HS256","kid":"' OR 1=1 --"}"#, None),
        (r#"{"alg":"HS256","jku":"https://evil.example/k","x5u":7,"jwk":{"kty":"oct","k":"AA"}}"#, None),
        (r#"{"alg":"none"}"#, Some(Rejection::Algorithm)),
        (r#"{"alg":"None"}"#, Some(Rejection::Algorithm)),
        (r#"{"alg":"nOnE"}"#, Some(Rejection::Algorithm)),
        (r#"{"alg":""}"#, Some(Rejection::Algorithm)),
        (r#"{"alg":"hs256"}"#, Some(Rejection::Algorithm)),
        (r#"{"alg":"HS384"}"#, Some(Rejection::Algorithm)),
        (r#"{"alg":"RS256"}"#, Some(Rejection::Algorithm)),
        (r#"{"alg":"HS256","typ":"id_token"}"#, Some(Rejection::Type)),
        (r#"{"alg":"HS256","typ":"secevent+jwt"}"#, Some(Rejection::Type)),
        (r#"{"alg":"HS256","typ":""}"#, Some(Rejection::Type)),
        (r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, Some(Rejection::Critical)),
        (r#"{"alg":"HS256","crit":[]}"#, Some(Rejection::Critical)),
        (r#"{"alg":"HS256","crit":null}"#, Some(Rejection::Critical)),
        (r#"{"alg":"HS256","typ":null}"#, Some(Rejection::Malformed)),
        (r#"{"alg":"HS256","kid":7}"#, Some(Rejection::Malformed)),
        (r#"{"alg":"none","alg":"HS256"}"#, Some(Rejection::Malformed)),
        (r#"{"alg":["HS256"]}"#, Some(Rejection::Malformed)),
        (r#"["HS256"]"#, Some(Rejection::Malformed)),
        (r#"{"typ":"JWT"}"#, Some(Rejection::Malformed)),
        (r#"{"alg":"HS256"} {}"#, Some(Rejection::Malformed)),
        ("", Some(Rejection::Malformed)),
    ] {
        let outcome = verifier.verify(&forge.sign(header, &payload().to_string()));
        assert_eq!(outcome.err(), expected, "{header}");
    }
}

#[test]
fn claims() {
    let verifier = verifier(&with_secret());
    let forge = Forge::hs256(SECRET.as_bytes());
    let invalid = |claim| Some(Rejection::InvalidClaim(claim));
    for (payload, expected) in [
        (without("scope"), None),
        (with("exp", json!(NOW - 29)), None),
        (with("exp", json!(NOW - 30)), Some(Rejection::Expired)),
        (with("exp", json!(NOW as f64 + 0.5)), None),
        (with("exp", json!(u64::MAX)), None),
        (with("exp", json!(1e300)), None),
        (with("exp", json!(0)), Some(Rejection::Expired)),
        (with("exp", json!(i64::MIN)), Some(Rejection::Expired)),
        (with("exp", json!((NOW + 600).to_string())), invalid("exp")),
        (with("exp", json!(null)), invalid("exp")),
        (with("exp", json!([NOW + 600])), invalid("exp")),
        (without("exp"), Some(Rejection::MissingClaim("exp"))),
        (without("sub"), Some(Rejection::MissingClaim("sub"))),
        (with("sub", json!("")), invalid("sub")),
        (with("sub", json!(7)), invalid("sub")),
        (with("sub", json!(null)), invalid("sub")),
        (with("nbf", json!(NOW + 30)), None),
        (with("nbf", json!(NOW + 31)), Some(Rejection::NotYetValid)),
        (with("nbf", json!("now")), invalid("nbf")),
        (with("nbf", json!(null)), invalid("nbf")),
        (with("iat", json!("yesterday")), invalid("iat")),
        (with("scope", json!(7)), invalid("scope")),
        (with("scope", json!(["admin"])), invalid("scope")),
        (with("prefixes", json!({"any": "*"})), invalid("prefixes")),
        (with("prefixes", json!(["A*", 7])), invalid("prefixes")),
        (with("aud", json!(7)), invalid("aud")),
        (with("aud", json!(["a", 7])), invalid("aud")),
        (with("iss", json!(["a"])), invalid("iss")),
        (format!(r#"{{"sub":"a","sub":"admin","exp":{}}}"#, NOW + 600), Some(Rejection::Malformed)),
        (format!(r#"{{"sub":"a","exp":{},"exp":{}}}"#, NOW - 600, NOW + 600), Some(Rejection::Malformed)),
        (format!(r#"["a",{}]"#, NOW + 600), Some(Rejection::Malformed)),
        ("not json".to_owned(), Some(Rejection::Malformed)),
        (String::new(), Some(Rejection::Malformed)),
    ] {
        assert_eq!(verifier.verify(&forge.sign(HEADER, &payload)).err(), expected, "{payload}");
    }
}

#[test]
fn issuer_and_audience_where_they_are_configured() {
    let forge = Forge::hs256(SECRET.as_bytes());
    let settings = Settings {
        issuer: Some("https://id.example".to_owned()),
        audience: Some("numgen".to_owned()),
        ..with_secret()
    };
    let verifier = verifier(&settings);
    for (iss, aud, expected) in [
        (json!("https://id.example"), json!("numgen"), None),
        (json!("https://id.example"), json!(["other", "numgen"]), None),
        (json!("https://id.example/"), json!("numgen"), Some(Rejection::WrongIssuer)),
        (json!("https://id.example"), json!("numgen2"), Some(Rejection::WrongAudience)),
        (json!("https://id.example"), json!([]), Some(Rejection::WrongAudience)),
    ] {
        let mut payload = payload();
        (payload["iss"], payload["aud"]) = (iss, aud);
        assert_eq!(verifier.verify(&forge.token(None, &payload)).err(), expected, "{payload}");
    }
    assert_eq!(verifier.verify(&forge.token(None, &payload())), Err(Rejection::WrongIssuer));
}

#[test]
fn texts_that_are_no_tokens() {
    let verifier = verifier(&with_secret());
    let good = Forge::hs256(SECRET.as_bytes()).token(None, &payload());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, body) = signed.split_once('.').unwrap();
    let unsigned = format!("{}.{body}.", encoded(r#"{"alg":"none"}"#));
    for (text, expected) in [
        (String::new(), Rejection::Malformed),
        (".".to_owned(), Rejection::Malformed),
        ("..".to_owned(), Rejection::Malformed),
        (signed.to_owned(), Rejection::Malformed),
        (format!("{good}."), Rejection::Malformed),
        (format!("{good}.x.y"), Rejection::Malformed),
        (format!(" {good}"), Rejection::Malformed),
        (format!("{good} "), Rejection::Malformed),
        (format!("{good}="), Rejection::Malformed),
        (format!("{good}, Bearer {good}"), Rejection::Malformed),
        (format!("{signed}."), Rejection::BadSignature),
        (format!("{signed}.AAAA"), Rejection::BadSignature),
        (format!("{header}.{}.{signature}", encoded(with("scope", json!("admin")))), Rejection::BadSignature),
        (unsigned, Rejection::Algorithm),
        ("x".repeat(MAX_TOKEN_BYTES + 1), Rejection::Oversize),
        ("x".repeat(MAX_TOKEN_BYTES), Rejection::Malformed),
    ] {
        assert_eq!(verifier.verify(&text), Err(expected), "{text:.80}");
    }
    assert!(verifier.verify(&good).is_ok());
}

proptest! {
    #[test]
    fn no_text_is_a_token_and_none_makes_it_panic(text in "[A-Za-z0-9_.= -]{0,120}|\\PC{0,40}") {
        prop_assert!(verifier(&with_secret()).verify(&text).is_err());
    }

    #[test]
    fn no_signed_content_makes_it_panic(header in "[{}\"a-z:,0-9]{0,40}", body in "[{}\"a-z:,0-9eE+.-]{0,60}") {
        let (forge, verifier) = (Forge::hs256(SECRET.as_bytes()), verifier(&with_secret()));
        let tokens = [forge.sign(&header, "{}"), forge.sign(HEADER, &format!("{{{body}}}"))];
        prop_assert!(tokens.iter().all(|token| verifier.verify(token).is_err()));
    }

    #[test]
    fn one_changed_character_is_noticed(at in 0_usize..400, new in "[A-Za-z0-9_.-]") {
        let token = Forge::hs256(SECRET.as_bytes()).token(None, &payload());
        let at = at % token.len();
        let mut changed = token.clone();
        changed.replace_range(at..=at, &new);
        prop_assert_eq!(verifier(&with_secret()).verify(&changed).is_ok(), changed == token, "{}", changed);
    }
}

#[test]
fn prefixes_as_an_array_or_with_commas() {
    let verifier = verifier(&with_secret());
    let forge = Forge::hs256(SECRET.as_bytes());
    for claim in [json!(["ACME-*", "SHARED"]), json!("ACME-*, SHARED")] {
        let claims = verifier.verify(&forge.sign(HEADER, &with("prefixes", claim))).unwrap();
        assert!(claims.may_touch("ACME-1").is_ok() && claims.may_touch("SHARED").is_ok());
        assert_eq!(claims.may_touch("OTHER"), Err(Forbidden::Prefix("OTHER".into())));
    }
    for claim in [json!([]), json!("")] {
        let claims = verifier.verify(&forge.sign(HEADER, &with("prefixes", claim))).unwrap();
        assert!(claims.may_touch("ANY").is_err(), "an empty list covers nothing");
    }
}

#[test]
fn a_remembered_token_ends_with_exp_and_begins_with_nbf() {
    let clock = clock();
    let verifier = Verifier::start(&with_secret(), Arc::clone(&clock) as _, &Lifecycle::new()).unwrap();
    let token = Forge::hs256(SECRET.as_bytes()).sign(HEADER, &with("nbf", json!(NOW)));
    let first = verifier.verify(&token).unwrap();
    assert!(Arc::ptr_eq(&first, &verifier.verify(&token).unwrap()), "the second time it is remembered");

    clock.step_to(UnixMillis((NOW - 31) * 1_000));
    assert_eq!(verifier.verify(&token), Err(Rejection::NotYetValid));
    clock.step_to(UnixMillis((NOW + 600) * 1_000));
    assert!(!Arc::ptr_eq(&first, &verifier.verify(&token).unwrap()), "within the leeway it is verified anew");
    clock.step_to(UnixMillis((NOW + 630) * 1_000));
    assert_eq!(verifier.verify(&token), Err(Rejection::Expired));
}

#[test]
fn nothing_works_without_a_key_and_errors_name_the_setting() {
    let start = |settings: Settings| Verifier::start(&settings, clock(), &Lifecycle::new());
    let error = start(Settings::default()).unwrap_err().to_string();
    assert!(error.contains("NUMGEN_JWT_SECRET"), "{error}");
    let short = Settings { secret: Some(Secret::new("short-canary".to_owned())), ..Settings::default() };
    let error = start(short).unwrap_err().to_string();
    assert!(
        error.contains("NUMGEN_JWT_SECRET: the secret has 12 bytes") && !error.contains("canary"),
        "{error}"
    );
    let pem = Settings { public_key_pem: Some("junk".to_owned()), ..Settings::default() };
    assert!(start(pem).unwrap_err().to_string().starts_with("NUMGEN_JWT_PUBLIC_KEY_FILE: "));
    for url in ["ftp://id.example/jwks", "id.example", "https://user:canary@id.example/jwks", "http://"] {
        let settings = Settings { jwks_url: Some(Secret::new(url.to_owned())), ..Settings::default() };
        let error = start(settings).unwrap_err().to_string();
        assert!(error.starts_with("NUMGEN_JWT_JWKS_URL: ") && !error.contains("canary"), "{error}");
    }
}

#[test]
fn every_rejection_has_a_reason_and_a_chinese_message() {
    let all = [
        Rejection::Missing,
        Rejection::Repeated,
        Rejection::Scheme,
        Rejection::Oversize,
        Rejection::Malformed,
        Rejection::Type,
        Rejection::Critical,
        Rejection::Algorithm,
        Rejection::UnknownKey,
        Rejection::KeysUnavailable,
        Rejection::BadSignature,
        Rejection::MissingClaim("exp"),
        Rejection::InvalidClaim("exp"),
        Rejection::Expired,
        Rejection::NotYetValid,
        Rejection::WrongIssuer,
        Rejection::WrongAudience,
    ];
    let reasons: HashSet<_> = all.iter().map(|rejection| rejection.reason()).collect();
    assert_eq!(reasons.len(), all.len(), "each has a word of its own");
    for rejection in all {
        assert!(rejection.reason().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        assert_eq!(rejection.localized(Language::English), rejection.to_string());
        assert!(!rejection.localized(Language::Chinese).is_ascii());
    }
}

#[test]
fn a_minted_token_is_accepted_and_says_what_was_granted() {
    let clock = clock();
    let settings =
        Settings { issuer: Some("me".to_owned()), audience: Some("you".to_owned()), ..with_secret() };
    let patterns = ["A*".to_owned()];
    let grant = Grant {
        subject: "cli",
        scopes: Scopes::parse("numbers:issue ledger:read").unwrap(),
        ttl: Duration::from_secs(3600),
        prefixes: Some(&patterns),
        issuer: Some("me"),
        audience: Some("you"),
    };
    let secret = Secret::new(SECRET.to_owned());
    let token = mint(&secret, &grant, &*clock).unwrap();
    let claims = verifier(&settings).verify(token.reveal()).unwrap();
    assert_eq!((&*claims.subject, claims.scopes), ("cli", grant.scopes));
    assert_eq!(claims.expires_at, clock.now().plus(grant.ttl));
    assert!(claims.may_touch("AB").is_ok() && claims.may_touch("B").is_err());
    assert!(matches!(mint(&Secret::new("short".to_owned()), &grant, &*clock), Err(MintError::Secret(_))));
    let nobody = Grant { subject: "", ..grant };
    assert!(matches!(mint(&secret, &nobody, &*clock), Err(MintError::Subject)));
}
