//! Rules in the hash `prefix_configs`, where operators read and write them, and the records that stand behind it.
//!
//! Invariants: at rest, `prefix_configs` shows the rule of each record, letter by letter; what differs is a direct write, which
//! waits to be adopted or was refused. Every change of a record has a number, so that a node asks for what came after the last
//! one it knows. The register believes in its own emptiness only after settling: until then nobody registers what
//! somebody may still write back.

use std::{pin::Pin, sync::atomic::Ordering, time::Duration};

use redis::Value;
use tokio::sync::broadcast::error::RecvError;

use super::{
    RedisStore, STORE,
    client::{Arg, Script, Vigil},
};
use crate::{
    prefix_key::PrefixKey,
    store::{
        DirectWrite, Lineage, More, RuleMark, RuleNews, RuleRecord, RuleStore, SharedRules, StoreError,
        StoreFuture, Swap,
    },
};

/// The hash that the outside knows.
pub(super) const MIRROR: &str = "prefix_configs";
const RECORDS: &str = "numgen:rules:{prefix_configs}";
const CHANGES: &str = "numgen:rules:{prefix_configs}:changes";
pub(super) const STATE: &str = "numgen:rules:{prefix_configs}:state";
pub(super) const DIRECT: &str = "numgen:rules:{prefix_configs}:direct";
/// In the place of the token of a direct write: whatever stands beside the record, it stays there.
const ANY: &str = "*";
/// Where changes are called out.
const CHANNEL: &str = "numgen:rules";

macro_rules! script {
    ($name:literal, $file:literal) => {
        Script::new(
            $name,
            concat!(include_str!("marker.lua"), include_str!("rules/prelude.lua"), include_str!($file)),
        )
    };
}

static READ: Script = script!("rule", "rules/read.lua");
static SWAP: Script = script!("swap_rule", "rules/swap.lua");
static MARK: Script = script!("mark_used", "rules/mark.lua");
static RESTORE: Script = script!("restore_rules", "rules/restore.lua");
static FOLLOW: Script = script!("follow_rules", "rules/follow.lua");

/// Records in one answer: about a millisecond of Redis' time.
const PART: u64 = 500;
/// Rules looked at by one call, for operators' writes: the same, each being read twice.
const SLICE: u64 = 250;
/// In which time all rules are looked at, by all nodes together, when somebody wrote past the records. A write that comes in the
/// middle of such a round is found by the next one: twice this is well below 5 s.
const ROUND: Duration = Duration::from_millis(1_500);
/// Whoever writes one rule often writes more: they are looked for together.
const TOGETHER: Duration = Duration::from_millis(50);
/// How often somebody who waits for the end of settling looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl RedisStore {
    async fn register<T: redis::FromRedisValue>(
        &self,
        script: &'static Script,
        args: Vec<Arg<'_>>,
    ) -> Result<T, StoreError> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|source| StoreError::Unavailable {
            store: STORE,
            operation: script.name,
            source: Box::new(source),
        })?;
        let generation = format!("{:016x}", u64::from_be_bytes(bytes));
        let keys = [
            self.client.marker_key(MIRROR),
            MIRROR.into(),
            RECORDS.into(),
            CHANGES.into(),
            STATE.into(),
            DIRECT.into(),
        ];
        let mut all = args;
        all.insert(0, Arg::Text(&generation));
        self.client.at_hand(script.name, MIRROR).await?;
        self.client.run(script, &keys, &all, self.timeout).await
    }

    /// The record of a key and what stands beside it; waits for the end of settling where there is no record.
    async fn read_rule(
        &self,
        key: &PrefixKey,
    ) -> Result<(Option<RuleRecord>, Option<DirectWrite>), StoreError> {
        loop {
            let (record, token, text, settling_ms): (Option<Vec<u8>>, String, Option<Vec<u8>>, u64) =
                self.register(&READ, vec![key.as_str().into()]).await?;
            if settling_ms > 0 {
                tokio::time::sleep(LOOK_EVERY.min(Duration::from_millis(settling_ms))).await;
                continue;
            }
            let direct = (!token.is_empty()).then(|| direct_write(key.clone(), token, text));
            return Ok((record.map(|record| read(key, &record)).transpose()?, direct));
        }
    }

    async fn swap(
        &self,
        token: &str,
        expected: Option<RuleRecord>,
        new: RuleRecord,
    ) -> Result<Swap, StoreError> {
        let new = RuleRecord { revision: expected.as_ref().map_or(1, |record| record.revision + 1), ..new };
        let (state, record) = (expected.as_ref().map(state_of).unwrap_or_default(), written(&new));
        loop {
            let args = vec![new.key.as_str().into(), (&state).into(), token.into(), (&record).into()];
            let answer: Vec<Value> = self.register(&SWAP, args).await?;
            match answer.first().map(text_of).as_deref() {
                Some("done") => return Ok(Swap::Done),
                Some("changed") => return Ok(Swap::Changed(record_of(&new.key, answer.get(1))?)),
                Some("settling") => tokio::time::sleep(LOOK_EVERY).await,
                _ => return Err(corrupt("an answer that is none")),
            }
        }
    }
}

impl RuleStore for RedisStore {
    fn load_rules(&self) -> StoreFuture<'_, Vec<RuleRecord>> {
        Box::pin(async move {
            let (mut records, mut cursor) = (Vec::new(), "0".to_owned());
            loop {
                let mut scan = redis::cmd("HSCAN");
                scan.arg(RECORDS).arg(&cursor).arg("COUNT").arg(1_000);
                let (next, part): (String, Vec<Vec<u8>>) = self.client.query("load_rules", &scan).await?;
                for pair in part.chunks_exact(2) {
                    records.push(read(&prefix_key(&pair[0])?, &pair[1])?);
                }
                cursor = next;
                if cursor == "0" {
                    break;
                }
            }
            // A scan may meet a record twice.
            records.sort_by(|a, b| a.key.cmp(&b.key).then(b.revision.cmp(&a.revision)));
            records.dedup_by(|later, earlier| later.key == earlier.key);
            Ok(records)
        })
    }

    fn rule<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<RuleRecord>> {
        Box::pin(async move { Ok(self.read_rule(key).await?.0) })
    }

    fn swap_rule(&self, expected: Option<RuleRecord>, new: RuleRecord) -> StoreFuture<'_, Swap> {
        Box::pin(self.swap("", expected, new))
    }

    fn mark_used<'a>(&'a self, key: &'a PrefixKey, revision: u64) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let marked: u64 = self.register(&MARK, vec![key.as_str().into(), revision.into()]).await?;
            Ok(marked == 1)
        })
    }

    fn note_use(&self, expected: RuleRecord, new: RuleRecord) -> StoreFuture<'_, Swap> {
        Box::pin(self.swap(ANY, Some(expected), new))
    }

    fn direct_write<'a>(&'a self, key: &'a PrefixKey) -> StoreFuture<'a, Option<DirectWrite>> {
        Box::pin(async move { Ok(self.read_rule(key).await?.1) })
    }

    fn swap_over(
        &self,
        write: DirectWrite,
        expected: Option<RuleRecord>,
        new: RuleRecord,
    ) -> StoreFuture<'_, Swap> {
        Box::pin(async move { self.swap(&write.token, expected, new).await })
    }
}

impl SharedRules for RedisStore {
    fn follow(&self, since: RuleMark) -> StoreFuture<'_, RuleNews> {
        Box::pin(async move {
            let round_ms = u64::try_from(ROUND.as_millis()).unwrap_or(u64::MAX);
            let vigil = self.client.vigil(MIRROR);
            let written = match vigil {
                Vigil::None(_) => "unknown",
                Vigil::Kept(count) if self.looked.load(Ordering::Relaxed) == count => "nothing",
                Vigil::Kept(_) => "something",
            };
            let args = vec![
                (&since.generation).into(),
                since.change.into(),
                PART.into(),
                SLICE.into(),
                round_ms.into(),
                written.into(),
            ];
            let answer = self.register(&FOLLOW, args).await?;
            // Redis knows by now that it is to be looked for; a connection that is watched from now on counts anew.
            self.looked.store(vigil.count(), Ordering::Relaxed);
            news(answer)
        })
    }

    fn called(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let (mut calls, mut alarms) = (self.client.subscribe(CHANNEL), self.client.alarms());
        let looked = self.looked.load(Ordering::Relaxed);
        Box::pin(async move {
            tokio::select! {
                // Lagging behind means that there were calls.
                call = calls.recv() => if let Err(RecvError::Closed) = call {
                    std::future::pending().await
                },
                Ok(()) = async { alarms.wait_for(|count| *count != looked).await.map(drop) } => {
                    tokio::time::sleep(TOGETHER).await;
                }
            }
        })
    }

    fn restore(&self, records: Vec<(Option<RuleRecord>, RuleRecord)>) -> StoreFuture<'_, Vec<Swap>> {
        Box::pin(async move {
            let words: Vec<_> = records
                .iter()
                .map(|(expected, new)| (expected.as_ref().map(state_of).unwrap_or_default(), written(new)))
                .collect();
            let args: Vec<Arg<'_>> = records
                .iter()
                .zip(&words)
                .flat_map(|((_, new), (state, record))| {
                    [new.key.as_str().into(), state.into(), record.into()]
                })
                .collect();
            let answers: Vec<Value> = self.register(&RESTORE, args).await?;
            let outcomes = records.iter().zip(answers.chunks_exact(2));
            outcomes
                .map(|((_, new), answer)| match text_of(&answer[0]).as_str() {
                    "done" => Ok(Swap::Done),
                    _changed => Ok(Swap::Changed(record_of(&new.key, answer.get(1))?)),
                })
                .collect()
        })
    }
}

/// Generation, lineage, change, whether there is more, whether the hash was restored, records, direct writes.
type Answer = (String, String, u64, String, String, Vec<Vec<u8>>, Vec<Option<Vec<u8>>>);

fn news(
    (generation, lineage, change, more, restored, records, written): Answer,
) -> Result<RuleNews, StoreError> {
    if restored == "restored" {
        tracing::error!(
            "the hash prefix_configs was deleted as a whole, and was written again: to delete rules, use the API or HDEL"
        );
    }
    let records = records.chunks_exact(2).map(|pair| read(&prefix_key(&pair[0])?, &pair[1]));
    let (mut direct, mut misnamed) = (Vec::new(), Vec::new());
    for write in written.chunks_exact(3) {
        let [name, token, text] = write else { continue };
        let name = String::from_utf8_lossy(name.as_deref().unwrap_or_default()).into_owned();
        let token = String::from_utf8_lossy(token.as_deref().unwrap_or_default()).into_owned();
        match PrefixKey::parse(&name) {
            Ok(key) => direct.push(direct_write(key, token, text.clone())),
            // Whatever somebody wrote: shown, but not as it is.
            Err(_) => misnamed.push(name.chars().take(64).flat_map(char::escape_debug).collect()),
        }
    }
    Ok(RuleNews {
        mark: RuleMark { generation, change },
        lineage: if lineage == "same" { Lineage::Same } else { Lineage::New },
        records: records.collect::<Result<_, _>>()?,
        more: match more.as_str() {
            "records" => More::Records,
            "writes" => More::Writes,
            "later" => More::Later,
            _all => More::Nothing,
        },
        direct,
        misnamed,
    })
}

/// A text that is not UTF-8 is no rule either, with or without its odd bytes.
fn direct_write(key: PrefixKey, token: String, text: Option<Vec<u8>>) -> DirectWrite {
    DirectWrite { key, text: text.map(|text| String::from_utf8_lossy(&text).into_owned()), token }
}

fn state_of(record: &RuleRecord) -> String {
    format!("{} {}", record.revision, u8::from(record.used))
}

/// Three lines: the rule, revision and use, the history. JSON as serde writes it has no line breaks.
fn written(record: &RuleRecord) -> String {
    format!("{}\n{}\n{}", record.rule.as_deref().unwrap_or_default(), state_of(record), record.history)
}

fn read(key: &PrefixKey, record: &[u8]) -> Result<RuleRecord, StoreError> {
    let damaged = || corrupt(&format!("the record of {key} cannot be read"));
    let text = std::str::from_utf8(record).map_err(|_| damaged())?;
    let mut lines = text.splitn(3, '\n');
    let (Some(rule), Some(state), Some(history)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(damaged());
    };
    let (revision, used) = state.split_once(' ').ok_or_else(damaged)?;
    Ok(RuleRecord {
        key: key.clone(),
        revision: revision.parse().map_err(|_| damaged())?,
        rule: (!rule.is_empty()).then(|| rule.to_owned()),
        history: history.to_owned(),
        used: used == "1",
    })
}

fn record_of(key: &PrefixKey, answer: Option<&Value>) -> Result<Option<RuleRecord>, StoreError> {
    match answer {
        Some(Value::BulkString(record)) => read(key, record).map(Some),
        Some(_) | None => Ok(None),
    }
}

fn text_of(value: &Value) -> String {
    redis::from_redis_value_ref(value).unwrap_or_default()
}

fn prefix_key(name: &[u8]) -> Result<PrefixKey, StoreError> {
    let key = std::str::from_utf8(name).ok().and_then(|name| PrefixKey::parse(name).ok());
    key.ok_or_else(|| corrupt("a record under a name that is no prefix key"))
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt { store: STORE, what: what.to_owned() }
}
