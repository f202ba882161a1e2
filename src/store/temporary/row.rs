//! A temporary number and what becomes of it.
//!
//! ```text
//! open --assign--> assigning --final number drawn--> assigned
//!   |                  `--nothing could be drawn--> open
//!   `--void--> void
//! ```
//!
//! Between the decision to assign and the final number lies a call of another store. A row that is being assigned cannot be voided,
//! so a number is never drawn for nobody; whoever finds it so (a caller that tries again after a crash) draws under the same
//! idempotency claim, and gets the same number.

use std::sync::Arc;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::TemporaryNumber;
use crate::clock::UnixMillis;

/// How a temporary number stands, in the words of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It waits for a person, or for its assignment to be finished.
    Open,
    /// A final number was drawn for it.
    Assigned,
    /// It stands for nothing.
    Void,
}

impl Status {
    /// Every status, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Open, Self::Assigned, Self::Void];

    /// The word for it in the API and in a store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Assigned => "assigned",
            Self::Void => "void",
        }
    }
}

/// What a person wants to become of a temporary number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Draw the final number for it.
    Assign,
    /// Give it up.
    Void,
}

/// Who decided, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The subject of the caller.
    pub actor: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Why, in the caller's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What has become of a temporary number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Fate {
    /// Nothing yet.
    Open,
    /// It is to be assigned, and the final number may have been drawn.
    Assigning(Decision),
    /// It was assigned.
    Assigned {
        /// The decision.
        #[serde(flatten)]
        decision: Decision,
        /// The final number.
        #[serde(rename = "final")]
        final_number: String,
    },
    /// It was given up.
    Void(Decision),
}

/// One row of the list of temporary numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemporaryRow {
    /// The number.
    pub number: TemporaryNumber,
    /// The moment of the request, on the clock of the node that made it: the moment that the final number is drawn for.
    pub created_at: UnixMillis,
    /// Who asked.
    pub subject: Arc<str>,
    /// The document date, as the caller gave it.
    pub date: Option<NaiveDate>,
    /// What has become of it.
    pub fate: Fate,
    /// Counts the changes of `fate` from 0.
    pub revision: u64,
}

/// What a step means for a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It becomes this row.
    Becomes(Box<TemporaryRow>),
    /// It stands as the step would leave it; nothing is to be done.
    Stands,
    /// It has taken another way.
    Contrary,
}

impl TemporaryRow {
    /// How it stands.
    pub fn status(&self) -> Status {
        match &self.fate {
            Fate::Open | Fate::Assigning(_) => Status::Open,
            Fate::Assigned { .. } => Status::Assigned,
            Fate::Void(_) => Status::Void,
        }
    }

    /// The final number, once there is one.
    pub fn final_number(&self) -> Option<&str> {
        match &self.fate {
            Fate::Assigned { final_number, .. } => Some(final_number),
            Fate::Open | Fate::Assigning(_) | Fate::Void(_) => None,
        }
    }

    /// Why it was resolved as it was.
    pub fn reason(&self) -> Option<&str> {
        match &self.fate {
            Fate::Open => None,
            Fate::Assigning(decision) | Fate::Assigned { decision, .. } | Fate::Void(decision) => {
                decision.reason.as_deref()
            }
        }
    }

    /// A person's decision. The first one counts: the same again changes nothing, another one comes too late.
    pub fn decide(&self, action: Action, decision: &Decision) -> Verdict {
        match (action, &self.fate) {
            (Action::Assign, Fate::Open) => self.becoming(Fate::Assigning(decision.clone())),
            (Action::Void, Fate::Open) => self.becoming(Fate::Void(decision.clone())),
            (Action::Assign, Fate::Assigning(_) | Fate::Assigned { .. }) | (Action::Void, Fate::Void(_)) => {
                Verdict::Stands
            }
            (Action::Assign, Fate::Void(_)) | (Action::Void, Fate::Assigning(_) | Fate::Assigned { .. }) => {
                Verdict::Contrary
            }
        }
    }

    /// The final number was drawn.
    pub fn complete(&self, final_number: &str) -> Verdict {
        match &self.fate {
            Fate::Assigning(decision) => {
                let (decision, final_number) = (decision.clone(), final_number.to_owned());
                self.becoming(Fate::Assigned { decision, final_number })
            }
            Fate::Assigned { .. } => Verdict::Stands,
            Fate::Open | Fate::Void(_) => Verdict::Contrary,
        }
    }

    /// No final number was drawn, and none can be: a person may decide anew.
    pub fn withdraw(&self) -> Verdict {
        match &self.fate {
            Fate::Assigning(_) => self.becoming(Fate::Open),
            Fate::Open | Fate::Assigned { .. } | Fate::Void(_) => Verdict::Stands,
        }
    }

    fn becoming(&self, fate: Fate) -> Verdict {
        Verdict::Becomes(Box::new(Self { fate, revision: self.revision + 1, ..self.clone() }))
    }

    /// The row as JSON: what a store keeps.
    pub(in crate::store) fn to_json(&self) -> String {
        let written = Written {
            number: self.number.to_string(),
            created_at_ms: self.created_at.0,
            subject: self.subject.to_string(),
            date: self.date,
            fate: self.fate.clone(),
            revision: self.revision,
        };
        // Fails only for maps with keys that are not texts.
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// The row that a store kept; `None` where it is damaged.
    pub(in crate::store) fn from_json(json: &str) -> Option<Self> {
        let Written { number, created_at_ms, subject, date, fate, revision } =
            serde_json::from_str(json).ok()?;
        let (number, created_at) = (TemporaryNumber::parse(&number)?, UnixMillis(created_at_ms));
        Some(Self { number, created_at, subject: subject.into(), date, fate, revision })
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    number: String,
    created_at_ms: i64,
    subject: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    date: Option<NaiveDate>,
    fate: Fate,
    revision: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fate: Fate) -> TemporaryRow {
        TemporaryRow {
            number: TemporaryNumber::parse("TMP~ORDERS~n~0388D8BVC0003028T5").expect("a number"),
            created_at: UnixMillis(-1),
            subject: "shop \"1\"".into(),
            date: NaiveDate::from_ymd_opt(2026, 11, 22),
            fate,
            revision: 4,
        }
    }

    fn decision(why: &str) -> Decision {
        Decision { actor: "ada".into(), at_ms: 5, reason: Some(why.to_owned()) }
    }

    fn fates() -> [Fate; 4] {
        let assigned = Fate::Assigned { decision: decision("a"), final_number: "O-1".into() };
        [Fate::Open, Fate::Assigning(decision("a")), assigned, Fate::Void(decision("v"))]
    }

    #[test]
    fn a_row_survives_its_json() {
        for fate in fates() {
            let row = row(fate);
            assert_eq!(TemporaryRow::from_json(&row.to_json()), Some(row.clone()), "{}", row.to_json());
        }
        for damaged in [
            "",
            "{}",
            r#"{"number":"x","created_at_ms":1,"subject":"s","fate":{"state":"open"},"revision":0}"#,
        ] {
            assert_eq!(TemporaryRow::from_json(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn the_first_decision_counts() {
        let becomes = |verdict| match verdict {
            Verdict::Becomes(row) => (row.status().as_str(), row.revision),
            Verdict::Stands => ("stands", 0),
            Verdict::Contrary => ("contrary", 0),
        };
        let steps = |fate: Fate| {
            let (row, late) = (row(fate), decision("late"));
            [
                becomes(row.decide(Action::Assign, &late)),
                becomes(row.decide(Action::Void, &late)),
                becomes(row.complete("O-2")),
                becomes(row.withdraw()),
            ]
        };
        let [open, assigning, assigned, void] = fates();
        assert_eq!(steps(open), [("open", 5), ("void", 5), ("contrary", 0), ("stands", 0)]);
        assert_eq!(steps(assigning), [("stands", 0), ("contrary", 0), ("assigned", 5), ("open", 5)]);
        assert_eq!(steps(assigned), [("stands", 0), ("contrary", 0), ("stands", 0), ("stands", 0)]);
        assert_eq!(steps(void), [("contrary", 0), ("stands", 0), ("contrary", 0), ("stands", 0)]);
    }
}
