//! Data centre, worker ID and how both fit into a snowflake ID.

use std::{fmt, time::Duration};

use chrono::DateTime;

use super::{
    error::Mistake,
    parse::{Fault, Parser, millis, whole},
    section::{Default, Unset, section},
    values::Values,
};
use crate::clock::UnixMillis;

/// How the 63 bits of a snowflake ID are divided, from the highest down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutBits {
    /// Milliseconds since the epoch.
    pub time: u8,
    /// Data centre ID.
    pub datacenter: u8,
    /// Worker ID.
    pub worker: u8,
    /// Sequence within a millisecond.
    pub sequence: u8,
}

impl fmt::Display for LayoutBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.time, self.datacenter, self.worker, self.sequence)
    }
}

section! {
    /// Worker ID, window and snowflake layout.
    Worker, "Snowflakes";
    /// ID of this data centre, different in each.
    datacenter_id: u32 = "NUMGEN_DATACENTER_ID", Default("0"), whole(0..=65_535);
    /// How many data centres issue numbers.
    datacenters: u32 = "NUMGEN_DATACENTERS", Default("1"), whole(1..=65_536);
    /// Fixed worker ID, which nobody else may have; no lease is taken then.
    worker_id: Option<u32> = "NUMGEN_WORKER_ID", Unset("a free one is taken"), whole(0..=65_535);
    /// How soon the slot of a worker that no longer renews may be looked at.
    ttl: Duration = "NUMGEN_WORKER_TTL_MS", Default("15000"), millis(1_000..=3_600_000);
    /// How long IDs go on without the store that leases worker IDs.
    window: Duration = "NUMGEN_WORKER_WINDOW_MS", Default("600000"), millis(1_000..=86_400_000);
    /// Bits for time, data centre, worker and sequence; fixed once numbers have been issued.
    layout: LayoutBits = "NUMGEN_SNOWFLAKE_LAYOUT", Default("41/5/5/12"), layout();
    /// How far a burst may run ahead of the clock.
    max_ahead: Duration = "NUMGEN_SNOWFLAKE_MAX_AHEAD_MS", Default("50"), millis(0..=10_000);
    /// Where snowflake time begins; fixed once numbers have been issued.
    epoch: UnixMillis = "NUMGEN_SNOWFLAKE_EPOCH", Default("2024-01-01T00:00:00Z"), epoch();
}

/// The parts in their order, with the fewest and the most bits that make sense: below 36 bits time ends within two
/// years, and above 22 bits of sequence no clock is precise enough to need them.
const PARTS: [(&str, u8, u8); 4] =
    [("time", 36, 50), ("data centre", 0, 16), ("worker", 0, 16), ("sequence", 1, 22)];

/// The sign bit stays clear.
const BITS: u32 = 63;

fn layout() -> Parser<LayoutBits> {
    Parser::explaining(
        "bits for time/data centre/worker/sequence that add up to 63, such as 41/5/5/12",
        |text| {
            let parts: Vec<u8> = text
                .trim()
                .split('/')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .map_err(|_| Fault::default())?;
            let &[time, datacenter, worker, sequence] = parts.as_slice() else {
                return Err(Fault::default());
            };
            let sum: u32 = parts.iter().map(|&bits| u32::from(bits)).sum();
            if sum != BITS {
                return Err(Fault(Some(format!("adds up to {sum}"))));
            }
            for (bits, (name, fewest, most)) in parts.iter().zip(PARTS) {
                if !(fewest..=most).contains(bits) {
                    return Err(Fault(Some(format!("{name} takes {fewest} to {most} bits"))));
                }
            }
            Ok(LayoutBits { time, datacenter, worker, sequence })
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
    /// How many worker slots the layout has.
    pub fn worker_slots(&self) -> u32 {
        1 << self.layout.worker
    }

    pub(super) fn check(&self, values: &Values, mistakes: &mut Vec<Mistake>) {
        let mut bounded = |variable: &str, value: u32, highest: u32, bits: u8| {
            if value > highest {
                let layout = self.layout;
                let problem = format!(
                    "{value} is too high: at most {highest}, since layout {layout} has {bits} bits for it \
                     (NUMGEN_SNOWFLAKE_LAYOUT)"
                );
                mistakes.push(Mistake::Unfitting { origin: values.origin(variable), problem });
            }
        };
        let (datacenter_bits, worker_bits) = (self.layout.datacenter, self.layout.worker);
        bounded("NUMGEN_DATACENTER_ID", self.datacenter_id, (1 << datacenter_bits) - 1, datacenter_bits);
        bounded("NUMGEN_DATACENTERS", self.datacenters, 1 << datacenter_bits, datacenter_bits);
        if let Some(worker_id) = self.worker_id {
            bounded("NUMGEN_WORKER_ID", worker_id, (1 << worker_bits) - 1, worker_bits);
        }
    }
}
