//! What is committed before it is durable: nobody is told of it until it is.

use std::{sync::Arc, time::Duration};

use numgen::{
    config::StrictLocking,
    counter::SequenceValue,
    store::{
        AuditQuery, AuditStore as _, CounterStore as _, IssueRequest, LedgerQuery, LedgerStore as _,
        TakeRequest, Transition,
    },
};
use tokio::{task::JoinSet, time::sleep};

use super::{BOTH, FREE, NOW, Node, SECOND, assert_sound, counter, keyed, plain, step, values_of, void};
use crate::harness::{Fault, Postgres, Proxy, Stopwatch};

/// The way of a barrier, for who connects from now on: it rests before it writes.
fn slow_barrier(server: &Postgres, seconds: &str) {
    server.psql(&format!(
        "ALTER ROLE numgen SET search_path = public, pg_catalog;
        CREATE OR REPLACE FUNCTION public.pg_logical_emit_message(boolean, text, text) RETURNS pg_lsn LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep({seconds}); RETURN pg_catalog.pg_logical_emit_message($1, $2, $3); END $$;"
    ));
}

fn signal(process: &str, signal: &str) {
    let status = std::process::Command::new("kill").args([signal, process]).status().expect("kill");
    assert!(status.success(), "{signal} {process}");
}

/// As many callers as make it worth while to commit a batch ahead of the disk.
fn crowd() -> Vec<IssueRequest> {
    (0..4).map(|_| plain(1)).collect()
}

/// kill -9 of PostgreSQL between the commit of a batch and its barrier: it takes the batch back, and others are given its values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_takes_back_was_told_to_nobody() {
    for locking in BOTH {
        let mut tries = 1..=5;
        while !a_crash_takes_back(locking).await {
            assert!(tries.next().is_some(), "nothing was ever lost: this proves nothing");
        }
    }
}

/// False if the batch was on disk by chance: on a slow machine somebody else's turn to write the log may come first.
async fn a_crash_takes_back(locking: StrictLocking) -> bool {
    let mut server = Postgres::start_with(&["wal_writer_delay=10s", "autovacuum=off"]);
    slow_barrier(&server, "0");
    let proxy = Proxy::to(server.port());
    let url = server.url().replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
    let node = Arc::new(Node::start(&url, locking, 60 * SECOND));
    let on = counter("");
    node.draw(&on, 1).await;
    node.issue(&on, crowd()).await.expect("drawn");
    slow_barrier(&server, "30");
    // Nobody else writes the log to disk.
    let writer = server.psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
    signal(&writer, "-STOP");
    let mut call = JoinSet::new();
    {
        let (node, on) = (Arc::clone(&node), on.clone());
        call.spawn(async move { node.issue(&on, crowd()).await });
    }
    let watch = Stopwatch::start();
    while server.psql("SELECT count(*) FROM numgen_ledger") != "9" {
        watch.assert_within(20 * SECOND, "the commit");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(call.try_join_next().is_none(), "it was answered before it was durable");
    proxy.set(Fault::Refuse);
    tokio::task::block_in_place(|| {
        server.kill();
        signal(&writer, "-KILL");
        server.start_again();
    });
    let kept = server.psql("SELECT count(*) FROM numgen_ledger");
    if kept == "9" {
        return false;
    }
    assert_eq!(kept, "5", "all of the batch, or nothing");
    slow_barrier(&server, "0");
    let other = Node::start(&server.url(), locking, 10 * SECOND);
    assert_eq!(other.draw(&on, 1).await.to_string(), "6");
    proxy.set(Fault::None);
    let taken = call.join_all().await.remove(0).expect("drawn again");
    let values: Vec<_> = taken.iter().filter_map(values_of).map(ToString::to_string).collect();
    assert_eq!(values, ["7", "8", "9", "10"]);
    assert_eq!(assert_sound(&other, &on).await.len(), 10);
    true
}

/// A synchronous standby that is not there: what was committed ahead is seen by everybody, and nobody is told of it by any call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_what_is_on_no_standby() {
    let server = Postgres::start();
    // A connection for each call: nobody waits for anything but the standby.
    let start = || Node::start_with(16, &server.url(), StrictLocking::Row, 60 * SECOND);
    let nodes = [0, 1].map(|_| Arc::new(start()));
    let on = counter("");
    for node in &nodes {
        node.draw(&on, 1).await;
    }
    nodes[0].draw(&on, 1).await;
    // Nobody else holds this one.
    nodes[1].draw(&counter("apart"), 1).await;
    server.psql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.psql("SELECT pg_reload_conf()");
    sleep(SECOND / 2).await;
    let mut calls: JoinSet<&str> = JoinSet::new();
    {
        let (node, on) = (Arc::clone(&nodes[0]), on.clone());
        let mut requests = crowd();
        requests.push(keyed("k", 1));
        calls.spawn(async move {
            node.issue(&on, requests).await.expect("drawn");
            "the batch"
        });
    }
    let watch = Stopwatch::start();
    while server.psql("SELECT count(*) FROM numgen_ledger") != "9" {
        watch.assert_within(20 * SECOND, "the commit");
        sleep(Duration::from_millis(5)).await;
    }
    macro_rules! call {
        ($what:literal, |$node:ident, $on:ident| $call:expr) => {{
            let ($node, $on) = (Arc::clone(&nodes[1]), on.clone());
            calls.spawn(async move {
                $call.await.expect($what);
                $what
            });
        }};
    }
    let query = || LedgerQuery { period: None, from: None, to: None, state: None, after: None, limit: 100 };
    let claimed = || TakeRequest { count: 1, claim: keyed("k", 1).claim };
    call!("its key again", |node, on| node.issue(&on, vec![keyed("k", 1)]));
    call!("its key elsewhere", |node, on| node.store.take(on.clone(), FREE, vec![claimed()]));
    call!("rows", |node, on| node.store.rows(on.key.clone(), query()));
    call!("certificate", |node, on| node.store.certificate(on.clone()));
    call!("verification", |node, on| node.store.verify(on.clone()));
    call!("counters", |node, on| node.store.counters(&on.key));
    call!("highest", |node, on| node.store.retire(&on.key, 0));
    call!("confirmed", |node, on| {
        node.store.transition(on.key.clone(), vec![step("/8", Transition::Confirm)])
    });
    call!("voided", |node, on| { node.store.transition(on.key.clone(), vec![step("apart/1", void())]) });
    call!("the trail", |node, _on| {
        node.store.page(AuditQuery { key: None, after: None, from: None, to: None, limit: 10 })
    });
    call!("advanced", |node, on| {
        node.store.advance(on.clone(), SequenceValue(0), SequenceValue(8), "bob".into(), NOW)
    });
    sleep(2 * SECOND).await;
    assert_eq!(calls.try_join_next().transpose().expect("no panic"), None, "told before it was on a standby");
    server.psql("ALTER SYSTEM RESET synchronous_standby_names");
    server.psql("SELECT pg_reload_conf()");
    assert_eq!(calls.join_all().await.len(), 12);
    assert_eq!(assert_sound(&nodes[1], &on).await.len(), 8);
}
