//! Callers who ask all the while, whatever happens, and what they saw.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;

use super::Fleet;
use crate::harness::{
    Caller, Observation, Response, Stopwatch, assert_no_value_twice, assert_real_time_order, value_of,
};

/// How long callers may take for what they have to have seen; far above what they take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How hard it is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Callers for each node.
    pub(super) callers: usize,
    /// What each of them waits after an answer.
    pub(super) pause: Duration,
    /// Every fifth request is for so many.
    pub(super) batch: usize,
}

impl Pace {
    /// As fast as answers come.
    pub(super) const FULL: Self = Self { callers: 3, pause: Duration::ZERO, batch: 3 };
    /// About 80 values a second and node: a segment lasts ten seconds.
    pub(super) const CALM: Self = Self { callers: 2, pause: Duration::from_millis(25), batch: 1 };
}

/// Where a number came from, as its answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Primary,
    Segment,
    Temporary,
}

impl Source {
    #[track_caller]
    pub(super) fn of(answer: &Response) -> Self {
        let json = answer.json();
        match json["source"].as_str() {
            Some("primary") => Self::Primary,
            Some("segment") => Self::Segment,
            Some("temporary") => Self::Temporary,
            _ => panic!("no source in {json}"),
        }
    }
}

/// One answered request.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    pub(super) node: usize,
    pub(super) source: Source,
    pub(super) numbers: Vec<String>,
    pub(super) asked: Duration,
    pub(super) answered: Duration,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) drawn: Vec<Drawn>,
    /// Problems by their code.
    pub(super) problems: BTreeMap<String, usize>,
    /// How many values were asked for without an answer that tells what became of them.
    pub(super) unknown: usize,
}

/// So many numbers more make an order worth looking at, without those that were under way when it began: a second of two nodes at a
/// calm pace.
pub(super) const ENOUGH: usize = 200;

/// Callers at work.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    /// How many numbers they have been given so far.
    given: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<Story>>,
}

impl Load {
    /// Asks every node of the fleet for numbers of one prefix until it is told to stop.
    pub(super) fn on(fleet: &Fleet, prefix: &str, pace: Pace) -> Self {
        let (stop, given) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let token = fleet.token();
        let callers = (0..fleet.nodes.len()).flat_map(|node| (0..pace.callers).map(move |_| node));
        let threads = callers
            .map(|node| {
                let (stop, given) = (Arc::clone(&stop), Arc::clone(&given));
                let (watch, addresses) = (Arc::clone(&fleet.watch), Arc::clone(&fleet.addresses));
                let (prefix, token) = (prefix.to_owned(), token.clone());
                thread::spawn(move || {
                    let mut story = Story::default();
                    let mut caller: Option<Caller> = None;
                    for turn in 0_usize.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let Some(mut present) = caller.take().or_else(|| {
                            let address = addresses.lock().unwrap_or_else(PoisonError::into_inner)[node];
                            address.map(|address| Caller::new(address, Some(token.clone())))
                        }) else {
                            thread::sleep(Duration::from_millis(20));
                            continue;
                        };
                        let count = if turn % 5 == 4 { pace.batch } else { 1 };
                        let asked = watch.elapsed();
                        match ask(&mut present, &prefix, count) {
                            Ok(answer) => {
                                story.note(node, count, asked, watch.elapsed(), &answer);
                                caller = Some(present);
                                if answer.status == 200 {
                                    given.fetch_add(count, Ordering::Relaxed);
                                } else {
                                    thread::sleep(Duration::from_millis(10));
                                }
                            }
                            Err(_no_answer) => {
                                story.unknown += count;
                                thread::sleep(Duration::from_millis(10));
                            }
                        }
                        thread::sleep(pace.pause);
                    }
                    story
                })
            })
            .collect();
        Self { stop, given, threads }
    }

    /// Waits until they have been given so many numbers more.
    #[track_caller]
    pub(super) fn wait_for(&self, numbers: usize) {
        self.wait_for_all(self.given.load(Ordering::Relaxed) + numbers);
    }

    /// Waits until they have been given so many numbers in all.
    #[track_caller]
    pub(super) fn wait_for_all(&self, numbers: usize) {
        Stopwatch::wait_until(PATIENCE, "numbers under load", || {
            self.given.load(Ordering::Relaxed) >= numbers
        });
    }

    /// Lets everybody finish, and tells what they saw.
    pub(super) fn stop(self) -> Story {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Story::default();
        for thread in self.threads {
            all.add(thread.join().expect("a caller"));
        }
        println!("{all}");
        all
    }
}

pub(super) fn ask(caller: &mut Caller, prefix: &str, count: usize) -> std::io::Result<Response> {
    let mut body = json!({ "prefix_key": prefix });
    if count > 1 {
        body["count"] = json!(count);
    }
    caller.try_send("POST", "/numbers", &[], Some(&body))
}

impl Story {
    pub(super) fn note(
        &mut self,
        node: usize,
        count: usize,
        asked: Duration,
        answered: Duration,
        answer: &Response,
    ) {
        if answer.status == 200 {
            let numbers = answer.numbers();
            assert_eq!(numbers.len(), count, "all or nothing");
            self.drawn.push(Drawn { node, source: Source::of(answer), numbers, asked, answered });
            return;
        }
        let code = answer.json()["code"].as_str().unwrap_or("none").to_owned();
        let refusals = ["StorageTimeout", "StorageUnavailable", "Overloaded", "NoWorkerId"];
        assert!(answer.status == 503 && refusals.contains(&&*code), "{}", answer.text());
        if code == "StorageTimeout" {
            self.unknown += count; // "nothing consumed, or exactly what a retry with the same Idempotency-Key returns"
        }
        *self.problems.entry(code).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: Self) {
        self.drawn.extend(other.drawn);
        self.unknown += other.unknown;
        for (code, times) in other.problems {
            *self.problems.entry(code).or_default() += times;
        }
    }

    /// How many numbers came from there.
    pub(super) fn count(&self, source: Source) -> usize {
        self.drawn.iter().filter(|drawn| drawn.source == source).map(|drawn| drawn.numbers.len()).sum()
    }

    /// The final numbers, with their values.
    pub(super) fn observations(&self) -> Vec<Observation> {
        self.observations_where(|drawn| drawn.source != Source::Temporary)
    }

    fn observations_where(&self, choose: impl Fn(&Drawn) -> bool) -> Vec<Observation> {
        let chosen = self.drawn.iter().filter(|drawn| choose(drawn));
        chosen
            .flat_map(|drawn| {
                let (asked, answered) = (drawn.asked, drawn.answered);
                drawn.numbers.iter().map(move |number| Observation {
                    value: value_of(number),
                    asked,
                    answered,
                })
            })
            .collect()
    }

    /// No number twice: final ones by their values, temporary ones by their text.
    #[track_caller]
    pub(super) fn assert_unique(&self) {
        assert_no_value_twice(&self.observations());
        let temporary = self.drawn.iter().filter(|drawn| drawn.source == Source::Temporary);
        let mut texts: Vec<&str> = temporary.flat_map(|drawn| &drawn.numbers).map(String::as_str).collect();
        texts.sort_unstable();
        for pair in texts.windows(2) {
            assert_ne!(pair[0], pair[1], "issued twice");
        }
        assert!(texts.iter().all(|text| text.starts_with("TMP~")), "{texts:?}");
    }

    /// Real-time order of what Redis gave between two moments in which nothing was wrong.
    #[track_caller]
    pub(super) fn assert_order(&self, from: Duration, to: Duration) {
        let healthy = self.observations_where(|drawn| {
            drawn.source == Source::Primary && from <= drawn.asked && drawn.answered <= to
        });
        assert!(healthy.len() > 20, "there was something to compare: {}", healthy.len());
        assert_real_time_order(&healthy);
    }
}

impl std::fmt::Display for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = |source| self.count(source);
        write!(
            f,
            "{} primary, {} from segments, {} temporary, {} without an answer, problems {:?}",
            count(Source::Primary),
            count(Source::Segment),
            count(Source::Temporary),
            self.unknown,
            self.problems
        )
    }
}
