//! Several processes draw on the same counters, with the same keys, under schemes that are retired meanwhile.

use std::sync::Arc;

use numgen::{
    counter::{Ranges, SequenceValue},
    store::{Bounds, CounterStore as _, LedgerStore as _, StoreError, TakeRequest, Taken},
};
use tokio::{task::JoinSet, time::sleep};

use super::{
    BOTH, FREE, NOW, Node, SECOND, Told, assert_sound, counter, delay_commits, keyed, numbers, plain,
    values_of,
};
use crate::harness::Postgres;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_draw_on_the_same_counters_with_the_same_keys() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let start = || Arc::new(Node::start(&database.url(), locking, 30 * SECOND));
        let nodes = [start(), start()];
        let counters = [counter("2026"), counter("2027")];
        let mut tasks = JoinSet::new();
        for task in 0..8_usize {
            let (node, on) = (Arc::clone(&nodes[task % 2]), counters[task / 2 % 2].clone());
            tasks.spawn(async move {
                let mut told = Told::default();
                for round in 0..30 {
                    // Every task comes with the same keys at about the same time, also to another counter.
                    let (once, twice) = (format!("a{round}"), format!("b{}", round / 2));
                    let requests = vec![plain(1), keyed(&twice, 2), plain(2), keyed(&once, 2)];
                    let taken = node.issue(&on, requests).await.expect("drawn");
                    let keys = [None, Some(&*twice), None, Some(&*once)];
                    keys.into_iter().zip(&taken).for_each(|(key, taken)| told.note(&on, key, taken));
                }
                told
            });
        }
        let mut told = Told::default();
        while let Some(task) = tasks.join_next().await {
            told.merge(task.expect("no panic"));
        }
        let mut ledgers = Vec::new();
        for on in counters {
            ledgers.push((on.clone(), assert_sound(&nodes[0], &on).await));
        }
        told.assert_in(&ledgers);
        let rows: usize = ledgers.iter().map(|(_, rows)| rows.len()).sum();
        assert_eq!(rows, 8 * 30 * 3 + (30 + 15) * 2, "plain draws, and each key once");
    }
}

/// The guess of a node that has not heard of another's batch writes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_take_turns() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let start = || Node::start(&database.url(), locking, 10 * SECOND);
        let (nodes, on) = ([start(), start()], counter(""));
        let mut last = 0;
        for turn in 0..20 {
            let values = nodes[turn / 2 % 2].draw(&on, 1).await;
            last += 1;
            assert_eq!(values.to_string(), last.to_string());
        }
        assert_eq!(assert_sound(&nodes[0], &on).await.len(), 20);
    }
}

/// Another node has moved the cursor without leaving a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guess_is_not_written_over_what_left_no_row() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let start = || Node::start(&database.url(), locking, 10 * SECOND);
        let (node, other, on) = (start(), start(), counter(""));
        node.draw(&on, 2).await;
        other.store.take(on.clone(), FREE, vec![TakeRequest { count: 3, claim: None }]).await.expect("drawn");
        assert_eq!(node.draw(&on, 1).await.to_string(), "6");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_used_on_another_counter_is_replayed() {
    let database = Postgres::create_database();
    let nodes = [Node::on(&database), Node::on(&database)];
    let (first, second) = (counter("2026"), counter("2027"));
    // Both know their counter, so both guess.
    nodes[0].draw(&first, 1).await;
    nodes[1].draw(&second, 5).await;
    let taken = nodes[0].issue(&first, vec![keyed("k", 2)]).await.expect("drawn");
    assert!(matches!(&taken[..], [Taken::Fresh(values)] if values.to_string() == "2-3"), "{taken:?}");
    let taken = nodes[1].issue(&second, vec![keyed("k", 2), plain(1)]).await.expect("drawn");
    assert!(
        matches!(&taken[..], [Taken::Replayed(recorded), Taken::Fresh(values)]
            if recorded.values.to_string() == "2-3" && values.to_string() == "6"),
        "{taken:?}"
    );
    assert_eq!(assert_sound(&nodes[0], &second).await.len(), 6);
}

/// A record is being written by a transaction that has not committed: whoever comes with its key waits, and then finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_being_recorded_is_waited_for() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let nodes = [0, 1].map(|_| Arc::new(Node::start(&database.url(), locking, 30 * SECOND)));
        let counters = [counter("2026"), counter("2027")];
        for (node, on) in nodes.iter().zip(&counters) {
            node.draw(on, 1).await;
        }
        delay_commits(&database, "0.5");
        let mut tasks = JoinSet::new();
        for (node, on) in nodes.iter().zip(&counters) {
            let (node, on) = (Arc::clone(node), on.clone());
            tasks.spawn(async move { node.issue(&on, vec![keyed("k", 1)]).await.expect("drawn").remove(0) });
        }
        let mut fresh = tasks.join_all().await;
        fresh.sort_by_key(|taken| matches!(taken, Taken::Replayed(_)));
        assert!(matches!(&fresh[..], [Taken::Fresh(_), Taken::Replayed(_)]), "{fresh:?}");
        let mut rows = 0;
        for on in &counters {
            rows += assert_sound(&nodes[0], on).await.len();
        }
        assert_eq!(rows, 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_record_is_replaced_once() {
    let database = Postgres::create_database();
    let nodes = [0, 1].map(|_| Arc::new(Node::on(&database)));
    let on = counter("");
    let again = |key: &str| {
        let mut request = keyed(key, 1);
        let later = NOW.plus(120 * SECOND);
        if let Some(claim) = &mut request.claim {
            (claim.claimed_at, claim.expires_at) = (later, later.plus(60 * SECOND));
        }
        request
    };
    for round in 0..10_u64 {
        let key = format!("k{round}");
        nodes[0].issue(&on, vec![keyed(&key, 1)]).await.expect("drawn");
        let mut tasks = JoinSet::new();
        for node in &nodes {
            let (node, on, request) = (Arc::clone(node), on.clone(), again(&key));
            tasks.spawn(async move { node.issue(&on, vec![request]).await.expect("drawn").remove(0) });
        }
        let answers = tasks.join_all().await;
        let expected = (round * 2 + 2).to_string();
        for answer in &answers {
            assert_eq!(values_of(answer).map(ToString::to_string), Some(expected.clone()), "{answers:?}");
        }
    }
    assert_eq!(assert_sound(&nodes[0], &on).await.len(), 20);
}

/// A record that had expired is renewed by somebody else between two looks at it: it is not taken away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_renewed_meanwhile_stands() {
    let database = Postgres::create_database();
    let (node, other, on) = (Node::on(&database), Node::on(&database), counter(""));
    other.issue(&on, vec![keyed("k", 1)]).await.expect("drawn");
    database.psql("UPDATE numgen_idempotency SET expires_at_ms = 1");
    // Readers pass, writers wait.
    let renewing = database.transact_slowly(
        "LOCK TABLE numgen_idempotency IN SHARE ROW EXCLUSIVE MODE",
        SECOND / 2,
        "UPDATE numgen_idempotency SET expires_at_ms = 9000000000000",
    );
    let taken = node.issue(&on, vec![keyed("k", 1)]).await.expect("answered");
    assert!(matches!(&taken[..], [Taken::Replayed(_)]), "{taken:?}");
    renewing.join().expect("renewed");
    assert_eq!(assert_sound(&node, &on).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retired_scheme_draws_nothing() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let start = || Node::start(&database.url(), locking, 10 * SECOND);
        let (node, other, on) = (start(), start(), counter(""));
        node.draw(&on, 3).await;
        assert_eq!(other.store.retire(&on.key, 2).await.expect("retired"), SequenceValue(3));
        assert_eq!(other.store.retire(&on.key, 1).await.expect("nothing new"), SequenceValue(3));
        for (scheme, on) in [(0, &on), (1, &on), (1, &counter("2026"))] {
            let bounds = Bounds { scheme, ..FREE };
            let refused = node.store.issue(on.clone(), bounds, vec![plain(1)], numbers(on)).await;
            assert!(matches!(refused, Err(StoreError::Superseded { .. })), "{refused:?}");
        }
        let bounds = Bounds { scheme: 2, ..FREE };
        let drawn = node.store.issue(on.clone(), bounds, vec![plain(1)], numbers(&on)).await;
        assert!(matches!(&drawn.expect("in force")[..], [Taken::Fresh(values)] if values.to_string() == "4"));
        assert_eq!(assert_sound(&node, &on).await.len(), 4);
    }
}

/// Whoever makes a sheet while schemes are being retired waits; whoever retires waits for those who draw.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retiring_waits_and_is_waited_for() {
    let database = Postgres::create_database();
    let (node, other) = (Arc::new(Node::on(&database)), Node::on(&database));
    let (on, young) = (counter("2026"), counter("2027"));
    node.draw(&on, 1).await;
    let retiring = database.transact_slowly(
        "UPDATE numgen_ledger_keys SET scheme = 1",
        SECOND / 2,
        "UPDATE numgen_ledger_counters SET scheme = 1",
    );
    let refused = node.issue(&young, vec![plain(1)]).await;
    assert!(matches!(refused, Err(StoreError::Superseded { .. })), "{refused:?}");
    retiring.join().expect("retired");

    // One that is known, and one that is new.
    delay_commits(&database, "0.7");
    for (scheme, on, count) in [(1, on, 5), (2, young, 9)] {
        let mut drawing = JoinSet::new();
        let (drawer, of) = (Arc::clone(&node), on.clone());
        drawing.spawn(async move {
            let bounds = Bounds { scheme, ..FREE };
            drawer.store.issue(of.clone(), bounds, vec![plain(count)], numbers(&of)).await
        });
        sleep(SECOND / 2).await;
        let highest = other.store.retire(&on.key, scheme + 1).await.expect("retired");
        let drawn = drawing.join_all().await.remove(0).expect("drawn before");
        assert_eq!(values_of(&drawn[0]).and_then(Ranges::last), Some(highest));
    }
}
