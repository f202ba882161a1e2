//! Buckets by key, in bounded memory.
//!
//! Two generations, as in the cache of tokens: a key is looked up in both and moves into the young one; when that is full, or
//! a minute old, the old one is dropped, except for buckets that a connection holds. An allowance refills within a second,
//! so a bucket that is forgotten after a minute was full. Only where more than half the capacity of new keys
//! arrives within a second may somebody begin anew too early; memory stays bounded all the same.

use std::{
    collections::hash_map::Entry,
    hash::{BuildHasher, Hash},
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use foldhash::{HashMap, quality::RandomState};

use super::bucket::Bucket;

const SHARDS: usize = 16;
const GENERATION_LIFE: Duration = Duration::from_mins(1);

/// Buckets by key.
#[derive(Debug)]
pub(super) struct Registry<K> {
    hasher: RandomState,
    shards: [Mutex<Shard<K>>; SHARDS],
    generation_size: usize,
}

#[derive(Debug)]
struct Shard<K> {
    young: HashMap<K, Arc<Bucket>>,
    old: HashMap<K, Arc<Bucket>>,
    begun: Duration,
}

impl<K: Hash + Eq + Clone> Registry<K> {
    /// A registry of at most `capacity` buckets.
    pub(super) fn new(capacity: usize) -> Self {
        let shard = || {
            Mutex::new(Shard { young: HashMap::default(), old: HashMap::default(), begun: Duration::ZERO })
        };
        Self {
            hasher: RandomState::default(),
            shards: std::array::from_fn(|_| shard()),
            generation_size: (capacity / SHARDS / 2).max(1),
        }
    }

    /// The bucket of `key`; a new one by `make` if there is none, or none that `fits` (limits change).
    pub(super) fn get(
        &self,
        key: &K,
        now: Duration,
        fits: impl Fn(&Bucket) -> bool,
        make: impl FnOnce() -> Bucket,
    ) -> Arc<Bucket> {
        // The top bits: the maps use the lower ones.
        let shard = &self.shards[(self.hasher.hash_one(key) >> 60) as usize % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let shard = &mut *shard;
        if now.saturating_sub(shard.begun) >= GENERATION_LIFE {
            shard.begin_generation(now, self.generation_size);
        }
        if let Some(bucket) = shard.young.get(key).filter(|bucket| fits(bucket)) {
            return Arc::clone(bucket);
        }
        // Taken out before a generation ends, which may move it or drop it.
        let known = shard.old.remove(key).filter(|bucket| fits(bucket));
        if shard.young.len() >= self.generation_size {
            shard.begin_generation(now, self.generation_size);
        }
        let bucket = known.unwrap_or_else(|| Arc::new(make()));
        shard.young.insert(key.clone(), Arc::clone(&bucket));
        bucket
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap()).map(|s| s.young.len() + s.old.len()).sum()
    }
}

impl<K: Hash + Eq> Shard<K> {
    fn begin_generation(&mut self, now: Duration, size: usize) {
        let young = mem::take(&mut self.young);
        let dropped = mem::replace(&mut self.old, young);
        self.begun = now;
        // A bucket that a connection holds must stay the only one of its key. There are fewer of them than `size`, as
        // there are fewer connections; if not, the bound comes first.
        let held = dropped.into_iter().filter(|(_, bucket)| Arc::strong_count(bucket) > 1).take(size / 2);
        for (key, bucket) in held {
            if let Entry::Vacant(vacant) = self.young.entry(key) {
                vacant.insert(bucket);
            }
        }
    }
}
