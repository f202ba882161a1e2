//! Two nodes under load, and a server that goes away.

use std::time::Duration;

use numgen::store::{CounterState, CounterStore};

use super::{Node, SECOND, counter, load::Load};
use crate::harness::{Fault, Postgres, Proxy, Stopwatch};

async fn state(node: &Node) -> CounterState {
    // What was drawn for callers who have gone is handed back by the beats that follow.
    tokio::time::sleep(2 * SECOND).await;
    node.counters.counters(&counter("LOAD", "").key).await.expect("read").remove(0)
}

/// Killed as by a power cut, and started again: segments stand in, nothing is lost, nothing is given out twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_loses_nothing() {
    let mut server = Postgres::start();
    let nodes = [Node::start(&server.url(), "a").await, Node::start(&server.url(), "b").await];
    let on = counter("LOAD", "");
    let mut first = Vec::new();
    for node in &nodes {
        first.push(node.wait_normal(&on).await);
    }
    let generation = |server: &Postgres| server.psql("SELECT generation FROM numgen_counter_marker");
    let before = generation(&server);
    let load = Load::on(&[&nodes[0].counters, &nodes[1].counters], &on);
    for _ in 0..3 {
        tokio::time::sleep(SECOND).await;
        server.kill();
        tokio::time::sleep(2 * SECOND).await;
        server.start_again();
        let watch = Stopwatch::start();
        for node in &nodes {
            node.wait_normal(&counter("OTHER", "")).await;
            let reached = node.counters.counters(&on.key).await.expect("read").remove(0).last;
            let draws = async {
                while node.counters.counters(&on.key).await.expect("read").remove(0).last <= reached {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(30 * SECOND, draws).await.expect("draws again");
        }
        println!("back to normal {} ms after the server", watch.elapsed().as_millis());
        watch.assert_within(30 * SECOND, "coming back");
    }
    let mut story = load.stop().await;
    story.come_back(&nodes[0].counters, &on).await;
    assert!(story.segment > 20, "segments stood in");
    assert_eq!(generation(&server), before, "a restart forgets nothing");
    story.with(first).assert_accounted(&state(&nodes[0]).await);
}

/// Replies that never come, that of COMMIT among them: every call is found out, and done once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cut_at_any_moment_do_everything_once() {
    let server = Postgres::start();
    let proxy = Proxy::to(server.port());
    let url = server.url().replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
    let nodes = [Node::start(&url, "a").await, Node::start(&url, "b").await];
    let on = counter("LOAD", "");
    let mut first = Vec::new();
    for node in &nodes {
        first.push(node.wait_normal(&on).await);
    }
    let load = Load::on(&[&nodes[0].counters, &nodes[1].counters], &on);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        proxy.set(Fault::CutReplies);
        tokio::time::sleep(Duration::from_millis(5)).await;
        proxy.set(Fault::None);
    }
    proxy.set(Fault::DropReplies);
    tokio::time::sleep(2 * SECOND).await;
    proxy.set(Fault::None);
    tokio::time::sleep(5 * SECOND).await;
    let mut story = load.stop().await;
    assert!(story.fresh > 5 && story.segment > 0, "it was drawn, and cut");
    for node in &nodes {
        node.wait_normal(&counter("OTHER", "")).await;
    }
    story.come_back(&nodes[0].counters, &on).await;
    story.with(first).assert_accounted(&state(&nodes[0]).await);
}
