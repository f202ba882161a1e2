//! Worker windows: two nodes, two slots, a store that forgets, calls that are slow, lost or doubled, clocks that jump.
//!
//! One unit of time stands for the second of the service. A call is one step, or, as a fault, several: sent, executed, answered,
//! each at any later time or never. A paused node is one that does nothing for a while, which every node may. Every holder counts
//! as lapsed, since safety must not rest on that. The number of faults in a run is bounded; within that, the search is exhaustive.
//!
//! Exhaustive at two slots and two nodes: two faults out of calls, crashes and a memory that is lost, kept or rolled back; two out of calls, crashes and
//! clocks. At one slot: two faults of any kind (three, where there is time). Not in here: two stores that answer at the same time.
//!
//! What the model takes for granted is what profile *redis* cannot do without (`docs/protocols.md`):
//! - a holder whose grant was forgotten beyond the margin comes forward while the store settles, or stops issuing;
//! - a store that has lost more than the margin allows for is not also set back in time, and its clock does not jump ahead while
//!   it settles.

mod model;
mod search;

use numgen::store::{
    AcquireRequest, Acquired, Extension, Generation, Holding, Nonce, Renewed, Tenure,
    protocol::window::{Company, Contact, Holder, Marker, Next, Phase, Rest, ServerId, Slot, Slots, Terms},
};

const NODES: usize = 2;
const SETTLING: u64 = 1;
const MARGIN: u64 = 1;
const WINDOW: u64 = 3;

/// How long a master that its replica has left hands out nothing: a store comes apart for less.
const DESERTED: u64 = 2;

/// When a run begins: late enough for the store's clock to be set back.
const BEGIN: u64 = 3;

/// How far the store's clock jumps.
const JUMP: u64 = 2;

const TERMS: Terms = Terms {
    settling_ms: SETTLING,
    margin_ms: MARGIN,
    carry_limit_ms: 1,
    stale_ms: 0,
    deserted_ms: DESERTED,
    rest: Rest::UntilMarkHasPassed,
    without: None,
};

/// A run begins with a store that is empty, and has been for long; that it starts empty under way is a fault among others.
const SETTLED: Marker =
    Marker { generation: Generation(1), server: ServerId(1), since: 0, phase: Phase::Settled };

/// One bounded world.
#[derive(Clone)]
struct Windows {
    terms: Terms,
    slots: u32,
    /// When a run ends.
    end: u64,
    /// How many faults it may have.
    faults: u8,
    /// How many processes each node starts cleanly.
    names: u8,
    /// Which kinds of faults.
    kinds: &'static [Fault],
    /// What an old master is kept from.
    old: Old,
}

/// What keeps a master that was left behind from doing harm, beside the rules of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Old {
    /// No new holding counts that no replica has (`WAIT`), and no mark moves by more than the margin (a short time, or
    /// `min-replicas-to-write`).
    Kept,
    /// The latter only.
    DoesNotWait,
    /// The former only.
    MovesMarks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    /// A call is taken apart.
    Slow,
    /// A request is executed, and executed again later.
    Doubled,
    /// A process stops, and its RELEASE is executed later.
    LateRelease,
    /// A process dies, and another one starts in its place.
    Crash,
    /// The store is emptied under way.
    Flush,
    /// The store restarts with all that it had.
    Restart,
    /// The store restarts from what it had earlier, or a replica that lags is promoted.
    Rollback,
    /// The store's clock jumps ahead.
    Ahead,
    /// The store's clock is set back.
    Back,
    /// The replica is promoted, and the old master goes on: it believes to have the replica still, or knows that it has gone.
    Split,
    SplitOpenly,
    /// The same, of a replica that lags.
    SplitLagging,
}

/// Which store is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Here,
    /// At the master that was left behind.
    Behind,
}

const ALL: &[Fault] = &[
    Fault::Slow,
    Fault::Doubled,
    Fault::LateRelease,
    Fault::Crash,
    Fault::Flush,
    Fault::Restart,
    Fault::Rollback,
    Fault::Ahead,
    Fault::Back,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    time: u64,
    store: Slots,
    /// Its clock is this far from the time.
    offset: i64,
    set_back: bool,
    server: u64,
    /// How many servers there were.
    servers: u64,
    /// Names that were given to memories.
    memories: u64,
    /// How often the store had reason to begin another memory.
    losses: u64,
    /// What it had earlier.
    dump: Option<Slots>,
    /// The master that was left behind, as long as it answers.
    behind: Option<Master>,
    nodes: [Node; NODES],
    /// Requests whose sender no longer waits for them.
    astray: Vec<Request>,
    /// Timestamps that were issued, by slot, as bits.
    issued: [u64; 2],
    faults: u8,
    broken: Option<Breach>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Master {
    store: Slots,
    server: u64,
    company: Company,
    since: u64,
    /// What the other one was promoted with.
    promoted: Slots,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Breach {
    IssuedTwice,
    RanAhead,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    /// Counts the names that it has used.
    names: u8,
    holder: Holder,
    /// The store's clock, carried forward: so far ahead of the time.
    carried: Option<i64>,
    last: u64,
    call: Option<(u64, Place, Call)>,
}

/// A call that was taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Call {
    Sent(Request),
    Executed(Request, Answer),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Request {
    Acquire(Nonce),
    Renew(Holding, u64),
    Release(Holding, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Acquired(Acquired),
    Renewed(Renewed),
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Tick,
    /// Acquires or renews, all in one step.
    Ask(usize, Place),
    /// Stops cleanly; another process starts in its place.
    Stop(usize, Place),
    Fault(Fault, usize, Place),
    /// The store executes the call of a node, or a request that went astray.
    Execute(usize),
    ExecuteAstray(usize, Place),
    Receive(usize),
    GiveUp(usize),
    SaveDump,
    /// The old master is given up.
    Reunite,
    /// The new one is lost, and the old one is promoted again.
    FallBack,
}

impl Node {
    fn starting(node: usize, names: u8) -> Self {
        Self { names, holder: Holder::new(name(node, names)), carried: None, last: 0, call: None }
    }

    fn clock(&self, time: u64) -> u64 {
        time.saturating_add_signed(self.carried.unwrap_or(0))
    }

    fn learn(&mut self, seen: u64, time: u64) {
        let ahead = i64::try_from(seen).expect("small") - i64::try_from(time).expect("small");
        self.carried = Some(self.carried.map_or(ahead, |carried| carried.max(ahead)));
    }
}

fn name(node: usize, count: u8) -> Nonce {
    let mut name = [0; 16];
    (name[0], name[1]) = (node as u8 + 1, count);
    Nonce(name)
}

impl World {
    fn now(&self) -> u64 {
        self.time.saturating_add_signed(self.offset)
    }

    /// `None`: there is no such store, or a world that is left out.
    fn execute(&mut self, model: &Windows, request: &Request, place: Place) -> Option<Answer> {
        match place {
            Place::Here => Some(self.execute_by(model, request, Company::Alone)),
            Place::Behind => {
                let master = self.behind.take()?;
                self.swap(master, |world, master| {
                    let answer = world.execute_by(model, request, master.company);
                    let goes_on = |(id, slot): (&u32, &Slot)| {
                        let promoted = master.promoted.slots.get(id).map_or(0, |slot| slot.mark);
                        matches!(request, Request::Renew(..)) && slot.mark > promoted + MARGIN
                    };
                    if model.old != Old::MovesMarks && world.store.slots.iter().any(goes_on) {
                        return None;
                    }
                    let is_confirmed = master.company == Company::Alone || model.old == Old::DoesNotWait;
                    match answer {
                        Answer::Acquired(Acquired::Held(_)) if !is_confirmed => Some(Answer::Nothing),
                        Answer::Acquired(_) | Answer::Renewed(_) | Answer::Nothing => Some(answer),
                    }
                })
            }
        }
    }

    /// Does something with the old master in the place of the store.
    fn swap<T>(&mut self, mut master: Master, work: impl FnOnce(&mut Self, &Master) -> T) -> T {
        std::mem::swap(&mut self.store, &mut master.store);
        std::mem::swap(&mut self.server, &mut master.server);
        let answer = work(self, &master);
        std::mem::swap(&mut self.store, &mut master.store);
        std::mem::swap(&mut self.server, &mut master.server);
        self.behind = Some(master);
        answer
    }

    fn execute_by(&mut self, model: &Windows, request: &Request, company: Company) -> Answer {
        let Windows { terms, slots, .. } = model;
        self.memories += 1;
        let (now, server) = (self.now(), ServerId(self.server));
        let contact = Contact { now, presence_ms: 0, server, company, fresh: Generation(self.memories) };
        let before = self.store.marker;
        let answer = match request {
            Request::Acquire(nonce) => {
                let request = AcquireRequest {
                    nonce: *nonce,
                    slots: 0..*slots,
                    window_ms: WINDOW,
                    ttl_ms: 0,
                    tenure: Tenure::Lease,
                };
                Answer::Acquired(self.store.acquire(terms, &request, &contact))
            }
            Request::Renew(holding, carried) => {
                let mark = |world: &Self| world.store.slots.get(&holding.slot).map_or(0, |slot| slot.mark);
                let before = mark(self).max(holding.mark);
                let extension =
                    Extension { carried: *carried, window_ms: WINDOW, ttl_ms: 0, tenure: Tenure::Lease };
                let renewed = self.store.renew(terms, holding, &extension, &contact);
                if mark(self) > before.max(carried + TERMS.carry_limit_ms + WINDOW) {
                    self.broken = Some(Breach::RanAhead);
                }
                Answer::Renewed(renewed)
            }
            Request::Release(holding, last) => {
                self.store.release(terms, holding, *last, &contact);
                Answer::Nothing
            }
        };
        if self.store.marker.map(|marker| marker.generation) == before.map(|marker| marker.generation) {
            // The name was not needed: worlds that differ in nothing else are one.
            self.memories -= 1;
        }
        answer
    }

    fn receive(&mut self, terms: &Terms, node: usize, request: &Request, answer: Answer, age: u64) {
        let time = self.time;
        let me = &mut self.nodes[node];
        let next = name(node, me.names + 1);
        let (learned, next) = match (request, answer) {
            (Request::Acquire(nonce), Answer::Acquired(acquired)) => {
                let next = me.holder.acquired(terms, *nonce, acquired, age);
                if let Next::Issue(holding) = next {
                    me.last = 0;
                    me.learn(holding.now.max(holding.start), time);
                }
                (None, next)
            }
            (Request::Renew(holding, _), Answer::Renewed(renewed)) => {
                (Some(()), me.holder.renewed(terms, holding, renewed, age, next))
            }
            _ => (None, Next::Ignore),
        };
        match next {
            Next::Issue(holding) if learned.is_some() => {
                me.learn(holding.now.min(me.clock(time) + TERMS.carry_limit_ms), time);
            }
            Next::Stop => me.names += 1,
            Next::Issue(_) | Next::Ignore => {}
        }
    }

    fn send_astray(&mut self, request: Request) {
        self.astray.push(request);
        self.astray.sort_unstable_by_key(|request| format!("{request:?}"));
    }

    /// What the node would ask for next.
    fn question(&self, node: usize) -> Request {
        let me = &self.nodes[node];
        match me.holder.held() {
            Some(holding) => Request::Renew(holding, me.clock(self.time)),
            None => Request::Acquire(me.holder.nonce()),
        }
    }

    /// The next timestamp that the node may issue.
    fn issuable(&self, node: usize) -> Option<(u32, u64)> {
        let me = &self.nodes[node];
        let held = me.holder.held()?;
        // Never ahead of the clock: what the service allows there (50 ms) is nothing beside the settling.
        let timestamp = me.clock(self.time);
        let is_free = timestamp > me.last.max(held.start) && timestamp <= held.mark;
        is_free.then_some((held.slot, timestamp))
    }

    /// Every node issues whenever it can: nothing is harder on the others.
    fn issue(&mut self) {
        for node in 0..NODES {
            if let Some((slot, timestamp)) = self.issuable(node) {
                let bits = &mut self.issued[slot as usize];
                if *bits >> timestamp & 1 == 1 {
                    self.broken = Some(Breach::IssuedTwice);
                }
                *bits |= 1 << timestamp;
                self.nodes[node].last = timestamp;
            }
        }
    }

    /// Whether the store would be settled at `now`, though somebody whose grant it has forgotten has not come forward.
    fn leaves_somebody_behind(&self, now: u64) -> bool {
        let Some(marker) = self.store.marker else { return false };
        let settles = marker.phase == Phase::Settling && now.saturating_sub(marker.since) >= SETTLING;
        settles
            && self.nodes.iter().filter_map(|node| node.holder.held()).any(|held| {
                let is_known = self.store.slots.get(&held.slot).is_some_and(|slot| {
                    slot.owner == Some(held.nonce)
                        && slot.fence == held.fence
                        && slot.mark + MARGIN >= held.mark
                });
                held.mark >= now && !is_known
            })
    }

    fn is_settling(&self) -> bool {
        let unsettled = |marker: Marker| {
            marker.phase == Phase::Settling && self.now().saturating_sub(marker.since) < SETTLING
        };
        self.store.marker.is_none_or(unsettled)
    }

    /// The server is another one from now on.
    fn restarts(&mut self) {
        self.servers += 1;
        self.server = self.servers;
    }

    /// Who can be asked.
    fn places(&self) -> impl Iterator<Item = Place> + use<> {
        [Place::Here].into_iter().chain(self.behind.is_some().then_some(Place::Behind))
    }

    /// Whether everybody who holds something has met the server that would be left behind, as it is now: they renew every second.
    fn can_come_apart(&self) -> bool {
        let Some(marker) = self.store.marker.filter(|marker| marker.server.0 == self.server) else {
            return false;
        };
        let mut held = self.nodes.iter().filter_map(|node| node.holder.held());
        self.behind.is_none() && held.all(|held| held.generation == marker.generation)
    }

    /// A replica takes over, and the old master goes on. Somebody was in touch with it just before.
    fn split(&mut self, promoted: Slots, company: Company) {
        let now = self.now();
        let mut store = std::mem::replace(&mut self.store, promoted.clone());
        store.followed = store.marker.map(|marker| (marker.generation, now));
        self.store.followed = store.followed;
        self.behind = Some(Master { store, server: self.server, company, since: self.time, promoted });
        self.restarts();
        self.losses += 1;
    }

    /// What was on its way to a store that is gone arrives nowhere.
    fn lose_calls(&mut self, place: Place) {
        for node in &mut self.nodes {
            match &mut node.call {
                Some((_, at, Call::Sent(_))) if *at == place => node.call = None,
                Some((_, at, _)) => *at = Place::Here,
                None => {}
            }
        }
    }

    fn reunite(&mut self) {
        self.behind = None;
        self.lose_calls(Place::Behind);
    }

    fn fall_back(&mut self) {
        if let Some(master) = self.behind.take() {
            self.lose_calls(Place::Here);
            self.store = master.store;
            self.restarts();
            self.losses += 1;
        }
    }

    fn restart(&mut self, node: usize) {
        if let Some((_, Place::Here, Call::Sent(request))) = self.nodes[node].call.take() {
            self.send_astray(request);
        }
        self.nodes[node] = Node::starting(node, self.nodes[node].names + 1);
    }
}
