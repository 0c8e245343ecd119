//! The ledger of upkeep: what this process knows of the work that is to be done and of what was done.

use crate::file::layout::MapId;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::rest::Rest;

/// So many maps that were not written to are looked at again with each sample: what is believed of them may be over.
const AGAIN: usize = 4;

/// A quantity of which it is asserted how much of it one write does.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// In the write that is going on.
    now: AtomicU64,
    /// In all, since the store was opened.
    all: AtomicU64,
    /// The most of one write.
    most: AtomicU64,
}

impl Work {
    fn add(&self, amount: u64) {
        // Only the holder of the writer lock comes here.
        self.now.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn end_write(&self) {
        let now = self.now.swap(0, Ordering::Relaxed);
        self.all.fetch_add(now, Ordering::Relaxed);
        self.most.fetch_max(now, Ordering::Relaxed);
    }

    /// In all, and the most of one write.
    pub(crate) fn figures(&self) -> (u64, u64) {
        (self.all.load(Ordering::Relaxed), self.most.load(Ordering::Relaxed))
    }
}

/// What this process knows of the upkeep of a store.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// Much waits for a checkpoint.
    pub(crate) checkpoint: AtomicBool,
    pub(crate) rest: Rest,
    /// Something was counted in the write that is going on.
    counted: AtomicBool,
    /// Lines of an index moved, blocks of one zeroed, bytes of the log moved, bytes handed to the disk.
    pub(crate) lines: Work,
    pub(crate) blocks: Work,
    pub(crate) moved: Work,
    pub(crate) flushed: Work,
    /// What is believed to have expired.
    pub(crate) expired: Expired,
    /// There is something to do for the thread that does the upkeep, if there is one.
    work: Mutex<bool>,
    bell: Condvar,
}

impl Upkeep {
    /// Whether a checkpoint is wanted. Who asks takes it.
    #[inline]
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.checkpoint.load(Ordering::Relaxed) && self.checkpoint.swap(false, Ordering::Relaxed)
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

    /// The bytes that one write has handed to the disk, when the writer lock is free again.
    pub(crate) fn count_flushed(&self, bytes: u64) {
        self.flushed.all.fetch_add(bytes, Ordering::Relaxed);
        self.flushed.most.fetch_max(bytes, Ordering::Relaxed);
    }

    pub(crate) fn end_write(&self, is_write: bool) {
        if self.counted.load(Ordering::Relaxed) {
            self.counted.store(false, Ordering::Relaxed);
            for work in [&self.lines, &self.blocks, &self.moved] {
                if is_write {
                    work.end_write();
                } else {
                    work.all.fetch_add(work.now.swap(0, Ordering::Relaxed), Ordering::Relaxed);
                }
            }
        }
    }

    /// Wakes the thread that does the upkeep.
    pub(crate) fn ring(&self) {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if !*work {
            *work = true;
            self.bell.notify_all();
        }
    }

    /// Sleeps until there is something to do, and not longer than `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let woken = self.bell.wait_timeout_while(work, timeout, |work| !*work);
        *woken.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

/// What this process believes to have expired.
#[derive(Debug, Default)]
pub(crate) struct Expired {
    /// There are records with deadlines, as far as we have seen any.
    pub(crate) seen: AtomicBool,
    /// The number of commits at which the next sample is due.
    pub(crate) next: AtomicU64,
    /// When [`maintain`](crate::engine::Engine::maintain) has looked for the last time, in milliseconds since 1970.
    pub(crate) looked: AtomicU64,
    /// Estimated bytes of expired records: of each map, and their sum.
    pub(crate) maps: Mutex<BTreeMap<MapId, u64>>,
    pub(crate) bytes: AtomicU64,
    /// The last of the maps that was looked at again.
    pub(crate) again: AtomicU32,
}

impl Expired {
    /// Notes that there are records with deadlines.
    #[inline]
    pub(crate) fn note(&self) {
        if !self.seen.load(Ordering::Relaxed) {
            self.seen.store(true, Ordering::Relaxed);
        }
    }

    /// How much of so many bytes that count as alive has not expired, as far as we know.
    #[inline]
    pub(crate) fn alive_of(&self, live: u64) -> u64 {
        live.saturating_sub(self.bytes.load(Ordering::Relaxed))
    }

    /// Expired records of so many bytes were removed.
    pub(crate) fn removed(&self, map: MapId, bytes: u64) {
        let before = self.maps.lock().unwrap_or_else(PoisonError::into_inner).get(&map).copied().unwrap_or(0);
        self.set(map, before.saturating_sub(bytes));
    }

    /// Some of the maps of which something is believed, others each time, beginning behind `map`.
    pub(crate) fn some_maps(&self, map: MapId) -> Vec<MapId> {
        let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = maps.range((Bound::Excluded(map), Bound::Unbounded));
        behind.chain(maps.range(..=map)).map(|(&map, _)| map).take(AGAIN).collect()
    }

    pub(crate) fn set(&self, map: MapId, bytes: u64) {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        maps.insert(map, bytes);
        maps.retain(|_, bytes| *bytes > 0);
        self.bytes.store(maps.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)), Ordering::Relaxed);
    }
}
