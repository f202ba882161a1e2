//! Callers who ask all the while, and what they saw against what the counter says of itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use numgen::{
    clock::{Clock, SystemClock},
    counter::{Counter, Ranges},
    store::{Claim, CounterState, CounterStore, HoleReason, TakeRequest, Taken, counters::SharedCounters},
};
use tokio::task::JoinSet;

use super::FREE;

/// Callers of each node.
const CALLERS: usize = 4;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) fresh: usize,
    pub(super) segment: usize,
    pub(super) failed: usize,
    values: Vec<u64>,
    /// What each key was given, each time it was asked for.
    keyed: BTreeMap<String, BTreeSet<String>>,
    /// Keys whose caller has gone without an answer, and for how many values: what was drawn for them is theirs, and listed nowhere.
    given_up: Vec<(String, u32)>,
}

/// Callers at work.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    callers: JoinSet<Story>,
}

impl Load {
    /// Every fourth request has a key, and is sent again after a failure, for a second or so, or at once.
    pub(super) fn on(nodes: &[&SharedCounters], of: &Counter) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for (index, node) in nodes.iter().enumerate() {
            for caller in 0..CALLERS {
                let (node, of, stop) = ((*node).clone(), of.clone(), Arc::clone(&stop));
                callers.spawn(async move {
                    let mut story = Story::default();
                    for turn in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let key = (turn % 4 == 3).then(|| format!("{index} {caller} {turn}"));
                        story.ask(&node, &of, key, 1 + turn % 3).await;
                        tokio::time::sleep(Duration::from_millis(4)).await;
                    }
                    story
                });
            }
        }
        Self { stop, callers }
    }

    pub(super) async fn stop(self) -> Story {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Story::default();
        for story in self.callers.join_all().await {
            all.fresh += story.fresh;
            all.segment += story.segment;
            all.failed += story.failed;
            all.values.extend(story.values);
            all.keyed.extend(story.keyed);
            all.given_up.extend(story.given_up);
        }
        println!("{} fresh, {} from segments, {} failed", all.fresh, all.segment, all.failed);
        all
    }
}

impl Story {
    async fn ask(&mut self, node: &SharedCounters, of: &Counter, key: Option<String>, count: u32) {
        let now = SystemClock::new().now();
        let claim = key.clone().map(|key| Claim {
            scoped_key: key.into(),
            fingerprint: [1; 32],
            stamp: "stamp".into(),
            claimed_at: now,
            expires_at: now.plus(Duration::from_secs(600)),
        });
        for _ in 0..if key.is_some() { 20 } else { 1 } {
            let request = TakeRequest { count, claim: claim.clone() };
            match node.take(of.clone(), FREE, vec![request]).await.as_deref() {
                Ok([Taken::Fresh(values)]) => self.note(key.as_deref(), values, |story| &mut story.fresh),
                Ok([Taken::Segment(values)]) => self.note(None, values, |story| &mut story.segment),
                Ok([Taken::Replayed(recorded)]) => {
                    return self.note(key.as_deref(), &recorded.values, |story| &mut story.fresh);
                }
                Ok([Taken::Away]) | Err(_) => {
                    self.failed += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => panic!("{other:?}"),
            }
        }
        if let Some(key) = key.filter(|key| !self.keyed.contains_key(key)) {
            self.given_up.push((key, count));
        }
    }

    /// Callers who had gone without an answer come back with their keys, and get what was drawn for them, if it was.
    pub(super) async fn come_back(&mut self, node: &SharedCounters, of: &Counter) {
        let gone = std::mem::take(&mut self.given_up);
        let (keys, known) = (gone.len(), self.values.len());
        let reached = node.counters(&of.key).await.expect("read").remove(0).last.0;
        for (key, count) in gone {
            self.ask(node, of, Some(key), count).await;
        }
        assert_eq!(self.given_up, [], "the store is there");
        let theirs: Vec<u64> = self.values.split_off(known);
        println!(
            "{keys} keys had been given up; drawn for them before: {:?}",
            theirs.iter().filter(|value| **value <= reached).collect::<Vec<_>>()
        );
        self.values.extend(theirs);
    }

    fn note(&mut self, key: Option<&str>, values: &Ranges, kind: impl Fn(&mut Self) -> &mut usize) {
        let is_known = key.is_some_and(|key| self.keyed.contains_key(key));
        if let Some(key) = key {
            self.keyed.entry(key.to_owned()).or_default().insert(values.to_string());
        }
        if !is_known {
            *kind(self) += 1;
            self.values.extend(values.values().map(|value| value.0));
        }
    }

    /// These were answered too.
    pub(super) fn with(mut self, values: Vec<u64>) -> Self {
        self.values.extend(values);
        self
    }

    /// No value twice, one answer for each key, and every value up to the cursor issued, held or listed.
    #[track_caller]
    pub(super) fn assert_accounted(&self, state: &CounterState) {
        let seen: BTreeSet<u64> = self.values.iter().copied().collect();
        assert_eq!(seen.len(), self.values.len(), "a value was issued twice");
        let torn: Vec<_> = self.keyed.iter().filter(|(_, answers)| answers.len() > 1).collect();
        assert!(torn.is_empty(), "keys with several answers: {torn:?}");
        let listed = |value: u64| {
            let hole = state.holes.iter().any(|hole| hole.from.0 <= value && value <= hole.to.0);
            hole || state.segments.iter().any(|part| part.from.0 <= value && value <= part.to.0)
        };
        let unexplained: Vec<_> = (state.base.0 + 1..=state.last.0)
            .filter(|value| !seen.contains(value) && !listed(*value))
            .collect();
        assert!(unexplained.is_empty(), "{} unexplained: {unexplained:?}\n{state:?}", unexplained.len());
        for hole in state.holes.iter().filter(|hole| hole.reason == HoleReason::Returned) {
            let issued = seen.range(hole.from.0..=hole.to.0).next();
            assert_eq!(issued, None, "issued, and listed as {hole:?}");
        }
        let above = seen.range(state.last.0 + 1..).find(|value| !listed(**value));
        assert_eq!(above, None, "issued above the cursor and in no segment");
    }
}
