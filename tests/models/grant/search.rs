//! The searches: with all guards nothing is found, without any one of them something is.

use stateright::{Checker, HasDiscoveries, Model};

use super::{
    Fault::{
        self, Crash, DoubledNeed, Empty, Flush, LostDraw, LostReply, Rollback, SlowGrant, SlowTake, Split,
        SplitLagging,
    },
    Grants, Guard,
    model::{ANSWERED, BOTH, NEEDLESS, TWICE},
};

/// Each node in a data centre of its own.
const APART: Grants =
    Grants { sites: [1, 2], values: 2, before: 1, faults: 1, kinds: &[], segment: 0, without: None };
/// Both in one.
const TOGETHER: Grants = Grants { sites: [1, 1], ..APART };

fn search(model: Grants, until: HasDiscoveries) -> impl Checker<Grants> {
    let Grants { sites, values, faults, kinds, segment, without, .. } = &model;
    let name = format!(
        "{sites:?}, {values} values, {faults} faults of {kinds:?}, segments of {segment}, without {without:?}"
    );
    let checker = model.checker().threads(2).finish_when(until).spawn_bfs().join();
    println!("{name}: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    checker
}

fn holds(model: Grants) {
    let checker = search(model, HasDiscoveries::AnyFailures);
    for what in [TWICE, ANSWERED, NEEDLESS] {
        if let Some(path) = checker.discovery(what) {
            panic!("not so: {what}: after {:#?}: {:#?}", path.clone().into_actions(), path.last_state());
        }
    }
    checker.assert_any_discovery(BOTH);
}

const ALL: &[Fault] = &[
    SlowTake,
    LostReply,
    SlowGrant,
    DoubledNeed,
    LostDraw,
    Crash,
    Flush,
    Empty,
    Rollback,
    Split,
    SplitLagging,
];
const MESSAGES: &[Fault] = &[SlowTake, LostReply, SlowGrant, DoubledNeed, LostDraw, Crash];
const MEMORY: &[Fault] = &[Flush, Empty, Rollback];

#[test]
fn two_data_centres_stand_a_fault_of_any_kind_and_two_that_leave_one_redis_each() {
    holds(Grants { kinds: ALL, ..APART });
    holds(Grants { kinds: &[SlowGrant, Crash, Rollback], faults: 2, ..APART });
}

/// Minutes: `cargo test --release --test models grant -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn two_data_centres_stand_two_faults_of_any_kind() {
    holds(Grants { kinds: ALL, faults: 2, ..APART });
}

#[test]
fn two_data_centres_stand_a_fault_while_nodes_hold_segments() {
    holds(Grants { kinds: MESSAGES, segment: 1, ..APART });
    holds(Grants { kinds: MEMORY, segment: 1, ..APART });
}

#[test]
fn two_nodes_of_one_redis_stand_a_fault() {
    holds(Grants { faults: 0, values: 3, ..TOGETHER });
    holds(Grants { kinds: MESSAGES, values: 3, ..TOGETHER });
    holds(Grants { kinds: MEMORY, ..TOGETHER });
    holds(Grants { kinds: MESSAGES, segment: 1, ..TOGETHER });
}

#[test]
#[ignore = "takes minutes"]
fn two_nodes_of_one_redis_stand_two_faults_of_messages() {
    holds(Grants { kinds: MESSAGES, faults: 2, ..TOGETHER });
}

#[test]
#[ignore = "takes minutes"]
fn two_nodes_of_one_redis_stand_a_split() {
    holds(Grants { kinds: &[Split, SplitLagging], values: 1, ..TOGETHER });
}

#[test]
#[ignore = "takes minutes"]
fn two_nodes_of_one_redis_stand_a_loss_while_they_hold_segments() {
    holds(Grants { kinds: MEMORY, values: 1, segment: 1, ..TOGETHER });
}

#[test]
fn each_guard_carries_something() {
    let calm = Grants { faults: 0, ..APART };
    let all: [(Guard, &'static str, Grants); _] = [
        (Guard::MatchGeneration, TWICE, Grants { kinds: &[Rollback], ..TOGETHER }),
        (Guard::FreshGrant, TWICE, Grants { kinds: &[Rollback], ..TOGETHER }),
        (Guard::AboveGranted, TWICE, calm.clone()),
        (Guard::AboveKnown, TWICE, Grants { before: 3, ..calm.clone() }),
        (Guard::SegmentsInside, TWICE, Grants { segment: 1, values: 3, ..calm.clone() }),
        (Guard::RequestNames, ANSWERED, Grants { kinds: &[LostDraw], ..APART }),
        (Guard::Chain, NEEDLESS, Grants { sites: [1, 1], ..calm }),
    ];
    for (guard, what, model) in all {
        let mutant = Grants { without: Some(guard), ..model };
        let checker = search(mutant, HasDiscoveries::AllOf([what].into()));
        println!("   {guard:?} {:?}", checker.discovery(what).map(|path| path.into_actions()));
    }
}
