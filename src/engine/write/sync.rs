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

/// What is written once more in one turn, in bytes.
const SLICE_ONCE_MORE: u64 = 1 << 20;

impl Engine {
    /// What is due after a turn at writing with the store's durability, when the lock is free again.
    #[inline(always)]
    pub(crate) fn after_turn(&self, committed: bool) -> Result<()> {
        self.after_turn_with(committed, self.settings.durability)
    }

    /// The same with another durability. What a synced call saw is durable when it returns, also if it has changed
    /// nothing: that a key is not there may be news, too.
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

    /// Writes once more what of the log may have been lost when somebody was killed while it was flushed, and flushes
    /// it.
    ///
    /// That is read and written back while nobody else writes, in slices, so that nobody waits long; and what there is
    /// to write is found out anew for each, since extents are used again in between.
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
        // The writer lock comes before that of the superblock.
        while !self.checkpoint_over(self.lock_superblock(self.settings.lock_timeout)?)? {
            self.write_once_more()?;
        }
        Ok(())
    }

    /// Takes a checkpoint if the log has grown enough since the last one, and keeps the disk busy until then. The
    /// commit that this follows is done, so a failure is not its failure; it is remembered.
    #[inline(always)]
    pub(crate) fn checkpoint_if_due(&self) {
        let Ok(LogTotals { bytes, .. }) = self.log_totals() else { return };
        if self.upkeep.wants_checkpoint() || self.slices.are_complete_at(bytes) {
            // A failed flush has poisoned the store, which every later sync reports.
            let _ = self.write_back(bytes);
        }
    }

    /// Begins to write back what the log has grown by, and waits for the oldest slice if too many are under way. Takes
    /// the checkpoint if it is due.
    #[cold]
    fn write_back(&self, bytes: u64) -> Result<()> {
        let every = self.settings.checkpoint_every;
        let is_due =
            self.upkeep.take_wish() || bytes.saturating_sub(self.mapping.live(live::CHECKPOINT_BYTES)?) >= every;
        if is_due {
            // If somebody else is at it, it is done.
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
    /// Takes a checkpoint in an opening, when nobody else is there yet.
    pub(crate) fn checkpoint_new(&self) -> Result<()> {
        while !self.engine.checkpoint_over(self.engine.lock_new_superblock())? {
            self.write_once_more_in_turn()?;
        }
        Ok(())
    }
}
