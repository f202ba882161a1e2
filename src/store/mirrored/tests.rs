//! The register and the mirror are memory stores; the mirror can be away, and can keep its callers waiting.

use super::*;
use crate::{
    clock::{ManualClock, UnixMillis},
    store::{
        Foreign,
        memory::{Away, MemoryStore},
        postgres::grants::Redis,
    },
};

/// A mirror that answers nobody while its door is closed, and writes nothing while it is read-only.
struct Mirror {
    store: MemoryStore,
    door: tokio::sync::watch::Sender<Door>,
    /// Calls that came through.
    calls: std::sync::atomic::AtomicUsize,
}

#[derive(PartialEq, Eq)]
enum Door {
    Open,
    ReadOnly,
    Closed,
}

impl Mirror {
    fn behind_door<'a, T: Send + 'a>(&'a self, call: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        Box::pin(async move {
            drop(self.door.subscribe().wait_for(|door| *door != Door::Closed).await);
            self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            call.await
        })
    }
}

impl RuleStore for Mirror {
    fn load_rules(&self) -> StoreFuture<'_, Vec<RuleRecord>> {
        self.behind_door(self.store.load_rules())
    }

    fn rule<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<RuleRecord>> {
        self.behind_door(self.store.rule(key))
    }

    fn swap_rule(&self, expected: Option<RuleRecord>, new: RuleRecord) -> StoreFuture<'_, Swap> {
        self.behind_door(self.store.swap_rule(expected, new))
    }

    fn mark_used<'a>(&'a self, key: &'a PrefixKey, revision: u64) -> StoreFuture<'a, bool> {
        self.behind_door(self.store.mark_used(key, revision))
    }

    fn swap_over(
        &self,
        write: DirectWrite,
        expected: Option<RuleRecord>,
        new: RuleRecord,
    ) -> StoreFuture<'_, Swap> {
        self.behind_door(self.store.swap_over(write, expected, new))
    }
}

impl SharedRules for Mirror {
    fn follow(&self, since: RuleMark) -> StoreFuture<'_, RuleNews> {
        self.behind_door(self.store.follow(since))
    }

    fn restore(&self, records: Vec<(Option<RuleRecord>, RuleRecord)>) -> StoreFuture<'_, Vec<Swap>> {
        if *self.door.borrow() == Door::ReadOnly {
            let (store, operation) = ("memory", "restore");
            let error = StoreError::Unavailable { store, operation, source: "read-only".into() };
            return Box::pin(std::future::ready(Err(error)));
        }
        self.behind_door(self.store.restore(records))
    }
}

struct Desks {
    durable: Arc<MemoryStore>,
    mirror: Arc<Mirror>,
    rules: Arc<MirroredRules>,
    home: watch::Sender<Home>,
    lifecycle: Lifecycle,
}

fn key(index: usize) -> PrefixKey {
    PrefixKey::parse(&format!("K{index}")).expect("a prefix key")
}

fn record(index: usize, revision: u64) -> RuleRecord {
    let rule = Some(format!(r#"{{"format":"{revision}-{{SEQ:4}}"}}"#));
    RuleRecord { key: key(index), revision, rule, history: String::new(), used: false }
}

impl Desks {
    /// Kept, with the door as it is said.
    fn kept(door: Door) -> Self {
        let desks = Self::unkept(door);
        desks.lifecycle.spawn(Arc::clone(&desks.rules).keep(desks.lifecycle.clone()));
        desks
    }

    fn unkept(door: Door) -> Self {
        let store = || MemoryStore::new(Arc::new(ManualClock::at(UnixMillis(0))), UnixMillis(0));
        let durable = Arc::new(store());
        let (door, calls) = (tokio::sync::watch::Sender::new(door), 0.into());
        let mirror = Arc::new(Mirror { store: store(), door, calls });
        let home = watch::Sender::new(Home::Own);
        let rules = Arc::new(MirroredRules::new(durable.clone(), mirror.clone(), home.subscribe()));
        Self { durable, mirror, rules, home, lifecycle: Lifecycle::new() }
    }

    /// Writes a record past this node, as another one does.
    async fn put(&self, index: usize, revision: u64) {
        let before = (revision > 1).then(|| record(index, revision - 1));
        let swap = self.durable.swap_rule(before, record(index, revision)).await;
        assert_eq!(swap.expect("there"), Swap::Done);
    }

    /// Follows as a node does, to the end of what is new; answers the mark and what operators wrote.
    async fn follow(&self, mut mark: RuleMark) -> (RuleMark, Vec<DirectWrite>) {
        loop {
            let news = self.rules.follow(mark).await.expect("there");
            mark = news.mark;
            if news.more != More::Records {
                return (mark, news.direct);
            }
        }
    }

    /// Which revision the mirror has.
    async fn mirrored(&self, index: usize) -> Option<u64> {
        self.mirror.store.rule(&key(index)).await.expect("there").map(|record| record.revision)
    }
}

/// In paused time, so that all that is due until then is done.
async fn a_while() {
    tokio::time::sleep(POLL_EVERY * 3).await;
}

#[tokio::test(start_paused = true)]
async fn news_do_not_wait_for_the_mirror() {
    let desks = Desks::kept(Door::Closed);
    for index in 0..10 {
        desks.put(index, 1).await;
    }
    let heard = tokio::time::timeout(POLL_EVERY, desks.follow(RuleMark::default())).await;
    let (mark, _) = heard.expect("at once");
    desks.put(3, 2).await;
    let heard = tokio::time::timeout(POLL_EVERY, desks.follow(mark)).await;
    assert!(heard.is_ok(), "nor in the middle of a refill");
    desks.mirror.door.send_replace(Door::Open);
    a_while().await;
    assert_eq!((desks.mirrored(0).await, desks.mirrored(3).await), (Some(1), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn what_a_mirror_missed_is_owed_to_it() {
    let desks = Desks::kept(Door::Open);
    desks.put(1, 1).await;
    let (mark, _) = desks.follow(RuleMark::default()).await;
    a_while().await;
    assert_eq!(desks.mirrored(1).await, Some(1));
    desks.mirror.store.set_away(Away::Yes);
    desks.put(1, 2).await;
    let (mark, _) = desks.follow(mark).await;
    assert_eq!(desks.rules.swap_rule(None, record(2, 1)).await.expect("durable"), Swap::Done);
    desks.put(1, 3).await;
    a_while().await;
    let (mark, _) = desks.follow(mark).await;
    desks.mirror.store.set_away(Away::No);
    a_while().await;
    assert_eq!((desks.mirrored(1).await, desks.mirrored(2).await), (Some(3), Some(1)));
    desks.mirror.door.send_replace(Door::ReadOnly);
    desks.put(1, 4).await;
    let (mark, _) = desks.follow(mark).await;
    a_while().await;
    assert_eq!(desks.mirrored(1).await, Some(3));
    desks.mirror.door.send_replace(Door::Open);
    a_while().await;
    assert_eq!(desks.mirrored(1).await, Some(4));
    desks.mirror.store.forget_rules();
    desks.follow(mark).await;
    a_while().await;
    assert_eq!((desks.mirrored(1).await, desks.mirrored(2).await), (Some(4), Some(1)));
}

#[tokio::test]
async fn nothing_later_is_replaced() {
    let desks = Desks::unkept(Door::Open);
    desks.rules.push(vec![(None, record(1, 2)), (None, record(2, 2))]).await.expect("there");
    let stale = Some(record(2, 1));
    desks.rules.push(vec![(None, record(1, 1)), (stale, record(2, 3))]).await.expect("there");
    assert_eq!((desks.mirrored(1).await, desks.mirrored(2).await), (Some(2), Some(3)));
    let mut owed = Owed::nothing();
    owed.add([record(1, 2), record(1, 1), record(2, 1), record(2, 2)]);
    let Owed::Records(owed) = owed else { panic!("few") };
    assert!(owed.values().all(|record| record.revision == 2));
}

#[tokio::test(start_paused = true)]
async fn a_refill_takes_a_call_for_many_records() {
    let desks = Desks::unkept(Door::Open);
    for index in 0..3 * BATCH {
        desks.put(index, 1).await;
    }
    desks.rules.reflect(&mut RuleMark::default()).await.expect("there");
    assert_eq!(desks.mirrored(3 * BATCH - 1).await, Some(1));
    let calls = desks.mirror.calls.load(std::sync::atomic::Ordering::Relaxed);
    assert!(calls <= 5, "a look, what it has, and a call for each batch, not {calls}");
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_writes_is_heard_and_leaves_the_list() {
    let desks = Desks::kept(Door::Open);
    a_while().await;
    desks.mirror.store.write_directly(&key(1), Some(r#"{"format":"{SEQ:4}"}"#));
    tokio::time::timeout(POLL_EVERY * 2, desks.rules.called()).await.expect("a call");
    let (mark, direct) = desks.follow(RuleMark::default()).await;
    let [write] = direct.as_slice() else { panic!("{direct:?}") };
    let swap = desks.rules.swap_over(write.clone(), None, record(1, 1)).await;
    assert_eq!(swap.expect("adopted"), Swap::Done);
    desks.mirror.door.send_replace(Door::Closed);
    assert_eq!(desks.follow(mark.clone()).await.1, Vec::new(), "before the mirror is looked at again");
    desks.mirror.door.send_replace(Door::Open);
    a_while().await;
    assert_eq!(desks.follow(mark).await.1, Vec::new());
    let adopted = desks.durable.rule(&key(1)).await.expect("there").map(|record| record.revision);
    assert_eq!((adopted, desks.mirrored(1).await), (Some(1), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_mirror_of_others_is_neither_written_nor_listened_to() {
    let redis = |id: &str| Redis { id: id.to_owned(), place: format!("{id}:6379") };
    let foreign = Foreign { datacenter: 0, owner: redis("ours"), own: redis("theirs") };
    for home in [Home::Unknown, Home::Foreign(Arc::new(foreign))] {
        let desks = Desks::kept(Door::Open);
        a_while().await;
        desks.mirror.store.write_directly(&key(9), Some(r#"{"format":"{SEQ:4}"}"#));
        a_while().await;
        let (mark, direct) = desks.follow(RuleMark::default()).await;
        let [write] = direct.as_slice() else { panic!("{direct:?}") };
        desks.home.send_replace(home);
        desks.put(1, 1).await;
        assert_eq!(desks.rules.swap_rule(None, record(2, 1)).await.expect("durable"), Swap::Done);
        let adopted = desks.rules.swap_over(write.clone(), None, record(9, 1)).await;
        assert!(matches!(adopted, Err(StoreError::Unavailable { .. })), "{adopted:?}");
        assert_eq!(desks.rules.direct_write(&key(9)).await.expect("there"), None);
        a_while().await;
        assert_eq!(desks.follow(mark).await.1, [], "meant for others");
        desks.mirror.store.forget_rules();
        a_while().await;
        assert_eq!((desks.mirrored(1).await, desks.mirrored(2).await), (None, None));
        assert_eq!(desks.durable.rule(&key(9)).await.expect("there"), None);
        desks.home.send_replace(Home::Own);
        // Without a pause for the poll: it is heard.
        tokio::time::sleep(POLL_EVERY / 2).await;
        assert_eq!((desks.mirrored(1).await, desks.mirrored(2).await), (Some(1), Some(1)));
    }
}
