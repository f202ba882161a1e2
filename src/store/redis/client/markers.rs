//! Blesses the markers of a server as soon as it is connected, so that what has to settle settles once, and not again and
//! again at the first touch of each counter.

use std::sync::Arc;

use super::{
    Arg, MARKER_TAG, Script,
    link::Link,
    slots::{SLOTS, tag_of},
};

static BLESS: Script =
    Script::new("bless", concat!(include_str!("../marker.lua"), include_str!("bless.lua")));

/// Scripts that are sent together.
const TOGETHER: usize = 512;

/// The marker of a slot of a cluster; `None`: the one where there are no slots.
pub(super) fn key_of(slot: Option<u16>) -> String {
    match slot {
        Some(slot) => format!("numgen:generation:{{{}}}", tag_of(slot)),
        None => format!("numgen:generation:{{{MARKER_TAG}}}"),
    }
}

/// Writes the markers that are missing or belong to another `master_replid`. What fails is left to whoever comes first.
pub(super) async fn bless(link: &Arc<Link>, slots: Option<Vec<u16>>) {
    let slots: Vec<Option<u16>> = slots.map_or(vec![None], |slots| slots.into_iter().map(Some).collect());
    debug_assert!(slots.len() <= SLOTS, "no slot twice");
    let mut load = redis::cmd("SCRIPT");
    load.arg("LOAD").arg(BLESS.source);
    if link.send_soon(&load).await.is_err() {
        return;
    }
    for part in slots.chunks(TOGETHER) {
        let mut together = redis::pipe();
        for slot in part {
            let Some(generation) = generation() else { return };
            together.add_command(BLESS.by_digest(&[key_of(*slot)], &[Arg::Text(&generation)]));
        }
        if let Err(error) = link.send_together_soon(&together).await {
            tracing::debug!(error = %error, "markers were not blessed");
            return;
        }
    }
}

/// 16 hexadecimal digits by chance.
fn generation() -> Option<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).ok()?;
    Some(format!("{:016x}", u64::from_be_bytes(bytes)))
}
