//! Counters whose authority draws only what it was granted.

use super::{
    super::fake::{Bank, Teller},
    *,
};
use crate::{counter::Ranges, store::protocol::grant::State};

/// One process in a data centre.
async fn start(server: &Arc<Server>, bank: &Arc<Bank>, datacenter: u32) -> (Process, Arc<Teller>) {
    let (link, disk, lifecycle) = (Link::to(server), Arc::<Disk>::default(), Lifecycle::new());
    let teller = Teller::of(bank, datacenter);
    let settings =
        Settings { node: format!("n{datacenter}"), segment_size: SIZE, timeout: Duration::from_secs(5) };
    let counters =
        SharedCounters::over(link.clone(), disk.clone(), Some(teller.clone()), settings, &lifecycle);
    (Process { counters: counters.await.expect("started"), link, disk, lifecycle }, teller)
}

/// Its successor on the same disk.
async fn start_on(server: &Arc<Server>, bank: &Arc<Bank>, disk: Arc<Disk>) -> Process {
    let (link, lifecycle) = (Link::to(server), Lifecycle::new());
    let settings = Settings { node: "n1".to_owned(), segment_size: SIZE, timeout: Duration::from_secs(5) };
    let teller = Teller::of(bank, 1);
    let counters = SharedCounters::over(link.clone(), disk.clone(), Some(teller), settings, &lifecycle);
    Process { counters: counters.await.expect("started"), link, disk, lifecycle }
}

async fn all(process: &Process, count: u32) -> Vec<u64> {
    let taken = process.take(vec![plain(count)]).await;
    let [Taken::Fresh(values)] = &taken[..] else { panic!("not fresh: {taken:?}") };
    values.values().map(|value| value.0).collect()
}

#[tokio::test(start_paused = true)]
async fn a_healthy_counter_runs_on_from_grant_to_grant() {
    let (server, bank) = (Server::new(), Bank::new());
    let (node, _) = start(&server, &bank, 1).await;
    let mut expected = 1;
    for _ in 0..100 {
        for value in all(&node, 700).await {
            assert_eq!(value, expected);
            expected += 1;
        }
        sleep(Duration::from_millis(20)).await;
    }
    let state = node.state().await;
    assert_eq!((state.last.0, holes(&state)), (70_000, vec![]));
    let fetches = bank.fetches.load(Ordering::SeqCst);
    assert!(fetches < 12, "{fetches} calls for 70,000 values");
}

/// Each jump to a fresh grant would else count as values drawn, and the next grant be sixty times as large.
#[tokio::test(start_paused = true)]
async fn a_grant_is_no_larger_because_the_counter_went_on_in_another() {
    let (server, bank) = (Server::new(), Bank::new());
    let (node, _) = start(&server, &bank, 1).await;
    for _ in 0..6 {
        for _ in 0..10 {
            node.take(vec![plain(1)]).await;
            sleep(Duration::from_millis(200)).await;
        }
        let memory = server.memory().clone();
        server.restart(memory);
        sleep(Duration::from_secs(8)).await;
    }
    let line = bank.line.lock().expect("no panic").clone();
    let sizes: Vec<u64> = line.rows.iter().map(|row| row.grant.range.count()).collect();
    assert!(sizes.len() > 5 && sizes.iter().all(|size| *size <= 20_000), "{sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn data_centres_draw_apart_and_neither_calls_the_other_a_hole() {
    let bank = Bank::new();
    let (first, second) = (Server::new(), Server::new());
    let (a, b) = (start(&first, &bank, 1).await.0, start(&second, &bank, 2).await.0);
    let mut seen = BTreeSet::new();
    for _ in 0..90 {
        for value in all(&a, 500).await.into_iter().chain(all(&b, 400).await) {
            assert!(seen.insert(value), "{value} twice");
        }
        sleep(Duration::from_millis(10)).await;
    }
    // What one data centre leaves between its own grants is used up.
    for node in [&a, &b] {
        assert_eq!(holes(&node.state().await), vec![]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_emptied_store_goes_on_in_a_fresh_grant() {
    let (server, bank) = (Server::new(), Bank::new());
    let (node, _) = start(&server, &bank, 1).await;
    assert_eq!(all(&node, 3).await, [1, 2, 3]);
    let disk = node.crash().await;
    drop(disk);
    server.restart(Memory::default());
    // Nobody is left who remembers anything.
    let (node, _) = start(&server, &bank, 1).await;
    assert_eq!(all(&node, 2).await, [10_001, 10_002], "while the store waits for reports, from the bank");
    sleep(Duration::from_secs(6)).await;
    assert_eq!(all(&node, 2).await, [10_003, 10_004]);
    let line = bank.line.lock().expect("no panic").clone();
    let [old, new] = &line.rows[..] else { panic!("{line:?}") };
    assert_eq!(old.state, State::Closed { remainder: Some(range(1, 10_000)) }, "nobody knew how far it was");
    assert_eq!((new.grant.range, new.state), (range(10_003, 20_002), State::Open));
    assert_eq!(holes(&node.state().await), [(1, 10_000, HoleReason::Skipped)], "the bank remembers");
}

#[tokio::test(start_paused = true)]
async fn while_the_bank_is_away_a_counter_goes_on_inside_its_grant() {
    let (server, bank) = (Server::new(), Bank::new());
    let (node, teller) = start(&server, &bank, 1).await;
    assert_eq!(all(&node, 1).await, [1]);
    sleep(Duration::from_millis(50)).await;
    teller.set(Network::Down);
    assert_eq!(all(&node, 9_000).await.last(), Some(&9_001));
    assert_eq!(all(&node, 990).await.last(), Some(&9_991));
    // The grant is used up, but for the segment.
    let taken = node.take(vec![plain(500)]).await;
    assert_eq!(taken, [Taken::Away], "as if the store was away");
    teller.set(Network::Whole);
    assert_eq!(all(&node, 500).await.last(), Some(&10_491), "nothing was lost");
}

#[tokio::test(start_paused = true)]
async fn without_the_store_the_segment_comes_first_and_then_the_bank() {
    let (server, bank) = (Server::new(), Bank::new());
    let (node, teller) = start(&server, &bank, 1).await;
    assert_eq!(all(&node, 1).await, [1]);
    sleep(Duration::from_millis(50)).await;
    node.link.set(Network::Down);
    let mut issued = BTreeSet::from([1]);
    for _ in 0..SIZE {
        let taken = node.take(vec![plain(1)]).await;
        let [Taken::Segment(values)] = &taken[..] else { panic!("not from the segment: {taken:?}") };
        assert!(issued.insert(values.last().expect("a value").0));
    }
    assert_eq!(all(&node, 3).await, [10_001, 10_002, 10_003], "straight from the bank");
    // The answer is lost: the same draw is asked for again, or handed back.
    teller.set(Network::Deaf);
    let (asked, ()) = tokio::join!(node.take(vec![plain(2)]), async {
        sleep(Duration::from_millis(500)).await;
        teller.set(Network::Whole);
    });
    assert_eq!(asked, [fresh(10_004, 10_005)]);
    teller.set(Network::Deaf);
    assert_eq!(node.take(vec![plain(2)]).await, [Taken::Away]);
    teller.set(Network::Whole);
    assert_eq!(all(&node, 1).await, [10_008]);
    assert_eq!(*bank.returned.lock().expect("no panic"), [range(10_006, 10_007)]);
    node.link.set(Network::Whole);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(all(&node, 1).await, [2], "back, inside the grant");
}

#[tokio::test(start_paused = true)]
async fn draws_in_doubt_keep_nobody_waiting() {
    let (server, bank) = (Server::new(), Bank::new());
    let (node, teller) = start(&server, &bank, 1).await;
    assert_eq!(all(&node, 1).await, [1]);
    sleep(Duration::from_millis(50)).await;
    node.link.set(Network::Down);
    for _ in 0..SIZE {
        node.take(vec![plain(1)]).await;
    }
    teller.set(Network::Deaf);
    for round in 0..12 {
        let begun = Instant::now();
        assert_eq!(node.take(vec![plain(2)]).await, [Taken::Away]);
        // Its own patience, and one call.
        assert!(begun.elapsed() <= Duration::from_millis(6_100), "{round}: {:?}", begun.elapsed());
    }
    teller.set(Network::Whole);
    all(&node, 1).await;
    let sum = |ranges: &[ValueRange]| {
        ranges.iter().copied().map(Ranges::from).map(|range| range.count()).sum::<u64>()
    };
    let returned = sum(&bank.returned.lock().expect("no panic"));
    let drawn: Vec<_> = bank.line.lock().expect("no panic").drawn.iter().map(|(_, range)| *range).collect();
    assert_eq!(returned + 1, sum(&drawn), "all but the last, which was answered");
}

#[tokio::test(start_paused = true)]
async fn without_either_there_is_the_segment_and_nothing_else() {
    let (server, bank) = (Server::new(), Bank::new());
    let (node, teller) = start(&server, &bank, 1).await;
    assert_eq!(all(&node, 1).await, [1]);
    sleep(Duration::from_millis(50)).await;
    node.link.set(Network::Down);
    teller.set(Network::Down);
    let taken = node.take(vec![plain(u32::try_from(SIZE).expect("small")), plain(1)]).await;
    assert!(matches!(&taken[..], [Taken::Segment(_), Taken::Away]), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_line_ends_at_its_limit() {
    let (server, bank) = (Server::new(), Bank::new());
    let (node, _) = start(&server, &bank, 1).await;
    let bounds = Bounds { max: SequenceValue(2_000), ..FREE };
    let mut drawn = 0;
    loop {
        match &node.take_within(bounds, vec![plain(150)]).await[..] {
            [Taken::Fresh(values)] => drawn += values.count(),
            [Taken::Overflow] => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(drawn, 1_950);
    assert_eq!(
        node.take_within(bounds, vec![plain(60), plain(50)]).await,
        [Taken::Overflow, fresh(1_951, 2_000)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_counter_that_was_there_before_there_were_grants_goes_on() {
    let (server, bank) = (Server::new(), Bank::new());
    let (before, first) = Process::warm(&server, "old").await;
    assert_eq!(first, 1);
    let held = before.disk.row(&counter()).and_then(|row| row.state.segment).expect("a segment").0;
    let disk = before.crash().await;
    let (node, _) = start(&server, &bank, 1).await;
    let next = all(&node, 1).await[0];
    assert!(next > held.to.0, "{next} lies in what somebody may still issue: {held:?}");
    drop(disk);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_remembered_though_the_store_was_emptied() {
    let (server, bank) = (Server::new(), Bank::new());
    let (node, teller) = start(&server, &bank, 1).await;
    assert_eq!(node.take(vec![keyed(3, "k")]).await, [fresh(1, 3)]);
    node.crash().await;
    server.restart(Memory::default());
    let (node, _) = start(&server, &bank, 1).await;
    sleep(Duration::from_secs(1)).await;
    node.take(vec![plain(1)]).await;
    sleep(Duration::from_secs(8)).await;
    let again = node.take(vec![keyed(3, "k")]).await;
    assert!(
        matches!(&again[..], [Taken::Replayed(known)] if known.values == range(1, 3).into()),
        "another number for the same key: {again:?}"
    );
    let other = node.take(vec![TakeRequest { count: 4, ..keyed(3, "other") }]).await;
    assert!(matches!(&other[..], [Taken::Fresh(_)]), "{other:?}");
    drop(teller);
}

#[tokio::test(start_paused = true)]
async fn a_remembered_key_needs_no_room() {
    let (server, bank) = (Server::new(), Bank::new());
    let (node, _) = start(&server, &bank, 1).await;
    let bounds = Bounds { max: SequenceValue(4), ..FREE };
    assert_eq!(node.take_within(bounds, vec![keyed(3, "k")]).await, [fresh(1, 3)]);
    assert_eq!(node.take_within(bounds, vec![plain(1)]).await, [fresh(4, 4)]);
    node.crash().await;
    server.restart(Memory::default());
    let (node, teller) = start(&server, &bank, 1).await;
    assert_eq!(
        node.take_within(bounds, vec![plain(1)]).await,
        [Taken::Overflow],
        "the reports are waited for"
    );
    sleep(Duration::from_secs(9)).await;
    let taken = node.take_within(bounds, vec![plain(1), keyed(3, "k"), keyed(1, "l")]).await;
    assert_eq!((&taken[0], &taken[2]), (&Taken::Overflow, &Taken::Overflow), "{taken:?}");
    assert!(matches!(&taken[1], Taken::Replayed(known) if known.values == range(1, 3).into()), "{taken:?}");
    teller.set(Network::Down);
    sleep(Duration::from_secs(1)).await;
    let taken = node.take_within(bounds, vec![keyed(3, "k")]).await;
    assert_eq!(taken, [Taken::Away], "nobody can tell");
}

#[tokio::test(start_paused = true)]
async fn a_key_waits_for_whoever_remembers_it_and_then_gets_the_same() {
    let (server, bank) = (Server::new(), Bank::new());
    let (node, teller) = start(&server, &bank, 1).await;
    assert_eq!(all(&node, 1).await, [1]);
    teller.set(Network::Down);
    assert_eq!(node.take(vec![plain(1), keyed(2, "k")]).await, [fresh(2, 2), Taken::Away]);
    teller.set(Network::Whole);
    let again = node.take(vec![keyed(2, "k")]).await;
    assert!(
        matches!(&again[..], [Taken::Replayed(known)] if known.values == range(3, 4).into()),
        "{again:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_advance_that_is_refused_leaves_the_line_where_it_was() {
    let (server, bank) = (Server::new(), Bank::new());
    let (node, _) = start(&server, &bank, 1).await;
    assert_eq!(all(&node, 1).await, [1]);
    sleep(Duration::from_millis(50)).await;
    let (other, _) = start(&server, &bank, 1).await;
    assert_eq!(all(&other, 1).await, [2]);
    sleep(Duration::from_millis(50)).await;
    drop(other.crash().await);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(advance(&node, 5_000_000).await, Advanced::Held { node: "n1".to_owned() });
    let granted_to = || bank.line.lock().expect("no panic").granted_to;
    assert_eq!(granted_to(), Some(SequenceValue(10_000)));
    let given_up = node.counters.abandon(counter(), Abandon::Node("n1".to_owned())).await.expect("answered");
    assert!(matches!(given_up, Abandoned::Done(_)), "{given_up:?}");
    assert_eq!(advance(&node, 5_000_000).await, Advanced::Done);
    assert_eq!(granted_to(), Some(SequenceValue(5_000_000)));
    assert_eq!(all(&node, 1).await, [5_000_001]);
}

/// What a process has left on disk is told to a store that was emptied before anybody draws, for each counter once.
#[tokio::test(start_paused = true)]
async fn counters_at_rest_are_drawn_from_one_after_the_other_once_the_store_was_emptied() {
    let (server, bank) = (Server::new(), Bank::new());
    let (node, _) = start(&server, &bank, 1).await;
    let of = |number: u32| Counter { period: Period::new(number.to_string()), ..counter() };
    for number in 0..8 {
        node.counters.take(of(number), FREE, vec![plain(1)]).await.expect("answered");
    }
    sleep(Duration::from_secs(2)).await;
    node.counters.leave(Duration::from_secs(5)).await;
    let disk = node.crash().await;
    server.restart(Memory::default());
    let node = start_on(&server, &bank, disk).await;
    node.counters.take(of(100), FREE, vec![plain(1)]).await.expect("answered");
    sleep(Duration::from_secs(20)).await;
    node.counters.take(of(100), FREE, vec![plain(1)]).await.expect("answered");
    let generation = || server.memory().marker.map(|marker| marker.generation);
    let before = generation();
    for number in 0..8 {
        let taken = node.counters.take(of(number), FREE, vec![plain(1)]).await.expect("answered");
        assert_eq!(generation(), before, "counter {number} began another: {taken:?}");
        sleep(Duration::from_secs(1)).await;
    }
}
