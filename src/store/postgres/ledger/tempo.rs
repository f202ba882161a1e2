//! How long a statement takes, and how long the disk: what tells how many statements may wait for it at a time.

use std::time::Duration;

/// Of so many measurements the last one is one.
const MEMORY: u32 = 16;

/// Running means of what committed statements took of late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tempo {
    statement: Duration,
    disk: Duration,
}

impl Tempo {
    pub(super) fn note(&mut self, statement: Duration, disk: Duration) {
        self.statement = drawn_towards(self.statement, statement);
        self.disk = drawn_towards(self.disk, disk);
    }

    /// How many statements wait for the disk at a time. With one, all who come meanwhile share the next statement, which is less work for
    /// each of them. While the disk takes longer than one and a half of them, the next is worked out beside the one that
    /// waits: the disk is what is short then, and not the processors.
    pub(super) fn seals(&self) -> usize {
        if self.disk * 2 > self.statement * 3 { 2 } else { 1 }
    }
}

fn drawn_towards(mean: Duration, last: Duration) -> Duration {
    (mean * (MEMORY - 1) + last) / MEMORY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_is_not_waited_for_and_a_fast_one_is() {
        let mut tempo = Tempo::default();
        assert_eq!(tempo.seals(), 1, "nothing is known");
        let note = |tempo: &mut Tempo, statement_us, disk_us| {
            tempo.note(Duration::from_micros(statement_us), Duration::from_micros(disk_us));
        };
        for _ in 0..100 {
            note(&mut tempo, 400, 300);
        }
        assert_eq!(tempo.seals(), 1);
        note(&mut tempo, 400, 3_000);
        assert_eq!(tempo.seals(), 1, "once is no habit");
        for _ in 0..100 {
            note(&mut tempo, 400, 700);
        }
        assert_eq!(tempo.seals(), 2);
        for _ in 0..100 {
            note(&mut tempo, 400, 500);
        }
        assert_eq!(tempo.seals(), 1);
    }
}
