//! Tokens that were verified, so that a signature is checked once and not at each request.
//!
//! Only verified tokens enter, so nobody without a valid token can push others out. Two generations bound the memory: a
//! token is looked up in both, a new one enters the young; once that is full it becomes the old one, and what
//! nobody asked for meanwhile is gone. An entry counts only under the epoch of keys that verified it.

use std::{
    hash::BuildHasher,
    mem,
    sync::{Arc, PoisonError, RwLock},
};

use foldhash::{HashMap, HashMapExt, quality::RandomState};

use super::claims::Claims;

const SHARDS: usize = 16;

/// A bounded map from the bytes of a token to its claims.
pub(super) struct Cache {
    hasher: RandomState,
    shards: [RwLock<Shard>; SHARDS],
    generation_size: usize,
}

#[derive(Default)]
struct Shard {
    young: HashMap<u64, Entry>,
    old: HashMap<u64, Entry>,
}

struct Entry {
    /// Compared in full: the hash alone decides nothing but where to look.
    token: Box<[u8]>,
    epoch: u64,
    claims: Arc<Claims>,
}

enum Found {
    Young(Arc<Claims>),
    Old(Arc<Claims>),
}

impl Cache {
    /// A cache of at most `capacity` tokens.
    pub(super) fn new(capacity: usize) -> Self {
        let generation_size = (capacity / SHARDS / 2).max(1);
        Self { hasher: RandomState::default(), shards: Default::default(), generation_size }
    }

    /// The claims of `token`, if it was verified under the keys of `epoch`.
    pub(super) fn get(&self, token: &[u8], epoch: u64) -> Option<Arc<Claims>> {
        let hash = self.hasher.hash_one(token);
        let shard = self.shard(hash);
        // Bound to a name, so that the guard is gone before the shard is locked for writing.
        let found = shard.read().unwrap_or_else(PoisonError::into_inner).find(hash, token, epoch)?;
        match found {
            Found::Young(claims) => Some(claims),
            Found::Old(claims) => {
                self.insert_hashed(hash, token, epoch, Arc::clone(&claims));
                Some(claims)
            }
        }
    }

    /// Remembers a token that was verified under the keys of `epoch`.
    pub(super) fn insert(&self, token: &[u8], epoch: u64, claims: Arc<Claims>) {
        self.insert_hashed(self.hasher.hash_one(token), token, epoch, claims);
    }

    fn insert_hashed(&self, hash: u64, token: &[u8], epoch: u64, claims: Arc<Claims>) {
        let mut shard = self.shard(hash).write().unwrap_or_else(PoisonError::into_inner);
        if shard.young.len() >= self.generation_size && !shard.young.contains_key(&hash) {
            shard.old = mem::take(&mut shard.young);
            shard.young = HashMap::with_capacity(self.generation_size.min(64));
        }
        shard.old.remove(&hash);
        shard.young.insert(hash, Entry { token: token.into(), epoch, claims });
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        // The top bits: the maps use the lower ones.
        &self.shards[(hash >> 60) as usize % SHARDS]
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().unwrap()).map(|s| s.young.len() + s.old.len()).sum()
    }
}

impl Shard {
    fn find(&self, hash: u64, token: &[u8], epoch: u64) -> Option<Found> {
        let hit = |entry: &&Entry| entry.epoch == epoch && *entry.token == *token;
        let young = self.young.get(&hash).filter(hit);
        if let Some(entry) = young {
            return Some(Found::Young(Arc::clone(&entry.claims)));
        }
        self.old.get(&hash).filter(hit).map(|entry| Found::Old(Arc::clone(&entry.claims)))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::scope::Scopes, *};
    use crate::clock::UnixMillis;

    fn claims(subject: &str) -> Arc<Claims> {
        Arc::new(Claims {
            subject: subject.into(),
            scopes: Scopes::NONE,
            prefixes: None,
            expires_at: UnixMillis(i64::MAX),
            not_before: None,
        })
    }

    #[test]
    fn stays_bounded_and_keeps_what_is_used() {
        let cache = Cache::new(1_000);
        cache.insert(b"steady", 0, claims("steady"));
        for index in 0..20_000_u32 {
            cache.insert(&index.to_le_bytes(), 0, claims("passing"));
            assert_eq!(cache.get(b"steady", 0).expect("used all the time").subject.as_ref(), "steady");
        }
        assert!(cache.len() <= 1_000, "{}", cache.len());
        assert!(cache.get(&0_u32.to_le_bytes(), 0).is_none(), "long unused");
    }

    #[test]
    fn an_entry_counts_only_under_its_keys_and_in_full() {
        let cache = Cache::new(100);
        cache.insert(b"token", 1, claims("a"));
        assert!(cache.get(b"token", 1).is_some());
        assert!(cache.get(b"token", 2).is_none());
        assert!(cache.get(b"toke", 1).is_none());
        let (hash, shard) = (cache.hasher.hash_one(b"token".as_slice()), Shard::default());
        assert!(shard.find(hash, b"token", 1).is_none());
        let shard = cache.shard(hash).read().unwrap();
        assert!(shard.find(hash, b"other", 1).is_none(), "the same hash is not the same token");
    }
}
