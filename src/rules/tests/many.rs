//! A hundred thousand rules: found, listed and compared as quickly as one.

use std::time::Duration;

use super::*;
use crate::{
    clock::SystemClock,
    rule::Rule,
    rules::Warning,
    store::{RuleRecord, RuleStore},
};

/// A desk with so many rules; `format` of the i-th.
async fn desk_with(count: usize, format: impl Fn(usize) -> String) -> Desk {
    let desk = Desk::new();
    let saved = desk.put("SAMPLE", r#"{"format":"S-{SEQ:4}"}"#).await.expect("saved");
    for index in 0..count {
        let key = key(&format!("K{index:06}"));
        let rule = Rule { prefix_key: key.clone(), format: format(index), ..saved.rule.rule().clone() };
        let record =
            RuleRecord { key, revision: 1, rule: Some(rule.to_json()), history: String::new(), used: false };
        desk.store.swap_rule(None, record).await.expect("written");
    }
    let loaded = desk.registry.load().await.expect("loads");
    assert_eq!((loaded.rules, loaded.refused.len()), (count + 1, 0), "{:?}", loaded.refused.first());
    desk
}

#[tokio::test]
async fn every_rule_is_found() {
    let desk = desk_with(5_000, |index| format!("R{index}-{{SEQ:4}}")).await;
    for index in 0..5_000 {
        let rule = desk.registry.get(&format!("K{index:06}")).expect("found");
        assert_eq!(rule.rule().format, format!("R{index}-{{SEQ:4}}"));
    }
    assert!(desk.registry.get("K005000").is_none());
}

#[tokio::test]
async fn pages_are_in_key_order_and_leave_out_what_is_not_visible() {
    let desk = desk_with(1_000, |_| "{prefix}-{SEQ:4}".into()).await;
    let even = |key: &PrefixKey| !key.as_str().ends_with(['1', '3', '5', '7', '9']);
    let (mut after, mut keys) = (None, Vec::new());
    loop {
        let page = desk.registry.list(after.as_ref(), 64, even);
        assert!(page.rules.len() <= 64);
        keys.extend(page.rules.iter().map(|rule| rule.rule().prefix_key.clone()));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let mut expected: Vec<_> = (0..1_000).step_by(2).map(|index| key(&format!("K{index:06}"))).collect();
    expected.push(key("SAMPLE"));
    assert_eq!(keys, expected);
    let all = desk.registry.list(Some(&key("SAMPLE")), 1, |_| true);
    assert!(all.rules.is_empty() && all.next.is_none());
    let exact = desk.registry.list(None, 1_001, |_| true);
    assert!(exact.rules.len() == 1_001 && exact.next.is_none(), "no page that would be empty");
}

#[tokio::test]
async fn the_quick_way_to_collisions_finds_what_the_slow_one_finds() {
    let formats = [
        "{SEQ:4}",
        "A{SEQ:4}",
        "AB{SEQ:4}",
        "ABC{SEQ:4}",
        "{year}{SEQ:4}",
        "A{year}{SEQ:4}",
        "{prefix}{SEQ:4}",
        "A{prefix}{SEQ:4}",
        "{SEQ:4}Z",
        "{SEQ:4}{prefix}",
        "{{A}}{SEQ:4}",
        "{{{prefix}}}{SEQ:4}",
        "发{SEQ:4}",
        "发票{SEQ:4}",
        "{PREFIX}{SEQ:4}{{",
        "{SEQ:4}}}{{",
        "K{SEQ:4:base36}",
        "{rand:3}{SEQ:4}",
        "A-{SEQ:4}-{year}Z",
        "{fy:2}{SEQ:4}",
        "{month}{day}{hour}{SEQ:4}",
        "{minute}{second}{quarter}{doy}{SEQ:4}{isoyear}",
        "{SEQ:4:base62}{week}{fy}",
        "{datacenter}{worker}{SEQ:4:hex}{check:luhn}",
        "{year:2}{SEQ:4:base32}{check:mod97}",
        "K0{SEQ:4}{check:damm}",
    ];
    let desk = desk_with(formats.len() * 3, |index| formats[index % formats.len()].into()).await;
    let all = desk.registry.list(None, 1_000, |_| true).rules;
    for rule in &all {
        let (key, template) = (&rule.rule().prefix_key, rule.template());
        let others = all.iter().filter(|other| other.rule().prefix_key != *key);
        let meets = |other: &&Arc<CompiledRule>| {
            let other_key = other.rule().prefix_key.as_str();
            template.common_text(key.as_str(), other.template(), other_key, ORIGIN).is_some()
        };
        let mut slow: Vec<_> = others.filter(meets).map(|other| other.rule().prefix_key.clone()).collect();
        let mut quick: Vec<_> = desk
            .registry
            .with_catalog(|catalog| catalog.colliding(key, template).map(|(other, _)| other).collect());
        slow.sort();
        quick.sort();
        assert_eq!(quick, slow, "{} {}", key, template.text());
    }
}

#[tokio::test]
async fn warnings_are_few() {
    let desk = desk_with(200, |_| "ORD-{SEQ:4}".into()).await;
    let saved = desk.put("NEW", r#"{"format":"ORD-{SEQ:5}"}"#).await.expect("saved");
    assert_eq!(saved.warnings.len(), 10);
    let saved = desk
        .registry
        .put(&key("NEW"), &draft(r#"{"format":"ORD-{SEQ:6}"}"#), None, &|_| false, &Author::program())
        .await;
    assert!(matches!(saved.expect("saved").warnings.as_slice(), [Warning::SharedText { other: None, .. }]));
}

/// `cargo test --release --lib rules::tests::many -- --ignored --nocapture`
#[tokio::test]
#[ignore = "measures; figures of an unoptimised build mean nothing"]
async fn measure_a_hundred_thousand() {
    let clock = SystemClock::new();
    let took = |label: &str, runs: u32, work: &mut dyn FnMut()| -> Duration {
        let started = clock.monotonic();
        for _ in 0..runs {
            work();
        }
        let each = (clock.monotonic() - started) / runs;
        println!("{label}: {each:?}");
        each
    };
    let one = Desk::new();
    one.put("K000000", r#"{"format":"S-{SEQ:4}"}"#).await.expect("saved");
    let small = took("get, 1 rule", 1_000_000, &mut || {
        std::hint::black_box(one.registry.get("K000000"));
    });
    for (label, start) in
        [("own start", "R{}-"), ("prefix first", "{prefix}-"), ("year first", "{year}-{prefix}-")]
    {
        let format = |index: usize| format!("{}{{SEQ:4}}", start.replace("{}", &index.to_string()));
        let desk = desk_with(100_000, format).await;
        let mut next = 0_usize;
        let keys: Vec<_> = (0..100_000).map(|index| format!("K{index:06}")).collect();
        let large = took("get, 100,000 rules", 1_000_000, &mut || {
            next = (next + 7_919) % keys.len();
            std::hint::black_box(desk.registry.get(&keys[next]));
        });
        let hot = took("get, 100,000 rules, a hot one", 1_000_000, &mut || {
            std::hint::black_box(desk.registry.get("K050000"));
        });
        for format in ["{year}-NEW-{SEQ:4}", "ORD-{SEQ:6}", "{SEQ:6}"] {
            let template = crate::template::Template::parse(format, None).expect("valid");
            let scan = took(&format!("collisions of {format}, {label}"), 20, &mut || {
                desk.registry.with_catalog(|catalog| {
                    std::hint::black_box(catalog.colliding(&key("NEW"), &template).count());
                });
            });
            assert!(scan < Duration::from_millis(20), "{scan:?}");
        }
        assert!(hot < small * 3, "{hot:?} against {small:?}");
        assert!(large < Duration::from_micros(2), "{large:?}");
    }
}
