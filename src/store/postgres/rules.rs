//! The register of rules, which all nodes follow.
//!
//! Invariants: whoever writes a record holds the row of `numgen_memory` until the commit, so changes become visible in the order of
//! their numbers, and a node that asks for what came after the last one it knows misses nothing; the register believes in its own
//! emptiness only after settling: until then nobody registers what somebody may still write back.

use std::{pin::Pin, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    PostgresStore,
    audit::enter,
    failure::Failure,
    memory::{Memory, observe},
    values::{prefix_key, signed, unsigned},
};
use crate::{
    prefix_key::PrefixKey,
    store::{
        Lineage, More, Note, RuleMark, RuleNews, RuleRecord, RuleStore, SharedRules, StoreError, StoreFuture,
        Swap,
    },
};

/// Records in one answer.
const PART: usize = 500;

/// How often somebody who waits for the end of settling looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Whom a message concerns.
const CHANNEL: &str = "rules";

const ALL: &str = "SELECT prefix_key, revision, rule, history, used FROM numgen_rules ORDER BY prefix_key";
const ONE: &str = "SELECT prefix_key, revision, rule, history, used FROM numgen_rules WHERE prefix_key = $1";
const NEWS: &str = "SELECT prefix_key, revision, rule, history, used, change FROM numgen_rules
    WHERE change > $1 ORDER BY change LIMIT $2";
const LOCK: &str = "SELECT change FROM numgen_memory FOR UPDATE";
const COUNT: &str = "UPDATE numgen_memory SET change = change + 1 RETURNING change";
const PUT: &str = "
    INSERT INTO numgen_rules (prefix_key, revision, rule, history, used, change) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (prefix_key) DO UPDATE SET revision = excluded.revision, rule = excluded.rule,
        history = excluded.history, used = excluded.used, change = excluded.change";
/// Delivered with the commit.
const CALL: &str = "SELECT pg_notify('numgen', 'rules')";

/// What a look at one key finds.
struct Found {
    record: Option<RuleRecord>,
    memory: Memory,
}

impl PostgresStore {
    /// The record of a key; waits for the end of settling where there is none.
    async fn read_rule(&self, key: &PrefixKey) -> Result<Option<RuleRecord>, StoreError> {
        loop {
            let found = self.transact("rule", key, look).await?;
            let Some(left) = found.memory.settling.filter(|_| found.record.is_none()) else {
                return Ok(found.record);
            };
            tokio::time::sleep(LOOK_EVERY.min(left)).await;
        }
    }

    async fn change_rule(
        &self,
        expected: Option<RuleRecord>,
        new: RuleRecord,
        note: Option<Note>,
    ) -> Result<Swap, StoreError> {
        // Somebody may still write back what was forgotten.
        if expected.is_none()
            && let Some(present) = self.read_rule(&new.key).await?
        {
            return Ok(Swap::Changed(Some(present)));
        }
        let revision = expected.as_ref().map_or(1, |record| record.revision + 1);
        let change = (expected, RuleRecord { revision, ..new }, note);
        self.transact("swap_rule", &change, |connection, (expected, new, note)| {
            Box::pin(async move {
                lock(connection).await?;
                let swap = swap(connection, expected.as_ref(), new).await?;
                if swap == Swap::Done {
                    enter(connection, note.as_ref()).await?;
                }
                Ok(swap)
            })
        })
        .await
    }
}

impl RuleStore for PostgresStore {
    fn load_rules(&self) -> StoreFuture<'_, Vec<RuleRecord>> {
        Box::pin(async move {
            self.transact("load_rules", &(), |connection, ()| {
                Box::pin(async move {
                    let rows = sqlx::query(ALL).fetch_all(connection).await?;
                    rows.iter().map(record).collect()
                })
            })
            .await
        })
    }

    fn rule<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<RuleRecord>> {
        Box::pin(self.read_rule(key))
    }

    fn swap_rule(&self, expected: Option<RuleRecord>, new: RuleRecord) -> StoreFuture<'_, Swap> {
        Box::pin(self.change_rule(expected, new, None))
    }

    fn swap_rule_noted(
        &self,
        expected: Option<RuleRecord>,
        new: RuleRecord,
        note: Note,
    ) -> StoreFuture<'_, Swap> {
        Box::pin(self.change_rule(expected, new, Some(note)))
    }

    fn mark_used<'a>(&'a self, key: &'a PrefixKey, revision: u64) -> StoreFuture<'a, bool> {
        Box::pin(async move { self.transact("mark_used", &(key.clone(), revision), mark_used).await })
    }
}

impl SharedRules for PostgresStore {
    fn follow(&self, since: RuleMark) -> StoreFuture<'_, RuleNews> {
        Box::pin(async move { self.transact("follow_rules", &since, follow).await })
    }

    fn called(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut calls = self.subscribe(CHANNEL);
        Box::pin(async move { drop(calls.next().await) })
    }

    fn restore(&self, records: Vec<(Option<RuleRecord>, RuleRecord)>) -> StoreFuture<'_, Vec<Swap>> {
        Box::pin(async move {
            self.transact("restore_rules", &records, |connection, records| {
                Box::pin(async move {
                    lock(connection).await?;
                    let mut swaps = Vec::with_capacity(records.len());
                    for (expected, new) in records {
                        swaps.push(swap(connection, expected.as_ref(), new).await?);
                    }
                    Ok(swaps)
                })
            })
            .await
        })
    }
}

fn look<'c>(connection: &'c mut PgConnection, key: &'c PrefixKey) -> BoxFuture<'c, Result<Found, Failure>> {
    Box::pin(async move {
        // In this order: what is written back comes after the memory has begun.
        let memory = observe(connection).await?;
        Ok(Found { record: find(connection, key).await?, memory })
    })
}

fn mark_used<'c>(
    connection: &'c mut PgConnection,
    (key, revision): &'c (PrefixKey, u64),
) -> BoxFuture<'c, Result<bool, Failure>> {
    Box::pin(async move {
        let stands = |record: &RuleRecord| record.revision == *revision && record.rule.is_some();
        // Most rules have been used long ago: no lock for those.
        match find(connection, key).await?.filter(stands) {
            None => return Ok(false),
            Some(record) if record.used => return Ok(true),
            Some(_) => {}
        }
        lock(connection).await?;
        let Some(record) = find(connection, key).await?.filter(stands) else { return Ok(false) };
        if !record.used {
            put(connection, &RuleRecord { used: true, ..record }).await?;
        }
        Ok(true)
    })
}

fn follow<'c>(
    connection: &'c mut PgConnection,
    since: &'c RuleMark,
) -> BoxFuture<'c, Result<RuleNews, Failure>> {
    Box::pin(async move {
        let generation = observe(connection).await?.generation.to_string();
        let lineage = if since.generation == generation { Lineage::Same } else { Lineage::New };
        let from = if lineage == Lineage::Same { since.change } else { 0 };
        let limit = i64::try_from(PART + 1).unwrap_or(i64::MAX);
        let mut rows = sqlx::query(NEWS).bind(signed(from)).bind(limit).fetch_all(connection).await?;
        let more = if rows.len() > PART { More::Records } else { More::Nothing };
        rows.truncate(PART);
        let change = rows.last().map(|row| unsigned(row, "change")).transpose()?.unwrap_or(from);
        Ok(RuleNews {
            mark: RuleMark { generation, change },
            lineage,
            records: rows.iter().map(record).collect::<Result<_, _>>()?,
            more,
            direct: Vec::new(),
            misnamed: Vec::new(),
        })
    })
}

/// From here to the commit nobody else writes.
async fn lock(connection: &mut PgConnection) -> Result<(), Failure> {
    // The row is there: nobody writes before having looked.
    observe(connection).await?;
    sqlx::query(LOCK).execute(connection).await?;
    Ok(())
}

/// Writes `new` if the record is as expected. Under the lock.
async fn swap(
    connection: &mut PgConnection,
    expected: Option<&RuleRecord>,
    new: &RuleRecord,
) -> Result<Swap, Failure> {
    let present = find(connection, &new.key).await?;
    let stands = |record: &RuleRecord| (record.revision, record.used);
    if present.as_ref().map(stands) != expected.map(stands) {
        return Ok(Swap::Changed(present));
    }
    put(connection, new).await?;
    Ok(Swap::Done)
}

/// Writes a record, and calls it out. Under the lock.
async fn put(connection: &mut PgConnection, new: &RuleRecord) -> Result<(), Failure> {
    let change: i64 = sqlx::query(COUNT).fetch_one(&mut *connection).await?.try_get("change")?;
    sqlx::query(PUT)
        .bind(new.key.as_str())
        .bind(signed(new.revision))
        .bind(new.rule.as_deref())
        .bind(&new.history)
        .bind(new.used)
        .bind(change)
        .execute(&mut *connection)
        .await?;
    sqlx::query(CALL).execute(connection).await?;
    Ok(())
}

async fn find(connection: &mut PgConnection, key: &PrefixKey) -> Result<Option<RuleRecord>, Failure> {
    let found = sqlx::query(ONE).bind(key.as_str()).fetch_optional(connection).await?;
    found.as_ref().map(record).transpose()
}

/// `prefix_key, revision, rule, history, used`
fn record(row: &PgRow) -> Result<RuleRecord, Failure> {
    Ok(RuleRecord {
        key: prefix_key(row)?,
        revision: unsigned(row, "revision")?,
        rule: row.try_get("rule")?,
        history: row.try_get("history")?,
        used: row.try_get("used")?,
    })
}
