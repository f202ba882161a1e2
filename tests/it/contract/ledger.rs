//! The strict ledger.

use std::{sync::Arc, time::Duration};

use numgen::{
    clock::UnixMillis,
    counter::{Counter, SequenceValue},
    store::{
        ADVANCE_LIMIT, Advanced, Bounds, Certificate, CounterStore, HoleReason, IssueRequest, LedgerQuery,
        LedgerRow, LedgerState, LedgerStep, LedgerStore, StoreError, Taken, Transition, Transitioned,
        Verification,
    },
};

use super::{Bench, FREE, NOON, claim, counter, fresh, invoices, issue, next};

/// Every row.
const ALL: LedgerQuery =
    LedgerQuery { period: None, from: None, to: None, state: None, after: None, limit: 1_000 };

async fn draw(
    store: &Arc<impl LedgerStore + CounterStore>,
    on: &Counter,
    bounds: Bounds,
    requests: Vec<IssueRequest>,
) -> Vec<Taken> {
    store.issue(on.clone(), bounds, requests, invoices()).await.expect("issued")
}

async fn rows(store: &Arc<impl LedgerStore + CounterStore>, on: &Counter) -> Vec<LedgerRow> {
    let query = LedgerQuery { period: Some(on.period.clone()), ..ALL };
    store.rows(on.key.clone(), query).await.expect("read")
}

async fn certificate(store: &Arc<impl LedgerStore + CounterStore>, on: &Counter) -> Certificate {
    store.certificate(on.clone()).await.expect("read").expect("there are rows")
}

async fn step(
    store: &Arc<impl LedgerStore + CounterStore>,
    number: &str,
    transition: Transition,
    at: UnixMillis,
) -> Transitioned {
    let key = counter("A", "").key;
    let step = LedgerStep { number: number.to_owned(), transition, actor: "bob".into(), at, note: None };
    store.transition(key, vec![step]).await.expect("answered").remove(0)
}

fn void(reason: &str) -> Transition {
    Transition::Void { reason: reason.to_owned() }
}

fn number(value: u64) -> String {
    format!("INV-{value:020}")
}

fn reserve(until: UnixMillis) -> IssueRequest {
    IssueRequest { reserved_until: Some(until), ..issue(1) }
}

/// Nothing was tampered with, and the certificate says so.
async fn assert_sound(store: &Arc<impl LedgerStore + CounterStore>, on: &Counter) -> Verification {
    let verification = store.verify(on.clone()).await.expect("read");
    assert_eq!(verification.faults, []);
    let certificate = certificate(store, on).await;
    let (first, last) = certificate.first.zip(certificate.last).expect("rows");
    assert_eq!(certificate.count, last.0 - first.0 + 1);
    assert_eq!(certificate.count, certificate.issued + certificate.reserved + certificate.void);
    assert_eq!(certificate.holes, []);
    verification
}

pub(super) async fn every_integer_has_a_row(mut bench: impl Bench<Store: LedgerStore + CounterStore>) {
    let (store, on) = (bench.store(), counter("A", "2026"));
    assert_eq!(store.certificate(on.clone()).await.expect("read"), None);
    assert_eq!(store.verify(on.clone()).await.expect("read"), Verification::default());
    let bounds = Bounds { base: SequenceValue(1000), ..FREE };
    let asked = IssueRequest { idempotency_key: Some("order 7".into()), ..issue(1) };
    assert_eq!(
        draw(&store, &on, bounds, vec![issue(2), asked]).await,
        [fresh(1001, 1002), fresh(1003, 1003)]
    );
    drop(store);
    bench.reopen().await;
    let store = bench.store();
    assert_eq!(draw(&store, &on, bounds, vec![issue(1)]).await, [fresh(1004, 1004)]);
    let rows = rows(&store, &on).await;
    assert_eq!(rows.len(), 4);
    let LedgerRow { hash, .. } = rows[2].clone();
    assert_eq!(
        rows[2],
        LedgerRow {
            period: on.period.clone(),
            sequence: SequenceValue(1003),
            number: number(1003),
            state: LedgerState::Issued,
            reason: None,
            subject: "alice".to_owned(),
            reserved_until: None,
            issued_at: NOON,
            idempotency_key: Some("order 7".to_owned()),
            hash,
        }
    );
    assert!(rows.iter().all(|row| row.hash.len() == 64), "SHA-256 as hex");
    assert_eq!(
        certificate(&store, &on).await,
        Certificate {
            period: on.period.clone(),
            first: Some(SequenceValue(1001)),
            last: Some(SequenceValue(1004)),
            count: 4,
            issued: 4,
            reserved: 0,
            void: 0,
            holes: Vec::new(),
            head: rows[3].hash.clone(),
        }
    );
    assert_sound(&store, &on).await;
}

pub(super) async fn rows_come_in_pages(bench: impl Bench<Store: LedgerStore + CounterStore>) {
    let store = bench.store();
    let render: numgen::store::RenderNumber = Arc::new(|_, value| format!("{value}-{value}"));
    for (name, period, count) in [("A", "2027", 3), ("A", "2026", 5), ("B", "2026", 2)] {
        let on = counter(name, period);
        let render = Arc::clone(&render);
        let period = period.to_owned();
        let render = Arc::new(move |index, value| format!("{period}/{}", render(index, value)));
        store.issue(on, FREE, vec![issue(count)], render).await.expect("issued");
    }
    let page = async |query: LedgerQuery| {
        let rows = store.rows(counter("A", "").key, query).await.expect("read");
        rows.iter().map(|row| format!("{}#{}", row.period, row.sequence)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(page(ALL).await, "2026#1 2026#2 2026#3 2026#4 2026#5 2027#1 2027#2 2027#3");
    let after = Some((counter("A", "2026").period, SequenceValue(4)));
    assert_eq!(page(LedgerQuery { after, limit: 2, ..ALL }).await, "2026#5 2027#1");
    let (from, to) = (Some(SequenceValue(2)), Some(SequenceValue(3)));
    assert_eq!(page(LedgerQuery { from, to, ..ALL }).await, "2026#2 2026#3 2027#2 2027#3");
    let period = Some(counter("A", "2027").period);
    assert_eq!(page(LedgerQuery { period: period.clone(), from, ..ALL }).await, "2027#2 2027#3");
    assert_eq!(page(LedgerQuery { state: Some(LedgerState::Void), ..ALL }).await, "");
    assert_eq!(
        page(LedgerQuery { state: Some(LedgerState::Issued), period, ..ALL }).await,
        "2027#1 2027#2 2027#3"
    );
}

/// Past for every server: one that nodes share lets nothing expire before its own clock says so.
const LONG_AGO: UnixMillis = UnixMillis(1_577_836_800_000);

pub(super) async fn reservations_are_confirmed_voided_or_expire(
    mut bench: impl Bench<Store: LedgerStore + CounterStore>,
) {
    let (store, on) = (bench.store(), counter("A", ""));
    let until = LONG_AGO.plus(Duration::from_secs(10));
    let requests = (0..5).map(|_| reserve(until)).collect();
    draw(&store, &on, FREE, requests).await;
    let before = assert_sound(&store, &on).await;
    assert_eq!((before.rows, before.events), (5, 0));

    for _ in 0..2 {
        let Transitioned::Done(row) = step(&store, &number(1), Transition::Confirm, LONG_AGO).await else {
            panic!()
        };
        assert_eq!((row.state, row.reason), (LedgerState::Issued, None), "repeating it changes nothing");
    }
    for reason in ["a typing error", "another reason"] {
        let Transitioned::Done(row) = step(&store, &number(2), void(reason), LONG_AGO).await else {
            panic!()
        };
        assert_eq!((row.state, row.reason.as_deref()), (LedgerState::Void, Some("a typing error")));
    }
    assert_eq!(store.expire_reservations(UnixMillis(until.0 - 1)).await.expect("swept"), 0);
    // Late, and nobody has swept yet.
    let Transitioned::Conflict(row) = step(&store, &number(3), Transition::Confirm, until).await else {
        panic!()
    };
    assert_eq!((row.state, row.reason.as_deref()), (LedgerState::Void, Some("expired")));
    assert_eq!(store.expire_reservations(until).await.expect("swept"), 2);
    assert_eq!(store.expire_reservations(until).await.expect("swept"), 0);
    drop(store);
    bench.reopen().await;
    let store = bench.store();
    let after = assert_sound(&store, &on).await;
    assert_eq!((after.rows, after.events), (5, 5));
    let states = certificate(&store, &on).await;
    assert_eq!((states.issued, states.reserved, states.void), (1, 0, 4));
    assert_eq!(draw(&store, &on, FREE, vec![issue(1)]).await, [fresh(6, 6)], "nobody gets a void number");
}

pub(super) async fn a_contrary_step_changes_nothing(bench: impl Bench<Store: LedgerStore + CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    draw(&store, &on, FREE, vec![issue(2)]).await;
    assert_eq!(step(&store, "INV-7", void("x"), NOON).await, Transitioned::Unknown);
    assert_eq!(step(&store, "", void("x"), NOON).await, Transitioned::Unknown);
    let Transitioned::Done(row) = step(&store, &number(1), void("lost in the post"), NOON).await else {
        panic!()
    };
    let again = step(&store, &number(1), Transition::Confirm, NOON).await;
    assert_eq!(again, Transitioned::Conflict(row));
    let events = assert_sound(&store, &on).await.events;
    assert_eq!(events, 1);
}

pub(super) async fn keys_replay(mut bench: impl Bench<Store: LedgerStore + CounterStore>) {
    let on = counter("A", "");
    let keyed = || IssueRequest { claim: Some(claim("k", 1, NOON)), ..issue(2) };
    let taken = draw(&bench.store(), &on, FREE, vec![keyed(), keyed(), issue(1)]).await;
    assert_eq!(taken[0], fresh(1, 2));
    assert!(matches!(&taken[1], Taken::Replayed(recorded) if recorded.values.count() == 2), "{taken:?}");
    assert_eq!(taken[2], fresh(3, 3));
    bench.reopen().await;
    let taken = draw(&bench.store(), &on, FREE, vec![keyed()]).await;
    assert!(matches!(&taken[0], Taken::Replayed(_)), "{taken:?}");
    assert_eq!(assert_sound(&bench.store(), &on).await.rows, 3);
}

pub(super) async fn a_key_replays_when_nothing_is_left(bench: impl Bench<Store: LedgerStore + CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    let bounds = Bounds { max: SequenceValue(4), ..FREE };
    let again = || IssueRequest { claim: Some(claim("k", 1, NOON)), ..issue(2) };
    assert_eq!(draw(&store, &on, bounds, vec![again()]).await, [fresh(1, 2)]);
    for last in [3, 4] {
        let taken = draw(&store, &on, bounds, vec![issue(1), again()]).await;
        assert_eq!(taken[0], fresh(last, last));
        assert!(matches!(&taken[1], Taken::Replayed(_)), "{last}: {taken:?}");
    }
    let taken = draw(&store, &on, bounds, vec![issue(1), again()]).await;
    assert_eq!(taken[0], Taken::Overflow);
    assert!(matches!(&taken[1], Taken::Replayed(_)), "{taken:?}");
}

pub(super) async fn a_change_of_mode_begins_a_new_run(bench: impl Bench<Store: LedgerStore + CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    assert_eq!((next(&store, &on).await, next(&store, &on).await), (1, 2));
    assert_eq!(draw(&store, &on, FREE, vec![issue(3)]).await, [fresh(3, 5)]);
    assert_eq!(certificate(&store, &on).await.first, Some(SequenceValue(3)));
    assert_eq!(next(&store, &on).await, 6, "continuous again");
    assert_eq!(certificate(&store, &on).await.last, Some(SequenceValue(5)));
    assert_eq!(draw(&store, &on, FREE, vec![issue(2)]).await, [fresh(7, 8)]);
    let latest = certificate(&store, &on).await;
    assert_eq!(
        (latest.first, latest.last, latest.count),
        (Some(SequenceValue(7)), Some(SequenceValue(8)), 2)
    );
    assert_eq!(assert_sound(&store, &on).await.rows, 5, "rows of the first run stay chained");
}

pub(super) async fn advance_voids_each_integer(bench: impl Bench<Store: LedgerStore + CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    draw(&store, &on, FREE, vec![issue(2)]).await;
    let advance = async |to: u64| {
        let advanced = store.advance(on.clone(), SequenceValue(0), SequenceValue(to), "op".into(), NOON);
        advanced.await.expect("answered")
    };
    assert_eq!(advance(6).await, Advanced::Done);
    assert_eq!(advance(7 + ADVANCE_LIMIT).await, Advanced::TooFar { limit: ADVANCE_LIMIT });
    assert_eq!(draw(&store, &on, FREE, vec![issue(1)]).await, [fresh(7, 7)]);
    let rows = rows(&store, &on).await;
    for row in &rows[2..6] {
        assert_eq!(
            (row.state, row.reason.as_deref(), &*row.subject),
            (LedgerState::Void, Some("advanced"), "op")
        );
        assert_eq!(row.number, "", "no text was ever made");
    }
    assert_eq!(store.counters(&on.key).await.expect("read")[0].holes, [], "rows say it, not holes");
    assert_sound(&store, &on).await;

    // Outside the ledger the range is listed, and the next run begins above it.
    assert_eq!(next(&store, &on).await, 8);
    assert_eq!(advance(20).await, Advanced::Done);
    assert_eq!(store.counters(&on.key).await.expect("read")[0].holes[0].reason, HoleReason::Advanced);
    assert_eq!(draw(&store, &on, FREE, vec![issue(1)]).await, [fresh(21, 21)]);
    assert_eq!(certificate(&store, &on).await.first, Some(SequenceValue(21)));
}

pub(super) async fn floors_leave_no_hole(bench: impl Bench<Store: LedgerStore + CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    draw(&store, &on, FREE, vec![issue(2)]).await;
    let floor = |floor| Bounds { floor: SequenceValue(floor), ..FREE };
    assert_eq!(draw(&store, &on, floor(5), vec![issue(1)]).await, [fresh(6, 6)]);
    let rows = rows(&store, &on).await;
    assert_eq!(rows.len(), 6);
    assert_eq!((rows[4].state, rows[4].reason.as_deref()), (LedgerState::Void, Some("skipped")));
    assert_eq!(certificate(&store, &on).await.first, Some(SequenceValue(1)));

    let far = 6 + ADVANCE_LIMIT + 1;
    assert_eq!(draw(&store, &on, floor(far), vec![issue(1)]).await, [fresh(far + 1, far + 1)]);
    let hole = &store.counters(&on.key).await.expect("read")[0].holes[0];
    assert_eq!(
        (hole.from, hole.to, hole.reason),
        (SequenceValue(7), SequenceValue(far), HoleReason::Skipped)
    );
    assert_eq!(
        certificate(&store, &on).await.first,
        Some(SequenceValue(far + 1)),
        "too far for rows: a new run"
    );
    assert_sound(&store, &on).await;

    let young = counter("B", "");
    assert_eq!(draw(&store, &young, floor(50), vec![issue(1)]).await, [fresh(51, 51)]);
    assert_eq!(certificate(&store, &young).await.count, 1);
}

pub(super) async fn many_tasks_leave_a_gapless_ledger(bench: impl Bench<Store: LedgerStore + CounterStore>) {
    let on = counter("A", "");
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8_u32 {
        let (store, on) = (bench.store(), on.clone());
        tasks.spawn(async move {
            for round in 0..10_u64 {
                let until = NOON.plus(Duration::from_secs(round));
                let requests = vec![issue(1 + task % 3), reserve(until)];
                let taken = draw(&store, &on, FREE, requests).await;
                let [_, Taken::Fresh(reserved)] = &taken[..] else { panic!("{taken:?}") };
                let of_reserved = number(reserved.last().expect("one").0);
                match round % 3 {
                    0 => drop(step(&store, &of_reserved, Transition::Confirm, NOON).await),
                    1 => drop(step(&store, &of_reserved, void("changed my mind"), NOON).await),
                    _ => drop(store.expire_reservations(until).await.expect("swept")),
                }
            }
        });
    }
    tasks.join_all().await;
    let verification = assert_sound(&bench.store(), &on).await;
    // Tasks 0 to 7 draw 1, 2, 3, 1, 2, 3, 1, 2 and one reservation each, ten times.
    assert_eq!(verification.rows, 10 * (15 + 8));
    assert!(verification.events > 0);
}

pub(super) async fn a_number_is_never_written_twice(bench: impl Bench<Store: LedgerStore + CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    let constant: numgen::store::RenderNumber = Arc::new(|_, _| "SAME".to_owned());
    let twice = store.issue(on.clone(), FREE, vec![issue(2)], constant).await;
    assert!(matches!(twice, Err(StoreError::Corrupt { .. })), "{twice:?}");
    assert_eq!(store.counters(&on.key).await.expect("read"), [], "nothing happened");
    assert_eq!(draw(&store, &on, FREE, vec![issue(1)]).await, [fresh(1, 1)]);
    assert_sound(&store, &on).await;
}

pub(super) async fn the_last_integer_is_u64_max(bench: impl Bench<Store: LedgerStore + CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    let bounds = Bounds { base: SequenceValue(u64::MAX - 2), ..FREE };
    let taken = draw(&store, &on, bounds, vec![issue(1), issue(2), issue(1), issue(1)]).await;
    let last = fresh(u64::MAX, u64::MAX);
    assert_eq!(taken, [fresh(u64::MAX - 1, u64::MAX - 1), Taken::Overflow, last, Taken::Overflow]);
    assert_sound(&store, &on).await;
    let after = Some((on.period.clone(), SequenceValue(u64::MAX - 1)));
    let rest = store.rows(on.key.clone(), LedgerQuery { after, ..ALL }).await.expect("read");
    assert_eq!(rest.len(), 1);
}
