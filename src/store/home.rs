//! Whether the Redis of this node is the one that its data centre ID belongs to (profile *full*).
//!
//! Invariant: while it is not known to be, or is known to be another one, nothing is granted to it, no worker window is confirmed, and
//! no rule is written to it or adopted from it.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use super::{
    StoreError,
    postgres::grants::{Grants, Redis},
    redis::RedisStore,
};
use crate::lifecycle::Lifecycle;

/// How often the ID is held anew: several times in the time for which it is held.
const HOLD_EVERY: Duration = Duration::from_secs(5);

/// The same while it is not held.
const TRY_EVERY: Duration = Duration::from_millis(250);

/// What a Redis is called that has no name yet.
const NAMELESS: &str = "without a name";

/// Where a node stands with its data centre ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// Nobody was asked yet.
    Unknown,
    /// It is this Redis's.
    Own,
    /// It is another's.
    Foreign(Arc<Foreign>),
}

/// An ID that belongs to another Redis.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "NUMGEN_DATACENTER_ID: data centre {datacenter} belongs to the Redis {} at {}, and this node uses the Redis {} at {}; each \
     data centre has one Redis and an ID of its own",
    owner.id, owner.place, own.id, own.place
)]
pub struct Foreign {
    /// Which ID.
    pub datacenter: u32,
    /// Whose it is.
    pub owner: Redis,
    /// Which Redis this node uses.
    pub own: Redis,
}

impl Home {
    /// How the Redis at `place` stands that is called `name`, if it has one, with an ID that `owner` holds, if anybody does.
    pub fn seen(datacenter: u32, owner: Option<Redis>, name: Option<String>, place: String) -> Self {
        match owner {
            Some(owner) if name.as_ref() != Some(&owner.id) => {
                let own = Redis { id: name.unwrap_or_else(|| NAMELESS.to_owned()), place };
                Self::Foreign(Arc::new(Foreign { datacenter, owner, own }))
            }
            Some(_) | None => Self::Own,
        }
    }

    /// Whether anything may be asked for in the name of the data centre.
    ///
    /// # Errors
    ///
    /// `Unavailable`, saying why not.
    pub(in crate::store) fn check(&self, operation: &'static str) -> Result<(), StoreError> {
        let refused = |why: Box<dyn std::error::Error + Send + Sync>| StoreError::Unavailable {
            store: "postgres",
            operation,
            source: why,
        };
        match self {
            Self::Own => Ok(()),
            Self::Unknown => Err(refused("whose data centre ID this is was not found out yet".into())),
            Self::Foreign(foreign) => Err(refused(foreign.to_string().into())),
        }
    }
}

/// One phrase, for `/readyz`.
impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("ok"),
            Self::Unknown => f.write_str("not found out yet"),
            Self::Foreign(foreign) => foreign.fmt(f),
        }
    }
}

/// Where a data directory remembers the name of its Redis: one that is emptied gets it back.
fn memory(data_dir: &Path) -> PathBuf {
    data_dir.join("redis-name")
}

/// The name of the Redis that a node on this data directory has used.
pub fn remembered_name(data_dir: &Path) -> Option<String> {
    std::fs::read_to_string(memory(data_dir)).ok().filter(|name| !name.is_empty())
}

/// Holds the ID of a data centre for the Redis of this node.
pub struct Housekeeper {
    redis: Arc<RedisStore>,
    grants: Grants,
    place: String,
    data_dir: PathBuf,
    state: Arc<watch::Sender<Home>>,
}

impl Housekeeper {
    /// For a Redis at `place`; says to `state` what it finds.
    pub fn new(
        redis: Arc<RedisStore>,
        grants: Grants,
        place: String,
        data_dir: PathBuf,
        state: Arc<watch::Sender<Home>>,
    ) -> Self {
        Self { redis, grants, place, data_dir, state }
    }

    /// Holds it until the drain.
    pub async fn keep(self, lifecycle: Lifecycle) {
        let mut known = remembered_name(&self.data_dir);
        loop {
            match self.hold(&mut known).await {
                Ok(home) => self.say(home),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "the data centre ID is not held anew");
                }
            }
            let pause = if *self.state.borrow() == Home::Own { HOLD_EVERY } else { TRY_EVERY };
            tokio::select! {
                () = lifecycle.draining() => return,
                () = sleep(pause) => {}
            }
        }
    }

    async fn hold(&self, known: &mut Option<String>) -> Result<Home, StoreError> {
        let named = match self.redis.identity(known.as_deref()).await? {
            Some(id) => Some(id),
            // It is new, or was emptied. In the latter case others remember its name: they have as long as they hold the ID.
            None => match self.grants.home_holder().await? {
                Some(owner) => return Ok(self.seen(owner, None)),
                None => self.redis.identity(Some(&fresh())).await?,
            },
        };
        let Some(id) = named else { return Ok(Home::Unknown) };
        let own = Redis { id, place: self.place.clone() };
        let home = self.seen(self.grants.hold_home(&own).await?, Some(own.id.clone()));
        if home == Home::Own && known.as_ref() != Some(&own.id) {
            if let Err(error) = std::fs::write(memory(&self.data_dir), &own.id) {
                tracing::debug!(%error, "the name of the Redis is not remembered on disk");
            }
            *known = Some(own.id);
        }
        Ok(home)
    }

    fn seen(&self, owner: Redis, name: Option<String>) -> Home {
        Home::seen(self.grants.datacenter(), Some(owner), name, self.place.clone())
    }

    fn say(&self, home: Home) {
        self.state.send_if_modified(|before| {
            let is_news = *before != home;
            if is_news && let Home::Foreign(foreign) = &home {
                tracing::error!(error = %foreign, "nothing is granted to this Redis");
            }
            *before = home;
            is_news
        });
    }
}

fn fresh() -> String {
    let mut name = [0; 8];
    // Without randomness it is named by the next node.
    let _ = getrandom::fill(&mut name);
    super::counters::hex(&name)
}
