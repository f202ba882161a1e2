//! The searches: with all guards nothing is found, without any one of them something is.

use stateright::{Checker, HasDiscoveries, Model};

use super::{
    Action::{self, Ask, AskBadly, Execute, Fail, GoOver, WaitSettled},
    Counter, Fault,
    Fault::{
        Crash, Doubled, Empty, Flush, Insist, Leave, LeaveUnheard, Restart, Rollback, Slow, SlowBeat, Split,
        SplitLagging, Unanswered,
    },
    Guard, Question, Time,
    model::{GOT_PAST, LISTED, NEEDLESS, RECOVERED, SWAPPED, TWICE},
};

/// How many states a search looks at that has no end in the time of `make test`. 0: all, for hours.
const STATES: &str = "NUMGEN_MODEL_STATES";
const FEW: usize = 30_000;

const CALM: Counter = Counter {
    size: 1,
    values: 3,
    faults: 0,
    kinds: &[],
    time: Time::Stands,
    question: Question::Everything,
    opening: &[],
    without: None,
};

/// As deep as there are states, or as far as `most` of them.
fn search(model: Counter, until: HasDiscoveries, most: Option<usize>) -> impl Checker<Counter> {
    let Counter { values, faults, kinds, without, .. } = &model;
    let name = format!("{values} values, {faults} faults of {kinds:?}, without {without:?}");
    let checker = model.checker().threads(2).finish_when(until);
    let checker = most.into_iter().fold(checker, |checker, most| checker.target_state_count(most));
    let checker = checker.spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{name}: {states} states, depth {depth}");
    checker
}

/// The properties hold, and `also` happens.
fn holds(model: Counter, also: &[&'static str], most: Option<usize>) {
    let checker = search(model, HasDiscoveries::AnyFailures, most);
    for what in [TWICE, LISTED, NEEDLESS] {
        if let Some(path) = checker.discovery(what) {
            panic!("not so: {what}: after {:#?}: {:#?}", path.clone().into_actions(), path.last_state());
        }
    }
    also.iter().for_each(|what| drop(checker.assert_any_discovery(what)));
}

/// As many states as are asked for.
fn most() -> Option<usize> {
    let most = std::env::var(STATES).map_or(FEW, |most| most.parse().expect("a number of states"));
    (most > 0).then_some(most)
}

#[test]
fn a_calm_run_leaves_no_hole() {
    holds(CALM, &[SWAPPED, GOT_PAST], None);
    holds(Counter { size: 2, values: 2, ..CALM }, &[], None);
    holds(Counter { time: Time::Lapses, values: 2, ..CALM }, &[], None);
}

/// Values asked for, faults, and of which kinds.
type World = (u8, u8, &'static [Fault]);

/// What one kind of fault, or two, can do: every run there is, until the search ends by itself.
fn nothing_is_issued_twice(worlds: &[World]) {
    for &(values, faults, kinds) in worlds {
        holds(Counter { question: Question::Twice, ..with(values, faults, kinds) }, &[], None);
    }
}

/// The same, of the list of holes, too.
fn everything_is_listed(worlds: &[World]) {
    for &(values, faults, kinds) in worlds {
        holds(with(values, faults, kinds), if kinds.contains(&Empty) { &[RECOVERED] } else { &[] }, None);
    }
}

fn with(values: u8, faults: u8, kinds: &'static [Fault]) -> Counter {
    Counter { time: Time::Settles, values, faults, kinds, ..CALM }
}

#[test]
fn the_network_may_fail() {
    let kinds = &[Slow, SlowBeat, Doubled];
    everything_is_listed(&[(1, 1, kinds), (2, 1, kinds)]);
    nothing_is_issued_twice(&[(3, 1, kinds)]);
}

#[test]
fn processes_may_end() {
    let kinds = &[Crash, Leave, LeaveUnheard];
    everything_is_listed(&[(1, 1, kinds), (2, 1, kinds)]);
    nothing_is_issued_twice(&[(3, 1, kinds)]);
}

#[test]
fn callers_may_go_away() {
    everything_is_listed(&[
        (1, 2, &[Unanswered, Leave]),
        (0, 3, &[Unanswered, Leave]),
        (0, 2, &[Unanswered, SlowBeat, Doubled]),
        (0, 2, &[Unanswered, Flush, Restart, Empty]),
        (0, 2, &[Unanswered, Rollback]),
    ]);
}

#[test]
fn the_store_may_forget() {
    everything_is_listed(&[(1, 1, &[Flush, Restart, Empty]), (1, 1, &[Rollback]), (2, 1, &[Rollback])]);
    nothing_is_issued_twice(&[(2, 1, &[Flush, Restart, Empty])]);
}

#[test]
fn the_store_may_forget_twice_or_as_something_else_fails() {
    nothing_is_issued_twice(&[
        (1, 2, &[Rollback]),
        (1, 2, &[Crash, Rollback]),
        (1, 2, &[Slow, Doubled, Empty]),
    ]);
}

#[test]
fn the_store_may_come_apart() {
    nothing_is_issued_twice(&[(1, 1, &[Split]), (1, 1, &[SplitLagging])]);
}

/// Minutes: `cargo test --release --test models larger_worlds -- --ignored --nocapture`. Last seen to end, without a finding: the first
/// three, at 251,903, 906,713 and 169,465 states. The fourth has not been seen to end: no finding in the 13 minutes that it had.
#[test]
#[ignore = "takes minutes"]
fn larger_worlds() {
    nothing_is_issued_twice(&[
        (3, 1, &[Rollback]),
        (2, 1, &[Split]),
        (2, 2, &[Slow, SlowBeat, Doubled]),
        (1, 2, &[Split, Insist]),
    ]);
}

/// A node has gone over to the new store, which has skipped for the other node, and back.
const STRAYED: &[Action] = &[
    Fail(Split, 0),
    GoOver(0),
    Ask(0, 0),
    Ask(0, 0),
    WaitSettled,
    Ask(0, 0),
    GoOver(0),
    Ask(0, 0),
    Ask(0, 0),
    Ask(1, 0),
    Ask(1, 0),
];

/// A split, in which one node has been on both sides, and somebody has the generation ended that keeps it out: the nearest states.
/// All of them, with `NUMGEN_MODEL_STATES=0`: 929,547 states, 43 s of an optimised build, without a finding.
#[test]
fn a_generation_may_be_ended_after_a_split() {
    let model = Counter { opening: STRAYED, question: Question::Twice, ..with(1, 2, &[Insist]) };
    holds(model, &[], most());
}

/// These have no end within the time of `make test`: the nearest states.
#[test]
fn many_faults_are_looked_into() {
    let all: [World; _] = [
        (2, 2, &[Split, Insist]),
        (4, 1, &[Crash, Leave]),
        (2, 2, &[Crash, Slow, Rollback]),
        (2, 3, &[Crash, Slow, Doubled, Empty, Rollback, Split]),
    ];
    for (values, faults, kinds) in all {
        holds(with(values, faults, kinds), &[], most());
    }
}

#[test]
fn each_guard_carries_something() {
    use Time::{Settles, Stands};
    // On its way to a store that is about to be lost, and executed there.
    let under_way = &[AskBadly(Slow, 0, 1), Execute(0)];
    let strayed = STRAYED;
    // Both have reported to a store that restarted; it comes apart, and node 0 draws from the other part.
    let gone_on = &[
        Fail(Restart, 0),
        Ask(0, 0),
        Ask(0, 0),
        Ask(1, 0),
        Ask(1, 0),
        Fail(Split, 0),
        GoOver(0),
        Ask(0, 0),
        Ask(0, 0),
        WaitSettled,
        Ask(0, 0),
    ];
    let all: [(Guard, &'static str, Counter); _] = [
        (Guard::CallNumber, LISTED, without(1, 1, &[Slow], Stands)),
        (
            Guard::GenerationOfReply,
            TWICE,
            Counter { opening: under_way, ..without(2, 2, &[Slow, Empty], Settles) },
        ),
        (Guard::WrittenBeforeAdopted, TWICE, without(4, 1, &[Crash], Stands)),
        (Guard::TwoStepSwap, TWICE, without(4, 1, &[SlowBeat], Stands)),
        (Guard::ReservedOffer, TWICE, without(4, 0, &[], Stands)),
        (Guard::Holds, TWICE, without(4, 1, &[Flush], Settles)),
        (Guard::Used, TWICE, without(4, 0, &[], Stands)),
        (Guard::SurplusListed, LISTED, without(2, 1, &[Slow], Stands)),
        (Guard::SurplusAhead, LISTED, without(1, 2, &[Unanswered, Leave], Stands)),
        (Guard::Replid, TWICE, without(2, 1, &[Rollback], Settles)),
        (Guard::RandomGeneration, TWICE, without(2, 2, &[Slow, Empty], Settles)),
        (Guard::Settling, TWICE, without(2, 1, &[Empty], Stands)),
        (Guard::SegmentSkip, TWICE, without(4, 0, &[], Stands)),
        (Guard::Seen, TWICE, without(2, 1, &[Rollback], Settles)),
        (Guard::RetiredAreDead, TWICE, without(4, 0, &[], Stands)),
        (
            Guard::ReportUnderGeneration,
            TWICE,
            Counter { opening: under_way, ..without(2, 3, &[Slow, Empty], Settles) },
        ),
        (Guard::SkipForSilent, TWICE, without(2, 1, &[Rollback], Settles)),
        (Guard::SkipByLot, TWICE, without(2, 2, &[Rollback], Settles)),
        (Guard::LeftForGood, TWICE, Counter { opening: strayed, ..without(2, 1, &[Split], Settles) }),
        (Guard::ReportedElsewhere, TWICE, Counter { opening: gone_on, ..without(3, 2, &[], Settles) }),
        (Guard::SeenUnderGeneration, TWICE, Counter { opening: strayed, ..without(2, 1, &[Split], Settles) }),
    ];
    for (guard, what, model) in all {
        let question = if what == TWICE { Question::Twice } else { Question::Everything };
        let checker = search(
            Counter { without: Some(guard), question, ..model },
            HasDiscoveries::AllOf([what].into()),
            None,
        );
        println!("   {:?}", checker.assert_any_discovery(what).into_actions());
    }
}

fn without(values: u8, faults: u8, kinds: &'static [Fault], time: Time) -> Counter {
    Counter { values, faults, kinds, time, ..CALM }
}
