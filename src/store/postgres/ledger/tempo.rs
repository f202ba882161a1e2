//! How long a statement takes, and how long the disk: what tells how statements are committed, and how many may wait for the disk at a time.

use std::time::Duration;

use super::statement::Commit;

/// Of so many measurements the last one is one.
const MEMORY: u32 = 16;

/// Of so many statements on a fast disk one is committed ahead: only such a one tells how long the disk takes.
const MEASURED: u32 = 16;

/// Running means of what statements that were committed ahead took of late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tempo {
    statement: Duration,
    disk: Duration,
    /// How many statements were not measured since the last one that was.
    unmeasured: u32,
}

impl Tempo {
    pub(super) fn note(&mut self, statement: Duration, disk: Duration) {
        self.statement = drawn_towards(self.statement, statement);
        self.disk = drawn_towards(self.disk, disk);
        self.unmeasured = 0;
    }

    /// How the next statement of several counters is committed. On a slow disk, ahead. A fast one is waited for in the commit
    /// itself, where no other statement is under way anyway: that saves the barrier, and its round trip.
    pub(super) fn commit(&mut self) -> Commit {
        self.unmeasured += 1;
        if self.seals() > 1 || self.unmeasured >= MEASURED { Commit::Ahead } else { Commit::Waits }
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
        let ahead = |tempo: &mut Tempo, disk_us| {
            let statements = (0..32).filter(|_| {
                let is_ahead = tempo.commit() == Commit::Ahead;
                if is_ahead {
                    note(tempo, 400, disk_us);
                }
                is_ahead
            });
            statements.count()
        };
        assert_eq!(ahead(&mut tempo, 300), 2, "measured now and then");
        note(&mut tempo, 400, 3_000);
        assert_eq!(tempo.seals(), 1, "once is no habit");
        for _ in 0..100 {
            note(&mut tempo, 400, 700);
        }
        assert_eq!(tempo.seals(), 2);
        assert_eq!(ahead(&mut tempo, 700), 32);
        for _ in 0..100 {
            note(&mut tempo, 400, 500);
        }
        assert_eq!(tempo.seals(), 1);
    }
}
