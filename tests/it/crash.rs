//! kill -9 under load, again and again: no value twice, nothing answered is lost, keyed requests repeat their answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{
    Caller, Observation, Site, Stopwatch, assert_no_value_twice, assert_real_time_order, value_of,
};

const CALLERS: usize = 6;
const ROUNDS: usize = 4;

/// What one caller saw before the line went dead.
#[derive(Default)]
struct Seen {
    observations: Vec<Observation>,
    /// Keyed requests with the numbers that they were given.
    keyed: Vec<(Ask, Vec<String>)>,
    /// The request that was never answered.
    unanswered: Option<Ask>,
}

/// One request for numbers.
#[derive(Clone, Debug)]
struct Ask {
    prefix: String,
    count: usize,
    key: Option<String>,
}

impl Ask {
    fn send(&self, caller: &mut Caller) -> std::io::Result<Vec<String>> {
        let mut body = json!({ "prefix_key": self.prefix });
        if self.count > 1 {
            body["count"] = json!(self.count);
        }
        let key = self.key.as_deref().map(|key| ("Idempotency-Key", key));
        let answer = caller.try_send("POST", "/numbers", key.as_slice(), Some(&body))?;
        if answer.status == 503 {
            return Err(std::io::Error::other("draining")); // not an answer with numbers
        }
        let numbers = answer.expect(200).numbers();
        assert_eq!(numbers.len(), self.count);
        Ok(numbers)
    }
}

/// Asks without pause until the server is gone: alone and in batches, with a key and without.
fn ask_until_dead(
    prefix: &str,
    name: &str,
    caller: &mut Caller,
    watch: &Stopwatch,
    stop: &AtomicBool,
) -> Seen {
    let mut seen = Seen::default();
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let ask = Ask {
            prefix: prefix.to_owned(),
            count: if turn % 5 == 4 { 3 } else { 1 },
            key: (turn % 3 == 0).then(|| format!("{name}-{turn}")),
        };
        let asked = watch.elapsed();
        let Ok(numbers) = ask.send(caller) else {
            seen.unanswered = Some(ask);
            break;
        };
        let answered = watch.elapsed();
        seen.observations.extend(numbers.iter().map(|number| Observation {
            value: value_of(number),
            asked,
            answered,
        }));
        if ask.key.is_some() {
            seen.keyed.push((ask, numbers));
        }
    }
    seen
}

/// Everything that was seen over all rounds.
struct Story {
    site: Site,
    observations: Vec<Observation>,
    /// How many values may be missing at most: those of plain requests that the kill left unanswered.
    may_be_missing: usize,
}

/// Several lives of one server on one prefix, each ended by kill -9 in mid-sentence.
fn live_and_die(prefix: &str, rule: &Value) -> Story {
    let mut site = Site::new();
    let watch = Arc::new(Stopwatch::start());
    let mut story = Story { site: site.clone(), observations: Vec::new(), may_be_missing: 0 };
    let mut open: Vec<Ask> = Vec::new();
    let mut settled: Vec<(Ask, Vec<String>)> = Vec::new();
    for round in 0..ROUNDS {
        let server = site.start();
        let mut caller = server.caller();
        if round == 0 {
            caller.register(prefix, rule);
        }
        // What was cut off is asked again, twice: the second answer is the first one, whether or not the first try counted.
        for ask in open.drain(..) {
            let asked = watch.elapsed();
            let first = ask.send(&mut caller).expect("an answer");
            let answered = watch.elapsed();
            assert_eq!(ask.send(&mut caller).expect("an answer"), first, "{ask:?}");
            // It may have been drawn in the last life already: no order is claimed for it.
            let since = asked.saturating_sub(Duration::from_secs(3_600));
            story.observations.extend(first.iter().map(|number| Observation {
                value: value_of(number),
                asked: since,
                answered,
            }));
            settled.push((ask, first));
        }
        // What was answered in any earlier life is still the answer.
        for (ask, numbers) in settled.iter().rev().step_by(7).take(40) {
            assert_eq!(&ask.send(&mut caller).expect("an answer"), numbers, "{ask:?}");
        }

        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..CALLERS)
            .map(|index| {
                let (mut caller, watch, stop) = (caller.again(), Arc::clone(&watch), Arc::clone(&stop));
                let (prefix, name) = (prefix.to_owned(), format!("round-{round}-caller-{index}"));
                thread::spawn(move || ask_until_dead(&prefix, &name, &mut caller, &watch, &stop))
            })
            .collect();
        // Not at the same point of every life.
        thread::sleep(Duration::from_millis(250 + 90 * round as u64));
        site = server.kill_9();
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            let seen = thread.join().expect("a caller");
            story.observations.extend(seen.observations);
            settled.extend(seen.keyed);
            match seen.unanswered {
                Some(ask) if ask.key.is_some() => open.push(ask),
                Some(ask) => story.may_be_missing += ask.count,
                None => {}
            }
        }
    }
    let server = site.start();
    let mut caller = server.caller();
    for ask in open {
        let answered = watch.elapsed();
        let numbers = ask.send(&mut caller).expect("an answer");
        story.observations.extend(numbers.iter().map(|number| Observation {
            value: value_of(number),
            asked: Duration::ZERO,
            answered,
        }));
    }
    story.site = server.stop();
    assert!(story.observations.len() > 100 * ROUNDS, "there was load: {}", story.observations.len());
    story
}

#[test]
fn continuous_survives_kill_9_under_load() {
    let story = live_and_die("CRASH", &json!({ "format": "C-{SEQ:8}", "mode": "continuous" }));
    assert_no_value_twice(&story.observations);
    assert_real_time_order(&story.observations);

    let server = story.site.start();
    let sequences = server.caller().get("/sequences/CRASH").expect(200).json();
    let counter = &sequences["counters"][0];
    let last: u64 = counter["last_value"].as_str().and_then(|text| text.parse().ok()).expect("a value");
    let highest = story.observations.iter().map(|observation| observation.value).max().expect("values");
    assert!(highest <= last, "{highest} was answered, and the counter stands at {last}");
    // No gap for anything answered: what nobody saw was under way when the power went.
    let missing = usize::try_from(last).expect("small") - story.observations.len();
    assert!(missing <= story.may_be_missing, "{missing} values are gone, {} could be", story.may_be_missing);
    // And the counter accounts for every value.
    let width = |hole: &Value| {
        let bound =
            |name: &str| hole[name].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a bound");
        bound("to") - bound("from") + 1
    };
    let holes: u64 = counter["holes"].as_array().expect("holes").iter().map(width).sum();
    assert_eq!(counter["issued"].as_u64().map(|issued| issued + holes), Some(last), "{counter}");
}

#[test]
fn strict_survives_kill_9_under_load() {
    let story = live_and_die("BOOKS", &json!({ "format": "B-{SEQ:8}", "mode": "strict" }));
    assert_no_value_twice(&story.observations);
    assert_real_time_order(&story.observations);

    let server = story.site.start();
    let mut caller = server.caller();
    let certificate = caller.get("/ledger/BOOKS/certificate").expect(200).json();
    let number =
        |name: &str| certificate[name].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a value");
    let (first, last) = (number("first"), number("last"));
    assert_eq!(certificate["count"], last - first + 1, "{certificate}");
    assert_eq!(certificate["holes"], json!([]), "{certificate}");
    assert_eq!(first, 1);

    // The ledger itself, row by row.
    let mut rows = Vec::new();
    let mut after = String::new();
    loop {
        let page = caller.get(&format!("/ledger/BOOKS?limit=1000{after}")).expect(200).json();
        rows.extend(page["rows"].as_array().expect("rows").iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(rows.len() as u64, last);
    for (row, sequence) in rows.iter().zip(1_u64..) {
        assert_eq!(row["sequence"], sequence.to_string(), "{row}");
        assert_eq!(row["state"], "issued", "{row}");
        assert_eq!(row["number"], format!("B-{sequence:08}"), "{row}");
    }
    assert_eq!(rows.last().map(|row| &row["hash"]), Some(&certificate["head"]));
    let missing = rows.len() - story.observations.len();
    assert!(
        missing <= story.may_be_missing,
        "{missing} rows that nobody saw, {} could be",
        story.may_be_missing
    );
}

/// Between requests there is nothing to lose: the counter goes on without a gap, snowflakes go up.
#[test]
fn a_restart_loop_leaves_no_gap() {
    let mut site = Site::new();
    let mut snowflakes: Vec<String> = Vec::new();
    for life in 1..=12_u64 {
        let server = site.start();
        let mut caller = server.caller();
        if life == 1 {
            caller.register("LOOP", &json!({ "format": "L-{SEQ:4}" }));
            caller.register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
            caller.register("STRICT", &json!({ "format": "S-{SEQ:4}", "mode": "strict" }));
        }
        assert_eq!(caller.number("LOOP"), format!("L-{life:04}"));
        assert_eq!(caller.number("STRICT"), format!("S-{life:04}"));
        snowflakes.extend(caller.get("/numbers/FLAKE?count=50").expect(200).numbers());
        site = if life % 3 == 0 { server.stop() } else { server.kill_9() };
    }
    // All have nineteen digits, so text order is number order.
    assert!(snowflakes.windows(2).all(|pair| pair[0] < pair[1]), "snowflakes go up over restarts");
}
