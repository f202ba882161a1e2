//! Rules and idempotency records of values that were drawn elsewhere.

use rusqlite::params;

use super::{
    SqliteStore,
    audit::enter,
    failure::Failure,
    values::{self, signed},
    workspace::{Workspace, collect, find},
};
use crate::{
    clock::UnixMillis,
    counter::Ranges,
    prefix_key::PrefixKey,
    store::{Claim, IdempotencyStore, Note, RuleRecord, RuleStore, StoreFuture, Swap, Taken},
};

const ALL: &str = "SELECT prefix_key, revision, rule, history, used FROM rules ORDER BY prefix_key";
const ONE: &str = "SELECT prefix_key, revision, rule, history, used FROM rules WHERE prefix_key = ?1";
const PUT: &str = "INSERT OR REPLACE INTO rules (prefix_key, revision, rule, history, used)
    VALUES (?1, ?2, ?3, ?4, ?5)";
const USE: &str = "UPDATE rules SET used = 1 WHERE prefix_key = ?1";

/// How many expired records one call deletes: a call must not hold up issuing.
const FORGET_LIMIT: i64 = 1_000;
const FORGET: &str = "DELETE FROM idempotency WHERE id IN
    (SELECT id FROM idempotency WHERE expires_at_ms <= ?1 ORDER BY expires_at_ms LIMIT ?2)";

impl RuleStore for SqliteStore {
    fn load_rules(&self) -> StoreFuture<'_, Vec<RuleRecord>> {
        self.read("load_rules", |connection| collect(connection, ALL, [], values::rule_record))
    }

    fn rule<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<RuleRecord>> {
        let key = key.clone();
        self.read("rule", move |connection| find(connection, ONE, [key.as_str()], values::rule_record))
    }

    fn swap_rule(&self, expected: Option<RuleRecord>, new: RuleRecord) -> StoreFuture<'_, Swap> {
        self.write("swap_rule", move |workspace| swap(workspace, expected.as_ref(), &new, None))
    }

    fn swap_rule_noted(
        &self,
        expected: Option<RuleRecord>,
        new: RuleRecord,
        note: Note,
    ) -> StoreFuture<'_, Swap> {
        self.write("swap_rule", move |workspace| swap(workspace, expected.as_ref(), &new, Some(&note)))
    }

    fn mark_used<'a>(&'a self, key: &'a PrefixKey, revision: u64) -> StoreFuture<'a, bool> {
        let key = key.clone();
        self.write("mark_used", move |workspace| {
            let present = workspace.find(ONE, [key.as_str()], values::rule_record)?;
            let present = present.filter(|record| record.revision == revision && record.rule.is_some());
            if present.as_ref().is_some_and(|record| !record.used) {
                workspace.execute(USE, [key.as_str()])?;
            }
            Ok(present.is_some())
        })
    }
}

fn swap(
    workspace: &Workspace,
    expected: Option<&RuleRecord>,
    new: &RuleRecord,
    note: Option<&Note>,
) -> Result<Swap, Failure> {
    let present = workspace.find(ONE, [new.key.as_str()], values::rule_record)?;
    let stands = |record: &RuleRecord| (record.revision, record.used);
    if present.as_ref().map(stands) != expected.map(stands) {
        return Ok(Swap::Changed(present));
    }
    let revision = expected.map_or(1, |record| record.revision + 1);
    workspace.execute(PUT, params![new.key.as_str(), signed(revision), new.rule, new.history, new.used])?;
    enter(workspace, note)?;
    Ok(Swap::Done)
}

impl IdempotencyStore for SqliteStore {
    fn remember(&self, claim: Claim, values: Ranges) -> StoreFuture<'_, Taken> {
        self.write("remember", move |workspace| {
            let answer = workspace.recall(&claim)?.and_then(|record| record.answer(&claim));
            Ok(match answer {
                Some(answer) => answer,
                None => {
                    workspace.record(&claim, &values, None)?;
                    Taken::Fresh(values)
                }
            })
        })
    }

    fn forget_expired(&self, now: UnixMillis) -> StoreFuture<'_, u64> {
        self.write("forget_expired", move |workspace| {
            Ok(workspace.execute(FORGET, (now.0, FORGET_LIMIT))? as u64)
        })
    }
}
