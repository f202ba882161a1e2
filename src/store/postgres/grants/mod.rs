//! Grants of values to the Redis of each data centre: the pure `protocol/grant`, on rows that a transaction has locked.
//!
//! Invariants:
//! - a step locks the row of the counter: what is granted, drawn and moved past is in one order, and durable before it is answered;
//! - a line of a counter that has none begins above what is known of it here too: a database may have served counters by itself before;
//! - nobody draws for once from a counter of which nothing was ever granted, unless there were grants for its prefix key long before:
//!   a Redis may have issued values of it.
//!
//! Order of reading: `migrations/0005_grants.sql` (the tables), `step.rs` (one transaction), `list.rs` (all counters of a key).

mod home;
mod list;
mod step;

use std::time::Duration;

pub use home::Redis;
pub(super) use home::holder;
pub(super) use step::datacenter;

use tokio::sync::watch;

use super::PostgresStore;
use crate::{
    counter::{Counter, Ranges, SequenceValue, ValueRange},
    prefix_key::PrefixKey,
    store::{
        Claim, Home, IdempotencyStore, Reachable, StoreError, StoreFuture, Taken,
        counters::{GrantLink, Lot},
        protocol::grant::{Draw, Drawn, Granted, Need, Raised},
    },
};

/// A data centre among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Which.
    pub datacenter: u32,
    /// How many there are.
    pub datacenters: u32,
}

/// Grants for one data centre. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Grants {
    store: PostgresStore,
    site: Site,
    home: watch::Receiver<Home>,
}

impl Grants {
    /// What `store` grants to a data centre, as long as that is `home` to its Redis.
    pub fn new(store: PostgresStore, site: Site, home: watch::Receiver<Home>) -> Self {
        Self { store, site, home }
    }

    /// Which data centre.
    pub fn datacenter(&self) -> u32 {
        self.site.datacenter
    }

    /// Which Redis has the ID of the data centre, if one does.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn home_holder(&self) -> Result<Option<Redis>, StoreError> {
        let id = self.site.datacenter;
        self.store.transact("home_holder", &id, |connection, id| Box::pin(home::holder(connection, id))).await
    }

    /// Holds the ID of the data centre for a Redis; answers which one has it.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn hold_home(&self, redis: &Redis) -> Result<Redis, StoreError> {
        let ask = (self.site.datacenter, redis);
        self.store.transact("hold_home", &ask, |connection, ask| Box::pin(home::hold(connection, ask))).await
    }
}

impl GrantLink for Grants {
    fn fetch<'a>(
        &'a self,
        counter: &'a Counter,
        marker: &'a str,
        need: &'a Need,
        deadline: Duration,
    ) -> StoreFuture<'a, Granted> {
        let ask = (self.site, counter, marker, need);
        Box::pin(async move {
            self.home.borrow().check("grant")?;
            self.store
                .transact_within(deadline, "grant", &ask, |connection, ask| {
                    Box::pin(step::fetch(connection, ask))
                })
                .await
        })
    }

    fn draw<'a>(
        &'a self,
        counter: &'a Counter,
        draw: &'a Draw,
        deadline: Duration,
    ) -> StoreFuture<'a, Option<Drawn>> {
        let ask = (counter, draw);
        Box::pin(async move {
            self.store
                .transact_within(deadline, "draw", &ask, |connection, ask| {
                    Box::pin(step::draw(connection, ask))
                })
                .await
        })
    }

    fn give_back<'a>(
        &'a self,
        counter: &'a Counter,
        values: &'a [ValueRange],
        deadline: Duration,
    ) -> StoreFuture<'a, ()> {
        let ask = (counter, values);
        Box::pin(async move {
            self.store
                .transact_within(deadline, "give_back", &ask, |connection, ask| {
                    Box::pin(list::give_back(connection, ask))
                })
                .await
        })
    }

    fn retire<'a>(
        &'a self,
        key: &'a PrefixKey,
        scheme: u64,
        deadline: Duration,
    ) -> StoreFuture<'a, SequenceValue> {
        let ask = (key, scheme);
        Box::pin(async move {
            self.store
                .transact_within(deadline, "retire", &ask, |connection, ask| {
                    Box::pin(list::retire(connection, ask))
                })
                .await
        })
    }

    fn raise<'a>(
        &'a self,
        counter: &'a Counter,
        to: SequenceValue,
        deadline: Duration,
    ) -> StoreFuture<'a, Raised> {
        let ask = (self.site, counter, to);
        Box::pin(async move {
            self.store
                .transact_within(deadline, "raise", &ask, |connection, ask| {
                    Box::pin(step::raise(connection, ask))
                })
                .await
        })
    }

    fn remember(&self, claim: Claim, values: Ranges) -> StoreFuture<'_, Taken> {
        IdempotencyStore::remember(&self.store, claim, values)
    }

    fn recall(&self, claim: Claim) -> StoreFuture<'_, Option<Taken>> {
        Box::pin(self.store.recall(claim))
    }

    fn lots<'a>(&'a self, key: &'a PrefixKey, deadline: Duration) -> StoreFuture<'a, Vec<Lot>> {
        let ask = (self.site, key);
        Box::pin(async move {
            self.store
                .transact_within(deadline, "lots", &ask, |connection, ask| {
                    Box::pin(list::lots(connection, ask))
                })
                .await
        })
    }

    fn reachable(&self) -> watch::Receiver<Reachable> {
        self.store.reachable()
    }
}
