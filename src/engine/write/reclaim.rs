//! Reclaim: space that is no longer in use becomes free, and free space is given back.
//!
//! **Invariant (reuse).** An extent emptied by compaction is used again, or cut off the end of the file, only when the
//! superblock in force is flushed and has the log begin past it; then whatever was moved out of it lies before that
//! superblock's end. And only when no pin is below the number that was visible when it became empty. A replaced region
//! or table waits for pins only.
//!
//! **Invariant (truncation).** The file is made shorter only when no process looks past its new end. Processes that
//! may write look there under a pin or with the writer lock, so only at what is in use or waiting; they read the space
//! table without either, but through the file. Read-only processes look without a pin, so they all hold a lock that
//! truncation takes exclusively.

use std::sync::atomic::Ordering;

use crate::engine::Engine;
use crate::engine::processes::entries::lock_error;
use crate::engine::state::writer::Writing;
use crate::error::{Error, Result};
use crate::file::layout::{BLOCK, ExtentKind, Offset, live};
use crate::file::locks::{READERS, Sharing};
use crate::file::space::{Extent, Fit, LogPoint};

/// Less free space than this at the end of the file is kept for what comes next.
pub(crate) const LEAST_CUT: u64 = 256 << 10;

impl Engine {
    /// Where the log begins according to the superblock in force, or to an earlier one.
    pub(crate) fn durable_head(&self) -> Result<LogPoint> {
        // The ordinal first, since it is stored last.
        let ordinal = self.mapping.live(live::DURABLE_ORDINAL)?;
        Ok(LogPoint { ordinal, at: self.mapping.live_offset(live::DURABLE_HEAD)? })
    }
}

impl<'e> Writing<'e> {
    /// Frees what is no longer needed, and notes what has to wait.
    pub(crate) fn reclaim(&mut self) -> Result<()> {
        if !self.writer.space.has_waiting() {
            self.writer.waiting = Default::default();
            return Ok(());
        }
        let unread_below = self.raise_horizon()?;
        let durable = self.engine.durable_head()?;
        // Before anything is freed: this tells writers how far down they may follow version chains.
        let reused_below = self.engine.mapping.live(live::REUSED_BELOW)?.max(unread_below);
        self.engine.mapping.store_live(live::REUSED_BELOW, reused_below, Ordering::Relaxed)?;
        self.writer.waiting = self.writer.space.reclaim(&self.engine.mapping, unread_below, durable)?;
        Ok(())
    }

    /// Takes an extent, from reclaimed space if there is some. If there is room nowhere else, takes a checkpoint to
    /// free what waits for one.
    pub(crate) fn allocate(&mut self, blocks: u64, kind: ExtentKind) -> Result<Extent> {
        self.reclaim()?;
        let (seq, wanted) = (self.seq()?, (blocks, self.fit(blocks, kind)));
        match self.writer.space.allocate(&self.engine.mapping, wanted, kind, seq) {
            Err(full @ Error::Full { .. }) if self.writer.waiting.checkpoint > 0 => {
                // The cause shows elsewhere; the error to report here is that the store is full.
                if self.checkpoint_in_turn(self.engine.settings.lock_timeout).is_err() {
                    return Err(full);
                }
                self.reclaim()?;
                self.writer.space.allocate(&self.engine.mapping, wanted, kind, seq)
            }
            taken => taken,
        }
    }

    /// Where an extent is to lie.
    fn fit(&self, blocks: u64, kind: ExtentKind) -> Fit {
        let Some(cell) = self.engine.settings.cell() else { return Fit::Lowest };
        let is_log = matches!(kind, ExtentKind::Log | ExtentKind::ReserveLog | ExtentKind::Reserve);
        match is_log && blocks * BLOCK == cell {
            // Compaction on request moves down what it can.
            true if self.writer.run.is_some() => Fit::Cell(Offset::NONE),
            true => Fit::Cell(self.writer.extent.0),
            false => Fit::Shortest,
        }
    }

    /// Makes the file shorter if enough of it is free at its end. A store that evicts keeps nothing beyond its limit.
    pub(crate) fn truncate_if_worth_it(&mut self) -> Result<u64> {
        let (len, end) = (self.engine.mapping.len(), self.writer.space.used_end());
        let evicts = self.engine.settings.evict.is_some();
        let least = if evicts && self.engine.mapping.is_too_long() { BLOCK } else { LEAST_CUT.max(len / 8) };
        if len.saturating_sub(end.0) < least { Ok(0) } else { self.truncate() }
    }

    /// Makes the file as short as it can be, unless a reader might look past its new end. Returns by how many bytes.
    pub(crate) fn truncate(&mut self) -> Result<u64> {
        let Some(locks) = &self.engine.locks else { return self.writer.space.truncate(&self.engine.mapping) };
        if !locks.try_lock(READERS, Sharing::Exclusive).map_err(|e| lock_error(&self.engine.mapping, e))? {
            return Ok(0);
        }
        let shorter = self.writer.space.truncate(&self.engine.mapping);
        locks.unlock(READERS).map_err(|e| lock_error(&self.engine.mapping, e))?;
        shorter
    }
}
