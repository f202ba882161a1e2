//! Changes of state: a caller confirms or voids, a reservation expires. Each is an event, written under the lock of the sheet.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::{AtomicU32, Ordering},
};

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    super::{
        PostgresStore,
        audit::enter,
        failure::Failure,
        values::{Whole, moment, prefix_key, signed},
    },
    marker::open,
    reading::{self, columns},
    sheet::{self, Sheet},
};
use crate::{
    calendar::Period,
    clock::UnixMillis,
    counter::{Counter, SequenceValue},
    prefix_key::PrefixKey,
    store::{
        LedgerRow, LedgerStep, Reachable, StoreError, Transitioned,
        ledger::{self, Event, Verdict},
    },
};

/// How many reservations one call voids: a call must not hold up issuing.
const EXPIRE_LIMIT: i64 = 500;

/// Every how many sweeps the batches of processes that are long gone are forgotten.
const FORGET_EVERY: u32 = 600;

/// See [`crate::store::LedgerStore::transition`].
pub(super) fn transition<'c>(
    connection: &'c mut PgConnection,
    (key, steps): &'c (PrefixKey, Vec<LedgerStep>),
) -> BoxFuture<'c, Result<Vec<Transitioned>, Failure>> {
    Box::pin(async move {
        let mut outcomes = vec![Transitioned::Unknown; steps.len()];
        let mut notes = Vec::new();
        let (here, places) = places(connection, key, steps).await?;
        for (id, asked) in places {
            let mut book = Book::open(connection, id, &asked).await?;
            for (at, sequence) in asked {
                let step = &steps[at];
                let (outcome, verdict) = book.take(key, step, sequence, here)?;
                if matches!(verdict, Verdict::Changes(..)) {
                    notes.extend(&step.note);
                }
                outcomes[at] = outcome;
            }
            book.close(connection).await?;
        }
        enter(connection, notes).await?;
        Ok(outcomes)
    })
}

/// The clock of the server: what nodes say of the time is believed up to there. A fixed worker ID goes by the clock of its node, and that
/// of Redis may be wrong, too.
macro_rules! here_ms {
    () => {
        "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}

/// What time it is here, and where the rows are: by counter, in the order in which counters are locked, which step is about which row.
async fn places(
    connection: &mut PgConnection,
    key: &PrefixKey,
    steps: &[LedgerStep],
) -> Result<(UnixMillis, BTreeMap<i64, Vec<(usize, SequenceValue)>>), Failure> {
    // `number <> ''` leads to the index, and keeps rows without a number out of reach.
    const PLACES: &str = concat!(
        "SELECT l.number, l.counter, l.sequence, ",
        here_ms!(),
        " AS here_ms FROM numgen_ledger l JOIN numgen_ledger_keys k ON k.id = l.prefix
        WHERE k.prefix_key = $1 AND l.number = ANY($2) AND l.number <> ''"
    );
    let numbers: Vec<&str> = steps.iter().map(|step| step.number.as_str()).collect();
    let rows = sqlx::query(PLACES).bind(key.as_str()).bind(&numbers).fetch_all(connection).await?;
    let mut found = HashMap::new();
    let mut here = UnixMillis(0);
    for row in &rows {
        here = here.max(moment(row, "here_ms")?);
        let (id, sequence): (i64, Whole) = (row.try_get("counter")?, row.try_get("sequence")?);
        found.insert(row.try_get::<&str, _>("number")?, (id, sequence.into()));
    }
    let mut places: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (at, number) in numbers.into_iter().enumerate() {
        if let Some((id, sequence)) = found.get(number) {
            places.entry(*id).or_default().push((at, *sequence));
        }
    }
    Ok((here, places))
}

/// A counter that is locked, and rows of it as they stand under the lock.
struct Book {
    sheet: Sheet,
    rows: BTreeMap<SequenceValue, LedgerRow>,
    events: Vec<Event>,
}

impl Book {
    async fn open(
        connection: &mut PgConnection,
        id: i64,
        asked: &[(usize, SequenceValue)],
    ) -> Result<Self, Failure> {
        const ROWS: &str = columns!("AND l.sequence = ANY($2)");
        let sheet = sheet::lock_by_id(connection, id).await?;
        let sequences: Vec<Whole> = asked.iter().map(|(_, sequence)| Whole::from(*sequence)).collect();
        let rows = sqlx::query(ROWS).bind(id).bind(sequences).fetch_all(connection).await?;
        let rows = rows.iter().map(|row| reading::ledger_row(row).map(|row| (row.sequence, row)));
        Ok(Self { sheet, rows: rows.collect::<Result<_, _>>()?, events: Vec::new() })
    }

    fn take(
        &mut self,
        key: &PrefixKey,
        step: &LedgerStep,
        sequence: SequenceValue,
        here: UnixMillis,
    ) -> Result<(Transitioned, Verdict), Failure> {
        let Self { sheet, rows, events } = self;
        let row = rows.get_mut(&sequence).ok_or_else(|| Failure::corrupt("a ledger row that went away"))?;
        let counter = Counter { key: key.clone(), period: row.period.clone() };
        let now = step.at.min(here);
        if ledger::has_expired(row, now) {
            events.push(ledger::expire(&counter, &mut sheet.account, row, now));
        }
        let verdict = ledger::judge(row.state, &step.transition);
        if let Verdict::Changes(kind, reason) = &verdict {
            let (account, actor) = (&mut sheet.account, &step.actor);
            events.push(ledger::change(&counter, account, row, *kind, reason.clone(), actor, step.at));
        }
        let outcome = match verdict {
            Verdict::Contrary => Transitioned::Conflict(row.clone()),
            Verdict::Stands | Verdict::Changes(..) => Transitioned::Done(row.clone()),
        };
        Ok((outcome, verdict))
    }

    async fn close(mut self, connection: &mut PgConnection) -> Result<(), Failure> {
        if self.events.is_empty() {
            return Ok(());
        }
        let changed: BTreeSet<_> = self.events.iter().map(|event| event.sequence).collect();
        self.rows.retain(|sequence, _| changed.contains(sequence));
        let rows: Vec<_> = self.rows.into_values().collect();
        write(connection, &self.sheet, &rows, &self.events).await
    }
}

/// Voids reservations whose time is over, counter by counter. One that fails stands in nobody's way, and is the error in the end.
pub(super) async fn expire_reservations(store: &PostgresStore, now: UnixMillis) -> Result<u64, StoreError> {
    let mut search = Search { now, passed_over: Vec::new() };
    let (mut expired, mut first) = (0, None);
    loop {
        let failed = search.passed_over.len();
        let (now, found) = store.transact("expire_reservations", &search, due).await?;
        for Due { id, name } in found {
            match store.transact_ahead("expire_reservations", &(id, now), expire).await {
                Ok(count) => expired += count,
                Err(error) => {
                    search.passed_over.push(id);
                    first.get_or_insert_with(|| error.in_ledger_of(&name));
                }
            }
        }
        // The oldest rows may all be of those that failed: then there may be others behind them.
        if search.passed_over.len() == failed || *store.reachable().borrow() != Reachable::Yes {
            break;
        }
    }
    forget_writers(store).await?;
    first.map_or(Ok(expired), Err)
}

/// Which reservations are looked for.
struct Search {
    now: UnixMillis,
    /// Counters that failed.
    passed_over: Vec<i64>,
}

/// A counter that has reservations whose time is over.
struct Due {
    id: i64,
    /// For people.
    name: String,
}

/// What time it is, as far as the server agrees, and the counters that have any.
fn due<'c>(
    connection: &'c mut PgConnection,
    search: &'c Search,
) -> BoxFuture<'c, Result<(UnixMillis, Vec<Due>), Failure>> {
    const HERE: &str = concat!("SELECT ", here_ms!(), " AS here_ms");
    // Where something may be lacking, that a reservation was confirmed may be lacking too.
    const DUE: &str = concat!(
        "SELECT DISTINCT l.counter, coalesce(k.prefix_key || CASE WHEN c.period <> '' THEN ':' || c.period ELSE '' END,
            'counter ' || l.counter || ', which is gone') AS name
        FROM (
            SELECT counter FROM numgen_ledger WHERE state = 'reserved' AND reserved_until_ms <= $1 AND counter <> ALL($2) AND ",
        open!(),
        "   ORDER BY reserved_until_ms LIMIT $3
        ) l LEFT JOIN numgen_ledger_counters c ON c.id = l.counter LEFT JOIN numgen_ledger_keys k ON k.id = c.prefix
        ORDER BY l.counter"
    );
    Box::pin(async move {
        let now = moment(&sqlx::query(HERE).fetch_one(&mut *connection).await?, "here_ms")?.min(search.now);
        let query = sqlx::query(DUE).bind(now.0).bind(&search.passed_over).bind(EXPIRE_LIMIT);
        let due = |row: &PgRow| Ok(Due { id: row.try_get("counter")?, name: row.try_get("name")? });
        let found = query.fetch_all(connection).await?;
        Ok((now, found.iter().map(due).collect::<Result<_, Failure>>()?))
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
