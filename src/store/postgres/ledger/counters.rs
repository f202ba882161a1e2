//! The same sheets outside the ledger: plain draws, holes, `advance`, the end of a scheme. A rule that becomes strict, or was,
//! goes on from the same cursor.
//!
//! Plain draws are one transaction a batch and keep no segment for an outage; `store/postgres/counters` does both better.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Row};

use super::{
    super::{
        PostgresStore, STORE,
        audit::enter,
        barrier::barrier,
        failure::Failure,
        idempotency::key_of,
        values::{Whole, sequence, signed},
    },
    entry::{self, Entry},
    marker,
    sheet::{self, Others, Signature},
    statement,
};
use crate::{
    calendar::Period,
    clock::UnixMillis,
    counter::{Counter, Ranges, SequenceValue},
    prefix_key::PrefixKey,
    store::{
        Advanced, Bounds, CounterState, CounterStore, Elsewhere, HoleReason, Note, StoreError, StoreFuture,
        TakeRequest, Taken,
        draw::{Standing, passed, plan_infallibly},
        ledger::{Advance, enter_advance, plan_advance},
    },
};

struct Take {
    counter: Counter,
    bounds: Bounds,
    requests: Vec<TakeRequest>,
    now: UnixMillis,
}

struct Passage {
    counter: Counter,
    base: SequenceValue,
    to: SequenceValue,
    actor: Arc<str>,
    now: UnixMillis,
    /// Of the rows that it makes.
    signature: Signature,
    /// For the audit trail, if the cursor moves.
    note: Option<Note>,
}

impl PostgresStore {
    fn passage(
        &self,
        counter: Counter,
        base: SequenceValue,
        to: SequenceValue,
        (actor, now): (Arc<str>, UnixMillis),
        note: Option<Note>,
    ) -> Passage {
        Passage { counter, base, to, actor, now, signature: self.books().sign_passage(), note }
    }
}

impl CounterStore for PostgresStore {
    fn take(
        &self,
        counter: Counter,
        bounds: Bounds,
        requests: Vec<TakeRequest>,
    ) -> StoreFuture<'_, Vec<Taken>> {
        let asked = Take { counter, bounds, requests, now: self.shared.clock.now() };
        Box::pin(async move { self.transact("take", &asked, take).await })
    }

    fn hand_back(&self, counter: Counter, values: Ranges) -> StoreFuture<'_, ()> {
        let now = self.shared.clock.now();
        Box::pin(async move { self.transact("hand_back", &(counter, values, now), hand_back).await })
    }

    fn counters<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Vec<CounterState>> {
        Box::pin(async move { self.transact("counters", key, counters).await })
    }

    fn retire<'a>(&'a self, key: &'a PrefixKey, scheme: u64) -> StoreFuture<'a, SequenceValue> {
        Box::pin(async move { self.transact("retire", &(key, scheme), retire).await })
    }

    fn advance(
        &self,
        counter: Counter,
        base: SequenceValue,
        to: SequenceValue,
        actor: Arc<str>,
        now: UnixMillis,
    ) -> StoreFuture<'_, Advanced> {
        let passage = self.passage(counter, base, to, (actor, now), None);
        Box::pin(async move { self.transact("advance", &passage, advance).await })
    }

    fn advance_noted(
        &self,
        counter: Counter,
        base: SequenceValue,
        to: SequenceValue,
        note: Note,
    ) -> StoreFuture<'_, Advanced> {
        let by = (Arc::clone(&note.entry().author.subject), note.entry().at);
        let passage = self.passage(counter, base, to, by, Some(note));
        Box::pin(async move { self.transact("advance", &passage, advance).await })
    }
}

fn take<'c>(connection: &'c mut PgConnection, asked: &'c Take) -> BoxFuture<'c, Result<Vec<Taken>, Failure>> {
    Box::pin(async move {
        let Take { counter, bounds, requests, now } = asked;
        let sheet = sheet::open(connection, counter).await?;
        // Behind the lock: see `issue::draw`.
        marker::require_open(connection).await?;
        if bounds.scheme < sheet.scheme {
            return Err(StoreError::Superseded { store: STORE, operation: "take" }.into());
        }
        let known = entry::recall(connection, requests).await?;
        let plan =
            plan_infallibly(sheet.standing, *bounds, requests, |claim| known.get(&key_of(claim)).cloned());
        let Some(movement) = plan.movement else {
            barrier(connection).await?;
            return Ok(plan.taken);
        };
        let records = entry::records_of(requests, &plan.taken);
        if !known.is_empty() {
            entry::forget_expired(connection, &records).await?;
        }
        if !records.is_empty() {
            entry::remember(connection, &records).await.map_err(entry::raced)?;
        }
        if let Some(skipped) = movement.skipped {
            sheet::list(connection, &sheet, skipped, HoleReason::Skipped, *now).await?;
        }
        let standing = Standing { base: movement.base, last: movement.last };
        sheet::save_standing(connection, &sheet, standing).await?;
        Ok(plan.taken)
    })
}

fn hand_back<'c>(
    connection: &'c mut PgConnection,
    (counter, values, now): &'c (Counter, Ranges, UnixMillis),
) -> BoxFuture<'c, Result<(), Failure>> {
    Box::pin(async move {
        let Some(sheet) = sheet::lock(connection, counter).await? else { return Ok(()) };
        let Some(standing) = sheet.standing else { return Ok(()) };
        for range in values.iter().filter(|range| range.to <= standing.last) {
            sheet::list(connection, &sheet, range, HoleReason::Returned, *now).await?;
        }
        Ok(())
    })
}

fn counters<'c>(
    connection: &'c mut PgConnection,
    key: &'c PrefixKey,
) -> BoxFuture<'c, Result<Vec<CounterState>, Failure>> {
    // One statement, one view. The first row of a ledger is where its primary key leads.
    const COUNTERS: &str =
        "SELECT c.period, c.base, c.last, h.from_value, h.to_value, h.reason, h.since_ms, (
            SELECT l.issued_at_ms FROM numgen_ledger l
            WHERE l.counter = c.id AND l.sequence > c.base ORDER BY l.sequence LIMIT 1) AS begun_at_ms
        FROM numgen_ledger_keys k JOIN numgen_ledger_counters c ON c.prefix = k.id
        LEFT JOIN numgen_ledger_holes h ON h.counter = c.id
        WHERE k.prefix_key = $1 AND c.last IS NOT NULL ORDER BY c.period, h.from_value";
    Box::pin(async move {
        let rows = sqlx::query(COUNTERS).bind(key.as_str()).fetch_all(&mut *connection).await?;
        barrier(connection).await?;
        let mut states: Vec<CounterState> = Vec::new();
        for row in &rows {
            let period: &str = row.try_get("period")?;
            if states.last().is_none_or(|state| state.period.as_str() != period) {
                states.push(CounterState {
                    period: Period::new(period),
                    base: sequence(row, "base")?,
                    last: sequence(row, "last")?,
                    segments: Vec::new(),
                    holes: Vec::new(),
                    elsewhere: Elsewhere::default(),
                    begun_at: row.try_get::<Option<i64>, _>("begun_at_ms")?.map(UnixMillis),
                });
            }
            let first: Option<Whole> = row.try_get("from_value")?;
            if let (Some(_), Some(state)) = (first, states.last_mut()) {
                let hole = sheet::hole(row)?;
                state.begun_at = Some(state.begun_at.map_or(hole.since, |begun| begun.min(hole.since)));
                state.holes.push(hole);
            }
        }
        Ok(states)
    })
}

fn retire<'c>(
    connection: &'c mut PgConnection,
    (key, scheme): &'c (&PrefixKey, u64),
) -> BoxFuture<'c, Result<SequenceValue, Failure>> {
    // Waits for those who are making a sheet, then for those who are drawing; only then is the highest value read.
    const KEY: &str = "INSERT INTO numgen_ledger_keys AS k (prefix_key, scheme) VALUES ($1, $2)
        ON CONFLICT (prefix_key) DO UPDATE SET scheme = greatest(k.scheme, excluded.scheme)";
    const SHEETS: &str =
        "WITH locked AS (
            SELECT c.id FROM numgen_ledger_counters c JOIN numgen_ledger_keys k ON k.id = c.prefix
            WHERE k.prefix_key = $1 ORDER BY c.id FOR UPDATE OF c)
        UPDATE numgen_ledger_counters c SET scheme = greatest(c.scheme, $2) FROM locked WHERE c.id = locked.id";
    const HIGHEST: &str = "SELECT coalesce(max(c.last), 0) AS highest
        FROM numgen_ledger_counters c JOIN numgen_ledger_keys k ON k.id = c.prefix WHERE k.prefix_key = $1";
    Box::pin(async move {
        for sql in [KEY, SHEETS] {
            sqlx::query(sql).bind(key.as_str()).bind(signed(*scheme)).execute(&mut *connection).await?;
        }
        // The highest value may be one of those that are lacking. Behind the locks: see `issue::draw`.
        marker::require_open(connection).await?;
        let row = sqlx::query(HIGHEST).bind(key.as_str()).fetch_one(connection).await?;
        sequence(&row, "highest")
    })
}

fn advance<'c>(
    connection: &'c mut PgConnection,
    passage: &'c Passage,
) -> BoxFuture<'c, Result<Advanced, Failure>> {
    Box::pin(async move {
        let Passage { counter, base, to, actor, now, signature, note } = passage;
        let sheet = sheet::open(connection, counter).await?;
        let others = sheet::others(connection, counter, &sheet).await?;
        match plan_advance(sheet.standing, &sheet.account_beside(others), *base, *to) {
            Advance::Settled(answer) => {
                barrier(connection).await?;
                return Ok(answer);
            }
            Advance::Begin if others == Others::Stayed => {
                sheet::save_standing(connection, &sheet, Standing { base: *to, last: *to }).await?;
            }
            // Begun it has, in the other book.
            Advance::Begin => {
                sheet::save_standing(connection, &sheet, Standing { base: *base, last: *to }).await?;
                if let Some(range) = passed(*base, *to) {
                    sheet::list(connection, &sheet, range, HoleReason::Advanced, *now).await?;
                }
            }
            Advance::Void(base, range) => {
                let entries = enter_advance(counter, sheet.account.clone(), range, actor, *now);
                let entry = Entry::of_rows(sheet, Standing { base, last: *to }, signature.batch, entries);
                statement::write_one(connection, &signature.writer, &entry).await?;
            }
            Advance::List(base, range) => {
                sheet::save_standing(connection, &sheet, Standing { base, last: *to }).await?;
                sheet::list(connection, &sheet, range, HoleReason::Advanced, *now).await?;
            }
        }
        enter(connection, note.as_ref()).await?;
        Ok(Advanced::Done)
    })
}
