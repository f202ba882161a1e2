//! A database that is not what it was, and one that remembers a great deal.

use numgen::{
    counter::{Counter, SequenceValue, ValueRange},
    lifecycle::Lifecycle,
    store::{
        counters::AuthorityLink,
        postgres::counters::PostgresLink,
        protocol::counter::{Generation, Incarnation, Outcome, Reply, Segment, Take},
    },
};

use super::{SECOND, counter, keys::take, link};
use crate::harness::{Database, Postgres, Stopwatch, Timeline, wait_reachable};

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
    let lacks = server.psql("SELECT lacks_ms > 0 FROM numgen_counter_marker");
    assert_eq!(lacks, "t", "a generation that ends so leaves what it knew of looks");
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

/// A counter at 20,000 from which 10,000 values a second were drawn, a day ago, in a database that was just looked at.
async fn at_rest_for_a_day(database: &Database, link: &PostgresLink) -> Counter {
    let on = counter("REST", "");
    let generation = settled(link, &on, |sql| database.psql(sql)).await;
    for call in 1..=2 {
        drawn(&link.take(&on, &take(1, call, Some(generation), 10_000), 20 * SECOND).await.expect("served"));
    }
    database.psql(
        "UPDATE numgen_counters SET state = jsonb_set(state::jsonb, '{rate}', jsonb_build_object(
             'second', (state -> 'rate' ->> 'second')::bigint - 86400, 'drawn', 10000, 'peak', 10000))::json",
    );
    link.look(&link.marker(&on), 20 * SECOND).await.expect("looked at");
    on
}

/// The value that is drawn first once another server has taken the place of the one that was seen, as `report` tells, and somebody is silent.
async fn drawn_after_a_promotion(
    database: &Database,
    link: &PostgresLink,
    on: &Counter,
    report: Take,
) -> u64 {
    database.psql("UPDATE numgen_counter_marker SET server = server + 1");
    let generation = settled(link, on, |sql| database.psql(sql)).await;
    // What it says first is its report, and what it says next is served.
    let report = Take { generation: Some(generation), peers: vec![Incarnation(7)], ..report };
    database.psql("UPDATE numgen_counter_marker SET settled = false");
    let reply = link.take(on, &report, 20 * SECOND).await.expect("answered");
    assert!(matches!(reply, Reply::Recover { .. }), "{reply:?}");
    database.psql("UPDATE numgen_counter_marker SET settled = true");
    let next = take(1, 3, Some(generation), 1);
    drawn(&link.take(on, &next, 20 * SECOND).await.expect("served"))
}

/// The same for a counter that was at rest for a day, after what was done `meanwhile`; and the database.
async fn drawn_after_a_day(meanwhile: Option<&str>, report: Take) -> (u64, Database) {
    let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
    let link = link(&database.url(), &lifecycle);
    let on = at_rest_for_a_day(&database, &link).await;
    meanwhile.into_iter().for_each(|sql| drop(database.psql(sql)));
    let next = drawn_after_a_promotion(&database, &link, &on, report).await;
    lifecycle.drain();
    (next, database)
}

/// The database may lack what was written since somebody last looked, and nothing of the day for which the counter was at rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_that_was_at_rest_for_a_day_skips_no_day() {
    let (next, _) = drawn_after_a_day(None, take(1, 3, None, 0)).await;
    assert!((30_000..1_000_000).contains(&next), "{next}");
}

/// A program of an earlier schema has begun the generation, and has said nothing of what may be lacking: any time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marker_without_a_note_may_lack_a_day() {
    let begun = "UPDATE numgen_counter_marker SET generation = generation + 1";
    let (next, _) = drawn_after_a_day(Some(begun), take(1, 3, None, 0)).await;
    assert!(next > 86_400 * 10_000, "{next}");
}

/// What was drawn since somebody last looked may be lacking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passed_since_the_last_look_is_skipped() {
    let earlier = "UPDATE numgen_counter_marker SET looked_ms = looked_ms - 40000";
    let (next, _) = drawn_after_a_day(Some(earlier), take(1, 3, None, 0)).await;
    assert!(next > 20_000 + 40 * 10_000, "{next}");
}

/// Counters of an earlier schema lack nothing where they all stand in the present generation; else nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_knows_what_cannot_be_lacking() {
    let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
    let on = at_rest_for_a_day(&database, &link(&database.url(), &lifecycle)).await;
    let note = async || {
        database.psql(
            "ALTER TABLE numgen_counter_marker DROP COLUMN looked_for, DROP COLUMN looked_ms, DROP COLUMN lacks_ms;
             ALTER TABLE numgen_counters DROP COLUMN horizon, DROP COLUMN returned;
             DELETE FROM numgen_schema WHERE version = 12",
        );
        let upgraded = link(&database.url(), &lifecycle);
        upgraded.look(&upgraded.marker(&on), 20 * SECOND).await.expect("looked at");
        database.psql("SELECT looked_for = generation, lacks_ms FROM numgen_counter_marker")
    };
    assert_eq!(note().await, "t|0");
    database.psql("UPDATE numgen_counter_marker SET generation = generation + 1");
    assert_eq!(note().await, format!("t|{}", u64::MAX));
    lifecycle.drain();
}

/// How far others may have come is kept from the report until the counter goes on, in a column: a program of an earlier schema, which runs
/// beside this one during an upgrade, would not understand a field of the state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_horizon_is_kept_where_an_earlier_program_leaves_it_alone() {
    let report = Take { horizon: SequenceValue(9_000_000), ..take(1, 3, None, 0) };
    let (next, database) = drawn_after_a_day(None, report).await;
    assert!(next > 9_000_000, "{next}");
    let fields = database.psql(
        "SELECT string_agg(field, ' ' ORDER BY field), min(horizon) FROM numgen_counters, json_object_keys(state) AS field",
    );
    assert_eq!(fields, "ahead generation holes members rate scheme target|9000000");
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
