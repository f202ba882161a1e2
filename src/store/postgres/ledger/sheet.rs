//! The row of a counter: where it stands, and the account of its ledger.

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::super::{
    failure::Failure,
    values::{Whole, moment, sequence, unsigned, word},
};
use crate::{
    clock::UnixMillis,
    counter::{Counter, SequenceValue, ValueRange},
    store::{Hole, HoleReason, draw::Standing, ledger::Account},
};

/// One row of `numgen_ledger_counters`.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    pub(super) id: i64,
    /// Counts the changes of `standing`, of the run and of the head: whoever knows it knows them. Events have their own count.
    pub(super) version: i64,
    /// Schemes below it draw nothing.
    pub(super) scheme: u64,
    /// `None`: nothing was drawn, nothing is known.
    pub(super) standing: Option<Standing>,
    pub(super) account: Account,
    /// Which batch of which process was the last.
    pub(super) signature: Option<Signature>,
}

impl Sheet {
    /// The account as far as it speaks of every value: a run that others have drawn above of is over.
    pub(super) fn account_beside(&self, others: Others) -> Account {
        let run = self.account.run.filter(|_| others == Others::Stayed);
        Account { run, ..self.account.clone() }
    }
}

/// Names one batch of one process. No two attempts to write have one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) writer: [u8; 16],
    pub(super) batch: Batch,
}

/// A batch of a process: the *line* that it belongs to, and its place there (the lower bits). Each batch of a line is written only on top
/// of the one before it, so whoever finds one of them finds all that came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch(pub(super) i64);

impl Batch {
    const PLACES: u32 = 24;

    /// The first of a line.
    pub(super) fn first(line: i64) -> Self {
        Self(line << Self::PLACES)
    }

    /// The one that is written on top of this one; `None` where the line is full.
    pub(super) fn next(self) -> Option<Self> {
        let next = Self(self.0 + 1);
        (next.line() == self.line()).then_some(next)
    }

    /// Whether a batch that stands in the database proves that `earlier` was committed.
    pub(super) fn proves(self, earlier: Self) -> bool {
        self.line() == earlier.line() && self.0 >= earlier.0
    }

    fn line(self) -> i64 {
        self.0 >> Self::PLACES
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT c.id, c.version, c.scheme, c.base, c.last, c.run_first, c.run_last, c.head, c.events, c.events_head, c.writer, c.batch
            FROM numgen_ledger_counters c ",
            $rest
        )
    };
}

const FIND: &str =
    select!("JOIN numgen_ledger_keys k ON k.id = c.prefix WHERE k.prefix_key = $1 AND c.period = $2");
const LOCK: &str = select!(
    "JOIN numgen_ledger_keys k ON k.id = c.prefix WHERE k.prefix_key = $1 AND c.period = $2 FOR UPDATE OF c"
);
const LOCK_BY_ID: &str = select!("WHERE c.id = $1 FOR UPDATE");

/// Reads the sheet of a counter without a lock: what it says may be old before it is read.
pub(super) async fn find(connection: &mut PgConnection, counter: &Counter) -> Result<Option<Sheet>, Failure> {
    fetch(connection, FIND, counter).await
}

/// Locks the sheet of a counter until the end of the transaction; `None`: there is none.
pub(super) async fn lock(connection: &mut PgConnection, counter: &Counter) -> Result<Option<Sheet>, Failure> {
    fetch(connection, LOCK, counter).await
}

/// The same by number.
pub(super) async fn lock_by_id(connection: &mut PgConnection, id: i64) -> Result<Sheet, Failure> {
    let found = sqlx::query(LOCK_BY_ID).bind(id).fetch_optional(connection).await?;
    found.map_or_else(|| Err(Failure::corrupt("a ledger row without a counter")), |row| sheet(&row))
}

async fn fetch(
    connection: &mut PgConnection,
    sql: &'static str,
    counter: &Counter,
) -> Result<Option<Sheet>, Failure> {
    let query = sqlx::query(sql).bind(counter.key.as_str()).bind(counter.period.as_str());
    query.fetch_optional(connection).await?.map(|row| sheet(&row)).transpose()
}

/// Locks the sheet of a counter, and makes it where there is none.
pub(super) async fn open(connection: &mut PgConnection, counter: &Counter) -> Result<Sheet, Failure> {
    const KEY: &str = "INSERT INTO numgen_ledger_keys (prefix_key) VALUES ($1) ON CONFLICT DO NOTHING";
    // Held back while schemes of the key are retired, so that the new sheet shows what was retired.
    const BEGIN: &str = "WITH key AS (SELECT id, scheme FROM numgen_ledger_keys WHERE prefix_key = $1 FOR SHARE)
        INSERT INTO numgen_ledger_counters (prefix, period, scheme) SELECT id, $2, scheme FROM key ON CONFLICT DO NOTHING";
    if let Some(sheet) = lock(connection, counter).await? {
        return Ok(sheet);
    }
    let (key, period) = (counter.key.as_str(), counter.period.as_str());
    sqlx::query(KEY).bind(key).execute(&mut *connection).await?;
    sqlx::query(BEGIN).bind(key).bind(period).execute(&mut *connection).await?;
    let made = lock(connection, counter).await?;
    made.ok_or_else(|| Failure::corrupt(format!("no sheet of {counter} where one was just made")))
}

/// What became of a counter, outside the ledger, above where its sheet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// Nobody drew there.
    Stayed,
    /// The rule was `continuous` for a while: values there were issued that have no row.
    Drew,
}

/// Looks into the other book. What was drawn there was committed before its scheme was retired, and is seen behind the lock of the sheet.
pub(super) async fn others(
    connection: &mut PgConnection,
    counter: &Counter,
    sheet: &Sheet,
) -> Result<Others, Failure> {
    const DREW: &str =
        "SELECT EXISTS (SELECT FROM numgen_counters WHERE prefix_key = $1 AND period = $2 AND last > $3)
            OR EXISTS (SELECT FROM numgen_lines WHERE prefix_key = $1 AND period = $2 AND granted_to > $3) AS drew";
    let last = sheet.standing.map_or(SequenceValue(0), |standing| standing.last);
    let query = sqlx::query(DREW).bind(counter.key.as_str()).bind(counter.period.as_str());
    let drew = query.bind(Whole::from(last)).fetch_one(connection).await?.try_get("drew")?;
    Ok(if drew { Others::Drew } else { Others::Stayed })
}

/// Writes where a locked counter stands.
pub(super) async fn save_standing(
    connection: &mut PgConnection,
    sheet: &Sheet,
    standing: Standing,
) -> Result<(), Failure> {
    const SAVE: &str =
        "UPDATE numgen_ledger_counters SET version = version + 1, base = $2, last = $3 WHERE id = $1";
    let query = sqlx::query(SAVE).bind(sheet.id).bind(Whole::from(standing.base));
    query.bind(Whole::from(standing.last)).execute(connection).await?;
    Ok(())
}

/// Lists a range that was not issued; listing it again changes nothing.
pub(super) async fn list(
    connection: &mut PgConnection,
    sheet: &Sheet,
    range: ValueRange,
    reason: HoleReason,
    since: UnixMillis,
) -> Result<(), Failure> {
    const LIST: &str =
        "INSERT INTO numgen_ledger_holes AS h (counter, from_value, to_value, reason, since_ms)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (counter, from_value) DO UPDATE SET to_value = greatest(h.to_value, excluded.to_value)";
    sqlx::query(LIST)
        .bind(sheet.id)
        .bind(Whole::from(range.from))
        .bind(Whole::from(range.to))
        .bind(reason.as_str())
        .bind(since.0)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) fn hole(row: &PgRow) -> Result<Hole, Failure> {
    Ok(Hole {
        from: sequence(row, "from_value")?,
        to: sequence(row, "to_value")?,
        reason: word(row, "reason", HoleReason::parse)?,
        since: moment(row, "since_ms")?,
    })
}

fn sheet(row: &PgRow) -> Result<Sheet, Failure> {
    let pair = |first: &str, second: &str| -> Result<_, Failure> {
        let (first, second): (Option<Whole>, Option<Whole>) = (row.try_get(first)?, row.try_get(second)?);
        Ok(first.zip(second))
    };
    let standing = pair("base", "last")?;
    let run = pair("run_first", "run_last")?;
    let (writer, batch): (Option<&[u8]>, Option<i64>) = (row.try_get("writer")?, row.try_get("batch")?);
    Ok(Sheet {
        id: row.try_get("id")?,
        version: row.try_get("version")?,
        scheme: unsigned(row, "scheme")?,
        standing: standing.map(|(base, last)| Standing { base: base.into(), last: last.into() }),
        account: Account {
            run: run.map(|(from, to)| ValueRange { from: from.into(), to: to.into() }),
            head: row.try_get("head")?,
            events: unsigned(row, "events")?,
            events_head: row.try_get("events_head")?,
        },
        signature: writer
            .and_then(|writer| writer.try_into().ok())
            .zip(batch)
            .map(|(writer, batch)| Signature { writer, batch: Batch(batch) }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_proves_those_of_its_line_before_it() {
        let first = Batch::first(7);
        let second = first.next().expect("room");
        assert!(second.proves(first) && second.proves(second));
        assert!(!first.proves(second));
        assert!(!Batch::first(8).proves(first), "another line knows nothing of it");
        let last = Batch(Batch::first(8).0 - 1);
        assert!(last.proves(first));
        assert_eq!(last.next(), None);
    }
}
