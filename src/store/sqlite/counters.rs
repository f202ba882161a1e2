//! Continuous counters. The hot path: one statement for a batch without keys.

use std::sync::Arc;

use super::{
    SqliteStore,
    audit::enter,
    failure::Failure,
    ledger::write_entries,
    values,
    workspace::{Workspace, collect},
    writer::Job,
};
use crate::{
    clock::UnixMillis,
    counter::{Counter, Ranges, SequenceValue},
    prefix_key::PrefixKey,
    store::{
        Advanced, AuditEntry, Bounds, CounterState, CounterStore, Elsewhere, HoleReason, Note, StoreFuture,
        TakeRequest, Taken,
        draw::{Ask, Standing, plan},
        ledger::{Advance, enter_advance, plan_advance},
    },
};

const COUNTERS: &str = "SELECT period, base, last FROM counters WHERE prefix_key = ?1 ORDER BY period";
const HOLES: &str = "SELECT from_value, to_value, reason, since_ms FROM holes
    WHERE prefix_key = ?1 AND period = ?2 ORDER BY from_value";

impl CounterStore for SqliteStore {
    fn take(
        &self,
        counter: Counter,
        bounds: Bounds,
        requests: Vec<TakeRequest>,
    ) -> StoreFuture<'_, Vec<Taken>> {
        let requests: Arc<[TakeRequest]> = requests.into();
        let (asked, drawn_on) = (Arc::clone(&requests), counter.clone());
        self.write_or(
            "take",
            move |workspace| take(workspace, &counter, bounds, &requests),
            move |taken| undelivered(drawn_on, &asked, &taken),
        )
    }

    fn hand_back(&self, counter: Counter, values: Ranges) -> StoreFuture<'_, ()> {
        self.write("hand_back", move |workspace| hand_back(workspace, &counter, &values))
    }

    fn counters<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Vec<CounterState>> {
        let key = key.clone();
        self.read("counters", move |connection| {
            // One view of both tables.
            let view = connection.unchecked_transaction()?;
            let mut states = collect(&view, COUNTERS, [key.as_str()], |row| {
                Ok(CounterState {
                    period: values::period(row)?,
                    base: values::sequence(row, "base")?,
                    last: values::sequence(row, "last")?,
                    segments: Vec::new(),
                    holes: Vec::new(),
                    elsewhere: Elsewhere::default(),
                    begun_at: None,
                })
            })?;
            for state in &mut states {
                state.holes = collect(&view, HOLES, (key.as_str(), state.period.as_str()), values::hole)?;
            }
            Ok(states)
        })
    }

    fn advance(
        &self,
        counter: Counter,
        base: SequenceValue,
        to: SequenceValue,
        actor: Arc<str>,
        now: UnixMillis,
    ) -> StoreFuture<'_, Advanced> {
        self.write("advance", move |workspace| advance(workspace, &counter, base, to, &actor, now, None))
    }

    fn advance_noted(
        &self,
        counter: Counter,
        base: SequenceValue,
        to: SequenceValue,
        note: Note,
    ) -> StoreFuture<'_, Advanced> {
        self.write("advance", move |workspace| {
            let AuditEntry { at, author, .. } = note.entry();
            advance(workspace, &counter, base, to, &author.subject, *at, Some(&note))
        })
    }
}

fn take(
    workspace: &mut Workspace,
    counter: &Counter,
    bounds: Bounds,
    requests: &[TakeRequest],
) -> Result<Vec<Taken>, Failure> {
    let standing = workspace.tally(counter)?.standing;
    let plan = plan(standing, bounds, requests, |claim| workspace.recall(claim))?;
    let Some(movement) = plan.movement else { return Ok(plan.taken) };
    let standing = Standing { base: movement.base, last: movement.last };
    workspace.draw_to(counter, standing, movement.start)?;
    if let Some(skipped) = movement.skipped {
        workspace.list(counter, skipped, HoleReason::Skipped)?;
    }
    record_claims(workspace, counter, requests, &plan.taken)?;
    Ok(plan.taken)
}

/// Stores what each key of a batch was given.
pub(super) fn record_claims<A: Ask>(
    workspace: &mut Workspace,
    counter: &Counter,
    requests: &[A],
    taken: &[Taken],
) -> Result<(), Failure> {
    for (request, answer) in requests.iter().zip(taken) {
        if let (Some(claim), Taken::Fresh(given)) = (request.claim(), answer) {
            workspace.record(claim, given, Some(counter))?;
        }
    }
    Ok(())
}

/// Lists values that were drawn in vain. A value above the cursor was never drawn: the commit that should have done it failed.
fn hand_back(workspace: &mut Workspace, counter: &Counter, values: &Ranges) -> Result<(), Failure> {
    let Some(standing) = workspace.tally(counter)?.standing else { return Ok(()) };
    let mut drawn = values.iter().filter(|range| range.to <= standing.last);
    drawn.try_for_each(|range| workspace.list(counter, range, HoleReason::Returned))
}

fn advance(
    workspace: &mut Workspace,
    counter: &Counter,
    base: SequenceValue,
    to: SequenceValue,
    actor: &str,
    now: UnixMillis,
    note: Option<&Note>,
) -> Result<Advanced, Failure> {
    let tally = workspace.tally(counter)?.clone();
    match plan_advance(tally.standing, &tally.account, base, to) {
        Advance::Settled(answer) => return Ok(answer),
        Advance::Begin => workspace.save(counter, Standing { base: to, last: to }, tally.account)?,
        Advance::Void(base, range) => {
            let entries = enter_advance(counter, tally.account, range, actor, now);
            write_entries(workspace, counter, Standing { base, last: to }, entries)?;
        }
        Advance::List(base, range) => {
            workspace.save(counter, Standing { base, last: to }, tally.account)?;
            workspace.list(counter, range, HoleReason::Advanced)?;
        }
    }
    enter(workspace, note)?;
    Ok(Advanced::Done)
}

/// Values that did not reach their caller, who had given up or was told of a failure: nobody has them, nobody ever will. Values
/// under a key are kept for whoever comes back with it.
fn undelivered(counter: Counter, requests: &[TakeRequest], taken: &[Taken]) -> Option<Box<dyn Job>> {
    let mut values = Ranges::new();
    for (request, answer) in requests.iter().zip(taken) {
        if let (None, Taken::Fresh(given)) = (&request.claim, answer) {
            given.iter().for_each(|range| values.push(range));
        }
    }
    (!values.is_empty()).then(|| Box::new(Return { counter, values }) as Box<dyn Job>)
}

/// Hands values back; tried again until that is durable, and always before anything else is drawn.
struct Return {
    counter: Counter,
    values: Ranges,
}

impl Job for Return {
    fn is_awaited(&self) -> bool {
        true
    }

    fn run(&mut self, workspace: &mut Workspace) -> Result<(), Failure> {
        hand_back(workspace, &self.counter, &self.values)
    }

    fn answer(self: Box<Self>, outcome: Result<(), Failure>) -> Option<Box<dyn Job>> {
        outcome.is_err().then_some(self as Box<dyn Job>)
    }
}
