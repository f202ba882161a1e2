//! The engine over the reference store: the rows of the requirements' table for the sequence generator, and retries.

use chrono::NaiveDate;

use super::*;
use crate::{
    calendar::{FiscalYearStart, Reset},
    clock::{Clock, ManualClock},
    prefix_key::PrefixKey,
    rule::{OnOutage, Overflow},
    snowflake::Sequencer,
    store::{
        Advanced, CounterState, StoreFuture, TakeRequest, TemporaryNumber, TemporaryQuery, TemporaryStore,
        Transition, memory::MemoryStore,
    },
};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const EPOCH: UnixMillis = UnixMillis(1_704_067_200_000);
const TIMEOUT: Duration = Duration::from_secs(5);

/// A rule, what it was compiled to, and who asks.
struct Client {
    rule: Rule,
    template: Arc<Template>,
    subject: Arc<str>,
}

impl Client {
    fn new(mode: Mode, format: &str, initial_seq: u64) -> Self {
        let template = Template::parse(format, None).expect("a valid format");
        let rule = Rule {
            prefix_key: PrefixKey::parse("KEY").expect("valid"),
            format: format.to_owned(),
            seq_length: template.seq_width(),
            initial_seq: SequenceValue(initial_seq),
            mode,
            reset: Reset::Never,
            timezone: chrono_tz::Tz::UTC,
            fiscal_year_start: FiscalYearStart::default(),
            overflow: Overflow::default(),
            max_seq: SequenceValue::MAX,
            on_outage: OnOutage::default(),
            rate_limit: None,
        };
        Self { rule, template: Arc::new(template), subject: "erp".into() }
    }

    fn order(&self, count: u32, key: Option<&str>) -> Order<'_> {
        let date = NaiveDate::from_ymd_opt(2026, 11, 22).expect("a date");
        Order {
            rule: &self.rule,
            template: &self.template,
            bounds: Bounds {
                base: self.rule.initial_seq,
                floor: SequenceValue(0),
                max: self.rule.max_seq,
                scheme: 0,
                on_outage: self.rule.on_outage,
            },
            period: Period::none(),
            local: date.and_hms_opt(0, 0, 0).expect("a time"),
            now: NOW,
            count,
            subject: &self.subject,
            idempotency_key: key.map(Arc::from),
            date: None,
            reserve: None,
            hold: None,
        }
    }

    async fn issue(&self, engine: &Engine, count: u32, key: Option<&str>) -> Result<Vec<String>, IssueError> {
        let order = self.order(count, key);
        let issued = match engine.issue_at_once(&order) {
            Some(issued) => issued?,
            None => engine.issue(&order).await?,
        };
        Ok(texts(&issued))
    }
}

fn texts(issued: &Issued<'_>) -> Vec<String> {
    let mut numbers = String::new();
    issued.write(&mut numbers, |out, index| {
        if index > 0 {
            out.push(' ');
        }
    });
    numbers.split(' ').map(str::to_owned).collect()
}

fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Arc::new(ManualClock::at(NOW)), EPOCH))
}

/// A node with a worker ID of its own over a shared store.
fn node(store: &Arc<MemoryStore>, worker: u32) -> Engine {
    let stores = Stores {
        counters: store.clone(),
        ledgers: store.clone(),
        idempotency: store.clone(),
        temporary: None,
        batches: Default::default(),
    };
    node_over(stores, worker)
}

fn node_over(stores: Stores, worker: u32) -> Engine {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW));
    let layout = Layout::DEFAULT;
    let ids = Ids::new(layout, 1_000_000, clock);
    ids.hear(1_000_000);
    ids.publish(Sequencer::new(layout, 0, worker, 0, u64::MAX, Duration::from_millis(50)));
    let settings = Settings {
        layout,
        epoch: EPOCH,
        datacenter: 0,
        storage_timeout: TIMEOUT,
        idempotency_ttl: Duration::from_secs(3600),
    };
    Engine::new(settings, stores, Arc::new(ids), &Lifecycle::new())
}

#[tokio::test]
async fn a_node_whose_clock_is_ahead_ends_no_key() {
    let store = memory();
    let (one, ahead) = (node(&store, 1), node(&store, 2));
    for (mode, format) in
        [(Mode::Continuous, "C-{SEQ:4}"), (Mode::Strict, "S-{SEQ:4}"), (Mode::Snowflake, "F-{SEQ:19}")]
    {
        let client = Client::new(mode, format, 0);
        let order = |now: UnixMillis| Order { now, ..client.order(1, Some("cart-1")) };
        let (first, later) = (order(NOW), order(NOW.plus(Duration::from_secs(100_000))));
        let given = texts(&one.issue(&first).await.expect("issued"));
        assert_eq!(texts(&ahead.issue(&later).await.expect("issued")), given, "{mode:?}");
    }
}

#[tokio::test]
async fn a_node_whose_clock_is_wrong_neither_ends_nor_cuts_short_a_reservation() {
    let store = memory();
    let (right, wrong) = (node(&store, 1), node(&store, 2));
    let client = Client::new(Mode::Strict, "S-{SEQ:4}", 0);
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
    let order = |now: UnixMillis| Order { now, reserve: Some(hour), ..client.order(1, None) };
    let behind = UnixMillis(NOW.0 - 86_400_000);
    let mut ends = Vec::new();
    for (engine, now) in [(&right, NOW), (&wrong, behind), (&wrong, NOW.plus(day))] {
        ends.push(engine.issue(&order(now)).await.expect("reserved").reserved_until().expect("an end").0);
    }
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
    let step = LedgerStep {
        number: "S-0001".to_owned(),
        transition: Transition::Confirm,
        actor: "bob".into(),
        at: NOW.plus(day),
        note: None,
    };
    let confirmed = wrong.step(client.rule.prefix_key.clone(), step).await.expect("answered");
    assert!(matches!(confirmed, Transitioned::Done(_)), "{confirmed:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_value_is_the_initial_one_plus_one() {
    for mode in [Mode::Continuous, Mode::Strict] {
        let store = memory();
        let engine = node(&store, 1);
        let numbers = Client::new(mode, "{SEQ:4}", 1_000).issue(&engine, 1, None).await;
        assert_eq!(numbers.expect("issued"), ["1001"], "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn values_follow_each_other() {
    for mode in [Mode::Continuous, Mode::Strict] {
        let engine = node(&memory(), 1);
        let client = Client::new(mode, "{SEQ:1}", 1);
        for expected in ["2", "3", "4"] {
            assert_eq!(client.issue(&engine, 1, None).await.expect("issued"), [expected], "{mode:?}");
        }
        assert_eq!(client.issue(&engine, 3, None).await.expect("issued"), ["5", "6", "7"]);
    }
}

#[tokio::test(start_paused = true)]
async fn two_nodes_at_once_share_no_number_and_leave_no_gap() {
    for (mode, format) in
        [(Mode::Continuous, "{SEQ:3}"), (Mode::Strict, "{SEQ:3}"), (Mode::Snowflake, "{SEQ:19}")]
    {
        let store = memory();
        let (one, two) = (node(&store, 1), node(&store, 2));
        let client = Client::new(mode, format, 0);
        let draws = (0..100).map(|turn| client.issue(if turn % 2 == 0 { &one } else { &two }, 1, None));
        let mut numbers: Vec<String> = Vec::new();
        for drawn in futures_util::future::join_all(draws).await {
            numbers.extend(drawn.expect("issued"));
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 100, "{mode:?}");
        if mode.counts() {
            assert_eq!((numbers[0].as_str(), numbers[99].as_str()), ("001", "100"), "{mode:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_counter_ends_at_u64_max_and_consumes_nothing_beyond() {
    for mode in [Mode::Continuous, Mode::Strict] {
        let engine = node(&memory(), 1);
        let client = Client::new(mode, "{SEQ:20}", u64::MAX - 2);
        let refused = client.issue(&engine, 3, None).await;
        assert!(matches!(refused, Err(IssueError::Overflow { count: 3, .. })), "{mode:?}");
        let rest = client.issue(&engine, 2, None).await.expect("issued");
        assert_eq!(rest, ["18446744073709551614", "18446744073709551615"]);
        assert!(matches!(client.issue(&engine, 1, None).await, Err(IssueError::Overflow { .. })));
    }
}

#[test]
fn a_preview_shows_what_the_limits_leave() {
    let engine = node(&memory(), 1);
    for (mode, max_seq, shown) in [
        (Mode::Continuous, 100, 3),
        (Mode::Continuous, 2, 2),
        (Mode::Continuous, 0, 0),
        (Mode::Snowflake, 100, 0),
    ] {
        let mut client = Client::new(mode, "{SEQ:6}", 0);
        client.rule.max_seq = SequenceValue(max_seq);
        let order = client.order(3, None);
        assert_eq!(
            engine.preview(&order, 0).map(|numbers| numbers.len()).ok(),
            Some(shown),
            "{mode:?} {max_seq}"
        );
        let refused = matches!(engine.preview(&order, 3), Err(IssueError::Overflow { count: 3, .. }));
        assert_eq!(refused, shown < 3, "{mode:?} {max_seq}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_gives_the_same_numbers_on_any_node_in_every_mode() {
    for (mode, format) in [
        (Mode::Continuous, "{SEQ:3}-{rand:8}-{worker}"),
        (Mode::Strict, "{SEQ:3}-{rand:8}-{worker}"),
        (Mode::Snowflake, "{SEQ:19}-{rand:8}-{worker}"),
    ] {
        let store = memory();
        let (one, two) = (node(&store, 1), node(&store, 2));
        let client = Client::new(mode, format, 0);
        let first = client.issue(&one, 2, Some("cart-1")).await.expect("issued");
        assert_eq!(client.issue(&two, 2, Some("cart-1")).await.expect("replayed"), first, "{mode:?}");
        let other = client.issue(&one, 3, Some("cart-1")).await;
        assert!(matches!(other, Err(IssueError::IdempotencyMismatch)), "{mode:?}");
        let next = client.issue(&two, 2, Some("cart-2")).await.expect("issued");
        assert!(next.iter().all(|number| !first.contains(number)), "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_snowflake_batch_waits_for_its_clock_only_as_long_as_it_may() {
    let engine = node(&memory(), 1);
    let client = Client::new(Mode::Snowflake, "{SEQ:19}", 0);
    let most = client.issue(&engine, 51 * 4096, None).await.expect("51 milliseconds' worth");
    assert_eq!(most.len(), 51 * 4096);
    // The clock of this test stands still: nothing more comes of waiting.
    assert!(matches!(client.issue(&engine, 1, None).await, Err(IssueError::Busy(1))));
}

#[tokio::test(start_paused = true)]
async fn without_a_window_there_are_no_snowflakes() {
    let engine = node(&memory(), 1);
    engine.ids.close();
    let client = Client::new(Mode::Snowflake, "{SEQ:19}", 0);
    assert!(matches!(client.issue(&engine, 1, None).await, Err(IssueError::NoWindow)));
    // Nobody waits longer for one where every millisecond takes fifty.
    let slowly = async {
        loop {
            tokio::time::advance(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        issued = client.issue(&engine, 1, None) => assert!(matches!(issued, Err(IssueError::NoWindow)), "{issued:?}"),
        () = slowly => {}
    }
    let counted = Client::new(Mode::Continuous, "{SEQ:3}", 0);
    assert_eq!(counted.issue(&engine, 1, None).await.expect("needs no window"), ["001"]);
}

/// An engine whose counters never answer, with temporary numbers to stand in.
async fn bridged(journal: &Arc<MemoryStore>) -> Engine {
    let node = crate::config::NodeName::parse("n1").expect("a name");
    let issuer = temporary::Issuer::start(journal.clone(), node).await.expect("started");
    let stores = Stores {
        counters: Arc::new(Silent),
        ledgers: journal.clone(),
        idempotency: journal.clone(),
        temporary: Some(Arc::new(issuer)),
        batches: Default::default(),
    };
    node_over(stores, 1)
}

#[tokio::test(start_paused = true)]
async fn temporary_numbers_stand_in_for_a_counter_that_is_away() {
    let journal = memory();
    let engine = bridged(&journal).await;
    let client = Client::new(Mode::Continuous, "{SEQ:3}", 0);
    let batch = client.issue(&engine, 3, None).await.expect("issued");
    let issued = engine.issue(&client.order(1, None)).await.expect("issued");
    assert_eq!((issued.source, issued.count(), issued.reserved_until()), (Source::Temporary, 1, None));
    let query = TemporaryQuery { limit: 9, ..TemporaryQuery::default() };
    let rows = journal.list(query).await.expect("listed");
    let journaled: Vec<String> = rows.iter().map(|row| row.number.to_string()).collect();
    assert_eq!(batch, journaled[..3]);
    assert!(batch.is_sorted() && batch[0].starts_with("TMP~KEY~n1~"), "{batch:?}");
    assert_eq!((rows.len(), &*rows[0].subject, rows[0].created_at), (4, "erp", NOW));
}

#[tokio::test(start_paused = true)]
async fn nothing_stands_in_for_what_must_be_exact() {
    let engine = bridged(&memory()).await;
    let mut client = Client::new(Mode::Continuous, "{SEQ:3}", 0);
    let keyed = client.issue(&engine, 1, Some("cart-1")).await;
    assert!(matches!(keyed, Err(IssueError::Timeout)), "a caller with a key asked for exactly-once");
    for on_outage in [OnOutage::Fail, OnOutage::Segment] {
        client.rule.on_outage = on_outage;
        assert!(matches!(client.issue(&engine, 1, None).await, Err(IssueError::Timeout)), "{on_outage:?}");
    }
    engine.ids.close();
    let flake = Client::new(Mode::Snowflake, "{SEQ:19}", 0);
    assert!(matches!(flake.issue(&engine, 1, None).await, Err(IssueError::NoWindow)));
}

#[tokio::test(start_paused = true)]
async fn a_temporary_number_gets_one_final_number_whoever_draws_it_and_when() {
    let number = TemporaryNumber::parse("TMP~KEY~n1~038G342H00003028T5").expect("a number");
    let (key, store) = (temporary::claim_key(&number), memory());
    for mode in [Mode::Continuous, Mode::Strict] {
        let client = Client::new(mode, "{SEQ:3}-{rand:6}", 0);
        let first = client.issue(&node(&store, 1), 1, Some(&key)).await.expect("drawn");
        // Long after any key of a caller was forgotten.
        let mut late = client.order(1, Some(&key));
        late.now = NOW.plus(Duration::from_secs(90 * 365 * 24 * 3600));
        let other = node(&store, 2);
        let again = other.issue(&late).await.expect("replayed");
        let mut text = String::new();
        again.write(&mut text, |_, _| {});
        assert_eq!([text], first[..]);
    }
}

/// A store that never answers.
struct Silent;

impl CounterStore for Silent {
    fn take(&self, _: Counter, _: Bounds, _: Vec<TakeRequest>) -> StoreFuture<'_, Vec<Taken>> {
        Box::pin(std::future::pending())
    }

    fn hand_back(&self, _: Counter, _: Ranges) -> StoreFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn counters<'a>(&'a self, _: &'a PrefixKey) -> StoreFuture<'a, Vec<CounterState>> {
        Box::pin(std::future::pending())
    }

    fn advance(
        &self,
        _: Counter,
        _: SequenceValue,
        _: SequenceValue,
        _: Arc<str>,
        _: UnixMillis,
    ) -> StoreFuture<'_, Advanced> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_a_timeout_after_its_time() {
    let store = memory();
    let stores = Stores {
        counters: Arc::new(Silent),
        ledgers: store.clone(),
        idempotency: store,
        temporary: None,
        batches: Default::default(),
    };
    let engine = node_over(stores, 1);
    let asked = tokio::time::Instant::now();
    let refused = Client::new(Mode::Continuous, "{SEQ:3}", 0).issue(&engine, 1, None).await;
    assert!(matches!(refused, Err(IssueError::Timeout)));
    assert_eq!(asked.elapsed(), TIMEOUT);
}
