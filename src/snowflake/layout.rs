//! How the 63 bits are divided.

use std::{fmt, str::FromStr};

/// Bits for time (milliseconds since the epoch), data centre, worker and sequence, from the highest down: `41/5/5/12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    time: u8,
    datacenter: u8,
    worker: u8,
    sequence: u8,
}

/// Why a division of the bits is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLayout {
    /// Not four numbers.
    #[error(
        "a snowflake layout is four numbers of bits for time, data centre, worker and sequence, such as 41/5/5/12"
    )]
    Shape,
    /// They do not make 63.
    #[error("the bits of a snowflake layout add up to 63, these to {0}")]
    Sum(u32),
    /// One of them is too small or too large.
    #[error("{field} takes {min} to {max} bits, not {bits}")]
    Field {
        /// Which part.
        field: &'static str,
        /// The fewest bits.
        min: u8,
        /// The most bits.
        max: u8,
        /// What was given.
        bits: u8,
    },
}

/// The parts of an ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdParts {
    /// Milliseconds since the epoch.
    pub timestamp: u64,
    /// Data centre ID.
    pub datacenter: u32,
    /// Worker ID.
    pub worker: u32,
    /// The count within the millisecond.
    pub sequence: u32,
}

impl Layout {
    /// 41 bits of time (69 years), 32 data centres, 32 workers in each, 4,096 IDs a millisecond and worker.
    pub const DEFAULT: Self = Self { time: 41, datacenter: 5, worker: 5, sequence: 12 };

    /// Divides the bits.
    ///
    /// # Errors
    ///
    /// Time takes 31 to 62 bits (24 days at the least), data centre and worker 0 to 16, sequence 1 to 22; 63 in all.
    pub fn new(time: u8, datacenter: u8, worker: u8, sequence: u8) -> Result<Self, InvalidLayout> {
        for (field, bits, min, max) in [
            ("time", time, 31, 62),
            ("data centre", datacenter, 0, 16),
            ("worker", worker, 0, 16),
            ("sequence", sequence, 1, 22),
        ] {
            if !(min..=max).contains(&bits) {
                return Err(InvalidLayout::Field { field, min, max, bits });
            }
        }
        match [time, datacenter, worker, sequence].into_iter().map(u32::from).sum() {
            63 => Ok(Self { time, datacenter, worker, sequence }),
            sum => Err(InvalidLayout::Sum(sum)),
        }
    }

    /// The last timestamp that the time bits can hold.
    pub const fn max_timestamp(self) -> u64 {
        (1 << self.time) - 1
    }

    /// The highest data centre ID.
    pub const fn max_datacenter(self) -> u32 {
        (1 << self.datacenter) - 1
    }

    /// The highest worker ID.
    pub const fn max_worker(self) -> u32 {
        (1 << self.worker) - 1
    }

    /// How many bits the sequence has.
    pub const fn sequence_bits(self) -> u32 {
        self.sequence as u32
    }

    /// How many IDs one worker can issue with one timestamp.
    pub const fn ids_per_timestamp(self) -> u64 {
        1 << self.sequence
    }

    /// Puts the parts together; each is within its bits.
    pub fn compose(self, parts: IdParts) -> u64 {
        debug_assert!(parts.timestamp <= self.max_timestamp());
        debug_assert!(parts.datacenter <= self.max_datacenter() && parts.worker <= self.max_worker());
        let with_datacenter = (parts.timestamp << self.datacenter) | u64::from(parts.datacenter);
        let with_worker = (with_datacenter << self.worker) | u64::from(parts.worker);
        (with_worker << self.sequence) | u64::from(parts.sequence)
    }

    /// Takes an ID apart; `None` for a value above 63 bits.
    pub fn parts(self, id: u64) -> Option<IdParts> {
        let field = |bits: u8, shift: u8| u32::try_from((id >> shift) & ((1 << bits) - 1)).ok();
        Some(IdParts {
            timestamp: Some(id >> (self.datacenter + self.worker + self.sequence))
                .filter(|timestamp| *timestamp <= self.max_timestamp())?,
            datacenter: field(self.datacenter, self.worker + self.sequence)?,
            worker: field(self.worker, self.sequence)?,
            sequence: field(self.sequence, 0)?,
        })
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.time, self.datacenter, self.worker, self.sequence)
    }
}

impl FromStr for Layout {
    type Err = InvalidLayout;

    fn from_str(text: &str) -> Result<Self, InvalidLayout> {
        let parts: Vec<u8> =
            text.split('/').map(str::parse).collect::<Result<_, _>>().map_err(|_| InvalidLayout::Shape)?;
        match parts[..] {
            [time, datacenter, worker, sequence] => Self::new(time, datacenter, worker, sequence),
            _ => Err(InvalidLayout::Shape),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_and_writes_the_usual_notation() {
        assert_eq!("41/5/5/12".parse(), Ok(Layout::DEFAULT));
        assert_eq!(Layout::DEFAULT.to_string(), "41/5/5/12");
        for text in ["", "41", "41/5/5", "41/5/5/12/0", "41/5/5/x", "41/-5/5/12"] {
            assert_eq!(text.parse::<Layout>(), Err(InvalidLayout::Shape), "{text}");
        }
        assert_eq!("41/5/5/11".parse::<Layout>(), Err(InvalidLayout::Sum(62)));
        let narrow = "20/16/16/11".parse::<Layout>().expect_err("time is too narrow");
        assert_eq!(narrow.to_string(), "time takes 31 to 62 bits, not 20");
    }

    #[test]
    fn the_default_epoch_lasts_until_2093() {
        let days = Layout::DEFAULT.max_timestamp() / 86_400_000;
        assert_eq!(days / 365, 69);
    }

    fn layouts() -> impl Strategy<Value = Layout> {
        (0_u8..=10, 0_u8..=10, 1_u8..=12).prop_map(|(datacenter, worker, sequence)| {
            Layout::new(63 - datacenter - worker - sequence, datacenter, worker, sequence).expect("valid")
        })
    }

    proptest! {
        #[test]
        fn parts_come_back(layout in layouts(), id in 0_u64..=i64::MAX as u64) {
            let parts = layout.parts(id).expect("63 bits");
            prop_assert_eq!(layout.compose(parts), id);
            prop_assert_eq!(layout.parts(id | 1 << 63), None);
        }
    }
}
