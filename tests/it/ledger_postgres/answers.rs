//! Answers that never come: cut connections, killed servers, commits that are still under way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use numgen::{config::StrictLocking, store::StoreError};
use tokio::{task::JoinSet, time::sleep};

use super::{
    BOTH, Node, SECOND, Told, assert_sound, counter, delay_commits, keyed, no_delay, plain, rows_in, through,
    wait_for_rows,
};
use crate::harness::{Fault, Postgres, Proxy, Stopwatch};

/// The connection is cut in the middle of COMMIT: the numbers are found on another one, for callers without a key too. First with a
/// guess, then with the row lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_is_found_out() {
    for locking in BOTH {
        for guessing in [true, false] {
            let database = Postgres::create_database();
            let proxy = Proxy::to(Postgres::shared().port());
            let node = Arc::new(Node::start(&through(&proxy, &database), locking, 20 * SECOND));
            let (other, on) = (Node::on(&database), counter(""));
            node.draw(&on, 1).await;
            if !guessing {
                other.draw(&on, 1).await;
            }
            let before: u64 = rows_in(&database).parse().expect("a number");
            delay_commits(&database, "0.7");
            let call = {
                let (node, on) = (Arc::clone(&node), on.clone());
                let mut tasks = JoinSet::new();
                tasks.spawn(async move { node.draw(&on, 1).await });
                tasks
            };
            // Long enough for COMMIT to have been sent, not for its answer.
            sleep(Duration::from_millis(500)).await;
            proxy.set(Fault::CutReplies);
            wait_for_rows(&database, &(before + 1).to_string()).await;
            no_delay(&database);
            sleep(Duration::from_millis(100)).await;
            proxy.set(Fault::None);
            let drawn = call.join_all().await.remove(0);
            assert_eq!(drawn.to_string(), (before + 1).to_string());
            assert_eq!(assert_sound(&other, &on).await.len() as u64, before + 1, "drawn once");
        }
    }
}

/// The node is back before the transaction that it has lost has ended: the question waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_under_way_is_waited_for() {
    for guessing in [true, false] {
        let database = Postgres::create_database();
        let proxy = Proxy::to(Postgres::shared().port());
        let node = Arc::new(Node::start(&through(&proxy, &database), StrictLocking::Row, 20 * SECOND));
        let (other, on) = (Node::on(&database), counter(""));
        node.draw(&on, 1).await;
        if !guessing {
            other.draw(&on, 1).await;
        }
        let before = rows_in(&database).parse::<usize>().expect("a number");
        delay_commits(&database, "3");
        let mut call = JoinSet::new();
        {
            let (node, on) = (Arc::clone(&node), on.clone());
            call.spawn(async move { node.draw(&on, 1).await });
        }
        sleep(SECOND / 2).await;
        proxy.set(Fault::Refuse);
        sleep(SECOND / 20).await;
        proxy.set(Fault::None);
        assert_eq!(call.join_all().await.remove(0).to_string(), (before + 1).to_string());
        no_delay(&database);
        assert_eq!(assert_sound(&other, &on).await.len(), before + 1, "drawn once");
    }
}

/// The same, and before the node is back another has written over its signature.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_was_written_over_is_found_out() {
    let database = Postgres::create_database();
    let proxy = Proxy::to(Postgres::shared().port());
    let node = Arc::new(Node::start(&through(&proxy, &database), StrictLocking::Row, 20 * SECOND));
    let (others, on) = ([Node::on(&database), Node::on(&database)], counter(""));
    node.draw(&on, 1).await;
    delay_commits(&database, "0.7");
    let mut call = JoinSet::new();
    {
        let (node, on) = (Arc::clone(&node), on.clone());
        call.spawn(async move { node.draw(&on, 1).await });
    }
    sleep(Duration::from_millis(500)).await;
    proxy.set(Fault::Refuse);
    wait_for_rows(&database, "2").await;
    no_delay(&database);
    for other in &others {
        other.draw(&on, 1).await;
        other.draw(&on, 1).await;
    }
    proxy.set(Fault::None);
    assert_eq!(call.join_all().await.remove(0).to_string(), "2");
    assert_eq!(assert_sound(&others[0], &on).await.len(), 6, "drawn once");
}

/// Connections are cut while they are opened: nobody who has time notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_as_they_open_cost_nobody() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let proxy = Proxy::to(Postgres::shared().port());
        let node = Arc::new(Node::start(&through(&proxy, &database), locking, 60 * SECOND));
        let on = counter("");
        node.draw(&on, 1).await;
        for _ in 0..5 {
            proxy.set(Fault::CutReplies);
            let mut calls = JoinSet::new();
            for _ in 0..4 {
                let (node, on) = (Arc::clone(&node), on.clone());
                calls.spawn(async move { node.rows(&on).await.len() });
            }
            sleep(Duration::from_millis(50)).await;
            proxy.set(Fault::None);
            assert_eq!(calls.join_all().await, [1; 4]);
        }
    }
}

/// Connections are cut again and again under load. Every caller is answered in time, each value has one caller, none is left over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_lose_and_double_nothing() {
    for locking in BOTH {
        let database = Postgres::create_database();
        let proxy = Proxy::to(Postgres::shared().port());
        let node = Arc::new(Node::start(&through(&proxy, &database), locking, 60 * SECOND));
        let on = [counter("2026"), counter("2027"), counter("2028")];
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for task in 0..6_usize {
            let (node, on) = (Arc::clone(&node), on[task % 3].clone());
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tasks.spawn(async move {
                let (mut told, mut round) = (Told::default(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("{task}-{round}");
                    let taken = node.issue(&on, vec![plain(1), keyed(&key, 1)]).await.expect("in time");
                    told.note(&on, None, &taken[0]);
                    told.note(&on, Some(&key), &taken[1]);
                    done.fetch_add(1, Ordering::Relaxed);
                    round += 1;
                }
                told
            });
        }
        for round in 0..6 {
            // Until it is under load again.
            let before = done.load(Ordering::Relaxed);
            let watch = Stopwatch::start();
            while done.load(Ordering::Relaxed) < before + 30 {
                watch.assert_within(30 * SECOND, "a number");
                sleep(Duration::from_millis(5)).await;
            }
            proxy.set(if round % 2 == 0 { Fault::CutReplies } else { Fault::Refuse });
            sleep(Duration::from_millis(50)).await;
            proxy.set(Fault::None);
        }
        stop.store(true, Ordering::Relaxed);
        let mut told = Told::default();
        while let Some(task) = tasks.join_next().await {
            told.merge(task.expect("no panic"));
        }
        let direct = Node::on(&database);
        let mut ledgers = Vec::new();
        for on in on {
            ledgers.push((on.clone(), assert_sound(&direct, &on).await));
        }
        told.assert_in(&ledgers);
        let rows: usize = ledgers.iter().map(|(_, rows)| rows.len()).sum();
        let answered: usize = told.fresh.values().map(Vec::len).sum::<usize>() + told.of_key.len();
        assert_eq!(rows, answered, "no number without a caller");
    }
}

/// kill -9 of PostgreSQL in the middle of commits, three times. Whoever is not answered asks again with the same key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_database_loses_and_doubles_nothing() {
    for locking in BOTH {
        let mut server = Postgres::start();
        let nodes = [0, 1].map(|_| Arc::new(Node::start(&server.url(), locking, 3 * SECOND)));
        let on = [counter("2026"), counter("2027")];
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for task in 0..8_usize {
            let (node, on) = (Arc::clone(&nodes[task % 2]), on[task / 2 % 2].clone());
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tasks.spawn(async move {
                let (mut told, mut round) = (Told::default(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("{task}-{round}");
                    let mut asked = vec![plain(1), keyed(&key, 2)];
                    let taken = loop {
                        match node.issue(&on, asked).await {
                            Ok(taken) => break taken,
                            Err(StoreError::Timeout { .. } | StoreError::Unavailable { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                        asked = vec![plain(1), keyed(&key, 2)];
                        sleep(Duration::from_millis(20)).await;
                    };
                    told.note(&on, None, &taken[0]);
                    told.note(&on, Some(&key), &taken[1]);
                    done.fetch_add(1, Ordering::Relaxed);
                    round += 1;
                }
                told
            });
        }
        for _ in 0..3 {
            let before = done.load(Ordering::Relaxed);
            let watch = Stopwatch::start();
            while done.load(Ordering::Relaxed) < before + 40 {
                watch.assert_within(60 * SECOND, "a number");
                sleep(Duration::from_millis(5)).await;
            }
            tokio::task::block_in_place(|| {
                server.kill();
                server.start_again();
            });
        }
        sleep(SECOND).await;
        stop.store(true, Ordering::Relaxed);
        let mut told = Told::default();
        while let Some(task) = tasks.join_next().await {
            told.merge(task.expect("no panic"));
        }
        let mut ledgers = Vec::new();
        for on in on {
            ledgers.push((on.clone(), assert_sound(&nodes[0], &on).await));
        }
        told.assert_in(&ledgers);
    }
}

/// Batches wait for the press when the process is killed softly: whoever inherits the right to write finds no runtime to do so.
#[test]
fn a_runtime_that_ends_ends_with_batches_waiting() {
    let database = Postgres::create_database();
    let proxy = Proxy::to(Postgres::shared().port());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (node, waiting) = runtime.block_on(async {
        let node = Arc::new(Node::start(&through(&proxy, &database), StrictLocking::Row, 60 * SECOND));
        let counters: Vec<_> = (0..6).map(|year| counter(&format!("202{year}"))).collect();
        for on in &counters {
            node.draw(on, 1).await;
        }
        proxy.set(Fault::BlackHole);
        let mut waiting = JoinSet::new();
        for on in counters {
            let node = Arc::clone(&node);
            waiting.spawn(async move { node.issue(&on, vec![plain(1)]).await });
        }
        sleep(Duration::from_millis(300)).await;
        (node, waiting)
    });
    assert_eq!(waiting.len(), 6);
    runtime.shutdown_timeout(10 * SECOND);
    assert_eq!(Arc::strong_count(&node), 1, "every task was let go of");
}
