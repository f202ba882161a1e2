//! What is skipped after a loss: more than a silent node can have, and not more than the store can lack.

use super::*;

/// Notes what was issued; `Err`: a value that was issued before.
fn note(issued: &mut BTreeSet<u64>, taken: &[Taken]) -> Result<(), u64> {
    let values = taken.iter().filter_map(|taken| match taken {
        Taken::Fresh(values) | Taken::Segment(values) => Some(values),
        Taken::Replayed(_) | Taken::Mismatch | Taken::Overflow | Taken::Away => None,
    });
    let mut values = values.flat_map(|values| values.values());
    values.try_for_each(|value| if issued.insert(value.0) { Ok(()) } else { Err(value.0) })
}

/// A node is cut off with its segment and issues from it, the store comes back empty, and the other one draws on to where
/// that segment lies and beyond.
async fn a_silent_node_keeps_its_segment(size: u64, batch: u32) {
    let server = Server::new();
    let (a, b) =
        (Process::start_sized(&server, "a", size).await, Process::start_sized(&server, "b", size).await);
    let mut issued = BTreeSet::new();
    for _ in 0..100 {
        note(&mut issued, &a.take(vec![plain(batch)]).await).expect("nothing twice");
        note(&mut issued, &b.take(vec![plain(1)]).await).expect("nothing twice");
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_secs(1)).await;
    b.link.set(Network::Down);
    server.restart(Memory::default());
    for _ in 0..5 {
        note(&mut issued, &b.take(vec![plain(1)]).await).expect("nothing twice");
    }
    let last = *issued.last().expect("values");
    sleep(Duration::from_secs(12)).await;
    while a.state().await.last.0 <= last {
        note(&mut issued, &a.take(vec![plain(100)]).await).expect("nothing twice");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_skip_reaches_over_segments_that_lie_far_ahead_because_much_is_drawn() {
    a_silent_node_keeps_its_segment(1_000, 1_000).await;
}

#[tokio::test(start_paused = true)]
async fn a_skip_reaches_over_segments_that_lie_far_ahead_because_they_are_large() {
    a_silent_node_keeps_its_segment(10_000, 1).await;
}

/// Somebody draws at a steady pace and is lost with the store, from which the other one has not heard for 3 s.
#[tokio::test(start_paused = true)]
async fn a_skip_reaches_over_what_was_drawn_since_the_last_beat() {
    let server = Server::new();
    let (a, b) =
        (Process::start_sized(&server, "a", 1_000).await, Process::start_sized(&server, "b", 1_000).await);
    a.next().await;
    let mut last = 0;
    for round in 0..200 {
        if round == 140 {
            a.link.set(Network::Down);
        }
        let taken = b.take(vec![plain(1_000)]).await;
        let [Taken::Fresh(values)] = &taken[..] else { panic!("{taken:?}") };
        last = values.last().expect("values").0;
        sleep(Duration::from_millis(50)).await;
    }
    drop(b.crash().await);
    server.restart(Memory::default());
    a.link.set(Network::Whole);
    sleep(Duration::from_secs(12)).await;
    let next = a.next().await;
    assert!(next > last, "{next} after {last}");
}

/// A node that lives tells by its next message that it has had the answer to the last one.
#[tokio::test(start_paused = true)]
async fn what_was_answered_is_not_in_doubt_after_a_restart() {
    let server = Server::new();
    let (process, _) = Process::warm(&server, "a").await;
    let last = process.next().await;
    let memory = server.memory().clone();
    server.restart(memory);
    sleep(Duration::from_secs(12)).await;
    assert_eq!(process.next().await, last + 1);
    assert_eq!(holes(&process.state().await), []);
}

/// The store may lack what was written since somebody last looked, and nothing of the day for which the counter was at rest.
#[tokio::test(start_paused = true)]
async fn a_counter_that_was_at_rest_for_a_day_skips_no_day() {
    let server = Server::new();
    let (process, _) = Process::warm(&server, "a").await;
    while process.next().await < 1_000 {}
    sleep(Duration::from_secs(86_400)).await;
    assert!(process.counters.desks.find(&counter()).is_none(), "given up");
    let memory = server.memory().clone();
    server.restart(memory);
    sleep(Duration::from_secs(12)).await;
    let next = process.next().await;
    assert!(next < 50_000, "{next}");
}
