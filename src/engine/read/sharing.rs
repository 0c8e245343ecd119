//! Views of one commit share one pin: which commits are in view, within one process.
//!
//! **Invariant.** A commit is listed from when its pin is settled until its last holder has left, and all that time the
//! pin stands at it. A new holder joins under the lock that the last one to leave takes, so the pin passes from the one
//! to the other. A listed commit may have fallen below the horizon meanwhile; nothing of it was reused, since raising
//! the horizon has seen the pin. So a new holder has nothing to settle; but it must load the visible number after
//! taking the lock, or it would look at an older commit than there is.
//!
//! In a store that is opened for reading, a pin is a lock of the system. Those are counted here, too.

use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;
#[cfg(not(all(test, loom)))]
use std::sync::{Mutex, MutexGuard};

#[cfg(all(test, loom))]
use loom::sync::{Mutex, MutexGuard};

use crate::engine::lookup::protocol::{self, Words};
use crate::engine::processes::gate::thread_number;
use crate::error::Result;
use crate::file::layout::{Seq, live};

/// Threads are spread over this many lists of the commits in view, so that they seldom wait for each other. A commit
/// can have a pin in each.
const SHARES: usize = 8;

/// The pins of a store, as sharing needs them. The stores of [`Words`] write pins.
pub(crate) trait Table: Words {
    /// Claims a free pin.
    fn search(&self, claim: u64) -> Result<u64>;
    /// This process looks at no commit with a pin any more.
    fn let_go(&self, place: u64, unused: Unused);
}

/// What becomes of a pin that this process does not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unused {
    /// The process keeps it, for its next view.
    Kept,
    /// Any process may claim it.
    Free,
}

/// A pin that several holders may share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedPin {
    pub(crate) place: u64,
    /// The sequence number that its holders read at.
    pub(crate) seq: Seq,
    /// The list that it is in.
    pub(crate) share: usize,
}

/// The pins shared by views that may go anywhere. A list is locked for a few steps, and never during another wait.
#[derive(Default)]
pub(crate) struct SharedPins([Share; SHARES]);

/// One of the lists, in cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Share(Mutex<Commits>);

impl SharedPins {
    /// Joins the views of the last visible commit, with their pin.
    pub(crate) fn join(&self, table: &impl Table) -> Result<SharedPin> {
        self.join_in((thread_number() % SHARES as u64) as usize, table)
    }

    /// The same, in one of the lists.
    pub(crate) fn join_in(&self, share: usize, table: &impl Table) -> Result<SharedPin> {
        let mut commits = self.lock(share);
        let seq = Seq(table.load(live::VISIBLE)?);
        if let Some(place) = commits.join(seq) {
            return Ok(SharedPin { place, seq, share });
        }
        let own = match commits.take_idle() {
            Some(place) => {
                let own = Unlisted { table, commits, place, is_listed: false };
                table.store(place, table.claim(seq))?;
                own
            }
            None => {
                // Not under the lock: lengthening the table may pin something.
                drop(commits);
                let place = table.search(table.claim(seq))?;
                Unlisted { table, commits: self.lock(share), place, is_listed: false }
            }
        };
        // In both cases, the pin was stored in the total order in which the horizon is loaded.
        own.settle(seq, share)
    }

    /// Ends one of the views of a commit.
    #[inline(never)]
    pub(crate) fn leave(&self, table: &impl Table, share: usize, seq: Seq) {
        let mut commits = self.lock(share);
        if let Some(place) = commits.leave(seq) {
            table.let_go(place, commits.keep_idle(place));
        }
    }

    /// An unused pin, out of any of the lists. The caller has locked none of them.
    pub(crate) fn take_idle(&self) -> Option<u64> {
        (0..SHARES).find_map(|share| self.lock(share).take_idle())
    }

    fn lock(&self, share: usize) -> MutexGuard<'_, Commits> {
        self.0[share % SHARES].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pin of this process that is about to be listed. If it is not, it is let go of when this is dropped.
struct Unlisted<'s, T: Table> {
    table: &'s T,
    commits: MutexGuard<'s, Commits>,
    place: u64,
    is_listed: bool,
}

impl<T: Table> Unlisted<'_, T> {
    /// Settles the pin, which was written at `seq`, and lists it, unless there is one for its commit by now.
    fn settle(mut self, seq: Seq, share: usize) -> Result<SharedPin> {
        let seq = protocol::settle(self.table, self.place, seq)?;
        let place = self.commits.enter(seq, self.place);
        self.is_listed = place == self.place;
        Ok(SharedPin { place, seq, share })
    }
}

impl<T: Table> Drop for Unlisted<'_, T> {
    fn drop(&mut self) {
        if !self.is_listed {
            self.table.let_go(self.place, self.commits.keep_idle(self.place));
        }
    }
}

/// How many holders the lock of each count has.
#[derive(Default)]
pub(crate) struct SnapshotLocks(Mutex<BTreeMap<u64, u64>>);

impl SnapshotLocks {
    /// Adds a holder of the lock of a count. The first one takes it.
    pub(crate) fn hold(&self, count: u64, take: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holders = held.entry(count).or_default();
        if *holders == 0 {
            take()?;
        }
        *holders += 1;
        Ok(())
    }

    /// Removes a holder. The last one gives the lock back.
    pub(crate) fn leave(&self, count: u64, give_back: impl FnOnce()) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(holders) = held.get_mut(&count) else { return };
        *holders -= 1;
        if *holders == 0 {
            held.remove(&count);
            give_back();
        }
    }
}

/// Commits in view, each with the place of its pin.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// By sequence number: newcomers are mostly the newest.
    held: VecDeque<Held>,
    /// Places of pins that belong to this process and say so, and are not in use.
    idle: Vec<u64>,
}

#[derive(Debug)]
struct Held {
    seq: Seq,
    place: u64,
    holders: u64,
}

/// The most pins kept for the next views.
const MOST_IDLE: usize = 4;

impl Commits {
    fn find(&self, seq: Seq) -> std::result::Result<usize, usize> {
        match self.held.back() {
            Some(newest) if newest.seq == seq => Ok(self.held.len() - 1),
            Some(newest) if newest.seq > seq => self.held.binary_search_by_key(&seq, |held| held.seq),
            _ => Err(self.held.len()),
        }
    }

    /// Adds a view of a commit. Returns where its pin is, if it has one.
    pub(crate) fn join(&mut self, seq: Seq) -> Option<u64> {
        let at = self.find(seq).ok()?;
        let held = self.held.get_mut(at)?;
        held.holders += 1;
        Some(held.place)
    }

    /// Adds a view of a commit whose pin, which has just been settled, is at `place`. Returns where it is: in another
    /// place, if the commit has one already.
    pub(crate) fn enter(&mut self, seq: Seq, place: u64) -> u64 {
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

    /// Removes a view. Returns where the pin is, if that was the last one: it is not needed any more.
    pub(crate) fn leave(&mut self, seq: Seq) -> Option<u64> {
        let at = self.find(seq).ok()?;
        let held = self.held.get_mut(at)?;
        held.holders -= 1;
        if held.holders > 0 {
            return None;
        }
        self.held.remove(at).map(|held| held.place)
    }

    /// An unused pin, which is now the caller's.
    pub(crate) fn take_idle(&mut self) -> Option<u64> {
        self.idle.pop()
    }

    /// Keeps a pin for the next view, if there is reason to.
    pub(crate) fn keep_idle(&mut self, place: u64) -> Unused {
        if self.idle.len() == MOST_IDLE {
            return Unused::Free;
        }
        self.idle.push(place);
        Unused::Kept
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::cell::Cell;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering, fence};

    use super::*;
    use crate::error::Error;

    /// A table whose pins are its first words.
    struct Fake {
        visible: AtomicU64,
        horizon: AtomicU64,
        pins: [AtomicU64; 6],
        kept: AtomicU64,
        searches: AtomicU64,
        /// What happens while a pin is searched for.
        meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    }

    const IDLE: u64 = u64::MAX;

    impl Fake {
        fn at(seq: Seq) -> Arc<Fake> {
            Arc::new(Fake {
                visible: AtomicU64::new(seq.0),
                horizon: AtomicU64::new(0),
                pins: Default::default(),
                kept: AtomicU64::new(0),
                searches: AtomicU64::new(0),
                meanwhile: Mutex::new(None),
            })
        }

        fn word(&self, at: u64) -> &AtomicU64 {
            match at {
                live::VISIBLE => &self.visible,
                live::HORIZON => &self.horizon,
                place => &self.pins[place as usize],
            }
        }

        /// The claims of the pins that are held.
        fn held(&self) -> Vec<u64> {
            let pins = self.pins.iter().map(|pin| pin.load(Ordering::SeqCst));
            pins.filter(|&claim| claim != 0 && claim != IDLE).collect()
        }

        fn commit(&self) {
            self.visible.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl protocol::Words for Fake {
        fn load(&self, at: u64) -> Result<u64> {
            Ok(self.word(at).load(Ordering::SeqCst))
        }

        fn store(&self, at: u64, value: u64) -> Result<()> {
            self.word(at).store(value, Ordering::SeqCst);
            Ok(())
        }

        fn publish(&self, _at: u64, _value: u64) -> Result<()> {
            unreachable!("readers move no tail")
        }

        fn fence(&self) {
            fence(Ordering::SeqCst);
        }

        fn claim(&self, seq: Seq) -> u64 {
            seq.0
        }

        fn impossible(&self) -> Error {
            Error::Poisoned { path: PathBuf::new() }
        }
    }

    impl Table for Fake {
        fn search(&self, claim: u64) -> Result<u64> {
            self.searches.fetch_add(1, Ordering::SeqCst);
            let meanwhile = self.meanwhile.lock().unwrap().take();
            let is_free = |pin: &&AtomicU64| pin.compare_exchange(0, claim, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            let place = self.pins.iter().position(|pin| is_free(&pin));
            if let Some(meanwhile) = meanwhile {
                meanwhile();
            }
            place.map(|place| place as u64).ok_or(Error::PinsExhausted { path: PathBuf::new(), max: 6 })
        }

        fn let_go(&self, place: u64, unused: Unused) {
            let claim = match unused {
                Unused::Kept => {
                    self.kept.fetch_add(1, Ordering::SeqCst);
                    IDLE
                }
                Unused::Free => 0,
            };
            self.word(place).store(claim, Ordering::SeqCst);
        }
    }

    fn leave(pins: &SharedPins, table: &Fake, pin: SharedPin) {
        pins.leave(table, pin.share, pin.seq);
    }

    #[test]
    fn those_who_look_at_one_commit_share_a_pin_until_the_last_one_leaves() {
        let (pins, table) = (SharedPins::default(), Fake::at(Seq(7)));
        let first = pins.join(&*table).unwrap();
        let second = pins.join(&*table).unwrap();
        assert_eq!((first, first.seq), (second, Seq(7)));
        table.commit();
        let newer = pins.join(&*table).unwrap();
        assert_eq!(table.held(), [7, 8]);
        leave(&pins, &table, first);
        assert_eq!(table.held(), [7, 8], "somebody still looks at it");
        leave(&pins, &table, second);
        assert_eq!(table.held(), [8]);
        // The pin has stayed with the process and is used again.
        table.commit();
        let newest = pins.join(&*table).unwrap();
        assert_eq!((newest.place, newest.seq, table.searches.load(Ordering::SeqCst)), (first.place, Seq(9), 2));
        [newer, newest].into_iter().for_each(|pin| leave(&pins, &table, pin));
        assert_eq!(table.held(), []);
        assert_eq!(pins.take_idle().map(|place| table.pins[place as usize].load(Ordering::SeqCst)), Some(IDLE));
    }

    /// The other one looks at the same commit by the time that a pin is found.
    #[test]
    fn a_pin_that_is_one_too_many_is_let_go_of() {
        let (pins, table) = (Arc::new(SharedPins::default()), Fake::at(Seq(7)));
        let share = (thread_number() % SHARES as u64) as usize;
        let (of_other, table_of_other) = (Arc::clone(&pins), Arc::clone(&table));
        let enter = move || {
            let place = table_of_other.search(7).unwrap();
            assert_eq!(of_other.lock(share).enter(Seq(7), place), place);
        };
        *table.meanwhile.lock().unwrap() = Some(Box::new(enter));
        let pin = pins.join(&*table).unwrap();
        assert_eq!((table.held(), table.pins[pin.place as usize].load(Ordering::SeqCst)), (vec![7], 7));
        [pin, pin].into_iter().for_each(|pin| leave(&pins, &table, pin));
        assert_eq!(table.held(), []);
    }

    /// The horizon is raised between the look at the last commit and the pin.
    #[test]
    fn a_pin_that_comes_too_late_takes_a_newer_commit_or_is_let_go_of() {
        let (pins, table) = (SharedPins::default(), Fake::at(Seq(7)));
        let of_other = Arc::clone(&table);
        let raise = move || {
            of_other.commit();
            of_other.horizon.store(8, Ordering::SeqCst);
        };
        *table.meanwhile.lock().unwrap() = Some(Box::new(raise));
        let pin = pins.join(&*table).unwrap();
        assert_eq!((pin.seq, table.held()), (Seq(8), vec![8]));
        leave(&pins, &table, pin);
        // An impossible horizon: with the pin that stayed, and with a new one.
        table.horizon.store(100, Ordering::SeqCst);
        for _ in 0..2 {
            assert!(pins.join(&*table).is_err());
            assert_eq!(table.held(), [], "it holds nothing back");
            let idle = pins.take_idle().expect("and it stays with the process");
            table.let_go(idle, Unused::Free);
        }
        table.horizon.store(8, Ordering::SeqCst);
        assert_eq!(pins.join(&*table).unwrap().seq, Seq(8));
    }

    #[test]
    fn many_threads_leave_no_pin_behind() {
        let (pins, table) = (SharedPins::default(), Fake::at(Seq(7)));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let pin = pins.join(&*table).unwrap();
                        assert_eq!(table.pins[pin.place as usize].load(Ordering::SeqCst), pin.seq.0);
                        table.commit();
                        leave(&pins, &table, pin);
                    }
                });
            }
        });
        assert_eq!(table.held(), []);
        assert!(pins.0.iter().all(|share| share.0.lock().unwrap().held.is_empty()));
    }

    #[test]
    fn the_first_takes_a_lock_and_the_last_gives_it_back() {
        let (locks, calls) = (SnapshotLocks::default(), Cell::new((0, 0)));
        let hold = |count| {
            locks.hold(count, || {
                calls.set((calls.get().0 + 1, calls.get().1));
                Ok(())
            })
        };
        let leave = |count| locks.leave(count, || calls.set((calls.get().0, calls.get().1 + 1)));
        assert!(locks.hold(7, || Err(Error::Poisoned { path: PathBuf::new() })).is_err());
        leave(8);
        assert_eq!(calls.get(), (0, 0), "nobody holds that one");
        hold(7).unwrap();
        hold(7).unwrap();
        hold(8).unwrap();
        assert_eq!(calls.get(), (2, 0));
        leave(7);
        assert_eq!(calls.get(), (2, 0));
        leave(7);
        leave(8);
        assert_eq!(calls.get(), (2, 2));
        hold(7).unwrap();
        assert_eq!(calls.get(), (3, 2), "it is taken anew");
    }

    #[test]
    fn a_commit_has_one_pin_until_the_last_one_leaves() {
        let mut commits = Commits::default();
        assert_eq!(commits.join(Seq(7)), None);
        assert_eq!(commits.enter(Seq(7), 100), 100);
        assert_eq!(commits.join(Seq(7)), Some(100));
        assert_eq!(commits.enter(Seq(9), 200), 200);
        assert_eq!(commits.enter(Seq(8), 300), 300, "one that was overtaken on the way");
        assert_eq!(commits.enter(Seq(7), 400), 100, "two came at the same time");
        assert_eq!([7, 8, 9].map(|seq| commits.join(Seq(seq))), [Some(100), Some(300), Some(200)]);
        assert_eq!([7, 7, 7, 7].map(|seq| commits.leave(Seq(seq))), [None, None, None, Some(100)]);
        assert_eq!([commits.join(Seq(7)), commits.leave(Seq(7))], [None, None]);
        assert_eq!([9, 8, 9, 8].map(|seq| commits.leave(Seq(seq))), [None, None, Some(200), Some(300)]);
    }

    #[test]
    fn only_some_idle_pins_are_kept() {
        let mut commits = Commits::default();
        let kept = (1..100).filter(|&place| commits.keep_idle(place) == Unused::Kept).count();
        assert_eq!(kept, MOST_IDLE);
        assert_eq!(std::iter::from_fn(|| commits.take_idle()).count(), kept);
    }
}
