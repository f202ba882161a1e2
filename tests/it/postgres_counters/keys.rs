//! Idempotency keys that meet several counters and modes at once.

use std::time::Duration;

use numgen::{
    clock::UnixMillis,
    counter::{Ranges, SequenceValue, ValueRange},
    lifecycle::Lifecycle,
    store::{
        Claim, IdempotencyStore, Taken,
        counters::{AuthorityLink, claim_ask},
        protocol::counter::{ClaimAnswer, Generation, Incarnation, Limits, Outcome, Reply, Take},
    },
};

use super::{SECOND, connect, counter, link};
use crate::harness::Postgres;

const NOW: UnixMillis = UnixMillis(1_000_000);

fn claim(key: &str) -> Claim {
    Claim {
        scoped_key: key.into(),
        fingerprint: [3; 32],
        stamp: "stamp".into(),
        claimed_at: NOW,
        expires_at: NOW.plus(Duration::from_secs(60)),
    }
}

pub(super) fn take(process: u128, call: u64, generation: Option<Generation>, count: u64) -> Take {
    Take {
        incarnation: Incarnation(process),
        node: format!("n{process}"),
        generation,
        call,
        count,
        claims: Vec::new(),
        limits: Limits {
            base: SequenceValue(0),
            floor: SequenceValue(0),
            max: SequenceValue::MAX,
            scheme: 0,
        },
        seen: None,
        holds: None,
        used: Vec::new(),
        surplus: Vec::new(),
        wants: None,
        retires: Vec::new(),
        covers: Vec::new(),
        peers: Vec::new(),
        horizon: SequenceValue(0),
        distrusts: None,
        next_beat_ms: 500,
        leaves: false,
    }
}

/// Of many who draw for one key at the same moment, on several counters, one draws; the others are told what it got.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_draws_with_one_key_one_draws() {
    let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
    let link = link(&database.url(), &lifecycle);
    let generation = super::memory::settled(&link, &counter("KEYS", "1"), |sql| database.psql(sql)).await;
    for round in 0..10_u64 {
        let draws = (0..6_u128).map(|process| {
            let link = &link;
            async move {
                let on = counter("KEYS", &(process % 3).to_string());
                let claims = vec![claim_ask(&claim(&format!("key {round}")), 2, 1)];
                let ask = Take { claims, ..take(process, round + 1, Some(generation), 1) };
                link.take(&on, &ask, 20 * SECOND).await.expect("served")
            }
        });
        let mut fresh = 0;
        let mut given: Vec<Vec<ValueRange>> = Vec::new();
        for reply in futures_util::future::join_all(draws).await {
            let Reply::Taken { outcome: Outcome::Drawn(_), claims, .. } = reply else { panic!("{reply:?}") };
            match &claims[..] {
                [ClaimAnswer::Fresh(values)] => {
                    fresh += 1;
                    given.push(values.clone());
                }
                [ClaimAnswer::Replayed { values, .. }] => given.push(values.clone()),
                other => panic!("{other:?}"),
            }
        }
        given.dedup();
        assert_eq!((fresh, given.len()), (1, 1), "{given:?}");
    }
    lifecycle.drain();
}

/// What a key got in another mode, it gets from a counter that does not exist yet too, and the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_stays_used_when_its_rule_changes_its_mode() {
    let (database, lifecycle) = (Postgres::create_database(), Lifecycle::new());
    let (store, link) = (connect(&database.url(), &lifecycle), link(&database.url(), &lifecycle));
    let generation = super::memory::settled(&link, &counter("KEYS", "1"), |sql| database.psql(sql)).await;
    let values: Ranges = ValueRange { from: SequenceValue(70), to: SequenceValue(71) }.into();
    store.remember(claim("elsewhere"), values.clone()).await.expect("written");
    let claims = vec![
        claim_ask(&claim("elsewhere"), 2, 1),
        claim_ask(&claim("here"), 2, 1),
        claim_ask(&claim("here"), 2, 1),
    ];
    let ask = Take { claims, ..take(7, 1, Some(generation), 0) };
    let reply = link.take(&counter("KEYS", "new"), &ask, 20 * SECOND).await.expect("served");
    let Reply::Taken { claims, .. } = reply else { panic!("{reply:?}") };
    let first = vec![ValueRange { from: SequenceValue(1), to: SequenceValue(2) }];
    let replayed = |values: Vec<ValueRange>| ClaimAnswer::Replayed { stamp: "stamp".to_owned(), values };
    assert_eq!(
        claims,
        [replayed(values.iter().collect()), ClaimAnswer::Fresh(first.clone()), replayed(first.clone())]
    );
    let again = store.remember(claim("here"), values).await.expect("read");
    assert!(
        matches!(&again, Taken::Replayed(recorded) if recorded.values.iter().eq(first.clone())),
        "{again:?}"
    );
    // An expired record gives way.
    let late =
        Claim { claimed_at: NOW.plus(61 * SECOND), expires_at: NOW.plus(121 * SECOND), ..claim("here") };
    let ask = Take { claims: vec![claim_ask(&late, 1, 1)], ..take(7, 2, Some(generation), 0) };
    let reply = link.take(&counter("KEYS", "new"), &ask, 20 * SECOND).await.expect("served");
    let Reply::Taken { claims, .. } = reply else { panic!("{reply:?}") };
    let third = ValueRange { from: SequenceValue(3), to: SequenceValue(3) };
    assert_eq!(claims, [ClaimAnswer::Fresh(vec![third])]);
    lifecycle.drain();
}
