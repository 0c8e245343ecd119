//! Room for records in the log, and space for everything. For regions and tables: [`regions`](super::regions). For
//! slots in an index: [`resize`](crate::engine::upkeep::resize).
//!
//! **Invariant (reserve).** A log takes another extent for what makes the store larger only when as much is held
//! back, with real space and in one piece, as all of the log takes with that extent, or room for the longest tombstone
//! there can be, whichever is less; and besides a block for a region. A record that makes the store larger leaves as
//! much room behind it as a shortcut takes that its tombstone may have. So in a store that is full, be it by a limit or
//! because its disk is, any key can be removed: its record fits into the log with that, and its tombstone is no longer.
//! A small store holds back little. Where removals and cleaning have used up what was held back, and there is no room
//! for as much again, there is less.

use crate::engine::Engine;
use crate::engine::state::writer::Writer;
use crate::error::{Error, Result};
use crate::file::layout::{
    BLOCK, EXTENTS, ExtentKind, JUMP_LEN, Kind, MAX_KEY_LEN, RECORD_HEADER, align_block, flags, record_len,
};
use crate::file::log::Tail;
use crate::file::space::Extent;

/// The most that is held back for the log of a full store: room for at least one tombstone, whatever its key.
const LOG_RESERVE: u64 = 18;

/// What the tombstone of a record may have and the record has not.
const SHORTCUT_LEN: u64 = flags::SHORTCUT as u64;

/// What is held back for a full store to be cleared: a region.
pub(super) const REGION_RESERVE: u64 = 1;

const _: () = assert!(LOG_RESERVE * BLOCK >= record_len(MAX_KEY_LEN as u64, 0) + JUMP_LEN);

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

impl Engine {
    /// Takes an extent, of space that is not needed any more if there is some. If there is room nowhere else, what
    /// waits for a checkpoint gets one.
    pub(crate) fn allocate(&self, writer: &mut Writer, blocks: u64, kind: ExtentKind, seq: u64) -> Result<Extent> {
        self.reclaim(writer)?;
        match writer.space.allocate(&self.region, blocks, kind, seq) {
            Err(full @ Error::Full { .. }) if writer.waiting.checkpoint > 0 => {
                // Why it could not be taken shows elsewhere; what is to be said here is that the store is full.
                if self.checkpoint_in_turn(writer, self.settings.lock_timeout).is_err() {
                    return Err(full);
                }
                self.reclaim(writer)?;
                writer.space.allocate(&self.region, blocks, kind, seq)
            }
            taken => taken,
        }
    }

    /// Sees to it that a record of `len` bytes fits at the tail, which jumps to another extent if it does not fit
    /// into this one; says whether it did.
    #[inline]
    pub(crate) fn make_log_room(
        &self,
        writer: &mut Writer,
        tail: &mut Tail,
        len: u64,
        seq: u64,
        room: Room,
    ) -> Result<bool> {
        let len = if room == Room::Growth { len.saturating_add(SHORTCUT_LEN) } else { len };
        if tail.has_room(len) && (room != Room::Growth || !writer.on_reserve) {
            return Ok(false);
        }
        self.leave_extent(writer, tail, len, seq, room)
    }

    /// Goes on in another extent, in any case.
    #[cold]
    pub(crate) fn leave_extent(
        &self,
        writer: &mut Writer,
        tail: &mut Tail,
        len: u64,
        seq: u64,
        room: Room,
    ) -> Result<bool> {
        if writer.on_reserve && room == Room::Growth {
            // There may be room again, for a new reserve; then this extent is one like any other.
            self.keep_reserve(writer, 0, seq)?;
            if self.region.check_limit(0, 0, writer.extent.1).is_ok() {
                writer.space.set_kind(&self.region, writer.extent.0, ExtentKind::Log, seq)?;
                writer.on_reserve = false;
                if tail.has_room(len) {
                    return Ok(false);
                }
            }
        }
        let needed = len.saturating_add(JUMP_LEN);
        let usual = match writer.run {
            Some((least, most)) if needed <= most => writer.space.lowest_run(align_block(needed).max(least), most),
            _ => writer.space.log_extent_len(needed, self.settings.limits.log_extents()),
        };
        let mut taken = self.allocate_log(writer, needed, usual, room, seq);
        let within = taken.is_ok();
        if room != Room::Growth && matches!(taken, Err(Error::Full { .. })) {
            taken = match self.open_reserve(writer, needed, seq)? {
                Some(reserve) => Ok(reserve),
                None if writer.exceeds => {
                    let excess = self.excess_for(writer, room, needed);
                    self.region.exceeding(excess, || self.allocate_log(writer, needed, usual, room, seq))
                }
                None => taken,
            };
        }
        let extent = taken?;
        let jumped = (|| {
            if within {
                // There was room, so what was held back and used up may be held back again; if not, then not.
                match self.keep_reserve(writer, 0, seq) {
                    Ok(()) | Err(Error::Full { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            tail.jump(&self.region, seq, extent.offset, extent.end())
        })();
        if let Err(error) = jumped {
            self.return_extent(writer, &extent, seq)?;
            return Err(error);
        }
        writer.enter(&self.region, extent);
        writer.on_reserve |= !within;
        Ok(true)
    }

    /// Takes an extent of the log: of the usual length, or if there is no room for that, of what is needed.
    fn allocate_log(&self, writer: &mut Writer, needed: u64, usual: u64, room: Room, seq: u64) -> Result<Extent> {
        let mut take = |len: u64| {
            if room == Room::Growth {
                self.keep_reserve(writer, len / BLOCK, seq)?;
            }
            self.allocate(writer, len / BLOCK, ExtentKind::Log, seq)
        };
        match take(usual) {
            Err(Error::Full { .. }) if align_block(needed) < usual => take(align_block(needed)),
            taken => taken,
        }
    }

    /// Takes a step that needs room: within the limit if it can be. Only what makes the store smaller may exceed it.
    #[inline]
    pub(crate) fn exceeding_at_last<R>(
        &self,
        writer: &mut Writer,
        room: Room,
        mut step: impl FnMut(&mut Writer) -> Result<R>,
    ) -> Result<R> {
        match step(writer) {
            Err(Error::Full { .. }) if room != Room::Growth => {}
            done => return done,
        }
        writer.exceeds = true;
        let done = step(writer);
        writer.exceeds = false;
        done
    }

    /// By how many bytes a full store may exceed its limit, so that it can be made smaller. When removals have come
    /// that far, the log is cleaned, for which there has to be room for what one step of that moves.
    pub(super) fn excess_for(&self, writer: &Writer, room: Room, needed: u64) -> u64 {
        if !writer.exceeds {
            return 0;
        }
        let usual = writer.space.log_extent_len(0, self.settings.limits.log_extents());
        // What cleaning has moved along the whole log may lie less densely than it did.
        let less_dense = writer.space.used_bytes() / 8;
        let of_removals = usual + LOG_RESERVE * BLOCK + less_dense;
        match room {
            Room::Growth => 0,
            Room::Removal => of_removals,
            Room::Cleaning => {
                let step = usual + self.settings.limits.most_bytes + align_block(needed);
                of_removals + step + less_dense
            }
        }
    }

    /// Whether there is room for a removal, whatever its key.
    pub(crate) fn has_room_to_remove(&self, writer: &Writer) -> bool {
        let excess = self.excess_for(writer, Room::Removal, 0);
        let (free, _) = writer.space.lowest(LOG_RESERVE * BLOCK);
        let (used, end) = (EXTENTS + writer.space.used_bytes() + LOG_RESERVE * BLOCK, free + LOG_RESERVE * BLOCK);
        self.region.exceeding(excess, || self.region.check_limit(0, used, end)).is_ok()
    }

    /// Makes the reserve the next extent of the log, if it is there and long enough.
    fn open_reserve(&self, writer: &mut Writer, needed: u64, seq: u64) -> Result<Option<Extent>> {
        let Some(held) = self.reserve(writer).log.filter(|held| needed <= held.len()) else { return Ok(None) };
        writer.space.set_kind(&self.region, held.offset, ExtentKind::ReserveLog, seq)?;
        Ok(writer.space.extent(held.offset).copied())
    }

    /// Sets space aside that only a full store may use, if there is not as much as there has to be when the log gets so
    /// many blocks more.
    pub(crate) fn keep_reserve(&self, writer: &mut Writer, more: u64, seq: u64) -> Result<()> {
        let wanted = log_reserve(writer, more);
        let held = self.reserve(writer);
        if held.region.is_none() {
            self.allocate(writer, REGION_RESERVE, ExtentKind::Reserve, seq)?;
        }
        if held.log.is_none_or(|log| log.blocks < wanted) {
            self.allocate(writer, wanted, ExtentKind::Reserve, seq)?;
            // Not before: where there is no room for a longer one, the shorter one stays.
            self.give_up_reserve(writer, held.log)?;
        }
        Ok(())
    }

    /// Bytes that a store needs beside its indexes and a log of so many bytes: for tables, and to be held back.
    pub(crate) fn bytes_beside(&self, writer: &Writer, log: u64) -> u64 {
        let tables = writer.space.extents().filter(|extent| extent.kind == ExtentKind::Table);
        (reserve_of_log(log / BLOCK) + REGION_RESERVE) * BLOCK + tables.map(Extent::len).sum::<u64>()
    }

    pub(super) fn give_up_reserve(&self, writer: &mut Writer, held: Option<Extent>) -> Result<()> {
        held.map_or(Ok(()), |held| writer.space.free(&self.region, held.offset))
    }

    /// Holds a block back before the regions are built anew: the record that begins a new life may need an extent of
    /// its own, and in a full store they would take all there is.
    pub(crate) fn hold_a_block(&self, seq: u64) -> Result<()> {
        let mut writer = self.writer();
        if self.tail(&writer)?.has_room(RECORD_HEADER) {
            return Ok(());
        }
        match self.allocate(&mut writer, REGION_RESERVE, ExtentKind::Reserve, seq) {
            Ok(_) | Err(Error::Full { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Frees what [`hold_a_block`](Engine::hold_a_block) has held back.
    pub(crate) fn let_go_of_the_block(&self, writer: &mut Writer) -> Result<()> {
        let held = self.reserve(writer).region;
        self.give_up_reserve(writer, held)
    }

    /// What is held back.
    pub(super) fn reserve(&self, writer: &Writer) -> Reserve {
        let mut reserve = Reserve::default();
        for extent in writer.space.extents().filter(|extent| extent.kind == ExtentKind::Reserve) {
            if extent.blocks == REGION_RESERVE && reserve.region.is_none() {
                reserve.region = Some(*extent);
            } else if reserve.log.is_none_or(|log| log.blocks < extent.blocks) {
                reserve.log = Some(*extent);
            }
        }
        reserve
    }

    /// Gives back an extent that nobody has put to use.
    pub(super) fn return_extent(&self, writer: &mut Writer, extent: &Extent, seq: u64) -> Result<()> {
        match extent.kind {
            ExtentKind::ReserveLog => writer.space.set_kind(&self.region, extent.offset, ExtentKind::Reserve, seq),
            _ => writer.space.free(&self.region, extent.offset),
        }
    }
}

/// The extents that are held back for a full store.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reserve {
    pub(super) log: Option<Extent>,
    pub(super) region: Option<Extent>,
}

/// How many blocks have to be held back for a log that gets so many blocks more.
pub(super) fn log_reserve(writer: &Writer, more: u64) -> u64 {
    reserve_of_log((writer.space.log_bytes() / BLOCK).saturating_add(more))
}

/// How many blocks have to be held back for a log of so many.
fn reserve_of_log(blocks: u64) -> u64 {
    blocks.clamp(1, LOG_RESERVE)
}
