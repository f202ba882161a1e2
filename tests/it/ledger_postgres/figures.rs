//! Measurements, for people.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use numgen::config::StrictLocking;
use tokio::{task::JoinSet, time::sleep};

use super::{Node, SECOND, counter, plain};
use crate::harness::{Postgres, Stopwatch};

/// `PG_URL=postgres://.. cargo test --test it ledger_postgres::figures -- --ignored --nocapture`: numbers a second on one hot counter
/// and on many, by callers who each ask again as soon as they are answered; batches as the combiner makes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn figures() {
    let database = Postgres::create_database();
    let url = std::env::var("PG_URL").unwrap_or_else(|_| database.url());
    for (locking, lanes, callers) in [
        (StrictLocking::Row, 1_usize, 64_usize),
        (StrictLocking::Optimistic, 1, 64),
        (StrictLocking::Row, 1_000, 64),
        (StrictLocking::Row, 1, 512),
    ] {
        let node = Arc::new(Node::start(&url, locking, 10 * SECOND));
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let waits = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let mut senders = Vec::new();
        for lane in 0..lanes {
            let (sender, mut receiver) =
                tokio::sync::mpsc::unbounded_channel::<tokio::sync::oneshot::Sender<()>>();
            senders.push(sender);
            let node = Arc::clone(&node);
            let on = counter(&format!("{locking:?}-{lanes}-{callers}-{lane}-{}", std::process::id()));
            tasks.spawn(async move {
                let mut waiting = Vec::new();
                while receiver.recv_many(&mut waiting, 256).await > 0 {
                    tokio::task::yield_now().await;
                    while let Ok(more) = receiver.try_recv() {
                        waiting.push(more);
                    }
                    let requests = waiting.iter().map(|_| plain(1)).collect();
                    node.issue(&on, requests).await.expect("drawn");
                    for caller in waiting.drain(..) {
                        let _ = caller.send(());
                    }
                }
            });
        }
        for caller in 0..callers {
            let (senders, stop, done, waits) =
                (senders.clone(), Arc::clone(&stop), Arc::clone(&done), Arc::clone(&waits));
            tasks.spawn(async move {
                let (mut round, mut own) = (caller * 7_919, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let (answer, answered) = tokio::sync::oneshot::channel();
                    let watch = Stopwatch::start();
                    senders[round % senders.len()].send(answer).expect("a lane");
                    answered.await.expect("answered");
                    own.push(watch.elapsed());
                    done.fetch_add(1, Ordering::Relaxed);
                    round += 104_729;
                }
                waits.lock().expect("no panic").extend(own);
            });
        }
        drop(senders);
        sleep(2 * SECOND).await;
        let (watch, before) = (Stopwatch::start(), done.load(Ordering::Relaxed));
        sleep(4 * SECOND).await;
        let rate = (done.load(Ordering::Relaxed) - before) as f64 / watch.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        tasks.join_all().await;
        let mut waits = std::mem::take(&mut *waits.lock().expect("no panic"));
        waits.sort_unstable();
        let at = |share: f64| waits[(waits.len() as f64 * share) as usize];
        println!(
            "{locking:?}, {lanes} counters, {callers} callers: {rate:.0}/s, p50 {:?}, p99 {:?}",
            at(0.5),
            at(0.99)
        );
    }
}
