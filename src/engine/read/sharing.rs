//! Views of one commit share one pin: who looks at which commit, within one process.
//!
//! **Invariant.** A commit is listed from when its pin is settled until its last holder has left, and all that time the
//! pin stands at it. Whoever joins does so under the lock that the last one to leave takes, so the pin stays from the
//! one to the other, as if it had wandered there. What is listed may have fallen behind the horizon meanwhile; nothing
//! of it was reused, since whoever raised the horizon has seen the pin. So there is nothing to settle for one who
//! joins; only must he have loaded the visible number after taking the lock, or he would look at an older commit than
//! there is.

use std::collections::VecDeque;

/// Commits that somebody looks at, each with the place of its pin.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// By sequence number: newcomers are mostly the newest.
    held: VecDeque<Held>,
    /// Places of pins that belong to this process and say so, and that nobody uses.
    idle: Vec<u64>,
}

#[derive(Debug)]
struct Held {
    seq: u64,
    place: u64,
    holders: u64,
}

/// So many pins are kept for whoever comes next.
const MOST_IDLE: usize = 4;

impl Commits {
    fn find(&self, seq: u64) -> Result<usize, usize> {
        match self.held.back() {
            Some(newest) if newest.seq == seq => Ok(self.held.len() - 1),
            Some(newest) if newest.seq > seq => self.held.binary_search_by_key(&seq, |held| held.seq),
            _ => Err(self.held.len()),
        }
    }

    /// One more looks at a commit. Says where its pin is, if it has one.
    pub(crate) fn join(&mut self, seq: u64) -> Option<u64> {
        let at = self.find(seq).ok()?;
        let held = self.held.get_mut(at)?;
        held.holders += 1;
        Some(held.place)
    }

    /// Somebody looks at a commit whose pin, which has just been settled, is at `place`. Says where it is: in another
    /// place, if the commit has one already.
    pub(crate) fn enter(&mut self, seq: u64, place: u64) -> u64 {
        match self.find(seq) {
            Ok(at) => {
                let held = &mut self.held[at];
                held.holders += 1;
                held.place
            }
            Err(at) => {
                self.held.insert(at, Held { seq, place, holders: 1 });
                place
            }
        }
    }

    /// One looks no more. Says where the pin is, if that was the last one: it is not needed any more.
    pub(crate) fn leave(&mut self, seq: u64) -> Option<u64> {
        let at = self.find(seq).ok()?;
        let held = self.held.get_mut(at)?;
        held.holders -= 1;
        if held.holders > 0 {
            return None;
        }
        self.held.remove(at).map(|held| held.place)
    }

    /// A pin that nobody uses, which is the caller's now.
    pub(crate) fn take_idle(&mut self) -> Option<u64> {
        self.idle.pop()
    }

    /// Keeps a pin for whoever comes next, if there is reason to; only then it stays with this process.
    pub(crate) fn keep_idle(&mut self, place: u64) -> bool {
        let kept = self.idle.len() < MOST_IDLE;
        if kept {
            self.idle.push(place);
        }
        kept
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_commit_has_one_pin_until_the_last_one_leaves() {
        let mut commits = Commits::default();
        assert_eq!(commits.join(7), None);
        assert_eq!(commits.enter(7, 100), 100);
        assert_eq!(commits.join(7), Some(100));
        assert_eq!(commits.enter(9, 200), 200);
        assert_eq!(commits.enter(8, 300), 300, "one that was overtaken on the way");
        assert_eq!(commits.enter(7, 400), 100, "two came at the same time");
        assert_eq!([7, 8, 9].map(|seq| commits.join(seq)), [Some(100), Some(300), Some(200)]);
        assert_eq!([7, 7, 7, 7].map(|seq| commits.leave(seq)), [None, None, None, Some(100)]);
        assert_eq!([commits.join(7), commits.leave(7)], [None, None]);
        assert_eq!([9, 8, 9, 8].map(|seq| commits.leave(seq)), [None, None, Some(200), Some(300)]);
    }

    #[test]
    fn only_some_idle_pins_are_kept() {
        let mut commits = Commits::default();
        let kept = (1..100).filter(|&place| commits.keep_idle(place)).count();
        assert_eq!(kept, MOST_IDLE);
        assert_eq!(std::iter::from_fn(|| commits.take_idle()).count(), kept);
    }
}
