//! Which generations a process follows, and which it has left.
//!
//! Invariant: a generation that was left is never followed again. When a store comes apart, the one that goes on under the
//! earlier generation draws what the other one draws too; who went over and back would issue it twice. A store that forgets begins a new
//! generation each time, by chance: so an old one that comes back is another store, or data that were put back under a living server.

use super::message::Generation;

/// How many that were left are remembered. Two stores have two; each of them can begin another one now and then.
const KEPT: usize = 8;

/// The generations of one store, as one process has heard of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Generations {
    present: Option<Generation>,
    /// The latest last.
    left: Vec<Generation>,
}

/// Outcome of [`Generations::follow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It is the present one.
    Present,
    /// It is the present one from now on.
    Newly,
    /// It was left before: nothing has changed.
    Left,
}

impl Generations {
    /// The one that is followed; `None` before the store was heard of.
    pub fn present(&self) -> Option<Generation> {
        self.present
    }

    /// Those that were left, the latest last.
    pub fn left(&self) -> &[Generation] {
        &self.left
    }

    /// The store is in this generation.
    pub fn follow(&mut self, generation: Generation) -> Followed {
        if self.present == Some(generation) {
            return Followed::Present;
        }
        if self.left.contains(&generation) {
            return Followed::Left;
        }
        self.left.extend(self.present.replace(generation));
        if self.left.len() > KEPT {
            self.left.remove(0);
        }
        Followed::Newly
    }
}

impl From<Generation> for Generations {
    fn from(generation: Generation) -> Self {
        Self { present: Some(generation), left: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_is_not_followed_again() {
        let mut generations = Generations::default();
        assert_eq!(generations.follow(Generation(1)), Followed::Newly);
        assert_eq!(generations.follow(Generation(1)), Followed::Present);
        assert_eq!(generations.follow(Generation(2)), Followed::Newly);
        assert_eq!(generations.follow(Generation(1)), Followed::Left);
        assert_eq!(generations.present(), Some(Generation(2)));
        for generation in 3..100 {
            generations.follow(Generation(generation));
            assert_eq!(generations.follow(Generation(generation - 1)), Followed::Left);
        }
        assert_eq!(generations.left().len(), KEPT);
    }
}
