//! Durability: flushing the log, superblocks, closing.
//!
//! **Invariants.** A superblock is overwritten only when the other one is known to be flushed; the live word that names
//! the one in force changes only after its flush has returned. A superblock says `log_end` only after the log up to
//! there was flushed. The clean flag is gone from the disk before anything changes. A flush that failed is never tried
//! again and called durable: the failure is remembered, in memory and in the file.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zerocopy::IntoBytes;

use super::{Engine, now};
use crate::error::{Error, Result};
use crate::file::layout::{SUPERBLOCK_A, SUPERBLOCK_B, Superblock, commit_end, commit_seq, live, superblock_flags};

/// After so many bytes of log the system is asked to begin writing them back, so that the flush of a checkpoint finds
/// little left to do.
const WRITEBACK_EVERY: u64 = 4 << 20;

/// What of the log is not flushed yet.
pub(crate) struct Flusher {
    ranges: Mutex<Ranges>,
    /// How far the log is known to be durable. Who holds this flushes; the others wait and then mostly find that it was
    /// done for them.
    durable: Mutex<Durable>,
    /// The log's bytes when writing them back was last begun.
    writeback: AtomicU64,
}

struct Ranges {
    /// Pieces of extents that the log has left behind.
    left: Vec<(u64, u64)>,
    /// The extent that the log is in.
    extent: (u64, u64),
    /// From where on that extent is not flushed.
    from: u64,
}

/// A point of the log.
#[derive(Clone, Copy)]
struct Durable {
    /// Offset behind the last commit.
    end: u64,
    /// Its sequence number.
    seq: u64,
}

impl Flusher {
    /// A flusher for a log whose last extent is `extent`. `left` are pieces of others that may not be flushed. Durable is
    /// what was committed up to `seq`.
    pub(crate) fn new(left: Vec<(u64, u64)>, extent: (u64, u64), end: u64, seq: u64) -> Flusher {
        Flusher {
            ranges: Mutex::new(Ranges { left, extent, from: extent.0 }),
            durable: Mutex::new(Durable { end, seq }),
            writeback: AtomicU64::new(0),
        }
    }

    fn ranges(&self) -> MutexGuard<'_, Ranges> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log has left its extent, with a jump that ends at `end`, for another one. To be told after the jump is
    /// written, else a sync in between would not flush it, and before anything behind it is committed.
    pub(crate) fn jumped(&self, end: u64, extent: (u64, u64)) {
        let mut ranges = self.ranges();
        let from = ranges.from;
        ranges.left.push((from, end));
        ranges.extent = extent;
        ranges.from = extent.0;
    }

    /// The log is back in an extent that it had left for a commit that came to nothing. What of it is flushed is
    /// forgotten.
    pub(crate) fn rewind(&self, extent: (u64, u64)) {
        let mut ranges = self.ranges();
        if ranges.extent != extent {
            ranges.extent = extent;
            ranges.from = extent.0;
        }
    }
}

impl Engine {
    /// Makes every commit that is visible now durable.
    pub(crate) fn sync(&self) -> Result<()> {
        if self.frozen.is_some() {
            return Ok(());
        }
        self.sync_to_commit().map(drop)
    }

    /// Makes every visible commit durable, and returns how far the log is.
    fn sync_to_commit(&self) -> Result<Durable> {
        let wanted = self.region.live(live::VISIBLE)?;
        let mut durable = self.flusher.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_poisoned() {
            return Err(self.poisoned_error());
        }
        if durable.seq >= wanted {
            return Ok(*durable);
        }
        let mut ranges = self.flusher.ranges();
        let visible = self.region.live(live::VISIBLE)?;
        let commit = self.region.live(live::COMMIT_POINT)?;
        let (end, seq) = (commit_end(commit), commit_seq(commit, visible));
        let mut dirty = std::mem::take(&mut ranges.left);
        // If a writer has jumped and not committed yet, the last commit is in one of the pieces left behind.
        if ranges.from < end && end < ranges.extent.1 {
            dirty.push((ranges.from, end));
            ranges.from = end;
        }
        drop(ranges);
        for (from, end) in dirty {
            self.region.flush(from, end - from).inspect_err(|_| self.poison())?;
        }
        *durable = Durable { end, seq };
        Ok(*durable)
    }

    /// Syncs, and writes down in a superblock how far the log is durable.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        if self.frozen.is_some() {
            return Ok(());
        }
        let mut superblock = self.lock_superblock();
        let Durable { end, seq } = self.sync_to_commit()?;
        if superblock.log_end.get() == end && superblock.next_seq.get() == seq + 1 {
            return Ok(());
        }
        let next = Superblock {
            log_end: end.into(),
            next_seq: (seq + 1).into(),
            file_len: self.region.len().into(),
            flags: 0.into(),
            ..*superblock
        };
        self.region.store_live(live::CHECKPOINT_BYTES, self.log_totals()?[1], Ordering::Relaxed)?;
        self.write_superblock(&mut superblock, next)
    }

    /// Takes a checkpoint if the log has grown enough since the last one, and keeps the disk busy until then. The
    /// commit that this follows is done, so a failure is not its failure; it is remembered.
    pub(crate) fn checkpoint_if_due(&self) {
        let due = (|| {
            if self.log_since_checkpoint()? >= self.settings.checkpoint_every {
                return self.checkpoint();
            }
            let [_, bytes, _] = self.log_totals()?;
            let begun = self.flusher.writeback.load(Ordering::Relaxed);
            if bytes.saturating_sub(begun) >= WRITEBACK_EVERY {
                self.flusher.writeback.store(bytes, Ordering::Relaxed);
                let end = commit_end(self.region.live(live::COMMIT_POINT)?);
                let from = self.flusher.ranges().from;
                if from < end {
                    self.region.start_writeback(from, end - from);
                }
            }
            Ok(())
        })();
        // A failed flush has poisoned the store, which every later sync reports.
        drop(due);
    }

    /// Bytes of log since the last checkpoint.
    pub(crate) fn log_since_checkpoint(&self) -> Result<u64> {
        if self.frozen.is_some() {
            return Ok(0);
        }
        Ok(self.log_totals()?[1].saturating_sub(self.region.live(live::CHECKPOINT_BYTES)?))
    }

    /// Writes a superblock over the one that is not in force, and puts it in force once it is flushed.
    pub(crate) fn write_superblock(&self, current: &mut Superblock, mut next: Superblock) -> Result<()> {
        let in_force = self.region.live(live::SUPERBLOCK)?;
        let place = if in_force == SUPERBLOCK_A { SUPERBLOCK_B } else { SUPERBLOCK_A };
        next.generation = (current.generation.get() + 1).into();
        next.written = now().into();
        let next = next.sealed();
        self.region.write(place, next.as_bytes())?;
        self.region.flush(place, size_of::<Superblock>() as u64).inspect_err(|_| self.poison())?;
        self.region.store_live(live::SUPERBLOCK, place, Ordering::Release)?;
        *current = next;
        self.clean.store(next.is_clean(), Ordering::Release);
        Ok(())
    }

    /// Takes the clean flag from the disk, before the first change.
    #[cold]
    pub(crate) fn clear_clean_flag(&self) -> Result<()> {
        let mut superblock = self.lock_superblock();
        let next = Superblock { flags: 0.into(), ..*superblock };
        self.write_superblock(&mut superblock, next)
    }

    /// Remembers that a flush has failed: nothing since is known to be durable.
    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
        if let Ok(word) = self.region.live_word(live::STATE) {
            // The word was just found, so this succeeds.
            let _ = self.region.store_live(live::STATE, word.relaxed() | live::STATE_POISONED, Ordering::Release);
        }
    }

    /// The error of a store whose flush has failed.
    pub(crate) fn poisoned_error(&self) -> Error {
        Error::Poisoned { path: self.region.path().to_owned() }
    }

    /// A checkpoint that also flushes the regions and tables and sets the clean flag, so that the next opening has
    /// nothing to do. Nothing happens if nothing has changed.
    pub(crate) fn close(&self) -> Result<()> {
        if self.frozen.is_some() || self.clean.load(Ordering::Acquire) || !self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        self.acquire()?;
        let closed = self.close_in_turn();
        self.release();
        closed
    }

    fn close_in_turn(&self) -> Result<()> {
        if self.is_poisoned() {
            return Err(self.poisoned_error());
        }
        let state = self.region.live(live::STATE)?;
        // A closer who is killed half-way must not leave a clean flag under later changes.
        self.region.store_live(live::STATE, state | live::STATE_CLOSING, Ordering::SeqCst)?;
        let mut superblock = self.lock_superblock();
        self.region.flush_all().inspect_err(|_| self.poison())?;
        let [_, log_bytes, log_records] = self.log_totals()?;
        let next = Superblock {
            log_end: self.region.live(live::TAIL)?.into(),
            end_chain: (self.region.live(live::CHAIN)? as u32).into(),
            next_seq: self.next_seq()?.into(),
            file_len: self.region.len().into(),
            map_table: self.region.live(live::MAP_TABLE)?.into(),
            space_table: self.region.live(live::SPACE_TABLE)?.into(),
            log_bytes: log_bytes.into(),
            log_records: log_records.into(),
            flags: superblock_flags::CLEAN.into(),
            ..*superblock
        };
        self.write_superblock(&mut superblock, next)?;
        self.region.store_live(live::STATE, state & !live::STATE_CLOSING, Ordering::Release)
    }
}
