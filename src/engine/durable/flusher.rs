//! Group commit: which thread flushes the log, how far that makes it durable, and which threads wait for it.
//!
//! Callers of sync that arrive during a flush wait for it and then share the next one (DeWitt et al., 1984). All of it
//! is written against [`Log`], so that it can be tested without a store.
//!
//! **Invariants.** At most one thread of a process flushes. A flush that succeeds makes durable what was committed
//! before it began; a flush that fails makes nothing durable.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::reach::{Durable, Ranges};
use crate::error::Result;
use crate::file::layout::Seq;

/// How often a thread that is about to flush lets others commit first, if there are any.
const MOST_YIELDS: u32 = 4;

/// What is flushed.
pub(crate) trait Log {
    /// The number of the last visible commit.
    fn last_commit(&self) -> Result<Seq>;
    /// Whether a flush can make the log durable: not while the log has to be written once more. An error if no flush
    /// can any more, since one has failed.
    fn is_flushable(&self) -> Result<bool>;
    /// How far the log is committed, and the ranges to flush to make that durable, given that `durable` is. No ranges
    /// if they cannot be told: then everything.
    fn unflushed(&self, durable: Durable) -> Result<(Durable, Option<Ranges>)>;
    /// Flushes some ranges, or everything.
    fn flush(&self, ranges: Option<Ranges>) -> Result<()>;
    /// Lets others commit.
    fn give_way(&self) {
        std::thread::yield_now();
    }
}

/// How far this process knows the log to be durable, and which thread flushes it. Ranges that another process has
/// flushed are flushed again, which costs nothing where nothing is left to write.
pub(crate) struct Flusher {
    group: Mutex<Group>,
    /// Notified when a flush has ended.
    flushed: Condvar,
}

/// The threads that want the log to be durable: one of them flushes, the others wait and then mostly find it done.
struct Group {
    durable: Durable,
    /// A flush is under way.
    flushing: bool,
    /// Threads that wait for it to end.
    waiting: u32,
    /// Threads that waited when the last flush ended: they are about to commit again.
    company: u32,
}

impl Flusher {
    /// A flusher of a log that is durable up to there.
    pub(crate) fn new(durable: Durable) -> Flusher {
        Flusher {
            group: Mutex::new(Group { durable, flushing: false, waiting: 0, company: 0 }),
            flushed: Condvar::new(),
        }
    }

    /// Makes every commit durable that is visible now, and returns how far the log is durable. `None` if the log has to
    /// be written once more first.
    pub(crate) fn flush_commits(&self, log: &impl Log) -> Result<Option<Durable>> {
        let wanted = log.last_commit()?;
        let mut group = self.group();
        loop {
            if !log.is_flushable()? {
                return Ok(None);
            }
            if group.durable.seq >= wanted {
                return Ok(Some(group.durable));
            }
            if !group.flushing {
                break;
            }
            group.waiting += 1;
            group = self.flushed.wait(group).unwrap_or_else(PoisonError::into_inner);
        }
        let (durable, company) = (group.durable, group.company);
        let flush = self.begin(group);
        for _ in 0..company.min(MOST_YIELDS) {
            // The threads that shared the last flush may share this one.
            log.give_way();
        }
        let (reached, ranges) = log.unflushed(durable)?;
        log.flush(ranges)?;
        flush.has_reached(reached);
        Ok(Some(reached))
    }

    /// Flushes something other than the last commits, when no other thread flushes.
    pub(crate) fn flush_apart(&self, flush: impl FnOnce() -> Result<()>) -> Result<()> {
        let _flush = self.wait_and_begin();
        flush()
    }

    /// Flushes everything, when no other thread flushes. `reached` is asked before the flush.
    pub(crate) fn flush_all(
        &self,
        reached: impl FnOnce() -> Result<Durable>,
        flush: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let begun = self.wait_and_begin();
        let reached = reached()?;
        flush()?;
        begun.has_reached(reached);
        Ok(())
    }

    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a flush; no other is under way.
    fn begin(&self, mut group: MutexGuard<'_, Group>) -> Flush<'_> {
        group.flushing = true;
        Flush { flusher: self }
    }

    /// Begins a flush as soon as no other is under way.
    fn wait_and_begin(&self) -> Flush<'_> {
        let group = self.flushed.wait_while(self.group(), |group| group.flushing);
        self.begin(group.unwrap_or_else(PoisonError::into_inner))
    }
}

/// A flush under way. When it is dropped, the next one can begin.
struct Flush<'f> {
    flusher: &'f Flusher,
}

impl Flush<'_> {
    /// The flush has succeeded.
    fn has_reached(&self, durable: Durable) {
        self.flusher.group().durable = durable;
    }
}

impl Drop for Flush<'_> {
    fn drop(&mut self) {
        let mut group = self.flusher.group();
        group.flushing = false;
        group.company = std::mem::take(&mut group.waiting);
        drop(group);
        self.flusher.flushed.notify_all();
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::{self, ScopedJoinHandle};

    use super::*;
    use crate::error::Error;
    use crate::file::layout::Offset;

    /// A log in which each commit is eight bytes long.
    #[derive(Default)]
    struct Disk {
        visible: AtomicU64,
        /// How far it was flushed.
        flushed: AtomicU64,
        flushes: AtomicU64,
        ways_given: AtomicU64,
        busy: AtomicBool,
        unsure: AtomicBool,
        poisoned: AtomicBool,
        /// Each of these is taken by one flush.
        steps: Mutex<Vec<Step>>,
    }

    /// The outcome of a flush.
    enum Step {
        /// Reports that it has begun, and waits for a message.
        Held(Sender<()>, Receiver<()>),
        Fails,
        Panics,
    }

    impl Disk {
        fn commit(&self) -> u64 {
            self.visible.fetch_add(1, Ordering::SeqCst) + 1
        }

        fn flushes(&self) -> u64 {
            self.flushes.load(Ordering::SeqCst)
        }

        /// The next flush reports that it has begun, and waits.
        fn hold(&self) -> (Receiver<()>, Sender<()>) {
            let (begun, has_begun) = channel();
            let (go, goes) = channel();
            self.steps.lock().unwrap().push(Step::Held(begun, goes));
            (has_begun, go)
        }
    }

    fn poisoned() -> Error {
        Error::Poisoned { path: PathBuf::new() }
    }

    impl Log for Disk {
        fn last_commit(&self) -> Result<Seq> {
            Ok(Seq(self.visible.load(Ordering::SeqCst)))
        }

        fn is_flushable(&self) -> Result<bool> {
            if self.poisoned.load(Ordering::SeqCst) {
                return Err(poisoned());
            }
            Ok(!self.unsure.load(Ordering::SeqCst))
        }

        fn unflushed(&self, durable: Durable) -> Result<(Durable, Option<Ranges>)> {
            let seq = self.last_commit()?;
            let end = Offset(seq.0 * 8);
            Ok((Durable::up_to(end, seq), Some(vec![(durable.end, end)])))
        }

        fn flush(&self, ranges: Option<Ranges>) -> Result<()> {
            assert!(!self.busy.swap(true, Ordering::SeqCst), "two flush at once");
            self.flushes.fetch_add(1, Ordering::SeqCst);
            let step = self.steps.lock().unwrap().pop();
            let outcome = match step {
                Some(Step::Fails) => {
                    self.poisoned.store(true, Ordering::SeqCst);
                    Err(poisoned())
                }
                Some(Step::Panics) => {
                    self.busy.store(false, Ordering::SeqCst);
                    panic!("in a flush");
                }
                Some(Step::Held(begun, goes)) => {
                    begun.send(()).unwrap();
                    goes.recv().map_err(|_| poisoned())
                }
                None => Ok(()),
            };
            if outcome.is_ok() {
                for (start, end) in ranges.unwrap() {
                    assert!(start.0 <= self.flushed.load(Ordering::SeqCst), "there is a gap before {start}");
                    self.flushed.fetch_max(end.0, Ordering::SeqCst);
                }
            }
            self.busy.store(false, Ordering::SeqCst);
            outcome
        }

        fn give_way(&self) {
            self.ways_given.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn flusher() -> Flusher {
        Flusher::new(Durable::up_to(Offset(0), Seq::ZERO))
    }

    fn reached(flusher: &Flusher, disk: &Disk) -> Option<u64> {
        flusher.flush_commits(disk).unwrap().map(|durable| durable.seq.0)
    }

    /// Returns when `waiters` threads wait for a flush to end; `last` is the last one to come.
    fn until_waiting<T>(flusher: &Flusher, waiters: u32, last: &ScopedJoinHandle<'_, T>) {
        while flusher.group().waiting < waiters {
            assert!(!last.is_finished(), "it has not waited");
            thread::yield_now();
        }
    }

    #[test]
    fn what_is_durable_is_not_flushed_again() {
        let (flusher, disk) = (flusher(), Disk::default());
        assert_eq!(reached(&flusher, &disk), Some(0));
        assert_eq!(disk.flushes(), 0, "nothing was committed");
        disk.commit();
        assert_eq!([reached(&flusher, &disk), reached(&flusher, &disk)], [Some(1), Some(1)]);
        assert_eq!((disk.flushes(), disk.flushed.load(Ordering::SeqCst)), (1, 8));
    }

    #[test]
    fn those_who_come_during_a_flush_share_the_next_one() {
        let (flusher, disk) = (flusher(), Disk::default());
        disk.commit();
        thread::scope(|scope| {
            let (begun, go) = disk.hold();
            let first = scope.spawn(|| reached(&flusher, &disk));
            begun.recv().unwrap();
            let commit_and_flush = || {
                let seq = disk.commit();
                (seq, reached(&flusher, &disk))
            };
            let others: Vec<_> = (1..=6)
                .map(|number| {
                    let other = scope.spawn(commit_and_flush);
                    until_waiting(&flusher, number, &other);
                    other
                })
                .collect();
            assert_eq!(disk.flushes(), 1, "they wait");
            go.send(()).unwrap();
            assert_eq!(first.join().unwrap(), Some(1), "what was committed meanwhile is not durable with it");
            for other in others {
                let (seq, reached) = other.join().unwrap();
                assert!(reached >= Some(seq), "{reached:?} for commit {seq}");
            }
        });
        assert_eq!(disk.flushes(), 2, "one for all of them");
        assert_eq!(disk.ways_given.load(Ordering::SeqCst), u64::from(MOST_YIELDS), "it has let the others come along");
        assert_eq!(disk.flushed.load(Ordering::SeqCst), 7 * 8);
    }

    /// Each of many threads has its commit durable when it is told so, and there are fewer flushes than commits, or as
    /// many if they never met.
    #[test]
    fn a_commit_is_durable_when_its_thread_is_told_so() {
        const THREADS: u64 = 4;
        const COMMITS: u64 = 500;

        let (flusher, disk) = (flusher(), Disk::default());
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..COMMITS {
                        let seq = disk.commit();
                        assert!(reached(&flusher, &disk) >= Some(seq));
                        assert!(disk.flushed.load(Ordering::SeqCst) >= seq * 8, "commit {seq} is not on the disk");
                    }
                });
            }
        });
        assert!(disk.flushes() <= THREADS * COMMITS);
        assert_eq!(disk.flushed.load(Ordering::SeqCst), THREADS * COMMITS * 8);
    }

    #[test]
    fn a_flush_that_failed_fails_those_who_waited_and_is_not_tried_again() {
        let (flusher, disk) = (flusher(), Disk::default());
        disk.commit();
        thread::scope(|scope| {
            let (begun, go) = disk.hold();
            let first = scope.spawn(|| flusher.flush_commits(&disk).map(|_| ()));
            begun.recv().unwrap();
            let others: Vec<_> = (0..3).map(|_| scope.spawn(|| flusher.flush_commits(&disk).map(|_| ()))).collect();
            until_waiting(&flusher, 3, &others[2]);
            disk.poisoned.store(true, Ordering::SeqCst);
            drop(go);
            for waiter in std::iter::once(first).chain(others) {
                assert!(matches!(waiter.join().unwrap(), Err(Error::Poisoned { .. })));
            }
        });
        assert_eq!(disk.flushes(), 1);
        assert_eq!(flusher.group().durable.seq, Seq::ZERO, "nothing has become durable by it");
    }

    #[test]
    fn one_who_fails_or_panics_leaves_the_flush_to_the_next() {
        let (flusher, disk) = (flusher(), Disk::default());
        disk.commit();
        disk.steps.lock().unwrap().push(Step::Fails);
        assert!(flusher.flush_commits(&disk).is_err());
        assert!(!flusher.group().flushing);
        // The error now is not one of a poisoned log.
        disk.poisoned.store(false, Ordering::SeqCst);
        disk.steps.lock().unwrap().push(Step::Panics);
        assert!(catch_unwind(AssertUnwindSafe(|| flusher.flush_commits(&disk).is_ok())).is_err());
        assert!(!flusher.group().flushing);
        assert_eq!(reached(&flusher, &disk), Some(1));
        assert_eq!((disk.flushes(), disk.flushed.load(Ordering::SeqCst)), (3, 8));
    }

    #[test]
    fn a_log_that_has_to_be_written_once_more_is_not_called_durable() {
        let (flusher, disk) = (flusher(), Disk::default());
        disk.unsure.store(true, Ordering::SeqCst);
        assert_eq!(reached(&flusher, &disk), None, "also if there is nothing to flush");
        disk.commit();
        assert_eq!(reached(&flusher, &disk), None);
        assert_eq!(disk.flushes(), 0);
        disk.unsure.store(false, Ordering::SeqCst);
        assert_eq!(reached(&flusher, &disk), Some(1));
    }

    #[test]
    fn other_flushes_wait_for_their_turn_and_are_waited_for() {
        let (flusher, disk) = (flusher(), Disk::default());
        let (came, apart_begun) = (AtomicBool::new(false), AtomicBool::new(false));
        let (goes, may_end) = channel();
        let may_end = Mutex::new(may_end);
        disk.commit();
        thread::scope(|scope| {
            // Both are dropped if this fails, and then no thread waits for ever.
            let ((begun, go), goes) = (disk.hold(), goes);
            scope.spawn(|| reached(&flusher, &disk));
            begun.recv().unwrap();
            let apart = scope.spawn(|| {
                came.store(true, Ordering::SeqCst);
                flusher.flush_apart(|| {
                    assert!(!disk.busy.load(Ordering::SeqCst), "two flush at once");
                    apart_begun.store(true, Ordering::SeqCst);
                    may_end.lock().unwrap().recv().map_err(|_| poisoned())
                })
            });
            while !came.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            for _ in 0..10_000 {
                thread::yield_now();
                assert!(!apart_begun.load(Ordering::SeqCst), "two flush at once");
            }
            go.send(()).unwrap();
            while !apart_begun.load(Ordering::SeqCst) {
                assert!(!apart.is_finished(), "it has not waited");
                thread::yield_now();
            }
            disk.commit();
            let next = scope.spawn(|| reached(&flusher, &disk));
            until_waiting(&flusher, 1, &next);
            assert_eq!(disk.flushes(), 1, "that one waits");
            assert_eq!(flusher.group().durable.seq, Seq(1), "the one apart says nothing of the commits");
            goes.send(()).unwrap();
            apart.join().unwrap().unwrap();
            assert_eq!(next.join().unwrap(), Some(2));
        });
    }

    #[test]
    fn a_flush_of_everything_vouches_for_what_was_there_before_it() {
        let (flusher, disk) = (flusher(), Disk::default());
        let everything = |outcome: Result<()>| {
            let flush = || {
                disk.commit();
                outcome
            };
            flusher
                .flush_all(|| disk.unflushed(Durable::up_to(Offset(0), Seq::ZERO)).map(|(reached, _)| reached), flush)
        };
        disk.commit();
        assert!(everything(Err(poisoned())).is_err());
        assert_eq!(flusher.group().durable.seq, Seq::ZERO);
        everything(Ok(())).unwrap();
        assert_eq!(flusher.group().durable.seq, Seq(2), "not for the commit that was made meanwhile");
    }
}
