//! A database that is not what it was, and one that remembers a great deal.

use numgen::{
    counter::{Counter, SequenceValue, ValueRange},
    lifecycle::Lifecycle,
    store::{
        counters::AuthorityLink,
        postgres::counters::PostgresLink,
        protocol::counter::{Generation, Outcome, Reply, Segment, Take},
    },
};

use super::{SECOND, counter, keys::take, link};
use crate::harness::{Postgres, Stopwatch, Timeline, wait_reachable};

/// The generation that is in force, once nothing settles any more.
pub(super) async fn settled(link: &PostgresLink, on: &Counter, psql: impl Fn(&str) -> String) -> Generation {
    wait_reachable(link.reachable(), true).await;
    let stranger = take(999, 1, None, 0);
    let Reply::Recover { generation, .. } = link.take(on, &stranger, 20 * SECOND).await.expect("answered")
    else {
        panic!("a stranger is told the generation")
    };
    psql("UPDATE numgen_counter_marker SET settled = true");
    generation
}

fn drawn(reply: &Reply) -> u64 {
    let Reply::Taken { outcome: Outcome::Drawn(values), .. } = reply else { panic!("{reply:?}") };
    values.last().expect("values").to.0
}

/// Older files are put back: whoever was in touch after they were copied notices, though it knows nothing of the counter itself; on the
/// same timeline, as long as more was lost than a start writes into the log.
async fn files_that_were_put_back_are_noticed(onto: Timeline) {
    let (mut server, lifecycle) = (Postgres::start(), Lifecycle::new());
    let link = link(&server.url(), &lifecycle);
    let on = counter("BACKUP", "");
    let generation = settled(&link, &on, |sql| server.psql(sql)).await;
    assert_eq!(
        drawn(&link.take(&on, &take(1, 1, Some(generation), 10), 20 * SECOND).await.expect("served")),
        10
    );

    server.stop();
    let backup = server.back_up();
    wait_reachable(link.reachable(), false).await;
    server.start_again();
    wait_reachable(link.reachable(), true).await;
    for call in 2..=41 {
        let same = link.take(&on, &take(1, call, Some(generation), 1), 20 * SECOND).await.expect("served");
        assert_eq!(drawn(&same), 9 + call, "a restart forgets nothing");
    }

    server.stop();
    server.restore(&backup, onto);
    wait_reachable(link.reachable(), false).await;
    server.start_again();
    wait_reachable(link.reachable(), true).await;
    // `seen` is not what tells: this process says nothing of the cursor.
    let reply = link.take(&on, &take(2, 1, Some(generation), 1), 20 * SECOND).await.expect("answered");
    let Reply::Recover { generation: new, .. } = reply else { panic!("{onto:?}: {reply:?}") };
    assert_ne!(new, generation);
    // Somebody who was there reports, and the counter goes on above.
    let report = Take { seen: Some(SequenceValue(50)), ..take(1, 42, Some(new), 1) };
    let reply = link.take(&on, &report, 20 * SECOND).await.expect("answered");
    assert!(matches!(reply, Reply::Recover { .. }), "{reply:?}");
    server.psql("UPDATE numgen_counter_marker SET settled = true");
    assert!(drawn(&link.take(&on, &report, 20 * SECOND).await.expect("served")) > 50);
    lifecycle.drain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_were_put_back_without_a_trace_are_noticed() {
    files_that_were_put_back_are_noticed(Timeline::Same).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_timeline_is_noticed() {
    files_that_were_put_back_are_noticed(Timeline::New).await;
}

/// The cost of a message does not grow with the holes, and each is found where it is spoken of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_holes_cost_nothing() {
    const HOLES: u64 = 100_000;
    let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
    let link = link(&database.url(), &lifecycle);
    let on = counter("HOLES", "");
    let generation = settled(&link, &on, |sql| database.psql(sql)).await;
    let mut call = 0;
    let mut said = async |take: Take| {
        call += 1;
        let take = Take { call, ..take };
        link.take(&on, &take, 20 * SECOND).await.expect("served")
    };
    let ask = |count| take(1, 0, Some(generation), count);
    let range = |from, to| ValueRange { from: SequenceValue(from), to: SequenceValue(to) };
    drawn(&said(ask(2 * HOLES)).await);
    // More than the state keeps, by its own way; then the rest at once.
    for hole in 0..40 {
        said(Take { surplus: vec![range(2 * hole + 1, 2 * hole + 1)], ..ask(0) }).await;
    }
    assert!(
        database.psql("SELECT count(*) FROM numgen_counter_holes").parse::<u64>().expect("a number") > 20
    );
    database.psql(&format!(
        "INSERT INTO numgen_counter_holes SELECT 'HOLES', '', v, v, 'returned', 0 FROM generate_series(81, {}, 2) AS v;
         UPDATE numgen_counters SET archived_to = {}",
        2 * HOLES - 1,
        2 * HOLES - 1
    ));
    let watch = Stopwatch::start();
    for _ in 0..50 {
        drawn(&said(ask(1)).await);
    }
    // A hole in the middle was used after all, one is spoken of again, one lies under a segment.
    let middle = HOLES + 1;
    said(Take { used: vec![range(middle, middle)], surplus: vec![range(middle + 2, middle + 3)], ..ask(0) })
        .await;
    said(Take { holds: Some(Segment(range(middle + 10, middle + 11))), ..ask(0) }).await;
    println!("52 messages beside {HOLES} holes: {} ms", watch.elapsed().as_millis());
    watch.assert_within(5 * SECOND, "52 messages");

    let shown = link.show(&on.key, 20 * SECOND).await.expect("read").remove(0).counter;
    let listed = |value: u64| {
        let mut found =
            shown.holes.iter().filter(|hole| hole.range.from.0 <= value && value <= hole.range.to.0);
        let hole = found.next().map(|hole| (hole.reason.as_str(), hole.holder.is_some()));
        assert!(found.next().is_none(), "{value} is listed twice");
        hole
    };
    assert_eq!(listed(middle), None);
    assert_eq!(listed(middle + 2), Some(("returned", false)));
    assert_eq!(listed(middle + 3), Some(("returned", false)));
    assert_eq!(listed(middle + 10), Some(("pending", true)));
    assert_eq!(
        (listed(1), listed(2), listed(81)),
        (Some(("returned", false)), None, Some(("returned", false)))
    );
    assert!(shown.holes.windows(2).all(|pair| pair[0].range.to < pair[1].range.from), "they do not overlap");
    let people = database.psql("SELECT * FROM numgen_sequences");
    assert_eq!(people, format!("HOLES||{}", 2 * HOLES + 50));
    lifecycle.drain();
}
