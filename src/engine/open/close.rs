//! Closing: leaving the store, as one of many or as the last one.

use std::sync::atomic::Ordering;

use crate::engine::processes::entries::{living, lock_error, poll};
use crate::engine::processes::lock_word::{self, Handover};
use crate::engine::state::live_area::{distrust_live, resize_words};
use crate::engine::{Engine, progress};
use crate::error::{Error, Result};
use crate::file::layout::{Superblock, live, seal, superblock_flags, writer_lock};
use crate::file::locks::{Locks, OPENING, Sharing};
use crate::telemetry::{self, Watch};

impl Engine {
    /// Leaves the store. The last writer takes a checkpoint that also flushes the regions and tables and sets the clean
    /// flag, so that the next opening has nothing to do; any other takes an ordinary one.
    pub(crate) fn close(&self) -> Result<()> {
        self.close_and(|| Ok(()))
    }

    /// The same, and then does something more with the file while no other process can open it.
    pub(crate) fn close_and(&self, more: impl FnOnce() -> Result<()>) -> Result<()> {
        self.check_not_forked()?;
        if !self.ready.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let Some(locks) = &self.locks else { return more() };
        let watch = Watch::start();
        let closed = if self.read_only { Ok(()) } else { self.leave(locks) };
        let closed = closed.and_then(|()| more());
        locks.release();
        telemetry::on_closed(self.mapping.path(), closed.as_ref().err().map(|error| error as _), watch);
        closed
    }

    /// Leaves a store that will be thrown away: nothing is made durable.
    pub(crate) fn give_up(&self) {
        self.ready.store(false, Ordering::Release);
    }

    fn leave(&self, locks: &Locks) -> Result<()> {
        let lock = || locks.try_lock(OPENING, Sharing::Exclusive).map_err(|e| lock_error(&self.mapping, e));
        // If another process takes too long to open the store, it stays after us.
        let last = poll(self.settings.lock_timeout, lock)? && living(&self.mapping, locks)?.is_empty();
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
            let word = self.mapping.live(live::WRITER_LOCK)?;
            if writer_lock::holder(word) == self.process + 1 && !std::thread::panicking() {
                lock_word::give_back(self, word, Handover::Orderly)?;
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
            // A store that could not be made smaller is closed like any other; the cause shows there.
            if let Err(error @ (Error::LockTimeout { .. } | Error::WouldDeadlock { .. })) = self.trim() {
                return Err(error);
            }
        }
        // A store that has used up its numbers is closed like any other.
        let turn = self.turn_to_look(self.settings.lock_timeout)?;
        turn.write().give_tables_back_at_last()?;
        self.close_in_turn()
    }

    fn close_in_turn(&self) -> Result<()> {
        if self.is_poisoned() {
            return Err(self.poisoned_error());
        }
        // A kill while closing must not leave a clean flag under later changes.
        self.mapping.change_bits(live::STATE, live::STATE_CLOSING, 0)?;
        let mut superblock = self.lock_superblock(self.settings.lock_timeout)?;
        self.mapping.settle_seal()?;
        self.flush_everything()?;
        let appended = self.log_totals()?.bytes;
        self.mapping.store_live(live::CHECKPOINT_BYTES, appended, Ordering::Relaxed)?;
        let log = self.log_size()?;
        let next = Superblock {
            log_end: self.mapping.live_offset(live::TAIL)?.into(),
            end_chain: (self.mapping.live(live::CHAIN)? as u32).into(),
            next_seq: self.visible()?.next().to_field(),
            file_len: self.mapping.file_len()?.into(),
            map_table: self.mapping.live(live::MAP_TABLE)?.into(),
            space_table: self.mapping.live(live::SPACE_TABLE)?.into(),
            log_bytes: log.bytes.into(),
            log_records: log.records.into(),
            live_bytes: self.live_bytes()?.into(),
            resize: resize_words(&self.mapping)?.map(Into::into),
            flags: (superblock_flags::CLEAN | superblock_flags::COUNTED).into(),
            ..self.head()?.put_into(*superblock)
        };
        self.mapping.store_seal(seal::CLOSED, superblock.generation.get() + 1)?;
        self.mapping.flush_seal()?;
        self.write_superblock(&mut superblock, next)?;
        if self.mapping.identity().is_none() {
            // Without an identity, this memory cannot be told from that of another boot, so it must not be trusted.
            distrust_live(&self.mapping)?;
        }
        self.mapping.change_bits(live::STATE, 0, live::STATE_CLOSING)?;
        progress::note_the_end(&self.mapping)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // To see errors, users call `close`. Only the clean flag is lost here: the next opening recovers.
        let _ = self.close();
    }
}
