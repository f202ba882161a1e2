//! Worker windows on Redis: `protocol/window` in Lua, over Redis' own `TIME`.
//!
//! Everything of a data centre shares one slot of a cluster. The scripts do call by call what the pure functions do
//! (`tests/it/windows.rs` compares them); their figures are those of [`Terms::SHARED`]. Every script may be sent again.
//!
//! Times are in the domain of ID timestamps, so that a person with `redis-cli` sees in a mark what an ID may carry.

use std::{ops::Range, time::Duration};

use super::{
    RedisStore, STORE,
    client::{Arg, Script, Witness},
};
use crate::store::{
    AcquireRequest, Acquired, Extension, Generation, Holding, IdMillis, Nonce, Renewed, StoreError,
    StoreFuture, Tenure, WorkerStore, protocol::window::Terms,
};

/// Layout, epoch and data centre. One Redis serves one data centre, so that this is not one key for each.
pub(super) const LAYOUT: &str = "numgen:layout";

macro_rules! script {
    ($name:literal, $file:literal) => {
        Script::new(
            $name,
            concat!(include_str!("../marker.lua"), include_str!("slot.lua"), include_str!($file)),
        )
    };
}

static PIN: Script = Script::new("pin_layout", include_str!("pin.lua"));
static ACQUIRE: Script = script!("acquire_worker", "acquire.lua");
static RENEW: Script = script!("renew_worker", "renew.lua");
static FREE: Script = script!("free_workers", "free.lua");
static RELEASE: Script = script!("release_worker", "release.lua");

/// How long a call may take: its answer is of no use later.
const DEADLINE: Duration = Duration::from_millis(Terms::SHARED.stale_ms);

/// How long a replica has to confirm a new holding.
const REPLICATION: Duration = Duration::from_millis(200);

/// The worker slots of one data centre.
#[derive(Clone, Debug)]
pub struct Workers {
    store: RedisStore,
    datacenter: u32,
}

impl RedisStore {
    /// The worker slots of a data centre.
    pub fn workers(&self, datacenter: u32) -> Workers {
        Workers { store: self.clone(), datacenter }
    }
}

/// What the keys of the slots of a data centre begin with: the key of slot 7 is this followed by 7.
pub(super) fn slots_of(datacenter: u32) -> String {
    format!("numgen:worker:{{worker:{datacenter}}}:slot:")
}

impl Workers {
    /// Marker, holdings, and what the keys of slots begin with.
    fn keys(&self) -> [String; 3] {
        let slots = slots_of(self.datacenter);
        let holdings = format!("numgen:worker:{{worker:{}}}:holdings", self.datacenter);
        [self.store.client.marker_key(&slots), holdings, slots]
    }

    /// Runs a script on the slots; `rest` follows the arguments that all of them have.
    async fn run(&self, script: &'static Script, rest: &[Arg<'_>]) -> Result<Vec<String>, StoreError> {
        self.run_witnessed(script, rest).await.map(|(answer, _witness)| answer)
    }

    /// The same, and who answered.
    async fn run_witnessed(
        &self,
        script: &'static Script,
        rest: &[Arg<'_>],
    ) -> Result<(Vec<String>, Witness<'_>), StoreError> {
        let fresh = fresh_generation(script.name)?.to_string();
        let mut args = vec![Arg::Text(&fresh), Arg::Signed(self.store.epoch.0)];
        args.extend_from_slice(rest);
        self.store.client.run_witnessed(script, &self.keys(), &args, DEADLINE).await
    }
}

/// Waits until a replica has what was written last, and answers whether one has. What none has does not count: the server may have been cut
/// off from them, and one of them be promoted, which hands out the same slot while the holder stays here. Where the replica is gone
/// rather than cut off, the server finds that out within its `repl-timeout`.
async fn is_replicated(author: &Witness<'_>) -> Result<bool, StoreError> {
    let count = author.replicated("replicate_worker", 1, REPLICATION).await?;
    if count == 0 {
        tracing::warn!("no replica has confirmed the new worker window, which therefore waits");
    }
    Ok(count > 0)
}

impl WorkerStore for Workers {
    fn pin_layout<'a>(&'a self, layout: &'a str) -> StoreFuture<'a, String> {
        Box::pin(async move {
            let keys = [LAYOUT.to_owned()];
            self.store.client.run(&PIN, &keys, &[layout.into()], DEADLINE).await
        })
    }

    fn acquire(&self, request: AcquireRequest) -> StoreFuture<'_, Acquired> {
        Box::pin(async move {
            let AcquireRequest { nonce, slots, window_ms, ttl_ms, tenure } = request;
            let named = hex(nonce);
            let rest: [Arg<'_>; 6] = [
                (&named).into(),
                slots.start.into(),
                slots.end.into(),
                window_ms.into(),
                ttl_ms.into(),
                word(tenure).into(),
            ];
            let (answer, author) = self.run_witnessed(&ACQUIRE, &rest).await?;
            match words(&answer)[..] {
                ["held", slot, fence, start, mark, now, generation, company] => {
                    let holding = Holding {
                        slot: u32::try_from(number(slot)?).map_err(|_| damaged())?,
                        nonce,
                        fence: number(fence)?,
                        start: number(start)?,
                        mark: number(mark)?,
                        now: number(now)?,
                        generation: named_generation(generation)?,
                    };
                    match company {
                        "alone" => Ok(Acquired::Held(holding)),
                        _ if is_replicated(&author).await? => Ok(Acquired::Held(holding)),
                        _ => Ok(Acquired::Wait(REPLICATION)),
                    }
                }
                ["wait", left_ms] => Ok(Acquired::Wait(Duration::from_millis(number(left_ms)?))),
                ["none"] => Ok(Acquired::NoSlot),
                _ => Err(damaged()),
            }
        })
    }

    fn renew(&self, holding: Holding, extension: Extension) -> StoreFuture<'_, Renewed> {
        Box::pin(async move {
            let (nonce, generation) = (hex(holding.nonce), holding.generation.to_string());
            let rest: [Arg<'_>; 10] = [
                holding.slot.into(),
                (&nonce).into(),
                holding.fence.into(),
                holding.start.into(),
                holding.mark.into(),
                (&generation).into(),
                extension.carried.into(),
                extension.window_ms.into(),
                extension.ttl_ms.into(),
                word(extension.tenure).into(),
            ];
            let answer = self.run(&RENEW, &rest).await?;
            match words(&answer)[..] {
                ["extended", mark, now, generation] => Ok(Renewed::Extended {
                    mark: number(mark)?,
                    now: number(now)?,
                    generation: named_generation(generation)?,
                }),
                ["lost"] => Ok(Renewed::Lost),
                _ => Err(damaged()),
            }
        })
    }

    fn free_slots(&self, slots: Range<u32>) -> StoreFuture<'_, Option<u32>> {
        Box::pin(async move {
            let answer = self.run(&FREE, &[slots.start.into(), slots.end.into()]).await?;
            let free = answer.first().ok_or_else(damaged)?;
            Ok(Some(u32::try_from(number(free)?).map_err(|_| damaged())?))
        })
    }

    fn release(&self, holding: Holding, last: IdMillis) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let (nonce, generation) = (hex(holding.nonce), holding.generation.to_string());
            let rest: [Arg<'_>; 5] = [
                holding.slot.into(),
                (&nonce).into(),
                holding.fence.into(),
                (&generation).into(),
                last.into(),
            ];
            self.run(&RELEASE, &rest).await.map(drop)
        })
    }
}

fn fresh_generation(operation: &'static str) -> Result<Generation, StoreError> {
    let mut bits = [0; 8];
    getrandom::fill(&mut bits).map_err(|source| StoreError::Unavailable {
        store: STORE,
        operation,
        source: Box::new(source),
    })?;
    Ok(Generation(u64::from_ne_bytes(bits)))
}

fn hex(nonce: Nonce) -> String {
    format!("{:032x}", u128::from_be_bytes(nonce.0))
}

/// What [`hex`] makes; `None` of anything else.
pub(super) fn unhex(text: &str) -> Option<Nonce> {
    u128::from_str_radix(text, 16).ok().map(|number| Nonce(number.to_be_bytes()))
}

fn word(tenure: Tenure) -> &'static str {
    match tenure {
        Tenure::Lease => "lease",
        Tenure::Fixed => "fixed",
    }
}

fn words(answer: &[String]) -> Vec<&str> {
    answer.iter().map(String::as_str).collect()
}

fn number(text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_| damaged())
}

fn named_generation(text: &str) -> Result<Generation, StoreError> {
    u64::from_str_radix(text, 16).map(Generation).map_err(|_| damaged())
}

fn damaged() -> StoreError {
    StoreError::Corrupt { store: STORE, what: "a worker slot or its marker".to_owned() }
}
