//! Worker windows.

use std::{sync::Arc, time::Duration};

use numgen::{
    clock::UnixMillis,
    store::{AcquireRequest, Acquired, Extension, Holding, IdMillis, Nonce, Renewed, Tenure, WorkerStore},
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use super::{Bench, EPOCH, NOON};

const NOW: IdMillis = (NOON.0 - EPOCH.0) as u64;
const WINDOW_MS: u64 = 1_000;
const TTL_MS: u64 = 15_000;

fn nonce(number: u8) -> Nonce {
    Nonce([number; 16])
}

async fn acquire(store: &Arc<impl WorkerStore>, number: u8, slots: std::ops::Range<u32>) -> Option<Holding> {
    let request = AcquireRequest {
        nonce: nonce(number),
        slots,
        window_ms: WINDOW_MS,
        ttl_ms: TTL_MS,
        tenure: Tenure::Lease,
    };
    match store.acquire(request).await.expect("answered") {
        Acquired::Held(holding) => Some(holding),
        Acquired::NoSlot => None,
        Acquired::Wait(wait) => panic!("settled long ago: {wait:?}"),
    }
}

async fn renew(store: &Arc<impl WorkerStore>, holding: Holding, carried: IdMillis) -> Renewed {
    store
        .renew(holding, Extension { carried, window_ms: WINDOW_MS, ttl_ms: TTL_MS, tenure: Tenure::Lease })
        .await
        .expect("answered")
}

pub(super) async fn the_layout_is_pinned_once(mut bench: impl Bench<Store: WorkerStore>) {
    assert_eq!(bench.store().pin_layout("41/5/5/12").await.expect("pinned"), "41/5/5/12");
    bench.reopen().await;
    assert_eq!(bench.store().pin_layout("40/6/5/12").await.expect("read"), "41/5/5/12");
}

pub(super) async fn a_nonce_names_one_holding(bench: impl Bench<Store: WorkerStore>) {
    let store = bench.store();
    let first = acquire(&store, 1, 3..5).await.expect("free");
    assert_eq!((first.slot, first.start, first.mark, first.now), (3, 0, NOW + WINDOW_MS, NOW));
    bench.advance(Duration::from_millis(10));
    let again = acquire(&store, 1, 3..5).await.expect("the same");
    assert_eq!(again, Holding { now: NOW + 10, ..first });
}

pub(super) async fn a_slot_has_one_holder(bench: impl Bench<Store: WorkerStore>) {
    let store = bench.store();
    assert_eq!(acquire(&store, 1, 0..2).await.expect("free").slot, 0);
    assert_eq!(acquire(&store, 2, 0..2).await.expect("free").slot, 1);
    assert_eq!(acquire(&store, 3, 0..2).await, None);
    assert_eq!(acquire(&store, 3, 5..5).await, None, "no slot asked for");
}

pub(super) async fn renewal_moves_the_mark(bench: impl Bench<Store: WorkerStore>) {
    let store = bench.store();
    let holding = acquire(&store, 1, 0..1).await.expect("free");
    bench.advance(Duration::from_millis(400));
    let extended = renew(&store, holding, NOW + 400).await;
    let generation = holding.generation;
    assert_eq!(extended, Renewed::Extended { mark: NOW + 1_400, now: NOW + 400, generation });
    bench.step_to(UnixMillis(NOON.0 - 3_600_000));
    let Renewed::Extended { mark, .. } = renew(&store, holding, NOW + 500).await else { panic!("lost") };
    // A store with a clock of its own stays where it is; one that lives on its holder's clock follows what the holder carried.
    assert!([NOW + 1_400, NOW + 1_500].contains(&mark), "a mark never falls, nor runs ahead: {mark}");
    bench.step_to(UnixMillis(NOON.0 + 1_300));
    let Renewed::Extended { mark: after, .. } = renew(&store, holding, 0).await else { panic!("lost") };
    assert_eq!(after, mark, "the holder's own clock bounds it");
    let stranger = Holding { nonce: nonce(2), ..holding };
    assert_eq!(renew(&store, stranger, NOW).await, Renewed::Lost);
    assert_eq!(renew(&store, Holding { fence: holding.fence + 1, ..holding }, NOW).await, Renewed::Lost);
    assert_eq!(renew(&store, Holding { slot: 9, ..holding }, NOW).await, Renewed::Lost);
}

pub(super) async fn a_passed_mark_is_lost(bench: impl Bench<Store: WorkerStore>) {
    let store = bench.store();
    let holding = acquire(&store, 1, 0..1).await.expect("free");
    bench.advance(Duration::from_millis(WINDOW_MS));
    assert_eq!(renew(&store, holding, NOW + WINDOW_MS).await, Renewed::Lost);
    let next = acquire(&store, 2, 0..1).await.expect("given up by its holder");
    assert_eq!((next.start, next.fence), (holding.mark, holding.fence + 1));
}

pub(super) async fn release_frees_at_once(mut bench: impl Bench<Store: WorkerStore>) {
    let store = bench.store();
    let holding = acquire(&store, 1, 0..1).await.expect("free");
    store.release(Holding { nonce: nonce(2), ..holding }, NOW).await.expect("ignored");
    assert_eq!(acquire(&store, 2, 0..1).await, None, "not the stranger's to release");
    store.release(holding, NOW + 7).await.expect("released");
    bench.advance(Duration::from_millis(7));
    drop(store);
    bench.reopen().await;
    let store = bench.store();
    let next = acquire(&store, 2, 0..1).await.expect("free");
    assert_eq!(next.start, NOW + 7, "above what was used, and not higher");
    store.release(holding, 0).await.expect("ignored");
    assert!(matches!(renew(&store, next, NOW).await, Renewed::Extended { .. }), "a late release is ignored");
}

pub(super) async fn a_silent_holder_loses_its_slot(bench: impl Bench<Store: WorkerStore>) {
    let store = bench.store();
    let holding = acquire(&store, 1, 0..1).await.expect("free");
    bench.advance(Duration::from_millis(TTL_MS - 1));
    assert_eq!(acquire(&store, 2, 0..1).await, None);
    bench.advance(Duration::from_millis(1));
    let next = acquire(&store, 2, 0..1).await.expect("silent for too long");
    assert!(next.start >= holding.mark);
    assert_eq!(renew(&store, holding, NOW).await, Renewed::Lost);
}

/// Where others use the store, too: a fixed holder may go on without it.
pub(super) async fn no_lease_follows_a_fixed_holder(mut bench: impl Bench<Store: WorkerStore>) {
    let store = bench.store();
    let request = AcquireRequest {
        nonce: nonce(1),
        slots: 0..1,
        window_ms: WINDOW_MS,
        ttl_ms: TTL_MS,
        tenure: Tenure::Fixed,
    };
    let extension = Extension { carried: NOW, window_ms: WINDOW_MS, ttl_ms: TTL_MS, tenure: Tenure::Fixed };
    let Acquired::Held(fixed) = store.acquire(request.clone()).await.expect("answered") else {
        panic!("free")
    };
    let Renewed::Extended { .. } = store.renew(fixed, extension).await.expect("answered") else {
        panic!("held")
    };
    bench.advance(Duration::from_millis(10 * TTL_MS));
    drop(store);
    bench.reopen().await;
    let store = bench.store();
    assert_eq!(acquire(&store, 2, 0..1).await, None, "it goes on, and nobody hears of it");
    assert_eq!(store.free_slots(0..2).await.expect("counted"), Some(1));
    assert_eq!(store.renew(fixed, extension).await.expect("answered"), Renewed::Lost);
    assert_eq!(acquire(&store, 2, 0..1).await, None, "it is back, and has not asked again yet");
    let Acquired::Held(fixed) = store.acquire(request).await.expect("answered") else { panic!("its own") };
    let farewell = Extension { tenure: Tenure::Lease, ..extension };
    assert!(matches!(store.renew(fixed, farewell).await.expect("answered"), Renewed::Extended { .. }));
    store.release(fixed, fixed.start).await.expect("released");
    assert_eq!(acquire(&store, 2, 0..1).await.expect("given up").start, fixed.start);
}

/// One step of a random schedule.
#[derive(Clone, Debug)]
enum Step {
    Acquire { worker: usize },
    Renew { worker: usize, carried_off_ms: i64 },
    Release { worker: usize, used_per_mille: u64 },
    Pass { ms: u64 },
    TurnClock { ms: i64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let worker = 0..4_usize;
    let step = prop_oneof![
        3 => worker.clone().prop_map(|worker| Step::Acquire { worker }),
        3 => (worker.clone(), -10_000..10_000_i64)
            .prop_map(|(worker, carried_off_ms)| Step::Renew { worker, carried_off_ms }),
        1 => (worker, 0..=1_000_u64).prop_map(|(worker, used_per_mille)| Step::Release { worker, used_per_mille }),
        3 => (0..2_000_u64).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Pass { ms: TTL_MS }),
        1 => (-100_000..100_000_i64).prop_map(|ms| Step::TurnClock { ms }),
    ];
    prop::collection::vec(step, 1..60)
}

/// A worker issues up to its mark as soon as it has it: the worst for everybody else.
pub(super) async fn windows_of_a_slot_are_disjoint(bench: impl Bench<Store: WorkerStore>) {
    let mut runner = TestRunner::new(Config::default());
    let store = bench.store();
    let mut nonces = 0_u64;
    for case in 0..40_u32 {
        let schedule = steps().new_tree(&mut runner).expect("a schedule").current();
        // Slots of its own for each schedule; windows that were given out, by (slot, fence).
        let slots = case * 2..case * 2 + 2;
        let mut windows = std::collections::BTreeMap::<(u32, u64), (IdMillis, IdMillis)>::new();
        let mut held: [Option<Holding>; 4] = [None; 4];
        for step in &schedule {
            let now = (bench.now().0 - EPOCH.0).max(0) as u64;
            match *step {
                Step::Acquire { worker } if held[worker].is_none() => {
                    nonces += 1;
                    let nonce = Nonce((u128::from(nonces) << 8).to_be_bytes());
                    let request = AcquireRequest {
                        nonce,
                        slots: slots.clone(),
                        window_ms: WINDOW_MS,
                        ttl_ms: TTL_MS,
                        tenure: Tenure::Lease,
                    };
                    if let Acquired::Held(holding) = store.acquire(request).await.expect("answered") {
                        windows.insert((holding.slot, holding.fence), (holding.start, holding.mark));
                        held[worker] = Some(holding);
                    }
                }
                Step::Renew { worker, carried_off_ms } => {
                    let Some(holding) = held[worker] else { continue };
                    match renew(&store, holding, now.saturating_add_signed(carried_off_ms)).await {
                        Renewed::Extended { mark, .. } => {
                            let window = windows.get_mut(&(holding.slot, holding.fence)).expect("known");
                            assert!(mark >= window.1, "a mark never falls while it is held");
                            window.1 = mark;
                        }
                        Renewed::Lost => held[worker] = None,
                    }
                }
                Step::Release { worker, used_per_mille } => {
                    let Some(holding) = held[worker].take() else { continue };
                    let window = windows.get_mut(&(holding.slot, holding.fence)).expect("known");
                    window.1 = window.0 + (window.1 - window.0) * used_per_mille / 1_000;
                    store.release(holding, window.1).await.expect("released");
                }
                Step::Pass { ms } => bench.advance(Duration::from_millis(ms)),
                Step::TurnClock { ms } => bench.step_to(UnixMillis(bench.now().0 + ms)),
                Step::Acquire { .. } => {}
            }
        }
        for slot in slots {
            let of_slot: Vec<_> =
                windows.iter().filter(|((of, _), _)| *of == slot).map(|(_, window)| *window).collect();
            for pair in of_slot.windows(2) {
                assert!(pair[0].1 <= pair[1].0, "overlap in slot {slot}: {of_slot:?} after {schedule:?}");
            }
        }
    }
}
