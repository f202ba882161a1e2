//! An authority in this process, a network that loses what it is told to lose, and a disk.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{broadcast, watch},
    time::{Instant, sleep},
};

use super::{AuthorityLink, Closed, GrantLink, Lot, PinOutcome, Shown};
use crate::{
    calendar::Period,
    counter::{Counter, Ranges, SequenceValue, ValueRange},
    prefix_key::PrefixKey,
    store::{
        Claim, Reachable, StoreError, StoreFuture, Taken,
        draw::Record,
        protocol::{
            counter::{
                Abandon, Abandoned, Advance, Authority, Fenced, Generation, Incarnation, Instance, Marker,
                Outcome, Reply, Stride, Take,
            },
            grant::{Draw, Drawn, Granted, Line, Need, Raised, Recipient, Standing, State},
        },
        segments::{Kept, SegmentStore},
    },
};

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// Carries.
    Whole,
    /// Has no connection, and knows it.
    Down,
    /// Swallows replies: what was sent is done all the same.
    Deaf,
    /// Swallows what is sent.
    BlackHole,
}

/// What a store keeps; copied to save it.
#[derive(Clone, Default)]
pub(super) struct Memory {
    pub(super) counters: BTreeMap<String, (Counter, Option<Authority>)>,
    pub(super) marker: Option<Marker>,
    /// Of the lists, which lie elsewhere.
    list_marker: Option<Marker>,
    /// Of each prefix key: the lowest scheme that may still draw, and the counters on its list.
    pub(super) lists: BTreeMap<PrefixKey, (u64, BTreeMap<Period, Counter>)>,
}

/// The store.
pub(super) struct Server {
    pub(super) memory: Mutex<Memory>,
    replid: AtomicUsize,
    randomness: AtomicUsize,
    began: Instant,
    swaps: broadcast::Sender<String>,
    pub(super) calls: AtomicUsize,
}

impl Server {
    /// A store that has been there for a while.
    pub(super) fn new() -> Arc<Self> {
        let marker =
            Marker { generation: Generation(1), replid: 0, since: 0, settled: true, alive: 0, lacks_ms: 0 };
        Arc::new(Self {
            memory: Mutex::new(Memory {
                marker: Some(marker),
                list_marker: Some(marker),
                ..Memory::default()
            }),
            replid: AtomicUsize::new(0),
            randomness: AtomicUsize::new(1),
            began: Instant::now(),
            swaps: broadcast::Sender::new(1_000),
            calls: AtomicUsize::new(0),
        })
    }

    pub(super) fn now_ms(&self) -> u64 {
        1_000_000 + u64::try_from(self.began.elapsed().as_millis()).expect("not for so long")
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no panic")
    }

    /// Starts again with this.
    pub(super) fn restart(&self, memory: Memory) {
        *self.memory() = memory;
        self.replid.fetch_add(1, Ordering::SeqCst);
    }

    /// Where the lists are it starts again, with nothing.
    pub(super) fn lose_lists(&self) {
        let memory = &mut *self.memory();
        (memory.lists, memory.list_marker) = (BTreeMap::new(), None);
    }

    /// The server before all restarts is there again, with this.
    pub(super) fn come_back(&self, memory: Memory) {
        *self.memory() = memory;
        self.replid.store(0, Ordering::SeqCst);
    }

    /// A counter as it stands.
    pub(super) fn counter(&self, counter: &Counter) -> Authority {
        self.memory()
            .counters
            .get(&counter.to_string())
            .and_then(|(_, slot)| slot.clone())
            .expect("a counter")
    }

    fn fresh(&self) -> Generation {
        Generation(1 + self.randomness.fetch_add(1, Ordering::SeqCst) as u64)
    }

    fn on<T>(
        &self,
        counter: &Counter,
        work: impl FnOnce(&mut Option<Authority>, &mut Option<Marker>, u64, Generation) -> T,
    ) -> T {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let fresh = self.fresh();
        let replid = self.replid.load(Ordering::SeqCst) as u64;
        let memory = &mut *self.memory();
        let (_, slot) = memory.counters.entry(counter.to_string()).or_insert_with(|| (counter.clone(), None));
        work(slot, &mut memory.marker, replid, fresh)
    }

    fn take(&self, counter: &Counter, take: &Take) -> Reply {
        let now = self.now_ms();
        let reply = self.on(counter, |slot, marker, replid, fresh| {
            Authority::serve(slot, marker, replid, now, fresh, take)
        });
        if let Reply::Taken { outcome: Outcome::Blocked { .. }, .. } = &reply {
            let _nobody = self.swaps.send(counter.to_string());
        }
        reply
    }
}

/// One node's way to the store.
pub(super) struct Link {
    pub(super) server: Arc<Server>,
    network: Mutex<Network>,
    reachable: watch::Sender<Reachable>,
    /// How long a message takes, both ways together.
    pub(super) latency: Duration,
}

impl Link {
    pub(super) fn to(server: &Arc<Server>) -> Arc<Self> {
        Arc::new(Self {
            server: Arc::clone(server),
            network: Mutex::new(Network::Whole),
            reachable: watch::Sender::new(Reachable::Yes),
            latency: Duration::from_micros(100),
        })
    }

    pub(super) fn set(&self, network: Network) {
        *self.network.lock().expect("no panic") = network;
        self.reachable.send_replace(match network {
            Network::Whole => Reachable::Yes,
            Network::Down => Reachable::No { since: Duration::ZERO, reason: "down".into() },
            Network::Deaf | Network::BlackHole => return,
        });
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        deadline: Duration,
        work: impl FnOnce() -> T,
    ) -> Result<T, StoreError> {
        let network = || *self.network.lock().expect("no panic");
        let late = StoreError::Timeout { store: "fake", operation };
        match network() {
            Network::Down => {
                sleep(deadline).await;
                return Err(StoreError::Unavailable { store: "fake", operation, source: "down".into() });
            }
            Network::BlackHole => {
                sleep(deadline).await;
                return Err(late);
            }
            Network::Whole | Network::Deaf => {}
        }
        sleep(self.latency / 2).await;
        let reply = work();
        sleep(self.latency / 2).await;
        if network() == Network::Whole {
            return Ok(reply);
        }
        sleep(deadline).await;
        Err(late)
    }
}

impl AuthorityLink for Link {
    fn store(&self) -> &'static str {
        "fake"
    }

    fn take<'a>(
        &'a self,
        counter: &'a Counter,
        take: &'a Take,
        deadline: Duration,
    ) -> StoreFuture<'a, Reply> {
        Box::pin(self.call("take", deadline, || self.server.take(counter, take)))
    }

    fn pin<'a>(
        &'a self,
        _counter: &'a Counter,
        _claim: &'a Claim,
        moved: Option<u64>,
        deadline: Duration,
    ) -> StoreFuture<'a, PinOutcome> {
        // Each counter of the tests has its own keys: a pin is where it is wished to be.
        let turn = moved.unwrap_or(0) + 1;
        if *self.network.lock().expect("no panic") == Network::Deaf {
            // What is tested are the replies of the counter.
            return Box::pin(std::future::ready(Ok(PinOutcome::Draw { turn })));
        }
        Box::pin(self.call("pin", deadline, move || PinOutcome::Draw { turn }))
    }

    fn enlist<'a>(&'a self, counter: &'a Counter, scheme: u64, deadline: Duration) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let is_open = self.call("enlist", deadline, || {
                let memory = &mut *self.server.memory();
                let (lowest, list) = memory.lists.entry(counter.key.clone()).or_default();
                list.insert(counter.period.clone(), counter.clone());
                let is_open = scheme >= *lowest;
                if is_open {
                    *lowest = scheme;
                }
                is_open
            });
            let superseded = StoreError::Superseded { store: "fake", operation: "enlist" };
            if is_open.await? { Ok(()) } else { Err(superseded) }
        })
    }

    fn close<'a>(&'a self, key: &'a PrefixKey, scheme: u64, deadline: Duration) -> StoreFuture<'a, Closed> {
        Box::pin(self.call("close", deadline, move || {
            let now = self.server.now_ms();
            let replid = self.server.replid.load(Ordering::SeqCst) as u64;
            let fresh = self.server.fresh();
            let memory = &mut *self.server.memory();
            let instance = Instance::look(&mut memory.list_marker, replid, now, fresh);
            let (lowest, list) = memory.lists.entry(key.clone()).or_default();
            *lowest = scheme.max(*lowest);
            if instance.is_settled() {
                Closed::Listed(list.values().cloned().collect())
            } else {
                Closed::Settling { wait_ms: instance.settling_ms }
            }
        }))
    }

    fn fence<'a>(&'a self, counter: &'a Counter, scheme: u64, deadline: Duration) -> StoreFuture<'a, Fenced> {
        Box::pin(self.call("fence", deadline, move || {
            let now = self.server.now_ms();
            self.server.on(counter, |slot, marker, replid, fresh| {
                Authority::fence(slot, marker, replid, now, fresh, scheme)
            })
        }))
    }

    fn show<'a>(&'a self, key: &'a PrefixKey, deadline: Duration) -> StoreFuture<'a, Vec<Shown>> {
        Box::pin(self.call("show", deadline, || {
            let now_ms = self.server.now_ms();
            let memory = self.server.memory();
            let of_key = memory.counters.values().filter(|(counter, _)| counter.key == *key);
            of_key
                .filter_map(|(counter, slot)| {
                    Some(Shown { period: counter.period.clone(), now_ms, counter: slot.clone()? })
                })
                .collect()
        }))
    }

    fn advance<'a>(
        &'a self,
        counter: &'a Counter,
        to: SequenceValue,
        stride: Stride,
        deadline: Duration,
    ) -> StoreFuture<'a, Advance> {
        Box::pin(self.call("advance", deadline, move || {
            let now = self.server.now_ms();
            let answer = self.server.on(counter, |slot, marker, replid, fresh| {
                let counter = Authority::in_force(slot, marker, replid, now, fresh);
                counter.map_or(Advance::Unknown, |counter| counter.advance(to, stride, now))
            });
            if matches!(answer, Advance::Held { alive: true, .. }) {
                let _nobody = self.server.swaps.send(counter.to_string());
            }
            answer
        }))
    }

    fn abandon<'a>(
        &'a self,
        counter: &'a Counter,
        what: &'a Abandon,
        deadline: Duration,
    ) -> StoreFuture<'a, Abandoned> {
        Box::pin(self.call("abandon", deadline, move || {
            let now = self.server.now_ms();
            self.server.on(counter, |slot, marker, replid, fresh| {
                let counter = Authority::in_force(slot, marker, replid, now, fresh);
                counter.map_or(Abandoned::Unknown, |counter| counter.abandon(what, now))
            })
        }))
    }

    fn marker(&self, _counter: &Counter) -> String {
        "marker".to_owned()
    }

    fn list_marker(&self, _key: &PrefixKey) -> String {
        "list".to_owned()
    }

    fn cursor<'a>(
        &'a self,
        counter: &'a Counter,
        deadline: Duration,
    ) -> StoreFuture<'a, Option<SequenceValue>> {
        Box::pin(self.call("cursor", deadline, move || {
            let memory = self.server.memory();
            let (_, slot) = memory.counters.get(&counter.to_string())?;
            Some(slot.as_ref()?.cursor)
        }))
    }

    fn look<'a>(&'a self, marker: &'a str, deadline: Duration) -> StoreFuture<'a, Generation> {
        Box::pin(self.call("look", deadline, move || {
            let now = self.server.now_ms();
            let replid = self.server.replid.load(Ordering::SeqCst) as u64;
            let fresh = self.server.fresh();
            let memory = &mut *self.server.memory();
            let marker = if marker == "list" { &mut memory.list_marker } else { &mut memory.marker };
            let generation = Instance::look(marker, replid, now, fresh).generation;
            marker.iter_mut().for_each(|marker| marker.note_look(now));
            generation
        }))
    }

    fn reachable(&self) -> watch::Receiver<Reachable> {
        self.reachable.subscribe()
    }

    fn swaps(&self) -> broadcast::Receiver<String> {
        self.server.swaps.subscribe()
    }
}

/// A disk: what was written stays, also after the process.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) rows: Mutex<HashMap<Counter, Kept>>,
    pub(super) is_broken: AtomicBool,
    pub(super) writes: AtomicUsize,
    pub(super) left: Mutex<Vec<(Counter, Incarnation)>>,
}

impl Disk {
    pub(super) fn row(&self, counter: &Counter) -> Option<Kept> {
        self.rows.lock().expect("no panic").get(counter).cloned()
    }
}

impl SegmentStore for Disk {
    fn held(&self) -> StoreFuture<'_, Vec<Kept>> {
        let rows = self.rows.lock().expect("no panic");
        let held = rows.values().filter(|kept| kept.state.segment.is_some()).cloned().collect();
        Box::pin(std::future::ready(Ok(held)))
    }

    fn kept<'a>(&'a self, counter: &'a Counter) -> StoreFuture<'a, Option<Kept>> {
        Box::pin(async move {
            // As a real one does, it lets others come in between.
            tokio::task::yield_now().await;
            Ok(self.row(counter))
        })
    }

    fn keep(&self, rows: Vec<Kept>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            sleep(Duration::from_millis(1)).await;
            if self.is_broken.load(Ordering::SeqCst) {
                return Err(StoreError::Timeout { store: "disk", operation: "keep" });
            }
            self.writes.fetch_add(1, Ordering::SeqCst);
            self.rows
                .lock()
                .expect("no panic")
                .extend(rows.into_iter().map(|row| (row.counter.clone(), row)));
            Ok(())
        })
    }

    fn resting(&self) -> StoreFuture<'_, Vec<Counter>> {
        let rows = self.rows.lock().expect("no panic");
        let resting = rows.values().filter(|kept| kept.state.segment.is_none());
        Box::pin(std::future::ready(Ok(resting.map(|kept| kept.counter.clone()).collect())))
    }

    fn highest<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, SequenceValue> {
        let rows = self.rows.lock().expect("no panic");
        let of_key = rows.values().filter(|kept| kept.counter.key == *key);
        let highest = of_key.map(|kept| kept.state.highest()).max().unwrap_or_default();
        Box::pin(std::future::ready(Ok(highest)))
    }

    fn pass_on(&self, passed: Vec<Kept>) -> StoreFuture<'_, ()> {
        let mut rows = self.rows.lock().expect("no panic");
        for row in passed {
            let known = rows.get_mut(&row.counter).filter(|known| {
                let speaks =
                    known.incarnation == row.incarnation || row.ancestors.last() == Some(&known.incarnation);
                speaks && known.state.segment.is_none()
            });
            if let Some(known) = known {
                *known = row;
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn left(&self, gone: Vec<(Counter, Incarnation)>) -> StoreFuture<'_, ()> {
        self.left.lock().expect("no panic").extend(gone);
        Box::pin(std::future::ready(Ok(())))
    }

    fn prune(&self, _: Duration, _: u32) -> StoreFuture<'_, u64> {
        Box::pin(std::future::ready(Ok(0)))
    }
}

/// Who grants values of one counter to the authorities of several data centres.
pub(super) struct Bank {
    pub(super) line: Mutex<Line>,
    /// The generations of which it has heard, in their order, by data centre.
    heard: Mutex<Vec<Recipient>>,
    pub(super) returned: Mutex<Vec<ValueRange>>,
    keys: Mutex<HashMap<Arc<str>, Record>>,
    pub(super) fetches: AtomicUsize,
}

impl Bank {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            line: Mutex::default(),
            heard: Mutex::default(),
            returned: Mutex::default(),
            keys: Mutex::default(),
            fetches: AtomicUsize::new(0),
        })
    }
}

/// The way of one data centre there.
pub(super) struct Teller {
    pub(super) bank: Arc<Bank>,
    datacenter: u32,
    network: Mutex<Network>,
    reachable: watch::Sender<Reachable>,
}

impl Teller {
    pub(super) fn of(bank: &Arc<Bank>, datacenter: u32) -> Arc<Self> {
        let (network, reachable) = (Mutex::new(Network::Whole), watch::Sender::new(Reachable::Yes));
        Arc::new(Self { bank: Arc::clone(bank), datacenter, network, reachable })
    }

    pub(super) fn set(&self, network: Network) {
        *self.network.lock().expect("no panic") = network;
        self.reachable.send_replace(match network {
            Network::Down => Reachable::No { since: Duration::ZERO, reason: "down".into() },
            Network::Whole | Network::Deaf | Network::BlackHole => Reachable::Yes,
        });
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        deadline: Duration,
        work: impl FnOnce(&mut Line) -> T,
    ) -> Result<T, StoreError> {
        let network = *self.network.lock().expect("no panic");
        sleep(Duration::from_millis(2)).await;
        match network {
            Network::Whole => Ok(work(&mut self.bank.line.lock().expect("no panic"))),
            Network::Deaf => {
                work(&mut self.bank.line.lock().expect("no panic"));
                sleep(deadline).await;
                Err(StoreError::Timeout { store: "bank", operation })
            }
            Network::BlackHole => {
                sleep(deadline).await;
                Err(StoreError::Timeout { store: "bank", operation })
            }
            Network::Down => Err(StoreError::Unavailable { store: "bank", operation, source: "down".into() }),
        }
    }
}

impl GrantLink for Teller {
    fn fetch<'a>(
        &'a self,
        _counter: &'a Counter,
        _marker: &'a str,
        need: &'a Need,
        deadline: Duration,
    ) -> StoreFuture<'a, Granted> {
        Box::pin(self.call("fetch", deadline, |line| {
            self.bank.fetches.fetch_add(1, Ordering::SeqCst);
            let to = Recipient { datacenter: self.datacenter, generation: need.generation };
            let mut heard = self.bank.heard.lock().expect("no panic");
            if !heard.contains(&to) {
                heard.push(to);
            }
            let last = heard.iter().rfind(|known| known.datacenter == self.datacenter);
            let standing = if last == Some(&to) { Standing::Present } else { Standing::Over };
            let latest = line.rows.iter().filter(|row| row.to == to).map(|row| row.grant.id).max();
            line.fetch(to, standing, latest, 1, need)
        }))
    }

    fn draw<'a>(
        &'a self,
        _counter: &'a Counter,
        draw: &'a Draw,
        deadline: Duration,
    ) -> StoreFuture<'a, Option<Drawn>> {
        Box::pin(self.call("draw", deadline, |line| line.granted_to.map(|_| line.draw(draw))))
    }

    fn give_back<'a>(
        &'a self,
        _counter: &'a Counter,
        values: &'a [ValueRange],
        deadline: Duration,
    ) -> StoreFuture<'a, ()> {
        Box::pin(self.call("give_back", deadline, move |_line| {
            self.bank.returned.lock().expect("no panic").extend(values);
        }))
    }

    fn retire<'a>(
        &'a self,
        _key: &'a PrefixKey,
        scheme: u64,
        deadline: Duration,
    ) -> StoreFuture<'a, SequenceValue> {
        Box::pin(self.call("retire", deadline, move |line| {
            line.scheme = scheme.max(line.scheme);
            line.granted_to.unwrap_or_default()
        }))
    }

    fn raise<'a>(
        &'a self,
        _counter: &'a Counter,
        to: SequenceValue,
        deadline: Duration,
    ) -> StoreFuture<'a, Raised> {
        Box::pin(self.call("raise", deadline, move |line| line.raise(self.datacenter, to)))
    }

    fn remember(&self, claim: Claim, values: Ranges) -> StoreFuture<'_, Taken> {
        Box::pin(self.call("remember", Duration::from_secs(1), move |_line| {
            let mut keys = self.bank.keys.lock().expect("no panic");
            let known = keys.get(&claim.scoped_key).and_then(|record| record.answer(&claim));
            known.unwrap_or_else(|| {
                keys.insert(claim.scoped_key.clone(), Record::of(&claim, values.clone()));
                Taken::Fresh(values)
            })
        }))
    }

    fn recall(&self, claim: Claim) -> StoreFuture<'_, Option<Taken>> {
        Box::pin(self.call("recall", Duration::from_secs(1), move |_line| {
            let keys = self.bank.keys.lock().expect("no panic");
            keys.get(&claim.scoped_key).and_then(|record| record.answer(&claim))
        }))
    }

    fn lots<'a>(&'a self, _key: &'a PrefixKey, deadline: Duration) -> StoreFuture<'a, Vec<Lot>> {
        Box::pin(self.call("lots", deadline, |line| {
            let others = line.rows.iter().filter(|row| row.to.datacenter != self.datacenter);
            let own = line.rows.iter().filter(|row| row.to.datacenter == self.datacenter);
            let left = own.filter_map(|row| match row.state {
                State::Closed { remainder } => remainder.map(|range| (range, 0)),
                State::Open | State::Used => None,
            });
            let of = |state| others.clone().filter(move |row| row.state == state);
            vec![Lot {
                period: Period::new("2026"),
                elsewhere: of(State::Used).map(|row| row.grant.range).collect(),
                held: of(State::Open).map(|row| (row.to.datacenter, row.grant.range)).collect(),
                left: left.collect(),
                drawn: line.drawn.iter().map(|(_, range)| *range).collect(),
                returned: Vec::new(),
            }]
        }))
    }

    fn reachable(&self) -> watch::Receiver<Reachable> {
        self.reachable.subscribe()
    }
}
