//! What was issued from a segment and reached nobody: listed once the cursor has passed it, whatever becomes of the node.

use super::*;

/// The last of two values that a node issued from its segment while its authority was away, for callers who had gone.
async fn handed_back(node: &Process) -> u64 {
    node.link.set(Network::Down);
    let taken = node.take(vec![plain(2)]).await;
    let [Taken::Segment(values)] = &taken[..] else { panic!("{taken:?}") };
    node.counters.hand_back(counter(), values.clone()).await.expect("noted");
    node.link.set(Network::Whole);
    sleep(Duration::from_secs(3)).await;
    values.last().expect("values").0
}

/// Draws until the cursor has passed `value`, which nobody is given.
async fn pass(node: &Process, value: u64) {
    while node.state().await.last.0 <= value {
        assert_ne!(node.next().await, value);
    }
}

fn is_returned(state: &CounterState, value: u64) -> bool {
    holes(state)
        .iter()
        .any(|(from, to, reason)| (*from..=*to).contains(&value) && *reason == HoleReason::Returned)
}

#[tokio::test(start_paused = true)]
async fn it_is_listed_though_its_node_has_left_before_that() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    let other = Process::start(&server, "b", &Arc::default()).await;
    let value = handed_back(&node).await;
    let shown = node.state().await;
    let used = shown.segments.iter().find(|segment| (segment.from.0..=segment.to.0).contains(&value));
    assert!(used.is_none(), "nobody has it: {used:?}");
    node.counters.leave(Duration::from_secs(5)).await;
    pass(&other, value).await;
    let state = other.state().await;
    assert!(is_returned(&state, value), "{value}: {:?}", holes(&state));
    // The next process on this disk says nothing else.
    let disk = node.crash().await;
    let next = Process::start(&server, "a", &disk).await;
    next.next().await;
    let state = next.state().await;
    assert!(is_returned(&state, value), "{value}: {:?}", holes(&state));
}

#[tokio::test(start_paused = true)]
async fn it_is_listed_though_its_node_dies_before_that() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    let other = Process::start(&server, "b", &Arc::default()).await;
    let value = handed_back(&node).await;
    drop(node.crash().await);
    sleep(Duration::from_secs(90)).await;
    pass(&other, value).await;
    let state = other.state().await;
    assert!(is_returned(&state, value), "{value}: {:?}", holes(&state));
}

#[tokio::test(start_paused = true)]
async fn it_is_nobodys_in_a_store_that_has_forgotten_either() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    let (other, _) = Process::warm(&server, "b").await;
    let value = handed_back(&node).await;
    server.restart(Memory::default());
    // Who speaks first draws first.
    sleep(Duration::from_secs(12)).await;
    pass(&other, value).await;
    let state = node.state().await;
    assert!(is_returned(&state, value), "{value}: {:?}", holes(&state));
}
