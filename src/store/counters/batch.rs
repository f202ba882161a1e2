//! The requests of one batch, and what each has got so far.
//!
//! Requests of a batch came at the same time as far as anybody can tell: those without a key are served first, then those with
//! one; each kind in its order.

use super::{
    draw::issued,
    pin::{PinOutcome, claim_ask},
};
use crate::{
    counter::{Ranges, ValueRange},
    store::{
        Claim, Recorded, TakeRequest, Taken,
        protocol::counter::{ClaimAnswer, ClaimAsk},
    },
};

/// See the module.
pub(super) struct Batch {
    requests: Vec<TakeRequest>,
    answers: Vec<Option<Taken>>,
    pins: Vec<Pin>,
    /// Requests that the last message asked for.
    asked: Vec<usize>,
    /// The next message asks for so many values at most.
    room: Option<u64>,
    /// Requests with a key that found no room: each is asked for by itself, since it may have been served before.
    alone: Vec<usize>,
}

/// Whether the key of a request is pinned to the counter of the batch.
#[derive(Clone, Copy)]
enum Pin {
    /// It has no key.
    Needless,
    /// Not yet. `moved`: it was once, and has moved on since.
    Open { moved: Option<u64> },
    /// It is, under this turn.
    Set { turn: u64 },
}

/// Replies that do not fit what was asked.
#[derive(Debug, thiserror::Error)]
#[error("the authority has answered something else than it was asked")]
pub(super) struct Misfit;

impl Batch {
    pub(super) fn new(requests: Vec<TakeRequest>) -> Self {
        let answers = requests.iter().map(|_| None).collect();
        let open = |request: &TakeRequest| match request.claim {
            Some(_) => Pin::Open { moved: None },
            None => Pin::Needless,
        };
        let pins = requests.iter().map(open).collect();
        Self { requests, answers, pins, asked: Vec::new(), room: None, alone: Vec::new() }
    }

    /// Keys that are to be pinned before they are asked for: (position, key, the turn that has moved on).
    pub(super) fn unpinned(&self) -> impl Iterator<Item = (usize, &Claim, Option<u64>)> {
        let open = self.requests.iter().zip(&self.pins).zip(&self.answers).enumerate();
        open.filter_map(|(index, ((request, pin), answer))| match (&request.claim, pin, answer) {
            (Some(claim), Pin::Open { moved }, None) => Some((index, claim, *moved)),
            _ => None,
        })
    }

    /// A key was pinned, or was used elsewhere before; `None`: nobody can tell for now.
    pub(super) fn pin(&mut self, index: usize, outcome: Option<PinOutcome>) {
        let (Some(pin), Some(answer)) = (self.pins.get_mut(index), self.answers.get_mut(index)) else {
            return;
        };
        match outcome {
            Some(PinOutcome::Draw { turn }) => *pin = Pin::Set { turn },
            Some(PinOutcome::Recorded(recorded)) => *answer = Some(Taken::Replayed(recorded)),
            Some(PinOutcome::Mismatch) => *answer = Some(Taken::Mismatch),
            None => *answer = Some(Taken::Away),
        }
    }

    /// Whether a request has its answer.
    pub(super) fn is_begun(&self) -> bool {
        self.answers.iter().any(Option::is_some)
    }

    /// Whether every request has its answer.
    pub(super) fn is_answered(&self) -> bool {
        self.answers.iter().all(Option::is_some)
    }

    /// The answers; what is open is told that the store is away.
    pub(super) fn finish(self) -> Vec<Taken> {
        self.answers.into_iter().map(|answer| answer.unwrap_or(Taken::Away)).collect()
    }

    /// What to ask for next: (how many values for requests without a key, requests with one). `None`: nothing is open.
    pub(super) fn next(&mut self) -> Option<(u64, Vec<ClaimAsk>)> {
        self.asked.clear();
        let open = |index: &usize| self.answers.get(*index).is_some_and(Option::is_none);
        let mut room = self.room.take();
        let crowd = (0..self.requests.len()).filter(open).filter(|index| !self.alone.contains(index));
        self.asked.extend(
            crowd.filter(|index| room.as_mut().is_none_or(|room| fits(self.requests.get(*index), room))),
        );
        if self.asked.is_empty() {
            self.asked.extend(self.alone.iter().copied().find(open));
        }
        if self.asked.is_empty() {
            return None;
        }
        let (mut count, mut claims) = (0, Vec::new());
        for index in &self.asked {
            let (Some(request), Some(pin)) = (self.requests.get(*index), self.pins.get(*index)) else {
                continue;
            };
            match (&request.claim, pin) {
                (Some(claim), Pin::Set { turn }) => {
                    claims.push(claim_ask(claim, request.count.into(), *turn))
                }
                _ => count += u64::from(request.count),
            }
        }
        Some((count, claims))
    }

    /// There are only `left` values for now: the next message asks for what fits. Answers whether anything does.
    pub(super) fn narrow(&mut self, left: u64) -> bool {
        let mut room = left;
        let mut asked = self.asked.iter();
        let is_less = !asked.all(|index| fits(self.requests.get(*index), &mut room));
        let is_any = self.asked.iter().any(|index| fits(self.requests.get(*index), &mut left.clone()));
        self.room = (is_less && is_any).then_some(left);
        self.room.is_some()
    }

    /// The same for requests without a key alone: how many values they want together.
    pub(super) fn next_plain(&mut self) -> Option<u64> {
        let open = |index: &usize| self.answers.get(*index).is_some_and(Option::is_none);
        let plain = |index: &usize| self.requests.get(*index).is_some_and(|request| request.claim.is_none());
        self.asked = (0..self.requests.len()).filter(open).filter(plain).collect();
        let counts = self.asked.iter().filter_map(|index| self.requests.get(*index));
        let count = counts.map(|request| u64::from(request.count)).sum();
        (count > 0).then_some(count)
    }

    /// Hands out what was drawn for requests without a key.
    ///
    /// # Errors
    ///
    /// [`Misfit`] for too few or too many values.
    pub(super) fn serve(&mut self, values: &[ValueRange]) -> Result<(), Misfit> {
        let mut rest = Rest { ranges: values.iter().copied(), open: None };
        for index in &self.asked {
            let (Some(request), Some(answer)) = (self.requests.get(*index), self.answers.get_mut(*index))
            else {
                continue;
            };
            if request.claim.is_none() {
                *answer = Some(Taken::Fresh(rest.take(request.count.into()).ok_or(Misfit)?));
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(Misfit) }
    }

    /// Hands out what requests with a key were answered, in their order.
    ///
    /// # Errors
    ///
    /// [`Misfit`] for another number of answers.
    pub(super) fn answer(&mut self, answers: Vec<ClaimAnswer>) -> Result<(), Misfit> {
        let mut answers = answers.into_iter();
        for index in &self.asked {
            let (Some(pin), Some(answer)) = (self.pins.get_mut(*index), self.answers.get_mut(*index)) else {
                continue;
            };
            if let Pin::Set { turn } = *pin {
                *answer = taken(answers.next().ok_or(Misfit)?);
                if answer.is_none() {
                    *pin = Pin::Open { moved: Some(turn) };
                }
            }
        }
        if answers.next().is_none() { Ok(()) } else { Err(Misfit) }
    }

    /// There are only `left` values: those without a key that fit are asked for again, those with one each by itself, the others
    /// are answered.
    pub(super) fn squeeze(&mut self, left: u64) {
        let asked = std::mem::take(&mut self.asked);
        if let [only] = asked[..] {
            return self.overflow(only);
        }
        let mut room = left;
        for index in asked {
            let Some(request) = self.requests.get(index) else { continue };
            match (&request.claim, room.checked_sub(request.count.into())) {
                (None, Some(rest)) => room = rest,
                (None, None) => self.overflow(index),
                (Some(_), _) => self.alone.push(index),
            }
        }
    }

    /// Answers each open request without a key by what `issue` has for it.
    pub(super) fn serve_locally(&mut self, mut issue: impl FnMut(u64) -> Option<ValueRange>) {
        for (request, answer) in self.requests.iter().zip(&mut self.answers) {
            if answer.is_none() && request.claim.is_none() {
                *answer = issue(request.count.into()).map(|range| Taken::Segment(range.into()));
            }
        }
    }

    /// What requests without a key were given.
    pub(super) fn unclaimed(&self) -> Vec<Ranges> {
        let plain = self.requests.iter().zip(&self.answers).filter(|(request, _)| request.claim.is_none());
        plain.filter_map(|(_, answer)| issued(answer.as_ref()?)).cloned().collect()
    }

    /// Takes back what was answered locally: it could not be written down.
    pub(super) fn retract_local(&mut self) {
        for answer in &mut self.answers {
            if matches!(answer, Some(Taken::Segment(_))) {
                *answer = None;
            }
        }
    }

    fn overflow(&mut self, index: usize) {
        if let Some(answer) = self.answers.get_mut(index) {
            *answer = Some(Taken::Overflow);
        }
    }
}

/// Whether a request without a key finds room; takes it.
fn fits(request: Option<&TakeRequest>, room: &mut u64) -> bool {
    let Some(request) = request.filter(|request| request.claim.is_none()) else { return false };
    let rest = room.checked_sub(request.count.into());
    *room = rest.unwrap_or(*room);
    rest.is_some()
}

/// Values that are still to be handed out.
struct Rest<I> {
    ranges: I,
    open: Option<ValueRange>,
}

impl<I: Iterator<Item = ValueRange>> Rest<I> {
    fn take(&mut self, count: u64) -> Option<Ranges> {
        let (mut left, mut values) = (count, Ranges::new());
        while left > 0 {
            let range = self.open.take().or_else(|| self.ranges.next())?;
            let (head, tail) = range.split(left);
            values.push(head);
            left -= head.count();
            self.open = tail;
        }
        Some(values)
    }

    fn is_empty(&mut self) -> bool {
        self.open.is_none() && self.ranges.next().is_none()
    }
}

/// `None`: the key has moved on, nothing was drawn.
fn taken(answer: ClaimAnswer) -> Option<Taken> {
    let all = |values: Vec<ValueRange>| {
        let mut ranges = Ranges::new();
        values.into_iter().for_each(|range| ranges.push(range));
        ranges
    };
    Some(match answer {
        ClaimAnswer::Fresh(values) => Taken::Fresh(all(values)),
        ClaimAnswer::Replayed { stamp, values } => {
            Taken::Replayed(Recorded { stamp: stamp.into(), values: all(values) })
        }
        ClaimAnswer::Mismatch => Taken::Mismatch,
        ClaimAnswer::Moved => return None,
    })
}
