//! Checkpoints: the log is flushed up to a commit, and a superblock says so.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::flusher::{Durable, MOST_YIELDS, Ranges, point_in};
use super::superblock::SuperblockGuard;
use crate::engine::processes::entries::{living, lock_error, poll};
use crate::engine::processes::lock_word;
use crate::engine::state::live_area::{distrust_live, resize_words};
use crate::engine::state::writer::Writer;
use crate::engine::{Engine, progress};
use crate::error::{Error, Result};
use crate::file::layout::{
    EXTENTS, Superblock, commit_end, commit_seq, live, opener, seal, superblock_flags, writer_lock,
};
use crate::file::locks::{Locks, OPENING, Sharing};
use crate::file::space::{LogPoint, Space};
use crate::file::totals;

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
            let bank = totals::at_most(&self.region, live::LOG_TOTALS, self.region.live(live::VISIBLE)?)?;
            if let Some([seq, _, _, _]) = bank {
                return Ok(seq);
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

    /// The same for the holder of the writer lock, all at once.
    #[cold]
    pub(crate) fn write_once_more_in_turn(&self, writer: &Writer) -> Result<()> {
        let state = self.region.live(live::STATE)?;
        let mut done = None;
        while let Some(range) = self.write_slice_once_more(&writer.space, &mut done, u64::MAX)? {
            self.flush_slice(range)?;
        }
        self.is_sure_again(state)
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
    /// through.
    pub(crate) fn unflushed(&self, durable: Durable) -> Result<(Durable, Option<Ranges>)> {
        let visible = self.region.live(live::VISIBLE)?;
        let commit = self.region.live(live::COMMIT_POINT)?;
        let reached = Durable { end: commit_end(commit), seq: commit_seq(commit, visible), ..durable };
        let Some(space) = self.space_now()? else { return Ok((reached, None)) };
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
        self.region.store_live(live::CHECKPOINT_BYTES, self.log_totals()?[1], Ordering::Relaxed)?;
        self.write_superblock(&mut superblock, next).map(|()| true)
    }

    /// Takes a checkpoint for the holder of the writer lock, who waits at most `patience` for another's.
    pub(crate) fn checkpoint_in_turn(&self, writer: &Writer, patience: Duration) -> Result<()> {
        while !self.checkpoint_over(self.lock_superblock(patience)?)? {
            self.write_once_more_in_turn(writer)?;
        }
        Ok(())
    }

    /// Leaves the store: if nobody else writes to it, with a checkpoint that also flushes the regions and tables and
    /// sets the clean flag, so that the next opening has nothing to do; else with an ordinary one.
    pub(crate) fn close(&self) -> Result<()> {
        self.check_not_forked()?;
        if !self.ready.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let Some(locks) = &self.locks else { return Ok(()) };
        let closed = if self.read_only { Ok(()) } else { self.leave(locks) };
        locks.release();
        closed
    }

    fn leave(&self, locks: &Locks) -> Result<()> {
        let lock = || locks.try_lock(OPENING, Sharing::Exclusive).map_err(|e| lock_error(&self.region, e));
        // Should somebody take too long to open it, that one is there after us.
        let last = poll(self.settings.lock_timeout, lock)? && living(&self.region, locks)?.is_empty();
        self.ready.store(true, Ordering::Release);
        let closed = if last {
            self.close_last()
        } else if self.changed.load(Ordering::Relaxed) {
            self.checkpoint()
        } else {
            Ok(())
        };
        self.ready.store(false, Ordering::Release);
        if self.exclusive {
            let word = self.region.live(live::WRITER_LOCK)?;
            if writer_lock::holder(word) == self.process + 1 && !std::thread::panicking() {
                lock_word::give_back(self, word, false)?;
            }
        }
        self.clean_entry(self.process)?;
        closed
    }

    fn close_last(&self) -> Result<()> {
        if self.superblock()?.is_clean() {
            return Ok(());
        }
        if self.has_numbers()? && !self.is_poisoned() && !std::thread::panicking() {
            // A store that could not be made smaller is closed like any other; what is wrong with it shows there.
            if let Err(error @ (Error::LockTimeout { .. } | Error::WouldDeadlock { .. })) = self.trim() {
                return Err(error);
            }
        }
        // A store that has used up its numbers is closed like any other.
        let _turn = self.turn_to_look(self.settings.lock_timeout)?;
        self.give_tables_back_at_last()?;
        self.close_in_turn()
    }

    fn close_in_turn(&self) -> Result<()> {
        if self.is_poisoned() {
            return Err(self.poisoned_error());
        }
        // A closer who is killed half-way must not leave a clean flag under later changes.
        self.region.change_bits(live::STATE, live::STATE_CLOSING, 0)?;
        let mut superblock = self.lock_superblock(self.settings.lock_timeout)?;
        self.region.settle_seal()?;
        self.flush_everything()?;
        let [_, appended, ..] = self.log_totals()?;
        self.region.store_live(live::CHECKPOINT_BYTES, appended, Ordering::Relaxed)?;
        let (log_bytes, log_records) = self.log_size()?;
        let next = Superblock {
            log_end: self.region.live(live::TAIL)?.into(),
            end_chain: (self.region.live(live::CHAIN)? as u32).into(),
            next_seq: self.next_seq()?.into(),
            file_len: self.region.file_len()?.into(),
            map_table: self.region.live(live::MAP_TABLE)?.into(),
            space_table: self.region.live(live::SPACE_TABLE)?.into(),
            log_bytes: log_bytes.into(),
            log_records: log_records.into(),
            live_bytes: self.live_bytes()?.into(),
            resize: resize_words(&self.region)?.map(Into::into),
            flags: (superblock_flags::CLEAN | superblock_flags::COUNTED).into(),
            ..self.head()?.put_into(*superblock)
        };
        self.region.store_seal(seal::CLOSED, superblock.generation.get() + 1)?;
        self.region.flush_seal()?;
        self.write_superblock(&mut superblock, next)?;
        if self.region.identity().is_none() {
            // Where nobody could tell this memory from that of another boot, it is not to be believed.
            distrust_live(&self.region)?;
        }
        self.region.change_bits(live::STATE, 0, live::STATE_CLOSING)?;
        progress::note_the_end(&self.region)
    }

    /// Flushes log, regions and tables. Only for the holder of the writer lock who is the last one there.
    fn flush_everything(&self) -> Result<()> {
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
        self.note_synced(self.log_totals()?[0])?;
        flush.has_reached(reached);
        Ok(())
    }
}
