//! Checkpoints: the log is flushed up to a commit, and a superblock says so.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::flusher::Log;
use super::once_more::is_unsure;
use super::reach::{Durable, Ranges};
use super::superblock::SuperblockGuard;
use crate::engine::state::live_area::LogTotals;
use crate::engine::state::writer::Writing;
use crate::engine::{Engine, progress};
use crate::error::Result;
use crate::file::layout::{EXTENTS, Offset, Seq, Superblock, live, opener};
use crate::telemetry::{self, Watch};

/// How often to look for the last commit.
const LOOKS: u32 = 1000;

impl Engine {
    /// Makes every visible commit durable, records that, and returns how far the log is durable. `None` if the log has
    /// to be [written once more](Engine::write_once_more) first.
    pub(crate) fn sync_to_commit(&self) -> Result<Option<Durable>> {
        let recorded = self.last_recorded()?;
        let reached = self.flusher.flush_commits(self)?;
        if reached.is_some() {
            self.note_synced(recorded)?;
        }
        Ok(reached)
    }

    /// The number of the last visible commit that has records; zero if others commit too fast to tell.
    fn last_recorded(&self) -> Result<Seq> {
        for _ in 0..LOOKS {
            if let Some(totals) = LogTotals::at_most(&self.mapping, self.mapping.live_seq(live::VISIBLE)?)? {
                return Ok(totals.seq);
            }
        }
        Ok(Seq::ZERO)
    }

    /// Records in the file that this commit is durable. A recovery has to reach it.
    fn note_synced(&self, seq: Seq) -> Result<()> {
        self.mapping.update_live(live::SYNCED, |synced| synced.max(seq.0))
    }

    /// Flushes a slice when no other thread of this process flushes.
    pub(crate) fn flush_slice(&self, (start, end): (Offset, Offset)) -> Result<()> {
        self.flusher.flush_apart(|| self.flushing(live::STATE_LOG_UNSURE, || self.mapping.flush(start, end - start)))
    }

    /// How far the log is committed, and what to flush to make that durable, given that `durable` is.
    pub(crate) fn unflushed_since(&self, durable: Durable) -> Result<(Durable, Option<Ranges>)> {
        self.reach.unflushed(&self.mapping, durable, || self.space_now())
    }

    /// Takes a checkpoint, unless the log has to be [written once more](Engine::write_once_more) first. Returns whether
    /// it did.
    pub(crate) fn checkpoint_over(&self, mut superblock: SuperblockGuard<'_>) -> Result<bool> {
        let watch = Watch::start();
        // The head first: records moved away from before it then lie before the end.
        let head = self.head()?;
        let Some(Durable { end, seq, .. }) = self.sync_to_commit()? else { return Ok(false) };
        let moved = superblock.log_head() != head.head.at;
        if superblock.log_end() == end && superblock.next_seq() == seq.next() && !moved {
            return Ok(true);
        }
        let next = Superblock {
            log_end: end.into(),
            next_seq: seq.next().to_field(),
            file_len: self.mapping.file_len()?.into(),
            flags: 0.into(),
            ..head.put_into(*superblock)
        };
        self.mapping.store_live(live::CHECKPOINT_BYTES, self.log_totals()?.bytes, Ordering::Relaxed)?;
        self.write_superblock(&mut superblock, next)?;
        drop(superblock);
        telemetry::on_checkpoint(self.mapping.path(), seq.count(), watch);
        Ok(true)
    }

    /// Flushes log, regions and tables. The caller holds the writer lock. No other process has the store open.
    pub(crate) fn flush_everything(&self) -> Result<()> {
        const UNSURE: u64 = live::STATE_LOG_UNSURE | live::STATE_ALL_UNSURE;

        let reached = || self.unflushed_since(self.once_more.opened()).map(|(reached, _)| reached);
        self.flusher.flush_all(reached, || {
            let unsure = self.mapping.live(live::STATE)? & UNSURE != 0;
            self.flushing(UNSURE, || {
                if unsure {
                    self.mapping.rewrite(Offset::EXTENTS, self.mapping.len() - EXTENTS)?;
                }
                progress::flush_all(&self.mapping, opener::CLOSING)
            })?;
            self.mapping.change_bits(live::STATE, 0, UNSURE)?;
            self.note_synced(self.log_totals()?.seq)
        })
    }
}

/// What a flush needs of a store.
impl Log for Engine {
    fn last_commit(&self) -> Result<Seq> {
        self.mapping.live_seq(live::VISIBLE)
    }

    fn is_flushable(&self) -> Result<bool> {
        if self.is_poisoned() { Err(self.poisoned_error()) } else { Ok(!is_unsure(&self.mapping)?) }
    }

    fn unflushed(&self, durable: Durable) -> Result<(Durable, Option<Ranges>)> {
        self.unflushed_since(durable)
    }

    fn flush(&self, ranges: Option<Ranges>) -> Result<()> {
        self.flushing(live::STATE_LOG_UNSURE, || match ranges {
            Some(ranges) => ranges.into_iter().try_for_each(|(from, end)| self.mapping.flush(from, end - from)),
            None => self.mapping.flush_all(),
        })
    }
}

impl<'e> Writing<'e> {
    /// Writes the log once more, all at once.
    #[cold]
    pub(crate) fn write_once_more_in_turn(&self) -> Result<()> {
        let mapping = &self.engine.mapping;
        let mut rewriting = self.engine.once_more.begin(mapping)?;
        while let Some(range) = rewriting.write_slice(mapping, &self.writer.space, u64::MAX)? {
            self.engine.flush_slice(range)?;
        }
        rewriting.end(mapping)
    }

    /// Takes a checkpoint, waiting at most `patience` for another one.
    pub(crate) fn checkpoint_in_turn(&self, patience: Duration) -> Result<()> {
        while !self.engine.checkpoint_over(self.engine.lock_superblock(patience)?)? {
            self.write_once_more_in_turn()?;
        }
        Ok(())
    }
}
