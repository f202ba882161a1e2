//! The authority of counters, asked on Redis: each call does what the one of the same name of [`Authority`] does.
//!
//! [`Authority`]: crate::store::protocol::counter::Authority

use std::time::Duration;

use super::wire::{self, Text};
use crate::{
    calendar::Period,
    clock::UnixMillis,
    counter::{Counter, SequenceValue},
    prefix_key::PrefixKey,
    store::{
        StoreError,
        counters::{Closed, Shown},
        protocol::counter::{Abandon, Abandoned, Advance, Fenced, Generation, Reply, Settled, Stride, Take},
        redis::client::{Arg, Client, Script},
    },
};

/// A script: shared parts, then its own end. The parts that a healthy call does not reach cost it nothing.
macro_rules! script {
    ($name:literal, $($part:literal),+) => {
        Script::new($name, concat!($(include_str!($part)),+))
    };
}

static TAKE: Script = script!(
    "take",
    "values.lua",
    "../marker.lua",
    "instance.lua",
    "healthy.lua",
    "authority.lua",
    "answer.lua",
    "take.lua"
);
static ADVANCE: Script =
    script!("advance", "values.lua", "../marker.lua", "instance.lua", "authority.lua", "advance.lua");
static ABANDON: Script =
    script!("abandon", "values.lua", "../marker.lua", "instance.lua", "authority.lua", "abandon.lua");
static FENCE: Script =
    script!("fence", "values.lua", "../marker.lua", "instance.lua", "authority.lua", "fence.lua");
static ENLIST: Script = script!("enlist", "enlist.lua");
static CLOSE: Script = script!("close", "../marker.lua", "close.lua");
static CURSOR: Script = script!("cursor", "cursor.lua");
static LOOK: Script = script!("look", "../marker.lua", "look.lua");
static SHOW: Script = script!("show", "show.lua");
static SETTLE: Script = script!("settle", "settle.lua");

/// The store's side of every counter. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RedisAuthority {
    client: Client,
}

impl RedisAuthority {
    /// The authority that stands behind a connection.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The connection.
    pub(in crate::store::redis) fn client(&self) -> &Client {
        &self.client
    }

    /// [`Authority::serve`](crate::store::protocol::counter::Authority::serve). May be sent again with the same `take`: that is how an unknown outcome is found out.
    ///
    /// A reply of [`Outcome::Blocked`](crate::store::protocol::counter::Outcome::Blocked) has told the channel
    /// [`SWAP_CHANNEL`](Self::SWAP_CHANNEL) the name of the counter.
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    pub async fn take(
        &self,
        counter: &Counter,
        take: &Take,
        deadline: Duration,
    ) -> Result<Reply, StoreError> {
        let mut keys = self.keys(counter);
        keys.extend(take.claims.iter().map(|claim| record_key(counter, &claim.key)));
        let args = wire::write_take(take, fresh()?);
        let reply = self.run(&TAKE, &keys, &args, deadline).await?;
        wire::read_reply(take, &reply).ok_or_else(|| misread(&TAKE))
    }

    /// The channel on which a counter's name asks the holder of the segment that lies in its way to swap it.
    pub const SWAP_CHANNEL: &'static str = "numgen:swap";

    /// [`Authority::advance`](crate::store::protocol::counter::Authority::advance) on a counter in force.
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    pub async fn advance(
        &self,
        counter: &Counter,
        to: SequenceValue,
        stride: Stride,
        deadline: Duration,
    ) -> Result<Advance, StoreError> {
        let args = [fresh()?, wire::digits(to), wire::stride(stride)];
        let reply = self.run(&ADVANCE, &self.keys(counter), &args, deadline).await?;
        wire::read_advance(&reply).ok_or_else(|| misread(&ADVANCE))
    }

    /// [`Authority::abandon`](crate::store::protocol::counter::Authority::abandon) on a counter in force.
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    pub async fn abandon(
        &self,
        counter: &Counter,
        what: &Abandon,
        deadline: Duration,
    ) -> Result<Abandoned, StoreError> {
        let (node, range) = match what {
            Abandon::Node(node) => (wire::name(node), String::new()),
            Abandon::Range(range) => (String::new(), wire::ranges(&[*range])),
        };
        let args = [fresh()?, node, range];
        let reply = self.run(&ABANDON, &self.keys(counter), &args, deadline).await?;
        wire::read_abandoned(&reply).ok_or_else(|| misread(&ABANDON))
    }

    /// [`Authority::settle`](crate::store::protocol::counter::Authority::settle): what was drawn from `counter` under a key (SHA-256 of the scoped key, as hex); if nothing was,
    /// nothing will be, up to that turn. Remembered for `remember`.
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    pub async fn settle(
        &self,
        counter: &str,
        key: &str,
        turn: u64,
        claimed_at: UnixMillis,
        remember: Duration,
        deadline: Duration,
    ) -> Result<Settled, StoreError> {
        let keys = [format!("{{sequence:{counter}}}:key:{key}")];
        let args = [turn.to_string(), claimed_at.0.to_string(), wire::lifetime_ms(remember).to_string()];
        let reply = self.run(&SETTLE, &keys, &args, deadline).await?;
        wire::read_settled(&reply).ok_or_else(|| misread(&SETTLE))
    }

    /// Puts a counter on the list of its key, for somebody who asks under `scheme`. Comes before its first TAKE, and again after a
    /// [`Reply::Recover`], since the list can be lost with the store.
    ///
    /// # Errors
    ///
    /// `StoreError::Superseded` where the scheme was retired ([`Self::close`]); as [`Client::run`].
    pub async fn enlist(&self, counter: &Counter, scheme: u64, deadline: Duration) -> Result<(), StoreError> {
        let args = [scheme.to_string(), counter.period.as_str().to_owned()];
        let reply: String = self.ask(&ENLIST, &list_keys(&counter.key), &args, deadline).await?;
        match reply.as_str() {
            "listed" => Ok(()),
            "superseded" => {
                Err(StoreError::Superseded { store: crate::store::redis::STORE, operation: "enlist" })
            }
            _ => Err(misread(&ENLIST)),
        }
    }

    /// Refuses lower schemes of the key from now on when they want to enlist a counter; answers those that are on the list, once
    /// a store that has forgotten the list has had the time to be told again.
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    pub async fn close(
        &self,
        key: &PrefixKey,
        scheme: u64,
        deadline: Duration,
    ) -> Result<Closed, StoreError> {
        let [list, lowest] = list_keys(key);
        let marker = self.client.marker_key(&list);
        let args = [scheme.to_string(), fresh()?];
        let mut reply = self.run(&CLOSE, &[list, lowest, marker], &args, deadline).await?.into_iter();
        let wait_ms = reply.next().and_then(|text| text.parse().ok()).ok_or_else(|| misread(&CLOSE))?;
        let counter = |period: String| Counter { key: key.clone(), period: Period::new(&period) };
        Ok(if wait_ms == 0 {
            Closed::Listed(reply.map(counter).collect())
        } else {
            Closed::Settling { wait_ms }
        })
    }

    /// [`Authority::fence`](crate::store::protocol::counter::Authority::fence).
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    pub async fn fence(
        &self,
        counter: &Counter,
        scheme: u64,
        deadline: Duration,
    ) -> Result<Fenced, StoreError> {
        let args = [fresh()?, scheme.to_string()];
        let reply = self.run(&FENCE, &self.keys(counter), &args, deadline).await?;
        wire::read_fenced(&reply).ok_or_else(|| misread(&FENCE))
    }

    /// Where a counter stands.
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    pub async fn cursor(
        &self,
        counter: &Counter,
        deadline: Duration,
    ) -> Result<Option<SequenceValue>, StoreError> {
        let reply: String = self.ask(&CURSOR, &self.keys(counter), &[], deadline).await?;
        if reply.is_empty() {
            return Ok(None);
        }
        wire::value(&reply).map(Some).ok_or_else(|| misread(&CURSOR))
    }

    /// The generation under a marker.
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    pub async fn look(&self, marker: &str, deadline: Duration) -> Result<Generation, StoreError> {
        let reply: String = self.ask(&LOOK, &[marker.to_owned()], &[fresh()?], deadline).await?;
        wire::read_generation(&reply).ok_or_else(|| misread(&LOOK))
    }

    /// Every counter of a prefix key that is on the list and exists, in period order.
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    pub async fn show(&self, key: &PrefixKey, deadline: Duration) -> Result<Vec<Shown>, StoreError> {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(periods_key(key));
        let mut periods: Vec<String> = self.client.query("periods", &command).await?;
        periods.sort_unstable();
        let mut shown = Vec::with_capacity(periods.len());
        for period in periods {
            let counter = Counter { key: key.clone(), period: Period::new(&period) };
            shown.extend(self.show_one(counter, deadline).await?);
        }
        Ok(shown)
    }

    /// One counter; `None` where it does not exist.
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    pub async fn show_one(&self, counter: Counter, deadline: Duration) -> Result<Option<Shown>, StoreError> {
        let reply: Vec<Vec<String>> = self.client.run(&SHOW, &self.keys(&counter), &[], deadline).await?;
        if reply.is_empty() {
            return Ok(None);
        }
        let (now_ms, state) = wire::read_state(&reply).ok_or_else(|| misread(&SHOW))?;
        Ok(Some(Shown { period: counter.period, now_ms, counter: state }))
    }

    async fn run(
        &self,
        script: &'static Script,
        keys: &[String],
        args: &[Text],
        deadline: Duration,
    ) -> Result<Vec<String>, StoreError> {
        self.ask(script, keys, args, deadline).await
    }

    async fn ask<T: redis::FromRedisValue>(
        &self,
        script: &'static Script,
        keys: &[String],
        args: &[Text],
        deadline: Duration,
    ) -> Result<T, StoreError> {
        let args: Vec<Arg<'_>> = args.iter().map(Arg::from).collect();
        self.client.run(script, keys, &args, deadline).await
    }

    /// What every script begins with: the plain key, the state, the holes, and the marker of their slot.
    fn keys(&self, counter: &Counter) -> Vec<String> {
        let plain = format!("sequence:{counter}");
        let marker = self.client.marker_key(&plain);
        vec![plain, format!("{{sequence:{counter}}}:state"), format!("{{sequence:{counter}}}:holes"), marker]
    }
}

fn record_key(counter: &Counter, key: &str) -> String {
    format!("{{sequence:{counter}}}:key:{key}")
}

pub(super) fn periods_key(key: &PrefixKey) -> String {
    format!("numgen:periods:{key}")
}

/// The list of a key's counters, and the lowest of its schemes that may still draw: one slot has both.
fn list_keys(key: &PrefixKey) -> [String; 2] {
    let list = periods_key(key);
    let scheme = format!("numgen:scheme:{{{list}}}");
    [list, scheme]
}

/// The name of a generation, should one have to begin.
fn fresh() -> Result<String, StoreError> {
    let random = getrandom::u64().map_err(|error| StoreError::Unavailable {
        store: crate::store::redis::STORE,
        operation: "random",
        source: Box::new(error),
    })?;
    Ok(format!("{random:016x}"))
}

fn misread(script: &Script) -> StoreError {
    StoreError::Corrupt {
        store: crate::store::redis::STORE,
        what: format!("an unexpected reply to {}", script.name),
    }
}
