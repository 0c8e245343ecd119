//! What follows a turn at writing: syncing, and checkpoints that are due.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::durable::once_more::is_unsure;
use crate::engine::settings::Durability;
use crate::engine::state::live_area::LogTotals;
use crate::engine::state::writer::Writing;
use crate::error::{Error, Result};
use crate::file::layout::live;

/// Bytes that are written once more in one turn.
const SLICE_ONCE_MORE: u64 = 1 << 20;

impl Engine {
    /// Does what is due after a turn at writing with the store's durability, once the lock is free again.
    #[inline(always)]
    pub(crate) fn after_turn(&self, committed: bool) -> Result<()> {
        self.after_turn_with(committed, self.settings.durability)
    }

    /// The same with another durability. Whatever a synced call saw is durable when it returns, even if the call
    /// changed nothing: the absence of a key may be news, too.
    #[inline(always)]
    pub(crate) fn after_turn_with(&self, committed: bool, durability: Durability) -> Result<()> {
        if committed && !self.changed.load(Ordering::Relaxed) {
            self.changed.store(true, Ordering::Relaxed);
        }
        match durability {
            Durability::Buffered => {}
            Durability::Synced => self.sync()?,
        }
        if committed {
            self.checkpoint_if_due();
        }
        Ok(())
    }

    /// Makes every commit that is visible now durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.check_not_forked()?;
        if self.read_only {
            return Ok(());
        }
        while self.sync_to_commit()?.is_none() {
            self.write_once_more()?;
        }
        Ok(())
    }

    /// Writes once more the parts of the log that may have been lost when a process was killed while flushing them, and
    /// flushes them.
    ///
    /// They are read and written back in slices, each in a turn, so that no writer waits long. Each slice determines
    /// anew what there is to write, since extents are reused in between.
    #[cold]
    fn write_once_more(&self) -> Result<()> {
        let _alone = self.once_more.alone();
        let mut rewriting = self.once_more.begin(&self.mapping)?;
        while is_unsure(&self.mapping)? {
            let turn = self.turn_to_look(self.settings.lock_timeout)?;
            let written = rewriting.write_slice(&self.mapping, &turn.write().writer.space, SLICE_ONCE_MORE)?;
            drop(turn);
            match written {
                Some(range) => self.flush_slice(range)?,
                None => return rewriting.end(&self.mapping),
            }
        }
        Ok(())
    }

    /// Syncs, and writes down in a superblock how far the log is durable.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.check_not_forked()?;
        if self.read_only {
            return Ok(());
        }
        // The writer lock comes before the lock on the superblock.
        while !self.checkpoint_over(self.lock_superblock(self.settings.lock_timeout)?)? {
            self.write_once_more()?;
        }
        Ok(())
    }

    /// Takes a checkpoint if the log has grown enough since the last one, and keeps the disk busy until then. The
    /// commit that this follows is done, so a failure does not fail it; it is remembered.
    #[inline(always)]
    pub(crate) fn checkpoint_if_due(&self) {
        let Ok(bytes) = LogTotals::bytes_now(&self.mapping) else { return };
        if self.upkeep.wants_checkpoint() || self.slices.are_complete_at(bytes) {
            // A failed flush has poisoned the store, which every later sync reports.
            let _ = self.write_back(bytes);
        }
    }

    /// Starts to write back the growth of the log, and waits for the oldest slice if too many are under way. Takes the
    /// checkpoint if it is due.
    #[cold]
    fn write_back(&self, bytes: u64) -> Result<()> {
        let every = self.settings.checkpoint_every;
        let is_wished = self.upkeep.take_wish();
        if !is_wished && !self.slices.are_complete_at(bytes) {
            // Another thread has taken the wish.
            return Ok(());
        }
        let is_due = is_wished || bytes.saturating_sub(self.mapping.live(live::CHECKPOINT_BYTES)?) >= every;
        if is_due {
            // If another process holds it, that one takes the checkpoint.
            match self.lock_superblock(Duration::ZERO) {
                Ok(superblock) => {
                    if !self.checkpoint_over(superblock)? {
                        return self.write_once_more();
                    }
                }
                Err(Error::Locked { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let Some(mut slice) = self.slices.next() else { return Ok(()) };
        let (reached, ranges) = self.unflushed_since(slice.begins_at())?;
        slice.ends_at(reached, bytes, every);
        if is_due {
            self.upkeep.count_flushed(slice.was_flushed(bytes));
            return Ok(());
        }
        self.upkeep.count_flushed(slice.begin(&self.mapping, ranges.unwrap_or_default(), bytes)?);
        slice.wait_for_oldest(&self.mapping)
    }
}

impl Writing<'_> {
    /// Takes a checkpoint while opening, when no other process has the store open yet.
    pub(crate) fn checkpoint_new(&self) -> Result<()> {
        while !self.engine.checkpoint_over(self.engine.lock_new_superblock())? {
            self.write_once_more_in_turn()?;
        }
        Ok(())
    }
}
