//! The strict ledger: rows, events and their chains come from `store/ledger.rs`, this file writes and reads them.

use std::collections::HashSet;

use rusqlite::{Connection, ToSql, params};

use super::{
    SqliteStore,
    audit::enter,
    counters::record_claims,
    failure::Failure,
    values::{self, Digits, signed},
    workspace::{self, Workspace, collect},
};
use crate::{
    clock::UnixMillis,
    counter::Counter,
    prefix_key::PrefixKey,
    store::{
        Bounds, Certificate, HoleReason, IssueRequest, LedgerQuery, LedgerRow, LedgerState, LedgerStep,
        LedgerStore, RenderNumber, Reservations, StoreError, StoreFuture, Taken, Transitioned, Verification,
        draw::{Standing, plan},
        ledger::{self, Entries, Event, Verdict},
        verification::Auditor,
    },
};

/// How many reservations one call voids: a call must not hold up issuing.
const EXPIRE_LIMIT: usize = 500;

const COLUMNS: &str = "period, sequence, number, state, reason, subject, reserved_until_ms, issued_at_ms, idempotency_key, hash";

impl LedgerStore for SqliteStore {
    fn issue(
        &self,
        counter: Counter,
        bounds: Bounds,
        requests: Vec<IssueRequest>,
        render: RenderNumber,
    ) -> StoreFuture<'_, Vec<Taken>> {
        self.write("issue", move |workspace| issue(workspace, &counter, bounds, &requests, &render))
    }

    fn transition(&self, key: PrefixKey, steps: Vec<LedgerStep>) -> StoreFuture<'_, Vec<Transitioned>> {
        self.write("transition", move |workspace| {
            steps.iter().map(|step| transition(workspace, &key, step)).collect()
        })
    }

    fn expire_reservations(&self, now: UnixMillis) -> StoreFuture<'_, u64> {
        Box::pin(expire_reservations(self, now))
    }

    fn reservations(&self) -> StoreFuture<'_, Reservations> {
        // The condition lets the index of reservations serve it.
        const OPEN: &str = "SELECT count(*), min(issued_at_ms) FROM ledger WHERE state = 'reserved'";
        self.read("reservations", |connection| {
            let counted = connection.query_row(OPEN, [], |row| {
                let (open, oldest): (i64, Option<i64>) = (row.get(0)?, row.get(1)?);
                Ok(Reservations { open: open.unsigned_abs(), oldest: oldest.map(UnixMillis) })
            });
            Ok(counted?)
        })
    }

    fn rows(&self, key: PrefixKey, query: LedgerQuery) -> StoreFuture<'_, Vec<LedgerRow>> {
        self.read("rows", move |connection| {
            let page = Page::of(&key, &query);
            collect(connection, &page.sql, &page.parameters()[..], values::ledger_row)
        })
    }

    fn certificate(&self, counter: Counter) -> StoreFuture<'_, Option<Certificate>> {
        self.audit("certificate", move |connection| certificate(connection, &counter))
    }

    fn verify(&self, counter: Counter) -> StoreFuture<'_, Verification> {
        self.audit("verify", move |connection| verify(connection, &counter))
    }
}

/// See [`LedgerStore::certificate`].
pub(super) fn certificate(
    connection: &Connection,
    counter: &Counter,
) -> Result<Option<Certificate>, Failure> {
    const RUN: &str = "SELECT sequence, state FROM ledger
        WHERE prefix_key = ?1 AND period = ?2 AND sequence BETWEEN ?3 AND ?4 ORDER BY sequence";
    let view = connection.unchecked_transaction()?;
    let account = workspace::tally(&view, counter)?.account;
    let Some(run) = account.run else { return Ok(None) };
    let mut statement = view.prepare_cached(RUN)?;
    let (key, period) = (counter.key.as_str(), counter.period.as_str());
    let rows = statement.query_and_then((key, period, Digits(run.from), Digits(run.to)), |row| {
        Ok::<_, Failure>((values::sequence(row, "sequence")?, values::state(row)?))
    })?;
    until_failure(rows, |rows| ledger::certify(counter, &account, rows))
}

/// See [`LedgerStore::verify`].
pub(super) fn verify(connection: &Connection, counter: &Counter) -> Result<Verification, Failure> {
    const EVENTS: &str = "SELECT position, sequence, change, reason, actor, at_ms, hash FROM ledger_events
        WHERE prefix_key = ?1 AND period = ?2 ORDER BY position";
    let rows =
        format!("SELECT {COLUMNS} FROM ledger WHERE prefix_key = ?1 AND period = ?2 ORDER BY sequence");
    let view = connection.unchecked_transaction()?;
    let account = workspace::tally(&view, counter)?.account;
    let mut auditor = Auditor::new(counter, &account);
    let of_counter = (counter.key.as_str(), counter.period.as_str());
    let mut statement = view.prepare(EVENTS)?;
    for event in statement.query_and_then(of_counter, values::event)? {
        auditor.event(event?);
    }
    let mut statement = view.prepare(&rows)?;
    for row in statement.query_and_then(of_counter, values::ledger_row)? {
        auditor.row(&row?);
    }
    Ok(auditor.finish())
}

/// Feeds `consume` with the items up to the first failure, which then is the result.
fn until_failure<T, R>(
    items: impl Iterator<Item = Result<T, Failure>>,
    consume: impl FnOnce(&mut dyn Iterator<Item = T>) -> R,
) -> Result<R, Failure> {
    let mut failure = None;
    let result = consume(&mut items.map_while(|item| item.map_err(|error| failure = Some(error)).ok()));
    failure.map_or(Ok(result), Err)
}

fn issue(
    workspace: &mut Workspace,
    counter: &Counter,
    bounds: Bounds,
    requests: &[IssueRequest],
    render: &RenderNumber,
) -> Result<Vec<Taken>, Failure> {
    let tally = workspace.tally(counter)?.clone();
    let plan = plan(tally.standing, bounds, requests, |claim| workspace.recall(claim))?;
    let Some(movement) = plan.movement else { return Ok(plan.taken) };
    let cursor = tally.standing.map(|standing| standing.last);
    let entries =
        ledger::enter_batch(counter, tally.account, cursor, movement, &plan.taken, requests, render);
    let standing = Standing { base: movement.base, last: movement.last };
    write_entries(workspace, counter, standing, entries)?;
    record_claims(workspace, counter, requests, &plan.taken)?;
    Ok(plan.taken)
}

/// Writes new rows with the counter that they belong to.
pub(super) fn write_entries(
    workspace: &mut Workspace,
    counter: &Counter,
    standing: Standing,
    entries: Entries,
) -> Result<(), Failure> {
    const INSERT: &str = "INSERT INTO ledger (prefix_key, period, sequence, number, state, reason, subject,
            reserved_until_ms, issued_at_ms, idempotency_key, hash)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    workspace.save(counter, standing, entries.account)?;
    if let Some(hole) = entries.hole {
        workspace.list(counter, hole, HoleReason::Skipped)?;
    }
    let mut insert = workspace.connection.prepare_cached(INSERT)?;
    for row in entries.rows {
        insert.execute(params![
            counter.key.as_str(),
            counter.period.as_str(),
            Digits(row.sequence),
            row.number,
            row.state.as_str(),
            row.reason,
            row.subject,
            row.reserved_until.map(|moment| moment.0),
            row.issued_at.0,
            row.idempotency_key,
            row.hash,
        ])?;
    }
    Ok(())
}

fn transition(
    workspace: &mut Workspace,
    key: &PrefixKey,
    step: &LedgerStep,
) -> Result<Transitioned, Failure> {
    let LedgerStep { number, transition, actor, at: now, note } = step;
    // `number <> ''` lets SQLite use the index of numbers, and keeps rows without one out of reach.
    let by_number =
        format!("SELECT {COLUMNS} FROM ledger WHERE prefix_key = ?1 AND number = ?2 AND number <> ''");
    let found = workspace.find(&by_number, (key.as_str(), number), values::ledger_row)?;
    let Some(mut row) = found else { return Ok(Transitioned::Unknown) };
    let counter = Counter { key: key.clone(), period: row.period.clone() };
    if ledger::has_expired(&row, *now) {
        change(workspace, &counter, &mut row, |account, row| ledger::expire(&counter, account, row, *now))?;
    }
    Ok(match ledger::judge(row.state, transition) {
        Verdict::Stands => Transitioned::Done(row),
        Verdict::Contrary => Transitioned::Conflict(row),
        Verdict::Changes(kind, reason) => {
            change(workspace, &counter, &mut row, |account, row| {
                ledger::change(&counter, account, row, kind, reason, actor, *now)
            })?;
            enter(workspace, note.as_ref())?;
            Transitioned::Done(row)
        }
    })
}

/// Writes a change of state: the row, its event, and the account of its counter.
fn change(
    workspace: &mut Workspace,
    counter: &Counter,
    row: &mut LedgerRow,
    apply: impl FnOnce(&mut ledger::Account, &mut LedgerRow) -> Event,
) -> Result<(), Failure> {
    const UPDATE: &str = "UPDATE ledger SET state = ?4, reason = ?5
        WHERE prefix_key = ?1 AND period = ?2 AND sequence = ?3";
    const APPEND: &str = "INSERT INTO ledger_events
            (prefix_key, period, position, sequence, change, reason, actor, at_ms, hash)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let mut tally = workspace.tally(counter)?.clone();
    let Some(standing) = tally.standing else {
        return Err(Failure::Corrupt(format!("a ledger row of {counter}, which has no counter")));
    };
    let event = apply(&mut tally.account, row);
    let (key, period) = (counter.key.as_str(), counter.period.as_str());
    workspace.execute(UPDATE, params![key, period, Digits(row.sequence), row.state.as_str(), row.reason])?;
    workspace.execute(
        APPEND,
        params![
            key,
            period,
            signed(event.position),
            Digits(event.sequence),
            event.change.as_str(),
            event.reason,
            event.actor,
            event.at.0,
            event.hash,
        ],
    )?;
    workspace.save(counter, standing, tally.account)
}

/// Counter by counter, each a job of its own. One that fails stands in nobody's way, and is the error in the end.
async fn expire_reservations(store: &SqliteStore, now: UnixMillis) -> Result<u64, StoreError> {
    let (mut expired, mut first, mut passed_over) = (0, None, HashSet::new());
    loop {
        let (failed, but) = (passed_over.len(), passed_over.clone());
        let found = store.read("expire_reservations", move |connection| due(connection, now, &but)).await?;
        for counter in found {
            let of = counter.clone();
            let job = store.write("expire_reservations", move |workspace| expire(workspace, &of, now));
            match job.await {
                Ok(count) => expired += count,
                Err(error) => {
                    first.get_or_insert_with(|| error.in_ledger_of(&counter.to_string()));
                    passed_over.insert(counter);
                }
            }
        }
        // The oldest rows may all be of those that failed: then there may be others behind them.
        if passed_over.len() == failed {
            return first.map_or(Ok(expired), Err);
        }
    }
}

/// The counters that have reservations whose time is over.
fn due(
    connection: &Connection,
    now: UnixMillis,
    passed_over: &HashSet<Counter>,
) -> Result<HashSet<Counter>, Failure> {
    const DUE: &str = "SELECT prefix_key, period FROM ledger
        WHERE state = 'reserved' AND reserved_until_ms <= ?1 ORDER BY reserved_until_ms";
    let mut statement = connection.prepare_cached(DUE)?;
    let rows = statement.query_and_then([now.0], values::counter)?;
    let is_asked_for = |counter: &Result<Counter, Failure>| {
        counter.as_ref().map_or(true, |counter| !passed_over.contains(counter))
    };
    rows.filter(is_asked_for).take(EXPIRE_LIMIT).collect()
}

fn expire(workspace: &mut Workspace, counter: &Counter, now: UnixMillis) -> Result<u64, Failure> {
    // Not by its own rows: there may be millions.
    let overdue = format!(
        "SELECT {COLUMNS} FROM ledger INDEXED BY ledger_reservations
         WHERE prefix_key = ?1 AND period = ?2 AND state = 'reserved' AND reserved_until_ms <= ?3 ORDER BY reserved_until_ms LIMIT {EXPIRE_LIMIT}"
    );
    let (key, period) = (counter.key.as_str(), counter.period.as_str());
    let rows = collect(&workspace.connection, &overdue, (key, period, now.0), values::ledger_row)?;
    let expired = rows.len() as u64;
    for mut row in rows {
        change(workspace, counter, &mut row, |account, row| ledger::expire(counter, account, row, now))?;
    }
    Ok(expired)
}

/// The query of a page: only the conditions that were asked for, so that one index leads straight to it. A page of all rows, or of
/// issued ones, which most are, comes by the primary key; the others by the index of their state. That is named, since nobody keeps
/// statistics by which SQLite would find it, and the state is a literal, since an index of a part serves no parameter.
struct Page {
    sql: String,
    values: Vec<Box<dyn ToSql>>,
}

impl Page {
    fn of(key: &PrefixKey, query: &LedgerQuery) -> Self {
        let rows = match query.state {
            None => "ledger WHERE",
            Some(LedgerState::Issued) => "ledger WHERE state = 'issued' AND",
            Some(LedgerState::Reserved) => {
                "ledger INDEXED BY ledger_pages_reserved WHERE state = 'reserved' AND"
            }
            Some(LedgerState::Void) => "ledger INDEXED BY ledger_pages_void WHERE state = 'void' AND",
        };
        let sql = format!("SELECT {COLUMNS} FROM {rows} prefix_key = ?");
        let mut page = Self { sql, values: vec![Box::new(key.as_str().to_owned())] };
        if let Some(period) = &query.period {
            page.require(" AND period = ?", period.as_str().to_owned());
        }
        if let Some(from) = query.from {
            page.require(" AND sequence >= ?", Digits(from));
        }
        if let Some(to) = query.to {
            page.require(" AND sequence <= ?", Digits(to));
        }
        if let Some((period, sequence)) = &query.after {
            page.require(" AND (period, sequence) > (?", period.as_str().to_owned());
            page.require(", ?)", Digits(*sequence));
        }
        page.require(" ORDER BY period, sequence LIMIT ?", query.limit);
        page
    }

    fn require(&mut self, condition: &str, value: impl ToSql + 'static) {
        self.sql.push_str(condition);
        self.values.push(Box::new(value));
    }

    fn parameters(&self) -> Vec<&dyn ToSql> {
        self.values.iter().map(AsRef::as_ref).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{calendar::Period, counter::SequenceValue, store::sqlite::schema};

    /// How SQLite comes by the page of a query.
    fn plan(connection: &Connection, query: &LedgerQuery) -> Vec<String> {
        let page = Page::of(&PrefixKey::parse("A").expect("valid"), query);
        let mut explained =
            connection.prepare(&format!("EXPLAIN QUERY PLAN {}", page.sql)).expect("a statement");
        let steps = explained.query_map(&page.parameters()[..], |row| row.get("detail"));
        steps.expect("a plan").collect::<Result<_, _>>().expect("steps")
    }

    #[test]
    fn a_page_of_one_state_is_read_by_the_index_of_that_state() {
        let mut connection = Connection::open_in_memory().expect("a database");
        schema::migrate(&mut connection, UnixMillis(0)).expect("migrated");
        for (state, index) in [
            (None, "PRIMARY KEY (prefix_key=?"),
            (Some(LedgerState::Issued), "PRIMARY KEY (prefix_key=?"),
            (Some(LedgerState::Reserved), "INDEX ledger_pages_reserved (prefix_key=?"),
            (Some(LedgerState::Void), "INDEX ledger_pages_void (prefix_key=?"),
        ] {
            let (period, middle) = (Period::none(), SequenceValue(7));
            let all = LedgerQuery { period: None, from: None, to: None, state, after: None, limit: 100 };
            let after = LedgerQuery { after: Some((period.clone(), middle)), ..all.clone() };
            let of_period = LedgerQuery {
                period: Some(period),
                from: Some(middle),
                to: Some(SequenceValue::MAX),
                ..after.clone()
            };
            for query in [all, after, of_period] {
                let steps = plan(&connection, &query);
                // One step: no sorting after it either.
                let [step] = steps.as_slice() else { panic!("{query:?}: {steps:?}") };
                assert!(step.starts_with("SEARCH") && step.contains(index), "{query:?}: {step}");
            }
        }
    }
}
