//! Buckets, registry and both layers, on a clock that the tests move.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use http::{Request, Response, header::AUTHORIZATION};
use proptest::prelude::*;
use tower::{BoxError, Layer, Service, service_fn};

use super::{bucket::Bucket, registry::Registry, *};
use crate::{
    auth::{Claims, Scopes},
    calendar::{FiscalYearStart, Reset},
    clock::{Clock, ManualClock, UnixMillis},
    counter::SequenceValue,
    language::{Language, Localized},
    middleware::context::{Context, tests::context},
    prefix_key::PrefixKey,
    rule::{Mode, OnOutage, Overflow, Rule},
};

fn per_second(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(UnixMillis(1_800_000_000_000)))
}

fn bucket(policy: Policy, count: u32, clock: &Arc<ManualClock>) -> Bucket {
    Bucket::new(policy, per_second(count), Arc::clone(clock) as _)
}

fn none() -> Rates {
    Rates { numbers: None, issued: None, management: None, address: None }
}

// --------------------------------------------------------------------------------------------- buckets

#[test]
fn a_bucket_gives_one_second_at_once_and_then_its_rate() {
    let clock = clock();
    let bucket = bucket(Policy::Numbers, 10, &clock);
    assert_eq!((0..20).filter(|_| bucket.take().is_ok()).count(), 10);
    let exceeded = bucket.take().unwrap_err();
    assert_eq!(exceeded.retry_after, Duration::from_millis(100));
    assert_eq!((exceeded.limit, exceeded.remaining, exceeded.asked), (10, 0, 1));
    clock.advance(Duration::from_millis(99));
    assert!(bucket.take().is_err());
    clock.advance(Duration::from_millis(1));
    assert!(bucket.take().is_ok() && bucket.take().is_err());
    clock.advance(Duration::from_secs(3600));
    assert_eq!((0..20).filter(|_| bucket.take().is_ok()).count(), 10, "no more than a second is saved up");
}

#[test]
fn a_batch_takes_all_or_nothing() {
    let clock = clock();
    let bucket = bucket(Policy::Issued, 100, &clock);
    assert_eq!(bucket.take_many(per_second(70)), Ok(()));
    let exceeded = bucket.take_many(per_second(40)).unwrap_err();
    assert_eq!((exceeded.remaining, exceeded.retry_after), (30, Duration::from_millis(100)));
    assert_eq!(bucket.take_many(per_second(30)), Ok(()), "the refused batch took nothing");
    clock.advance(Duration::from_secs(1));
    let never = bucket.take_many(per_second(101)).unwrap_err();
    assert!(never.to_string().contains("ask for fewer"), "{never}");
    assert_eq!(bucket.take_many(per_second(100)), Ok(()));
}

#[test]
fn a_charged_bucket_refuses_until_something_is_back() {
    let clock = clock();
    let bucket = bucket(Policy::Address, 2, &clock);
    bucket.charge();
    assert_eq!(bucket.ensure_left(), Ok(()));
    bucket.charge();
    assert_eq!(bucket.ensure_left().unwrap_err().retry_after, Duration::from_millis(500));
    clock.advance(Duration::from_millis(499));
    assert!(bucket.ensure_left().is_err());
    clock.advance(Duration::from_millis(1));
    assert_eq!(bucket.ensure_left(), Ok(()));
}

proptest! {
    #[test]
    fn never_more_than_the_rate_and_one_second(
        rate in 1_u32..2_000,
        steps in prop::collection::vec((0_u64..400, 1_u32..300), 1..60),
    ) {
        let clock = clock();
        let bucket = bucket(Policy::Numbers, rate, &clock);
        let mut taken = 0_u64;
        let begun = clock.monotonic();
        for (pause_ms, tries) in steps {
            clock.advance(Duration::from_millis(pause_ms));
            taken += (0..tries).filter(|_| bucket.take().is_ok()).count() as u64;
            let elapsed_ms = (clock.monotonic() - begun).as_millis() as u64;
            // An interval is a whole number of nanoseconds, rounded down: at most a thousandth more at these rates.
            let allowed = u64::from(rate) + u64::from(rate) * elapsed_ms / 1_000;
            prop_assert!(taken <= allowed + allowed / 1_000 + 1, "{taken} of {allowed}");
        }
    }
}

// -------------------------------------------------------------------------------------------- registry

#[test]
fn a_registry_stays_bounded_and_forgets_who_is_idle() {
    let clock = clock();
    let registry = Registry::new(1_000);
    let get =
        |key: u32| registry.get(&key, clock.monotonic(), |_| true, || bucket(Policy::Address, 1, &clock));
    let held = get(0);
    for key in 1..50_000 {
        drop(get(key));
    }
    assert!(registry.len() <= 1_000, "{}", registry.len());
    assert!(Arc::ptr_eq(&held, &get(0)), "a bucket in use is the only one of its key");

    drop(held);
    for _ in 0..3 {
        clock.advance(Duration::from_secs(60));
        for key in 1_000_000..1_000_200 {
            drop(get(key));
        }
    }
    assert!(registry.len() <= 200, "{}", registry.len());
}

#[test]
fn a_bucket_that_no_longer_fits_is_replaced() {
    let clock = clock();
    let limits = Limits::new(Rates { management: NonZeroU32::new(1), ..none() }, Arc::clone(&clock) as _);
    let subject: Arc<str> = "erp".into();
    let before = limits.management(&subject).unwrap();
    limits.replace(Rates { management: NonZeroU32::new(1), ..none() });
    assert!(Arc::ptr_eq(&before, &limits.management(&subject).unwrap()), "the same limit goes on");
    limits.replace(Rates { management: NonZeroU32::new(2), ..none() });
    assert_eq!(limits.management(&subject).unwrap().per_second(), per_second(2));
    limits.replace(none());
    assert!(limits.management(&subject).is_none());
}

#[test]
fn a_rule_has_one_allowance_that_outlives_its_revisions() {
    let clock = clock();
    let limits = RuleLimits::new(Arc::clone(&clock) as _);
    let rule = |key: &str, rate: u32| rule(key, NonZeroU32::new(rate));
    let take = |rule: &Rule, count| limits.quota(rule).expect("a limit").check(count);
    assert!(limits.quota(&rule("FREE", 0)).is_none());
    assert_eq!(take(&rule("A", 10), 8), Ok(()));
    let exceeded = take(&rule("A", 10), 3).unwrap_err();
    assert_eq!((exceeded.policy, exceeded.limit, exceeded.remaining), (Policy::Rule, 10, 2));
    assert_eq!(exceeded.rate_limit_policy_field(), "\"rule\";q=10;w=1");
    assert_eq!(take(&rule("B", 10), 10), Ok(()), "each key has its own");
    assert_eq!(take(&rule("A", 20), 20), Ok(()), "another limit begins anew");
    assert!(take(&rule("A", 20), 1).is_err());
    clock.advance(Duration::from_millis(50));
    assert_eq!(take(&rule("A", 20), 1), Ok(()));
}

fn rule(key: &str, rate_limit: Option<NonZeroU32>) -> Rule {
    Rule {
        prefix_key: PrefixKey::parse(key).expect("valid"),
        format: "A{SEQ:4}".to_owned(),
        seq_length: 4,
        initial_seq: SequenceValue(0),
        mode: Mode::Continuous,
        reset: Reset::default(),
        timezone: chrono_tz::UTC,
        fiscal_year_start: FiscalYearStart::default(),
        overflow: Overflow::default(),
        max_seq: SequenceValue::MAX,
        on_outage: OnOutage::default(),
        rate_limit,
    }
}

// ---------------------------------------------------------------------------------------------- fields

#[test]
fn fields_and_messages() {
    let mut exceeded = Exceeded {
        policy: Policy::Numbers,
        limit: 1_000,
        remaining: 7,
        asked: 1,
        reset: Duration::from_millis(900),
        retry_after: Duration::from_nanos(1),
    };
    assert_eq!(exceeded.retry_after_seconds(), 1);
    assert_eq!(exceeded.rate_limit_field(), "\"numbers\";r=7;t=1");
    assert_eq!(exceeded.rate_limit_policy_field(), "\"numbers\";q=1000;w=1");
    exceeded.retry_after = Duration::from_millis(2_001);
    assert_eq!(exceeded.retry_after_seconds(), 3);
    for policy in [Policy::Numbers, Policy::Issued, Policy::Rule, Policy::Management, Policy::Address] {
        let exceeded = Exceeded { policy, ..exceeded };
        assert!(exceeded.localized(Language::English).contains("1000"));
        assert!(exceeded.localized(Language::Chinese).contains("1000"));
        assert!(!exceeded.localized(Language::Chinese).is_ascii());
    }
}

// ---------------------------------------------------------------------------------------------- layers

fn from(subject: &str, path: &str) -> Request<()> {
    let mut request = Request::builder().uri(path).body(()).unwrap();
    let claims = Claims {
        subject: subject.into(),
        scopes: Scopes::NONE,
        prefixes: None,
        expires_at: UnixMillis(i64::MAX),
        not_before: None,
    };
    let caller = Some(Arc::new(claims));
    request.extensions_mut().insert(Context { caller, ..context(Ipv4Addr::LOCALHOST.into(), path) });
    request
}

/// Takes a batch of 10 where numbers are counted.
async fn draw(request: Request<()>) -> Result<Response<()>, Exceeded> {
    if let Some(quota) = request.extensions().get::<IssuedQuota>() {
        quota.check(10)?;
    }
    Ok(Response::new(()))
}

fn policy(outcome: Result<Response<()>, BoxError>) -> Option<Policy> {
    outcome.err().map(|error| error.downcast_ref::<Exceeded>().expect("a typed refusal").policy)
}

#[tokio::test]
async fn subjects_and_classes_have_allowances_of_their_own() {
    let clock = clock();
    let rates = Rates { numbers: NonZeroU32::new(3), management: NonZeroU32::new(1), ..none() };
    let limits = Limits::new(rates, Arc::clone(&clock) as _);
    let layer = RateLimitLayer::new(Arc::clone(&limits));
    let (mut one, mut two) = (layer.layer(service_fn(draw)), layer.layer(service_fn(draw)));
    for (path, subject, expected) in [
        ("/numbers", "erp", None),
        ("/prefix-configs", "erp", None),
        ("/prefix-configs", "erp", Some(Policy::Management)),
        ("/numbers", "erp", None),
        ("/numbers", "shop", None),
    ] {
        assert_eq!(policy(one.call(from(subject, path)).await), expected, "{subject} {path}");
    }
    assert_eq!(policy(two.call(from("erp", "/numbers")).await), None);
    assert_eq!(
        policy(two.call(from("erp", "/numbers")).await),
        Some(Policy::Numbers),
        "over all connections"
    );
    assert_eq!(policy(two.call(from("shop", "/numbers")).await), None);
    clock.advance(Duration::from_secs(1));
    assert_eq!(policy(one.call(from("erp", "/prefix-configs")).await), None);

    let open = Request::builder().uri("/docs").body(()).unwrap();
    for _ in 0..5 {
        assert_eq!(policy(one.call(open.clone()).await), None, "nobody's request is nobody's allowance");
    }
    limits.replace(none());
    for _ in 0..5 {
        assert_eq!(
            policy(one.call(from("erp", "/prefix-configs")).await),
            None,
            "new limits reach old connections"
        );
    }
}

#[tokio::test]
async fn a_batch_is_one_request_and_many_numbers() {
    let rates = Rates { issued: NonZeroU32::new(25), ..none() };
    let mut service = RateLimitLayer::new(Limits::new(rates, clock())).layer(service_fn(draw));
    for expected in [None, None, Some(Policy::Issued)] {
        assert_eq!(policy(service.call(from("erp", "/numbers")).await), expected);
    }
    assert_eq!(policy(service.call(from("erp", "/prefix-configs")).await), None);
}

#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused;

async fn gate(request: Request<()>) -> Result<Response<()>, BoxError> {
    match request.headers().get(AUTHORIZATION) {
        Some(field) if field == "good" => Ok(Response::new(())),
        Some(field) if field == "broken" => Err("something else".into()),
        Some(_) | None => Err(Refused.into()),
    }
}

fn at(address: IpAddr, field: Option<&str>) -> Request<()> {
    let mut request = Request::builder().uri("/numbers").body(()).unwrap();
    if let Some(field) = field {
        request.headers_mut().insert(AUTHORIZATION, field.parse().unwrap());
    }
    request.extensions_mut().insert(context(address, "/"));
    request
}

#[tokio::test]
async fn an_address_pays_for_refusals_alone_and_is_then_turned_away() {
    let clock = clock();
    let limits = Limits::new(Rates { address: NonZeroU32::new(4), ..none() }, Arc::clone(&clock) as _);
    let layer = AddressLimitLayer::new(limits, |error| error.is::<Refused>());
    let (mut one, mut two) = (layer.layer(service_fn(gate)), layer.layer(service_fn(gate)));
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let turned_away =
        |outcome: Result<Response<()>, BoxError>| outcome.is_err_and(|error| error.is::<Exceeded>());

    for _ in 0..10 {
        assert!(one.call(at(here, Some("good"))).await.is_ok());
        assert!(!turned_away(one.call(at(here, Some("broken"))).await), "our own errors cost nobody");
    }
    for field in [None, Some("bad"), Some("bad"), Some("bad")] {
        assert!(!turned_away(one.call(at(here, field)).await));
    }
    for field in [Some("bad"), Some("good"), None] {
        assert!(turned_away(one.call(at(here, field)).await), "{field:?}");
        assert!(turned_away(two.call(at(here, field)).await), "{field:?} on another connection");
    }
    assert!(two.call(at(IpAddr::V4(Ipv4Addr::BROADCAST), Some("good"))).await.is_ok(), "not the neighbours");
    clock.advance(Duration::from_secs(1));
    assert!(one.call(at(here, Some("good"))).await.is_ok());

    // One host commands a whole /64, and is one address.
    let host = |last: u16| IpAddr::V6([0x2001, 0xdb8, 1, 2, 0, 0, 0, last].into());
    for last in 0..5 {
        assert_eq!(turned_away(one.call(at(host(last), None)).await), last == 4, "{last}");
    }
    let next_door = IpAddr::V6([0x2001, 0xdb8, 1, 3, 0, 0, 0, 1].into());
    assert!(!turned_away(one.call(at(next_door, None)).await));

    let mut unknown = at(here, None);
    unknown.extensions_mut().clear();
    for _ in 0..10 {
        assert!(!turned_away(one.call(unknown.clone()).await));
    }
}
