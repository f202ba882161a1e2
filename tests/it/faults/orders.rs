//! Callers who number orders: each order has a key, and is asked for until there is an answer, at whatever node.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{Fleet, NORMAL_WITHIN, idempotency::keyed};
use crate::harness::{Caller, Random, Stopwatch};

/// One order and the numbers that it was given.
#[derive(Debug)]
struct Order {
    key: String,
    numbers: Vec<String>,
}

/// Callers at work.
pub(super) struct Clerks {
    prefix: &'static str,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<Vec<Order>>>,
}

impl Clerks {
    const COUNT: u64 = 4;
    /// Between two attempts, and between two orders.
    const PAUSE: Duration = Duration::from_millis(20);

    /// Numbers orders until they are told to stop.
    pub(super) fn on(fleet: &Fleet, prefix: &'static str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let clerk = |clerk| {
            let (stop, token) = (Arc::clone(&stop), fleet.token());
            let addresses = Arc::clone(&fleet.addresses);
            let mut lot = Random::of(clerk);
            thread::spawn(move || {
                let mut orders = Vec::new();
                let mut attempt = |key: &str, count: usize| {
                    let address = *lot.pick(&addresses.lock().unwrap_or_else(PoisonError::into_inner));
                    let mut caller = Caller::new(address?, Some(token.clone()));
                    let answer = keyed(&mut caller, prefix, key, count).ok()?;
                    assert!([200, 503].contains(&answer.status), "{}", answer.text());
                    let numbers = (answer.status == 200).then(|| answer.numbers())?;
                    assert_eq!(numbers.len(), count, "all or nothing");
                    Some(numbers)
                };
                while !stop.load(Ordering::Relaxed) {
                    let (key, count) = (format!("order-{clerk}-{}", orders.len()), 1 + orders.len() % 3);
                    let numbers = loop {
                        if let Some(numbers) = attempt(&key, count) {
                            break numbers;
                        }
                        thread::sleep(Self::PAUSE);
                    };
                    orders.push(Order { key, numbers });
                    thread::sleep(Self::PAUSE);
                }
                orders
            })
        };
        Self { prefix, threads: (0..Self::COUNT).map(clerk).collect(), stop }
    }

    /// Lets everybody finish the order that he is at.
    pub(super) fn stop(self) -> Orders {
        self.stop.store(true, Ordering::Relaxed);
        let all = self.threads.into_iter().flat_map(|thread| thread.join().expect("a clerk"));
        Orders { prefix: self.prefix, all: all.collect() }
    }
}

/// What was numbered.
#[derive(Debug)]
pub(super) struct Orders {
    prefix: &'static str,
    all: Vec<Order>,
}

impl Orders {
    pub(super) fn numbers(&self) -> impl Iterator<Item = &str> {
        self.all.iter().flat_map(|order| &order.numbers).map(String::as_str)
    }

    /// No number belongs to two orders.
    #[track_caller]
    pub(super) fn assert_unique(&self) {
        let mut owners = BTreeMap::new();
        for order in &self.all {
            for number in &order.numbers {
                let other = owners.insert(number, &order.key);
                assert_eq!(other, None, "{number} is also that of {}", order.key);
            }
        }
        assert!(self.all.len() > 20, "there was something to compare: {}", self.all.len());
    }

    /// Each node gives each order what it was given.
    #[track_caller]
    pub(super) fn assert_known(&self, fleet: &Fleet) {
        let mut callers: Vec<Caller> = (0..fleet.nodes.len()).map(|index| fleet.caller(index)).collect();
        for (at, order) in self.all.iter().enumerate() {
            let caller = at % callers.len();
            let count = order.numbers.len();
            let mut again = Vec::new();
            // A connection that died in silence is found out by its first use.
            Stopwatch::wait_until(NORMAL_WITHIN, &order.key, || {
                let answer = keyed(&mut callers[caller], self.prefix, &order.key, count).expect("an answer");
                if answer.status == 200 {
                    again = answer.numbers();
                }
                answer.status != 503
            });
            assert_eq!(again, order.numbers, "{} at node {caller}", order.key);
        }
    }
}
