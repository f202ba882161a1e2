//! The searches: with all guards nothing is found, without any one of them something is.

use numgen::store::protocol::window::{Guard, Terms};
use stateright::{Checker, HasDiscoveries, Model};

use super::{ALL, BEGIN, Fault, Old, TERMS, Windows};

const SPLITS: &[Fault] = &[Fault::Split, Fault::SplitOpenly, Fault::SplitLagging];

/// Searches the whole world, and says how large it was.
fn search<W: std::fmt::Debug>(what: W, model: &Windows) -> impl Checker<Windows> + use<W> {
    let checker = model.clone().checker().threads(2).spawn_bfs().join();
    println!("{what:?}: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    checker
}

const WORLD: Windows =
    Windows { terms: TERMS, slots: 2, end: BEGIN + 4, faults: 2, names: 1, kinds: &[], old: Old::Kept };

#[test]
fn two_slots_stand_two_faults_of_calls_and_memory() {
    use Fault::{Crash, Flush, LateRelease, Restart, Rollback, Slow};
    let kinds = &[Slow, LateRelease, Crash, Flush, Restart, Rollback];
    search("calls and memory", &Windows { kinds, names: 0, end: BEGIN + 3, ..WORLD }).assert_properties();
}

#[test]
fn two_slots_stand_two_faults_of_calls_and_clocks() {
    use Fault::{Ahead, Back, Crash, Doubled, LateRelease, Slow};
    let kinds = &[Slow, Doubled, LateRelease, Crash, Ahead, Back];
    search("calls and clocks", &Windows { kinds, names: 0, end: BEGIN + 3, ..WORLD }).assert_properties();
}

#[test]
fn one_slot_stands_two_faults_of_any_kind() {
    let model = Windows { slots: 1, kinds: ALL, names: 0, end: BEGIN + 3, ..WORLD };
    search("one slot", &model).assert_no_discovery(UNIQUE);
}

/// Minutes: `cargo test --release --test models -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn one_slot_stands_three_faults_of_any_kind() {
    let model = Windows { slots: 1, kinds: ALL, faults: 3, names: 0, end: BEGIN + 3, ..WORLD };
    search("one slot, three faults", &model).assert_no_discovery(UNIQUE);
}

/// The replica is promoted, and the old master goes on for a while.
#[test]
fn two_slots_stand_a_split() {
    let model = Windows { kinds: SPLITS, names: 0, faults: 1, end: BEGIN + 3, ..WORLD };
    search("split", &model).assert_no_discovery(UNIQUE);
}

/// Until everybody's windows have passed. Minutes. Last seen to end at 319,702 states.
#[test]
#[ignore = "takes minutes"]
fn two_slots_stand_a_split_for_longer() {
    search("longer split", &Windows { kinds: SPLITS, names: 0, faults: 1, ..WORLD })
        .assert_no_discovery(UNIQUE);
}

/// Minutes. Last seen to end at 865,576 states.
#[test]
#[ignore = "takes minutes"]
fn one_slot_stands_a_split_and_another_fault() {
    use Fault::{Crash, LateRelease, Restart, Slow, Split, SplitOpenly};
    let kinds = &[Split, SplitOpenly, Slow, LateRelease, Crash, Restart];
    search("split and another", &Windows { kinds, slots: 1, names: 0, ..WORLD }).assert_no_discovery(UNIQUE);
}

/// What becomes of a split without a precaution that is not the protocol's.
fn with(old: Old, model: Windows) {
    let found = HasDiscoveries::AnyOf([UNIQUE].into());
    let checker = Windows { old, ..model }.checker().threads(2).finish_when(found).spawn_bfs().join();
    println!("{old:?}: {:?}", checker.discovery(UNIQUE).map(|path| path.into_actions()));
    assert!(checker.discovery(UNIQUE).is_some(), "nothing happens where it {old:?}");
}

#[test]
fn an_old_master_must_be_kept_from_both() {
    let one_slot = Windows { slots: 1, faults: 1, kinds: &[Fault::Split], ..WORLD };
    with(Old::DoesNotWait, one_slot.clone());
    with(Old::MovesMarks, Windows { end: BEGIN + 5, ..one_slot });
}

/// What becomes of the model without a guard.
fn without(guard: Guard, property: &'static str, model: Windows) {
    let whole = search(("with", guard), &model);
    whole.assert_no_discovery(property);
    let mutant = Windows { terms: Terms { without: Some(guard), ..TERMS }, ..model };
    let found = HasDiscoveries::AnyOf([property].into());
    let checker = mutant.checker().threads(2).finish_when(found).spawn_bfs().join();
    let path = checker.discovery(property);
    println!("without {guard:?}: {property:?} fails after {} states", checker.unique_state_count());
    assert!(path.is_some(), "{guard:?} carries nothing that this model sees");
}

const UNIQUE: &str = "no timestamp of a slot is issued twice";

#[test]
fn every_guard_is_needed() {
    for guard in Guard::ALL {
        let one_slot = Windows { slots: 1, faults: 1, ..WORLD };
        match guard {
            Guard::Nonce => without(guard, UNIQUE, Windows { faults: 0, ..WORLD }),
            Guard::StartAtMark => without(guard, UNIQUE, Windows { faults: 0, ..one_slot }),
            Guard::Fence => without(guard, UNIQUE, Windows { kinds: &[Fault::Doubled], ..one_slot }),
            Guard::Margin => without(guard, UNIQUE, Windows { kinds: &[Fault::Rollback], ..one_slot }),
            Guard::Settling => without(guard, UNIQUE, Windows { kinds: &[Fault::Flush], ..one_slot }),
            Guard::AdoptGeneration => {
                let property = "a memory ends only by a loss";
                without(guard, property, Windows { kinds: &[Fault::Flush], ..one_slot });
            }
            Guard::ReleaseMatches => {
                without(guard, UNIQUE, Windows { kinds: &[Fault::LateRelease], ..one_slot });
            }
            Guard::RenewBound => {
                let property = "a mark runs no further ahead than its holder believes";
                without(guard, property, Windows { kinds: &[Fault::Ahead], ..one_slot });
            }
            Guard::LeftForGood => {
                without(guard, UNIQUE, Windows { kinds: &[Fault::Split], names: 0, ..one_slot })
            }
            Guard::Deserted => without(
                guard,
                UNIQUE,
                Windows { kinds: &[Fault::SplitOpenly], names: 0, end: BEGIN + 3, ..one_slot },
            ),
            Guard::FreshReplies => {
                without(
                    guard,
                    UNIQUE,
                    Windows {
                        kinds: &[Fault::Slow, Fault::Flush],
                        faults: 2,
                        names: 0,
                        end: BEGIN + 3,
                        ..one_slot
                    },
                );
            }
        }
    }
}
