//! The side of PostgreSQL: what of a counter was granted, and to whom.

use super::{Draw, Drawn, Grant, GrantId, Granted, Need, PART, Raised, Recipient};
use crate::counter::{SequenceValue, ValueRange};

/// What became of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Its Redis draws from it.
    Open,
    /// Its Redis has passed it.
    Used,
    /// Another generation has followed: values from here on were not known to be issued, and are nobody's.
    Closed {
        /// The first of them; `None`: all were issued.
        remainder: Option<ValueRange>,
    },
}

/// Which generation of the memory of a Redis a message speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The last one that was heard of.
    Present,
    /// Another has followed.
    Over,
}

/// One grant to a Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Which.
    pub grant: Grant,
    /// To whom.
    pub to: Recipient,
    /// The grant that it followed: with the recipient, the name of the request.
    pub follows: Option<GrantId>,
    /// What became of it.
    pub state: State,
}

/// The grants that a step needs to see: those that are open. Others change nothing.
pub type Rows = Vec<Row>;

/// A counter as PostgreSQL keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Line {
    /// Nothing above it was granted; `None`: nothing at all.
    pub granted_to: Option<SequenceValue>,
    /// How many grants there were.
    pub grants: u64,
    /// The lowest scheme that may still draw.
    pub scheme: u64,
    /// Grants that are open.
    pub rows: Rows,
    /// What was drawn under the request that is asked for, if it was.
    pub drawn: Vec<(u128, ValueRange)>,
}

impl Line {
    /// Grants the next range to a Redis, or says again what it was granted. `latest` is the last grant that this recipient ever
    /// got.
    pub fn fetch(
        &mut self,
        to: Recipient,
        standing: Standing,
        latest: Option<GrantId>,
        datacenters: u32,
        need: &Need,
    ) -> Granted {
        if need.limits.scheme < self.scheme {
            return Granted::Superseded;
        }
        if standing == Standing::Over {
            return Granted::Over;
        }
        self.close_earlier(to, need.known);
        for row in self.rows.iter_mut().filter(|row| row.to == to && row.grant.range.to <= need.cursor) {
            row.state = State::Used;
        }
        let following: Vec<Grant> = self.following(to, need).collect();
        if !following.is_empty() {
            return Granted::Grants(following);
        }
        let start = self.start(need.limits.base, need.limits.floor, need.seen);
        let left = need.limits.max.0.saturating_sub(start.0);
        // Where another data centre, or a loss, takes a part, enough remains for the others.
        let part = (left / PART / u64::from(datacenters.max(1))).max(1);
        let size = need.size.min(part).max(need.count).min(left);
        let Some(range) = ValueRange::after(start, size, need.limits.max) else { return Granted::Exhausted };
        let grant = Grant { id: self.name(), range };
        self.rows.push(Row { grant, to, follows: latest, state: State::Open });
        self.granted_to = Some(range.to);
        Granted::Grants(vec![grant])
    }

    /// Draws values for a node that cannot reach its Redis: a grant of just these, never open.
    pub fn draw(&mut self, draw: &Draw) -> Drawn {
        // Before the scheme: what was drawn in time was issued.
        if let Some((_, range)) = self.drawn.iter().find(|(request, _)| *request == draw.request) {
            return Drawn::Values(*range);
        }
        if draw.limits.scheme < self.scheme {
            return Drawn::Superseded;
        }
        let start = self.start(draw.limits.base, draw.limits.floor, draw.seen);
        let Some(range) = ValueRange::after(start, draw.count, draw.limits.max) else {
            return Drawn::Overflow { left: draw.limits.max.0.saturating_sub(start.0) };
        };
        self.grants += 1;
        self.granted_to = Some(range.to);
        self.drawn.push((draw.request, range));
        Drawn::Values(range)
    }

    /// Lets grants begin above `to` from now on; `datacenter` moves its own Redis there.
    pub fn raise(&mut self, datacenter: u32, to: SequenceValue) -> Raised {
        let holds = |row: &&Row| row.state == State::Open && row.grant.range.from <= to;
        let other = self.rows.iter().filter(holds).find(|row| row.to.datacenter != datacenter);
        if let Some(row) = other {
            return Raised::Held { datacenter: row.to.datacenter };
        }
        self.granted_to = Some(self.granted_to.map_or(to, |granted| granted.max(to)));
        Raised::Done
    }

    /// What earlier generations of a Redis have left, once each.
    fn close_earlier(&mut self, to: Recipient, known: SequenceValue) {
        let earlier =
            |row: &&mut Row| row.to.datacenter == to.datacenter && row.to.generation != to.generation;
        for row in self.rows.iter_mut().filter(earlier).filter(|row| row.state == State::Open) {
            let ValueRange { from, to } = row.grant.range;
            let from = from.max(SequenceValue(known.0.saturating_add(1)));
            let remainder = (known < to).then_some(ValueRange { from, to });
            row.state = State::Closed { remainder };
        }
    }

    fn following<'a>(&'a self, to: Recipient, need: &'a Need) -> impl Iterator<Item = Grant> + 'a {
        let known = move |row: &&Row| need.after.is_some_and(|after| row.grant.id <= after);
        self.rows
            .iter()
            .filter(move |row| row.to == to && row.state == State::Open && !known(row))
            .map(|row| row.grant)
    }

    /// What the next grant lies above.
    fn start(&self, base: SequenceValue, floor: SequenceValue, seen: SequenceValue) -> SequenceValue {
        base.max(floor).max(seen).max(self.granted_to.unwrap_or_default())
    }

    fn name(&mut self) -> GrantId {
        self.grants += 1;
        GrantId(self.grants)
    }
}
