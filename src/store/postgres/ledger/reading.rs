//! Reading: pages, certificates, verification. Each is one view of the database; none waits for those who draw, and what it shows is
//! durable (`barrier.rs`).

use futures_util::{TryStreamExt, future::BoxFuture};
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    super::{
        barrier::barrier,
        failure::Failure,
        values::{Whole, moment, sequence, unsigned, word},
    },
    sheet,
};
use crate::{
    calendar::Period,
    clock::UnixMillis,
    counter::{Counter, SequenceValue, ValueRange},
    prefix_key::PrefixKey,
    store::{
        Certificate, LedgerQuery, LedgerRow, LedgerState, Stray, Verification,
        ledger::{Account, Change, Event},
        verification::Auditor,
    },
};

/// One view for several statements, which may take their time.
const ONE_VIEW: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// Every column of the rows of counter `$1`.
macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT k.prefix_key, c.period, l.sequence, l.number, l.state::text AS state, l.reason, l.subject, l.reserved_until_ms,
                l.issued_at_ms, l.idempotency_key, encode(l.hash, 'hex') AS hash
            FROM numgen_ledger l, numgen_ledger_counters c JOIN numgen_ledger_keys k ON k.id = c.prefix
            WHERE l.counter = $1 AND c.id = $1 ",
            $rest
        )
    };
}
pub(super) use columns;

/// A page in the order of (period, sequence): from each counter, in the order of periods, as many rows as the page has room for. What
/// is behind the page is never read.
macro_rules! page {
    ($of_state:literal) => {
        concat!(
            "SELECT c.period, l.sequence, l.number, l.state::text AS state, l.reason, l.subject, l.reserved_until_ms, l.issued_at_ms,
                l.idempotency_key, encode(l.hash, 'hex') AS hash
            FROM (
                SELECT c.id, c.period FROM numgen_ledger_counters c JOIN numgen_ledger_keys k ON k.id = c.prefix
                WHERE k.prefix_key = $1 AND ($2::text IS NULL OR c.period = $2) AND c.period >= $5 ORDER BY c.period
            ) c, LATERAL (
                SELECT * FROM numgen_ledger l
                WHERE l.counter = c.id AND l.sequence BETWEEN $3 AND $4
                    AND l.sequence > coalesce(CASE WHEN c.period = $5 THEN $6::numeric END, -1) ",
            $of_state,
            "   ORDER BY l.sequence LIMIT $7
            ) l ORDER BY c.period, l.sequence LIMIT $7"
        )
    };
}

/// Reads a page.
pub(super) fn rows<'c>(
    connection: &'c mut PgConnection,
    (key, query): &'c (PrefixKey, LedgerQuery),
) -> BoxFuture<'c, Result<Vec<LedgerRow>, Failure>> {
    const ALL: &str = page!("");
    const ISSUED: &str = page!("AND l.state = 'issued'");
    const RESERVED: &str = page!("AND l.state <> 'issued' AND l.state = 'reserved'");
    const VOID: &str = page!("AND l.state <> 'issued' AND l.state = 'void'");
    Box::pin(async move {
        let sql = match query.state {
            None => ALL,
            Some(LedgerState::Issued) => ISSUED,
            Some(LedgerState::Reserved) => RESERVED,
            Some(LedgerState::Void) => VOID,
        };
        let after = query.after.as_ref().map(|(period, sequence)| (period.as_str(), Whole::from(*sequence)));
        let found = sqlx::query(sql)
            .bind(key.as_str())
            .bind(query.period.as_ref().map(Period::as_str))
            .bind(Whole::from(query.from.unwrap_or_default()))
            .bind(Whole::from(query.to.unwrap_or(SequenceValue::MAX)))
            .bind(after.map_or("", |(period, _)| period))
            .bind(after.map(|(_, sequence)| sequence))
            .bind(i64::from(query.limit))
            .fetch_all(&mut *connection)
            .await?;
        barrier(connection).await?;
        found.iter().map(ledger_row).collect()
    })
}

/// Certifies the present run of a counter. Counts by index alone; no other counter is looked at.
pub(super) fn certificate<'c>(
    connection: &'c mut PgConnection,
    counter: &'c Counter,
) -> BoxFuture<'c, Result<Option<Certificate>, Failure>> {
    const COUNT: &str =
        "SELECT count(*) AS count FROM numgen_ledger WHERE counter = $1 AND sequence BETWEEN $2 AND $3";
    const OTHERS: &str = "SELECT count(*) FILTER (WHERE state = 'reserved') AS reserved, count(*) FILTER (WHERE state = 'void') AS void
        FROM numgen_ledger WHERE counter = $1 AND sequence BETWEEN $2 AND $3 AND state <> 'issued'";
    Box::pin(async move {
        sqlx::raw_sql(ONE_VIEW).execute(&mut *connection).await?;
        let Some(sheet) = sheet::find(connection, counter).await? else { return Ok(None) };
        let Some(run) = sheet.account.run else { return Ok(None) };
        let of_run =
            |sql| sqlx::query(sql).bind(sheet.id).bind(Whole::from(run.from)).bind(Whole::from(run.to));
        let count = unsigned(&of_run(COUNT).fetch_one(&mut *connection).await?, "count")?;
        let others = of_run(OTHERS).fetch_one(&mut *connection).await?;
        let (reserved, void) = (unsigned(&others, "reserved")?, unsigned(&others, "void")?);
        // No two rows have one integer, so a count that is full leaves no hole.
        let holes =
            if count == run.count() { Vec::new() } else { holes(&mut *connection, sheet.id, run).await? };
        barrier(connection).await?;
        Ok(Some(Certificate {
            period: counter.period.clone(),
            first: Some(run.from),
            last: Some(run.to),
            count,
            issued: count.saturating_sub(reserved).saturating_sub(void),
            reserved,
            void,
            holes,
            head: sheet.account.head,
        }))
    })
}

/// Integers of a run that have no row.
async fn holes(
    connection: &mut PgConnection,
    counter: i64,
    run: ValueRange,
) -> Result<Vec<(SequenceValue, SequenceValue)>, Failure> {
    const HOLES: &str = "SELECT before + 1 AS from_value, sequence - 1 AS to_value FROM (
            SELECT sequence, lag(sequence, 1, $2::numeric - 1) OVER (ORDER BY sequence) AS before FROM (
                SELECT sequence FROM numgen_ledger WHERE counter = $1 AND sequence BETWEEN $2 AND $3
                UNION ALL SELECT $3::numeric + 1
            ) AS with_end
        ) AS pairs WHERE sequence > before + 1 ORDER BY sequence";
    let query = sqlx::query(HOLES).bind(counter).bind(Whole::from(run.from)).bind(Whole::from(run.to));
    let found = query.fetch_all(connection).await?;
    found.iter().map(|row| Ok((sequence(row, "from_value")?, sequence(row, "to_value")?))).collect()
}

/// Recomputes both chains, row by row as they come.
pub(super) fn verify<'c>(
    connection: &'c mut PgConnection,
    counter: &'c Counter,
) -> BoxFuture<'c, Result<Verification, Failure>> {
    const EVENTS: &str =
        "SELECT position, sequence, change, reason, actor, at_ms, hash FROM numgen_ledger_events
        WHERE counter = $1 ORDER BY position";
    const ROWS: &str = columns!("ORDER BY l.sequence");
    Box::pin(async move {
        sqlx::raw_sql(ONE_VIEW).execute(&mut *connection).await?;
        let Some(sheet) = sheet::find(connection, counter).await? else {
            return Ok(Auditor::new(counter, &Account::default()).finish());
        };
        let mut auditor = Auditor::new(counter, &sheet.account);
        let mut events = sqlx::query(EVENTS).bind(sheet.id).fetch(&mut *connection);
        while let Some(row) = events.try_next().await? {
            auditor.event(event(&row)?);
        }
        drop(events);
        let mut rows = sqlx::query(ROWS).bind(sheet.id).fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            auditor.row(&ledger_row(&row)?);
        }
        drop(rows);
        barrier(connection).await?;
        Ok(auditor.finish())
    })
}

/// Finds rows of a prefix key that no counter leads to, and those of which nobody can say whose they are. Goes from one counter's rows to
/// the next by index: what it costs grows with counters, not with rows.
pub(super) fn strays<'c>(
    connection: &'c mut PgConnection,
    key: &'c PrefixKey,
) -> BoxFuture<'c, Result<Vec<Stray>, Failure>> {
    const STRAYS: &str = "WITH RECURSIVE found (counter) AS (
            SELECT min(counter) FROM numgen_ledger
            UNION ALL
            SELECT (SELECT min(l.counter) FROM numgen_ledger l WHERE l.counter > found.counter) FROM found WHERE found.counter IS NOT NULL
        )
        SELECT k.prefix_key, lowest.sequence AS first, highest.sequence AS last, lowest.number
        FROM found
        CROSS JOIN LATERAL (
            SELECT * FROM numgen_ledger l WHERE l.counter = found.counter ORDER BY l.sequence LIMIT 1) lowest
        CROSS JOIN LATERAL (
            SELECT * FROM numgen_ledger l WHERE l.counter = found.counter ORDER BY l.sequence DESC LIMIT 1) highest
        LEFT JOIN numgen_ledger_keys k ON k.id = lowest.prefix
        WHERE (k.prefix_key = $1 OR k.prefix_key IS NULL)
            AND NOT EXISTS (SELECT FROM numgen_ledger_counters c WHERE c.id = found.counter AND c.prefix = k.id)
        ORDER BY found.counter";
    Box::pin(async move {
        let rows = sqlx::query(STRAYS).bind(key.as_str()).fetch_all(&mut *connection).await?;
        barrier(connection).await?;
        let stray = |row: &PgRow| {
            let known: Option<&str> = row.try_get("prefix_key")?;
            Ok(Stray {
                key: known.map(|_asked| key.clone()),
                first: sequence(row, "first")?,
                last: sequence(row, "last")?,
                number: row.try_get("number")?,
            })
        };
        rows.iter().map(stray).collect()
    })
}

pub(super) fn ledger_row(row: &PgRow) -> Result<LedgerRow, Failure> {
    Ok(LedgerRow {
        period: Period::new(row.try_get::<&str, _>("period")?),
        sequence: sequence(row, "sequence")?,
        number: row.try_get("number")?,
        state: word(row, "state", LedgerState::parse)?,
        reason: row.try_get("reason")?,
        subject: row.try_get("subject")?,
        reserved_until: row.try_get::<Option<i64>, _>("reserved_until_ms")?.map(UnixMillis),
        issued_at: moment(row, "issued_at_ms")?,
        idempotency_key: row.try_get("idempotency_key")?,
        hash: row.try_get("hash")?,
    })
}

fn event(row: &PgRow) -> Result<Event, Failure> {
    Ok(Event {
        position: unsigned(row, "position")?,
        sequence: sequence(row, "sequence")?,
        change: word(row, "change", Change::parse)?,
        reason: row.try_get("reason")?,
        actor: row.try_get("actor")?,
        at: moment(row, "at_ms")?,
        hash: row.try_get("hash")?,
    })
}
