//! Rows that are held, changed together, or tampered with.

use std::{sync::Arc, time::Duration};

use numgen::{
    clock::{Clock as _, SystemClock, UnixMillis},
    counter::SequenceValue,
    store::{IssueRequest, LedgerState, LedgerStep, LedgerStore as _, StoreError, Transition, Transitioned},
};
use tokio::task::JoinSet;

use super::{BOTH, Node, SECOND, assert_sound, counter, plain, step, void};
use crate::harness::{Postgres, Stopwatch};

/// Somebody holds the row: whoever waits is told so in time, and nothing was drawn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_held_times_out() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let node = Node::start(&database.url(), locking, Duration::from_millis(700));
        let on = counter("");
        let patient = Node::on(&database);
        patient.draw(&on, 1).await;
        let holder =
            database.transact_slowly("SELECT FROM numgen_ledger_counters FOR UPDATE", 2 * SECOND, "");
        let watch = Stopwatch::start();
        let late = node.issue(&on, vec![plain(1)]).await;
        assert!(matches!(late, Err(StoreError::Timeout { .. })), "{late:?}");
        watch.assert_within(Duration::from_millis(1_500), "a deadline of 700 ms");
        holder.join().expect("a lock");
        patient.draw(&on, 1).await;
        let rows = assert_sound(&patient, &on).await.len();
        assert_eq!(rows, 2, "nobody's numbers");
    }
}

/// Somebody finds out that the server lacks something, while a batch waits for the row: it is judged when it has the row, not when it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_row_is_judged_behind_it() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let (node, on) = (Node::start(&database.url(), locking, 10 * SECOND), counter(""));
        node.draw(&on, 1).await;
        let holder = database.transact_slowly(
            "SELECT FROM numgen_ledger_counters FOR UPDATE",
            2 * SECOND,
            "UPDATE numgen_ledger_marker SET forgotten_of = 'b'",
        );
        let refused = node.issue(&on, vec![plain(1)]).await;
        assert!(matches!(refused, Err(StoreError::Suspended { .. })), "{refused:?}");
        holder.join().expect("a lock");
        assert_eq!(assert_sound(&node, &on).await.len(), 1, "nothing was drawn");
    }
}

/// A node whose clock is a day ahead, and which knows no other: the server does not believe it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_believed_that_it_is_later_than_it_is() {
    let database = Postgres::create_database();
    let (node, on) = (Node::on(&database), counter(""));
    let now = SystemClock::new().now();
    let ahead = now.plus(24 * 3_600 * SECOND);
    let reserve = |until| IssueRequest { reserved_until: Some(until), ..plain(1) };
    let (open, over) = (now.plus(3_600 * SECOND), UnixMillis(now.0 - 60_000));
    node.issue(&on, [open, open, over, over].map(reserve).to_vec()).await.expect("reserved");
    let confirm = |value| LedgerStep { at: ahead, ..step(&format!("/{value}"), Transition::Confirm) };
    let outcomes = node.store.transition(on.key.clone(), vec![confirm(1), confirm(3)]).await.expect("taken");
    let [Transitioned::Done(_), Transitioned::Conflict(late)] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!(late.reason.as_deref(), Some("expired"));
    assert_eq!(node.store.expire_reservations(ahead).await.expect("swept"), 1, "the one that is over");
    let rows = assert_sound(&node, &on).await;
    let states: Vec<_> = rows.iter().map(|row| row.state.as_str()).collect();
    assert_eq!(states, ["issued", "reserved", "void", "void"]);
}

/// More than one sweep looks at are of a counter that cannot be served, and older than the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_counter_keeps_no_other_from_expiring() {
    let database = Postgres::create_database();
    let (node, damaged, gone, sound) =
        (Node::on(&database), counter("2025"), counter("2026"), counter("2027"));
    let past = SystemClock::new().now().0 - 60_000;
    for (on, count, end) in [(&damaged, 501, past), (&gone, 501, past + 1), (&sound, 2, past + 2)] {
        let reserved = IssueRequest { reserved_until: Some(UnixMillis(end)), ..plain(count) };
        node.issue(on, vec![reserved]).await.expect("reserved");
    }
    database.psql(
        "ALTER TABLE numgen_ledger_counters DISABLE TRIGGER ALL;
        DELETE FROM numgen_ledger_counters WHERE period = '2026';
        UPDATE numgen_ledger_counters SET events = -1 WHERE period = '2025'",
    );
    let failed = node.store.expire_reservations(UnixMillis(past + 60_000)).await.expect_err("it is named");
    assert!(failed.to_string().contains("in the ledger of INV:2025"), "{failed}");
    assert_eq!(
        database.psql("SELECT state FROM numgen_ledger_rows WHERE period = '2027' GROUP BY state"),
        "void"
    );
}

/// Steps of one call are of several counters and of one row, in their order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_share_a_transaction() {
    let database = Postgres::create_database();
    let (node, on, apart) = (Node::on(&database), counter(""), counter("2027"));
    node.draw(&on, 9).await;
    node.draw(&apart, 2).await;
    let mut steps = vec![step("/9", Transition::Confirm), step("2027/1", void()), step("/10", void())];
    steps.extend((1..=8).map(|value| step(&format!("/{value}"), void())));
    steps.extend([step("/1", void()), step("/1", Transition::Confirm)]);
    let transactions = || database.psql("SELECT count(DISTINCT xmin::text) FROM numgen_ledger_events");
    let outcomes = node.store.transition(on.key.clone(), steps.clone()).await.expect("taken");
    assert_eq!(transactions(), "1");
    for (step, outcome) in steps.iter().zip(&outcomes) {
        let expected = match (&*step.number, &step.transition) {
            ("/10", _) => None,
            ("/9", _) => Some((LedgerState::Issued, true)),
            (_, Transition::Confirm) => Some((LedgerState::Void, false)),
            (_, Transition::Void { .. }) => Some((LedgerState::Void, true)),
        };
        let found = match outcome {
            Transitioned::Done(row) => Some((row.state, true)),
            Transitioned::Conflict(row) => Some((row.state, false)),
            Transitioned::Unknown => None,
        };
        assert_eq!(found, expected, "{step:?}: {outcome:?}");
    }
    for on in [&on, &apart] {
        assert_sound(&node, on).await;
    }
    let events = || database.psql("SELECT count(*), count(DISTINCT sequence) FROM numgen_ledger_events");
    assert_eq!(events(), "9|8", "nine rows once, two of them the first of their counter");
    // What fails, fails for all: nobody can read this row.
    database.psql(
        "INSERT INTO numgen_ledger (counter, prefix, sequence, number, state, subject, issued_at_ms, hash)
        SELECT counter, prefix, 99999999999999999999, '/bad', state, subject, issued_at_ms, hash
        FROM numgen_ledger WHERE number = '/1'",
    );
    let failed =
        node.store.transition(on.key.clone(), vec![step("2027/2", void()), step("/bad", void())]).await;
    assert!(matches!(failed, Err(StoreError::Corrupt { .. })), "{failed:?}");
    assert_eq!(events(), "9|8");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_row_says_cannot_be_edited() {
    let database = Postgres::create_database();
    let (node, on) = (Node::on(&database), counter(""));
    node.draw(&on, 2).await;
    let voided = node.store.transition(on.key.clone(), vec![step("/1", void())]).await.expect("taken");
    assert!(matches!(&voided[..], [Transitioned::Done(_)]), "{voided:?}");
    for sql in [
        "UPDATE numgen_ledger SET number = 'x' WHERE sequence = 1",
        "UPDATE numgen_ledger SET idempotency_key = 'x' WHERE sequence = 1",
        "UPDATE numgen_ledger SET state = 'issued' WHERE sequence = 1",
        "UPDATE numgen_ledger SET state = 'reserved' WHERE sequence = 2",
        "DELETE FROM numgen_ledger WHERE sequence = 2",
        "TRUNCATE numgen_ledger",
        "UPDATE numgen_ledger_events SET actor = 'x'",
        "DELETE FROM numgen_ledger_events",
        "DELETE FROM numgen_ledger_counters",
        "TRUNCATE numgen_ledger_counters CASCADE",
        "DELETE FROM numgen_ledger_keys",
        "TRUNCATE numgen_ledger_keys CASCADE",
    ] {
        let tried = format!(
            "DO $do$ BEGIN EXECUTE $sql${sql}$sql$; EXCEPTION WHEN integrity_constraint_violation THEN RETURN; END $do$;
            SELECT count(*) FROM numgen_ledger WHERE number = 'x' OR idempotency_key = 'x'"
        );
        assert_eq!(database.psql(&tried), "0", "{sql}");
    }
    assert_eq!(assert_sound(&node, &on).await.len(), 2);
    // Past the triggers it shows.
    database.psql(
        "ALTER TABLE numgen_ledger DISABLE TRIGGER ALL; UPDATE numgen_ledger SET subject = 'mallory' WHERE sequence = 1;
        ALTER TABLE numgen_ledger ENABLE TRIGGER ALL",
    );
    let verification = node.store.verify(on.clone()).await.expect("read");
    assert_eq!(verification.faults.len(), 1, "{verification:?}");
    database
        .psql("ALTER TABLE numgen_ledger DISABLE TRIGGER ALL; DELETE FROM numgen_ledger WHERE sequence = 1");
    let certificate = node.store.certificate(on.clone()).await.expect("read").expect("rows");
    assert_eq!(certificate.holes, [(SequenceValue(1), SequenceValue(1))]);
}

/// Whole batches of several counters, of which one has moved: the others are written all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_that_share_a_statement_stand_alone() {
    let database = Postgres::create_database();
    let (node, other) = (Arc::new(Node::on(&database)), Node::on(&database));
    let counters: Vec<_> = (0..40).map(|index| counter(&format!("{index}"))).collect();
    for round in 0..3_u64 {
        let mut tasks = JoinSet::new();
        for on in counters.clone() {
            let node = Arc::clone(&node);
            tasks.spawn(async move { node.draw(&on, 3).await });
        }
        tasks.join_all().await;
        for on in counters.iter().step_by(5) {
            other.draw(on, 1).await;
        }
        let rows = assert_sound(&node, &counters[1]).await.len() as u64;
        assert_eq!(rows, (round + 1) * 3);
    }
    for on in &counters {
        assert_sound(&other, on).await;
    }
}
