//! Data centre, worker ID and how both fit into a snowflake ID.

use std::time::Duration;

use chrono::DateTime;

use super::{
    error::Mistake,
    parse::{Fault, Parser, millis, whole},
    section::{Default, Unset, section},
    values::Values,
};
use crate::{
    clock::UnixMillis,
    snowflake::{InvalidLayout, Layout},
};

section! {
    /// Worker ID, window and snowflake layout.
    Worker, "Snowflakes";
    /// ID of this data centre, different in each.
    datacenter_id: u32 = "NUMGEN_DATACENTER_ID", Default("0"), whole(0..=65_535);
    /// How many data centres issue numbers.
    datacenters: u32 = "NUMGEN_DATACENTERS", Default("1"), whole(1..=65_536);
    /// Fixed worker ID, which nobody else may have; no lease is taken then. `ordinal`: the number at the end of the host name, as in a StatefulSet.
    worker_id: Option<u32> = "NUMGEN_WORKER_ID", Unset("a free one is taken"), worker_id();
    /// How soon the slot of a worker that no longer renews may be looked at.
    ttl: Duration = "NUMGEN_WORKER_TTL_MS", Default("15000"), millis(1_000..=3_600_000);
    /// How long IDs go on without the store that leases worker IDs.
    window: Duration = "NUMGEN_WORKER_WINDOW_MS", Default("600000"), millis(1_000..=86_400_000);
    /// Bits for time, data centre, worker and sequence; fixed once numbers have been issued.
    layout: Layout = "NUMGEN_SNOWFLAKE_LAYOUT", Default("41/5/5/12"), layout();
    /// How far a burst may run ahead of the clock.
    max_ahead: Duration = "NUMGEN_SNOWFLAKE_MAX_AHEAD_MS", Default("50"), millis(0..=10_000);
    /// Where snowflake time begins; fixed once numbers have been issued.
    epoch: UnixMillis = "NUMGEN_SNOWFLAKE_EPOCH", Default("2024-01-01T00:00:00Z"), epoch();
}

/// The value of `NUMGEN_WORKER_ID` that stands for the number at the end of the host name.
pub(super) const ORDINAL: &str = "ordinal";

/// The number at the end of a host name such as `numgen-2`, which Kubernetes gives to the pods of a StatefulSet.
pub(super) fn ordinal_of(host: &str) -> Option<u32> {
    let (_, number) = host.split('.').next()?.rsplit_once('-')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

/// `ordinal` was replaced by the number when the values were gathered.
fn worker_id() -> Parser<u32> {
    let number = whole(0..=65_535);
    Parser::new("whole number from 0 to 65535, or ordinal", move |text| number.parse(text).ok())
}

fn layout() -> Parser<Layout> {
    Parser::explaining(
        "bits for time/data centre/worker/sequence that add up to 63, such as 41/5/5/12",
        |text| {
            text.trim().parse().map_err(|error: InvalidLayout| match error {
                InvalidLayout::Shape => Fault::default(),
                InvalidLayout::Sum(_) | InvalidLayout::Field { .. } => Fault(Some(error.to_string())),
            })
        },
    )
}

fn epoch() -> Parser<UnixMillis> {
    Parser::explaining("RFC 3339 time from 1970 on, such as 2024-01-01T00:00:00Z", |text| {
        let moment = DateTime::parse_from_rfc3339(text.trim()).map_err(|_| Fault::default())?;
        match moment.timestamp_millis() {
            before @ ..0 => Err(Fault(Some(format!("{} s before 1970", -before / 1000)))),
            millis => Ok(UnixMillis(millis)),
        }
    })
}

impl Worker {
    /// What a store records at first use and never changes: numbers of another layout, epoch or data centre could collide.
    pub fn pinned_layout(&self) -> String {
        format!("{} epoch {} data centre {}", self.layout, self.epoch.to_rfc3339(), self.datacenter_id)
    }

    pub(super) fn check(&self, values: &Values, mistakes: &mut Vec<Mistake>) {
        let layout = self.layout;
        let mut bounded = |variable: &str, value: u32, highest: u32| {
            if value > highest {
                let problem = format!(
                    "{value} is too high: layout {layout} (NUMGEN_SNOWFLAKE_LAYOUT) has room up to {highest}"
                );
                mistakes.push(Mistake::Unfitting { origin: values.origin(variable), problem });
            }
        };
        bounded("NUMGEN_DATACENTER_ID", self.datacenter_id, layout.max_datacenter());
        bounded("NUMGEN_DATACENTERS", self.datacenters, layout.max_datacenter() + 1);
        if let Some(worker_id) = self.worker_id {
            bounded("NUMGEN_WORKER_ID", worker_id, layout.max_worker());
        }
    }
}
