//! One contract, every store: the suite of each trait runs on every implementation. A new store is one `contract!` line with
//! the traits that it has, and its [`Bench`].

mod audit;
mod bench;
mod counters;
mod idempotency;
mod journal;
mod ledger;
mod postgres;
mod redis;
mod rules;
mod shared_counters;
mod sqlite;
mod temporary;
mod workers;

use std::{sync::Arc, time::Duration};

use numgen::{
    calendar::Period,
    clock::UnixMillis,
    counter::{Counter, Ranges, SequenceValue, ValueRange},
    prefix_key::PrefixKey,
    rule::OnOutage,
    store::{Bounds, Claim, CounterStore, IssueRequest, RenderNumber, TakeRequest, Taken},
};

use self::{
    bench::{Bench, Memory, Sqlite},
    postgres::{Optimistic, Postgres, PostgresWorkers},
    redis::{OneRedis, OneRedisWorkers, SixRedis, SixRedisWorkers},
    shared_counters::{CountersOnCluster, CountersOnPostgres, CountersOnRedis},
};

/// When every bench starts, and the zero of its ID timestamps.
const NOON: UnixMillis = UnixMillis(1_795_348_800_000);
const EPOCH: UnixMillis = UnixMillis(1_704_067_200_000);

/// Runs the promises of some traits on one store: `contract!(on_memory: Memory; rules workers);`.
macro_rules! contract {
    ($store:ident: $bench:ident; $($part:ident)+) => {
        mod $store {
            $(contract!(@$part $bench);)+
        }
    };
    (@rules $bench:ident) => {
        contract!(@run $bench rules: the_register_keeps_every_kind_of_record, a_swap_needs_the_record_as_it_is,
            of_many_writers_one_wins_each_round, use_is_marked_on_the_revision_it_was_seen_on,
            use_is_noted_on_the_record_as_it_is);
    };
    (@idempotency $bench:ident) => {
        contract!(@run $bench idempotency: the_first_values_stay, an_expired_record_counts_as_absent,
            expired_records_are_forgotten);
    };
    (@counters $bench:ident) => {
        contract!(@run $bench counters: values_are_consecutive_from_the_base, many_tasks_get_every_value_once,
            the_last_value_is_u64_max, overflow_consumes_nothing, keys_replay_within_and_across_batches,
            a_key_replays_when_nothing_is_left, keys_survive_a_reopening, floors_are_listed_or_raise_the_base, advance_lists_what_it_passes,
            advance_moves_only_up, what_is_handed_back_is_listed, periods_and_keys_are_apart,
            an_unused_counter_begins_where_it_is_told);
    };
    (@ledger $bench:ident) => {
        contract!(@run $bench ledger: every_integer_has_a_row, rows_come_in_pages,
            reservations_are_confirmed_voided_or_expire, a_contrary_step_changes_nothing, keys_replay,
            a_key_replays_when_nothing_is_left,
            a_change_of_mode_begins_a_new_run, advance_voids_each_integer, floors_leave_no_hole,
            many_tasks_leave_a_gapless_ledger, a_number_is_never_written_twice, the_last_integer_is_u64_max);
    };
    (@workers $bench:ident) => {
        contract!(@run $bench workers: the_layout_is_pinned_once, a_nonce_names_one_holding, a_slot_has_one_holder,
            renewal_moves_the_mark, a_passed_mark_is_lost, release_frees_at_once, a_silent_holder_loses_its_slot,
            windows_of_a_slot_are_disjoint);
    };
    (@shared_workers $bench:ident) => {
        contract!(@run_in shared_workers $bench workers: no_lease_follows_a_fixed_holder);
    };
    (@temporary $bench:ident) => {
        contract!(@run $bench temporary: the_first_row_of_a_number_stands, a_row_that_has_come_further_stands,
            a_row_changes_only_as_it_was_seen, of_many_decisions_one_is_taken, rows_come_in_pages_by_key_and_status,
            a_page_of_a_thousand_is_one_call);
    };
    (@journal $bench:ident) => {
        contract!(@run $bench journal: what_is_appended_stays,
            rows_are_pending_until_the_instance_that_asks_has_them, what_was_resolved_long_ago_is_forgotten);
    };
    (@audit $bench:ident) => {
        contract!(@run $bench audit: entries_come_back_as_they_were_in_their_order, pages_are_of_a_key_and_a_time,
            the_trail_outlives_the_process, a_rule_is_noted_once_it_is_in_force,
            a_temporary_number_is_noted_once_it_is_resolved);
    };
    (@audited_ledger $bench:ident) => {
        contract!(@run_in audited_ledger $bench audit: a_counter_is_noted_once_it_was_moved,
            a_number_is_noted_once_it_was_voided);
    };
    (@run $bench:ident $part:ident: $($promise:ident),+) => {
        contract!(@run_in $part $bench $part: $($promise),+);
    };
    (@run_in $room:ident $bench:ident $part:ident: $($promise:ident),+) => {
        mod $room {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let bench = <super::super::$bench as super::super::Bench>::new().await;
                super::super::$part::$promise(bench).await;
            })+
        }
    };
}

contract!(on_memory: Memory; rules idempotency counters ledger workers temporary journal audit audited_ledger);
contract!(on_sqlite: Sqlite; rules idempotency counters ledger workers temporary journal audit audited_ledger);
contract!(on_redis: OneRedis; rules idempotency temporary audit);
contract!(on_cluster: SixRedis; rules idempotency temporary audit);
contract!(counters_on_redis: CountersOnRedis; counters);
contract!(counters_on_cluster: CountersOnCluster; counters);
contract!(counters_on_postgres: CountersOnPostgres; counters);
contract!(windows_on_redis: OneRedisWorkers; workers shared_workers);
contract!(windows_on_cluster: SixRedisWorkers; workers shared_workers);
contract!(on_postgres: Postgres; rules idempotency counters ledger temporary audit audited_ledger);
contract!(on_postgres_optimistic: Optimistic; counters ledger);
contract!(windows_on_postgres: PostgresWorkers; workers shared_workers);

// ------------------------------------------------------------------------------------------ shorthands

fn key(text: &str) -> PrefixKey {
    PrefixKey::parse(text).expect("a prefix key")
}

fn counter(text: &str, period: &str) -> Counter {
    Counter { key: key(text), period: Period::new(period) }
}

/// No limit but the type's, from 0.
const FREE: Bounds = Bounds {
    base: SequenceValue(0),
    floor: SequenceValue(0),
    max: SequenceValue::MAX,
    scheme: 0,
    on_outage: OnOutage::Segment,
};

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
    store: &Arc<impl CounterStore>,
    on: &Counter,
    bounds: Bounds,
    requests: Vec<TakeRequest>,
) -> Vec<Taken> {
    store.take(on.clone(), bounds, requests).await.expect("taken")
}

/// Draws one value.
async fn next(store: &Arc<impl CounterStore>, on: &Counter) -> u64 {
    let taken = take(store, on, FREE, vec![plain(1)]).await;
    let [Taken::Fresh(values)] = &taken[..] else { panic!("not fresh: {taken:?}") };
    values.last().expect("one value").0
}
