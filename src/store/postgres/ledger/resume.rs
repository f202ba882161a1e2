//! What a person has to know of a suspended ledger, and the word by which it goes on.
//!
//! Invariants: the word is taken only where every node that may have drawn has said here what it remembers, or is given up by name; and
//! where each counter reaches what any of them remembers.

use sqlx::{PgConnection, Row};

use super::{
    super::{
        audit::append,
        failure::Failure,
        values::{Whole, prefix_key, sequence},
    },
    marker::{self, LAPSED_MS, SETTLING_MS, now_ms, open},
};
use crate::{
    calendar::Period,
    clock::UnixMillis,
    counter::{Counter, SequenceValue},
    store::{AuditAction, AuditDetails, AuditEntry, Author, Suspension},
};

/// The schema step that brought the list of those who were heard.
const HEARD_SINCE: i32 = 10;

/// A counter that the ledger has less of than a node was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which.
    pub counter: Counter,
    /// How far the node was told that it reached.
    pub told: SequenceValue,
    /// How far it reaches; `None`: there is nothing.
    pub reaches: Option<SequenceValue>,
    /// The node.
    pub node: String,
}

/// How strict ledgers stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerReport {
    /// Why no numbers are issued, if a person has to do with it.
    pub suspension: Option<Suspension>,
    /// What is known to be lacking.
    pub lost: Vec<Lost>,
    /// Nodes that drew up to the end and have not yet said here what they remember; none while numbers are issued.
    pub unheard: Vec<String>,
}

/// Looks at a database of this schema, and changes nothing.
pub(in crate::store::postgres) async fn look(
    connection: &mut PgConnection,
    schema: i32,
) -> Result<LedgerReport, Failure> {
    const LOOK: &str = concat!(
        "SELECT m.forgotten_of, m.home = numgen_ledger_home() AS same_home, ",
        open!(),
        " AS open, coalesce(", now_ms!(), " - m.checking_since_ms > $1, false) AS settled,
            EXISTS (SELECT FROM numgen_ledger_counters WHERE last IS NOT NULL) AS in_use,
            ARRAY(SELECT node FROM numgen_ledger_processes WHERE attested IS DISTINCT FROM m.checking
                AND beaten_at_ms >= (SELECT max(beaten_at_ms) - $2 FROM numgen_ledger_processes) ORDER BY node) AS silent
        FROM (SELECT 1) AS one LEFT JOIN numgen_ledger_marker m ON m.singleton"
    );
    let row = sqlx::query(LOOK).bind(SETTLING_MS).bind(LAPSED_MS).fetch_one(&mut *connection).await?;
    let lost = lost(connection).await?;
    if row.try_get("open")? {
        return Ok(LedgerReport { suspension: None, lost, unheard: Vec::new() });
    }
    let why = match row.try_get::<Option<String>, _>("forgotten_of")? {
        Some(node) => Some(Suspension::Forgotten { node }),
        None if !row.try_get("in_use")? => None,
        None if row.try_get::<Option<bool>, _>("same_home")? != Some(true) => Some(Suspension::Restored),
        None if row.try_get("settled")? => Some(Suspension::Silent { nodes: row.try_get("silent")? }),
        None => Some(Suspension::Settling),
    };
    let is_suspended = why.is_some() && schema >= HEARD_SINCE;
    let unheard = if is_suspended { unheard(connection).await? } else { Vec::new() };
    Ok(LedgerReport { suspension: why, lost, unheard })
}

/// Who gave signs of life when the last ones were given, and has not been heard since.
async fn unheard(connection: &mut PgConnection) -> Result<Vec<String>, Failure> {
    const UNHEARD: &str = "SELECT DISTINCT p.node FROM numgen_ledger_processes p
        WHERE p.beaten_at_ms >= (SELECT max(beaten_at_ms) - $1 FROM numgen_ledger_processes)
            AND NOT EXISTS (SELECT FROM numgen_ledger_heard h WHERE h.node = p.node
                AND h.place = numgen_ledger_home() || '/' || numgen_ledger_timeline())
        ORDER BY p.node";
    let rows = sqlx::query(UNHEARD).bind(LAPSED_MS).fetch_all(connection).await?;
    Ok(rows.iter().map(|row| row.try_get("node")).collect::<Result<_, sqlx::Error>>()?)
}

/// What is lacking and was not made up for.
async fn lost(connection: &mut PgConnection) -> Result<Vec<Lost>, Failure> {
    const LOST: &str =
        "SELECT t.prefix_key, t.period, t.last AS told, t.node, c.last AS reaches FROM numgen_ledger_lost t
        LEFT JOIN numgen_ledger_keys k ON k.prefix_key = t.prefix_key
        LEFT JOIN numgen_ledger_counters c ON c.prefix = k.id AND c.period = t.period
        WHERE coalesce(c.last, -1) < t.last ORDER BY t.prefix_key, t.period";
    let rows = sqlx::query(LOST).fetch_all(connection).await?;
    let lost = rows.iter().map(|row| {
        Ok(Lost {
            counter: Counter {
                key: prefix_key(row)?,
                period: Period::new(row.try_get::<&str, _>("period")?),
            },
            told: sequence(row, "told")?,
            reaches: row.try_get::<Option<Whole>, _>("reaches")?.map(Into::into),
            node: row.try_get("node")?,
        })
    });
    lost.collect()
}

/// What became of a person's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// Strict numbers are issued again.
    Done,
    /// They were not suspended.
    NotSuspended,
    /// These nodes may remember more, and have not been heard.
    Unheard(Vec<String>),
    /// These counters have to be advanced first: the nodes were told that they reached further.
    Lacking(Vec<Lost>),
}

/// Takes this server for the one, whatever it lacks that nobody remembers. Nodes of these names are given up: whatever they remember will
/// be found only when they come back.
pub(in crate::store::postgres) async fn resume(
    connection: &mut PgConnection,
    at: UnixMillis,
    reason: &str,
    without: &[String],
) -> Result<Resumed, Failure> {
    const KEYS: &str = "SELECT prefix_key FROM numgen_ledger_keys UNION SELECT prefix_key FROM numgen_ledger_lost ORDER BY 1";
    if marker::lock(connection).await?.is_believed() {
        return Ok(Resumed::NotSuspended);
    }
    let mut unheard = unheard(connection).await?;
    unheard.retain(|node| !without.contains(node));
    if !unheard.is_empty() {
        return Ok(Resumed::Unheard(unheard));
    }
    let lost = lost(connection).await?;
    if !lost.is_empty() {
        return Ok(Resumed::Lacking(lost));
    }
    let keys = sqlx::query(KEYS).fetch_all(&mut *connection).await?;
    marker::adopt(connection).await?;
    let reason = if without.is_empty() {
        reason.to_owned()
    } else {
        format!("{reason} (without {})", without.join(", "))
    };
    let details = AuditDetails { reason: Some(reason), ..AuditDetails::default() };
    let entry = |row| {
        let (author, action) = (Author::operator(), AuditAction::Resumed);
        Ok(AuditEntry { at, author, action, key: prefix_key(row)?, details: details.clone() })
    };
    let entries = keys.iter().map(entry).collect::<Result<Vec<_>, Failure>>()?;
    append(connection, &entries.iter().collect::<Vec<_>>()).await?;
    Ok(Resumed::Done)
}
