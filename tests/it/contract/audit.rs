//! The audit trail: what is on it, in which order, and that it tells of changes that were made.

use std::{sync::Arc, time::Duration};

use numgen::{
    clock::UnixMillis,
    counter::SequenceValue,
    store::{
        Advanced, AuditAction, AuditDetails, AuditEntry, AuditQuery, AuditRecord, AuditStore, Author,
        CounterStore, LedgerStep, LedgerStore, Note, RuleRecord, RuleStore, Swap, TemporaryStore, Transition,
        Transitioned,
    },
};

use super::{Bench, FREE, NOON, counter, invoices, issue, key, next};

fn author() -> Author {
    Author {
        subject: "alice".into(),
        address: Some([192, 0, 2, 7].into()),
        request_id: Some("r-1".to_owned()),
    }
}

fn entry(of: &str, second: u64, action: AuditAction) -> AuditEntry {
    let details = AuditDetails { fields: vec!["format".to_owned()], ..AuditDetails::default() };
    let at = NOON.plus(Duration::from_secs(second));
    AuditEntry { at, author: author(), action, key: key(of), details }
}

fn note(trail: &Arc<impl AuditStore>, entry: &AuditEntry) -> Note {
    Note::new(trail.clone(), entry.clone())
}

async fn read(store: &Arc<impl AuditStore>, query: AuditQuery) -> Vec<AuditRecord> {
    store.page(query).await.expect("a page")
}

fn all() -> AuditQuery {
    AuditQuery { limit: 1_000, ..AuditQuery::default() }
}

async fn entries(store: &Arc<impl AuditStore>, query: AuditQuery) -> Vec<AuditEntry> {
    read(store, query).await.into_iter().map(|record| record.entry).collect()
}

pub(super) async fn entries_come_back_as_they_were_in_their_order(bench: impl Bench<Store: AuditStore>) {
    let store = bench.store();
    assert_eq!(entries(&store, all()).await, []);
    let mut written: Vec<_> =
        (0..7).zip(AuditAction::ALL).map(|(second, action)| entry("A", second, action)).collect();
    written.push(AuditEntry { author: Author::program(), ..entry("A", 3, AuditAction::Deleted) });
    written.push(AuditEntry {
        details: AuditDetails {
            period: Some(numgen::calendar::Period::new("2026-11")),
            from: Some(SequenceValue(1)),
            to: Some(SequenceValue::MAX),
            number: Some("A-\"1\"".to_owned()),
            reason: Some("doppelt \u{4e2d}".to_owned()),
            ..AuditDetails::default()
        },
        ..entry("A", 1, AuditAction::Voided)
    });
    for entry in &written {
        store.append(entry.clone()).await.expect("written");
    }
    assert_eq!(entries(&store, all()).await, written, "in the order of writing, not of clocks");
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = read(&store, AuditQuery { after, limit: 4, ..AuditQuery::default() }).await;
        assert!(page.len() <= 4 && page.is_sorted_by(|one, two| one.position < two.position));
        let Some(last) = page.last() else { break };
        after = Some(last.position);
        paged.extend(page.into_iter().map(|record| record.entry));
    }
    assert_eq!(paged, written);
}

pub(super) async fn pages_are_of_a_key_and_a_time(bench: impl Bench<Store: AuditStore>) {
    let store = bench.store();
    let written: Vec<_> =
        (0..6).map(|second| entry(["A", "B"][second as usize % 2], second, AuditAction::Changed)).collect();
    for entry in &written {
        store.append(entry.clone()).await.expect("written");
    }
    let of = |of: &[usize]| of.iter().map(|&index| written[index].clone()).collect::<Vec<_>>();
    let at = |index: usize| Some(written[index].at);
    assert_eq!(entries(&store, AuditQuery { key: Some(key("B")), ..all() }).await, of(&[1, 3, 5]));
    assert_eq!(entries(&store, AuditQuery { key: Some(key("B")), limit: 2, ..all() }).await, of(&[1, 3]));
    assert_eq!(entries(&store, AuditQuery { key: Some(key("C")), ..all() }).await, []);
    let between = AuditQuery { from: at(1), to: at(4), ..all() };
    assert_eq!(entries(&store, between.clone()).await, of(&[1, 2, 3, 4]), "both ends included");
    assert_eq!(entries(&store, AuditQuery { key: Some(key("A")), ..between }).await, of(&[2, 4]));
    let later = AuditQuery { from: Some(UnixMillis(written[5].at.0 + 1)), ..all() };
    assert_eq!(entries(&store, later).await, []);
}

pub(super) async fn the_trail_outlives_the_process(mut bench: impl Bench<Store: AuditStore>) {
    let (first, second) = (entry("A", 0, AuditAction::Registered), entry("A", 1, AuditAction::Changed));
    bench.store().append(first.clone()).await.expect("written");
    bench.reopen().await;
    bench.store().append(second.clone()).await.expect("written");
    assert_eq!(entries(&bench.store(), all()).await, [first, second]);
}

pub(super) async fn a_rule_is_noted_once_it_is_in_force(bench: impl Bench<Store: AuditStore + RuleStore>) {
    let store = bench.store();
    let (registered, changed) = (entry("A", 0, AuditAction::Registered), entry("A", 1, AuditAction::Changed));
    let record = RuleRecord {
        key: key("A"),
        revision: 1,
        rule: Some("{}".to_owned()),
        history: "{}".to_owned(),
        used: false,
    };
    let swap = async |expected, new, entry| {
        store.swap_rule_noted(expected, new, note(&store, entry)).await.expect("answered")
    };
    assert_eq!(swap(None, record.clone(), &registered).await, Swap::Done);
    let second = RuleRecord { revision: 2, ..record.clone() };
    assert!(matches!(swap(None, second.clone(), &changed).await, Swap::Changed(_)), "somebody was faster");
    assert_eq!(entries(&store, all()).await, std::slice::from_ref(&registered));
    assert_eq!(swap(Some(record), second, &changed).await, Swap::Done);
    assert_eq!(entries(&store, all()).await, [registered, changed]);
}

pub(super) async fn a_counter_is_noted_once_it_was_moved(
    bench: impl Bench<Store: AuditStore + CounterStore>,
) {
    let store = bench.store();
    let advanced = entry("A", 0, AuditAction::Advanced);
    next(&store, &counter("A", "")).await;
    let advance = async |to| {
        let to = SequenceValue(to);
        store.advance_noted(counter("A", ""), FREE.base, to, note(&store, &advanced)).await.expect("answered")
    };
    assert_eq!(advance(7).await, Advanced::Done);
    assert_eq!(advance(3).await, Advanced::Below(SequenceValue(7)));
    assert_eq!(advance(7).await, Advanced::Done, "again");
    assert_eq!(entries(&store, all()).await, [advanced], "moved once");
}

pub(super) async fn a_number_is_noted_once_it_was_voided(bench: impl Bench<Store: AuditStore + LedgerStore>) {
    let store = bench.store();
    let voided = entry("A", 0, AuditAction::Voided);
    store.issue(counter("A", ""), FREE, vec![issue(1)], invoices()).await.expect("issued");
    let number = invoices()(0, SequenceValue(1));
    let void = async |number: &str| {
        let step = LedgerStep {
            number: number.to_owned(),
            transition: Transition::Void { reason: "wrong".to_owned() },
            actor: "bob".into(),
            at: NOON,
            note: Some(note(&store, &voided)),
        };
        store.transition(key("A"), vec![step]).await.expect("answered").remove(0)
    };
    assert!(matches!(void(&number).await, Transitioned::Done(_)));
    assert!(matches!(void(&number).await, Transitioned::Done(_)), "again");
    assert_eq!(void("INV-7").await, Transitioned::Unknown);
    assert_eq!(entries(&store, all()).await, [voided], "voided once");
}

pub(super) async fn a_temporary_number_is_noted_once_it_is_resolved(
    bench: impl Bench<Store: AuditStore + TemporaryStore>,
) {
    use numgen::store::{Action, RowSwap};

    let store = bench.store();
    let (row, voided) = (super::temporary::row("A", 1), entry("A", 0, AuditAction::Voided));
    store.upload(vec![row.clone()]).await.expect("kept");
    let void = super::temporary::decided(&row, Action::Void);
    let swap = async || store.swap_noted(void.clone(), note(&store, &voided)).await.expect("answered");
    assert_eq!(swap().await, RowSwap::Done);
    assert_eq!(swap().await, RowSwap::Changed(Some(void.clone())));
    assert_eq!(entries(&store, all()).await, [voided]);
}
