//! Space: which blocks of the file belong to what.
//!
//! The space table in the file lists the extents in use; what it does not list is free. Each change is the store of
//! one word, so a process that dies in the middle leaves at most an extent that nobody refers to.
//!
//! Who holds the writer lock keeps a copy of what the table says. A counter of changes tells when another process has
//! changed the table since. It is odd while the table is being changed, so that one who reads the table without the lock
//! knows whether it was the same all the time (a seqlock).
//!
//! **Invariants.** Space is handed out from the lowest free run that fits, else the file grows, with real allocation
//! behind the new range. A retired extent becomes free only when no pin is below the sequence number at which it was
//! retired.

use std::collections::BTreeMap;
use std::sync::atomic::{Ordering, fence};

use super::layout::{
    BLOCK, COUNT_MASK, EXTENTS, ExtentKind, SPACE_TABLE_MAGIC, align_block, extent_blocks, extent_offset, extent_word,
    live, state_word, table_word,
};
use super::region::Region;
use super::table::Table;
use crate::error::{Error, Result};

/// The smallest extent of the log.
pub(crate) const SMALLEST_LOG: u64 = 16 * BLOCK;
/// The largest extent of the log, records longer than that excepted.
const LARGEST_LOG: u64 = 64 << 20;

/// An extent in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Offset in bytes.
    pub(crate) offset: u64,
    /// Length in blocks.
    pub(crate) blocks: u64,
    /// What it is used for.
    pub(crate) kind: ExtentKind,
    /// The counting part of the sequence number at which it got its kind.
    pub(crate) count: u64,
    entry: u64,
}

impl Extent {
    /// Offset behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.blocks * BLOCK
    }

    /// Whether it holds records.
    pub(crate) fn is_log(&self) -> bool {
        matches!(self.kind, ExtentKind::Log | ExtentKind::ReserveLog)
    }
}

/// What the holder of the writer lock knows of the space table.
#[derive(Debug)]
pub(crate) struct Space {
    /// Extents in use by offset.
    used: BTreeMap<u64, Extent>,
    /// Entries of the table that are vacant, the lowest last.
    vacant: Vec<u64>,
    /// How far the file is known to have real space behind it.
    end: u64,
    /// The counter of changes that this is the table of.
    changes: u64,
}

impl Space {
    /// Reads the table that `word` names.
    pub(crate) fn load(region: &Region, word: u64) -> Result<Space> {
        let table = Table::open(region, word, SPACE_TABLE_MAGIC)?;
        let changes = region.live(live::SPACE_CHANGES)?;
        let mut space = Space { used: BTreeMap::new(), vacant: Vec::new(), end: EXTENTS, changes };
        let file_end = region.refresh()? / BLOCK * BLOCK;
        for entry in (0..table.capacity()).rev() {
            let (place, state) = table.entry(entry)?;
            if state == 0 {
                space.vacant.push(entry);
                continue;
            }
            let (offset, blocks) = (extent_offset(place), extent_blocks(place));
            let kind = ExtentKind::from_u8((state >> 56) as u8);
            let extent = kind.map(|kind| Extent { offset, blocks, kind, count: state & COUNT_MASK, entry });
            let Some(extent) = extent.filter(|e| e.offset >= EXTENTS && e.blocks > 0 && e.end() <= file_end) else {
                return Err(region.corrupt(extent_offset(word), format!("entry {entry} of the space table is damaged")));
            };
            space.used.insert(offset, extent);
        }
        let mut last = EXTENTS;
        for extent in space.used.values() {
            if extent.offset < last {
                return Err(region.corrupt(extent.offset, "two extents of the space table overlap"));
            }
            last = extent.end();
        }
        // What lies behind the last extent in use may have been allocated or not, by somebody who died.
        space.end = last;
        Ok(space)
    }

    /// Of a table that was not looked at yet.
    pub(crate) fn unknown() -> Space {
        // An odd counter is that of no table.
        Space { used: BTreeMap::new(), vacant: Vec::new(), end: EXTENTS, changes: u64::MAX }
    }

    /// Whether the table in the file says what this does. For the holder of the writer lock.
    #[inline]
    pub(crate) fn is_current(&self, region: &Region) -> Result<bool> {
        Ok(region.live(live::SPACE_CHANGES)? == self.changes && self.changes.is_multiple_of(2))
    }

    /// Makes a table that lists `log`, the extents of the log with their sequence numbers, and itself. Everything else
    /// is free.
    pub(crate) fn create(region: &Region, log: &[(u64, u64, u64)], seq: u64) -> Result<Space> {
        let changes = region.live(live::SPACE_CHANGES)?;
        let mut space = Space { used: BTreeMap::new(), vacant: Vec::new(), end: EXTENTS, changes };
        space.end = log.iter().map(|&(_, end, _)| end).max().unwrap_or(EXTENTS);
        for (entry, &(offset, end, seq)) in log.iter().enumerate() {
            let blocks = (end - offset) / BLOCK;
            let (kind, count, entry) = (ExtentKind::Log, seq & COUNT_MASK, entry as u64);
            space.used.insert(offset, Extent { offset, blocks, kind, count, entry });
        }
        let needed = log.len() as u64 + 16;
        space.replace_table(region, needed, seq)?;
        Ok(space)
    }

    /// The extents in use, by offset.
    pub(crate) fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.used.values()
    }

    /// The extent at `offset`.
    pub(crate) fn extent(&self, offset: u64) -> Option<&Extent> {
        self.used.get(&offset)
    }

    /// The extent of the log that `offset` lies in.
    pub(crate) fn log_extent_of(&self, offset: u64) -> Option<&Extent> {
        let (_, extent) = self.used.range(..=offset).next_back()?;
        (extent.is_log() && offset < extent.end()).then_some(extent)
    }

    /// Whether anything waits for old readers to go.
    pub(crate) fn has_retired(&self) -> bool {
        self.used.values().any(|extent| extent.kind == ExtentKind::Retired)
    }

    /// How long the next extent of the log should be that has to hold `needed` bytes. Larger files get larger ones;
    /// what is large itself gets one of its own, so that little is left over.
    pub(crate) fn log_extent_len(&self, needed: u64) -> u64 {
        let usual = align_block((self.end / 16).clamp(SMALLEST_LOG, LARGEST_LOG));
        if needed > usual / 8 { align_block(needed) } else { usual }
    }

    /// Takes an extent of `blocks` blocks.
    ///
    /// # Errors
    /// [`Error::Full`] if there is no room; then nothing has changed.
    pub(crate) fn allocate(&mut self, region: &Region, blocks: u64, kind: ExtentKind, seq: u64) -> Result<Extent> {
        // A table that is nearly full is replaced first: the new one needs an entry as well.
        if self.vacant.len() < 3 {
            let entries = self.used.len() as u64 * 2 + 16;
            self.replace_table(region, entries, seq)?;
        }
        self.take(region, blocks, kind, seq)
    }

    fn take(&mut self, region: &Region, blocks: u64, kind: ExtentKind, seq: u64) -> Result<Extent> {
        let offset = self.find_or_grow(region, blocks)?;
        let table = Table::open(region, region.live(live::SPACE_TABLE)?, SPACE_TABLE_MAGIC)?;
        let Some(entry) = self.vacant.pop() else {
            return Err(region.corrupt(0, "the space table has no vacant entry"));
        };
        self.change(region, |_| table.set(entry, (extent_word(offset, blocks), state_word(kind, seq)), 1))?;
        let extent = Extent { offset, blocks, kind, count: seq & COUNT_MASK, entry };
        self.used.insert(offset, extent);
        Ok(extent)
    }

    /// The lowest free run of `blocks` blocks, at the end of a longer file if there is none.
    fn find_or_grow(&mut self, region: &Region, blocks: u64) -> Result<u64> {
        let len = blocks.checked_mul(BLOCK).filter(|&len| len <= super::layout::MAX_FILE_LEN);
        let Some(len) = len else {
            let why = crate::error::FullReason::AddressSpace(region.max_len());
            return Err(Error::Full { path: region.path().to_owned(), needed: u64::MAX, why });
        };
        let mut free = EXTENTS;
        for extent in self.used.values() {
            if extent.offset - free >= len {
                return Ok(free);
            }
            free = extent.end();
        }
        if self.end - free < len {
            region.allocate(self.end.max(free), free + len)?;
            self.end = free + len;
        }
        Ok(free)
    }

    /// Gives an extent another kind.
    pub(crate) fn set_kind(&mut self, region: &Region, offset: u64, kind: ExtentKind, seq: u64) -> Result<()> {
        let table = Table::open(region, region.live(live::SPACE_TABLE)?, SPACE_TABLE_MAGIC)?;
        self.change(region, |space| {
            if let Some(extent) = space.used.get_mut(&offset) {
                table.set_word(extent.entry, 1, state_word(kind, seq))?;
                (extent.kind, extent.count) = (kind, seq & COUNT_MASK);
            }
            Ok(())
        })
    }

    /// Frees an extent that nobody can be looking at.
    pub(crate) fn free(&mut self, region: &Region, offset: u64) -> Result<()> {
        let table = Table::open(region, region.live(live::SPACE_TABLE)?, SPACE_TABLE_MAGIC)?;
        self.change(region, |space| {
            if let Some(extent) = space.used.remove(&offset) {
                table.set_word(extent.entry, 1, 0)?;
                space.vacant.push(extent.entry);
            }
            Ok(())
        })
    }

    /// Makes one change of the table, between two steps of the counter of changes.
    fn change<R>(&mut self, region: &Region, make: impl FnOnce(&mut Space) -> Result<R>) -> Result<R> {
        // Odd already, if somebody died in the middle of a change.
        let odd = region.live(live::SPACE_CHANGES)?.wrapping_add(1) | 1;
        region.store_live(live::SPACE_CHANGES, odd, Ordering::Relaxed)?;
        fence(Ordering::Release);
        let made = make(self);
        self.changes = odd.wrapping_add(1);
        region.store_live(live::SPACE_CHANGES, self.changes, Ordering::Release)?;
        made
    }

    /// Frees what was retired at `count` or before; the caller knows that no pin is below it.
    pub(crate) fn free_retired(&mut self, region: &Region, count: u64) -> Result<()> {
        let old = |extent: &&Extent| extent.kind == ExtentKind::Retired && extent.count <= count;
        let offsets: Vec<u64> = self.used.values().filter(old).map(|extent| extent.offset).collect();
        offsets.into_iter().try_for_each(|offset| self.free(region, offset))
    }

    /// Moves the table to a new extent with room for `entries`. The old one is retired.
    fn replace_table(&mut self, region: &Region, entries: u64, seq: u64) -> Result<()> {
        let blocks = (super::layout::TABLE_HEADER + entries * super::layout::TABLE_ENTRY).div_ceil(BLOCK);
        let offset = self.find_or_grow(region, blocks)?;
        let table = Table::create(region, offset, blocks, SPACE_TABLE_MAGIC)?;
        let old = region.live(live::SPACE_TABLE)?;
        let mut used: Vec<&mut Extent> = self.used.values_mut().collect();
        for (entry, extent) in used.iter_mut().enumerate() {
            let state = state_word(extent.kind, extent.count);
            table.set(entry as u64, (extent_word(extent.offset, extent.blocks), state), 1)?;
            extent.entry = entry as u64;
        }
        let entry = used.len() as u64;
        table.set(entry, (extent_word(offset, blocks), state_word(ExtentKind::Table, seq)), 1)?;
        let (kind, count) = (ExtentKind::Table, seq & COUNT_MASK);
        self.used.insert(offset, Extent { offset, blocks, kind, count, entry });
        self.vacant = (entry + 1..table.capacity()).rev().collect();
        self.change(region, |_| region.store_live(live::SPACE_TABLE, table_word(offset, blocks), Ordering::Release))?;
        if old != 0 && self.used.contains_key(&extent_offset(old)) {
            self.set_kind(region, extent_offset(old), ExtentKind::Retired, seq)?;
        }
        Ok(())
    }
}

/// What the table that `word` finds says at one moment, for one who does not hold the writer lock. `None` if it is being changed all the time, or by somebody who does not go on.
pub(crate) fn read(region: &Region, word: impl Fn() -> Result<u64>) -> Result<Option<Space>> {
    for attempt in 0..ATTEMPTS {
        if attempt > 10 {
            std::thread::yield_now();
        }
        let before = region.live(live::SPACE_CHANGES)?;
        let space = Space::load(region, word()?);
        fence(Ordering::Acquire);
        if before.is_multiple_of(2) && region.live_word(live::SPACE_CHANGES)?.relaxed() == before {
            return space.map(Some);
        }
    }
    Ok(None)
}

/// How often [`read`] tries.
const ATTEMPTS: u32 = 1000;
