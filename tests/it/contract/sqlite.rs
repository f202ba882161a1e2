//! What only a store in files can promise: modes, the lock, crashes, and that tampering shows.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use numgen::{
    clock::ManualClock,
    counter::SequenceValue,
    store::{
        AcquireRequest, Acquired, CounterStore, HoleReason, LedgerFault, LedgerStep, LedgerStore, Nonce,
        RuleStore, StoreError, Taken, Tenure, Transition, WorkerStore,
        sqlite::{OpenError, SqliteStore},
    },
};
use rusqlite::Connection;

use super::{FREE, NOON, Sqlite, claim, counter, invoices, issue, key, keyed, plain, take};

fn open(directory: &Path) -> Result<SqliteStore, OpenError> {
    Sqlite::try_open(directory, &Arc::new(ManualClock::at(NOON)))
}

/// A handle with every trait.
fn store_in(directory: &Path) -> Arc<SqliteStore> {
    Sqlite::open(directory, &Arc::new(ManualClock::at(NOON)))
}

#[test]
fn a_second_process_is_told_so() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("made/when/needed");
    let first = open(&directory).expect("opened");
    let refused = open(&directory).expect_err("in use");
    assert!(matches!(refused, OpenError::AlreadyRunning { .. }), "{refused:?}");
    assert!(refused.to_string().contains("made/when/needed"), "{refused}");
    drop(first);
    open(&directory).expect("free again");
}

#[test]
fn nobody_else_may_read_the_files() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("data");
    let _store = open(&directory).expect("opened");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    let mut files = 0;
    for entry in fs::read_dir(&directory).expect("readable") {
        let path = entry.expect("an entry").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        files += 1;
    }
    assert!(files >= 2, "lock and database");
}

#[test]
fn a_later_schema_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(open(directory.path()).expect("opened"));
    let raw = Connection::open(directory.path().join("numgen.db")).expect("opened");
    raw.execute("INSERT INTO schema_versions VALUES (99, 0)", []).expect("written");
    drop(raw);
    let refused = open(directory.path()).expect_err("newer");
    assert!(matches!(refused, OpenError::Newer { found: 99, known: 2.. }), "{refused:?}");
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("numgen.db"), [b'x'; 8192]).expect("written");
    let refused = open(directory.path()).expect_err("no database");
    assert!(matches!(refused, OpenError::Database(_)), "{refused:?}");
    let file = directory.path().join("a file");
    fs::write(&file, "").expect("written");
    assert!(matches!(open(&file), Err(OpenError::Directory { .. })));
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path()).expect("opened");
    store.close().await;
    let late = store.take(counter("A", ""), FREE, vec![plain(1)]).await;
    assert!(matches!(late, Err(StoreError::Unavailable { operation: "take", .. })), "{late:?}");
    assert!(matches!(store.rule(&key("A")).await, Err(StoreError::Unavailable { .. })));
    assert!(!directory.path().join("numgen.db-wal").exists(), "the log is folded into the database");
    open(directory.path()).expect("free, although the handle lives");
}

/// Copies the files as a power cut would leave them: the log first, so that the copy may lack its end but never its beginning.
fn copy(from: &Path, to: &Path) {
    for file in ["numgen.db", "numgen.db-wal"] {
        fs::copy(from.join(file), to.join(file)).expect("copied");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_before_a_crash_is_never_given_again() {
    let (directory, crashed) = (tempfile::tempdir().expect("a"), tempfile::tempdir().expect("b"));
    let on = counter("A", "");
    let store = store_in(directory.path());
    // A checkpoint while the files are copied would mix two moments, which no crash does.
    let no_checkpoint = Connection::open(directory.path().join("numgen.db")).expect("opened");
    no_checkpoint.execute_batch("BEGIN; SELECT count(*) FROM counters").expect("a reader holds the log");
    let answered = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4 {
        let (store, on, answered) = (Arc::clone(&store), on.clone(), Arc::clone(&answered));
        tasks.spawn(async move {
            for round in 0..100 {
                let key = format!("k{task}-{round}");
                let request = if round % 5 == 0 { keyed(2, claim(&key, 1, NOON)) } else { plain(2) };
                let taken = take(&store, &on, FREE, vec![request]).await;
                let [Taken::Fresh(values)] = &taken[..] else { panic!("{taken:?}") };
                answered.fetch_max(values.last().expect("values").0, Ordering::SeqCst);
            }
        });
    }
    while answered.load(Ordering::SeqCst) < 200 {
        tokio::task::yield_now().await;
    }
    let at_least = answered.load(Ordering::SeqCst);
    copy(directory.path(), crashed.path());
    tasks.join_all().await;

    let store = store_in(crashed.path());
    let state = store.counters(&on.key).await.expect("read").remove(0);
    assert!(state.last.0 >= at_least, "{at_least} was answered, {} is known", state.last);
    let next = take(&store, &on, FREE, vec![plain(1)]).await;
    assert_eq!(next, [super::fresh(state.last.0 + 1, state.last.0 + 1)]);
    // The clock stood still: everything was drawn within the last second. What has no key is in doubt.
    let listed: u64 = state.holes.iter().map(|hole| hole.to.0 - hole.from.0 + 1).sum();
    assert!(state.holes.iter().all(|hole| hole.reason == HoleReason::Unconfirmed));
    let raw = Connection::open(crashed.path().join("numgen.db")).expect("opened");
    let records: u32 =
        raw.query_row("SELECT count(*) FROM idempotency", [], |row| row.get(0)).expect("counted");
    assert!(records > 0, "some had keys");
    assert_eq!(listed, state.last.0 - 2 * u64::from(records), "issued or listed");
}

/// Draws, and ends as the process dies: nothing is closed.
async fn crash_after(
    clock: &Arc<ManualClock>,
    work: impl AsyncFnOnce(&Arc<SqliteStore>),
) -> (tempfile::TempDir, Arc<SqliteStore>) {
    let (directory, crashed) = (tempfile::tempdir().expect("a"), tempfile::tempdir().expect("b"));
    let store: Arc<SqliteStore> = Sqlite::open(directory.path(), clock);
    work(&store).await;
    copy(directory.path(), crashed.path());
    let recovered = Sqlite::open(crashed.path(), clock);
    (crashed, recovered)
}

async fn unconfirmed(store: &Arc<SqliteStore>) -> Vec<(u64, u64)> {
    let state = store.counters(&key("A")).await.expect("read").remove(0);
    let unconfirmed = state.holes.iter().filter(|hole| hole.reason == HoleReason::Unconfirmed);
    unconfirmed.map(|hole| (hole.from.0, hole.to.0)).collect()
}

#[tokio::test]
async fn only_recent_values_are_in_doubt() {
    let (on, clock) = (counter("A", ""), Arc::new(ManualClock::at(NOON)));
    let ticking = Arc::clone(&clock);
    let (_directory, recovered) = crash_after(&clock, async |store| {
        for _ in 0..5 {
            take(store, &on, FREE, vec![plain(10)]).await;
            ticking.advance(Duration::from_millis(1_001));
        }
    })
    .await;
    assert_eq!(unconfirmed(&recovered).await, [(31, 50)], "the last two seconds");
}

#[tokio::test]
async fn a_counter_at_rest_is_not_in_doubt() {
    let (on, clock) = (counter("A", ""), Arc::new(ManualClock::at(NOON)));
    let ticking = Arc::clone(&clock);
    let (_directory, recovered) = crash_after(&clock, async |store| {
        take(store, &on, FREE, vec![plain(10)]).await;
        ticking.advance(Duration::from_millis(1_001));
        take(store, &counter("A", "2026"), FREE, vec![plain(10)]).await;
    })
    .await;
    assert_eq!(unconfirmed(&recovered).await, []);
    let states = recovered.counters(&on.key).await.expect("read");
    assert_eq!(states[1].holes.len(), 1, "the one that was being served is");
}

#[tokio::test]
async fn what_is_known_otherwise_is_not_in_doubt() {
    let (on, clock) = (counter("A", ""), Arc::new(ManualClock::at(NOON)));
    let (_directory, recovered) = crash_after(&clock, async |store| {
        take(store, &on, FREE, vec![plain(1), keyed(2, claim("k", 1, NOON)), plain(1)]).await;
        store.issue(on.clone(), FREE, vec![issue(2)], invoices()).await.expect("issued");
        take(store, &on, FREE, vec![plain(1)]).await;
        let to = SequenceValue(10);
        store.advance(on.clone(), SequenceValue(0), to, "op".into(), NOON).await.expect("advanced");
        take(store, &on, FREE, vec![plain(1)]).await;
    })
    .await;
    assert_eq!(unconfirmed(&recovered).await, [(1, 1), (4, 4), (7, 7), (11, 11)]);
    assert_eq!(recovered.verify(on.clone()).await.expect("read").faults, []);
    assert_eq!(take(&recovered, &on, FREE, vec![plain(1)]).await, [super::fresh(12, 12)]);
}

#[tokio::test]
async fn a_worker_goes_on_above_its_old_mark_at_once() {
    let clock = Arc::new(ManualClock::at(NOON));
    let acquire = async |store: &Arc<SqliteStore>, nonce| {
        let request = AcquireRequest {
            nonce: Nonce([nonce; 16]),
            slots: 0..1,
            window_ms: 1_000,
            ttl_ms: 15_000,
            tenure: Tenure::Lease,
        };
        let Acquired::Held(holding) = store.acquire(request).await.expect("answered") else {
            panic!("no slot")
        };
        holding
    };
    let mut before = None;
    let (_directory, recovered) =
        crash_after(&clock, async |store| before = Some(acquire(store, 1).await)).await;
    let (before, after) = (before.expect("held"), acquire(&recovered, 2).await);
    assert_eq!(
        (after.start, after.fence),
        (before.mark, before.fence + 1),
        "the lock proves that it is gone"
    );
}

// ------------------------------------------------------------------------------------------- tampering

/// A ledger of six rows, two of which changed their state.
async fn ledger(directory: &Path) {
    let store = open(directory).expect("opened");
    let on = counter("A", "");
    let reserved =
        numgen::store::IssueRequest { reserved_until: Some(NOON.plus(Duration::from_secs(9))), ..issue(1) };
    let requests = vec![issue(3), reserved.clone(), reserved, issue(1)];
    store.issue(on, FREE, requests, invoices()).await.expect("issued");
    let step = |value, transition| {
        let number = format!("INV-{value:020}");
        LedgerStep { number, transition, actor: "bob".into(), at: NOON, note: None }
    };
    let steps = [(4, Transition::Confirm), (1, Transition::Void { reason: "lost".to_owned() })]
        .map(|(value, transition)| step(value, transition));
    store.transition(key("A"), steps.to_vec()).await.expect("done");
    store.close().await;
}

fn triggers(raw: &Connection) -> Vec<String> {
    let mut statement =
        raw.prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'").expect("prepared");
    let names = statement.query_map([], |row| row.get(0)).expect("read");
    names.collect::<Result<_, _>>().expect("names")
}

/// What the verification says after somebody edited the file with the triggers out of the way.
async fn faults_after(edit: &str) -> Vec<LedgerFault> {
    let directory = tempfile::tempdir().expect("a directory");
    ledger(directory.path()).await;
    let raw = Connection::open(directory.path().join("numgen.db")).expect("opened");
    raw.execute_batch("PRAGMA foreign_keys = OFF").expect("switched off");
    assert!(raw.execute_batch(edit).is_err(), "a trigger refuses: {edit}");
    for name in triggers(&raw) {
        raw.execute_batch(&format!("DROP TRIGGER {name}")).expect("dropped");
    }
    raw.execute_batch(edit).expect("edited");
    drop(raw);
    let store = open(directory.path()).expect("opened");
    store.verify(counter("A", "")).await.expect("read").faults
}

#[tokio::test]
async fn no_edit_of_a_ledger_goes_unnoticed() {
    let value = SequenceValue;
    let row = |value: u64| format!("UPDATE ledger SET {{}} WHERE sequence = '{value:020}'");
    let edit = |at: u64, change: &str| row(at).replace("{}", change);
    for (edit, expected) in [
        (edit(2, "subject = 'mallory'"), LedgerFault::RowHash(value(2))),
        (edit(2, "number = 'INV-9'"), LedgerFault::RowHash(value(2))),
        (edit(2, "issued_at_ms = 1"), LedgerFault::RowHash(value(2))),
        (edit(2, "idempotency_key = ''"), LedgerFault::RowHash(value(2))),
        (edit(2, "reserved_until_ms = 1"), LedgerFault::RowHash(value(2))),
        (edit(2, "hash = 'x'"), LedgerFault::RowHash(value(2))),
        (edit(5, "reserved_until_ms = NULL"), LedgerFault::RowHash(value(5))),
        (edit(1, "state = 'issued'"), LedgerFault::State(value(1))),
        (edit(1, "reason = 'found'"), LedgerFault::State(value(1))),
        ("DELETE FROM ledger WHERE sequence LIKE '%3'".to_owned(), LedgerFault::Missing(value(3), value(3))),
        ("DELETE FROM ledger WHERE sequence LIKE '%6'".to_owned(), LedgerFault::Head),
        ("DELETE FROM ledger_events WHERE position = 1".to_owned(), LedgerFault::EventHash(2)),
        ("DELETE FROM ledger_events WHERE position = 2".to_owned(), LedgerFault::EventHead),
        ("UPDATE ledger_events SET actor = 'mallory'".to_owned(), LedgerFault::EventHash(1)),
        ("UPDATE ledger_events SET at_ms = 0".to_owned(), LedgerFault::EventHash(2)),
    ] {
        let faults = faults_after(&edit).await;
        assert!(faults.contains(&expected), "{edit}: {faults:?}");
    }
}

#[tokio::test]
async fn a_damaged_counter_keeps_no_other_from_expiring() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path()).expect("opened");
    for (name, count, end) in [("A", 501, 1), ("B", 2, 2)] {
        let reserved_until = Some(NOON.plus(Duration::from_secs(end)));
        let reserved = numgen::store::IssueRequest { reserved_until, ..issue(count) };
        store.issue(counter(name, "2026"), FREE, vec![reserved], invoices()).await.expect("issued");
    }
    store.close().await;
    let raw = Connection::open(directory.path().join("numgen.db")).expect("opened");
    raw.execute_batch("PRAGMA foreign_keys = OFF; DELETE FROM counters WHERE prefix_key = 'A'")
        .expect("damaged");
    drop(raw);
    let store = open(directory.path()).expect("opened");
    let failed = store.expire_reservations(NOON.plus(Duration::from_secs(9))).await.expect_err("it is named");
    assert!(failed.to_string().contains("A:2026"), "{failed}");
    let certificate = store.certificate(counter("B", "2026")).await.expect("read").expect("rows");
    assert_eq!((certificate.reserved, certificate.void), (0, 2));
}

#[tokio::test]
async fn a_state_that_no_event_made_goes_not_unnoticed() {
    // Allowed by the triggers, for it is what the store does; but the store writes an event with it.
    let directory = tempfile::tempdir().expect("a directory");
    ledger(directory.path()).await;
    let raw = Connection::open(directory.path().join("numgen.db")).expect("opened");
    for edit in [
        "UPDATE ledger SET state = 'issued' WHERE sequence LIKE '%5'",
        "UPDATE ledger SET state = 'void', reason = 'oops' WHERE sequence LIKE '%6'",
    ] {
        raw.execute_batch(edit).expect("edited");
    }
    drop(raw);
    let store = open(directory.path()).expect("opened");
    let faults = store.verify(counter("A", "")).await.expect("read").faults;
    assert_eq!(faults, [LedgerFault::State(SequenceValue(5)), LedgerFault::RowHash(SequenceValue(6)),]);
}
