//! Counters that nobody draws from, and a store that forgets them.

use super::{
    schemes::{NEW, OLD, is_refused, retire},
    *,
};

const DRAWN: u64 = 20;

/// Longer than a counter is kept without a request.
const REST: Duration = Duration::from_secs(720);

/// Longer than a store settles.
const SETTLED: Duration = Duration::from_secs(15);

/// A process that has drawn so many values, and given the counter up.
async fn rested(server: &Arc<Server>) -> Process {
    let (process, _) = Process::warm(server, "a").await;
    while process.next().await < DRAWN {}
    sleep(REST).await;
    assert!(process.counters.desks.find(&counter()).is_none(), "given up");
    process
}

#[tokio::test(start_paused = true)]
async fn a_counter_at_rest_is_told_to_a_store_that_was_emptied() {
    let server = Server::new();
    let a = rested(&server).await;
    let b = Process::start(&server, "b", &Arc::default()).await;
    server.restart(Memory::default());
    // It is the first to ask, and knows nothing.
    b.take(vec![plain(1)]).await;
    sleep(SETTLED).await;
    assert!(b.next().await > DRAWN);
    assert!(a.counters.desks.find(&counter()).is_none(), "it rests again");
    let row = a.disk.row(&counter()).expect("a row");
    assert!(row.state.seen > Some(SequenceValue(DRAWN)), "and knows where the counter stands: {row:?}");
    let next = b.next().await;
    assert_eq!(a.next().await, next + 1);
}

#[tokio::test(start_paused = true)]
async fn a_counter_at_rest_is_told_by_the_next_process() {
    let server = Server::new();
    let disk = rested(&server).await.crash().await;
    server.restart(Memory::default());
    let b = Process::start(&server, "b", &Arc::default()).await;
    let _a = Process::start(&server, "a", &disk).await;
    b.take(vec![plain(1)]).await;
    sleep(SETTLED).await;
    assert!(b.next().await > DRAWN);
}

#[tokio::test(start_paused = true)]
async fn what_was_advanced_is_told_to_a_store_that_was_emptied() {
    for restarts in [false, true] {
        let server = Server::new();
        let mut a = rested(&server).await;
        let b = Process::start(&server, "b", &Arc::default()).await;
        let to = SequenceValue(50_000);
        let advanced = a.counters.advance(counter(), SequenceValue(0), to, "op".into(), UnixMillis(0)).await;
        assert_eq!(advanced.expect("answered"), Advanced::Done);
        server.restart(Memory::default());
        if restarts {
            let disk = a.crash().await;
            a = Process::start(&server, "a", &disk).await;
        }
        b.take(vec![plain(1)]).await;
        sleep(SETTLED).await;
        let next = b.next().await;
        assert!(next > to.0, "{next}");
        assert_eq!(a.next().await, next + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn who_draws_while_it_is_reported_goes_on() {
    let server = Server::new();
    let a = rested(&server).await;
    server.restart(Memory::default());
    let mut issued = BTreeSet::new();
    for round in 0..400 {
        sleep(Duration::from_millis(20 + round % 7)).await;
        for taken in a.take(vec![plain(1)]).await {
            let (Taken::Fresh(values) | Taken::Segment(values)) = taken else { continue };
            let value = values.last().expect("a value").0;
            assert!(value > DRAWN && issued.insert(value), "{value} twice");
        }
    }
    assert!(issued.len() > 200, "{}", issued.len());
    let row = a.disk.row(&counter()).expect("a row");
    assert!(row.state.segment.is_some(), "it is used, and bridged: {row:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_knows_as_much_is_told_nothing() {
    let server = Server::new();
    let a = rested(&server).await;
    let memory = server.memory().clone();
    server.restart(memory);
    let before = server.calls.load(Ordering::SeqCst);
    sleep(SETTLED).await;
    assert_eq!(server.calls.load(Ordering::SeqCst), before, "nothing is skipped for who needs not report");
    drop(a);
}

#[tokio::test(start_paused = true)]
async fn what_this_node_remembers_lies_below_the_floor() {
    let server = Server::new();
    let a = rested(&server).await;
    // By hand: no sign tells of it.
    server.memory().lists.clear();
    server.memory().counters.clear();
    assert!(retire(&a, 1).await >= DRAWN);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_was_lost_alone_is_made_again() {
    let server = Server::new();
    let (a, _) = Process::warm(&server, "a").await;
    while a.next().await < DRAWN {}
    let b = Process::start(&server, "b", &Arc::default()).await;
    server.lose_lists();
    // Reports are waited for, if the caller has so much time.
    let _late = b.counters.retire(&counter().key, 1).await;
    sleep(SETTLED).await;
    assert!(retire(&b, 1).await >= DRAWN);
    assert!(is_refused(&a, counter(), OLD).await, "the counter was fenced");
    assert!(!is_refused(&a, counter(), NEW).await);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_was_lost_alone_is_made_again_by_who_rests() {
    let server = Server::new();
    let a = rested(&server).await;
    let b = Process::start(&server, "b", &Arc::default()).await;
    server.lose_lists();
    // Reports are waited for, if the caller has so much time.
    let _late = b.counters.retire(&counter().key, 1).await;
    sleep(SETTLED).await;
    assert!(retire(&b, 1).await >= DRAWN);
    assert!(is_refused(&a, counter(), OLD).await, "the counter was fenced");
}
