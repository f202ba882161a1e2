//! What nodes and the authority of a counter say to each other, and what the store says about itself.

use std::fmt;

use crate::{
    clock::UnixMillis,
    counter::{SequenceValue, ValueRange},
};

/// Names one start of a process: drawn anew each time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u128);

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Names a stretch of time in which the store has forgotten nothing: random, since two stores must not draw the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// 16 hexadecimal digits.
impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How long after a loss was noticed nothing is drawn, so that everybody can report, in ms.
pub const SETTLING_MS: u64 = 5_000;

/// What a store keeps to notice that it has forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Marker {
    /// The generation.
    pub generation: Generation,
    /// The replication ID of the server under which it was written; another one means a restart or a failover.
    pub replid: u64,
    /// When it was written, by the store's clock, in ms.
    pub since: u64,
    /// Whether everybody has had the time to report; stays, whatever the clock does.
    pub settled: bool,
    /// When it was last looked at, in ms: what was written until then is there wherever the marker is found so again.
    pub alive: u64,
    /// How much time may be lacking from what the store holds, in ms: for each generation that has ended, what passed from the last
    /// look until its end was noticed.
    pub lacks_ms: u64,
}

/// How old the last look that a marker knows of may be, in ms: to note one is a write.
const LOOK_MS: u64 = 5_000;

impl Marker {
    /// The first of a new generation.
    fn after(before: Option<Self>, replid: u64, now: u64, fresh: Generation) -> Self {
        let lacks_ms = before.map_or(0, |before| before.lacks_ms.saturating_add(now.abs_diff(before.alive)));
        Self { generation: fresh, replid, since: now, settled: false, alive: now, lacks_ms }
    }

    /// Somebody looks at it, as each node does once a second.
    pub fn note_look(&mut self, now: u64) {
        if now.abs_diff(self.alive) >= LOOK_MS {
            self.alive = now;
        }
    }
}

/// The store as a script finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The generation that is in force.
    pub generation: Generation,
    /// How long it is until anything may be drawn, in ms; 0: it may.
    pub settling_ms: u64,
    /// See [`Marker`].
    pub lacks_ms: u64,
}

impl Instance {
    /// Looks at the marker first thing in every script: writes one where there is none, and a new one where the server is
    /// another than the one under which it was written. `fresh` is random, from whoever asks.
    pub fn look(marker: &mut Option<Marker>, replid: u64, now: u64, fresh: Generation) -> Self {
        let blessed = marker.filter(|marker| marker.replid == replid);
        let begun = blessed.unwrap_or_else(|| Marker::after(*marker, replid, now, fresh));
        let marker = marker.insert(begun);
        if !marker.settled {
            // A clock that was set back begins the settling anew, rather than drawing it out for hours.
            marker.since = marker.since.min(now);
            marker.settled = now - marker.since >= SETTLING_MS;
        }
        let left = || SETTLING_MS - (now - marker.since);
        let settling_ms = if marker.settled { 0 } else { left() };
        Self { generation: marker.generation, settling_ms, lacks_ms: marker.lacks_ms }
    }

    /// Whether it is time to draw.
    pub fn is_settled(self) -> bool {
        self.settling_ms == 0
    }

    /// Something was forgotten though the marker was not, or another store has taken over meanwhile: begins a new generation.
    pub fn distrust(marker: &mut Option<Marker>, replid: u64, now: u64, fresh: Generation) -> Self {
        *marker = Some(Marker::after(*marker, replid, now, fresh));
        Self::look(marker, replid, now, fresh)
    }
}

/// What is held to be the least size of the segment of a node that is silent.
pub(super) const SEGMENT_SIZE: u64 = 1_000;

/// A range ahead of the cursor that one node may issue while the store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment(pub ValueRange);

/// The limits of a counter, as [`crate::store::Bounds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Where a counter that does not exist yet begins.
    pub base: SequenceValue,
    /// Nothing at or below this is drawn.
    pub floor: SequenceValue,
    /// The highest value that may be drawn.
    pub max: SequenceValue,
    /// Which of the schemes of counters of its prefix key asks: one below the highest that was heard of draws nothing.
    pub scheme: u64,
}

/// Which segment a node would like to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wants {
    /// How many values, at least 1.
    pub size: u64,
}

/// A request with an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimAsk {
    /// SHA-256 of the scoped key, as hex.
    pub key: String,
    /// Digest of what was asked for, as hex.
    pub fingerprint: String,
    /// What is needed to write the same answer again.
    pub stamp: String,
    /// How many values.
    pub count: u64,
    /// Rises each time the key moves to another counter; see [`ClaimAnswer::Moved`].
    pub turn: u64,
    /// When it was asked, by the node's clock.
    pub claimed_at: UnixMillis,
    /// When the record may be forgotten, by the node's clock.
    pub expires_at: UnixMillis,
}

/// The one message. `count` 0 and no claims: a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Take {
    /// Who asks.
    pub incarnation: Incarnation,
    /// The name of its node, for people.
    pub node: String,
    /// The generation that it has heard of last; `None` before it has heard of any.
    pub generation: Option<Generation>,
    /// Rises with each new call of an incarnation, from 1; asked again it stays.
    pub call: u64,
    /// A generation that the node has left and met for too long: if it is the one in force, it is to end.
    pub distrusts: Option<Generation>,
    /// How many values for requests without a key.
    pub count: u64,
    /// Requests with a key; records make them repeatable, so they are not part of what a call is answered again.
    pub claims: Vec<ClaimAsk>,
    /// The limits.
    pub limits: Limits,
    /// The highest cursor that it was told; a cursor below means that the store went back.
    pub seen: Option<SequenceValue>,
    /// The segment that it issues from, written down on its disk.
    pub holds: Option<Segment>,
    /// What it has issued from segments above `seen`: all of it, since the store can forget.
    pub used: Vec<ValueRange>,
    /// What was drawn for it and is issued to nobody.
    pub surplus: Vec<ValueRange>,
    /// The segment that it would like to hold; `None`: none.
    pub wants: Option<Wants>,
    /// Incarnations before it on the same data directory, whose lock proves that they are gone; they died with what they knew.
    pub retires: Vec<Incarnation>,
    /// The same, where this node has since seen a cursor above all that they knew. A store that went back may list them again.
    pub covers: Vec<Incarnation>,
    /// Others that it has been told of: a registry can be lost with the store.
    pub peers: Vec<Incarnation>,
    /// Where everything ends that those others may have been given before it heard again, as far as it can tell.
    pub horizon: SequenceValue,
    /// How soon it will beat again, in ms.
    pub next_beat_ms: u64,
    /// It goes for good: what it holds is free.
    pub leaves: bool,
}

/// What a request with a key got.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClaimAnswer {
    /// These values, now.
    Fresh(Vec<ValueRange>),
    /// These values, when the key was first used.
    Replayed {
        /// The stamp of the first claim.
        stamp: String,
        /// The values.
        values: Vec<ValueRange>,
    },
    /// The key was used for another request.
    Mismatch,
    /// The key has moved on to another counter since, and this turn of it is void here: nothing was drawn.
    Moved,
}

/// What became of the values asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// These, ascending; for requests without a key. None for a heartbeat.
    Drawn(Vec<ValueRange>),
    /// A segment lies in the way, whose node is alive and will swap it; nothing was drawn.
    Blocked {
        /// Whose it is.
        by: Incarnation,
    },
    /// So many values are left up to the limit, too few; nothing was drawn.
    Overflow {
        /// How many.
        left: u64,
    },
    /// The scheme was retired; nothing was drawn, and no segment is given any more.
    Superseded,
}

/// What the authority answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// The call was served.
    Taken {
        /// The generation that is in force.
        generation: Generation,
        /// The call that this answers.
        call: u64,
        /// What became of it.
        outcome: Outcome,
        /// One answer for each claim, in their order; empty unless `Drawn`.
        claims: Vec<ClaimAnswer>,
        /// The cursor afterwards.
        cursor: SequenceValue,
        /// The segment to hold from now on.
        segment: Option<Segment>,
        /// The other incarnations on the registry.
        peers: Vec<Incarnation>,
        /// No segment that was ever placed ends above it.
        horizon: SequenceValue,
        /// The most values that were drawn in a second of late.
        peak: u64,
    },
    /// The store has forgotten something: adopt this generation, report, and ask again.
    Recover {
        /// The generation that is in force.
        generation: Generation,
        /// When it makes sense to ask again, in ms.
        wait_ms: u64,
    },
    /// A later call of this incarnation was served before: this one is over.
    Stale,
}
