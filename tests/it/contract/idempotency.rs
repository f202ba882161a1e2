//! What a key was given, where the values come from elsewhere.

use std::time::Duration;

use numgen::{
    clock::UnixMillis,
    store::{IdempotencyStore, Recorded, Taken},
};

use super::{Bench, NOON, claim, values};

fn replayed(key: &str, from: u64, to: u64) -> Taken {
    Taken::Replayed(Recorded { stamp: format!("stamp of {key}").into(), values: values(from, to) })
}

pub(super) async fn the_first_values_stay(mut bench: impl Bench<Store: IdempotencyStore>) {
    let store = bench.store();
    assert_eq!(store.remember(claim("k", 1, NOON), values(u64::MAX - 1, u64::MAX)).await.expect("kept"), {
        Taken::Fresh(values(u64::MAX - 1, u64::MAX))
    });
    drop(store);
    bench.reopen().await;
    let store = bench.store();
    let again = store.remember(claim("k", 1, NOON), values(5, 5)).await.expect("found");
    assert_eq!(again, replayed("k", u64::MAX - 1, u64::MAX));
    let other = store.remember(claim("k", 2, NOON), values(5, 5)).await.expect("found");
    assert_eq!(other, Taken::Mismatch);
    let elsewhere = store.remember(claim("K", 2, NOON), values(5, 5)).await.expect("kept");
    assert_eq!(elsewhere, Taken::Fresh(values(5, 5)));
}

pub(super) async fn an_expired_record_counts_as_absent(bench: impl Bench<Store: IdempotencyStore>) {
    let store = bench.store();
    store.remember(claim("k", 1, NOON), values(1, 3)).await.expect("kept");
    let just_before = UnixMillis(NOON.0 + 59_999);
    assert_eq!(
        store.remember(claim("k", 1, just_before), values(9, 9)).await.expect("found"),
        replayed("k", 1, 3)
    );
    let expired = NOON.plus(Duration::from_secs(60));
    let renewed = store.remember(claim("k", 2, expired), values(9, 9)).await.expect("kept anew");
    assert_eq!(renewed, Taken::Fresh(values(9, 9)));
    assert_eq!(
        store.remember(claim("k", 2, expired), values(7, 7)).await.expect("found"),
        replayed("k", 9, 9)
    );
}

pub(super) async fn expired_records_are_forgotten(bench: impl Bench<Store: IdempotencyStore>) {
    let store = bench.store();
    for (index, at) in [NOON, NOON, NOON.plus(Duration::from_secs(1))].into_iter().enumerate() {
        store.remember(claim(&format!("k{index}"), 1, at), values(1, 1)).await.expect("kept");
    }
    assert_eq!(store.forget_expired(NOON).await.expect("swept"), 0);
    bench.advance(Duration::from_secs(60));
    let swept = store.forget_expired(bench.now()).await.expect("swept");
    assert!([0, 2].contains(&swept), "{swept}: both, or none by a store that forgets by itself");
    let later = claim("k1", 2, bench.now());
    assert_eq!(store.remember(later, values(8, 8)).await.expect("kept"), Taken::Fresh(values(8, 8)));
    assert_eq!(
        store.remember(claim("k2", 1, NOON), values(4, 4)).await.expect("found"),
        replayed("k2", 1, 1)
    );
}
