//! Reclaim: what is in use no more becomes free, and what is free is given back.
//!
//! **Invariant (reuse).** An extent that compaction has emptied is used again, or cut off the end of the file, only
//! when the superblock in force, which is flushed, has the log begin behind it; then whatever was moved out of it lies
//! before that superblock's end. And not before no pin is below the number that was visible when it became empty. A
//! region or table that was replaced waits for pins only.
//!
//! **Invariant (truncation).** The file is made shorter only when nobody looks behind its new end. Those who write look
//! there under a pin or with the writer lock, and so only at what is in use or waits; the space table, which they read
//! without either, they read through the file. Those who have opened the store for reading look without a pin, so they
//! all hold a lock that is taken exclusively meanwhile.

use std::sync::atomic::Ordering;

use crate::engine::Engine;
use crate::engine::processes::entries::lock_error;
use crate::engine::state::writer::Writing;
use crate::error::{Error, Result};
use crate::file::layout::{ExtentKind, live};
use crate::file::locks::{READERS, Sharing};
use crate::file::space::{Extent, LogPoint};

/// Less than that at the end of the file is kept for what comes next.
pub(crate) const LEAST_CUT: u64 = 256 << 10;

impl Engine {
    /// Where the log begins as the superblock in force says it, or one before it.
    pub(crate) fn durable_head(&self) -> Result<LogPoint> {
        // The ordinal first, since it is stored last.
        let ordinal = self.mapping.live(live::DURABLE_ORDINAL)?;
        Ok(LogPoint { ordinal, at: self.mapping.live_offset(live::DURABLE_HEAD)? })
    }
}

impl<'e> Writing<'e> {
    /// Frees what nobody needs any more, and notes what has to wait. Only for the holder of the writer lock.
    pub(crate) fn reclaim(&mut self) -> Result<()> {
        if !self.writer.space.has_waiting() {
            self.writer.waiting = Default::default();
            return Ok(());
        }
        let unread_below = self.raise_horizon()?;
        let durable = self.engine.durable_head()?;
        // Before anything is freed: writers follow version chains as far down as this says.
        let reused_below = self.engine.mapping.live(live::REUSED_BELOW)?.max(unread_below);
        self.engine.mapping.store_live(live::REUSED_BELOW, reused_below, Ordering::Relaxed)?;
        self.writer.waiting = self.writer.space.reclaim(&self.engine.mapping, unread_below, durable)?;
        Ok(())
    }

    /// Takes an extent, of space that is not needed any more if there is some. If there is room nowhere else, what
    /// waits for a checkpoint gets one.
    pub(crate) fn allocate(&mut self, blocks: u64, kind: ExtentKind) -> Result<Extent> {
        self.reclaim()?;
        let seq = self.seq()?;
        match self.writer.space.allocate(&self.engine.mapping, blocks, kind, seq) {
            Err(full @ Error::Full { .. }) if self.writer.waiting.checkpoint > 0 => {
                // Why it could not be taken shows elsewhere; what is to be said here is that the store is full.
                if self.checkpoint_in_turn(self.engine.settings.lock_timeout).is_err() {
                    return Err(full);
                }
                self.reclaim()?;
                self.writer.space.allocate(&self.engine.mapping, blocks, kind, seq)
            }
            taken => taken,
        }
    }

    /// Makes the file shorter if enough of it is free at its end.
    pub(crate) fn truncate_if_worth_it(&mut self) -> Result<u64> {
        let (len, end) = (self.engine.mapping.len(), self.writer.space.used_end());
        if len.saturating_sub(end.0) < LEAST_CUT.max(len / 8) { Ok(0) } else { self.truncate() }
    }

    /// Makes the file as short as it can be, unless somebody might look behind that. Says by how many bytes.
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
