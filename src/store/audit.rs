//! The audit trail: who changed what, when, from where.
//!
//! Invariants: an entry is written once and never changes; it names what changed and never holds what a rule says, so that no
//! `initial_seq` can stand in it; there is one for each change that was made, none for what was refused or repeated without effect,
//! as far as the store that made the change can tell.
//!
//! Numbers that are issued, reserved and confirmed leave no entry: they are the ordinary course, and the ledger has them with caller
//! and time.
//!
//! A [`Note`] is an entry on its way: the store that makes the change writes it in the same transaction where it keeps the trail too;
//! any other leaves it to [`Note::write`], directly after the change. No caller can come in between by going away: `api` runs whatever may
//! leave an entry as a task of its own.

use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::AuditStore;
use crate::{calendar::Period, clock::UnixMillis, counter::SequenceValue, prefix_key::PrefixKey};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditAction {
    /// A rule was registered where there was none.
    Registered,
    /// A rule was replaced.
    Changed,
    /// A rule was deleted.
    Deleted,
    /// A counter was moved up.
    Advanced,
    /// Values that a node held were given up.
    Abandoned,
    /// A strict or a temporary number was voided.
    Voided,
    /// A final number was assigned to a temporary one.
    Assigned,
    /// Strict numbers were allowed again, on a database that may lack some.
    Resumed,
}

impl AuditAction {
    /// Every action, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Registered,
        Self::Changed,
        Self::Deleted,
        Self::Advanced,
        Self::Abandoned,
        Self::Voided,
        Self::Assigned,
        Self::Resumed,
    ];

    /// The action that a word names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }

    /// The word for it in the API and in a store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
            Self::Advanced => "advanced",
            Self::Abandoned => "abandoned",
            Self::Voided => "voided",
            Self::Assigned => "assigned",
            Self::Resumed => "resumed",
        }
    }
}

/// Who did it, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The `sub` of the token.
    pub subject: Arc<str>,
    /// The address that the request came from, as far as trusted proxies tell.
    pub address: Option<IpAddr>,
    /// The ID of the request.
    pub request_id: Option<String>,
}

impl Author {
    /// Whoever may read the configuration of the service, at its command line.
    pub fn operator() -> Self {
        Self { subject: "numgen resume".into(), address: None, request_id: None }
    }

    /// The program itself.
    pub fn program() -> Self {
        Self { subject: "numgen".into(), address: None, request_id: None }
    }

    /// Somebody who wrote into the store past the program.
    pub fn direct() -> Self {
        Self { subject: "direct write".into(), address: None, request_id: None }
    }
}

/// What exactly; which of it there is depends on the action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditDetails {
    /// The rule's revision before, as in its `ETag`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_revision: Option<u64>,
    /// The rule's revision afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_revision: Option<u64>,
    /// The names of the rule's fields that changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The period of the counter.
    #[serde(skip_serializing_if = "Option::is_none", with = "period")]
    pub period: Option<Period>,
    /// The first value.
    #[serde(skip_serializing_if = "Option::is_none", with = "decimal")]
    pub from: Option<SequenceValue>,
    /// The last value, or where the counter was moved to.
    #[serde(skip_serializing_if = "Option::is_none", with = "decimal")]
    pub to: Option<SequenceValue>,
    /// Whose values were given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// The final number.
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    pub final_number: Option<String>,
    /// Why, in the caller's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl AuditDetails {
    /// As JSON: what stores keep.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads that back; `None` where it is something else.
    pub(super) fn from_json(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }
}

/// A change, as it is kept for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When, by the clock of the node that served the request.
    pub at: UnixMillis,
    /// Who, and from where.
    pub author: Author,
    /// What was done.
    pub action: AuditAction,
    /// To which prefix key.
    pub key: PrefixKey,
    /// What exactly.
    pub details: AuditDetails,
}

/// An entry in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Rises from entry to entry; not by one.
    pub position: u64,
    /// The entry.
    pub entry: AuditEntry,
}

/// Which entries to read.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// One prefix key, or all.
    pub key: Option<PrefixKey>,
    /// The earliest time.
    pub from: Option<UnixMillis>,
    /// The latest time.
    pub to: Option<UnixMillis>,
    /// Entries above this position.
    pub after: Option<u64>,
    /// At most so many entries.
    pub limit: u32,
}

impl AuditQuery {
    /// Whether an entry is asked for; its position is the store's business.
    pub(super) fn wants(&self, entry: &AuditEntry) -> bool {
        self.key.as_ref().is_none_or(|key| *key == entry.key)
            && self.from.is_none_or(|from| from <= entry.at)
            && self.to.is_none_or(|to| entry.at <= to)
    }
}

/// An entry on its way to the trail.
#[derive(Clone)]
pub struct Note {
    trail: Arc<dyn AuditStore>,
    entry: AuditEntry,
}

impl Note {
    /// An entry for this trail.
    pub fn new(trail: Arc<dyn AuditStore>, entry: AuditEntry) -> Self {
        Self { trail, entry }
    }

    /// What it says.
    pub fn entry(&self) -> &AuditEntry {
        &self.entry
    }

    /// Writes it after the change, which stands whatever comes of it: an entry that cannot be written is logged in full.
    pub async fn write(self) {
        let AuditEntry { at, author, action, key, details } = self.entry.clone();
        if let Err(error) = self.trail.append(self.entry).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                at = at.to_rfc3339(),
                action = action.as_str(),
                prefix_key = key.as_str(),
                actor = &*author.subject,
                address = author.address.map(|address| address.to_string()),
                of_request = author.request_id,
                details = details.to_json(),
                "an entry is missing on the audit trail"
            );
        }
    }
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Note").field(&self.entry).finish()
    }
}

/// Sequence values as texts: they can pass 2^53.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::counter::SequenceValue;

    pub(super) fn serialize<S: Serializer>(
        value: &Option<SequenceValue>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&value.unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SequenceValue>, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(|value| Some(SequenceValue(value))).map_err(D::Error::custom)
    }
}

mod period {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::calendar::Period;

    pub(super) fn serialize<S: Serializer>(value: &Option<Period>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value.as_ref().map(Period::as_str).unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Period>, D::Error> {
        String::deserialize(deserializer).map(|text| Some(Period::new(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_survive_their_json_and_leave_out_what_there_is_not() {
        let details = AuditDetails {
            period: Some(Period::new("2026-11")),
            to: Some(SequenceValue::MAX),
            ..AuditDetails::default()
        };
        let json = details.to_json();
        assert_eq!(json, r#"{"period":"2026-11","to":"18446744073709551615"}"#);
        assert_eq!(AuditDetails::from_json(&json), Some(details));
        assert_eq!(AuditDetails::from_json("{}"), Some(AuditDetails::default()));
        assert_eq!(AuditDetails::from_json("nonsense"), None);
    }

    #[test]
    fn every_action_has_its_word() {
        for action in AuditAction::ALL {
            assert_eq!(AuditAction::parse(action.as_str()), Some(action));
        }
        assert_eq!(AuditAction::parse("confirmed"), None);
    }
}
