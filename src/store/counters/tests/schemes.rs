//! A scheme that was retired on one node draws nothing on any.

use super::*;

pub(super) const OLD: Bounds = FREE;
pub(super) const NEW: Bounds = Bounds { scheme: 1, ..FREE };

fn unborn() -> Counter {
    Counter { period: Period::new("2027"), ..counter() }
}

pub(super) async fn retire(process: &Process, scheme: u64) -> u64 {
    process.counters.retire(&counter().key, scheme).await.expect("retired").0
}

pub(super) async fn is_refused(process: &Process, on: Counter, bounds: Bounds) -> bool {
    match process.counters.take(on, bounds, vec![plain(1)]).await {
        Err(StoreError::Superseded { .. }) => true,
        Ok(_) => false,
        Err(other) => panic!("{other:?}"),
    }
}

fn held(process: &Process) -> Option<ValueRange> {
    process.disk.row(&counter()).and_then(|row| row.state.segment).map(|segment| segment.0)
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_not_heard_of_a_change_draws_nothing() {
    let server = Server::new();
    let (a, _) = Process::warm(&server, "a").await;
    let (b, _) = Process::warm(&server, "b").await;
    let ends = [&a, &b].map(|process| held(process).expect("a segment").to.0);
    assert_eq!(retire(&a, 1).await, ends.into_iter().max().expect("two"));
    assert!(is_refused(&b, counter(), OLD).await, "a counter that it has used");
    assert!(is_refused(&b, unborn(), OLD).await, "a counter that nobody has used");
    assert!(is_refused(&a, counter(), OLD).await);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(held(&b), None, "given back");
    assert_eq!(b.state().await.segments, []);
    assert_eq!(server.counter(&counter()).cursor.0, 2);

    let new = Bounds { floor: SequenceValue(ends[0].max(ends[1])), ..NEW };
    let above = new.floor.0 + 1;
    assert_eq!(b.take_within(new, vec![plain(1)]).await, [fresh(above, above)], "it has heard of it");
    assert!(is_refused(&b, counter(), OLD).await, "a request that was under way");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_with_a_counter_of_its_own_is_refused() {
    let server = Server::new();
    let (a, _) = Process::warm(&server, "a").await;
    // Started before the change, and idle since.
    let b = Process::start(&server, "b", &Arc::default()).await;
    retire(&a, 1).await;
    assert!(is_refused(&b, counter(), OLD).await);
    assert!(is_refused(&b, unborn(), OLD).await);
    assert!(!server.memory().counters.contains_key(&unborn().to_string()), "not even looked at");
    assert!(!is_refused(&b, unborn(), NEW).await);
}

#[tokio::test(start_paused = true)]
async fn what_a_node_issues_while_it_is_away_lies_below_the_floor() {
    let server = Server::new();
    let (a, _) = Process::warm(&server, "a").await;
    let (b, _) = Process::warm(&server, "b").await;
    b.link.set(Network::Down);
    let floor = retire(&a, 1).await;
    let mut last = 0;
    for _ in 0..SIZE {
        let taken = b.take_within(OLD, vec![plain(1)]).await;
        let [Taken::Segment(values)] = &taken[..] else { panic!("not from the segment: {taken:?}") };
        last = last.max(values.last().expect("a value").0);
    }
    assert!((1..=floor).contains(&last), "{last} is not below {floor}");
    b.link.set(Network::Whole);
    sleep(Duration::from_secs(5)).await;
    assert!(is_refused(&b, counter(), OLD).await);
    b.link.set(Network::Down);
    assert_eq!(b.take_within(OLD, vec![plain(1)]).await, [Taken::Away], "it got no other segment");
}

#[tokio::test(start_paused = true)]
async fn the_next_process_knows_the_scheme_of_its_segment() {
    let server = Server::new();
    let (a, _) = Process::warm(&server, "a").await;
    a.take_within(NEW, vec![plain(1)]).await;
    sleep(Duration::from_millis(50)).await;
    // A swap, so that the row tells of the scheme.
    for _ in 0..30 {
        a.take_within(NEW, vec![plain(1)]).await;
    }
    sleep(Duration::from_secs(2)).await;
    let disk = a.crash().await;
    let a = Process::start(&server, "a", &disk).await;
    sleep(Duration::from_secs(2)).await;
    assert!(held(&a).is_some(), "it stays in the present scheme");
    a.link.set(Network::Down);
    assert!(is_refused(&a, counter(), OLD).await, "the segment belongs to another scheme");
    assert!(matches!(a.take_within(NEW, vec![plain(1)]).await[..], [Taken::Segment(_)]));

    // Retired by somebody else while it was down: it may report and give back.
    let disk = a.crash().await;
    let (b, _) = (Process::start(&server, "b", &Arc::default()).await, ());
    retire(&b, 2).await;
    let a = Process::start(&server, "a", &disk).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(held(&a), None);
    assert!(is_refused(&a, counter(), NEW).await);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_was_lost_is_closed_again_by_those_who_know() {
    let server = Server::new();
    let (a, _) = Process::warm(&server, "a").await;
    let (b, _) = Process::warm(&server, "b").await;
    retire(&a, 1).await;
    a.take_within(NEW, vec![plain(1)]).await;
    server.restart(Memory::default());
    sleep(Duration::from_secs(15)).await;
    assert!(!is_refused(&a, counter(), NEW).await);
    assert!(is_refused(&b, counter(), OLD).await);
    assert!(is_refused(&b, unborn(), OLD).await);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_has_forgotten_is_waited_for() {
    let server = Server::new();
    let (a, first) = Process::warm(&server, "a").await;
    for _ in 0..20 {
        a.next().await;
    }
    // Old, and before most of what was drawn.
    server.restart(Memory::default());
    let retired = a.counters.retire(&counter().key, 1).await;
    match retired {
        Ok(floor) => assert!(floor.0 >= first + 20, "{floor}"),
        Err(StoreError::Timeout { .. }) => {}
        Err(other) => panic!("{other:?}"),
    }
    sleep(Duration::from_secs(10)).await;
    assert!(retire(&a, 1).await >= first + 20);
}
