//! Words: what the live area says, or the superblock of a closed store in its place.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::head::{self, LogHead};
use super::live_area::{self, LogTotals};
use super::superblocks::in_force;
use crate::engine::Engine;
use crate::engine::settings::Durability;
use crate::error::{Error, Numbers, Result};
use crate::file::layout::{LAST_COUNT, Offset, Seq, Superblock, live};
use crate::file::live_table::{PIN, PROCESS};
use crate::file::locks::fork;
use crate::file::space::{self, Extent, Space};
use crate::file::totals;

/// What to read of a closed store until a process opens it for writing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtRest {
    pub(crate) visible: Seq,
    pub(crate) map_table: u64,
    pub(crate) space_table: u64,
    pub(crate) identity: Option<[u64; 6]>,
    /// The identity in the live area when the store was opened.
    pub(crate) found: [u64; 6],
}

/// How much there is of a log, or of a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogSize {
    pub(crate) bytes: u64,
    pub(crate) records: u64,
}

impl Engine {
    /// Refuses to work in a process that was forked from the one that opened the store.
    #[inline(always)]
    pub(crate) fn check_not_forked(&self) -> Result<()> {
        if fork::generation() == self.generation { Ok(()) } else { Err(self.forked()) }
    }

    #[inline(always)]
    pub(crate) fn is_forked(&self) -> bool {
        fork::generation() != self.generation
    }

    #[cold]
    fn forked(&self) -> Error {
        Error::Forked { path: self.mapping.path().to_owned() }
    }

    /// What to read of a closed store, if it still is one. Once a process has opened it for writing, the live area
    /// counts for good.
    #[cold]
    pub(crate) fn at_rest(&self) -> Result<Option<AtRest>> {
        let Some(at_rest) = &self.at_rest else { return Ok(None) };
        if self.woken.load(Ordering::Acquire) {
            return Ok(None);
        }
        // Where page caches cannot be told apart, an opener for writing changes the identity in the live area.
        let current = live_area::live_is_current(&self.mapping, at_rest.identity, live_area::SAME_FILE)?
            && (at_rest.identity.is_some() || live_area::live_identity(&self.mapping)? != at_rest.found);
        if current {
            self.woken.store(true, Ordering::Release);
            return Ok(None);
        }
        Ok(Some(*at_rest))
    }

    /// Whether the live area can be trusted.
    pub(crate) fn is_live(&self) -> Result<bool> {
        Ok(self.at_rest()?.is_none())
    }

    /// The sequence number of the last visible commit.
    pub(crate) fn visible(&self) -> Result<Seq> {
        match self.at_rest()? {
            Some(at_rest) => Ok(at_rest.visible),
            None => self.mapping.live_seq(live::VISIBLE),
        }
    }

    /// Whether there are sequence numbers left for writers.
    #[inline]
    pub(crate) fn has_numbers(&self) -> Result<bool> {
        Ok(self.mapping.live_seq(live::VISIBLE)?.count() < LAST_COUNT)
    }

    #[cold]
    pub(crate) fn numbers_exhausted(&self, what: Numbers, max: u64) -> Error {
        Error::NumbersExhausted { path: self.mapping.path().to_owned(), what, max }
    }

    /// The word that says where the map table is.
    #[inline(always)]
    pub(crate) fn map_table_word(&self) -> Result<u64> {
        if self.at_rest.is_some()
            && let Some(at_rest) = self.at_rest()?
        {
            return Ok(at_rest.map_table);
        }
        self.mapping.live(live::MAP_TABLE)
    }

    /// The word that says where the space table is.
    pub(crate) fn space_table_word(&self) -> Result<u64> {
        match self.at_rest()? {
            Some(at_rest) => Ok(at_rest.space_table),
            None => self.mapping.live(live::SPACE_TABLE),
        }
    }

    /// The space table as it is now.
    pub(crate) fn space_now(&self) -> Result<Option<Space>> {
        if let Some(at_rest) = self.at_rest()? {
            let space = Space::load(&self.mapping, at_rest.space_table);
            // The table of a closed store does not change, and its counter of changes means nothing.
            if !self.is_live()? {
                return space.map(Some);
            }
        }
        space::read(&self.mapping, || self.mapping.live(live::SPACE_TABLE))
    }

    /// The extents in use, by offset. None if they change faster than they can be read.
    pub(crate) fn extents(&self) -> Result<Vec<Extent>> {
        Ok(self.space_now()?.map_or(Vec::new(), |space| space.extents().copied().collect()))
    }

    /// The extents that continue the tables of pins and processes.
    pub(crate) fn live_extents(&self) -> Result<Vec<Offset>> {
        if !self.is_live()? {
            return Ok(Vec::new());
        }
        let (pins, processes) = (PIN.parts(&self.mapping)?, PROCESS.parts(&self.mapping)?);
        Ok(pins.extents().chain(processes.extents()).collect())
    }

    /// The superblock in force, even one that another process has just written. In a store that has a file, this does
    /// not wait.
    pub(crate) fn superblock(&self) -> Result<Superblock> {
        // Where there is no file to read it from, the copy that it was written from.
        if self.mapping.file().is_none() || !self.is_live()? || !self.ready.load(Ordering::Acquire) {
            return Ok(*self.superblock.lock().unwrap_or_else(PoisonError::into_inner));
        }
        self.superblock_in_force()
    }

    pub(crate) fn superblock_in_force(&self) -> Result<Superblock> {
        let (place, read) = in_force(&self.mapping)?;
        read.ok_or_else(|| self.mapping.corrupt(place, "the superblock in force is damaged"))
    }

    /// Whether the superblock in force says, to our knowledge, that the store is closed: the first change writes
    /// another one.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn superblock_is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Where the log begins now.
    pub(crate) fn head(&self) -> Result<LogHead> {
        match self.at_rest()? {
            Some(_) => Ok(LogHead::of_superblock(&self.superblock()?)),
            None => head::read(&self.mapping),
        }
    }

    /// Where the log begins. The caller holds the writer lock.
    #[inline]
    pub(crate) fn head_for_writing(&self) -> Result<LogHead> {
        Ok(head::of_words(totals::latest(&self.mapping, live::HEAD)?))
    }

    /// The counters of the whole log.
    #[inline]
    pub(crate) fn log_totals(&self) -> Result<LogTotals> {
        LogTotals::latest(&self.mapping)
    }

    /// How much lies between the head of the log and its end.
    pub(crate) fn log_size(&self) -> Result<LogSize> {
        if !self.is_live()? {
            let superblock = self.superblock()?;
            return Ok(LogSize { bytes: superblock.log_bytes.get(), records: superblock.log_records.get() });
        }
        let head = self.head()?;
        let LogTotals { bytes, records, .. } = self.log_totals()?;
        Ok(LogSize { bytes: bytes.saturating_sub(head.bytes), records: records.saturating_sub(head.records) })
    }

    /// How many bytes the head will have passed when it reaches the present end of the log: at most the length of the
    /// file more than now.
    pub(crate) fn end_of_log(&self) -> Result<u64> {
        Ok(self.log_totals()?.bytes.min(self.head()?.bytes.saturating_add(self.mapping.len())))
    }

    /// Bytes of log since the last checkpoint.
    pub(crate) fn log_since_checkpoint(&self) -> Result<u64> {
        if !self.is_live()? {
            return Ok(0);
        }
        Ok(self.log_totals()?.bytes.saturating_sub(self.mapping.live(live::CHECKPOINT_BYTES)?))
    }

    /// Whether a flush has failed.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.mapping.flush_failed()
            || self.is_live().unwrap_or(false)
                && self.mapping.live(live::STATE).is_ok_and(|state| state & live::STATE_POISONED != 0)
    }

    /// The error of a store whose flush has failed.
    pub(crate) fn poisoned_error(&self) -> Error {
        Error::Poisoned { path: self.mapping.path().to_owned() }
    }

    /// Refuses a commit that could not be called durable, before it is made.
    #[inline]
    pub(crate) fn check_can_be(&self, durability: Durability) -> Result<()> {
        if durability == Durability::Synced && self.is_poisoned() { Err(self.poisoned_error()) } else { Ok(()) }
    }
}
