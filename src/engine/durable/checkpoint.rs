//! Checkpoints: the log is flushed up to a commit, and a superblock says so.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::flusher::{Durable, MOST_YIELDS, Ranges, point_in};
use super::superblock::SuperblockGuard;
use crate::engine::state::live_area::LogTotals;
use crate::engine::state::writer::Writing;
use crate::engine::{Engine, progress};
use crate::error::Result;
use crate::file::layout::{EXTENTS, Superblock, commit_end, commit_seq, live, opener};
use crate::file::space::{LogPoint, Space};

/// How often one looks which commit was the last.
const LOOKS: u32 = 1000;

impl Engine {
    /// Makes every visible commit durable, writes down that it is, and returns how far the log is. `None` if the log
    /// has to be [written once more](Engine::write_once_more) before that can be said.
    pub(crate) fn sync_to_commit(&self) -> Result<Option<Durable>> {
        let recorded = self.last_recorded()?;
        let reached = self.flush_to_commit()?;
        if reached.is_some() {
            self.note_synced(recorded)?;
        }
        Ok(reached)
    }

    /// The number of the last visible commit that has records; zero if others commit all the time, too fast to tell.
    fn last_recorded(&self) -> Result<u64> {
        for _ in 0..LOOKS {
            if let Some(totals) = LogTotals::at_most(&self.region, self.region.live(live::VISIBLE)?)? {
                return Ok(totals.seq);
            }
        }
        Ok(0)
    }

    /// Says in the file that this commit is durable. A recovery has to come that far.
    fn note_synced(&self, seq: u64) -> Result<()> {
        self.region.update_live(live::SYNCED, |synced| synced.max(seq))
    }

    /// Makes every visible commit durable, and returns how far the log is. `None` as above.
    fn flush_to_commit(&self) -> Result<Option<Durable>> {
        let wanted = self.region.live(live::VISIBLE)?;
        let mut group = self.flusher.group();
        loop {
            if self.is_poisoned() {
                return Err(self.poisoned_error());
            }
            if self.is_unsure()? {
                return Ok(None);
            }
            if group.durable.seq >= wanted {
                return Ok(Some(group.durable));
            }
            if !group.flushing {
                break;
            }
            group.waiting += 1;
            group = self.flusher.flushed.wait(group).unwrap_or_else(PoisonError::into_inner);
        }
        let (durable, company) = (group.durable, group.company);
        let flush = self.flusher.begin(group);
        for _ in 0..company.min(MOST_YIELDS) {
            // Those who were served with us shall come along again.
            std::thread::yield_now();
        }
        let (reached, ranges) = self.unflushed(durable)?;
        self.flushing(live::STATE_LOG_UNSURE, || match ranges {
            Some(ranges) => ranges.into_iter().try_for_each(|(from, end)| self.region.flush(from, end - from)),
            None => self.region.flush_all(),
        })?;
        flush.has_reached(reached);
        Ok(Some(reached))
    }

    /// Whether somebody was killed while the log was flushed, and nobody has written it once more since.
    pub(crate) fn is_unsure(&self) -> Result<bool> {
        Ok(self.region.live(live::STATE)? & live::STATE_LOG_UNSURE != 0)
    }

    /// Flushes a slice when nobody else of this process flushes.
    pub(crate) fn flush_slice(&self, (start, end): (u64, u64)) -> Result<()> {
        let _flush = self.flusher.wait_and_begin();
        self.flushing(live::STATE_LOG_UNSURE, || self.region.flush(start, end - start))
    }

    /// Writes the next slice of what lies behind `done` once more, and moves that on. Says what it was. Only for the
    /// holder of the writer lock.
    pub(crate) fn write_slice_once_more(
        &self,
        space: &Space,
        done: &mut Option<LogPoint>,
        most: u64,
    ) -> Result<Option<(u64, u64)>> {
        let opened = &self.flusher.opened;
        let done = done.get_or_insert_with(|| point_in(space, opened).unwrap_or(opened.from));
        let rest = space.extents().filter(|extent| extent.has_records()).filter_map(|extent| {
            let (start, end) = done.rest_of(extent)?;
            Some((LogPoint { ordinal: extent.ordinal, at: start }, end))
        });
        let Some((start, end)) = rest.min_by_key(|(start, _)| (start.ordinal, start.at)) else { return Ok(None) };
        let end = end.min(start.at.saturating_add(most));
        self.region.rewrite(start.at, end - start.at)?;
        *done = LogPoint { at: end, ..start };
        Ok(Some((start.at, end)))
    }

    /// Takes back that the log is unsure, if nobody has been killed in a flush since its state was `before`.
    pub(crate) fn is_sure_again(&self, before: u64) -> Result<()> {
        let state = self.region.live(live::STATE)?;
        if state / live::STATE_UNSURE_COUNT == before / live::STATE_UNSURE_COUNT {
            // If it changes meanwhile, it is done once more.
            self.region.compare_exchange(live::STATE, state, state & !live::STATE_LOG_UNSURE, Ordering::SeqCst)?;
        }
        Ok(())
    }

    /// How far the log is committed, and the ranges of the file that have to be flushed for that to be durable, if it
    /// is as far as `durable`; none of these if the space table cannot be read for all that is being changed in it.
    ///
    /// The commits come before the table: it then has every extent that they lie in and that a recovery would go
    /// through. **Invariant.** So it does if it was read before them, and its counter of changes, loaded behind them,
    /// is still the same. To read it again takes a look at the file's length, which makes the flush a longer one.
    pub(crate) fn unflushed(&self, durable: Durable) -> Result<(Durable, Option<Ranges>)> {
        let visible = self.region.live(live::VISIBLE)?;
        let commit = self.region.live(live::COMMIT_POINT)?;
        let reached = Durable { end: commit_end(commit), seq: commit_seq(commit, visible), ..durable };
        let mut space = self.flusher.known_space();
        if !space.is_current(&self.region)? {
            let Some(now) = self.space_now()? else { return Ok((reached, None)) };
            *space = now;
        }
        let from = point_in(&space, &durable).unwrap_or(durable.from);
        let upto = point_in(&space, &reached);
        let mut ranges = Ranges::new();
        for extent in space.extents().filter(|extent| extent.has_records()) {
            let rest = from.rest_of(extent).map(|rest| upto.map_or(rest, |upto| upto.part_of(extent, rest)));
            let Some((start, end)) = rest.filter(|(start, end)| start < end) else { continue };
            // What lies side by side is flushed by one call.
            match ranges.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => ranges.push((start, end)),
            }
        }
        Ok((Durable { from: upto.unwrap_or(from), ..reached }, Some(ranges)))
    }

    /// Takes a checkpoint, unless the log has to be [written once more](Engine::write_once_more) first. Says whether it
    /// did.
    pub(crate) fn checkpoint_over(&self, mut superblock: SuperblockGuard<'_>) -> Result<bool> {
        // The head first: whatever was moved away from before it then lies before the end.
        let head = self.head()?;
        let Some(Durable { end, seq, .. }) = self.sync_to_commit()? else { return Ok(false) };
        let moved = superblock.log_head.get() != head.head.at;
        if superblock.log_end.get() == end && superblock.next_seq.get() == seq + 1 && !moved {
            return Ok(true);
        }
        let next = Superblock {
            log_end: end.into(),
            next_seq: (seq + 1).into(),
            file_len: self.region.file_len()?.into(),
            flags: 0.into(),
            ..head.put_into(*superblock)
        };
        self.region.store_live(live::CHECKPOINT_BYTES, self.log_totals()?.bytes, Ordering::Relaxed)?;
        self.write_superblock(&mut superblock, next).map(|()| true)
    }

    /// Flushes log, regions and tables. Only for the holder of the writer lock who is the last one there.
    pub(crate) fn flush_everything(&self) -> Result<()> {
        const UNSURE: u64 = live::STATE_LOG_UNSURE | live::STATE_ALL_UNSURE;

        let flush = self.flusher.wait_and_begin();
        let (reached, _) = self.unflushed(self.flusher.opened)?;
        let unsure = self.region.live(live::STATE)? & UNSURE != 0;
        self.flushing(UNSURE, || {
            if unsure {
                self.region.rewrite(EXTENTS, self.region.len() - EXTENTS)?;
            }
            progress::flush_all(&self.region, opener::CLOSING)
        })?;
        self.region.change_bits(live::STATE, 0, UNSURE)?;
        self.note_synced(self.log_totals()?.seq)?;
        flush.has_reached(reached);
        Ok(())
    }
}

impl<'e> Writing<'e> {
    /// The same for the holder of the writer lock, all at once.
    #[cold]
    pub(crate) fn write_once_more_in_turn(&self) -> Result<()> {
        let state = self.engine.region.live(live::STATE)?;
        let mut done = None;
        while let Some(range) = self.engine.write_slice_once_more(&self.writer.space, &mut done, u64::MAX)? {
            self.engine.flush_slice(range)?;
        }
        self.engine.is_sure_again(state)
    }

    /// Takes a checkpoint for the holder of the writer lock, who waits at most `patience` for another's.
    pub(crate) fn checkpoint_in_turn(&self, patience: Duration) -> Result<()> {
        while !self.engine.checkpoint_over(self.engine.lock_superblock(patience)?)? {
            self.write_once_more_in_turn()?;
        }
        Ok(())
    }
}
