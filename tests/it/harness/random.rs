//! Lots that come out the same each time.

use std::{ops::Range, time::Duration};

/// xorshift64 (Marsaglia 2003): the same lots in the same order for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn of(seed: u64) -> Self {
        // Seeds that are alike would begin alike, and 0 stays 0: those of people are small numbers.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 to below 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of them.
    #[track_caller]
    pub(crate) fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[(self.share() * among.len() as f64) as usize]
    }

    /// A time between the two, short ones more often.
    pub(crate) fn time(&mut self, between: Range<Duration>) -> Duration {
        between.start + (between.end - between.start).mul_f64(self.share().powi(2))
    }

    pub(crate) fn split(&mut self) -> Self {
        Self(self.next().rotate_left(31) | 1)
    }
}
