//! The audit trail in profile *redis*: a stream that all nodes share.
//!
//! In Redis rather than in the data directory of each node, so that whoever asks any node sees what was done through all of them. It
//! is as durable as Redis is, and holds about the last [`KEPT`] entries. In a cluster the trail is in another slot than what is
//! changed, so the entry is written directly after the change, not with it.

use redis::{Value, from_redis_value};
use serde::{Deserialize, Serialize};

use super::{RedisStore, STORE, client::Script};
use crate::{
    clock::UnixMillis,
    prefix_key::PrefixKey,
    store::{
        AuditAction, AuditDetails, AuditEntry, AuditQuery, AuditRecord, AuditStore, Author, StoreError,
        StoreFuture,
    },
};

static APPEND: Script = Script::new("append_audit", include_str!("append.lua"));

const TRAIL: &str = "numgen:audit:{audit}";

/// How many entries are kept, about: Redis trims whole blocks. At 300 bytes each, 30 MB.
const KEPT: u64 = 100_000;

/// Entries in one answer of Redis: about a millisecond of its time.
const PART: u64 = 1_000;

impl AuditStore for RedisStore {
    fn append(&self, entry: AuditEntry) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let written = Written::of(&entry).to_json();
            let args = [KEPT.into(), (&written).into()];
            let _position: String =
                self.client.run(&APPEND, &[TRAIL.to_owned()], &args, self.timeout).await?;
            Ok(())
        })
    }

    fn page(&self, query: AuditQuery) -> StoreFuture<'_, Vec<AuditRecord>> {
        Box::pin(async move {
            let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
            let (mut found, mut after) = (Vec::new(), query.after.unwrap_or(0));
            loop {
                let part = self.part(after).await?;
                let is_last = part.len() < usize::try_from(PART).unwrap_or(usize::MAX);
                let Some(last) = part.last() else { return Ok(found) };
                after = last.position;
                found.extend(part.into_iter().filter(|record| query.wants(&record.entry)));
                if is_last || found.len() >= limit {
                    found.truncate(limit);
                    return Ok(found);
                }
            }
        })
    }
}

impl RedisStore {
    /// The entries directly above a position.
    async fn part(&self, after: u64) -> Result<Vec<AuditRecord>, StoreError> {
        self.client.at_hand("page_audit", TRAIL).await?;
        let mut range = redis::cmd("XRANGE");
        range.arg(TRAIL).arg(format!("({after}-{}", u64::MAX)).arg("+").arg("COUNT").arg(PART);
        let entries: Vec<Value> = self.client.query("page_audit", &range).await?;
        entries.into_iter().map(|entry| record(entry).ok_or_else(damaged)).collect()
    }
}

/// `[position-0, ["entry", json]]`
fn record(entry: Value) -> Option<AuditRecord> {
    let (id, fields): (String, Vec<String>) = from_redis_value(entry).ok()?;
    let position = id.split_once('-')?.0.parse().ok()?;
    let [_name, json] = &fields[..] else { return None };
    let entry = serde_json::from_str::<Written>(json).ok()?.read()?;
    Some(AuditRecord { position, entry })
}

fn damaged() -> StoreError {
    StoreError::Corrupt { store: STORE, what: "an entry of the audit trail that cannot be read".to_owned() }
}

/// An entry as it stands in the stream.
#[derive(Serialize, Deserialize)]
struct Written {
    at_ms: i64,
    prefix_key: String,
    action: String,
    subject: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    details: AuditDetails,
}

impl Written {
    fn of(entry: &AuditEntry) -> Self {
        let AuditEntry { at, author, action, key, details } = entry;
        Self {
            at_ms: at.0,
            prefix_key: key.as_str().to_owned(),
            action: action.as_str().to_owned(),
            subject: author.subject.to_string(),
            address: author.address.map(|address| address.to_string()),
            request_id: author.request_id.clone(),
            details: details.clone(),
        }
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn read(self) -> Option<AuditEntry> {
        let address = match self.address {
            Some(text) => Some(text.parse().ok()?),
            None => None,
        };
        Some(AuditEntry {
            at: UnixMillis(self.at_ms),
            author: Author { subject: self.subject.into(), address, request_id: self.request_id },
            action: AuditAction::parse(&self.action)?,
            key: PrefixKey::parse(&self.prefix_key).ok()?,
            details: self.details,
        })
    }
}
