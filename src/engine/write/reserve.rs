//! The reserve: space that is held back so that a full store can be emptied.
//!
//! **Invariant (reserve).** A log takes another extent for growth only when enough real space is held back to empty the
//! store without making the file longer:
//!
//! * for removals, as much as the whole log takes with that extent, or room for the longest possible tombstone,
//!   whichever is less, in one piece. A record of growth leaves room after it for a shortcut, which its tombstone may
//!   have. So any key can be removed: its record fits into the log with that room, and its tombstone is no longer;
//! * for cleaning, room for a few of the longest records, which it moves before the space it has passed is free, and
//!   for the gaps at the ends of extents where the next record does not fit;
//! * for a clear, a block for a region.
//!
//! A store that [evicts](crate::Options::evict) holds back other pieces: a cell for the tombstones of what is evicted,
//! and a block with which everything can be cleared.
//!
//! Removals leave the part for cleaning alone, and cleaning on behalf of growth leaves the part for removals alone. A
//! small store holds back little. Once the reserve has been used up and there is no room for as much again, it is
//! smaller.

use crate::engine::state::writer::{Writer, Writing};
use crate::error::{Error, Result};
use crate::file::layout::{
    BLOCK, ExtentKind, JUMP_LEN, Kind, MAX_KEY_LEN, RECORD_HEADER, align_block, extent_blocks, record_len,
};
use crate::file::space::Extent;

/// The most blocks that are held back for removals: room for at least one tombstone, whatever its key.
pub(super) const REMOVAL_RESERVE: u64 = 18;
/// The least blocks that are held back for cleaning, unless that exceeds the [`CLEANING_SHARE`] of the log.
const CLEANING_RESERVE: u64 = 4;
/// How many of the longest records fit in addition to that.
const CLEANING_RECORDS: u64 = 4;
/// The most blocks that are held back for cleaning because the log is long, whatever its records.
const MOST_BY_LENGTH: u64 = 64;
/// The log is divided by this for the most that is held back for cleaning.
const CLEANING_SHARE: u64 = 8;
/// Blocks held back so that a full store can be cleared: a region.
pub(crate) const REGION_RESERVE: u64 = 1;
const _: () = assert!(REMOVAL_RESERVE * BLOCK >= record_len(MAX_KEY_LEN as u64, 0) + JUMP_LEN);

/// What needs room in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// A record that makes the store larger.
    Growth,
    /// A record that removes something: it may use the reserve, and exceed the limit somewhat.
    Removal,
    /// A record that cleaning moves: it may continue where removals have used up their part.
    Cleaning,
}

impl Room {
    /// The room for a record of this kind, unless cleaning moves it.
    pub(crate) fn of(kind: Kind) -> Room {
        if matches!(kind, Kind::Remove | Kind::Clear) { Room::Removal } else { Room::Growth }
    }
}

/// Why the log needs another extent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Bytes that must fit into it: a record, and a jump.
    pub(super) needed: u64,
    /// Its length in bytes if there is room.
    pub(super) usual: u64,
    pub(super) room: Room,
}

/// How many blocks must be held back.
#[derive(Clone, Copy, Debug)]
struct Needs {
    removals: u64,
    cleaning: u64,
}

impl Needs {
    /// For a log of `blocks` blocks whose longest record takes `longest` bytes. The amount for cleaning was found by
    /// search (`a_store_on_a_full_disk_can_be_emptied`): half of it fails for one store in 400.
    fn of_log(blocks: u64, longest: u64) -> Needs {
        let few_records = CLEANING_RESERVE + align_block(longest * CLEANING_RECORDS) / BLOCK;
        let cleaning = few_records.max((blocks / 64).min(MOST_BY_LENGTH)).min(blocks / CLEANING_SHARE);
        Needs { removals: blocks.clamp(1, REMOVAL_RESERVE), cleaning }
    }

    /// For this store when its log grows by `more` blocks.
    fn of(writer: &Writer, more: u64) -> Needs {
        Needs::of_log((writer.space.log_bytes() / BLOCK).saturating_add(more), writer.longest)
    }

    fn blocks(self) -> u64 {
        self.removals + self.cleaning
    }
}

/// The extents that are held back.
#[derive(Clone, Debug, Default)]
pub(super) struct Reserve {
    /// For the log.
    pub(super) log: Vec<Extent>,
    pub(super) region: Option<Extent>,
}

impl Reserve {
    /// The extents held back now.
    pub(super) fn of(writer: &Writer) -> Reserve {
        let mut reserve = Reserve::default();
        for extent in writer.space.extents().filter(|extent| extent.kind == ExtentKind::Reserve) {
            if extent.blocks == REGION_RESERVE && reserve.region.is_none() {
                reserve.region = Some(*extent);
            } else {
                reserve.log.push(*extent);
            }
        }
        reserve
    }

    /// Blocks for the log.
    fn blocks(&self) -> u64 {
        self.log.iter().map(|held| held.blocks).sum()
    }

    /// Blocks of the longest piece.
    fn longest(&self) -> u64 {
        self.log.iter().map(|held| held.blocks).max().unwrap_or(0)
    }
}

impl Writing<'_> {
    /// Holds back space that only a full store may use, as much as is needed when the log grows by `more` blocks.
    pub(crate) fn keep_reserve(&mut self, more: u64) -> Result<()> {
        if let Some(cell) = self.engine.settings.cell() {
            return self.keep_cell(cell);
        }
        let needs = Needs::of(&self.writer, more);
        let held = Reserve::of(&self.writer);
        if held.region.is_none() {
            self.allocate(REGION_RESERVE, ExtentKind::Reserve)?;
        }
        if held.longest() < needs.removals {
            self.allocate(needs.removals, ExtentKind::Reserve)?;
            // Only now: where there is no room for a longer one, the shorter ones stay.
            for extent in held.log {
                self.writer.space.free(&self.engine.mapping, extent.offset)?;
            }
        }
        let missing = needs.blocks().saturating_sub(Reserve::of(&self.writer).blocks());
        if missing > 0 {
            // Existing pieces stay, and each piece holds a record.
            let record = (align_block(self.writer.longest) / BLOCK).min(needs.cleaning);
            self.allocate(missing.max(record), ExtentKind::Reserve)?;
        }
        Ok(())
    }

    /// The same for a store that evicts.
    fn keep_cell(&mut self, cell: u64) -> Result<()> {
        let Reserve { mut log, region } = Reserve::of(&self.writer);
        // What is there of this length is taken off the pieces that are held.
        let mut lacks = |blocks: u64| {
            let found = log.iter().position(|piece| piece.blocks == blocks);
            found.map(|found| log.swap_remove(found)).is_none()
        };
        let lacking = [(1, lacks(1)), (cell / BLOCK, lacks(cell / BLOCK)), (REGION_RESERVE, region.is_none())];
        let largest = self.blocks_of_largest_index()?;
        let lacks_largest = largest > 1 && lacks(largest);
        // This first: once it is broken into, a piece of that length is hard to come by.
        if lacks_largest {
            match self.allocate(largest, ExtentKind::Reserve) {
                Ok(_) | Err(Error::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for (blocks, _) in lacking.into_iter().filter(|&(_, lacks)| lacks) {
            self.allocate(blocks, ExtentKind::Reserve)?;
        }
        // The others were held back with another limit or for a smaller index; they have served as long as there was
        // nothing better.
        log.into_iter().try_for_each(|piece| self.writer.space.free(&self.engine.mapping, piece.offset))
    }

    fn blocks_of_largest_index(&self) -> Result<u64> {
        let entries = self.engine.map_table()?.iter()?.filter(|entry| !entry.dropped);
        let largest = entries.map(|entry| extent_blocks(entry.extent)).max().unwrap_or(0);
        // The one that is being built will be it.
        let target = self.engine.resize_target()?.and_then(|target| self.writer.space.extent(target));
        Ok(target.map_or(largest, |target| largest.max(target.blocks)))
    }

    /// Makes a piece of the reserve of a store that evicts the next extent of the log. The last block is for those that
    /// spend all.
    pub(super) fn open_cell(&mut self, needed: u64) -> Result<Option<Extent>> {
        let cell = self.engine.settings.cell().unwrap_or_default();
        let mut held = Reserve::of(&self.writer).log;
        held.retain(|piece| piece.len() >= needed && (piece.blocks > 1 || self.writer.spends_all));
        let Some(piece) = held.into_iter().min_by_key(|piece| (piece.len() != cell, piece.blocks)) else {
            return Ok(None);
        };
        self.writer.space.free(&self.engine.mapping, piece.offset)?;
        // It was in use already, so no limit can refuse it.
        let take = |writing: &mut Self| writing.allocate(piece.blocks, ExtentKind::ReserveLog);
        self.exceeding(u64::MAX, take).map(Some)
    }

    /// Takes the place of an index, in a store that evicts from the reserve if there is no other.
    pub(crate) fn allocate_region(&mut self, blocks: u64) -> Result<Extent> {
        let full = match self.allocate(blocks, ExtentKind::Index) {
            Err(full @ Error::Full { .. }) if self.engine.settings.evict.is_some() => full,
            taken => return taken,
        };
        let held = Reserve::of(&self.writer).log.into_iter().find(|piece| piece.blocks == blocks && blocks > 1);
        let Some(held) = held else { return Err(full) };
        let seq = self.seq()?;
        self.writer.space.set_kind(&self.engine.mapping, held.offset, ExtentKind::Index, seq)?;
        Ok(held)
    }

    /// Refills the reserve as far as there is room in the file, and says whether it is complete.
    pub(crate) fn refill_reserve(&mut self) -> Result<bool> {
        match self.keep_reserve(0) {
            Err(Error::Full { .. }) if self.engine.settings.evict.is_some() => return Ok(false),
            Err(Error::Full { .. }) => {}
            kept => return kept.map(|()| true),
        }
        // Held pieces may be part of longer free runs by now.
        for held in Reserve::of(&self.writer).log {
            self.writer.space.free(&self.engine.mapping, held.offset)?;
        }
        let needs = Needs::of(&self.writer, 0);
        let mut missing = needs.blocks();
        while missing > 0 {
            let blocks = missing.min(self.writer.space.longest_run() / BLOCK);
            if blocks == 0 {
                break;
            }
            match self.allocate(blocks, ExtentKind::Reserve) {
                Err(Error::Full { .. }) => break,
                taken => taken?,
            };
            missing -= blocks;
        }
        Ok(missing == 0 && Reserve::of(&self.writer).longest() >= needs.removals)
    }

    /// Moves the reserve to lower places, where there are any. The part for cleaning fills short runs.
    pub(super) fn settle_reserve(&mut self) -> Result<()> {
        let evicts = self.engine.settings.evict.is_some();
        let Reserve { log, region } = Reserve::of(&self.writer);
        for held in log.into_iter().chain(region) {
            // In a store that evicts, the pieces lie on the grid of the log, wherever they are.
            if !evicts || self.engine.mapping.check_limit(0, 0, held.end()).is_err() {
                self.writer.space.free(&self.engine.mapping, held.offset)?;
            }
        }
        let held = if evicts { self.keep_reserve(0) } else { self.hold_in_pieces() };
        match held {
            // There was as much before, but perhaps in other pieces.
            Ok(()) | Err(Error::Full { .. }) => self.refill_reserve().map(drop),
            Err(error) => Err(error),
        }
    }

    /// Fills the reserve from the lowest places.
    fn hold_in_pieces(&mut self) -> Result<()> {
        let needs = Needs::of(&self.writer, 0);
        for blocks in [REGION_RESERVE, needs.removals] {
            self.allocate(blocks, ExtentKind::Reserve)?;
        }
        let least = align_block(self.writer.longest).max(align_block(needs.cleaning * BLOCK / 4));
        let mut missing = needs.cleaning * BLOCK;
        while missing > 0 {
            let len = self.writer.space.lowest_run(least, missing);
            self.allocate(len / BLOCK, ExtentKind::Reserve)?;
            missing -= len;
        }
        Ok(())
    }

    /// Makes a part of the reserve the next extent of the log, if one for that purpose is long enough.
    pub(super) fn open_reserve(&mut self, demand: Demand) -> Result<Option<Extent>> {
        let reserve = Reserve::of(&self.writer);
        let Needs { removals, cleaning } = Needs::of(&self.writer, 0);
        // The longest tombstone needs one piece, which is for removals.
        let whole = reserve.log.iter().filter(|held| held.blocks >= removals).min_by_key(|held| held.blocks);
        let is_whole = |held: &Extent| whole.is_some_and(|whole| whole.offset == held.offset);
        let besides = |kept: u64| reserve.blocks().saturating_sub(kept);
        let spare = |held: &Extent| match demand.room {
            Room::Growth => 0,
            Room::Removal if self.writer.spends_all => u64::MAX,
            Room::Removal => besides(cleaning),
            // Cleaning cannot free what readers hold back.
            Room::Cleaning if self.writer.exceeds && self.writer.waiting.pins == 0 => u64::MAX,
            Room::Cleaning if is_whole(held) => besides(removals).min(held.blocks - removals),
            Room::Cleaning => besides(removals),
        };
        let spare = |held: &Extent| spare(held).min(held.blocks);
        let needed = align_block(demand.needed) / BLOCK;
        let fitting = reserve.log.iter().filter(|held| spare(held) >= needed).min_by_key(|held| held.blocks);
        let Some(held) = fitting else { return Ok(None) };
        let taken = spare(held).min(needed.max(demand.usual / BLOCK));
        if taken < held.blocks {
            self.writer.space.trim(&self.engine.mapping, held.offset, held.end() - taken * BLOCK)?;
        } else {
            self.writer.space.free(&self.engine.mapping, held.offset)?;
        }
        // It was in use already, so no limit can refuse it.
        let take = |writing: &mut Self| writing.allocate(taken, ExtentKind::ReserveLog);
        self.exceeding(u64::MAX, take).map(Some)
    }

    /// Bytes of extents in use, without the reserve.
    pub(crate) fn bytes_in_use(&self) -> u64 {
        self.writer.space.used_bytes() - Reserve::of(&self.writer).blocks() * BLOCK
    }

    /// Bytes that a store needs beside its indexes and a log of `log` bytes: for tables, and for the reserve.
    pub(crate) fn bytes_beside(&self, log: u64) -> u64 {
        let tables = self.writer.space.extents().filter(|extent| extent.kind == ExtentKind::Table);
        let needs = Needs::of_log(log / BLOCK, self.writer.longest);
        (needs.blocks() + REGION_RESERVE) * BLOCK + tables.map(Extent::len).sum::<u64>()
    }

    /// Holds a block back before the regions are rebuilt: the record that begins a new life may need its own extent,
    /// and in a full store the regions would take all there is.
    pub(crate) fn hold_a_block(&mut self) -> Result<()> {
        if self.tail()?.has_room(RECORD_HEADER) {
            return Ok(());
        }
        match self.allocate(REGION_RESERVE, ExtentKind::Reserve) {
            Ok(_) | Err(Error::Full { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Frees the block of [`hold_a_block`](Writing::hold_a_block).
    pub(crate) fn let_go_of_the_block(&mut self) -> Result<()> {
        match Reserve::of(&self.writer).region {
            Some(held) => self.writer.space.free(&self.engine.mapping, held.offset),
            None => Ok(()),
        }
    }
}
