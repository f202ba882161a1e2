//! Grants: one line of numbers, two nodes, each with a Redis of its own or both with one; Redis that restart empty or from an old dump,
//! or come apart; processes that die; messages to Redis and to PostgreSQL that are slow, lost or doubled.
//!
//! `Line`, `Book`, `Authority` and `Node` are those of the service; what drives them is as `store/counters/grants.rs` does it. What is
//! bounded in a run is how many values are asked for, how many faults happen, and how many calls a process makes of its Redis ([`CALLS`]). PostgreSQL is away as long as nobody fetches, which every node may
//! do; a Redis is away as long as nobody speaks to it. The search ends by itself.
//!
//! Taken for granted (`docs/protocols.md`): PostgreSQL forgets nothing; a Redis that has issued values before there were grants is the first to be
//! granted some, and has forgotten nothing by then.

mod model;
mod search;

use std::collections::BTreeMap;

use numgen::{
    counter::{SequenceValue, ValueRange},
    store::protocol::{
        counter::{
            Ask, Authority, Fenced, Generation, Generations, Heard, Incarnation, Limits, Marker, Node,
            NodeState, Outcome, Reply, SETTLING_MS, Take, Wants,
        },
        grant::{Book, Draw, Drawn, Grant, Granted, Line, Need, Recipient, Rows, Standing, State},
    },
};

const NODES: usize = 2;
const RULE: Limits =
    Limits { base: SequenceValue(0), floor: SequenceValue(0), max: SequenceValue::MAX, scheme: 0 };
const NOW: u64 = 1_000_000_000;
/// How many calls to Redis a process makes at most.
const CALLS: u64 = 5;
/// Values of a grant.
const SIZE: u64 = 2;

/// What the invariants rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// A message keeps to grants of the generation that it speaks of.
    MatchGeneration,
    /// A grant is for one generation.
    FreshGrant,
    /// Grants begin above everything that was granted.
    AboveGranted,
    /// The first grant begins above what was issued before.
    AboveKnown,
    /// Segments lie inside grants.
    SegmentsInside,
    /// What is drawn for once keeps its name until it is answered.
    RequestNames,
    /// Who asks for the grant after one gets what follows it already.
    Chain,
}

/// One bounded world.
#[derive(Clone)]
struct Grants {
    /// The data centre of each node.
    sites: [u32; NODES],
    /// How many values are asked for.
    values: u8,
    /// How many values the first Redis had issued before there were grants.
    before: u8,
    faults: u8,
    kinds: &'static [Fault],
    /// Values of a segment; 0: none.
    segment: u64,
    without: Option<Guard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    /// A message to Redis is executed at any time later.
    SlowTake,
    /// Its reply is lost.
    LostReply,
    /// A grant is heard of at any time later, or not at all.
    SlowGrant,
    /// It is asked for again later.
    DoubledNeed,
    /// A draw for once is not answered.
    LostDraw,
    /// A process dies; another one starts on its disk.
    Crash,
    /// A Redis is emptied under way, or restarts empty, or with what was saved.
    Flush,
    Empty,
    Rollback,
    /// Its replica, with all that it has or with what was saved, becomes a Redis of its own.
    Split,
    SplitLagging,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// PostgreSQL.
    line: Line,
    rows: Rows,
    over: Vec<Recipient>,
    servers: Vec<Redis>,
    saved: Option<Redis>,
    processes: [Process; NODES],
    flights: Vec<Flight>,
    /// What was issued, and by which draw for once.
    issued: BTreeMap<u64, Option<u128>>,
    /// Names that were given to generations, servers, processes and requests.
    generations: u64,
    replids: u64,
    starts: u128,
    requests: u128,
    values: u8,
    faults: u8,
    issued_twice: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Redis {
    site: u32,
    slot: Option<Authority>,
    marker: Option<Marker>,
    replid: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    node: Node,
    book: Book,
    /// Which Redis it talks to.
    server: usize,
    /// The generation in which it was served.
    joined: Option<Generation>,
    /// A draw that was not answered.
    unanswered: Option<Draw>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Flight {
    Take { server: usize, take: Box<Take>, is_granted: bool },
    Grants { incarnation: Incarnation, generation: Generation, granted: Run },
    Need { to: Recipient, need: Need },
}

/// As [`Granted`], where there are any.
type Run = Vec<Grant>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Speak(usize, u64),
    Fetch(usize),
    /// Draws straight from PostgreSQL.
    Draw(usize),
    /// Issues from the segment.
    Local(usize),
    /// So much time passes that a Redis settles.
    Settle(usize),
    GoOver(usize, usize),
    Save(usize),
    Arrive(usize),
    Fail(Fault, usize),
    Reply(Fault, usize, u64),
}

impl World {
    fn new(model: &Grants) -> Self {
        let redis = |site: u32| Redis {
            site,
            slot: None,
            marker: Some(Marker {
                generation: Generation(site.into()),
                replid: site.into(),
                since: NOW - SETTLING_MS,
                settled: true,
                alive: NOW,
                lacks_ms: 0,
            }),
            replid: site.into(),
        };
        let sites: std::collections::BTreeSet<_> = model.sites.into();
        let process = |node: usize| {
            let server = sites.iter().position(|site| *site == model.sites[node]).expect("its own");
            Process::starting(Incarnation(node as u128 + 1), server, NodeState::default(), Vec::new())
        };
        let mut world = Self {
            line: Line::default(),
            rows: Rows::new(),
            over: Vec::new(),
            servers: sites.iter().copied().map(redis).collect(),
            saved: None,
            processes: [process(0), process(1)],
            flights: Vec::new(),
            issued: BTreeMap::new(),
            generations: 2,
            replids: 2,
            starts: NODES as u128,
            requests: 0,
            values: model.values,
            faults: model.faults,
            issued_twice: false,
        };
        // There is no PostgreSQL yet.
        for count in [0, 0, u64::from(model.before)] {
            let take = world.processes[0].ask(RULE, count, 0);
            let reply = world.serve(model, 0, &take);
            world.hear(0, &take, reply, true);
        }
        world.fetch(model, 0, None).expect("a grant");
        world
    }

    // ----------------------------------------------------------------------------------------- Redis

    fn fresh(&self) -> Generation {
        Generation(self.generations + 1)
    }

    fn serve(&mut self, model: &Grants, server: usize, take: &Take) -> Reply {
        let fresh = self.fresh();
        let Redis { slot, marker, replid, .. } = &mut self.servers[server];
        let mut take = take.clone();
        if model.without == Some(Guard::SegmentsInside) && take.wants.is_some() && take.count == 0 {
            take.limits.max = SequenceValue::MAX;
        }
        let reply = Authority::serve(slot, marker, *replid, NOW, fresh, &take);
        self.generations += u64::from(marker.is_some_and(|marker| marker.generation == fresh));
        reply
    }

    fn terms(&self, model: &Grants, node: usize) -> Option<Limits> {
        let Process { node, book, joined, .. } = &self.processes[node];
        let generation = node.generation();
        let speaks_of =
            if model.without == Some(Guard::MatchGeneration) { book.generation() } else { generation };
        book.limits(speaks_of, RULE).filter(|_| generation.is_some() && *joined == generation)
    }

    /// What the node says next, and whether it may draw.
    fn ask(&mut self, model: &Grants, node: usize, count: u64) -> (Take, bool) {
        let limits = self.terms(model, node);
        let process = &mut self.processes[node];
        let nothing = Limits { max: SequenceValue(0), ..RULE };
        let take = match limits {
            Some(limits) => process.ask(limits, count, model.segment),
            None => process.ask(nothing, 0, 0),
        };
        (take, limits.is_some())
    }

    fn hear(&mut self, node: usize, take: &Take, reply: Reply, is_granted: bool) {
        let process = &mut self.processes[node];
        if take.incarnation != process.node.incarnation() {
            return;
        }
        let cursor = match &reply {
            Reply::Taken { cursor, .. } => *cursor,
            Reply::Recover { .. } | Reply::Stale => SequenceValue::default(),
        };
        let Heard::Served { outcome, write, .. } = process.node.hear(take, reply) else { return };
        process.joined = process.node.generation();
        process.book.pass(cursor);
        if let Some(write) = write.filter(|_| is_granted) {
            process.node.adopt(write);
        }
        match outcome {
            Outcome::Drawn(values) => values.into_iter().for_each(|range| self.issue(range, None)),
            Outcome::Overflow { .. } => {
                // Nothing was drawn: it may be asked for again.
                self.values += u8::try_from(take.count).expect("few");
                process.book.turn_page();
            }
            Outcome::Blocked { .. } => self.values += u8::try_from(take.count).expect("few"),
            Outcome::Superseded => {}
        }
    }

    fn issue(&mut self, range: ValueRange, request: Option<u128>) {
        for value in range.from.0..=range.to.0 {
            self.issued_twice |= self.issued.insert(value, request).is_some();
        }
    }

    // ------------------------------------------------------------------------------------ PostgreSQL

    /// What the node would ask PostgreSQL for.
    fn need(&mut self, model: &Grants, node: usize) -> Option<(Recipient, Need)> {
        let fresh = self.fresh();
        let process = &self.processes[node];
        let generation = process.node.generation().filter(|_| process.joined == process.node.generation())?;
        let Redis { site, slot, marker, replid } = &mut self.servers[process.server];
        let to = Recipient { datacenter: *site, generation };
        let cursor = process.node.seen().unwrap_or_default();
        let after = process.book.latest(generation);
        let mut known = cursor;
        if after.is_none() && model.without != Some(Guard::AboveKnown) {
            let fenced = Authority::fence(slot, marker, *replid, NOW, fresh, 0);
            self.generations += u64::from(marker.is_some_and(|marker| marker.generation == fresh));
            let Fenced::At(highest) = fenced else { return None };
            known = known.max(highest);
        }
        let process = &self.processes[node];
        let seen = match model.without {
            Some(Guard::AboveKnown | Guard::AboveGranted) => SequenceValue(0),
            _ => known.max(process.book.highest()).max(process.node.highest()),
        };
        Some((to, Need { generation, after, cursor, known, seen, limits: RULE, size: SIZE, count: 1 }))
    }

    /// As PostgreSQL does it: a step sees the grants that are open, and hears of generations.
    fn grant(&mut self, model: &Grants, to: Recipient, need: &Need) -> Run {
        let to = match model.without {
            Some(Guard::FreshGrant) => Recipient { generation: Generation(0), ..to },
            _ => to,
        };
        let standing = if self.over.contains(&to) { Standing::Over } else { Standing::Present };
        let latest = self.rows.iter().filter(|row| row.to == to).map(|row| row.grant.id).max();
        let followed: Vec<_> = self
            .rows
            .iter()
            .map(|row| row.to)
            .filter(|other| other.datacenter == to.datacenter && other.generation != to.generation)
            .filter(|other| standing == Standing::Present && !self.over.contains(other))
            .collect();
        self.line.rows = self.rows.iter().filter(|row| row.state == State::Open).cloned().collect();
        let granted_to = self.line.granted_to;
        if model.without == Some(Guard::AboveGranted) && latest.is_none() {
            self.line.granted_to = None;
        }
        let after = if model.without == Some(Guard::Chain) { latest } else { need.after };
        let granted = self.line.fetch(to, standing, latest, 2, &Need { after, ..*need });
        self.line.granted_to = self.line.granted_to.max(granted_to);
        for row in std::mem::take(&mut self.line.rows) {
            self.rows.retain(|known| known.grant.id != row.grant.id);
            self.rows.push(row);
        }
        self.over.extend(followed);
        self.over.dedup();
        match granted {
            Granted::Grants(grants) => grants,
            Granted::Exhausted | Granted::Superseded | Granted::Over => Vec::new(),
        }
    }

    /// A draw for once; one that was not answered is asked for again.
    fn draw(&mut self, model: &Grants, node: usize) -> Option<(Draw, ValueRange)> {
        let process = &self.processes[node];
        // Before the first grant PostgreSQL does not know what was issued.
        let is_known = self.line.grants > 0;
        let seen = process.node.highest().max(process.book.highest());
        let fresh = Draw { request: self.requests + 1, seen, limits: RULE, count: 1 };
        let keeps = model.without != Some(Guard::RequestNames);
        let draw = process.unanswered.filter(|_| keeps).unwrap_or(fresh);
        self.requests += u128::from(draw == fresh);
        let is_repeated = self.line.drawn.iter().any(|(request, _)| *request == draw.request);
        match self.line.draw(&draw) {
            Drawn::Values(range) if is_known || is_repeated => Some((draw, range)),
            Drawn::Values(_) | Drawn::Overflow { .. } | Drawn::Superseded => None,
        }
    }
}

impl Process {
    fn starting(
        incarnation: Incarnation,
        server: usize,
        left: NodeState,
        ancestors: Vec<Incarnation>,
    ) -> Self {
        let node = Node::new(incarnation, "n".into(), Generations::default(), left, ancestors);
        Self { node, book: Book::default(), server, joined: None, unanswered: None }
    }

    fn ask(&mut self, limits: Limits, count: u64, segment: u64) -> Take {
        self.node.ask(Ask {
            count,
            claims: Vec::new(),
            limits,
            wants: (segment > 0).then_some(Wants { size: segment }),
            next_beat_ms: 1_000,
            leaves: false,
            insists: false,
        })
    }
}
