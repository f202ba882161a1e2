//! The reference implementation: plain maps behind one mutex. Nothing survives the process, everything else is as
//! the traits say; unit tests of higher floors use it, and the contract suite compares the others with it.

mod audit;
mod rules;
mod temporary;
mod workers;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Advanced, AuditEntry, Bounds, Certificate, Claim, CounterState, CounterStore, Elsewhere, Hole,
    HoleReason, IdMillis, IdempotencyStore, Instance, IssueRequest, LedgerQuery, LedgerRow, LedgerStep,
    LedgerStore, Note, RenderNumber, Reservations, RuleRecord, StoreError, StoreFuture, TakeRequest, Taken,
    Transitioned, Verification,
    draw::{Movement, Record, Standing, plan_infallibly},
    ledger::{self, Account, Advance, Event, Verdict},
    protocol::window::Terms,
    verification::Auditor,
};
use crate::{
    calendar::Period,
    clock::{Clock, UnixMillis},
    counter::{Counter, Ranges, SequenceValue, ValueRange},
    prefix_key::PrefixKey,
};

pub use rules::Away;
use rules::Shared;

const STORE: &str = "memory";

/// Keeps everything in this process. See the traits for what it does.
pub struct MemoryStore {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    epoch: UnixMillis,
    /// Another one for each store: a new store is one that has forgotten everything.
    instance: Instance,
    terms: Terms,
}

#[derive(Default)]
struct State {
    rules: BTreeMap<PrefixKey, RuleRecord>,
    counters: BTreeMap<(PrefixKey, Period), Tally>,
    numbers: HashMap<(PrefixKey, String), (Period, SequenceValue)>,
    records: HashMap<Arc<str>, Record>,
    workers: workers::Workers,
    /// The lowest scheme of each key that is not retired, where one was.
    schemes: HashMap<PrefixKey, u64>,
    shared: Shared,
    temporary: temporary::Rows,
    audit: Vec<AuditEntry>,
}

/// One counter with its holes and its ledger.
#[derive(Default)]
struct Tally {
    standing: Option<Standing>,
    holes: Vec<Hole>,
    account: Account,
    rows: BTreeMap<SequenceValue, LedgerRow>,
    events: Vec<Event>,
}

impl Tally {
    fn move_to(&mut self, base: SequenceValue, last: SequenceValue) {
        self.standing = Some(Standing { base, last });
    }

    fn list(&mut self, range: ValueRange, reason: HoleReason, since: UnixMillis) {
        self.holes.push(Hole { from: range.from, to: range.to, reason, since });
    }

    fn follow(&mut self, movement: Movement, hole: Option<ValueRange>, now: UnixMillis) {
        self.move_to(movement.base, movement.last);
        if let Some(hole) = hole {
            self.list(hole, HoleReason::Skipped, now);
        }
    }
}

impl State {
    fn tally(&mut self, counter: &Counter) -> &mut Tally {
        self.counters.entry((counter.key.clone(), counter.period.clone())).or_default()
    }

    fn standing(&self, counter: &Counter) -> Option<Standing> {
        self.find(counter).and_then(|tally| tally.standing)
    }

    fn find(&self, counter: &Counter) -> Option<&Tally> {
        self.counters.get(&(counter.key.clone(), counter.period.clone()))
    }

    fn record<'a>(&mut self, claims: impl Iterator<Item = Option<&'a Claim>>, taken: &[Taken]) {
        for (claim, answer) in claims.zip(taken) {
            if let (Some(claim), Taken::Fresh(values)) = (claim, answer) {
                self.records.insert(claim.scoped_key.clone(), Record::of(claim, values.clone()));
            }
        }
    }

    fn issue(
        &mut self,
        counter: &Counter,
        bounds: Bounds,
        requests: &[IssueRequest],
        render: &RenderNumber,
        now: UnixMillis,
    ) -> Result<Vec<Taken>, StoreError> {
        let standing = self.standing(counter);
        let plan =
            plan_infallibly(standing, bounds, requests, |claim| self.records.get(&claim.scoped_key).cloned());
        let Some(movement) = plan.movement else { return Ok(plan.taken) };
        let account = self.find(counter).map(|tally| tally.account.clone()).unwrap_or_default();
        let cursor = standing.map(|standing| standing.last);
        let entries = ledger::enter_batch(counter, account, cursor, movement, &plan.taken, requests, render);
        let numbered = || entries.rows.iter().filter(|row| !row.number.is_empty());
        let mut fresh = HashSet::new();
        let all_new = numbered().all(|row| {
            let name = (counter.key.clone(), row.number.clone());
            !self.numbers.contains_key(&name) && fresh.insert(name)
        });
        if !all_new {
            let what = format!("a number of {counter} that would be issued a second time");
            return Err(StoreError::Corrupt { store: STORE, what });
        }
        for row in numbered() {
            let place = (row.period.clone(), row.sequence);
            self.numbers.insert((counter.key.clone(), row.number.clone()), place);
        }
        let tally = self.tally(counter);
        tally.follow(movement, entries.hole, now);
        tally.account = entries.account;
        tally.rows.extend(entries.rows.into_iter().map(|row| (row.sequence, row)));
        self.record(requests.iter().map(|request| request.claim.as_ref()), &plan.taken);
        Ok(plan.taken)
    }

    fn advance(
        &mut self,
        counter: &Counter,
        base: SequenceValue,
        to: SequenceValue,
        actor: &str,
        now: UnixMillis,
        note: Option<&Note>,
    ) -> Advanced {
        let standing = self.standing(counter);
        let tally = self.tally(counter);
        match ledger::plan_advance(standing, &tally.account, base, to) {
            Advance::Settled(answer) => return answer,
            Advance::Begin => tally.move_to(to, to),
            Advance::Void(base, range) => {
                let entries = ledger::enter_advance(counter, tally.account.clone(), range, actor, now);
                tally.account = entries.account;
                tally.rows.extend(entries.rows.into_iter().map(|row| (row.sequence, row)));
                tally.move_to(base, to);
            }
            Advance::List(base, range) => {
                tally.list(range, HoleReason::Advanced, now);
                tally.move_to(base, to);
            }
        }
        self.note(note);
        Advanced::Done
    }

    fn transition(&mut self, key: &PrefixKey, step: LedgerStep) -> Transitioned {
        let LedgerStep { number, transition, actor, at: now, note } = step;
        let place = self.numbers.get(&(key.clone(), number)).cloned();
        let Some((period, sequence)) = place else { return Transitioned::Unknown };
        let counter = Counter { key: key.clone(), period };
        let tally = self.tally(&counter);
        let Some(row) = tally.rows.get_mut(&sequence) else { return Transitioned::Unknown };
        if ledger::has_expired(row, now) {
            tally.events.push(ledger::expire(&counter, &mut tally.account, row, now));
        }
        match ledger::judge(row.state, &transition) {
            Verdict::Stands => Transitioned::Done(row.clone()),
            Verdict::Contrary => Transitioned::Conflict(row.clone()),
            Verdict::Changes(change, reason) => {
                let event = ledger::change(&counter, &mut tally.account, row, change, reason, &actor, now);
                tally.events.push(event);
                let row = row.clone();
                self.note(note.as_ref());
                Transitioned::Done(row)
            }
        }
    }

    fn expire_reservations(&mut self, now: UnixMillis) -> u64 {
        let mut expired = 0;
        for ((key, period), tally) in &mut self.counters {
            let counter = Counter { key: key.clone(), period: period.clone() };
            for row in tally.rows.values_mut().filter(|row| ledger::has_expired(row, now)) {
                tally.events.push(ledger::expire(&counter, &mut tally.account, row, now));
                expired += 1;
            }
        }
        expired
    }

    fn rows(&self, key: &PrefixKey, query: &LedgerQuery) -> Vec<LedgerRow> {
        let wanted = |row: &&LedgerRow| {
            query.period.as_ref().is_none_or(|period| *period == row.period)
                && query.from.is_none_or(|from| from <= row.sequence)
                && query.to.is_none_or(|to| row.sequence <= to)
                && query.state.is_none_or(|state| state == row.state)
                && query
                    .after
                    .as_ref()
                    .is_none_or(|(period, sequence)| (&row.period, row.sequence) > (period, *sequence))
        };
        let of_key = self.counters.iter().filter(|((owner, _), _)| owner == key);
        let rows = of_key.flat_map(|(_, tally)| tally.rows.values()).filter(wanted);
        rows.take(usize::try_from(query.limit).unwrap_or(usize::MAX)).cloned().collect()
    }
}

impl MemoryStore {
    /// An empty store; `epoch` is the zero of ID timestamps.
    pub fn new(clock: Arc<dyn Clock>, epoch: UnixMillis) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let instance = Instance(format!("{STORE}-{}", MADE.fetch_add(1, Ordering::Relaxed)).into());
        Self { state: Mutex::default(), clock, epoch, instance, terms: Terms::EXCLUSIVE }
    }

    /// Does `work` under the lock: that makes it atomic.
    fn with<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move { work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner)) })
    }

    fn id_now(&self) -> IdMillis {
        u64::try_from(self.clock.now().0.saturating_sub(self.epoch.0)).unwrap_or(0)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl IdempotencyStore for MemoryStore {
    fn remember(&self, claim: Claim, values: Ranges) -> StoreFuture<'_, Taken> {
        self.with(move |state| {
            let answer = state.records.get(&claim.scoped_key).and_then(|record| record.answer(&claim));
            Ok(answer.unwrap_or_else(|| {
                let record = Record::of(&claim, values.clone());
                state.records.insert(claim.scoped_key, record);
                Taken::Fresh(values)
            }))
        })
    }

    fn forget_expired(&self, now: UnixMillis) -> StoreFuture<'_, u64> {
        self.with(move |state| {
            let before = state.records.len();
            state.records.retain(|_, record| record.expires_at > now);
            Ok((before - state.records.len()) as u64)
        })
    }
}

impl CounterStore for MemoryStore {
    fn take(
        &self,
        counter: Counter,
        bounds: Bounds,
        requests: Vec<TakeRequest>,
    ) -> StoreFuture<'_, Vec<Taken>> {
        self.with(move |state| {
            if state.schemes.get(&counter.key).is_some_and(|scheme| bounds.scheme < *scheme) {
                return Err(StoreError::Superseded { store: STORE, operation: "take" });
            }
            let plan = plan_infallibly(state.standing(&counter), bounds, &requests, |claim| {
                state.records.get(&claim.scoped_key).cloned()
            });
            if let Some(movement) = plan.movement {
                state.tally(&counter).follow(movement, movement.skipped, self.clock.now());
                state.record(requests.iter().map(|request| request.claim.as_ref()), &plan.taken);
            }
            Ok(plan.taken)
        })
    }

    fn hand_back(&self, counter: Counter, values: Ranges) -> StoreFuture<'_, ()> {
        self.with(move |state| {
            let Some(standing) = state.standing(&counter) else { return Ok(()) };
            let now = self.clock.now();
            for range in values.iter().filter(|range| range.to <= standing.last) {
                state.tally(&counter).list(range, HoleReason::Returned, now);
            }
            Ok(())
        })
    }

    fn counters<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Vec<CounterState>> {
        self.with(move |state| {
            let of_key = state.counters.iter().filter(|((owner, _), _)| owner == key);
            let states = of_key.filter_map(|((_, period), tally)| {
                let Standing { base, last } = tally.standing?;
                let mut holes = tally.holes.clone();
                holes.sort_by_key(|hole| hole.from);
                Some(CounterState {
                    period: period.clone(),
                    base,
                    last,
                    segments: Vec::new(),
                    holes,
                    elsewhere: Elsewhere::default(),
                    begun_at: None,
                })
            });
            Ok(states.collect())
        })
    }

    fn retire<'a>(&'a self, key: &'a PrefixKey, scheme: u64) -> StoreFuture<'a, SequenceValue> {
        self.with(move |state| {
            let lowest = state.schemes.entry(key.clone()).or_default();
            *lowest = (*lowest).max(scheme);
            let of_key = state.counters.iter().filter(|((owner, _), _)| owner == key);
            let last = of_key.filter_map(|(_, tally)| Some(tally.standing?.last)).max();
            Ok(last.unwrap_or_default())
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
        self.with(move |state| Ok(state.advance(&counter, base, to, &actor, now, None)))
    }

    fn advance_noted(
        &self,
        counter: Counter,
        base: SequenceValue,
        to: SequenceValue,
        note: Note,
    ) -> StoreFuture<'_, Advanced> {
        self.with(move |state| {
            let AuditEntry { at, author, .. } = note.entry();
            Ok(state.advance(&counter, base, to, &author.subject, *at, Some(&note)))
        })
    }
}

impl LedgerStore for MemoryStore {
    fn issue(
        &self,
        counter: Counter,
        bounds: Bounds,
        requests: Vec<IssueRequest>,
        render: RenderNumber,
    ) -> StoreFuture<'_, Vec<Taken>> {
        self.with(move |state| state.issue(&counter, bounds, &requests, &render, self.clock.now()))
    }

    fn transition(&self, key: PrefixKey, steps: Vec<LedgerStep>) -> StoreFuture<'_, Vec<Transitioned>> {
        self.with(move |state| Ok(steps.into_iter().map(|step| state.transition(&key, step)).collect()))
    }

    fn expire_reservations(&self, now: UnixMillis) -> StoreFuture<'_, u64> {
        self.with(move |state| Ok(state.expire_reservations(now)))
    }

    fn reservations(&self) -> StoreFuture<'_, Reservations> {
        self.with(|state| {
            let rows = state.counters.values().flat_map(|tally| tally.rows.values());
            let open: Vec<_> = rows.filter(|row| row.state == super::LedgerState::Reserved).collect();
            let oldest = open.iter().map(|row| row.issued_at).min();
            Ok(Reservations { open: open.len() as u64, oldest })
        })
    }

    fn rows(&self, key: PrefixKey, query: LedgerQuery) -> StoreFuture<'_, Vec<LedgerRow>> {
        self.with(move |state| Ok(state.rows(&key, &query)))
    }

    fn certificate(&self, counter: Counter) -> StoreFuture<'_, Option<Certificate>> {
        self.with(move |state| {
            Ok(state.find(&counter).and_then(|tally| {
                let run = tally.account.run?;
                let rows = tally.rows.range(run.from..=run.to).map(|(&sequence, row)| (sequence, row.state));
                ledger::certify(&counter, &tally.account, rows)
            }))
        })
    }

    fn verify(&self, counter: Counter) -> StoreFuture<'_, Verification> {
        self.with(move |state| {
            let Some(tally) = state.find(&counter) else { return Ok(Verification::default()) };
            let mut auditor = Auditor::new(&counter, &tally.account);
            tally.events.iter().cloned().for_each(|event| auditor.event(event));
            tally.rows.values().for_each(|row| auditor.row(row));
            Ok(auditor.finish())
        })
    }
}
