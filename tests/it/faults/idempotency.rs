//! The same key, the same answer: from any node, also when the first answer was lost.

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::json;

use super::{Fleet, Load, Pace, counting, flaking, settled};
use crate::harness::{Caller, Fault, Proxy, Response, Stopwatch, value_of};

pub(super) fn keyed(caller: &mut Caller, prefix: &str, key: &str, count: usize) -> std::io::Result<Response> {
    let body = json!({ "prefix_key": prefix, "count": count });
    caller.try_send("POST", "/numbers", &[("Idempotency-Key", key)], Some(&body))
}

#[test]
fn an_answer_that_was_lost_is_given_again_by_any_node() {
    let redis = settled();
    let proxy = Proxy::to(redis.port());
    // Node 0 reaches Redis through a bad line; the others do not.
    let fleet = Fleet::start_with(&redis.url(), 3, |index, site| {
        if index == 0 { site.with("NUMGEN_REDIS_URL", &proxy.redis_url()) } else { site }
    });
    fleet.register("COUNT", &counting());
    fleet.register("FLAKE", &flaking());
    for index in 0..3 {
        fleet.caller(index).number("COUNT");
    }
    let mut drawn: Vec<u64> = Vec::new();
    for (round, fault) in [Fault::DropReplies, Fault::CutReplies, Fault::DropReplies].into_iter().enumerate()
    {
        proxy.set(fault);
        for prefix in ["COUNT", "FLAKE"] {
            let key = format!("order-{round}");
            let lost = keyed(&mut fleet.caller(0), prefix, &key, 3).expect("an answer");
            let code = lost.json()["code"].clone();
            assert!(lost.status == 503, "an answer that nobody could know: {}", lost.text());
            assert!(
                ["StorageTimeout", "StorageUnavailable"].contains(&code.as_str().unwrap_or_default()),
                "{code}"
            );
            let first =
                keyed(&mut fleet.caller(1), prefix, &key, 3).expect("an answer").expect(200).numbers();
            let second =
                keyed(&mut fleet.caller(2), prefix, &key, 3).expect("an answer").expect(200).numbers();
            assert_eq!(first, second, "{prefix} {key}");
            keyed(&mut fleet.caller(1), prefix, &key, 2)
                .expect("an answer")
                .expect_problem(422, "IdempotencyMismatch");
            if prefix == "COUNT" {
                drawn.extend(first.iter().map(|number| value_of(number)));
            }
        }
        proxy.set(Fault::None);
        // And by the node that never heard of its own success.
        for prefix in ["COUNT", "FLAKE"] {
            let key = format!("order-{round}");
            let known =
                keyed(&mut fleet.caller(1), prefix, &key, 3).expect("an answer").expect(200).numbers();
            Stopwatch::wait_until(Duration::from_secs(30), "node 0 answers again", || {
                let answer = keyed(&mut fleet.caller(0), prefix, &key, 3).expect("an answer");
                answer.status == 200 && answer.numbers() == known
            });
        }
    }
    let distinct: BTreeSet<u64> = drawn.iter().copied().collect();
    assert_eq!(distinct.len(), 9, "{drawn:?}");
}

#[test]
fn keyed_requests_wait_for_redis_and_others_do_not() {
    let redis = settled();
    let proxy = Proxy::to(redis.port());
    let fleet = Fleet::start(&proxy.redis_url(), 1);
    fleet.register("COUNT", &counting());
    fleet.register("FLAKE", &flaking());
    let mut caller = fleet.caller(0);
    let before = keyed(&mut caller, "COUNT", "before", 2).expect("an answer").expect(200).numbers();
    // The first number of a rule is one that the register must hear of.
    caller.get("/numbers/FLAKE").expect(200);
    fleet.wait_segments("COUNT");
    proxy.set(Fault::Refuse);
    for prefix in ["COUNT", "FLAKE"] {
        let refused = keyed(&mut caller, prefix, "during", 1).expect("an answer");
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.header("retry-after").is_some());
        caller.get(&format!("/numbers/{prefix}")).expect(200);
    }
    proxy.set(Fault::None);
    Stopwatch::wait_until(Duration::from_secs(30), "keyed requests are served again", || {
        keyed(&mut caller, "COUNT", "during", 1).expect("an answer").status == 200
    });
    let after = keyed(&mut caller, "COUNT", "before", 2).expect("an answer").expect(200).numbers();
    assert_eq!(before, after);
}

#[test]
fn a_key_outlives_the_node_that_was_killed_over_it() {
    let redis = settled();
    let mut fleet = Fleet::start(&redis.url(), 2);
    fleet.register("COUNT", &counting());
    let noise = Load::on(&fleet, "COUNT", Pace::CALM);
    let mut caller = fleet.caller(0);
    let asking = thread::spawn(move || {
        let mut answered: Vec<(String, Vec<String>)> = Vec::new();
        for turn in 0.. {
            let key = format!("turn-{turn}");
            match keyed(&mut caller, "COUNT", &key, 2) {
                Ok(answer) => answered.push((key, answer.expect(200).numbers())),
                Err(_killed) => return (answered, key),
            }
        }
        unreachable!("it is killed")
    });
    thread::sleep(Duration::from_millis(700));
    fleet.kill_9(0);
    let (answered, cut_off) = asking.join().expect("a caller");
    assert!(answered.len() > 10, "{}", answered.len());
    let mut survivor = fleet.caller(1);
    for (key, numbers) in &answered {
        let again = keyed(&mut survivor, "COUNT", key, 2).expect("an answer").expect(200).numbers();
        assert_eq!(&again, numbers, "{key}");
    }
    let first = keyed(&mut survivor, "COUNT", &cut_off, 2).expect("an answer").expect(200).numbers();
    fleet.start_again(0);
    let second = keyed(&mut fleet.caller(0), "COUNT", &cut_off, 2).expect("an answer").expect(200).numbers();
    assert_eq!(first, second, "{cut_off}");

    let story = noise.stop();
    let keyed_values =
        answered.iter().flat_map(|(_, numbers)| numbers).chain(&first).map(|number| value_of(number));
    let mut all: Vec<u64> = story.observations().iter().map(|seen| seen.value).chain(keyed_values).collect();
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "each once");
}
