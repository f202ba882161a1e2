//! What the audit trail says of changes of rules.

use super::*;
use crate::store::{AuditAction, AuditQuery, AuditStore, RuleStore};

/// Action, subject, revisions and fields of every entry.
type Line = (AuditAction, String, Option<u64>, Option<u64>, Vec<String>);

impl Desk {
    fn recorded() -> Self {
        let desk = Self::new();
        let registry = Registry::new(desk.store.clone(), desk.store.clone(), desk.clock.clone(), SETTINGS);
        Self { registry: Arc::new(registry.recorded_on(desk.store.clone())), ..desk }
    }

    async fn trail(&self) -> Vec<Line> {
        let records = self.store.page(AuditQuery { limit: 100, ..AuditQuery::default() }).await;
        let entries = records.expect("a page").into_iter().map(|record| record.entry);
        entries
            .map(|entry| {
                let details = entry.details;
                assert!(!format!("{details:?}").contains("7310"), "initial_seq is secret: {details:?}");
                let subject = entry.author.subject.to_string();
                (entry.action, subject, details.old_revision, details.new_revision, details.fields)
            })
            .collect()
    }
}

fn line(action: AuditAction, by: &str, old: Option<u64>, new: Option<u64>, fields: &[&str]) -> Line {
    (action, by.to_owned(), old, new, fields.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn changes_are_noted_with_revisions_and_names_of_fields() {
    let desk = Desk::recorded();
    desk.post("A", r#"{"format":"A-{SEQ:4}","initial_seq":7310}"#).await.expect("registered");
    desk.post("A", r#"{"format":"A-{SEQ:4}"}"#).await.expect_err("there already");
    desk.put("A", r#"{"format":"A-{SEQ:5}","initial_seq":7311}"#).await.expect("changed");
    desk.put("A", r#"{"format":"A-{SEQ:5}"}"#).await.expect("unchanged");
    // Housekeeping of the register is nobody's change.
    desk.issue("A").await;
    desk.delete("A").await.expect("deleted");
    desk.post("A", r#"{"format":"A-{SEQ:5}"}"#).await.expect("registered again");
    let fields = &["format", "seq_length", "initial_seq"];
    assert_eq!(
        desk.trail().await,
        [
            line(AuditAction::Registered, "numgen", None, Some(1), &[]),
            line(AuditAction::Changed, "numgen", Some(1), Some(2), fields),
            line(AuditAction::Deleted, "numgen", Some(2), None, &[]),
            line(AuditAction::Registered, "numgen", None, Some(4), &[]),
        ]
    );
}

#[tokio::test]
async fn a_direct_write_is_noted_when_it_is_adopted() {
    let desk = Desk::recorded();
    desk.post("A", r#"{"format":"A-{SEQ:4}"}"#).await.expect("registered");
    for text in [r#"{"format":"nonsense"}"#, r#"{"format":"A-{SEQ:6}"}"#] {
        desk.store.write_directly(&key("A"), Some(text));
        let write = desk.store.direct_write(&key("A")).await.expect("reached").expect("written");
        desk.registry.adopt(&write).await.expect("judged");
    }
    let fields = &["format", "seq_length"];
    assert_eq!(
        desk.trail().await[1..],
        [line(AuditAction::Changed, "direct write", Some(1), Some(2), fields)]
    );
}
