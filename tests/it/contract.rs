//! One contract, every store: the suite of each trait runs on every implementation. A new store is one `contract!` line and
//! its [`Bench`].

mod counters;
mod idempotency;
mod ledger;
mod rules;
mod sqlite;
mod temporary;
mod workers;

use std::{sync::Arc, time::Duration};

use numgen::{
    calendar::Period,
    clock::{ManualClock, UnixMillis},
    counter::{Counter, Ranges, SequenceValue, ValueRange},
    prefix_key::PrefixKey,
    store::{
        Bounds, Claim, CounterStore, IdempotencyStore, IssueRequest, LedgerStore, RenderNumber, RuleStore,
        TakeRequest, Taken, WorkerStore, memory::MemoryStore, sqlite::SqliteStore,
    },
};

/// When every bench starts, and the zero of its ID timestamps.
const NOON: UnixMillis = UnixMillis(1_795_348_800_000);
const EPOCH: UnixMillis = UnixMillis(1_704_067_200_000);

/// All that a store does.
trait Store: RuleStore + IdempotencyStore + CounterStore + LedgerStore + WorkerStore {}
impl<T: RuleStore + IdempotencyStore + CounterStore + LedgerStore + WorkerStore> Store for T {}

/// A store under test, with a clock that stands until a test moves it.
trait Bench: Send {
    /// An empty store.
    fn new() -> Self;
    fn store(&self) -> Arc<dyn Store>;
    fn clock(&self) -> &Arc<ManualClock>;
    /// Ends the store cleanly and opens it again, where it outlives its process.
    async fn reopen(&mut self);
}

struct Memory {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
}

impl Bench for Memory {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(NOON));
        Self { store: Arc::new(MemoryStore::new(clock.clone(), EPOCH)), clock }
    }
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }
    fn clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }
    async fn reopen(&mut self) {}
}

struct Sqlite {
    store: Option<Arc<SqliteStore>>,
    clock: Arc<ManualClock>,
    directory: tempfile::TempDir,
}

impl Sqlite {
    fn open(directory: &std::path::Path, clock: &Arc<ManualClock>) -> Arc<SqliteStore> {
        let store = SqliteStore::open(directory, clock.clone(), EPOCH, Duration::from_secs(30));
        Arc::new(store.expect("a store in an empty or closed directory"))
    }
}

impl Bench for Sqlite {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(NOON));
        Self { store: Some(Self::open(directory.path(), &clock)), clock, directory }
    }
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().expect("open")
    }
    fn clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }
    async fn reopen(&mut self) {
        let store = self.store.take().expect("open");
        store.close().await;
        drop(store);
        self.store = Some(Self::open(self.directory.path(), &self.clock));
    }
}

/// Runs every promise on one store.
macro_rules! contract {
    ($store:ident: $bench:ident) => {
        contract!($store: $bench;
            rules: the_register_keeps_every_kind_of_record, a_swap_needs_the_record_as_it_is,
                of_many_writers_one_wins_each_round, use_is_marked_on_the_revision_it_was_seen_on;
            idempotency: the_first_values_stay, an_expired_record_counts_as_absent, expired_records_are_forgotten;
            counters: values_are_consecutive_from_the_base, many_tasks_get_every_value_once,
                the_last_value_is_u64_max, overflow_consumes_nothing, keys_replay_within_and_across_batches,
                keys_survive_a_reopening, floors_are_listed_or_raise_the_base, advance_lists_what_it_passes,
                advance_moves_only_up, what_is_handed_back_is_listed, periods_and_keys_are_apart, an_unused_counter_begins_where_it_is_told;
            ledger: every_integer_has_a_row, rows_come_in_pages, reservations_are_confirmed_voided_or_expire,
                a_contrary_step_changes_nothing, keys_replay, a_change_of_mode_begins_a_new_run,
                advance_voids_each_integer, floors_leave_no_hole, many_tasks_leave_a_gapless_ledger,
                a_number_is_never_written_twice, the_last_integer_is_u64_max;
            workers: the_layout_is_pinned_once, a_nonce_names_one_holding, a_slot_has_one_holder,
                renewal_moves_the_mark, a_passed_mark_is_lost, release_frees_at_once, a_silent_holder_loses_its_slot,
                windows_of_a_slot_are_disjoint;
        );
    };
    ($store:ident: $bench:ident; $($part:ident: $($promise:ident),+;)+) => {
        mod $store {
            $(mod $part {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    super::super::$part::$promise(<super::super::$bench as super::super::Bench>::new()).await;
                })+
            })+
        }
    };
}

contract!(on_memory: Memory);
contract!(on_sqlite: Sqlite);

// ------------------------------------------------------------------------------------------ shorthands

fn key(text: &str) -> PrefixKey {
    PrefixKey::parse(text).expect("a prefix key")
}

fn counter(text: &str, period: &str) -> Counter {
    Counter { key: key(text), period: Period::new(period) }
}

/// No limit but the type's, from 0.
const FREE: Bounds =
    Bounds { base: SequenceValue(0), floor: SequenceValue(0), max: SequenceValue::MAX, scheme: 0 };

fn range(from: u64, to: u64) -> ValueRange {
    ValueRange { from: SequenceValue(from), to: SequenceValue(to) }
}

fn values(from: u64, to: u64) -> Ranges {
    range(from, to).into()
}

fn fresh(from: u64, to: u64) -> Taken {
    Taken::Fresh(values(from, to))
}

fn claim(scoped_key: &str, fingerprint: u8, at: UnixMillis) -> Claim {
    Claim {
        scoped_key: scoped_key.into(),
        fingerprint: [fingerprint; 32],
        stamp: format!("stamp of {scoped_key}").into(),
        claimed_at: at,
        expires_at: at.plus(Duration::from_secs(60)),
    }
}

fn plain(count: u32) -> TakeRequest {
    TakeRequest { count, claim: None }
}

fn keyed(count: u32, claim: Claim) -> TakeRequest {
    TakeRequest { count, claim: Some(claim) }
}

fn issue(count: u32) -> IssueRequest {
    IssueRequest {
        count,
        claim: None,
        idempotency_key: None,
        subject: "alice".into(),
        issued_at: NOON,
        reserved_until: None,
    }
}

/// `INV-000000000000000007`
fn invoices() -> RenderNumber {
    Arc::new(|_, value| format!("INV-{value:020}"))
}

/// Draws one batch.
async fn take(
    store: &Arc<dyn Store>,
    on: &Counter,
    bounds: Bounds,
    requests: Vec<TakeRequest>,
) -> Vec<Taken> {
    store.take(on.clone(), bounds, requests).await.expect("taken")
}

/// Draws one value.
async fn next(store: &Arc<dyn Store>, on: &Counter) -> u64 {
    let taken = take(store, on, FREE, vec![plain(1)]).await;
    let [Taken::Fresh(values)] = &taken[..] else { panic!("not fresh: {taken:?}") };
    values.last().expect("one value").0
}
