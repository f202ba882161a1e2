//! What reached nobody: listed, if it came from a segment once the cursor has passed it, whatever becomes of the node.

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
async fn it_is_listed_by_a_node_that_goes_on() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    assert_eq!(node.take(vec![plain(3)]).await, [fresh(2, 4)]);
    node.counters.hand_back(counter(), range(3, 3).into()).await.expect("listed");
    assert_eq!(holes(&node.state().await), [(3, 3, HoleReason::Returned)]);
    let last = handed_back(&node).await;
    for _ in 0..40 {
        node.next().await;
    }
    sleep(Duration::from_secs(2)).await;
    let lost: Vec<_> = holes(&node.state().await).into_iter().map(|(from, to, _)| (from, to)).collect();
    assert_eq!(lost, [(3, 3), (last - 1, last)]);
}

/// A node that has handed a value back, and another one.
async fn two(server: &Arc<Server>) -> (Process, Process, u64) {
    let (node, _) = Process::warm(server, "a").await;
    let other = Process::start(server, "b", &Arc::default()).await;
    let value = handed_back(&node).await;
    (node, other, value)
}

#[tokio::test(start_paused = true)]
async fn it_is_listed_though_its_node_has_left_before_that() {
    let server = Server::new();
    let (node, other, value) = two(&server).await;
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
    let (node, other, value) = two(&Server::new()).await;
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
