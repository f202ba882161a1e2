//! Changes of state: a caller confirms or voids, a reservation expires. Each is an event, written under the lock of the sheet.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    super::{
        PostgresStore,
        audit::enter,
        failure::Failure,
        values::{Whole, prefix_key, signed},
    },
    marker::open,
    reading::{self, columns},
    sheet::{self, Sheet},
};
use crate::{
    calendar::Period,
    clock::UnixMillis,
    counter::Counter,
    prefix_key::PrefixKey,
    store::{
        LedgerRow, Note, StoreError, Transition, Transitioned,
        ledger::{self, Event, Verdict},
    },
};

/// How many reservations one call voids: a call must not hold up issuing.
const EXPIRE_LIMIT: i64 = 500;

/// Every how many sweeps the batches of processes that are long gone are forgotten.
const FORGET_EVERY: u32 = 600;

/// What a caller asks for.
pub(super) struct Step {
    pub(super) key: PrefixKey,
    pub(super) number: String,
    pub(super) step: Transition,
    pub(super) actor: Arc<str>,
    pub(super) now: UnixMillis,
    /// For the audit trail, if the step changes the row.
    pub(super) note: Option<Note>,
}

/// Confirms or voids.
pub(super) fn transition<'c>(
    connection: &'c mut PgConnection,
    asked: &'c Step,
) -> BoxFuture<'c, Result<Transitioned, Failure>> {
    // `number <> ''` leads to the index, and keeps rows without a number out of reach.
    const PLACE: &str =
        "SELECT l.counter, l.sequence FROM numgen_ledger l JOIN numgen_ledger_keys k ON k.id = l.prefix
        WHERE k.prefix_key = $1 AND l.number = $2 AND l.number <> ''";
    const ROW: &str = columns!("AND l.sequence = $2");
    Box::pin(async move {
        let Step { key, number, step, actor, now, note } = asked;
        let query = sqlx::query(PLACE).bind(key.as_str()).bind(number);
        let Some(place) = query.fetch_optional(&mut *connection).await? else {
            return Ok(Transitioned::Unknown);
        };
        let (id, sequence): (i64, Whole) = (place.try_get("counter")?, place.try_get("sequence")?);
        let mut sheet = sheet::lock_by_id(connection, id).await?;
        // As it stands under the lock.
        let mut row = reading::ledger_row(
            &sqlx::query(ROW).bind(id).bind(sequence).fetch_one(&mut *connection).await?,
        )?;
        let counter = Counter { key: key.clone(), period: row.period.clone() };
        let mut events = Vec::new();
        if ledger::has_expired(&row, *now) {
            events.push(ledger::expire(&counter, &mut sheet.account, &mut row, *now));
        }
        let verdict = ledger::judge(row.state, step);
        if let Verdict::Changes(kind, reason) = &verdict {
            let account = &mut sheet.account;
            events.push(ledger::change(&counter, account, &mut row, *kind, reason.clone(), actor, *now));
        }
        if !events.is_empty() {
            write(connection, &sheet, std::slice::from_ref(&row), &events).await?;
        }
        if let Verdict::Changes(..) = &verdict {
            enter(connection, note.as_ref()).await?;
        }
        Ok(match verdict {
            Verdict::Contrary => Transitioned::Conflict(row),
            Verdict::Stands | Verdict::Changes(..) => Transitioned::Done(row),
        })
    })
}

/// Voids reservations whose time is over, counter by counter.
pub(super) async fn expire_reservations(store: &PostgresStore, now: UnixMillis) -> Result<u64, StoreError> {
    let due = store.transact("expire_reservations", &now, due).await?;
    let mut expired = 0;
    for id in due {
        expired += store.transact_ahead("expire_reservations", &(id, now), expire).await?;
    }
    forget_writers(store).await?;
    Ok(expired)
}

/// The counters that have any.
fn due<'c>(
    connection: &'c mut PgConnection,
    now: &'c UnixMillis,
) -> BoxFuture<'c, Result<BTreeSet<i64>, Failure>> {
    // Where something may be lacking, that a reservation was confirmed may be lacking too.
    const DUE: &str = concat!(
        "SELECT counter FROM numgen_ledger WHERE state = 'reserved' AND reserved_until_ms <= $1 AND ",
        open!(),
        " ORDER BY reserved_until_ms LIMIT $2"
    );
    Box::pin(async move {
        let rows = sqlx::query(DUE).bind(now.0).bind(EXPIRE_LIMIT).fetch_all(connection).await?;
        Ok(rows.iter().map(|row| row.try_get("counter")).collect::<Result<_, _>>()?)
    })
}

fn expire<'c>(
    connection: &'c mut PgConnection,
    (id, now): &'c (i64, UnixMillis),
) -> BoxFuture<'c, Result<u64, Failure>> {
    const OVERDUE: &str = columns!(
        "AND l.state = 'reserved' AND l.reserved_until_ms <= $2 ORDER BY l.reserved_until_ms, l.sequence LIMIT $3"
    );
    Box::pin(async move {
        let mut sheet = sheet::lock_by_id(connection, *id).await?;
        let query = sqlx::query(OVERDUE).bind(id).bind(now.0).bind(EXPIRE_LIMIT);
        let found = query.fetch_all(&mut *connection).await?;
        let Some(first) = found.first() else { return Ok(0) };
        let counter = counter(first)?;
        let mut rows = found.iter().map(reading::ledger_row).collect::<Result<Vec<_>, _>>()?;
        let expire = |row: &mut LedgerRow| ledger::expire(&counter, &mut sheet.account, row, *now);
        let events: Vec<Event> = rows.iter_mut().map(expire).collect();
        write(connection, &sheet, &rows, &events).await?;
        Ok(rows.len() as u64)
    })
}

fn counter(row: &PgRow) -> Result<Counter, Failure> {
    Ok(Counter { key: prefix_key(row)?, period: Period::new(row.try_get::<&str, _>("period")?) })
}

/// Writes rows as they now stand, the events that made them so, and the account of these on their sheet, which is locked.
async fn write(
    connection: &mut PgConnection,
    sheet: &Sheet,
    rows: &[LedgerRow],
    events: &[Event],
) -> Result<(), Failure> {
    // One round trip: others wait for the sheet.
    const WRITE: &str = "
        WITH accounted AS (
            UPDATE numgen_ledger_counters SET events = $2, events_head = $3 WHERE id = $1
        ), stated AS (
            UPDATE numgen_ledger l SET state = r.state::numgen_ledger_state, reason = r.reason
            FROM unnest($4::numeric[], $5::text[], $6::text[]) AS r (sequence, state, reason)
            WHERE l.counter = $1 AND l.sequence = r.sequence
        )
        INSERT INTO numgen_ledger_events (counter, position, sequence, change, reason, actor, at_ms, hash)
        SELECT $1, * FROM unnest($7::bigint[], $8::numeric[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::text[])";
    let each = || events.iter();
    sqlx::query(WRITE)
        .bind(sheet.id)
        .bind(signed(sheet.account.events))
        .bind(&sheet.account.events_head)
        .bind(rows.iter().map(|row| Whole::from(row.sequence)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.state.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.reason.as_deref()).collect::<Vec<_>>())
        .bind(each().map(|event| signed(event.position)).collect::<Vec<_>>())
        .bind(each().map(|event| Whole::from(event.sequence)).collect::<Vec<_>>())
        .bind(each().map(|event| event.change.as_str()).collect::<Vec<_>>())
        .bind(each().map(|event| event.reason.as_deref()).collect::<Vec<_>>())
        .bind(each().map(|event| event.actor.as_str()).collect::<Vec<_>>())
        .bind(each().map(|event| event.at.0).collect::<Vec<_>>())
        .bind(each().map(|event| event.hash.as_str()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Forgets batches that nobody asks for any more. Now and then: the table grows only when nodes take turns on a counter.
async fn forget_writers(store: &PostgresStore) -> Result<(), StoreError> {
    const FORGET: &str = "DELETE FROM numgen_ledger_writers WHERE noted_at < now() - interval '1 hour'";
    static SWEEPS: AtomicU32 = AtomicU32::new(1);
    if !SWEEPS.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
        return Ok(());
    }
    store
        .transact("forget_writers", &(), |connection, ()| {
            Box::pin(async move { Ok(sqlx::query(FORGET).execute(connection).await.map(drop)?) })
        })
        .await
}
