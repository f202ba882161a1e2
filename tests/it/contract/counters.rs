//! Consecutive counters.

use std::{sync::Arc, time::Duration};

use numgen::{
    counter::{Counter, SequenceValue, ValueRange},
    store::{Advanced, Bounds, CounterState, CounterStore, Hole, HoleReason, Recorded, Taken},
};

use super::{Bench, FREE, NOON, claim, counter, fresh, keyed, next, plain, range, take, values};

async fn state(store: &Arc<impl CounterStore>, on: &Counter) -> CounterState {
    let states = store.counters(&on.key).await.expect("read");
    states.into_iter().find(|state| state.period == on.period).expect("a counter")
}

fn holes(state: &CounterState) -> Vec<(u64, u64, HoleReason)> {
    state.holes.iter().map(|hole| (hole.from.0, hole.to.0, hole.reason)).collect()
}

async fn advance(store: &Arc<impl CounterStore>, on: &Counter, to: u64) -> Advanced {
    store.advance(on.clone(), SequenceValue(0), SequenceValue(to), "op".into(), NOON).await.expect("answered")
}

pub(super) async fn values_are_consecutive_from_the_base(mut bench: impl Bench<Store: CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    let bounds = Bounds { base: SequenceValue(1000), ..FREE };
    let taken = take(&store, &on, bounds, vec![plain(1), plain(3), plain(1)]).await;
    assert_eq!(taken, [fresh(1001, 1001), fresh(1002, 1004), fresh(1005, 1005)]);
    drop(store);
    bench.reopen().await;
    let store = bench.store();
    let later = Bounds { base: SequenceValue(7), ..FREE };
    assert_eq!(
        take(&store, &on, later, vec![plain(2)]).await,
        [fresh(1006, 1007)],
        "the base is history by now"
    );
    let state = state(&store, &on).await;
    assert_eq!((state.base, state.last), (SequenceValue(1000), SequenceValue(1007)));
    assert_eq!(state.holes, [], "a clean end leaves nothing in doubt");
}

pub(super) async fn many_tasks_get_every_value_once(bench: impl Bench<Store: CounterStore>) {
    let on = counter("A", "2026");
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16_u32 {
        let (store, on) = (bench.store(), on.clone());
        tasks.spawn(async move {
            let (mut mine, mut highest) = (Vec::new(), 0);
            for round in 0..25 {
                let requests = (0..=(task + round) % 3).map(|count| plain(count + 1)).collect();
                for taken in take(&store, &on, FREE, requests).await {
                    let Taken::Fresh(values) = taken else { panic!("{taken:?}") };
                    assert!(
                        values.iter().next().expect("a range").from.0 > highest,
                        "in the order of asking"
                    );
                    highest = values.last().expect("values").0;
                    mine.extend(values.values().map(|value| value.0));
                }
            }
            mine
        });
    }
    let mut all: Vec<u64> = tasks.join_all().await.into_iter().flatten().collect();
    all.sort_unstable();
    let expected: Vec<u64> = (1..=all.len() as u64).collect();
    assert_eq!(all, expected, "every value once, none left out");
}

pub(super) async fn the_last_value_is_u64_max(mut bench: impl Bench<Store: CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    let bounds = Bounds { base: SequenceValue(u64::MAX - 3), ..FREE };
    let half = Bounds { base: SequenceValue(i64::MAX as u64 - 1), ..FREE };
    let middle = take(&store, &counter("B", ""), half, vec![plain(3)]).await;
    assert_eq!(middle, [fresh(i64::MAX as u64, i64::MAX as u64 + 2)], "the limit of signed integers is none");
    assert_eq!(take(&store, &on, bounds, vec![plain(2)]).await, [fresh(u64::MAX - 2, u64::MAX - 1)]);
    drop(store);
    bench.reopen().await;
    let store = bench.store();
    assert_eq!(
        take(&store, &on, FREE, vec![plain(2), plain(1), plain(1)]).await,
        [Taken::Overflow, fresh(u64::MAX, u64::MAX), Taken::Overflow]
    );
    assert_eq!(state(&store, &on).await.last, SequenceValue::MAX);
}

pub(super) async fn overflow_consumes_nothing(bench: impl Bench<Store: CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    let bounds = Bounds { max: SequenceValue(5), ..FREE };
    assert_eq!(take(&store, &on, bounds, vec![plain(6)]).await, [Taken::Overflow]);
    assert_eq!(store.counters(&on.key).await.expect("read"), [], "not even a counter");
    let requests = vec![plain(4), keyed(2, claim("k", 1, NOON)), plain(1), keyed(1, claim("k", 1, NOON))];
    let taken = take(&store, &on, bounds, requests).await;
    assert_eq!(taken, [fresh(1, 4), Taken::Overflow, fresh(5, 5), Taken::Overflow]);
    // An overflow leaves no record: with more room the key is served.
    let wider = Bounds { max: SequenceValue(7), ..FREE };
    assert_eq!(take(&store, &on, wider, vec![keyed(2, claim("k", 1, NOON))]).await, [fresh(6, 7)]);
}

pub(super) async fn keys_replay_within_and_across_batches(bench: impl Bench<Store: CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    let replayed = |key: &str, values: ValueRange| {
        Taken::Replayed(Recorded { stamp: format!("stamp of {key}").into(), values: values.into() })
    };
    let requests = vec![
        keyed(2, claim("k", 1, NOON)),
        plain(1),
        keyed(2, claim("k", 1, NOON)),
        keyed(1, claim("k", 2, NOON)),
        keyed(1, claim("l", 2, NOON)),
    ];
    let taken = take(&store, &on, FREE, requests).await;
    // Whether those with a key come before the other is the store's choice.
    let from = if taken[1] == fresh(1, 1) { 2 } else { 1 };
    let others = if from == 1 { fresh(3, 3) } else { fresh(1, 1) };
    let k = range(from, from + 1);
    assert_eq!(taken, [Taken::Fresh(k.into()), others, replayed("k", k), Taken::Mismatch, fresh(4, 4)]);
    let taken = take(&store, &on, FREE, vec![keyed(1, claim("l", 2, NOON)), plain(1)]).await;
    assert_eq!(taken, [replayed("l", range(4, 4)), fresh(5, 5)]);
    let expired = NOON.plus(Duration::from_secs(60));
    assert_eq!(take(&store, &on, FREE, vec![keyed(1, claim("l", 9, expired))]).await, [fresh(6, 6)]);
}

pub(super) async fn a_key_replays_when_nothing_is_left(bench: impl Bench<Store: CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    let bounds = Bounds { max: SequenceValue(4), ..FREE };
    let again = || keyed(2, claim("k", 1, NOON));
    assert_eq!(take(&store, &on, bounds, vec![again()]).await, [fresh(1, 2)]);
    for last in [3, 4] {
        let taken = take(&store, &on, bounds, vec![plain(1), again()]).await;
        assert_eq!(taken[0], fresh(last, last));
        assert!(matches!(&taken[1], Taken::Replayed(_)), "{last}: {taken:?}");
    }
    let taken = take(&store, &on, bounds, vec![plain(1), again()]).await;
    assert_eq!(taken[0], Taken::Overflow);
    assert!(matches!(&taken[1], Taken::Replayed(_)), "{taken:?}");
}

pub(super) async fn keys_survive_a_reopening(mut bench: impl Bench<Store: CounterStore>) {
    let on = counter("A", "2026-11");
    assert_eq!(take(&bench.store(), &on, FREE, vec![keyed(3, claim("k", 1, NOON))]).await, [fresh(1, 3)]);
    bench.reopen().await;
    let taken = take(&bench.store(), &on, FREE, vec![keyed(3, claim("k", 1, NOON)), plain(1)]).await;
    assert!(
        matches!(&taken[0], Taken::Replayed(recorded) if recorded.values == range(1, 3).into()),
        "{taken:?}"
    );
    assert_eq!(taken[1], fresh(4, 4));
}

pub(super) async fn floors_are_listed_or_raise_the_base(bench: impl Bench<Store: CounterStore>) {
    let (store, on) = (bench.store(), counter("A", "2026-11"));
    assert_eq!(next(&store, &on).await, 1);
    let floor = Bounds { floor: SequenceValue(500), ..FREE };
    let narrow = Bounds { max: SequenceValue(500), ..floor };
    assert_eq!(take(&store, &on, narrow, vec![plain(1)]).await, [Taken::Overflow]);
    assert_eq!(state(&store, &on).await.last, SequenceValue(1), "nothing drawn, nothing moved");
    assert_eq!(take(&store, &on, floor, vec![plain(2)]).await, [fresh(501, 502)]);
    assert_eq!(take(&store, &on, floor, vec![plain(1)]).await, [fresh(503, 503)], "once");
    let state = state(&store, &on).await;
    let skipped =
        Hole { from: SequenceValue(2), to: SequenceValue(500), reason: HoleReason::Skipped, since: NOON };
    assert_eq!(state.holes, [skipped]);

    let young = counter("A", "2026-12");
    assert_eq!(take(&store, &young, floor, vec![plain(1)]).await, [fresh(501, 501)]);
    let states = store.counters(&on.key).await.expect("read");
    assert_eq!(states[1].base, SequenceValue(500));
    assert_eq!(states[1].holes, []);
}

pub(super) async fn advance_lists_what_it_passes(mut bench: impl Bench<Store: CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    assert_eq!(take(&store, &on, FREE, vec![plain(3)]).await, [fresh(1, 3)]);
    assert_eq!(advance(&store, &on, 10).await, Advanced::Done);
    assert_eq!(next(&store, &on).await, 11);
    assert_eq!(advance(&store, &on, u64::MAX - 1).await, Advanced::Done);
    drop(store);
    bench.reopen().await;
    let store = bench.store();
    let state = state(&store, &on).await;
    assert_eq!(holes(&state), [(4, 10, HoleReason::Advanced), (12, u64::MAX - 1, HoleReason::Advanced)]);
    assert_eq!(next(&store, &on).await, u64::MAX);
}

pub(super) async fn advance_moves_only_up(bench: impl Bench<Store: CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    assert_eq!(take(&store, &on, FREE, vec![plain(3)]).await, [fresh(1, 3)]);
    assert_eq!(advance(&store, &on, 3).await, Advanced::Done, "it stands there");
    assert_eq!(advance(&store, &on, 2).await, Advanced::Below(SequenceValue(3)));
    assert_eq!(state(&store, &on).await.holes, []);
    let unused = counter("B", "");
    let below = store.advance(unused.clone(), SequenceValue(100), SequenceValue(99), "op".into(), NOON);
    assert_eq!(below.await.expect("answered"), Advanced::Below(SequenceValue(100)));
    assert_eq!(store.counters(&unused.key).await.expect("read"), [], "a refusal makes no counter");
}

pub(super) async fn what_is_handed_back_is_listed(bench: impl Bench<Store: CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    store.hand_back(on.clone(), values(1, 1)).await.expect("ignored");
    assert_eq!(take(&store, &on, FREE, vec![plain(5)]).await, [fresh(1, 5)]);
    let mut back = values(4, 5);
    back.push(range(7, 9));
    store.hand_back(on.clone(), back).await.expect("listed");
    store.hand_back(on.clone(), values(2, 2)).await.expect("listed");
    let state = state(&store, &on).await;
    assert_eq!(
        holes(&state),
        [(2, 2, HoleReason::Returned), (4, 5, HoleReason::Returned)],
        "7 to 9 were never drawn"
    );
    assert_eq!(next(&store, &on).await, 6, "nobody gets them again");
}

pub(super) async fn periods_and_keys_are_apart(bench: impl Bench<Store: CounterStore>) {
    let store = bench.store();
    for on in [counter("A", "2026-12"), counter("A", "2026-11"), counter("A", ""), counter("B", "2026-11")] {
        assert_eq!((next(&store, &on).await, next(&store, &on).await), (1, 2), "{on}");
    }
    let states = store.counters(&counter("A", "").key).await.expect("read");
    let periods: Vec<_> = states.iter().map(|state| state.period.as_str()).collect();
    assert_eq!(periods, ["", "2026-11", "2026-12"], "in period order");
}

pub(super) async fn an_unused_counter_begins_where_it_is_told(bench: impl Bench<Store: CounterStore>) {
    let (store, on) = (bench.store(), counter("A", ""));
    assert_eq!(advance(&store, &on, 500).await, Advanced::Done);
    let state = state(&store, &on).await;
    assert_eq!((state.base, state.last, state.holes.len()), (SequenceValue(500), SequenceValue(500), 0));
    let bounds = Bounds { base: SequenceValue(1000), ..FREE };
    assert_eq!(
        take(&store, &on, bounds, vec![plain(1)]).await,
        [fresh(1001, 1001)],
        "the base was raised since"
    );
    assert_eq!(advance(&store, &counter("B", ""), 500).await, Advanced::Done);
    assert_eq!(next(&store, &counter("B", "")).await, 501);
}
