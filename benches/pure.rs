//! The pure parts of a request, by criterion: render, decode, drawing snowflakes, verifying tokens, arithmetic on ranges.

use std::{hint::black_box, sync::Arc, time::Duration};

use chrono::NaiveDate;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use numgen::{
    auth::{Grant, Scopes, Settings, Verifier, mint},
    calendar::FiscalYearStart,
    clock::{Clock, SystemClock},
    counter::{Ranges, SequenceValue},
    lifecycle::Lifecycle,
    secret::Secret,
    snowflake::{Layout, Sequencer},
    template::{Origin, RenderContext, Template},
};

const FORMATS: [(&str, &str); 3] = [
    ("plain", "ORD-{year}-{SEQ:6}"),
    ("snowflake", "EVT-{SEQ:19}"),
    ("everything", "{prefix}/{year}{month}{day}-{SEQ:10:base36}-{rand:4}-{check:mod97}"),
];

fn context() -> RenderContext<'static> {
    let date = NaiveDate::from_ymd_opt(2026, 11, 22).expect("a date");
    RenderContext {
        prefix: "ORDERS",
        local: date.and_hms_opt(2, 10, 27).expect("a time"),
        fiscal_year_start: FiscalYearStart::default(),
        origin: Origin { datacenter: 3, worker: 7, max_datacenter: 31, max_worker: 31 },
        seed: [7; 32],
    }
}

fn templates(criterion: &mut Criterion) {
    let context = context();
    for (name, format) in FORMATS {
        let template = Template::parse(format, None).expect("a valid format");
        let mut number = String::with_capacity(64);
        criterion.bench_function(&format!("render/{name}"), |bencher| {
            bencher.iter(|| {
                number.clear();
                template.render(&context, black_box(SequenceValue(123_456)), &mut number);
                number.len()
            });
        });
        criterion.bench_function(&format!("decode/{name}"), |bencher| {
            bencher.iter(|| {
                template.decode(context.prefix, context.origin, black_box(&number)).expect("it fits")
            });
        });
    }
}

fn snowflakes(criterion: &mut Criterion) {
    // A window and a clock without end: what is measured is the drawing, not the waiting.
    let sequencer = Sequencer::new(Layout::DEFAULT, 3, 7, 0, u64::MAX, Duration::from_secs(1_000_000_000));
    for count in [1_u64, 1_000] {
        let mut group = criterion.benchmark_group("snowflake");
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("draw {count}"), |bencher| {
            bencher.iter(|| {
                let drawn = sequencer.draw(black_box(1), count).expect("there is room");
                let mut ids = Ranges::new();
                sequencer.ids(&drawn, &mut ids);
                ids
            });
        });
    }
}

fn tokens(criterion: &mut Criterion) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let secret = Secret::new("a secret of thirty-two bytes....".to_owned());
    let settings = Settings { secret: Some(secret.clone()), ..Settings::default() };
    let verifier = Verifier::start(&settings, Arc::clone(&clock), &Lifecycle::new()).expect("a key");
    let token = |subject: &str| {
        let grant = Grant {
            subject,
            scopes: Scopes::from_claim("numbers:issue"),
            ttl: Duration::from_secs(3600),
            prefixes: None,
            issuer: None,
            audience: None,
        };
        mint(&secret, &grant, &*clock).expect("signed").reveal().clone()
    };
    let known = token("known");
    criterion.bench_function("verify/remembered", |bencher| {
        bencher.iter(|| verifier.verify(black_box(&known)).expect("valid"));
    });
    // More tokens than are remembered, so that each is verified anew.
    let many: Vec<String> = (0..20_000).map(|subject| token(&subject.to_string())).collect();
    let mut next = many.iter().cycle();
    criterion.bench_function("verify/new", |bencher| {
        bencher.iter(|| verifier.verify(black_box(next.next().expect("endless"))).expect("valid"));
    });
}

fn ranges(criterion: &mut Criterion) {
    let text = "1-1000,2000-2999,5000,7000-7999";
    criterion.bench_function("ranges/read and write", |bencher| {
        bencher.iter(|| black_box(text).parse::<Ranges>().expect("valid").to_string());
    });
}

criterion_group!(pure, templates, snowflakes, tokens, ranges);
criterion_main!(pure);
