//! The reserve: space that is held back so that a full store can be emptied.
//!
//! **Invariant (reserve).** A log takes another extent for what makes the store larger only when enough is held back,
//! with real space, for the store to be emptied where the file cannot be longer than it is:
//!
//! * for removals, as much as all of the log takes with that extent, or room for the longest tombstone there can be,
//!   whichever is less, in one piece. A record that makes the store larger leaves as much room behind it as a shortcut
//!   takes that its tombstone may have. So any key can be removed: its record fits into the log with that, and its
//!   tombstone is no longer;
//! * for cleaning, room for a few of the longest records, which it moves before what it has passed is free, and for
//!   what is left over at the ends of extents because the next record is too long for that;
//! * for a clear, a block for a region.
//!
//! Removals leave to cleaning what is held back for it, and cleaning for the sake of what makes the store larger leaves
//! to removals what is held back for them. A small store holds back little. Where what was held back has been used up
//! and there is no room for as much again, there is less.

use crate::engine::state::writer::{Writer, Writing};
use crate::error::{Error, Result};
use crate::file::layout::{BLOCK, ExtentKind, JUMP_LEN, Kind, MAX_KEY_LEN, RECORD_HEADER, align_block, record_len};
use crate::file::space::Extent;

/// The most blocks that are held back for removals: room for at least one tombstone, whatever its key.
pub(super) const REMOVAL_RESERVE: u64 = 18;
/// The least blocks that are held back for cleaning, unless that were more than the [`CLEANING_SHARE`] of the log.
const CLEANING_RESERVE: u64 = 4;
/// How many of the longest records there is room for beside that.
const CLEANING_RECORDS: u64 = 4;
/// The most blocks that are held back for cleaning because the log is long, whatever its records.
const MOST_BY_LENGTH: u64 = 64;
/// The part of the log that is held back for cleaning at most.
const CLEANING_SHARE: u64 = 8;
/// What is held back for a full store to be cleared: a region.
pub(super) const REGION_RESERVE: u64 = 1;
const _: () = assert!(REMOVAL_RESERVE * BLOCK >= record_len(MAX_KEY_LEN as u64, 0) + JUMP_LEN);

/// What is to find room in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// What makes the store larger.
    Growth,
    /// What removes something: it may use what is held back for a full store, and go somewhat beyond its limit.
    Removal,
    /// What cleaning moves: it gets through where removals have used that up.
    Cleaning,
}

impl Room {
    /// What a record of this kind finds room for, but for those that cleaning moves.
    pub(crate) fn of(kind: Kind) -> Room {
        if matches!(kind, Kind::Remove | Kind::Clear) { Room::Removal } else { Room::Growth }
    }
}

/// What another extent of the log is needed for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Bytes that have to fit into it: a record, and a jump.
    pub(super) needed: u64,
    /// Bytes that it has if there is room for them.
    pub(super) usual: u64,
    pub(super) room: Room,
}

/// How many blocks have to be held back.
#[derive(Clone, Copy, Debug)]
struct Needs {
    removals: u64,
    cleaning: u64,
}

impl Needs {
    /// Of a store with a log of so many blocks, whose longest record takes so many bytes. How much cleaning needs was
    /// found by search (`a_store_on_a_full_disk_can_be_emptied`): half of it fails for one store in 400.
    fn of_log(blocks: u64, longest: u64) -> Needs {
        let few_records = CLEANING_RESERVE + align_block(longest * CLEANING_RECORDS) / BLOCK;
        let cleaning = few_records.max((blocks / 64).min(MOST_BY_LENGTH)).min(blocks / CLEANING_SHARE);
        Needs { removals: blocks.clamp(1, REMOVAL_RESERVE), cleaning }
    }

    /// Of this store when its log gets so many blocks more.
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
    log: Vec<Extent>,
    pub(super) region: Option<Extent>,
}

impl Reserve {
    /// What is held back now.
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
    /// Sets space aside that only a full store may use, if there is not as much as there has to be when the log gets so
    /// many blocks more.
    pub(crate) fn keep_reserve(&mut self, more: u64) -> Result<()> {
        let needs = Needs::of(&self.writer, more);
        let held = Reserve::of(&self.writer);
        if held.region.is_none() {
            self.allocate(REGION_RESERVE, ExtentKind::Reserve)?;
        }
        if held.longest() < needs.removals {
            self.allocate(needs.removals, ExtentKind::Reserve)?;
            // Not before: where there is no room for a longer one, the shorter ones stay.
            for extent in held.log {
                self.writer.space.free(&self.engine.mapping, extent.offset)?;
            }
        }
        let missing = needs.blocks().saturating_sub(Reserve::of(&self.writer).blocks());
        if missing > 0 {
            // What is there need not be moved, and a piece holds a record.
            let record = (align_block(self.writer.longest) / BLOCK).min(needs.cleaning);
            self.allocate(missing.max(record), ExtentKind::Reserve)?;
        }
        Ok(())
    }

    /// Holds back what has to be, as far as there is room in the file, and says whether it is all there.
    pub(crate) fn refill_reserve(&mut self) -> Result<bool> {
        match self.keep_reserve(0) {
            Err(Error::Full { .. }) => {}
            kept => return kept.map(|()| true),
        }
        // What is held back in pieces may be part of longer free runs by now.
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

    /// Holds back at lower places what is held back, as far as there are such. What cleaning needs fills short runs.
    pub(super) fn settle_reserve(&mut self) -> Result<()> {
        let Reserve { log, region } = Reserve::of(&self.writer);
        for held in log.into_iter().chain(region) {
            self.writer.space.free(&self.engine.mapping, held.offset)?;
        }
        match self.hold_in_pieces() {
            // There was as much before, but perhaps in other pieces.
            Ok(()) | Err(Error::Full { .. }) => self.refill_reserve().map(drop),
            Err(error) => Err(error),
        }
    }

    /// Holds back what has to be, in the lowest places.
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

    /// Makes a part of the reserve the next extent of the log, if there is one for that purpose and long enough.
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
            // What readers hold back is not gained by cleaning.
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
        // It was in use already, so that no limit can be in the way.
        let take = |writing: &mut Self| writing.allocate(taken, ExtentKind::ReserveLog);
        self.exceeding(u64::MAX, take).map(Some)
    }

    /// Bytes of extents that are in use, what is held back not among them.
    pub(crate) fn bytes_in_use(&self) -> u64 {
        self.writer.space.used_bytes() - Reserve::of(&self.writer).blocks() * BLOCK
    }

    /// Bytes that a store needs beside its indexes and a log of so many bytes: for tables, and to be held back.
    pub(crate) fn bytes_beside(&self, log: u64) -> u64 {
        let tables = self.writer.space.extents().filter(|extent| extent.kind == ExtentKind::Table);
        let needs = Needs::of_log(log / BLOCK, self.writer.longest);
        (needs.blocks() + REGION_RESERVE) * BLOCK + tables.map(Extent::len).sum::<u64>()
    }

    /// Holds a block back before the regions are built anew: the record that begins a new life may need an extent of
    /// its own, and in a full store they would take all there is.
    pub(crate) fn hold_a_block(&mut self) -> Result<()> {
        if self.tail()?.has_room(RECORD_HEADER) {
            return Ok(());
        }
        match self.allocate(REGION_RESERVE, ExtentKind::Reserve) {
            Ok(_) | Err(Error::Full { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Frees what [`hold_a_block`](Writing::hold_a_block) has held back.
    pub(crate) fn let_go_of_the_block(&mut self) -> Result<()> {
        match Reserve::of(&self.writer).region {
            Some(held) => self.writer.space.free(&self.engine.mapping, held.offset),
            None => Ok(()),
        }
    }
}
