//! The ledger of upkeep: what this process knows of work to do and of work done.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};

use super::expired::Expired;
use super::rest::Rest;

/// Work counted per write, with total and maximum.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// In the present write.
    now: AtomicU64,
    /// In all, since the store was opened.
    all: AtomicU64,
    /// The most of one write.
    most: AtomicU64,
}

impl Work {
    fn add(&self, amount: u64) {
        // The caller holds the writer lock.
        self.now.fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds the work since the last time to the total, and returns it.
    fn end(&self) -> u64 {
        let now = self.now.swap(0, Ordering::Relaxed);
        self.all.fetch_add(now, Ordering::Relaxed);
        now
    }

    /// Ends the write.
    fn end_write(&self) {
        self.most.fetch_max(self.end(), Ordering::Relaxed);
    }

    fn figures(&self) -> Figures {
        Figures { all: self.all.load(Ordering::Relaxed), most: self.most.load(Ordering::Relaxed) }
    }
}

/// How much of something was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Since the store was opened.
    pub(crate) all: u64,
    /// The most of one write.
    pub(crate) most: u64,
}

/// All the work done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Lines of an index moved.
    pub(crate) lines: Figures,
    /// Blocks of an index zeroed.
    pub(crate) blocks: Figures,
    /// Bytes of the log moved.
    pub(crate) moved: Figures,
    /// Bytes handed to the disk.
    pub(crate) flushed: Figures,
}

/// How many places of damage are kept; further ones are only counted.
const KEPT: usize = 16;

/// A place of damage, and what is wrong there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Defect {
    pub(crate) offset: u64,
    pub(crate) what: &'static str,
}

/// The damage that this process has found.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    /// Bytes of log that were scrubbed.
    pub(crate) scrubbed: AtomicU64,
    first: Mutex<Vec<Defect>>,
}

impl Damage {
    /// The first places, in the order in which they were found.
    pub(crate) fn first(&self) -> Vec<Defect> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a place, and says whether it is new, as far as is known.
    pub(crate) fn note(&self, defect: Defect) -> bool {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !first.contains(&defect);
        if is_new && first.len() < KEPT {
            first.push(defect);
        }
        is_new
    }
}

/// What this process has evicted.
#[derive(Debug, Default)]
pub(crate) struct Evicted {
    /// Entries, and bytes of their records.
    pub(crate) entries: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// How often an entry was spared.
    pub(crate) spared: AtomicU64,
    /// How often everything was cleared.
    pub(crate) clears: AtomicU64,
}

impl Evicted {
    /// Counts an entry whose record has `bytes` bytes.
    pub(crate) fn note(&self, bytes: u64) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts an entry that was spared.
    pub(crate) fn note_spared(&self) {
        self.spared.fetch_add(1, Ordering::Relaxed);
    }
}

/// What this process knows of the upkeep of a store.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// Much waits for a checkpoint.
    checkpoint: AtomicBool,
    pub(crate) rest: Rest,
    /// Something was counted in the present write.
    counted: AtomicBool,
    lines: Work,
    blocks: Work,
    moved: Work,
    flushed: Work,
    pub(crate) expired: Expired,
    pub(crate) damage: Damage,
    pub(crate) evicted: Evicted,
    /// The thread that does the upkeep, if there is one.
    thread: OnceLock<Thread>,
}

impl Upkeep {
    /// Makes the next write take a checkpoint.
    pub(crate) fn want_checkpoint(&self) {
        self.checkpoint.store(true, Ordering::Relaxed);
    }

    /// Whether a checkpoint is wanted.
    #[inline]
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.checkpoint.load(Ordering::Relaxed)
    }

    /// The same, and clears the wish: of several callers one gets it, and takes the checkpoint.
    pub(crate) fn take_wish(&self) -> bool {
        self.wants_checkpoint() && self.checkpoint.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn count_lines(&self, lines: u64) {
        self.counted.store(true, Ordering::Relaxed);
        self.lines.add(lines);
    }

    pub(crate) fn count_blocks(&self, blocks: u64) {
        self.counted.store(true, Ordering::Relaxed);
        self.blocks.add(blocks);
    }

    pub(crate) fn count_moved(&self, bytes: u64) {
        self.counted.store(true, Ordering::Relaxed);
        self.moved.add(bytes);
    }

    /// Counts the bytes that one write has handed to the disk, after it has freed the writer lock.
    pub(crate) fn count_flushed(&self, bytes: u64) {
        self.flushed.all.fetch_add(bytes, Ordering::Relaxed);
        self.flushed.most.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Ends a write: all that was counted belongs to it.
    #[inline]
    pub(crate) fn end_write(&self) {
        self.of_counted().into_iter().flatten().for_each(Work::end_write);
    }

    /// The same for a step of maintenance, which may do more than a write.
    pub(crate) fn end_step(&self) {
        self.of_counted().into_iter().flatten().for_each(|work| _ = work.end());
    }

    /// What was counted since the last time, if anything was.
    #[inline]
    fn of_counted(&self) -> Option<[&Work; 3]> {
        let counted = self.counted.load(Ordering::Relaxed);
        counted.then(|| {
            self.counted.store(false, Ordering::Relaxed);
            [&self.lines, &self.blocks, &self.moved]
        })
    }

    /// All the work done, except in the present write.
    pub(crate) fn done(&self) -> Done {
        let [lines, blocks, moved, flushed] =
            [&self.lines, &self.blocks, &self.moved, &self.flushed].map(Work::figures);
        Done { lines, blocks, moved, flushed }
    }

    /// Makes the calling thread the one that does the upkeep.
    pub(crate) fn take_on(&self) {
        // A store starts one thread at most.
        let _ = self.thread.set(thread::current());
    }

    /// Wakes the upkeep thread from [`thread::park_timeout`], if there is one; if it is awake, it will not sleep the
    /// next time.
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn work_is_counted_by_write() {
        let upkeep = Upkeep::default();
        assert_eq!(upkeep.done(), Done::default());
        for lines in [[3, 4], [2, 1], [0, 0]] {
            lines.into_iter().for_each(|lines| upkeep.count_lines(lines));
            upkeep.count_moved(100);
            upkeep.end_write();
        }
        upkeep.count_blocks(5);
        let (lines, moved) = (Figures { all: 10, most: 7 }, Figures { all: 300, most: 100 });
        assert_eq!(upkeep.done(), Done { lines, moved, ..Done::default() }, "the last write is still going on");
        upkeep.end_write();
        upkeep.end_write();
        assert_eq!(upkeep.done().blocks, Figures { all: 5, most: 5 });
    }

    #[test]
    fn what_is_no_write_counts_in_all_only() {
        let upkeep = Upkeep::default();
        upkeep.count_lines(1);
        upkeep.end_write();
        upkeep.count_lines(1000);
        upkeep.end_step();
        assert_eq!(upkeep.done().lines, Figures { all: 1001, most: 1 });
    }

    #[test]
    fn what_is_handed_to_the_disk_is_counted_when_it_is() {
        let upkeep = Upkeep::default();
        [10, 30, 20].into_iter().for_each(|bytes| upkeep.count_flushed(bytes));
        assert_eq!(upkeep.done().flushed, Figures { all: 60, most: 30 });
    }

    #[test]
    fn a_checkpoint_that_is_wanted_is_taken_by_one() {
        let upkeep = Upkeep::default();
        assert!(!upkeep.wants_checkpoint());
        for _ in 0..100 {
            upkeep.want_checkpoint();
            upkeep.want_checkpoint();
            let takers = thread::scope(|scope| {
                let askers = [(); 3].map(|()| scope.spawn(|| upkeep.take_wish()));
                askers.into_iter().map(|asker| asker.join().unwrap()).filter(|wants| *wants).count()
            });
            assert_eq!(takers, 1);
        }
    }

    #[test]
    fn a_thread_is_woken_for_what_came_before_it_slept() {
        const LONG: Duration = Duration::from_secs(3600);

        let upkeep = Upkeep::default();
        upkeep.wake();
        thread::scope(|scope| {
            scope.spawn(|| {
                upkeep.take_on();
                upkeep.wake();
                thread::park_timeout(LONG);
            });
        });
        let upkeep = Upkeep::default();
        let awake = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                upkeep.take_on();
                thread::park_timeout(LONG);
                awake.store(true, Ordering::SeqCst);
            });
            while !awake.load(Ordering::SeqCst) {
                upkeep.wake();
                thread::yield_now();
            }
        });
    }
}
