//! What a job works with: the one connection that writes, and what the writer remembers between jobs.
//!
//! Invariant: the cache of counters holds nothing that is not in the database. A job changes it only after its statement
//! succeeded, and the writer empties it whenever anything is rolled back.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    failure::Failure,
    values::{self, Digits, signed},
};
use crate::{
    clock::{Clock, UnixMillis},
    counter::{Counter, Ranges, SequenceValue, ValueRange},
    store::{
        Claim, HoleReason, IdMillis,
        draw::{Record, Standing},
        ledger::Account,
    },
};

/// How many counters are cached; daily counters of many keys would else add up over the years.
const CACHE_LIMIT: usize = 10_000;

/// How long after it was drawn a value counts as settled, at least: by then its answer has reached the caller or timed out.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// One row of `counters`.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// `None`: there is no row.
    pub(super) standing: Option<Standing>,
    pub(super) account: Account,
}

/// A point on the way of a counter: everything at or below `cursor` was drawn before, with records up to `record`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waypoint {
    pub(super) cursor: SequenceValue,
    pub(super) record: i64,
}

/// Where a counter that is being served stood a while ago: in the database, `unsettled_from` is `older`.
#[derive(Clone, Copy, Debug)]
struct Recent {
    older: Waypoint,
    newer: Waypoint,
    newer_since: Duration,
    touched: Duration,
}

/// See the module.
pub(super) struct Workspace {
    pub(super) connection: Connection,
    pub(super) clock: Arc<dyn Clock>,
    epoch: UnixMillis,
    tallies: HashMap<Counter, Tally>,
    recent: HashMap<Counter, Recent>,
    /// When, on the monotonic clock, to look for settled counters again: not with every batch.
    look_at: Duration,
    /// The highest `idempotency.id` ever used.
    last_record: i64,
    /// When, on the monotonic clock in ms, a holder of a worker slot that has not renewed counts as gone.
    pub(super) lapses: HashMap<u32, u64>,
}

impl Workspace {
    pub(super) fn new(
        connection: Connection,
        clock: Arc<dyn Clock>,
        epoch: UnixMillis,
    ) -> Result<Self, Failure> {
        // Records may have been deleted since the counters pointed at them: never start below either.
        let highest = "SELECT max(coalesce((SELECT max(id) FROM idempotency), 0),
                                  coalesce((SELECT max(unsettled_record) FROM counters), 0))";
        let last_record = connection.query_row(highest, [], |row| row.get(0))?;
        Ok(Self {
            connection,
            clock,
            epoch,
            tallies: HashMap::new(),
            recent: HashMap::new(),
            look_at: Duration::ZERO,
            last_record,
            lapses: HashMap::new(),
        })
    }

    /// Runs one statement, prepared once for the life of the connection.
    pub(super) fn execute(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<usize, Failure> {
        Ok(self.connection.prepare_cached(sql)?.execute(parameters)?)
    }

    /// Reads at most one row.
    pub(super) fn find<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        find(&self.connection, sql, parameters, read)
    }

    /// Forgets what may differ from the database after something was rolled back.
    pub(super) fn forget(&mut self) {
        self.tallies.clear();
    }

    /// Milliseconds since the epoch of ID timestamps; 0 before it.
    pub(super) fn id_now(&self) -> IdMillis {
        u64::try_from(self.clock.now().0.saturating_sub(self.epoch.0)).unwrap_or(0)
    }

    // ------------------------------------------------------------------------------------- counters

    /// The counter as it stands.
    pub(super) fn tally(&mut self, counter: &Counter) -> Result<&mut Tally, Failure> {
        if !self.tallies.contains_key(counter) {
            let stored = tally(&self.connection, counter)?;
            if self.tallies.len() >= CACHE_LIMIT {
                self.tallies.clear();
            }
            self.tallies.insert(counter.clone(), stored);
        }
        Ok(self.tallies.entry(counter.clone()).or_default())
    }

    /// Writes the whole row but what is unsettled.
    pub(super) fn save(
        &mut self,
        counter: &Counter,
        standing: Standing,
        account: Account,
    ) -> Result<(), Failure> {
        const SAVE: &str = "INSERT INTO counters
                (prefix_key, period, base, last, run_first, run_last, ledger_head, events, events_head)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
            ON CONFLICT (prefix_key, period) DO UPDATE SET
                base = excluded.base, last = excluded.last,
                run_first = excluded.run_first, run_last = excluded.run_last,
                ledger_head = excluded.ledger_head, events = excluded.events, events_head = excluded.events_head";
        self.execute(
            SAVE,
            params![
                counter.key.as_str(),
                counter.period.as_str(),
                Digits(standing.base),
                Digits(standing.last),
                account.run.map(|run| Digits(run.from)),
                account.run.map(|run| Digits(run.to)),
                account.head,
                signed(account.events),
                account.events_head,
            ],
        )?;
        *self.tally(counter)? = Tally { standing: Some(standing), account };
        Ok(())
    }

    /// Moves the cursor of a counter that is drawn on outside the ledger: one statement for a whole batch.
    pub(super) fn draw_to(
        &mut self,
        counter: &Counter,
        standing: Standing,
        from: SequenceValue,
    ) -> Result<(), Failure> {
        const DRAW: &str =
            "INSERT INTO counters (prefix_key, period, base, last, unsettled_from, unsettled_record)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT (prefix_key, period) DO UPDATE SET base = excluded.base, last = excluded.last,
                unsettled_from = excluded.unsettled_from, unsettled_record = excluded.unsettled_record";
        let unsettled = self.waypoint(counter, from);
        self.execute(
            DRAW,
            params![
                counter.key.as_str(),
                counter.period.as_str(),
                Digits(standing.base),
                Digits(standing.last),
                Digits(unsettled.cursor),
                unsettled.record,
            ],
        )?;
        self.tally(counter)?.standing = Some(standing);
        Ok(())
    }

    /// Lists a range that was not issued; listing it again changes nothing.
    pub(super) fn list(
        &self,
        counter: &Counter,
        range: ValueRange,
        reason: HoleReason,
    ) -> Result<(), Failure> {
        const LIST: &str = "INSERT INTO holes (prefix_key, period, from_value, to_value, reason, since_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT DO UPDATE SET to_value = max(to_value, excluded.to_value)";
        self.execute(
            LIST,
            params![
                counter.key.as_str(),
                counter.period.as_str(),
                Digits(range.from),
                Digits(range.to),
                reason.as_str(),
                self.clock.now().0,
            ],
        )?;
        Ok(())
    }

    // ------------------------------------------------------------------------------------ settlement

    /// Where the counter stood one to two settlement times ago. Rolled back changes leave it further back: never wrong.
    fn waypoint(&mut self, counter: &Counter, from: SequenceValue) -> Waypoint {
        let here = Waypoint { cursor: from, record: self.last_record };
        let now = self.clock.monotonic();
        let fresh = Recent { older: here, newer: here, newer_since: now, touched: now };
        let recent = match self.recent.get_mut(counter) {
            Some(recent) => recent,
            None => self.recent.entry(counter.clone()).or_insert(fresh),
        };
        recent.touched = now;
        if now.saturating_sub(recent.newer_since) > SETTLED_AFTER {
            *recent = Recent { older: recent.newer, newer: here, newer_since: now, touched: now };
        }
        recent.older
    }

    /// Whether a counter has values that are not settled yet.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.recent.is_empty()
    }

    /// Whether a counter has rested long enough for its last values to be settled. Looks only now and then.
    pub(super) fn is_settlement_due(&mut self) -> bool {
        let now = self.clock.monotonic();
        if now < self.look_at {
            return false;
        }
        self.look_at = now.saturating_add(SETTLED_AFTER / 2);
        self.recent.values().any(|recent| has_settled(recent, now))
    }

    /// Writes down that counters at rest have nothing unsettled.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        const SETTLE: &str = "UPDATE counters SET unsettled_from = NULL, unsettled_record = NULL
            WHERE prefix_key = ?1 AND period = ?2";
        let now = self.clock.monotonic();
        let rested: Vec<Counter> = self
            .recent
            .extract_if(|_, recent| has_settled(recent, now))
            .map(|(counter, _)| counter)
            .collect();
        for counter in rested {
            self.execute(SETTLE, (counter.key.as_str(), counter.period.as_str()))?;
        }
        Ok(())
    }

    // ----------------------------------------------------------------------------- idempotency records

    /// What is stored under a key.
    pub(super) fn recall(&self, claim: &Claim) -> Result<Option<Record>, Failure> {
        const RECALL: &str =
            "SELECT fingerprint, stamp, value_ranges, expires_at_ms FROM idempotency WHERE scoped_key = ?1";
        self.find(RECALL, [&*claim.scoped_key], values::record)
    }

    /// Stores what a key was given, in place of a record that has expired.
    pub(super) fn record(
        &mut self,
        claim: &Claim,
        given: &Ranges,
        counter: Option<&Counter>,
    ) -> Result<(), Failure> {
        const RECORD: &str = "INSERT OR REPLACE INTO idempotency
                (id, scoped_key, fingerprint, stamp, value_ranges, prefix_key, period, expires_at_ms)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        self.last_record += 1;
        self.execute(
            RECORD,
            params![
                self.last_record,
                &*claim.scoped_key,
                &claim.fingerprint[..],
                &*claim.stamp,
                given.to_string(),
                counter.map(|counter| counter.key.as_str()),
                counter.map(|counter| counter.period.as_str()),
                claim.expires_at.0,
            ],
        )?;
        Ok(())
    }
}

fn has_settled(recent: &Recent, now: Duration) -> bool {
    now.saturating_sub(recent.touched) > SETTLED_AFTER
}

/// Reads at most one row.
pub(super) fn find<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row(parameters, |row| Ok(read(row))).optional()?.transpose()
}

/// Reads every row.
pub(super) fn collect<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    connection.prepare_cached(sql)?.query_and_then(parameters, read)?.collect()
}

/// Reads one counter; a default where there is none.
pub(super) fn tally(connection: &Connection, counter: &Counter) -> Result<Tally, Failure> {
    const TALLY: &str =
        "SELECT base, last, run_first, run_last, ledger_head, events, events_head FROM counters
        WHERE prefix_key = ?1 AND period = ?2";
    let stored = find(connection, TALLY, (counter.key.as_str(), counter.period.as_str()), |row| {
        let standing =
            Standing { base: values::sequence(row, "base")?, last: values::sequence(row, "last")? };
        let account = Account {
            run: values::range(row, "run_first", "run_last")?,
            head: row.get("ledger_head")?,
            events: values::unsigned(row, "events")?,
            events_head: row.get("events_head")?,
        };
        Ok(Tally { standing: Some(standing), account })
    })?;
    Ok(stored.unwrap_or_default())
}
