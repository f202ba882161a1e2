//! The copy of a register of rules that is kept elsewhere.

use rusqlite::params;

use super::{
    SqliteStore,
    values::{self, signed, unsigned},
    workspace::{collect, find},
};
use crate::{
    clock::UnixMillis,
    store::{RuleCopies, RuleCopy, RuleMark, RuleRecord, StoreFuture},
};

const ALL: &str = "SELECT prefix_key, revision, rule, history, used FROM rule_copy ORDER BY prefix_key";
const MARK: &str = "SELECT generation, change, saved_at_ms FROM rule_copy_mark";
const PUT: &str =
    "INSERT INTO rule_copy (prefix_key, revision, rule, history, used) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (prefix_key) DO UPDATE SET revision = ?2, rule = ?3, history = ?4, used = ?5
    WHERE (?2, ?5) > (revision, used)";
const PUT_MARK: &str = "INSERT OR REPLACE INTO rule_copy_mark (only_one, generation, change, saved_at_ms) VALUES (1, ?1, ?2, ?3)";

impl RuleCopies for SqliteStore {
    fn load_copy(&self) -> StoreFuture<'_, Option<RuleCopy>> {
        // Everything at once, at the start: that may take longer than a call of a request.
        self.audit("load_copy", |connection| {
            let mark = find(connection, MARK, [], |row| {
                let mark = RuleMark { generation: row.get("generation")?, change: unsigned(row, "change")? };
                Ok((mark, UnixMillis(row.get("saved_at_ms")?)))
            })?;
            let records = collect(connection, ALL, [], values::rule_record)?;
            // Without a mark there may be records all the same: of a process that ended before it had read everything.
            let (mark, saved_at) = mark.unwrap_or((RuleMark::default(), UnixMillis(0)));
            Ok((!records.is_empty() || saved_at.0 > 0).then_some(RuleCopy { mark, saved_at, records }))
        })
    }

    fn save_copy(&self, records: Vec<RuleRecord>, mark: Option<RuleMark>) -> StoreFuture<'_, ()> {
        self.write("save_copy", move |workspace| {
            for record in &records {
                let RuleRecord { key, revision, rule, history, used } = record;
                workspace.execute(PUT, params![key.as_str(), signed(*revision), rule, history, used])?;
            }
            if let Some(mark) = &mark {
                let now = workspace.clock.now();
                workspace.execute(PUT_MARK, params![mark.generation, signed(mark.change), now.0])?;
            }
            Ok(())
        })
    }
}
