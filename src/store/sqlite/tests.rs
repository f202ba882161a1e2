//! Failures of the embedded store, simulated: a commit that fails, a writer that hangs, a job that panics, a full disk.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
    mpsc::{Receiver, Sender, channel},
};

use super::*;
use crate::{
    calendar::Period,
    clock::ManualClock,
    counter::{Counter, SequenceValue, ValueRange},
    prefix_key::PrefixKey,
    store::{
        Bounds, Claim, CounterState, CounterStore, HoleReason, IssueRequest, LedgerStore, RuleStore,
        TakeRequest, Taken,
    },
};
use writer::Moment;

const NOW: UnixMillis = UnixMillis(1_795_348_800_000);
const FREE: Bounds = Bounds {
    base: SequenceValue(0),
    floor: SequenceValue(0),
    max: SequenceValue::MAX,
    scheme: 0,
    on_outage: crate::rule::OnOutage::Segment,
};

fn start(
    directory: &Path,
    fault: impl FnMut(Moment) -> Result<(), rusqlite::Error> + Send + 'static,
) -> SqliteStore {
    let timeout = Duration::from_secs(5);
    let clock = Arc::new(ManualClock::at(NOW));
    let mut writer = prepare(directory, clock, UnixMillis(0), timeout).expect("opened");
    writer.fault = Some(Box::new(fault));
    SqliteStore::start(writer, timeout).expect("started")
}

fn counter() -> Counter {
    Counter { key: PrefixKey::parse("A").expect("valid"), period: Period::none() }
}

fn plain(count: u32) -> Vec<TakeRequest> {
    vec![TakeRequest { count, claim: None }]
}

fn fresh(from: u64, to: u64) -> Taken {
    Taken::Fresh(ValueRange { from: SequenceValue(from), to: SequenceValue(to) }.into())
}

fn disk_error() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC), None)
}

async fn take(store: &SqliteStore, count: u32) -> Result<Taken, StoreError> {
    store.take(counter(), FREE, plain(count)).await.map(|mut taken| taken.remove(0))
}

async fn state(store: &SqliteStore) -> CounterState {
    store.counters(&counter().key).await.expect("read").remove(0)
}

/// Lets the writer pass a moment only when the test says so; tells the test when it has come there.
fn gate(at: Moment) -> (impl FnMut(Moment) -> Result<(), rusqlite::Error> + Send, Receiver<()>, Sender<()>) {
    let ((reached, at_gate), (open, opened)) = (channel(), channel::<()>());
    let opened = Mutex::new(opened);
    let fault = move |moment| {
        if moment == at && reached.send(()).is_ok() {
            // The gate stays open once the test has dropped its end.
            let _dropped = opened.lock().expect("not poisoned").recv();
        }
        Ok(())
    };
    (fault, at_gate, open)
}

#[tokio::test]
async fn a_failing_commit_consumes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut commits = 0;
    let store = start(directory.path(), move |moment| {
        commits += u32::from(moment == Moment::Commit);
        if moment == Moment::Commit && commits == 2 { Err(disk_error()) } else { Ok(()) }
    });
    assert_eq!(take(&store, 3).await.expect("taken"), fresh(1, 3));
    let failed = take(&store, 3).await;
    assert!(matches!(failed, Err(StoreError::Unavailable { store: "sqlite", operation: "take", .. })));
    assert_eq!(
        take(&store, 1).await.expect("taken"),
        fresh(4, 4),
        "neither the database nor the cache moved"
    );
    let state = state(&store).await;
    assert_eq!((state.last, state.holes.len()), (SequenceValue(4), 0));
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_gives_nothing_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut answers = 0;
    let store = start(directory.path(), move |moment| {
        answers += u32::from(moment == Moment::Answer);
        if moment == Moment::Answer && answers == 1 { Err(disk_error()) } else { Ok(()) }
    });
    assert!(
        matches!(take(&store, 3).await, Err(StoreError::Unavailable { .. })),
        "told otherwise, but durable"
    );
    assert_eq!(take(&store, 1).await.expect("taken"), fresh(4, 4));
    let state = state(&store).await;
    let [hole] = &state.holes[..] else { panic!("{:?}", state.holes) };
    assert_eq!((hole.from, hole.to, hole.reason), (SequenceValue(1), SequenceValue(3), HoleReason::Returned));
}

// Time stands still until every task waits, then jumps to the next timer: the test does not sleep.
#[tokio::test(start_paused = true)]
async fn a_hanging_writer_is_a_timeout_and_what_it_drew_is_listed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (fault, at_gate, open) = gate(Moment::Answer);
    let store = start(directory.path(), fault);
    let mut call = Box::pin(take(&store, 3));
    assert!(futures_util::poll!(&mut call).is_pending());
    at_gate.recv().expect("it is durable, and nobody was told");
    let timed_out = call.await;
    assert!(matches!(timed_out, Err(StoreError::Timeout { operation: "take", .. })), "{timed_out:?}");
    // Waits in the queue until its caller has gone: it is not begun.
    assert!(matches!(take(&store, 5).await, Err(StoreError::Timeout { .. })));
    drop(open);
    store.close().await;
    drop(store);

    tokio::time::resume();
    let store = start(directory.path(), |_| Ok(()));
    let state = state(&store).await;
    let [hole] = &state.holes[..] else { panic!("{:?}", state.holes) };
    assert_eq!((hole.from, hole.to, hole.reason), (SequenceValue(1), SequenceValue(3), HoleReason::Returned));
    assert_eq!(state.last, SequenceValue(3), "the second was never drawn");
}

#[tokio::test]
async fn what_waits_shares_a_commit_and_fails_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut gate, at_gate, open) = gate(Moment::Begin);
    let commits = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&commits);
    let store = start(directory.path(), move |moment| {
        counted.fetch_add(u32::from(moment == Moment::Commit), Ordering::SeqCst);
        gate(moment)
    });
    let mut first = Box::pin(take(&store, 1));
    assert!(futures_util::poll!(&mut first).is_pending());
    at_gate.recv().expect("the first is on its way alone");

    let request = IssueRequest {
        count: 1,
        claim: None,
        idempotency_key: None,
        subject: "s".into(),
        issued_at: NOW,
        reserved_until: None,
    };
    let render = Arc::new(|_, _| panic!("a renderer that panics"));
    let mut panicking = store.issue(counter(), FREE, vec![request.clone()], render);
    // Fails at its second row, when counter and first row are written.
    let twice = vec![IssueRequest { count: 2, ..request }];
    let mut repeating = store.issue(counter(), FREE, twice, Arc::new(|_, _| "SAME".to_owned()));
    let mut calls: Vec<_> = (0..20).map(|_| Box::pin(take(&store, 1))).collect();
    for (index, call) in calls.iter_mut().enumerate() {
        if index == 10 {
            assert!(futures_util::poll!(&mut panicking).is_pending());
            assert!(futures_util::poll!(&mut repeating).is_pending());
        }
        assert!(futures_util::poll!(call).is_pending());
    }
    drop(open);
    assert_eq!(first.await.expect("taken"), fresh(1, 1));
    for (value, call) in (2..).zip(calls) {
        assert_eq!(call.await.expect("taken"), fresh(value, value), "in the order of asking");
    }
    let failed = panicking.await;
    assert!(matches!(failed, Err(StoreError::Unavailable { operation: "issue", .. })), "{failed:?}");
    let failed = repeating.await;
    assert!(matches!(failed, Err(StoreError::Corrupt { .. })), "{failed:?}");
    assert_eq!(commits.load(Ordering::SeqCst), 2, "one alone, all others together");
}

#[tokio::test]
async fn a_full_disk_is_unavailable_until_there_is_room() {
    let directory = tempfile::tempdir().expect("a directory");
    let timeout = Duration::from_secs(5);
    let clock = Arc::new(ManualClock::at(NOW));
    let writer = prepare(directory.path(), clock, UnixMillis(0), timeout).expect("opened");
    let pages: u32 =
        writer.workspace.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("counted");
    writer.workspace.connection.execute_batch(&format!("PRAGMA max_page_count = {pages}")).expect("limited");
    let store = SqliteStore::start(writer, timeout).expect("started");
    let claim = |index: u32| Claim {
        scoped_key: format!("{index}").into(),
        fingerprint: [0; 32],
        stamp: "x".repeat(2_000).into(),
        claimed_at: NOW,
        expires_at: NOW.plus(Duration::from_secs(60)),
    };
    let mut drawn = 0;
    let failure = loop {
        let request = TakeRequest { count: 1, claim: Some(claim(drawn)) };
        match store.take(counter(), FREE, vec![request]).await {
            Ok(_) => drawn += 1,
            Err(failure) => break failure,
        }
        assert!(drawn < 100, "it never fills");
    };
    assert!(matches!(failure, StoreError::Unavailable { .. }), "{failure:?}");
    let next = u64::from(drawn) + 1;
    assert_eq!(take(&store, 1).await.expect("fits"), fresh(next, next), "the failure drew nothing");
}

#[tokio::test]
async fn a_broken_file_is_corrupt_not_unavailable() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = start(directory.path(), |_| Ok(()));
    let broken = store.write("break", |workspace| {
        workspace.execute("INSERT INTO rules VALUES ('A', 1, NULL, '', 0), ('a b', 1, NULL, '', 0)", [])?;
        Ok(())
    });
    broken.await.expect("written");
    let failure = store.load_rules().await.expect_err("not a prefix key");
    assert!(matches!(failure, StoreError::Corrupt { .. }), "{failure:?}");
    assert_eq!(
        failure.to_string(),
        "sqlite holds something that is not understood: a prefix key that is none"
    );
}

#[tokio::test]
async fn a_queue_that_is_full_refuses_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let (fault, at_gate, open) = gate(Moment::Begin);
    let store = start(directory.path(), fault);
    let mut waiting = Vec::new();
    for _ in 0..2 * writer::QUEUE_LIMIT {
        let mut call = Box::pin(take(&store, 1));
        if let std::task::Poll::Ready(answer) = futures_util::poll!(&mut call) {
            assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
            break;
        }
        waiting.push(call);
    }
    at_gate.recv().expect("the writer stands");
    assert!(waiting.len() >= writer::QUEUE_LIMIT && waiting.len() < 2 * writer::QUEUE_LIMIT);
    drop(open);
    for (before, call) in (0..).zip(waiting) {
        assert_eq!(call.await.expect("taken"), fresh(before + 1, before + 1), "in the order of asking");
    }
}
