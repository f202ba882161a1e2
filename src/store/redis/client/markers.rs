//! Blesses the markers of a server as soon as it is connected, so that what has to settle settles once, and not again and
//! again at the first touch of each counter.

use std::{sync::Arc, time::Duration};

use redis::Value;

use super::{
    Arg, MARKER_TAG, Script,
    failure::Refusal,
    info::Info,
    link::Link,
    slots::{SLOTS, tag_of},
};

static BLESS: Script =
    Script::new("bless", concat!(include_str!("../marker.lua"), include_str!("bless.lua")));

/// Markers that are seen to together: calls that come meanwhile wait behind them.
const TOGETHER: usize = 128;

/// How long a server is left alone that did not answer in time.
const PAUSE: Duration = Duration::from_millis(500);

/// What the keys of markers begin with.
const KEY: &str = "numgen:generation:";

/// The marker of a slot of a cluster; `None`: the one where there are no slots.
pub(super) fn key_of(slot: Option<u16>) -> String {
    match slot {
        Some(slot) => format!("{KEY}{{{}}}", tag_of(slot)),
        None => format!("{KEY}{{{MARKER_TAG}}}"),
    }
}

/// Whether a key is that of a marker.
pub(super) fn is_key(key: &str) -> bool {
    key.starts_with(KEY)
}

/// Writes the markers that are missing or belong to another `master_replid`, until all are in force or the link is broken: a slot
/// that was left out would begin to settle when its first counter is drawn from.
///
/// Mostly there is nothing to write, and thousands of markers to look at whenever a node comes or comes back, while others draw
/// numbers: a look costs a server 1 us, the script fifty times that.
pub(super) async fn bless(link: &Arc<Link>, slots: Option<Vec<u16>>) {
    let slots: Vec<Option<u16>> = slots.map_or(vec![None], |slots| slots.into_iter().map(Some).collect());
    debug_assert!(slots.len() <= SLOTS, "no slot twice");
    for part in slots.chunks(TOGETHER) {
        let keys: Vec<String> = part.iter().map(|slot| key_of(*slot)).collect();
        while let Err(error) = bless_some(link, &keys).await {
            tracing::debug!(error = %error, "markers were not blessed");
            if link.is_broken() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn bless_some(link: &Link, keys: &[String]) -> Result<(), Refusal> {
    let mut look = redis::pipe();
    look.cmd("INFO").arg("replication");
    for key in keys {
        look.cmd("HMGET").arg(key).arg("replid").arg("generation").arg("since");
    }
    let mut replies = link.send_all_soon(&look).await?.into_iter();
    let said = replies.next().and_then(|reply| redis::from_redis_value::<String>(reply).ok());
    let info = Info::parse(&said.unwrap_or_default());
    let unfit: Vec<_> = keys
        .iter()
        .zip(replies)
        .filter(|(_, marker)| !is_in_force(marker, info.get("master_replid")))
        .collect();
    if unfit.is_empty() {
        return Ok(());
    }
    let mut together = redis::pipe();
    together.cmd("SCRIPT").arg("LOAD").arg(BLESS.source);
    for (key, _) in unfit {
        let Some(generation) = generation() else { return Ok(()) };
        together.add_command(BLESS.by_digest(std::slice::from_ref(key), &[Arg::Text(&generation)]));
    }
    link.send_all_soon(&together).await.map(drop)
}

/// Whether a marker, as `HMGET` shows it, is whole and was written under this `master_replid`.
fn is_in_force(marker: &Value, replid: Option<&str>) -> bool {
    let fields: Vec<Option<String>> = redis::from_redis_value(marker.clone()).unwrap_or_default();
    let [Some(blessed_under), Some(_generation), Some(_since)] = &fields[..] else { return false };
    Some(blessed_under.as_str()) == replid
}

/// 16 hexadecimal digits by chance.
fn generation() -> Option<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).ok()?;
    Some(format!("{:016x}", u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_marker_of_this_server_is_in_force() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let marker = |replid: Value, since: Value| Value::Array(vec![replid, text("a1"), since]);
        assert!(is_in_force(&marker(text("here"), text("1")), Some("here")));
        assert!(!is_in_force(&marker(text("elsewhere"), text("1")), Some("here")));
        assert!(!is_in_force(&marker(text("here"), text("1")), None));
        assert!(!is_in_force(&marker(text("here"), Value::Nil), Some("here")));
        assert!(!is_in_force(&marker(Value::Nil, Value::Nil), None));
        assert!(!is_in_force(&Value::Nil, Some("here")));
    }
}
