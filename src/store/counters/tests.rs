//! Nodes over one authority, with faults: what is issued is issued once, in order while all is well, and what is not is listed.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use futures_util::future::join_all;
use tokio::time::sleep;

use super::{
    fake::{Disk, Link, Memory, Network, Server},
    *,
};
use crate::{
    calendar::Period,
    clock::ManualClock,
    counter::ValueRange,
    store::{
        AuditAction, AuditDetails, AuditEntry, AuditQuery, AuditStore, Author, Claim, HoleReason,
        SegmentState, memory::MemoryStore,
    },
};

mod granted;
mod losses;
mod resting;
mod returned;
mod schemes;

const SIZE: u64 = 10;
const FREE: Bounds = Bounds {
    base: SequenceValue(0),
    floor: SequenceValue(0),
    max: SequenceValue::MAX,
    scheme: 0,
    on_outage: OnOutage::Segment,
};

fn counter() -> Counter {
    Counter { key: PrefixKey::parse("ORDERS").expect("valid"), period: Period::new("2026") }
}

fn plain(count: u32) -> TakeRequest {
    TakeRequest { count, claim: None }
}

fn keyed(count: u32, key: &str) -> TakeRequest {
    let claim = Claim {
        scoped_key: key.into(),
        fingerprint: [1; 32],
        stamp: "stamp".into(),
        claimed_at: UnixMillis(1_000),
        expires_at: UnixMillis(1_000_000),
    };
    TakeRequest { count, claim: Some(claim) }
}

fn fresh(from: u64, to: u64) -> Taken {
    Taken::Fresh(range(from, to).into())
}

fn segment(from: u64, to: u64) -> Taken {
    Taken::Segment(range(from, to).into())
}

fn range(from: u64, to: u64) -> ValueRange {
    ValueRange { from: SequenceValue(from), to: SequenceValue(to) }
}

/// One process.
struct Process {
    counters: SharedCounters,
    link: Arc<Link>,
    disk: Arc<Disk>,
    lifecycle: Lifecycle,
}

impl Process {
    async fn start(server: &Arc<Server>, node: &str, disk: &Arc<Disk>) -> Self {
        Self::start_with(server, node, disk, Network::Whole).await
    }

    async fn start_with(server: &Arc<Server>, node: &str, disk: &Arc<Disk>, network: Network) -> Self {
        let (link, lifecycle) = (Link::to(server), Lifecycle::new());
        link.set(network);
        Self::launch(node, SIZE, link, Arc::clone(disk), lifecycle).await
    }

    /// One whose segments have this size.
    async fn start_sized(server: &Arc<Server>, node: &str, size: u64) -> Self {
        Self::launch(node, size, Link::to(server), Arc::default(), Lifecycle::new()).await
    }

    async fn launch(node: &str, size: u64, link: Arc<Link>, disk: Arc<Disk>, lifecycle: Lifecycle) -> Self {
        let settings =
            Settings { node: node.to_owned(), segment_size: size, timeout: Duration::from_secs(5) };
        let counters = SharedCounters::over(link.clone(), disk.clone(), None, settings, &lifecycle)
            .await
            .expect("started");
        Self { counters, link, disk, lifecycle }
    }

    /// One that has drawn its first value and holds a segment.
    async fn warm(server: &Arc<Server>, node: &str) -> (Self, u64) {
        let process = Self::start(server, node, &Arc::default()).await;
        let first = process.next().await;
        sleep(Duration::from_millis(50)).await;
        (process, first)
    }

    async fn take(&self, requests: Vec<TakeRequest>) -> Vec<Taken> {
        self.take_within(FREE, requests).await
    }

    async fn take_within(&self, bounds: Bounds, requests: Vec<TakeRequest>) -> Vec<Taken> {
        self.counters.take(counter(), bounds, requests).await.expect("answered")
    }

    async fn next(&self) -> u64 {
        let taken = self.take(vec![plain(1)]).await;
        let [Taken::Fresh(values)] = &taken[..] else { panic!("not fresh: {taken:?}") };
        values.last().expect("a value").0
    }

    async fn state(&self) -> CounterState {
        self.counters.counters(&counter().key).await.expect("read").remove(0)
    }

    /// The end without a goodbye: tasks stop, the disk stays.
    async fn crash(self) -> Arc<Disk> {
        self.lifecycle.drain();
        self.lifecycle.finished(Duration::from_secs(60)).await;
        self.disk
    }
}

fn holes(state: &CounterState) -> Vec<(u64, u64, HoleReason)> {
    state.holes.iter().map(|hole| (hole.from.0, hole.to.0, hole.reason)).collect()
}

#[tokio::test(start_paused = true)]
async fn nodes_count_on_together_in_the_order_of_asking() {
    let server = Server::new();
    let disks = [Arc::default(), Arc::default()];
    let (a, b) =
        (Process::start(&server, "a", &disks[0]).await, Process::start(&server, "b", &disks[1]).await);
    for round in 0..100 {
        assert_eq!((a.next().await, b.next().await), (2 * round + 1, 2 * round + 2));
    }
    sleep(Duration::from_millis(50)).await;
    let state = a.state().await;
    assert_eq!((state.last.0, holes(&state)), (200, vec![]), "segments lay in the way, and were swapped");
    let held: Vec<_> = state.segments.iter().map(|segment| (segment.node.as_str(), segment.state)).collect();
    assert_eq!(held, [("a", SegmentState::Held), ("b", SegmentState::Held)], "{:?}", state.segments);
    let writes = a.disk.writes.load(Ordering::SeqCst);
    assert!(writes < 30, "{writes} writes");
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_one_message() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    let before = server.calls.load(Ordering::SeqCst);
    let taken = node.take(vec![plain(2), keyed(1, "k"), plain(1), keyed(3, "l"), keyed(1, "k")]).await;
    assert_eq!(taken[..4], [fresh(2, 3), fresh(5, 5), fresh(4, 4), fresh(6, 8)]);
    assert!(
        matches!(&taken[4], Taken::Replayed(recorded) if recorded.values == range(5, 5).into()),
        "{taken:?}"
    );
    assert_eq!(server.calls.load(Ordering::SeqCst) - before, 1);
}

#[tokio::test(start_paused = true)]
async fn away_a_node_issues_its_segment_and_no_more() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    node.link.set(Network::Down);
    let mut issued = BTreeSet::new();
    let began = Instant::now();
    for _ in 0..SIZE {
        let taken = node.take(vec![plain(1)]).await;
        let [Taken::Segment(values)] = &taken[..] else { panic!("not from the segment: {taken:?}") };
        assert!(issued.insert(values.last().expect("a value").0));
    }
    assert!(began.elapsed() < Duration::from_millis(200), "only the first waits: {:?}", began.elapsed());
    assert_eq!(node.take(vec![plain(1), keyed(1, "k")]).await, [Taken::Away, Taken::Away]);
    sleep(Duration::from_secs(60)).await;
    node.link.set(Network::Whole);
    sleep(Duration::from_secs(2)).await;
    let first = node.next().await;
    assert_eq!(first, 2, "nothing was lost with the call that was never sent");
    issued.insert(first);
    for _ in 0..40 {
        assert!(issued.insert(node.next().await));
    }
    let state = node.state().await;
    assert_eq!(holes(&state), []);
    assert_eq!(issued, (2..=state.last.0).collect());
    assert_eq!(node.counters.figures().segment_remaining, Some(SIZE), "a fresh segment for the next time");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_the_segment_cannot_serve_whole_is_refused_and_smaller_ones_go_on() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    node.link.set(Network::Down);
    let from = node.disk.row(&counter()).and_then(|row| row.state.next()).expect("a segment").0;
    let taken = node.take(vec![plain(7), keyed(1, "k"), plain(4), plain(3)]).await;
    assert_eq!(taken, [segment(from, from + 6), Taken::Away, Taken::Away, segment(from + 7, from + 9)]);
    let fail = Bounds { on_outage: OnOutage::Fail, ..FREE };
    assert_eq!(node.take_within(fail, vec![plain(1)]).await, [Taken::Away]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_asked_for_again_and_its_values_are_listed() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    node.link.set(Network::Deaf);
    let taken = node.take(vec![plain(3), keyed(2, "k")]).await;
    assert!(matches!(&taken[..], [Taken::Segment(_), Taken::Away]), "{taken:?}");
    node.link.set(Network::Whole);
    sleep(Duration::from_secs(2)).await;
    let again = node.take(vec![keyed(2, "k")]).await;
    let [Taken::Replayed(recorded)] = &again[..] else { panic!("{again:?}") };
    assert_eq!(recorded.values, range(5, 6).into());
    assert_eq!(node.next().await, 7);
    assert_eq!(holes(&node.state().await), [(2, 4, HoleReason::Returned)]);
}

#[tokio::test(start_paused = true)]
async fn a_counter_that_is_stuck_is_away_after_a_second() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    node.link.set(Network::BlackHole);
    let began = Instant::now();
    assert!(matches!(node.take(vec![plain(1)]).await[..], [Taken::Segment(_)]));
    let waited = began.elapsed();
    assert!((1_000..1_100).contains(&waited.as_millis()), "{waited:?}");
    for _ in 0..5 {
        let began = Instant::now();
        assert!(matches!(node.take(vec![plain(1)]).await[..], [Taken::Segment(_)]));
        assert!(began.elapsed() < Duration::from_millis(10), "the network is not waited for");
    }
    node.link.set(Network::Whole);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(node.next().await, 3, "the request that got no answer was asked for again");
    assert_eq!(holes(&node.state().await), [(2, 2, HoleReason::Returned)]);
}

#[tokio::test(start_paused = true)]
async fn the_next_process_goes_on_from_the_disk() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    node.link.set(Network::Down);
    let before = node.take(vec![plain(4)]).await;
    let disk = node.crash().await;
    let node = Process::start_with(&server, "a", &disk, Network::Down).await;
    let after = node.take(vec![plain(SIZE as u32 - 4)]).await;
    let ([Taken::Segment(before)], [Taken::Segment(after)]) = (&before[..], &after[..]) else {
        panic!("{before:?}, {after:?}")
    };
    assert_eq!(before.last().map(|last| last.0 + 1), after.values().next().map(|first| first.0));
    node.link.set(Network::Whole);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(server.counter(&counter()).members.len(), 1, "the process before is retired");
    let (mut seen, used): (BTreeSet<u64>, Vec<_>) =
        (BTreeSet::new(), before.values().chain(after.values()).map(|value| value.0).collect());
    for _ in 0..40 {
        assert!(seen.insert(node.next().await));
    }
    assert!(used.iter().all(|value| !seen.contains(value)), "{used:?} came twice");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_repeats_nothing() {
    for is_empty in [true, false] {
        let server = Server::new();
        let (a, _) = Process::warm(&server, "a").await;
        let (b, _) = Process::warm(&server, "b").await;
        let saved = if is_empty { Memory::default() } else { server.memory().clone() };
        let mut issued: BTreeSet<u64> = BTreeSet::from([1, 2]);
        for _ in 0..30 {
            assert!(issued.insert(a.next().await) && issued.insert(b.next().await));
        }
        server.restart(saved);
        for round in 0..20 {
            for node in [&a, &b] {
                for taken in node.take(vec![plain(1)]).await {
                    let (Taken::Fresh(values) | Taken::Segment(values)) = taken else { continue };
                    assert!(values.values().all(|value| issued.insert(value.0)), "{values} came twice");
                }
            }
            sleep(Duration::from_millis(50 * round)).await;
        }
        sleep(Duration::from_secs(6)).await;
        assert!(issued.insert(a.next().await) && issued.insert(b.next().await));
        let state = a.state().await;
        let listed = |value: u64| state.holes.iter().any(|hole| hole.from.0 <= value && value <= hole.to.0);
        let held = |value: u64| {
            state.segments.iter().any(|segment| segment.from.0 <= value && value <= segment.to.0)
        };
        for value in state.base.0 + 1..=state.last.0 {
            assert!(issued.contains(&value) || listed(value) || held(value), "{value} is missing");
        }
        assert!(state.last.0 < 1_000, "everybody reported in time: nothing is skipped, {state:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn overflow_leaves_what_fits_to_others() {
    let server = Server::new();
    let node = Process::start(&server, "a", &Arc::default()).await;
    let bounds = Bounds { max: SequenceValue(5), ..FREE };
    assert_eq!(node.take_within(bounds, vec![keyed(1, "k")]).await, [fresh(1, 1)]);
    let requests = vec![plain(3), keyed(2, "l"), plain(2), keyed(1, "k"), plain(1)];
    let taken = node.take_within(bounds, requests).await;
    assert_eq!(taken[..3], [fresh(2, 4), Taken::Overflow, Taken::Overflow]);
    assert!(matches!(&taken[3], Taken::Replayed(_)), "{taken:?}");
    assert_eq!(taken[4], fresh(5, 5));
    assert_eq!(node.take_within(bounds, vec![plain(1), plain(2)]).await, [Taken::Overflow, Taken::Overflow]);
}

#[tokio::test(start_paused = true)]
async fn what_was_served_of_a_batch_that_fails_is_listed() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    // The rule is changed when the request without a key was served, and the one with a key, too large, was not asked for alone yet.
    let change = async {
        while server.counter(&counter()).cursor < SequenceValue(4) {
            sleep(Duration::from_millis(1)).await;
        }
        let mut memory = server.memory();
        let (_, slot) = memory.counters.get_mut(&counter().to_string()).expect("known");
        slot.as_mut().expect("a counter").scheme = 1;
    };
    let bounds = Bounds { max: SequenceValue(30), ..FREE };
    let requests = vec![plain(3), keyed(100, "k")];
    let (taken, ()) = tokio::join!(node.counters.take(counter(), bounds, requests), change);
    assert!(matches!(taken, Err(StoreError::Superseded { .. })), "{taken:?}");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(holes(&node.state().await), [(2, 4, HoleReason::Returned)]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_dropped_in_the_middle_loses_nothing() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    node.link.set(Network::Deaf);
    let take = node.counters.take(counter(), FREE, vec![plain(2)]);
    assert!(tokio::time::timeout(Duration::from_millis(10), take).await.is_err(), "dropped");
    node.link.set(Network::Whole);
    assert_eq!(node.next().await, 4, "a request is served by a message that was sent after it");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(holes(&node.state().await), [(2, 3, HoleReason::Returned)]);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_answers_nothing_and_repeats_nothing() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    let first = node.disk.row(&counter()).and_then(|row| row.state.next()).expect("a segment").0;
    node.link.set(Network::Down);
    node.disk.is_broken.store(true, Ordering::SeqCst);
    node.counters.take(counter(), FREE, vec![plain(2)]).await.expect_err("the disk does not answer");
    node.disk.is_broken.store(false, Ordering::SeqCst);
    assert_eq!(node.take(vec![plain(1)]).await, [segment(first + 2, first + 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_counter_that_rests_is_given_up_and_taken_up_again() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    sleep(Duration::from_secs(60)).await;
    let before = server.calls.load(Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    let beats = server.calls.load(Ordering::SeqCst) - before;
    assert!((14..=16).contains(&beats), "{beats} beats a minute");
    sleep(Duration::from_secs(600)).await;
    assert_eq!(node.state().await.segments, []);
    let row = node.disk.row(&counter()).expect("a row");
    assert_eq!((row.state.segment, row.state.seen), (None, Some(SequenceValue(1))));
    let left = node.disk.left.lock().expect("no panic").clone();
    assert_eq!(left, [(counter(), row.incarnation)], "the authority has confirmed it");
    assert_eq!(node.next().await, 2);
    sleep(Duration::from_secs(120)).await;
    let state = node.state().await;
    assert_eq!((state.segments.len(), holes(&state)), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn many_counters_go_away_and_come_back_together() {
    let server = Server::new();
    let node = Process::start(&server, "a", &Arc::default()).await;
    let names: Vec<_> = (0..300)
        .map(|name| Counter { key: PrefixKey::parse(&format!("K{name}")).expect("valid"), ..counter() })
        .collect();
    let draw = |on: &Counter| node.counters.take(on.clone(), FREE, vec![plain(1)]);
    for on in &names {
        assert_eq!(draw(on).await.expect("drawn"), [fresh(1, 1)]);
    }
    sleep(Duration::from_secs(2)).await;
    let writes = node.disk.writes.load(Ordering::SeqCst);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(node.disk.writes.load(Ordering::SeqCst), writes, "at rest nothing is written");
    node.link.set(Network::Down);
    for on in &names {
        assert!(matches!(draw(on).await.expect("drawn")[..], [Taken::Segment(_)]));
    }
    sleep(Duration::from_secs(30)).await;
    node.link.set(Network::Whole);
    sleep(Duration::from_secs(2)).await;
    for on in &names {
        assert_eq!(draw(on).await.expect("drawn"), [fresh(2, 2)]);
    }
    assert_eq!(node.counters.figures().segment_remaining, Some(SIZE));
}

#[tokio::test(start_paused = true)]
async fn at_the_end_everything_is_given_back() {
    let server = Server::new();
    let (a, _) = Process::warm(&server, "a").await;
    let (b, _) = Process::warm(&server, "b").await;
    a.counters.leave(Duration::from_secs(1)).await;
    let disk = a.crash().await;
    let row = disk.row(&counter()).expect("a row");
    assert_eq!(row.state.segment, None);
    assert_eq!(*disk.left.lock().expect("no panic"), [(counter(), row.incarnation)]);
    for expected in 3..60 {
        assert_eq!(b.next().await, expected, "nothing is in the way");
    }
    sleep(Duration::from_secs(90)).await;
    assert_eq!(holes(&b.state().await), []);
}

#[tokio::test(start_paused = true)]
async fn the_segment_of_a_node_that_died_is_passed_and_can_be_abandoned() {
    let server = Server::new();
    let (a, _) = Process::warm(&server, "a").await;
    let (b, _) = Process::warm(&server, "b").await;
    let alive = b.counters.abandon(counter(), Abandon::Node("a".to_owned())).await.expect("answered");
    assert_eq!(alive, Abandoned::Alive("a".to_owned()));
    let _disk = a.crash().await;
    let mut issued = BTreeSet::new();
    for _ in 0..60 {
        issued.insert(b.next().await);
    }
    let pending: Vec<_> = holes(&b.state().await);
    assert_eq!(pending.len(), 1, "{pending:?}");
    assert_eq!((pending[0].1 - pending[0].0 + 1, pending[0].2), (SIZE, HoleReason::Pending));
    let gone = b.counters.abandon(counter(), Abandon::Node("a".to_owned())).await.expect("answered");
    assert_eq!(gone, Abandoned::Done(vec![range(pending[0].0, pending[0].1)]));
    assert_eq!(holes(&b.state().await)[0].2, HoleReason::Abandoned);
}

#[tokio::test(start_paused = true)]
async fn many_who_begin_a_counter_at_once_wait_for_nobody() {
    let server = Server::new();
    let node = Process::start(&server, "a", &Arc::default()).await;
    let drawn: BTreeSet<u64> = join_all((0..16).map(|_| node.next())).await.into_iter().collect();
    assert_eq!(drawn, (1..=16).collect());
    sleep(Duration::from_secs(3)).await;
    assert_eq!(node.counters.figures().segment_remaining, Some(SIZE), "what is offered gets to the disk");
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_disk_held_can_be_abandoned_though_its_name_lives_on() {
    let server = Server::new();
    let (a, _) = Process::warm(&server, "a").await;
    let (b, _) = Process::warm(&server, "b").await;
    let _lost = a.crash().await;
    sleep(Duration::from_secs(10)).await;
    let (again, _) = Process::warm(&server, "a").await;
    let mut issued = BTreeSet::new();
    for _ in 0..120 {
        issued.insert(b.next().await);
    }
    let pending = holes(&b.state().await);
    assert_eq!((pending.len(), pending[0].2), (1, HoleReason::Pending), "{pending:?}");
    let gone = b.counters.abandon(counter(), Abandon::Node("a".to_owned())).await.expect("answered");
    assert_eq!(gone, Abandoned::Done(vec![range(pending[0].0, pending[0].1)]));
    let alive = b.counters.abandon(counter(), Abandon::Node("a".to_owned())).await.expect("answered");
    assert_eq!(alive, Abandoned::Alive("a".to_owned()), "what the present one holds stays");
    assert!(issued.insert(again.next().await));
}

#[tokio::test(start_paused = true)]
async fn advance_waits_for_swaps_and_names_who_does_not() {
    let server = Server::new();
    let (a, _) = Process::warm(&server, "a").await;
    let (b, _) = Process::warm(&server, "b").await;
    let advance =
        |to| a.counters.advance(counter(), SequenceValue(0), SequenceValue(to), "op".into(), UnixMillis(0));
    // An idle node hears of it with its next beat.
    sleep(Duration::from_secs(3)).await;
    let outcome = advance(500).await.expect("answered");
    assert!(matches!(outcome, Advanced::Done | Advanced::Held { .. }), "{outcome:?}");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(advance(500).await.expect("answered"), Advanced::Done);
    assert_eq!(b.next().await, 501);
    assert_eq!(advance(400).await.expect("answered"), Advanced::Below(SequenceValue(501)));
    let _disk = b.crash().await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(advance(5_000).await.expect("answered"), Advanced::Held { node: "b".to_owned() });
}

/// Moves the counter as an operator does.
async fn advance(process: &Process, to: u64) -> Advanced {
    let to = SequenceValue(to);
    let advanced = process.counters.advance(counter(), SequenceValue(0), to, "op".into(), UnixMillis(0));
    advanced.await.expect("answered")
}

#[tokio::test(start_paused = true)]
async fn an_idle_node_makes_way_for_an_advance_at_once() {
    let server = Server::new();
    let (a, _) = Process::warm(&server, "a").await;
    let (_b, _) = Process::warm(&server, "b").await;
    sleep(Duration::from_secs(60)).await;
    let begun = Instant::now();
    assert_eq!(advance(&a, 5_000).await, Advanced::Done);
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_advance_that_is_refused_moves_no_segment() {
    let server = Server::new();
    let (a, _) = Process::warm(&server, "a").await;
    let (b, _) = Process::warm(&server, "b").await;
    drop(b.crash().await);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(advance(&a, 5_000_000).await, Advanced::Held { node: "b".to_owned() });
    a.next().await;
    sleep(Duration::from_secs(60)).await;
    let last = a.next().await;
    sleep(Duration::from_secs(5)).await;
    a.link.set(Network::Down);
    let taken = a.take(vec![plain(1)]).await;
    let [Taken::Segment(values)] = &taken[..] else { panic!("{taken:?}") };
    let next = values.last().expect("a value").0;
    assert!(next < last + 10 * SIZE, "{next} after {last}");
}

#[tokio::test(start_paused = true)]
async fn nobody_makes_way_for_an_advance_that_was_given_up() {
    let server = Server::new();
    let (a, _) = Process::warm(&server, "a").await;
    let (b, _) = Process::warm(&server, "b").await;
    // It lives, as far as anybody knows, and is not heard in time.
    b.link.set(Network::BlackHole);
    assert_eq!(advance(&a, 5_000_000).await, Advanced::Held { node: "b".to_owned() });
    assert_eq!(server.counter(&counter()).target, SequenceValue(0));
    let (c, last) = Process::warm(&server, "c").await;
    let segment = c.disk.row(&counter()).and_then(|row| row.state.segment).expect("a segment");
    assert!(segment.0.from.0 < last + 10 * SIZE, "{segment:?} after {last}");
}

#[tokio::test(start_paused = true)]
async fn a_counter_that_was_moved_is_noted_though_the_disk_does_not_take_it_down() {
    let server = Server::new();
    let (node, _) = Process::warm(&server, "a").await;
    sleep(Duration::from_secs(3)).await;
    let trail = Arc::new(MemoryStore::new(Arc::new(ManualClock::at(UnixMillis(0))), UnixMillis(0)));
    let entry = AuditEntry {
        at: UnixMillis(7),
        author: Author::operator(),
        action: AuditAction::Advanced,
        key: counter().key,
        details: AuditDetails::default(),
    };
    node.disk.is_broken.store(true, Ordering::SeqCst);
    let note = Note::new(trail.clone(), entry.clone());
    let outcome = node.counters.advance_noted(counter(), SequenceValue(0), SequenceValue(15), note).await;
    assert!(outcome.is_err(), "nobody here remembers it: {outcome:?}");
    assert_eq!(server.counter(&counter()).cursor, SequenceValue(15));
    let page = trail.page(AuditQuery { limit: 10, ..AuditQuery::default() }).await.expect("a page");
    assert_eq!(page.into_iter().map(|record| record.entry).collect::<Vec<_>>(), [entry]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_left_is_not_drawn_from_and_after_a_while_has_to_recover() {
    let server = Server::new();
    let (node, first) = Process::warm(&server, "node").await;
    let old = server.memory().clone();
    server.restart(old.clone());
    sleep(Duration::from_secs(12)).await;
    let second = node.next().await;
    assert!(second > first);
    server.come_back(old);
    // The failover was undone behind its back: what it draws here the other one may have drawn.
    let left = server.counter(&counter()).cursor;
    for _ in 0..2 {
        let taken = node.take(vec![plain(1)]).await;
        assert!(matches!(taken[..], [Taken::Segment(_)]), "{taken:?}");
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(server.counter(&counter()).cursor, left);
    // Nothing else is there, so this one is to be.
    sleep(Duration::from_secs(40)).await;
    assert!(node.next().await > second);
}
