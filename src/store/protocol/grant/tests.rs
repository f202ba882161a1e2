//! Two data centres on one line, each with its Redis; Redis restart with old memory, come apart, forget; nodes die, messages get lost.

use std::collections::BTreeMap;

use super::*;
use crate::store::protocol::counter::{
    Ask, Authority, Fenced, Generations, Heard, Incarnation, Marker, Node, NodeState, Outcome, Reply, Wants,
};

const SIZE: u64 = 3;
const RULE: Limits =
    Limits { base: SequenceValue(0), floor: SequenceValue(0), max: SequenceValue::MAX, scheme: 0 };

/// What the invariants rest on; a run without one of them must find the duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// A message keeps to grants of its own generation.
    MatchGeneration,
    /// Grants begin above everything that was granted.
    AboveGranted,
    /// The first grant begins above what was issued before.
    AboveKnown,
    /// Segments lie inside grants.
    SegmentsInside,
    /// What is drawn for once is drawn once for each request.
    RequestNames,
}

/// A server: what it remembers, and which it is.
#[derive(Clone)]
struct Redis {
    datacenter: u32,
    slot: Option<Authority>,
    marker: Option<Marker>,
    replid: u64,
}

struct Process {
    node: Node,
    book: Book,
    /// Which of the servers it talks to.
    server: usize,
    joined: Option<Generation>,
    /// A draw whose answer got lost.
    unanswered: Option<Draw>,
}

struct World {
    without: Option<Guard>,
    dice: u64,
    now: u64,
    names: u64,
    line: Line,
    rows: Rows,
    over: Vec<Recipient>,
    servers: Vec<Redis>,
    /// What the Redis of a data centre was copied to last.
    saved: BTreeMap<u32, Redis>,
    processes: Vec<Process>,
    /// What was issued, and by which draw for once.
    issued: BTreeMap<u64, Option<u128>>,
    duplicate: Option<u64>,
    /// There is no PostgreSQL yet: the Redis of the first data centre is on its own.
    is_young: bool,
}

impl World {
    fn new(seed: u64, without: Option<Guard>) -> Self {
        let redis = |datacenter| Redis { datacenter, slot: None, marker: None, replid: datacenter.into() };
        let mut world = Self {
            without,
            dice: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            now: 1_000_000,
            names: 100,
            line: Line::default(),
            rows: Rows::new(),
            over: Vec::new(),
            servers: vec![redis(1), redis(2)],
            saved: BTreeMap::from([(1, redis(1)), (2, redis(2))]),
            processes: Vec::new(),
            issued: BTreeMap::new(),
            duplicate: None,
            is_young: true,
        };
        for process in 0..3 {
            let process = world.start(process % 2, NodeState::default(), Vec::new());
            world.processes.push(process);
        }
        world
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) % sides
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn keeps(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    fn start(&mut self, server: usize, left: NodeState, before: Vec<Incarnation>) -> Process {
        let incarnation = Incarnation(self.name().into());
        let node = Node::new(incarnation, "n".to_owned(), Generations::default(), left, before);
        Process { node, book: Book::default(), server, joined: None, unanswered: None }
    }

    fn issue(&mut self, range: ValueRange, request: Option<u128>) {
        for value in range.from.0..=range.to.0 {
            match self.issued.insert(value, request) {
                Some(other) if other.is_none() || other != request => self.duplicate = Some(value),
                _ => {}
            }
        }
    }

    /// One message of a process; the reply may get lost.
    fn speak(&mut self, index: usize, count: u64) {
        let is_lost = self.roll(5) == 0;
        let match_generation = self.keeps(Guard::MatchGeneration);
        let segments_inside = self.keeps(Guard::SegmentsInside);
        let fresh = Generation(self.name());
        let process = &mut self.processes[index];
        let generation = process.node.generation();
        let limits = if match_generation {
            process.book.limits(generation, RULE)
        } else {
            process.book.limits(process.book.generation(), RULE)
        };
        let limits = limits.filter(|_| process.joined.is_some() && process.joined == generation);
        let limits = limits.or_else(|| self.is_young.then_some(RULE));
        let is_granted = limits.is_some();
        let limits = limits.unwrap_or(Limits { max: SequenceValue(0), ..RULE });
        let (count, wants) = if is_granted { (count, Some(Wants { size: SIZE })) } else { (0, None) };
        let repeats = process.node.has_pending_call();
        let ask = Ask {
            count,
            claims: Vec::new(),
            limits,
            wants,
            next_beat_ms: 500,
            leaves: false,
            insists: false,
        };
        let take = process.node.ask(ask);
        let redis = &mut self.servers[process.server];
        let mut served = take.clone();
        if !segments_inside && is_granted && take.count == 0 {
            served.limits.max = SequenceValue::MAX;
        }
        let reply =
            Authority::serve(&mut redis.slot, &mut redis.marker, redis.replid, self.now, fresh, &served);
        if is_lost {
            return;
        }
        let cursor = match &reply {
            Reply::Taken { cursor, .. } => Some(*cursor),
            Reply::Recover { .. } | Reply::Stale => None,
        };
        let Heard::Served { outcome, write, .. } = process.node.hear(&take, reply) else { return };
        process.joined = process.node.generation();
        process.book.pass(cursor.unwrap_or_default());
        if let Some(write) = write.filter(|_| is_granted) {
            process.node.adopt(write);
        }
        match outcome {
            // A call that is repeated was given up by its callers.
            Outcome::Drawn(values) if repeats => process.node.hand_back(values),
            Outcome::Drawn(values) => values.into_iter().for_each(|range| self.issue(range, None)),
            Outcome::Overflow { .. } if is_granted && !self.is_young => {
                if !process.book.turn_page() {
                    self.fetch(index);
                }
            }
            Outcome::Overflow { .. } | Outcome::Blocked { .. } | Outcome::Superseded => {}
        }
    }

    fn is_granted(&self, index: usize) -> bool {
        let Process { node, book, .. } = &self.processes[index];
        node.generation().is_some_and(|generation| book.latest(generation).is_some())
    }

    fn fetch(&mut self, index: usize) {
        let is_lost = self.roll(4) == 0;
        let (above_known, above_granted) = (self.keeps(Guard::AboveKnown), self.keeps(Guard::AboveGranted));
        let fresh = Generation(self.name());
        let process = &mut self.processes[index];
        let Some(generation) =
            process.node.generation().filter(|_| process.joined == process.node.generation())
        else {
            return;
        };
        let redis = &mut self.servers[process.server];
        let to = Recipient { datacenter: redis.datacenter, generation };
        let mut known = process.node.seen().unwrap_or_default();
        if process.book.latest(generation).is_none() && above_known {
            let fenced =
                Authority::fence(&mut redis.slot, &mut redis.marker, redis.replid, self.now, fresh, 0);
            let Fenced::At(highest) = fenced else { return };
            known = known.max(highest);
        }
        let need = Need {
            generation,
            after: process.book.latest(generation),
            cursor: process.node.seen().unwrap_or_default(),
            known,
            seen: if above_known && above_granted {
                known.max(process.book.highest())
            } else {
                SequenceValue(0)
            },
            limits: RULE,
            size: 8,
            count: 1,
        };
        let standing = if self.over.contains(&to) { Standing::Over } else { Standing::Present };
        let others = self.rows.iter().map(|row| row.to);
        let superseded: Vec<_> = others
            .filter(|other| other.datacenter == to.datacenter && other.generation != generation)
            .collect();
        let latest = self.rows.iter().filter(|row| row.to == to).map(|row| row.grant.id).max();
        // As PostgreSQL does it: only open grants are looked at.
        let is_open = |row: &&Row| row.state == State::Open;
        self.line.rows = self.rows.iter().filter(is_open).cloned().collect();
        let granted_to = self.line.granted_to;
        if !above_granted && latest.is_none() {
            self.line.granted_to = None;
        }
        let granted = self.line.fetch(to, standing, latest, 1, &need);
        self.line.granted_to = self.line.granted_to.max(granted_to);
        for row in std::mem::take(&mut self.line.rows) {
            self.rows.retain(|known| known.grant.id != row.grant.id);
            self.rows.push(row);
        }
        if standing == Standing::Present {
            self.over.extend(superseded);
        }
        if let (false, Granted::Grants(grants)) = (is_lost, granted) {
            process.book.enter(generation, &grants);
        }
    }

    /// A draw for once; one that was not answered is asked for again.
    fn draw_for_once(&mut self, index: usize) {
        let is_lost = self.roll(3) == 0;
        let names = self.keeps(Guard::RequestNames);
        let request = u128::from(self.name());
        let process = &mut self.processes[index];
        let draw = process.unanswered.take().unwrap_or(Draw {
            request,
            seen: process.node.seen().unwrap_or_default(),
            limits: RULE,
            count: 2,
        });
        if !names {
            // Asked again, it is as if it had never been granted.
            if let Some(place) = self.line.drawn.iter().position(|(known, _)| *known == draw.request) {
                self.line.granted_to = Some(SequenceValue(self.line.drawn.remove(place).1.from.0 - 1));
            }
        }
        let Drawn::Values(range) = self.line.draw(&draw) else { return };
        if is_lost {
            process.unanswered = Some(draw);
        } else {
            self.issue(range, Some(draw.request));
        }
    }

    fn step(&mut self) {
        let index = self.roll(self.processes.len() as u64) as usize;
        match self.roll(24) {
            0..=9 => {
                let count = self.roll(3);
                self.speak(index, count);
            }
            10 | 11 => self.fetch(index),
            12 => self.draw_for_once(index),
            13 | 14 => {
                if let Some(range) = self.processes[index].node.issue_locally(1, SequenceValue::MAX) {
                    self.issue(range, None);
                }
            }
            15 | 16 => self.now += 6_000,
            17 => {
                let server = &self.servers[self.processes[index].server];
                self.saved.insert(server.datacenter, server.clone());
            }
            18 => self.forget(index),
            19 if self.servers.len() < 5 => {
                // A replica is promoted, the old master goes on: those who stay with it must not notice.
                let replid = self.name();
                let datacenter = self.servers[self.processes[index].server].datacenter;
                self.servers.push(Redis { replid, ..self.saved[&datacenter].clone() });
                self.processes[index].server = self.servers.len() - 1;
            }
            20 => {
                let Process { node, server, .. } = &self.processes[index];
                let (left, before, server) = (node.refreshed(), vec![node.incarnation()], *server);
                self.processes[index] = self.start(server, left, before);
            }
            _ => self.speak(index, 1),
        }
    }

    /// A Redis starts again, empty or with what it had saved.
    fn forget(&mut self, index: usize) {
        let (replid, is_empty) = (self.name(), self.roll(2) == 0);
        let server = self.processes[index].server;
        let datacenter = self.servers[server].datacenter;
        self.servers[server] = if is_empty {
            Redis { datacenter, slot: None, marker: None, replid }
        } else {
            Redis { replid, ..self.saved[&datacenter].clone() }
        };
    }
}

fn duplicate(seeds: std::ops::Range<u64>, without: Option<Guard>) -> Option<(u64, u64)> {
    let mut issued = 0;
    for seed in seeds {
        let mut world = World::new(seed, without);
        for _ in 0..seed % 40 {
            world.now += 1_000;
            let count = world.roll(3);
            world.speak(0, count);
        }
        world.is_young = false;
        // What a Redis forgets before anything was granted, nobody knows.
        while !world.is_granted(0) {
            world.now += 6_000;
            world.speak(0, 1);
            world.fetch(0);
        }
        for _ in 0..400 {
            world.step();
            if let Some(value) = world.duplicate {
                return Some((seed, value));
            }
        }
        issued += world.issued.len();
    }
    assert!(without.is_some() || issued > 10_000, "a world in which nothing happens: {issued}");
    None
}

#[test]
fn nothing_is_issued_twice_whatever_redis_forgets() {
    assert_eq!(duplicate(0..1_500, None), None);
}

#[test]
fn every_guard_is_needed() {
    use Guard::{AboveGranted, AboveKnown, MatchGeneration, RequestNames, SegmentsInside};
    for guard in [MatchGeneration, AboveGranted, AboveKnown, SegmentsInside, RequestNames] {
        assert!(duplicate(0..3_000, Some(guard)).is_some(), "nothing happens without {guard:?}");
    }
}

/// A counter without a Redis: what PostgreSQL answers by itself.
fn fetch(line: &mut Line, datacenter: u32, generation: u64, need: Need) -> Granted {
    let to = Recipient { datacenter, generation: need.generation };
    assert_eq!(need.generation.0, generation);
    let latest = line.rows.iter().filter(|row| row.to == to).map(|row| row.grant.id).max();
    line.fetch(to, Standing::Present, latest, 2, &need)
}

fn need(generation: u64, after: Option<u64>, known: u64, max: u64) -> Need {
    let (known, max) = (SequenceValue(known), SequenceValue(max));
    Need {
        generation: Generation(generation),
        after: after.map(GrantId),
        cursor: known,
        known,
        seen: known,
        limits: Limits { max, ..RULE },
        size: LEAST,
        count: 1,
    }
}

fn grants(answers: &[(u64, u64, u64)]) -> Granted {
    let grant = |&(id, from, to): &(u64, u64, u64)| Grant {
        id: GrantId(id),
        range: ValueRange { from: SequenceValue(from), to: SequenceValue(to) },
    };
    Granted::Grants(answers.iter().map(grant).collect())
}

#[test]
fn who_asks_again_is_told_the_same_and_the_next_follows() {
    let mut line = Line::default();
    let max = u64::MAX;
    assert_eq!(fetch(&mut line, 1, 7, need(7, None, 0, max)), grants(&[(1, 1, 10_000)]));
    assert_eq!(fetch(&mut line, 1, 7, need(7, None, 0, max)), grants(&[(1, 1, 10_000)]));
    assert_eq!(fetch(&mut line, 2, 9, need(9, None, 0, max)), grants(&[(2, 10_001, 20_000)]));
    assert_eq!(fetch(&mut line, 1, 7, need(7, Some(1), 8_000, max)), grants(&[(3, 20_001, 30_000)]));
    assert_eq!(fetch(&mut line, 1, 7, need(7, Some(1), 8_000, max)), grants(&[(3, 20_001, 30_000)]));
    assert_eq!(
        fetch(&mut line, 1, 7, need(7, None, 8_000, max)),
        grants(&[(1, 1, 10_000), (3, 20_001, 30_000)]),
        "a process that begins learns them all"
    );
    assert_eq!(fetch(&mut line, 1, 7, need(7, None, 10_000, max)), grants(&[(3, 20_001, 30_000)]));
}

#[test]
fn what_a_lost_generation_leaves_is_listed_once() {
    let mut line = Line::default();
    assert_eq!(fetch(&mut line, 1, 7, need(7, None, 0, u64::MAX)), grants(&[(1, 1, 10_000)]));
    assert_eq!(fetch(&mut line, 1, 8, need(8, None, 120, u64::MAX)), grants(&[(2, 10_001, 20_000)]));
    let remainder = Some(ValueRange { from: SequenceValue(121), to: SequenceValue(10_000) });
    assert_eq!(line.rows[0].state, State::Closed { remainder });
    let before = line.clone();
    assert_eq!(fetch(&mut line, 1, 8, need(8, None, 200, u64::MAX)), grants(&[(2, 10_001, 20_000)]));
    assert_eq!(line, before);
    let over = Recipient { datacenter: 1, generation: Generation(7) };
    let again = need(7, Some(1), 10_000, u64::MAX);
    assert_eq!(line.fetch(over, Standing::Over, Some(GrantId(1)), 2, &again), Granted::Over);
}

#[test]
fn a_short_line_is_granted_in_parts_up_to_its_last_value() {
    let mut line = Line::default();
    let (mut after, mut last) = (None, 0);
    while let Granted::Grants(granted) = fetch(&mut line, 1, 7, need(7, after, last, 9_999)) {
        let [Grant { id, range }] = granted[..] else { panic!("one at a time: {granted:?}") };
        assert_eq!(range.from.0, last + 1);
        assert!(range.count() <= 625, "a loss would cost {}", range.count());
        (after, last) = (Some(id.0), range.to.0);
    }
    assert_eq!(last, 9_999);
}

#[test]
fn a_retired_scheme_is_granted_nothing_but_what_it_drew_in_time() {
    let mut line = Line::default();
    let draw = Draw { request: 5, seen: SequenceValue(0), limits: RULE, count: 3 };
    let drawn = Drawn::Values(ValueRange { from: SequenceValue(1), to: SequenceValue(3) });
    assert_eq!(line.draw(&draw), drawn);
    line.scheme = 1;
    assert_eq!(line.draw(&draw), drawn);
    assert_eq!(line.draw(&Draw { request: 6, ..draw }), Drawn::Superseded);
    assert_eq!(fetch(&mut line, 1, 7, need(7, None, 0, u64::MAX)), Granted::Superseded);
}

#[test]
fn a_line_is_not_moved_over_what_another_data_centre_may_issue() {
    let mut line = Line::default();
    assert_eq!(fetch(&mut line, 2, 9, need(9, None, 0, u64::MAX)), grants(&[(1, 1, 10_000)]));
    assert_eq!(line.raise(1, SequenceValue(50)), Raised::Held { datacenter: 2 });
    assert_eq!(line.raise(2, SequenceValue(20_000)), Raised::Done);
    assert_eq!(fetch(&mut line, 2, 9, need(9, Some(1), 20_000, u64::MAX)), grants(&[(2, 20_001, 30_000)]));
}

/// What docs/operations.md says of `advance`.
#[test]
fn a_line_is_moved_below_what_another_data_centre_was_granted() {
    let mut line = Line::default();
    assert_eq!(fetch(&mut line, 1, 7, need(7, None, 0, u64::MAX)), grants(&[(1, 1, 10_000)]));
    assert_eq!(fetch(&mut line, 2, 9, need(9, None, 0, u64::MAX)), grants(&[(2, 10_001, 20_000)]));
    assert_eq!(line.raise(1, SequenceValue(10_000)), Raised::Done, "inside its own grant");
    assert_eq!(line.raise(1, SequenceValue(10_001)), Raised::Held { datacenter: 2 });
    assert_eq!(line.raise(2, SequenceValue(15_000)), Raised::Held { datacenter: 1 });
    assert_eq!(fetch(&mut line, 1, 7, need(7, Some(1), 10_000, u64::MAX)), grants(&[(3, 20_001, 30_000)]));
    assert_eq!(line.raise(2, SequenceValue(15_000)), Raised::Done, "the other has used it up");
}

#[test]
fn runs_that_touch_are_one_and_a_gap_is_used_up_first() {
    let mut book = Book::default();
    let generation = Some(Generation(7));
    let limits =
        |book: &Book, generation| book.limits(generation, RULE).map(|limits| (limits.floor.0, limits.max.0));
    let Granted::Grants(first) = grants(&[(1, 1, 100), (3, 101, 200), (5, 301, 400)]) else { return };
    assert!(book.is_low(generation, SequenceValue(0), RULE), "nothing is known");
    book.enter(Generation(7), &first);
    assert_eq!(limits(&book, generation), Some((0, 200)));
    assert_eq!(limits(&book, Some(Generation(8))), None, "of another generation");
    assert_eq!(limits(&book, None), None, "before anything was heard");
    assert!(!book.is_low(generation, SequenceValue(379), RULE));
    assert!(book.is_low(generation, SequenceValue(380), RULE), "four fifths are used");
    assert!(book.turn_page() && !book.turn_page());
    assert_eq!(limits(&book, generation), Some((300, 400)));
    book.enter(Generation(8), &[]);
    assert_eq!((limits(&book, Some(Generation(8))), book.highest()), (None, SequenceValue(400)));
}

#[test]
fn a_grant_lasts_a_minute_at_the_peak() {
    assert_eq!(grant_size(0, 1_000, 0), 15_000, "room for the segment, five times");
    assert_eq!(grant_size(0, 10, 1), LEAST);
    assert_eq!(grant_size(5_000, 10, 1), 5_000 * LASTS_S);
}
